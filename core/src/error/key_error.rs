//! What TiKV says of a key that it could not serve.

use bytes::Bytes;
use tikv_proto::{deadlock, kvrpcpb};

use crate::key::Key;
use crate::timestamp::Timestamp;

/// A lock that stands in the way. client-go: `txnlock.Lock`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LockInfo {
    /// The locked key.
    pub key: Key,
    /// The primary key of the lock's transaction.
    pub primary: Key,
    /// The transaction that holds it.
    pub start_ts: Timestamp,
    /// How long the lock lives from its `start_ts`, in milliseconds.
    pub ttl_ms: u64,
    /// Number of keys of the transaction in the region, as the transaction told it.
    pub txn_size: u64,
    /// What the lock is for.
    pub kind: kvrpcpb::Op,
    /// For pessimistic locks: the timestamp they were taken at.
    pub for_update_ts: Timestamp,
    /// The transaction cannot commit below this.
    pub min_commit_ts: Timestamp,
    /// Whether the transaction commits asynchronously; then the primary's lock lists the secondaries.
    pub use_async_commit: bool,
    /// For the primary of an async commit: all other keys.
    pub secondaries: Vec<Key>,
    /// Milliseconds since the lock was last written, 0 if unknown.
    pub duration_since_update_ms: u64,
    /// Whether the transaction's mutations live in files.
    pub is_txn_file: bool,
}

impl LockInfo {
    /// Reads TiKV's description of a lock. A wrapper of shared locks is several locks: see [`LockInfo::expand`].
    #[must_use]
    pub fn from_proto(lock: kvrpcpb::LockInfo) -> Self {
        LockInfo {
            kind: lock.lock_type(),
            key: lock.key.into(),
            primary: lock.primary_lock.into(),
            start_ts: Timestamp::from_version(lock.lock_version),
            ttl_ms: lock.lock_ttl,
            txn_size: lock.txn_size,
            for_update_ts: Timestamp::from_version(lock.lock_for_update_ts),
            min_commit_ts: Timestamp::from_version(lock.min_commit_ts),
            use_async_commit: lock.use_async_commit,
            secondaries: lock.secondaries.into_iter().map(Key::from).collect(),
            duration_since_update_ms: lock.duration_to_last_update_ms,
            is_txn_file: lock.is_txn_file,
        }
    }

    /// The locks behind TiKV's description: the shared ones if it is a wrapper of shared locks, else itself.
    pub fn expand(mut lock: kvrpcpb::LockInfo) -> impl Iterator<Item = LockInfo> {
        let shared = std::mem::take(&mut lock.shared_lock_infos);
        let own = shared.is_empty().then_some(lock);
        own.into_iter().chain(shared).map(LockInfo::from_proto)
    }

    /// Whether the lock is pessimistic (exclusive or shared): it guards a key but holds no value yet.
    #[must_use]
    pub fn is_pessimistic(&self) -> bool {
        matches!(self.kind, kvrpcpb::Op::PessimisticLock | kvrpcpb::Op::SharedPessimisticLock)
    }
}

