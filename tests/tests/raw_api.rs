//! client-go's tests of raw keys, against the simulated cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tikv::{ChecksumTotal, Direction, Error, Key, Pair, RawClient, ScanOptions, Ttl};
use tikv_proto::kvrpcpb::ApiVersion;
use tikv_proto::metapb::PeerRole;
use tikv_tests::proxy::Proxy;
use tikv_tests::world::{Rt, World};
use tikv_transport_tokio::Tokio;
use tokio::runtime::{Builder, Handle};

fn run(test: impl AsyncFnOnce(Rt)) {
    let tokio = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    tokio.block_on(async {
        let rt = Rt::new(Tokio::new(Handle::current()));
        rt.run(test(rt.clone())).await;
    });
}

/// One region.
async fn one_region(rt: &Rt) -> World {
    World::with(rt, |options| options.regions = 1).await
}

/// Splits at a raw key, which must have the form of an encoded one for nobody here.
fn split(world: &World, key: &str) {
    world.cluster.with_cluster(|cluster, _| cluster.split(&key.to_owned().into())).unwrap();
}

fn pairs(expected: &[(&str, &str)]) -> Vec<Pair> {
    expected.iter().map(|(key, value)| pair(*key, *value)).collect()
}

fn pair(key: impl Into<String>, value: impl Into<String>) -> Pair {
    Pair { key: key.into().into(), value: value.into().into() }
}

/// Bits from the lowest on, as Go's `crc64.ECMA`.
fn crc64(bytes: impl IntoIterator<Item = u8>) -> u64 {
    const POLYNOMIAL: u64 = 0xc96c_5795_d787_0f42;
    !bytes.into_iter().fold(u64::MAX, |crc, byte| {
        (0..8).fold(crc ^ u64::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 })
    })
}

fn checksum(pairs: &[Pair]) -> ChecksumTotal {
    let bytes = |pair: &Pair| [pair.key.as_slice(), &pair.value].concat();
    ChecksumTotal {
        crc64_xor: pairs.iter().fold(0, |crc, pair| crc ^ crc64(bytes(pair))),
        total_pairs: pairs.len() as u64,
        total_bytes: pairs.iter().map(|pair| bytes(pair).len() as u64).sum(),
    }
}

#[test]
fn what_is_put_is_there_until_it_is_deleted() {
    run(async |rt| {
        let world = one_region(&rt).await;
        let raw = world.client.raw();
        assert_eq!(raw.get("key").await.unwrap(), None);
        raw.put("key", "value").await.unwrap();
        assert_eq!(raw.get("key").await.unwrap(), Some("value".into()));
        raw.delete("key").await.unwrap();
        assert_eq!(raw.get("key").await.unwrap(), None);
        raw.put("key", "").await.unwrap();
        assert_eq!(raw.get("key").await.unwrap(), Some(Bytes::new()));
    });
}

#[test]
fn batches_larger_than_one_request_go_to_both_halves_of_a_split_region() {
    run(async |rt| {
        let world = one_region(&rt).await;
        let raw = world.client.raw();
        let mut all: Vec<(String, String)> = Vec::new();
        let mut size = 0;
        while size < 4 * world.client.config().raw.batch_put_bytes {
            let (key, value) = (format!("key{}", all.len()), format!("value{}", all.len()));
            size += key.len() + value.len();
            all.push((key, value));
        }
        let keys: Vec<String> = all.iter().map(|(key, _)| key.clone()).collect();
        let absent = vec![None; keys.len()];
        assert_eq!(raw.batch_get(keys.clone()).await.unwrap(), absent);
        split(&world, &keys[keys.len() / 2]);
        raw.batch_put(all.clone()).await.unwrap();
        let values: Vec<Option<Bytes>> = all.into_iter().map(|(_, value)| Some(value.into())).collect();
        assert_eq!(raw.batch_get(keys.clone()).await.unwrap(), values);
        raw.batch_delete(keys.clone()).await.unwrap();
        assert_eq!(raw.batch_get(keys).await.unwrap(), absent);
    });
}

