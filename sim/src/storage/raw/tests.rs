use tikv_core::key::KeyRange;
use tikv_proto::kvrpcpb::{
    KvPair, RawBatchDeleteRequest, RawBatchPutRequest, RawCasRequest, RawDeleteRangeRequest, RawGetKeyTtlRequest,
    RawGetRequest, RawPutRequest, RawScanRequest,
};

use crate::storage::harness::Store;
use crate::storage::{Config, RawFormat, Refusal, Storage};

fn store(raw_format: RawFormat) -> Store {
    let mut storage = Storage::new(Config { raw_format, ..Config::default() });
    storage.set_unix_time(1000);
    Store { storage, region: KeyRange::ALL }
}

fn put(key: &'static str, ttl: u64) -> RawPutRequest {
    RawPutRequest { key: key.into(), value: "v".into(), ttl, ..RawPutRequest::default() }
}

fn exists(store: &mut Store, key: &'static str) -> bool {
    !store.call(&RawGetRequest { key: key.into(), ..RawGetRequest::default() }).not_found
}

fn ttl(store: &mut Store, key: &'static str) -> Option<u64> {
    let response = store.call(&RawGetKeyTtlRequest { key: key.into(), ..RawGetKeyTtlRequest::default() });
    (!response.not_found).then_some(response.ttl)
}

#[test]
fn a_value_is_gone_when_its_time_to_live_has_run_out() {
    let mut store = store(RawFormat::V1Ttl);
    store.call(&put("brief", 10));
    store.call(&put("forever", 0));
    store.storage.set_unix_time(1009);
    assert_eq!((ttl(&mut store, "brief"), ttl(&mut store, "forever")), (Some(1), Some(0)));
    store.storage.set_unix_time(1010);
    assert_eq!(
        (ttl(&mut store, "brief"), exists(&mut store, "brief"), exists(&mut store, "forever")),
        (None, false, true)
    );

    let scan = RawScanRequest { limit: 10, ..RawScanRequest::default() };
    assert_eq!(store.call(&scan).kvs.iter().map(|pair| pair.key.clone()).collect::<Vec<_>>(), ["forever"]);
    let swap =
        RawCasRequest { key: "brief".into(), value: "new".into(), previous_not_exist: true, ..Default::default() };
    assert!(store.call(&swap).succeed);
}

#[test]
fn without_ttl_none_is_accepted_and_none_can_be_asked_for() {
    let mut store = store(RawFormat::V1);
    assert_eq!(store.call(&put("k", 10)).error, "ttl is not enabled, but get put request with ttl");
    let request = RawGetKeyTtlRequest { key: "k".into(), ..RawGetKeyTtlRequest::default() };
    assert_eq!(store.refusal(&request), Refusal::TtlNotEnabled);
}

#[test]
fn a_batch_takes_one_ttl_for_all_pairs_or_one_for_each() {
    let mut store = store(RawFormat::V1Ttl);
    let pair = |key: &'static str| KvPair { key: key.into(), value: "v".into(), ..KvPair::default() };
    let batch = |ttls| RawBatchPutRequest { pairs: vec![pair("a"), pair("b"), pair("c")], ttls, ..Default::default() };
    assert_eq!(store.call(&batch(vec![7])).error, "");
    assert_eq!((ttl(&mut store, "a"), ttl(&mut store, "c")), (Some(7), Some(7)));
    assert_eq!(store.call(&batch(vec![1, 2])).error, "The length of ttls does not equal to the length of pairs");
}

#[test]
fn the_second_api_version_has_one_column_family() {
    let mut store = store(RawFormat::V2);
    let request = RawPutRequest { cf: "default".into(), ..put("k", 0) };
    assert!(store.call(&request).error.starts_with("cf is deprecated"));
    assert_eq!(store.call(&put("k", 0)).error, "");
}

#[test]
fn atomic_batches_without_keys_are_refused() {
    let mut store = store(RawFormat::V1);
    assert_eq!(store.refusal(&RawBatchPutRequest { for_cas: true, ..Default::default() }), Refusal::NoKeys);
    assert_eq!(store.refusal(&RawBatchDeleteRequest { for_cas: true, ..Default::default() }), Refusal::NoKeys);
    assert_eq!(store.call(&RawBatchDeleteRequest::default()).error, "");
}

#[test]
fn a_key_that_is_too_large_is_not_stored() {
    let mut store = store(RawFormat::V1);
    let request = RawPutRequest { key: vec![b'k'; 8193].into(), ..put("", 0) };
    assert!(store.call(&request).error.contains("max key size exceeded"));
}

#[test]
fn a_range_is_deleted_only_within_the_region() {
    let mut store = store(RawFormat::V1);
    for key in ["a", "b", "c"] {
        store.call(&put(key, 0));
    }
    store.region = KeyRange::new("b", "c");
    let delete = |start: &'static str, end: &'static str| RawDeleteRangeRequest {
        start_key: start.into(),
        end_key: end.into(),
        ..Default::default()
    };
    for request in [delete("a", "c"), delete("b", "d"), delete("b", "")] {
        let error = store.call(&request).region_error.unwrap_or_default();
        assert!(error.key_not_in_region.is_some(), "{request:?}");
    }
    assert!(store.call(&delete("b", "b")).region_error.is_some_and(|error| error.key_not_in_region.is_none()));
    assert_eq!(store.call(&delete("b", "c")).region_error, None);
    assert_eq!((exists(&mut store, "a"), exists(&mut store, "b"), exists(&mut store, "c")), (true, false, true));
}

#[test]
fn a_scan_ends_where_the_region_does() {
    let mut store = store(RawFormat::V1);
    for key in ["a", "b", "c", "d"] {
        store.call(&put(key, 0));
    }
    store.region = KeyRange::new("b", "d");
    let keys = |store: &mut Store, start: &'static str, reverse| {
        let request = RawScanRequest { start_key: start.into(), limit: 10, reverse, ..Default::default() };
        store.call(&request).kvs.iter().map(|pair| pair.key.clone()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&mut store, "b", false), ["b", "c"]);
    assert_eq!(keys(&mut store, "d", true), ["c", "b"]);
    assert_eq!(keys(&mut store, "", true), [""; 0], "backwards from the empty key there is nothing");
}
