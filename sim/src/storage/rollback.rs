//! Roll back: removes the locks of a transaction and leaves a trace that keeps late requests from succeeding.
//!
//! The trace is a Rollback record at start_ts. It may be collapsed, that is dropped for the next one, unless it is
//! protected: on primaries, on flushed keys, and where another client decided the transaction's fate. Where another
//! transaction's record lies at start_ts already, a protected rollback becomes a flag on that record, and any other leaves
//! no trace.

use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{BatchRollbackRequest, BatchRollbackResponse, CleanupRequest, CleanupResponse};

use super::Refusal;
use super::command::{Context, Execute, keys_of};
use super::data::{CommitRecord, OverlappedWrite};
use super::errors::Error;
use super::lock::{KeyLock, Lock, LockKind, SharedLocks};
use super::txn::Txn;
use super::write::{Write, WriteKind};

#[cfg(test)]
mod tests;

impl Execute for BatchRollbackRequest {
    type Response = BatchRollbackResponse;

    /// The client gave the transaction up, and nobody else decides: records need no protection.
    fn execute(&self, cx: &mut Context<'_>) -> Result<BatchRollbackResponse, Error> {
        let keys = keys_of(&self.keys)?;
        let mut txn = cx.begin(Timestamp::from_version(self.start_version));
        for key in &keys {
            cleanup(&mut txn, key, Timestamp::ZERO, false)?;
        }
        let batch = txn.batch;
        cx.apply(batch);
        Ok(BatchRollbackResponse::default())
    }
}

impl Execute for CleanupRequest {
    type Response = CleanupResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<CleanupResponse, Error> {
        let start_ts = Timestamp::from_version(self.start_version);
        // No calculated commit_ts may fall on a protected rollback.
        cx.storage.max_ts.observe(start_ts);
        let mut txn = cx.begin(start_ts);
        match cleanup(&mut txn, &self.key.clone().into(), Timestamp::from_version(self.current_ts), true) {
            Ok(()) => {
                let batch = txn.batch;
                cx.apply(batch);
                Ok(CleanupResponse::default())
            }
            Err(Error::Committed { commit_ts, .. }) => {
                Ok(CleanupResponse { commit_version: commit_ts.version(), ..CleanupResponse::default() })
            }
            Err(error) => Err(error),
        }
    }
}

/// Rolls back one key, unless the lock is still alive at `current_ts` (zero: no matter) or the transaction is committed.
pub(super) fn cleanup(txn: &mut Txn<'_>, key: &Key, current_ts: Timestamp, protect: bool) -> Result<(), Error> {
    let start_ts = txn.start_ts();
    let is_alive = |lock: &Lock| !current_ts.is_zero() && !lock.is_expired(current_ts);
    let found = txn.pending_lock(key);
    match found {
        Some(KeyLock::Exclusive(lock)) if lock.start_ts == start_ts => {
            if is_alive(&lock) {
                return Err(Error::locked(lock.info(key)));
            }
            rollback_lock(txn, key, &lock, !protect)
        }
        Some(KeyLock::Shared(shared)) if shared.locks.contains_key(&start_ts) => {
            if shared.locks.get(&start_ts).is_some_and(is_alive) {
                return Err(Error::locked(shared.info(key)));
            }
            rollback_shared_lock(txn, key, shared, !protect)
        }
        other => {
            let action = if protect { MissingLock::ProtectedRollback } else { MissingLock::Rollback };
            match resolve_missing_lock(txn, key, other.as_ref().and_then(KeyLock::exclusive), action, false)? {
                Fate::Committed(commit_ts) => Err(Error::Committed { start_ts, commit_ts, key: key.clone() }),
                _ => Ok(()),
            }
        }
    }
}

/// What to do about a transaction that left neither lock nor record on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MissingLock {
    Rollback,
    ProtectedRollback,
    ReturnError,
}

/// What became of a transaction without a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Committed(Timestamp),
    RolledBack,
    /// Rolled back just now.
    LockNotExist,
    /// Left undecided.
    LockNotExistDoNothing,
}

/// Finds out how the transaction ended on a key, if it did.
pub(super) fn determined_fate(txn: &Txn<'_>, key: &Key) -> Option<Fate> {
    match txn.data.commit_record(key, txn.start_ts()) {
        CommitRecord::Single { write, .. } if write.kind == WriteKind::Rollback => Some(Fate::RolledBack),
        CommitRecord::Single { commit_ts, .. } => Some(Fate::Committed(commit_ts)),
        CommitRecord::OverlappedRollback => Some(Fate::RolledBack),
        CommitRecord::None { .. } => None,
    }
}

