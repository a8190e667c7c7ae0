use std::time::Duration;

use tikv_proto::kvrpcpb::{self, Assertion, AssertionLevel, Op};

use super::*;
use crate::error::{ConflictReason, KeyError};
use crate::machine::script::maybe_executed;
use crate::txn::OnLock;

/// The next RPC, to whichever store: its token, message and whether it says that it is a repetition.
fn next_prewrite(script: &mut Script<Commit>) -> (Token, kvrpcpb::PrewriteRequest, bool) {
    match script.next() {
        Some(Command::Call(call)) => match &call.request {
            Request::Prewrite(request) => (call.token, (**request).clone(), call.context.is_retry_request),
            other => panic!("not a prewrite: {other:?}"),
        },
        other => panic!("not a call: {other:?}"),
    }
}

fn keys_of(request: &kvrpcpb::PrewriteRequest) -> Vec<String> {
    names(&request.mutations.iter().map(|mutation| mutation.key.clone()).collect::<Vec<_>>())
}

#[test]
fn a_prewrite_tells_who_how_long_and_how_large() {
    let mut options = options();
    options.priority = kvrpcpb::CommandPri::High;
    options.disk_full = kvrpcpb::DiskFullOpt::AllowedOnAlmostFull;
    options.txn_source = 7;
    options.sync_log = true;
    options.assertion_level = AssertionLevel::Fast;
    let insert = Mutation { assertion: Assertion::NotExist, ..Mutation::insert("b", "2") };
    let mutations = mutations([Mutation::delete("a"), insert, Mutation::lock("c")]);
    let mut script = Script::with_knowledge(commit_with(mutations, options), two_regions());
    script.advance(Duration::from_millis(250));
    let (_, request, _) = next_prewrite(&mut script);
    let expected = [
        (Op::Del, "a", "", Assertion::None),
        (Op::Insert, "b", "2", Assertion::NotExist),
        (Op::Lock, "c", "", Assertion::None),
    ];
    for (mutation, (op, key, value, assertion)) in request.mutations.iter().zip(expected) {
        assert_eq!((mutation.op(), &mutation.key[..], &mutation.value[..]), (op, key.as_bytes(), value.as_bytes()));
        assert_eq!(mutation.assertion(), assertion);
    }
    let rest = kvrpcpb::PrewriteRequest {
        mutations: request.mutations.clone(),
        primary_lock: "a".into(),
        start_version: start_ts().version(),
        lock_ttl: 3_250,
        txn_size: 3,
        min_commit_ts: start_ts().version() + 1,
        assertion_level: AssertionLevel::Fast.into(),
        ..Default::default()
    };
    assert_eq!(request, rest, "no for_update_ts, no secondaries, no one-phase commit");
}

#[test]
fn options_travel_in_the_context_of_prewrites_and_commits() {
    let mut options = options();
    options.priority = kvrpcpb::CommandPri::High;
    options.disk_full = kvrpcpb::DiskFullOpt::AllowedOnAlmostFull;
    options.txn_source = 7;
    options.sync_log = true;
    options.call = options.call.with_context(|context| context.request_source = "test".into());
    let mut script = Script::with_knowledge(commit_with(puts(["a", "z"]), options), two_regions());
    let check = |context: &kvrpcpb::Context| {
        assert_eq!(context.priority(), kvrpcpb::CommandPri::High);
        assert_eq!(context.disk_full_opt(), kvrpcpb::DiskFullOpt::AllowedOnAlmostFull);
        assert_eq!((context.txn_source, context.sync_log, &context.request_source[..]), (7, true, "test"));
        assert_eq!(context.max_execution_duration_ms, 20_000);
    };
    let (first, second) = (expect_prewrite(&mut script, &["a"]), expect_prewrite(&mut script, &["z"]));
    check(&script.last_context());
    accept_prewrite(&mut script, first);
    accept_prewrite(&mut script, second);
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    expect_commit(&mut script, &["a"], ts(2_000));
    check(&script.last_context());
}

#[test]
fn the_batch_of_the_primary_goes_first_wherever_it_lies() {
    let mutations = mutations([Mutation::check_not_exists("a"), Mutation::put("z", "1")]);
    let mut script = Script::with_knowledge(commit_with(mutations, options()), two_regions());
    let (_, first, _) = next_prewrite(&mut script);
    assert_eq!((keys_of(&first), &first.primary_lock[..]), (vec!["z".to_owned()], &b"z"[..]));
    let (_, second, _) = next_prewrite(&mut script);
    assert_eq!((keys_of(&second), &second.primary_lock[..]), (vec!["a".to_owned()], &b"z"[..]));
    script.expect_nothing();
}

