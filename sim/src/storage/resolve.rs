//! ResolveLock: commits or rolls back what a transaction of known fate has left.

use std::collections::BTreeMap;

use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{CommitRole, ResolveLockRequest, ResolveLockResponse};

use super::Refusal;
use super::command::{Context, Execute};
use super::commit::commit;
use super::errors::Error;
use super::lock::{KeyLock, Lock};
use super::rollback::cleanup;
use super::scan_lock::stored_locks;
use super::txn::Txn;

#[cfg(test)]
mod tests;

/// Locks that TiKV resolves in one go when it scans for them; an error does not undo the batches before.
const BATCH_LOCKS: usize = 256;

impl Execute for ResolveLockRequest {
    type Response = ResolveLockResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<ResolveLockResponse, Error> {
        if self.keys.is_empty() {
            resolve_region(cx, &fates(self))?;
        } else {
            resolve_keys(self, cx)?;
        }
        Ok(ResolveLockResponse::default())
    }
}

/// start_ts and commit_ts of the transactions to resolve; a commit_ts of zero means rolled back.
fn fates(request: &ResolveLockRequest) -> BTreeMap<Timestamp, Timestamp> {
    let one = (request.start_version > 0).then_some((request.start_version, request.commit_version));
    let many = request.txn_infos.iter().map(|info| (info.txn, info.status)).filter(|_| one.is_none());
    let fates = one.into_iter().chain(many);
    fates.map(|(start, commit)| (Timestamp::from_version(start), Timestamp::from_version(commit))).collect()
}

/// Every key must be locked, or its transaction ended as told.
fn resolve_keys(request: &ResolveLockRequest, cx: &mut Context<'_>) -> Result<(), Error> {
    if request.start_version == 0 {
        return Err(Error::Refused(Refusal::NoStartTs));
    }
    let start_ts = Timestamp::from_version(request.start_version);
    let commit_ts = Timestamp::from_version(request.commit_version);
    let mut txn = cx.begin(start_ts);
    for key in &request.keys {
        resolve_lock(&mut txn, &key.clone().into(), commit_ts)?;
    }
    let batch = txn.batch;
    cx.apply(batch);
    if !commit_ts.is_zero() {
        cx.learn_commit(start_ts);
    }
    Ok(())
}

fn resolve_lock(txn: &mut Txn<'_>, key: &Key, commit_ts: Timestamp) -> Result<(), Error> {
    if commit_ts.is_zero() {
        cleanup(txn, key, Timestamp::ZERO, false)
    } else {
        commit(txn, key, commit_ts, CommitRole::Unknown)
    }
}

/// Resolves all stored locks of the transactions in the region. Locks in memory are overlooked.
fn resolve_region(cx: &mut Context<'_>, fates: &BTreeMap<Timestamp, Timestamp>) -> Result<(), Error> {
    let locks: Vec<(Key, Lock)> =
        stored_locks(&cx.storage.data, cx.region, &|lock: &Lock| fates.contains_key(&lock.start_ts))
            .flat_map(|(key, lock)| single_locks(lock).into_iter().map(|lock| (key.clone(), lock)))
            .collect();
    for locks in locks.chunks(BATCH_LOCKS) {
        let mut txn = cx.begin(Timestamp::ZERO);
        let mut commits = Vec::new();
        for (key, lock) in locks {
            let commit_ts = fates.get(&lock.start_ts).copied().unwrap_or_default();
            txn.batch.start_ts = lock.start_ts;
            if resolve_scanned_lock(&mut txn, key, lock, commit_ts)? {
                commits.push(lock.start_ts);
            }
        }
        let batch = txn.batch;
        cx.apply(batch);
        for start_ts in commits {
            cx.learn_commit(start_ts);
        }
    }
    Ok(())
}

/// Whether the transaction is known to be committed.
fn resolve_scanned_lock(txn: &mut Txn<'_>, key: &Key, lock: &Lock, commit_ts: Timestamp) -> Result<bool, Error> {
    if !commit_ts.is_zero() && commit_ts <= lock.start_ts {
        return Err(Error::InvalidTxnTso { start_ts: lock.start_ts, commit_ts });
    }
    match resolve_lock(txn, key, commit_ts) {
        // The transaction was committed without this key.
        Err(Error::TxnLockNotFound { .. }) if lock.is_pessimistic() => Ok(false),
        result => result.map(|()| !commit_ts.is_zero()),
    }
}

fn single_locks(lock: KeyLock) -> Vec<Lock> {
    match lock {
        KeyLock::Exclusive(lock) => vec![lock],
        KeyLock::Shared(shared) => shared.locks.into_values().collect(),
    }
}
