//! Locks in share mode.

use tikv::{LockOptions, LockWait, Timestamp, Transaction, TransactionOptions, TxnState};
use tikv_core::request::{Request, RequestKind, Response};
use tikv_proto::kvrpcpb::prewrite_request::PessimisticAction;
use tikv_proto::kvrpcpb::{Mutation, Op, PessimisticLockRequest, PrewriteRequest};
use tikv_sim::cluster::Effect;

use crate::world::{KEYS, Other, Started, World, keys, millis, secs, some};

/// What is shared. Each transaction has a primary of its own beside it.
const SHARED: &str = "shared";

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Commit,
    Rollback,
}

const ENDINGS: [Ending; 2] = [Ending::Commit, Ending::Rollback];

impl Ending {
    fn of(self, world: &World, txn: &Transaction) {
        match self {
            Ending::Commit => drop(world.run(txn.commit()).expect("it holds its locks")),
            Ending::Rollback => txn.rollback().expect("it is open"),
        }
    }
}

/// A pessimistic transaction that holds its primary.
fn begin(world: &World, primary: &'static str) -> Transaction {
    let options =
        TransactionOptions::default().pessimistic().lock_options(LockOptions::default().wait(LockWait::Always));
    let txn = world.run(world.client.begin_with(options)).expect("PD answers");
    world.run(txn.lock_keys([primary], LockOptions::default())).expect("nothing is in the way");
    txn
}

fn begin_sharing(world: &World, primary: &'static str) -> Transaction {
    let txn = begin(world, primary);
    world.run(txn.lock_keys([SHARED], LockOptions::default().shared())).expect("others share it");
    txn
}

fn wait_for(world: &World, txn: &Transaction, options: LockOptions) -> Started<Result<(), tikv::Error>> {
    let txn = txn.clone();
    world.start(async move { txn.lock_keys([SHARED], options.wait(LockWait::Always)).await.map(drop) })
}

/// Whose locks there are on the shared key.
fn holders(world: &World) -> Vec<Timestamp> {
    let now = world.timestamp();
    let locks = world.run(world.client.locks().scan(SHARED.."shared0", now, 100)).expect("the stores answer");
    assert!(locks.iter().all(|lock| lock.key == keys(&[SHARED])[0]), "{locks:?}");
    let mut holders: Vec<_> = locks.iter().map(|lock| lock.start_ts).collect();
    holders.sort_unstable();
    holders
}

/// No heartbeat of the transaction arrives from now on.
fn stop_heartbeats(world: &World, of: &[&Transaction]) {
    let dying: Vec<u64> = of.iter().map(|txn| txn.start_ts().version()).collect();
    world.simulation().intercept(move |_, arrival| match arrival.request {
        Request::TxnHeartBeat(beat) if dying.contains(&beat.start_version) => Some(Effect::Lose),
        _ => None,
    });
}

/// client-go: `TestSharedLockBlockExclusiveLock`.
#[test]
fn who_wants_a_key_alone_waits_for_all_that_share_it() {
    for ending in ENDINGS {
        let world = World::new();
        let sharers = ["0a", "0b"].map(|primary| begin_sharing(&world, primary));
        let alone = begin(&world, "0c");
        let mut waiting = wait_for(&world, &alone, LockOptions::default());
        for txn in &sharers {
            world.pass(millis(500));
            assert_eq!(waiting.0.try_recv(), Ok(None), "{ending:?}");
            ending.of(&world, txn);
        }
        world.join(waiting).expect("nobody shares it any more");
        assert_eq!(holders(&world), [alone.start_ts()]);
        alone.put(SHARED, "alone").expect("open");
        world.run(alone.commit()).expect("it holds the lock");
        assert_eq!(world.read(SHARED), some("alone"));
    }
}

