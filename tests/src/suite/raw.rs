//! Raw keys.

use std::time::Duration;

use bytes::Bytes;
use tikv::{Key, Pair, RawClient, Ttl};
use tikv_proto::kvrpcpb::ApiVersion;

use crate::world::{Rt, World};

/// One key for each of the regions of [`World::new`], and some more.
fn spread(count: usize) -> Vec<(Key, Bytes)> {
    let first = |index: usize| char::from(b'0' + (index * 75 / count) as u8);
    (0..count).map(|index| (format!("{}/{index:04}", first(index)).into(), format!("value {index}").into())).collect()
}

fn pairs(expected: &[(Key, Bytes)]) -> Vec<Pair> {
    expected.iter().cloned().map(|(key, value)| Pair { key, value }).collect()
}

fn reversed(mut pairs: Vec<Pair>) -> Vec<Pair> {
    pairs.reverse();
    pairs
}

/// Put, get, delete.
pub async fn single_keys_are_put_read_and_deleted(rt: &Rt) {
    let world = World::new(rt).await;
    let raw = world.client.raw();
    for (key, value) in spread(16) {
        assert_eq!(raw.get(key.clone()).await.unwrap(), None);
        raw.put(key.clone(), value.clone()).await.unwrap();
        assert_eq!(raw.get(key.clone()).await.unwrap(), Some(value));
        raw.put(key.clone(), "again").await.unwrap();
        assert_eq!(raw.get(key.clone()).await.unwrap().as_deref(), Some(&b"again"[..]));
        raw.delete(key.clone()).await.unwrap();
        raw.delete(key.clone()).await.unwrap();
        assert_eq!(raw.get(key).await.unwrap(), None);
    }
}

/// An empty value is there, an absent one is not.
pub async fn an_empty_value_is_a_value(rt: &Rt) {
    let world = World::new(rt).await;
    let raw = world.client.raw();
    raw.put("k", "").await.unwrap();
    assert_eq!(raw.get("k").await.unwrap(), Some(Bytes::new()));
    assert_eq!(raw.batch_get(["k", "l"]).await.unwrap(), [Some(Bytes::new()), None]);
    assert_eq!(raw.scan("k"..="l", 10).await.unwrap(), [Pair { key: "k".into(), value: Bytes::new() }]);
}

/// Batches are answered in the order of the question.
pub async fn batches_reach_all_regions_and_keep_their_order(rt: &Rt) {
    let world = World::new(rt).await;
    let raw = world.client.raw();
    let all = spread(1_000);
    raw.batch_put(all.clone()).await.unwrap();
    let mut keys: Vec<Key> = all.iter().rev().map(|(key, _)| key.clone()).collect();
    keys.insert(500, "absent".into());
    let mut values: Vec<Option<Bytes>> = all.iter().rev().map(|(_, value)| Some(value.clone())).collect();
    values.insert(500, None);
    assert_eq!(raw.batch_get(keys.clone()).await.unwrap(), values);
    // Of equal keys the last counts, and each is answered.
    raw.batch_put([("x", "1"), ("x", "2")]).await.unwrap();
    assert_eq!(raw.batch_get(["x", "x"]).await.unwrap(), [Some("2".into()), Some("2".into())]);
    raw.batch_delete(keys.clone()).await.unwrap();
    assert_eq!(raw.batch_get(keys).await.unwrap(), vec![None; 1_001]);
}

