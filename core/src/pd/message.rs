//! Questions as messages, and messages as answers.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tikv_proto::{metapb, pdpb};

use super::gc;
use super::setback::Setback;
use crate::error::PdError;
use crate::key::KeyRange;
use crate::request::pd::{PdRegion, PdRequest, PdResponse};
use crate::timestamp::Timestamp;

/// The gRPC paths of the RPCs that the client uses.
pub mod path {
    /// Who the members are and which of them leads.
    pub const GET_MEMBERS: &str = "/pdpb.PD/GetMembers";
    /// The timestamp stream.
    pub const TSO: &str = "/pdpb.PD/Tso";
    /// The region of a key.
    pub const GET_REGION: &str = "/pdpb.PD/GetRegion";
    /// The region before that of a key.
    pub const GET_PREV_REGION: &str = "/pdpb.PD/GetPrevRegion";
    /// A region by its id.
    pub const GET_REGION_BY_ID: &str = "/pdpb.PD/GetRegionByID";
    /// The regions of ranges.
    pub const BATCH_SCAN_REGIONS: &str = "/pdpb.PD/BatchScanRegions";
    /// A store by its id.
    pub const GET_STORE: &str = "/pdpb.PD/GetStore";
    /// All stores.
    pub const GET_ALL_STORES: &str = "/pdpb.PD/GetAllStores";
    /// Regions to be spread over the stores.
    pub const SCATTER_REGION: &str = "/pdpb.PD/ScatterRegion";
    /// What is being done to a region.
    pub const GET_OPERATOR: &str = "/pdpb.PD/GetOperator";
    /// How far garbage collection is.
    pub const GET_GC_STATE: &str = "/pdpb.PD/GetGCState";
    /// What nobody reads any more.
    pub const ADVANCE_TXN_SAFE_POINT: &str = "/pdpb.PD/AdvanceTxnSafePoint";
    /// What may be removed.
    pub const ADVANCE_GC_SAFE_POINT: &str = "/pdpb.PD/AdvanceGCSafePoint";
    /// What must not be removed.
    pub const SET_GC_BARRIER: &str = "/pdpb.PD/SetGCBarrier";
    /// What need not be kept any more.
    pub const DELETE_GC_BARRIER: &str = "/pdpb.PD/DeleteGCBarrier";
}

