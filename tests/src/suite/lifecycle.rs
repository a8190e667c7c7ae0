//! Time limits, unknown outcomes, many tasks, closing.

use std::time::Duration;

use futures::future::join_all;
use tikv::{Client, Error, Key, TransactionOptions, TxnOutcome, TxnState};
use tikv_core::request::RequestKind;
use tikv_sim::cluster::{Effect, Fault};

use crate::world::{Rt, World, is_explained_timeout};

const SHORT: Duration = Duration::from_millis(200);

/// Stores answer nothing: each call ends by its own limit and says why.
pub async fn every_call_keeps_its_time_limit(rt: &Rt) {
    let world = World::new(rt).await;
    // So that regions are known.
    world.client.raw().put("k", "v").await.unwrap();
    world.client.run(async |txn: tikv::Transaction| txn.put("k", "v")).await.unwrap();
    world.inject(Fault::new(Effect::Lose).forever());
    let raw = world.client.raw().with_timeout(SHORT);
    let snapshot = world.client.snapshot().await.unwrap().with_timeout(SHORT);
    let txn = world.client.begin_with(TransactionOptions::default().timeout(SHORT)).await.unwrap();
    txn.put("k", "v").unwrap();

    let unit = |_| ();
    let raw_calls = async {
        [
            ("RawGet", raw.get("k").await.map(drop)),
            ("RawPut", raw.put("k", "v").await),
            ("RawDelete", raw.delete("k").await),
            ("RawBatchGet", raw.batch_get(["k"]).await.map(drop)),
            ("RawBatchPut", raw.batch_put([("k", "v")]).await),
            ("RawScan", raw.scan("k".."l", 10).await.map(drop)),
            ("RawDeleteRange", raw.delete_range("k".."l").await),
            ("RawChecksum", raw.checksum("k".."l").await.map(unit)),
            ("RawGetKeyTTL", raw.get_key_ttl("k").await.map(drop)),
        ]
    };
    let txn_calls = async {
        [
            ("Get", snapshot.get("k").await.map(drop)),
            ("BatchGet", snapshot.batch_get(["k", "l"]).await.map(drop)),
            ("Scan", snapshot.scan("k".."l", 10).await.map(drop)),
            ("Get", txn.get("l").await.map(drop)),
            ("Prewrite", txn.commit().await.map(drop)),
        ]
    };
    let (raw_ends, txn_ends) = futures::future::join(raw_calls, txn_calls).await;
    for (operation, end) in raw_ends.into_iter().chain(txn_ends) {
        let error = end.unwrap_err();
        assert!(matches!(error, Error::DeadlineExceeded { .. }), "{operation}: {error:?}");
        assert!(is_explained_timeout(&error, operation, "127.0.0.1:"), "{operation}: {error}");
    }
    assert_eq!(txn.state(), TxnState::RolledBack);
    world.clear_faults();
    world.client.raw().put("k", "again").await.unwrap();
}

/// The swap is executed, its answer lost. It must not be repeated, so nobody can know.
pub async fn a_swap_without_an_answer_is_undetermined(rt: &Rt) {
    let world = World::new(rt).await;
    let raw = world.client.raw().with_atomic(true);
    raw.put("k", "old").await.unwrap();
    world.inject(Fault::new(Effect::LoseReply).on(RequestKind::RawCompareAndSwap).times(1));
    let hasty = raw.clone().with_timeout(Duration::from_secs(1));
    let error = hasty.compare_and_swap("k", Some("old".into()), "new").await.unwrap_err();
    assert!(matches!(error, Error::UndeterminedWrite { .. }), "{error:?}");
    assert!(error.is_undetermined() && error.is_timeout() && !error.is_retryable());
    assert_eq!(raw.get("k").await.unwrap(), Some("new".into()));
}

/// The primary is committed, the answer lost, and every repetition as well.
pub async fn a_commit_without_an_answer_is_undetermined(rt: &Rt) {
    let world = World::new(rt).await;
    world.inject(Fault::new(Effect::LoseReply).on(RequestKind::Commit).forever());
    let txn = world.client.begin_with(TransactionOptions::default().timeout(Duration::from_secs(1))).await.unwrap();
    txn.put("a", "v").unwrap();
    txn.put("z", "v").unwrap();
    let error = txn.commit().await.unwrap_err();
    let Error::Undetermined { start_ts, primary, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*start_ts, primary), (txn.start_ts(), &Key::from("a")));
    assert!(error.is_undetermined() && !error.is_retryable());
    assert_eq!(txn.state(), TxnState::Undetermined);
    world.clear_faults();
    let seen = world.client.snapshot().await.unwrap().batch_get(["a", "z"]).await.unwrap();
    assert_eq!(seen.len(), 2, "the answer was lost, not the commit");
    let outcome = world.client.outcome_of(*start_ts, primary.clone()).await.unwrap();
    assert!(matches!(outcome, TxnOutcome::Committed(commit_ts) if commit_ts > *start_ts), "{outcome:?}");
}

