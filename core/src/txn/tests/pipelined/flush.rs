//! One generation on its way to TiKV.

use std::time::Duration;

use super::*;
use crate::error::PdError;
use crate::machine::Abandoned;
use crate::machine::script::maybe_executed;

fn begin(keys: &[&str]) -> (PipelinedTransaction, Script<Flush>) {
    let mut txn = pipelined_txn();
    put_all(&mut txn, keys);
    let script = begin_flush(&mut txn);
    (txn, script)
}

fn failed(mut script: Script<Flush>) -> Error {
    script.expect_done().expect_err("a failure")
}

#[test]
fn the_primary_goes_first_and_is_kept_alive_from_its_lock_on() {
    let (mut txn, mut script) = begin(&["a", "y", "z"]);
    let first = expect_flush(&mut script, &["a"], 1);
    script.expect_nothing();
    accept_flush(&mut script, first);
    let beats = expect_beats(&mut script, 10);
    let second = expect_flush(&mut script, &["y", "z"], 1);
    accept_flush(&mut script, second);
    script.expect_cancel(beats);
    let end = script.expect_done();
    txn.end_flush(&end);
    assert_eq!(end.expect("flushed").next_beat, Some(Time::from_millis(10_001)));
    assert!(txn.keep_alive().is_some());
}

#[test]
fn only_as_many_requests_are_in_flight_as_the_options_allow() {
    let mut txn = pipelined_with(|options| options.flush_concurrency = 1);
    put_all(&mut txn, &["a", "z"]);
    let mut script = begin_flush(&mut txn);
    let first = expect_flush(&mut script, &["a"], 1);
    script.expect_nothing();
    accept_flush(&mut script, first);
    expect_beats(&mut script, 10);
    expect_flush(&mut script, &["z"], 1);
}

#[test]
fn where_the_primary_is_refused_nothing_else_is_sent() {
    let (_, mut script) = begin(&["a", "z"]);
    let first = expect_flush(&mut script, &["a"], 1);
    refuse_flush(&mut script, first, conflict_with(ts(1_500), "a"));
    assert!(matches!(failed(script), Error::WriteConflict(_)));
}

#[test]
fn later_generations_go_side_by_side_and_the_first_failure_ends_the_flush() {
    let (mut txn, mut script) = begin(&["a"]);
    let first = expect_flush(&mut script, &["a"], 1);
    accept_flush(&mut script, first);
    let beats = expect_beats(&mut script, 10);
    txn.end_flush(&script.expect_cancel(beats).expect_done());
    put_all(&mut txn, &["b", "z"]);
    let mut script = begin_flush(&mut txn);
    let (first, second) = (expect_flush(&mut script, &["b"], 2), expect_flush(&mut script, &["z"], 2));
    refuse_flush(&mut script, first, conflict_with(ts(1_500), "b"));
    script.expect_cancel(second);
    assert!(matches!(failed(script), Error::WriteConflict(_)));
}

#[test]
fn a_flush_that_cannot_locate_its_keys_sends_nothing() {
    let mut txn = pipelined_txn();
    put_all(&mut txn, &["a", "z"]);
    let generation = txn.begin_flush().expect("it is open").expect("something to flush");
    let mut script = Script::with_knowledge(Flush::new(generation), knowledge(KeyCodec::Txn, []));
    let Some(Command::Pd { token, .. }) = script.next() else { panic!("PD is to be asked") };
    script.event(token, Event::Pd(Err(PdError::Closed)));
    assert_eq!(script.expect_done(), Err(Error::Closed));
}

#[test]
fn a_failed_assertion_counts_less_than_a_conflict_but_is_not_forgotten() {
    for is_conflict in [true, false] {
        let (_, mut script) = begin(&["a", "z"]);
        let first = expect_flush(&mut script, &["a"], 1);
        refuse_flush(&mut script, first, assertion_failed("a"));
        let second = expect_flush(&mut script, &["z"], 1);
        if is_conflict {
            refuse_flush(&mut script, second, conflict_with(ts(1_500), "z"));
            assert!(matches!(failed(script), Error::WriteConflict(_)));
        } else {
            accept_flush(&mut script, second);
            assert!(matches!(failed(script), Error::AssertionFailed(_)));
        }
    }
}

