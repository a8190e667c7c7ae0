//! Calls that fail to lock, and what becomes of what they have locked.

use std::time::Duration;

use tikv_proto::deadlock::WaitForEntry;
use tikv_proto::kvrpcpb::{PessimisticLockRequest, PessimisticLockResponse, PessimisticRollbackRequest};

use super::*;
use crate::error::{InvalidLock, KeyError};
use crate::machine::script::maybe_executed;

fn exists(key: &str) -> kvrpcpb::KeyError {
    let already_exist = Some(kvrpcpb::AlreadyExist { key: key.to_owned().into() });
    kvrpcpb::KeyError { already_exist, ..Default::default() }
}

fn deadlock(deadlock_key: &str) -> kvrpcpb::KeyError {
    let deadlock = kvrpcpb::Deadlock {
        lock_ts: ts(500).version(),
        lock_key: "z".into(),
        deadlock_key: deadlock_key.to_owned().into(),
        deadlock_key_hash: 7,
        wait_chain: vec![WaitForEntry { txn: 1, wait_for_txn: 2, ..Default::default() }],
    };
    kvrpcpb::KeyError { deadlock: Some(deadlock), ..Default::default() }
}

/// A call of a transaction that holds `k`, for `a` and `z`: the first is locked, the second is asked for.
fn half_locked() -> (Transaction, Script<LockKeys>, Token) {
    let mut txn = holding(&["k"]);
    let mut script = locking(&mut txn, &["a", "z"], LockOptions::default());
    let (first, second) = (expect_lock(&mut script, &["a"], ts(2_000)), expect_lock(&mut script, &["z"], ts(2_000)));
    accept_lock(&mut script, first);
    (txn, script, second)
}

#[test]
fn what_the_call_has_locked_is_released_at_its_timestamp_and_what_was_locked_before_stays() {
    let (mut txn, mut script, lock) = half_locked();
    refuse_lock(&mut script, lock, exists("z"));
    let rollback = script.expect_spawn();
    assert_eq!(end_lock(&mut script, &mut txn), Err(Error::KeyExists { key: "z".into() }));
    assert_eq!(released(rollback), (vec!["a".into(), "z".into()], vec![ts(2_000)]));
    assert!(txn.holds_lock(b"k") && !txn.holds_lock(b"a") && !txn.holds_lock(b"z"));
}

#[test]
fn a_key_that_tikv_refuses_to_lock_alone_needs_no_release() {
    let mut txn = pessimistic();
    let mut script = locking(&mut txn, &["a"], LockOptions::default().must_not_exist());
    let lock = expect_lock(&mut script, &["a"], ts(2_000));
    refuse_lock(&mut script, lock, exists("a"));
    assert_eq!(end_lock(&mut script, &mut txn), Err(Error::KeyExists { key: "a".into() }));
    assert_eq!(txn.rollback(), Ok(()));
    assert_eq!(txn.release(), None);
}

#[test]
fn unless_an_earlier_request_was_not_answered() {
    let mut txn = pessimistic();
    let mut script = locking(&mut txn, &["a"], LockOptions::default().must_not_exist());
    let lock = expect_lock(&mut script, &["a"], ts(2_000));
    script.event(lock, Event::Reply(Err(maybe_executed())));
    script.expect_sleep(|_, _| {});
    script.wake();
    let lock = script.expect_call(2, |_: &PessimisticLockRequest| {});
    assert!(script.last_context().is_retry_request);
    refuse_lock(&mut script, lock, exists("a"));
    assert_eq!(released(script.expect_spawn()).0, ["a", "a"]);
    script.expect_done().expect_err("refused");
}

#[test]
fn locks_that_may_be_taken_later_are_released_twice() {
    let mut txn = holding(&["k"]);
    let mut script = locking(&mut txn, &["a", "z"], LockOptions::default());
    let (first, second) = (expect_lock(&mut script, &["a"], ts(2_000)), expect_lock(&mut script, &["z"], ts(2_000)));
    refuse_lock(&mut script, first, exists("a"));
    script.expect_cancel(second);
    let mut rollback = Script::with_knowledge(script.expect_spawn(), two_regions());
    end_lock(&mut script, &mut txn).expect_err("refused");
    for is_last in [false, true] {
        for _ in 0..2 {
            let release = |request: &PessimisticRollbackRequest| assert_eq!(request.for_update_ts, ts(2_000).version());
            rollback.expect_call(1, release);
            rollback.reply(kvrpcpb::PessimisticRollbackResponse::default());
        }
        if !is_last {
            rollback.expect_sleep(|sleep, reason| {
                assert_eq!((sleep, reason), (Duration::from_millis(1_500), SleepReason::LateLocks));
            });
            rollback.wake();
        }
    }
    rollback.expect_done();
    // And once more when the transaction ends.
    txn.rollback().expect("open");
    let mut release = txn.release().expect("locks").keys().to_vec();
    release.sort();
    assert_eq!(release, as_keys(&["a", "k", "z"]));
}

