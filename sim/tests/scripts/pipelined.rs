//! Transactions that are flushed while they are written.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use tikv::{Error, PipelinedOptions, PipelinedTransaction, Timestamp, TransactionOptions, TxnState};
use tikv_core::request::{Request, RequestKind};
use tikv_sim::cluster::{Effect, Fault};

use crate::world::{KEYS, Other, World, millis, secs, some, split_at};

fn begin_with(world: &World, options: TransactionOptions) -> PipelinedTransaction {
    let options = options.pipelined(PipelinedOptions::default());
    world.run(world.client.begin_pipelined(options)).expect("PD answers")
}

/// A transaction that has flushed these keys.
fn flushed(world: &World, keys: &[&str]) -> PipelinedTransaction {
    flushed_with(world, TransactionOptions::default(), keys)
}

fn flushed_with(world: &World, options: TransactionOptions, keys: &[&str]) -> PipelinedTransaction {
    let txn = begin_with(world, options);
    keys.iter().for_each(|key| txn.put(*key, "v").expect("it fits"));
    assert_eq!(world.run(txn.flush()), Ok(true));
    assert_eq!(world.run(txn.flush_wait()), Ok(()));
    txn
}

/// S42: the flush after the beat that finds the primary gone fails, with a type of its own, and the locks go.
#[test]
fn a_transaction_whose_primary_was_rolled_back_stops_to_flush_and_says_why() {
    let world = World::new();
    let txn = flushed(&world, &KEYS);
    assert_eq!(world.locked_keys(txn.start_ts()).len(), 3);
    let mut resolver = Other::new(&world, KEYS[0]);
    resolver.start_ts = txn.start_ts();
    resolver.roll_back(&world, KEYS[0]);
    world.pass(secs(11));
    assert_eq!(txn.state(), TxnState::RolledBack);
    let error = txn.put(KEYS[1], "more").expect_err("it is over");
    assert!(matches!(error, Error::RolledBack { .. }) && error.is_retryable(), "{error}");
    assert_eq!(world.run(txn.flush()), Err(error.clone()));
    assert_eq!(world.run(txn.commit()), Err(error));
    let flushes = world.count(RequestKind::Flush);
    world.pass(secs(1));
    assert_eq!((world.locks(), world.count(RequestKind::Flush)), (Vec::new(), flushes));
    assert_eq!(world.read_all(&KEYS), [None, None, None]);
}

/// S42: readers are not held up, however long the transaction runs.
#[test]
fn the_locks_of_a_large_transaction_hold_up_no_reader() {
    let world = World::new();
    let txn = flushed(&world, &KEYS);
    for _ in 0..4 {
        world.pass(secs(15));
        let (values, took) = world.timed(async {
            let snapshot = world.client.snapshot().await?;
            snapshot.batch_get(KEYS).await
        });
        assert_eq!(values, Ok(Vec::new()));
        assert!(took < millis(100), "{took:?}");
    }
    assert!(world.count(RequestKind::BroadcastTxnStatus) > 0, "stores are told how far it has been pushed");
    world.run(txn.commit()).expect("it was kept alive");
    assert_eq!(world.read_all(&KEYS), [some("v"), some("v"), some("v")]);
}

/// T2.
#[test]
fn a_commit_without_an_answer_is_undetermined_and_its_locks_are_left_alone() {
    let world = World::with_config(|config| config.call_timeout = secs(1));
    let txn = flushed_with(&world, TransactionOptions::default().timeout(secs(10)), &KEYS);
    world.inject(Fault::new(Effect::LoseReply).on(RequestKind::Commit).on_key(KEYS[0]).forever());
    let error = world.run(txn.commit()).expect_err("nobody answers");
    assert!(error.is_undetermined(), "{error}");
    assert_eq!(txn.state(), TxnState::Undetermined);
    world.pass(secs(60));
    assert_eq!((world.count(RequestKind::BatchRollback), world.count(RequestKind::ResolveLock)), (0, 0));
    world.clear_faults();
    assert_eq!(world.read_all(&KEYS), [some("v"), some("v"), some("v")], "it was committed");
}

/// T2: the commit timestamp is held against the caller's bound.
#[test]
fn the_commit_timestamp_of_a_pipelined_transaction_is_checked() {
    static BOUND: AtomicU64 = AtomicU64::new(0);
    let world = World::new();
    BOUND.store(Timestamp::compose(world.timestamp().physical_ms() + 100, 0).version(), Ordering::Relaxed);
    let options = TransactionOptions::default().commit(|mut options| {
        options.commit_ts.upper_bound = Timestamp::from_version(BOUND.load(Ordering::Relaxed));
        options
    });
    let txn = flushed_with(&world, options, &KEYS);
    world.pass(secs(1));
    let error = world.run(txn.commit()).expect_err("it is too late");
    assert!(matches!(error, Error::CommitTsOutOfBound { .. }), "{error}");
    world.pass(secs(1));
    assert_eq!((world.locks(), world.read_all(&KEYS)), (Vec::new(), vec![None, None, None]));
}

/// T3: the only key; the last key, which begins a region.
#[test]
fn the_last_key_is_resolved_also_if_it_is_the_only_one_or_begins_a_region() {
    for keys in [&KEYS[..1], &KEYS[1..]] {
        for commits in [true, false] {
            let world = World::new();
            if let [_, last] = keys {
                world.simulation().with_cluster(|cluster, _| split_at(cluster, last));
            }
            let txn = flushed(&world, keys);
            if commits {
                world.run(txn.commit()).expect("nothing is in the way");
            } else {
                txn.rollback().expect("it is open");
            }
            // Long before the locks expire, and nobody reads.
            world.pass(secs(2));
            assert_eq!(world.locks(), Vec::new(), "{keys:?}, {commits}");
            let value = commits.then(|| "v".to_owned());
            assert!(world.read_all(keys).iter().all(|read| *read == value));
        }
    }
}

/// T4: each region from the first key to the last is asked once.
#[test]
fn resolving_ends_with_the_last_region() {
    let world = World::new();
    let txn = flushed(&world, &KEYS);
    world.run(txn.commit()).expect("nothing is in the way");
    world.pass(secs(60));
    let resolved = world.seen(RequestKind::ResolveLock);
    let region_of = |request: &Request| match request {
        Request::ResolveLock(asked) if asked.keys.is_empty() => asked.context.as_ref().map(|context| context.region_id),
        other => panic!("{other:?}"),
    };
    let regions: BTreeSet<_> = resolved.iter().map(|seen| region_of(&seen.request)).collect();
    assert!(regions.len() >= KEYS.len(), "there are as many at least as keys");
    assert_eq!(resolved.len(), regions.len(), "each is asked once");
    assert_eq!(world.locks(), Vec::new());
}

/// T7: an outage of PD does not end it.
#[test]
fn a_pipelined_transaction_outlives_an_outage_of_pd() {
    let world = World::new();
    let txn = flushed(&world, &KEYS);
    world.set_pd_cut_off(true);
    world.pass(secs(60));
    world.set_pd_cut_off(false);
    let beats = world.count(RequestKind::TxnHeartBeat);
    world.until(|world| world.count(RequestKind::TxnHeartBeat) > beats);
    world.run(txn.commit()).expect("it was kept alive");
    assert_eq!(world.read_all(&KEYS), [some("v"), some("v"), some("v")]);
}