#[test]
fn what_tikv_refuses_has_the_same_error_as_in_a_commit() {
    let rolled_back = {
        let conflict = kvrpcpb::WriteConflict {
            start_ts: start_ts().version(),
            conflict_ts: start_ts().version(),
            conflict_commit_ts: start_ts().version(),
            key: "a".into(),
            reason: kvrpcpb::write_conflict::Reason::SelfRolledBack.into(),
            ..Default::default()
        };
        kvrpcpb::KeyError { conflict: Some(conflict), ..Default::default() }
    };
    let aborted = kvrpcpb::KeyError { abort: "no".into(), ..Default::default() };
    let error_of = |refusal: kvrpcpb::KeyError| {
        let (_, mut script) = begin(&["a"]);
        let call = expect_flush(&mut script, &["a"], 1);
        refuse_flush(&mut script, call, refusal);
        failed(script)
    };
    assert!(matches!(error_of(rolled_back), Error::RolledBack { .. }));
    assert!(matches!(error_of(aborted), Error::Key(_)));
    assert!(matches!(error_of(already_exists("a")), Error::Key(_)), "nobody said that it must be absent");
    assert!(matches!(error_of(is_locked(locked_by(start_ts(), "a", "b"))), Error::Locked(_)));
}

#[test]
fn an_inserted_key_that_exists_fails_the_flush() {
    let mut txn = pipelined_txn();
    txn.insert("a", "1").expect("a write");
    let mut script = begin_flush(&mut txn);
    script.expect_call(1, |request: &kvrpcpb::FlushRequest| {
        assert_eq!(request.mutations[0].op(), kvrpcpb::Op::Insert);
    });
    script.reply(kvrpcpb::FlushResponse { errors: vec![already_exists("a")], ..Default::default() });
    assert_eq!(failed(script), Error::KeyExists { key: "a".into() });
}

#[test]
fn a_lock_of_an_older_transaction_is_resolved_and_one_of_a_younger_is_a_conflict() {
    let (_, mut script) = begin(&["a"]);
    let call = expect_flush(&mut script, &["a"], 1);
    refuse_flush(&mut script, call, is_locked(locked_by(ts(500), "a", "a")));
    script.expect_timestamp();
    script.timestamp(ts(60_000));
    script.expect_call(1, |request: &kvrpcpb::CheckTxnStatusRequest| {
        assert_eq!((request.lock_ts, request.caller_start_ts), (ts(500).version(), start_ts().version()));
    });
    let rolled_back =
        kvrpcpb::CheckTxnStatusResponse { action: kvrpcpb::Action::TtlExpireRollback.into(), ..Default::default() };
    script.reply(rolled_back);
    while matches!(script.peek(), Some(Command::Call(call)) if matches!(call.request, Request::ResolveLock(_))) {
        script.expect_call(1, |_: &kvrpcpb::ResolveLockRequest| {});
        script.reply(kvrpcpb::ResolveLockResponse::default());
    }
    let again = expect_flush(&mut script, &["a"], 1);
    assert!(script.last_context().is_retry_request);
    refuse_flush(&mut script, again, is_locked(locked_by(ts(1_001), "a", "a")));
    assert!(matches!(failed(script), Error::WriteConflict(_)));
}

#[test]
fn a_live_lock_is_waited_for() {
    let (_, mut script) = begin(&["a"]);
    let call = expect_flush(&mut script, &["a"], 1);
    refuse_flush(&mut script, call, is_locked(locked_by(ts(500), "a", "a")));
    script.expect_timestamp();
    script.timestamp(ts(1_000));
    script.expect_call(1, |_: &kvrpcpb::CheckTxnStatusRequest| {});
    script.reply(kvrpcpb::CheckTxnStatusResponse { lock_ttl: 3_000, ..Default::default() });
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::LockAlive));
    script.advance(Duration::from_secs(3)).wake();
    expect_flush(&mut script, &["a"], 1);
}

/// Meets the same lock whenever it flushes; `status` is what is answered about its owner.
fn always_locked(status: impl Fn() -> Result<Response, Fault>) -> Error {
    let (_, mut script) = begin(&["a"]);
    for _ in 0..10_000 {
        let Some(command) = script.next() else { return failed(script) };
        let (token, event) = match command {
            Command::Call(call) => {
                let reply = match &call.request {
                    Request::Flush(_) => {
                        let errors = vec![is_locked(locked_by(ts(500), "a", "p"))];
                        Ok(kvrpcpb::FlushResponse { errors, ..Default::default() }.into())
                    }
                    Request::CheckTxnStatus(_) => status(),
                    Request::ResolveLock(_) => Ok(kvrpcpb::ResolveLockResponse::default().into()),
                    other => panic!("{other:?}"),
                };
                (call.token, Event::Reply(reply))
            }
            Command::Pd { token, request } => (token, Event::Pd(Ok(pd_answer(&request)))),
            Command::Sleep { reason: SleepReason::Heartbeat, .. } | Command::Spawn(_) | Command::Cancel { .. } => {
                continue;
            }
            Command::Sleep { token, until, .. } => {
                script.advance(until.saturating_since(script.now()));
                (token, Event::Woken)
            }
            other => panic!("{other:?}"),
        };
        script.event(token, event);
    }
    panic!("no bound");
}