#[test]
fn txn_size_is_the_number_of_keys_in_the_region() {
    let keys: Vec<String> = (50..120u8).map(|number| char::from(number).to_string()).collect();
    let kib = "x".repeat(1024);
    let mutations = mutations(keys.iter().map(|key| Mutation::put(key.as_str(), kib.clone())));
    let knowledge = knowledge(KeyCodec::Txn, [region(2, "".."d"), region(3, "d".."")]);
    let mut script = Script::with_knowledge(commit_with(mutations, options()), knowledge);
    let mut sizes = std::collections::BTreeMap::<u64, usize>::new();
    while let Some(Command::Call(call)) = script.next() {
        let Request::Prewrite(request) = &call.request else { panic!("{call:?}") };
        assert!(request.mutations.len() <= 16, "a batch is closed at 16 KiB");
        *sizes.entry(request.txn_size).or_default() += request.mutations.len();
    }
    assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [(20, 20), (50, 50)]);
}

#[test]
fn no_more_prewrites_are_in_flight_than_the_limit_allows() {
    let value = "x".repeat(16 * 1024);
    let keys = ["a", "b", "c"];
    let mutations = mutations(keys.map(|key| Mutation::put(key, value.clone())));
    let mut script = Script::with_knowledge(commit_with(mutations, options()), two_regions());
    script.config.operation_concurrency = 2;
    let (first, _second) = (expect_prewrite(&mut script, &["a"]), expect_prewrite(&mut script, &["b"]));
    script.expect_nothing();
    accept_prewrite(&mut script, first);
    expect_prewrite(&mut script, &["c"]);
    script.expect_nothing();
}

/// client-go's history of the flag is false, true, true, true as well.
#[test]
fn after_a_lost_answer_and_a_split_every_request_says_that_it_is_a_repetition() {
    let mut script = commit_of(["a", "h"]);
    let (first, request, is_retry) = next_prewrite(&mut script);
    assert_eq!((request.txn_size, is_retry), (2, false));
    script.event(first, Event::Reply(Err(maybe_executed())));
    sleep_through(&mut script);
    let (second, request, is_retry) = next_prewrite(&mut script);
    assert_eq!((request.txn_size, is_retry), (2, true));
    let split = answer(&request.into(), Answer::RegionError(split_into([(2, "".."f"), (4, "f".."m")])));
    script.event(second, split);
    let (third, request, is_retry) = next_prewrite(&mut script);
    assert_eq!((keys_of(&request), request.txn_size, is_retry), (vec!["a".to_owned()], u64::MAX, true));
    let (fourth, request, is_retry) = next_prewrite(&mut script);
    assert_eq!((keys_of(&request), request.txn_size, is_retry), (vec!["h".to_owned()], u64::MAX, true));
    accept_prewrite(&mut script, third);
    accept_prewrite(&mut script, fourth);
    script.expect_timestamp();
}

#[test]
fn a_prewrite_of_which_tikv_is_not_certain_is_simply_repeated() {
    let mut script = commit_of(["a"]);
    let (_, request, _) = next_prewrite(&mut script);
    script.event(Token(0), answer(&request.into(), Answer::RegionError(undetermined_result())));
    assert_eq!(sleep_through(&mut script), 1);
    let (second, _, is_retry) = next_prewrite(&mut script);
    assert!(is_retry);
    accept_prewrite(&mut script, second);
    script.expect_timestamp();
}

#[test]
fn a_living_lock_is_waited_for_no_longer_than_it_can_last_and_the_same_batch_sent_again() {
    let mut script = commit_of(["a", "b", "z"]);
    let (first, sent, is_retry) = next_prewrite(&mut script);
    assert!(!is_retry);
    let second = expect_prewrite(&mut script, &["z"]);
    refuse_prewrite(&mut script, first, is_locked(locked_by(ts(900), "b", "p")));
    script.expect_timestamp();
    script.timestamp(ts(3_850));
    script.expect_call(1, |check: &kvrpcpb::CheckTxnStatusRequest| {
        assert_eq!((&check.primary_key[..], check.lock_ts), (&b"p"[..], ts(900).version()));
        assert_eq!(check.caller_start_ts, start_ts().version());
    });
    script.reply(kvrpcpb::CheckTxnStatusResponse { lock_ttl: 3_000, ..Default::default() });
    let nap = script.expect_sleep(|sleep, reason| {
        assert!(sleep <= Duration::from_millis(51), "the lock expires in 50 ms, {sleep:?} is too long");
        assert_eq!(reason, SleepReason::LockAlive);
    });
    // The other batch goes on.
    accept_prewrite(&mut script, second);
    script.expect_nothing();
    script.event(nap, Event::Woken);
    let (again, resent, is_retry) = next_prewrite(&mut script);
    assert_eq!((resent, is_retry), (sent, true));
    accept_prewrite(&mut script, again);
    script.expect_timestamp();
}

