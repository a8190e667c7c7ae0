//! Locks that a transaction left behind, and those of transactions that live.

use std::time::Duration;

use tikv::{Client, Error, Isolation, Key, Pair, Timestamp, Transaction, TransactionOptions};
use tikv_core::key::KeyRange;
use tikv_core::request::RequestKind;
use tikv_sim::cluster::{Effect, Fault};

use crate::world::{Rt, World};

/// How others meet a lock.
const WAYS: [&str; 5] = ["get", "batch get", "scan", "reverse scan", "write"];

/// Keys in three regions; the first one becomes the primary.
fn keys(tag: &str) -> [String; 3] {
    ["0", "a", "z"].map(|first| format!("{first}/{tag}"))
}

/// Writes, and waits for the background, so that no fault ordered later hits this transaction.
async fn write(world: &World, keys: &[String], value: &'static str) {
    let txn = world.client.begin().await.unwrap();
    keys.iter().for_each(|key| txn.put(key, value).unwrap());
    txn.commit().await.unwrap();
    world.no_locks_are_left().await;
}

/// Writes over what others left.
async fn overwrite(world: &World, keys: &[String]) {
    let write = async |txn: Transaction| keys.iter().try_for_each(|key| txn.put(key, "overwritten"));
    world.client.run(write).await.unwrap();
}

async fn read(client: &Client, keys: &[String]) -> Vec<String> {
    let found = client.snapshot().await.unwrap().batch_get(keys.iter().cloned()).await.unwrap();
    texts(found)
}

fn texts(pairs: Vec<Pair>) -> Vec<String> {
    pairs.into_iter().map(|pair| String::from_utf8(pair.value.to_vec()).unwrap()).collect()
}

/// Prewrites everything; the commit of the primary never arrives.
async fn leave_prewritten(world: &World, keys: &[String], value: &'static str) {
    let client = world.client_of_short_lived_locks().await;
    for timeout in [1, 2, 4, 8, 16, 32].map(Duration::from_secs) {
        world.inject(Fault::new(Effect::Lose).on(RequestKind::Commit).forever());
        let txn = client.begin_with(TransactionOptions::default().timeout(timeout)).await.unwrap();
        keys.iter().for_each(|key| txn.put(key, value).unwrap());
        let error = txn.commit().await.unwrap_err();
        world.clear_faults();
        if error.is_undetermined() {
            return;
        }
        // Too slow to get to the commit in time.
        world.no_locks_are_left().await;
    }
    panic!("no commit was ever sent");
}

/// Commits the primary; the commits of the other regions never arrive.
async fn leave_secondaries(world: &World, keys: &[String], value: &'static str) {
    let client = world.client_of_short_lived_locks().await;
    let primary = world.region_of(&keys[0]);
    for region in keys.iter().map(|key| world.region_of(key)).filter(|region| *region != primary) {
        world.inject(Fault::new(Effect::Lose).on(RequestKind::Commit).on_region(region).forever());
    }
    let txn = client.begin().await.unwrap();
    keys.iter().for_each(|key| txn.put(key, value).unwrap());
    txn.commit().await.unwrap();
}

/// Reads in one of the ways (or overwrites, and reads then). The values, in the order of the keys.
async fn meet(world: &World, way: &str, keys: &[String]) -> Vec<String> {
    let snapshot = world.client.snapshot().await.unwrap();
    match way {
        "get" => {
            let mut values = Vec::new();
            for key in keys {
                let value = snapshot.get(key.clone()).await.unwrap();
                values.extend(value.map(|value| String::from_utf8(value.to_vec()).unwrap()));
            }
            values
        }
        "batch get" => texts(snapshot.batch_get(keys.iter().cloned()).await.unwrap()),
        "scan" | "reverse scan" => {
            let mut values = Vec::new();
            for key in keys {
                let only = key.clone()..=key.clone();
                let scan =
                    if way == "scan" { snapshot.scan(only, 2).await } else { snapshot.reverse_scan(only, 2).await };
                values.extend(texts(scan.unwrap()));
            }
            values
        }
        _ => {
            overwrite(world, keys).await;
            read(&world.client, keys).await
        }
    }
}

/// Nobody can be sure that a transaction without a committed primary is dead before its lock expires. Then it is.
pub async fn what_was_only_prewritten_is_rolled_back_by_who_meets_it(rt: &Rt) {
    let world = World::new(rt).await;
    let sets = WAYS.map(keys);
    for keys in &sets {
        write(&world, keys, "before").await;
    }
    futures::future::join_all(sets.iter().map(|keys| leave_prewritten(&world, keys, "never"))).await;
    for (way, keys) in WAYS.iter().zip(&sets) {
        let wanted = if *way == "write" { "overwritten" } else { "before" };
        assert_eq!(meet(&world, way, keys).await, [wanted; 3], "{way}");
        assert_eq!(read(&world.client, keys).await, [wanted; 3], "{way}, once more");
    }
}

/// The primary decides.
pub async fn what_is_committed_at_its_primary_is_committed_by_who_meets_it(rt: &Rt) {
    let world = World::new(rt).await;
    let sets = WAYS.map(keys);
    for keys in &sets {
        write(&world, keys, "before").await;
    }
    for keys in &sets {
        leave_secondaries(&world, keys, "after").await;
    }
    for (way, keys) in WAYS.iter().zip(&sets) {
        let wanted = if *way == "write" { "overwritten" } else { "after" };
        assert_eq!(meet(&world, way, keys).await, [wanted; 3], "{way}");
        assert_eq!(read(&world.client, keys).await, [wanted; 3], "{way}, once more");
    }
}

