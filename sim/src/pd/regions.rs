//! Questions about regions and stores, and orders to split and scatter.
//!
//! PD learns of every change at once: nobody has to wait for heartbeats, unless PD's map is frozen
//! ([`Cluster::freeze_pd`](crate::cluster::Cluster::freeze_pd)). Only the leader of a region without one is as PD heard it
//! last. Keys are encoded, as in all of PD's calls.

use std::collections::BTreeMap;

use bytes::Bytes;
use tikv_core::key::{Key, KeyRange};
use tikv_proto::metapb;
use tikv_proto::pdpb::{
    BatchScanRegionsRequest, BatchScanRegionsResponse, ErrorType, GetAllStoresRequest, GetAllStoresResponse,
    GetOperatorRequest, GetOperatorResponse, GetRegionByIdRequest, GetRegionRequest, GetRegionResponse,
    GetStoreRequest, GetStoreResponse, OperatorStatus, PutStoreRequest, PutStoreResponse, QueryRegionRequest,
    QueryRegionResponse, Region as RegionInfo, RegionResponse, ScanRegionsRequest, ScanRegionsResponse,
    ScatterRegionRequest, ScatterRegionResponse, SplitAndScatterRegionsRequest, SplitAndScatterRegionsResponse,
    SplitRegionsRequest, SplitRegionsResponse, StoreHeartbeatRequest, StoreHeartbeatResponse, StoreStats,
};

use super::{Answer, Asked};
use crate::cluster::{Region, Regions, Store};

/// The regions as PD knows them.
fn known<'a>(cx: &'a Asked<'_>) -> &'a Regions {
    cx.pd.frozen_regions.as_ref().unwrap_or_else(|| cx.topology.regions())
}

/// The peer that PD believes leads.
fn leader(region: &Region) -> Option<metapb::Peer> {
    region.peer_on(region.reported_leader?).copied()
}

fn buckets(region: &Region, wanted: bool) -> Option<metapb::Buckets> {
    region.buckets.clone().filter(|_| wanted)
}

// ---- One region ----

pub(super) fn get_region(cx: &mut Asked<'_>, request: &GetRegionRequest) -> Answer<GetRegionResponse> {
    let region = known(cx).by_key(&request.region_key);
    Ok(one(cx, region, request.need_buckets))
}

pub(super) fn get_prev_region(cx: &mut Asked<'_>, request: &GetRegionRequest) -> Answer<GetRegionResponse> {
    let region = previous(known(cx), &request.region_key);
    Ok(one(cx, region, request.need_buckets))
}

pub(super) fn get_region_by_id(cx: &mut Asked<'_>, request: &GetRegionByIdRequest) -> Answer<GetRegionResponse> {
    let region = known(cx).get(request.region_id);
    Ok(one(cx, region, request.need_buckets))
}

/// The region before the one that holds the key.
fn previous<'a>(regions: &'a Regions, key: &[u8]) -> Option<&'a Region> {
    regions.before(regions.by_key(key)?)
}

/// A leader that knows no such region says nothing; a follower may only be behind.
fn one(cx: &Asked<'_>, region: Option<&Region>, need_buckets: bool) -> GetRegionResponse {
    let Some(region) = region else {
        let header = if cx.leads() { cx.header() } else { cx.failed(ErrorType::RegionNotFound, "region not found") };
        return GetRegionResponse { header, ..GetRegionResponse::default() };
    };
    GetRegionResponse {
        header: cx.header(),
        region: Some(region.meta.clone()),
        leader: leader(region),
        buckets: buckets(region, need_buckets),
        ..GetRegionResponse::default()
    }
}

// ---- Several regions ----

/// Equal regions are told once. A key or id without a region has no entry; its place in the map of keys is zero.
pub(super) fn query_region(cx: &mut Asked<'_>, request: &QueryRegionRequest) -> Answer<QueryRegionResponse> {
    let sent = request.header.as_ref().map_or(0, |header| header.cluster_id);
    cx.check_cluster(sent)?;
    let regions = known(cx);
    let mut regions_by_id = BTreeMap::new();
    let mut tell = |region: Option<&Region>| {
        let Some(region) = region else { return 0 };
        regions_by_id.entry(region.id()).or_insert_with(|| RegionResponse {
            region: Some(region.meta.clone()),
            leader: leader(region),
            buckets: buckets(region, request.need_buckets),
            ..RegionResponse::default()
        });
        region.id()
    };
    let key_id_map = request.keys.iter().map(|key| tell(regions.by_key(key))).collect();
    let prev_key_id_map = request.prev_keys.iter().map(|key| tell(previous(regions, key))).collect();
    for id in &request.ids {
        tell(regions.get(*id));
    }
    Ok(QueryRegionResponse { header: cx.header(), key_id_map, prev_key_id_map, regions_by_id })
}

