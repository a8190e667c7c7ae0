//! What client-go's tests do to locks, as this client does it.

use std::time::Duration;

use tikv::{Error, LockInfo, LockOptions, LockWait, LockedKey, OnConflict, Transaction, TransactionOptions, TxnStatus};
use tikv_core::request::{Request, RequestKind, Response};
use tikv_proto::kvrpcpb::{Op, PessimisticRollbackRequest};
use tikv_sim::cluster::{Fault, region_error};

use crate::world::{KEYS, Other, World, millis, refused, secs, some};

fn begin(world: &World) -> Transaction {
    world.run(world.client.begin_with(TransactionOptions::default().pessimistic())).expect("PD answers")
}

fn lock(world: &World, txn: &Transaction, key: &'static str, options: LockOptions) -> Result<LockedKey, Error> {
    world.run(txn.lock_keys([key], options)).map(|mut locked| locked.remove(0))
}

/// The locks on a key, as the lock API shows them.
fn scan(world: &World, key: &'static str) -> Vec<LockInfo> {
    let now = world.timestamp();
    world.run(world.client.locks().scan(key..=key, now, 10)).expect("the stores answer")
}

/// Releases the pessimistic lock of another client.
fn release(world: &World, other: &Other, key: &'static str) {
    let request = PessimisticRollbackRequest {
        keys: vec![key.into()],
        start_version: other.start_ts.version(),
        for_update_ts: other.start_ts.version(),
        ..PessimisticRollbackRequest::default()
    };
    let Response::PessimisticRollback(response) = world.ask(key, request) else { panic!() };
    assert!(response.errors.is_empty(), "{response:?}");
}

/// Prewrites the deletion of a key.
fn delete(world: &World, other: &Other, key: &'static str) {
    let mut request = other.prewrite_request(key, "");
    request.mutations.iter_mut().for_each(|mutation| mutation.set_op(Op::Del));
    let Response::Prewrite(response) = world.ask(key, request) else { panic!() };
    assert!(response.errors.is_empty(), "{response:?}");
}

/// `TestAggressiveLockingInsert`.
#[test]
fn fair_locks_of_keys_that_must_be_absent_are_refused_where_they_exist() {
    let world = World::new();
    world.write(&["k1", "k3", "k8"], "before");
    let txn = begin(&world);
    world.run(txn.lock_keys(["k1", "k2"], LockOptions::default().return_values())).expect("nothing is in the way");
    let absent = LockOptions::default().must_not_exist();
    let exists = |key: &'static str| Error::KeyExists { key: key.into() };
    let mut statement = txn.fair_locking().expect("it is open");
    // Locked before, and known to exist or not.
    assert_eq!(lock(&world, &txn, "k1", absent).expect_err("it exists"), exists("k1"));
    assert!(lock(&world, &txn, "k2", absent).expect("it is absent").was_locked);
    assert_eq!(lock(&world, &txn, "k3", absent).expect_err("it exists"), exists("k3"));
    assert!(lock(&world, &txn, "k4", absent).expect("it is absent").is_locked);
    // Another one writes these while they are waited for.
    let other = Other::new(&world, "k7");
    other.prewrite(&world, "k7", "later");
    delete(&world, &other, "k8");
    let waits = ["k7", "k8"].map(|key| {
        let txn = txn.clone();
        move || async move { txn.lock_keys([key], absent.wait(LockWait::Always)).await }
    });
    let [inserted, deleted] = waits;
    let inserted = world.start(inserted());
    world.pass(millis(100));
    let commit_ts = world.timestamp();
    ["k7", "k8"].iter().for_each(|key| other.commit(&world, key, commit_ts));
    assert_eq!(world.join(inserted).expect_err("it exists by now"), exists("k7"));
    let gone = world.run(deleted()).expect("it is absent by now").remove(0);
    assert!(gone.is_locked && gone.lock_ts >= commit_ts, "{gone:?}");
    statement.retry().expect("it goes on");
    assert_eq!(lock(&world, &txn, "k7", absent).expect_err("it exists"), exists("k7"));
    assert!(lock(&world, &txn, "k8", absent).expect("it is absent").is_locked);
    statement.cancel().expect("it goes on");
    txn.rollback().expect("it is open");
    world.until(|world| world.locks().is_empty());
}

