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
