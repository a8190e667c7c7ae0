//! Which path is answered by whom, and who may be asked.

use bytes::Bytes;
use prost::Message;
use tikv_proto::{keyspacepb, pdpb};

use super::settings::Watch;
use super::{Answer, Asked, Pd, PdCall, not_leader};
use super::{etcd, gc_calls, keyspaces, members, regions, resources, settings, tso};
use crate::status::{Code, Status};

/// How many messages go either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// One request, one response.
    Unary,
    /// Each message is answered by one.
    Stream,
    /// One request, then messages whenever something happens: [`Pd::watch`].
    Watch,
}

/// Who may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Any member; the request's cluster is not looked at either.
    Anyone,
    /// The leader.
    Leader,
    /// The leader, or a member that is told that it may.
    Follower,
}

/// The shape of the method at a path; `None` if PD does not serve it.
#[must_use]
pub fn shape(path: &str) -> Option<Shape> {
    match path {
        "/pdpb.PD/Tso"
        | "/tsopb.TSO/Tso"
        | "/pdpb.PD/QueryRegion"
        | "/routerpb.Router/QueryRegion"
        | "/resource_manager.ResourceManager/AcquireTokenBuckets" => Some(Shape::Stream),
        "/meta_storagepb.MetaStorage/Watch" | "/pdpb.PD/WatchGlobalConfig" => Some(Shape::Watch),
        path => UNARY.contains(&path).then_some(Shape::Unary),
    }
}

/// The cluster that a request names.
trait Headed {
    fn cluster_id(&self) -> u64;
}

macro_rules! headed {
    ($($request:ty),+ $(,)?) => {$(
        impl Headed for $request {
            fn cluster_id(&self) -> u64 {
                self.header.as_ref().map_or(0, |header| header.cluster_id)
            }
        }
    )+};
}

headed! {
    pdpb::AdvanceGcSafePointRequest,
    pdpb::AdvanceTxnSafePointRequest,
    pdpb::AllocIdRequest,
    pdpb::BatchScanRegionsRequest,
    pdpb::BootstrapRequest,
    pdpb::DeleteGcBarrierRequest,
    pdpb::DeleteGlobalGcBarrierRequest,
    pdpb::GetAllGcSafePointV2Request,
    pdpb::GetAllKeyspacesGcStatesRequest,
    pdpb::GetAllStoresRequest,
    pdpb::GetClusterConfigRequest,
    pdpb::GetExternalTimestampRequest,
    pdpb::GetGcSafePointRequest,
    pdpb::GetGcSafePointV2Request,
    pdpb::GetGcStateRequest,
    pdpb::GetMinTsRequest,
    pdpb::GetOperatorRequest,
    pdpb::GetRegionByIdRequest,
    pdpb::GetRegionRequest,
    pdpb::GetStoreRequest,
    pdpb::IsBootstrappedRequest,
    pdpb::PutStoreRequest,
    pdpb::ScanRegionsRequest,
    pdpb::ScatterRegionRequest,
    pdpb::SetExternalTimestampRequest,
    pdpb::SetGcBarrierRequest,
    pdpb::SetGlobalGcBarrierRequest,
    pdpb::SplitAndScatterRegionsRequest,
    pdpb::SplitRegionsRequest,
    pdpb::StoreHeartbeatRequest,
    pdpb::UpdateGcSafePointRequest,
    pdpb::UpdateGcSafePointV2Request,
    pdpb::UpdateServiceGcSafePointRequest,
    pdpb::UpdateServiceSafePointV2Request,
    keyspacepb::GetAllKeyspacesRequest,
    keyspacepb::LoadKeyspaceByIdRequest,
    keyspacepb::LoadKeyspaceRequest,
    keyspacepb::LookupKeyspaceRequest,
    keyspacepb::UpdateKeyspaceStateRequest,
}

fn decode<Q: Message + Default>(message: Bytes) -> Result<Q, Status> {
    Q::decode(message).map_err(|error| Status::new(Code::Internal, format!("cannot decode the request: {error}")))
}

