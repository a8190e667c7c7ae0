//! Transactions that another task kills.

use tikv::{
    Error, LockOptions, LockWait, PipelinedOptions, PipelinedTransaction, Transaction, TransactionOptions, TxnState,
};
use tikv_core::request::RequestKind;
use tikv_sim::cluster::{Effect, Fault};

use crate::world::{KEYS, Other, World, millis, secs, some};

fn begin(world: &World, options: TransactionOptions) -> Transaction {
    world.run(world.client.begin_with(options)).expect("PD answers")
}

fn pessimistic() -> TransactionOptions {
    TransactionOptions::default().pessimistic().lock_options(LockOptions::default().wait(LockWait::Always))
}

/// What waits ends at once, and what comes later is not begun.
#[test]
fn reads_and_waits_for_locks_end_when_their_transaction_is_killed() {
    let world = World::new();
    world.write(&KEYS, "before");
    let other = Other { ttl: secs(300), ..Other::new(&world, KEYS[0]) };
    other.lock(&world, KEYS[0]);
    world.inject(Fault::new(Effect::Lose).on(RequestKind::Get).forever());
    let txn = begin(&world, pessimistic());
    let (reader, locker) = (txn.clone(), txn.clone());
    let read = world.start(async move { reader.get(KEYS[1]).await });
    let lock = world.start(async move { locker.get_for_update(KEYS[0]).await });
    world.pass(secs(2));
    let (handle, at) = (txn.kill_handle(), world.now());
    handle.clone().kill();
    assert_eq!(world.join(read), Err(Error::Killed));
    assert_eq!(world.join(lock), Err(Error::Killed));
    assert!(handle.is_killed() && world.now().saturating_since(at) < millis(5));
    world.forget_seen();
    assert_eq!(world.run(txn.batch_get(KEYS)), Err(Error::Killed));
    assert_eq!(world.run(txn.scan::<&str>(.., 10)), Err(Error::Killed));
    assert_eq!(world.run(txn.lock_keys(KEYS, LockOptions::default())), Err(Error::Killed));
    assert_eq!(world.count(RequestKind::BatchGet) + world.count(RequestKind::Scan), 0);
    assert_eq!(txn.state(), TxnState::Open);
    txn.rollback().expect("it is open");
}

#[test]
fn what_a_killed_transaction_has_locked_is_released_when_it_commits_in_vain() {
    let world = World::new();
    let txn = begin(&world, pessimistic());
    world.run(txn.lock_keys(KEYS, LockOptions::default())).expect("nothing is in the way");
    txn.put(KEYS[0], "never").expect("it fits");
    txn.kill_handle().kill();
    world.forget_seen();
    assert_eq!(world.run(txn.commit()), Err(Error::Killed));
    assert_eq!(txn.state(), TxnState::RolledBack);
    world.until(|world| world.locks().is_empty());
    assert_eq!(world.count(RequestKind::Prewrite), 0);
}

/// The transaction dies at some point of its commit. What its owner is told is what becomes of it.
#[test]
fn a_commit_that_is_killed_tells_the_truth() {
    let two_phases = TransactionOptions::default;
    let async_commit = || two_phases().async_commit();
    // The request that takes its time, and whether the outcome is open meanwhile.
    let cases = [
        (two_phases(), RequestKind::Prewrite, KEYS[2], false),
        (two_phases(), RequestKind::Commit, KEYS[0], true),
        (async_commit(), RequestKind::Prewrite, KEYS[0], true),
        (pessimistic(), RequestKind::Prewrite, KEYS[2], false),
        (pessimistic(), RequestKind::Commit, KEYS[0], true),
    ];
    for (options, kind, key, may_be_decided) in cases {
        for effect in [Effect::Delay(millis(400)), Effect::LoseReply] {
            let world = World::with_config(|config| config.call_timeout = secs(1));
            let txn = begin(&world, options.clone());
            if txn.is_pessimistic() {
                world.run(txn.lock_keys(KEYS, LockOptions::default())).expect("nothing is in the way");
            }
            KEYS.iter().for_each(|key| txn.put(*key, "v").expect("it fits"));
            world.inject(Fault::new(effect).on(kind).on_key(key));
            let commit = world.commit(&txn);
            world.until(|world| world.count_of(kind, key) > 0);
            world.pass(millis(50));
            txn.kill_handle().kill();
            match world.join(commit) {
                Ok(_) => {
                    assert!(may_be_decided && matches!(txn.state(), TxnState::Committed(_)));
                    assert_eq!(world.read_all(&KEYS), [some("v"), some("v"), some("v")]);
                }
                Err(error) => {
                    assert_eq!(error, Error::Killed);
                    assert!(!may_be_decided && txn.state() == TxnState::RolledBack);
                    world.until(|world| world.locks().is_empty());
                    assert_eq!(world.read_all(&KEYS), [None, None, None]);
                }
            }
            world.until(|world| world.locks().is_empty());
        }
    }
}