/// client-go: `TestExclusiveLockBlockSharedLock`.
#[test]
fn who_wants_to_share_a_key_waits_for_who_has_it_alone() {
    for ending in ENDINGS {
        let world = World::new();
        let alone = begin(&world, "0a");
        world.run(alone.lock_keys([SHARED], LockOptions::default())).expect("nothing is in the way");
        let sharers = ["0b", "0c"].map(|primary| begin(&world, primary));
        let mut waiting = sharers.each_ref().map(|txn| wait_for(&world, txn, LockOptions::default().shared()));
        world.pass(millis(500));
        assert!(waiting.iter_mut().all(|waiting| waiting.0.try_recv() == Ok(None)), "{ending:?}");
        ending.of(&world, &alone);
        waiting.into_iter().for_each(|waiting| world.join(waiting).expect("it can be shared"));
        assert_eq!(holders(&world), sharers.each_ref().map(Transaction::start_ts));
    }
}

/// client-go: `TestSharedLockCommitAndRollback`.
#[test]
fn each_that_shares_a_key_ends_for_itself() {
    for ending in ENDINGS {
        let world = World::new();
        let sharers = ["0a", "0b", "0c"].map(|primary| begin_sharing(&world, primary));
        for (index, txn) in sharers.iter().enumerate() {
            let left: Vec<_> = sharers[index..].iter().map(Transaction::start_ts).collect();
            assert_eq!(holders(&world), left);
            ending.of(&world, txn);
            world.pass(secs(1));
        }
        assert_eq!(holders(&world), []);
    }
}

/// The commit of the key never arrives: what is left is a lock that stands for nothing. client-go: `TestResolveSharedLock`.
#[test]
fn who_meets_the_shared_lock_of_a_committed_transaction_clears_it_away() {
    let world = World::new();
    let committed = begin_sharing(&world, "0a");
    world.simulation().intercept(|_, arrival| {
        let is_secondary = arrival.request.kind() == RequestKind::Commit && arrival.names(SHARED.as_bytes());
        is_secondary.then_some(Effect::Lose)
    });
    world.run(committed.commit()).expect("its primary decides");
    assert_eq!(holders(&world), [committed.start_ts()]);
    let next = begin(&world, "0a");
    world.run(next.lock_keys([SHARED], LockOptions::default())).expect("its owner has ended");
    assert_eq!(holders(&world), [next.start_ts()]);
    next.rollback().expect("open");
    world.until(|world| world.locks().is_empty());
}

/// client-go: `TestGCSharedLock`.
#[test]
fn of_those_that_share_a_key_the_dead_are_cleared_away_and_the_living_stay() {
    let world = World::new();
    let sharers = ["0a", "0b", "0c"].map(|primary| begin_sharing(&world, primary));
    let now = world.timestamp();
    let locks = world.run(world.client.locks().scan(SHARED.."shared0", now, 100)).expect("the stores answer");
    assert_eq!(locks.len(), 3);
    let [first, second, living] = &sharers;
    stop_heartbeats(&world, &[first, second]);
    world.pass(secs(60));
    world.run(world.client.locks().resolve_for_write(locks)).expect("the stores answer");
    assert_eq!(holders(&world), [living.start_ts()]);
    living.put("0c", "alive").expect("open");
    world.run(living.commit()).expect("its locks are there");
    assert_eq!(world.read("0c"), some("alive"));
}

/// client-go: `TestPrewriteResolveExpiredSharedLock`.
#[test]
fn a_prewrite_passes_the_shared_lock_of_a_dead_transaction() {
    let world = World::new();
    let dead = begin_sharing(&world, "0a");
    stop_heartbeats(&world, &[&dead]);
    world.pass(secs(60));
    assert_eq!(holders(&world), [dead.start_ts()]);
    world.write(&[SHARED], "written");
    assert_eq!(world.read(SHARED), some("written"));
    assert_eq!(holders(&world), []);
}

