//! Garbage collection resolves all locks up to a safe point, whether their transactions are alive or not; then versions go.

use tikv::{Collected, Error, GcState, LockOptions, PdError, Swept, Timestamp, TransactionOptions, TxnStatus};
use tikv_core::request::{Request, RequestKind, Response};
use tikv_proto::kvrpcpb::CommitRequest;
use tikv_sim::cluster::{Effect, Fault};

use crate::world::{KEYS, Other, World, keys, millis, secs, some, text};

/// Resolves everything from before now.
fn sweep(world: &World) -> Swept {
    let safe_point = world.timestamp();
    sweep_to(world, safe_point)
}

fn sweep_to(world: &World, safe_point: Timestamp) -> Swept {
    let locks = world.client.locks();
    world.run(async move { locks.sweep::<&str>(.., safe_point).await }).expect("the stores answer")
}

/// Whether TiKV takes a late prewrite.
fn is_taken(world: &World, late: &Other, key: &'static str) -> bool {
    let Response::Prewrite(response) = world.ask(key, late.prewrite_request(key, "late")) else { panic!() };
    response.errors.is_empty()
}

/// client-go: `TestBatchResolveLocks`.
#[test]
fn transactions_are_ended_before_their_time_is_up_each_as_its_locks_say() {
    let world = World::new();
    world.write(&KEYS, "before");
    let two_phases = Other::new(&world, KEYS[0]);
    [KEYS[0], KEYS[2]].iter().for_each(|key| two_phases.prewrite(&world, key, "never"));
    let safe_point = world.timestamp();
    let younger = Other::new(&world, KEYS[1]);
    younger.prewrite(&world, KEYS[1], "later");
    assert_eq!(sweep_to(&world, safe_point).locks, 2);
    assert_eq!(world.locked_keys(younger.start_ts), [KEYS[1]]);
    assert_eq!(world.locks().len(), 1);
    assert_eq!(world.read_all(&[KEYS[0], KEYS[2]]), [some("before"), some("before")]);
    let commit_ts = world.timestamp();
    younger.commit(&world, KEYS[1], commit_ts);
    assert_eq!(world.read(KEYS[1]), some("later"));
}

/// S20.
#[test]
fn an_async_commit_that_is_committed_stays_committed() {
    let world = World::new();
    world.write(&KEYS, "before");
    let other = Other::new(&world, KEYS[0]).with_secondaries(&[KEYS[1], KEYS[2]]);
    KEYS.iter().for_each(|key| other.prewrite(&world, key, "after"));
    assert_eq!(sweep(&world).locks, 3);
    assert!(world.locks().is_empty());
    assert_eq!(world.read_all(&KEYS), [some("after"), some("after"), some("after")]);
}

/// S20, the other way round. client-go: `TestBatchResolveTxnFallenBackFromAsyncCommit`.
#[test]
fn an_async_commit_that_fell_back_is_rolled_back_everywhere() {
    let world = World::new();
    world.write(&KEYS, "before");
    let with_async = Other::new(&world, KEYS[0]).with_secondaries(&[KEYS[1]]);
    let sync = Other { secondaries: None, ..with_async.clone() };
    with_async.prewrite(&world, KEYS[0], "never");
    sync.prewrite(&world, KEYS[1], "never");
    assert_eq!(sweep(&world).locks, 2);
    assert!(world.locks().is_empty());
    assert_eq!(world.read_all(&KEYS), [some("before"), some("before"), some("before")]);
}

/// S21: what is resolved cannot be locked again, neither at the primary nor elsewhere.
#[test]
fn a_prewrite_that_comes_late_finds_its_transaction_rolled_back() {
    // The key whose prewrite is late.
    for late in [KEYS[0], KEYS[2]] {
        for is_async in [true, false] {
            let world = World::new();
            world.write(&KEYS, "before");
            let other = Other::new(&world, KEYS[0]);
            let other = if is_async { other.with_secondaries(&[KEYS[1], KEYS[2]]) } else { other };
            let early = KEYS.iter().filter(|key| **key != late);
            early.for_each(|key| other.prewrite(&world, key, "never"));
            assert_eq!(sweep(&world).locks, 2);
            if is_taken(&world, &other, late) {
                // A secondary of a transaction in two phases: its primary says what is to become of it.
                assert!(!is_async && late == KEYS[2]);
                let commit = CommitRequest {
                    keys: vec![KEYS[0].into()],
                    start_version: other.start_ts.version(),
                    commit_version: world.timestamp().version(),
                    ..CommitRequest::default()
                };
                let Response::Commit(response) = world.ask(KEYS[0], commit) else { panic!() };
                assert!(response.error.is_some(), "it is rolled back");
            }
            assert_eq!(world.read_all(&KEYS), [some("before"), some("before"), some("before")], "{late} {is_async}");
        }
    }
}