/// The method in a gRPC path.
pub(super) fn method(path: &'static str) -> &'static str {
    path.rsplit('/').next().unwrap_or(path)
}

pub(super) fn malformed(address: &Arc<str>, path: &'static str, detail: impl Into<Arc<str>>) -> PdError {
    PdError::Malformed { address: Arc::clone(address), method: method(path), detail: detail.into() }
}

fn header(cluster_id: u64) -> Option<pdpb::RequestHeader> {
    Some(pdpb::RequestHeader { cluster_id, ..Default::default() })
}

pub(super) fn bytes(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

pub(super) fn members_request() -> Bytes {
    bytes(&pdpb::GetMembersRequest::default())
}

pub(super) fn tso_request(cluster_id: u64, count: u32) -> Bytes {
    bytes(&pdpb::TsoRequest { header: header(cluster_id), count, ..Default::default() })
}

/// The first of `count` timestamps of which PD named the last, and that last one.
///
/// PD answers with the largest logical time of the batch; the others are right below it, in the same millisecond.
pub(super) fn tso_range(response: &pdpb::TsoResponse, count: u32) -> Result<(Timestamp, Timestamp), &'static str> {
    const PHYSICAL_LIMIT: u64 = 1 << (64 - crate::timestamp::LOGICAL_BITS);
    const LOGICAL_LIMIT: u64 = 1 << crate::timestamp::LOGICAL_BITS;
    if response.count != count {
        return Err("another number of timestamps than asked for");
    }
    let timestamp = response.timestamp.as_ref().ok_or("no timestamp")?;
    let physical = u64::try_from(timestamp.physical).ok().filter(|ms| *ms < PHYSICAL_LIMIT);
    let last = u64::try_from(timestamp.logical).ok().filter(|logical| *logical < LOGICAL_LIMIT);
    let (Some(physical), Some(last)) = (physical, last) else { return Err("a timestamp out of range") };
    let first = (last + 1).checked_sub(u64::from(count)).ok_or("a logical time below the number of timestamps")?;
    Ok((Timestamp::compose(physical, first), Timestamp::compose(physical, last)))
}

/// The path and the body of a question; `None` for a timestamp, which is asked for on a stream.
pub(super) fn encode(request: &PdRequest, cluster_id: u64) -> Option<(&'static str, Bytes)> {
    let header = header(cluster_id);
    Some(match request {
        PdRequest::Timestamp => return None,
        PdRequest::RegionByKey { key, .. } | PdRequest::PrevRegion { key, .. } => {
            let body = pdpb::GetRegionRequest { header, region_key: key.clone(), need_buckets: true };
            (path_of(request), bytes(&body))
        }
        PdRequest::RegionById { id, .. } => {
            (path_of(request), bytes(&pdpb::GetRegionByIdRequest { header, region_id: *id, need_buckets: true }))
        }
        PdRequest::ScanRegions { start, end, limit, .. } => {
            let range = pdpb::KeyRange { start_key: start.clone(), end_key: end.clone() };
            let limit = i32::try_from(*limit).unwrap_or(i32::MAX);
            let body = pdpb::BatchScanRegionsRequest { header, ranges: vec![range], limit, ..Default::default() };
            (path_of(request), bytes(&body))
        }
        PdRequest::Store { id } => (path_of(request), bytes(&pdpb::GetStoreRequest { header, store_id: *id })),
        PdRequest::AllStores => {
            (path_of(request), bytes(&pdpb::GetAllStoresRequest { header, exclude_tombstone_stores: true }))
        }
        PdRequest::ScatterRegions { regions, group } => {
            let (regions_id, group) = (regions.clone(), group.clone());
            (path_of(request), bytes(&pdpb::ScatterRegionRequest { header, regions_id, group, ..Default::default() }))
        }
        PdRequest::IsScattering { region_id } => {
            (path_of(request), bytes(&pdpb::GetOperatorRequest { header, region_id: *region_id }))
        }
        PdRequest::Gc(question) => (path_of(request), gc::encode(question, header)),
    })
}

/// The RPC that carries a question.
pub(super) fn path_of(request: &PdRequest) -> &'static str {
    match request {
        PdRequest::Timestamp => path::TSO,
        PdRequest::RegionByKey { .. } => path::GET_REGION,
        PdRequest::PrevRegion { .. } => path::GET_PREV_REGION,
        PdRequest::RegionById { .. } => path::GET_REGION_BY_ID,
        PdRequest::ScanRegions { .. } => path::BATCH_SCAN_REGIONS,
        PdRequest::Store { .. } => path::GET_STORE,
        PdRequest::AllStores => path::GET_ALL_STORES,
        PdRequest::ScatterRegions { .. } => path::SCATTER_REGION,
        PdRequest::IsScattering { .. } => path::GET_OPERATOR,
        PdRequest::Gc(question) => gc::path_of(question),
    }
}