#[test]
fn keys_are_found_after_their_region_has_split() {
    run(async |rt| {
        let world = one_region(&rt).await;
        let raw = world.client.raw();
        raw.put("k1", "v1").await.unwrap();
        raw.put("k3", "v3").await.unwrap();
        split(&world, "k2");
        assert_eq!(raw.get("k1").await.unwrap(), Some("v1".into()));
        assert_eq!(raw.get("k3").await.unwrap(), Some("v3".into()));
    });
}

const FOUR: [(&str, &str); 4] = [("k1", "v1"), ("k3", "v3"), ("k5", "v5"), ("k7", "v7")];

async fn check_scans(raw: &RawClient) {
    let from = async |start: &'static str, limit| raw.scan(start.., limit).await.unwrap();
    assert_eq!(from("", 1).await, pairs(&FOUR[..1]));
    assert_eq!(from("k1", 2).await, pairs(&FOUR[..2]));
    assert_eq!(from("", 10).await, pairs(&FOUR));
    assert_eq!(from("k2", 2).await, pairs(&FOUR[1..3]));
    assert_eq!(from("k2", 3).await, pairs(&FOUR[1..]));
    let between = async |start: &'static str, end: &'static str, limit| raw.scan(start..end, limit).await.unwrap();
    assert_eq!(between("", "k1", 1).await, []);
    assert_eq!(between("k1", "k3", 2).await, pairs(&FOUR[..1]));
    assert_eq!(between("k1", "k5", 10).await, pairs(&FOUR[..2]));
    assert_eq!(between("k1", "k5\0", 10).await, pairs(&FOUR[..3]));
    assert_eq!(between("k5\0", "k5\0\0", 10).await, []);
}

#[test]
fn scans_see_the_same_however_often_regions_split() {
    run(async |rt| {
        let world = one_region(&rt).await;
        let raw = world.client.raw();
        raw.batch_put(FOUR).await.unwrap();
        check_scans(&raw).await;
        for key in ["k2", "k5"] {
            split(&world, key);
            check_scans(&raw).await;
        }
    });
}

async fn check_reverse_scans(raw: &RawClient) {
    let reversed = |expected: &[(&str, &str)]| pairs(&expected.iter().rev().copied().collect::<Vec<_>>());
    let below = async |end: &'static str, limit| raw.reverse_scan(..end, limit).await.unwrap();
    assert_eq!(below("z", 1).await, reversed(&FOUR[3..]));
    assert_eq!(below("z", 2).await, reversed(&FOUR[2..]));
    assert_eq!(below("z", 10).await, reversed(&FOUR));
    assert_eq!(below("k2", 10).await, reversed(&FOUR[..1]));
    assert_eq!(below("k6", 2).await, reversed(&FOUR[1..3]));
    assert_eq!(below("k5", 1).await, reversed(&FOUR[1..2]));
    assert_eq!(below("k5\0", 1).await, reversed(&FOUR[2..3]));
    assert_eq!(below("k6", 3).await, reversed(&FOUR[..3]));
    assert_eq!(raw.reverse_scan("k3".."z", 10).await.unwrap(), reversed(&FOUR[1..]));
    assert_eq!(raw.reverse_scan("k3\0".."k7", 10).await.unwrap(), reversed(&FOUR[2..3]));
}

#[test]
fn reverse_scans_see_the_same_however_often_regions_split() {
    run(async |rt| {
        let world = one_region(&rt).await;
        let raw = world.client.raw();
        raw.batch_put(FOUR).await.unwrap();
        // Where client-go finds nothing below an empty key, an empty end is no end here.
        assert_eq!(raw.reverse_scan::<Key>(.., 1).await.unwrap(), pairs(&FOUR[3..]));
        check_reverse_scans(&raw).await;
        for key in ["k2", "k5"] {
            split(&world, key);
            check_reverse_scans(&raw).await;
        }
    });
}

