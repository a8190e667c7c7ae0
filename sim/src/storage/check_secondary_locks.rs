//! CheckSecondaryLocks: asks the secondaries of an async-commit transaction whether all of them were prewritten, and
//! sees to it that one which was not never will be.

use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{CheckSecondaryLocksRequest, CheckSecondaryLocksResponse};

use super::command::{Context, Execute, keys_of};
use super::errors::Error;
use super::lock::{Lock, LockRef};
use super::rollback::{
    Fate, collapse_previous_rollback, determined_fate, mark_rollback_on_lock, overlapped_write, rollback_record,
};
use super::txn::Txn;

#[cfg(test)]
mod tests;

enum Status {
    Locked(Lock),
    Committed(Timestamp),
    RolledBack,
}

impl Execute for CheckSecondaryLocksRequest {
    type Response = CheckSecondaryLocksResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<CheckSecondaryLocksResponse, Error> {
        let keys = keys_of(&self.keys)?;
        let start_ts = Timestamp::from_version(self.start_version);
        // No calculated commit_ts may fall on a protected rollback.
        cx.storage.max_ts.observe(start_ts);
        let mut txn = cx.begin(start_ts);
        let mut response = CheckSecondaryLocksResponse::default();
        let mut committed = None;
        for key in &keys {
            match check(&mut txn, key)? {
                Status::Locked(lock) => {
                    response.locks.push(lock.info(key));
                    continue;
                }
                Status::Committed(commit_ts) => committed = Some(commit_ts),
                Status::RolledBack => {}
            }
            // One key without a lock decides for all.
            response.locks.clear();
            break;
        }
        let batch = txn.batch;
        cx.apply(batch);
        if let Some(commit_ts) = committed {
            response.commit_ts = commit_ts.version();
            cx.learn_commit(start_ts);
        }
        Ok(response)
    }
}

fn check(txn: &mut Txn<'_>, key: &Key) -> Result<Status, Error> {
    let mut other_lock = None;
    match txn.lock(key) {
        Some(LockRef::Exclusive(lock)) if lock.start_ts == txn.start_ts() => {
            let lock = lock.clone();
            if !lock.is_pessimistic() {
                return Ok(Status::Locked(lock));
            }
            // Never prewritten, so not part of a commit. The lock goes, unless it is known to have outlived its
            // transaction, with a rollback.
            txn.batch.unlock(key, true, Timestamp::ZERO);
            if !lock.is_pessimistic_with_conflict() {
                overlapped_write(txn, key)?;
            }
        }
        Some(LockRef::Exclusive(lock)) => other_lock = Some(lock.clone()),
        // Async commit writes no shared locks.
        Some(LockRef::Shared(_)) | None => {}
    }
    match determined_fate(txn, key) {
        Some(Fate::Committed(commit_ts)) => Ok(Status::Committed(commit_ts)),
        Some(_) => Ok(Status::RolledBack),
        None => {
            if let Some(lock) = other_lock {
                mark_rollback_on_lock(txn, key, &lock, true);
            }
            // Protected, or a collapsed record would let a late lock and prewrite succeed.
            if let Some(write) = rollback_record(txn.start_ts(), true, overlapped_write(txn, key)?) {
                txn.batch.put_write(key, txn.start_ts(), write);
                collapse_previous_rollback(txn, key);
            }
            Ok(Status::RolledBack)
        }
    }
}
