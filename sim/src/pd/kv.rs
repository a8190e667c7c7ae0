//! The key-value store inside PD (its etcd): every change has a revision, and can be watched.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tikv_core::key::{Key, KeyRange};
use tikv_proto::mvccpb::KeyValue;

/// How many changes are remembered for those who watch.
const HISTORY: usize = 4_096;

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The key as it is since; only key and revision if it was deleted.
    pub(super) entry: KeyValue,
    pub(super) is_delete: bool,
    pub(super) previous: Option<KeyValue>,
}

/// All keys, as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kv {
    revision: i64,
    entries: BTreeMap<Key, KeyValue>,
    /// By revision; the oldest ones are gone.
    changes: VecDeque<Change>,
    compacted: i64,
}

impl Default for Kv {
    fn default() -> Self {
        Kv { revision: 1, entries: BTreeMap::new(), changes: VecDeque::new(), compacted: 0 }
    }
}

/// The keys that a request names, in etcd's way: no end is one key, an end of one zero is no end.
pub(super) fn range_of(key: &Bytes, range_end: &Bytes) -> KeyRange {
    let start = Key::from(key.clone());
    match &range_end[..] {
        [] => KeyRange { end: start.next(), start },
        [0] => KeyRange { start, end: Key::EMPTY },
        _ => KeyRange { start, end: Key::from(range_end.clone()) },
    }
}

/// All keys that begin with a prefix.
pub(super) fn with_prefix(prefix: impl Into<Key>) -> KeyRange {
    let start = prefix.into();
    KeyRange { end: start.prefix_end(), start }
}

impl Kv {
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    /// The last revision whose changes are forgotten.
    pub(super) fn compacted(&self) -> i64 {
        self.compacted
    }

    pub(super) fn get(&self, key: &str) -> Option<&Bytes> {
        self.entries.get(key.as_bytes()).map(|entry| &entry.value)
    }

    pub(super) fn entry(&self, key: &[u8]) -> Option<&KeyValue> {
        self.entries.get(key)
    }

    pub(super) fn scan<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = &'a KeyValue> {
        let rest = self.entries.range(range.start.clone()..);
        rest.take_while(|(key, _)| range.is_before_end(key.as_slice())).map(|(_, entry)| entry)
    }

    /// Begins a change of one or more keys, which share a revision.
    pub(super) fn next_revision(&mut self) -> i64 {
        self.revision += 1;
        self.revision
    }

    /// Writes a key. What was there before.
    pub(super) fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Option<KeyValue> {
        let revision = self.next_revision();
        self.put_at(revision, key.into(), value.into(), 0)
    }

    pub(super) fn put_at(&mut self, revision: i64, key: Bytes, value: Bytes, lease: i64) -> Option<KeyValue> {
        let previous = self.entry(&key).cloned();
        let (create_revision, version) =
            previous.as_ref().map_or((revision, 0), |old| (old.create_revision, old.version));
        let entry = KeyValue { key, create_revision, mod_revision: revision, version: version + 1, value, lease };
        self.entries.insert(Key::from(entry.key.clone()), entry.clone());
        self.remember(Change { entry, is_delete: false, previous: previous.clone() });
        previous
    }

    /// Deletes the keys of a range. What was there.
    pub(super) fn delete(&mut self, range: &KeyRange) -> Vec<KeyValue> {
        if self.scan(range).next().is_none() {
            return Vec::new();
        }
        let revision = self.next_revision();
        self.delete_at(revision, range)
    }

    pub(super) fn delete_at(&mut self, revision: i64, range: &KeyRange) -> Vec<KeyValue> {
        let gone: Vec<KeyValue> = self.scan(range).cloned().collect();
        for old in &gone {
            self.entries.remove(&old.key[..]);
            let entry = KeyValue { key: old.key.clone(), mod_revision: revision, ..KeyValue::default() };
            self.remember(Change { entry, is_delete: true, previous: Some(old.clone()) });
        }
        gone
    }

    fn remember(&mut self, change: Change) {
        if self.changes.len() == HISTORY {
            self.compacted = self.changes.pop_front().map_or(0, |oldest| oldest.entry.mod_revision);
        }
        self.changes.push_back(change);
    }

    /// Changes of a range from a revision on, in order.
    pub(super) fn changes_since<'a>(&'a self, range: &'a KeyRange, revision: i64) -> impl Iterator<Item = &'a Change> {
        let concerns =
            move |change: &&Change| change.entry.mod_revision >= revision && range.contains(&change.entry.key);
        self.changes.iter().filter(concerns)
    }
}
