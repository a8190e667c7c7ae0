use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{CommitRequest, CommitRole, Op, PrewriteRequest};

use crate::storage::Refusal;
use crate::storage::harness::{Store, commit, lock, prewrite, prewrite_locked, put};

#[test]
fn a_repeated_commit_echoes_the_timestamp_of_the_request() {
    let mut store = Store::new();
    store.write("k", "v", 10, 20);
    let repeated = store.call(&commit(10, &["k"], 33));
    assert_eq!((repeated.error, repeated.commit_version), (None, 33));
    assert_eq!(store.versions("k"), [(Op::Put, 20)]);
}

#[test]
fn committing_a_pessimistic_lock_removes_it_and_writes_nothing() {
    let mut store = Store::new();
    store.call(&lock(10, 10, "k", &["k"]));
    let handled = store.handle(&commit(10, &["k"], 20));
    assert_eq!((handled.released[0].commit_ts, handled.released[0].is_pessimistic), (Timestamp::ZERO, true));
    assert_eq!((store.versions("k"), store.locks()), (vec![], vec![]));
}

#[test]
fn a_commit_reports_the_locks_it_releases() {
    let mut store = Store::new();
    store.call(&prewrite(10, "a", vec![put("a", "1"), put("b", "2")]));
    let released = store.handle(&commit(10, &["a", "b"], 20)).released;
    let released: Vec<_> = released.iter().map(|lock| (lock.key.as_slice(), lock.start_ts.version())).collect();
    assert_eq!(released, [(&b"a"[..], 10), (&b"b"[..], 10)]);
}

#[test]
fn only_a_secondary_without_lock_shows_what_is_stored() {
    let mut store = Store::new();
    store.write("k", "v", 5, 6);
    let debug_info = |store: &mut Store, role: CommitRole| {
        let request = CommitRequest { commit_role: role.into(), ..commit(10, &["k"], 20) };
        store.call(&request).error.and_then(|error| error.debug_info)
    };
    assert_eq!(debug_info(&mut store, CommitRole::Primary), None);
    let shown = debug_info(&mut store, CommitRole::Secondary).unwrap_or_default();
    assert_eq!(shown.mvcc_info[0].mvcc.as_ref().map(|mvcc| mvcc.writes.len()), Some(1));
}

#[test]
fn a_lock_cannot_be_committed_before_its_min_commit_ts() {
    let mut store = Store::new();
    let request = PrewriteRequest { min_commit_ts: 30, ..prewrite(10, "a", vec![put("a", "1"), put("b", "2")]) };
    store.call(&request);
    let of_primary = store.call(&commit(10, &["a"], 29)).error.unwrap_or_default();
    assert_eq!(of_primary.commit_ts_expired.map(|expired| expired.min_commit_ts), Some(30));
    assert_eq!(of_primary.debug_info, None);
    let of_secondary = store.call(&commit(10, &["b"], 29)).error.unwrap_or_default();
    assert!(of_secondary.debug_info.is_some(), "not expected of a secondary");
}

#[test]
fn one_key_that_fails_keeps_the_others_from_being_committed() {
    let mut store = Store::new();
    store.call(&prewrite(10, "a", vec![put("a", "1")]));
    let failed = store.call(&commit(10, &["a", "b"], 20));
    assert!(failed.error.is_some_and(|error| error.txn_lock_not_found.is_some()));
    assert_eq!((store.versions("a"), store.locks().len()), (vec![], 1));
}

#[test]
fn a_commit_without_keys_is_refused() {
    assert_eq!(Store::new().refusal(&commit(10, &[], 20)), Refusal::NoKeys);
}

#[test]
fn a_commit_ts_must_exceed_the_start_ts() {
    let mut store = Store::new();
    store.call(&lock(10, 15, "k", &["k"]));
    store.call(&prewrite_locked(10, 15, "k", vec![put("k", "v")]));
    let error = store.call(&commit(10, &["k"], 10)).error.unwrap_or_default();
    assert!(error.abort.contains("InvalidTxnTso"));
}
