//! CheckTxnStatus: asks the primary what became of a transaction, and decides if its time is up.

use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{Action, CheckTxnStatusRequest, CheckTxnStatusResponse};

use super::command::{Context, Execute};
use super::errors::Error;
use super::lock::{Lock, LockRef};
use super::rollback::{Fate, MissingLock, determined_fate, resolve_missing_lock, rollback_lock};
use super::txn::Txn;

#[cfg(test)]
mod tests;

/// What the answer tells.
#[derive(Clone, Debug)]
enum Status {
    Ended(Fate),
    TtlExpired,
    PessimisticRolledBack,
    Uncommitted { lock: Lock, is_min_commit_ts_pushed: bool },
}

/// The request, its timestamps typed.
#[derive(Clone, Copy, Debug)]
struct Check<'a> {
    request: &'a CheckTxnStatusRequest,
    lock_ts: Timestamp,
    caller_start_ts: Timestamp,
    current_ts: Timestamp,
}

impl Execute for CheckTxnStatusRequest {
    type Response = CheckTxnStatusResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<CheckTxnStatusResponse, Error> {
        let check = Check {
            request: self,
            lock_ts: Timestamp::from_version(self.lock_ts),
            caller_start_ts: Timestamp::from_version(self.caller_start_ts),
            current_ts: Timestamp::from_version(self.current_ts),
        };
        cx.storage.max_ts.observe(check.newest_ts());
        let mut txn = cx.begin(check.lock_ts);
        let status = check.run(&mut txn, &self.primary_key.clone().into())?;
        let batch = txn.batch;
        cx.apply(batch);
        if let Status::Ended(Fate::Committed(_)) = status {
            cx.learn_commit(check.lock_ts);
        }
        Ok(answer(status))
    }
}

