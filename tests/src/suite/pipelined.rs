//! Transactions that are flushed while they are written.

use tikv::{Client, Error, PipelinedOptions, PipelinedTransaction, TransactionOptions, TxnState};

use crate::world::{Rt, World};

/// Flushes as soon as it has two keys.
async fn begin(client: &Client) -> PipelinedTransaction {
    begin_with(client, PipelinedOptions { min_flush_keys: 2, min_flush_bytes: 0, ..PipelinedOptions::default() }).await
}

async fn begin_with(client: &Client, options: PipelinedOptions) -> PipelinedTransaction {
    client.begin_pipelined(TransactionOptions::default().pipelined(options)).await.unwrap()
}

/// Flushes when it is told to.
async fn begin_patient(client: &Client) -> PipelinedTransaction {
    begin_with(client, PipelinedOptions::default()).await
}

async fn own(txn: &PipelinedTransaction, key: &str) -> Option<String> {
    txn.get(key).await.unwrap().map(|value| String::from_utf8(value.to_vec()).unwrap())
}

async fn committed(client: &Client, key: &str) -> Option<String> {
    let value = client.snapshot().await.unwrap().get(key).await.unwrap();
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// Keys over the regions of the default cluster.
fn keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|index| format!("{}{index:04}", ["0", "a", "m", "z"][index % 4]))
}

/// client-go: `TestPipelinedAndFlush`, `TestPipelinedSkipFlushedLock`.
pub async fn what_is_flushed_is_read_back_by_its_owner_and_by_nobody_else_before_the_commit(rt: &Rt) {
    let world = World::new(rt).await;
    let earlier = world.client.begin().await.unwrap();
    let txn = begin(&world.client).await;
    for key in keys(40) {
        txn.put(key.as_str(), format!("value of {key}")).unwrap();
        assert_eq!(own(&txn, &key).await, Some(format!("value of {key}")), "wherever it is");
        assert_eq!(earlier.get(key.as_str()).await.unwrap(), None);
    }
    txn.flush_wait().await.unwrap();
    for key in keys(40) {
        assert_eq!(own(&txn, &key).await, Some(format!("value of {key}")));
        assert_eq!(txn.snapshot().get(key.as_str()).await.unwrap(), None, "its own locks do not hold it up");
    }
    assert_eq!(txn.size().0, 40);
    let outcome = txn.commit().await.unwrap();
    assert!(outcome.commit_ts > Some(txn.start_ts()));
    assert_eq!(txn.state(), TxnState::Committed(outcome));
    for key in keys(40) {
        assert_eq!(committed(&world.client, &key).await, Some(format!("value of {key}")));
        assert_eq!(earlier.get(key.as_str()).await.unwrap(), None);
    }
    world.no_locks_are_left().await;
    assert!(matches!(txn.put("k", "1"), Err(Error::TxnFinished)));
}

/// client-go: `TestPipelinedMemDBBufferGet`.
pub async fn a_key_has_the_value_of_its_latest_generation(rt: &Rt) {
    let world = World::new(rt).await;
    let txn = begin_patient(&world.client).await;
    for generation in 0..4 {
        txn.put("a", format!("{generation}")).unwrap();
        match generation % 2 {
            0 => txn.put("z", "there").unwrap(),
            _ => txn.delete("z").unwrap(),
        }
        assert!(txn.flush().await.unwrap());
        assert_eq!(own(&txn, "a").await, Some(format!("{generation}")), "being flushed");
        txn.flush_wait().await.unwrap();
        assert_eq!(own(&txn, "a").await, Some(format!("{generation}")), "flushed");
        assert_eq!(own(&txn, "z").await.is_some(), generation % 2 == 0);
    }
    assert!(!txn.flush().await.unwrap(), "there is nothing left");
    let pairs = txn.batch_get(["z", "q", "a"]).await.unwrap();
    assert_eq!(pairs.len(), 1);
    txn.insert("z", "again").unwrap();
    txn.commit().await.unwrap();
    assert_eq!(committed(&world.client, "a").await.as_deref(), Some("3"));
    assert_eq!(committed(&world.client, "z").await.as_deref(), Some("again"), "its deletion was flushed");
}

