use std::time::Duration;

use tikv_proto::kvrpcpb;

use super::super::heartbeat::{Heartbeat, HeartbeatEnd};
use super::*;
use crate::error::{Execution, KeyError, PdError};
use crate::machine::Abandoned;

/// The commit of a transaction that counts as large.
fn large(mutations: Mutations) -> Script<Commit> {
    let mut script = Script::with_knowledge(commit_with(mutations, options()), two_regions());
    script.config.heartbeat_txn_bytes = 0;
    script
}

fn expect_nap(script: &mut Script<Commit>) -> Token {
    script.expect_sleep(|sleep, reason| {
        assert_eq!((sleep, reason), (Duration::from_secs(10), SleepReason::Heartbeat));
    })
}

/// The primary of a large transaction is locked, the prewrite of `z` is on its way: its token, and that of the nap.
fn half_prewritten() -> (Script<Commit>, Token, Token) {
    let mut script = large(puts(["a", "z"]));
    let (primary, other) = (expect_prewrite(&mut script, &["a"]), expect_prewrite(&mut script, &["z"]));
    accept_prewrite(&mut script, primary);
    let nap = expect_nap(&mut script);
    (script, other, nap)
}

fn expect_beat(script: &mut Script<Commit>, nap: Token, now: Timestamp, ttl_ms: u64) {
    script.event(nap, Event::Woken).expect_timestamp();
    script.timestamp(now);
    script.expect_call(1, |beat: &kvrpcpb::TxnHeartBeatRequest| {
        assert_eq!((&beat.primary_lock[..], beat.start_version), (&b"a"[..], start_ts().version()));
        assert_eq!((beat.advise_lock_ttl, beat.min_commit_ts), (ttl_ms, 0));
    });
}

fn txn_not_found() -> kvrpcpb::TxnHeartBeatResponse {
    let missing = kvrpcpb::TxnNotFound { start_ts: start_ts().version(), primary_key: "a".into() };
    let error = kvrpcpb::KeyError { txn_not_found: Some(missing), ..Default::default() };
    kvrpcpb::TxnHeartBeatResponse { error: Some(Box::new(error)), ..Default::default() }
}

#[test]
fn a_large_transaction_is_kept_alive_from_the_lock_of_its_primary_to_its_end() {
    let mut script = large(puts(["a", "y", "z"]));
    let (primary, other) = (expect_prewrite(&mut script, &["a"]), expect_prewrite(&mut script, &["y", "z"]));
    accept_prewrite(&mut script, primary);
    let nap = expect_nap(&mut script);
    expect_beat(&mut script, nap, ts(11_000), 30_000);
    script.reply(kvrpcpb::TxnHeartBeatResponse { lock_ttl: 30_000, ..Default::default() });
    let nap = expect_nap(&mut script);
    expect_beat(&mut script, nap, ts(21_000), 40_000);
    script.reply(kvrpcpb::TxnHeartBeatResponse { lock_ttl: 40_000, ..Default::default() });
    let nap = expect_nap(&mut script);
    accept_prewrite(&mut script, other);
    script.expect_timestamp();
    script.timestamp(ts(22_000));
    let commit = expect_commit(&mut script, &["a"], ts(22_000));
    script.reply_to(commit, kvrpcpb::CommitResponse::default());
    script.expect_spawn();
    script.expect_cancel(nap);
    assert!(script.expect_done().is_ok());
}

#[test]
fn a_small_transaction_needs_no_heartbeat() {
    let mut script = commit_of(["a", "z"]);
    let primary = expect_prewrite(&mut script, &["a"]);
    expect_prewrite(&mut script, &["z"]);
    accept_prewrite(&mut script, primary);
    script.expect_nothing();
}

#[test]
fn the_heartbeat_does_not_wait_for_a_key_that_was_inserted_and_deleted_again() {
    for key in ["a", "c"] {
        let mut script = large(mutations([Mutation::check_not_exists(key), Mutation::put("b", "1")]));
        let Some(Command::Call(call)) = script.next() else { panic!("a prewrite") };
        script.event(call.token, answer(&call.request, Answer::Accept));
        expect_nap(&mut script);
        script.expect_timestamp();
    }
    let mut script = large(mutations([Mutation::check_not_exists("a")]));
    let prewrite = expect_prewrite(&mut script, &["a"]);
    accept_prewrite(&mut script, prewrite);
    assert!(script.expect_done().is_ok(), "nothing is locked");
}

#[test]
fn a_transaction_whose_primary_is_gone_is_given_up_while_it_is_prewritten() {
    let (mut script, other, nap) = half_prewritten();
    expect_beat(&mut script, nap, ts(11_000), 30_000);
    script.reply(txn_not_found());
    script.expect_cancel(other);
    let (error, rolled_back) = expect_failed(&mut script);
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert_eq!(rolled_back, ["a", "z"]);
}

#[test]
fn a_transaction_whose_primary_is_gone_is_given_up_while_it_fetches_its_commit_timestamp() {
    let (mut script, other, nap) = half_prewritten();
    accept_prewrite(&mut script, other);
    script.expect_timestamp();
    expect_beat(&mut script, nap, ts(11_000), 30_000);
    script.reply(txn_not_found());
    let (error, rolled_back) = expect_failed(&mut script);
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert_eq!(rolled_back, ["a", "z"]);
}