#[test]
fn the_lock_of_a_finished_transaction_is_resolved_and_the_batch_sent_again_at_once() {
    let mut script = commit_of(["a"]);
    let prewrite = expect_prewrite(&mut script, &["a"]);
    refuse_prewrite(&mut script, prewrite, is_locked(locked_by(ts(900), "a", "p")));
    script.expect_timestamp();
    script.timestamp(ts(5_000));
    script.expect_call(1, |_: &kvrpcpb::CheckTxnStatusRequest| {});
    script.reply(kvrpcpb::CheckTxnStatusResponse { commit_version: ts(950).version(), ..Default::default() });
    script.expect_call(1, |resolve: &kvrpcpb::ResolveLockRequest| {
        assert_eq!((resolve.start_version, resolve.commit_version), (ts(900).version(), ts(950).version()));
    });
    script.reply(kvrpcpb::ResolveLockResponse::default());
    expect_prewrite(&mut script, &["a"]);
}

#[test]
fn locks_without_end_are_not_met_without_end() {
    let mut script = commit_of(["a"]);
    let mut prewrites = 0;
    let error = loop {
        assert!(prewrites < 10_000, "no bound");
        let Some(command) = script.next() else { break script.expect_done().expect_err("locked") };
        let (token, event) = match command {
            Command::Call(call) => {
                let response: Response = match &call.request {
                    Request::Prewrite(_) => {
                        prewrites += 1;
                        let errors = vec![is_locked(locked_by(ts(900), "a", "p"))];
                        kvrpcpb::PrewriteResponse { errors, ..Default::default() }.into()
                    }
                    Request::CheckTxnStatus(_) => {
                        let commit_version = ts(950).version();
                        kvrpcpb::CheckTxnStatusResponse { commit_version, ..Default::default() }.into()
                    }
                    Request::ResolveLock(_) => kvrpcpb::ResolveLockResponse::default().into(),
                    other => panic!("{other:?}"),
                };
                (call.token, Event::Reply(Ok(response)))
            }
            Command::Pd { token, request } => (token, Event::Pd(Ok(pd_answer(&request)))),
            Command::Sleep { token, until, .. } => {
                script.advance(until.saturating_since(script.now()));
                (token, Event::Woken)
            }
            Command::Spawn(_) => continue,
            other => panic!("{other:?}"),
        };
        script.event(token, event);
    };
    assert!(matches!(error, Error::Locked(_)), "{error}");
    assert!(error.is_retryable());
}

#[test]
fn the_lock_of_a_younger_transaction_is_a_conflict_and_not_worth_resolving() {
    let mut script = commit_of(["a"]);
    let prewrite = expect_prewrite(&mut script, &["a"]);
    refuse_prewrite(&mut script, prewrite, is_locked(locked_by(ts(1_001), "a", "p")));
    let (error, rolled_back) = expect_failed(&mut script);
    match error {
        Error::WriteConflict(conflict) => {
            assert_eq!((conflict.start_ts, conflict.conflict_ts), (start_ts(), ts(1_001)));
            assert_eq!((conflict.key, conflict.reason), ("a".into(), ConflictReason::Optimistic));
        }
        error => panic!("{error}"),
    }
    assert_eq!(rolled_back, ["a"]);
}

#[test]
fn who_does_not_want_to_resolve_locks_gets_a_conflict() {
    let options = CommitOptions { on_lock: OnLock::Fail, ..options() };
    let mut script = Script::with_knowledge(commit_with(puts(["a"]), options), two_regions());
    let prewrite = expect_prewrite(&mut script, &["a"]);
    refuse_prewrite(&mut script, prewrite, is_locked(locked_by(ts(900), "a", "p")));
    let (error, _) = expect_failed(&mut script);
    assert!(matches!(error, Error::WriteConflict(_)), "{error}");
}

