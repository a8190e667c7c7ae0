//! Transactions that lock keys before they write them.

use std::time::Duration;

use futures::future::join_all;
use tikv::{
    Client, Config, Error, InvalidLock, LockOptions, LockWait, OnConflict, Transaction, TransactionOptions, TxnState,
};

use crate::world::{Rt, World, poll_at_most};

const ALWAYS: LockWait = LockWait::Always;

fn pessimistic() -> TransactionOptions {
    TransactionOptions::default().pessimistic().lock_options(LockOptions::default().wait(ALWAYS))
}

async fn begin(client: &Client) -> Transaction {
    client.begin_with(pessimistic()).await.unwrap()
}

fn no_wait() -> LockOptions {
    LockOptions::default().wait(LockWait::NoWait)
}

/// Waits until nobody holds a lock on these keys.
async fn are_free(world: &World, keys: &[&str]) {
    world
        .rt
        .until(async || {
            let probe = begin(&world.client).await;
            let end = probe.lock_keys(keys.iter().copied(), no_wait()).await;
            probe.rollback().unwrap();
            end.ok().map(drop)
        })
        .await;
}

async fn value(client: &Client, key: &str) -> Option<String> {
    let value = client.snapshot().await.unwrap().get(key).await.unwrap();
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// One transaction has a key; who does not want to wait is told, who waits gets it, with the new value.
pub async fn a_locked_key_is_written_by_nobody_else(rt: &Rt) {
    let world = World::new(rt).await;
    let owner = begin(&world.client).await;
    assert_eq!(owner.get_for_update("k").await.unwrap(), None);
    let other = begin(&world.client).await;
    let error = other.lock_keys(["k"], no_wait()).await.unwrap_err();
    assert!(matches!(&error, Error::LockedNoWait(lock) if lock.start_ts == owner.start_ts()), "{error:?}");
    let short = LockOptions::default().wait(LockWait::For(Duration::from_millis(100)));
    let error = other.lock_keys(["k"], short).await.unwrap_err();
    assert!(matches!(error, Error::LockWaitTimeout(_)) && error.is_timeout(), "{error:?}");
    let waiting = rt.task({
        let other = other.clone();
        async move { other.get_for_update("k").await }
    });
    owner.put("k", "1").unwrap();
    owner.commit().await.unwrap();
    assert_eq!(waiting.await.unwrap(), Some("1".into()));
    assert_eq!(other.get("k").await.unwrap(), None, "a read at its start");
    other.put("k", "2").unwrap();
    other.commit().await.unwrap();
    assert_eq!(value(&world.client, "k").await, Some("2".into()));
}

/// A hot counter: nobody has to run anything again.
pub async fn increments_under_a_lock_all_count_at_the_first_attempt(rt: &Rt) {
    let world = World::new(rt).await;
    let increment = async || {
        let txn = begin(&world.client).await;
        let count = txn.get_for_update("k").await.unwrap().map_or(0, |value| value[0]);
        txn.put("k", vec![count + 1]).unwrap();
        txn.commit().await.unwrap();
    };
    join_all((0..20).map(|_| increment())).await;
    assert_eq!(world.client.snapshot().await.unwrap().get("k").await.unwrap(), Some(vec![20].into()));
}

/// Each has what the other wants. One of them is told, and the other goes on.
pub async fn of_two_that_wait_for_each_other_one_is_told(rt: &Rt) {
    let world = World::new(rt).await;
    let (first, second) = (begin(&world.client).await, begin(&world.client).await);
    first.get_for_update("a").await.unwrap();
    second.get_for_update("z").await.unwrap();
    let want = async |txn: &Transaction, key: &'static str| {
        let end = txn.get_for_update(key).await;
        if end.is_err() {
            txn.rollback().unwrap();
        }
        end
    };
    let (one, other) = futures::join!(want(&first, "z"), want(&second, "a"));
    let (error, survivor) = match (one, other) {
        (Err(error), Ok(_)) => (error, second),
        (Ok(_), Err(error)) => (error, first),
        other => panic!("{other:?}"),
    };
    let Error::Deadlock(deadlock) = &error else { panic!("{error}") };
    assert!(deadlock.wait_chain.len() >= 2 && error.is_retryable());
    survivor.put("a", "1").unwrap();
    survivor.commit().await.unwrap();
    are_free(&world, &["a", "z"]).await;
}

/// Transactions in all orders over a few keys, run again after deadlocks.
pub async fn run_tries_again_after_deadlocks(rt: &Rt) {
    let world = World::new(rt).await;
    let keys = ["a", "k", "z"];
    let transfer = async |first: usize, second: usize| {
        let body = async |txn: Transaction| {
            for key in [keys[first], keys[second]] {
                let count = txn.get_for_update(key).await?.map_or(0, |value| value[0]);
                txn.put(key, vec![count + 1])?;
            }
            Ok(())
        };
        world.client.run_with(pessimistic(), body).await.unwrap();
    };
    join_all((0..18).map(|index| transfer(index % 3, (index + 1 + index / 9) % 3))).await;
    let found = world.client.snapshot().await.unwrap().batch_get(keys).await.unwrap();
    assert_eq!(found.iter().map(|pair| u32::from(pair.value[0])).sum::<u32>(), 36);
}

