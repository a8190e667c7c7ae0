use std::time::Duration;

use tikv_proto::kvrpcpb::{
    Action, CheckSecondaryLocksRequest, CheckSecondaryLocksResponse, CheckTxnStatusRequest, CheckTxnStatusResponse,
};

use super::*;
use crate::error::{Error, PdError};
use crate::lock::{OutcomeOf, TxnOutcome};
use crate::machine::{Command, Event};

fn asked() -> Script<OutcomeOf> {
    let (start_ts, expired) = start_and_expired();
    script(OutcomeOf::new(&Config::default(), start_ts, "k".into(), options()).expect("a key"), expired)
}

fn answer(script: &mut Script<OutcomeOf>, response: CheckTxnStatusResponse) {
    script.expect_call(1, |request: &CheckTxnStatusRequest| {
        assert_eq!((&request.primary_key[..], request.lock_ts), (&b"k"[..], ts(10_000).version()));
        assert_eq!(request.caller_start_ts, 0, "nobody has to commit later because of a question");
        assert!(!request.resolving_pessimistic_lock);
    });
    script.reply(response);
}

fn end(script: &mut Script<OutcomeOf>) -> Result<TxnOutcome, Error> {
    while matches!(script.peek(), Some(Command::Spawn(_))) {
        script.next();
    }
    script.expect_done()
}

#[test]
fn a_record_at_the_primary_tells_it() {
    for (response, outcome) in [
        (committed(ts(11_000)), TxnOutcome::Committed(ts(11_000))),
        (ended(Action::NoAction), TxnOutcome::RolledBack),
        (ended(Action::TtlExpireRollback), TxnOutcome::RolledBack),
    ] {
        let mut script = asked();
        answer(&mut script, response);
        assert_eq!(end(&mut script), Ok(outcome));
    }
}

#[test]
fn without_a_trace_it_is_rolled_back_so_that_a_late_request_cannot_commit_it() {
    let mut script = asked();
    answer(&mut script, CheckTxnStatusResponse { error: not_found(ts(10_000)), ..Default::default() });
    script.expect_call(1, |request: &CheckTxnStatusRequest| assert!(request.rollback_if_not_exist));
    script.reply(ended(Action::LockNotExistRollback));
    assert_eq!(end(&mut script), Ok(TxnOutcome::RolledBack));
}

#[test]
fn while_its_primary_lives_it_is_open_and_left_alone() {
    let (start_ts, expired) = start_and_expired();
    let mut script = asked();
    let primary = LockInfo { ttl_ms: TTL + 500, ..lock("k", "k", start_ts) };
    answer(&mut script, alive(&primary, Action::NoAction));
    let for_up_to = Duration::from_millis(start_ts.physical_ms() + TTL + 501 - expired.physical_ms());
    assert_eq!(script.expect_done(), Ok(TxnOutcome::Open { for_up_to }));
}

#[test]
fn of_an_async_commit_whose_time_is_up_its_secondaries_tell_it() {
    let (start_ts, _) = start_and_expired();
    let mut script = asked();
    let primary = LockInfo {
        use_async_commit: true,
        min_commit_ts: ts(10_100),
        secondaries: keys(&["b"]),
        ..lock("k", "k", start_ts)
    };
    answer(&mut script, alive(&primary, Action::NoAction));
    script.expect_call(1, |request: &CheckSecondaryLocksRequest| assert_eq!(request.keys, ["b"]));
    let secondary = LockInfo { use_async_commit: true, min_commit_ts: ts(10_200), ..lock("b", "k", start_ts) };
    script.reply(CheckSecondaryLocksResponse { locks: vec![to_proto(&secondary)], ..Default::default() });
    assert!(matches!(script.peek(), Some(Command::Spawn(_))), "its locks are removed in the background");
    assert_eq!(end(&mut script), Ok(TxnOutcome::Committed(ts(10_200))));
}

#[test]
fn what_tikv_was_not_asked_is_not_told() {
    let mut script = asked();
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.region_error(epoch_not_match(Vec::new()));
    script.expect_sleep(|_, _| {});
    script.wake();
    let Some(Command::Pd { token, .. }) = script.next() else { panic!("the region is located anew") };
    script.event(token, Event::Pd(Err(PdError::Closed)));
    assert_eq!(end(&mut script), Err(Error::Closed));
}
