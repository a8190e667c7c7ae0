//! Requests that are sent again, and requests that arrive twice or late.

use tikv::{Error, Transaction};
use tikv_core::request::RequestKind;
use tikv_sim::cluster::{Effect, Fault, region_error};

use crate::world::{KEYS, Other, World, millis, secs, some, split_at, text};

/// S12.
#[test]
fn a_prewrite_is_marked_as_a_repetition_also_after_a_split() {
    let world = World::with_config(|config| config.call_timeout = secs(1));
    let keys = ["0k", "zk", "zz"];
    let txn = world.writes(&keys, "v");
    world.inject(Fault::new(Effect::LoseReply).on(RequestKind::Prewrite).on_key("zk"));
    let commit = world.commit(&txn);
    world.until(|world| world.count_of(RequestKind::Prewrite, "zk") == 1);
    world.simulation().with_cluster(|cluster, _| split_at(cluster, "zm"));
    world.join(commit).expect("the repetition is answered");
    for key in ["zk", "zz"] {
        let prewrites: Vec<_> = world.seen(RequestKind::Prewrite).into_iter().filter(|seen| seen.names(key)).collect();
        assert!(prewrites.len() >= 2, "{key}");
        assert!(!prewrites[0].context.is_retry_request);
        assert!(prewrites[1..].iter().all(|seen| seen.context.is_retry_request), "{key}: {prewrites:#?}");
    }
    let once: Vec<_> = world.seen(RequestKind::Prewrite).into_iter().filter(|seen| seen.names("0k")).collect();
    assert!(once.len() == 1 && !once[0].context.is_retry_request, "what was answered is no repetition");
}

/// S13: TiKV tells a repeated prewrite that its own transaction was rolled back, by a conflict with itself.
#[test]
fn a_conflict_with_oneself_means_that_one_was_rolled_back_and_no_more() {
    let world = World::with_config(|config| config.call_timeout = secs(10));
    let txn = world.writes(&KEYS, "v");
    world.inject(Fault::new(Effect::LoseReply).on(RequestKind::Prewrite).on_key(KEYS[0]));
    let commit = world.commit(&txn);
    world.until(|world| world.locks().len() == 3);
    // Its locks live for 3 s; the prewrite is repeated after 10 s.
    world.pass(secs(5));
    world.write(&KEYS, "newer");
    let error = world.join(commit).expect_err("another has rolled it back");
    assert!(!error.is_undetermined() && error.is_retryable(), "{error}");
    world.pass(secs(1));
    assert!(world.locks().is_empty());
    assert_eq!(world.read_all(&KEYS), [some("newer"), some("newer"), some("newer")]);
}

/// S10, as far as two phases go: the repetition meets the lock of somebody later, and must not take it for its own.
#[test]
fn a_repeated_prewrite_does_not_take_the_lock_of_another_for_its_own() {
    let world = World::with_config(|config| config.call_timeout = secs(5));
    let txn = world.writes(&KEYS, "v");
    world.inject(Fault::new(Effect::LoseReply).on(RequestKind::Prewrite).on_key(KEYS[2]));
    let commit = world.commit(&txn);
    world.until(|world| world.locks().len() == 3);
    world.pass(secs(4));
    // A reader rolls it back, and a newer transaction locks the key.
    assert_eq!(world.read(KEYS[2]), None);
    world.until(|world| world.locks().is_empty());
    let other = Other::new(&world, KEYS[2]);
    other.prewrite(&world, KEYS[2], "newer");
    let error = world.join(commit).expect_err("it was rolled back");
    assert!(!error.is_undetermined(), "{error}");
    world.pass(millis(500));
    assert_eq!(world.locked_keys(other.start_ts), [KEYS[2]], "the lock of the other is still there");
    let commit_ts = world.timestamp();
    other.commit(&world, KEYS[2], commit_ts);
    assert_eq!(world.read_all(&KEYS), [None, None, some("newer")]);
}

/// S14.
#[test]
fn no_update_is_lost_whatever_becomes_of_prewrites() {
    let world = World::with_config(|config| config.call_timeout = millis(500));
    let mut arrived = 0;
    world.simulation().intercept(move |_, arrival| {
        if arrival.kind() != RequestKind::Prewrite {
            return None;
        }
        arrived += 1;
        let unknown = Box::new(region_error::undetermined_result());
        match arrived % 6 {
            0 => Some(Effect::LoseReply),
            1 => Some(Effect::Replay(millis(700))),
            2 => Some(Effect::RegionErrorAfter(unknown)),
            3 => Some(Effect::Lose),
            4 => Some(Effect::DelayReply(millis(600))),
            _ => None,
        }
    });
    let append = |txn: Transaction| async move {
        for key in ["0k", "zk"] {
            let value = txn.get(key).await?.unwrap_or_default();
            txn.put(key, [&value[..], b"x"].concat())?;
        }
        Ok(())
    };
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let client = world.client.clone();
            world.start(async move {
                for _ in 0..4 {
                    client.run(append).await?;
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    for worker in workers {
        world.join(worker).expect("every answer comes in the end");
    }
    let all = Some("x".repeat(12));
    assert_eq!(world.read_all(&["0k", "zk"]), [all.clone(), all]);
}

/// S15: the network delivers everything twice, and the second time late.
#[test]
fn late_duplicates_of_a_transaction_that_failed_change_nothing() {
    let world = World::new();
    world.write(&KEYS, "before");
    let txn = world.writes(&KEYS, "never");
    world.write(&KEYS[1..2], "other");
    for kind in [RequestKind::Prewrite, RequestKind::BatchRollback] {
        world.inject(Fault::new(Effect::Replay(secs(5))).on(kind).times(3));
    }
    let error = world.run(txn.commit()).expect_err("another was faster");
    assert!(matches!(error, Error::WriteConflict(_)), "{error}");
    world.pass(secs(1));
    // Another rollback on each key hides the first one.
    let other = Other::new(&world, KEYS[0]);
    for key in KEYS {
        other.prewrite(&world, key, "never either");
        other.roll_back(&world, key);
    }
    world.pass(secs(10));
    assert_eq!(world.read_all(&KEYS), [some("before"), some("other"), some("before")]);
    world.write(&KEYS, "after");
    assert_eq!(world.read_all(&KEYS), [some("after"), some("after"), some("after")]);
}

/// S16: whoever finds no primary rules it out, so that a late prewrite of it fails.
#[test]
fn a_primary_that_was_ruled_out_is_not_locked_by_a_late_prewrite() {
    let world = World::new();
    let txn = world.writes(&KEYS, "never");
    world.inject(Fault::new(Effect::Delay(secs(10))).on(RequestKind::Prewrite).on_key(KEYS[0]));
    let commit = world.commit(&txn);
    world.until(|world| world.locked_keys(txn.start_ts()).len() == 2);
    // While its other locks live, it may still come.
    let snapshot = world.run(world.client.snapshot()).expect("PD answers").with_timeout(millis(500));
    world.run(snapshot.get(KEYS[2])).expect_err("a living transaction is in the way");
    assert_eq!(world.locked_keys(txn.start_ts()).len(), 2);
    world.pass(secs(5));
    assert_eq!(world.read(KEYS[2]), None);
    let error = world.join(commit).expect_err("it was ruled out");
    assert!(!error.is_undetermined(), "{error}");
    assert_eq!(world.count(RequestKind::Commit), 0);
    world.pass(secs(1));
    let locks = world.locks();
    assert!(locks.is_empty(), "{:?}", locks.iter().map(|lock| text(&lock.key)).collect::<Vec<_>>());
    assert_eq!(world.read_all(&KEYS), [None, None, None]);
}
