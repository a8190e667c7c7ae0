use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::write_conflict::Reason;
use tikv_proto::kvrpcpb::{Action, Op, PrewriteRequest, WriteConflict};

use crate::storage::harness::{Store, check_status, cleanup, commit, lock_shared, prewrite, put, rollback};
use crate::storage::{Change, Refusal};

#[test]
fn a_protected_rollback_becomes_a_flag_on_a_version_at_its_start_ts() {
    let mut store = Store::new();
    store.write("k", "old", 5, 10);
    store.write("k", "new", 15, 20);

    store.call(&cleanup(10, "k"));

    let version = store.mvcc("k").writes[1].clone();
    assert_eq!((version.r#type(), version.commit_ts), (Op::Put, 10));
    assert!(version.has_overlapped_rollback && version.has_gc_fence);
    assert_eq!(version.gc_fence, 20, "the fence is the next newer version");
    assert_eq!(store.read("k", 12).as_deref(), Some(&b"old"[..]));
}

#[test]
fn a_flag_on_another_version_tells_that_the_transaction_is_rolled_back() {
    let mut store = Store::new();
    store.write("k", "old", 5, 10);
    store.call(&cleanup(10, "k"));

    let status = store.call(&check_status(10, "k"));
    assert_eq!((status.error.clone(), status.commit_version, status.action()), (None, 0, Action::NoAction));
    let prewritten = store.call(&prewrite(10, "k", vec![put("k", "late")]));
    let reason = prewritten.errors[0].conflict.as_ref().map(WriteConflict::reason);
    assert_eq!(reason, Some(Reason::SelfRolledBack));
}

#[test]
fn the_journal_tells_of_a_rollback_that_is_only_a_flag() {
    let mut store = Store::new();
    store.write("k", "old", 5, 10);
    store.storage.enable_journal();
    let mut changes = Vec::new();
    for told in [true, false] {
        store.call(&cleanup(10, "k"));
        store.storage.take_changes(&mut changes);
        let ts = Timestamp::from_version(10);
        let ended = Change::Ended { key: "k".into(), start_ts: ts, commit_ts: ts, op: Op::Rollback };
        assert_eq!(std::mem::take(&mut changes), if told { vec![ended] } else { Vec::new() });
    }
}

#[test]
fn an_unprotected_rollback_leaves_no_trace_at_another_version() {
    let mut store = Store::new();
    store.write("k", "old", 5, 10);
    let before = store.mvcc("k");
    store.call(&rollback(10, &["k"]));
    assert_eq!(store.mvcc("k"), before);
}

#[test]
fn only_the_previous_unprotected_record_is_collapsed() {
    let mut store = Store::new();
    store.call(&cleanup(3, "k"));
    store.call(&rollback(5, &["k"]));
    assert_eq!(store.versions("k"), [(Op::Rollback, 5), (Op::Rollback, 3)]);
    store.call(&rollback(6, &["k"]));
    assert_eq!(store.versions("k"), [(Op::Rollback, 6), (Op::Rollback, 3)]);
    store.call(&rollback(4, &["k"]));
    assert_eq!(store.versions("k"), [(Op::Rollback, 6), (Op::Rollback, 4), (Op::Rollback, 3)]);
}

#[test]
fn a_key_named_twice_loses_the_protection_of_its_record() {
    let mut store = Store::new();
    store.call(&prewrite(10, "k", vec![put("k", "v")]));
    store.call(&rollback(10, &["k", "k"]));
    let version = store.mvcc("k").writes[0].clone();
    assert_eq!((version.r#type(), version.short_value.is_empty()), (Op::Rollback, true));
}

#[test]
fn cleaning_up_waits_for_the_time_to_live_to_run_out() {
    let mut store = Store::new();
    store.call(&prewrite(10, "k", vec![put("k", "v")]));
    let mut request = cleanup(10, "k");

    request.current_ts = Timestamp::compose(3000, 99).version();
    let alive = store.call(&request);
    assert_eq!(alive.error.and_then(|error| error.locked).map(|lock| lock.lock_version), Some(10));

    request.current_ts = Timestamp::compose(3001, 0).version();
    assert_eq!(store.call(&request).error, None);
    assert_eq!(store.versions("k"), [(Op::Rollback, 10)]);
}

#[test]
fn cleaning_up_one_of_several_living_shared_locks_reports_them_all() {
    let mut store = Store::new();
    store.call(&lock_shared(10, "p", "k"));
    store.call(&lock_shared(11, "q", "k"));
    let mut request = cleanup(10, "k");
    request.current_ts = 12;
    let locked = store.call(&request).error.and_then(|error| error.locked).unwrap_or_default();
    assert_eq!((locked.lock_type(), locked.shared_lock_infos.len()), (Op::SharedLock, 2));
}

#[test]
fn cleaning_up_a_committed_transaction_tells_its_commit_ts() {
    let mut store = Store::new();
    store.write("k", "v", 10, 20);
    let response = store.call(&cleanup(10, "k"));
    assert_eq!((response.error, response.commit_version), (None, 20));
}

#[test]
fn rolling_back_a_lock_beside_its_own_commit_is_refused() {
    let mut store = Store::new();
    store.write("k", "v", 10, 20);
    let unchecked = PrewriteRequest { skip_constraint_check: true, ..prewrite(10, "k", vec![put("k", "again")]) };
    assert_eq!(store.call(&unchecked).errors, []);

    let before = store.locks();
    assert_eq!(store.refusal(&rollback(10, &["k"])), Refusal::LockOfCommittedTxn);
    assert_eq!(store.locks(), before, "a refused request changes nothing");
}

#[test]
fn rolling_back_a_shared_lock_on_its_own_primary_is_refused() {
    let mut store = Store::new();
    store.call(&lock_shared(10, "k", "k"));
    assert_eq!(store.refusal(&rollback(10, &["k"])), Refusal::SharedPrimary);
}

#[test]
fn rolling_back_removes_a_long_value() {
    let mut store = Store::new();
    store.call(&prewrite(10, "k", vec![put("k", vec![7; 256])]));
    assert_eq!(store.mvcc("k").values.len(), 1);
    let handled = store.handle(&rollback(10, &["k"]));
    assert_eq!((handled.released.len(), handled.released[0].commit_ts), (1, Timestamp::ZERO));
    assert_eq!(store.mvcc("k").values, []);
}

#[test]
fn a_protected_rollback_is_noted_on_the_lock_that_might_be_committed_over_it() {
    let mut store = Store::new();
    let request = PrewriteRequest { use_async_commit: true, ..prewrite(10, "k", vec![put("k", "v")]) };
    assert_eq!(store.call(&request).min_commit_ts, 11);
    store.call(&cleanup(30, "k"));
    assert_eq!(store.versions("k"), [(Op::Rollback, 30)]);

    store.call(&commit(10, &["k"], 30));

    let version = store.mvcc("k").writes[0].clone();
    assert_eq!((version.r#type(), version.commit_ts), (Op::Put, 30));
    assert!(version.has_overlapped_rollback && !version.has_gc_fence);
}