/// Why TiKV refused a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Another transaction holds a lock.
    #[error("key {:?} is locked by transaction {}", .0.key, .0.start_ts)]
    Locked(Box<LockInfo>),
    /// Another transaction committed in between.
    #[error("{0}")]
    Conflict(Box<Conflict>),
    /// The key exists and should not.
    #[error("key {key:?} exists already")]
    AlreadyExists {
        /// The key.
        key: Key,
    },
    /// Waiting for the lock would wait for oneself.
    #[error("deadlock on key {:?}", .0.lock_key)]
    Deadlock(Box<DeadlockInfo>),
    /// The commit timestamp is below what readers were promised.
    #[error("commit_ts {attempted_commit_ts} of transaction {start_ts} is below min_commit_ts {min_commit_ts}")]
    CommitTsExpired {
        /// The transaction.
        start_ts: Timestamp,
        /// The commit timestamp that was tried.
        attempted_commit_ts: Timestamp,
        /// The key.
        key: Key,
        /// The least that would do.
        min_commit_ts: Timestamp,
    },
    /// No trace of the transaction at its primary.
    #[error("transaction {start_ts} not found at its primary {primary:?}")]
    TxnNotFound {
        /// The transaction.
        start_ts: Timestamp,
        /// Its primary key.
        primary: Key,
    },
    /// The lock is gone (rolled back, or never there).
    #[error("no lock of the transaction on key {key:?}")]
    TxnLockNotFound {
        /// The key.
        key: Key,
    },
    /// The least commit timestamp that would do is above the bound that the transaction set.
    #[error("commit_ts {commit_ts} is above the bound of the transaction")]
    CommitTsTooLarge {
        /// The least that would do.
        commit_ts: Timestamp,
    },
    /// An assertion of the transaction does not hold.
    #[error("assertion failed on key {:?}", .0.key)]
    AssertionFailed(Box<AssertionFailed>),
    /// The lock's primary is not what was asked for.
    #[error("the lock on {:?} has another primary: {:?}", .0.key, .0.primary)]
    PrimaryMismatch(Box<LockInfo>),
    /// Another transaction, or another request of the same one, is turning its shared lock into an exclusive one.
    #[error("transaction {start_ts} cannot upgrade its shared lock on {key:?}: {owner_start_ts} does ({reason:?})")]
    LockUpgradeConflict {
        /// The key.
        key: Key,
        /// The transaction that was refused.
        start_ts: Timestamp,
        /// The transaction that is upgrading.
        owner_start_ts: Timestamp,
        /// In which way they are in conflict.
        reason: kvrpcpb::lock_upgrade_conflict::Reason,
    },
    /// The shared lock was lost while it waited to become exclusive. The transaction must not go on, but can be rolled back.
    #[error("transaction {start_ts} has lost its shared lock on {key:?}")]
    SharedLockLost {
        /// The key.
        key: Key,
        /// The transaction.
        start_ts: Timestamp,
    },
    /// TiKV asks to retry the whole transaction.
    #[error("TiKV asks to retry: {0}")]
    Retryable(String),
    /// TiKV gave up.
    #[error("TiKV aborted: {0}")]
    Abort(String),
    /// A kind that this client does not know.
    #[error("unknown key error")]
    Unknown,
}

impl KeyError {
    /// Whether it shows the locks that transactions share on a key, all together.
    pub(crate) fn is_of_shared_locks(&self) -> bool {
        matches!(self, KeyError::PrimaryMismatch(lock) if lock.kind == kvrpcpb::Op::SharedLock)
    }
}

/// A write conflict: someone committed to the key after the transaction began.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error(
    "write conflict on key {key:?} ({reason:?}): start_ts {start_ts}, conflict with {conflict_ts} committed at {conflict_commit_ts}"
)]
pub struct Conflict {
    /// The transaction that lost.
    pub start_ts: Timestamp,
    /// start_ts of the transaction that won.
    pub conflict_ts: Timestamp,
    /// commit_ts of the transaction that won; zero if not known.
    pub conflict_commit_ts: Timestamp,
    /// The key.
    pub key: Key,
    /// The primary key of the transaction that lost.
    pub primary: Key,
    /// Which check failed.
    pub reason: ConflictReason,
}

/// Which check a write conflict failed.
pub type ConflictReason = kvrpcpb::write_conflict::Reason;

/// A cycle of waiting transactions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeadlockInfo {
    /// The transaction whose lock was waited for.
    pub lock_ts: Timestamp,
    /// The key waited for.
    pub lock_key: Key,
    /// Hash of the key that closes the cycle.
    pub deadlock_key_hash: u64,
    /// The key that closes the cycle.
    pub deadlock_key: Key,
    /// Who waits for whom.
    pub wait_chain: Vec<deadlock::WaitForEntry>,
    /// Whether the key that closes the cycle was locked by the very call that failed. That lock is released, so that the call
    /// alone can be tried again; otherwise the whole transaction has to be. client-go: `ErrDeadlock.IsRetryable`.
    pub of_one_call: bool,
}

/// An assertion about a key that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AssertionFailed {
    /// The transaction.
    pub start_ts: Timestamp,
    /// The key.
    pub key: Key,
    /// What was asserted.
    pub assertion: kvrpcpb::Assertion,
    /// start_ts of the version found; zero if none.
    pub existing_start_ts: Timestamp,
    /// commit_ts of the version found; zero if none.
    pub existing_commit_ts: Timestamp,
}

