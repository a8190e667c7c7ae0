//! What a pipelined transaction has flushed is resolved by range.

use std::time::Duration;

use super::*;
use crate::machine::Abandoned;
use crate::machine::script::{maybe_executed, not_sent};

/// The locks of a transaction that was given up after it had flushed these keys, over these regions.
fn given_up(keys: &[&str], knowledge: Knowledge) -> Script<BackgroundMachine> {
    let mut txn = flushed(keys);
    txn.rollback().expect("open");
    let machine = BackgroundMachine::new(txn.release().expect("something is locked"));
    let mut script = Script::with_knowledge(machine, knowledge);
    script.expect_spawn();
    script
}

fn expect_rollback_of_primary(script: &mut Script<BackgroundMachine>, primary: &str) {
    script.expect_call(1, |request: &kvrpcpb::BatchRollbackRequest| {
        assert_eq!((names(&request.keys), request.start_version), (vec![primary.to_owned()], start_ts().version()));
    });
    script.reply(kvrpcpb::BatchRollbackResponse::default());
}

/// Expects that the locks in a region are resolved.
fn expect_resolve(script: &mut Script<BackgroundMachine>, region: u64) -> Token {
    let token = script.expect_call(1, |request: &kvrpcpb::ResolveLockRequest| {
        assert_eq!((request.start_version, request.commit_version), (start_ts().version(), 0));
        assert!(request.keys.is_empty() && request.txn_infos.is_empty());
    });
    assert_eq!(script.last_context().region_id, region);
    token
}

fn resolved(script: &mut Script<BackgroundMachine>, token: Token) {
    script.reply_to(token, kvrpcpb::ResolveLockResponse::default());
}

fn expect_grace(script: &mut Script<BackgroundMachine>) {
    script.expect_sleep(|sleep, reason| assert_eq!((sleep.as_secs(), reason), (5, SleepReason::SlowReplicas)));
}

/// Lets the machine tell the stores that no lock is left.
fn expect_all_told(script: &mut Script<BackgroundMachine>) {
    script.wake();
    for store in 1..=3 {
        let call = script.expect_call(store, |request: &kvrpcpb::BroadcastTxnStatusRequest| {
            let status = request.txn_status[0];
            assert!(status.is_completed && status.rolled_back);
        });
        script.reply_to(call, kvrpcpb::BroadcastTxnStatusResponse::default());
    }
    script.expect_done();
}

#[test]
fn the_primary_is_rolled_back_first_then_each_region_is_resolved_and_last_the_stores_are_told() {
    let mut script = given_up(&["a", "z"], two_regions());
    script.expect_call(1, |request: &kvrpcpb::BatchRollbackRequest| assert_eq!(names(&request.keys), ["a"]));
    script.expect_nothing();
    script.reply(kvrpcpb::BatchRollbackResponse::default());
    let (first, second) = (expect_resolve(&mut script, 2), expect_resolve(&mut script, 3));
    resolved(&mut script, second);
    script.expect_nothing();
    resolved(&mut script, first);
    expect_grace(&mut script);
    expect_all_told(&mut script);
}

#[test]
fn the_stores_are_told_at_once_that_the_transaction_is_rolled_back() {
    let mut txn = flushed(&["a"]);
    txn.rollback().expect("open");
    let mut script = Script::with_knowledge(txn.release().expect("something is locked"), two_regions());
    let told = requests_of(script.expect_spawn());
    assert_eq!(told.len(), 3);
    let Request::BroadcastTxnStatus(request) = &told[0] else { panic!("{told:?}") };
    let status = request.txn_status[0];
    assert_eq!((status.rolled_back, status.commit_ts, status.is_completed), (true, 0, false));
}

/// In client-go the range of one key is empty, and nothing is resolved.
#[test]
fn a_transaction_of_one_key_is_resolved() {
    let mut script = given_up(&["c"], two_regions());
    expect_rollback_of_primary(&mut script, "c");
    let call = expect_resolve(&mut script, 2);
    resolved(&mut script, call);
    expect_grace(&mut script);
}