/// Rolled back or dropped, a transaction leaves nothing locked.
pub async fn who_gives_up_holds_nothing(rt: &Rt) {
    let world = World::new(rt).await;
    for way in ["rollback", "drop", "failed commit"] {
        let txn = begin(&world.client).await;
        txn.lock_keys(["a", "k", "z"], LockOptions::default()).await.unwrap();
        match way {
            "rollback" => txn.rollback().unwrap(),
            "drop" => drop(txn),
            _ => {
                world.client.run(async |other: Transaction| other.put("unlocked", "1")).await.unwrap();
                txn.put("unlocked", "2").unwrap();
                let error = txn.commit().await.unwrap_err();
                assert!(matches!(error, Error::WriteConflict(_)), "{error}");
                assert_eq!(txn.state(), TxnState::RolledBack);
            }
        }
        are_free(&world, &["a", "k", "z"]).await;
    }
}

/// A transaction that lives keeps its locks, however short their life.
pub async fn locks_outlast_their_life_as_long_as_their_transaction_lives(rt: &Rt) {
    let world = World::new(rt).await;
    let mut config = Config::default();
    config.managed_lock_ttl = Duration::from_millis(600);
    let client = world.client_with(|builder| builder.config(config)).await;
    let txn = begin(&client).await;
    txn.get_for_update("k").await.unwrap();
    let patient = LockOptions::default().wait(LockWait::For(Duration::from_millis(2_500)));
    let error = begin(&world.client).await.lock_keys(["k"], patient).await.unwrap_err();
    assert!(matches!(error, Error::LockWaitTimeout(_)), "{error}");
    txn.put("k", "1").unwrap();
    txn.commit().await.unwrap();
    assert_eq!(value(&world.client, "k").await, Some("1".into()));
}

/// Calls that lock, dropped anywhere; the transaction goes on.
pub async fn a_call_that_is_dropped_leaves_the_transaction_usable_and_nothing_locked(rt: &Rt) {
    let world = World::new(rt).await;
    for polls in 0..14 {
        let txn = begin(&world.client).await;
        txn.lock_keys(["m"], LockOptions::default()).await.unwrap();
        poll_at_most(polls, txn.lock_keys(["a", "k", "z"], LockOptions::default())).await;
        txn.put("m", format!("{polls}")).unwrap();
        txn.commit().await.unwrap();
        are_free(&world, &["a", "k", "m", "z"]).await;
        assert_eq!(value(&world.client, "m").await, Some(polls.to_string()));
    }
    assert_eq!(world.client.close(Duration::from_secs(30)).await, 0);
}

/// Dropped while TiKV lets it wait.
pub async fn a_wait_that_is_dropped_takes_no_lock_later(rt: &Rt) {
    let world = World::new(rt).await;
    let owner = begin(&world.client).await;
    owner.get_for_update("k").await.unwrap();
    for fair in [false, true] {
        let other = begin(&world.client).await;
        let _statement = fair.then(|| other.fair_locking().unwrap());
        poll_at_most(12, other.lock_keys(["k"], LockOptions::default().wait(ALWAYS))).await;
    }
    owner.rollback().unwrap();
    are_free(&world, &["k"]).await;
}

/// Keys that must be absent.
pub async fn an_absent_key_stays_absent_until_it_is_put(rt: &Rt) {
    let world = World::new(rt).await;
    world.client.run(async |txn: Transaction| txn.put("a", "1")).await.unwrap();
    let txn = begin(&world.client).await;
    assert_eq!(txn.put_if_absent("a", "2").await.unwrap_err(), Error::KeyExists { key: "a".into() });
    txn.put_if_absent("b", "2").await.unwrap();
    assert_eq!(txn.put_if_absent("b", "3").await.unwrap_err(), Error::KeyExists { key: "b".into() });
    let error = begin(&world.client).await.lock_keys(["b"], no_wait()).await.unwrap_err();
    assert!(matches!(error, Error::LockedNoWait(_)), "{error}");
    // Keys that were locked without a look.
    txn.lock_keys(["a", "c"], LockOptions::default()).await.unwrap();
    assert_eq!(txn.put_if_absent("a", "2").await.unwrap_err(), Error::KeyExists { key: "a".into() });
    txn.put_if_absent("c", "2").await.unwrap();
    let error = txn.insert("a", "2").unwrap_err();
    assert_eq!(error, Error::InvalidLock(InvalidLock::ExistenceUnknown { key: "a".into() }));
    // Keys that were not locked at all are checked by the commit.
    txn.insert("d", "2").unwrap();
    txn.commit().await.unwrap();
    let late = begin(&world.client).await;
    late.lock_keys(["m"], LockOptions::default()).await.unwrap();
    late.insert("d", "3").unwrap();
    assert_eq!(late.commit().await.unwrap_err(), Error::KeyExists { key: "d".into() });
    are_free(&world, &["a", "b", "c", "d", "m"]).await;
}