/// The regions of a range, at most `limit` if that is positive.
fn scan(regions: &Regions, range: &KeyRange, limit: i32) -> Vec<Region> {
    let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    regions.overlapping(range).take(limit).cloned().collect()
}

fn info(region: &Region, need_buckets: bool) -> RegionInfo {
    RegionInfo {
        region: Some(region.meta.clone()),
        leader: Some(leader(region).unwrap_or_default()),
        buckets: buckets(region, need_buckets),
        ..RegionInfo::default()
    }
}

pub(super) fn scan_regions(cx: &mut Asked<'_>, request: &ScanRegionsRequest) -> Answer<ScanRegionsResponse> {
    let range = KeyRange::new(request.start_key.clone(), request.end_key.clone());
    let found = scan(known(cx), &range, request.limit);
    Ok(ScanRegionsResponse {
        header: cx.header(),
        region_metas: found.iter().map(|region| region.meta.clone()).collect(),
        leaders: found.iter().map(|region| leader(region).unwrap_or_default()).collect(),
        regions: found.iter().map(|region| info(region, false)).collect(),
    })
}

pub(super) fn batch_scan_regions(
    cx: &mut Asked<'_>,
    request: &BatchScanRegionsRequest,
) -> Answer<BatchScanRegionsResponse> {
    let failed = |message| BatchScanRegionsResponse {
        header: cx.failed(ErrorType::Unknown, message),
        ..BatchScanRegionsResponse::default()
    };
    let ranges = &request.ranges;
    if ranges.windows(2).any(|pair| pair[1].start_key < pair[0].end_key) {
        return Ok(failed("invalid key range, ranges overlapped"));
    }
    if ranges.iter().any(|range| !range.end_key.is_empty() && range.start_key > range.end_key) {
        return Ok(failed("invalid key range, start key > end key"));
    }
    let mut found: Vec<Region> = Vec::new();
    for range in ranges {
        let range = KeyRange::new(range.start_key.clone(), range.end_key.clone());
        let mut next = scan(known(cx), &range, request.limit);
        // A region that reaches into two ranges is told once.
        if found.last().map(Region::id) == next.first().map(Region::id) && !found.is_empty() {
            next.remove(0);
        }
        found.append(&mut next);
    }
    if let Some(limit) = usize::try_from(request.limit).ok().filter(|limit| *limit > 0) {
        found.truncate(limit);
    }
    let regions = found.iter().map(|region| info(region, request.need_buckets)).collect();
    Ok(BatchScanRegionsResponse { header: cx.header(), regions })
}

// ---- Stores ----

pub(super) fn get_store(cx: &mut Asked<'_>, request: &GetStoreRequest) -> Answer<GetStoreResponse> {
    let id = request.store_id;
    let Ok(store) = cx.topology.store(id) else {
        // Clients know an unknown store by these words.
        let header = cx.failed(ErrorType::Unknown, format!("invalid store ID {id}, not found"));
        return Ok(GetStoreResponse { header, ..GetStoreResponse::default() });
    };
    let region_count = cx.topology.regions().iter().filter(|region| region.peer_on(id).is_some()).count() as u32;
    let stats = StoreStats { store_id: id, region_count, ..StoreStats::default() };
    Ok(GetStoreResponse { header: cx.header(), store: Some(seen(cx, store)), stats: Some(stats) })
}

pub(super) fn get_all_stores(cx: &mut Asked<'_>, request: &GetAllStoresRequest) -> Answer<GetAllStoresResponse> {
    let wanted = |store: &&Store| !(request.exclude_tombstone_stores && store.is_tombstone());
    let stores = cx.topology.stores().filter(wanted).map(|store| seen(cx, store)).collect();
    Ok(GetAllStoresResponse { header: cx.header(), stores })
}

/// A store that runs has just sent a heartbeat.
fn seen(cx: &Asked<'_>, store: &Store) -> metapb::Store {
    let mut meta = store.meta.clone();
    if store.running {
        meta.last_heartbeat = i64::try_from(cx.pd.wall_clock_ms(cx.now)).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    }
    meta
}

