//! What a snapshot has read before.

use std::collections::{BTreeMap, VecDeque};

use super::Value;
use crate::key::Key;
use crate::timestamp::Timestamp;

/// Values that a snapshot has read, absent ones included, up to a number of bytes; the oldest are forgotten first.
///
/// Of use because a snapshot always answers the same. The newest version ([`Timestamp::MAX`]) does not: nothing is kept
/// then.
///
/// client-go: `KVSnapshot.mu.cached`, `UpdateSnapshotCache`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotCache {
    read_ts: Timestamp,
    limit_bytes: usize,
    bytes: usize,
    entries: BTreeMap<Key, Entry>,
    /// Keys in the order of their arrival; one that was replaced or removed since is there with an old number.
    order: VecDeque<(u64, Key)>,
    arrivals: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    value: Option<Value>,
    /// Its place in the order.
    arrival: u64,
}

impl SnapshotCache {
    /// An empty cache of a snapshot at `read_ts`, for at most `limit_bytes` of keys and values.
    #[must_use]
    pub fn new(read_ts: Timestamp, limit_bytes: usize) -> Self {
        SnapshotCache { read_ts, limit_bytes, bytes: 0, entries: BTreeMap::new(), order: VecDeque::new(), arrivals: 0 }
    }

    /// The snapshot reads at another timestamp from now on: everything is forgotten.
    pub fn set_read_ts(&mut self, read_ts: Timestamp) {
        if read_ts != self.read_ts {
            *self = SnapshotCache::new(read_ts, self.limit_bytes);
        }
    }

    /// What is known of `key`: `Some(None)` if it has no value, `None` if it has to be read. A value without its commit
    /// timestamp does not serve a read that needs it; one with it is given without to a read that does not.
    #[must_use]
    pub fn get(&self, key: &Key, need_commit_ts: bool) -> Option<Option<Value>> {
        match &self.entries.get(key)?.value {
            None => Some(None),
            Some(value) if need_commit_ts => value.commit_ts.map(|_| Some(value.clone())),
            Some(value) => Some(Some(Value { commit_ts: None, ..value.clone() })),
        }
    }

    /// Remembers what was read at `read_ts`; nothing if that is not the snapshot's timestamp.
    pub fn insert(&mut self, read_ts: Timestamp, key: Key, value: Option<Value>) {
        if read_ts != self.read_ts || read_ts == Timestamp::MAX {
            return;
        }
        self.remove(&key);
        self.arrivals += 1;
        self.bytes += entry_bytes(&key, value.as_ref());
        self.order.push_back((self.arrivals, key.clone()));
        self.entries.insert(key, Entry { value, arrival: self.arrivals });
        self.evict();
    }

    /// Forgets one key: it will be read again. client-go: `CleanCache`.
    pub fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry_bytes(key, entry.value.as_ref());
        }
    }

    /// How many keys are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn evict(&mut self) {
        while self.bytes > self.limit_bytes {
            let Some((arrival, key)) = self.order.pop_front() else { return };
            if self.is_current(arrival, &key) {
                self.remove(&key);
            }
        }
        if self.order.len() > 2 * self.entries.len() + 1 {
            let mut order = std::mem::take(&mut self.order);
            order.retain(|(arrival, key)| self.is_current(*arrival, key));
            self.order = order;
        }
    }

    fn is_current(&self, arrival: u64, key: &Key) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.arrival == arrival)
    }
}

fn entry_bytes(key: &Key, value: Option<&Value>) -> usize {
    key.len() + value.map_or(0, |value| value.bytes.len() + size_of::<Timestamp>())
}
