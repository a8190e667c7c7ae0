//! Calls that meet locks of others, and conflicts.

use std::time::Duration;

use tikv_proto::kvrpcpb::{CheckTxnStatusRequest, CheckTxnStatusResponse, PessimisticLockRequest};

use super::*;
use crate::txn::LockDetails;
use crate::txn::{LockWait, OnConflict};

/// A lock of another transaction, which began at `ts(500)`.
fn other_lock(key: &str) -> kvrpcpb::LockInfo {
    let op = kvrpcpb::Op::PessimisticLock.into();
    kvrpcpb::LockInfo { lock_type: op, lock_for_update_ts: ts(600).version(), ..locked_by(ts(500), key, "p") }
}

/// TiKV has let the request wait, then says that the key is locked.
fn blocked(script: &mut Script<LockKeys>, lock: Token, info: kvrpcpb::LockInfo) {
    script.advance(Duration::from_secs(1));
    refuse_lock(script, lock, is_locked(info));
}

/// The transaction that holds the lock lives for another second.
fn it_is_alive(script: &mut Script<LockKeys>) {
    script.expect_timestamp();
    script.timestamp(ts(2_600));
    script.expect_call(1, |check: &CheckTxnStatusRequest| {
        assert_eq!((&check.primary_key[..], check.lock_ts), (&b"p"[..], ts(500).version()));
        assert_eq!(check.caller_start_ts, 0, "a pessimistic lock pushes nobody");
        assert!(check.resolving_pessimistic_lock);
    });
    script.reply(CheckTxnStatusResponse { lock_ttl: 3_000, ..Default::default() });
}

/// The one that holds the lock has expired: its locks in the region go.
fn it_is_gone(script: &mut Script<LockKeys>) {
    script.expect_timestamp();
    script.timestamp(ts(9_000));
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    let action = kvrpcpb::Action::TtlExpirePessimisticRollback.into();
    script.reply(CheckTxnStatusResponse { action, ..Default::default() });
    script.expect_call(1, |_: &kvrpcpb::PessimisticRollbackRequest| {});
    script.reply(kvrpcpb::PessimisticRollbackResponse::default());
}

fn expect_retry(script: &mut Script<LockKeys>, key: &str) -> Token {
    let lock = expect_lock(script, &[key], ts(2_000));
    assert!(script.last_context().is_retry_request);
    lock
}

fn with(wait: LockWait) -> (Transaction, Script<LockKeys>, Token) {
    let mut txn = pessimistic();
    let mut script = locking(&mut txn, &["a"], LockOptions::default().wait(wait));
    let lock = expect_lock(&mut script, &["a"], ts(2_000));
    (txn, script, lock)
}

#[test]
fn the_lock_of_a_transaction_that_has_ended_is_removed_and_no_obstacle_even_to_who_does_not_wait() {
    for wait in [LockWait::NoWait, LockWait::Default, LockWait::Always] {
        let (mut txn, mut script, lock) = with(wait);
        blocked(&mut script, lock, other_lock("a"));
        it_is_gone(&mut script);
        let again = expect_retry(&mut script, "a");
        accept_lock(&mut script, again);
        let beats = expect_beats(&mut script);
        script.expect_cancel(beats);
        let LockDetails { requests, lock_encounters, .. } = end_lock(&mut script, &mut txn).expect("locked").details;
        assert_eq!((requests, lock_encounters), (2, 1));
    }
}

#[test]
fn who_does_not_want_to_wait_fails_at_the_first_live_lock() {
    for wait in [LockWait::NoWait, LockWait::For(Duration::ZERO)] {
        let (mut txn, mut script, lock) = with(wait);
        refuse_lock(&mut script, lock, is_locked(other_lock("a")));
        it_is_alive(&mut script);
        script.expect_spawn();
        let error = end_lock(&mut script, &mut txn).expect_err("locked");
        assert!(matches!(&error, Error::LockedNoWait(lock) if lock.key.as_slice() == b"a"), "{error}");
    }
}

#[test]
fn by_default_a_live_lock_is_waited_for_as_long_as_tikv_does() {
    let (mut txn, mut script, lock) = with(LockWait::Default);
    blocked(&mut script, lock, other_lock("a"));
    it_is_alive(&mut script);
    script.expect_spawn();
    let error = end_lock(&mut script, &mut txn).expect_err("locked");
    assert!(matches!(error, Error::LockWaitTimeout(_)), "{error}");
}

