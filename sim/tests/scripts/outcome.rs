//! Whether a transaction has committed, and what its owner is told.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::future::{Either, select};
use tikv::{Error, Runtime, Transaction, TransactionOptions};
use tikv_core::request::RequestKind;
use tikv_proto::errorpb;
use tikv_sim::cluster::{Effect, Fault, region_error};

use crate::world::{KEYS, Other, World, millis, refused, secs, some};

/// The commit of the primary is executed, its answer lost; all that comes after it ends badly too.
fn lose_the_answer_to_the_commit(world: &World) {
    world.inject(Fault::new(Effect::LoseReply).on(RequestKind::Commit).on_key(KEYS[0]));
}

/// Nobody was told more than is true, and nothing was rolled back.
fn assert_left_open(world: &World, error: &Error) {
    assert!(error.is_undetermined(), "{error}");
    world.pass(secs(60));
    assert_eq!(world.count(RequestKind::BatchRollback), 0);
    world.clear_faults();
    assert_eq!(world.read_all(&KEYS), [some("v"), some("v"), some("v")], "it was committed");
}

/// S2.
#[test]
fn prewrites_that_are_cancelled_after_a_conflict_leave_the_outcome_certain() {
    let world = World::new();
    let txn = world.writes(&KEYS, "v");
    world.write(&KEYS[1..2], "other");
    world.inject(Fault::new(Effect::LoseReply).on(RequestKind::Prewrite).on_key(KEYS[2]));
    let (result, took) = world.timed(txn.commit());
    assert!(matches!(result, Err(Error::WriteConflict(_))), "{result:?}");
    assert!(took < millis(100), "nobody waited for the lost answer: {took:?}");
    world.pass(secs(1));
    assert!(world.locks().is_empty(), "what the cancelled prewrite locked is rolled back too");
    assert_eq!(world.read_all(&KEYS), [None, some("other"), None]);
}

/// S3.
#[test]
fn region_errors_after_a_lost_answer_do_not_make_it_a_failure() {
    let errors: [fn() -> errorpb::Error; 5] = [
        || region_error::region_not_found(1),
        region_error::stale_command,
        || region_error::server_is_busy("simulated", 0),
        || region_error::epoch_not_match(Default::default(), Vec::new()),
        || region_error::not_leader(1, None),
    ];
    for error in errors {
        let world = World::with_config(|config| config.call_timeout = secs(1));
        lose_the_answer_to_the_commit(&world);
        world.inject(Fault::new(refused(error())).on(RequestKind::Commit).on_key(KEYS[0]).forever());
        let begin = world.client.begin_with(TransactionOptions::default().timeout(secs(10)));
        let txn = world.run(begin).expect("PD answers");
        KEYS.iter().for_each(|key| txn.put(*key, "v").expect("it fits"));
        let error = world.run(txn.commit()).expect_err("no answer says that it is committed");
        assert_left_open(&world, &error);
    }
}

/// S3: nothing can be asked any more, neither the stores nor PD.
#[test]
fn an_outage_of_everything_after_a_lost_answer_does_not_make_it_a_failure() {
    let world = World::with_config(|config| config.call_timeout = secs(1));
    let txn = world.writes(&KEYS, "v");
    lose_the_answer_to_the_commit(&world);
    let commit = world.commit(&txn);
    world.until(|world| world.count(RequestKind::Commit) > 0);
    world.set_pd_cut_off(true);
    (1..=3).for_each(|store| world.simulation().stop_store(store).expect("it runs"));
    let error = world.join(commit).expect_err("nobody answers");
    assert!(error.is_undetermined(), "{error}");
    world.set_pd_cut_off(false);
    (1..=3).for_each(|store| world.simulation().start_store(store).expect("it was stopped"));
    world.pass(secs(5));
    assert_left_open(&world, &error);
}

