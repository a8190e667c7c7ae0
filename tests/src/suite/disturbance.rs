//! Regions split, leaders move, stores and members of PD go and come, and the client works on.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::{Either, join_all, select};
use tikv::{Client, Error, Key, Runtime, Transaction};
use tikv_core::rng::Rng;

use crate::world::{Rt, World};

const WRITERS: usize = 4;
const KEYS: usize = 100;
const ACCOUNTS: u64 = 20;

fn key(index: usize) -> String {
    format!("{}/{index:03}", char::from(b'0' + (index * 75 / KEYS) as u8))
}

/// Splits at one of the keys, or moves a leader.
fn disturb(world: &World, dice: &mut Rng) {
    if dice.below(3) == 0 {
        // Where a region begins already, it cannot be split.
        let _ = world.cluster.split(key(dice.below(KEYS as u64) as usize).as_bytes());
        return;
    }
    let regions: Vec<u64> = world
        .cluster
        .with_cluster(|cluster, _| cluster.topology().regions().iter().map(tikv_sim::cluster::Region::id).collect());
    let region = regions[dice.below(regions.len() as u64) as usize];
    world.cluster.transfer_leader(region, dice.range(1..4)).unwrap();
}

/// Disturbs until `work` is done.
async fn disturbed<T>(world: &World, work: impl Future<Output = T>) -> T {
    let mut dice = Rng::new(1);
    let mut work = pin!(work);
    loop {
        match select(work.as_mut(), world.rt.sleep(Duration::from_millis(1))).await {
            Either::Left((output, _)) => return output,
            Either::Right(_) => disturb(world, &mut dice),
        }
    }
}

/// Raw writers: nothing acknowledged is lost, and no error comes out.
pub async fn writers_go_on_while_regions_split_and_leaders_move(rt: &Rt) {
    let world = World::new(rt).await;
    let writers = (0..WRITERS).map(|writer| {
        let raw = world.client.raw();
        rt.task(async move {
            for round in 0..3 {
                for index in (writer..KEYS).step_by(WRITERS) {
                    raw.put(key(index), format!("{round}")).await.unwrap();
                    assert_eq!(raw.get(key(index)).await.unwrap(), Some(format!("{round}").into()));
                }
            }
        })
    });
    let writers = join_all(writers);
    disturbed(&world, writers).await;
    let found = disturbed(&world, world.client.raw().scan::<Key>(.., 1_000)).await.unwrap();
    assert_eq!(found.len(), KEYS);
    assert!(found.iter().enumerate().all(|(index, pair)| pair.key == key(index).into() && pair.value == "2"));
    let regions = world.cluster.with_cluster(|cluster, _| cluster.topology().regions().len());
    assert!(regions > 8, "nothing was split");
}

async fn transfer(txn: Transaction, from: String, to: String) -> Result<(), Error> {
    let balance = async |key: &String| {
        let value = txn.get(key.clone()).await?;
        let text = value.map_or_else(String::new, |value| String::from_utf8_lossy(&value).into_owned());
        Ok::<i64, Error>(text.parse().unwrap_or(100))
    };
    let (has, gets) = (balance(&from).await?, balance(&to).await?);
    txn.put(from, (has - 1).to_string())?;
    txn.put(to, (gets + 1).to_string())
}

async fn sum(client: &Client) -> (usize, i64) {
    let pairs = client.snapshot().await.unwrap().scan::<Key>(.., 1_000).await.unwrap();
    let balance = |value: &[u8]| std::str::from_utf8(value).unwrap().parse::<i64>().unwrap();
    (pairs.len(), pairs.iter().map(|pair| balance(&pair.value)).sum())
}

