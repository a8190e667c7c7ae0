//! Where requests go, and what the client believes of regions.

use std::time::Duration;

use tikv_core::request::RequestKind;
use tikv_sim::cluster::{Effect, Fault, Region, encoded, region_error};

use crate::world::{KEYS, World, millis, refused, secs, some, split_at};

fn region_of(world: &World, key: &str) -> u64 {
    world.simulation().with_cluster(|cluster, _| {
        cluster.topology().regions().by_key(encoded(key.as_bytes()).as_slice()).map_or(0, Region::id)
    })
}

/// S40: PD tells of regions as they were; stores correct it, and nothing is written or read in the wrong place.
#[test]
fn regions_that_pd_tells_wrongly_are_found_all_the_same() {
    let world = World::new();
    let all: Vec<String> = (b'a'..=b'i').map(|letter| format!("{}k", char::from(letter))).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    world.simulation().with_cluster(|cluster, _| cluster.freeze_pd());
    world.write(&all, "1");
    world.simulation().with_cluster(|cluster, _| {
        ["b", "d", "f"].iter().for_each(|key| split_at(cluster, key));
        let ids: Vec<u64> = cluster.topology().regions().iter().map(Region::id).collect();
        ids.into_iter().zip([1, 2, 3].into_iter().cycle()).for_each(|(id, store)| {
            cluster.transfer_leader(id, store).expect("every store has a peer");
        });
    });
    // One that knows nothing yet, and one that knows what was.
    let newcomer = world.another_client(|builder| builder);
    for client in [newcomer, world.client.clone()] {
        let pairs = world.run(async { client.snapshot().await?.batch_get(all.clone()).await });
        let pairs = pairs.expect("stores tell of their regions");
        assert!(pairs.len() == all.len() && pairs.iter().all(|pair| pair.value == "1"), "{pairs:?}");
        let scanned = world.run(async { client.snapshot().await?.scan("a".."j", 100).await });
        assert_eq!(scanned.expect("stores tell of their regions").len(), all.len());
    }
    world.write(&all, "2");
    world.simulation().with_cluster(|cluster, _| cluster.thaw_pd());
    assert!(world.read_all(&all).iter().all(|value| *value == some("2")));
}

/// S40: a merge that PD has not heard of is waited for.
#[test]
fn regions_that_have_merged_without_pd_knowing_are_found_as_soon_as_it_does() {
    let world = World::new();
    world.write(&KEYS, "1");
    world.simulation().with_cluster(|cluster, _| cluster.freeze_pd());
    let (left, right) = (region_of(&world, "0k"), region_of(&world, "ak"));
    world.simulation().with_cluster(|cluster, _| {
        let regions: Vec<u64> = cluster.topology().regions().iter().map(Region::id).collect();
        let first = regions.iter().position(|id| *id == left).expect("it is there");
        let last = regions.iter().position(|id| *id == right).expect("it is there");
        for index in first..last {
            cluster.topology_mut().merge(regions[index], regions[index + 1]).expect("they are neighbours");
        }
    });
    let client = world.client.clone();
    let read = world.start(async move { client.snapshot().await?.get("0k").await });
    world.pass(secs(3));
    world.simulation().with_cluster(|cluster, _| cluster.thaw_pd());
    assert_eq!(world.join(read).expect("PD knows by now"), Some("1".into()));
    world.write(&KEYS, "2");
    assert_eq!(world.read_all(&KEYS), [some("2"), some("2"), some("2")]);
}

/// R9: errors without a cure are not answered by asking again at once.
#[test]
fn errors_that_say_nothing_are_met_with_pauses_that_grow() {
    for error in [region_error::other("simulated"), region_error::stale_command()] {
        let world = World::new();
        let raw = world.client.raw().with_timeout(secs(3));
        world.run(raw.put("k", "v")).expect("nothing is in the way");
        world.forget_seen();
        world.inject(Fault::new(refused(error.clone())).on(RequestKind::RawGet).forever());
        assert!(world.run(raw.get("k")).expect_err("no store answers").is_timeout());
        let times: Vec<_> = world.seen(RequestKind::RawGet).into_iter().map(|seen| seen.at).collect();
        assert!(times.len() >= 3, "{} {times:?}", error.message);
        let paused: Duration = times.windows(7).map(|some| some[6].saturating_since(some[0])).min().unwrap_or(secs(3));
        assert!(paused >= millis(50), "{}: seven attempts within {paused:?}", error.message);
        assert!(times.len() < 40, "{}: {} attempts in 3 s", error.message, times.len());
    }
}