/// S23. client-go: `testLockWithTiKVSuite.TestBatchResolveLocks`.
#[test]
fn pessimistic_locks_do_not_decide_for_their_transaction() {
    let world = World::new();
    // It locked a key, chose another primary, and is committed there.
    let stale = Other::new(&world, KEYS[0]);
    let committed = Other { primary: KEYS[1], ..stale.clone() };
    stale.lock(&world, KEYS[0]);
    committed.prewrite(&world, KEYS[1], "v");
    committed.prewrite(&world, KEYS[2], "v");
    let commit_ts = world.timestamp();
    committed.commit(&world, KEYS[1], commit_ts);
    // And one that has locked nothing but its primary.
    let other = Other::new(&world, "0other");
    other.lock(&world, "0other");
    assert_eq!(sweep(&world).locks, 3);
    assert!(world.locks().is_empty());
    assert_eq!(world.read_all(&KEYS), [None, some("v"), some("v")]);
    let resolves = world.seen(RequestKind::ResolveLock);
    assert_eq!(resolves.len(), 1, "pessimistic locks are not resolved");
    let Request::ResolveLock(resolve) = &resolves[0].request else { panic!() };
    assert_eq!((resolve.txn_infos.len(), resolve.keys.len()), (1, 0));
}

/// Whoever has prewritten is ended. A pessimistic lock may be taken anew by the prewrite, if nobody has written the key.
#[test]
fn the_owner_of_a_transaction_that_was_ended_hears_so_and_nothing_is_written() {
    let options = TransactionOptions::default;
    for options in [options(), options().pessimistic(), options().pessimistic().async_commit()] {
        let world = World::new();
        let txn = world.run(world.client.begin_with(options)).expect("PD answers");
        if txn.is_pessimistic() {
            world.run(txn.lock_keys(KEYS, LockOptions::default())).expect("nothing is in the way");
            assert_eq!(sweep(&world).locks, 3);
        }
        KEYS.iter().for_each(|key| txn.put(*key, "never").expect("it fits"));
        // The primary is locked, the others are on their way.
        world.inject(Fault::new(Effect::Delay(millis(300))).on(RequestKind::Prewrite).on_key(KEYS[2]));
        let commit = world.commit(&txn);
        world.until(|world| world.locked_keys(txn.start_ts()).len() == 2);
        assert_eq!(sweep(&world).locks, 2);
        let error = world.join(commit).expect_err("it was ended");
        assert!(!error.is_undetermined(), "{error:?}");
        assert_eq!(world.read_all(&KEYS), [None, None, None]);
    }
}

#[test]
fn locks_are_listed_asked_about_and_resolved_on_their_own() {
    let world = World::new();
    let locks = world.client.locks();
    let other = Other::new(&world, KEYS[0]);
    KEYS.iter().for_each(|key| other.prewrite(&world, key, "never"));
    let now = world.timestamp();
    let before = Timestamp::from_version(other.start_ts.version() - 1);
    assert_eq!(world.run(locks.scan::<&str>(.., before, 10)).expect("the stores answer"), []);
    let page = world.run(locks.scan::<&str>(.., now, 2)).expect("the stores answer");
    assert_eq!(page.iter().map(|lock| lock.key.clone()).collect::<Vec<_>>(), keys(&KEYS[..2]));
    let status = world.run(locks.txn_status(&page[1])).expect("the stores answer");
    assert!(matches!(&status, TxnStatus::Alive(alive) if alive.ms_before_expired > 0), "{status:?}");
    let left = world.run(locks.resolve_for_write(page.clone())).expect("the stores answer");
    assert!(left.ms_before_expired > 0 && world.locks().len() == 3, "{left:?}");
    let reader = world.run(locks.resolve_for_read(now, page.clone())).expect("the stores answer");
    assert_eq!(reader.ignored, [other.start_ts], "it is made to commit later");
    world.pass(secs(2));
    let left = world.run(locks.resolve_for_write(page)).expect("the stores answer");
    assert_eq!((left.ms_before_expired, world.locked_keys(other.start_ts)), (0, vec![KEYS[2].to_owned()]));
    let status = world.run(locks.txn_status_at(other.start_ts, KEYS[0])).expect("the stores answer");
    assert_eq!(status, TxnStatus::RolledBack);
    assert_eq!(world.run(locks.txn_status_at(other.start_ts, "")), Err(Error::EmptyKey));
}

