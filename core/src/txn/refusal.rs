//! What a refusal of a key means to the transaction.

use tikv_proto::kvrpcpb;

use crate::error::{Conflict, ConflictReason, Error, KeyError};
use crate::key::Key;
use crate::timestamp::Timestamp;

/// The error with which a transaction ends that TiKV refused to prewrite.
pub(super) fn of_prewrite(start_ts: Timestamp, primary: &Key, error: KeyError) -> Error {
    match error {
        KeyError::Conflict(conflict) => of_conflict(start_ts, primary, conflict),
        KeyError::AlreadyExists { key } => Error::KeyExists { key },
        KeyError::Deadlock(deadlock) => Error::Deadlock(deadlock),
        KeyError::AssertionFailed(failed) => Error::AssertionFailed(failed),
        KeyError::Locked(lock) => Error::Locked(lock),
        other => Error::Key(other),
    }
}

/// The error with which a transaction ends that TiKV refused to commit. A lock that is gone was rolled back by somebody
/// else: whoever commits it leaves a trace, which TiKV takes for success.
pub(super) fn of_commit(start_ts: Timestamp, primary: &Key, error: KeyError) -> Error {
    match error {
        reason @ (KeyError::TxnLockNotFound { .. } | KeyError::TxnNotFound { .. }) => {
            Error::RolledBack { start_ts, reason }
        }
        other => of_prewrite(start_ts, primary, other),
    }
}

/// The refusal of a response, if it carries one.
pub(super) fn key_error(error: Option<Box<kvrpcpb::KeyError>>) -> Option<KeyError> {
    error.map(|error| KeyError::from_proto(*error))
}

/// A conflict with oneself is no conflict. Either the transaction was rolled back by somebody else (the record of that
/// bears its start_ts), or it has committed already, by a request of which this client knows nothing: to run it again
/// would be to run it twice.
fn of_conflict(start_ts: Timestamp, primary: &Key, conflict: Box<Conflict>) -> Error {
    let rolled_back = conflict.reason == ConflictReason::SelfRolledBack
        || (conflict.conflict_ts == start_ts && conflict.conflict_commit_ts == start_ts);
    if rolled_back {
        return Error::RolledBack { start_ts, reason: KeyError::Conflict(conflict) };
    }
    if conflict.conflict_ts == start_ts {
        let cause = Box::new(Error::WriteConflict(conflict));
        return Error::Undetermined { start_ts, primary: primary.clone(), cause };
    }
    Error::WriteConflict(conflict)
}