#[test]
fn ranges_are_deleted_within_and_across_regions() {
    run(async |rt| {
        let world = one_region(&rt).await;
        let raw = world.client.raw();
        let mut expected = BTreeMap::new();
        for (first, second) in "abcd".chars().flat_map(|first| ('0'..='9').map(move |second| (first, second))) {
            expected.insert(format!("{first}{second}"), format!("v{first}{second}"));
        }
        raw.batch_put(expected.clone()).await.unwrap();
        for key in ["b", "c", "d"] {
            split(&world, key);
        }
        for (start, end) in [("b", "c0"), ("c11", "c12"), ("d0", "d0"), ("c5", "d5"), ("a", "a9")] {
            raw.delete_range(start..end).await.unwrap();
            expected.retain(|key, _| !(start..end).contains(&key.as_str()));
            let found = raw.scan::<Key>(.., 100).await.unwrap();
            assert_eq!(
                found,
                expected.iter().map(|(key, value)| pair(key, value)).collect::<Vec<_>>(),
                "{start} {end}"
            );
        }
        assert!(!expected.is_empty());
        // Where client-go deletes nothing from the empty key to the empty key, an empty end is no end here, as for scans.
        raw.delete_range("".."").await.unwrap();
        assert_eq!(raw.scan::<Key>(.., 100).await.unwrap(), []);
    });
}

/// Twenty thousand pairs.
fn many(prefix: &str) -> Vec<(String, String)> {
    (0..20_480).map(|index| (format!("{prefix}key@{index}"), format!("value@{index}"))).collect()
}

#[test]
fn a_scan_of_as_many_pairs_as_allowed_crosses_many_regions() {
    run(async |rt| {
        let world = one_region(&rt).await;
        let raw = world.client.raw();
        raw.batch_put(many("")).await.unwrap();
        (0..20_480).step_by(1024).for_each(|index| split(&world, &format!("key@{index}")));
        let found = raw.scan("key@0".., 10_240).await.unwrap();
        let mut sorted = many("");
        sorted.sort();
        let expected: Vec<Pair> = sorted.into_iter().take(10_240).map(|(key, value)| pair(key, value)).collect();
        assert!(found == expected);
    });
}

#[test]
fn a_reverse_scan_returns_the_last_pairs_first() {
    run(async |rt| {
        let world = one_region(&rt).await;
        let raw = world.client.raw();
        raw.batch_put((0..10).map(|index| (format!("key:{index}"), format!("value:{index}")))).await.unwrap();
        let found = raw.reverse_scan("key:".."key;", 5).await.unwrap();
        let expected = (5..10).rev().map(|index| pair(format!("key:{index}"), format!("value:{index}")));
        assert_eq!(found, expected.collect::<Vec<_>>());
    });
}

#[test]
fn two_keys_are_put_read_and_deleted_in_one_batch_each() {
    run(async |rt| {
        let world = one_region(&rt).await;
        let raw = world.client.raw();
        raw.batch_put([("k1", "v1"), ("k2", "v2")]).await.unwrap();
        assert_eq!(raw.batch_get(["k1", "k2"]).await.unwrap(), [Some("v1".into()), Some("v2".into())]);
        raw.batch_delete(["k1", "k2"]).await.unwrap();
        assert_eq!(raw.get("k1").await.unwrap(), None);
        assert_eq!(raw.get("k2").await.unwrap(), None);
    });
}

#[test]
fn a_swap_needs_the_value_that_is_there() {
    run(async |rt| {
        let world = one_region(&rt).await;
        let raw = world.client.raw().with_atomic(true);
        let swap = async |old: Option<&'static str>, new: &'static str| {
            let swapped = raw.compare_and_swap("key", old.map(Bytes::from), new).await.unwrap();
            (swapped.swapped, swapped.previous, raw.get("key").await.unwrap().unwrap())
        };
        assert_eq!(swap(None, "hello world").await, (true, None, "hello world".into()));
        let there = Some(Bytes::from("hello world"));
        assert_eq!(swap(Some("hello"), "world").await, (false, there.clone(), "hello world".into()));
        assert_eq!(swap(Some("hello world"), "world").await, (true, there, "world".into()));
    });
}

#[test]
fn a_key_lives_as_long_as_it_was_given() {
    run(async |rt| {
        let world = World::with(&rt, |options| options.api_version = ApiVersion::V1ttl).await;
        let raw = world.client.raw();
        raw.put_with_ttl("key", "value", Duration::from_secs(2)).await.unwrap();
        let Some(Ttl::Remaining(left)) = raw.get_key_ttl("key").await.unwrap() else { panic!("it has a time to live") };
        assert!(left <= Duration::from_secs(2));
        rt.until(async || raw.get("key").await.unwrap().is_none().then_some(())).await;
        assert_eq!(raw.get_key_ttl("key").await.unwrap(), None);
    });
}

