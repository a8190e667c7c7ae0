use std::time::Duration;

use tikv_proto::kvrpcpb;

use super::*;
use crate::backoff::BackoffKind;
use crate::error::{Execution, KeyError, PdError};
use crate::machine::Abandoned;
use crate::txn::{CommitDetails, CommitMode, CommitTsRules};

fn committed_at(commit_ts: Timestamp) -> Result<Option<Timestamp>, Error> {
    Ok(Some(commit_ts))
}

#[test]
fn a_transaction_over_two_regions_commits_its_primary_and_then_in_the_background_the_rest() {
    let mut script = commit_of(["a", "b", "y", "z"]);
    let (first, second) = (expect_prewrite(&mut script, &["a", "b"]), expect_prewrite(&mut script, &["y", "z"]));
    accept_prewrite(&mut script, second);
    script.expect_nothing();
    accept_prewrite(&mut script, first);
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    script.expect_call(1, |request: &kvrpcpb::CommitRequest| {
        let expected = kvrpcpb::CommitRequest {
            start_version: start_ts().version(),
            keys: vec!["a".into(), "b".into()],
            commit_version: ts(2_000).version(),
            commit_role: kvrpcpb::CommitRole::Primary.into(),
            primary_key: "a".into(),
            context: request.context.clone(),
            ..Default::default()
        };
        assert_eq!(*request, expected);
    });
    script.reply(kvrpcpb::CommitResponse::default());
    let secondaries = script.expect_spawn();
    assert_eq!(when(script.expect_done()), committed_at(ts(2_000)));
    let (requests, observed) = run_background(secondaries, |_| ok());
    let expected = kvrpcpb::CommitRequest {
        start_version: start_ts().version(),
        keys: vec!["y".into(), "z".into()],
        commit_version: ts(2_000).version(),
        commit_role: kvrpcpb::CommitRole::Secondary.into(),
        primary_key: "a".into(),
        ..Default::default()
    };
    assert_eq!(requests, [expected.into()]);
    assert_eq!(observed, []);
}

#[test]
fn a_commit_tells_what_decided_it_and_what_it_took() {
    let mut script = commit_of(["a", "b", "y", "z"]);
    let (first, second) = (expect_prewrite(&mut script, &["a", "b"]), expect_prewrite(&mut script, &["y", "z"]));
    accept_prewrite(&mut script, second);
    accept_prewrite(&mut script, first);
    script.expect_timestamp();
    script.timestamp(ts(2_000)).expect_call(1, |_: &kvrpcpb::CommitRequest| {});
    script.reply(kvrpcpb::CommitResponse::default());
    script.expect_spawn();
    let CommitOutcome { commit_ts, mode, details } = script.expect_done().expect("committed");
    assert_eq!((commit_ts, mode), (Some(ts(2_000)), CommitMode::TwoPhases));
    let CommitDetails { keys, bytes, regions, prewrites, lock_encounters } = details;
    assert_eq!((keys, regions, prewrites, lock_encounters), (4, 2, 2, 0));
    assert!(bytes > 4, "keys and values: {bytes}");
}

#[test]
fn nothing_runs_in_the_background_when_one_request_commits_all() {
    let mut script = committing(["a", "b"]);
    script.reply(kvrpcpb::CommitResponse::default());
    assert_eq!(when(script.expect_done()), committed_at(ts(2_000)));
}

#[test]
fn a_transaction_that_wrote_nothing_sends_nothing() {
    let mut script = commit_of([]);
    assert_eq!(script.expect_done(), Ok(CommitOutcome::default()));
}

#[test]
fn a_start_ts_that_pd_never_gave_is_refused() {
    for start_ts in [Timestamp::ZERO, Timestamp::MAX] {
        let (started_at, mutations, pessimistic) = (Time::ZERO, puts(["a"]), None);
        let request = CommitRequest { start_ts, started_at, mutations, pessimistic, options: options() };
        let error = Script::new(Commit::new(request)).expect_done().expect_err("refused");
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    }
}

