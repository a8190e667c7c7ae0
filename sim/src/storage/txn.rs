//! A write command at work: the data as it was when the command started, and the changes collected so far.

use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;

use super::batch::Batch;
use super::data::Data;
use super::lock::{KeyLock, LockRef};

/// The largest timestamp that any read on this store has used, which a calculated commit_ts must exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct MaxTs(Timestamp);

impl MaxTs {
    pub(super) fn get(self) -> Timestamp {
        self.0
    }

    /// A read at [`Timestamp::MAX`] wants the newest version and leaves no trace.
    pub(super) fn observe(&mut self, ts: Timestamp) {
        if ts != Timestamp::MAX {
            self.0 = self.0.max(ts);
        }
    }
}

#[derive(Debug)]
pub(super) struct Txn<'a> {
    pub(super) data: &'a Data,
    pub(super) max_ts: &'a mut MaxTs,
    pub(super) batch: Batch,
}

impl Txn<'_> {
    /// The transaction that the command works for.
    pub(super) fn start_ts(&self) -> Timestamp {
        self.batch.start_ts
    }

    /// The lock of a key as it was before the command.
    pub(super) fn lock(&self, key: &Key) -> Option<LockRef<'_>> {
        self.data.lock(key)
    }

    /// The lock of a key as the command has left it so far.
    pub(super) fn pending_lock(&self, key: &Key) -> Option<KeyLock> {
        match self.batch.pending_lock(key) {
            Some(pending) => pending.cloned(),
            None => self.lock(key).map(LockRef::cloned),
        }
    }
}
