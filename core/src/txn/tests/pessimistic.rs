//! The commit of a pessimistic transaction.

use std::time::Duration;

use tikv_proto::kvrpcpb::prewrite_request::{ForUpdateTsConstraint, PessimisticAction};
use tikv_proto::kvrpcpb::{Assertion, Op, PrewriteRequest};

use super::*;
use crate::machine::Abandoned;
use crate::txn::{CommitRequest, PessimisticCommit, UnlockedWrites};

fn commit(txn: &mut Transaction) -> Script<Commit> {
    let request = txn.begin_commit().expect("a request");
    Script::with_knowledge(Commit::new(request), two_regions())
}

/// The heartbeat that runs from the beginning of the commit.
fn expect_beats(script: &mut Script<Commit>) -> Token {
    script.expect_sleep(|sleep, reason| {
        assert_eq!((sleep, reason), (Duration::from_secs(10), SleepReason::Heartbeat));
    })
}

fn actions(request: &PrewriteRequest) -> Vec<(Op, PessimisticAction)> {
    let ops = request.mutations.iter().map(kvrpcpb::Mutation::op);
    ops.zip(request.pessimistic_actions()).collect()
}

const LOCKED: PessimisticAction = PessimisticAction::DoPessimisticCheck;
const CHECKED: PessimisticAction = PessimisticAction::DoConstraintCheck;
const TRUSTED: PessimisticAction = PessimisticAction::SkipPessimisticCheck;

#[test]
fn prewrite_says_which_keys_are_locked_and_when_and_keeps_the_primary() {
    let mut txn = holding(&["b", "d", "e"]);
    for key in ["a", "b"] {
        txn.set(key, "value").expect("set");
    }
    txn.delete("d").expect("deleted");
    txn.insert("f", "value").expect("inserted");
    let mut script = commit(&mut txn);
    let beats = expect_beats(&mut script);
    script.expect_call(1, |request: &PrewriteRequest| {
        assert_eq!(request.primary_lock, "b", "it was locked first");
        assert_eq!(request.for_update_ts, ts(2_000).version());
        assert_eq!(request.min_commit_ts, ts(2_000).next().version());
        let expected =
            [(Op::Put, CHECKED), (Op::Put, LOCKED), (Op::Del, LOCKED), (Op::Lock, LOCKED), (Op::Insert, CHECKED)];
        assert_eq!(actions(request), expected);
        assert_eq!(request.for_update_ts_constraints, []);
    });
    script.reply(kvrpcpb::PrewriteResponse::default());
    script.expect_timestamp();
    script.timestamp(ts(3_000));
    expect_commit(&mut script, &["b", "d", "e", "f"], ts(3_000));
    script.reply(kvrpcpb::CommitResponse::default());
    script.expect_spawn();
    script.expect_cancel(beats);
    let end = script.expect_done();
    txn.end_commit(&end);
    assert_eq!(txn.release(), None);
}

/// Keys whose region has split are sent again, and with them what TiKV has to know of each.
#[test]
fn what_a_request_says_of_a_key_goes_with_it_into_another_region() {
    let checked = Mutation { action: CHECKED, ..Mutation::insert("a", "1") };
    let locked = Mutation {
        action: LOCKED,
        assertion: Assertion::Exist,
        expected_for_update_ts: ts(1_900),
        ..Mutation::put("h", "2")
    };
    let pessimistic = PessimisticCommit { for_update_ts: ts(2_000), primary_is_locked: false, in_doubt: Vec::new() };
    let commit = Commit::new(CommitRequest {
        start_ts: start_ts(),
        started_at: Time::ZERO,
        mutations: mutations([checked, locked]),
        pessimistic: Some(pessimistic),
        options: options(),
    });
    let mut script = Script::with_knowledge(commit, two_regions());
    let constraint = |index| ForUpdateTsConstraint { index, expected_for_update_ts: ts(1_900).version() };
    script.expect_call(1, |request: &PrewriteRequest| {
        assert_eq!(actions(request), [(Op::Insert, CHECKED), (Op::Put, LOCKED)]);
        assert_eq!(request.for_update_ts_constraints, [constraint(1)]);
    });
    script.region_error(split_into([(2, "".."f"), (4, "f".."m")]));
    sleep_through(&mut script);
    script.expect_call(1, |request: &PrewriteRequest| {
        assert_eq!(actions(request), [(Op::Insert, CHECKED)]);
        assert_eq!(request.mutations[0].value, "1");
        assert_eq!(request.for_update_ts_constraints, []);
    });
    script.expect_call(1, |request: &PrewriteRequest| {
        assert_eq!(actions(request), [(Op::Put, LOCKED)]);
        assert_eq!((&request.mutations[0].value[..], request.mutations[0].assertion()), (&b"2"[..], Assertion::Exist));
        assert_eq!(request.for_update_ts_constraints, [constraint(0)]);
    });
}

