//! Commit: turns the locks of a transaction into versions.

use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{CommitRequest, CommitResponse, CommitRole, CommitTsExpired};

use super::command::{Context, Execute, keys_of};
use super::data::CommitRecord;
use super::errors::Error;
use super::lock::{KeyLock, Lock, SharedLocks};
use super::mvcc_debug::mvcc_info;
use super::txn::Txn;
use super::write::{Write, WriteKind};

#[cfg(test)]
mod tests;

impl Execute for CommitRequest {
    type Response = CommitResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<CommitResponse, Error> {
        let keys = keys_of(&self.keys)?;
        let start_ts = Timestamp::from_version(self.start_version);
        let commit_ts = Timestamp::from_version(self.commit_version);
        if commit_ts <= start_ts {
            return Err(Error::InvalidTxnTso { start_ts, commit_ts });
        }
        let mut txn = cx.begin(start_ts);
        for key in &keys {
            commit(&mut txn, key, commit_ts, self.commit_role())?;
        }
        let batch = txn.batch;
        cx.apply(batch);
        cx.learn_commit(start_ts);
        // The request's timestamp, even if the transaction had been committed at another.
        Ok(CommitResponse { commit_version: self.commit_version, ..CommitResponse::default() })
    }
}

/// Commits one key. A pessimistic lock is only removed: it was left behind by a lost rollback, and the transaction does not
/// write this key.
pub(super) fn commit(txn: &mut Txn<'_>, key: &Key, commit_ts: Timestamp, role: CommitRole) -> Result<(), Error> {
    let Some((lock, others)) = take_own_lock(txn, key) else { return committed_before(txn, key, commit_ts, role) };
    if commit_ts < lock.min_commit_ts {
        return Err(commit_ts_expired(txn, key, &lock, commit_ts));
    }
    let released_at = match lock.kind.committed() {
        Some(kind) => {
            let write = committed_write(kind, &lock, commit_ts);
            txn.batch.put_write(key, commit_ts, write);
            commit_ts
        }
        None => Timestamp::ZERO,
    };
    match others {
        Some(shared) => txn.batch.shrink_shared_locks(key, shared, released_at),
        None => txn.batch.unlock(key, lock.is_of_pessimistic_txn(), released_at),
    }
    Ok(())
}

/// The lock of the transaction, and the shared locks that stay without it.
fn take_own_lock(txn: &Txn<'_>, key: &Key) -> Option<(Lock, Option<SharedLocks>)> {
    match txn.pending_lock(key)? {
        KeyLock::Exclusive(lock) => (lock.start_ts == txn.start_ts()).then_some((lock, None)),
        KeyLock::Shared(mut shared) => {
            let lock = shared.locks.remove(&txn.start_ts())?;
            Some((lock, Some(shared)))
        }
    }
}

/// Without a lock, the transaction must have been committed before.
fn committed_before(txn: &Txn<'_>, key: &Key, commit_ts: Timestamp, role: CommitRole) -> Result<(), Error> {
    match txn.data.commit_record(key, txn.start_ts()) {
        CommitRecord::Single { write, .. } if write.kind != WriteKind::Rollback => Ok(()),
        _ => {
            // A secondary without lock or commit record is never expected: show what is there.
            let mvcc = (role == CommitRole::Secondary).then(|| Box::new(mvcc_info(txn.data, key)));
            Err(Error::TxnLockNotFound { start_ts: txn.start_ts(), commit_ts, key: key.clone(), mvcc })
        }
    }
}

/// The primary may see its min_commit_ts pushed at any time. A secondary is committed after the primary, so that no
/// min_commit_ts can lie above its commit_ts, and if one does, the error shows what is there.
fn commit_ts_expired(txn: &Txn<'_>, key: &Key, lock: &Lock, commit_ts: Timestamp) -> Error {
    let mvcc = (!lock.is_primary(key)).then(|| Box::new(mvcc_info(txn.data, key)));
    let expired = CommitTsExpired {
        start_ts: txn.start_ts().version(),
        attempted_commit_ts: commit_ts.version(),
        key: key.to_bytes(),
        min_commit_ts: lock.min_commit_ts.version(),
    };
    Error::CommitTsExpired(Box::new(expired), mvcc)
}

fn committed_write(kind: WriteKind, lock: &Lock, commit_ts: Timestamp) -> Write {
    let mut write = Write::new(kind, lock.start_ts, lock.short_value.clone());
    write.last_change = lock.last_change;
    write.has_overlapped_rollback = lock.rollback_ts.contains(&commit_ts);
    write
}