/// Every third of many keys is locked, by two transactions with different fates.
pub async fn a_scan_goes_through_locks_among_many_keys(rt: &Rt) {
    let world = World::new(rt).await;
    let first = |index: usize| char::from(b'0' + (index * 75 / 300) as u8);
    let all: Vec<String> = (0..300).map(|index| format!("{}/{index:03}", first(index))).collect();
    write(&world, &all, "before").await;
    let every_third = |from: usize| all.iter().skip(from).step_by(3).cloned().collect::<Vec<_>>();
    leave_prewritten(&world, &every_third(0), "never").await;
    leave_secondaries(&world, &every_third(1), "after").await;
    let mut wanted: Vec<&str> = (0..300).map(|index| if index % 3 == 1 { "after" } else { "before" }).collect();
    let snapshot = world.client.snapshot().await.unwrap();
    assert_eq!(texts(snapshot.scan::<Key>(.., 1_000).await.unwrap()), wanted);
    wanted.reverse();
    let snapshot = world.client.snapshot().await.unwrap();
    assert_eq!(texts(snapshot.reverse_scan::<Key>(.., 1_000).await.unwrap()), wanted);
}

/// Who reads at a timestamp before the lock does not meet it.
pub async fn a_snapshot_from_before_a_lock_is_not_held_up(rt: &Rt) {
    let world = World::new(rt).await;
    let keys = keys("k");
    write(&world, &keys, "before").await;
    let snapshot = world.client.snapshot().await.unwrap();
    world.inject(Fault::new(Effect::Lose).on(RequestKind::Commit).forever());
    world.inject(Fault::new(Effect::Lose).on(RequestKind::CheckTxnStatus).forever());
    let txn = world.client.begin().await.unwrap();
    keys.iter().for_each(|key| txn.put(key, "never").unwrap());
    let commit = rt.task(async move { txn.commit().await });
    locked(&world).await;
    assert_eq!(texts(snapshot.batch_get(keys.clone()).await.unwrap()), ["before"; 3]);
    assert_eq!(texts(snapshot.scan::<Key>(.., 10).await.unwrap()), ["before"; 3]);
    drop(commit);
}

/// A reader and a writer that is slow to commit: whoever comes first in the order of timestamps, the reader sees that order.
pub async fn a_reader_and_a_living_transaction_agree_on_their_order(rt: &Rt) {
    let world = World::new(rt).await;
    let keys = keys("k");
    write(&world, &keys, "before").await;
    for delay in [0, 20, 100].map(Duration::from_millis) {
        world.inject(Fault::new(Effect::Delay(delay)).on(RequestKind::Commit).times(1));
        let txn = world.client.begin().await.unwrap();
        keys.iter().for_each(|key| txn.put(key, format!("after {delay:?}")).unwrap());
        let before = read(&world.client, &keys).await;
        let commit = rt.task(async move { txn.commit().await });
        let snapshot = world.client.snapshot().await.unwrap();
        let seen = texts(snapshot.batch_get(keys.clone()).await.unwrap());
        let commit_ts: Timestamp = commit.await.unwrap().commit_ts.unwrap();
        let after = vec![format!("after {delay:?}"); 3];
        let wanted = if commit_ts > snapshot.read_ts() { before } else { after.clone() };
        assert_eq!(seen, wanted, "{commit_ts} and {}", snapshot.read_ts());
        assert_eq!(read(&world.client, &keys).await, after);
    }
}

/// Waits until a transaction has locks.
async fn locked(world: &World) {
    let oldest = || world.cluster.with_cluster(|cluster, _| cluster.storage().oldest_prewrite(&KeyRange::ALL));
    world.rt.until(async || oldest().map(drop)).await;
}

/// A reader with a time limit says which transaction was in its way.
pub async fn a_reader_that_waits_too_long_says_for_whom(rt: &Rt) {
    let world = World::new(rt).await;
    let keys = keys("k");
    world.inject(Fault::new(Effect::Lose).on(RequestKind::Commit).forever());
    let txn = world.client.begin().await.unwrap();
    let start_ts = txn.start_ts();
    keys.iter().for_each(|key| txn.put(key, "never").unwrap());
    let commit = rt.task(async move { txn.commit().await });
    locked(&world).await;
    let snapshot = world.client.snapshot().await.unwrap().with_timeout(Duration::from_millis(300));
    // Nobody can push a transaction whose status cannot be learnt.
    world.inject(Fault::new(Effect::Lose).on(RequestKind::CheckTxnStatus).forever());
    let error = snapshot.get(keys[0].clone()).await.unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error:?} of {start_ts}");
    drop(commit);
}

/// client-go: `TestRCRead`.
pub async fn reads_of_whatever_is_committed_pass_locks(rt: &Rt) {
    let world = World::new(rt).await;
    let keys = keys("rc");
    write(&world, &keys, "old").await;
    leave_prewritten(&world, &keys, "never").await;
    let snapshot = world.client.snapshot().await.unwrap();
    let snapshot = snapshot.with_options(|options| options.isolation(Isolation::ReadCommitted));
    assert_eq!(snapshot.get(keys[0].clone()).await.unwrap(), Some("old".into()));
    assert_eq!(texts(snapshot.batch_get(keys.clone()).await.unwrap()), ["old"; 3]);
    assert_eq!(texts(snapshot.scan::<Key>(.., 10).await.unwrap()), ["old"; 3]);
    let oldest = world.cluster.with_cluster(|cluster, _| cluster.storage().oldest_prewrite(&KeyRange::ALL));
    assert!(oldest.is_some(), "nobody has resolved them");
}