#[test]
fn a_range_of_many_keys_is_deleted_in_two_regions() {
    run(async |rt| {
        let world = one_region(&rt).await;
        let raw = world.client.raw();
        raw.batch_put(many("")).await.unwrap();
        split(&world, "key@4096");
        raw.delete_range("key@".."key@\x7f").await.unwrap();
        assert_eq!(raw.scan::<Key>(.., 10).await.unwrap(), []);
    });
}

#[test]
fn a_checksum_covers_every_pair_of_its_range() {
    run(async |rt| {
        let world = one_region(&rt).await;
        let raw = world.client.raw();
        let all = many("test_checksum");
        raw.batch_put(all.clone()).await.unwrap();
        raw.put("test_other", "not in the range").await.unwrap();
        let all: Vec<Pair> = all.into_iter().map(|(key, value)| pair(key, value)).collect();
        assert_eq!(raw.checksum("test_checksum".."test_checksum\x7f").await.unwrap(), checksum(&all));
    });
}

async fn check_empty_value(raw: &RawClient, value: Option<Bytes>) {
    let pairs: Vec<Pair> = value.iter().map(|value| Pair { key: "key".into(), value: value.clone() }).collect();
    assert_eq!(raw.get("key").await.unwrap(), value);
    assert_eq!(raw.batch_get(["key", "key1"]).await.unwrap(), [value, None]);
    assert_eq!(raw.scan("key".."keyz", 10).await.unwrap(), pairs);
    assert_eq!(raw.reverse_scan("key".."keyz", 10).await.unwrap(), pairs);
}

#[test]
fn an_empty_value_is_told_from_an_absent_one_by_every_call() {
    run(async |rt| {
        let world = one_region(&rt).await;
        let (raw, atomic) = (world.client.raw(), world.client.raw().with_atomic(true));
        check_empty_value(&raw, None).await;
        raw.put("key", "").await.unwrap();
        check_empty_value(&raw, Some(Bytes::new())).await;
        raw.delete("key").await.unwrap();
        check_empty_value(&raw, None).await;
        raw.batch_put([("key", "")]).await.unwrap();
        check_empty_value(&raw, Some(Bytes::new())).await;
        raw.batch_delete(["key"]).await.unwrap();
        check_empty_value(&raw, None).await;
        assert!(atomic.compare_and_swap("key", None, "").await.unwrap().swapped);
        check_empty_value(&raw, Some(Bytes::new())).await;
        let swapped = atomic.compare_and_swap("key", Some(Bytes::new()), "value").await.unwrap();
        assert_eq!((swapped.swapped, swapped.previous), (true, Some(Bytes::new())));
        check_empty_value(&raw, Some("value".into())).await;
        assert!(atomic.compare_and_swap("key", Some("value".into()), "").await.unwrap().swapped);
        check_empty_value(&raw, Some(Bytes::new())).await;
    });
}

/// Three stores whose addresses can change; one region, led by store 1, with a peer on store 2.
struct Moving {
    world: World,
    proxies: [Proxy; 3],
}

impl Moving {
    async fn new(rt: &Rt) -> Self {
        let world = World::with(rt, |options| {
            options.regions = 1;
            options.replicas = 2;
        })
        .await;
        let real = world.cluster.store_addresses();
        let proxies = [
            Proxy::start(real[&1]).await.unwrap(),
            Proxy::start(real[&2]).await.unwrap(),
            Proxy::start(real[&3]).await.unwrap(),
        ];
        let moving = Moving { world, proxies };
        for store in 1..=3 {
            moving.publish(store, store);
        }
        moving
    }

    fn raw(&self) -> RawClient {
        self.world.client.raw()
    }

    /// PD says that `store` is at the address that once was `old_owner`'s.
    fn publish(&self, store: u64, old_owner: u64) {
        let address = self.proxies[old_owner as usize - 1].address().to_string();
        self.world.cluster.with_cluster(|cluster, _| {
            cluster.topology_mut().store_mut(store).unwrap().meta.address = address;
        });
    }