/// Three transactions share the lock of a key. client-go: `TestScanSharedLock`.
#[test]
fn shared_locks_are_swept_each_for_its_transaction() {
    let world = World::new();
    let share = |primary: &'static str| {
        let txn = world.run(world.client.begin_with(TransactionOptions::default().pessimistic())).expect("PD answers");
        let options = LockOptions::default();
        world.run(txn.lock_keys([primary], options)).expect("nothing is in the way");
        world.run(txn.lock_keys(["shared"], options.shared())).expect("others share it");
        txn
    };
    let txns = ["0a", "0b", "0c"].map(share);
    let count = |world: &World, at: Timestamp| {
        world.run(world.client.locks().scan("s".."t", at, 100)).expect("the stores answer").len()
    };
    for (index, txn) in txns.iter().enumerate() {
        assert_eq!(count(&world, txn.start_ts()), index + 1);
    }
    assert_eq!(sweep_to(&world, txns[1].start_ts()).locks, 4);
    let now = world.timestamp();
    assert_eq!(count(&world, now), 1);
    txns[2].put("0c", "v").expect("it fits");
    world.run(txns[2].commit()).expect("it is younger");
    txns[1].put("0b", "v").expect("it fits");
    let error = world.run(txns[1].commit()).expect_err("it was ended");
    assert!(!error.is_undetermined(), "{error:?}");
    assert_eq!(world.read_all(&["0b", "0c"]), [None, some("v")]);
}

// ---- The whole of it ----

fn collect(world: &World, safe_point: Timestamp) -> Result<Collected, Error> {
    let gc = world.client.gc().with_timeout(secs(30));
    world.run(async move { gc.collect(safe_point).await })
}

fn state(world: &World) -> GcState {
    let gc = world.client.gc();
    world.run(async move { gc.state().await }).expect("PD answers")
}

/// What a snapshot of some time ago finds.
fn read_at(world: &World, at: Timestamp, key: &'static str) -> Option<String> {
    let snapshot = world.client.snapshot_at(at);
    world.run(async move { snapshot.get(key).await }).expect("it can be read").as_ref().map(text)
}

#[test]
fn versions_that_nobody_reads_any_more_go_and_the_newest_stay() {
    let world = World::new();
    let oldest = world.write(&KEYS, "oldest");
    world.write(&KEYS, "older");
    let abandoned = Other::new(&world, "never");
    let safe_point = world.timestamp();
    let newest = world.write(&KEYS[..1], "newest");
    abandoned.prewrite(&world, "never", "v");
    let collected = collect(&world, safe_point).expect("nothing is in the way");
    assert_eq!((collected.safe_point, collected.blocker.as_str(), collected.swept.locks), (safe_point, "", 1));
    let known = state(&world);
    assert_eq!((known.txn_safe_point, known.gc_safe_point), (safe_point, safe_point));
    world.pass(secs(60));
    assert_eq!(read_at(&world, oldest, KEYS[0]), None, "TiKV has removed it");
    assert_eq!(read_at(&world, safe_point, KEYS[0]), some("older"), "the newest of then");
    assert_eq!(read_at(&world, newest, KEYS[0]), some("newest"));
    assert_eq!(world.read_all(&KEYS), [some("newest"), some("older"), some("older")]);
}

#[test]
fn a_barrier_holds_it_back_until_it_is_deleted_or_its_time_is_over() {
    let world = World::new();
    let gc = world.client.gc();
    let oldest = world.write(&KEYS, "oldest");
    world.write(&KEYS, "newest");
    let set = world.run(gc.set_barrier("backup", oldest, None)).expect("nothing is collected yet");
    assert_eq!((set.id.as_str(), set.ts, set.ttl), ("backup", oldest, None));
    let collected = collect(&world, world.timestamp()).expect("PD goes as far as it may");
    assert_eq!(collected.safe_point, oldest);
    assert!(collected.blocker.contains("backup"), "{collected:?}");
    assert_eq!(state(&world).barriers, std::slice::from_ref(&set));
    world.pass(secs(60));
    assert_eq!(read_at(&world, oldest, KEYS[0]), some("oldest"));
    assert_eq!(world.run(gc.delete_barrier("backup")), Ok(Some(set)));
    assert_eq!(world.run(gc.delete_barrier("backup")), Ok(None));

    let now = world.timestamp();
    let set = world.run(gc.set_barrier("backup", now, Some(millis(4_500)))).expect("it is not behind");
    assert_eq!(set.ttl, Some(secs(5)), "rounded up");
    assert_eq!(collect(&world, world.timestamp()).expect("PD answers").safe_point, now);
    world.pass(secs(6));
    let safe_point = world.timestamp();
    assert_eq!(collect(&world, safe_point).expect("its time is over").safe_point, safe_point);
    let behind = world.run(gc.set_barrier("backup", now, None)).expect_err("versions may be gone");
    assert!(matches!(behind, Error::Pd(PdError::Refused { .. })), "{behind}");
}