#[test]
fn a_key_that_was_inserted_and_deleted_again_is_checked_but_neither_primary_nor_committed() {
    let mutations = mutations([Mutation::check_not_exists("a"), Mutation::put("b", "1"), Mutation::put("c", "2")]);
    let mut script = Script::with_knowledge(commit_with(mutations, options()), two_regions());
    let prewrite = script.expect_call(1, |request: &kvrpcpb::PrewriteRequest| {
        assert_eq!((&request.primary_lock[..], request.mutations.len()), (&b"b"[..], 3));
    });
    accept_prewrite(&mut script, prewrite);
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    expect_commit(&mut script, &["b", "c"], ts(2_000));
    script.reply(kvrpcpb::CommitResponse::default());
    assert_eq!(when(script.expect_done()), committed_at(ts(2_000)));
}

#[test]
fn if_all_that_was_written_is_gone_again_absence_is_checked_and_nothing_committed() {
    let mutations = mutations(["a", "b"].map(Mutation::check_not_exists));
    let mut script = Script::with_knowledge(commit_with(mutations.clone(), options()), two_regions());
    let prewrite = script.expect_call(1, |request: &kvrpcpb::PrewriteRequest| {
        assert_eq!(&request.primary_lock[..], b"a");
    });
    accept_prewrite(&mut script, prewrite);
    assert_eq!(when(script.expect_done()), Ok(None));

    // Nothing was locked, so that there is nothing to roll back either.
    let mut script = Script::with_knowledge(commit_with(mutations, options()), two_regions());
    let prewrite = expect_prewrite(&mut script, &["a", "b"]);
    refuse_prewrite(&mut script, prewrite, conflict_with(ts(1_500), "a"));
    assert!(matches!(script.expect_done(), Err(Error::WriteConflict(_))));
}

#[test]
fn a_refused_commit_timestamp_is_replaced_also_for_the_secondaries() {
    let mut script = commit_of(["a", "z"]);
    for keys in [["a"], ["z"]] {
        let prewrite = expect_prewrite(&mut script, &keys);
        script.event(prewrite, Event::Reply(Ok(kvrpcpb::PrewriteResponse::default().into())));
    }
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    expect_commit(&mut script, &["a"], ts(2_000));
    let error = Some(Box::new(commit_ts_expired("a", ts(2_000), ts(2_500))));
    script.reply(kvrpcpb::CommitResponse { error, ..Default::default() });
    script.expect_timestamp();
    script.timestamp(ts(3_000));
    expect_commit(&mut script, &["a"], ts(3_000));
    script.reply(kvrpcpb::CommitResponse::default());
    let secondaries = script.expect_spawn();
    assert_eq!(when(script.expect_done()), committed_at(ts(3_000)));
    run_background(secondaries, |request| {
        let Request::Commit(commit) = request else { panic!("{request:?}") };
        assert_eq!(commit.commit_version, ts(3_000).version());
        ok()
    });
}

#[test]
fn a_commit_timestamp_is_not_replaced_by_one_that_will_be_refused_too() {
    let mut script = committing(["a"]);
    let error = Some(Box::new(commit_ts_expired("a", ts(2_000), ts(2_500))));
    script.reply(kvrpcpb::CommitResponse { error, ..Default::default() });
    script.expect_timestamp();
    script.timestamp(ts(2_499));
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::CommitTsLag)));
    script.wake().expect_timestamp();
    script.timestamp(ts(2_500));
    expect_commit(&mut script, &["a"], ts(2_500));
}

#[test]
fn a_min_commit_ts_hours_ahead_is_not_waited_for() {
    let hour = 60 * 60 * 1000;
    for (ahead, retried) in [(hour, true), (hour + 1, false)] {
        let mut script = committing(["a"]);
        let error = Some(Box::new(commit_ts_expired("a", ts(2_000), ts(2_000 + ahead))));
        script.reply(kvrpcpb::CommitResponse { error, ..Default::default() });
        if retried {
            script.expect_timestamp();
            continue;
        }
        let (error, rolled_back) = expect_failed(&mut script);
        assert!(matches!(error, Error::Key(KeyError::CommitTsExpired { .. })), "{error}");
        assert_eq!(rolled_back, ["a"]);
    }
}