/// `TestAggressiveLockingLockOnlyIfExists`.
#[test]
fn a_fair_lock_that_needs_the_key_to_exist_is_taken_in_conflict_only_if_it_does() {
    let only_if_exists = LockOptions::default().return_values().lock_only_if_exists().wait(LockWait::Always);
    for (exists, on_conflict) in [(true, OnConflict::Fail), (false, OnConflict::Fail), (false, OnConflict::default())] {
        let world = World::new();
        world.write(&[KEYS[0]], "v0");
        // It writes the key while that is waited for.
        let other = Other::new(&world, KEYS[0]);
        if exists {
            other.prewrite(&world, KEYS[0], "v1");
        } else {
            delete(&world, &other, KEYS[0]);
        }
        let txn = begin(&world);
        let statement = txn.fair_locking().expect("it is open");
        let (waiting, options) = (txn.clone(), only_if_exists.on_conflict(on_conflict));
        let locked = world.start(async move { waiting.lock_keys([KEYS[0]], options).await });
        world.pass(millis(100));
        let commit_ts = world.timestamp();
        other.commit(&world, KEYS[0], commit_ts);
        match world.join(locked).map(|mut locked| locked.remove(0)) {
            Ok(found) if exists => {
                assert!(found.is_locked && found.in_conflict && !found.was_locked, "{found:?}");
                assert_eq!((found.value, found.lock_ts), (Some("v1".into()), commit_ts));
            }
            Ok(found) => assert!(on_conflict != OnConflict::Fail && !found.is_locked && found.exists == Some(false)),
            Err(error) => assert!(on_conflict == OnConflict::Fail && matches!(error, Error::WriteConflict(_))),
        }
        assert_eq!(world.locked_keys(txn.start_ts()).len(), usize::from(exists), "what does not exist is not locked");
        statement.cancel().expect("it is fair");
        txn.rollback().expect("it is open");
        world.until(|world| world.locks().is_empty());
    }
}

/// `TestPessimisticLockAllowLockWithConflictError`.
#[test]
fn a_fair_lock_that_fails_holds_nothing_and_can_be_tried_again() {
    let options = LockOptions::default;
    for options in [options(), options().return_values(), options().check_existence()] {
        let world = World::new();
        let other = Other { ttl: secs(60), ..Other::new(&world, KEYS[0]) };
        other.lock(&world, KEYS[0]);
        let txn = begin(&world);
        let statement = txn.fair_locking().expect("it is open");
        let impatient = options.wait(LockWait::For(millis(10)));
        let error = lock(&world, &txn, KEYS[0], impatient).expect_err("it is locked");
        assert!(matches!(error, Error::LockWaitTimeout(_)), "{error:?}");
        assert!(world.locked_keys(txn.start_ts()).is_empty());
        release(&world, &other, KEYS[0]);
        let not_leader = region_error::not_leader(1, None);
        world.inject(Fault::new(refused(not_leader)).on(RequestKind::PessimisticLock));
        assert!(lock(&world, &txn, KEYS[0], impatient).expect("it is free").is_locked);
        assert_eq!(world.locked_keys(txn.start_ts()), [KEYS[0]]);
        statement.cancel().expect("it is fair");
        txn.rollback().expect("it is open");
        world.until(|world| world.locks().is_empty());
    }
}

/// `TestPushPessimisticLock`.
#[test]
fn a_reader_passes_a_transaction_whose_primary_is_locked_pessimistically() {
    let world = World::new();
    let txn = begin(&world);
    lock(&world, &txn, KEYS[0], LockOptions::default()).expect("nothing is in the way");
    let same = Other { start_ts: txn.start_ts(), primary: KEYS[0], ttl: secs(60), secondaries: None };
    same.prewrite(&world, KEYS[1], "later");
    let client = world.client.clone();
    let (value, took) = world.timed(async move { client.snapshot().await?.get(KEYS[1]).await });
    assert_eq!(value, Ok(None));
    assert!(took < millis(500), "{took:?}");
}

/// `TestPkNotFound`.
#[test]
fn a_pessimistic_lock_whose_primary_is_gone_goes_alone() {
    let world = World::new();
    let other = Other::new(&world, KEYS[0]);
    KEYS.iter().for_each(|key| other.lock(&world, key));
    world.pass(secs(2));
    let met = scan(&world, KEYS[1]).remove(0);
    let locks = world.client.locks();
    let status = world.run(locks.txn_status(&met)).expect("the stores answer");
    assert_eq!(status, TxnStatus::PessimisticLockExpired);
    let status = world.run(locks.txn_status(&met)).expect("the stores answer");
    assert_eq!(status, TxnStatus::NoTrace, "nothing is remembered, and no record is left");
    let txn = begin(&world);
    assert!(lock(&world, &txn, KEYS[1], LockOptions::default()).expect("it has expired").is_locked);
    // A lock that was taken later than the one that was met stays.
    let earlier = tikv::Timestamp::from_version(other.start_ts.version() - 1);
    let outdated = LockInfo { for_update_ts: earlier, ..scan(&world, KEYS[2]).remove(0) };
    world.run(locks.resolve_for_write(vec![outdated])).expect("the stores answer");
    assert_eq!(world.locked_keys(other.start_ts), [KEYS[2]]);
    let nobody_waits = LockOptions::default().wait(LockWait::NoWait);
    assert!(lock(&world, &txn, KEYS[2], nobody_waits).expect("it has expired").is_locked);
    txn.rollback().expect("it is open");
}

