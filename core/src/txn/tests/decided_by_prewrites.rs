//! Transactions that are decided by their prewrites: async commit, and commit in one phase.

use tikv_proto::errorpb;

use super::*;
use crate::error::PdError;
use crate::machine::Abandoned;
use crate::machine::script::{maybe_executed, not_sent};
use crate::txn::{CommitMode, OnLock};

fn asynchronous() -> CommitOptions {
    CommitOptions { async_commit: true, ..options() }
}

fn one_phase() -> CommitOptions {
    CommitOptions { one_phase_commit: true, ..options() }
}

/// A transaction that has the timestamp 1,100 ms of PD and is about to send its prewrites.
fn begun<'a>(keys: impl IntoIterator<Item = &'a str>, options: CommitOptions) -> Script<Commit> {
    let mut script = Script::with_knowledge(commit_with(puts(keys), options), two_regions());
    script.expect_timestamp();
    script.timestamp(ts(1_100));
    script
}

/// Expects a prewrite, wherever it goes: after a fault another store is asked.
fn expect_request(script: &mut Script<Commit>, check: impl FnOnce(&kvrpcpb::PrewriteRequest)) -> Token {
    let store = match script.peek() {
        Some(Command::Call(call)) => call.store_id,
        other => panic!("{other:?}"),
    };
    script.expect_call(store, check)
}

fn expect_keys(script: &mut Script<Commit>, keys: &[&str]) -> Token {
    expect_request(script, |request| {
        let prewritten: Vec<_> = request.mutations.iter().map(|mutation| mutation.key.clone()).collect();
        assert_eq!(names(&prewritten), keys);
    })
}

fn locked_to_commit_at(min_commit_ts: Timestamp) -> kvrpcpb::PrewriteResponse {
    kvrpcpb::PrewriteResponse { min_commit_ts: min_commit_ts.version(), ..Default::default() }
}

fn committed_at(commit_ts: Timestamp) -> kvrpcpb::PrewriteResponse {
    kvrpcpb::PrewriteResponse { one_pc_commit_ts: commit_ts.version(), ..Default::default() }
}

fn committed(commit_ts: Timestamp) -> Result<Option<Timestamp>, Error> {
    Ok(Some(commit_ts))
}

// ---- Async commit ----

