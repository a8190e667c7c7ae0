//! What one command is going to change. Reads of the command go to the data as it was, so that a key that is named twice
//! meets the same state twice; only committing and rolling back look at locks changed before. TiKV: `MvccTxn`.

use bytes::Bytes;
use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::LockInfo;

use super::ReleasedLock;
use super::lock::{KeyLock, Lock, SharedLocks};
use super::write::Write;

#[derive(Clone, Debug)]
pub(super) enum Modify {
    PutLock(Key, KeyLock),
    DeleteLock(Key),
    /// A pessimistic lock, for memory if the whole request may go there.
    PessimisticLock(Key, Lock),
    PutValue(Key, Timestamp, Bytes),
    DeleteValue(Key, Timestamp),
    PutWrite(Key, Timestamp, Write),
    DeleteWrite(Key, Timestamp),
}

/// A lock of a one-phase commit: never stored, if the commit succeeds.
#[derive(Clone, Debug)]
pub(super) struct OnePcLock {
    pub(super) key: Key,
    pub(super) lock: Lock,
    /// The key carries a pessimistic lock of the transaction.
    pub(super) replaces_pessimistic: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) start_ts: Timestamp,
    pub(super) modifies: Vec<Modify>,
    pub(super) one_pc_locks: Vec<OnePcLock>,
    pub(super) released: Vec<ReleasedLock>,
    pub(super) acquired: Vec<LockInfo>,
}

impl Batch {
    pub(super) fn new(start_ts: Timestamp) -> Self {
        Batch { start_ts, modifies: Vec::new(), one_pc_locks: Vec::new(), released: Vec::new(), acquired: Vec::new() }
    }

    /// Forgets everything collected so far.
    pub(super) fn clear(&mut self) {
        *self = Batch::new(self.start_ts);
    }

    /// `is_new`: the key carried no lock before.
    pub(super) fn put_lock(&mut self, key: &Key, lock: Lock, is_new: bool) {
        if is_new {
            self.acquired.push(lock.info(key));
        }
        self.modifies.push(Modify::PutLock(key.clone(), KeyLock::Exclusive(lock)));
    }

    pub(super) fn put_pessimistic_lock(&mut self, key: &Key, lock: Lock, is_new: bool) {
        if is_new {
            self.acquired.push(lock.info(key));
        }
        self.modifies.push(Modify::PessimisticLock(key.clone(), lock));
    }

    pub(super) fn put_shared_locks(&mut self, key: &Key, shared: SharedLocks, is_new: bool) {
        if is_new {
            self.acquired.push(shared.info(key));
        }
        self.modifies.push(Modify::PutLock(key.clone(), KeyLock::Shared(shared)));
    }

    /// Puts back the locks that stay after one has been taken out; unlocks the key if none stays.
    pub(super) fn shrink_shared_locks(&mut self, key: &Key, shared: SharedLocks, commit_ts: Timestamp) {
        if shared.locks.is_empty() {
            self.unlock(key, true, commit_ts);
        } else {
            self.put_shared_locks(key, shared, false);
        }
    }

    /// `commit_ts` is zero if the lock goes without a commit.
    pub(super) fn unlock(&mut self, key: &Key, is_pessimistic: bool, commit_ts: Timestamp) {
        self.released.push(ReleasedLock { key: key.clone(), start_ts: self.start_ts, commit_ts, is_pessimistic });
        self.modifies.push(Modify::DeleteLock(key.clone()));
    }

    pub(super) fn put_value(&mut self, key: &Key, value: Bytes) {
        self.modifies.push(Modify::PutValue(key.clone(), self.start_ts, value));
    }

    pub(super) fn delete_value(&mut self, key: &Key, start_ts: Timestamp) {
        self.modifies.push(Modify::DeleteValue(key.clone(), start_ts));
    }

    pub(super) fn put_write(&mut self, key: &Key, commit_ts: Timestamp, write: Write) {
        self.modifies.push(Modify::PutWrite(key.clone(), commit_ts, write));
    }

    pub(super) fn delete_write(&mut self, key: &Key, commit_ts: Timestamp) {
        self.modifies.push(Modify::DeleteWrite(key.clone(), commit_ts));
    }

    /// The lock that this batch leaves on the key: `None` if it does not touch it, `Some(None)` if it removes it.
    pub(super) fn pending_lock(&self, key: &Key) -> Option<Option<&KeyLock>> {
        self.modifies.iter().rev().find_map(|modify| match modify {
            Modify::PutLock(locked, lock) if locked == key => Some(Some(lock)),
            Modify::DeleteLock(unlocked) if unlocked == key => Some(None),
            _ => None,
        })
    }
}
