//! Reads: what they must not miss, and what they must not remember.

use tikv::{KeyRange, Timestamp};
use tikv_core::request::{Request, RequestKind, Response};
use tikv_proto::kvrpcpb::{BatchGetResponse, KeyError, LockInfo, ScanResponse};
use tikv_sim::cluster::{Effect, Fault};

use crate::world::{KEYS, Other, World, keys, secs, some};

const ONE_REGION: [&str; 3] = ["aa", "ab", "ac"];

/// The lock that hides the whole answer, as TiKV reports locks which are only in its memory.
fn memory_lock(world: &World) -> KeyError {
    let lock: LockInfo = world.locks().pop().expect("there is one");
    KeyError { locked: Some(lock.into()), ..KeyError::default() }
}

/// Three values, and over the second one the expired lock of a dead transaction.
fn with_a_dead_lock() -> World {
    let world = World::new();
    world.write(&ONE_REGION, "v");
    Other::new(&world, "ab").prewrite(&world, "ab", "never");
    world.pass(secs(2));
    world
}

/// S38.
#[test]
fn an_error_of_a_whole_batch_get_is_not_an_empty_answer() {
    let world = with_a_dead_lock();
    let error = Some(memory_lock(&world).into());
    let refused = BatchGetResponse { error, ..BatchGetResponse::default() };
    world.inject(Fault::new(Effect::Reply(Box::new(refused.into()))).on(RequestKind::BatchGet));
    let client = world.client.clone();
    let pairs = world.run(async { client.snapshot().await?.batch_get(ONE_REGION).await }).expect("the lock is dead");
    assert_eq!(pairs.into_iter().map(|pair| pair.key).collect::<Vec<_>>(), keys(&ONE_REGION));
}

/// S38.
#[test]
fn a_lock_neither_shortens_nor_ends_a_scan() {
    for (is_reverse, is_whole) in [(false, true), (true, true), (false, false), (true, false)] {
        let world = with_a_dead_lock();
        let error = Some(memory_lock(&world).into());
        let refused = ScanResponse { error, ..ScanResponse::default() };
        if is_whole {
            world.inject(Fault::new(Effect::Reply(Box::new(Response::from(refused)))).on(RequestKind::Scan));
        }
        let client = world.client.clone();
        let range = KeyRange::new("aa", "az");
        let scan = async {
            let snapshot = client.snapshot().await?;
            let bounds = range.start..range.end;
            if is_reverse { snapshot.reverse_scan(bounds, 10).await } else { snapshot.scan(bounds, 10).await }
        };
        let mut found: Vec<_> = world.run(scan).expect("the lock is dead").into_iter().map(|pair| pair.key).collect();
        found.sort();
        assert_eq!(found, keys(&ONE_REGION));
    }
}

/// S37.
#[test]
fn a_read_of_the_newest_version_is_not_answered_from_the_past() {
    let world = World::new();
    let newest = world.client.snapshot_at(Timestamp::MAX);
    let read = |world: &World, wanted: Option<&'static str>| {
        for key in KEYS {
            assert_eq!(world.run(newest.get(key)).expect("nothing is in the way"), wanted.map(Into::into));
        }
        let pairs = world.run(newest.batch_get(KEYS)).expect("nothing is in the way");
        assert!(pairs.iter().all(|pair| Some(&pair.value[..]) == wanted.map(str::as_bytes)), "{pairs:?}");
        assert_eq!(pairs.len(), if wanted.is_some() { 3 } else { 0 });
    };
    read(&world, None);
    for value in ["1", "2"] {
        world.write(&KEYS, value);
        read(&world, Some(value));
    }
    // What was resolved for one read says nothing about the next.
    let other = Other::new(&world, KEYS[0]);
    KEYS.iter().for_each(|key| other.prewrite(&world, key, "3"));
    for key in KEYS {
        assert_eq!(world.run(newest.get(key)).expect("it is not committed"), Some("2".into()));
    }
    let commit_ts = world.timestamp();
    other.commit(&world, KEYS[0], commit_ts);
    read(&world, Some("3"));
    for seen in world.seen(RequestKind::Get) {
        assert!(
            !matches!(&seen.request, Request::Get(get) if get.context.as_ref().is_some_and(|context| context.replica_read))
        );
    }
}

/// S26, T5: of what one snapshot passes another one knows nothing.
#[test]
fn a_transaction_that_commits_behind_one_snapshot_is_seen_by_the_next() {
    let world = World::new();
    world.write(&KEYS, "before");
    let other = Other { ttl: secs(600), ..Other::new(&world, KEYS[0]) };
    KEYS.iter().for_each(|key| other.prewrite(&world, key, "after"));
    let early = world.run(world.client.snapshot()).expect("PD answers");
    for _ in 0..2 {
        let pairs = world.run(early.batch_get(KEYS)).expect("it commits later");
        assert!(pairs.len() == 3 && pairs.iter().all(|pair| pair.value == "before"), "{pairs:?}");
    }
    let commit_ts = world.timestamp();
    other.commit(&world, KEYS[0], commit_ts);
    // The locks of its secondaries are still there.
    let late = world.run(world.client.snapshot()).expect("PD answers");
    for snapshot in [&late, &early, &late] {
        let wanted = if snapshot.read_ts() > commit_ts { "after" } else { "before" };
        for key in KEYS {
            assert_eq!(world.run(snapshot.get(key)).expect("its primary tells"), Some(wanted.into()), "{key}");
        }
    }
    // They read through the locks that they knew, and left them. Who knows nothing releases them.
    assert_eq!(world.read_all(&KEYS), [some("after"), some("after"), some("after")]);
    world.until(|world| world.locks().is_empty());
}
