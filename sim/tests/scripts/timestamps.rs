//! Timestamps, and what a wrong one does.

use tikv::{Error, Timestamp, TransactionOptions};
use tikv_core::request::RequestKind;

use crate::world::{KEYS, World, millis, secs, some};

/// S36: TiKV would make every later commit exceed it.
#[test]
fn a_read_at_a_timestamp_that_pd_has_not_given_is_refused_before_it_is_sent() {
    let world = World::new();
    world.write(&KEYS, "v");
    world.forget_seen();
    let future = Timestamp::compose(world.timestamp().physical_ms() + 3_600_000, 0);
    let snapshot = world.client.snapshot_at(future);
    let txn = world.run(world.client.begin_with(TransactionOptions::default().start_ts(future)));
    let txn = txn.expect("nothing is sent yet");
    let results = world.run(async {
        [
            snapshot.get(KEYS[0]).await.map(drop),
            snapshot.batch_get(KEYS).await.map(drop),
            snapshot.scan::<tikv::Key>(.., 10).await.map(drop),
            txn.get(KEYS[0]).await.map(drop),
        ]
    });
    for result in results {
        assert!(matches!(result, Err(Error::InvalidArgument(_))), "{result:?}");
    }
    for kind in [RequestKind::Get, RequestKind::BatchGet, RequestKind::Scan] {
        assert_eq!(world.count(kind), 0);
    }
    let max_ts = world.simulation().with_cluster(|cluster, _| cluster.storage().max_ts());
    assert!(max_ts < future, "{max_ts}");
}

/// S36: what PD has given meanwhile, to whomever, can be read at.
#[test]
fn a_read_at_a_timestamp_that_another_client_was_given_needs_one_look_at_the_clock_at_most() {
    let world = World::new();
    world.write(&KEYS, "v");
    let other = world.another_client(|builder| builder);
    world.pass(secs(5));
    let given = world.run(other.current_timestamp()).expect("PD answers");
    let snapshot = world.client.snapshot_at(given);
    assert_eq!(world.run(snapshot.get(KEYS[0])).expect("PD has given it"), Some("v".into()));
    world.set_pd_cut_off(true);
    let (value, took) = world.timed(snapshot.get(KEYS[1]));
    assert_eq!(value.expect("the clock is known to have passed it"), Some("v".into()));
    assert!(took < millis(50), "{took:?}");
}

/// PD's clock jumps, and locks are judged by PD's clock alone.
#[test]
fn a_jump_of_pds_clock_lets_locks_expire_and_nothing_else() {
    let world = World::new();
    world.write(&KEYS, "before");
    let other = crate::world::Other { ttl: secs(600), ..crate::world::Other::new(&world, KEYS[0]) };
    KEYS.iter().for_each(|key| other.prewrite(&world, key, "never"));
    let patience = TransactionOptions::default().timeout(secs(1));
    let txn = world.run(world.client.begin_with(patience)).expect("PD answers");
    txn.put(KEYS[0], "mine").expect("it fits");
    world.run(txn.commit()).expect_err("a living transaction is in the way");
    world.simulation().with_cluster(|cluster, _| cluster.pd_mut().advance_clock(3_600_000));
    world.write(&KEYS, "after");
    assert_eq!(world.read_all(&KEYS), [some("after"), some("after"), some("after")]);
}