/// Either would be for good.
#[test]
fn a_safe_point_neither_goes_back_nor_lies_in_the_future() {
    let world = World::new();
    world.write(&KEYS, "v");
    let (before, safe_point) = (world.timestamp(), world.timestamp());
    collect(&world, safe_point).expect("nothing is in the way");
    let (back, began) = (collect(&world, before), world.now());
    assert!(matches!(back, Err(Error::Pd(PdError::Refused { .. }))), "{back:?}");
    assert!(world.now().saturating_since(began) < secs(1), "it is not tried again");
    for future in [Timestamp::MAX, Timestamp::compose(world.timestamp().physical_ms() + 60_000, 0)] {
        let refused = collect(&world, future);
        assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
    }
    assert_eq!(state(&world).txn_safe_point, safe_point);
    assert_eq!(
        collect(&world, safe_point).map(|collected| collected.safe_point),
        Ok(safe_point),
        "again, but no further"
    );
}

#[test]
fn nothing_goes_while_there_may_be_a_lock() {
    let world = World::new();
    let oldest = world.write(&KEYS, "oldest");
    world.write(&KEYS, "newest");
    let safe_point = world.timestamp();
    (1..=3).for_each(|store| world.simulation().stop_store(store).expect("it runs"));
    let error = collect(&world, safe_point).expect_err("no store answers");
    assert!(error.is_timeout(), "{error}");
    let known = state(&world);
    assert_eq!((known.txn_safe_point, known.gc_safe_point), (safe_point, Timestamp::ZERO));
    (1..=3).for_each(|store| world.simulation().start_store(store).expect("it was stopped"));
    world.pass(secs(60));
    assert_eq!(read_at(&world, oldest, KEYS[0]), some("oldest"));
    assert_eq!(collect(&world, safe_point).map(|collected| collected.safe_point), Ok(safe_point));
}

#[test]
fn without_pd_it_ends_in_time() {
    let world = World::new();
    let safe_point = world.timestamp();
    world.set_pd_cut_off(true);
    let gc = world.client.gc().with_timeout(secs(2));
    let (result, took) = world.timed(async move { gc.collect(safe_point).await });
    assert!(result.expect_err("PD is gone").is_timeout());
    assert_eq!(took, secs(2));
}

#[test]
fn a_range_is_dropped_from_every_store_with_its_versions_and_locks() {
    let world = World::new();
    let keys = ["0k", "a1", "a2", "b"];
    let before = world.write(&keys, "v");
    let other = Other::new(&world, "a3");
    other.prewrite(&world, "a3", "never");
    let gc = world.client.gc();
    let destroy = gc.clone();
    world.run(async move { destroy.destroy_range("a".."b").await }).expect("the stores answer");
    assert_eq!(world.read_all(&keys), [some("v"), None, None, some("v")]);
    assert_eq!(read_at(&world, before, "a1"), None);
    assert!(world.locks().is_empty());
    let mut stores: Vec<u64> = world.seen(RequestKind::UnsafeDestroyRange).iter().map(|seen| seen.store_id).collect();
    stores.sort_unstable();
    assert_eq!(stores, [1, 2, 3]);
    let unbounded = world.run(async move { gc.destroy_range("a"..).await });
    assert!(matches!(unbounded, Err(Error::InvalidArgument(_))), "{unbounded:?}");
}

#[test]
fn a_store_that_is_down_for_a_moment_drops_the_range_afterwards() {
    let world = World::new();
    world.write(&["a1"], "v");
    let lost = Fault::new(Effect::LoseReply).on(RequestKind::UnsafeDestroyRange);
    world.inject(lost);
    let gc = world.client.gc();
    world.run(async move { gc.destroy_range("a".."b").await }).expect("it is asked again");
    assert_eq!((world.count(RequestKind::UnsafeDestroyRange), world.read("a1")), (4, None));
}
