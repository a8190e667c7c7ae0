//! What the caller of an operation sees.

use std::sync::Arc;
use std::time::Duration;

use super::{AssertionFailed, Conflict, DeadlockInfo, Fault, InvalidLock, KeyError, LockInfo, PdError};
use crate::key::{Key, MAX_KEY_BYTES};
use crate::timestamp::Timestamp;

/// Why an operation did not succeed.
///
/// Three questions matter to a caller, and none needs the variant: may the transaction be run again
/// ([`Error::is_retryable`]), may the write have happened all the same ([`Error::is_undetermined`]), and was it a matter of
/// time ([`Error::is_timeout`]).
///
/// client-go: package `error`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// PD did not answer.
    #[error(transparent)]
    Pd(#[from] PdError),
    /// Every attempt failed until the budget of retries was spent.
    #[error("{operation}: gave up after {attempts} attempts, {slept:?} spent waiting: {last}")]
    RetriesExhausted {
        /// What was asked of TiKV.
        operation: &'static str,
        /// RPCs sent.
        attempts: u32,
        /// Time spent in back-off.
        slept: Duration,
        /// What the last attempt met.
        last: CallFailure,
    },
    /// The deadline of the operation passed.
    #[error("{operation}: deadline passed after {attempts} attempts: {last}")]
    DeadlineExceeded {
        /// What was asked of TiKV.
        operation: &'static str,
        /// RPCs sent.
        attempts: u32,
        /// What the last attempt met.
        last: CallFailure,
    },
    /// TiKV refused, in a way that no retry changes.
    #[error("{operation} at {address}: {message}")]
    Refused {
        /// What was asked of TiKV.
        operation: &'static str,
        /// The store that answered.
        address: Arc<str>,
        /// TiKV's words.
        message: Arc<str>,
    },
    /// A store answered with a message that does not belong to the request.
    #[error("{operation} at {address} was answered with {actual}")]
    WrongResponse {
        /// What was asked of TiKV.
        operation: &'static str,
        /// The store that answered.
        address: Arc<str>,
        /// What came.
        actual: &'static str,
    },
    /// The commit may or may not have happened. Never retried and never masked by a later error.
    #[error("the outcome of transaction {start_ts} is not known: {cause}")]
    Undetermined {
        /// The transaction.
        start_ts: Timestamp,
        /// Its primary key, whose state decides.
        primary: Key,
        /// What hid the answer.
        cause: Box<Error>,
    },
    /// A write that must not be repeated may or may not have happened.
    #[error("the outcome of the write to key {key:?} is not known: {cause}")]
    UndeterminedWrite {
        /// The key.
        key: Key,
        /// What hid the answer.
        cause: Box<Error>,
    },
    /// Another transaction committed to a key after this one began.
    #[error(transparent)]
    WriteConflict(Box<Conflict>),
    /// A key that had to be absent exists.
    #[error("key {key:?} exists already")]
    KeyExists {
        /// The key.
        key: Key,
    },
    /// A lock could not be resolved in time.
    #[error("key {:?} is locked by transaction {}", .0.key, .0.start_ts)]
    Locked(Box<LockInfo>),
    /// Waiting for a lock would have been a deadlock.
    #[error("deadlock on key {:?}", .0.lock_key)]
    Deadlock(Box<DeadlockInfo>),
    /// A lock was not released in the time that the caller was ready to wait for it.
    #[error("gave up waiting for key {:?}, locked by transaction {}", .0.key, .0.start_ts)]
    LockWaitTimeout(Box<LockInfo>),
    /// A key is locked, and the caller did not want to wait.
    #[error("key {:?} is locked by transaction {}, and nobody wants to wait", .0.key, .0.start_ts)]
    LockedNoWait(Box<LockInfo>),
    /// A pessimistic lock of the transaction is gone or not what it was: another transaction may have written the key.
    #[error("transaction {start_ts} has lost a pessimistic lock: {reason}")]
    PessimisticLockLost {
        /// The transaction.
        start_ts: Timestamp,
        /// What TiKV said.
        reason: KeyError,
    },
    /// Keys cannot be locked in this way.
    #[error(transparent)]
    InvalidLock(#[from] InvalidLock),
    /// An assertion of the transaction does not hold.
    #[error("assertion failed on key {:?}", .0.key)]
    AssertionFailed(Box<AssertionFailed>),
    /// The transaction was rolled back by somebody else (its lock expired, or a resolver or deadlock detector decided).
    #[error("transaction {start_ts} was rolled back: {reason}")]
    RolledBack {
        /// The transaction.
        start_ts: Timestamp,
        /// What TiKV said.
        reason: KeyError,
    },
    /// Another refusal of a key.
    #[error(transparent)]
    Key(KeyError),
    /// TiKV's answers about a transaction contradict each other. Nothing was concluded from them.
    #[error("answers about transaction {start_ts} contradict each other: {detail}")]
    Contradiction {
        /// The transaction.
        start_ts: Timestamp,
        /// In which way.
        detail: Arc<str>,
    },
    /// The transaction has been open longer than a lock may live (24 hours by default).
    #[error("transaction {start_ts} is too old to commit: it began {age:?} ago")]
    TxnTooOld {
        /// The transaction.
        start_ts: Timestamp,
        /// Its age by PD's clock.
        age: Duration,
    },
    /// PD's clock stays behind the timestamp that the commit must exceed.
    #[error("transaction {start_ts} must commit above {expected_above}, but PD's clock is at {newest}")]
    CommitTsLag {
        /// The transaction.
        start_ts: Timestamp,
        /// The timestamp that PD gave last.
        newest: Timestamp,
        /// What the commit timestamp must exceed.
        expected_above: Timestamp,
    },
    /// The commit timestamp is above the bound that the caller set.
    #[error("transaction {start_ts} must not commit above {upper_bound}, but would at {commit_ts}")]
    CommitTsOutOfBound {
        /// The transaction.
        start_ts: Timestamp,
        /// The timestamp that PD gave.
        commit_ts: Timestamp,
        /// The largest allowed.
        upper_bound: Timestamp,
    },
    /// The owner of the transaction was asked whether it may commit, and has forbidden it.
    #[error("transaction {start_ts} must not commit at {commit_ts}: {reason}")]
    CommitForbidden {
        /// The transaction.
        start_ts: Timestamp,
        /// The timestamp that it would have committed at.
        commit_ts: Timestamp,
        /// What its owner said.
        reason: Arc<str>,
    },
    /// The transaction has been killed. If it was committing, it has not committed and never will.
    #[error("the transaction is killed")]
    Killed,
    /// The transaction has been committed or rolled back already.
    #[error("the transaction is finished")]
    TxnFinished,
    /// An empty key, which TiKV refuses.
    #[error("the key is empty")]
    EmptyKey,
    /// An empty value in a transaction, which would read as "not found".
    #[error("the value of key {key:?} is empty")]
    EmptyValue {
        /// The key.
        key: Key,
    },
    /// A key longer than TiKV takes.
    #[error("a key of {actual_bytes} bytes is over the limit of {limit_bytes}")]
    KeyTooLarge {
        /// Its length.
        actual_bytes: usize,
        /// The longest allowed.
        limit_bytes: usize,
    },
    /// A key and value together larger than the limit.
    #[error("an entry of {actual_bytes} bytes is over the limit of {limit_bytes}")]
    EntryTooLarge {
        /// Length of key and value.
        actual_bytes: u64,
        /// The largest allowed.
        limit_bytes: u64,
    },
    /// A transaction larger than the limit.
    #[error("a transaction of {actual_bytes} bytes is over the limit of {limit_bytes}")]
    TxnTooLarge {
        /// Length of all keys and values.
        actual_bytes: u64,
        /// The largest allowed.
        limit_bytes: u64,
    },
    /// The buffer of a pipelined transaction is full, and the flush before has not ended: nothing was written. To be tried
    /// again when it has.
    #[error("a buffer of {size_bytes} bytes is at the limit of {limit_bytes}, until a flush ends")]
    BufferFull {
        /// Memory that the buffer takes.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The arguments make no sense together.
    #[error("invalid argument: {0}")]
    InvalidArgument(Arc<str>),
    /// The client is closing or closed.
    #[error("the client is closed")]
    Closed,
}

/// What one attempt of an RPC met.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CallFailure {
    /// No attempt was made.
    #[error("nothing was sent")]
    NotAttempted,
    /// The network failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The store answered with a region error.
    #[error("region error {name} of region {region_id} at {address}")]
    Region {
        /// Which error, as the field of `errorpb.Error` is called.
        name: &'static str,
        /// The region that was asked for.
        region_id: u64,
        /// The store that answered.
        address: Arc<str>,
    },
    /// Routing found no replica to send to.
    #[error("no replica of region {region_id} is available")]
    NoReplica {
        /// The region.
        region_id: u64,
    },
    /// PD knows no region for the key (or not yet its leader or stores).
    #[error("PD knows no usable region for key {key:?}")]
    NoRegion {
        /// The key.
        key: Key,
    },
    /// PD did not answer.
    #[error(transparent)]
    Pd(#[from] PdError),
    /// A lock stands in the way.
    #[error("key {:?} is locked by transaction {}", .0.key, .0.start_ts)]
    Locked(Box<LockInfo>),
    /// The key was refused in another way.
    #[error(transparent)]
    Key(Box<KeyError>),
}

impl Error {
    /// Whether running the whole transaction again can succeed. Never true of an undetermined outcome: the first run may
    /// have committed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::WriteConflict(_)
            | Error::Deadlock(_)
            | Error::RolledBack { .. }
            | Error::PessimisticLockLost { .. }
            | Error::Locked(_) => true,
            Error::Key(
                KeyError::Retryable(_)
                | KeyError::TxnLockNotFound { .. }
                | KeyError::LockUpgradeConflict { .. }
                | KeyError::SharedLockLost { .. },
            ) => true,
            Error::RetriesExhausted { .. } => true,
            Error::Pd(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// Whether the write may have happened although no success is reported.
    #[must_use]
    pub fn is_undetermined(&self) -> bool {
        matches!(self, Error::Undetermined { .. } | Error::UndeterminedWrite { .. })
    }

    /// Whether time ran out, be it a deadline, a budget of retries, or an RPC's time limit.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            Error::DeadlineExceeded { .. } | Error::RetriesExhausted { .. } | Error::LockWaitTimeout(_) => true,
            Error::Undetermined { cause, .. } | Error::UndeterminedWrite { cause, .. } => cause.is_timeout(),
            _ => false,
        }
    }
}

/// Refuses keys that no store would take.
pub(crate) fn check_key(key: &[u8]) -> Result<(), Error> {
    match key.len() {
        0 => Err(Error::EmptyKey),
        1..=MAX_KEY_BYTES => Ok(()),
        actual_bytes => Err(Error::KeyTooLarge { actual_bytes, limit_bytes: MAX_KEY_BYTES }),
    }
}
