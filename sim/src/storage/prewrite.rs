//! Prewrite: the first phase of two-phase commit; with async commit and one-phase commit almost all of it.

use bytes::Bytes;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{KeyError, PrewriteRequest, PrewriteResponse};

use super::batch::OnePcLock;
use super::command::{Context, Execute, check_key_sizes};
use super::data::CommitRecord;
use super::errors::Error;
use super::prewrite_key::{CommitKind, KeyMutation, TxnProps, prewrite_key};
use super::txn::Txn;
use super::write::{Write, WriteKind};
use super::{Refusal, Storage};

#[cfg(test)]
mod tests;

/// From more mutations on, TiKV looks whether their range holds any version at all before it checks each key.
const FORWARD_MIN_MUTATIONS: usize = 12;

impl Execute for PrewriteRequest {
    type Response = PrewriteResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<PrewriteResponse, Error> {
        let mut mutations = mutations_of(self)?;
        let mut props = props_of(self, cx);
        if props.for_update_ts.is_none() {
            skip_checks_of_empty_range(&mut mutations, &mut props, cx.storage);
        }
        let mut prewrite = Prewrite {
            secondaries: self.use_async_commit.then(|| self.secondaries.clone()),
            is_one_pc: self.try_one_pc,
            props,
        };
        let mut txn = cx.begin(prewrite.props.start_ts);
        let Prewritten { locked, min_commit_ts } = prewrite.run(&mut txn, &mutations)?;
        let mut response = PrewriteResponse { errors: locked, ..PrewriteResponse::default() };
        if prewrite.secondaries.is_some() {
            response.min_commit_ts = min_commit_ts.version();
        }
        if !response.errors.is_empty() {
            return Ok(response);
        }
        if prewrite.is_one_pc {
            commit_one_pc(&mut txn, min_commit_ts);
            response.one_pc_commit_ts = min_commit_ts.version();
        }
        let batch = txn.batch;
        cx.apply(batch);
        if prewrite.is_one_pc {
            cx.learn_commit(prewrite.props.start_ts);
        }
        Ok(response)
    }
}

/// The mutations of a request. Of a pessimistic transaction those beyond the list of actions are cut off.
fn mutations_of(request: &PrewriteRequest) -> Result<Vec<KeyMutation>, Error> {
    let mut mutations = request.mutations.iter().map(KeyMutation::new).collect::<Result<Vec<_>, _>>()?;
    let is_pessimistic = request.for_update_ts > 0;
    if is_pessimistic {
        mutations.truncate(request.pessimistic_actions.len());
        for (mutation, action) in mutations.iter_mut().zip(request.pessimistic_actions()) {
            mutation.action = action;
        }
    }
    if mutations.is_empty() {
        return Err(Error::Refused(Refusal::NoKeys));
    }
    check_key_sizes(request.mutations.iter().take(mutations.len()).map(|mutation| &mutation.key))?;
    for constraint in request.for_update_ts_constraints.iter().filter(|_| is_pessimistic) {
        let index = usize::try_from(constraint.index).unwrap_or(usize::MAX);
        let Some(mutation) = mutations.get_mut(index) else {
            return Err(Error::InTxn("prewrite request invalid: for_update_ts constraint set for a missing mutation"));
        };
        mutation.expected_for_update_ts = Some(Timestamp::from_version(constraint.expected_for_update_ts));
    }
    Ok(mutations)
}

fn props_of(request: &PrewriteRequest, cx: &Context<'_>) -> TxnProps {
    let start_ts = Timestamp::from_version(request.start_version);
    let max_commit_ts = Timestamp::from_version(request.max_commit_ts);
    let commit = match (request.try_one_pc, request.use_async_commit) {
        (true, _) => CommitKind::OnePc { max_commit_ts },
        (false, true) => CommitKind::Async { max_commit_ts },
        (false, false) => CommitKind::TwoPc,
    };
    let is_pessimistic = request.for_update_ts > 0;
    let is_marked_retry = cx.has_option(|context| context.is_retry_request);
    TxnProps {
        start_ts,
        for_update_ts: is_pessimistic.then(|| Timestamp::from_version(request.for_update_ts)),
        commit,
        primary: request.primary_lock.clone(),
        txn_size: request.txn_size,
        lock_ttl_ms: request.lock_ttl,
        min_commit_ts: Timestamp::from_version(request.min_commit_ts),
        skip_constraint_check: request.skip_constraint_check,
        // A transaction that is known to be committed must have been prewritten before.
        is_retry: is_marked_retry || (is_pessimistic && cx.storage.txn_status_cache.is_committed(start_ts)),
        assertion_level: request.assertion_level(),
        generation: 0,
    }
}