#[test]
fn keys_that_are_not_locked_are_written_unchecked_if_that_is_wanted() {
    let mut txn = holding(&["b"]);
    txn.options_mut().expect("open").unlocked_writes = UnlockedWrites::Trust;
    txn.set("c", "value").expect("set");
    txn.insert("d", "value").expect("inserted");
    let mut script = commit(&mut txn);
    expect_beats(&mut script);
    script.expect_call(1, |request: &PrewriteRequest| {
        assert_eq!(actions(request), [(Op::Lock, LOCKED), (Op::Put, TRUSTED), (Op::Insert, CHECKED)]);
    });
}

#[test]
fn a_transaction_that_has_locked_nothing_commits_as_an_optimistic_one() {
    let mut txn = pessimistic();
    txn.set("a", "value").expect("set");
    let mut script = commit(&mut txn);
    script.expect_call(1, |request: &PrewriteRequest| {
        assert_eq!((request.for_update_ts, request.pessimistic_actions.len()), (0, 0));
        assert_eq!(request.min_commit_ts, start_ts().next().version());
    });
}

#[test]
fn an_insert_that_is_taken_back_leaves_the_lock() {
    let mut txn = pessimistic();
    let mut script = locking(&mut txn, &["a"], LockOptions::default().must_not_exist());
    let lock = expect_lock(&mut script, &["a"], ts(2_000));
    accept_lock(&mut script, lock);
    let beats = super::expect_beats(&mut script);
    script.expect_cancel(beats);
    end_lock(&mut script, &mut txn).expect("locked");
    txn.set_absent("a", "value").expect("set");
    txn.delete("a").expect("deleted");
    let request = txn.begin_commit().expect("a request");
    assert_eq!(request.mutations.as_slice()[0].op, Op::Lock);
}

#[test]
fn a_lock_is_not_forgotten_when_a_filter_drops_the_write() {
    for delete in [false, true] {
        let mut txn = holding(&["a"]);
        match delete {
            true => txn.delete("a").expect("deleted"),
            false => txn.set("a", "value").expect("set"),
        }
        let request = txn.begin_filtered_commit(|_| true).expect("a request");
        assert_eq!(request.mutations.as_slice()[0].op, Op::Lock);
    }
}

#[test]
fn a_lost_lock_ends_the_transaction_and_releases_the_others() {
    let mut txn = holding(&["a", "b"]);
    txn.set("a", "value").expect("set");
    let mut script = commit(&mut txn);
    let beats = expect_beats(&mut script);
    let prewrite = expect_prewrite(&mut script, &["a", "b"]);
    let lost = kvrpcpb::KeyError { abort: "PessimisticLockNotFound".into(), ..Default::default() };
    refuse_prewrite(&mut script, prewrite, lost);
    let cleanup = script.expect_spawn();
    script.expect_cancel(beats);
    let error = script.expect_done().expect_err("lost");
    assert!(matches!(error, Error::PessimisticLockLost { .. }) && error.is_retryable(), "{error}");
    assert_eq!(rolled_back(cleanup), ["a", "b"]);
}

