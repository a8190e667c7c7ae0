use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{Action, CheckTxnStatusRequest, Op, PrewriteRequest};

use crate::storage::harness::{Store, check_status, force, lock, lock_shared, prewrite, put};

#[test]
fn a_caller_pushes_the_commit_behind_its_read() {
    let mut store = Store::new();
    store.call(&PrewriteRequest { min_commit_ts: 11, ..prewrite(10, "k", vec![put("k", "v")]) });
    let check = CheckTxnStatusRequest { caller_start_ts: 50, current_ts: 60, ..check_status(10, "k") };
    let status = store.call(&check);
    assert_eq!(status.action(), Action::MinCommitTsPushed);
    assert_eq!(status.lock_info.map(|lock| lock.min_commit_ts), Some(60));
    assert_eq!(store.read("k", 59), None, "the read passes now");
}

#[test]
fn a_min_commit_ts_of_zero_is_not_pushed() {
    let mut store = Store::new();
    store.call(&prewrite(10, "k", vec![put("k", "v")]));
    let check = CheckTxnStatusRequest { caller_start_ts: 50, current_ts: 60, ..check_status(10, "k") };
    assert_eq!(store.call(&check).action(), Action::NoAction);
}

#[test]
fn an_expired_pessimistic_primary_ends_the_transaction_only_in_its_commit_phase() {
    for (resolving_pessimistic_lock, action, versions) in [
        (true, Action::TtlExpirePessimisticRollback, vec![]),
        (false, Action::TtlExpireRollback, vec![(Op::Rollback, 10)]),
    ] {
        let mut store = Store::new();
        store.call(&lock(10, 10, "k", &["k"]));
        let check = CheckTxnStatusRequest { resolving_pessimistic_lock, ..check_status(10, "k") };
        let handled = store.handle(&check);
        assert_eq!(handled.released.len(), 1);
        let crate::storage::Outcome::Answer(status) = handled.outcome else { panic!("answered") };
        assert_eq!((status.action(), store.versions("k")), (action, versions));
    }
}

#[test]
fn a_lock_is_alive_at_the_millisecond_its_time_runs_out() {
    let mut store = Store::new();
    store.call(&prewrite(10, "k", vec![put("k", "v")]));
    let at = |ms| CheckTxnStatusRequest { current_ts: Timestamp::compose(ms, 0).version(), ..check_status(10, "k") };
    assert_eq!(store.call(&at(3000)).lock_ttl, 3000);
    assert_eq!(store.call(&at(3001)).action(), Action::TtlExpireRollback);
}

#[test]
fn an_async_commit_lock_never_expires_by_itself() {
    let mut store = Store::new();
    store.call(&PrewriteRequest { use_async_commit: true, ..prewrite(10, "k", vec![put("k", "v")]) });
    assert_eq!(store.call(&check_status(10, "k")).action(), Action::NoAction);
    let forced = CheckTxnStatusRequest { force_sync_commit: true, ..check_status(10, "k") };
    assert_eq!(store.call(&forced).action(), Action::TtlExpireRollback);
}

#[test]
fn a_leftover_pessimistic_lock_on_a_former_primary_is_no_answer() {
    let mut store = Store::new();
    store.call(&lock(10, 10, "other", &["k"]));
    let asked_for_pessimistic = CheckTxnStatusRequest { resolving_pessimistic_lock: true, ..check_status(10, "k") };
    let error = store.call(&asked_for_pessimistic).error.and_then(|error| error.primary_mismatch);
    let primary = error.and_then(|mismatch| mismatch.lock_info).map(|lock| lock.primary_lock.clone());
    assert_eq!(primary.as_deref(), Some(&b"other"[..]));

    let in_commit_phase = CheckTxnStatusRequest { rollback_if_not_exist: true, ..check_status(10, "k") };
    assert_eq!(store.call(&in_commit_phase).action(), Action::LockNotExistRollback);
    assert_eq!((store.versions("k"), store.locks()), (vec![(Op::Rollback, 10)], vec![]));
}

#[test]
fn a_lock_forced_after_the_end_of_its_transaction_is_stale_even_when_raised() {
    let mut store = Store::new();
    store.write("k", "v", 10, 20);
    store.call(&force(lock(10, 15, "k", &["k"])));
    store.call(&lock(10, 30, "k", &["k"]));
    assert_eq!(store.locks()[0].lock_for_update_ts, 30);

    assert_eq!(store.call(&check_status(10, "k")).commit_version, 20);
    assert_eq!(store.locks(), []);
}

#[test]
fn a_key_under_shared_locks_is_nobodys_primary() {
    let mut store = Store::new();
    store.call(&lock_shared(10, "p", "k"));
    let error = store.call(&check_status(99, "k")).error.unwrap_or_default();
    assert!(error.primary_mismatch.is_some());
}