/// In client-go the region that begins with the last key is left out.
#[test]
fn a_last_key_that_begins_a_region_is_resolved() {
    let mut script = given_up(&["a", "m"], two_regions());
    expect_rollback_of_primary(&mut script, "a");
    let (first, second) = (expect_resolve(&mut script, 2), expect_resolve(&mut script, 3));
    resolved(&mut script, first);
    resolved(&mut script, second);
    expect_grace(&mut script);
}

#[test]
fn a_last_key_that_ends_just_before_a_region_needs_no_more_than_its_own() {
    let mut script = given_up(&["a", "l"], two_regions());
    expect_rollback_of_primary(&mut script, "a");
    let call = expect_resolve(&mut script, 2);
    script.expect_nothing();
    resolved(&mut script, call);
    expect_grace(&mut script);
}

/// In client-go, on API v2, the walk begins anew behind the last region, for ever.
#[test]
fn behind_the_last_region_there_is_no_other() {
    let mut script = given_up(&["x", "z"], two_regions());
    expect_rollback_of_primary(&mut script, "x");
    let call = expect_resolve(&mut script, 3);
    resolved(&mut script, call);
    expect_grace(&mut script);
    let mut script = given_up(&["a", "\u{10ffff}"], two_regions());
    expect_rollback_of_primary(&mut script, "a");
    let (first, second) = (expect_resolve(&mut script, 2), expect_resolve(&mut script, 3));
    resolved(&mut script, first);
    resolved(&mut script, second);
    expect_grace(&mut script);
}

#[test]
fn no_more_regions_are_asked_at_once_than_the_options_allow() {
    let mut txn = pipelined_with(|options| options.resolve_concurrency = 2);
    put_all(&mut txn, &["a", "z"]);
    flush(&mut txn);
    txn.rollback().expect("open");
    let machine = BackgroundMachine::new(txn.release().expect("something is locked"));
    let regions = [region(2, "".."f"), region(3, "f".."m"), region(4, "m".."s"), region(5, "s".."")];
    let mut script = Script::with_knowledge(machine, knowledge(KeyCodec::Txn, regions));
    script.expect_spawn();
    expect_rollback_of_primary(&mut script, "a");
    let (first, second) = (expect_resolve(&mut script, 2), expect_resolve(&mut script, 3));
    script.expect_nothing();
    resolved(&mut script, second);
    let third = expect_resolve(&mut script, 4);
    script.expect_nothing();
    resolved(&mut script, third);
    let fourth = expect_resolve(&mut script, 5);
    resolved(&mut script, first);
    resolved(&mut script, fourth);
    expect_grace(&mut script);
}

/// The parts are cut as regions were known when they were cut.
#[test]
fn a_region_that_has_split_is_resolved_in_all_its_parts() {
    let mut script = given_up(&["a", "k"], two_regions());
    expect_rollback_of_primary(&mut script, "a");
    expect_resolve(&mut script, 2);
    script.region_error(split_into([(2, "".."f"), (4, "f".."m")]));
    let first = expect_resolve(&mut script, 2);
    resolved(&mut script, first);
    let second = expect_resolve(&mut script, 4);
    resolved(&mut script, second);
    expect_grace(&mut script);
}

#[test]
fn regions_that_are_not_known_are_asked_of_pd_while_others_are_resolved() {
    let mut script = given_up(&["a", "z"], knowledge(KeyCodec::Txn, [region(2, "".."m")]));
    expect_rollback_of_primary(&mut script, "a");
    let first = expect_resolve(&mut script, 2);
    let Some(Command::Pd { token, request }) = script.next() else { panic!("a question to PD") };
    resolved(&mut script, first);
    script.expect_nothing();
    script.event(token, Event::Pd(Ok(pd_answer(&request))));
    let second = expect_resolve(&mut script, 3);
    resolved(&mut script, second);
    expect_grace(&mut script);
}

