use tikv_proto::pdpb::{
    BatchScanRegionsRequest, BatchScanRegionsResponse, ErrorType, GetAllStoresRequest, GetAllStoresResponse,
    GetRegionByIdRequest, GetRegionRequest, GetRegionResponse, GetStoreRequest, GetStoreResponse, KeyRange as PdRange,
    QueryRegionRequest, QueryRegionResponse, ScanRegionsRequest, ScanRegionsResponse, ScatterRegionRequest,
    ScatterRegionResponse, SplitRegionsRequest, SplitRegionsResponse,
};

use super::*;

fn key(user_key: &[u8]) -> Bytes {
    encoded(user_key).into_bytes()
}

fn get_region(cluster: &mut Cluster, path: &str, region_key: Bytes) -> GetRegionResponse {
    let request = GetRegionRequest { header: header(cluster), region_key, ..GetRegionRequest::default() };
    ask(cluster, path, &request)
}

#[test]
fn a_region_is_found_by_key_by_id_and_by_the_key_after_it() {
    let mut cluster = cluster();
    let right = get_region(&mut cluster, "/pdpb.PD/GetRegion", key(b"m")).region.unwrap();
    assert_eq!(right.start_key, key(b"m"));
    let by_router = get_region(&mut cluster, "/routerpb.Router/GetRegion", key(b"z"));
    assert_eq!(by_router.region, Some(right.clone()));
    let leader = cluster.topology().region(right.id).unwrap().leader.unwrap();
    assert_eq!(by_router.leader.unwrap().store_id, leader);

    let left = get_region(&mut cluster, "/pdpb.PD/GetPrevRegion", key(b"m")).region.unwrap();
    assert_eq!(left.end_key, key(b"m"));
    assert_eq!(get_region(&mut cluster, "/pdpb.PD/GetPrevRegion", key(b"a")).region, None);

    let by_id = |region_id| GetRegionByIdRequest { header: header(&cluster), region_id, need_buckets: false };
    let (known, unknown) = (by_id(right.id), by_id(999));
    let found: GetRegionResponse = ask(&mut cluster, "/pdpb.PD/GetRegionByID", &known);
    assert_eq!(found.region, Some(right));
    let none: GetRegionResponse = ask(&mut cluster, "/pdpb.PD/GetRegionByID", &unknown);
    assert_eq!((none.region, none.header.unwrap().error), (None, None));
}

#[test]
fn a_frozen_map_tells_of_regions_as_they_were() {
    let mut cluster = cluster();
    cluster.freeze_pd();
    cluster.split(&encoded(b"t")).unwrap();
    let path = "/pdpb.PD/GetRegion";
    let before = get_region(&mut cluster, path, key(b"z")).region.unwrap();
    cluster.thaw_pd();
    let after = get_region(&mut cluster, path, key(b"z")).region.unwrap();
    assert_eq!((before.id, before.start_key, after.start_key), (after.id, key(b"m"), key(b"t")));
}

#[test]
fn one_message_asks_for_many_regions_and_hears_of_each_once() {
    let mut cluster = cluster();
    let request = QueryRegionRequest {
        header: header(&cluster),
        keys: vec![key(b"a"), key(b"z"), key(b"b")],
        prev_keys: vec![key(b"z"), key(b"a")],
        ids: vec![999],
        ..QueryRegionRequest::default()
    };
    let answer: QueryRegionResponse = ask(&mut cluster, "/pdpb.PD/QueryRegion", &request);
    let ids: Vec<u64> = cluster.topology().regions().iter().map(crate::cluster::Region::id).collect();
    assert_eq!(answer.key_id_map, [ids[0], ids[1], ids[0]]);
    assert_eq!(answer.prev_key_id_map, [ids[0], 0]);
    assert_eq!(answer.regions_by_id.keys().copied().collect::<Vec<_>>(), ids);
}

#[test]
fn a_scan_brings_the_regions_of_a_range_up_to_its_limit() {
    let mut cluster = cluster();
    cluster.split(&encoded(b"t")).unwrap();
    let scan = |cluster: &mut Cluster, start_key, end_key, limit| -> Vec<Bytes> {
        let request = ScanRegionsRequest { header: header(cluster), start_key, end_key, limit };
        let answer: ScanRegionsResponse = ask(cluster, "/pdpb.PD/ScanRegions", &request);
        assert_eq!(answer.regions.len(), answer.region_metas.len());
        answer.region_metas.into_iter().map(|region| region.start_key).collect()
    };
    let none = Bytes::new;
    assert_eq!(scan(&mut cluster, none(), none(), 0), [none(), key(b"m"), key(b"t")]);
    assert_eq!(scan(&mut cluster, key(b"n"), none(), 1), [key(b"m")]);
    assert_eq!(scan(&mut cluster, key(b"n"), key(b"t"), 0), [key(b"m")]);
    assert_eq!(scan(&mut cluster, key(b"n"), key(b"u"), 9), [key(b"m"), key(b"t")]);
}