/// Finds out how the transaction ended on a key without its lock; if it did not, ends it as `action` says.
/// `other_lock` is the lock that another transaction holds there.
pub(super) fn resolve_missing_lock(
    txn: &mut Txn<'_>,
    key: &Key,
    other_lock: Option<&Lock>,
    action: MissingLock,
    is_resolving_pessimistic: bool,
) -> Result<Fate, Error> {
    if let Some(fate) = determined_fate(txn, key) {
        return Ok(fate);
    }
    let start_ts = txn.start_ts();
    if action == MissingLock::ReturnError {
        return Err(Error::TxnNotFound { start_ts, key: key.clone() });
    }
    if is_resolving_pessimistic {
        return Ok(Fate::LockNotExistDoNothing);
    }
    let protect = action == MissingLock::ProtectedRollback;
    if !protect {
        collapse_previous_rollback(txn, key);
    }
    let overlapped = overlapped_write(txn, key)?;
    if let (Some(lock), None) = (other_lock, &overlapped) {
        mark_rollback_on_lock(txn, key, lock, protect);
    }
    if let Some(write) = rollback_record(start_ts, protect, overlapped) {
        txn.batch.put_write(key, start_ts, write);
    }
    Ok(Fate::LockNotExist)
}

/// Removes a lock of the transaction and its value, and leaves a record.
pub(super) fn rollback_lock(txn: &mut Txn<'_>, key: &Key, lock: &Lock, collapse: bool) -> Result<(), Error> {
    let is_pessimistic = lock.is_of_pessimistic_txn();
    if is_rolled_back(txn, key)? {
        txn.batch.unlock(key, is_pessimistic, Timestamp::ZERO);
        return Ok(());
    }
    if lock.short_value.is_none() && lock.kind == LockKind::Put {
        txn.batch.delete_value(key, lock.start_ts);
    }
    // A flushed key is protected, or a later flush would not notice and fail by its assertion instead.
    let protect = lock.is_primary(key) || lock.generation > 0;
    leave_rollback(txn, key, protect, collapse)?;
    txn.batch.unlock(key, is_pessimistic, Timestamp::ZERO);
    Ok(())
}

/// Takes the transaction's lock out of the shared ones and leaves a record.
pub(super) fn rollback_shared_lock(
    txn: &mut Txn<'_>,
    key: &Key,
    mut shared: SharedLocks,
    collapse: bool,
) -> Result<(), Error> {
    let Some(lock) = shared.locks.remove(&txn.start_ts()) else { return Ok(()) };
    if !is_rolled_back(txn, key)? {
        if lock.is_primary(key) {
            return Err(Error::Refused(Refusal::SharedPrimary));
        }
        leave_rollback(txn, key, false, collapse)?;
    }
    txn.batch.shrink_shared_locks(key, shared, Timestamp::ZERO);
    Ok(())
}

fn leave_rollback(txn: &mut Txn<'_>, key: &Key, protect: bool, collapse: bool) -> Result<(), Error> {
    let start_ts = txn.start_ts();
    if let Some(write) = rollback_record(start_ts, protect, overlapped_write(txn, key)?) {
        txn.batch.put_write(key, start_ts, write);
    }
    if collapse {
        collapse_previous_rollback(txn, key);
    }
    Ok(())
}

/// Whether a Rollback record is there already. TiKV takes a lock beside the transaction's own commit record for corruption.
fn is_rolled_back(txn: &Txn<'_>, key: &Key) -> Result<bool, Error> {
    match determined_fate(txn, key) {
        Some(Fate::Committed(_)) => Err(Error::Refused(Refusal::LockOfCommittedTxn)),
        fate => Ok(fate.is_some()),
    }
}

/// Another transaction's record at this start_ts. An error if the transaction has a record of its own.
pub(super) fn overlapped_write<'a>(txn: &Txn<'a>, key: &Key) -> Result<Option<OverlappedWrite<'a>>, Error> {
    match txn.data.commit_record(key, txn.start_ts()) {
        CommitRecord::None { overlapped } => Ok(overlapped),
        _ => Err(Error::Refused(Refusal::LockOfCommittedTxn)),
    }
}

/// The record to write at start_ts, if any.
pub(super) fn rollback_record(
    start_ts: Timestamp,
    protect: bool,
    overlapped: Option<OverlappedWrite<'_>>,
) -> Option<Write> {
    match overlapped {
        None => Some(Write::rollback(start_ts, protect)),
        Some(OverlappedWrite { write, gc_fence }) if protect => {
            let mut write = write.clone();
            write.has_overlapped_rollback = true;
            write.gc_fence = Some(gc_fence);
            Some(write)
        }
        Some(_) => None,
    }
}

/// Drops the newest Rollback record below start_ts, unless it is protected.
pub(super) fn collapse_previous_rollback(txn: &mut Txn<'_>, key: &Key) {
    let Some((commit_ts, write)) = txn.data.seek_write(key, txn.start_ts()) else { return };
    if write.kind == WriteKind::Rollback && !write.is_protected_rollback() {
        txn.batch.delete_write(key, commit_ts);
    }
}

/// Notes a protected rollback on another transaction's lock, if that might be committed at this very timestamp: only
/// async commit calculates its commit_ts.
pub(super) fn mark_rollback_on_lock(txn: &mut Txn<'_>, key: &Key, lock: &Lock, protect: bool) {
    if !protect || txn.start_ts() < lock.min_commit_ts || !lock.use_async_commit {
        return;
    }
    let mut lock = lock.clone();
    lock.rollback_ts.push(txn.start_ts());
    txn.batch.put_lock(key, lock, false);
}