/// S3.
#[test]
fn a_client_that_closes_before_the_answer_does_not_make_it_a_failure() {
    let world = World::new();
    let closing = world.another_client(|builder| builder);
    let txn = world.run(closing.begin()).expect("PD answers");
    KEYS.iter().for_each(|key| txn.put(*key, "v").expect("it fits"));
    lose_the_answer_to_the_commit(&world);
    let commit = world.commit(&txn);
    world.until(|world| world.count(RequestKind::Commit) > 0);
    world.run(closing.close(millis(10)));
    let error = world.join(commit).expect_err("the client is closed");
    assert_left_open(&world, &error);
}

/// S3: an owner who gives the future up learns nothing, and destroys nothing.
#[test]
fn an_owner_who_leaves_after_the_commit_was_sent_does_not_undo_it() {
    let world = World::with_config(|config| config.call_timeout = secs(1));
    let txn = world.writes(&KEYS, "v");
    lose_the_answer_to_the_commit(&world);
    let runtime = world.runtime.clone();
    let commit = async move {
        let commit = pin!(txn.commit());
        matches!(select(commit, runtime.sleep(millis(500))).await, Either::Right(_))
    };
    assert!(world.run(commit), "the answer is lost");
    world.pass(secs(30));
    assert_eq!(world.count(RequestKind::BatchRollback), 0);
    assert!(world.locks().is_empty(), "the commit went on without its owner");
    assert_eq!(world.read_all(&KEYS), [some("v"), some("v"), some("v")]);
}

/// S4: TiKV itself does not know, and will never know better.
#[test]
fn an_undetermined_result_of_the_primary_ends_the_commit_undetermined_at_once() {
    let world = World::new();
    let txn = world.writes(&KEYS, "v");
    let unknown = Effect::RegionErrorAfter(Box::new(region_error::undetermined_result()));
    world.inject(Fault::new(unknown).on(RequestKind::Commit).on_key(KEYS[0]));
    let (result, took) = world.timed(txn.commit());
    assert!(took < millis(100), "{took:?}");
    assert_eq!(world.count(RequestKind::Commit), 1, "it is not repeated");
    assert_left_open(&world, &result.expect_err("TiKV does not know"));
}

/// S4: what can be repeated is, as if the answer had been lost.
#[test]
fn an_undetermined_result_of_anything_but_the_primary_is_as_a_lost_answer() {
    for kind in [RequestKind::Prewrite, RequestKind::Commit, RequestKind::CheckTxnStatus, RequestKind::ResolveLock] {
        let world = World::new();
        let unknown = || Effect::RegionErrorAfter(Box::new(region_error::undetermined_result()));
        if kind == RequestKind::Commit {
            world.inject(Fault::new(unknown()).on(kind).on_key(KEYS[1]));
            world.inject(Fault::new(unknown()).on(kind).on_key(KEYS[2]));
        } else {
            world.inject(Fault::new(unknown()).on(kind).times(2));
        }
        if matches!(kind, RequestKind::CheckTxnStatus | RequestKind::ResolveLock) {
            let other = Other::new(&world, KEYS[0]);
            KEYS.iter().for_each(|key| other.prewrite(&world, key, "never"));
            world.pass(secs(2));
        }
        let txn = world.writes(&KEYS, "v");
        world.run(txn.commit()).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        world.pass(secs(10));
        assert!(world.locks().is_empty(), "{kind:?}");
        assert_eq!(world.read_all(&KEYS), [some("v"), some("v"), some("v")], "{kind:?}");
    }
}

/// S5.
#[test]
fn a_commit_that_no_store_took_is_a_failure_and_not_undetermined() {
    let errors: [fn() -> errorpb::Error; 4] = [
        || region_error::region_not_found(1),
        || region_error::epoch_not_match(Default::default(), Vec::new()),
        || region_error::not_leader(1, None),
        || region_error::server_is_busy("simulated", 0),
    ];
    for error in errors {
        let world = World::new();
        world.inject(Fault::new(refused(error())).on(RequestKind::Commit).forever());
        let begin = world.client.begin_with(TransactionOptions::default().timeout(secs(10)));
        let txn = world.run(begin).expect("PD answers");
        KEYS.iter().for_each(|key| txn.put(*key, "v").expect("it fits"));
        let error = world.run(txn.commit()).expect_err("no store takes it");
        assert!(!error.is_undetermined(), "{error}");
        world.pass(secs(10));
        assert!(world.locks().is_empty(), "it is rolled back");
        assert_eq!(world.read_all(&KEYS), [None, None, None]);
    }
}

