//! The stored data of the transactional API, and how commands look things up in it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bytes::Bytes;
use tikv_core::key::{Key, KeyRange};
use tikv_core::timestamp::Timestamp;

use super::batch::{Batch, Modify};
use super::errors::Error;
use super::journal::{Change, Journal};
use super::lock::{KeyLock, Lock, LockKind, LockRef};
use super::write::{LastChange, SEEK_BOUND, Write, WriteKind};

#[cfg(test)]
mod tests;

/// All that is stored of one key: its row of the column families lock, write and default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Record {
    pub(super) lock: Option<KeyLock>,
    /// By commit_ts, newest first.
    pub(super) writes: BTreeMap<Reverse<Timestamp>, Write>,
    /// Values that are too long for a lock or a write record, by start_ts.
    pub(super) values: BTreeMap<Timestamp, Bytes>,
}

impl Record {
    fn is_empty(&self) -> bool {
        self.lock.is_none() && self.writes.is_empty() && self.values.is_empty()
    }

    /// Versions with commit_ts at or below `ts`, newest first.
    pub(super) fn versions(&self, ts: Timestamp) -> impl Iterator<Item = (Timestamp, &Write)> {
        self.writes.range(Reverse(ts)..).map(|(commit_ts, write)| (commit_ts.0, write))
    }
}

/// The newest Put at or below some timestamp.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DataVersion<'a> {
    pub(super) found: Option<(Timestamp, &'a Write)>,
    /// Records without data that were stepped over on the way.
    pub(super) steps: u64,
}

/// How a transaction ended on a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum CommitRecord<'a> {
    /// No trace; perhaps another transaction's record lies exactly where a rollback would go.
    None {
        overlapped: Option<OverlappedWrite<'a>>,
    },
    Single {
        commit_ts: Timestamp,
        write: &'a Write,
    },
    /// Rolled back, as another transaction's record tells.
    OverlappedRollback,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct OverlappedWrite<'a> {
    pub(super) write: &'a Write,
    pub(super) gc_fence: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Data {
    pub(super) records: BTreeMap<Key, Record>,
    /// Pessimistic locks that were never written to the lock column family.
    pub(super) memory_locks: BTreeMap<Key, Lock>,
    pub(super) journal: Journal,
}

