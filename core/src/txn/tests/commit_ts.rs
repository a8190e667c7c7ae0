use std::sync::Arc;
use std::time::Duration;

use super::super::commit_ts::FetchCommitTs;
use super::*;
use crate::backoff::BackoffKind;
use crate::error::PdError;
use crate::txn::CommitTsRules;

fn fetch(rules: CommitTsRules) -> Script<FetchCommitTs> {
    Script::new(FetchCommitTs::new(start_ts(), rules, Time::MAX))
}

fn wait_until(wait_until: Timestamp) -> CommitTsRules {
    CommitTsRules { wait_until, ..CommitTsRules::default() }
}

fn pd_fault() -> PdError {
    PdError::Fault(Fault::new(FaultKind::Timeout, crate::error::Execution::MaybeExecuted, "pd"))
}

#[test]
fn a_timestamp_of_pd_is_the_commit_timestamp() {
    let mut script = fetch(CommitTsRules::default());
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    assert_eq!(script.expect_done(), Ok(ts(2_000)));
}

#[test]
fn a_failure_of_pd_is_waited_out_but_a_closed_client_is_final() {
    let mut script = fetch(CommitTsRules::default());
    script.expect_timestamp();
    script.pd(Err(pd_fault()));
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::PdRpc)));
    script.wake().expect_timestamp();
    script.pd(Err(PdError::Closed));
    assert_eq!(script.expect_done(), Err(Error::Closed));
}

#[test]
fn a_clock_that_lags_a_little_is_waited_for() {
    let mut script = fetch(wait_until(ts(2_000)));
    script.expect_timestamp();
    script.timestamp(ts(1_500));
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::CommitTsLag)));
    script.wake().expect_timestamp();
    script.timestamp(ts(2_000));
    script.expect_sleep(|_, _| {});
    script.wake().expect_timestamp();
    script.timestamp(ts(2_000).next());
    assert_eq!(script.expect_done(), Ok(ts(2_000).next()));
}

#[test]
fn a_clock_that_lags_too_much_or_too_long_is_not() {
    let lagging = |newest| Err(Error::CommitTsLag { start_ts: start_ts(), newest, expected_above: ts(5_000) });
    let mut script = fetch(wait_until(ts(5_000)));
    script.expect_timestamp();
    script.timestamp(ts(3_999));
    assert_eq!(script.expect_done(), lagging(ts(3_999)), "more than a second");

    let mut script = fetch(CommitTsRules { wait_timeout: Duration::ZERO, ..wait_until(ts(5_000)) });
    script.expect_timestamp();
    script.timestamp(ts(5_000));
    assert_eq!(script.expect_done(), lagging(ts(5_000)), "not at all");

    let mut script = fetch(CommitTsRules { wait_timeout: Duration::from_millis(500), ..wait_until(ts(5_000)) });
    let mut slept = Duration::ZERO;
    for _ in 0..1_000 {
        script.expect_timestamp();
        script.timestamp(ts(4_900));
        if script.peek().is_none() {
            break;
        }
        script.expect_sleep(|sleep, _| slept += sleep);
        script.wake();
    }
    assert_eq!(script.expect_done(), lagging(ts(4_900)), "no longer than asked for");
    assert!((Duration::from_millis(500)..Duration::from_millis(1_100)).contains(&slept), "{slept:?}");
}

#[test]
fn a_commit_is_never_before_its_start() {
    let mut script = fetch(CommitTsRules::default());
    script.expect_timestamp();
    script.timestamp(start_ts());
    script.expect_sleep(|_, _| {});
    script.wake().expect_timestamp();
    script.timestamp(start_ts().next());
    assert_eq!(script.expect_done(), Ok(start_ts().next()));
}

#[test]
fn a_commit_above_the_callers_bound_is_refused() {
    let rules = CommitTsRules { upper_bound: ts(2_000), ..CommitTsRules::default() };
    let mut script = fetch(rules);
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    assert_eq!(script.expect_done(), Ok(ts(2_000)));
    let mut script = fetch(rules);
    script.expect_timestamp();
    script.timestamp(ts(2_000).next());
    let (start_ts, commit_ts, upper_bound) = (start_ts(), ts(2_000).next(), ts(2_000));
    assert_eq!(script.expect_done(), Err(Error::CommitTsOutOfBound { start_ts, commit_ts, upper_bound }));
}

#[test]
fn a_deadline_ends_the_questions() {
    let rules = CommitTsRules::default();
    let mut script = Script::new(FetchCommitTs::new(start_ts(), rules, Time::from_millis(100)));
    let alarm = script.expect_alarm();
    script.expect_timestamp();
    script.pd(Err(pd_fault()));
    let timer = script.expect_sleep(|_, _| {});
    script.advance(Duration::from_millis(99)).event(alarm, Event::Woken).expect_cancel(timer);
    assert!(matches!(script.expect_done(), Err(Error::DeadlineExceeded { .. })));
}

