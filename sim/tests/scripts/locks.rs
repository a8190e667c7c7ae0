//! Locks of other transactions, and of other kinds than this client writes.

use tikv::{Error, ResolvingLock, TransactionOptions};
use tikv_core::request::{Request, RequestKind};
use tikv_sim::cluster::{Effect, Fault, region_error};

use crate::world::{KEYS, Other, World, millis, refused, secs, some};

/// S19: the primary fell back to two phases, a secondary did not.
#[test]
fn a_transaction_that_fell_back_at_its_primary_only_is_resolved_as_soon_as_it_expires() {
    let world = World::new();
    world.write(&KEYS, "before");
    let sync = Other::new(&world, KEYS[0]);
    let with_async = sync.clone().with_secondaries(&[KEYS[1], KEYS[2]]);
    sync.prewrite(&world, KEYS[0], "never");
    with_async.prewrite(&world, KEYS[1], "never");
    with_async.prewrite(&world, KEYS[2], "never");
    world.pass(secs(2));
    for key in [KEYS[1], KEYS[2], KEYS[0]] {
        let client = world.client.clone();
        let (value, took) = world.timed(async { client.snapshot().await?.with_timeout(secs(30)).get(key).await });
        assert_eq!(value.expect("it is expired"), Some("before".into()));
        assert!(took < millis(500), "{key}: {took:?}");
    }
    for seen in world.seen(RequestKind::CheckTxnStatus) {
        let Request::CheckTxnStatus(check) = &seen.request else { panic!() };
        assert_ne!(check.current_ts, 0, "TiKV cannot judge without the time");
    }
    world.until(|world| world.locks().is_empty());
}

/// S19, the other way round: the primary still looks like an async commit.
#[test]
fn a_transaction_that_fell_back_at_a_secondary_only_is_resolved_as_soon_as_it_expires() {
    let world = World::new();
    world.write(&KEYS, "before");
    let with_async = Other::new(&world, KEYS[0]).with_secondaries(&[KEYS[1], KEYS[2]]);
    let sync = Other { secondaries: None, ..with_async.clone() };
    with_async.prewrite(&world, KEYS[0], "never");
    sync.prewrite(&world, KEYS[1], "never");
    with_async.prewrite(&world, KEYS[2], "never");
    world.pass(secs(2));
    assert_eq!(world.read_all(&KEYS), [some("before"), some("before"), some("before")]);
    world.until(|world| world.locks().is_empty());
}

/// S22: who is told that a key is not the primary concludes nothing from it.
#[test]
fn a_lock_that_names_a_key_that_is_no_primary_is_left_alone() {
    let world = World::new();
    let before = Other::new(&world, KEYS[0]);
    let switched = Other { primary: KEYS[2], ..before.clone() };
    switched.prewrite(&world, KEYS[0], "v");
    before.prewrite(&world, KEYS[1], "v");
    switched.prewrite(&world, KEYS[2], "v");
    world.pass(secs(2));
    let (client, snapshot) = (world.client.clone(), world.run(world.client.snapshot()).expect("PD answers"));
    let result = world.run(snapshot.with_timeout(secs(5)).get(KEYS[1]));
    assert!(result.is_err(), "{result:?}");
    assert_eq!(world.locked_keys(before.start_ts), KEYS, "nothing was released");
    for seen in world.seen(RequestKind::CheckTxnStatus) {
        let Request::CheckTxnStatus(check) = &seen.request else { panic!() };
        assert!(check.verify_is_primary);
    }
    // The true primary decides, for all keys that name it.
    let commit_ts = world.timestamp();
    switched.commit(&world, KEYS[2], commit_ts);
    let value = world.run(async { client.snapshot().await?.get(KEYS[0]).await });
    assert_eq!(value.expect("its primary is committed"), Some("v".into()));
}

/// S24.
#[test]
fn a_rolled_back_async_commit_loses_every_lock_that_is_left() {
    // Which keys were rolled back before anybody came, and which lock is met.
    let cases = [
        (vec![KEYS[2]], KEYS[1]),
        (vec![KEYS[2]], KEYS[0]),
        (vec![KEYS[0]], KEYS[2]),
        (vec![KEYS[0], KEYS[1]], KEYS[2]),
    ];
    for (gone, met) in cases {
        let world = World::new();
        world.write(&KEYS, "before");
        let other = Other::new(&world, KEYS[0]).with_secondaries(&[KEYS[1], KEYS[2]]);
        KEYS.iter().for_each(|key| other.prewrite(&world, key, "never"));
        gone.iter().for_each(|key| other.roll_back(&world, key));
        world.pass(secs(2));
        assert_eq!(world.read(met), some("before"), "{gone:?} {met}");
        if gone == [KEYS[2]] {
            // The primary has listed all of them.
            world.pass(secs(1));
            assert!(world.locks().is_empty(), "{gone:?} {met}");
        }
        assert_eq!(world.read_all(&KEYS), [some("before"), some("before"), some("before")], "{gone:?} {met}");
        world.until(|world| world.locks().is_empty());
    }
}

