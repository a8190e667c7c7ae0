//! PD's calls about garbage collection: those of today, and those which they replace.

use tikv_core::time::Time;
use tikv_proto::pdpb::{
    AdvanceGcSafePointRequest, AdvanceGcSafePointResponse, AdvanceTxnSafePointRequest, AdvanceTxnSafePointResponse,
    DeleteGcBarrierRequest, DeleteGcBarrierResponse, DeleteGlobalGcBarrierRequest, DeleteGlobalGcBarrierResponse,
    ErrorType, GcBarrierInfo, GcSafePointV2, GcState, GetAllGcSafePointV2Request, GetAllGcSafePointV2Response,
    GetAllKeyspacesGcStatesRequest, GetAllKeyspacesGcStatesResponse, GetGcSafePointRequest, GetGcSafePointResponse,
    GetGcSafePointV2Request, GetGcSafePointV2Response, GetGcStateRequest, GetGcStateResponse, GlobalGcBarrierInfo,
    GlobalGcBarriersInfo, KeyspaceScope, SetGcBarrierRequest, SetGcBarrierResponse, SetGlobalGcBarrierRequest,
    SetGlobalGcBarrierResponse, UpdateGcSafePointRequest, UpdateGcSafePointResponse, UpdateGcSafePointV2Request,
    UpdateGcSafePointV2Response, UpdateServiceGcSafePointRequest, UpdateServiceGcSafePointResponse,
    UpdateServiceSafePointV2Request, UpdateServiceSafePointV2Response, gc_safe_point_v2, get_gc_safe_point_v2_request,
    keyspace_scope, update_gc_safe_point_v2_request, update_service_safe_point_v2_request,
};

use super::gc::{Barrier, GcError, keyspace_id};
use super::{Answer, Asked, NULL_KEYSPACE};
use crate::status::{Code, Status};

fn info((id, barrier): (&String, &Barrier), now: Time) -> GcBarrierInfo {
    GcBarrierInfo { barrier_id: id.clone(), barrier_ts: barrier.ts, ttl_seconds: barrier.ttl_seconds(now) }
}

fn global_info((id, barrier): (&String, &Barrier), now: Time) -> GlobalGcBarrierInfo {
    GlobalGcBarrierInfo { barrier_id: id.clone(), barrier_ts: barrier.ts, ttl_seconds: barrier.ttl_seconds(now) }
}

impl Asked<'_> {
    fn gc_failed(&self, error: &GcError) -> Option<tikv_proto::pdpb::ResponseHeader> {
        self.failed(ErrorType::Unknown, error.to_string())
    }

    fn gc_state(&self, keyspace_id: u32, with_barriers: bool) -> GcState {
        let barriers = with_barriers.then(|| self.pd.barriers(self.now, keyspace_id));
        GcState {
            keyspace_scope: Some(KeyspaceScope { keyspace: Some(keyspace_scope::Keyspace::KeyspaceId(keyspace_id)) }),
            is_keyspace_level_gc: keyspace_id != NULL_KEYSPACE,
            txn_safe_point: self.pd.txn_safe_point(keyspace_id),
            gc_safe_point: self.pd.gc_safe_point(keyspace_id),
            gc_barriers: barriers.into_iter().flatten().map(|barrier| info(barrier, self.now)).collect(),
        }
    }

    fn global_infos(&self) -> Vec<GlobalGcBarrierInfo> {
        self.pd.global_barriers(self.now).map(|barrier| global_info(barrier, self.now)).collect()
    }
}

// ---- States ----

pub(super) fn get_gc_state(cx: &mut Asked<'_>, request: &GetGcStateRequest) -> Answer<GetGcStateResponse> {
    match cx.pd.gc_keyspace(keyspace_id(request.keyspace_scope.as_ref()), false) {
        Err(error) => Ok(GetGcStateResponse { header: cx.gc_failed(&error), ..GetGcStateResponse::default() }),
        Ok(keyspace_id) => Ok(GetGcStateResponse {
            header: cx.header(),
            gc_state: Some(cx.gc_state(keyspace_id, !request.exclude_gc_barriers)),
            global_gc_barriers: request
                .include_global_gc_barriers
                .then(|| GlobalGcBarriersInfo { barriers: cx.global_infos() }),
        }),
    }
}

pub(super) fn get_all_gc_states(
    cx: &mut Asked<'_>,
    request: &GetAllKeyspacesGcStatesRequest,
) -> Answer<GetAllKeyspacesGcStatesResponse> {
    let keyspaces: Vec<u32> = cx.pd.collecting_keyspaces().collect();
    let gc_states = keyspaces.into_iter().map(|id| cx.gc_state(id, !request.exclude_gc_barriers)).collect();
    let global_gc_barriers = if request.exclude_global_gc_barriers { Vec::new() } else { cx.global_infos() };
    Ok(GetAllKeyspacesGcStatesResponse { header: cx.header(), gc_states, global_gc_barriers })
}

// ---- Safe points ----