/// `TestResolveMixed`.
#[test]
fn prewritten_and_pessimistic_locks_of_a_large_transaction_without_a_primary_are_all_resolved() {
    let world = World::new();
    let other = Other::new(&world, KEYS[0]);
    other.lock(&world, KEYS[0]);
    let mut request = other.prewrite_request("a1", "never");
    request.txn_size = 600;
    world.ask("a1", request);
    other.lock(&world, "a2");
    release(&world, &other, KEYS[0]);
    world.pass(secs(2));
    let met = scan(&world, "a1");
    let left = world.run(world.client.locks().resolve_for_write(met)).expect("the stores answer");
    assert_eq!(left.ms_before_expired, 0);
    // Those in memory TiKV does not look for.
    assert_eq!(world.locked_keys(other.start_ts), ["a2"]);
    let Request::ResolveLock(resolve) = &world.seen(RequestKind::ResolveLock)[0].request else { panic!() };
    assert!(resolve.keys.is_empty() && resolve.start_version == other.start_ts.version());
    let txn = begin(&world);
    let nobody_waits = LockOptions::default().wait(LockWait::NoWait);
    assert!(lock(&world, &txn, "a2", nobody_waits).expect("it is free").is_locked);
}

/// `TestRetryPushTTL`.
#[test]
fn a_lock_that_was_waited_for_lives_as_long_as_one_that_was_not() {
    const LIFE: Duration = Duration::from_secs(2);
    let world = World::with_config(|config| config.managed_lock_ttl = LIFE);
    let other = Other { ttl: secs(60), ..Other::new(&world, KEYS[0]) };
    other.lock(&world, KEYS[0]);
    let txn = begin(&world);
    let (waiting, options) = (txn.clone(), LockOptions::default().wait(LockWait::Always));
    let locked = world.start(async move { waiting.lock_keys([KEYS[0]], options).await });
    world.pass(secs(5));
    release(&world, &other, KEYS[0]);
    world.join(locked).expect("it is free");
    let ttl = Duration::from_millis(scan(&world, KEYS[0])[0].ttl_ms);
    assert!(ttl >= secs(4) + LIFE, "{ttl:?} from the beginning of the transaction");
}

/// `TestUnsetPrimaryKey`.
#[test]
fn a_transaction_that_could_not_insert_a_key_may_commit_others() {
    let world = World::new();
    world.write(&[KEYS[0]], "before");
    let txn = begin(&world);
    txn.insert(KEYS[0], "again").expect("it is not known to exist");
    let error = lock(&world, &txn, KEYS[0], LockOptions::default()).expect_err("it exists");
    assert_eq!(error, Error::KeyExists { key: KEYS[0].into() });
    txn.delete(KEYS[0]).expect("it fits");
    txn.put(KEYS[1], "v").expect("it fits");
    world.run(txn.commit()).expect("its other keys are free");
    assert_eq!(world.read_all(&KEYS), [None, some("v"), None]);
}

/// `TestPessimisticTxnResolveAsyncCommitLock`.
#[test]
fn a_pessimistic_transaction_decides_async_commits_that_its_prewrites_meet() {
    let world = World::new();
    let other = Other::new(&world, KEYS[0]).with_secondaries(&[]);
    other.prewrite(&world, KEYS[0], "theirs");
    let txn = begin(&world);
    lock(&world, &txn, KEYS[1], LockOptions::default()).expect("nothing is in the way");
    txn.put(KEYS[0], "ours").expect("it fits");
    let commit_ts = world.run(txn.commit()).expect("the other one is decided").commit_ts.expect("it wrote");
    assert_eq!(world.read(KEYS[0]), some("ours"));
    let before = world.client.snapshot_at(tikv::Timestamp::from_version(commit_ts.version() - 1));
    assert_eq!(world.run(before.get(KEYS[0])), Ok(Some("theirs".into())));
}
