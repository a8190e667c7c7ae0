use tikv_proto::kvrpcpb::{CheckSecondaryLocksRequest, CheckSecondaryLocksResponse};

use super::*;
use crate::backoff::BackoffKind;
use crate::error::{Error, KeyError};
use crate::knowledge::txn_status::FinalStatus;
use crate::lock::{RecoverAsyncCommit, Recovery};
use crate::machine::SleepReason;

/// The primary "a" of transaction 10 with secondaries, prewritten with a min_commit_ts of 20.
fn primary(secondaries: &[&str]) -> LockInfo {
    LockInfo { use_async_commit: true, min_commit_ts: ts(20), secondaries: keys(secondaries), ..lock("a", "a", ts(10)) }
}

fn recover(secondaries: &[&str]) -> Script<RecoverAsyncCommit> {
    unaware(RecoverAsyncCommit::new(&primary(secondaries), options(), backoff()))
}

fn secondary(key: &str, min_commit_ts: Timestamp) -> LockInfo {
    LockInfo { use_async_commit: true, min_commit_ts, ..lock(key, "a", ts(10)) }
}

fn locks(locks: &[LockInfo]) -> CheckSecondaryLocksResponse {
    CheckSecondaryLocksResponse { locks: locks.iter().map(to_proto).collect(), ..Default::default() }
}

fn missing(commit_ts: Timestamp) -> CheckSecondaryLocksResponse {
    CheckSecondaryLocksResponse { commit_ts: commit_ts.version(), ..Default::default() }
}

/// The decision after `answers` of region 1 (keys "b" and "c") and region 2 ("h").
fn decided(answers: [CheckSecondaryLocksResponse; 2]) -> Result<Recovery, Error> {
    let mut script = recover(&["b", "c", "h"]);
    let tokens = [["b", "c"].as_slice(), ["h"].as_slice()].map(|keys| {
        script.expect_call(1, |request: &CheckSecondaryLocksRequest| {
            assert_eq!(request.keys, keys);
            assert_eq!(request.start_version, ts(10).version());
        })
    });
    // The order in which regions answer decides nothing.
    for (token, answer) in tokens.into_iter().zip(answers).rev() {
        script.reply_to(token, answer);
    }
    script.expect_done().result
}

fn committed_at(ms: u64) -> Result<Recovery, Error> {
    Ok(Recovery::Final(FinalStatus::Committed(ts(ms))))
}

fn contradiction(decision: &Result<Recovery, Error>) -> bool {
    matches!(decision, Err(Error::Contradiction { start_ts, .. }) if *start_ts == ts(10))
}

fn both() -> CheckSecondaryLocksResponse {
    locks(&[secondary("b", ts(21)), secondary("c", ts(19))])
}

#[test]
fn with_all_locks_there_the_transaction_commits_at_the_largest_min_commit_ts() {
    assert_eq!(decided([both(), locks(&[secondary("h", ts(30))])]), committed_at(30));
    assert_eq!(decided([both(), locks(&[secondary("h", ts(15))])]), committed_at(21));
}

#[test]
fn a_transaction_without_secondaries_commits_at_the_min_commit_ts_of_its_primary() {
    assert_eq!(recover(&[]).expect_done().result, committed_at(20));
}

#[test]
fn a_committed_secondary_tells_the_commit_ts() {
    assert_eq!(decided([both(), missing(ts(40))]), committed_at(40));
    assert_eq!(decided([missing(ts(40)), missing(ts(40))]), committed_at(40));
}

#[test]
fn fewer_locks_than_keys_and_no_commit_mean_a_rollback() {
    let rolled_back = Ok(Recovery::Final(FinalStatus::RolledBack));
    assert_eq!(decided([both(), missing(Timestamp::ZERO)]), rolled_back);
    assert_eq!(decided([missing(Timestamp::ZERO), missing(Timestamp::ZERO)]), rolled_back);
    assert_eq!(decided([locks(&[secondary("b", ts(21))]), locks(&[secondary("h", ts(30))])]), rolled_back);
}