#[test]
fn a_younger_lock_is_resolved_as_any_other() {
    let mut txn = holding(&["a"]);
    txn.set("b", "value").expect("set");
    let mut script = commit(&mut txn);
    expect_beats(&mut script);
    let prewrite = expect_prewrite(&mut script, &["a", "b"]);
    refuse_prewrite(&mut script, prewrite, is_locked(locked_by(ts(1_500), "b", "p")));
    script.expect_timestamp();
}

#[test]
fn it_is_kept_alive_until_it_has_ended() {
    let mut txn = holding(&["a"]);
    let mut script = commit(&mut txn);
    let nap = expect_beats(&mut script);
    let prewrite = expect_prewrite(&mut script, &["a"]);
    script.event(nap, Event::Woken).expect_timestamp();
    script.timestamp(ts(11_000));
    script.expect_call(1, |beat: &kvrpcpb::TxnHeartBeatRequest| assert_eq!(beat.advise_lock_ttl, 30_000));
    script.reply(kvrpcpb::TxnHeartBeatResponse { lock_ttl: 30_000, ..Default::default() });
    let nap = expect_beats(&mut script);
    accept_prewrite(&mut script, prewrite);
    script.expect_timestamp();
    script.timestamp(ts(12_000));
    expect_commit(&mut script, &["a"], ts(12_000));
    script.reply(kvrpcpb::CommitResponse::default());
    script.expect_cancel(nap);
    assert!(script.expect_done().is_ok());
}

/// Lets a beat find nothing at the primary.
fn beat_in_vain(script: &mut Script<Commit>, nap: Token) {
    let beat = expect_beat(script, nap);
    find_nothing(script, beat);
}

fn expect_beat(script: &mut Script<Commit>, nap: Token) -> Token {
    script.event(nap, Event::Woken).expect_timestamp();
    script.timestamp(ts(11_000));
    script.expect_call(1, |_: &kvrpcpb::TxnHeartBeatRequest| {})
}

fn find_nothing(script: &mut Script<Commit>, beat: Token) {
    let missing = kvrpcpb::TxnNotFound { start_ts: start_ts().version(), primary_key: "a".into() };
    let error = kvrpcpb::KeyError { txn_not_found: Some(missing), ..Default::default() };
    script.reply_to(beat, kvrpcpb::TxnHeartBeatResponse { error: Some(Box::new(error)), ..Default::default() });
}

/// A pessimistic lock goes without a trace, and the prewrite may take it anew.
#[test]
fn what_a_lost_lock_of_the_primary_means_its_prewrite_tells() {
    let mut txn = holding(&["a"]);
    txn.set("z", "value").expect("set");
    let mut script = commit(&mut txn);
    let nap = expect_beats(&mut script);
    let (primary, other) = (expect_prewrite(&mut script, &["a"]), expect_prewrite(&mut script, &["z"]));
    beat_in_vain(&mut script, nap);
    script.expect_nothing();
    accept_prewrite(&mut script, primary);
    let nap = expect_beats(&mut script);
    accept_prewrite(&mut script, other);
    script.expect_timestamp();
    beat_in_vain(&mut script, nap);
    let (error, _) = expect_failed(&mut script);
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
}

#[test]
fn a_beat_that_the_prewrite_of_the_primary_overtakes_proves_nothing() {
    let mut txn = holding(&["a"]);
    txn.set("z", "value").expect("set");
    let mut script = commit(&mut txn);
    let nap = expect_beats(&mut script);
    let (primary, other) = (expect_prewrite(&mut script, &["a"]), expect_prewrite(&mut script, &["z"]));
    let beat = expect_beat(&mut script, nap);
    accept_prewrite(&mut script, primary);
    find_nothing(&mut script, beat);
    let nap = expect_beats(&mut script);
    beat_in_vain(&mut script, nap);
    script.expect_cancel(other);
    let (error, rolled_back) = expect_failed(&mut script);
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert_eq!(rolled_back, ["a", "z"]);
}