#[test]
fn who_waits_for_a_time_asks_again_until_it_is_over() {
    let (mut txn, mut script, lock) = with(LockWait::For(Duration::from_millis(2_500)));
    blocked(&mut script, lock, other_lock("a"));
    it_is_alive(&mut script);
    let lock = script.expect_call(1, |request: &PessimisticLockRequest| assert_eq!(request.wait_timeout, 1_500));
    blocked(&mut script, lock, other_lock("a"));
    script.expect_timestamp();
    script.timestamp(ts(2_700));
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.reply(CheckTxnStatusResponse { lock_ttl: 9_000, ..Default::default() });
    let lock = script.expect_call(1, |request: &PessimisticLockRequest| assert_eq!(request.wait_timeout, 500));
    script.advance(Duration::from_millis(500));
    refuse_lock(&mut script, lock, is_locked(other_lock("a")));
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.reply(CheckTxnStatusResponse { lock_ttl: 9_000, ..Default::default() });
    script.expect_spawn();
    let error = end_lock(&mut script, &mut txn).expect_err("locked");
    assert!(matches!(error, Error::LockWaitTimeout(_)), "{error}");
}

#[test]
fn a_lock_that_was_just_written_is_alive_and_nobody_is_asked_about_it() {
    let (mut txn, mut script, lock) = with(LockWait::Always);
    let fresh = kvrpcpb::LockInfo { duration_to_last_update_ms: 299, ..other_lock("a") };
    blocked(&mut script, lock, fresh);
    let lock = expect_retry(&mut script, "a");
    accept_lock(&mut script, lock);
    let beats = expect_beats(&mut script);
    script.expect_cancel(beats);
    end_lock(&mut script, &mut txn).expect("locked");
    // But patience ends as with any other live lock.
    let (mut txn, mut script, lock) = with(LockWait::Default);
    blocked(&mut script, lock, fresh_lock("a"));
    script.expect_spawn();
    let error = end_lock(&mut script, &mut txn).expect_err("locked");
    assert!(matches!(error, Error::LockWaitTimeout(_)), "{error}");
}

fn fresh_lock(key: &str) -> kvrpcpb::LockInfo {
    kvrpcpb::LockInfo { duration_to_last_update_ms: 1, ..other_lock(key) }
}

#[test]
fn an_answer_that_did_not_wait_is_followed_by_a_pause() {
    let (_, mut script, lock) = with(LockWait::Always);
    refuse_lock(&mut script, lock, is_locked(other_lock("a")));
    it_is_alive(&mut script);
    script.expect_sleep(|sleep, reason| {
        assert_eq!(reason, SleepReason::LockAlive);
        assert!(sleep >= Duration::from_millis(50), "{sleep:?}");
    });
    script.wake();
    let lock = expect_retry(&mut script, "a");
    refuse_lock(&mut script, lock, is_locked(fresh_lock("a")));
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::LockAlive));
}

#[test]
fn shared_locks_are_looked_at_one_by_one() {
    let (_, mut script, lock) = with(LockWait::Always);
    let shared = [ts(300), ts(400)].map(|start_ts| kvrpcpb::LockInfo {
        lock_type: kvrpcpb::Op::SharedPessimisticLock.into(),
        ..locked_by(start_ts, "a", "p")
    });
    let wrapper = kvrpcpb::LockInfo { shared_lock_infos: shared.to_vec(), key: "a".into(), ..Default::default() };
    blocked(&mut script, lock, wrapper);
    script.expect_timestamp();
    script.expect_timestamp();
}

fn conflict_at(key: &str, commit_ts: Timestamp) -> kvrpcpb::KeyError {
    let mut error = conflict_with(ts(1_900), key);
    if let Some(conflict) = &mut error.conflict {
        conflict.conflict_commit_ts = commit_ts.version();
        conflict.reason = kvrpcpb::write_conflict::Reason::PessimisticRetry.into();
    }
    error
}

#[test]
fn keys_in_conflict_are_tried_again_at_a_newer_timestamp_and_the_others_stay_locked() {
    let mut txn = holding(&["k"]);
    let mut script = locking(&mut txn, &["a", "z"], LockOptions::default());
    let (first, second) = (expect_lock(&mut script, &["a"], ts(2_000)), expect_lock(&mut script, &["z"], ts(2_000)));
    refuse_lock(&mut script, second, conflict_at("z", ts(2_100)));
    script.expect_timestamp();
    accept_lock(&mut script, first);
    script.expect_nothing();
    script.timestamp(ts(2_200));
    let again = expect_lock(&mut script, &["z"], ts(2_200));
    assert!(script.last_context().is_retry_request);
    accept_lock(&mut script, again);
    let locked = end_lock(&mut script, &mut txn).expect("locked");
    assert_eq!(locked.keys.iter().map(|key| key.lock_ts).collect::<Vec<_>>(), [ts(2_000), ts(2_200)]);
    assert_eq!(txn.for_update_ts(), ts(2_200));
    let details = LockDetails { keys: 2, regions: 2, requests: 3, conflicts: 1, ..LockDetails::default() };
    assert_eq!(locked.details, details);
    let before = LockDetails { keys: 1, regions: 1, requests: 1, ..LockDetails::default() };
    assert_eq!(txn.lock_details(), details.plus(before));
}