pub(super) fn advance_gc_safe_point(
    cx: &mut Asked<'_>,
    request: &AdvanceGcSafePointRequest,
) -> Answer<AdvanceGcSafePointResponse> {
    let keyspace = cx.pd.gc_keyspace(keyspace_id(request.keyspace_scope.as_ref()), true);
    let target = request.target;
    match keyspace.and_then(|keyspace| cx.pd.advance_gc_safe_point(keyspace, target)) {
        Ok(old_gc_safe_point) => {
            Ok(AdvanceGcSafePointResponse { header: cx.header(), old_gc_safe_point, new_gc_safe_point: target })
        }
        Err(error) => {
            Ok(AdvanceGcSafePointResponse { header: cx.gc_failed(&error), ..AdvanceGcSafePointResponse::default() })
        }
    }
}

pub(super) fn advance_txn_safe_point(
    cx: &mut Asked<'_>,
    request: &AdvanceTxnSafePointRequest,
) -> Answer<AdvanceTxnSafePointResponse> {
    let keyspace = cx.pd.gc_keyspace(keyspace_id(request.keyspace_scope.as_ref()), true);
    match keyspace.and_then(|keyspace| cx.pd.advance_txn_safe_point(cx.now, keyspace, request.target)) {
        Ok(advanced) => Ok(AdvanceTxnSafePointResponse {
            header: cx.header(),
            old_txn_safe_point: advanced.old,
            new_txn_safe_point: advanced.new,
            blocker_description: advanced.blocker.map(|(_, description)| description).unwrap_or_default(),
        }),
        Err(error) => {
            Ok(AdvanceTxnSafePointResponse { header: cx.gc_failed(&error), ..AdvanceTxnSafePointResponse::default() })
        }
    }
}

// ---- Barriers ----

pub(super) fn set_gc_barrier(cx: &mut Asked<'_>, request: &SetGcBarrierRequest) -> Answer<SetGcBarrierResponse> {
    let id = &request.barrier_id;
    let keyspace = cx.pd.gc_keyspace(keyspace_id(request.keyspace_scope.as_ref()), false);
    let (ts, ttl) = (request.barrier_ts, request.ttl_seconds);
    match keyspace.and_then(|keyspace| cx.pd.set_barrier(cx.now, keyspace, id, ts, ttl)) {
        Ok(barrier) => {
            Ok(SetGcBarrierResponse { header: cx.header(), new_barrier_info: Some(info((id, &barrier), cx.now)) })
        }
        Err(error) => Ok(SetGcBarrierResponse { header: cx.gc_failed(&error), new_barrier_info: None }),
    }
}

pub(super) fn delete_gc_barrier(
    cx: &mut Asked<'_>,
    request: &DeleteGcBarrierRequest,
) -> Answer<DeleteGcBarrierResponse> {
    let id = &request.barrier_id;
    let keyspace = cx.pd.gc_keyspace(keyspace_id(request.keyspace_scope.as_ref()), false);
    match keyspace.and_then(|keyspace| cx.pd.delete_barrier(keyspace, id)) {
        Ok(barrier) => {
            let deleted_barrier_info = barrier.map(|barrier| info((id, &barrier), cx.now));
            Ok(DeleteGcBarrierResponse { header: cx.header(), deleted_barrier_info })
        }
        Err(error) => Ok(DeleteGcBarrierResponse { header: cx.gc_failed(&error), deleted_barrier_info: None }),
    }
}

pub(super) fn set_global_gc_barrier(
    cx: &mut Asked<'_>,
    request: &SetGlobalGcBarrierRequest,
) -> Answer<SetGlobalGcBarrierResponse> {
    let id = &request.barrier_id;
    match cx.pd.set_global_barrier(cx.now, id, request.barrier_ts, request.ttl_seconds) {
        Ok(barrier) => {
            let new_barrier_info = Some(global_info((id, &barrier), cx.now));
            Ok(SetGlobalGcBarrierResponse { header: cx.header(), new_barrier_info })
        }
        Err(error) => Ok(SetGlobalGcBarrierResponse { header: cx.gc_failed(&error), new_barrier_info: None }),
    }
}

pub(super) fn delete_global_gc_barrier(
    cx: &mut Asked<'_>,
    request: &DeleteGlobalGcBarrierRequest,
) -> Answer<DeleteGlobalGcBarrierResponse> {
    let id = &request.barrier_id;
    match cx.pd.delete_global_barrier(id) {
        Ok(barrier) => {
            let deleted_barrier_info = barrier.map(|barrier| global_info((id, &barrier), cx.now));
            Ok(DeleteGlobalGcBarrierResponse { header: cx.header(), deleted_barrier_info })
        }
        Err(error) => Ok(DeleteGlobalGcBarrierResponse { header: cx.gc_failed(&error), deleted_barrier_info: None }),
    }
}

// ---- Earlier calls ----

fn refused(error: &GcError) -> Status {
    Status::new(Code::Unknown, error.to_string())
}