#[test]
fn who_waits_for_a_latch_can_be_killed() {
    let world = World::with_config(|config| config.local_latch_keys = 16);
    world.inject(Fault::new(Effect::Delay(secs(2))).on(RequestKind::Prewrite));
    let (first, second) = (world.writes(&KEYS, "first"), world.writes(&KEYS, "second"));
    let (first_commit, second_commit) = (world.commit(&first), world.commit(&second));
    world.pass(millis(100));
    second.kill_handle().kill();
    assert_eq!(world.join(second_commit), Err(Error::Killed));
    world.join(first_commit).expect("it is not concerned");
    assert_eq!(world.read_all(&KEYS), [some("first"), some("first"), some("first")]);
}

/// A killed transaction is not run again.
#[test]
fn who_runs_a_transaction_again_and_again_stops_when_it_is_killed() {
    let world = World::new();
    let client = world.client.clone();
    let killed = world.run(client.run(|txn| async move {
        txn.put(KEYS[0], "never")?;
        txn.kill_handle().kill();
        Ok(())
    }));
    assert_eq!(killed, Err(Error::Killed));
    assert_eq!(world.read(KEYS[0]), None);
}

/// A pipelined transaction that has flushed the first key, and written the others.
fn half_flushed(world: &World) -> PipelinedTransaction {
    let options = TransactionOptions::default().pipelined(PipelinedOptions::default());
    let txn = world.run(world.client.begin_pipelined(options)).expect("PD answers");
    txn.put(KEYS[0], "v").expect("it fits");
    world.run(txn.flush()).and_then(|_| world.run(txn.flush_wait())).expect("nothing is in the way");
    KEYS[1..].iter().for_each(|key| txn.put(*key, "v").expect("it fits"));
    txn
}

#[test]
fn a_pipelined_transaction_that_is_killed_takes_no_more_and_is_rolled_back_when_it_commits() {
    let world = World::new();
    world.inject(Fault::new(Effect::Lose).on(RequestKind::BufferBatchGet).forever());
    let txn = half_flushed(&world);
    let reader = txn.clone();
    let read = world.start(async move { reader.get(KEYS[0]).await });
    world.pass(millis(100));
    txn.kill_handle().kill();
    assert_eq!(world.join(read), Err(Error::Killed));
    assert_eq!(txn.put(KEYS[0], "w"), Err(Error::Killed));
    assert_eq!(world.run(txn.flush()), Err(Error::Killed));
    assert_eq!(txn.state(), TxnState::Open);
    assert_eq!(world.run(txn.commit()), Err(Error::Killed));
    assert_eq!(txn.state(), TxnState::RolledBack);
    world.until(|world| world.locks().is_empty());
    assert_eq!(world.count(RequestKind::Commit), 0);
}

#[test]
fn who_waits_for_a_flush_can_be_killed() {
    let world = World::new();
    world.inject(Fault::new(Effect::Delay(secs(2))).on(RequestKind::Flush).on_key(KEYS[1]));
    let txn = half_flushed(&world);
    assert_eq!(world.run(txn.flush()), Ok(true));
    let waiter = txn.clone();
    let wait = world.start(async move { waiter.flush_wait().await });
    let commit = world.start({
        let txn = txn.clone();
        async move { txn.commit().await }
    });
    world.pass(millis(100));
    txn.kill_handle().kill();
    assert_eq!(world.join(wait), Err(Error::Killed));
    assert_eq!(world.join(commit), Err(Error::Killed));
    world.until(|world| world.locks().is_empty());
    assert_eq!(world.read_all(&KEYS), [None, None, None]);
}

#[test]
fn a_pipelined_commit_that_is_killed_tells_the_truth() {
    // The request that takes its time, and whether the outcome is open meanwhile.
    for (kind, key, may_be_decided) in [(RequestKind::Flush, KEYS[1], false), (RequestKind::Commit, KEYS[0], true)] {
        let world = World::new();
        world.inject(Fault::new(Effect::Delay(millis(400))).on(kind).on_key(key));
        let txn = half_flushed(&world);
        let commit = world.start({
            let txn = txn.clone();
            async move { txn.commit().await }
        });
        world.until(|world| world.count_of(kind, key) > 0);
        world.pass(millis(50));
        txn.kill_handle().kill();
        let value = match world.join(commit) {
            Ok(_) => {
                assert!(may_be_decided && matches!(txn.state(), TxnState::Committed(_)));
                some("v")
            }
            Err(error) => {
                assert_eq!(error, Error::Killed);
                assert!(!may_be_decided && txn.state() == TxnState::RolledBack);
                None
            }
        };
        world.until(|world| world.locks().is_empty());
        assert_eq!(world.read_all(&KEYS), [value.clone(), value.clone(), value]);
    }
}