#[test]
fn an_async_commit_is_committed_as_soon_as_all_keys_are_locked_at_the_largest_min_commit_ts() {
    let mut script = begun(["a", "b", "z"], asynchronous());
    let first = expect_request(&mut script, |request| {
        assert!(request.use_async_commit && !request.try_one_pc);
        assert_eq!(request.min_commit_ts, ts(1_100).next().version());
        assert_eq!(request.max_commit_ts, ts(3_000).version());
        assert_eq!(names(&request.secondaries), ["b", "z"]);
    });
    let second = expect_request(&mut script, |request| {
        assert!(request.use_async_commit);
        assert!(request.secondaries.is_empty(), "the primary's request alone names them");
    });
    script.reply_to(first, locked_to_commit_at(ts(1_200)));
    script.reply_to(second, locked_to_commit_at(ts(1_300)));
    let background = script.expect_spawn();
    assert_eq!(when(script.expect_done()), committed(ts(1_300)));
    let (requests, _) = run_background(background, |_| ok());
    let roles: Vec<_> = requests
        .iter()
        .map(|request| match request {
            Request::Commit(commit) => {
                assert!(commit.use_async_commit);
                assert_eq!(commit.commit_version, ts(1_300).version());
                (names(&commit.keys), commit.commit_role())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        (vec!["a".to_owned(), "b".to_owned()], kvrpcpb::CommitRole::Primary),
        (vec!["z".to_owned()], kvrpcpb::CommitRole::Secondary),
    ];
    assert_eq!(roles, expected);
}

#[test]
fn one_ordinary_lock_is_enough_for_the_primary_to_decide() {
    for fallen_back in [0, 1] {
        let mut script = begun(["a", "z"], asynchronous());
        let requests = [expect_keys(&mut script, &["a"]), expect_keys(&mut script, &["z"])];
        for (index, token) in requests.into_iter().enumerate() {
            let min_commit_ts = if index == fallen_back { Timestamp::ZERO } else { ts(1_200) };
            script.reply_to(token, locked_to_commit_at(min_commit_ts));
        }
        script.expect_timestamp();
        script.timestamp(ts(2_000));
        expect_commit(&mut script, &["a"], ts(2_000));
        script.reply(kvrpcpb::CommitResponse::default());
        script.expect_spawn();
        assert_eq!(when(script.expect_done()), committed(ts(2_000)));
    }
}

#[test]
fn the_safe_window_counts_from_now_however_old_the_transaction() {
    let options = CommitOptions { causal_consistency: true, ..asynchronous() };
    let mut script = Script::with_knowledge(commit_with(puts(["a"]), options), two_regions());
    script.advance(std::time::Duration::from_secs(5));
    expect_request(&mut script, |request| assert_eq!(request.max_commit_ts, ts(1_000 + 5_000 + 2_000).version()));
}

#[test]
fn who_needs_no_order_in_real_time_takes_no_timestamp() {
    for options in [asynchronous(), one_phase()] {
        let options = CommitOptions { causal_consistency: true, ..options };
        let mut script = Script::with_knowledge(commit_with(puts(["a"]), options), two_regions());
        expect_request(&mut script, |request| assert_eq!(request.min_commit_ts, start_ts().next().version()));
    }
}

#[test]
fn who_waits_for_a_timestamp_takes_one_all_the_same() {
    let mut options = CommitOptions { causal_consistency: true, ..asynchronous() };
    options.commit_ts.wait_until = ts(1_200);
    let mut script = Script::with_knowledge(commit_with(puts(["a"]), options), two_regions());
    script.expect_timestamp();
    script.timestamp(ts(1_150));
    script.expect_sleep(|_, _| {});
    script.wake();
    script.expect_timestamp();
    script.timestamp(ts(1_250));
    expect_request(&mut script, |request| assert_eq!(request.min_commit_ts, ts(1_250).next().version()));
}

#[test]
fn without_a_timestamp_nothing_is_sent_and_nothing_is_to_be_cleaned_up() {
    let mut script = Script::with_knowledge(commit_with(puts(["a"]), asynchronous()), two_regions());
    script.expect_timestamp();
    script.pd(Err(PdError::Closed));
    assert!(!script.expect_done().expect_err("no timestamp").is_undetermined());
}

#[test]
fn large_bounded_sharing_and_empty_transactions_commit_in_two_phases() {
    let many: Vec<String> = (0..257).map(|number| format!("k{number:03}")).collect();
    let long = "k".repeat(4_097);
    let mut bounded = CommitOptions { async_commit: true, one_phase_commit: true, ..options() };
    bounded.commit_ts.upper_bound = ts(9_000);
    let shared = Mutation { op: kvrpcpb::Op::SharedLock, ..Mutation::lock("b") };
    for (mutations, options) in [
        (puts(many.iter().map(String::as_str)), asynchronous()),
        (puts([long.as_str()]), asynchronous()),
        (puts(["a"]), bounded),
        (mutations([Mutation::put("a", "1"), shared]), CommitOptions { async_commit: true, ..one_phase() }),
        (mutations([Mutation::check_not_exists("a")]), CommitOptions { async_commit: true, ..one_phase() }),
        // Whoever found the lock of `b` would commit the transaction, even though `a` exists.
        (
            mutations([Mutation::check_not_exists("a"), Mutation::put("b", "1")]),
            CommitOptions { async_commit: true, ..one_phase() },
        ),
    ] {
        let mut script = Script::with_knowledge(commit_with(mutations, options), two_regions());
        expect_request(&mut script, |request| {
            assert!(!request.use_async_commit && !request.try_one_pc);
            assert_eq!(request.max_commit_ts, 0);
        });
    }
    // The size does not matter for one phase.
    let mut script = begun([long.as_str()], CommitOptions { async_commit: true, ..one_phase() });
    expect_request(&mut script, |request| assert!(!request.use_async_commit && request.try_one_pc));
}

// ---- One phase ----

#[test]
fn one_phase_is_one_request() {
    let mut script = begun(["a", "b"], CommitOptions { async_commit: true, ..one_phase() });
    expect_request(&mut script, |request| {
        assert!(request.try_one_pc && request.use_async_commit);
        assert_eq!(names(&request.secondaries), ["b"]);
        assert_eq!(request.min_commit_ts, ts(1_100).next().version());
        assert_eq!(request.max_commit_ts, ts(3_000).version());
    });
    script.reply(committed_at(ts(1_250)));
    let outcome = script.expect_done().expect("committed");
    assert_eq!((outcome.commit_ts, outcome.mode), (Some(ts(1_250)), CommitMode::OnePhase));
}

#[test]
fn one_phase_that_tikv_refuses_becomes_two() {
    for asynchronous in [false, true] {
        let mut script = begun(["a", "b"], CommitOptions { async_commit: asynchronous, ..one_phase() });
        expect_request(&mut script, |request| assert!(request.try_one_pc));
        script.reply(kvrpcpb::PrewriteResponse::default());
        script.expect_timestamp();
        script.timestamp(ts(2_000));
        expect_commit(&mut script, &["a", "b"], ts(2_000));
    }
}

#[test]
fn keys_of_several_requests_are_not_committed_in_one_phase() {
    for asynchronous in [false, true] {
        let options = CommitOptions { async_commit: asynchronous, ..one_phase() };
        let mut script = begun(["a", "z"], options);
        for _ in 0..2 {
            expect_request(&mut script, |request| {
                assert!(!request.try_one_pc);
                assert_eq!(request.use_async_commit, asynchronous);
            });
        }
    }
}

#[test]
fn the_parts_of_a_split_request_are_not_committed_in_one_phase() {
    let mut script = begun(["a", "h"], one_phase());
    expect_request(&mut script, |request| assert!(request.try_one_pc));
    script.region_error(split_into([(2, "".."f"), (4, "f".."m")]));
    for key in ["a", "h"] {
        let token = expect_request(&mut script, |request| {
            assert_eq!(names(&[request.mutations[0].key.clone()]), [key]);
            assert!(!request.try_one_pc && !request.use_async_commit, "TiKV has refused the whole for certain");
        });
        script.reply_to(token, kvrpcpb::PrewriteResponse::default());
    }
    script.expect_timestamp();
}

/// client-go continues in two phases then, and reports a commit_ts of its own.
#[test]
fn one_phase_that_was_executed_without_an_answer_and_then_split_is_reported_with_its_real_commit_ts() {
    let mut script = begun(["a", "h"], one_phase());
    expect_keys(&mut script, &["a", "h"]);
    script.fault(maybe_executed());
    sleep_through(&mut script);
    expect_keys(&mut script, &["a", "h"]);
    script.region_error(split_into([(2, "".."f"), (4, "f".."m")]));
    sleep_through(&mut script);
    for key in ["a", "h"] {
        let token = expect_request(&mut script, |request| {
            assert_eq!(names(&[request.mutations[0].key.clone()]), [key]);
            assert!(!request.try_one_pc && request.use_async_commit);
        });
        // TiKV finds the record of the commit.
        script.reply_to(token, locked_to_commit_at(ts(1_250)));
    }
    script.expect_spawn();
    assert_eq!(when(script.expect_done()), committed(ts(1_250)));
}

// ---- What is not known ----

/// The ways in which an attempt can end without an answer although it may have been executed.
fn lost_answers() -> Vec<Event> {
    let faults = faults_of_unknown_execution().map(|fault| Event::Reply(Err(fault)));
    let unsure = answer(&kvrpcpb::PrewriteRequest::default().into(), Answer::RegionError(undetermined_result()));
    faults.chain([unsure]).collect()
}

/// Answers every further call with `error`, until the machine has ended.
fn refuse_all(script: &mut Script<Commit>, error: &errorpb::Error) {
    for _ in 0..10_000 {
        sleep_through(script);
        let Some(Command::Call(_)) = script.peek() else { return };
        let Some(Command::Call(call)) = script.next() else { return };
        script.event(call.token, answer(&call.request, Answer::RegionError(error.clone())));
    }
    panic!("no end");
}

/// client-go rolls the transaction back after an `UndeterminedResult`, committed as it may be.
#[test]
fn a_prewrite_that_was_never_answered_leaves_the_outcome_open_and_the_locks_alone() {
    for options in [asynchronous(), one_phase()] {
        for lost in lost_answers() {
            let mut script = begun(["a"], options.clone());
            let token = expect_keys(&mut script, &["a"]);
            script.event(token, lost);
            refuse_all(&mut script, &server_is_busy());
            expect_undetermined(&mut script);
        }
    }
}

#[test]
fn one_of_several_is_enough() {
    let mut script = begun(["a", "z"], asynchronous());
    let first = expect_keys(&mut script, &["a"]);
    let second = expect_keys(&mut script, &["z"]);
    script.reply_to(first, locked_to_commit_at(ts(1_200)));
    script.event(second, Event::Reply(Err(maybe_executed())));
    refuse_all(&mut script, &server_is_busy());
    expect_undetermined(&mut script);
}

#[test]
fn an_answer_that_is_missing_does_not_matter_while_other_keys_are_certainly_not_locked() {
    let mut script = begun(["a", "z"], asynchronous());
    let first = expect_keys(&mut script, &["a"]);
    let second = expect_keys(&mut script, &["z"]);
    script.event(second, answer(&kvrpcpb::PrewriteRequest::default().into(), Answer::RegionError(server_is_busy())));
    let closed = Fault::new(FaultKind::Closed, crate::error::Execution::MaybeExecuted, "store-1");
    script.event(first, Event::Reply(Err(closed)));
    while matches!(script.peek(), Some(Command::Sleep { .. } | Command::Cancel { .. })) {
        script.next();
    }
    assert_eq!(expect_failed(&mut script).1, ["a", "z"]);
}

#[test]
fn what_was_never_sent_decides_nothing() {
    for options in [asynchronous(), one_phase()] {
        let mut script = begun(["a", "b"], options);
        expect_keys(&mut script, &["a", "b"]);
        script.fault(not_sent());
        refuse_all(&mut script, &server_is_busy());
        assert_eq!(expect_failed(&mut script).1, ["a", "b"]);
    }
}

#[test]
fn a_refusal_for_good_holds_for_every_earlier_attempt_and_so_does_success() {
    for options in [asynchronous(), one_phase()] {
        let mut script = begun(["a"], options.clone());
        expect_keys(&mut script, &["a"]);
        script.fault(maybe_executed());
        sleep_through(&mut script);
        let token = expect_keys(&mut script, &["a"]);
        refuse_prewrite(&mut script, token, conflict_with(ts(1_050), "a"));
        assert!(matches!(expect_failed(&mut script).0, Error::WriteConflict(_)));

        let mut script = begun(["a"], options.clone());
        expect_keys(&mut script, &["a"]);
        script.fault(maybe_executed());
        sleep_through(&mut script);
        let token = expect_keys(&mut script, &["a"]);
        let success = if options.one_phase_commit { committed_at(ts(1_300)) } else { locked_to_commit_at(ts(1_300)) };
        script.reply_to(token, success);
        while matches!(script.peek(), Some(Command::Spawn(_))) {
            script.next();
        }
        assert_eq!(when(script.expect_done()), committed(ts(1_300)));
    }
}

#[test]
fn that_a_key_is_locked_says_nothing_of_an_earlier_attempt_which_may_arrive_late() {
    for options in [asynchronous(), one_phase()] {
        for by in [ts(1_050), ts(900)] {
            let mut script = begun(["a"], CommitOptions { on_lock: OnLock::Fail, ..options.clone() });
            expect_keys(&mut script, &["a"]);
            script.fault(maybe_executed());
            sleep_through(&mut script);
            let token = expect_keys(&mut script, &["a"]);
            refuse_prewrite(&mut script, token, is_locked(locked_by(by, "a", "p")));
            assert!(matches!(expect_undetermined(&mut script), Error::WriteConflict(_)));
        }
    }
}

#[test]
fn that_tikv_asks_to_run_again_says_nothing_of_an_earlier_attempt() {
    let mut script = begun(["a"], asynchronous());
    expect_keys(&mut script, &["a"]);
    script.fault(maybe_executed());
    sleep_through(&mut script);
    let token = expect_keys(&mut script, &["a"]);
    refuse_prewrite(&mut script, token, kvrpcpb::KeyError { retryable: "again".to_owned(), ..Default::default() });
    expect_undetermined(&mut script);
}

/// The region of the keys has gone, and PD with it.
fn lose_the_region(script: &mut Script<Commit>, token: Token) {
    let gone = errorpb::Error { epoch_not_match: Some(errorpb::EpochNotMatch::default()), ..Default::default() };
    script.event(token, answer(&kvrpcpb::PrewriteRequest::default().into(), Answer::RegionError(gone)));
    script.expect_sleep(|_, _| {});
    script.wake();
    let next = script.next();
    let Some(Command::Pd { token: question, .. }) = next else { panic!("the keys have to be located anew: {next:?}") };
    script.event(question, Event::Pd(Err(PdError::Closed)));
}

#[test]
fn keys_that_cannot_be_located_anew_decide_nothing_if_every_attempt_was_refused() {
    let mut script = begun(["a"], asynchronous());
    let token = expect_keys(&mut script, &["a"]);
    lose_the_region(&mut script, token);
    assert_eq!(expect_failed(&mut script), (Error::Closed, vec!["a".to_owned()]));
}

#[test]
fn keys_that_cannot_be_located_anew_leave_the_outcome_open_if_an_attempt_was_not_answered() {
    let mut script = begun(["a"], asynchronous());
    expect_keys(&mut script, &["a"]);
    script.fault(maybe_executed());
    sleep_through(&mut script);
    let token = expect_keys(&mut script, &["a"]);
    lose_the_region(&mut script, token);
    assert_eq!(expect_undetermined(&mut script), Error::Closed);
}

#[test]
fn a_refused_key_settles_it_whatever_becomes_of_the_others() {
    let mut script = begun(["a", "z"], asynchronous());
    let first = expect_keys(&mut script, &["a"]);
    let second = expect_keys(&mut script, &["z"]);
    refuse_prewrite(&mut script, first, conflict_with(ts(1_050), "a"));
    script.expect_cancel(second);
    let (error, keys) = expect_failed(&mut script);
    assert!(matches!(error, Error::WriteConflict(_)));
    assert_eq!(keys, ["a", "z"]);
}

#[test]
fn a_lost_answer_is_remembered_when_the_region_splits() {
    let mut script = begun(["a", "h"], asynchronous());
    expect_keys(&mut script, &["a", "h"]);
    script.fault(maybe_executed());
    sleep_through(&mut script);
    expect_keys(&mut script, &["a", "h"]);
    script.region_error(split_into([(2, "".."f"), (4, "f".."m")]));
    sleep_through(&mut script);
    let first = expect_keys(&mut script, &["a"]);
    let second = expect_keys(&mut script, &["h"]);
    script.reply_to(first, locked_to_commit_at(ts(1_200)));
    script.event(second, answer(&kvrpcpb::PrewriteRequest::default().into(), Answer::RegionError(server_is_busy())));
    refuse_all(&mut script, &server_is_busy());
    expect_undetermined(&mut script);
}

#[test]
fn a_server_that_contradicts_itself_leaves_the_outcome_open() {
    for (options, response) in [
        (asynchronous(), committed_at(ts(1_200))),
        (one_phase(), committed_at(start_ts())),
        (asynchronous(), locked_to_commit_at(ts(900))),
    ] {
        let mut script = begun(["a"], options);
        expect_keys(&mut script, &["a"]);
        script.reply(response);
        assert!(matches!(expect_undetermined(&mut script), Error::Contradiction { .. }));
    }
}

#[test]
fn a_min_commit_ts_that_nobody_asked_for_means_nothing() {
    let mut script = commit_of(["a"]);
    let token = expect_keys(&mut script, &["a"]);
    script.reply_to(token, locked_to_commit_at(ts(1_200)));
    script.expect_timestamp();
}

// ---- Owners that lose interest ----

#[test]
fn what_all_prewrites_were_sent_for_is_finished_without_its_owner() {
    for options in [asynchronous(), one_phase()] {
        let mut script = begun(["a"], options);
        expect_keys(&mut script, &["a"]);
        assert_eq!(script.abandon(), Abandoned::FinishInBackground);
        script.expect_nothing();
    }
}

#[test]
fn as_long_as_a_prewrite_has_not_been_sent_it_is_rolled_back() {
    let mut script = Script::with_knowledge(commit_with(puts(["a", "z"]), asynchronous()), two_regions());
    script.config.operation_concurrency = 1;
    script.expect_timestamp();
    script.timestamp(ts(1_100));
    expect_keys(&mut script, &["a"]);
    assert_eq!(script.abandon(), Abandoned::Discard);
    let cleanup = script.expect_spawn();
    assert_eq!(rolled_back(cleanup), ["a"]);
}

#[test]
fn before_the_timestamp_comes_there_is_nothing_to_do() {
    let mut script = Script::with_knowledge(commit_with(puts(["a"]), asynchronous()), two_regions());
    script.expect_timestamp();
    assert_eq!(script.abandon(), Abandoned::Discard);
    script.expect_nothing();
}