/// Bounds and limits, forward and backward.
pub async fn scans_cross_region_boundaries_both_ways(rt: &Rt) {
    let world = World::new(rt).await;
    let raw = world.client.raw();
    let all = spread(200);
    raw.batch_put(all.clone()).await.unwrap();
    let key = |index: usize| all[index].0.clone();
    assert_eq!(raw.scan::<Key>(.., 1_000).await.unwrap(), pairs(&all));
    assert_eq!(raw.scan(key(3).., 90).await.unwrap(), pairs(&all[3..93]));
    assert_eq!(raw.scan(key(3)..key(150), 1_000).await.unwrap(), pairs(&all[3..150]));
    assert_eq!(raw.scan(key(3)..=key(150), 1_000).await.unwrap(), pairs(&all[3..151]));
    assert_eq!(raw.scan(key(3)..key(3), 1_000).await.unwrap(), []);
    assert_eq!(raw.reverse_scan(..key(150), 1_000).await.unwrap(), reversed(pairs(&all[..150])));
    assert_eq!(raw.reverse_scan(key(3)..key(150), 90).await.unwrap(), reversed(pairs(&all[60..150])));
    assert_eq!(raw.reverse_scan(key(3)..=key(150), 1_000).await.unwrap(), reversed(pairs(&all[3..151])));
    // Regions without keys are passed over.
    raw.delete_range(key(20)..key(180)).await.unwrap();
    assert_eq!(raw.scan(key(10).., 20).await.unwrap(), pairs(&[&all[10..20], &all[180..190]].concat()));
}

/// Delete range, region by region.
pub async fn a_deleted_range_leaves_what_is_outside(rt: &Rt) {
    let world = World::new(rt).await;
    let raw = world.client.raw();
    let all = spread(100);
    raw.batch_put(all.clone()).await.unwrap();
    raw.delete_range(all[10].0.clone()..all[90].0.clone()).await.unwrap();
    assert_eq!(raw.scan::<Key>(.., 1_000).await.unwrap(), pairs(&[&all[..10], &all[90..]].concat()));
    raw.delete_range::<Key>(..).await.unwrap();
    assert_eq!(raw.scan::<Key>(.., 1_000).await.unwrap(), []);
}

/// Compare and swap.
pub async fn a_swap_happens_only_from_the_expected_value(rt: &Rt) {
    let world = World::new(rt).await;
    let raw = world.client.raw().with_atomic(true);
    let first = raw.compare_and_swap("k", None, "a").await.unwrap();
    assert_eq!((first.swapped, first.previous), (true, None));
    let wrong = raw.compare_and_swap("k", Some("b".into()), "c").await.unwrap();
    assert_eq!((wrong.swapped, wrong.previous), (false, Some("a".into())));
    let absent = raw.compare_and_swap("k", None, "c").await.unwrap();
    assert_eq!((absent.swapped, absent.previous), (false, Some("a".into())));
    let right = raw.compare_and_swap("k", Some("a".into()), "d").await.unwrap();
    assert_eq!((right.swapped, right.previous), (true, Some("a".into())));
    assert_eq!(raw.get("k").await.unwrap(), Some("d".into()));
}

async fn increment(raw: &RawClient, key: &'static str) {
    let mut seen = raw.get(key).await.unwrap();
    loop {
        let number = |value: &Bytes| std::str::from_utf8(value).unwrap().parse::<u32>().unwrap();
        let next = seen.as_ref().map_or(0, number) + 1;
        let swap = raw.compare_and_swap(key, seen, next.to_string()).await.unwrap();
        if swap.swapped {
            return;
        }
        seen = swap.previous;
    }
}

/// Eight tasks count together.
pub async fn concurrent_swaps_lose_no_increment(rt: &Rt) {
    let world = World::new(rt).await;
    let raw = world.client.raw().with_atomic(true);
    let tasks = (0..8).map(|_| {
        let raw = raw.clone();
        rt.task(async move {
            for _ in 0..25 {
                increment(&raw, "counter").await;
            }
        })
    });
    futures::future::join_all(tasks).await;
    assert_eq!(raw.get("counter").await.unwrap(), Some("200".into()));
}