#[test]
fn locks_without_end_are_not_met_without_end() {
    let committed = || {
        let commit_version = ts(600).version();
        Ok(kvrpcpb::CheckTxnStatusResponse { commit_version, ..Default::default() }.into())
    };
    let error = always_locked(committed);
    assert!(matches!(error, Error::Locked(_)), "{error}");
}

#[test]
fn a_lock_whose_owner_cannot_be_asked_about_ends_the_flush() {
    let error = always_locked(|| Err(maybe_executed()));
    assert!(error.is_timeout() || matches!(error, Error::RetriesExhausted { .. }), "{error:?}");
    assert!(!error.is_undetermined());
}

#[test]
fn whoever_does_not_want_to_resolve_locks_fails_at_the_first() {
    let mut own = options();
    own.on_lock = super::super::super::OnLock::Fail;
    let config = Config::default();
    let mut txn =
        PipelinedTransaction::new(&config, start_ts(), Time::ZERO, own, PipelinedOptions::default()).expect("ok");
    put_all(&mut txn, &["a"]);
    let mut script = begin_flush(&mut txn);
    let call = expect_flush(&mut script, &["a"], 1);
    refuse_flush(&mut script, call, is_locked(locked_by(ts(500), "a", "a")));
    assert!(matches!(failed(script), Error::WriteConflict(_)));
}

#[test]
fn a_flush_follows_its_keys_through_a_split() {
    let (_, mut script) = begin(&["a", "h"]);
    expect_flush(&mut script, &["a", "h"], 1);
    script.region_error(split_into([(2, "".."f"), (4, "f".."m")]));
    let first = expect_flush(&mut script, &["a"], 1);
    let second = expect_flush(&mut script, &["h"], 1);
    assert!(script.last_context().is_retry_request);
    accept_flush(&mut script, second);
    accept_flush(&mut script, first);
    let beats = expect_beats(&mut script, 10);
    script.expect_cancel(beats);
    assert!(script.expect_done().is_ok());
}

/// A flush decides nothing: TiKV ignores what it has seen already.
#[test]
fn a_request_that_was_not_answered_is_sent_again() {
    let (_, mut script) = begin(&["a"]);
    expect_flush(&mut script, &["a"], 1);
    script.fault(maybe_executed());
    let mut again = None;
    while again.is_none() {
        match script.next().expect("another attempt") {
            Command::Call(call) => again = Some(call.token),
            Command::Sleep { token, .. } => drop(script.event(token, Event::Woken)),
            Command::Pd { token, request } => drop(script.event(token, Event::Pd(Ok(pd_answer(&request))))),
            other => panic!("unexpected: {other:?}"),
        }
    }
    accept_flush(&mut script, again.expect("a call"));
    let beats = expect_beats(&mut script, 10);
    script.expect_cancel(beats);
    assert!(script.expect_done().is_ok());
}

#[test]
fn a_flush_that_is_never_answered_fails_and_is_not_undetermined() {
    let (_, mut script) = begin(&["a"]);
    let error = loop {
        let Some(command) = script.next() else { break failed(script) };
        match command {
            Command::Call(call) => drop(script.event(call.token, Event::Reply(Err(maybe_executed())))),
            Command::Sleep { token, until, .. } => {
                script.advance(until.saturating_since(script.now()));
                script.event(token, Event::Woken);
            }
            Command::Pd { token, request } => drop(script.event(token, Event::Pd(Ok(pd_answer(&request))))),
            other => panic!("unexpected: {other:?}"),
        }
    };
    assert!(matches!(error, Error::RetriesExhausted { .. }), "{error:?}");
}

