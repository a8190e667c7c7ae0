//! What happened to the data, change by change, for whoever watches the truth instead of asking for it.

use bytes::Bytes;
use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::Op;

use super::lock::Lock;
use super::write::{Write, WriteKind};

/// A change of the stored data. See [`Storage::enable_journal`](super::Storage::enable_journal).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The key has a lock now, where it may have had another one before.
    Locked {
        /// The key.
        key: Key,
        /// The transaction that locked it; zero for several, which share it.
        start_ts: Timestamp,
        /// Until when a pessimistic transaction has seen what others commit; zero of others.
        for_update_ts: Timestamp,
        /// If the lock is one of an async commit: its min_commit_ts.
        async_commit: Option<Timestamp>,
    },
    /// The key has no lock any more.
    Unlocked {
        /// The key.
        key: Key,
    },
    /// A transaction has ended on the key.
    Ended {
        /// The key.
        key: Key,
        /// The transaction.
        start_ts: Timestamp,
        /// When it committed; its start_ts if it was rolled back.
        commit_ts: Timestamp,
        /// `Put`, `Del`, `Lock`, or `Rollback`.
        op: Op,
    },
    /// A raw key has another value, or none.
    RawWritten {
        /// The key.
        key: Key,
        /// Its value.
        value: Option<Bytes>,
    },
}

/// The changes since they were last taken; nothing is kept unless somebody wants it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Journal(Option<Vec<Change>>);

impl Journal {
    pub(super) fn enable(&mut self) {
        self.0.get_or_insert_default();
    }

    pub(super) fn take(&mut self, into: &mut Vec<Change>) {
        if let Some(changes) = &mut self.0 {
            into.append(changes);
        }
    }

    pub(super) fn add(&mut self, change: impl FnOnce() -> Change) {
        if let Some(changes) = &mut self.0 {
            changes.push(change());
        }
    }

    /// `lock`: unless it is shared.
    pub(super) fn add_lock(&mut self, key: &Key, lock: Option<&Lock>) {
        self.add(|| {
            let (start_ts, for_update_ts) = lock.map(|lock| (lock.start_ts, lock.for_update_ts)).unwrap_or_default();
            let async_commit = lock.filter(|lock| lock.use_async_commit).map(|lock| lock.min_commit_ts);
            Change::Locked { key: key.clone(), start_ts, for_update_ts, async_commit }
        });
    }

    /// `replaced` is the record that was there before. One that only gets another flag is nothing new, unless the flag says that
    /// the transaction which began at that timestamp is rolled back.
    pub(super) fn add_write(&mut self, key: &Key, commit_ts: Timestamp, write: &Write, replaced: Option<&Write>) {
        if let Some(old) = replaced.filter(|old| old.start_ts == write.start_ts && old.kind == write.kind) {
            if write.has_overlapped_rollback && !old.has_overlapped_rollback {
                let start_ts = commit_ts;
                self.add(|| Change::Ended { key: key.clone(), start_ts, commit_ts, op: Op::Rollback });
            }
            return;
        }
        let op = match write.kind {
            WriteKind::Put => Op::Put,
            WriteKind::Delete => Op::Del,
            WriteKind::Lock => Op::Lock,
            WriteKind::Rollback => Op::Rollback,
        };
        self.add(|| Change::Ended { key: key.clone(), start_ts: write.start_ts, commit_ts, op });
    }
}
