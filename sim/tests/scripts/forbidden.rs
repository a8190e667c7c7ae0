//! Owners of transactions who are asked whether these may commit.

use std::sync::{Arc, Mutex};

use tikv::{CommitCheck, CommitMode, Error, PipelinedOptions, Timestamp, TransactionOptions};
use tikv_core::request::{Request, RequestKind};
use tikv_sim::cluster::{Effect, Fault};

use crate::world::{KEYS, World, millis, secs, some};

type Asked = Arc<Mutex<Vec<CommitCheck>>>;

/// Options whose owner allows commits up to a timestamp, and what it was asked.
fn until(options: TransactionOptions, last: Timestamp) -> (TransactionOptions, Asked) {
    let asked = Asked::default();
    let log = asked.clone();
    let options = options.check_commit(move |check: CommitCheck| {
        log.lock().expect("nobody panics").push(check);
        async move { if check.commit_ts <= last { Ok(()) } else { Err("another version".to_owned()) } }
    });
    (options, asked)
}

fn ways() -> [(TransactionOptions, CommitMode); 3] {
    let options = TransactionOptions::default;
    [
        (options(), CommitMode::TwoPhases),
        (options().async_commit(), CommitMode::AsyncCommit),
        (
            options().async_commit().commit(|mut options| {
                options.causal_consistency = true;
                options
            }),
            CommitMode::AsyncCommit,
        ),
    ]
}

#[test]
fn a_commit_that_is_allowed_goes_on() {
    for (options, mode) in ways() {
        let world = World::new();
        let (options, asked) = until(options, Timestamp::MAX);
        let txn = world.run(world.client.begin_with(options)).expect("PD answers");
        KEYS.iter().for_each(|key| txn.put(*key, "v").expect("it fits"));
        let outcome = world.run(txn.commit()).expect("it is allowed");
        assert_eq!(outcome.mode, mode);
        assert_eq!((outcome.details.keys, outcome.details.regions, outcome.details.prewrites), (3, 3, 3));
        let asked = asked.lock().expect("nobody panics").clone();
        assert_eq!(asked.iter().map(|check| check.start_ts).collect::<Vec<_>>(), [txn.start_ts()]);
        match mode {
            CommitMode::TwoPhases => assert_eq!(Some(asked[0].commit_ts), outcome.commit_ts),
            _ => assert!(Some(asked[0].commit_ts) < outcome.commit_ts),
        }
    }
}

#[test]
fn a_commit_that_is_forbidden_writes_nothing() {
    for (options, mode) in ways() {
        let world = World::new();
        let (options, _) = until(options, world.timestamp());
        let txn = world.run(world.client.begin_with(options)).expect("PD answers");
        KEYS.iter().for_each(|key| txn.put(*key, "never").expect("it fits"));
        let error = world.run(txn.commit()).expect_err("it is forbidden");
        assert!(matches!(&error, Error::CommitForbidden { reason, .. } if &**reason == "another version"), "{error}");
        assert!(!error.is_retryable() && !error.is_undetermined());
        assert_eq!(world.count(RequestKind::Prewrite) > 0, mode == CommitMode::TwoPhases);
        world.until(|world| world.locks().is_empty());
        assert_eq!(world.read_all(&KEYS), [None, None, None]);
    }
}

/// Prewrites that take too long after the owner was asked do not decide: the owner is asked again.
#[test]
fn an_async_commit_that_is_too_late_asks_again_and_is_forbidden() {
    let world = World::new();
    let (options, asked) = until(TransactionOptions::default().async_commit(), Timestamp::MAX);
    let txn = world.run(world.client.begin_with(options)).expect("PD answers");
    KEYS.iter().for_each(|key| txn.put(*key, "v").expect("it fits"));
    world.inject(Fault::new(Effect::Delay(secs(4))).on(RequestKind::Prewrite).on_key(KEYS[2]));
    let commit = world.commit(&txn);
    world.pass(secs(3));
    // Whoever reads now has the late key commit later than it may.
    assert_eq!(world.read(KEYS[2]), None);
    world.join(commit).expect("it is allowed, again");
    let asked = asked.lock().expect("nobody panics").clone();
    assert_eq!(asked.len(), 2, "{asked:?}");
    for seen in world.seen(RequestKind::Prewrite) {
        let Request::Prewrite(prewrite) = &seen.request else { panic!() };
        let window = millis(2_000);
        assert!(prewrite.max_commit_ts <= asked[0].commit_ts.saturating_add(window).version());
    }
    assert_eq!(world.read_all(&KEYS), [some("v"), some("v"), some("v")]);
}

#[test]
fn a_pipelined_transaction_asks_too() {
    let world = World::new();
    let (options, asked) = until(TransactionOptions::default(), Timestamp::ZERO);
    let options = options.pipelined(PipelinedOptions::default());
    let txn = world.run(world.client.begin_pipelined(options)).expect("PD answers");
    KEYS.iter().for_each(|key| txn.put(*key, "never").expect("it fits"));
    let error = world.run(txn.commit()).expect_err("it is forbidden");
    assert!(matches!(error, Error::CommitForbidden { .. }), "{error}");
    assert_eq!(asked.lock().expect("nobody panics").len(), 1);
    assert_eq!(world.read_all(&KEYS), [None, None, None]);
}

#[test]
fn an_owner_that_never_answers_is_waited_for_until_the_time_limit() {
    let world = World::new();
    let options = TransactionOptions::default().timeout(secs(2)).check_commit(|_| std::future::pending());
    let txn = world.run(world.client.begin_with(options)).expect("PD answers");
    txn.put(KEYS[0], "never").expect("it fits");
    let (end, took) = world.timed(txn.commit());
    assert!(matches!(end, Err(Error::DeadlineExceeded { .. })), "{end:?}");
    assert!(took < millis(2_100), "{took:?}");
    world.until(|world| world.locks().is_empty());
}