/// client-go: `TestForceLockRetryOnSharedLock`.
#[test]
fn who_locks_fairly_waits_for_those_that_share_the_key() {
    let world = World::new();
    let sharer = begin_sharing(&world, "0a");
    let fair = begin(&world, "0b");
    let statement = fair.fair_locking().expect("open");
    let mut waiting = wait_for(&world, &fair, LockOptions::default());
    world.pass(millis(500));
    assert_eq!(waiting.0.try_recv(), Ok(None));
    sharer.rollback().expect("open");
    world.join(waiting).expect("nobody shares it any more");
    statement.finish().expect("open");
    assert_eq!(holders(&world), [fair.start_ts()]);
    fair.rollback().expect("open");
    assert_eq!(fair.state(), TxnState::RolledBack);
}

/// Of a transaction that is about to commit: the lock of a key that it shares is prewritten.
fn prewrite_shared(world: &World, txn: &Other, key: &'static str) {
    let (start, primary_lock) = (txn.start_ts.version(), txn.primary.into());
    let mutation = |op: Op| vec![Mutation { op: op.into(), key: key.into(), ..Mutation::default() }];
    let lock = PessimisticLockRequest {
        mutations: mutation(Op::SharedPessimisticLock),
        primary_lock,
        start_version: start,
        for_update_ts: start,
        lock_ttl: txn.ttl.as_millis() as u64,
        ..PessimisticLockRequest::default()
    };
    let Response::PessimisticLock(response) = world.ask(key, lock.clone()) else { panic!() };
    assert!(response.errors.is_empty() && response.region_error.is_none(), "{response:?}");
    let prewrite = PrewriteRequest {
        mutations: mutation(Op::SharedLock),
        primary_lock: lock.primary_lock,
        start_version: start,
        for_update_ts: start,
        lock_ttl: lock.lock_ttl,
        pessimistic_actions: vec![PessimisticAction::DoPessimisticCheck.into()],
        ..PrewriteRequest::default()
    };
    let Response::Prewrite(response) = world.ask(key, prewrite) else { panic!() };
    assert!(response.errors.is_empty() && response.region_error.is_none(), "{response:?}");
}

/// T16: each has lost the lock of its primary, which the other shares now. Both clients are dead.
#[test]
fn who_share_the_locks_of_each_others_primaries_are_cleared_away_when_their_time_is_up() {
    for is_swept in [false, true] {
        let world = World::new();
        world.write(&KEYS, "before");
        let (one, two) = (Other::new(&world, KEYS[0]), Other::new(&world, KEYS[1]));
        prewrite_shared(&world, &one, KEYS[1]);
        prewrite_shared(&world, &two, KEYS[0]);
        if is_swept {
            let (locks, now) = (world.client.locks(), world.timestamp());
            assert_eq!(world.run(locks.sweep::<&str>(.., now)).expect("none can be in the way").locks, 2);
        } else {
            let began = world.now();
            world.write(&KEYS[..2], "after");
            let took = world.now().saturating_since(began);
            assert!(took >= millis(900) && took < secs(10), "they have a second: {took:?}");
        }
        assert!(world.locks().is_empty());
        assert_eq!(world.read(KEYS[0]), some(if is_swept { "before" } else { "after" }));
        // Neither can come back.
        for (txn, key) in [(&one, KEYS[0]), (&two, KEYS[1])] {
            let Response::Prewrite(response) = world.ask(key, txn.prewrite_request(key, "late")) else { panic!() };
            assert!(!response.errors.is_empty(), "it was ruled out");
        }
    }
}

/// T16: one has committed before the other locked what was its primary.
#[test]
fn a_commit_under_shared_locks_counts() {
    let world = World::new();
    world.write(&KEYS, "before");
    let (committed, sharing) = (Other::new(&world, KEYS[0]), Other::new(&world, KEYS[1]));
    committed.prewrite(&world, KEYS[0], "after");
    committed.prewrite(&world, KEYS[2], "after");
    let commit_ts = world.timestamp();
    committed.commit(&world, KEYS[0], commit_ts);
    let sharing = Other { start_ts: world.timestamp(), ..sharing };
    prewrite_shared(&world, &sharing, KEYS[0]);
    world.pass(secs(2));
    assert_eq!(world.read_all(&KEYS), [some("after"), some("before"), some("after")]);
}