/// The lock is also gone if the commit was executed and only its answer is late.
#[test]
fn once_the_primary_is_being_committed_only_the_answer_to_that_counts() {
    let (mut script, other, nap) = half_prewritten();
    accept_prewrite(&mut script, other);
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    let commit = expect_commit(&mut script, &["a"], ts(2_000));
    expect_beat(&mut script, nap, ts(11_000), 30_000);
    script.reply(txn_not_found()).expect_nothing();
    script.reply_to(commit, kvrpcpb::CommitResponse::default());
    script.expect_spawn();
    assert_eq!(when(script.expect_done()), Ok(Some(ts(2_000))));
}

#[test]
fn a_transaction_goes_on_without_its_heartbeat() {
    let refusal = kvrpcpb::KeyError { abort: "no".into(), ..Default::default() };
    let (mut script, other, nap) = half_prewritten();
    expect_beat(&mut script, nap, ts(11_000), 30_000);
    script.reply(kvrpcpb::TxnHeartBeatResponse { error: Some(Box::new(refusal)), ..Default::default() });
    assert!(matches!(script.observations(), [Observation::BackgroundFailed { task: "heartbeat", .. }]));
    script.expect_nothing();
    accept_prewrite(&mut script, other);
    script.expect_timestamp();
}

#[test]
fn the_heartbeat_ends_with_a_transaction_that_fails() {
    let (mut script, other, nap) = half_prewritten();
    refuse_prewrite(&mut script, other, conflict_with(ts(1_500), "z"));
    let cleanup = script.expect_spawn();
    script.expect_cancel(nap);
    assert!(matches!(script.expect_done(), Err(Error::WriteConflict(_))));
    assert_eq!(rolled_back(cleanup), ["a", "z"]);
}

#[test]
fn a_transaction_that_is_finished_without_its_owner_is_kept_alive_until_it_is() {
    let (mut script, other, nap) = half_prewritten();
    accept_prewrite(&mut script, other);
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    expect_commit(&mut script, &["a"], ts(2_000));
    assert_eq!(script.abandon(), Abandoned::FinishInBackground);
    expect_beat(&mut script, nap, ts(11_000), 30_000);
}

fn heartbeat() -> Script<Heartbeat> {
    let machine = Heartbeat::new(start_ts(), "a".into(), options().upkeep());
    Script::with_knowledge(machine, two_regions())
}

fn nap(script: &mut Script<Heartbeat>) {
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Heartbeat));
    script.wake().expect_timestamp();
}

/// In client-go the first failure of PD ends it.
#[test]
fn failures_of_pd_and_of_tikv_end_it_only_if_there_are_too_many_in_a_row() {
    let mismatch = PdError::ClusterMismatch { address: "pd".into(), expected: 1, actual: 2 };
    let unimplemented = Fault::new(FaultKind::Status(12), Execution::MaybeExecuted, "store-1");
    let mut script = heartbeat();
    for round in 0..2 {
        for failure in 0..11 {
            nap(&mut script);
            let is_last = failure == 10;
            if is_last && round == 0 {
                script.timestamp(ts(11_000));
                script.expect_call(1, |_: &kvrpcpb::TxnHeartBeatRequest| {});
                script.reply(kvrpcpb::TxnHeartBeatResponse::default());
            } else if failure % 2 == 0 {
                script.pd(Err(mismatch.clone()));
            } else {
                script.timestamp(ts(11_000));
                script.expect_call(1, |_: &kvrpcpb::TxnHeartBeatRequest| {});
                script.fault(unimplemented.clone());
            }
        }
    }
    assert_eq!(script.expect_done(), HeartbeatEnd::Unreachable(Error::Pd(mismatch)));
}

#[test]
fn a_refusal_ends_it_at_once() {
    let mut script = heartbeat();
    nap(&mut script);
    script.timestamp(ts(11_000));
    script.expect_call(1, |_: &kvrpcpb::TxnHeartBeatRequest| {});
    script.reply(txn_not_found());
    assert!(matches!(script.expect_done(), HeartbeatEnd::Refused(KeyError::TxnNotFound { .. })));
}

#[test]
fn no_transaction_is_kept_alive_for_ever() {
    let hour = Duration::from_secs(60 * 60);
    let at = |age: Duration| ts(start_ts().physical_ms() + age.as_millis() as u64);
    let mut script = heartbeat();
    nap(&mut script);
    script.timestamp(at(hour));
    script.expect_call(1, |_: &kvrpcpb::TxnHeartBeatRequest| {});
    script.reply(kvrpcpb::TxnHeartBeatResponse::default());
    nap(&mut script);
    let age = hour + Duration::from_millis(1);
    script.timestamp(at(age));
    assert_eq!(script.expect_done(), HeartbeatEnd::TooOld { age });
}

#[test]
fn it_follows_its_primary_to_another_region() {
    let mut script = heartbeat();
    nap(&mut script);
    script.timestamp(ts(11_000));
    script.expect_call(1, |_: &kvrpcpb::TxnHeartBeatRequest| {});
    script.region_error(split_into([(4, "".."f"), (2, "f".."m")]));
    script.expect_call(1, |beat: &kvrpcpb::TxnHeartBeatRequest| assert_eq!(beat.advise_lock_ttl, 30_000));
    assert_eq!(script.last_context().region_id, 4);
}
