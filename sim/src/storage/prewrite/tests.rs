use tikv_proto::kvrpcpb::prewrite_request::{ForUpdateTsConstraint, PessimisticAction};
use tikv_proto::kvrpcpb::{
    BroadcastTxnStatusRequest, LockInfo, Mutation, Op, PessimisticLockRequest, PrewriteRequest, TxnStatus,
};

use crate::storage::Refusal;
use crate::storage::harness::{
    Store, check_status, get, is_abort, lock, lock_shared, op, prewrite, prewrite_locked, put,
};

const KEYS: [&str; 13] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m"];

fn locks_of_all_keys() -> Vec<Mutation> {
    KEYS.iter().rev().map(|key| op(Op::Lock, key)).collect()
}

#[test]
fn many_keys_without_any_version_between_them_are_not_looked_up() {
    let mut store = Store::new();
    store.write("z", "beyond", 1, 2);
    assert_eq!(store.call(&prewrite(10, "a", locks_of_all_keys())).errors, []);
    let lock = store.mvcc("c").lock.unwrap_or_default();
    assert_eq!(lock.versions_to_last_change, 0, "nothing is known of older versions");
}

#[test]
fn many_keys_with_a_version_between_them_are_looked_up() {
    let mut store = Store::new();
    store.write("ab", "between", 1, 2);
    assert_eq!(store.call(&prewrite(10, "a", locks_of_all_keys())).errors, []);
    let lock = store.mvcc("c").lock.unwrap_or_default();
    assert_eq!((lock.last_change_ts, lock.versions_to_last_change), (0, 1), "it is known that there are none");
}

#[test]
fn locks_met_by_many_keys_come_back_in_key_order() {
    let mut store = Store::new();
    store.call(&prewrite(5, "m", vec![put("m", "1"), put("b", "2")]));
    let errors = store.call(&prewrite(10, "a", locks_of_all_keys())).errors;
    let keys: Vec<_> = errors.iter().filter_map(|error| Some(error.locked.as_ref()?.key.clone())).collect();
    assert_eq!(keys, ["b", "m"]);
    assert_eq!(store.locks().len(), 2, "nothing is written");
}

#[test]
fn a_key_that_exceeds_max_commit_ts_takes_the_keys_before_back_from_one_phase_commit() {
    let mut store = Store::new();
    store.call(&PessimisticLockRequest { min_commit_ts: 100, ..lock(10, 10, "a", &["b"]) });
    let mut request = prewrite_locked(10, 10, "a", vec![put("a", "1"), put("b", "2")]);
    request.pessimistic_actions[0] = PessimisticAction::SkipPessimisticCheck.into();
    request.try_one_pc = true;
    request.max_commit_ts = 50;
    let handled = store.handle(&request);

    assert_eq!(handled.acquired.len(), 1, "b was locked before");
    assert_eq!(store.versions("a"), []);
    let locks = store.locks();
    assert_eq!(locks.iter().map(LockInfo::lock_type).collect::<Vec<_>>(), [Op::Put, Op::Put]);
    assert_eq!((locks[0].min_commit_ts, locks[1].min_commit_ts), (11, 100));
}

#[test]
fn one_phase_commit_exceeds_what_anybody_has_read_at() {
    let mut store = Store::new();
    store.call(&get("x", 77));
    let request = PrewriteRequest { try_one_pc: true, ..prewrite(10, "a", vec![put("a", "1")]) };
    assert_eq!(store.call(&request).one_pc_commit_ts, 78);
    assert_eq!(store.versions("a"), [(Op::Put, 78)]);
}

#[test]
fn a_read_at_the_largest_timestamp_does_not_push_commits() {
    let mut store = Store::new();
    store.call(&get("x", u64::MAX));
    let request = PrewriteRequest { use_async_commit: true, ..prewrite(10, "a", vec![put("a", "1")]) };
    assert_eq!(store.call(&request).min_commit_ts, 11);
}

#[test]
fn a_status_check_at_the_largest_timestamps_does_not_push_commits() {
    let mut store = Store::new();
    let mut check = check_status(5, "x");
    (check.caller_start_ts, check.current_ts) = (u64::MAX, u64::MAX);
    store.call(&check);
    assert_eq!(store.storage.max_ts().version(), 5);
}

#[test]
fn a_constraint_of_a_mutation_that_is_not_there_aborts() {
    let mut store = Store::new();
    let mut request = prewrite_locked(10, 10, "a", vec![put("a", "1")]);
    request.for_update_ts_constraints = vec![ForUpdateTsConstraint { index: 1, expected_for_update_ts: 10 }];
    assert!(is_abort(store.call(&request).errors.first(), "invalid"));
}

#[test]
fn mutations_beyond_the_pessimistic_actions_are_cut_off() {
    let mut store = Store::new();
    let mut request = prewrite_locked(10, 10, "a", vec![put("a", "1"), put("b", "2")]);
    request.pessimistic_actions.truncate(1);
    store.call(&request);
    assert_eq!(store.locks().len(), 1);
    request.pessimistic_actions.clear();
    assert_eq!(store.refusal(&request), Refusal::NoKeys);
}

#[test]
fn a_mutation_that_cannot_be_prewritten_is_refused() {
    let mut store = Store::new();
    assert_eq!(store.refusal(&prewrite(10, "a", vec![])), Refusal::NoKeys);
    let request = prewrite(10, "a", vec![op(Op::PessimisticLock, "a")]);
    assert_eq!(store.refusal(&request), Refusal::UnexpectedOp);
}

#[test]
fn shared_locks_do_without_one_phase_commit() {
    let mut store = Store::new();
    store.call(&lock_shared(10, "p", "k"));
    let mut request = prewrite_locked(10, 10, "p", vec![op(Op::SharedLock, "k")]);
    request.try_one_pc = true;
    assert!(is_abort(store.call(&request).errors.first(), "one-phase"));
}

/// A repeated prewrite of a key without pessimistic lock has to look whether its transaction has ended.
#[test]
fn a_prewrite_of_a_transaction_known_to_be_committed_is_a_repetition() {
    let late = || {
        let mut request = prewrite_locked(10, 10, "a", vec![put("a", "1")]);
        request.pessimistic_actions = vec![PessimisticAction::SkipPessimisticCheck.into()];
        request
    };
    let mut store = Store::new();
    store.write("a", "other", 15, 20);
    assert_eq!(store.clone().call(&late()).errors, [], "nothing is checked at first");

    let told = TxnStatus { start_ts: 10, commit_ts: 12, ..TxnStatus::default() };
    store.call(&BroadcastTxnStatusRequest { txn_status: vec![told], ..Default::default() });
    assert!(is_abort(store.call(&late()).errors.first(), "NonLockKeyConflict"));
}
