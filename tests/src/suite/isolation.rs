//! What transactions see of each other.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::{join, join_all};
use tikv::membuffer::{FlagOp, MemBuffer};
use tikv::{AssertionLevel, Client, CommitOptions, Error, Timestamp, Transaction, TransactionOptions};

use crate::world::{Rt, World};

/// Writes until no conflict is in the way: when it began, and when it committed.
async fn write(client: &Client, value: String) -> (Timestamp, Timestamp) {
    loop {
        let txn = client.begin().await.unwrap();
        txn.put("k", &value).unwrap();
        match txn.commit().await {
            Ok(outcome) => return (txn.start_ts(), outcome.commit_ts.unwrap()),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
}

/// client-go: `TestWriteWriteConflict`.
pub async fn writers_of_one_key_do_not_overlap(rt: &Rt) {
    let world = World::new(rt).await;
    let tasks: Vec<_> = (0..5)
        .map(|_| {
            let client = world.client.clone();
            rt.task(async move {
                let mut writes = Vec::new();
                for number in 0..10 {
                    writes.push(write(&client, number.to_string()).await);
                }
                writes
            })
        })
        .collect();
    let mut writes: Vec<_> = join_all(tasks).await.into_iter().flatten().collect();
    writes.sort();
    assert_eq!(writes.len(), 50);
    assert!(writes.windows(2).all(|pair| pair[0].1 < pair[1].0), "{writes:?}");
}

/// client-go: `TestReadWriteConflict`.
pub async fn readers_see_what_was_committed_before_them(rt: &Rt) {
    let world = World::new(rt).await;
    let mut writes = vec![write(&world.client, "0".to_owned()).await];
    let done = AtomicBool::new(false);
    let writer = async {
        for number in 1..=10 {
            writes.push(write(&world.client, number.to_string()).await);
        }
        done.store(true, Ordering::Relaxed);
    };
    let reader = async || {
        let mut reads = Vec::new();
        while !done.load(Ordering::Relaxed) {
            let txn = world.client.begin().await.unwrap();
            reads.push((txn.start_ts(), txn.get("k").await.unwrap().unwrap()));
        }
        reads
    };
    let ((), reads) = join(writer, join_all((0..5).map(|_| reader()))).await;
    for (start_ts, value) in reads.into_iter().flatten() {
        let newest = writes.iter().rposition(|(_, commit_ts)| *commit_ts <= start_ts).unwrap();
        assert_eq!(value, newest.to_string(), "at {start_ts}");
    }
}

/// client-go: `TestSnapshotThreadSafe`.
pub async fn tasks_share_a_snapshot(rt: &Rt) {
    let world = World::new(rt).await;
    write(&world.client, "v".to_owned()).await;
    let snapshot = world.client.snapshot_at(Timestamp::MAX);
    let tasks: Vec<_> = (0..5)
        .map(|_| {
            let snapshot = snapshot.clone();
            rt.task(async move {
                for _ in 0..30 {
                    assert_eq!(snapshot.get("k").await.unwrap(), Some("v".into()));
                    assert_eq!(snapshot.batch_get(["k", "none"]).await.unwrap().len(), 1);
                }
            })
        })
        .collect();
    join_all(tasks).await;
}

async fn assert_at_commit(
    world: &World,
    level: fn(CommitOptions) -> CommitOptions,
    key: &str,
    op: FlagOp,
) -> Result<(), Error> {
    let txn: Transaction = world.client.begin_with(TransactionOptions::default().commit(level)).await.unwrap();
    let write = |buffer: &mut MemBuffer| buffer.set_with_flags(key, "v", &[op]);
    txn.with_buffer(write).unwrap().unwrap();
    txn.commit().await.map(drop)
}

/// client-go: `TestPrewriteAssertion`, `TestFastAssertion`.
pub async fn assertions_are_checked_if_that_is_wanted(rt: &Rt) {
    let world = World::new(rt).await;
    write(&world.client, "v".to_owned()).await;
    let off = |options| CommitOptions { assertion_level: AssertionLevel::Off, ..options };
    let fast = |options| CommitOptions { assertion_level: AssertionLevel::Fast, ..options };
    let strict = |options| CommitOptions { assertion_level: AssertionLevel::Strict, ..options };
    let levels: [fn(CommitOptions) -> CommitOptions; 3] = [off, fast, strict];
    for (index, level) in levels.into_iter().enumerate() {
        let fresh = format!("fresh {index}");
        let wrong = [("k", FlagOp::SetAssertNotExist), (fresh.as_str(), FlagOp::SetAssertExist)];
        for (key, op) in wrong {
            let end = assert_at_commit(&world, level, key, op).await;
            match index {
                0 => assert_eq!(end, Ok(())),
                _ => assert!(matches!(end, Err(Error::AssertionFailed(_))), "{index} {key}: {end:?}"),
            }
        }
        assert_eq!(assert_at_commit(&world, level, "k", FlagOp::SetAssertExist).await, Ok(()));
        let fresh = format!("another {index}");
        assert_eq!(assert_at_commit(&world, level, &fresh, FlagOp::SetAssertNotExist).await, Ok(()));
    }
}