pub(super) fn get_gc_safe_point(cx: &mut Asked<'_>, _: &GetGcSafePointRequest) -> Answer<GetGcSafePointResponse> {
    Ok(GetGcSafePointResponse { header: cx.header(), safe_point: cx.pd.gc_safe_point(NULL_KEYSPACE) })
}

pub(super) fn get_gc_safe_point_v2(
    cx: &mut Asked<'_>,
    request: &GetGcSafePointV2Request,
) -> Answer<GetGcSafePointV2Response> {
    let asked = match request.keyspace {
        Some(get_gc_safe_point_v2_request::Keyspace::KeyspaceId(id)) => id,
        _ => 0,
    };
    let keyspace = cx.pd.gc_keyspace(asked, true).map_err(|error| refused(&error))?;
    Ok(GetGcSafePointV2Response { header: cx.header(), safe_point: cx.pd.gc_safe_point(keyspace) })
}

pub(super) fn get_all_gc_safe_points(
    cx: &mut Asked<'_>,
    _: &GetAllGcSafePointV2Request,
) -> Answer<GetAllGcSafePointV2Response> {
    let safe_point = |id| GcSafePointV2 {
        keyspace: Some(gc_safe_point_v2::Keyspace::KeyspaceId(id)),
        gc_safe_point: cx.pd.gc_safe_point(id),
    };
    let own = cx.pd.collecting_keyspaces().filter(|id| *id != NULL_KEYSPACE);
    let gc_safe_points = own.map(safe_point).collect();
    Ok(GetAllGcSafePointV2Response { header: cx.header(), gc_safe_points, revision: 0 })
}

/// A smaller value changes nothing and brings the current one: that is how it was read once.
fn update_gc_safe_point_of(cx: &mut Asked<'_>, asked: u32, target: u64) -> Answer<u64> {
    let keyspace = cx.pd.gc_keyspace(asked, true).map_err(|error| refused(&error))?;
    match cx.pd.advance_gc_safe_point(keyspace, target) {
        Ok(_) => Ok(target),
        Err(GcError::DecreasingGcSafePoint { current, .. }) => Ok(current),
        Err(error) => Err(refused(&error)),
    }
}

pub(super) fn update_gc_safe_point(
    cx: &mut Asked<'_>,
    request: &UpdateGcSafePointRequest,
) -> Answer<UpdateGcSafePointResponse> {
    let new_safe_point = update_gc_safe_point_of(cx, NULL_KEYSPACE, request.safe_point)?;
    Ok(UpdateGcSafePointResponse { header: cx.header(), new_safe_point })
}

pub(super) fn update_gc_safe_point_v2(
    cx: &mut Asked<'_>,
    request: &UpdateGcSafePointV2Request,
) -> Answer<UpdateGcSafePointV2Response> {
    let asked = match request.keyspace {
        Some(update_gc_safe_point_v2_request::Keyspace::KeyspaceId(id)) => id,
        _ => 0,
    };
    let new_safe_point = update_gc_safe_point_of(cx, asked, request.safe_point)?;
    Ok(UpdateGcSafePointV2Response { header: cx.header(), new_safe_point })
}

/// The lowest service safe point, with a TTL that never ends as seen from now.
fn update_service(cx: &mut Asked<'_>, asked: u32, service: &[u8], ts: u64, ttl: i64) -> Answer<(Vec<u8>, i64, u64)> {
    let keyspace = cx.pd.gc_keyspace(asked, false).map_err(|error| refused(&error))?;
    let service = String::from_utf8_lossy(service);
    let updated = cx.pd.update_service_safe_point(cx.now, keyspace, &service, ts, ttl);
    let (blocker, safe_point) = updated.map_err(|error| refused(&error))?;
    let now = i64::try_from(cx.pd.wall_clock_ms(cx.now) / 1_000).unwrap_or(i64::MAX);
    Ok((blocker.into_bytes(), i64::MAX - now, safe_point))
}

pub(super) fn update_service_gc_safe_point(
    cx: &mut Asked<'_>,
    request: &UpdateServiceGcSafePointRequest,
) -> Answer<UpdateServiceGcSafePointResponse> {
    let (service_id, ttl, min_safe_point) =
        update_service(cx, NULL_KEYSPACE, &request.service_id, request.safe_point, request.ttl)?;
    Ok(UpdateServiceGcSafePointResponse { header: cx.header(), service_id: service_id.into(), ttl, min_safe_point })
}

pub(super) fn update_service_safe_point_v2(
    cx: &mut Asked<'_>,
    request: &UpdateServiceSafePointV2Request,
) -> Answer<UpdateServiceSafePointV2Response> {
    let asked = match request.keyspace {
        Some(update_service_safe_point_v2_request::Keyspace::KeyspaceId(id)) => id,
        _ => 0,
    };
    let (service_id, ttl, min_safe_point) =
        update_service(cx, asked, &request.service_id, request.safe_point, request.ttl)?;
    Ok(UpdateServiceSafePointV2Response { header: cx.header(), service_id: service_id.into(), ttl, min_safe_point })
}
