use std::time::Duration;

use tikv_proto::kvrpcpb::{
    Action, CheckTxnStatusRequest, CheckTxnStatusResponse, CleanupRequest, CleanupResponse, KeyError as WireError,
    PrimaryMismatch,
};
use tikv_proto::{errorpb, kvrpcpb};

use super::*;
use crate::backoff::BackoffKind;
use crate::error::{Error, Execution, Fault, FaultKind, KeyError, PdError};
use crate::knowledge::txn_status::FinalStatus;
use crate::lock::{Alive, CheckTxnStatus, Checked, TxnStatus};
use crate::machine::script::maybe_executed;
use crate::machine::{Event, SleepReason};
use crate::time::Time;

fn check(lock: &LockInfo) -> CheckTxnStatus {
    CheckTxnStatus::of_lock(lock, ts(11_000), options(), backoff())
}

fn answered(lock: &LockInfo, now: Timestamp, response: CheckTxnStatusResponse) -> (Checked, Option<FinalStatus>) {
    let mut script = script(check(lock), now);
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.reply(response);
    let checked = script.expect_done();
    (checked, script.knowledge.txn_statuses.get(lock.start_ts))
}

fn primary_mismatch(lock: &LockInfo) -> CheckTxnStatusResponse {
    let mismatch = PrimaryMismatch { lock_info: Some(Box::new(to_proto(lock))) };
    let error = WireError { primary_mismatch: Some(mismatch), ..Default::default() };
    CheckTxnStatusResponse { error: Some(Box::new(error)), ..Default::default() }
}

#[test]
fn the_question_goes_to_the_primary_with_all_that_tikv_needs_to_judge() {
    let met = LockInfo { is_txn_file: true, ..pessimistic("a", "k", ts(10_000)) };
    let mut script = script(check(&met).force_sync_commit(), ts(12_000));
    script.expect_call(1, |request: &CheckTxnStatusRequest| {
        assert_eq!(request.primary_key, "k");
        assert_eq!(request.lock_ts, ts(10_000).version());
        assert_eq!(request.caller_start_ts, ts(11_000).version());
        assert_eq!(request.current_ts, ts(12_000).version());
        assert!(request.verify_is_primary && request.resolving_pessimistic_lock);
        assert!(request.is_txn_file && request.force_sync_commit);
        assert!(!request.rollback_if_not_exist);
    });
    let context = &script.last_context();
    assert_eq!((context.region_id, context.max_execution_duration_ms), (2, 20_000));
}

#[test]
fn what_only_the_callers_own_reads_need_is_not_asked_with() {
    let options = options().with_context(|context| {
        context.request_source = "external_Select".into();
        context.set_isolation_level(kvrpcpb::IsolationLevel::RcCheckTs);
        context.stale_read = true;
        context.resolved_locks = vec![7];
    });
    let met = lock("a", "k", ts(10_000));
    let mut script = script(CheckTxnStatus::of_lock(&met, ts(11_000), options, backoff()), ts(12_000));
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    let context = &script.last_context();
    assert_eq!(context.request_source, "external_Select");
    assert_eq!(context.isolation_level(), kvrpcpb::IsolationLevel::Si);
    assert!(!context.stale_read && context.resolved_locks.is_empty());
}

#[test]
fn a_transaction_known_to_have_ended_is_not_asked_about() {
    for status in [FinalStatus::Committed(ts(10_500)), FinalStatus::RolledBack] {
        let met = lock("a", "k", ts(10_000));
        let mut script = unaware(check(&met));
        script.knowledge.txn_statuses.insert(ts(10_000), status);
        let checked = script.expect_done();
        assert_eq!(checked.result, Ok(status.into()));
        assert!(checked.remembered);
    }
}

#[test]
fn without_knowledge_of_the_time_pd_is_asked_first() {
    let mut script = unaware(check(&lock("a", "k", ts(10_000))));
    script.expect_timestamp();
    script.timestamp(ts(12_345)).expect_call(1, |request: &CheckTxnStatusRequest| {
        assert_eq!(request.current_ts, ts(12_345).version());
    });
    assert_eq!(script.knowledge.clock.newest(), Some(ts(12_345)));
}

