//! Records of the lock column family, and the pessimistic locks kept in memory.

use std::collections::BTreeMap;

use bytes::Bytes;
use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{LockInfo, Op};

use super::write::{LastChange, WriteKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LockKind {
    Put,
    Delete,
    Lock,
    Pessimistic,
}

impl LockKind {
    pub(super) fn op(self) -> Op {
        match self {
            LockKind::Put => Op::Put,
            LockKind::Delete => Op::Del,
            LockKind::Lock => Op::Lock,
            LockKind::Pessimistic => Op::PessimisticLock,
        }
    }

    /// What committing the lock writes; nothing for a pessimistic lock.
    pub(super) fn committed(self) -> Option<WriteKind> {
        match self {
            LockKind::Put => Some(WriteKind::Put),
            LockKind::Delete => Some(WriteKind::Delete),
            LockKind::Lock => Some(WriteKind::Lock),
            LockKind::Pessimistic => None,
        }
    }
}

/// One transaction's lock on one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lock {
    pub(super) kind: LockKind,
    pub(super) primary: Bytes,
    pub(super) start_ts: Timestamp,
    pub(super) ttl_ms: u64,
    pub(super) short_value: Option<Bytes>,
    /// Not zero: the transaction is pessimistic.
    pub(super) for_update_ts: Timestamp,
    pub(super) txn_size: u64,
    pub(super) min_commit_ts: Timestamp,
    pub(super) use_async_commit: bool,
    /// The other keys of an async-commit transaction, on its primary.
    pub(super) secondaries: Vec<Bytes>,
    /// Protected rollbacks of other transactions which a calculated commit_ts might overwrite.
    pub(super) rollback_ts: Vec<Timestamp>,
    pub(super) last_change: LastChange,
    /// Acquired in fair locking although a newer version was there.
    pub(super) is_locked_with_conflict: bool,
    /// Not zero: flushed by a pipelined transaction.
    pub(super) generation: u64,
}

impl Lock {
    pub(super) fn is_pessimistic(&self) -> bool {
        self.kind == LockKind::Pessimistic
    }

    pub(super) fn is_of_pessimistic_txn(&self) -> bool {
        !self.for_update_ts.is_zero()
    }

    pub(super) fn is_pessimistic_with_conflict(&self) -> bool {
        self.is_pessimistic() && self.is_locked_with_conflict
    }

    /// Whether the time to live ran out before `now`. At the very millisecond it is still alive.
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.start_ts.physical_ms().saturating_add(self.ttl_ms) < now.physical_ms()
    }

    pub(super) fn is_primary(&self, key: &Key) -> bool {
        key.as_slice() == self.primary
    }

    pub(super) fn info(&self, key: &Key) -> LockInfo {
        LockInfo {
            primary_lock: self.primary.clone(),
            lock_version: self.start_ts.version(),
            key: key.to_bytes(),
            lock_ttl: self.ttl_ms,
            txn_size: self.txn_size,
            lock_type: self.kind.op().into(),
            lock_for_update_ts: self.for_update_ts.version(),
            use_async_commit: self.use_async_commit,
            min_commit_ts: self.min_commit_ts.version(),
            secondaries: self.secondaries.clone(),
            ..LockInfo::default()
        }
    }
}

/// The shared locks of one key, by start_ts. They are pessimistic locks or, prewritten, of kind Lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct SharedLocks {
    /// An exclusive request waits: no further transaction may join.
    pub(super) is_shrink_only: bool,
    pub(super) locks: BTreeMap<Timestamp, Lock>,
}

impl SharedLocks {
    pub(super) fn info(&self, key: &Key) -> LockInfo {
        LockInfo {
            key: key.to_bytes(),
            lock_type: Op::SharedLock.into(),
            shared_lock_infos: self.locks.values().map(|lock| lock.info(key)).collect(),
            ..LockInfo::default()
        }
    }
}

/// What the lock column family holds for a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum KeyLock {
    Exclusive(Lock),
    Shared(SharedLocks),
}

impl KeyLock {
    pub(super) fn exclusive(&self) -> Option<&Lock> {
        match self {
            KeyLock::Exclusive(lock) => Some(lock),
            KeyLock::Shared(_) => None,
        }
    }

    pub(super) fn as_ref(&self) -> LockRef<'_> {
        match self {
            KeyLock::Exclusive(lock) => LockRef::Exclusive(lock),
            KeyLock::Shared(shared) => LockRef::Shared(shared),
        }
    }

    pub(super) fn info(&self, key: &Key) -> LockInfo {
        match self {
            KeyLock::Exclusive(lock) => lock.info(key),
            KeyLock::Shared(shared) => shared.info(key),
        }
    }
}

/// A lock as found on a key, in memory or persisted.
#[derive(Clone, Copy, Debug)]
pub(super) enum LockRef<'a> {
    Exclusive(&'a Lock),
    Shared(&'a SharedLocks),
}

impl LockRef<'_> {
    pub(super) fn cloned(self) -> KeyLock {
        match self {
            LockRef::Exclusive(lock) => KeyLock::Exclusive(lock.clone()),
            LockRef::Shared(shared) => KeyLock::Shared(shared.clone()),
        }
    }
}