#[test]
fn a_commit_timestamp_refused_for_another_key_than_the_primary_fails_the_transaction() {
    let mut script = committing(["a", "b"]);
    let error = Some(Box::new(commit_ts_expired("b", ts(2_000), ts(2_500))));
    script.reply(kvrpcpb::CommitResponse { error, ..Default::default() });
    let (error, rolled_back) = expect_failed(&mut script);
    assert!(matches!(error, Error::Key(KeyError::CommitTsExpired { .. })), "{error}");
    assert_eq!(rolled_back, ["a", "b"]);
}

#[test]
fn commit_timestamps_are_not_refused_without_end() {
    let mut script = committing(["a"]);
    let (mut refused, mut now_ms) = (0, 2_000);
    let answer_commit = |now_ms| {
        let error = Some(Box::new(commit_ts_expired("a", ts(now_ms), ts(now_ms + 1))));
        Event::Reply(Ok(kvrpcpb::CommitResponse { error, ..Default::default() }.into()))
    };
    let token = script.last_call().token;
    script.event(token, answer_commit(now_ms));
    loop {
        refused += 1;
        assert!(refused < 10_000, "no bound");
        sleep_through(&mut script);
        match script.next() {
            Some(Command::Pd { token, .. }) => {
                now_ms += 100;
                script.event(token, Event::Pd(Ok(PdResponse::Timestamp(ts(now_ms)))));
            }
            Some(Command::Call(call)) => {
                script.event(call.token, answer_commit(now_ms));
            }
            Some(Command::Spawn(cleanup)) => {
                assert_eq!(rolled_back(cleanup), ["a"]);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let error = script.expect_done().expect_err("given up");
    assert!(matches!(error, Error::Key(KeyError::CommitTsExpired { .. })), "{error}");
}

#[test]
fn a_lock_that_is_gone_was_rolled_back_by_another() {
    let mut script = committing(["a", "b"]);
    script.reply(kvrpcpb::CommitResponse { error: Some(Box::new(lock_not_found("a"))), ..Default::default() });
    let (error, rolled_back) = expect_failed(&mut script);
    assert!(matches!(error, Error::RolledBack { .. }) && error.is_retryable(), "{error}");
    assert_eq!(rolled_back, ["a", "b"]);
}

#[test]
fn a_transaction_of_a_day_is_too_old_to_commit() {
    let day = 24 * 60 * 60 * 1000;
    for (age, too_old) in [(day - 1, false), (day, true)] {
        let mut script = commit_of(["a"]);
        let prewrite = expect_prewrite(&mut script, &["a"]);
        accept_prewrite(&mut script, prewrite);
        script.expect_timestamp();
        script.timestamp(ts(1_000 + age));
        if too_old {
            let (error, rolled_back) = expect_failed(&mut script);
            assert_eq!(error, Error::TxnTooOld { start_ts: start_ts(), age: Duration::from_millis(age) });
            assert_eq!(rolled_back, ["a"]);
        } else {
            expect_commit(&mut script, &["a"], ts(1_000 + age));
        }
    }
}

/// client-go checks only the first timestamp.
#[test]
fn the_timestamp_that_replaces_a_refused_one_is_held_against_age_and_bound() {
    let day = 24 * 60 * 60 * 1000;
    let bound = CommitTsRules { upper_bound: ts(2_600), ..CommitTsRules::default() };
    for (rules, newer) in [(CommitTsRules::default(), ts(1_000 + day)), (bound, ts(2_601))] {
        let options = CommitOptions { commit_ts: rules, ..options() };
        let mut script = Script::with_knowledge(commit_with(puts(["a"]), options), two_regions());
        let prewrite = expect_prewrite(&mut script, &["a"]);
        accept_prewrite(&mut script, prewrite);
        script.expect_timestamp();
        script.timestamp(ts(2_000));
        expect_commit(&mut script, &["a"], ts(2_000));
        let error = Some(Box::new(commit_ts_expired("a", ts(2_000), ts(2_500))));
        script.reply(kvrpcpb::CommitResponse { error, ..Default::default() });
        script.expect_timestamp();
        script.timestamp(newer);
        let (error, rolled_back) = expect_failed(&mut script);
        assert!(matches!(error, Error::TxnTooOld { .. } | Error::CommitTsOutOfBound { .. }), "{error}");
        assert_eq!(rolled_back, ["a"]);
    }
}

#[test]
fn without_a_timestamp_there_is_no_commit() {
    let mut script = commit_of(["a", "z"]);
    for keys in [["a"], ["z"]] {
        let prewrite = expect_prewrite(&mut script, &keys);
        script.event(prewrite, Event::Reply(Ok(kvrpcpb::PrewriteResponse::default().into())));
    }
    script.expect_timestamp();
    script.pd(Err(PdError::Closed));
    let (error, rolled_back) = expect_failed(&mut script);
    assert_eq!((error, rolled_back), (Error::Closed, vec!["a".to_owned(), "z".to_owned()]));
}

#[test]
fn a_region_that_splits_before_the_commit_takes_secondaries_with_it() {
    let mut script = committing(["a", "h"]);
    script.region_error(split_into([(2, "".."f"), (4, "f".."m")]));
    script.expect_call(1, |request: &kvrpcpb::CommitRequest| assert_eq!(names(&request.keys), ["a"]));
    assert!(script.last_context().is_retry_request);
    script.reply(kvrpcpb::CommitResponse::default());
    let secondaries = script.expect_spawn();
    assert_eq!(when(script.expect_done()), committed_at(ts(2_000)));
    let (requests, _) = run_background(secondaries, |_| ok());
    let committed: Vec<_> = requests.iter().flat_map(|request| names(commit_keys(request))).collect();
    assert_eq!(committed, ["h"]);
}

#[test]
fn the_primary_is_committed_where_it_has_just_been_prewritten() {
    let mut script = commit_of(["a"]);
    let prewrite = expect_prewrite(&mut script, &["a"]);
    accept_prewrite(&mut script, prewrite);
    script.expect_timestamp();
    // Nobody has to be asked where the region is, whatever others say of it meanwhile.
    assert!(script.knowledge.regions.invalidate(region(2, "".."m").ver_id));
    script.timestamp(ts(2_000));
    expect_commit(&mut script, &["a"], ts(2_000));
}

#[test]
fn the_primary_is_committed_by_the_leader_that_the_prewrite_has_found() {
    let mut script = commit_of(["a"]);
    expect_prewrite(&mut script, &["a"]);
    let leader = Some(region(2, "".."m").replicas[1].peer);
    let not_leader = Some(errorpb::NotLeader { region_id: 2, leader });
    script.region_error(errorpb::Error { not_leader, ..Default::default() });
    script.expect_call(2, |_: &kvrpcpb::PrewriteRequest| {});
    script.reply(kvrpcpb::PrewriteResponse::default());
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    script.expect_call(2, |request: &kvrpcpb::CommitRequest| assert_eq!(names(&request.keys), ["a"]));
}

#[test]
fn keys_before_the_primary_are_secondaries() {
    let mutations = mutations([
        Mutation { op: kvrpcpb::Op::SharedLock, ..Mutation::lock("a") },
        Mutation::put("b", "1"),
        Mutation::put("c", "2"),
    ]);
    let mut script = Script::with_knowledge(commit_with(mutations, options()), two_regions());
    let prewrite = expect_prewrite(&mut script, &["a", "b", "c"]);
    accept_prewrite(&mut script, prewrite);
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    expect_commit(&mut script, &["b", "c"], ts(2_000));
    script.reply(kvrpcpb::CommitResponse::default());
    let (requests, _) = run_background(script.expect_spawn(), |_| ok());
    assert_eq!(names(commit_keys(&requests[0])), ["a"]);
}

#[test]
fn the_primary_commits_with_as_many_keys_as_make_a_batch() {
    let long = |letter: &str| letter.repeat(9 * 1024);
    let keys = [long("a"), long("b"), long("c")];
    let mutations = mutations(keys.iter().map(|key| Mutation::put(key.as_str(), "1")));
    let mut script = Script::with_knowledge(commit_with(mutations, options()), two_regions());
    for _ in 0..2 {
        let Some(Command::Call(call)) = script.next() else { panic!("a prewrite") };
        script.event(call.token, answer(&call.request, Answer::Accept));
    }
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    script.expect_call(1, |request: &kvrpcpb::CommitRequest| assert_eq!(names(&request.keys), keys[..2]));
}

#[test]
fn a_region_that_nobody_can_locate_fails_the_transaction_before_anything_is_sent() {
    let mut script = Script::with_knowledge(commit_with(puts(["a"]), options()), knowledge(KeyCodec::Txn, []));
    let Some(Command::Pd { token, .. }) = script.next() else { panic!("a question to PD") };
    script.event(token, Event::Pd(Err(PdError::Closed)));
    assert_eq!(script.expect_done(), Err(Error::Closed));
}

/// A commit of these keys, for which three are many.
fn large_commit<'a>(keys: impl IntoIterator<Item = &'a str>) -> Script<Commit> {
    let mut script = Script::with_knowledge(commit_with(puts(keys), options()), two_regions());
    script.config.pre_split_keys = 3;
    script.config.pre_split_bytes = 12;
    script
}

fn expect_split(script: &mut Script<Commit>, keys: &[&str]) -> Token {
    script.expect_call(1, |request: &kvrpcpb::SplitRegionRequest| assert_eq!(names(&request.split_keys), keys))
}

#[test]
fn a_region_that_has_to_take_much_is_split_and_scattered_before_it_is_written() {
    let mut script = large_commit(["a", "b", "c", "d", "z"]);
    let split = expect_split(&mut script, &["b", "d"]);
    let parts = [11, 12, 1].map(|id| metapb::Region { id, ..Default::default() });
    script.reply_to(split, kvrpcpb::SplitRegionResponse { regions: parts.to_vec(), ..Default::default() });
    script.expect_pd(&PdRequest::ScatterRegions { regions: vec![11, 12], group: String::new() });
    script.pd(Ok(PdResponse::Scattered));
    for region_id in [11, 12] {
        script.expect_pd(&PdRequest::IsScattering { region_id });
        script.pd(Ok(PdResponse::IsScattering(false)));
    }
    let Some(Command::Pd { token, request }) = script.next() else { panic!("the keys are located anew") };
    script.event(token, Event::Pd(Ok(pd_answer(&request))));
    expect_prewrite(&mut script, &["a", "b", "c", "d"]);
}

#[test]
fn a_region_that_cannot_be_split_is_written_as_it_is() {
    let mut script = large_commit(["a", "b", "c", "z"]);
    let split = expect_split(&mut script, &["b"]);
    let closed = Fault::new(FaultKind::Closed, Execution::NotSent, "store-1");
    script.event(split, Event::Reply(Err(closed)));
    expect_prewrite(&mut script, &["a", "b", "c"]);
    assert!(script.observations().iter().any(|seen| matches!(seen, Observation::BackgroundFailed { .. })));
}

#[test]
fn a_commit_that_is_given_up_while_regions_split_leaves_nothing_behind() {
    let mut script = large_commit(["a", "b", "c"]);
    expect_split(&mut script, &["b"]);
    assert_eq!(script.abandon(), Abandoned::Discard);
    assert!(script.take_output().is_none());
}