#[test]
fn no_answer_at_all_leaves_nothing_undetermined() {
    let mut txn = pessimistic();
    let mut script = locking(&mut txn, &["a"], LockOptions::default());
    let rollback = loop {
        match script.next().expect("a command") {
            Command::Call(call) => script.event(call.token, Event::Reply(Err(maybe_executed()))),
            Command::Sleep { token, until, .. } => {
                let slept = until.saturating_since(script.now());
                script.advance(slept).event(token, Event::Woken)
            }
            Command::Pd { token, request } => script.event(token, Event::Pd(Ok(pd_answer(&request)))),
            Command::Spawn(rollback) => break rollback,
            other => panic!("{other:?}"),
        };
    };
    let error = end_lock(&mut script, &mut txn).expect_err("no answer");
    assert!(!error.is_undetermined(), "{error}");
    assert_eq!(released(rollback), (vec!["a".into(), "a".into()], vec![ts(2_000)]));
}

#[test]
fn a_deadlock_over_an_older_lock_is_a_matter_of_the_whole_transaction() {
    let (mut txn, mut script, lock) = half_locked();
    refuse_lock(&mut script, lock, deadlock("k"));
    let rollback = script.expect_spawn();
    let Err(Error::Deadlock(deadlock)) = end_lock(&mut script, &mut txn) else { panic!("no deadlock") };
    assert!(!deadlock.of_one_call);
    assert_eq!(deadlock.wait_chain.len(), 1);
    assert_eq!(released(rollback).0, ["a", "z"]);
}

#[test]
fn a_deadlock_over_a_lock_of_the_same_call_ends_it_when_that_is_released() {
    let (mut txn, mut script, lock) = half_locked();
    refuse_lock(&mut script, lock, deadlock("a"));
    for _ in 0..2 {
        script.expect_call(1, |request: &PessimisticRollbackRequest| {
            assert_eq!(request.for_update_ts, ts(2_000).version());
        });
        script.reply(kvrpcpb::PessimisticRollbackResponse::default());
    }
    script.expect_sleep(|sleep, reason| {
        assert_eq!((sleep, reason), (Duration::from_millis(5), SleepReason::Deadlock));
    });
    script.wake();
    let Err(Error::Deadlock(deadlock)) = end_lock(&mut script, &mut txn) else { panic!("no deadlock") };
    assert!(deadlock.of_one_call);
}

/// A call as in [`half_locked`], which has to end at 11 ms.
fn half_locked_in_a_hurry() -> (Transaction, Script<LockKeys>, Token) {
    let mut txn = holding(&["k"]);
    let options = LockOptions::default().deadline(Time::from_millis(11));
    let request = txn.begin_lock(Time::from_millis(1), as_keys(&["a", "z"]), options).expect("a request");
    let mut script = Script::with_knowledge(LockKeys::new(request), two_regions());
    let alarm = script.expect_alarm();
    script.expect_timestamp();
    script.timestamp(ts(2_000)).expect_cancel(alarm);
    let (first, second) = (expect_lock(&mut script, &["a"], ts(2_000)), expect_lock(&mut script, &["z"], ts(2_000)));
    accept_lock(&mut script, first);
    (txn, script, second)
}

#[test]
fn nobody_waits_for_the_release_after_a_deadlock_any_longer_than_for_the_locks() {
    let (mut txn, mut script, lock) = half_locked_in_a_hurry();
    refuse_lock(&mut script, lock, deadlock("a"));
    let [answered, silent] = [(); 2].map(|()| {
        let token = script.expect_call(1, |_: &PessimisticRollbackRequest| ());
        assert_eq!(script.last_call().deadline, Time::from_millis(11));
        token
    });
    script.reply_to(answered, kvrpcpb::PessimisticRollbackResponse::default());
    script.advance(Duration::from_millis(10)).event(silent, Event::Reply(Err(maybe_executed())));
    let again = script.expect_spawn();
    script.expect_sleep(|sleep, _| assert_eq!(sleep, Duration::ZERO));
    script.wake();
    let Err(Error::Deadlock(_)) = end_lock(&mut script, &mut txn) else { panic!("no deadlock") };
    assert_eq!(released(again), (["a", "z", "a", "z"].map(str::to_owned).to_vec(), vec![ts(2_000)]));
}