#[test]
fn time_is_asked_for_again_when_it_is_old() {
    let mut script = script(check(&lock("a", "k", ts(10_000))), ts(10_001));
    script.advance(Duration::from_millis(501)).expect_timestamp();
}

#[test]
fn time_is_asked_for_again_when_the_lock_may_have_expired_since() {
    let mut nearly = script(check(&lock("a", "k", ts(10_000))), ts(10_000 + TTL));
    nearly.advance(Duration::from_millis(1)).expect_timestamp();
    let mut young = script(check(&lock("a", "k", ts(10_000))), ts(10_000));
    young.advance(Duration::from_millis(1)).expect_call(1, |_: &CheckTxnStatusRequest| {});
}

#[test]
fn a_failing_pd_is_asked_again_and_a_closed_one_is_not() {
    let mut script = unaware(check(&lock("a", "k", ts(10_000))));
    script.expect_timestamp();
    script.pd(Err(PdError::Overloaded { limit: 1 }));
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::PdRpc)));
    script.wake().expect_timestamp();
    script.pd(Err(PdError::Closed));
    assert_eq!(script.expect_done().result, Err(Error::Pd(PdError::Closed)));
}

#[test]
fn a_lock_without_any_life_is_resolved_whatever_its_age() {
    let met = LockInfo { ttl_ms: 0, ..lock("a", "k", ts(10_000)) };
    let mut script = unaware(check(&met));
    script.expect_call(1, |request: &CheckTxnStatusRequest| {
        assert_eq!(request.current_ts, u64::MAX);
        assert!(!request.rollback_if_not_exist);
    });
    script.reply(CheckTxnStatusResponse { error: not_found(ts(10_000)), ..Default::default() });
    script.expect_call(1, |request: &CheckTxnStatusRequest| {
        assert_eq!(request.current_ts, u64::MAX);
        assert!(request.rollback_if_not_exist);
    });
    script.reply(ended(Action::LockNotExistRollback));
    assert_eq!(script.expect_done().result, Ok(TxnStatus::RolledBack));
}

#[test]
fn final_statuses_are_remembered() {
    let met = lock("a", "k", ts(10_000));
    for (response, status) in [
        (committed(ts(10_900)), FinalStatus::Committed(ts(10_900))),
        (ended(Action::NoAction), FinalStatus::RolledBack),
        (ended(Action::LockNotExistRollback), FinalStatus::RolledBack),
        (ended(Action::TtlExpireRollback), FinalStatus::RolledBack),
    ] {
        let (checked, remembered) = answered(&met, ts(12_000), response);
        assert_eq!(checked.result, Ok(status.into()));
        assert!(!checked.remembered);
        assert_eq!(remembered, Some(status));
    }
}

#[test]
fn what_says_nothing_of_the_transaction_is_not_remembered() {
    let met = pessimistic("a", "k", ts(10_000));
    let mismatch = TxnStatus::PrimaryMismatch(Box::new(lock("k", "z", ts(10_000))));
    for (response, status) in [
        (ended(Action::TtlExpirePessimisticRollback), TxnStatus::PessimisticLockExpired),
        (ended(Action::LockNotExistDoNothing), TxnStatus::NoTrace),
        (primary_mismatch(&lock("k", "z", ts(10_000))), mismatch),
    ] {
        let (checked, remembered) = answered(&met, ts(12_000), response);
        assert_eq!(checked.result, Ok(status));
        assert_eq!(remembered, None);
    }
}

#[test]
fn a_live_transaction_is_not_remembered() {
    let met = lock("a", "k", ts(10_000));
    let primary = lock("k", "k", ts(10_000));
    for (action, commits_after_caller) in [(Action::NoAction, false), (Action::MinCommitTsPushed, true)] {
        let (checked, remembered) = answered(&met, ts(12_000), alive(&primary, action));
        let alive =
            Alive { ttl_ms: TTL, ms_before_expired: 1_001, commits_after_caller, primary: Some(primary.clone()) };
        assert_eq!(checked.result, Ok(TxnStatus::Alive(Box::new(alive))));
        assert_eq!(remembered, None);
    }
}

