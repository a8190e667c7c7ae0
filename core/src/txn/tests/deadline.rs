//! A deadline ends a commit also while it waits for PD to locate a region.

use std::time::Duration;

use super::*;
use crate::error::Execution;

/// The commit of one key, with ten milliseconds to live.
fn in_a_hurry(knowledge: Knowledge) -> Script<Commit> {
    let mut options = options();
    options.call.deadline = Time::from_millis(11);
    Script::with_knowledge(commit_with(puts(["a"]), options), knowledge)
}

/// PD is asked where key `a` is, and has not answered when time is up.
fn let_pd_be_silent(script: &mut Script<Commit>) {
    let alarm = script.expect_alarm();
    let Some(Command::Pd { token: question, .. }) = script.next() else { panic!("PD is to be asked") };
    script.advance(Duration::from_millis(10)).event(alarm, Event::Woken).expect_cancel(question);
}

/// The region has to be located anew, after a short sleep.
fn lose_region(script: &mut Script<Commit>) {
    let is_witness = Some(errorpb::IsWitness { region_id: 2 });
    script.region_error(errorpb::Error { is_witness, ..Default::default() });
    script.expect_sleep(|_, reason| assert!(matches!(reason, SleepReason::Backoff(_))));
    script.wake();
}

#[test]
fn before_anything_is_sent_nothing_is_rolled_back() {
    let mut script = in_a_hurry(knowledge(KeyCodec::Txn, []));
    let_pd_be_silent(&mut script);
    let error = script.expect_done().expect_err("too late");
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
}

#[test]
fn while_a_prewrite_looks_for_its_region_the_transaction_is_rolled_back() {
    let mut script = in_a_hurry(two_regions());
    expect_prewrite(&mut script, &["a"]);
    lose_region(&mut script);
    let_pd_be_silent(&mut script);
    let (error, rolled_back) = expect_failed(&mut script);
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
    assert_eq!(rolled_back, ["a"]);
}

fn about_to_commit() -> Script<Commit> {
    let mut script = in_a_hurry(two_regions());
    let prewrite = expect_prewrite(&mut script, &["a"]);
    accept_prewrite(&mut script, prewrite);
    let alarm = script.expect_alarm();
    script.expect_timestamp();
    script.timestamp(ts(2_000)).expect_cancel(alarm);
    expect_commit(&mut script, &["a"], ts(2_000));
    script
}

#[test]
fn a_commit_timestamp_that_comes_too_late_is_not_used() {
    let mut script = in_a_hurry(two_regions());
    let prewrite = expect_prewrite(&mut script, &["a"]);
    accept_prewrite(&mut script, prewrite);
    let alarm = script.expect_alarm();
    script.expect_timestamp();
    script.advance(Duration::from_millis(10)).timestamp(ts(2_000)).expect_cancel(alarm);
    let (error, rolled_back) = expect_failed(&mut script);
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
    assert_eq!(rolled_back, ["a"]);
}

#[test]
fn while_the_commit_looks_for_its_region_the_transaction_is_rolled_back() {
    let mut script = about_to_commit();
    lose_region(&mut script);
    let_pd_be_silent(&mut script);
    let (error, rolled_back) = expect_failed(&mut script);
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
    assert_eq!(rolled_back, ["a"]);
}

#[test]
fn while_a_commit_that_may_have_happened_looks_for_its_region_the_outcome_stays_open() {
    let mut script = about_to_commit();
    let fault = Fault::new(FaultKind::Status(0), Execution::MaybeExecuted, "store-1");
    script.fault(fault);
    script.expect_sleep(|_, _| {});
    script.wake();
    expect_commit(&mut script, &["a"], ts(2_000));
    lose_region(&mut script);
    let_pd_be_silent(&mut script);
    let cause = expect_undetermined(&mut script);
    assert!(matches!(cause, Error::DeadlineExceeded { .. }), "{cause}");
}