    /// `store` is reached at the address that once was `old_owner`'s, and PD says so.
    fn relocate(&self, store: u64, old_owner: u64) {
        self.proxies[old_owner as usize - 1].forward_to(Some(self.world.cluster.store_addresses()[&store]));
        self.publish(store, old_owner);
    }

    /// Stores 1 and 2 swap their addresses.
    fn swap_addresses(&self) {
        self.relocate(1, 2);
        self.relocate(2, 1);
    }

    /// Moves the region from store 1 to another, and store 1 out of the cluster.
    fn remove_store_1(&self, new_leader: u64) {
        self.world.cluster.with_cluster(|cluster, _| {
            let topology = cluster.topology_mut();
            let region = topology.regions().iter().next().unwrap().id();
            if topology.region(region).unwrap().peer_on(new_leader).is_none() {
                topology.add_peer(region, new_leader, PeerRole::Voter).unwrap();
            }
            topology.transfer_leader(region, new_leader).unwrap();
            topology.remove_peer(region, 1).unwrap();
            topology.remove_store(1).unwrap();
        });
    }

    /// Store 2 takes over the region and the address of store 1, which goes offline.
    fn store_2_replaces_store_1(&self) {
        self.swap_addresses();
        self.proxies[1].forward_to(None);
        self.remove_store_1(2);
    }
}

#[test]
fn a_store_that_took_the_address_of_the_old_leader_is_found() {
    run(async |rt| {
        let moving = Moving::new(&rt).await;
        moving.raw().put("test_key", "test_value").await.unwrap();
        moving.store_2_replaces_store_1();
        assert_eq!(moving.raw().get("test_key").await.unwrap(), Some("test_value".into()));
    });
}

#[test]
fn stores_that_swap_their_addresses_are_told_apart() {
    run(async |rt| {
        let moving = Moving::new(&rt).await;
        moving.raw().put("test_key", "test_value").await.unwrap();
        moving.swap_addresses();
        assert_eq!(moving.raw().get("test_key").await.unwrap(), Some("test_value".into()));
    });
}

#[test]
fn an_address_known_of_a_follower_does_not_mislead() {
    run(async |rt| {
        let moving = Moving::new(&rt).await;
        let region = moving.world.region_of("test_key");
        // Both stores have been talked to.
        for leader in [2, 1] {
            moving.raw().put("test_key", "test_value").await.unwrap();
            moving.world.cluster.transfer_leader(region, leader).unwrap();
        }
        assert_eq!(moving.raw().get("test_key").await.unwrap(), Some("test_value".into()));
        moving.store_2_replaces_store_1();
        assert_eq!(moving.raw().get("test_key").await.unwrap(), Some("test_value".into()));
    });
}

#[test]
fn a_new_store_at_the_address_of_a_tombstone_is_used() {
    run(async |rt| {
        let moving = Moving::new(&rt).await;
        moving.raw().put("test_key", "test_value").await.unwrap();
        moving.relocate(3, 1);
        moving.remove_store_1(3);
        moving.raw().put("test_key", "another").await.unwrap();
        assert_eq!(moving.raw().get("test_key").await.unwrap(), Some("another".into()));
    });
}

#[test]
fn each_column_family_keeps_its_keys_while_stores_are_replaced() {
    run(async |rt| {
        let moving = Moving::new(&rt).await;
        let family = |name: &str| moving.raw().with_column_family(name);
        let (one, two, default) = (family("lock"), family("write"), moving.raw());
        one.put("key in 1", "value 1").await.unwrap();
        two.put("key in 2", "value 2").await.unwrap();
        moving.store_2_replaces_store_1();
        for (raw, in_one, in_two) in [(&one, true, false), (&two, false, true), (&default, false, false)] {
            assert_eq!(raw.get("key in 1").await.unwrap(), in_one.then(|| "value 1".into()));
            assert_eq!(raw.get("key in 2").await.unwrap(), in_two.then(|| "value 2".into()));
        }
        one.delete("key in 1").await.unwrap();
        two.delete("key in 2").await.unwrap();
        assert_eq!(one.get("key in 1").await.unwrap(), None);
        assert_eq!(two.get("key in 2").await.unwrap(), None);
    });
}

const SIX: [(&str, &str); 6] =
    [("db", "TiDB"), ("key1", "value1"), ("key2", "value2"), ("key3", "value3"), ("key4", "value4"), ("kv", "TiKV")];