/// While the first flush is still on its way.
#[test]
fn a_transaction_whose_primary_is_gone_stops_to_flush() {
    let (mut txn, mut script) = begin(&["a", "z"]);
    let first = expect_flush(&mut script, &["a"], 1);
    accept_flush(&mut script, first);
    let beats = expect_beats(&mut script, 10);
    let second = expect_flush(&mut script, &["z"], 1);
    script.event(beats, Event::Woken).expect_timestamp();
    script.timestamp(ts(11_000));
    script.expect_call(1, |beat: &kvrpcpb::TxnHeartBeatRequest| {
        assert_eq!((beat.advise_lock_ttl, beat.min_commit_ts), (30_000, ts(11_000).version()));
    });
    let missing = kvrpcpb::TxnNotFound { start_ts: start_ts().version(), primary_key: "a".into() };
    let error = kvrpcpb::KeyError { txn_not_found: Some(missing), ..Default::default() };
    script.reply(kvrpcpb::TxnHeartBeatResponse { error: Some(Box::new(error)), ..Default::default() });
    script.expect_cancel(second);
    let end: FlushEnd = script.expect_done();
    txn.end_flush(&end);
    assert!(matches!(end, Err(Error::RolledBack { .. })));
    assert!(matches!(txn.set("b", "1"), Err(Error::RolledBack { .. })));
}

#[test]
fn a_flush_that_ends_during_a_beat_has_the_next_one_follow_at_once() {
    let (_, mut script) = begin(&["a", "z"]);
    let first = expect_flush(&mut script, &["a"], 1);
    accept_flush(&mut script, first);
    let beats = expect_beats(&mut script, 10);
    let second = expect_flush(&mut script, &["z"], 1);
    script.advance(Duration::from_secs(10)).event(beats, Event::Woken);
    let asked = script.expect_timestamp();
    accept_flush(&mut script, second);
    script.expect_cancel(asked);
    let now = script.now();
    assert_eq!(script.expect_done().expect("flushed").next_beat, Some(now));
}

#[test]
fn later_flushes_leave_the_heartbeat_to_the_transaction() {
    let mut txn = flushed(&["a"]);
    put_all(&mut txn, &["a", "b"]);
    let mut script = begin_flush(&mut txn);
    let call = expect_flush(&mut script, &["a", "b"], 2);
    accept_flush(&mut script, call);
    assert_eq!(script.expect_done().expect("flushed").next_beat, None);
}

fn buffered(pairs: &[(&str, &str)]) -> kvrpcpb::BufferBatchGetResponse {
    let pairs = pairs.iter().map(|(key, value)| kvrpcpb::KvPair {
        key: (*key).to_owned().into(),
        value: (*value).to_owned().into(),
        ..Default::default()
    });
    kvrpcpb::BufferBatchGetResponse { pairs: pairs.collect(), ..Default::default() }
}

/// A transaction that has flushed a value of `a` and the deletions of `b` and `c`.
fn with_deletions() -> PipelinedTransaction {
    let mut txn = pipelined_txn();
    txn.set("a", "1").expect("a write");
    txn.delete("b").expect("a write");
    txn.delete("c").expect("a write");
    flush(&mut txn);
    txn
}

/// TiKV looks at what is committed, and would say that the key exists.
#[test]
fn a_key_whose_deletion_was_flushed_can_be_inserted_again() {
    let mut txn = with_deletions();
    for key in ["b", "c", "d"] {
        txn.insert(key, "2").expect("a write");
    }
    txn.delete("c").expect("a write");
    let mut script = begin_flush(&mut txn);
    script.expect_call(1, |request: &kvrpcpb::BufferBatchGetRequest| {
        assert_eq!(
            (names(&request.keys), request.version),
            (vec!["b".into(), "c".into(), "d".into()], start_ts().version())
        );
    });
    script.reply(buffered(&[("b", ""), ("c", "")]));
    let call = script.expect_call(1, |request: &kvrpcpb::FlushRequest| {
        let ops: Vec<_> = request.mutations.iter().map(|mutation| (mutation.key.clone(), mutation.op())).collect();
        assert_eq!(ops, [("b".into(), kvrpcpb::Op::Put), ("d".into(), kvrpcpb::Op::Insert)]);
    });
    accept_flush(&mut script, call);
    assert!(script.expect_done().is_ok());
}

#[test]
fn a_flush_of_nothing_but_what_is_done_already_sends_nothing() {
    let mut txn = with_deletions();
    txn.insert("b", "2").expect("a write");
    txn.delete("b").expect("a write");
    let mut script = begin_flush(&mut txn);
    script.expect_call(1, |_: &kvrpcpb::BufferBatchGetRequest| {});
    script.reply(buffered(&[("b", "")]));
    assert!(script.expect_done().is_ok());
}