/// R7: many wait for one answer of PD, each as long as it likes.
#[test]
fn who_shares_a_question_to_pd_waits_as_long_as_itself_likes() {
    let world = World::new();
    // Nobody knows the region yet.
    let newcomer = world.another_client(|builder| builder);
    world.set_pd_cut_off(true);
    let started: Vec<_> = [millis(500), secs(20), secs(25)]
        .into_iter()
        .map(|timeout| {
            let (raw, runtime) = (newcomer.raw().with_timeout(timeout), world.runtime.clone());
            world.start(async move {
                let began = tikv::Runtime::now(&runtime);
                let result = raw.get("k").await;
                (result, tikv::Runtime::now(&runtime).saturating_since(began))
            })
        })
        .collect();
    world.pass(secs(4));
    world.set_pd_cut_off(false);
    let mut ends = started.into_iter().map(|started| world.join(started));
    let (hasty, took) = ends.next().expect("it was started");
    assert!(hasty.expect_err("PD was cut off").is_timeout());
    assert_eq!(took, millis(500));
    for (patient, took) in ends {
        assert_eq!(patient.expect("PD is back"), None);
        assert!(took < secs(15), "{took:?}");
    }
}

/// R11: one member of PD that says nothing holds nobody up for long.
#[test]
fn a_leader_of_pd_that_hangs_is_replaced() {
    let world = World::with(|options| options.cluster.pd_members = 3, |_| ());
    world.write(&KEYS, "v");
    world.simulation().set_cut_off("pd-1:2379", true);
    world.simulation().with_cluster(|cluster, _| cluster.pd_mut().set_leader(Some(2)));
    let newcomer = world.another_client(|builder| builder);
    for client in [world.client.clone(), newcomer] {
        let (value, took) = world.timed(async { client.snapshot().await?.get("zk").await });
        assert_eq!(value.expect("there is another leader"), Some("v".into()));
        assert!(took < secs(10), "{took:?}");
    }
}

/// a store restarts with a new address.
#[test]
fn stores_that_restart_at_other_addresses_are_found_there() {
    let world = World::new();
    world.write(&KEYS, "v");
    for store in 1..=3 {
        world.simulation().move_store(store, &format!("moved-{store}:20160")).expect("there is such a store");
    }
    let (values, took) = world.timed(async {
        let snapshot = world.client.snapshot().await?;
        snapshot.batch_get(KEYS).await
    });
    assert_eq!(values.expect("they are found").len(), 3);
    assert!(took < secs(10), "{took:?}");
    assert_eq!(world.run(world.client.raw().get("k")).expect("they are found"), None);
}

/// A store crashes with the answer to a commit in its hand: the next leader tells.
#[test]
fn a_commit_whose_store_crashes_before_the_answer_is_confirmed_by_the_next_leader() {
    for (kind, key) in
        [(RequestKind::Commit, KEYS[0]), (RequestKind::Prewrite, KEYS[0]), (RequestKind::Prewrite, KEYS[2])]
    {
        let world = World::new();
        let txn = world.writes(&KEYS, "v");
        world.inject(Fault::new(Effect::Crash).on(kind).on_key(key));
        let (result, took) = world.timed(txn.commit());
        result.unwrap_or_else(|error| panic!("{kind:?} {key}: {error}"));
        assert!(took < secs(10), "{kind:?} {key}: {took:?}");
        world.pass(secs(10));
        assert!(world.locks().is_empty(), "{kind:?} {key}");
        assert_eq!(world.read_all(&KEYS), [some("v"), some("v"), some("v")], "{kind:?} {key}");
    }
}
