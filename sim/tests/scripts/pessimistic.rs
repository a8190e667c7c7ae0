//! Pessimistic transactions.

use tikv::membuffer::ValueRef;
use tikv::{Error, LockOptions, LockWait, Transaction, TransactionOptions, TxnState};
use tikv_core::request::RequestKind;
use tikv_sim::cluster::{Effect, region_error};

use crate::world::{KEYS, World, millis, secs, some};

fn pessimistic() -> TransactionOptions {
    TransactionOptions::default().pessimistic().lock_options(LockOptions::default().wait(LockWait::Always))
}

fn begin(world: &World) -> Transaction {
    world.run(world.client.begin_with(pessimistic())).expect("PD answers")
}

/// S14, under locks.
#[test]
fn no_update_under_locks_is_lost_whatever_becomes_of_prewrites() {
    let world = World::with_config(|config| config.call_timeout = millis(1_500));
    let mut arrived = 0;
    world.simulation().intercept(move |_, arrival| {
        if !matches!(arrival.kind(), RequestKind::Prewrite | RequestKind::PessimisticLock) {
            return None;
        }
        arrived += 1;
        let unknown = Box::new(region_error::undetermined_result());
        match arrived % 7 {
            0 => Some(Effect::LoseReply),
            2 => Some(Effect::RegionErrorAfter(unknown)),
            4 => Some(Effect::Lose),
            _ => None,
        }
    });
    let append = |txn: Transaction| async move {
        for key in ["0k", "zk"] {
            let value = txn.get_for_update(key).await?.unwrap_or_default();
            txn.put(key, [&value[..], b"x"].concat())?;
        }
        Ok(())
    };
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let client = world.client.clone();
            world.start(async move {
                for _ in 0..4 {
                    client.run_with(pessimistic(), append).await?;
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    for worker in workers {
        world.join(worker).expect("every answer comes in the end");
    }
    let all = Some("x".repeat(12));
    assert_eq!(world.read_all(&["0k", "zk"]), [all.clone(), all]);
}

/// S33: the store dies, and with it the lock in its memory; another transaction writes the key.
#[test]
fn a_lock_that_is_lost_with_the_memory_of_a_store_ends_the_transaction() {
    let world = World::new();
    let txn = begin(&world);
    world.run(txn.get_for_update(KEYS[0])).expect("locked");
    txn.put(KEYS[0], "overwritten").expect("open");
    let leader = world.leader_of(KEYS[0]);
    world.simulation().stop_store(leader).expect("it runs");
    world.pass(secs(20));
    world.simulation().start_store(leader).expect("it is stopped");
    world.write(&[KEYS[0]], "newer");
    let error = world.run(txn.commit()).expect_err("somebody else was faster");
    assert!(matches!(error, Error::PessimisticLockLost { .. }), "{error}");
    assert_eq!(world.read(KEYS[0]), some("newer"));
    world.until(|world| world.locks().is_empty());
}

/// S34: TiKV keeps the other owners of the lock safe, and the client takes the refusal for what it is.
#[test]
fn a_key_whose_lock_is_shared_is_not_written() {
    let world = World::new();
    world.write(&KEYS, "before");
    let (writer, other) = (begin(&world), begin(&world));
    for (txn, own) in [(&writer, KEYS[1]), (&other, KEYS[2])] {
        world.run(txn.get_for_update(own)).expect("locked");
        world.run(txn.lock_keys([KEYS[0]], LockOptions::default().shared())).expect("shared");
    }
    writer.put(KEYS[0], "after").expect("the buffer takes it");
    let error = world.run(writer.commit()).expect_err("it does not hold the key alone");
    assert!(!error.is_undetermined(), "{error}");
    assert_eq!(writer.state(), TxnState::RolledBack);
    other.put(KEYS[2], "after").expect("open");
    world.run(other.commit()).expect("its lock was not touched");
    assert_eq!(world.read_all(&KEYS), [some("before"), some("before"), some("after")]);
    world.until(|world| world.locks().is_empty());
}

/// client-go: `LockCtx.LockExpired`.
#[test]
fn who_can_no_longer_keep_its_locks_alive_is_told_before_its_commit() {
    let world = World::new();
    let txn = begin(&world);
    assert!(!txn.may_lose_locks(), "it has none");
    world.run(txn.get_for_update(KEYS[0])).expect("locked");
    world.pass(secs(60));
    assert!(!txn.may_lose_locks());
    let lock = world.locks().remove(0);
    let rollback = tikv_proto::kvrpcpb::PessimisticRollbackRequest {
        start_version: lock.lock_version,
        for_update_ts: lock.lock_for_update_ts,
        keys: vec![lock.key],
        ..Default::default()
    };
    world.ask(KEYS[0], rollback);
    world.pass(secs(60));
    assert!(txn.may_lose_locks());
    txn.rollback().expect("open");
    assert!(!txn.may_lose_locks(), "it needs none");
}

/// client-go: `SetKVFilter`.
#[test]
fn what_a_filter_leaves_out_is_not_written_and_stays_locked_until_the_commit() {
    let world = World::new();
    world.write(&KEYS, "before");
    let options =
        pessimistic().leave_out(|write| write.key.starts_with(b"a") || write.value.is_some_and(ValueRef::is_tombstone));
    let txn = world.run(world.client.begin_with(options)).expect("PD answers");
    world.run(txn.get_for_update(KEYS[1])).expect("locked");
    txn.put(KEYS[0], "after").expect("open");
    txn.put(KEYS[1], "after").expect("open");
    txn.delete(KEYS[2]).expect("open");
    world.run(txn.commit()).expect("nothing is in the way");
    world.until(|world| world.locks().is_empty());
    assert_eq!(world.read_all(&KEYS), [some("after"), some("before"), some("before")]);
}