#[test]
fn a_look_up_that_fails_fails_the_flush() {
    let mut txn = with_deletions();
    txn.insert("b", "2").expect("a write");
    txn.insert("z", "2").expect("a write");
    let mut script = begin_flush(&mut txn);
    script.expect_call(1, |_: &kvrpcpb::BufferBatchGetRequest| {});
    let first = script.last_call().token;
    let second = script.expect_call(1, |_: &kvrpcpb::BufferBatchGetRequest| {});
    let error = kvrpcpb::KeyError { abort: "no".into(), ..Default::default() };
    script.reply_to(first, kvrpcpb::BufferBatchGetResponse { error: Some(Box::new(error)), ..Default::default() });
    script.expect_cancel(second);
    assert!(matches!(failed(script), Error::Key(_)));
}

#[test]
fn an_abandoned_flush_stops_where_it_is() {
    let (_, mut script) = begin(&["a"]);
    expect_flush(&mut script, &["a"], 1);
    assert_eq!(script.abandon(), Abandoned::Discard);
    script.expect_nothing();
}

#[test]
fn a_throttled_flush_looks_up_what_it_inserts_after_its_pause() {
    let mut txn = pipelined_with(|options| options.write_throttle_permille = 500);
    txn.delete("b").expect("a write");
    let mut script = begin_flush(&mut txn);
    let call = expect_flush(&mut script, &["b"], 1);
    script.advance(Duration::from_millis(50));
    accept_flush(&mut script, call);
    let beats = expect_beats(&mut script, 10);
    txn.end_flush(&script.expect_cancel(beats).expect_done());
    txn.insert("b", "1").expect("a write");
    let mut script = begin_flush(&mut txn);
    script.expect_sleep(|sleep, _| assert_eq!(sleep, Duration::from_millis(50)));
    script.wake().expect_call(1, |_: &kvrpcpb::BufferBatchGetRequest| {});
}

#[test]
fn a_pause_does_not_outlast_the_deadline() {
    let mut txn = pipelined_with(|options| options.write_throttle_permille = 500);
    put_all(&mut txn, &["b"]);
    let mut script = begin_flush(&mut txn);
    let call = expect_flush(&mut script, &["b"], 1);
    script.advance(Duration::from_millis(50));
    accept_flush(&mut script, call);
    let beats = expect_beats(&mut script, 10);
    txn.end_flush(&script.expect_cancel(beats).expect_done());
    put_all(&mut txn, &["c"]);
    let request = txn.begin_commit().expect("open").with_deadline(Time::from_millis(11));
    let mut script = Script::with_knowledge(PipelinedCommit::new(request), two_regions());
    expect_beats(&mut script, 5);
    let pause = script.expect_sleep(|sleep, reason| {
        assert_eq!((sleep.as_millis(), reason), (10, SleepReason::WriteThrottle));
    });
    script.advance(Duration::from_millis(10)).event(pause, Event::Woken);
    script.expect_spawn();
    while let Some(command) = script.next() {
        assert!(matches!(command, Command::Cancel { .. }), "{command:?}");
    }
    assert!(matches!(script.expect_done(), Err(Error::DeadlineExceeded { .. })));
}

/// Nothing is locked by a generation that only checks that a key is absent.
#[test]
fn a_first_generation_without_locks_leaves_the_primary_to_the_next_one() {
    for knowledge in [two_regions(), knowledge(KeyCodec::Txn, [])] {
        let mut txn = pipelined_with(|options| options.write_throttle_permille = 500);
        txn.insert("b", "1").and_then(|()| txn.delete("b")).expect("writes");
        let mut script = begin_flush(&mut txn);
        let call = expect_flush(&mut script, &["b"], 1);
        script.advance(Duration::from_millis(50));
        accept_flush(&mut script, call);
        txn.end_flush(&script.expect_done());
        put_all(&mut txn, &["c"]);
        let generation = txn.begin_flush().expect("it is open").expect("something to flush");
        assert_eq!(generation.primary(), &Key::from("c"));
        let mut script = Script::with_knowledge(Flush::new(generation), knowledge);
        script.expect_sleep(|sleep, _| assert_eq!(sleep, Duration::from_millis(50)));
        script.wake();
        match script.next() {
            Some(Command::Call(call)) => assert_eq!(call.request.kind(), crate::request::RequestKind::Flush),
            Some(Command::Pd { token, .. }) => {
                script.event(token, Event::Pd(Err(PdError::Closed)));
                assert_eq!(script.expect_done(), Err(Error::Closed));
            }
            other => panic!("{other:?}"),
        }
    }
}
