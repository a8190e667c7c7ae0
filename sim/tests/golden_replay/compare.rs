//! Whether two answers agree.
//!
//! Texts are debug output of a Rust program: only the name of the error and its reason count. Shared locks come in no
//! particular order, and the one that MvccGetByKey shows may be any of them.

use std::fmt;

use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, ReflectMessage, Value};
use tikv_core::key::KeyRange;
use tikv_proto::kvrpcpb::{LockInfo, MvccLock, Op, ScanLockRequest};
use tikv_sim::storage::{Outcome, Storage};

/// A field that differs.
#[derive(Debug)]
pub(super) struct Difference {
    path: String,
    expected: String,
    actual: String,
}

impl Difference {
    pub(super) fn refused(reason: String) -> Self {
        Difference { path: "the request".to_owned(), expected: "an answer".to_owned(), actual: reason }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, got {}", self.path, self.expected, self.actual)
    }
}

/// All fields in which `actual`, an answer of `storage`, differs.
pub(super) fn compare(expected: &DynamicMessage, actual: &DynamicMessage, storage: &Storage) -> Vec<Difference> {
    let mut comparison = Comparison { storage, path: Vec::new(), differences: Vec::new() };
    comparison.messages(expected, actual);
    comparison.differences
}

struct Comparison<'a> {
    storage: &'a Storage,
    path: Vec<String>,
    differences: Vec<Difference>,
}

impl Comparison<'_> {
    fn messages(&mut self, expected: &DynamicMessage, actual: &DynamicMessage) {
        if expected.descriptor().name() == "MvccLock" && self.is_another_shared_lock(expected, actual) {
            return;
        }
        for field in expected.descriptor().fields() {
            self.path.push(field.name().to_owned());
            self.fields(&field, expected, actual);
            self.path.pop();
        }
    }

    fn fields(&mut self, field: &FieldDescriptor, expected: &DynamicMessage, actual: &DynamicMessage) {
        if expected.has_field(field) != actual.has_field(field) {
            let show = |message: &DynamicMessage| {
                if message.has_field(field) { show(&message.get_field(field)) } else { "nothing".to_owned() }
            };
            self.differ(show(expected), show(actual));
            return;
        }
        match (expected.get_field(field).as_ref(), actual.get_field(field).as_ref()) {
            (Value::List(expected), Value::List(actual)) => self.lists(field, expected, actual),
            (expected, actual) => self.values(expected, actual),
        }
    }

    fn lists(&mut self, field: &FieldDescriptor, expected: &[Value], actual: &[Value]) {
        let (mut expected, mut actual) = (expected.to_vec(), actual.to_vec());
        if expected.len() != actual.len() {
            return self.differ(show_list(&expected), show_list(&actual));
        }
        if field.name() == "shared_lock_infos" {
            expected.sort_by_key(lock_version);
            actual.sort_by_key(lock_version);
        }
        for (index, (expected, actual)) in expected.iter().zip(&actual).enumerate() {
            self.path.push(index.to_string());
            self.values(expected, actual);
            self.path.pop();
        }
    }

    fn values(&mut self, expected: &Value, actual: &Value) {
        match (expected, actual) {
            (Value::Message(expected), Value::Message(actual)) => self.messages(expected, actual),
            (Value::String(expected), Value::String(actual)) => {
                if gist(expected) != gist(actual) && expected != "..." {
                    self.differ(expected.clone(), actual.clone());
                }
            }
            (expected, actual) if expected == actual => {}
            (expected, actual) => self.differ(show(expected), show(actual)),
        }
    }

    fn differ(&mut self, expected: String, actual: String) {
        self.differences.push(Difference { path: self.path.join("."), expected, actual });
    }

    /// Whether both are shared locks of the same key.
    fn is_another_shared_lock(&self, expected: &DynamicMessage, actual: &DynamicMessage) -> bool {
        let typed = |message: &DynamicMessage| MvccLock::decode(message.encode_to_vec().as_slice()).unwrap_or_default();
        let (expected, actual) = (typed(expected), typed(actual));
        let has = |locks: &[LockInfo], lock: &MvccLock| locks.iter().any(|info| shows(lock, info));
        let is_shared_by_both = |locks: &Vec<LockInfo>| has(locks, &expected) && has(locks, &actual);
        expected.start_ts != actual.start_ts && self.shared_locks().iter().any(is_shared_by_both)
    }

    /// The shared locks of each key that has some.
    fn shared_locks(&self) -> Vec<Vec<LockInfo>> {
        let request = ScanLockRequest { max_version: u64::MAX, ..ScanLockRequest::default() };
        let Outcome::Answer(answer) = self.storage.clone().handle(&KeyRange::ALL, &request).outcome else {
            return Vec::new();
        };
        let shared = answer.locks.into_iter().filter(|lock| lock.lock_type() == Op::SharedLock);
        shared.map(|lock| lock.shared_lock_infos).collect()
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Message(message) => {
            let fields = message.fields().map(|(field, value)| format!("{}: {}", field.name(), show(value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::List(items) => show_list(items),
        Value::EnumNumber(number) => number.to_string(),
        Value::U64(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Bytes(bytes) => format!("{bytes:?}"),
        other => format!("{other:?}"),
    }
}

fn show_list(items: &[Value]) -> String {
    format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", "))
}

/// Whether a lock of MvccGetByKey is this one.
fn shows(lock: &MvccLock, info: &LockInfo) -> bool {
    (lock.start_ts, &lock.primary, lock.r#type) == (info.lock_version, &info.primary_lock, info.lock_type)
}

fn lock_version(lock: &Value) -> u64 {
    let version = lock.as_message().and_then(|lock| lock.get_field_by_name("lock_version")?.as_u64());
    version.unwrap_or_default()
}

/// What counts of a text: the name of the error that is printed there, and its reason.
///
/// ```text
///   Error(Txn(Error(Mvcc(Error(PessimisticLockNotFound { start_ts: .., key: .., reason: LockTsMismatch })))))
///   Error(Txn(Error(Mvcc(Error(Other("[src/storage/..]: cannot handle checkNotExists ..."))))))
///   "[components/..]: invalid delete range command, start_key: .., end_key: .."
/// ```
fn gist(text: &str) -> (&str, Option<&str>) {
    let name = if text.starts_with("Error(") {
        text.split([' ', '"']).next()
    } else {
        // The place in the source comes first, what follows the comma are values.
        text.rsplit("]: ")
            .find(|part| !part.is_empty())
            .and_then(|message| message.split([',', '"']).find(|part| !part.is_empty()))
    };
    let reason = text.split_once("reason: ").map(|(_, reason)| reason.trim_end_matches([' ', '}', ')']));
    (name.unwrap_or_default(), reason)
}