/// Times to live, on a cluster that has them.
pub async fn a_key_with_a_time_to_live_disappears(rt: &Rt) {
    let world = World::with(rt, |options| options.api_version = ApiVersion::V1ttl).await;
    let raw = world.client.raw();
    raw.put_with_ttl("short", "v", Duration::from_millis(1)).await.unwrap();
    raw.put_with_ttl("long", "v", Duration::from_secs(1_000)).await.unwrap();
    raw.put("forever", "v").await.unwrap();
    let batch = [("a", "1", Some(Duration::from_secs(500))), ("b", "2", None)];
    raw.batch_put_with_ttl(batch).await.unwrap();

    let Some(Ttl::Remaining(left)) = raw.get_key_ttl("long").await.unwrap() else { panic!("it has a time to live") };
    assert!(left > Duration::from_secs(500) && left <= Duration::from_secs(1_000), "{left:?}");
    assert!(matches!(raw.get_key_ttl("a").await.unwrap(), Some(Ttl::Remaining(_))));
    assert_eq!(raw.get_key_ttl("b").await.unwrap(), Some(Ttl::Forever));
    assert_eq!(raw.get_key_ttl("forever").await.unwrap(), Some(Ttl::Forever));
    // A millisecond is rounded up to a second.
    rt.until(async || raw.get("short").await.unwrap().is_none().then_some(())).await;
    assert_eq!(raw.get_key_ttl("short").await.unwrap(), None);
    assert_eq!(raw.get("long").await.unwrap(), Some("v".into()));
}

/// The same key in two column families.
pub async fn column_families_are_apart(rt: &Rt) {
    let world = World::new(rt).await;
    let raw = world.client.raw();
    let write = world.client.raw().with_column_family("write");
    raw.put("k", "default").await.unwrap();
    write.put("k", "write").await.unwrap();
    write.put("only", "write").await.unwrap();
    assert_eq!(raw.get("k").await.unwrap(), Some("default".into()));
    assert_eq!(write.get("k").await.unwrap(), Some("write".into()));
    assert_eq!(raw.get("only").await.unwrap(), None);
    assert_eq!(write.scan::<Key>(.., 10).await.unwrap().len(), 2);
    write.delete_range::<Key>(..).await.unwrap();
    assert_eq!(raw.scan::<Key>(.., 10).await.unwrap().len(), 1);
    let unknown = world.client.raw().with_column_family("none such").get("k").await.unwrap_err();
    assert!(matches!(unknown, tikv::Error::Refused { .. }), "{unknown:?}");
}

/// Checksums add up over regions.
pub async fn a_checksum_does_not_depend_on_regions(rt: &Rt) {
    let world = World::new(rt).await;
    let raw = world.client.raw();
    let all = spread(300);
    raw.batch_put(all.clone()).await.unwrap();
    let before = raw.checksum::<Key>(..).await.unwrap();
    assert_eq!(before.total_pairs, 300);
    assert_eq!(before.total_bytes, all.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>());
    for (key, _) in all.iter().step_by(40).skip(1) {
        world.cluster.split(key.as_slice()).unwrap();
    }
    assert_eq!(raw.checksum::<Key>(..).await.unwrap(), before);
}

/// Large values, one by one and many at once.
pub async fn values_of_a_mebibyte_arrive_whole(rt: &Rt) {
    let world = World::new(rt).await;
    let raw = world.client.raw();
    let large = |first: u8| Bytes::from((0..1 << 20).map(|index| first.wrapping_add(index as u8)).collect::<Vec<u8>>());
    let all: Vec<(Key, Bytes)> = (b'0'..b'8').map(|first| (Key::from(vec![first]), large(first))).collect();
    raw.put(all[0].0.clone(), all[0].1.clone()).await.unwrap();
    assert_eq!(raw.get(all[0].0.clone()).await.unwrap().as_ref(), Some(&all[0].1));
    raw.batch_put(all.clone()).await.unwrap();
    let found = raw.batch_get(all.iter().map(|(key, _)| key.clone())).await.unwrap();
    assert!(found.iter().zip(&all).all(|(found, (_, value))| found.as_ref() == Some(value)));
    let scanned = raw.scan::<Key>(.., 100).await.unwrap();
    assert!(scanned.iter().zip(&all).all(|(pair, (_, value))| pair.value == *value) && scanned.len() == all.len());
}
