//! Transactions that prewrites decide: async commit, and commit in one phase.

use tikv::{Error, Timestamp, Transaction, TransactionOptions};
use tikv_core::request::RequestKind;
use tikv_sim::cluster::{Effect, Fault, region_error};

use crate::world::{KEYS, Other, World, millis, refused, secs, some, split_at};

fn async_commit() -> TransactionOptions {
    TransactionOptions::default().commit(|mut options| {
        options.async_commit = true;
        options
    })
}

fn writes(world: &World, options: TransactionOptions, keys: &[&str]) -> Transaction {
    let txn = world.run(world.client.begin_with(options)).expect("PD answers");
    keys.iter().for_each(|key| txn.put(key, "v").expect("it fits"));
    txn
}

/// What the owner was told is what everybody finds.
fn assert_told_the_truth(world: &World, result: &Result<Timestamp, Error>) {
    world.pass(secs(60));
    world.clear_faults();
    let found = world.read_all(&KEYS);
    let (all, none) = (found == [some("v"), some("v"), some("v")], found == [None, None, None]);
    match result {
        Ok(_) => assert!(all, "{found:?}"),
        Err(error) if error.is_undetermined() => assert!(all || none, "{found:?}"),
        Err(error) => assert!(none, "{found:?} after {error}"),
    }
    world.until(|world| world.locks().is_empty());
}

/// S1, S3, S4, T1: whatever follows the lost answer, all keys are locked, and that means that it is committed.
#[test]
fn a_lost_answer_to_a_prewrite_that_may_decide_leaves_the_outcome_open() {
    let unknown = || Effect::RegionErrorAfter(Box::new(region_error::undetermined_result()));
    let lost = [
        [Effect::LoseReply, Effect::Lose],
        [Effect::LoseReply, refused(region_error::region_not_found(1))],
        [Effect::LoseReply, refused(region_error::server_is_busy("simulated", 0))],
        [unknown(), unknown()],
        [unknown(), refused(region_error::not_leader(1, None))],
    ];
    for [first, later] in lost {
        let world = World::with_config(|config| config.call_timeout = secs(1));
        world.inject(Fault::new(first.clone()).on(RequestKind::Prewrite).on_key(KEYS[2]));
        world.inject(Fault::new(later.clone()).on(RequestKind::Prewrite).on_key(KEYS[2]).forever());
        let txn = writes(&world, async_commit().timeout(secs(8)), &KEYS);
        let commit = world.commit(&txn);
        let result = world.join(commit);
        let told = result.as_ref().expect_err("no answer says that all keys are locked");
        assert!(told.is_undetermined(), "{first:?} {later:?}: {told}");
        assert_eq!(world.count(RequestKind::BatchRollback), 0, "{first:?} {later:?}");
        assert_told_the_truth(&world, &result);
        assert_eq!(world.read(KEYS[0]), some("v"), "{first:?} {later:?}");
    }
}

/// S2: a key that is certainly not locked settles the matter, whatever became of the others.
#[test]
fn a_conflict_settles_an_async_commit_whose_other_answers_are_missing() {
    let world = World::new();
    let txn = writes(&world, async_commit(), &KEYS);
    world.write(&KEYS[1..2], "other");
    world.inject(Fault::new(Effect::LoseReply).on(RequestKind::Prewrite).on_key(KEYS[2]));
    let error = world.run(txn.commit()).expect_err("another was faster");
    assert!(matches!(error, Error::WriteConflict(_)), "{error}");
    world.pass(secs(1));
    assert!(world.locks().is_empty());
    assert_eq!(world.read_all(&KEYS), [None, some("other"), None]);
}

/// S6: whichever way it goes for a transaction that takes too long, the owner is told.
#[test]
fn an_async_commit_that_takes_too_long_is_told_as_it_ends() {
    let world = World::with_config(|config| config.max_txn_age = secs(2));
    let txn = writes(&world, async_commit(), &KEYS);
    world.inject(Fault::new(Effect::DelayReply(millis(2_500))).on(RequestKind::Prewrite).on_key(KEYS[2]));
    let commit = world.commit(&txn);
    let result = world.join(commit);
    assert_told_the_truth(&world, &result);
}