#[test]
fn a_primary_in_conflict_is_tried_again_before_the_others() {
    let mut txn = pessimistic();
    let mut script = locking(&mut txn, &["a", "z"], LockOptions::default());
    let lock = expect_lock(&mut script, &["a"], ts(2_000));
    refuse_lock(&mut script, lock, conflict_at("a", ts(2_100)));
    script.expect_timestamp();
    script.timestamp(ts(2_200));
    let lock = expect_lock(&mut script, &["a"], ts(2_200));
    script.expect_nothing();
    accept_lock(&mut script, lock);
    expect_beats(&mut script);
    expect_lock(&mut script, &["z"], ts(2_200));
}

/// The clock has jumped, say: nobody asks PD for a timestamp any more.
#[test]
fn a_conflict_that_comes_after_the_deadline_ends_the_call() {
    let mut txn = pessimistic();
    let options = LockOptions::default().deadline(Time::from_millis(301));
    let request = txn.begin_lock(Time::from_millis(1), as_keys(&["a"]), options).expect("a request");
    let mut script = Script::with_knowledge(LockKeys::new(request), two_regions());
    let alarm = script.expect_alarm();
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    script.expect_cancel(alarm);
    let lock = expect_lock(&mut script, &["a"], ts(2_000));
    script.advance(Duration::from_secs(1));
    refuse_lock(&mut script, lock, conflict_at("a", ts(2_100)));
    script.expect_spawn();
    let error = end_lock(&mut script, &mut txn).expect_err("too late");
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
}

#[test]
fn who_wants_to_know_of_conflicts_is_told_and_the_call_leaves_nothing_locked() {
    let mut txn = holding(&["k"]);
    let mut script = locking(&mut txn, &["a", "z"], LockOptions::default().on_conflict(OnConflict::Fail));
    let (first, second) = (expect_lock(&mut script, &["a"], ts(2_000)), expect_lock(&mut script, &["z"], ts(2_000)));
    accept_lock(&mut script, first);
    refuse_lock(&mut script, second, conflict_at("z", ts(2_100)));
    let rollback = script.expect_spawn();
    let error = end_lock(&mut script, &mut txn).expect_err("a conflict");
    assert!(matches!(&error, Error::WriteConflict(conflict) if conflict.conflict_commit_ts == ts(2_100)), "{error}");
    assert_eq!(released(rollback), (vec!["a".into(), "z".into()], vec![ts(2_000)]));
    assert!(txn.holds_lock(b"k") && !txn.holds_lock(b"a"));
}

#[test]
fn conflicts_without_end_end_nevertheless() {
    let mut txn = pessimistic();
    let mut script = locking(&mut txn, &["a"], LockOptions::default());
    let mut now = 2_000;
    for _ in 0..256 {
        let lock = expect_lock(&mut script, &["a"], ts(now));
        refuse_lock(&mut script, lock, conflict_at("a", ts(now + 1)));
        script.expect_timestamp();
        now += 2;
        script.timestamp(ts(now));
    }
    let lock = expect_lock(&mut script, &["a"], ts(now));
    refuse_lock(&mut script, lock, conflict_at("a", ts(now + 1)));
    let error = end_lock(&mut script, &mut txn).expect_err("a conflict");
    assert!(matches!(error, Error::WriteConflict(_)), "{error}");
}

#[test]
fn the_timestamp_that_a_caller_has_chosen_is_not_replaced() {
    let mut txn = pessimistic();
    let options = LockOptions { for_update_ts: Some(ts(1_800)), ..LockOptions::default() };
    let request = txn.begin_lock(Time::ZERO, as_keys(&["a"]), options).expect("a request");
    let mut script = Script::with_knowledge(LockKeys::new(request), two_regions());
    let lock = expect_lock(&mut script, &["a"], ts(1_800));
    refuse_lock(&mut script, lock, conflict_at("a", ts(1_900)));
    let error = end_lock(&mut script, &mut txn).expect_err("a conflict");
    assert!(matches!(error, Error::WriteConflict(_)), "{error}");
}

#[test]
fn an_async_commit_at_ones_own_start_ts_is_a_conflict_like_any_other() {
    let (_, mut script, lock) = with(LockWait::Default);
    refuse_lock(&mut script, lock, conflict_at("a", start_ts()));
    script.expect_timestamp();
}

#[test]
fn a_conflict_with_the_record_of_ones_own_rollback_is_the_end_of_the_transaction() {
    let (mut txn, mut script, lock) = with(LockWait::Default);
    let mut error = conflict_at("a", start_ts());
    if let Some(conflict) = &mut error.conflict {
        conflict.conflict_ts = start_ts().version();
    }
    refuse_lock(&mut script, lock, error);
    script.expect_spawn();
    let error = end_lock(&mut script, &mut txn).expect_err("rolled back");
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
}
