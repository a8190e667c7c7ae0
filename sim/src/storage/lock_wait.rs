//! The seam for lock waiting: what a pessimistic lock request waits for, and how it can end without the lock.
//!
//! The storage keeps no queue. A caller that lets requests wait queues the request with its [`LockWait`] by key, watches
//! [`Handled::released`](super::Handled::released) for that key, and then answers a request of normal mode by
//! [`LockWait::woken`], or runs one of force mode again by [`Storage::resume`](super::Storage::resume).

use bytes::Bytes;
use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::write_conflict::Reason;
use tikv_proto::kvrpcpb::{
    Deadlock, KeyError, LockInfo, PessimisticLockKeyResult, PessimisticLockKeyResultType, PessimisticLockResponse,
};

use super::errors::{Conflict, Error};

/// A lock that a command removed from a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReleasedLock {
    /// The key that carried the lock.
    pub key: Key,
    /// The transaction that held it.
    pub start_ts: Timestamp,
    /// Its commit_ts; zero if the lock went without a commit.
    pub commit_ts: Timestamp,
    /// Whether the transaction is pessimistic.
    pub is_pessimistic: bool,
}

/// A pessimistic lock request that waits for another transaction's lock. Nothing of it has been done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockWait {
    /// The key it waits for; of several keys the first that is locked.
    pub key: Key,
    /// The lock in the way.
    pub lock: Box<LockInfo>,
    /// The waiting transaction.
    pub start_ts: Timestamp,
    /// Its primary.
    pub primary: Bytes,
    /// The request's for_update_ts.
    pub for_update_ts: Timestamp,
    /// The transaction's first lock request: it holds nothing that anybody could wait for, no deadlock can come of it.
    pub is_first_lock: bool,
    /// Fair locking: the request resumes when it wakes up. Otherwise the client has to retry.
    pub is_force: bool,
    /// The request wants a shared lock.
    pub is_shared: bool,
    /// How long it waits, in milliseconds; `None` is the server's default (1 s).
    pub timeout_ms: Option<u64>,
}

impl LockWait {
    /// The answer when the time is up: the key is locked.
    #[must_use]
    pub fn locked(&self) -> PessimisticLockResponse {
        self.fail(Error::KeyIsLocked(self.lock.clone()).key_error())
    }

    /// The answer to a request of normal mode when the lock has been released: retry with a newer for_update_ts.
    #[must_use]
    pub fn woken(&self, released: &ReleasedLock) -> PessimisticLockResponse {
        let conflict = Conflict {
            start_ts: self.start_ts,
            conflict_start_ts: released.start_ts,
            conflict_commit_ts: released.commit_ts,
            key: released.key.to_bytes(),
            primary: self.primary.clone(),
            reason: Reason::PessimisticRetry,
        };
        self.fail(Error::from(conflict).key_error())
    }

    /// The answer when waiting would close a circle.
    #[must_use]
    pub fn deadlock(&self, deadlock: Deadlock) -> PessimisticLockResponse {
        self.fail(KeyError { deadlock: Some(deadlock), ..KeyError::default() })
    }

    fn fail(&self, error: KeyError) -> PessimisticLockResponse {
        failed_response(error, self.is_force)
    }
}

/// The answer of a single key that could not be locked. Requests of force mode have their results by key.
pub(super) fn failed_response(error: KeyError, is_force: bool) -> PessimisticLockResponse {
    let mut failed = PessimisticLockKeyResult::default();
    failed.set_type(PessimisticLockKeyResultType::LockResultFailed);
    let results = if is_force { vec![failed] } else { Vec::new() };
    PessimisticLockResponse { errors: vec![error], results, ..PessimisticLockResponse::default() }
}
