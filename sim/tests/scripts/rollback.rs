//! Transactions that nobody waits for any more.

use std::pin::pin;

use futures::future::{Either, select};
use tikv::Runtime;
use tikv_core::request::RequestKind;
use tikv_sim::cluster::{Effect, Fault};

use crate::world::{KEYS, World, millis, secs};

/// S9: neither the transaction nor its client has an owner any more, and yet the locks go.
#[test]
fn a_commit_that_is_dropped_while_it_prewrites_leaves_no_locks() {
    let world = World::new();
    let leaving = world.another_client(|builder| builder);
    let txn = world.run(leaving.begin()).expect("PD answers");
    drop(leaving);
    KEYS.iter().for_each(|key| txn.put(*key, "never").expect("it fits"));
    world.inject(Fault::new(Effect::DelayReply(secs(20))).on(RequestKind::Prewrite).on_key(KEYS[2]));
    let runtime = world.runtime.clone();
    let given_up = async move {
        let commit = pin!(txn.commit());
        matches!(select(commit, runtime.sleep(millis(100))).await, Either::Right(_))
    };
    assert!(world.run(given_up));
    // Long before the locks expire.
    world.pass(secs(1));
    assert!(world.locks().is_empty());
    assert_eq!(world.count(RequestKind::Commit), 0);
    assert_eq!(world.read_all(&KEYS), [None, None, None]);
}

/// S9: the rollback is not sent once and forgotten.
#[test]
fn a_rollback_goes_on_through_an_outage_although_its_transaction_was_dropped() {
    let world = World::with_config(|config| config.call_timeout = secs(2));
    let txn = world.writes(&KEYS, "never");
    world.inject(Fault::new(Effect::Lose).on(RequestKind::Prewrite).on_key(KEYS[2]).forever());
    world.inject(Fault::new(Effect::Lose).on(RequestKind::BatchRollback).times(3));
    let runtime = world.runtime.clone();
    let given_up = async move {
        let commit = pin!(txn.commit());
        matches!(select(commit, runtime.sleep(millis(100))).await, Either::Right(_))
    };
    assert!(world.run(given_up));
    let store = world.leader_of(KEYS[0]);
    world.simulation().stop_store(store).expect("it runs");
    world.pass(secs(4));
    world.simulation().start_store(store).expect("it was stopped");
    world.pass(secs(30));
    assert!(world.locks().is_empty());
    assert_eq!(world.count(RequestKind::CheckTxnStatus), 0, "nobody else has helped");
}