/// A cluster with six pairs in a column family, whose leading store is replaced after they were written.
async fn six_pairs(rt: &Rt) -> (Moving, RawClient) {
    let moving = Moving::new(rt).await;
    let raw = moving.raw().with_column_family("write");
    raw.batch_put(SIX).await.unwrap();
    moving.store_2_replaces_store_1();
    (moving, raw)
}

#[test]
fn batches_of_a_column_family_survive_the_replacement_of_a_store() {
    run(async |rt| {
        let (_moving, raw) = six_pairs(&rt).await;
        let keys = SIX.map(|(key, _)| key);
        let values = SIX.map(|(_, value)| Some(Bytes::from(value)));
        assert_eq!(raw.batch_get(keys).await.unwrap(), values);
        raw.batch_delete(keys).await.unwrap();
        assert_eq!(raw.batch_get(keys).await.unwrap(), vec![None; 6]);
    });
}

#[test]
fn scans_of_a_column_family_survive_the_replacement_of_a_store() {
    run(async |rt| {
        let (_moving, raw) = six_pairs(&rt).await;
        assert_eq!(raw.scan("key1".."keyz", 3).await.unwrap(), pairs(&SIX[1..4]));
        let key_only = ScanOptions { limit: 10, direction: Direction::Reverse, key_only: true };
        let found = raw.scan_with(.."key3", key_only).await.unwrap();
        assert_eq!(found, pairs(&[("key2", ""), ("key1", ""), ("db", "")]));
    });
}

#[test]
fn a_range_of_a_column_family_is_deleted_after_the_replacement_of_a_store() {
    run(async |rt| {
        let (_moving, raw) = six_pairs(&rt).await;
        raw.delete_range("key3"..).await.unwrap();
        assert_eq!(raw.scan("key3".., 10).await.unwrap(), []);
        assert_eq!(raw.scan::<Key>(.., 10).await.unwrap(), pairs(&SIX[..3]));
        raw.delete_range::<Key>(..).await.unwrap();
        assert_eq!(raw.scan::<Key>(.., 10).await.unwrap(), []);
    });
}

#[test]
fn deleting_all_of_a_column_family_visits_every_region() {
    run(async |rt| {
        let world = one_region(&rt).await;
        split(&world, "key3");
        let raw = world.client.raw().with_column_family("write");
        raw.batch_put(SIX).await.unwrap();
        assert_eq!(raw.scan::<Key>(.., 10).await.unwrap(), pairs(&SIX));
        raw.delete_range::<Key>(..).await.unwrap();
        assert_eq!(raw.scan::<Key>(.., 10).await.unwrap(), []);
    });
}

#[test]
fn a_swap_in_a_column_family_survives_the_replacement_of_a_store() {
    run(async |rt| {
        let moving = Moving::new(&rt).await;
        let raw = moving.raw().with_column_family("write");
        raw.put("kv", "TiDB").await.unwrap();
        moving.store_2_replaces_store_1();
        let old = Some(Bytes::from("TiDB"));
        // The first call after it may be lost on a connection that breaks; a swap would not be repeated.
        assert_eq!(raw.get("kv").await.unwrap(), old);
        let error = raw.compare_and_swap("kv", old.clone(), "TiKV").await.unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
        let raw = raw.with_atomic(true);
        let other = raw.compare_and_swap("kv", Some("TiKV".into()), "TiKV").await.unwrap();
        assert_eq!((other.swapped, &other.previous), (false, &old));
        let swapped = raw.compare_and_swap("kv", old.clone(), "TiKV").await.unwrap();
        assert_eq!((swapped.swapped, swapped.previous), (true, old));
        assert_eq!(raw.get("kv").await.unwrap(), Some("TiKV".into()));
    });
}

#[test]
fn a_checksum_without_an_end_covers_the_rest() {
    run(async |rt| {
        let world = one_region(&rt).await;
        let raw = world.client.raw();
        raw.batch_put(SIX).await.unwrap();
        raw.put("a", "before the range").await.unwrap();
        assert_eq!(raw.checksum("db"..).await.unwrap(), checksum(&pairs(&SIX)));
    });
}
