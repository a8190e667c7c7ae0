use tikv_proto::kvrpcpb::{CheckSecondaryLocksRequest, Op, PrewriteRequest};

use crate::storage::Refusal;
use crate::storage::harness::{Store, bytes, commit, lock, prewrite, put, rollback};

fn check(start: u64, keys: &[&'static str]) -> CheckSecondaryLocksRequest {
    CheckSecondaryLocksRequest { start_version: start, keys: bytes(keys), ..CheckSecondaryLocksRequest::default() }
}

#[test]
fn all_locks_come_back_if_none_is_missing() {
    let mut store = Store::new();
    let request = PrewriteRequest { use_async_commit: true, ..prewrite(10, "p", vec![put("a", "1"), put("b", "2")]) };
    store.call(&request);
    assert_eq!(store.call(&check(10, &["a", "b"])).locks.len(), 2);
}

#[test]
fn a_missing_lock_rolls_the_transaction_back_for_good() {
    let mut store = Store::new();
    store.call(&prewrite(10, "p", vec![put("a", "1")]));
    let response = store.call(&check(10, &["a", "b"]));
    assert_eq!((response.locks, response.commit_ts), (vec![], 0));
    store.call(&rollback(11, &["b"]));
    assert_eq!(store.versions("b"), [(Op::Rollback, 11), (Op::Rollback, 10)], "protected from collapsing");
    assert_eq!(store.locks().len(), 1, "other locks are left to whoever resolves them");
}

#[test]
fn one_committed_key_tells_the_commit_ts() {
    let mut store = Store::new();
    store.call(&prewrite(10, "p", vec![put("a", "1"), put("b", "2")]));
    store.call(&commit(10, &["b"], 20));
    let response = store.call(&check(10, &["a", "b", "c"]));
    assert_eq!((response.locks, response.commit_ts), (vec![], 20));
    assert_eq!(store.versions("c"), [], "the rest is not looked at");
}

#[test]
fn a_pessimistic_lock_gives_way_to_a_protected_rollback() {
    let mut store = Store::new();
    store.call(&lock(10, 10, "p", &["a"]));
    assert_eq!(store.handle(&check(10, &["a"])).released.len(), 1);
    assert_eq!(store.mvcc("a").writes[0].short_value, "p");
}

#[test]
fn a_pessimistic_lock_beside_the_commit_of_its_transaction_is_refused() {
    let mut store = Store::new();
    store.write("a", "1", 10, 20);
    assert_eq!(store.call(&lock(10, 30, "a", &["a"])).errors, []);
    assert_eq!(store.refusal(&check(10, &["a"])), Refusal::LockOfCommittedTxn);
}
