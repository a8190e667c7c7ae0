//! Reading requests and telling faults apart.

use std::ops::Bound;
use std::time::Duration;

use serde_json::Value;
use tikv_client::{BoundRange, Error, Key};

use crate::DEFAULT_TIMEOUT;

/// The fields of an answer, or why there are none.
pub type Outcome = Result<Value, Fault>;

/// An error as the protocol has it.
#[derive(Debug)]
pub struct Fault {
    pub kind: &'static str,
    pub message: String,
}

impl Fault {
    pub fn other(message: impl ToString) -> Self {
        Self { kind: "other", message: message.to_string() }
    }

    pub fn unsupported(message: impl ToString) -> Self {
        Self { kind: "unsupported", message: message.to_string() }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self { kind: kind_of(&error), message: error.to_string() }
    }
}

/// tikv-client hands most key errors through as they came; a conflict is found by looking for it in all of them.
fn kind_of(error: &Error) -> &'static str {
    match error {
        Error::UndeterminedError(_) => "undetermined",
        Error::KeyError(key_error) => {
            let conflict = key_error.conflict.is_some()
                || !key_error.retryable.is_empty()
                || !key_error.abort.is_empty()
                || key_error.deadlock.is_some()
                || key_error.txn_not_found.is_some();
            if conflict { "conflict" } else { "other" }
        }
        Error::ExtractedErrors(errors) | Error::MultipleKeyErrors(errors) => {
            let kinds: Vec<_> = errors.iter().map(kind_of).collect();
            ["undetermined", "conflict", "timeout"].into_iter().find(|kind| kinds.contains(kind)).unwrap_or("other")
        }
        Error::PessimisticLockError { inner, .. } => kind_of(inner),
        Error::ResolveLockError(_) => "timeout",
        _ => "other",
    }
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// One line from stdin.
pub struct Request {
    pub id: u64,
    pub cmd: String,
    fields: Value,
}

impl Request {
    pub fn parse(line: &str) -> Option<Self> {
        let fields: Value = serde_json::from_str(line).ok()?;
        Some(Self { id: fields["id"].as_u64()?, cmd: fields["cmd"].as_str()?.to_owned(), fields })
    }

    pub fn timeout(&self) -> Duration {
        self.fields["timeout_ms"].as_u64().map_or(DEFAULT_TIMEOUT, Duration::from_millis)
    }

    pub fn text(&self, name: &str) -> &str {
        self.fields[name].as_str().unwrap_or_default()
    }

    pub fn number(&self, name: &str) -> u64 {
        self.fields[name].as_u64().unwrap_or_default()
    }

    pub fn flag(&self, name: &str) -> bool {
        self.fields[name].as_bool().unwrap_or_default()
    }

    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, Fault> {
        self.optional_bytes(name)?.ok_or_else(|| Fault::other(format!("{name} is missing")))
    }

    /// `None` where the field is null or absent.
    pub fn optional_bytes(&self, name: &str) -> Result<Option<Vec<u8>>, Fault> {
        match &self.fields[name] {
            Value::Null => Ok(None),
            value => decode(value).map(Some),
        }
    }

    pub fn list(&self, name: &str) -> Result<Vec<Vec<u8>>, Fault> {
        self.fields[name].as_array().into_iter().flatten().map(decode).collect()
    }

    pub fn pairs(&self) -> Result<Vec<Pair>, Fault> {
        let pairs = self.fields["pairs"].as_array().into_iter().flatten();
        pairs.map(|pair| Ok((decode(&pair[0])?, decode(&pair[1])?))).collect()
    }

    pub fn range(&self) -> Result<BoundRange, Fault> {
        let start = Bound::Included(Key::from(self.bytes("start")?));
        let end = match self.bytes("end")? {
            end if end.is_empty() => Bound::Unbounded,
            end => Bound::Excluded(Key::from(end)),
        };
        Ok(BoundRange::from((start, end)))
    }

    pub fn limit(&self) -> u32 {
        u32::try_from(self.number("limit")).unwrap_or(u32::MAX)
    }
}

fn decode(value: &Value) -> Result<Vec<u8>, Fault> {
    let text = value.as_str().ok_or_else(|| Fault::other("hex expected"))?;
    hex::decode(text).map_err(Fault::other)
}