/// Values come with locks, in the order of the question, own writes among them.
pub async fn many_keys_are_locked_and_read_at_once(rt: &Rt) {
    let world = World::new(rt).await;
    let write = async |txn: Transaction| ["a", "k", "z"].into_iter().try_for_each(|key| txn.put(key, key));
    world.client.run(write).await.unwrap();
    let txn = begin(&world.client).await;
    world.client.run(async |other: Transaction| other.put("z", "newer")).await.unwrap();
    txn.put("own", "mine").unwrap();
    txn.delete("k").unwrap();
    for _ in 0..2 {
        let pairs = txn.batch_get_for_update(["z", "own", "absent", "k", "a"]).await.unwrap();
        let pairs: Vec<_> = pairs.iter().map(|pair| (pair.key.as_slice(), &pair.value[..])).collect();
        assert_eq!(pairs, [(&b"z"[..], &b"newer"[..]), (b"own", b"mine"), (b"a", b"a")], "the same when they are held");
    }
    let error = begin(&world.client).await.lock_keys(["absent"], no_wait()).await.unwrap_err();
    assert!(matches!(error, Error::LockedNoWait(_)), "{error}");
    txn.commit().await.unwrap();
}

/// Who wants to know that a key is newer than the timestamp of its lock is told.
pub async fn a_conflict_is_reported_to_who_wants_to_know(rt: &Rt) {
    let world = World::new(rt).await;
    let owner = begin(&world.client).await;
    owner.get_for_update("k").await.unwrap();
    let other = begin(&world.client).await;
    let options = LockOptions::default().wait(ALWAYS).on_conflict(OnConflict::Fail);
    let waiting = rt.task({
        let other = other.clone();
        async move { other.lock_keys(["k"], options).await }
    });
    owner.put("k", "1").unwrap();
    owner.commit().await.unwrap();
    match waiting.await {
        // Whoever asks for a timestamp after the commit meets no conflict.
        Err(Error::WriteConflict(conflict)) => assert_eq!(conflict.conflict_ts, owner.start_ts()),
        Ok(locked) => assert!(locked[0].lock_ts > owner.start_ts()),
        Err(error) => panic!("{error}"),
    }
}

/// In fair locking the lock comes with the newest version, and stays through another attempt.
pub async fn a_fair_lock_is_kept_by_the_next_attempt(rt: &Rt) {
    let world = World::new(rt).await;
    let increment = async || {
        let txn = begin(&world.client).await;
        let options = LockOptions::default().wait(ALWAYS).return_values();
        let mut statement = txn.fair_locking().unwrap();
        let locked = loop {
            let locked = txn.lock_keys(["k"], options).await.unwrap().remove(0);
            if !locked.in_conflict {
                break locked;
            }
            statement.retry().unwrap();
        };
        let count = locked.value.map_or(0, |value| value[0]);
        assert!(matches!(txn.commit().await, Err(Error::InvalidLock(InvalidLock::Fair))));
        statement.finish().unwrap();
        txn.put("k", vec![count + 1]).unwrap();
        txn.commit().await.unwrap();
    };
    join_all((0..12).map(|_| increment())).await;
    assert_eq!(world.client.snapshot().await.unwrap().get("k").await.unwrap(), Some(vec![12].into()));
    let txn = begin(&world.client).await;
    drop(txn.fair_locking().unwrap());
    let statement = txn.fair_locking().unwrap();
    txn.lock_keys(["k"], LockOptions::default()).await.unwrap();
    statement.cancel().unwrap();
    are_free(&world, &["k"]).await;
    txn.commit().await.unwrap();
}

/// Shared locks keep writers away, not each other.
pub async fn shared_locks_are_shared(rt: &Rt) {
    let world = World::new(rt).await;
    let (first, second) = (begin(&world.client).await, begin(&world.client).await);
    let shared = LockOptions::default().shared();
    let error = first.lock_keys(["k"], shared).await.unwrap_err();
    assert_eq!(error, Error::InvalidLock(InvalidLock::SharedWithoutPrimary));
    for (txn, own) in [(&first, "a"), (&second, "z")] {
        txn.lock_keys([own], LockOptions::default()).await.unwrap();
        txn.lock_keys(["k"], shared).await.unwrap();
        txn.put(own, "1").unwrap();
    }
    let writer = begin(&world.client).await;
    let error = writer.lock_keys(["k"], no_wait()).await.unwrap_err();
    assert!(matches!(error, Error::LockedNoWait(_)), "{error}");
    first.commit().await.unwrap();
    second.rollback().unwrap();
    are_free(&world, &["a", "k", "z"]).await;
    assert_eq!((value(&world.client, "a").await, value(&world.client, "z").await), (Some("1".into()), None));
}