impl KeyError {
    /// Reads TiKV's error. If several fields are set, the most specific counts.
    #[must_use]
    pub fn from_proto(error: kvrpcpb::KeyError) -> Self {
        if let Some(lock) = error.locked {
            // Of shared locks the first: the others show when it is out of the way.
            return KeyError::Locked(Box::new(LockInfo::expand(*lock).next().unwrap_or_default()));
        }
        if let Some(conflict) = error.conflict {
            return KeyError::Conflict(Box::new(Conflict::from_proto(&conflict)));
        }
        if let Some(exists) = error.already_exist {
            return KeyError::AlreadyExists { key: exists.key.into() };
        }
        if let Some(deadlock) = error.deadlock {
            return KeyError::Deadlock(Box::new(DeadlockInfo::from_proto(deadlock)));
        }
        if let Some(failed) = error.assertion_failed {
            return KeyError::AssertionFailed(Box::new(AssertionFailed::from_proto(&failed)));
        }
        if let Some(expired) = error.commit_ts_expired {
            return KeyError::CommitTsExpired {
                start_ts: Timestamp::from_version(expired.start_ts),
                attempted_commit_ts: Timestamp::from_version(expired.attempted_commit_ts),
                key: expired.key.into(),
                min_commit_ts: Timestamp::from_version(expired.min_commit_ts),
            };
        }
        if let Some(missing) = error.txn_not_found {
            return KeyError::TxnNotFound {
                start_ts: Timestamp::from_version(missing.start_ts),
                primary: missing.primary_key.into(),
            };
        }
        if let Some(missing) = error.txn_lock_not_found {
            return KeyError::TxnLockNotFound { key: missing.key.into() };
        }
        if let Some(mismatch) = error.primary_mismatch {
            let lock = mismatch.lock_info.map(|lock| LockInfo::from_proto(*lock)).unwrap_or_default();
            return KeyError::PrimaryMismatch(Box::new(lock));
        }
        if let Some(conflict) = error.lock_upgrade_conflict {
            return KeyError::LockUpgradeConflict {
                reason: conflict.reason(),
                key: conflict.key.into(),
                start_ts: Timestamp::from_version(conflict.start_ts),
                owner_start_ts: Timestamp::from_version(conflict.owner_start_ts),
            };
        }
        if let Some(lost) = error.shared_lock_lost {
            let start_ts = Timestamp::from_version(lost.start_ts);
            return KeyError::SharedLockLost { key: lost.key.into(), start_ts };
        }
        if let Some(too_large) = error.commit_ts_too_large {
            return KeyError::CommitTsTooLarge { commit_ts: Timestamp::from_version(too_large.commit_ts) };
        }
        if !error.retryable.is_empty() {
            return KeyError::Retryable(error.retryable);
        }
        if !error.abort.is_empty() {
            return KeyError::Abort(error.abort);
        }
        KeyError::Unknown
    }
}

impl Conflict {
    fn from_proto(conflict: &kvrpcpb::WriteConflict) -> Self {
        Conflict {
            start_ts: Timestamp::from_version(conflict.start_ts),
            conflict_ts: Timestamp::from_version(conflict.conflict_ts),
            conflict_commit_ts: Timestamp::from_version(conflict.conflict_commit_ts),
            key: conflict.key.clone().into(),
            primary: conflict.primary.clone().into(),
            reason: conflict.reason(),
        }
    }
}

impl DeadlockInfo {
    fn from_proto(deadlock: kvrpcpb::Deadlock) -> Self {
        DeadlockInfo {
            lock_ts: Timestamp::from_version(deadlock.lock_ts),
            lock_key: deadlock.lock_key.into(),
            deadlock_key_hash: deadlock.deadlock_key_hash,
            deadlock_key: deadlock.deadlock_key.into(),
            wait_chain: deadlock.wait_chain,
            of_one_call: false,
        }
    }
}

impl AssertionFailed {
    fn from_proto(failed: &kvrpcpb::AssertionFailed) -> Self {
        AssertionFailed {
            assertion: failed.assertion(),
            start_ts: Timestamp::from_version(failed.start_ts),
            key: Key::from(Bytes::clone(&failed.key)),
            existing_start_ts: Timestamp::from_version(failed.existing_start_ts),
            existing_commit_ts: Timestamp::from_version(failed.existing_commit_ts),
        }
    }
}