#[test]
fn of_shared_locks_each_is_met_and_their_wrapper_is_not() {
    let wrapper = |holders: [Timestamp; 2]| {
        let shared_lock_infos = holders.map(|holder| locked_by(holder, "a", "p")).into();
        is_locked(kvrpcpb::LockInfo { key: "a".into(), shared_lock_infos, ..Default::default() })
    };
    let mut script = commit_of(["a"]);
    let prewrite = expect_prewrite(&mut script, &["a"]);
    refuse_prewrite(&mut script, prewrite, wrapper([ts(900), ts(1_001)]));
    let (error, _) = expect_failed(&mut script);
    assert!(matches!(&error, Error::WriteConflict(conflict) if conflict.conflict_ts == ts(1_001)), "{error}");

    let mut script = commit_of(["a"]);
    let prewrite = expect_prewrite(&mut script, &["a"]);
    refuse_prewrite(&mut script, prewrite, wrapper([ts(900), ts(950)]));
    script.expect_timestamp();
}

#[test]
fn that_a_key_exists_is_reported_where_its_absence_was_presumed() {
    let exists = |key: &str| kvrpcpb::KeyError {
        already_exist: Some(kvrpcpb::AlreadyExist { key: key.to_owned().into() }),
        ..Default::default()
    };
    for mutation in [Mutation::insert("a", "1"), Mutation::check_not_exists("a")] {
        let all = mutations([mutation, Mutation::put("b", "1")]);
        let mut script = Script::with_knowledge(commit_with(all, options()), two_regions());
        let prewrite = expect_prewrite(&mut script, &["a", "b"]);
        refuse_prewrite(&mut script, prewrite, exists("a"));
        assert_eq!(expect_failed(&mut script).0, Error::KeyExists { key: "a".into() });
    }
    let mut script = commit_of(["a"]);
    let prewrite = expect_prewrite(&mut script, &["a"]);
    refuse_prewrite(&mut script, prewrite, exists("a"));
    assert_eq!(expect_failed(&mut script).0, Error::Key(KeyError::AlreadyExists { key: "a".into() }));
}

fn assertion_failed(key: &str) -> kvrpcpb::KeyError {
    let failed = kvrpcpb::AssertionFailed {
        start_ts: start_ts().version(),
        key: key.to_owned().into(),
        assertion: Assertion::Exist.into(),
        ..Default::default()
    };
    kvrpcpb::KeyError { assertion_failed: Some(failed), ..Default::default() }
}

#[test]
fn a_failed_assertion_counts_less_than_any_other_error() {
    let mut script = commit_of(["a", "z"]);
    let (first, second) = (expect_prewrite(&mut script, &["a"]), expect_prewrite(&mut script, &["z"]));
    refuse_prewrite(&mut script, first, assertion_failed("a"));
    script.expect_nothing();
    refuse_prewrite(&mut script, second, conflict_with(ts(1_500), "z"));
    let (error, rolled_back) = expect_failed(&mut script);
    assert!(matches!(error, Error::WriteConflict(_)), "{error}");
    assert_eq!(rolled_back, ["a", "z"]);
}

#[test]
fn a_failed_assertion_is_reported_when_nothing_else_went_wrong() {
    let mut script = commit_of(["a", "z"]);
    let (first, second) = (expect_prewrite(&mut script, &["a"]), expect_prewrite(&mut script, &["z"]));
    refuse_prewrite(&mut script, first, assertion_failed("a"));
    accept_prewrite(&mut script, second);
    let (error, rolled_back) = expect_failed(&mut script);
    assert!(matches!(error, Error::AssertionFailed(_)), "{error}");
    assert_eq!(rolled_back, ["a", "z"]);
}

#[test]
fn the_first_error_cancels_the_other_prewrites_which_are_rolled_back_all_the_same() {
    let mut script = commit_of(["a", "b", "z"]);
    let (first, second) = (expect_prewrite(&mut script, &["a", "b"]), expect_prewrite(&mut script, &["z"]));
    refuse_prewrite(&mut script, second, conflict_with(ts(1_500), "z"));
    script.expect_cancel(first);
    let (error, rolled_back) = expect_failed(&mut script);
    assert!(matches!(error, Error::WriteConflict(_)) && error.is_retryable(), "{error}");
    assert_eq!(rolled_back, ["a", "b", "z"]);
}

#[test]
fn what_was_never_sent_is_not_rolled_back() {
    let value = "x".repeat(16 * 1024);
    let mutations = mutations(["a", "b", "c"].map(|key| Mutation::put(key, value.clone())));
    let mut script = Script::with_knowledge(commit_with(mutations, options()), two_regions());
    script.config.operation_concurrency = 1;
    let first = expect_prewrite(&mut script, &["a"]);
    accept_prewrite(&mut script, first);
    let second = expect_prewrite(&mut script, &["b"]);
    refuse_prewrite(&mut script, second, conflict_with(ts(1_500), "b"));
    assert_eq!(expect_failed(&mut script).1, ["a", "b"]);
}