/// A bank: the sum is the same at every snapshot.
pub async fn transfers_keep_the_sum_while_regions_split_and_leaders_move(rt: &Rt) {
    let world = World::new(rt).await;
    let account = |number: u64| key((number * KEYS as u64 / ACCOUNTS) as usize);
    let txn = world.client.begin().await.unwrap();
    (0..ACCOUNTS).for_each(|number| txn.put(account(number), "100").unwrap());
    txn.commit().await.unwrap();
    let whole = (ACCOUNTS as usize, 100 * ACCOUNTS as i64);

    let done = Arc::new(AtomicU32::new(0));
    let workers: Vec<_> = (0..WRITERS as u64)
        .map(|worker| {
            let (client, done) = (world.client.clone(), Arc::clone(&done));
            rt.task(async move {
                let mut dice = Rng::new(worker);
                for _ in 0..25 {
                    let from = dice.below(ACCOUNTS);
                    let to = (from + dice.range(1..ACCOUNTS)) % ACCOUNTS;
                    client.run(|txn| transfer(txn, account(from), account(to))).await.unwrap();
                }
                done.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    let audit = async {
        while done.load(Ordering::Relaxed) < WRITERS as u32 {
            assert_eq!(sum(&world.client).await, whole);
        }
    };
    disturbed(&world, futures::future::join(audit, join_all(workers))).await;
    assert_eq!(sum(&world.client).await, whole);
}

/// With two of three replicas left the data is served.
pub async fn another_leader_serves_when_a_store_is_gone(rt: &Rt) {
    let world = World::new(rt).await;
    let raw = world.client.raw();
    for store in 1..=3 {
        raw.batch_put((0..KEYS).map(|index| (key(index), format!("before {store}")))).await.unwrap();
        world.cluster.stop_store(store).unwrap();
        for index in 0..KEYS {
            assert_eq!(raw.get(key(index)).await.unwrap(), Some(format!("before {store}").into()));
        }
        raw.batch_put((0..KEYS).map(|index| (key(index), format!("after {store}")))).await.unwrap();
        world.client.run(async |txn: Transaction| txn.put("txn", "1")).await.unwrap();
        world.cluster.start_store(store).unwrap();
    }
    assert_eq!(raw.scan::<Key>(.., 1_000).await.unwrap().len(), KEYS);
}

/// One store alone: while it is gone every call fails in time, afterwards none does.
pub async fn a_store_that_is_gone_and_back_is_used_again(rt: &Rt) {
    let world = World::with(rt, |options| {
        options.stores.truncate(1);
        options.replicas = 1;
    })
    .await;
    let raw = world.client.raw();
    raw.put("k", "before").await.unwrap();
    for round in 0..3 {
        world.cluster.stop_store(1).unwrap();
        let hasty = raw.clone().with_timeout(Duration::from_millis(300));
        let (get, put) = futures::future::join(hasty.get("k"), hasty.put("other", "v")).await;
        for error in [get.unwrap_err(), put.unwrap_err()] {
            assert!(error.is_timeout() && !error.to_string().is_empty(), "{error:?}");
        }
        // These are patient enough to see it come back.
        let waiting = raw.clone();
        let waiting = rt.task(async move { waiting.put("k", format!("{round}")).await });
        world.cluster.start_store(1).unwrap();
        waiting.await.unwrap();
        assert_eq!(raw.get("k").await.unwrap(), Some(format!("{round}").into()));
        world.client.run(async |txn: Transaction| txn.put("txn", format!("{round}"))).await.unwrap();
    }
}

/// PD's leader goes, another one follows.
pub async fn a_member_of_pd_takes_over(rt: &Rt) {
    let world = World::with(rt, |options| options.pd_members = 3).await;
    let mut last = world.client.current_timestamp().await.unwrap();
    for member in [1, 2] {
        world.cluster.stop_pd(member).unwrap();
        let now = world.client.current_timestamp().await.unwrap();
        assert!(now > last);
        last = now;
        world.client.run(async |txn: Transaction| txn.put(format!("{member}"), "v")).await.unwrap();
        world.cluster.start_pd(member).unwrap();
    }
    // Whoever comes new finds them too.
    assert!(world.client_with(|builder| builder).await.current_timestamp().await.unwrap() > last);
}

/// Without PD what is known goes on, and what needs PD waits for it.
pub async fn a_client_survives_a_pd_that_is_gone_for_a_while(rt: &Rt) {
    let world = World::new(rt).await;
    let raw = world.client.raw();
    raw.put("k", "v").await.unwrap();
    let before = world.client.current_timestamp().await.unwrap();
    world.cluster.stop_pd(1).unwrap();
    let client = world.client.clone();
    let waiting = rt.task(async move { client.current_timestamp().await });
    for _ in 0..20 {
        assert_eq!(raw.get("k").await.unwrap(), Some("v".into()));
    }
    world.cluster.start_pd(1).unwrap();
    assert!(waiting.await.unwrap() > before);
    world.client.run(async |txn: Transaction| txn.put("k", "v")).await.unwrap();
}