/// S7, as far as recovery goes: all keys are locked, so it is committed, whoever finds out, and at one timestamp.
#[test]
fn an_async_commit_whose_client_died_is_committed_once_and_for_all_readers() {
    let world = World::new();
    world.write(&KEYS, "before");
    let other = Other::new(&world, KEYS[0]).with_secondaries(&[KEYS[1], KEYS[2]]);
    KEYS.iter().for_each(|key| other.prewrite(&world, key, "after"));
    world.pass(secs(2));
    let readers: Vec<_> = KEYS
        .iter()
        .map(|key| {
            let client = world.client.clone();
            world.start(async move { client.snapshot().await?.get(*key).await })
        })
        .collect();
    for reader in readers {
        assert_eq!(world.join(reader).expect("it is recovered"), Some("after".into()));
    }
    world.until(|world| world.locks().is_empty());
    assert_eq!(world.read_all(&KEYS), [some("after"), some("after"), some("after")]);
}

/// S25: that there was nothing to be done says nothing of the transaction.
#[test]
fn a_transaction_whose_primary_is_not_locked_loses_the_lock_that_was_met_and_nothing_else() {
    let world = World::new();
    let hasty = Other::new(&world, KEYS[0]);
    let patient = Other { ttl: secs(600), ..hasty.clone() };
    hasty.lock(&world, "ak");
    patient.lock(&world, "al");
    world.pass(secs(2));
    // It does not wait for the expired lock of which the primary was lost, or not yet taken.
    let txn = world.writes(&["ak"], "mine");
    world.run(txn.commit()).expect("that lock has expired");
    assert_eq!(world.locked_keys(hasty.start_ts), ["al"]);
    let resolved: Vec<_> = world.seen(RequestKind::ResolveLock);
    assert!(resolved.is_empty(), "{resolved:#?}");
    // It is alive, and nobody remembers anything else.
    patient.prewrite(&world, KEYS[0], "theirs");
    let commit_ts = world.timestamp();
    patient.commit(&world, KEYS[0], commit_ts);
    assert_eq!(world.read(KEYS[0]), some("theirs"));
}

/// S27.
#[test]
fn transactions_that_hold_each_others_next_key_do_not_wait_until_their_locks_expire() {
    for younger_is_slower in [false, true] {
        let world = World::new();
        let (first, second) = (world.writes(&["0k", "zk"], "first"), world.writes(&["ak", "zk", "0k"], "second"));
        let slow = if younger_is_slower { ["zk", "0k"] } else { ["0k", "zk"] };
        // Each has locked one key before it asks for the other.
        let starts = [first.start_ts(), second.start_ts()];
        world.simulation().intercept(move |_, arrival| match arrival.request {
            Request::Prewrite(prewrite) => {
                let which = starts.iter().position(|ts| ts.version() == prewrite.start_version)?;
                arrival.names(slow[which].as_bytes()).then_some(Effect::Delay(millis(50)))
            }
            _ => None,
        });
        let (one, other) = (world.commit(&first), world.commit(&second));
        let (results, took) = {
            let both = async move { futures::future::join(one.0, other.0).await };
            let ((one, other), took) = world.timed(both);
            ([one.expect("it ends"), other.expect("it ends")], took)
        };
        // The locks live for 3 s.
        assert!(took < secs(1), "{took:?} {results:?}");
        assert!(results.iter().all(|result| !matches!(result, Err(error) if error.is_undetermined())), "{results:?}");
        assert!(results.iter().any(Result::is_ok), "{results:?}");
        world.until(|world| world.locks().is_empty());
    }
}

