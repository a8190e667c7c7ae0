//! What becomes of a call that locks keys when its owner loses interest.

use std::collections::VecDeque;

use super::*;
use crate::machine::Abandoned;

/// Regions and a timestamp; then each key of its own region is locked.
const LOCATED: usize = 3;
const LOCKED: usize = 5;

/// A call for two keys in two regions, after `steps` answers of the way to success. No region is known at first.
fn after(steps: usize) -> (Transaction, Script<LockKeys>, Vec<Command>) {
    let mut txn = pessimistic();
    let request = txn.begin_lock(Time::ZERO, as_keys(&["a", "z"]), LockOptions::default()).expect("a request");
    let mut script = Script::with_knowledge(LockKeys::new(request), knowledge(KeyCodec::Txn, []));
    let mut waiting = VecDeque::new();
    for step in 0..=steps {
        while let Some(command) = script.next() {
            // Heartbeats are another story.
            if !matches!(command, Command::Sleep { reason: SleepReason::Heartbeat, .. }) {
                waiting.push_back(command);
            }
        }
        if step == steps {
            break;
        }
        answer_next(&mut script, waiting.pop_front());
    }
    (txn, script, waiting.into())
}

fn answer_next(script: &mut Script<LockKeys>, command: Option<Command>) {
    match command {
        Some(Command::Call(call)) => script.event(call.token, answer(&call.request, Answer::Accept)),
        Some(Command::Pd { token, request }) => script.event(token, Event::Pd(Ok(pd_answer(&request)))),
        other => panic!("{other:?}"),
    };
}

#[test]
fn before_the_first_request_there_is_nothing_to_release() {
    for steps in 0..LOCATED {
        let (_, mut script, _) = after(steps);
        assert_eq!(script.abandon(), Abandoned::Discard, "after {steps} steps");
        assert!(script.next().is_none(), "after {steps} steps");
    }
}

#[test]
fn from_the_first_request_on_what_may_be_locked_is_released_twice() {
    for steps in LOCATED..LOCKED {
        let (mut txn, mut script, sent) = after(steps);
        assert_eq!(script.abandon(), Abandoned::Discard, "after {steps} steps");
        let rollback = script.expect_spawn();
        script.expect_nothing();
        let keys = if steps == LOCATED { vec!["a", "a"] } else { vec!["a", "z", "a", "z"] };
        assert_eq!(released(rollback), (keys.into_iter().map(str::to_owned).collect(), vec![ts(2_000)]));
        // Answers that come all the same change nothing.
        for command in sent {
            answer_next(&mut script, Some(command));
            script.expect_nothing();
        }
        // And the transaction remembers, until its end.
        txn.abandon_lock();
        assert!(!txn.holds_lock(b"a"));
        txn.rollback().expect("open");
        assert_eq!(txn.release().expect("doubtful locks").keys(), as_keys(&["a", "z"]));
    }
}

#[test]
fn there_is_no_other_step() {
    let (mut txn, mut script, _) = after(LOCKED);
    let end = script.take_output().expect("an end");
    txn.end_lock(&end);
    assert!(txn.holds_lock(b"a") && txn.holds_lock(b"z"));
}

#[test]
fn a_transaction_whose_call_was_given_up_can_lock_anew_and_commit() {
    let (mut txn, mut script, _) = after(LOCATED);
    script.abandon();
    txn.abandon_lock();
    let mut script = locking(&mut txn, &["b"], LockOptions::default());
    let lock = expect_lock(&mut script, &["b"], ts(2_000));
    accept_lock(&mut script, lock);
    let beats = expect_beats(&mut script);
    script.expect_cancel(beats);
    end_lock(&mut script, &mut txn).expect("locked");
    let request = txn.begin_commit().expect("a request");
    assert_eq!(request.mutations.primary(), Some(&"b".into()));
    let pessimistic = request.pessimistic.expect("locks");
    assert_eq!(pessimistic.in_doubt, as_keys(&["a", "z"]));
}