/// Only what a test that plays a store needs: labels and address are taken over.
pub(super) fn put_store(cx: &mut Asked<'_>, request: &PutStoreRequest) -> Answer<PutStoreResponse> {
    let asked = request.store.clone().unwrap_or_default();
    let header = match cx.topology.store_mut(asked.id) {
        Ok(store) if store.is_tombstone() => cx.failed(ErrorType::StoreTombstone, "store is tombstone"),
        Ok(store) => {
            (store.meta.address, store.meta.labels) = (asked.address, asked.labels);
            cx.header()
        }
        Err(error) => cx.failed(ErrorType::Unknown, error.to_string()),
    };
    Ok(PutStoreResponse { header, ..PutStoreResponse::default() })
}

pub(super) fn store_heartbeat(cx: &mut Asked<'_>, _: &StoreHeartbeatRequest) -> Answer<StoreHeartbeatResponse> {
    let cluster_version = crate::cluster::VERSION.to_owned();
    Ok(StoreHeartbeatResponse { header: cx.header(), cluster_version, ..StoreHeartbeatResponse::default() })
}

// ---- Splitting and scattering ----

/// Splits at the keys. The new regions, and how many of the keys begin one, in percent.
///
/// The keys of a region are tried in the order they are given: one that is not greater than the last before it is skipped, as
/// is one at which a region begins already. PD tries what was skipped again, after a minute; nobody waits for that.
fn split(cx: &mut Asked<'_>, keys: &[Bytes]) -> (u64, Vec<u64>) {
    let mut asked: BTreeMap<u64, Vec<Key>> = BTreeMap::new();
    for key in keys {
        let Some(region) = known(cx).by_key(key).filter(|region| region.meta.start_key != *key) else { continue };
        let of_region = asked.entry(region.id()).or_default();
        if of_region.last().is_none_or(|last| last.as_slice() < &key[..]) {
            of_region.push(Key::from(key.clone()));
        }
    }
    let mut begun = Vec::new();
    for (region_id, keys) in &asked {
        // A region without a leader, or that PD knows wrongly, is not split.
        if let Ok(parts) = cx.topology.split_region(*region_id, keys) {
            begun.extend(parts.into_iter().skip(1));
        }
    }
    let percentage = (begun.len() * 100).checked_div(keys.len()).unwrap_or(0) as u64;
    begun.sort_unstable();
    (percentage, begun)
}

pub(super) fn split_regions(cx: &mut Asked<'_>, request: &SplitRegionsRequest) -> Answer<SplitRegionsResponse> {
    let (finished_percentage, regions_id) = split(cx, &request.split_keys);
    Ok(SplitRegionsResponse { header: cx.header(), finished_percentage, regions_id })
}

pub(super) fn split_and_scatter_regions(
    cx: &mut Asked<'_>,
    request: &SplitAndScatterRegionsRequest,
) -> Answer<SplitAndScatterRegionsResponse> {
    let (split_finished_percentage, regions_id) = split(cx, &request.split_keys);
    Ok(SplitAndScatterRegionsResponse {
        header: cx.header(),
        split_finished_percentage,
        scatter_finished_percentage: 100,
        regions_id,
    })
}

/// Regions lie where they lie: scattering is done as soon as it is asked for.
#[allow(deprecated)] // Older clients name one region.
pub(super) fn scatter_region(cx: &mut Asked<'_>, request: &ScatterRegionRequest) -> Answer<ScatterRegionResponse> {
    let regions = known(cx);
    let failed_regions_id: Vec<u64> =
        request.regions_id.iter().copied().filter(|id| regions.get(*id).is_none()).collect();
    if request.regions_id.is_empty() && request.region.is_none() && regions.get(request.region_id).is_none() {
        let header = cx.failed(ErrorType::RegionNotFound, format!("region {} not found", request.region_id));
        return Ok(ScatterRegionResponse { header, ..ScatterRegionResponse::default() });
    }
    let failed = failed_regions_id.len() * 100;
    let finished_percentage = 100 - failed.checked_div(request.regions_id.len()).unwrap_or(0) as u64;
    Ok(ScatterRegionResponse { header: cx.header(), finished_percentage, failed_regions_id })
}

pub(super) fn get_operator(cx: &mut Asked<'_>, request: &GetOperatorRequest) -> Answer<GetOperatorResponse> {
    let region_id = request.region_id;
    if known(cx).get(region_id).is_none() {
        let header = cx.failed(ErrorType::RegionNotFound, "Not Found");
        return Ok(GetOperatorResponse { header, ..GetOperatorResponse::default() });
    }
    Ok(GetOperatorResponse {
        header: cx.header(),
        region_id,
        desc: "scatter-region".into(),
        status: OperatorStatus::Success.into(),
        kind: "region,leader".into(),
    })
}