/// S6.
#[test]
fn a_transaction_that_took_too_long_can_no_more_be_committed_by_anybody() {
    let world = World::with_config(|config| config.max_txn_age = secs(2));
    let txn = world.writes(&KEYS, "v");
    world.inject(Fault::new(Effect::DelayReply(millis(2_500))).on(RequestKind::Prewrite).on_key(KEYS[2]));
    let error = world.run(txn.commit()).expect_err("it took too long");
    assert!(matches!(error, Error::TxnTooOld { .. }), "{error}");
    assert_eq!(world.count(RequestKind::Commit), 0);
    // Who comes at once meets the locks, who comes later does not: both see the same.
    assert_eq!(world.read_all(&KEYS), [None, None, None]);
    world.pass(secs(1));
    assert!(world.locks().is_empty());
    assert_eq!(world.read_all(&KEYS), [None, None, None]);
}

/// S7: success is reported only of what is committed, also when somebody was faster with the rollback.
#[test]
fn a_commit_that_comes_after_the_rollback_by_another_is_no_success() {
    let world = World::new();
    let txn = world.writes(&KEYS, "v");
    world.inject(Fault::new(Effect::Delay(secs(10))).on(RequestKind::Commit).on_key(KEYS[0]));
    let commit = world.commit(&txn);
    world.until(|world| world.count(RequestKind::Commit) > 0);
    // Its locks live for 3 s.
    world.pass(secs(5));
    world.write(&KEYS, "newer");
    let error = world.join(commit).expect_err("another has rolled it back");
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert_eq!(world.read_all(&KEYS), [some("newer"), some("newer"), some("newer")]);
}

async fn append(txn: Transaction) -> Result<(), Error> {
    let value = txn.get("0k").await?.unwrap_or_default();
    txn.put("0k", [&value[..], b"x"].concat())
}

/// S18.
#[test]
fn work_whose_outcome_is_not_known_is_not_done_again() {
    let world = World::new();
    let unknown = Effect::RegionErrorAfter(Box::new(region_error::undetermined_result()));
    world.inject(Fault::new(unknown).on(RequestKind::Commit));
    let (client, attempts) = (world.client.clone(), Arc::new(AtomicU32::new(0)));
    let counted = attempts.clone();
    let result = world.run(client.run(move |txn| {
        counted.fetch_add(1, Ordering::Relaxed);
        append(txn)
    }));
    assert!(result.expect_err("TiKV does not know").is_undetermined());
    assert_eq!(attempts.load(Ordering::Relaxed), 1);
    assert_eq!(world.read("0k"), some("x"));
}

/// S18.
#[test]
fn an_outage_of_pd_makes_nobody_do_the_same_work_twice() {
    let world = World::new();
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let (client, runtime) = (world.client.clone(), world.runtime.clone());
            world.start(async move {
                let mut acknowledged = 0;
                for _ in 0..4 {
                    match client.run(append).await {
                        Ok(()) => acknowledged += 1,
                        Err(error) => assert!(!error.is_undetermined(), "the stores answer: {error}"),
                    }
                    runtime.sleep(millis(700)).await;
                }
                acknowledged
            })
        })
        .collect();
    for _ in 0..3 {
        world.pass(millis(500));
        world.set_pd_cut_off(true);
        world.pass(secs(5));
        world.set_pd_cut_off(false);
    }
    let acknowledged: usize = workers.into_iter().map(|worker| world.join(worker)).sum();
    assert!(acknowledged > 0);
    assert_eq!(world.read("0k"), Some("x".repeat(acknowledged)));
}