/// S28.
#[test]
fn a_status_check_that_is_never_answered_is_neither_success_nor_rollback() {
    let world = World::with_config(|config| config.call_timeout = secs(1));
    world.write(&KEYS, "before");
    let other = Other::new(&world, KEYS[0]);
    KEYS.iter().for_each(|key| other.prewrite(&world, key, "theirs"));
    world.pass(secs(2));
    world.inject(Fault::new(Effect::Lose).on(RequestKind::CheckTxnStatus).forever());
    let snapshot = world.run(world.client.snapshot()).expect("PD answers").with_timeout(secs(5));
    let ways = async {
        let (get, batch, scan) =
            futures::join!(snapshot.get(KEYS[1]), snapshot.batch_get(KEYS), snapshot.scan::<tikv::Key>(.., 10),);
        [get.map(drop), batch.map(drop), scan.map(drop)]
    };
    for result in world.run(ways) {
        assert!(result.as_ref().is_err_and(Error::is_timeout), "{result:?}");
    }
    let options = TransactionOptions::default().timeout(secs(5));
    let txn = world.run(world.client.begin_with(options)).expect("PD answers");
    txn.put(KEYS[1], "mine").expect("it fits");
    let error = world.run(txn.commit()).expect_err("the lock is in the way");
    assert!(!error.is_undetermined(), "{error}");
    assert_eq!(world.locked_keys(other.start_ts), KEYS, "nothing was released");
    // It was alive all the time.
    let commit_ts = world.timestamp();
    KEYS.iter().for_each(|key| other.commit(&world, key, commit_ts));
    world.clear_faults();
    assert_eq!(world.read_all(&KEYS), [some("theirs"), some("theirs"), some("theirs")]);
}

/// S29.
#[test]
fn a_lock_that_an_async_commit_has_left_behind_is_committed_or_rolled_back_as_its_primary_was() {
    for is_committed in [true, false] {
        let world = World::new();
        world.write(&KEYS, "before");
        let other = Other::new(&world, KEYS[0]).with_secondaries(&[KEYS[1], KEYS[2]]);
        KEYS.iter().for_each(|key| other.prewrite(&world, key, "after"));
        let commit_ts = world.timestamp();
        for key in &KEYS[..2] {
            if is_committed { other.commit(&world, key, commit_ts) } else { other.roll_back(&world, key) }
        }
        // Long before it expires.
        let client = world.client.clone();
        let (value, took) = world.timed(async { client.snapshot().await?.get(KEYS[2]).await });
        let wanted = if is_committed { "after" } else { "before" };
        assert_eq!(value.expect("its primary tells"), Some(wanted.into()));
        assert!(took < millis(100), "{took:?}");
        world.until(|world| world.locks().is_empty());
        assert_eq!(world.read_all(&KEYS), [some(wanted), some(wanted), some(wanted)]);
        world.write(&KEYS[2..], "newer");
        assert_eq!(world.read(KEYS[2]), some("newer"));
    }
}

/// S35: a leader that does not know yet what others have read is asked again.
#[test]
fn a_leader_that_has_not_synced_its_max_ts_is_waited_for() {
    let unsynced = || refused(region_error::max_timestamp_not_synced());
    let world = World::new();
    world.write(&KEYS, "before");
    world.inject(Fault::new(unsynced()).on(RequestKind::Prewrite).times(4));
    let txn = world.writes(&KEYS, "after");
    world.run(txn.commit()).expect("it syncs");
    world.until(|world| world.locks().is_empty());
    let other = Other::new(&world, KEYS[0]).with_secondaries(&[KEYS[1], KEYS[2]]);
    KEYS.iter().for_each(|key| other.prewrite(&world, key, "recovered"));
    world.pass(secs(2));
    for kind in [RequestKind::CheckTxnStatus, RequestKind::CheckSecondaryLocks, RequestKind::ResolveLock] {
        world.inject(Fault::new(unsynced()).on(kind).times(3));
    }
    assert_eq!(world.read_all(&KEYS), [some("recovered"), some("recovered"), some("recovered")]);
}

/// Whoever asks why a read takes so long is told which locks it has met.
#[test]
fn what_is_being_resolved_can_be_looked_at() {
    let world = World::new();
    let other = Other::new(&world, KEYS[0]);
    other.prewrite(&world, KEYS[1], "never");
    world.inject(Fault::new(Effect::Delay(secs(2))).on(RequestKind::CheckTxnStatus));
    let locks = world.client.locks();
    assert_eq!(locks.resolving(), []);
    let snapshot = world.run(world.client.snapshot()).expect("PD answers");
    let caller_ts = snapshot.read_ts();
    let read = world.start(async move { snapshot.get(KEYS[1]).await });
    world.pass(millis(100));
    let (start_ts, key, primary) = (other.start_ts, KEYS[1].into(), KEYS[0].into());
    assert_eq!(locks.resolving(), [ResolvingLock { caller_ts, start_ts, key, primary }]);
    assert_eq!(world.join(read), Ok(None));
    assert_eq!(locks.resolving(), []);
}

#[test]
fn who_loses_interest_resolves_nothing_any_more() {
    let world = World::new();
    Other::new(&world, KEYS[0]).prewrite(&world, KEYS[1], "never");
    world.inject(Fault::new(Effect::Lose).on(RequestKind::CheckTxnStatus).forever());
    let snapshot = world.run(world.client.snapshot()).expect("PD answers").with_timeout(millis(300));
    assert!(world.run(snapshot.get(KEYS[1])).is_err());
    assert_eq!(world.client.locks().resolving(), []);
}
