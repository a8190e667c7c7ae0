//! Transactions and snapshots.

use bytes::Bytes;
use tikv::{
    Client, Direction, Error, Key, KeyRange, LockOptions, Pair, Timestamp, Transaction, TransactionOptions, TxnState,
};

use crate::world::{Rt, World};

fn pair(key: &str, value: &str) -> Pair {
    Pair { key: key.to_owned().into(), value: value.to_owned().into() }
}

async fn write(client: &Client, pairs: &[(&str, &str)]) -> Timestamp {
    let txn = client.begin().await.unwrap();
    for (key, value) in pairs {
        txn.put(key, value).unwrap();
    }
    txn.commit().await.unwrap().commit_ts.unwrap()
}

async fn get(txn: &Transaction, key: &'static str) -> Option<Bytes> {
    txn.get(key).await.unwrap()
}

/// Put, read, delete, in several transactions.
pub async fn committed_writes_are_read_by_later_transactions(rt: &Rt) {
    let world = World::new(rt).await;
    let txn = world.client.begin().await.unwrap();
    assert_eq!(get(&txn, "a").await, None);
    txn.put("a", "1").unwrap();
    txn.put("z", "2").unwrap();
    let commit_ts = txn.commit().await.unwrap().commit_ts.unwrap();
    assert!(commit_ts > txn.start_ts());
    assert!(matches!(txn.state(), TxnState::Committed(_)));

    let txn = world.client.begin().await.unwrap();
    assert!(txn.start_ts() > commit_ts);
    assert_eq!(get(&txn, "a").await, Some("1".into()));
    assert_eq!(txn.batch_get(["z", "none", "a"]).await.unwrap(), [pair("z", "2"), pair("a", "1")]);
    assert_eq!(txn.scan::<Key>(.., 10).await.unwrap(), [pair("a", "1"), pair("z", "2")]);
    assert_eq!(txn.reverse_scan::<Key>(.., 1).await.unwrap(), [pair("z", "2")]);
    txn.delete("a").unwrap();
    txn.commit().await.unwrap();

    let snapshot = world.client.snapshot().await.unwrap();
    assert_eq!(snapshot.scan::<Key>(.., 10).await.unwrap(), [pair("z", "2")]);
    assert_eq!(world.client.snapshot_at(commit_ts).get("a").await.unwrap(), Some("1".into()));
    assert_eq!(world.client.snapshot_at(Timestamp::MAX).get("z").await.unwrap(), Some("2".into()));
}

/// Gets, batch gets and scans see what the transaction has written, and nobody else does.
pub async fn a_transaction_reads_its_own_writes(rt: &Rt) {
    let world = World::new(rt).await;
    write(&world.client, &[("1", "old"), ("5", "old"), ("a", "old"), ("k", "old"), ("x", "old")]).await;
    let txn = world.client.begin().await.unwrap();
    txn.put("5", "mine").unwrap();
    txn.delete("a").unwrap();
    txn.put("m", "mine").unwrap();
    txn.insert("zz", "mine").unwrap();
    assert_eq!(get(&txn, "5").await, Some("mine".into()));
    assert_eq!(get(&txn, "a").await, None);
    assert_eq!(txn.batch_get(["m", "a", "1"]).await.unwrap(), [pair("m", "mine"), pair("1", "old")]);
    let mut seen = vec![
        pair("1", "old"),
        pair("5", "mine"),
        pair("k", "old"),
        pair("m", "mine"),
        pair("x", "old"),
        pair("zz", "mine"),
    ];
    assert_eq!(txn.scan::<Key>(.., 10).await.unwrap(), seen);
    assert_eq!(txn.scan("5".."x", 2).await.unwrap(), seen[1..3]);
    seen.reverse();
    assert_eq!(txn.reverse_scan::<Key>(.., 10).await.unwrap(), seen);
    assert_eq!(txn.reverse_scan(..="x", 2).await.unwrap(), seen[1..3]);
    assert_eq!(txn.snapshot().get("m").await.unwrap(), None);
    assert_eq!(world.client.snapshot().await.unwrap().get("m").await.unwrap(), None);
}

/// A snapshot sees what was committed before it, again and again.
pub async fn a_snapshot_does_not_move(rt: &Rt) {
    let world = World::new(rt).await;
    write(&world.client, &[("a", "old"), ("z", "old")]).await;
    let old = world.client.begin().await.unwrap();
    let never_read = world.client.snapshot().await.unwrap();
    assert_eq!(get(&old, "a").await, Some("old".into()));
    write(&world.client, &[("a", "new"), ("m", "new"), ("z", "new")]).await;
    assert_eq!(old.scan::<Key>(.., 10).await.unwrap(), [pair("a", "old"), pair("z", "old")]);
    assert_eq!(never_read.batch_get(["a", "m", "z"]).await.unwrap(), [pair("a", "old"), pair("z", "old")]);
    let new = world.client.snapshot().await.unwrap();
    assert_eq!(new.scan::<Key>(.., 10).await.unwrap(), [pair("a", "new"), pair("m", "new"), pair("z", "new")]);
}

