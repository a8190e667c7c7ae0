//! The commit itself: its timestamp, its secondaries, its heartbeat.

use std::sync::atomic::{AtomicU64, Ordering};

use tikv::{Error, Timestamp, TransactionOptions};
use tikv_core::request::RequestKind;
use tikv_sim::cluster::{Effect, Fault};

use crate::world::{KEYS, World, millis, secs, some};

/// S8, T6: the timestamp that replaces a refused one is a commit timestamp like any other.
#[test]
fn a_commit_timestamp_that_a_reader_has_refused_is_not_replaced_by_one_above_the_callers_bound() {
    static BOUND: AtomicU64 = AtomicU64::new(0);
    let world = World::new();
    let start_ts = world.timestamp();
    let bound = Timestamp::compose(start_ts.physical_ms() + 100, 0);
    BOUND.store(bound.version(), Ordering::Relaxed);
    let options = TransactionOptions::default().start_ts(start_ts).commit(|mut options| {
        options.commit_ts.upper_bound = Timestamp::from_version(BOUND.load(Ordering::Relaxed));
        options
    });
    let txn = world.run(world.client.begin_with(options)).expect("it has a timestamp");
    KEYS.iter().for_each(|key| txn.put(*key, "v").expect("it fits"));
    world.inject(Fault::new(Effect::Delay(millis(300))).on(RequestKind::Commit).on_key(KEYS[0]));
    let commit = world.commit(&txn);
    world.until(|world| world.count(RequestKind::Commit) > 0);
    // A reader later than the bound has itself promised that the transaction commits after it.
    world.pass(millis(150));
    assert_eq!(world.read(KEYS[0]), None);
    let error = world.join(commit).expect_err("only a timestamp above the bound would do");
    assert!(matches!(error, Error::CommitTsOutOfBound { .. }), "{error}");
    world.pass(secs(1));
    assert!(world.locks().is_empty());
    assert_eq!(world.read_all(&KEYS), [None, None, None]);
}

/// S8: without a bound the commit goes on, behind the reader.
#[test]
fn a_commit_timestamp_that_a_reader_has_refused_is_replaced_for_all_keys() {
    let world = World::new();
    let txn = world.writes(&KEYS, "v");
    world.inject(Fault::new(Effect::Delay(millis(300))).on(RequestKind::Commit).on_key(KEYS[0]));
    let commit = world.commit(&txn);
    world.until(|world| world.count(RequestKind::Commit) > 0);
    world.pass(millis(150));
    let snapshot = world.run(world.client.snapshot()).expect("PD answers");
    assert_eq!(world.run(snapshot.get(KEYS[0])).expect("it is pushed"), None);
    let commit_ts = world.join(commit).expect("nothing forbids it");
    assert!(commit_ts > snapshot.read_ts(), "{commit_ts} {}", snapshot.read_ts());
    assert_eq!(world.run(snapshot.get(KEYS[0])).expect("nothing is in the way"), None, "what was read stays true");
    world.pass(secs(1));
    let before = world.client.snapshot_at(Timestamp::from_version(commit_ts.version() - 1));
    let at = world.client.snapshot_at(commit_ts);
    for key in KEYS {
        assert_eq!(world.run(before.get(key)).expect("nothing is in the way"), None);
        assert_eq!(world.run(at.get(key)).expect("nothing is in the way"), Some("v".into()));
    }
}

/// S41.
#[test]
fn a_causally_consistent_commit_waits_for_the_callers_timestamp_all_the_same() {
    static AFTER: AtomicU64 = AtomicU64::new(0);
    let world = World::new();
    let ahead = Timestamp::compose(world.timestamp().physical_ms() + 500, 0);
    AFTER.store(ahead.version(), Ordering::Relaxed);
    let options = TransactionOptions::default().commit(|mut options| {
        options.causal_consistency = true;
        options.commit_ts.wait_until = Timestamp::from_version(AFTER.load(Ordering::Relaxed));
        options
    });
    let txn = world.run(world.client.begin_with(options)).expect("PD answers");
    txn.put("0k", "v").expect("it fits");
    let outcome = world.run(txn.commit()).expect("it waits half a second");
    assert!(outcome.commit_ts > Some(ahead), "{outcome:?}");
}

/// T13: what a transaction owes after its commit does not depend on what becomes of its caller.
#[test]
fn the_callers_time_limit_does_not_end_the_commit_of_secondaries() {
    let world = World::with_config(|config| config.call_timeout = secs(5));
    for key in [KEYS[1], KEYS[2]] {
        world.inject(Fault::new(Effect::Lose).on(RequestKind::Commit).on_key(key).times(3));
    }
    let options = TransactionOptions::default().timeout(secs(1));
    let txn = world.run(world.client.begin_with(options)).expect("PD answers");
    KEYS.iter().for_each(|key| txn.put(*key, "v").expect("it fits"));
    world.run(txn.commit()).expect("the primary is committed");
    drop(txn);
    world.pass(secs(60));
    assert!(world.locks().is_empty());
    assert_eq!(world.count(RequestKind::CheckTxnStatus), 0, "nobody else has helped");
    assert_eq!(world.read_all(&KEYS), [some("v"), some("v"), some("v")]);
}

/// S30, T7: the heartbeat outlives an outage of PD that is longer than the budget of a question, and a lock that it could not
/// keep alive is saved if nobody has come by.
#[test]
fn a_heartbeat_outlives_an_outage_of_pd() {
    let world = World::with_config(|config| {
        config.heartbeat_txn_bytes = 0;
        config.call_timeout = secs(500);
    });
    let other = world.another_client(|builder| builder);
    let txn = world.writes(&KEYS, "v");
    world.inject(Fault::new(Effect::DelayReply(secs(400))).on(RequestKind::Prewrite).on_key(KEYS[2]));
    let commit = world.commit(&txn);
    world.until(|world| world.locks().len() == 3);
    world.pass(secs(8));
    world.set_pd_cut_off(true);
    world.pass(secs(200));
    world.set_pd_cut_off(false);
    world.until(|world| world.count(RequestKind::TxnHeartBeat) > 0);
    for _ in 0..3 {
        // Its locks would have been dead for long.
        world.pass(secs(20));
        let overwrite = async {
            let txn = other.begin_with(TransactionOptions::default().timeout(secs(1))).await?;
            txn.put(KEYS[1], "other")?;
            txn.commit().await
        };
        let error = world.run(overwrite).expect_err("a living transaction is in the way");
        assert!(!error.is_undetermined(), "{error}");
    }
    world.join(commit).expect("it was kept alive");
    assert_eq!(world.read_all(&KEYS), [some("v"), some("v"), some("v")]);
}