#[test]
fn a_batch_scan_tells_a_region_of_two_ranges_once_and_refuses_ranges_out_of_order() {
    let mut cluster = cluster();
    let range = |start: &[u8], end: &[u8]| PdRange { start_key: key(start), end_key: key(end) };
    let scan = |cluster: &mut Cluster, ranges| -> BatchScanRegionsResponse {
        let request = BatchScanRegionsRequest { header: header(cluster), ranges, ..BatchScanRegionsRequest::default() };
        ask(cluster, "/pdpb.PD/BatchScanRegions", &request)
    };
    let found = scan(&mut cluster, vec![range(b"a", b"b"), range(b"c", b"d"), range(b"y", b"z")]);
    assert_eq!(found.regions.len(), 2);
    let refused = scan(&mut cluster, vec![range(b"c", b"d"), range(b"a", b"b")]);
    assert_eq!(refused.header.unwrap().error.unwrap().r#type(), ErrorType::Unknown);
}

#[test]
fn pd_knows_its_stores_and_says_so_of_others_in_words_that_clients_look_for() {
    let mut cluster = cluster();
    let store = |store_id| GetStoreRequest { header: header(&cluster), store_id };
    let (known, unknown) = (store(2), store(99));
    let found: GetStoreResponse = ask(&mut cluster, "/pdpb.PD/GetStore", &known);
    assert_eq!(found.store.unwrap().address, "store-2:20160");
    let none: GetStoreResponse = ask(&mut cluster, "/pdpb.PD/GetStore", &unknown);
    assert_eq!(none.header.unwrap().error.unwrap().message, "invalid store ID 99, not found");

    let extra = cluster.topology_mut().add_store(&crate::cluster::StoreOptions::default());
    cluster.topology_mut().remove_store(extra).unwrap();
    for (exclude_tombstone_stores, count) in [(true, 3), (false, 4)] {
        let request = GetAllStoresRequest { header: header(&cluster), exclude_tombstone_stores };
        let all: GetAllStoresResponse = ask(&mut cluster, "/pdpb.PD/GetAllStores", &request);
        assert_eq!(all.stores.len(), count);
    }
}

#[test]
fn pd_splits_at_encoded_keys_and_names_the_regions_that_begin_there() {
    let mut cluster = cluster();
    let split_keys = vec![key(b"g"), key(b"i"), key(b"t")];
    let request = SplitRegionsRequest { header: header(&cluster), split_keys, ..SplitRegionsRequest::default() };
    let done: SplitRegionsResponse = ask(&mut cluster, "/pdpb.PD/SplitRegions", &request);
    assert_eq!((done.finished_percentage, done.regions_id.len()), (100, 3));
    assert_eq!(cluster.topology().regions().len(), 5);
    let regions_id = [done.regions_id, vec![999]].concat();
    let request = ScatterRegionRequest { header: header(&cluster), regions_id, ..ScatterRegionRequest::default() };
    let done: ScatterRegionResponse = ask(&mut cluster, "/pdpb.PD/ScatterRegion", &request);
    assert_eq!((done.finished_percentage, done.failed_regions_id), (75, vec![999]));
}

#[test]
fn pd_skips_split_keys_that_are_out_of_order_or_begin_a_region_already() {
    let mut cluster = cluster();
    // A region begins at m.
    let split_keys = vec![key(b"g"), key(b"c"), key(b"m"), key(b"t")];
    let request = SplitRegionsRequest { header: header(&cluster), split_keys, ..SplitRegionsRequest::default() };
    let done: SplitRegionsResponse = ask(&mut cluster, "/pdpb.PD/SplitRegions", &request);
    assert_eq!(done.finished_percentage, 50);
    let starts: Vec<Bytes> = cluster.topology().regions().iter().map(|region| region.meta.start_key.clone()).collect();
    assert_eq!(starts, [Bytes::new(), key(b"g"), key(b"m"), key(b"t")]);
    let mut begun = [b"g", b"t"].map(|key| cluster.topology().regions().by_key(encoded(key).as_slice()).unwrap().id());
    begun.sort_unstable();
    assert_eq!(done.regions_id, begun);

    let nothing = SplitRegionsRequest { header: header(&cluster), ..SplitRegionsRequest::default() };
    let done: SplitRegionsResponse = ask(&mut cluster, "/pdpb.PD/SplitRegions", &nothing);
    assert_eq!((done.finished_percentage, done.regions_id.len()), (0, 0));
}
