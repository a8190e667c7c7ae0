//! A pipelined transaction between its first flush and its commit is kept alive, and readers are told that it will not commit
//! before now.

use std::time::Duration;

use super::super::super::{Heartbeat, HeartbeatEnd};
use super::*;

fn keep_alive(txn: &PipelinedTransaction) -> Script<Heartbeat> {
    Script::with_knowledge(txn.keep_alive().expect("something is locked"), two_regions())
}

fn beat(script: &mut Script<Heartbeat>, now: Timestamp) {
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Heartbeat));
    script.wake().expect_timestamp();
    script.timestamp(now);
    script.expect_call(1, |beat: &kvrpcpb::TxnHeartBeatRequest| {
        assert_eq!((&beat.primary_lock[..], beat.min_commit_ts), (&b"a"[..], now.version()));
    });
}

#[test]
fn each_beat_raises_the_least_commit_ts_and_then_tells_all_stores() {
    let mut script = keep_alive(&flushed(&["a"]));
    beat(&mut script, ts(11_000));
    script.expect_nothing();
    script.reply(kvrpcpb::TxnHeartBeatResponse { lock_ttl: 30_000, ..Default::default() });
    let broadcast = script.expect_spawn();
    let statuses: Vec<_> = requests_of(broadcast)
        .into_iter()
        .map(|request| match request {
            Request::BroadcastTxnStatus(request) => request.txn_status[0],
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(statuses.len(), 3, "there are three stores");
    for status in statuses {
        assert_eq!((status.start_ts, status.min_commit_ts), (start_ts().version(), ts(11_000).version()));
        assert_eq!((status.commit_ts, status.rolled_back, status.is_completed), (0, false, false));
    }
}

#[test]
fn nothing_is_told_of_a_beat_that_failed() {
    let mut script = keep_alive(&flushed(&["a"]));
    beat(&mut script, ts(11_000));
    script.fault(Fault::new(FaultKind::Status(12), crate::error::Execution::MaybeExecuted, "store-1"));
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Heartbeat));
    script.expect_nothing();
}

#[test]
fn stores_that_do_not_answer_hold_up_nobody() {
    let mut script = keep_alive(&flushed(&["a"]));
    beat(&mut script, ts(11_000));
    script.reply(kvrpcpb::TxnHeartBeatResponse::default());
    let mut broadcast = Script::with_knowledge(script.expect_spawn(), two_regions());
    let calls: Vec<_> =
        (1..=3).map(|store| broadcast.expect_call(store, |_: &kvrpcpb::BroadcastTxnStatusRequest| {})).collect();
    for call in calls {
        broadcast.event(call, Event::Reply(Err(crate::machine::script::maybe_executed())));
    }
    broadcast.expect_done();
}

/// client-go: `TestPipelinedDMLFailedByPKMaxTTLExceeded`; an ordinary transaction may become an hour old.
#[test]
fn a_pipelined_transaction_is_kept_alive_for_a_day() {
    let day = Duration::from_secs(24 * 60 * 60);
    let mut txn = flushed(&["a"]);
    let mut script = keep_alive(&txn);
    beat(&mut script, ts(1_000 + day.as_millis() as u64));
    script.reply(kvrpcpb::TxnHeartBeatResponse::default());
    script.expect_spawn();
    script.expect_sleep(|_, _| {});
    script.wake().expect_timestamp();
    script.timestamp(ts(1_001 + day.as_millis() as u64));
    txn.end_keep_alive(script.expect_done());
    assert!(matches!(txn.set("b", "1"), Err(Error::TxnTooOld { .. })));
    assert_eq!(txn.state(), TxnState::RolledBack);
}

/// client-go: `TestPipelinedDMLFailedByPKRollback`.
#[test]
fn a_transaction_whose_primary_was_rolled_back_ends_and_what_it_flushed_is_released() {
    let mut txn = flushed(&["a", "z"]);
    let mut script = keep_alive(&txn);
    beat(&mut script, ts(11_000));
    let missing = kvrpcpb::TxnNotFound { start_ts: start_ts().version(), primary_key: "a".into() };
    let error = kvrpcpb::KeyError { txn_not_found: Some(missing), ..Default::default() };
    script.reply(kvrpcpb::TxnHeartBeatResponse { error: Some(Box::new(error)), ..Default::default() });
    let end = script.expect_done();
    assert!(matches!(end, HeartbeatEnd::Refused(_)));
    txn.end_keep_alive(end);
    assert!(matches!(txn.begin_flush(), Err(Error::RolledBack { .. })));
    assert!(matches!(txn.begin_commit(), Err(Error::RolledBack { .. })));
    let machine = txn.release().expect("something is locked");
    assert_eq!(rolled_back_by(BackgroundMachine::new(machine)), ["roll back a", "resolve at 0", "resolve at 0"]);
}

/// In client-go the transaction goes on without a heartbeat after the first failure of PD.
#[test]
fn a_transaction_that_cannot_be_kept_alive_any_more_ends() {
    let mismatch = crate::error::PdError::ClusterMismatch { address: "pd".into(), expected: 1, actual: 2 };
    let mut txn = flushed(&["a"]);
    let mut script = keep_alive(&txn);
    for _ in 0..11 {
        script.expect_sleep(|_, _| {});
        script.wake().expect_timestamp();
        script.pd(Err(mismatch.clone()));
    }
    txn.end_keep_alive(script.expect_done());
    assert!(matches!(txn.set("b", "1"), Err(Error::Pd(_))));
}

#[test]
fn there_is_no_heartbeat_before_the_first_flush_nor_after_the_end() {
    let mut txn = pipelined_txn();
    assert_eq!(txn.keep_alive(), None);
    put_all(&mut txn, &["a"]);
    let _flushing = begin_flush(&mut txn);
    assert_eq!(txn.keep_alive(), None, "the flush has one of its own");
    let mut txn = flushed(&["a"]);
    assert!(txn.keep_alive().is_some());
    txn.begin_commit().expect("open");
    assert_eq!(txn.keep_alive(), None, "the commit has one of its own");
    txn.end_keep_alive(HeartbeatEnd::TooOld { age: Duration::ZERO });
    assert_eq!(txn.state(), TxnState::Committing, "what it was told too late does not count");
}
