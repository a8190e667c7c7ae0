//! Regions that are split on purpose.

use tikv::{Scatter, Split, SplitOptions};
use tikv_core::request::RequestKind;
use tikv_sim::cluster::Fault;

use crate::world::{KEYS, World, refused, secs, some};

fn options(world: &World, scatter: Scatter) -> SplitOptions {
    SplitOptions { scatter, ..SplitOptions::new(world.client.config()) }
}

fn regions(world: &World) -> usize {
    world.simulation().with_cluster(|cluster, _| cluster.topology().regions().iter().count())
}

/// client-go: `TestSplitRegionIn2PC`.
#[test]
fn a_large_transaction_splits_the_region_that_it_is_written_to() {
    let world = World::with_config(|config| (config.pre_split_keys, config.pre_split_bytes) = (20, 100));
    let before = regions(&world);
    let keys: Vec<String> = (0..50).map(|number| format!("b{number:02}")).collect();
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    world.write(&names, "seven b");
    // Ten bytes a key: one in ten begins a region.
    assert_eq!((regions(&world), world.count(RequestKind::SplitRegion)), (before + 5, 1));
    assert_eq!(world.read_all(&names), vec![some("seven b"); 50]);
    world.write(&names, "again");
    assert_eq!(world.count(RequestKind::SplitRegion), 1, "ten keys in each of the regions are not too many");
}

/// A store that refuses to split does not keep anybody from writing.
#[test]
fn a_large_transaction_commits_where_nothing_can_be_split() {
    let world = World::with_config(|config| (config.pre_split_keys, config.pre_split_bytes) = (2, 1));
    let disk_full = tikv_proto::errorpb::Error {
        disk_full: Some(tikv_proto::errorpb::DiskFull { store_id: vec![1], reason: "full".to_owned() }),
        ..Default::default()
    };
    world.inject(Fault::new(refused(disk_full)).on(RequestKind::SplitRegion).forever());
    let before = regions(&world);
    world.write(&["b1", "b2"], "v");
    assert_eq!((regions(&world), world.read_all(&["b1", "b2"])), (before, vec![some("v"); 2]));
}

#[test]
fn regions_split_at_the_keys_that_are_given_and_once_only() {
    let world = World::new();
    world.write(&KEYS, "v");
    let before = regions(&world);
    let split = world.run(world.client.split_regions(["b", "c", "z"], options(&world, Scatter::Finish)));
    assert_eq!((split.regions.len(), split.error), (3, None));
    assert_eq!(regions(&world), before + 3);
    let again = world.run(world.client.split_regions(["c", "b"], options(&world, Scatter::No)));
    assert_eq!(again, Split::default());
    assert_eq!(world.read_all(&KEYS), vec![some("v"); 3]);
}

#[test]
fn what_is_split_is_told_though_pd_cannot_be_asked_to_scatter_it() {
    let world = World::new();
    world.write(&KEYS, "v");
    let mut options = options(&world, Scatter::Begin);
    options.call.deadline = world.now() + secs(5);
    world.set_pd_cut_off(true);
    let split = world.run(world.client.split_regions(["b"], options));
    assert_eq!(split.regions.len(), 1);
    assert!(split.error.as_ref().is_some_and(tikv::Error::is_timeout), "{split:?}");
}