/// Answers a request that is not guarded.
fn run<Q: Message + Default, R: Message>(
    cx: &mut Asked<'_>,
    message: Bytes,
    handler: impl FnOnce(&mut Asked<'_>, &Q) -> Answer<R>,
) -> Answer<Bytes> {
    let request = decode(message)?;
    Ok(handler(cx, &request)?.encode_to_vec().into())
}

fn check_role(cx: &Asked<'_>, call: &PdCall<'_>, role: Role) -> Result<(), Status> {
    match role {
        Role::Anyone => Ok(()),
        _ if cx.leads() => Ok(()),
        Role::Leader => Err(not_leader()),
        Role::Follower if call.allow_follower => Ok(()),
        Role::Follower => Err(Status::new(Code::Unavailable, "not leader and follower handling not allowed")),
    }
}

macro_rules! routes {
    ($($role:ident $guard:ident { $($($path:literal)|+ => $handler:expr;)+ })+) => {
        /// The paths of unary methods.
        const UNARY: &[&str] = &[$($($($path,)+)+)+];

        fn unary(cx: &mut Asked<'_>, call: &PdCall<'_>, message: Bytes) -> Answer<Bytes> {
            match call.path {
                $($($($path)|+ => {
                    check_role(cx, call, Role::$role)?;
                    guard!($guard, cx, message, $handler)
                })+)+
                path => Err(Status::unimplemented(path)),
            }
        }
    };
}

macro_rules! guard {
    (same_cluster, $cx:ident, $message:ident, $handler:expr) => {
        run($cx, $message, |cx, request| {
            cx.check_cluster(Headed::cluster_id(request))?;
            $handler(cx, request)
        })
    };
    (any_cluster, $cx:ident, $message:ident, $handler:expr) => {
        run($cx, $message, $handler)
    };
}

routes! {
    Anyone any_cluster {
        "/pdpb.PD/GetMembers" => members::get_members;
        "/pdpb.PD/GetClusterInfo" => members::get_cluster_info;
        "/pdpb.PD/IsSnapshotRecovering" => members::is_snapshot_recovering;
        "/pdpb.PD/SyncMaxTS" => members::sync_max_ts;
        "/pdpb.PD/GetDCLocationInfo" => members::get_dc_location_info;
        "/pdpb.PD/LoadGlobalConfig" => settings::load_global_config;
        "/pdpb.PD/StoreGlobalConfig" => settings::store_global_config;
        "/etcdserverpb.Cluster/MemberList" => members::member_list;
        "/etcdserverpb.KV/Range" => etcd::range;
        "/etcdserverpb.KV/Put" => etcd::put;
        "/etcdserverpb.KV/DeleteRange" => etcd::delete_range;
        "/etcdserverpb.KV/Txn" => etcd::txn;
        "/grpc.health.v1.Health/Check" => members::check_health;
    }
    Leader any_cluster {
        "/meta_storagepb.MetaStorage/Get" => settings::get;
        "/meta_storagepb.MetaStorage/Put" => settings::put;
        "/meta_storagepb.MetaStorage/Delete" => settings::delete;
        "/resource_manager.ResourceManager/ListResourceGroups" => resources::list;
        "/resource_manager.ResourceManager/GetResourceGroup" => resources::get;
        "/resource_manager.ResourceManager/AddResourceGroup" => resources::add;
        "/resource_manager.ResourceManager/ModifyResourceGroup" => resources::modify;
        "/resource_manager.ResourceManager/DeleteResourceGroup" => resources::delete;
    }
    Follower same_cluster {
        "/pdpb.PD/GetRegion" | "/routerpb.Router/GetRegion" => regions::get_region;
        "/pdpb.PD/GetPrevRegion" | "/routerpb.Router/GetPrevRegion" => regions::get_prev_region;
        "/pdpb.PD/GetRegionByID" | "/routerpb.Router/GetRegionByID" => regions::get_region_by_id;
        "/pdpb.PD/ScanRegions" => regions::scan_regions;
        "/pdpb.PD/BatchScanRegions" | "/routerpb.Router/BatchScanRegions" => regions::batch_scan_regions;
    }
    Leader same_cluster {
        "/pdpb.PD/GetStore" | "/routerpb.Router/GetStore" => regions::get_store;
        "/pdpb.PD/GetAllStores" | "/routerpb.Router/GetAllStores" => regions::get_all_stores;
        "/pdpb.PD/PutStore" => regions::put_store;
        "/pdpb.PD/StoreHeartbeat" => regions::store_heartbeat;
        "/pdpb.PD/SplitRegions" => regions::split_regions;
        "/pdpb.PD/SplitAndScatterRegions" => regions::split_and_scatter_regions;
        "/pdpb.PD/ScatterRegion" => regions::scatter_region;
        "/pdpb.PD/GetOperator" => regions::get_operator;
        "/pdpb.PD/IsBootstrapped" => members::is_bootstrapped;
        "/pdpb.PD/Bootstrap" => members::bootstrap;
        "/pdpb.PD/AllocID" => members::alloc_id;
        "/pdpb.PD/GetClusterConfig" => members::get_cluster_config;
        "/pdpb.PD/GetMinTS" => tso::get_min_ts;
        "/pdpb.PD/GetExternalTimestamp" => tso::get_external_timestamp;
        "/pdpb.PD/SetExternalTimestamp" => tso::set_external_timestamp;
        "/pdpb.PD/GetGCState" => gc_calls::get_gc_state;
        "/pdpb.PD/GetAllKeyspacesGCStates" => gc_calls::get_all_gc_states;
        "/pdpb.PD/AdvanceGCSafePoint" => gc_calls::advance_gc_safe_point;
        "/pdpb.PD/AdvanceTxnSafePoint" => gc_calls::advance_txn_safe_point;
        "/pdpb.PD/SetGCBarrier" => gc_calls::set_gc_barrier;
        "/pdpb.PD/DeleteGCBarrier" => gc_calls::delete_gc_barrier;
        "/pdpb.PD/SetGlobalGCBarrier" => gc_calls::set_global_gc_barrier;
        "/pdpb.PD/DeleteGlobalGCBarrier" => gc_calls::delete_global_gc_barrier;
        "/pdpb.PD/GetGCSafePoint" => gc_calls::get_gc_safe_point;
        "/pdpb.PD/GetGCSafePointV2" => gc_calls::get_gc_safe_point_v2;
        "/pdpb.PD/GetAllGCSafePointV2" => gc_calls::get_all_gc_safe_points;
        "/pdpb.PD/UpdateGCSafePoint" => gc_calls::update_gc_safe_point;
        "/pdpb.PD/UpdateGCSafePointV2" => gc_calls::update_gc_safe_point_v2;
        "/pdpb.PD/UpdateServiceGCSafePoint" => gc_calls::update_service_gc_safe_point;
        "/pdpb.PD/UpdateServiceSafePointV2" => gc_calls::update_service_safe_point_v2;
        "/keyspacepb.Keyspace/LoadKeyspace" => keyspaces::load;
        "/keyspacepb.Keyspace/LoadKeyspaceByID" => keyspaces::load_by_id;
        "/keyspacepb.Keyspace/LookupKeyspace" => keyspaces::lookup;
        "/keyspacepb.Keyspace/GetAllKeyspaces" => keyspaces::get_all;
        "/keyspacepb.Keyspace/UpdateKeyspaceState" => keyspaces::update_state;
    }
}

pub(super) fn answer(cx: &mut Asked<'_>, call: &PdCall<'_>, message: Bytes) -> Answer<Bytes> {
    match call.path {
        // These look at the cluster and the leader themselves, at each message.
        "/pdpb.PD/Tso" => run(cx, message, tso::tso),
        "/tsopb.TSO/Tso" => run(cx, message, tso::tso_service),
        "/pdpb.PD/QueryRegion" | "/routerpb.Router/QueryRegion" => run(cx, message, regions::query_region),
        "/resource_manager.ResourceManager/AcquireTokenBuckets" => {
            check_role(cx, call, Role::Leader)?;
            run(cx, message, resources::acquire_tokens)
        }
        _ => unary(cx, call, message),
    }
}

pub(super) fn watch(pd: &Pd, path: &str, request: Bytes) -> Result<Watch, Status> {
    match path {
        "/meta_storagepb.MetaStorage/Watch" => Ok(Watch::meta_storage(pd, &decode(request)?)),
        "/pdpb.PD/WatchGlobalConfig" => Watch::global_config(pd, &decode(request)?),
        path => Err(Status::unimplemented(path)),
    }
}