#[test]
fn the_stores_are_not_told_to_forget_a_transaction_that_may_have_locks() {
    let refusal = kvrpcpb::KeyError { abort: "no".into(), ..Default::default() };
    let mut script = given_up(&["a", "z"], two_regions());
    expect_rollback_of_primary(&mut script, "a");
    let (first, second) = (expect_resolve(&mut script, 2), expect_resolve(&mut script, 3));
    script.reply_to(first, kvrpcpb::ResolveLockResponse { error: Some(Box::new(refusal)), ..Default::default() });
    resolved(&mut script, second);
    let observed = script.observations();
    assert!(matches!(observed, [Observation::BackgroundFailed { task: "resolve flushed locks", .. }]), "{observed:?}");
    script.expect_done();
}

#[test]
fn without_pd_the_rest_is_left_to_whoever_meets_it() {
    let mismatch = crate::error::PdError::ClusterMismatch { address: "pd".into(), expected: 1, actual: 2 };
    let mut script = given_up(&["a", "z"], knowledge(KeyCodec::Txn, [region(2, "".."m")]));
    expect_rollback_of_primary(&mut script, "a");
    let first = expect_resolve(&mut script, 2);
    let Some(Command::Pd { token, .. }) = script.next() else { panic!("a question to PD") };
    script.event(token, Event::Pd(Err(mismatch)));
    resolved(&mut script, first);
    assert_eq!(script.observations().len(), 1);
    script.expect_done();
}

#[test]
fn the_rest_is_resolved_whatever_becomes_of_the_primary() {
    let refusal = kvrpcpb::KeyError { abort: "no".into(), ..Default::default() };
    let mut script = given_up(&["a"], two_regions());
    script.expect_call(1, |_: &kvrpcpb::BatchRollbackRequest| {});
    script.reply(kvrpcpb::BatchRollbackResponse { error: Some(Box::new(refusal)), ..Default::default() });
    expect_resolve(&mut script, 2);
}

/// client-go makes a new budget for every attempt, so that it is never spent.
#[test]
fn a_store_that_is_gone_for_good_is_given_up() {
    let mut script = given_up(&["a"], two_regions());
    expect_rollback_of_primary(&mut script, "a");
    let mut calls = 0;
    loop {
        match script.next() {
            Some(Command::Call(call)) => {
                calls += 1;
                let fault = if calls % 2 == 0 { maybe_executed() } else { not_sent() };
                script.event(call.token, Event::Reply(Err(fault)));
            }
            Some(Command::Sleep { token, until, .. }) => {
                script.advance(until.saturating_since(script.now()));
                script.event(token, Event::Woken);
            }
            Some(Command::Pd { token, request }) => drop(script.event(token, Event::Pd(Ok(pd_answer(&request))))),
            Some(Command::Reconnect { .. } | Command::Cancel { .. }) => {}
            Some(other) => panic!("unexpected: {other:?}"),
            None => break,
        }
    }
    script.expect_done();
    assert!(calls > 3, "{calls} attempts");
    assert!(script.now() < Time::from_millis(1) + Duration::from_secs(120), "{:?}", script.now());
}

#[test]
fn a_result_that_tikv_does_not_know_is_asked_for_again() {
    let mut script = given_up(&["a"], two_regions());
    expect_rollback_of_primary(&mut script, "a");
    expect_resolve(&mut script, 2);
    script.region_error(undetermined_result());
    script.expect_sleep(|_, reason| assert!(matches!(reason, SleepReason::Backoff(_))));
    script.wake();
    while let Some(Command::Pd { request, .. }) = script.peek() {
        let request = request.clone();
        script.expect_pd(&request);
        script.pd(Ok(pd_answer(&request)));
    }
    let again = expect_resolve(&mut script, 2);
    resolved(&mut script, again);
    expect_grace(&mut script);
}

#[test]
fn an_owner_that_loses_interest_does_not_stop_it() {
    let mut txn = flushed(&["a"]);
    txn.rollback().expect("open");
    let mut script = Script::with_knowledge(txn.release().expect("something is locked"), two_regions());
    script.expect_spawn();
    assert_eq!(script.abandon(), Abandoned::FinishInBackground);
}
