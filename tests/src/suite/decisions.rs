//! Transactions that commit asynchronously, or in one phase.

use tikv::{Client, Key, Timestamp, Transaction, TransactionOptions};

use crate::world::{Rt, World};

async fn begin(client: &Client, in_one_phase: bool) -> Transaction {
    let options = TransactionOptions::default();
    let options = if in_one_phase { options.one_phase_commit() } else { options.async_commit() };
    client.begin_with(options).await.unwrap()
}

async fn commit(txn: &Transaction) -> Timestamp {
    let commit_ts = txn.commit().await.unwrap().commit_ts.unwrap();
    assert!(commit_ts > txn.start_ts());
    commit_ts
}

async fn values_at(client: &Client, at: Timestamp, keys: &[&'static str]) -> Vec<String> {
    let pairs = client.snapshot_at(at).batch_get(keys.iter().map(|key| Key::from(*key))).await.unwrap();
    pairs.into_iter().map(|pair| String::from_utf8_lossy(&pair.value).into_owned()).collect()
}

/// All keys, of one region or of several, are there from one timestamp on, and not before.
pub async fn all_keys_are_committed_at_one_timestamp(rt: &Rt) {
    let world = World::new(rt).await;
    for in_one_phase in [false, true] {
        for keys in [["a", "b", "c"], ["a", "k", "z"]] {
            let before = world.client.current_timestamp().await.unwrap();
            let old = values_at(&world.client, before, &keys).await;
            let txn = begin(&world.client, in_one_phase).await;
            for key in keys {
                txn.put(key, format!("{in_one_phase} {}", keys[1])).unwrap();
            }
            let commit_ts = commit(&txn).await;
            let new = vec![format!("{in_one_phase} {}", keys[1]); 3];
            assert_eq!(values_at(&world.client, commit_ts, &keys).await, new);
            let just_before = Timestamp::from_version(commit_ts.version() - 1);
            assert_eq!(values_at(&world.client, just_before, &keys).await, old);
            assert_eq!(values_at(&world.client, Timestamp::MAX, &keys).await, new);
        }
    }
}

/// What a transaction has read stays so, whoever commits in the meantime; and what begins after a commit sees it.
pub async fn readers_are_not_overtaken(rt: &Rt) {
    let world = World::new(rt).await;
    for in_one_phase in [false, true] {
        let first = begin(&world.client, in_one_phase).await;
        first.put("k", "old").unwrap();
        commit(&first).await;
        let writer = begin(&world.client, in_one_phase).await;
        writer.put("k", "new").unwrap();
        for _ in 0..10 {
            world.client.current_timestamp().await.unwrap();
        }
        let reader = begin(&world.client, in_one_phase).await;
        assert_eq!(reader.get("k").await.unwrap(), Some("old".into()));
        let commit_ts = commit(&writer).await;
        assert!(commit_ts > reader.start_ts());
        assert_eq!(reader.get("k").await.unwrap(), Some("old".into()));
        let later = begin(&world.client, in_one_phase).await;
        assert_eq!(later.get("k").await.unwrap(), Some("new".into()));
    }
}

/// Who commits after another has committed does so at a later timestamp, whatever they began with.
pub async fn commits_follow_real_time(rt: &Rt) {
    let world = World::new(rt).await;
    for in_one_phase in [false, true] {
        let (first, second) = (begin(&world.client, in_one_phase).await, begin(&world.client, in_one_phase).await);
        first.put("a", "1").unwrap();
        second.put("b", "2").unwrap();
        let earlier = commit(&second).await;
        assert!(earlier < commit(&first).await);
    }
}