/// First committer wins.
pub async fn the_second_of_two_writers_conflicts(rt: &Rt) {
    let world = World::new(rt).await;
    let (first, second) = (world.client.begin().await.unwrap(), world.client.begin().await.unwrap());
    for (txn, value) in [(&first, "first"), (&second, "second")] {
        assert_eq!(get(txn, "a").await, None);
        txn.put("a", value).unwrap();
        txn.put("z", value).unwrap();
    }
    let commit_ts = first.commit().await.unwrap().commit_ts.unwrap();
    let error = second.commit().await.unwrap_err();
    let Error::WriteConflict(conflict) = &error else { panic!("{error:?}") };
    assert_eq!((conflict.start_ts, conflict.conflict_commit_ts), (second.start_ts(), commit_ts));
    assert!(error.is_retryable() && !error.is_undetermined());
    assert_eq!(second.state(), TxnState::RolledBack);
    let seen = world.client.snapshot().await.unwrap().batch_get(["a", "z"]).await.unwrap();
    assert_eq!(seen, [pair("a", "first"), pair("z", "first")]);
    world.no_locks_are_left().await;
}

/// Insert checks at commit, or at once against the own writes.
pub async fn an_insert_fails_if_the_key_exists(rt: &Rt) {
    let world = World::new(rt).await;
    write(&world.client, &[("a", "1")]).await;
    let txn = world.client.begin().await.unwrap();
    txn.insert("a", "2").unwrap();
    txn.put("z", "2").unwrap();
    let error = txn.commit().await.unwrap_err();
    assert_eq!(error, Error::KeyExists { key: "a".into() });
    assert!(!error.is_retryable());

    let txn = world.client.begin().await.unwrap();
    txn.put("b", "1").unwrap();
    assert_eq!(txn.insert("b", "2").unwrap_err(), Error::KeyExists { key: "b".into() });
    txn.delete("b").unwrap();
    txn.insert("b", "2").unwrap();
    txn.insert("c", "2").unwrap();
    txn.commit().await.unwrap();
    let seen = world.client.snapshot().await.unwrap().scan::<Key>(.., 10).await.unwrap();
    assert_eq!(seen, [pair("a", "1"), pair("b", "2"), pair("c", "2")]);
}

/// Two transactions each read what the other writes. Locking what is read makes one of them fail.
pub async fn locked_keys_guard_against_write_skew(rt: &Rt) {
    let world = World::new(rt).await;
    write(&world.client, &[("a", "on"), ("z", "on")]).await;
    for guarded in [false, true] {
        let (first, second) = (world.client.begin().await.unwrap(), world.client.begin().await.unwrap());
        for (txn, reads, writes) in [(&first, "a", "z"), (&second, "z", "a")] {
            get(txn, reads).await;
            if guarded {
                txn.lock_keys([reads], LockOptions::default()).await.unwrap();
            }
            txn.put(writes, "off").unwrap();
        }
        first.commit().await.unwrap();
        let second = second.commit().await;
        if guarded {
            assert!(matches!(second, Err(Error::WriteConflict(_))), "{second:?}");
        } else {
            second.unwrap();
        }
    }
}

/// Rolling back.
pub async fn nothing_is_left_of_a_transaction_that_is_rolled_back(rt: &Rt) {
    let world = World::new(rt).await;
    let txn = world.client.begin().await.unwrap();
    txn.put("a", "1").unwrap();
    txn.rollback().unwrap();
    assert_eq!(txn.state(), TxnState::RolledBack);
    let dropped = world.client.begin().await.unwrap();
    dropped.put("a", "1").unwrap();
    drop(dropped);
    assert_eq!(world.client.snapshot().await.unwrap().get("a").await.unwrap(), None);
    world.no_locks_are_left().await;
}

/// Nothing to commit.
pub async fn a_transaction_without_writes_commits_without_a_timestamp(rt: &Rt) {
    let world = World::new(rt).await;
    let txn = world.client.begin().await.unwrap();
    assert_eq!(get(&txn, "a").await, None);
    assert_eq!(txn.commit().await.unwrap().commit_ts, None);
    assert_eq!(txn.get("a").await.unwrap_err(), Error::TxnFinished);
    let at = world.client.begin_with(TransactionOptions::default().start_ts(txn.start_ts())).await.unwrap();
    assert_eq!(at.start_ts(), txn.start_ts());
}