#[test]
fn a_primary_that_must_commit_later_is_as_good_as_a_pushed_one() {
    let met = lock("a", "k", ts(10_000));
    for (min_commit_ts, later) in [(ts(11_000), false), (ts(11_000).next(), true)] {
        let primary = LockInfo { use_async_commit: true, min_commit_ts, ..lock("k", "k", ts(10_000)) };
        let (checked, _) = answered(&met, ts(12_000), alive(&primary, Action::NoAction));
        let Ok(TxnStatus::Alive(alive)) = checked.result else { panic!("{checked:?}") };
        assert_eq!(alive.commits_after_caller, later);
    }
}

#[test]
fn a_primary_lock_without_any_life_is_alive_all_the_same() {
    let primary = LockInfo { ttl_ms: 0, ..lock("k", "k", ts(10_000)) };
    let (checked, remembered) = answered(&lock("a", "k", ts(10_000)), ts(10_000), alive(&primary, Action::NoAction));
    assert!(matches!(checked.result, Ok(TxnStatus::Alive(alive)) if alive.primary == Some(primary)));
    assert_eq!(remembered, None);
}

#[test]
fn a_missing_primary_is_waited_for_while_the_lock_is_alive() {
    let mut script = script(check(&lock("a", "k", ts(10_000))), ts(10_100));
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.reply(CheckTxnStatusResponse { error: not_found(ts(10_000)), ..Default::default() });
    script.expect_sleep(|duration, reason| {
        assert_eq!(duration, Duration::from_millis(2));
        assert_eq!(reason, SleepReason::Backoff(BackoffKind::TxnNotFound));
    });
    script.wake().expect_call(1, |request: &CheckTxnStatusRequest| assert!(!request.rollback_if_not_exist));
    script.reply(committed(ts(10_200)));
    assert_eq!(script.expect_done().result, Ok(TxnStatus::Committed(ts(10_200))));
}

#[test]
fn a_missing_primary_is_ruled_out_once_the_lock_has_expired() {
    let (start_ts, expired) = start_and_expired();
    let mut script = script(check(&lock("a", "k", start_ts)), expired);
    script.expect_call(1, |request: &CheckTxnStatusRequest| assert!(!request.rollback_if_not_exist));
    script.reply(CheckTxnStatusResponse { error: not_found(start_ts), ..Default::default() });
    script.expect_call(1, |request: &CheckTxnStatusRequest| assert!(request.rollback_if_not_exist));
    script.reply(ended(Action::LockNotExistRollback));
    assert_eq!(script.expect_done().result, Ok(TxnStatus::RolledBack));
}

#[test]
fn a_lock_lives_through_the_millisecond_in_which_its_time_is_up() {
    let met = lock("a", "k", ts(10_000));
    let mut script = script(check(&met), ts(10_000 + TTL));
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.reply(CheckTxnStatusResponse { error: not_found(ts(10_000)), ..Default::default() });
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::TxnNotFound)));
}

#[test]
fn a_live_pessimistic_lock_without_its_primary_counts_as_alive() {
    let met = pessimistic("a", "k", ts(10_000));
    let response = CheckTxnStatusResponse { error: not_found(ts(10_000)), ..Default::default() };
    let (checked, _) = answered(&met, ts(10_100), response);
    let alive = Alive { ttl_ms: TTL, ms_before_expired: TTL - 99, commits_after_caller: false, primary: None };
    assert_eq!(checked.result, Ok(TxnStatus::Alive(Box::new(alive))));
}

#[test]
fn a_prewritten_lock_that_names_a_wrong_primary_is_an_error() {
    let other = lock("k", "z", ts(10_000));
    let (checked, _) = answered(&lock("a", "k", ts(10_000)), ts(12_000), primary_mismatch(&other));
    assert_eq!(checked.result, Err(Error::Key(KeyError::PrimaryMismatch(Box::new(other)))));
}