/// Reads the answer of the member at `address`, in cluster `cluster_id`, to `request`.
pub(super) fn decode(
    request: &PdRequest,
    address: &Arc<str>,
    cluster_id: u64,
    body: Bytes,
) -> Result<PdResponse, Setback> {
    let path = path_of(request);
    let checked = |header: Option<&pdpb::ResponseHeader>| Setback::of_header(address, path, cluster_id, header);
    let nonsense = |detail: &str| Setback::Final(malformed(address, path, detail));
    let undecodable = |error: prost::DecodeError| Setback::Final(malformed(address, path, error.to_string()));
    match request {
        PdRequest::Timestamp => Err(nonsense("a timestamp outside of the stream")),
        PdRequest::RegionByKey { .. } | PdRequest::PrevRegion { .. } | PdRequest::RegionById { .. } => {
            let response = pdpb::GetRegionResponse::decode(body).map_err(undecodable)?;
            if error_type(response.header.as_ref()) == Some(pdpb::ErrorType::RegionNotFound) {
                return Ok(PdResponse::Region(None));
            }
            checked(response.header.as_ref())?;
            let region = region_of_response(response);
            if region.as_ref().is_some_and(|region| !answers(request, region)) {
                return Err(nonsense("another region than asked for"));
            }
            Ok(PdResponse::Region(region.map(Arc::new)))
        }
        PdRequest::ScanRegions { .. } => {
            let response = pdpb::BatchScanRegionsResponse::decode(body).map_err(undecodable)?;
            if error_type(response.header.as_ref()) == Some(pdpb::ErrorType::RegionNotFound) {
                return Ok(PdResponse::Regions(Vec::new()));
            }
            checked(response.header.as_ref())?;
            let regions = response.regions.into_iter().filter_map(region_of_scan);
            Ok(PdResponse::Regions(regions.map(Arc::new).collect()))
        }
        PdRequest::Store { .. } => {
            let response = pdpb::GetStoreResponse::decode(body).map_err(undecodable)?;
            if names_no_store(response.header.as_ref()) {
                return Ok(PdResponse::Store(None));
            }
            checked(response.header.as_ref())?;
            let store = response.store.ok_or_else(|| nonsense("no store"))?;
            Ok(PdResponse::Store((!is_tombstone(&store)).then(|| Arc::new(store))))
        }
        PdRequest::AllStores => {
            let response = pdpb::GetAllStoresResponse::decode(body).map_err(undecodable)?;
            checked(response.header.as_ref())?;
            let stores = response.stores.into_iter().filter(|store| !is_tombstone(store));
            Ok(PdResponse::Stores(stores.map(Arc::new).collect()))
        }
        PdRequest::ScatterRegions { .. } => {
            let response = pdpb::ScatterRegionResponse::decode(body).map_err(undecodable)?;
            checked(response.header.as_ref())?;
            Ok(PdResponse::Scattered)
        }
        PdRequest::IsScattering { .. } => {
            let response = pdpb::GetOperatorResponse::decode(body).map_err(undecodable)?;
            // PD finds no operator of a region that does not move.
            if error_type(response.header.as_ref()) == Some(pdpb::ErrorType::RegionNotFound) {
                return Ok(PdResponse::IsScattering(false));
            }
            checked(response.header.as_ref())?;
            let is_running = response.status() == pdpb::OperatorStatus::Running;
            Ok(PdResponse::IsScattering(is_running && &response.desc[..] == b"scatter-region"))
        }
        PdRequest::Gc(question) => {
            let (header, answer) = gc::decode(question, body).map_err(undecodable)?;
            checked(header.as_ref())?;
            answer.ok_or_else(|| nonsense("nothing of what was asked for"))
        }
    }
}

/// Whether `region` can be the answer to `request`. The region before a key's is taken on trust: it need not touch the key.
fn answers(request: &PdRequest, region: &PdRegion) -> bool {
    match request {
        PdRequest::RegionByKey { key, .. } => range(region).contains(key),
        PdRequest::RegionById { id, .. } => region.region.id == *id,
        _ => true,
    }
}

/// The keys of a region, as PD knows them.
pub(super) fn range(region: &PdRegion) -> KeyRange {
    KeyRange::new(region.region.start_key.clone(), region.region.end_key.clone())
}

fn region_of_response(response: pdpb::GetRegionResponse) -> Option<PdRegion> {
    Some(PdRegion {
        region: response.region?,
        leader: response.leader.filter(is_some_peer),
        down_peers: peers(response.down_peers),
        pending_peers: response.pending_peers,
        buckets: response.buckets,
    })
}

fn region_of_scan(region: pdpb::Region) -> Option<PdRegion> {
    Some(PdRegion {
        region: region.region?,
        leader: region.leader.filter(is_some_peer),
        down_peers: peers(region.down_peers),
        pending_peers: region.pending_peers,
        buckets: region.buckets,
    })
}

/// PD fills in an empty peer where it knows no leader.
fn is_some_peer(peer: &metapb::Peer) -> bool {
    peer.id != 0
}

fn peers(stats: Vec<pdpb::PeerStats>) -> Vec<metapb::Peer> {
    stats.into_iter().filter_map(|stats| stats.peer).collect()
}

fn is_tombstone(store: &metapb::Store) -> bool {
    store.state() == metapb::StoreState::Tombstone || store.node_state() == metapb::NodeState::Removed
}

fn error_type(header: Option<&pdpb::ResponseHeader>) -> Option<pdpb::ErrorType> {
    Some(header?.error.as_ref()?.r#type())
}

/// PD has no error code for a store that it does not know; there is nothing but its words to go by.
fn names_no_store(header: Option<&pdpb::ResponseHeader>) -> bool {
    let Some(error) = header.and_then(|header| header.error.as_ref()) else { return false };
    let unknown = error.message.contains("invalid store ID") && error.message.contains("not found");
    error.r#type() == pdpb::ErrorType::StoreTombstone || unknown
}
