//! What can go wrong in a command, and how TiKV tells its clients.
//!
//! Some errors have a field of their own in `KeyError`, the others travel as text in `abort`; a few carry text beside
//! their field. TiKV prints its Rust error there. We write the same shape, since tests and users read it, but nobody may
//! depend on it.

use bytes::Bytes;
use tikv_core::key::{Key, KeyRange};
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::write_conflict::Reason;
use tikv_proto::kvrpcpb::{
    AlreadyExist, Assertion, AssertionFailed, CommitTsExpired, DebugInfo, KeyError, LockInfo, MvccDebugInfo, MvccInfo,
    PrimaryMismatch, TxnLockNotFound, TxnNotFound, WriteConflict,
};
use tikv_proto::{errorpb, kvrpcpb};

use super::{LockWait, Refusal};

/// Why the pessimistic lock of a prewritten key counts as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockLoss {
    LockTsMismatch,
    LockMissingAmendFail,
    LockForUpdateTsMismatch,
    NonLockKeyConflict,
}

/// The outcome of a command that did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Error {
    KeyIsLocked(Box<LockInfo>),
    WriteConflict(Box<Conflict>),
    AlreadyExist {
        key: Key,
    },
    TxnLockNotFound {
        start_ts: Timestamp,
        commit_ts: Timestamp,
        key: Key,
        mvcc: Option<Box<MvccInfo>>,
    },
    TxnNotFound {
        start_ts: Timestamp,
        key: Key,
    },
    CommitTsExpired(Box<CommitTsExpired>, Option<Box<MvccInfo>>),
    AssertionFailed(Box<AssertionFailed>),
    PrimaryMismatch(Box<LockInfo>),
    Committed {
        start_ts: Timestamp,
        commit_ts: Timestamp,
        key: Key,
    },
    PessimisticLockRolledBack {
        start_ts: Timestamp,
        key: Key,
    },
    PessimisticLockNotFound {
        start_ts: Timestamp,
        key: Key,
        reason: LockLoss,
    },
    LockTypeNotMatch {
        start_ts: Timestamp,
        key: Key,
        pessimistic: bool,
    },
    LockIfExistsFailed {
        start_ts: Timestamp,
        key: Key,
    },
    DefaultNotFound {
        key: Key,
    },
    /// Any other error of a single key.
    OnKey(&'static str),
    InvalidTxnTso {
        start_ts: Timestamp,
        commit_ts: Timestamp,
    },
    /// The range asked for, and the region's.
    InvalidReqRange(Box<(KeyRange, KeyRange)>),
    /// Any other error of a transactional command.
    InTxn(&'static str),
    KeyTooLarge {
        size: usize,
    },
    InvalidCf(String),
    CfDeprecated(String),
    TtlNotEnabled,
    TtlLenNotEqualsToPairs,
    /// Any other error of a command.
    Other(&'static str),

    /// Not for the client: the calculated commit_ts exceeds what it allows, and the key was locked for two-phase commit.
    CommitTsTooLarge,
    /// Not for the client: a flush came later than a newer one of the same key.
    GenerationOutOfOrder,
    /// Not for the client: the key carries shared locks, which must be told to let nobody in.
    NotInShrinkMode(Box<super::lock::SharedLocks>),

    /// Travels as `region_error`.
    Region(Box<errorpb::Error>),
    /// TiKV would have aborted.
    Refused(Refusal),
    /// The request asked to wait for a lock.
    MustWait(Box<LockWait>),
}

/// The longest key that TiKV accepts, in bytes as stored. TiKV: `storage.max-key-size`.
pub(super) const MAX_KEY_BYTES: usize = 8 * 1024;

/// The two sides of a write conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) start_ts: Timestamp,
    pub(super) conflict_start_ts: Timestamp,
    pub(super) conflict_commit_ts: Timestamp,
    pub(super) key: Bytes,
    pub(super) primary: Bytes,
    pub(super) reason: Reason,
}

impl From<Conflict> for Error {
    fn from(conflict: Conflict) -> Self {
        Error::WriteConflict(Box::new(conflict))
    }
}

impl Error {
    pub(super) fn locked(info: LockInfo) -> Self {
        Error::KeyIsLocked(Box::new(info))
    }

    /// Names a key or a boundary outside the region. The layer that knows the region's identity fills it in.
    pub(super) fn key_not_in_region(key: Bytes, region: &KeyRange) -> Self {
        let outside = errorpb::KeyNotInRegion {
            key,
            region_id: 0,
            start_key: region.start.to_bytes(),
            end_key: region.end.to_bytes(),
        };
        let message = "key is not in the region".to_owned();
        Error::Region(Box::new(errorpb::Error {
            message,
            key_not_in_region: Some(outside),
            ..errorpb::Error::default()
        }))
    }

    /// The error as clients of the transactional API see it.
    pub(super) fn key_error(&self) -> KeyError {
        let mut error = KeyError::default();
        match self {
            Error::KeyIsLocked(info) => error.locked = Some(info.clone()),
            Error::WriteConflict(conflict) => {
                error.conflict = Some(conflict.message());
                error.retryable = self.text();
            }
            Error::AlreadyExist { key } => error.already_exist = Some(AlreadyExist { key: key.to_bytes() }),
            Error::TxnLockNotFound { key, mvcc, .. } => {
                error.txn_lock_not_found = Some(TxnLockNotFound { key: key.to_bytes() });
                error.retryable = self.text();
                error.debug_info = debug_info(key.to_bytes(), mvcc.as_deref());
            }
            Error::TxnNotFound { start_ts, key } => {
                let primary_key = key.to_bytes();
                error.txn_not_found = Some(TxnNotFound { start_ts: start_ts.version(), primary_key });
            }
            Error::CommitTsExpired(expired, mvcc) => {
                error.debug_info = debug_info(expired.key.clone(), mvcc.as_deref());
                error.commit_ts_expired = Some(expired.as_ref().clone());
            }
            Error::AssertionFailed(failed) => error.assertion_failed = Some(failed.as_ref().clone()),
            Error::PrimaryMismatch(info) => {
                error.primary_mismatch = Some(PrimaryMismatch { lock_info: Some(info.clone()) });
            }
            _ => error.abort = self.text(),
        }
        error
    }

    /// The error as clients of the raw API see it.
    pub(super) fn message(&self) -> String {
        match self {
            Error::InvalidCf(cf) => format!("invalid cf name: {cf}"),
            Error::CfDeprecated(cf) => format!("cf is deprecated in API V2, cf name: {cf}"),
            Error::TtlNotEnabled => "ttl is not enabled, but get put request with ttl".to_owned(),
            Error::TtlLenNotEqualsToPairs => "The length of ttls does not equal to the length of pairs".to_owned(),
            Error::KeyTooLarge { size } => format!("max key size exceeded, size: {size}, limit: {MAX_KEY_BYTES}"),
            Error::Other(what) => format!("{what:?}"),
            _ => self.text(),
        }
    }

    /// The error as TiKV prints it.
    fn text(&self) -> String {
        match self.detail() {
            (Level::Mvcc, detail) => format!("Error(Txn(Error(Mvcc(Error({detail})))))"),
            (Level::Txn, detail) => format!("Error(Txn(Error({detail})))"),
            (Level::Storage, detail) => format!("Error({detail})"),
        }
    }

    fn detail(&self) -> (Level, String) {
        let detail = match self {
            Error::WriteConflict(conflict) => conflict.detail(),
            Error::TxnLockNotFound { start_ts, commit_ts, key, .. } => format!(
                "TxnLockNotFound {{ start_ts: {}, commit_ts: {}, key: {}, mvcc_info: None }}",
                ts(*start_ts),
                ts(*commit_ts),
                list(key)
            ),
            Error::Committed { start_ts, commit_ts, key } => format!(
                "Committed {{ start_ts: {}, commit_ts: {}, key: {} }}",
                ts(*start_ts),
                ts(*commit_ts),
                list(key)
            ),
            Error::PessimisticLockRolledBack { start_ts, key } => {
                format!("PessimisticLockRolledBack {{ start_ts: {}, key: {} }}", ts(*start_ts), list(key))
            }
            Error::PessimisticLockNotFound { start_ts, key, reason } => format!(
                "PessimisticLockNotFound {{ start_ts: {}, key: {}, reason: {reason:?} }}",
                ts(*start_ts),
                list(key)
            ),
            Error::LockTypeNotMatch { start_ts, key, pessimistic } => format!(
                "LockTypeNotMatch {{ start_ts: {}, key: {}, pessimistic: {pessimistic} }}",
                ts(*start_ts),
                list(key)
            ),
            Error::LockIfExistsFailed { start_ts, key } => {
                format!("LockIfExistsFailed {{ start_ts: {}, key: {} }}", ts(*start_ts), list(key))
            }
            Error::DefaultNotFound { key } => format!("DefaultNotFound {{ key: {} }}", list(key)),
            Error::OnKey(what) => format!("Other({what:?})"),
            Error::InvalidTxnTso { start_ts, commit_ts } => {
                let detail = format!("InvalidTxnTso {{ start_ts: {}, commit_ts: {} }}", ts(*start_ts), ts(*commit_ts));
                return (Level::Txn, detail);
            }
            Error::InvalidReqRange(ranges) => {
                return (Level::Txn, format!("InvalidReqRange {{ request: {:?}, region: {:?} }}", ranges.0, ranges.1));
            }
            Error::InTxn(what) => return (Level::Txn, format!("Other({what:?})")),
            Error::KeyTooLarge { size } => {
                return (Level::Storage, format!("KeyTooLarge {{ size: {size}, limit: {MAX_KEY_BYTES} }}"));
            }
            Error::InvalidCf(cf) => return (Level::Storage, format!("InvalidCf({cf:?})")),
            Error::CfDeprecated(cf) => return (Level::Storage, format!("CfDeprecated({cf:?})")),
            Error::Other(what) => return (Level::Storage, format!("Other({what:?})")),
            other => format!("{other:?}"),
        };
        (Level::Mvcc, detail)
    }
}

/// How deep within TiKV's storage an error arises.
enum Level {
    Mvcc,
    Txn,
    Storage,
}

impl Conflict {
    fn message(&self) -> WriteConflict {
        WriteConflict {
            start_ts: self.start_ts.version(),
            conflict_ts: self.conflict_start_ts.version(),
            conflict_commit_ts: self.conflict_commit_ts.version(),
            key: self.key.clone(),
            primary: self.primary.clone(),
            reason: self.reason.into(),
        }
    }

    fn detail(&self) -> String {
        format!(
            "WriteConflict {{ start_ts: {}, conflict_start_ts: {}, conflict_commit_ts: {}, key: {}, primary: {}, \
             reason: {} }}",
            ts(self.start_ts),
            ts(self.conflict_start_ts),
            ts(self.conflict_commit_ts),
            list(&self.key),
            list(&self.primary),
            self.reason.as_str_name(),
        )
    }
}

/// An assertion of a mutation that does not hold; zeroes if there is no version.
pub(super) fn assertion_failed(
    start_ts: Timestamp,
    key: &Key,
    assertion: Assertion,
    existing: Option<(Timestamp, Timestamp)>,
) -> Error {
    let (existing_start_ts, existing_commit_ts) = existing.unwrap_or_default();
    Error::AssertionFailed(Box::new(AssertionFailed {
        start_ts: start_ts.version(),
        key: key.to_bytes(),
        assertion: assertion.into(),
        existing_start_ts: existing_start_ts.version(),
        existing_commit_ts: existing_commit_ts.version(),
    }))
}

/// The versions of the key, without the long values.
fn debug_info(key: Bytes, mvcc: Option<&MvccInfo>) -> Option<DebugInfo> {
    let mvcc = MvccInfo { values: Vec::new(), ..mvcc?.clone() };
    Some(DebugInfo { mvcc_info: vec![MvccDebugInfo { key, mvcc: Some(mvcc) }] })
}

fn ts(ts: Timestamp) -> String {
    format!("TimeStamp({})", ts.version())
}

fn list(key: &impl AsRef<[u8]>) -> String {
    format!("{:?}", key.as_ref())
}

/// A pair that stands for an error.
pub(super) fn error_pair(error: &Error) -> kvrpcpb::KvPair {
    kvrpcpb::KvPair { error: Some(Box::new(error.key_error())), ..kvrpcpb::KvPair::default() }
}