/// The locks that others share on `k`.
fn shared() -> LockInfo {
    LockInfo { kind: kvrpcpb::Op::SharedLock, ..lock("k", "", Timestamp::ZERO) }
}

#[test]
fn a_transaction_whose_primary_others_share_by_now_counts_as_alive_as_long_as_the_lock_that_was_met() {
    let (checked, _) = answered(&lock("a", "k", ts(10_000)), ts(10_100), primary_mismatch(&shared()));
    let alive = Alive { ttl_ms: TTL, ms_before_expired: TTL - 99, commits_after_caller: false, primary: None };
    assert_eq!(checked.result, Ok(TxnStatus::Alive(Box::new(alive))), "it may have ended, but nobody says so");
}

/// TiKV finds shared locks at its primary, and its time is up: it is being ruled out.
fn ruling_out(check: CheckTxnStatus, now: Timestamp) -> Script<CheckTxnStatus> {
    let mut script = script(check, now);
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.reply(primary_mismatch(&shared()));
    expect_cleanup(&mut script);
    script
}

fn expect_cleanup(script: &mut Script<CheckTxnStatus>) {
    script.expect_call(1, |request: &CleanupRequest| {
        assert_eq!((&request.key[..], request.start_version), (&b"k"[..], ts(10_000).version()));
        assert_eq!(request.current_ts, 1, "a lock of its own is left alone, whatever its age");
    });
}

/// Else two transactions that share the locks of each other's primaries would stay for good.
#[test]
fn it_is_ruled_out_where_others_share_the_lock_of_its_primary_once_its_time_is_up() {
    let met = lock("a", "k", ts(10_000));
    let late = ts(10_000 + 2 * TTL);
    let of_txn = CheckTxnStatus::of_txn(ts(10_000), "k".into(), Timestamp::ZERO, options(), backoff());
    let cases = [(check(&met), late), (check(&met).whatever_its_age(), ts(10_001)), (of_txn, ts(10_001))];
    for (check, now) in cases {
        let mut script = ruling_out(check, now);
        script.reply(CleanupResponse::default());
        assert_eq!(script.expect_done().result, Ok(TxnStatus::RolledBack));
        assert_eq!(script.knowledge.txn_statuses.get(ts(10_000)), Some(FinalStatus::RolledBack));
    }
}

#[test]
fn a_commit_that_shared_locks_have_hidden_is_found() {
    let mut script = ruling_out(check(&lock("a", "k", ts(10_000))), ts(10_000 + 2 * TTL));
    script.reply(CleanupResponse { commit_version: ts(10_050).version(), ..CleanupResponse::default() });
    assert_eq!(script.expect_done().result, Ok(TxnStatus::Committed(ts(10_050))));
    assert_eq!(script.knowledge.txn_statuses.get(ts(10_000)), Some(FinalStatus::Committed(ts(10_050))));
}

#[test]
fn a_lock_that_has_come_to_its_primary_meanwhile_decides() {
    let met = lock("a", "k", ts(10_000));
    let mut script = ruling_out(check(&met), ts(10_000 + 2 * TTL));
    let own = WireError { locked: Some(Box::new(to_proto(&lock("k", "k", ts(10_000))))), ..Default::default() };
    script.reply(CleanupResponse { error: Some(Box::new(own)), ..CleanupResponse::default() });
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::TxnNotFound)));
    script.wake();
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.reply(ended(Action::TtlExpireRollback));
    assert_eq!(script.expect_done().result, Ok(TxnStatus::RolledBack));
}

#[test]
fn what_keeps_it_from_being_ruled_out_is_told() {
    let late = ts(10_000 + 2 * TTL);
    let mut script = ruling_out(check(&lock("a", "k", ts(10_000))), late);
    let odd = WireError { abort: "no".to_owned(), ..Default::default() };
    script.reply(CleanupResponse { error: Some(Box::new(odd)), ..CleanupResponse::default() });
    assert_eq!(script.expect_done().result, Err(Error::Key(KeyError::Abort("no".to_owned()))));

    let mut script = ruling_out(check(&lock("a", "k", ts(10_000))), late);
    script.fault(Fault::new(FaultKind::Closed, Execution::NotSent, "store-1"));
    assert_eq!(script.expect_done().result, Err(Error::Closed));
}