/// client-go: `TestPipelinedRollback`.
pub async fn nothing_is_left_of_a_pipelined_transaction_that_is_given_up(rt: &Rt) {
    let world = World::new(rt).await;
    for is_dropped in [true, false] {
        let txn = begin(&world.client).await;
        for key in keys(20) {
            txn.put(key, "1").unwrap();
        }
        txn.flush().await.unwrap();
        if is_dropped {
            drop(txn);
        } else {
            txn.flush_wait().await.unwrap();
            txn.rollback().unwrap();
            assert_eq!(txn.state(), TxnState::RolledBack);
            assert!(matches!(txn.commit().await, Err(Error::TxnFinished)));
        }
        world.no_locks_are_left().await;
        for key in keys(20) {
            assert_eq!(committed(&world.client, &key).await, None);
        }
    }
}

/// client-go: `TestPipelinedFlushBlock`.
pub async fn who_writes_faster_than_tikv_waits_and_loses_nothing(rt: &Rt) {
    let world = World::new(rt).await;
    let small =
        PipelinedOptions { min_flush_bytes: 0, min_flush_keys: 4, force_flush_bytes: 4 << 10, ..Default::default() };
    let txn = begin_with(&world.client, small).await;
    let value = "v".repeat(1 << 10);
    let mut waits = 0;
    for key in keys(100) {
        while let Err(error) = txn.put(&key, &value) {
            assert!(matches!(error, Error::BufferFull { .. }), "{error:?}");
            waits += 1;
            txn.flush_wait().await.unwrap();
        }
    }
    assert!(waits > 0, "a hundred writes take less time than a flush");
    txn.commit().await.unwrap();
    for key in keys(100) {
        assert_eq!(committed(&world.client, &key).await.as_deref(), Some(value.as_str()));
    }
}

/// The flush finds it, whatever is called next tells it.
pub async fn a_conflict_ends_a_pipelined_transaction_when_it_is_flushed(rt: &Rt) {
    let world = World::new(rt).await;
    let txn = begin_patient(&world.client).await;
    let other = world.client.begin().await.unwrap();
    other.put("k", "other").unwrap();
    other.commit().await.unwrap();
    txn.put("a", "1").unwrap();
    txn.flush().await.unwrap();
    txn.flush_wait().await.unwrap();
    txn.put("k", "1").unwrap();
    txn.flush().await.unwrap();
    let is_conflict = |error: &Error| matches!(error, Error::WriteConflict(_)) && error.is_retryable();
    let error = txn.flush_wait().await.unwrap_err();
    assert!(is_conflict(&error), "{error:?}");
    assert!(is_conflict(&txn.put("b", "1").unwrap_err()));
    assert!(is_conflict(&txn.get("a").await.unwrap_err()));
    assert!(is_conflict(&txn.commit().await.unwrap_err()));
    world.no_locks_are_left().await;
    assert_eq!(committed(&world.client, "a").await, None);
    assert_eq!(committed(&world.client, "k").await.as_deref(), Some("other"));

    let txn = begin_patient(&world.client).await;
    txn.insert("k", "1").unwrap();
    let error = txn.commit().await.unwrap_err();
    assert!(matches!(error, Error::KeyExists { .. }), "{error:?}");
}

/// No more than an ordinary one.
pub async fn a_pipelined_transaction_without_writes_commits_without_a_timestamp(rt: &Rt) {
    let world = World::new(rt).await;
    let txn = begin(&world.client).await;
    assert_eq!(own(&txn, "k").await, None);
    assert_eq!(txn.commit().await.unwrap().commit_ts, None);
    let nonsense = PipelinedOptions { flush_concurrency: 0, ..PipelinedOptions::default() };
    let refused = world.client.begin_pipelined(TransactionOptions::default().pipelined(nonsense)).await;
    assert!(matches!(refused, Err(Error::InvalidArgument(_))));
}
