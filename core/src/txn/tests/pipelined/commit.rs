//! The commit of a pipelined transaction.

use super::*;
use crate::machine::Abandoned;
use crate::machine::script::{maybe_executed, not_sent};
use crate::txn::CommitMode;

fn expect_commit_of_primary(script: &mut Script<PipelinedCommit>, commit_ts: Timestamp) -> Token {
    script.expect_call(1, |request: &kvrpcpb::CommitRequest| {
        assert_eq!((names(&request.keys), request.commit_version), (vec!["a".to_owned()], commit_ts.version()));
        assert_eq!(request.commit_role(), kvrpcpb::CommitRole::Primary);
        assert!(!request.use_async_commit);
    })
}

/// All is flushed, and the primary is being committed at `ts(2_000)`.
fn committing_primary(txn: &mut PipelinedTransaction) -> (Script<PipelinedCommit>, Token) {
    let mut script = committing(txn);
    expect_beats(&mut script, 5);
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    let commit = expect_commit_of_primary(&mut script, ts(2_000));
    (script, commit)
}

/// Ends the commit, tells its transaction, and returns what is left to the background.
fn end(script: &mut Script<PipelinedCommit>, txn: &mut PipelinedTransaction) -> (End, Option<BackgroundMachine>) {
    let mut spawned = None;
    while let Some(command) = script.next() {
        match command {
            Command::Spawn(machine) => assert!(spawned.replace(machine).is_none(), "one machine is enough"),
            Command::Cancel { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    let end = script.expect_done();
    txn.end_commit(&end);
    assert_eq!(txn.release(), None, "the commit has seen to that");
    (end, spawned)
}

#[test]
fn what_is_left_is_flushed_then_the_primary_is_committed_then_all_is_resolved_by_range() {
    let mut txn = flushed(&["a", "c"]);
    put_all(&mut txn, &["b", "z"]);
    let mut script = committing(&mut txn);
    expect_beats(&mut script, 5);
    let (first, second) = (expect_flush(&mut script, &["b"], 2), expect_flush(&mut script, &["z"], 2));
    accept_flush(&mut script, first);
    script.expect_nothing();
    accept_flush(&mut script, second);
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    let commit = expect_commit_of_primary(&mut script, ts(2_000));
    script.reply_to(commit, kvrpcpb::CommitResponse::default());
    let (end, finish) = end(&mut script, &mut txn);
    let outcome = end.expect("committed");
    assert_eq!((outcome.commit_ts, outcome.mode), (Some(ts(2_000)), CommitMode::TwoPhases));
    assert_eq!(txn.state(), TxnState::Committed(outcome));
    let requests = requests_of(finish.expect("locks to be resolved"));
    let resolved: Vec<_> = requests.iter().filter_map(told).collect();
    let at = format!("resolve at {}", ts(2_000).version());
    assert_eq!(resolved, [at.clone(), at]);
    let statuses: Vec<_> = requests
        .iter()
        .filter_map(|request| match request {
            Request::BroadcastTxnStatus(request) => Some(request.txn_status[0]),
            _ => None,
        })
        .collect();
    assert_eq!(statuses.iter().filter(|status| status.is_completed).count(), 3);
    assert_eq!(statuses.iter().filter(|status| !status.is_completed).count(), 3);
    assert!(statuses.iter().all(|status| status.commit_ts == ts(2_000).version() && !status.rolled_back));
}

#[test]
fn a_small_transaction_is_flushed_as_a_whole_by_its_commit() {
    let mut txn = pipelined_txn();
    put_all(&mut txn, &["a"]);
    let mut script = committing(&mut txn);
    let call = expect_flush(&mut script, &["a"], 1);
    accept_flush(&mut script, call);
    let beats = expect_beats(&mut script, 10);
    script.expect_cancel(beats);
    expect_beats(&mut script, 10);
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    let commit = expect_commit_of_primary(&mut script, ts(2_000));
    script.reply_to(commit, kvrpcpb::CommitResponse::default());
    assert!(end(&mut script, &mut txn).0.is_ok());
}

/// client-go: fails for want of a range.
#[test]
fn a_transaction_that_has_written_nothing_commits_at_once() {
    let mut txn = pipelined_txn();
    let mut script = committing(&mut txn);
    assert_eq!(end(&mut script, &mut txn), (Ok(CommitOutcome::default()), None));
}

/// client-go: fails for want of a primary.
#[test]
fn a_transaction_that_only_checks_absences_has_nothing_to_commit() {
    let mut txn = pipelined_txn();
    txn.insert("a", "1").expect("a write");
    txn.delete("a").expect("a write");
    let mut script = committing(&mut txn);
    let call = script.expect_call(1, |request: &kvrpcpb::FlushRequest| {
        assert_eq!(request.mutations[0].op(), kvrpcpb::Op::CheckNotExists);
    });
    accept_flush(&mut script, call);
    assert_eq!(end(&mut script, &mut txn), (Ok(CommitOutcome::default()), None));
}

#[test]
fn a_flush_that_is_refused_has_everything_rolled_back() {
    let mut txn = flushed(&["a"]);
    put_all(&mut txn, &["z"]);
    let mut script = committing(&mut txn);
    expect_beats(&mut script, 5);
    let call = expect_flush(&mut script, &["z"], 2);
    script.reply_to(call, kvrpcpb::FlushResponse { errors: vec![conflict_with(ts(1_500), "z")], ..Default::default() });
    let (end, finish) = end(&mut script, &mut txn);
    assert!(matches!(end, Err(Error::WriteConflict(_))));
    assert_eq!(rolled_back_by(finish.expect("locks")), ["roll back a", "resolve at 0", "resolve at 0"]);
    assert_eq!(txn.state(), TxnState::RolledBack);
}

#[test]
fn without_a_timestamp_everything_is_rolled_back() {
    let mismatch = crate::error::PdError::ClusterMismatch { address: "pd".into(), expected: 1, actual: 2 };
    let mut txn = flushed(&["a"]);
    let mut script = committing(&mut txn);
    expect_beats(&mut script, 5);
    script.expect_timestamp();
    script.pd(Err(mismatch));
    let (end, finish) = end(&mut script, &mut txn);
    assert!(matches!(end, Err(Error::Pd(_))));
    assert_eq!(rolled_back_by(finish.expect("locks")), ["roll back a", "resolve at 0"]);
}

/// client-go skips these checks for pipelined transactions.
#[test]
fn age_and_bound_of_the_commit_ts_are_checked() {
    let day_ms = 24 * 60 * 60 * 1000;
    let mut own = options();
    own.commit_ts.upper_bound = ts(3_000);
    for (options, commit_ts, is_too_old) in [(options(), ts(1_000 + day_ms), true), (own, ts(3_001), false)] {
        let config = Config::default();
        let pipelined = PipelinedOptions::default();
        let mut txn =
            PipelinedTransaction::new(&config, start_ts(), Time::ZERO, options, pipelined).expect("a transaction");
        put_all(&mut txn, &["a"]);
        flush(&mut txn);
        let mut script = committing(&mut txn);
        expect_beats(&mut script, 5);
        script.expect_timestamp();
        script.timestamp(commit_ts);
        let (end, finish) = end(&mut script, &mut txn);
        match end {
            Err(Error::TxnTooOld { .. }) => assert!(is_too_old),
            Err(Error::CommitTsOutOfBound { .. }) => assert!(!is_too_old),
            other => panic!("{other:?}"),
        }
        assert!(finish.is_some(), "the locks are rolled back");
    }
}

#[test]
fn a_commit_that_is_refused_has_everything_rolled_back() {
    let mut txn = flushed(&["a"]);
    let (mut script, commit) = committing_primary(&mut txn);
    let error = Some(Box::new(lock_not_found("a")));
    script.reply_to(commit, kvrpcpb::CommitResponse { error, ..Default::default() });
    let (end, finish) = end(&mut script, &mut txn);
    assert!(matches!(end, Err(Error::RolledBack { .. })));
    assert_eq!(rolled_back_by(finish.expect("locks")), ["roll back a", "resolve at 0"]);
}

/// client-go reports the error of the RPC, and rolls back what may be committed.
#[test]
fn a_commit_that_is_not_answered_is_undetermined_and_nobody_touches_the_locks() {
    let mut txn = flushed(&["a"]);
    let (mut script, commit) = committing_primary(&mut txn);
    script.event(commit, Event::Reply(Err(maybe_executed())));
    let mut spawned = 0;
    while let Some(command) = script.next() {
        match command {
            Command::Call(call) => drop(script.event(call.token, Event::Reply(Err(maybe_executed())))),
            Command::Sleep { reason: SleepReason::Heartbeat, .. } | Command::Cancel { .. } => {}
            Command::Sleep { token, until, .. } => {
                script.advance(until.saturating_since(script.now()));
                script.event(token, Event::Woken);
            }
            Command::Pd { token, request } => drop(script.event(token, Event::Pd(Ok(pd_answer(&request))))),
            Command::Spawn(_) => spawned += 1,
            other => panic!("unexpected: {other:?}"),
        }
    }
    let end = script.expect_done();
    txn.end_commit(&end);
    assert!(matches!(end, Err(Error::Undetermined { .. })), "{end:?}");
    assert_eq!((spawned, txn.state(), txn.release()), (0, TxnState::Undetermined, None));
}

#[test]
fn a_commit_that_never_left_is_not_undetermined() {
    let mut txn = flushed(&["a"]);
    let (mut script, commit) = committing_primary(&mut txn);
    script.event(commit, Event::Reply(Err(not_sent())));
    loop {
        match script.next() {
            Some(Command::Call(call)) => drop(script.event(call.token, Event::Reply(Err(not_sent())))),
            Some(Command::Sleep { token, until, .. }) => {
                script.advance(until.saturating_since(script.now()));
                script.event(token, Event::Woken);
            }
            Some(Command::Pd { token, request }) => drop(script.event(token, Event::Pd(Ok(pd_answer(&request))))),
            Some(Command::Spawn(_)) => break,
            Some(other) => panic!("unexpected: {other:?}"),
            None => panic!("nothing is rolled back"),
        }
    }
    let (end, _) = end(&mut script, &mut txn);
    assert!(matches!(end, Err(Error::RetriesExhausted { .. })), "{end:?}");
}

/// A heartbeat has promised readers more than the first timestamp keeps.
#[test]
fn a_commit_ts_below_what_readers_were_promised_is_replaced() {
    let mut txn = flushed(&["a"]);
    let (mut script, commit) = committing_primary(&mut txn);
    let error = Some(Box::new(commit_ts_expired("a", ts(2_000), ts(2_500))));
    script.reply_to(commit, kvrpcpb::CommitResponse { error, ..Default::default() });
    script.expect_timestamp();
    script.timestamp(ts(3_000));
    let commit = expect_commit_of_primary(&mut script, ts(3_000));
    script.reply_to(commit, kvrpcpb::CommitResponse::default());
    let (end, finish) = end(&mut script, &mut txn);
    assert_eq!(end.map(|outcome| outcome.commit_ts), Ok(Some(ts(3_000))));
    let at = format!("resolve at {}", ts(3_000).version());
    assert_eq!(requests_of(finish.expect("locks")).iter().find_map(told), Some(at));
}

fn beat(script: &mut Script<PipelinedCommit>, nap: Token, error: Option<kvrpcpb::KeyError>) {
    script.event(nap, Event::Woken).expect_timestamp();
    script.timestamp(ts(11_000));
    script.expect_call(1, |beat: &kvrpcpb::TxnHeartBeatRequest| {
        assert_eq!(beat.min_commit_ts, 0, "the commit_ts may have been fetched already");
    });
    script.reply(kvrpcpb::TxnHeartBeatResponse { error: error.map(Box::new), ..Default::default() });
}

fn txn_not_found() -> kvrpcpb::KeyError {
    let missing = kvrpcpb::TxnNotFound { start_ts: start_ts().version(), primary_key: "a".into() };
    kvrpcpb::KeyError { txn_not_found: Some(missing), ..Default::default() }
}

#[test]
fn a_transaction_that_is_committing_is_kept_alive_without_a_promise() {
    let mut txn = flushed(&["a"]);
    let mut script = committing(&mut txn);
    let nap = expect_beats(&mut script, 5);
    script.expect_timestamp();
    beat(&mut script, nap, None);
    expect_beats(&mut script, 10);
    script.expect_nothing();
}

#[test]
fn a_transaction_whose_primary_is_gone_before_it_is_committed_is_given_up() {
    let mut txn = flushed(&["a"]);
    put_all(&mut txn, &["z"]);
    let mut script = committing(&mut txn);
    let nap = expect_beats(&mut script, 5);
    expect_flush(&mut script, &["z"], 2);
    beat(&mut script, nap, Some(txn_not_found()));
    let (error, finish) = end(&mut script, &mut txn);
    assert!(matches!(error, Err(Error::RolledBack { .. })));
    assert!(finish.is_some());

    let mut txn = flushed(&["a"]);
    let mut script = committing(&mut txn);
    let nap = expect_beats(&mut script, 5);
    script.expect_timestamp();
    beat(&mut script, nap, Some(txn_not_found()));
    assert!(matches!(end(&mut script, &mut txn).0, Err(Error::RolledBack { .. })));
}

/// The lock is also gone if the commit was executed and only its answer is late.
#[test]
fn once_the_primary_is_being_committed_only_the_answer_to_that_counts() {
    let mut txn = flushed(&["a"]);
    let mut script = committing(&mut txn);
    let nap = expect_beats(&mut script, 5);
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    let commit = expect_commit_of_primary(&mut script, ts(2_000));
    beat(&mut script, nap, Some(txn_not_found()));
    assert!(matches!(script.observations(), [Observation::BackgroundFailed { task: "heartbeat", .. }]));
    script.reply_to(commit, kvrpcpb::CommitResponse::default());
    assert!(end(&mut script, &mut txn).0.is_ok());
}

#[test]
fn an_owner_that_loses_interest_before_the_primary_is_committed_gets_everything_rolled_back() {
    for has_rest in [true, false] {
        let mut txn = flushed(&["a"]);
        if has_rest {
            put_all(&mut txn, &["z"]);
        }
        let mut script = committing(&mut txn);
        expect_beats(&mut script, 5);
        assert!(script.next().is_some(), "a flush, or a question for a timestamp");
        assert_eq!(script.abandon(), Abandoned::Discard);
        let finish = rolled_back_by(script.expect_spawn());
        assert_eq!(finish[0], "roll back a");
    }
}

#[test]
fn an_owner_that_loses_interest_later_does_not_stop_it() {
    let mut txn = flushed(&["a"]);
    let (mut script, commit) = committing_primary(&mut txn);
    assert_eq!(script.abandon(), Abandoned::FinishInBackground);
    script.reply_to(commit, kvrpcpb::CommitResponse::default());
    script.expect_spawn();
}

#[test]
fn a_deadline_holds_for_the_last_flush_and_the_commit() {
    let mut txn = pipelined_txn();
    put_all(&mut txn, &["a"]);
    let request = txn.begin_commit().expect("open").with_deadline(Time::from_millis(1));
    let mut script = Script::with_knowledge(PipelinedCommit::new(request), two_regions());
    let (end, finish) = end(&mut script, &mut txn);
    assert!(matches!(end, Err(Error::DeadlineExceeded { .. })), "{end:?}");
    assert!(finish.is_some(), "what may have been locked is rolled back");
}

#[test]
fn a_transaction_without_a_start_ts_of_pd_is_refused() {
    let config = Config::default();
    let pipelined = PipelinedOptions::default();
    let mut txn =
        PipelinedTransaction::new(&config, Timestamp::ZERO, Time::ZERO, options(), pipelined).expect("a transaction");
    put_all(&mut txn, &["a"]);
    let mut script = committing(&mut txn);
    assert!(matches!(end(&mut script, &mut txn).0, Err(Error::InvalidArgument(_))));
}
