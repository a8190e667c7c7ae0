//! Transactions of one client that take turns to commit.

use std::time::Duration;

use futures::future::join;
use tikv::{Client, Config, Error, Transaction, TransactionOptions};
use tikv_core::request::RequestKind;
use tikv_sim::cluster::{Effect, Fault};

use crate::world::{Rt, World, poll_at_most};

async fn client(world: &World) -> Client {
    let mut config = Config::default();
    config.local_latch_keys = 1_000;
    world.client_with(|builder| builder.config(config)).await
}

async fn begun(client: &Client, keys: &[&'static str]) -> Transaction {
    let txn = client.begin().await.unwrap();
    for key in keys {
        txn.put(*key, "v").unwrap();
    }
    txn
}

/// The loser hears of it without a request: the stores refuse every prewrite by then.
pub async fn who_has_lost_hears_so_before_anything_is_sent(rt: &Rt) {
    let world = World::new(rt).await;
    let client = client(&world).await;
    let (first, second) = (begun(&client, &["a", "k"]).await, begun(&client, &["k", "z"]).await);
    let commit_ts = first.commit().await.unwrap().commit_ts.unwrap();
    world.inject(Fault::new(Effect::Lose).on(RequestKind::Prewrite).forever());
    let Err(Error::WriteConflict(conflict)) = second.commit().await else { panic!("it began before") };
    assert_eq!(
        (conflict.key, conflict.conflict_ts, conflict.conflict_commit_ts),
        ("k".into(), first.start_ts(), commit_ts)
    );
    world.clear_faults();
    begun(&client, &["k"]).await.commit().await.unwrap();
}

/// Two that write the same key at once: one after the other, and never a lock in the way.
pub async fn commits_of_the_same_key_take_turns(rt: &Rt) {
    let world = World::new(rt).await;
    let client = client(&world).await;
    world.inject(Fault::new(Effect::DelayReply(Duration::from_millis(50))).on(RequestKind::Prewrite).forever());
    let (first, second) = (begun(&client, &["k"]).await, begun(&client, &["k"]).await);
    let (one, other) = join(first.commit(), second.commit()).await;
    one.unwrap();
    assert!(matches!(other, Err(Error::WriteConflict(conflict)) if conflict.conflict_ts == first.start_ts()));
}

/// A place in the queue is given up with the interest in it, and does not outlast a time limit.
pub async fn nobody_waits_for_who_has_gone_nor_longer_than_allowed(rt: &Rt) {
    let world = World::new(rt).await;
    let client = client(&world).await;
    world.inject(Fault::new(Effect::Lose).on(RequestKind::Prewrite).forever());
    let first = begun(&client, &["k"]).await;
    let mut holder = Box::pin(first.commit());
    assert!(poll_at_most(1, &mut holder).await.is_none());
    let options = TransactionOptions::default().timeout(Duration::from_millis(100));
    let impatient = client.begin_with(options).await.unwrap();
    impatient.put("k", "v").unwrap();
    assert!(matches!(impatient.commit().await, Err(Error::DeadlineExceeded { operation: "Commit", .. })));
    let gone = begun(&client, &["k"]).await;
    assert!(poll_at_most(1, gone.commit()).await.is_none());
    world.clear_faults();
    drop(holder);
    begun(&client, &["k"]).await.commit().await.unwrap();
}