#[test]
fn what_was_sent_before_its_region_split_is_rolled_back_even_if_it_waits_to_be_sent_again() {
    let mut script = commit_of(["a", "h"]);
    script.config.operation_concurrency = 1;
    let (first, request, _) = next_prewrite(&mut script);
    script.event(first, answer(&request.into(), Answer::RegionError(split_into([(2, "".."f"), (4, "f".."m")]))));
    let again = expect_prewrite(&mut script, &["a"]);
    refuse_prewrite(&mut script, again, conflict_with(ts(1_500), "a"));
    assert_eq!(expect_failed(&mut script).1, ["a", "h"]);
}

#[test]
fn a_transaction_that_was_rolled_back_by_another_hears_so() {
    let mut error = conflict_with(start_ts(), "a");
    if let Some(conflict) = &mut error.conflict {
        conflict.reason = kvrpcpb::write_conflict::Reason::SelfRolledBack.into();
    }
    let mut script = commit_of(["a"]);
    let prewrite = expect_prewrite(&mut script, &["a"]);
    refuse_prewrite(&mut script, prewrite, error);
    let (error, _) = expect_failed(&mut script);
    assert!(matches!(&error, Error::RolledBack { start_ts, .. } if *start_ts == super::start_ts()), "{error}");
    assert!(error.is_retryable());
}

#[test]
fn a_conflict_with_a_commit_of_oneself_is_no_reason_to_run_again() {
    let mut script = commit_of(["a"]);
    let prewrite = expect_prewrite(&mut script, &["a"]);
    refuse_prewrite(&mut script, prewrite, conflict_with(start_ts(), "a"));
    assert!(matches!(expect_undetermined(&mut script), Error::WriteConflict(_)));
}

#[test]
fn a_commit_in_one_phase_that_nobody_asked_for_leaves_the_outcome_open() {
    let mut script = commit_of(["a", "z"]);
    let (first, second) = (expect_prewrite(&mut script, &["a"]), expect_prewrite(&mut script, &["z"]));
    let response = kvrpcpb::PrewriteResponse { one_pc_commit_ts: ts(1_500).version(), ..Default::default() };
    script.reply_to(first, response);
    script.expect_cancel(second);
    assert!(matches!(expect_undetermined(&mut script), Error::Contradiction { .. }));
}

#[test]
fn a_prewrite_without_an_answer_decides_nothing() {
    for fault in faults_of_unknown_execution() {
        let mut script = commit_of(["a"]);
        while let Some(Command::Call(call)) = script.peek() {
            let token = call.token;
            script.next();
            script.event(token, Event::Reply(Err(fault.clone())));
            sleep_through(&mut script);
        }
        let (error, rolled_back) = expect_failed(&mut script);
        assert_eq!(rolled_back, ["a"], "{fault}: {error}");
    }
}

#[test]
fn a_deadline_ends_the_wait_for_a_lock() {
    let mut options = options();
    options.call.deadline = Time::from_millis(500);
    let mut script = Script::with_knowledge(commit_with(puts(["a"]), options), two_regions());
    let prewrite = expect_prewrite(&mut script, &["a"]);
    refuse_prewrite(&mut script, prewrite, is_locked(locked_by(ts(900), "a", "p")));
    let alarm = script.expect_alarm();
    script.expect_timestamp();
    script.advance(Duration::from_millis(480)).timestamp(ts(1_000)).expect_cancel(alarm);
    script.expect_call(1, |_: &kvrpcpb::CheckTxnStatusRequest| {});
    script.reply(kvrpcpb::CheckTxnStatusResponse { lock_ttl: 3_000, ..Default::default() });
    script.expect_sleep(|sleep, _| assert!(sleep <= Duration::from_millis(19)));
    script.advance(Duration::from_millis(19)).wake();
    let (error, _) = expect_failed(&mut script);
    assert!(error.is_timeout(), "{error}");
}

#[test]
fn a_deadline_ends_a_commit_that_does_not_know_where_its_keys_are() {
    let mut options = options();
    options.call.deadline = Time::from_millis(500);
    let nowhere = knowledge(KeyCodec::Txn, []);
    let mut script = Script::with_knowledge(commit_with(puts(["a"]), options), nowhere);
    let alarm = script.expect_alarm();
    let Some(Command::Pd { token: question, .. }) = script.next() else { panic!("asks PD for the region") };
    script.advance(Duration::from_millis(499)).event(alarm, Event::Woken).expect_cancel(question);
    let error = script.expect_done().expect_err("nothing was sent");
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
}