impl Check<'_> {
    /// The newest timestamp that the caller knows of; [`Timestamp::MAX`] is none.
    fn newest_ts(&self) -> Timestamp {
        let known = [self.caller_start_ts, self.current_ts].into_iter().filter(|ts| *ts != Timestamp::MAX);
        known.fold(self.lock_ts, Timestamp::max)
    }

    fn run(&self, txn: &mut Txn<'_>, key: &Key) -> Result<Status, Error> {
        let other = match txn.lock(key) {
            Some(LockRef::Exclusive(lock)) if lock.start_ts == self.lock_ts => {
                let lock = lock.clone();
                return self.lock_exists(txn, key, lock);
            }
            // A key under shared locks cannot be anybody's primary.
            Some(LockRef::Shared(shared)) => return Err(Error::PrimaryMismatch(Box::new(shared.info(key)))),
            Some(LockRef::Exclusive(lock)) => Some(lock.clone()),
            None => None,
        };
        self.lock_is_missing(txn, key, other.as_ref())
    }

    fn lock_is_missing(&self, txn: &mut Txn<'_>, key: &Key, other: Option<&Lock>) -> Result<Status, Error> {
        let rollback = self.request.rollback_if_not_exist;
        let action = if rollback { MissingLock::ProtectedRollback } else { MissingLock::ReturnError };
        resolve_missing_lock(txn, key, other, action, self.request.resolving_pessimistic_lock).map(Status::Ended)
    }

    fn lock_exists(&self, txn: &mut Txn<'_>, key: &Key, lock: Lock) -> Result<Status, Error> {
        if self.request.verify_is_primary && !lock.is_primary(key) {
            return self.lock_is_no_primary(txn, key, &lock);
        }
        // The fate of an async-commit transaction hangs on all its locks, not on the time to live of this one.
        if lock.use_async_commit && !self.request.force_sync_commit {
            return Ok(Status::Uncommitted { lock, is_min_commit_ts_pushed: false });
        }
        let ended = if lock.is_pessimistic() {
            self.end_pessimistic(txn, key, &lock)?
        } else if lock.is_expired(self.current_ts) {
            rollback_lock(txn, key, &lock, true)?;
            Some(Status::TtlExpired)
        } else {
            None
        };
        Ok(ended.unwrap_or_else(|| self.push_min_commit_ts(txn, key, lock)))
    }

    /// The transaction has changed its primary. If it is known to be in its commit phase, a pessimistic lock here is a
    /// leftover; in any other case the client is told where to ask.
    fn lock_is_no_primary(&self, txn: &mut Txn<'_>, key: &Key, lock: &Lock) -> Result<Status, Error> {
        if self.request.resolving_pessimistic_lock || !lock.is_pessimistic() {
            return Err(Error::PrimaryMismatch(Box::new(lock.info(key))));
        }
        let status = self.lock_is_missing(txn, key, None)?;
        txn.batch.unlock(key, true, Timestamp::ZERO);
        Ok(status)
    }

    /// Whether the pessimistic lock on the primary is stale or expired.
    fn end_pessimistic(&self, txn: &mut Txn<'_>, key: &Key, lock: &Lock) -> Result<Option<Status>, Error> {
        // A lock forced in spite of a conflict may have come after the transaction's end.
        let fate = lock.is_locked_with_conflict.then(|| determined_fate(txn, key)).flatten();
        if let Some(fate) = fate {
            txn.batch.unlock(key, true, Timestamp::ZERO);
            return Ok(Some(Status::Ended(fate)));
        }
        if !lock.is_expired(self.current_ts) {
            return Ok(None);
        }
        // Whoever resolves a pessimistic lock cannot know that this is still the primary, and must not end the
        // transaction here.
        if self.request.resolving_pessimistic_lock {
            txn.batch.unlock(key, true, Timestamp::ZERO);
            return Ok(Some(Status::PessimisticRolledBack));
        }
        rollback_lock(txn, key, lock, true)?;
        Ok(Some(Status::TtlExpired))
    }

    /// Makes the transaction commit after the caller's read, so that it need not wait. A min_commit_ts of zero must not be
    /// pushed: its owner does not expect that.
    fn push_min_commit_ts(&self, txn: &mut Txn<'_>, key: &Key, mut lock: Lock) -> Status {
        let caller = self.caller_start_ts;
        let reads_newest = caller == Timestamp::MAX;
        if !lock.min_commit_ts.is_zero() && !reads_newest && caller >= lock.min_commit_ts {
            lock.min_commit_ts = caller.next().max(self.current_ts);
            txn.batch.put_lock(key, lock.clone(), false);
        }
        // A read of the newest version may pass the lock: the transaction is not committed yet.
        let is_min_commit_ts_pushed = reads_newest || (!caller.is_zero() && lock.min_commit_ts > caller);
        Status::Uncommitted { lock, is_min_commit_ts_pushed }
    }
}

fn answer(status: Status) -> CheckTxnStatusResponse {
    let mut response = CheckTxnStatusResponse::default();
    let action = match status {
        Status::Ended(Fate::Committed(commit_ts)) => {
            response.commit_version = commit_ts.version();
            Action::NoAction
        }
        Status::Ended(Fate::RolledBack) => Action::NoAction,
        Status::Ended(Fate::LockNotExist) => Action::LockNotExistRollback,
        Status::Ended(Fate::LockNotExistDoNothing) => Action::LockNotExistDoNothing,
        Status::TtlExpired => Action::TtlExpireRollback,
        Status::PessimisticRolledBack => Action::TtlExpirePessimisticRollback,
        Status::Uncommitted { lock, is_min_commit_ts_pushed } => {
            response.lock_ttl = lock.ttl_ms;
            // TiKV names the primary, also where the lock was not verified to be on it.
            response.lock_info = Some(Box::new(lock.info(&lock.primary.clone().into())));
            if is_min_commit_ts_pushed { Action::MinCommitTsPushed } else { Action::NoAction }
        }
    };
    response.set_action(action);
    response
}