/// Eight tasks increment one counter.
pub async fn run_tries_again_until_every_increment_counts(rt: &Rt) {
    let world = World::new(rt).await;
    let tasks = (0..8).map(|_| {
        let client = world.client.clone();
        rt.task(async move {
            for _ in 0..10 {
                client.run(increment).await.unwrap();
            }
        })
    });
    futures::future::join_all(tasks).await;
    assert_eq!(world.client.snapshot().await.unwrap().get("counter").await.unwrap(), Some("80".into()));
}

async fn increment(txn: Transaction) -> Result<(), Error> {
    let seen = txn.get("counter").await?;
    let number = seen.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse::<u32>().unwrap());
    txn.put("counter", (number + 1).to_string())
}

/// An error of the body that another attempt cannot mend is returned, and nothing is committed.
pub async fn run_returns_what_the_body_refuses(rt: &Rt) {
    let world = World::new(rt).await;
    let mut runs = 0;
    let refused = world.client.run(|txn| {
        runs += 1;
        async move {
            txn.put("a", "1")?;
            txn.put("", "1")
        }
    });
    assert_eq!(refused.await, Err(Error::EmptyKey));
    assert_eq!(runs, 1);
    let value = world.client.run(async |txn: Transaction| txn.get("a").await).await.unwrap();
    assert_eq!(value, None);
}

/// Two thousand keys in forty regions.
pub async fn a_large_transaction_commits_over_many_regions(rt: &Rt) {
    let world = World::with(rt, |options| options.regions = 40).await;
    let key = |index: usize| format!("{}{index:04}", char::from(b'0' + (index * 75 / 2_000) as u8));
    let txn = world.client.begin().await.unwrap();
    for index in 0..2_000 {
        txn.put(key(index), format!("value {index}")).unwrap();
    }
    assert_eq!(txn.size().0, 2_000);
    txn.commit().await.unwrap();
    let snapshot = world.client.snapshot().await.unwrap();
    let found = snapshot.scan::<Key>(.., 3_000).await.unwrap();
    assert_eq!(found.len(), 2_000);
    assert!(found.iter().enumerate().all(|(index, found)| *found == pair(&key(index), &format!("value {index}"))));
    let mut got = snapshot.batch_get((0..2_000).map(key)).await.unwrap();
    got.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(got, found);
    world.no_locks_are_left().await;
}

/// Streams, in pages smaller than the regions and larger.
pub async fn a_stream_of_pairs_reads_page_by_page(rt: &Rt) {
    let world = World::new(rt).await;
    let txn = world.client.begin().await.unwrap();
    let keys: Vec<String> =
        (0..100_usize).map(|index| format!("{}{index:02}", char::from(b'0' + (index * 75 / 100) as u8))).collect();
    for key in &keys {
        txn.put(key, "v").unwrap();
    }
    txn.commit().await.unwrap();
    for page in [1, 7, 1_000] {
        let snapshot = world.client.snapshot().await.unwrap();
        let snapshot = snapshot.with_options(|mut options| {
            options.scan_batch_size = page;
            options
        });
        for direction in [Direction::Forward, Direction::Reverse] {
            let mut stream = snapshot.stream(KeyRange::new(keys[5].clone(), keys[95].clone()), direction);
            let mut seen = Vec::new();
            while let Some(pair) = stream.next().await.unwrap() {
                seen.push(String::from_utf8(pair.key.as_slice().to_vec()).unwrap());
            }
            if direction == Direction::Reverse {
                seen.reverse();
            }
            assert_eq!(seen, keys[5..95], "{direction:?} by {page}");
            assert_eq!(stream.next().await.unwrap(), None);
        }
    }
}

/// Large values in one transaction.
pub async fn values_of_a_mebibyte_commit(rt: &Rt) {
    let world = World::new(rt).await;
    let large = |first: u8| Bytes::from(vec![first; 1 << 20]);
    let txn = world.client.begin().await.unwrap();
    for first in b'0'..b'8' {
        txn.put(vec![first], large(first)).unwrap();
    }
    txn.commit().await.unwrap();
    let snapshot = world.client.snapshot().await.unwrap();
    let found = snapshot.scan::<Key>(.., 100).await.unwrap();
    assert!(found.len() == 8 && found.iter().all(|pair| pair.value == large(pair.key.as_slice()[0])));
    assert_eq!(snapshot.get("3").await.unwrap(), Some(large(b'3')));
}