#[test]
fn a_lock_without_async_commit_sends_the_question_back_to_the_primary() {
    let plain = LockInfo { use_async_commit: false, min_commit_ts: Timestamp::ZERO, ..secondary("h", ts(1)) };
    assert_eq!(decided([both(), locks(std::slice::from_ref(&plain))]), Ok(Recovery::FellBack));
    assert_eq!(decided([missing(Timestamp::ZERO), locks(std::slice::from_ref(&plain))]), Ok(Recovery::FellBack));
    assert_eq!(decided([missing(ts(40)), locks(&[plain])]), committed_at(40));
}

#[test]
fn contradictory_answers_decide_nothing() {
    assert!(contradiction(&decided([missing(ts(40)), missing(ts(41))])));
    assert!(contradiction(&decided([missing(ts(40)), missing(Timestamp::ZERO)])));
    assert!(contradiction(&decided([missing(ts(20)), locks(&[secondary("h", ts(30))])])), "commit below min_commit_ts");
    assert!(contradiction(&decided([missing(ts(19)), missing(ts(19))])), "commit below the primary's min_commit_ts");
}

#[test]
fn the_lock_of_another_transaction_is_no_answer() {
    let stranger = LockInfo { start_ts: ts(11), ..secondary("h", ts(30)) };
    let mut script = recover(&["b", "h"]);
    let other = script.expect_call(1, |_: &CheckSecondaryLocksRequest| {});
    script.expect_call(1, |_: &CheckSecondaryLocksRequest| {});
    script.reply(locks(&[stranger]));
    script.expect_cancel(other);
    assert!(contradiction(&script.expect_done().result));
}

#[test]
fn an_async_commit_without_a_min_commit_ts_decides_nothing() {
    let primary = LockInfo { min_commit_ts: Timestamp::ZERO, ..primary(&[]) };
    let mut script = unaware(RecoverAsyncCommit::new(&primary, options(), backoff()));
    assert!(contradiction(&script.expect_done().result));
}

#[test]
fn after_a_split_locks_are_counted_by_region_again() {
    let mut script = recover(&["h", "k"]);
    script.expect_call(1, |_: &CheckSecondaryLocksRequest| {});
    script.region_error(epoch_not_match(vec![split(2, "g".."j"), split(4, "j".."p")]));
    let first = script.expect_call(1, |request: &CheckSecondaryLocksRequest| assert_eq!(request.keys, ["h"]));
    let second = script.expect_call(1, |request: &CheckSecondaryLocksRequest| assert_eq!(request.keys, ["k"]));
    script.reply_to(first, locks(&[secondary("h", ts(30))]));
    script.reply_to(second, missing(Timestamp::ZERO));
    assert_eq!(script.expect_done().result, Ok(Recovery::Final(FinalStatus::RolledBack)));
}

#[test]
fn a_store_that_says_split_again_and_again_is_not_hammered() {
    let mut script = recover(&["h"]);
    for _ in 0..2 {
        script.expect_call(1, |_: &CheckSecondaryLocksRequest| {});
        script.region_error(epoch_not_match(vec![split(2, "g".."p")]));
    }
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::RegionMiss)));
}

#[test]
fn a_key_that_is_listed_twice_counts_once() {
    let mut script = recover(&["h", "h"]);
    script.expect_call(1, |request: &CheckSecondaryLocksRequest| assert_eq!(request.keys, ["h"]));
    script.reply(locks(&[secondary("h", ts(30))]));
    assert_eq!(script.expect_done().result, committed_at(30));
}

#[test]
fn a_refusal_is_an_error() {
    let mut script = recover(&["h"]);
    script.expect_call(1, |_: &CheckSecondaryLocksRequest| {});
    let error = Some(Box::new(kvrpcpb::KeyError { abort: "no".into(), ..Default::default() }));
    script.reply(CheckSecondaryLocksResponse { error, ..Default::default() });
    assert_eq!(script.expect_done().result, Err(Error::Key(KeyError::Abort("no".into()))));
}
