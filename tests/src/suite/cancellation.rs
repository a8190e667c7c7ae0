//! Futures that are dropped before their end.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use tikv::{Client, Key, Transaction};
use tikv_core::request::RequestKind;
use tikv_core::rng::Rng;
use tikv_sim::cluster::{Effect, Fault};

use crate::world::{Rt, World, poll_at_most};

fn key(index: u64) -> String {
    format!("{}/{index:02}", char::from(b'0' + (index * 75 / 50) as u8))
}

/// One call of some kind, dropped after so many polls.
async fn interrupted(client: &Client, kind: u64, index: u64, polls: u64) {
    let raw = client.raw();
    let run = async {
        match kind {
            0 => drop(raw.get(key(index)).await.unwrap()),
            1 => raw.put(key(index), "v").await.unwrap(),
            2 => drop(raw.batch_get((0..50).map(key)).await.unwrap()),
            3 => raw.batch_put((0..50).map(|index| (key(index), "v"))).await.unwrap(),
            4 => drop(raw.scan::<Key>(.., 100).await.unwrap()),
            5 => raw.delete_range(key(index)..key(49)).await.unwrap(),
            6 => drop(client.current_timestamp().await.unwrap()),
            7 => drop(client.snapshot().await.unwrap().batch_get((0..50).map(key)).await.unwrap()),
            _ => drop(client.snapshot().await.unwrap().scan::<Key>(.., 100).await.unwrap()),
        }
    };
    poll_at_most(polls, run).await;
}

/// Several hundred calls, each dropped somewhere.
pub async fn dropped_reads_and_writes_leave_the_client_usable(rt: &Rt) {
    let world = World::new(rt).await;
    let mut dice = Rng::new(7);
    for _ in 0..60 {
        let calls: Vec<_> = (0..10).map(|_| (dice.below(9), dice.below(50), dice.below(8))).collect();
        let calls = calls.into_iter().map(|(kind, index, polls)| interrupted(&world.client, kind, index, polls));
        futures::future::join_all(calls).await;
    }
    let raw = world.client.raw();
    raw.delete_range::<Key>(..).await.unwrap();
    raw.put("k", "v").await.unwrap();
    // A delete that was sent and dropped may come late, but not later than what was sent after it.
    assert_eq!(raw.get("k").await.unwrap(), Some("v".into()));
    world.client.run(async |txn: Transaction| txn.put("k", "v")).await.unwrap();
    assert_eq!(world.client.close(Duration::from_secs(30)).await, 0);
}

async fn pair(client: &Client) -> (Option<Bytes>, Option<Bytes>) {
    let snapshot = client.snapshot().await.unwrap();
    (snapshot.get("a").await.unwrap(), snapshot.get("z").await.unwrap())
}

/// Commits of two keys, dropped at any moment: both keys or none.
pub async fn a_dropped_commit_happens_wholly_or_not_at_all(rt: &Rt) {
    let world = World::new(rt).await;
    let client = world.client_of_short_lived_locks().await;
    let mut dice = Rng::new(11);
    let mut ended = 0;
    for round in 0..60 {
        let txn = client.begin().await.unwrap();
        txn.put("a", format!("{round}")).unwrap();
        txn.put("z", format!("{round}")).unwrap();
        if let Some(end) = poll_at_most(dice.below(12), txn.commit()).await {
            ended += u32::from(end.is_ok());
        }
        drop(txn);
        if round % 3 == 0 {
            let (a, z) = pair(&world.client).await;
            assert_eq!(a, z, "in round {round}");
        }
    }
    let (a, z) = pair(&world.client).await;
    assert_eq!(a, z, "in the end");
    assert!(ended > 0, "every commit was interrupted");
    assert_eq!(client.close(Duration::from_secs(30)).await, 0);
    pair(&world.client).await;
    world.no_locks_are_left().await;
}

/// The primary is committed, its owner loses interest: the secondaries are committed in the background.
pub async fn a_commit_that_is_being_decided_ends_without_its_owner(rt: &Rt) {
    let world = World::new(rt).await;
    world.inject(Fault::new(Effect::DelayReply(Duration::from_millis(200))).on(RequestKind::Commit).times(1));
    let owner = world.client_with(|builder| builder).await;
    let txn = owner.begin().await.unwrap();
    txn.put("a", "v").unwrap();
    txn.put("z", "v").unwrap();
    {
        // The primary is the smaller key.
        let committed = rt.until(async || world.client.snapshot().await.unwrap().get("a").await.unwrap());
        match select(pin!(txn.commit()), pin!(committed)).await {
            Either::Left((end, _)) => panic!("the reply was to be late: {end:?}"),
            Either::Right(_) => {}
        }
    }
    drop(txn);
    world.no_locks_are_left().await;
    assert_eq!(pair(&world.client).await, (Some("v".into()), Some("v".into())));
    assert_eq!(owner.close(Duration::from_secs(30)).await, 0);
}