fn asking() -> CommitTsRules {
    CommitTsRules { ask_owner: true, ..CommitTsRules::default() }
}

#[test]
fn an_owner_that_wants_to_be_asked_allows_a_timestamp_or_forbids_it() {
    for answer in [Ok(()), Err(Arc::from("another version"))] {
        let mut script = fetch(asking());
        script.expect_timestamp();
        script.timestamp(ts(2_000));
        let question = script.expect_check(ts(2_000));
        script.event(question, Event::Checked(answer.clone()));
        let (start_ts, commit_ts) = (start_ts(), ts(2_000));
        let forbidden = |reason| Error::CommitForbidden { start_ts, commit_ts, reason };
        assert_eq!(script.expect_done(), answer.map(|()| commit_ts).map_err(forbidden));
    }
}

#[test]
fn the_owner_is_not_asked_about_a_timestamp_that_cannot_be_used() {
    let mut script = fetch(CommitTsRules { upper_bound: ts(1_999), ..asking() });
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    assert!(matches!(script.expect_done(), Err(Error::CommitTsOutOfBound { .. })));
}

#[test]
fn an_owner_that_does_not_answer_is_waited_for_until_the_deadline() {
    let mut script = Script::new(FetchCommitTs::new(start_ts(), asking(), Time::from_millis(100)));
    let answered = script.expect_alarm();
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    script.expect_cancel(answered);
    let alarm = script.expect_alarm();
    let question = script.expect_check(ts(2_000));
    script.advance(Duration::from_millis(99)).event(alarm, Event::Woken).expect_cancel(question);
    assert!(matches!(script.expect_done(), Err(Error::DeadlineExceeded { .. })));
}

#[test]
fn a_commit_that_its_owner_forbids_is_rolled_back() {
    let options = CommitOptions { commit_ts: asking(), ..options() };
    let mut script = Script::with_knowledge(commit_with(mutations([Mutation::put("a", "1")]), options), two_regions());
    let prewrite = expect_prewrite(&mut script, &["a"]);
    accept_prewrite(&mut script, prewrite);
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    let question = script.expect_check(ts(2_000));
    script.event(question, Event::Checked(Err(Arc::from("no"))));
    let (error, rolled_back) = expect_failed(&mut script);
    assert!(matches!(error, Error::CommitForbidden { .. }), "{error}");
    assert_eq!(rolled_back, ["a"]);
}

/// A first timestamp that a reader has ruled out is replaced by another, which may be too late for the owner.
#[test]
fn a_timestamp_that_replaces_another_is_asked_about_too() {
    let options = CommitOptions { commit_ts: asking(), ..options() };
    let mut script = Script::with_knowledge(commit_with(mutations([Mutation::put("a", "1")]), options), two_regions());
    let prewrite = expect_prewrite(&mut script, &["a"]);
    accept_prewrite(&mut script, prewrite);
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    let question = script.expect_check(ts(2_000));
    script.event(question, Event::Checked(Ok(())));
    script.expect_call(1, |_: &kvrpcpb::CommitRequest| {});
    let error = Some(Box::new(commit_ts_expired("a", ts(2_000), ts(2_500))));
    script.reply(kvrpcpb::CommitResponse { error, ..Default::default() });
    script.expect_timestamp();
    script.timestamp(ts(3_000));
    let question = script.expect_check(ts(3_000));
    script.event(question, Event::Checked(Err(Arc::from("no"))));
    let (error, _) = expect_failed(&mut script);
    assert!(matches!(error, Error::CommitForbidden { commit_ts, .. } if commit_ts == ts(3_000)), "{error}");
}

/// Prewrites that decide leave no time to ask afterwards.
#[test]
fn where_prewrites_decide_the_owner_is_asked_before_them_and_they_must_decide_soon() {
    for causal_consistency in [false, true] {
        let commit_ts = asking();
        let options = CommitOptions { async_commit: true, causal_consistency, commit_ts, ..options() };
        let all = mutations([Mutation::put("a", "1")]);
        let mut script = Script::with_knowledge(commit_with(all, options), two_regions());
        script.expect_timestamp();
        script.timestamp(ts(1_100));
        let question = script.expect_check(ts(1_100));
        script.event(question, Event::Checked(Ok(())));
        let window = script.config.async_commit_safe_window;
        script.expect_call(1, |request: &kvrpcpb::PrewriteRequest| {
            assert!(request.use_async_commit);
            assert!(request.max_commit_ts <= ts(1_100).saturating_add(window).version());
        });
    }
}