/// What nobody can tell when the commit ends can be asked later.
pub async fn the_outcome_of_a_commit_that_never_arrived_can_be_asked(rt: &Rt) {
    let world = World::new(rt).await;
    world.inject(Fault::new(Effect::Lose).on(RequestKind::Prewrite).forever());
    let options = TransactionOptions::default().async_commit().timeout(Duration::from_secs(1));
    let txn = world.client.begin_with(options).await.unwrap();
    txn.put("a", "v").unwrap();
    let error = txn.commit().await.unwrap_err();
    let Error::Undetermined { start_ts, primary, .. } = error else { panic!("{error:?}") };
    world.clear_faults();
    assert_eq!(world.client.outcome_of(start_ts, primary).await, Ok(TxnOutcome::RolledBack));
    assert_eq!(world.client.outcome_of(start_ts, "").await, Err(Error::EmptyKey));
}

async fn is_refused_by(client: &Client) {
    let raw = client.raw();
    let snapshot = client.snapshot_at(tikv::Timestamp::MAX);
    let ends = [
        raw.get("k").await.map(drop),
        raw.put("k", "v").await,
        raw.batch_get(["k", "z"]).await.map(drop),
        raw.scan::<Key>(.., 10).await.map(drop),
        raw.checksum::<Key>(..).await.map(drop),
        client.current_timestamp().await.map(drop),
        client.begin().await.map(drop),
        client.snapshot().await.map(drop),
        client.run(async |txn: tikv::Transaction| txn.put("k", "v")).await,
        snapshot.get("k").await.map(drop),
        snapshot.batch_get(["k", "z"]).await.map(drop),
        snapshot.scan::<Key>(.., 10).await.map(drop),
    ];
    for (index, end) in ends.into_iter().enumerate() {
        assert_eq!(end, Err(Error::Closed), "call {index}");
    }
}

/// A client that is closed says so, whatever it knew before.
pub async fn after_close_every_call_is_refused(rt: &Rt) {
    let world = World::new(rt).await;
    world.client.raw().put("k", "v").await.unwrap();
    let txn = world.client.begin().await.unwrap();
    assert_eq!(txn.get("k").await.unwrap(), None);
    txn.put("k", "v").unwrap();
    assert_eq!(world.client.close(Duration::from_secs(30)).await, 0);
    is_refused_by(&world.client).await;
    is_refused_by(&world.client.clone()).await;
    assert_eq!(txn.commit().await.unwrap_err(), Error::Closed);
    // What the commit left to the background finds the client closed as well.
    assert_eq!(world.client.close(Duration::from_secs(30)).await, 0);

    let knows_nothing = world.client_with(|builder| builder).await;
    knows_nothing.close(Duration::ZERO).await;
    is_refused_by(&knows_nothing).await;
}

/// Calls in flight end when the client is closed.
pub async fn closing_ends_what_is_being_waited_for(rt: &Rt) {
    let world = World::new(rt).await;
    world.client.raw().put("k", "v").await.unwrap();
    world.inject(Fault::new(Effect::Lose).on(RequestKind::RawGet).forever());
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let raw = world.client.raw();
            rt.task(async move { raw.get("k").await })
        })
        .collect();
    world.cluster.stop_pd(1).unwrap();
    let client = world.client.clone();
    let for_pd = rt.task(async move { client.current_timestamp().await });
    world.client.close(Duration::ZERO).await;
    for end in join_all(waiting).await {
        assert_eq!(end, Err(Error::Closed));
    }
    assert_eq!(for_pd.await, Err(Error::Closed));
}

/// Whatever travels together.
pub async fn a_thousand_tasks_get_each_its_own_answer(rt: &Rt) {
    let world = World::new(rt).await;
    let raw = world.client.raw();
    raw.batch_put((0..1_000).map(|index| (format!("{index:03}"), format!("value {index}")))).await.unwrap();
    let tasks: Vec<_> = (0..1_000)
        .map(|index| {
            let raw = raw.clone();
            rt.task(async move { raw.get(format!("{index:03}")).await.unwrap() })
        })
        .collect();
    for (index, value) in join_all(tasks).await.into_iter().enumerate() {
        assert_eq!(value, Some(format!("value {index}").into()));
    }
}

/// The connections live as long as the last clone, and what was begun with one.
pub async fn clones_outlive_the_first_client(rt: &Rt) {
    let World { client, cluster, .. } = World::new(rt).await;
    let (raw, clone) = (client.raw(), client.clone());
    let txn = client.begin().await.unwrap();
    drop(client);
    raw.put("k", "v").await.unwrap();
    drop(clone);
    txn.put("k", "v").unwrap();
    txn.commit().await.unwrap();
    drop(txn);
    assert_eq!(raw.get("k").await.unwrap(), Some("v".into()));
    drop(cluster);
}