/// The commit of two locked keys in two regions, of which nothing is known, after `steps` answers of the way to success.
fn after(steps: usize) -> Script<Commit> {
    let mut txn = pessimistic();
    let mut script = locking(&mut txn, &["a", "z"], LockOptions::default());
    let lock = expect_lock(&mut script, &["a"], ts(2_000));
    accept_lock(&mut script, lock);
    let beats = super::expect_beats(&mut script);
    let lock = expect_lock(&mut script, &["z"], ts(2_000));
    accept_lock(&mut script, lock);
    script.expect_cancel(beats);
    end_lock(&mut script, &mut txn).expect("locked");
    let request = txn.begin_commit().expect("a request");
    let mut script = Script::with_knowledge(Commit::new(request), knowledge(KeyCodec::Txn, []));
    let mut waiting = std::collections::VecDeque::new();
    for step in 0..=steps {
        while let Some(command) = script.next() {
            if !matches!(command, Command::Sleep { reason: SleepReason::Heartbeat, .. }) {
                waiting.push_back(command);
            }
        }
        if step == steps {
            break;
        }
        match waiting.pop_front() {
            Some(Command::Call(call)) => script.event(call.token, answer(&call.request, Answer::Accept)),
            Some(Command::Pd { token, request }) => script.event(token, Event::Pd(Ok(pd_answer(&request)))),
            other => panic!("{other:?}"),
        };
    }
    script
}

#[test]
fn an_owner_that_loses_interest_before_the_decision_gets_all_its_locks_rolled_back() {
    // Two regions, two prewrites, a timestamp.
    for steps in 0..5 {
        let mut script = after(steps);
        assert_eq!(script.abandon(), Abandoned::Discard, "after {steps} steps");
        assert_eq!(rolled_back(script.expect_spawn()), ["a", "z"], "after {steps} steps");
    }
    assert_eq!(after(5).abandon(), Abandoned::FinishInBackground);
}

#[test]
fn a_commit_that_cannot_even_locate_its_keys_rolls_back_what_is_locked() {
    let mut txn = holding(&["a"]);
    let mut options = options();
    options.call.deadline = Time::from_millis(5);
    *txn.options_mut().expect("open") = options;
    let request = txn.begin_commit().expect("a request");
    let mut script = Script::with_knowledge(Commit::new(request), knowledge(KeyCodec::Txn, []));
    let beats = expect_beats(&mut script);
    let alarm = loop {
        match script.next().expect("a command") {
            Command::Sleep { token, reason: SleepReason::Deadline, .. } => break token,
            Command::Pd { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    script.advance(Duration::from_millis(10)).event(alarm, Event::Woken);
    let commands: Vec<_> = std::iter::from_fn(|| script.next()).collect();
    let spawned = commands.iter().filter(|command| matches!(command, Command::Spawn(_))).count();
    assert_eq!(spawned, 1, "{commands:?}");
    assert!(commands.contains(&Command::Cancel { token: beats }));
    assert!(script.take_output().is_some_and(|end| end.is_err()));
}

#[test]
fn doubtful_locks_of_other_keys_are_released_by_the_commit() {
    let mut txn = holding(&["k"]);
    txn.begin_lock(Time::ZERO, as_keys(&["a", "k"]), LockOptions::default()).expect("a request");
    txn.abandon_lock();
    let mut script = commit(&mut txn);
    let rollback = script.expect_spawn();
    assert_eq!(released(rollback), (vec!["a".into(), "a".into()], vec![Timestamp::MAX]));
    expect_beats(&mut script);
    expect_prewrite(&mut script, &["k"]);
}

#[test]
fn the_write_of_a_key_that_may_be_locked_is_that_of_a_pessimistic_transaction() {
    let mut txn = pessimistic();
    txn.begin_lock(Time::ZERO, as_keys(&["a"]), LockOptions::default()).expect("a request");
    txn.abandon_lock();
    txn.set("a", "value").expect("set");
    let mut script = commit(&mut txn);
    script.expect_call(1, |request: &PrewriteRequest| {
        assert_eq!(request.for_update_ts, start_ts().version());
        assert_eq!(actions(request), [(Op::Put, CHECKED)]);
    });
}