/// Many mutations, with nothing ever written between the first and the last key (bulk loading): no need to check each.
fn skip_checks_of_empty_range(mutations: &mut [KeyMutation], props: &mut TxnProps, storage: &Storage) {
    if mutations.len() <= FORWARD_MIN_MUTATIONS {
        return;
    }
    mutations.sort_by(|left, right| left.key.cmp(&right.key));
    let (Some(first), Some(last)) = (mutations.first(), mutations.last()) else { return };
    let range = (first.key.clone()..=last.key.clone()).into();
    let is_empty = storage.data.range(&range).all(|(_, record)| record.writes.is_empty());
    props.skip_constraint_check |= is_empty;
}

/// A prewrite request at work. It may fall back from async or one-phase commit on its way.
#[derive(Debug)]
struct Prewrite {
    props: TxnProps,
    /// Async commit: the other keys of the whole transaction, if the primary is among the mutations.
    secondaries: Option<Vec<Bytes>>,
    is_one_pc: bool,
}

/// What came of the mutations.
#[derive(Debug)]
struct Prewritten {
    /// Locks of others. Nothing is written if there are any.
    locked: Vec<KeyError>,
    min_commit_ts: Timestamp,
}

impl Prewrite {
    fn run(&mut self, txn: &mut Txn<'_>, mutations: &[KeyMutation]) -> Result<Prewritten, Error> {
        let mut result = Prewritten { locked: Vec::new(), min_commit_ts: Timestamp::ZERO };
        // Any other error matters more than an assertion that does not hold.
        let mut failed_assertion = None;
        for mutation in mutations {
            let secondaries = self.secondaries_of(mutation);
            let needs_min_commit_ts = secondaries.is_some() || self.is_one_pc;
            match prewrite_key(txn, &self.props, mutation, secondaries) {
                Ok(ts) if needs_min_commit_ts && ts.is_zero() => {
                    // Prewritten before, and fallen back.
                    self.fall_back(txn);
                    result.min_commit_ts = Timestamp::ZERO;
                }
                Ok(ts) if needs_min_commit_ts => result.min_commit_ts = result.min_commit_ts.max(ts),
                Ok(_) => {}
                Err(error @ Error::AssertionFailed(_)) => failed_assertion = failed_assertion.or(Some(error)),
                Err(error) => {
                    if let Some(commit_ts) = committed_before(txn, mutation, &error) {
                        txn.batch.clear();
                        return Ok(Prewritten { locked: Vec::new(), min_commit_ts: commit_ts });
                    }
                    match error {
                        Error::CommitTsTooLarge => {
                            self.fall_back(txn);
                            result.min_commit_ts = Timestamp::ZERO;
                        }
                        Error::KeyIsLocked(_) => result.locked.push(error.key_error()),
                        error => return Err(error),
                    }
                }
            }
        }
        failed_assertion.map_or(Ok(result), Err)
    }

    fn secondaries_of(&self, mutation: &KeyMutation) -> Option<Vec<Bytes>> {
        let secondaries = self.secondaries.as_ref()?;
        let is_primary = mutation.key.as_slice() == self.props.primary;
        Some(if is_primary { secondaries.clone() } else { Vec::new() })
    }

    /// Goes on with two-phase commit, also for the keys before.
    fn fall_back(&mut self, txn: &mut Txn<'_>) {
        self.props.commit = CommitKind::TwoPc;
        self.secondaries = None;
        self.is_one_pc = false;
        for OnePcLock { key, lock, replaces_pessimistic } in std::mem::take(&mut txn.batch.one_pc_locks) {
            txn.batch.put_lock(&key, lock, !replaces_pessimistic);
        }
    }
}

/// Whether an error comes only of the transaction being committed already, so that the request is a late repetition.
pub(super) fn committed_before(txn: &Txn<'_>, mutation: &KeyMutation, error: &Error) -> Option<Timestamp> {
    let may_be_repeated = match error {
        Error::WriteConflict(conflict) => conflict.conflict_commit_ts > conflict.start_ts,
        Error::PessimisticLockNotFound { .. } | Error::CommitTsTooLarge | Error::KeyIsLocked(_) => true,
        _ => false,
    };
    match txn.data.commit_record(&mutation.key, txn.start_ts()) {
        CommitRecord::Single { commit_ts, write } if may_be_repeated && write.kind != WriteKind::Rollback => {
            Some(commit_ts)
        }
        _ => None,
    }
}

/// Turns the locks of one-phase commit into versions.
fn commit_one_pc(txn: &mut Txn<'_>, commit_ts: Timestamp) {
    for OnePcLock { key, lock, replaces_pessimistic } in std::mem::take(&mut txn.batch.one_pc_locks) {
        if let Some(kind) = lock.kind.committed() {
            let mut write = Write::new(kind, lock.start_ts, lock.short_value);
            write.last_change = lock.last_change;
            txn.batch.put_write(&key, commit_ts, write);
        }
        if replaces_pessimistic {
            txn.batch.unlock(&key, true, commit_ts);
        }
    }
}