/// S7: after the success nothing more of this client arrives, and it is a success all the same.
#[test]
fn an_async_commit_that_was_reported_is_found_committed_by_those_who_meet_its_locks() {
    let world = World::new();
    world.inject(Fault::new(Effect::Lose).on(RequestKind::Commit).forever());
    let txn = writes(&world, async_commit(), &KEYS);
    let commit = world.commit(&txn);
    let commit_ts = world.join(commit).expect("all keys are locked");
    assert_eq!(world.locked_keys(txn.start_ts()), KEYS);
    let other = world.another_client(|builder| builder);
    for key in [KEYS[2], KEYS[0], KEYS[1]] {
        let value = world.run(async { other.snapshot().await?.with_timeout(secs(30)).get(key).await });
        assert_eq!(value.expect("it is recovered"), Some("v".into()), "{key}");
    }
    let before = other.snapshot_at(Timestamp::from_version(commit_ts.version() - 1));
    assert_eq!(world.run(before.get(KEYS[1])).expect("nothing is in the way"), None, "at the timestamp that was told");
    assert_eq!(world.run(other.snapshot_at(commit_ts).get(KEYS[1])).expect("PD has passed it"), Some("v".into()));
}

/// S10: a reader has committed it meanwhile, and a newer transaction locks the key.
#[test]
fn a_repeated_prewrite_of_what_others_have_committed_is_no_failure() {
    let world = World::with_config(|config| config.call_timeout = secs(10));
    world.inject(Fault::new(Effect::LoseReply).on(RequestKind::Prewrite).on_key(KEYS[2]));
    let txn = writes(&world, async_commit(), &KEYS);
    let commit = world.commit(&txn);
    world.until(|world| world.locks().len() == 3);
    world.pass(secs(5));
    assert_eq!(world.read_all(&KEYS), [some("v"), some("v"), some("v")]);
    world.until(|world| world.locks().is_empty());
    let other = Other { ttl: secs(60), ..Other::new(&world, KEYS[2]) };
    other.prewrite(&world, KEYS[2], "newer");
    let result = world.join(commit);
    assert!(result.as_ref().map_or_else(Error::is_undetermined, |_| true), "{result:?}");
    assert_eq!(world.locked_keys(other.start_ts), [KEYS[2]]);
    other.roll_back(&world, KEYS[2]);
    assert_told_the_truth(&world, &result);
}

/// S35: what was read stays true, and who begins afterwards sees the commit.
#[test]
fn an_async_commit_comes_after_every_read_before_it_and_before_every_read_after_it() {
    let world = World::new();
    let txn = writes(&world, async_commit(), &KEYS);
    world.pass(millis(100));
    let reader = world.another_client(|builder| builder);
    let before = world.run(reader.snapshot()).expect("PD answers");
    for key in KEYS {
        assert_eq!(world.run(before.get(key)).expect("nothing is in the way"), None);
    }
    let commit = world.commit(&txn);
    let commit_ts = world.join(commit).expect("nothing is in the way");
    let after = world.run(reader.snapshot()).expect("PD answers");
    assert!(before.read_ts() < commit_ts && commit_ts < after.read_ts());
    for key in KEYS {
        assert_eq!(world.run(before.get(key)).expect("nothing is in the way"), None);
        assert_eq!(world.run(after.get(key)).expect("it is committed"), Some("v".into()));
    }
}

/// T14: the answer to a commit in one phase is lost, and its region splits: the timestamp told is the true one.
#[test]
fn a_commit_in_one_phase_whose_answer_is_lost_is_told_with_its_own_timestamp() {
    let world = World::with_config(|config| config.call_timeout = secs(1));
    world.inject(Fault::new(Effect::LoseReply).on(RequestKind::Prewrite));
    let options = TransactionOptions::default().commit(|mut options| {
        options.one_phase_commit = true;
        options
    });
    let txn = writes(&world, options, &["zk", "zz"]);
    let commit = world.commit(&txn);
    world.until(|world| world.count(RequestKind::Prewrite) == 1);
    world.simulation().with_cluster(|cluster, _| split_at(cluster, "zm"));
    let result = world.join(commit);
    let snapshot = world.run(world.client.snapshot()).expect("PD answers");
    let snapshot = snapshot.with_options(|mut options| {
        options.need_commit_ts = true;
        options
    });
    for key in ["zk", "zz"] {
        let value = world.run(snapshot.get_value(key)).expect("nothing is in the way").expect("it was executed");
        match &result {
            Ok(commit_ts) => assert_eq!(value.commit_ts, Some(*commit_ts)),
            Err(error) => assert!(error.is_undetermined(), "{error}"),
        }
    }
    assert!(world.locks().is_empty());
}