impl Data {
    /// The lock of a key as commands see it: one in memory hides one that is stored.
    pub(super) fn lock(&self, key: &Key) -> Option<LockRef<'_>> {
        let stored = || self.stored_lock(key).map(KeyLock::as_ref);
        self.memory_locks.get(key).map(LockRef::Exclusive).or_else(stored)
    }

    /// The lock of a key as reads see it.
    pub(super) fn stored_lock(&self, key: &Key) -> Option<&KeyLock> {
        self.records.get(key)?.lock.as_ref()
    }

    /// Versions of a key with commit_ts at or below `ts`, newest first.
    pub(super) fn versions(&self, key: &Key, ts: Timestamp) -> impl Iterator<Item = (Timestamp, &Write)> {
        self.records.get(key).into_iter().flat_map(move |record| record.versions(ts))
    }

    /// The newest version with commit_ts at or below `ts`.
    pub(super) fn seek_write(&self, key: &Key, ts: Timestamp) -> Option<(Timestamp, &Write)> {
        self.versions(key, ts).next()
    }

    /// The newest Put at or below `ts`, unless a Delete or a [`Write::gc_fence`] up to `read_ts` ends the search.
    pub(super) fn data_version(&self, key: &Key, ts: Timestamp, read_ts: Timestamp) -> DataVersion<'_> {
        let Some(record) = self.records.get(key) else { return DataVersion::default() };
        let mut steps = 0;
        let mut versions = record.versions(ts);
        let mut next = versions.next();
        while let Some((commit_ts, write)) = next {
            if !write.is_valid_at(read_ts) {
                break;
            }
            match (write.kind, write.last_change) {
                (WriteKind::Put, _) => return DataVersion { found: Some((commit_ts, write)), steps },
                (WriteKind::Delete, _) | (_, LastChange::NotExist) => break,
                (_, LastChange::Exist { commit_ts, versions }) if versions >= SEEK_BOUND => {
                    next = record.writes.get(&Reverse(commit_ts)).filter(|w| w.is_data()).map(|w| (commit_ts, w));
                }
                _ => {
                    steps += 1;
                    next = versions.next();
                }
            }
        }
        DataVersion { found: None, steps }
    }

    /// What a record without data that goes on top of `write` should point to. TiKV: `next_last_change_info`.
    pub(super) fn next_last_change(
        &self,
        key: &Key,
        commit_ts: Timestamp,
        write: &Write,
        start_ts: Timestamp,
    ) -> LastChange {
        if write.is_data() {
            return LastChange::Exist { commit_ts, versions: 1 };
        }
        match write.last_change {
            LastChange::Exist { commit_ts, versions } => LastChange::Exist { commit_ts, versions: versions + 1 },
            LastChange::NotExist => LastChange::NotExist,
            LastChange::Unknown => {
                let DataVersion { found, steps } = self.data_version(key, commit_ts, start_ts);
                found
                    .map_or(LastChange::NotExist, |(commit_ts, _)| LastChange::Exist { commit_ts, versions: steps + 1 })
            }
        }
    }

    /// The value that a Put stands for.
    pub(super) fn value(&self, key: &Key, write: &Write) -> Result<Bytes, Error> {
        self.long_or_short_value(key, write.start_ts, write.short_value.as_ref())
    }

    /// The value that a lock of kind Put stands for.
    pub(super) fn locked_value(&self, key: &Key, lock: &Lock) -> Result<Bytes, Error> {
        self.long_or_short_value(key, lock.start_ts, lock.short_value.as_ref())
    }

    fn long_or_short_value(&self, key: &Key, start_ts: Timestamp, short: Option<&Bytes>) -> Result<Bytes, Error> {
        let long = || self.records.get(key).and_then(|record| record.values.get(&start_ts));
        short.or_else(long).cloned().ok_or_else(|| Error::DefaultNotFound { key: key.clone() })
    }

    /// Looks for the end of the transaction among all versions from the newest down to start_ts: in pessimistic
    /// transactions a smaller start_ts may come with a larger commit_ts.
    pub(super) fn commit_record(&self, key: &Key, start_ts: Timestamp) -> CommitRecord<'_> {
        let mut gc_fence = Timestamp::ZERO;
        for (commit_ts, write) in self.versions(key, Timestamp::MAX) {
            if write.start_ts == start_ts {
                return CommitRecord::Single { commit_ts, write };
            }
            if commit_ts == start_ts && write.has_overlapped_rollback {
                return CommitRecord::OverlappedRollback;
            }
            if commit_ts == start_ts {
                return CommitRecord::None { overlapped: Some(OverlappedWrite { write, gc_fence }) };
            }
            if commit_ts < start_ts {
                break;
            }
            if write.is_data() {
                gc_fence = commit_ts;
            }
        }
        CommitRecord::None { overlapped: None }
    }

    /// The stored records of a range, by key.
    pub(super) fn range(&self, range: &KeyRange) -> impl DoubleEndedIterator<Item = (&Key, &Record)> {
        bounded(&self.records, range)
    }

    /// The smallest start_ts of the locks in a range that stand for a change. Shared locks never do.
    pub(super) fn oldest_prewrite(&self, range: &KeyRange) -> Option<Timestamp> {
        let locks = self.range(range).filter_map(|(_, record)| record.lock.as_ref()?.exclusive());
        let changes = locks.filter(|lock| matches!(lock.kind, LockKind::Put | LockKind::Delete));
        changes.map(|lock| lock.start_ts).min()
    }

    /// The pessimistic locks in memory within a range, by key.
    pub(super) fn memory_range(&self, range: &KeyRange) -> impl DoubleEndedIterator<Item = (&Key, &Lock)> {
        bounded(&self.memory_locks, range)
    }

    /// Makes the changes of a command. Its pessimistic locks stay in memory if `in_memory`. Whatever else is written to a
    /// key's lock, also its removal, ends the one in memory.
    pub(super) fn apply(&mut self, batch: Batch, in_memory: bool) {
        for modify in batch.modifies {
            match modify {
                Modify::PutLock(key, lock) => {
                    self.journal.add_lock(&key, lock.exclusive());
                    self.memory_locks.remove(&key);
                    self.records.entry(key).or_default().lock = Some(lock);
                }
                Modify::DeleteLock(key) => {
                    self.journal.add(|| Change::Unlocked { key: key.clone() });
                    self.memory_locks.remove(&key);
                    self.edit(&key, |record| record.lock = None);
                }
                Modify::PessimisticLock(key, lock) if in_memory => {
                    self.journal.add_lock(&key, Some(&lock));
                    self.memory_locks.insert(key, lock);
                }
                Modify::PessimisticLock(key, lock) => {
                    self.journal.add_lock(&key, Some(&lock));
                    self.records.entry(key).or_default().lock = Some(KeyLock::Exclusive(lock));
                }
                Modify::PutValue(key, start_ts, value) => {
                    self.records.entry(key).or_default().values.insert(start_ts, value);
                }
                Modify::DeleteValue(key, start_ts) => self.edit(&key, |record| {
                    record.values.remove(&start_ts);
                }),
                Modify::PutWrite(key, commit_ts, write) => {
                    let record = self.records.entry(key.clone()).or_default();
                    let replaced = record.writes.insert(Reverse(commit_ts), write.clone());
                    self.journal.add_write(&key, commit_ts, &write, replaced.as_ref());
                }
                Modify::DeleteWrite(key, commit_ts) => self.edit(&key, |record| {
                    record.writes.remove(&Reverse(commit_ts));
                }),
            }
        }
    }

    /// Changes the record of a key, if there is one, and drops it when nothing is left.
    fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.records.get_mut(key) {
            change(record);
            if record.is_empty() {
                self.records.remove(key);
            }
        }
    }

    /// Stores the locks of a range that are in memory.
    pub(super) fn persist_memory_locks(&mut self, range: &KeyRange) {
        let keys: Vec<Key> = self.memory_range(range).map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some(lock) = self.memory_locks.remove(&key) {
                self.records.entry(key).or_default().lock = Some(KeyLock::Exclusive(lock));
            }
        }
    }

    /// Forgets the pessimistic locks of a range that are only in memory.
    pub(super) fn drop_memory_locks(&mut self, range: &KeyRange) {
        let keys: Vec<Key> = self.memory_range(range).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.memory_locks.remove(&key);
            if self.stored_lock(&key).is_none() {
                self.journal.add(|| Change::Unlocked { key });
            }
        }
    }

    /// Deletes everything stored in a range, but not the locks in memory.
    pub(super) fn delete_range(&mut self, range: &KeyRange) {
        self.records.retain(|key, _| !range.contains(key.as_slice()));
    }
}

fn bounded<'a, V>(map: &'a BTreeMap<Key, V>, range: &KeyRange) -> impl DoubleEndedIterator<Item = (&'a Key, &'a V)> {
    use std::ops::Bound::{Excluded, Included, Unbounded};

    let end = if range.end.is_empty() { Unbounded } else { Excluded(&range.end) };
    let rows = (!range.is_empty()).then(|| map.range::<Key, _>((Included(&range.start), end)));
    rows.into_iter().flatten()
}
