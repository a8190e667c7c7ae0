use super::*;
use crate::snapshot::SnapshotCache;

/// Room for three entries: a key and a value of one byte each, and a timestamp.
const ENTRY: usize = 10;

fn cache() -> SnapshotCache {
    SnapshotCache::new(ts(READ_MS), 3 * ENTRY)
}

fn insert(cache: &mut SnapshotCache, key: &str, text: &'static str) {
    cache.insert(ts(READ_MS), key.into(), Some(value(text)));
}

#[test]
fn absence_is_remembered_as_well_as_values() {
    let mut cache = cache();
    insert(&mut cache, "a", "1");
    cache.insert(ts(READ_MS), "b".into(), None);
    assert_eq!(cache.get(&"a".into(), false), Some(Some(value("1"))));
    assert_eq!(cache.get(&"b".into(), false), Some(None));
    assert_eq!(cache.get(&"c".into(), false), None);
}

#[test]
fn nothing_is_kept_of_the_newest_version() {
    let mut cache = SnapshotCache::new(Timestamp::MAX, 100);
    cache.insert(Timestamp::MAX, "a".into(), Some(value("1")));
    assert!(cache.is_empty());
}

#[test]
fn another_timestamp_forgets_everything_and_late_reads_are_not_kept() {
    let mut cache = cache();
    insert(&mut cache, "a", "1");
    cache.set_read_ts(ts(READ_MS));
    assert_eq!(cache.len(), 1);
    cache.set_read_ts(ts(5));
    insert(&mut cache, "b", "1");
    assert_eq!((cache.len(), cache.bytes()), (0, 0));
}

#[test]
fn a_value_without_its_commit_ts_does_not_serve_who_needs_it() {
    let mut cache = cache();
    insert(&mut cache, "a", "1");
    let dated = Value { commit_ts: Some(ts(5)), ..value("2") };
    cache.insert(ts(READ_MS), "b".into(), Some(dated.clone()));
    cache.insert(ts(READ_MS), "c".into(), None);
    assert_eq!(cache.get(&"a".into(), true), None);
    assert_eq!(cache.get(&"b".into(), true), Some(Some(dated)));
    assert_eq!(cache.get(&"b".into(), false), Some(Some(value("2"))), "as if it had been read without");
    assert_eq!(cache.get(&"c".into(), true), Some(None), "what is absent was never committed");
}

#[test]
fn the_oldest_entries_make_room() {
    let mut cache = cache();
    for key in ["a", "b", "c"] {
        insert(&mut cache, key, "1");
    }
    assert_eq!(cache.bytes(), 3 * ENTRY);
    insert(&mut cache, "a", "2");
    insert(&mut cache, "d", "1");
    let known: Vec<_> =
        ["a", "b", "c", "d"].into_iter().filter(|key| cache.get(&(*key).into(), false).is_some()).collect();
    assert_eq!(known, ["a", "c", "d"], "a was read again, b was not");
    assert_eq!(cache.bytes(), 3 * ENTRY);
}

#[test]
fn what_is_larger_than_the_cache_is_not_kept() {
    let mut cache = cache();
    insert(&mut cache, "a", "1");
    insert(&mut cache, "b", "longer than all the room there is in the cache");
    assert_eq!((cache.len(), cache.bytes()), (0, 0));
}

#[test]
fn replacing_and_removing_keep_the_books() {
    let mut cache = SnapshotCache::new(ts(READ_MS), 1_000);
    for _ in 0..1_000 {
        insert(&mut cache, "a", "12");
        insert(&mut cache, "b", "1");
        cache.remove(&"b".into());
    }
    assert_eq!((cache.len(), cache.bytes()), (1, ENTRY + 1));
    assert!(format!("{cache:?}").len() < 2_000, "places of what is gone do not pile up");
}