#[test]
fn words_meant_for_pessimistic_locks_decide_nothing_about_a_prewritten_one() {
    for action in [Action::LockNotExistDoNothing, Action::TtlExpirePessimisticRollback] {
        let mut script = script(check(&lock("a", "k", ts(10_000))), ts(20_000));
        script.expect_call(1, |_: &CheckTxnStatusRequest| {});
        script.reply(ended(action));
        script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::TxnNotFound)));
        assert_eq!(script.knowledge.txn_statuses.get(ts(10_000)), None);
    }
}

#[test]
fn a_split_on_the_way_costs_nothing_but_another_call() {
    let mut script = script(check(&lock("a", "k", ts(10_000))), ts(12_000));
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.region_error(epoch_not_match(vec![split(2, "g".."j"), split(4, "j".."p")]));
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    assert_eq!(script.last_context().region_id, 4);
    script.reply(committed(ts(10_100)));
    assert_eq!(script.expect_done().result, Ok(TxnStatus::Committed(ts(10_100))));
}

#[test]
fn a_question_that_tikv_may_or_may_not_have_dealt_with_is_asked_again() {
    let mut script = script(check(&lock("a", "k", ts(10_000))), ts(12_000));
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    let undetermined = errorpb::UndeterminedResult { message: String::new() };
    script.region_error(errorpb::Error { undetermined_result: Some(undetermined), ..Default::default() });
    script.expect_sleep(|_, _| {});
    script.wake().expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.reply(committed(ts(10_100)));
    assert_eq!(script.expect_done().result, Ok(TxnStatus::Committed(ts(10_100))));
}

#[test]
fn a_question_that_is_never_answered_ends_with_an_error() {
    let met = lock("a", "k", ts(10_000));
    let mut script = script(CheckTxnStatus::of_lock(&met, ts(11_000), options(), Backoff::none()), ts(12_000));
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.fault(maybe_executed());
    let checked = script.expect_done();
    assert!(matches!(checked.result, Err(Error::RetriesExhausted { attempts: 1, .. })), "{checked:?}");
    assert_eq!(script.knowledge.txn_statuses.get(ts(10_000)), None);
    assert_eq!(maybe_executed().kind, FaultKind::Disconnected);
}

#[test]
fn a_transaction_without_a_lock_at_hand_is_ruled_out_if_there_is_no_trace_of_it() {
    let machine = CheckTxnStatus::of_txn(ts(10_000), "k".into(), ts(11_000), options(), backoff());
    let mut script = script(machine, ts(12_000));
    script.expect_call(1, |request: &CheckTxnStatusRequest| {
        assert!(request.rollback_if_not_exist && !request.resolving_pessimistic_lock);
        assert_eq!(request.current_ts, ts(12_000).version());
    });
    script.reply(ended(Action::LockNotExistRollback));
    assert_eq!(script.expect_done().result, Ok(TxnStatus::RolledBack));
}

#[test]
fn events_that_nobody_waits_for_change_nothing() {
    let mut script = script(check(&lock("a", "k", ts(10_000))), ts(12_000));
    let asked = script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.event(crate::machine::Token(99), Event::Woken).expect_nothing();
    script.reply_to(asked, committed(ts(10_100)));
    assert_eq!(script.expect_done().result, Ok(TxnStatus::Committed(ts(10_100))));
}

#[test]
fn a_deadline_ends_the_question_for_the_time() {
    let options = options().with_deadline(Time::from_millis(300));
    let mut script = unaware(CheckTxnStatus::of_lock(&lock("a", "k", ts(10_000)), ts(11_000), options, backoff()));
    let alarm = script.expect_alarm();
    let question = script.expect_timestamp();
    script.advance(Duration::from_millis(299)).event(alarm, Event::Woken).expect_cancel(question);
    assert!(matches!(script.expect_done().result, Err(Error::DeadlineExceeded { .. })));
}
