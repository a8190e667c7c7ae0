use bytes::Bytes;
use tikv_proto::kvrpcpb::RawBatchPutRequest;
use tikv_proto::kvrpcpb::{CommitRequest, KvPair};

use super::*;

fn tiny_regions(api_version: ApiVersion) -> Cluster {
    let split_check = Some(SplitCheck { split_keys: 7, ..SplitCheck::at(10) });
    Cluster::new(ClusterOptions { split_check, api_version, split_keys: Some(vec![]), ..ClusterOptions::default() })
}

fn keys(count: usize) -> Vec<Bytes> {
    (0..count).map(|index| format!("r{index:02}").into()).collect()
}

fn write(cluster: &mut Cluster, keys: &[Bytes], start_ts: u64) {
    let mutations =
        keys.iter().map(|key| Mutation { key: key.clone(), value: "v".into(), ..Mutation::default() }).collect();
    let prewrite = PrewriteRequest {
        mutations,
        primary_lock: keys[0].clone(),
        start_version: start_ts,
        lock_ttl: 3_000,
        ..PrewriteRequest::default()
    };
    assert_eq!(ask_leader(cluster, "r00", prewrite.into()).region_error(), None);
    let keys = keys.to_vec();
    let commit = CommitRequest { keys, start_version: start_ts, commit_version: start_ts + 1, ..Default::default() };
    assert_eq!(ask_leader(cluster, "r00", commit.into()).region_error(), None);
}

/// Lets the time come when stores look at their regions.
fn tick(cluster: &mut Cluster) {
    let at = cluster.next_wakeup().expect("a region is to be looked at");
    assert_eq!(cluster.poll_reply(at), None);
}

/// How many of the keys are in each region.
fn spread(cluster: &Cluster, keys: &[Bytes]) -> Vec<usize> {
    let regions = cluster.topology().regions().iter();
    let inside = |region: &Region| keys.iter().filter(|key| region.bounds().contains(encoded(key).as_slice())).count();
    regions.map(inside).collect()
}

#[test]
fn a_region_with_too_many_keys_splits_into_parts_that_are_small_enough() {
    for (count, expected) in [(9, vec![9]), (10, vec![7, 3]), (16, vec![7, 9]), (17, vec![7, 7, 3])] {
        let mut cluster = tiny_regions(ApiVersion::V1);
        write(&mut cluster, &keys(count), 10);
        assert_eq!(cluster.topology().regions().len(), 1);
        tick(&mut cluster);
        assert_eq!(spread(&cluster, &keys(count)), expected, "{count} keys");
    }
}

#[test]
fn versions_make_a_region_large_but_those_of_a_key_stay_together() {
    let mut cluster = tiny_regions(ApiVersion::V1);
    for start_ts in (10..100).step_by(10) {
        write(&mut cluster, &keys(2), start_ts);
    }
    tick(&mut cluster);
    assert_eq!(spread(&cluster, &keys(2)), [0, 1, 1]);
    for start_ts in (100..200).step_by(10) {
        write(&mut cluster, &keys(1), start_ts);
    }
    tick(&mut cluster);
    assert_eq!((cluster.next_wakeup(), cluster.topology().regions().len()), (None, 3));
}

#[test]
fn raw_keys_split_no_region() {
    for api_version in [ApiVersion::V1, ApiVersion::V2] {
        let mut cluster = tiny_regions(api_version);
        let pairs = keys(20).into_iter().map(|key| KvPair { key, value: "v".into(), ..KvPair::default() }).collect();
        let put = RawBatchPutRequest { pairs, ..RawBatchPutRequest::default() };
        assert_eq!(ask_leader(&mut cluster, "a", put.into()).region_error(), None);
        assert_eq!(cluster.next_wakeup(), None, "{api_version:?}");
    }
}

#[test]
fn locks_do_not_split_a_region() {
    let mut cluster = tiny_regions(ApiVersion::V1);
    for key in keys(20) {
        let mutation = Mutation { key: key.clone(), value: "v".into(), ..Mutation::default() };
        let prewrite = PrewriteRequest {
            mutations: vec![mutation],
            primary_lock: key,
            start_version: 10,
            lock_ttl: 3_000,
            ..PrewriteRequest::default()
        };
        assert_eq!(ask_leader(&mut cluster, "a", prewrite.into()).region_error(), None);
    }
    tick(&mut cluster);
    assert_eq!((cluster.next_wakeup(), cluster.topology().regions().len()), (None, 1));
}

#[test]
fn a_very_large_region_is_split_bit_by_bit() {
    let check = SplitCheck { batch_limit: 3, split_keys: 7, ..SplitCheck::at(10) };
    let options = ClusterOptions { split_check: Some(check), split_keys: Some(vec![]), ..ClusterOptions::default() };
    let mut cluster = Cluster::new(options);
    write(&mut cluster, &keys(60), 10);
    let mut counts = Vec::new();
    while let Some(at) = cluster.next_wakeup() {
        assert_eq!(cluster.poll_reply(at), None);
        counts.push(cluster.topology().regions().len());
    }
    assert_eq!(counts, [4, 7, 9, 9]);
    assert_eq!(spread(&cluster, &keys(60)), [7, 7, 7, 7, 7, 7, 7, 7, 4]);
}

#[test]
fn regions_stay_whole_unless_a_limit_is_set() {
    let mut cluster = Cluster::new(ClusterOptions { split_keys: Some(vec![]), ..ClusterOptions::default() });
    write(&mut cluster, &keys(99), 10);
    assert_eq!((cluster.next_wakeup(), cluster.topology().regions().len()), (None, 1));
}