#[test]
fn keys_of_a_region_that_has_split_are_locked_in_its_parts() {
    let mut txn = holding(&["k"]);
    let mut script = locking(&mut txn, &["a", "b"], LockOptions::default());
    expect_lock(&mut script, &["a", "b"], ts(2_000));
    script.region_error(split_into([(2, "".."b"), (4, "b".."m")]));
    for key in ["a", "b"] {
        let lock = expect_lock(&mut script, &[key], ts(2_000));
        assert!(script.last_context().is_retry_request);
        script.reply_to(lock, PessimisticLockResponse::default());
        if key == "a" {
            // Both were asked for side by side.
            continue;
        }
    }
    end_lock(&mut script, &mut txn).expect("locked");
}

#[test]
fn answers_that_fit_no_question_are_not_believed() {
    let answers = [
        PessimisticLockResponse { values: vec!["1".into()], ..Default::default() },
        PessimisticLockResponse { not_founds: vec![false], ..Default::default() },
        PessimisticLockResponse {
            values: vec!["1".into(), "2".into()],
            not_founds: vec![false, false],
            ..Default::default()
        },
        PessimisticLockResponse { results: vec![kvrpcpb::PessimisticLockKeyResult::default()], ..Default::default() },
    ];
    for answer in answers {
        let mut txn = pessimistic();
        let mut script = locking(&mut txn, &["a"], LockOptions::default().return_values());
        expect_lock(&mut script, &["a"], ts(2_000));
        script.reply(answer);
        assert_eq!(released(script.expect_spawn()).0, ["a", "a"]);
        let error = end_lock(&mut script, &mut txn).expect_err("nonsense");
        assert!(matches!(error, Error::WrongResponse { .. }), "{error}");
    }
}

#[test]
fn a_call_that_fails_before_anything_is_locked_leaves_the_choice_of_the_primary_open() {
    let mut txn = pessimistic();
    let mut script = locking(&mut txn, &["a"], LockOptions::default());
    let lock = expect_lock(&mut script, &["a"], ts(2_000));
    let abort = kvrpcpb::KeyError { abort: "rolled back".into(), ..Default::default() };
    refuse_lock(&mut script, lock, abort);
    script.expect_spawn();
    let error = end_lock(&mut script, &mut txn).expect_err("refused");
    assert!(matches!(error, Error::Key(KeyError::Abort(_))), "{error}");
    let mut script = locking(&mut txn, &["b"], LockOptions::default());
    script.expect_call(1, |request: &PessimisticLockRequest| {
        assert_eq!(request.primary_lock, "b");
        assert!(!request.is_first_lock, "somebody may wait for the other lock");
    });
}

#[test]
fn a_timestamp_at_which_locks_were_released_serves_no_more() {
    let mut txn = holding(&["k"]);
    let options = LockOptions { for_update_ts: Some(ts(2_500)), ..LockOptions::default() };
    let request = txn.begin_lock(Time::ZERO, as_keys(&["a"]), options).expect("a request");
    let mut script = Script::with_knowledge(LockKeys::new(request), two_regions());
    let lock = expect_lock(&mut script, &["a"], ts(2_500));
    refuse_lock(&mut script, lock, deadlock("k"));
    script.expect_spawn();
    end_lock(&mut script, &mut txn).expect_err("a deadlock");
    let error = txn.begin_lock(Time::ZERO, as_keys(&["a"]), options).expect_err("the release could take the lock");
    assert_eq!(error, InvalidLock::OutdatedForUpdateTs { key: "a".into() }.into());
}

#[test]
fn a_transaction_that_is_given_up_releases_all_it_has_locked_once() {
    let mut txn = holding(&["a", "b"]);
    assert_eq!(txn.release(), None, "it is open");
    txn.rollback().expect("open");
    let rollback = BackgroundMachine::new(txn.release().expect("locks"));
    assert_eq!(released(rollback), (vec!["a".into(), "b".into()], vec![Timestamp::MAX]));
    assert_eq!(txn.release(), None);
    assert_eq!(txn.keep_alive(), None);
}
