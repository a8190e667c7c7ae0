//! Questions about garbage collection as messages, and messages as answers.

use std::time::Duration;

use bytes::Bytes;
use prost::{DecodeError, Message};
use tikv_proto::pdpb::{self, RequestHeader, ResponseHeader};

use super::message::{bytes, path};
use crate::request::pd::{AdvancedSafePoint, GcBarrier, GcRequest, GcState, PdResponse};
use crate::timestamp::Timestamp;

/// The keyspace of all that belongs to none, which collect together.
const NULL_KEYSPACE: u32 = u32::MAX;

/// A TTL that never ends.
const FOREVER: i64 = i64::MAX;

/// The RPC that carries a question.
pub(super) fn path_of(request: &GcRequest) -> &'static str {
    match request {
        GcRequest::State => path::GET_GC_STATE,
        GcRequest::AdvanceTxnSafePoint { .. } => path::ADVANCE_TXN_SAFE_POINT,
        GcRequest::AdvanceGcSafePoint { .. } => path::ADVANCE_GC_SAFE_POINT,
        GcRequest::SetBarrier(_) => path::SET_GC_BARRIER,
        GcRequest::DeleteBarrier { .. } => path::DELETE_GC_BARRIER,
    }
}

/// The body of a question.
pub(super) fn encode(request: &GcRequest, header: Option<RequestHeader>) -> Bytes {
    let keyspace_scope =
        Some(pdpb::KeyspaceScope { keyspace: Some(pdpb::keyspace_scope::Keyspace::KeyspaceId(NULL_KEYSPACE)) });
    match request {
        GcRequest::State => {
            bytes(&pdpb::GetGcStateRequest { header, keyspace_scope, ..pdpb::GetGcStateRequest::default() })
        }
        GcRequest::AdvanceTxnSafePoint { target } => {
            bytes(&pdpb::AdvanceTxnSafePointRequest { header, keyspace_scope, target: target.version() })
        }
        GcRequest::AdvanceGcSafePoint { target } => {
            bytes(&pdpb::AdvanceGcSafePointRequest { header, keyspace_scope, target: target.version() })
        }
        GcRequest::SetBarrier(barrier) => bytes(&pdpb::SetGcBarrierRequest {
            header,
            keyspace_scope,
            barrier_id: barrier.id.clone(),
            barrier_ts: barrier.ts.version(),
            ttl_seconds: ttl_seconds(barrier.ttl),
        }),
        GcRequest::DeleteBarrier { id } => {
            bytes(&pdpb::DeleteGcBarrierRequest { header, keyspace_scope, barrier_id: id.clone() })
        }
    }
}

/// The header of an answer, and what it says; `None` if that is nothing.
pub(super) fn decode(
    request: &GcRequest,
    body: Bytes,
) -> Result<(Option<ResponseHeader>, Option<PdResponse>), DecodeError> {
    Ok(match request {
        GcRequest::State => {
            let response = pdpb::GetGcStateResponse::decode(body)?;
            (response.header, response.gc_state.map(|state| PdResponse::GcState(Box::new(state_of(state)))))
        }
        GcRequest::AdvanceTxnSafePoint { .. } => {
            let response = pdpb::AdvanceTxnSafePointResponse::decode(body)?;
            let points = (response.old_txn_safe_point, response.new_txn_safe_point);
            (response.header, Some(safe_point(points, response.blocker_description)))
        }
        GcRequest::AdvanceGcSafePoint { .. } => {
            let response = pdpb::AdvanceGcSafePointResponse::decode(body)?;
            let points = (response.old_gc_safe_point, response.new_gc_safe_point);
            (response.header, Some(safe_point(points, String::new())))
        }
        GcRequest::SetBarrier(_) => {
            let response = pdpb::SetGcBarrierResponse::decode(body)?;
            let barrier = response.new_barrier_info.map(|info| Box::new(barrier_of(info)));
            (response.header, barrier.map(|barrier| PdResponse::GcBarrier(Some(barrier))))
        }
        GcRequest::DeleteBarrier { .. } => {
            let response = pdpb::DeleteGcBarrierResponse::decode(body)?;
            let barrier = response.deleted_barrier_info.map(|info| Box::new(barrier_of(info)));
            (response.header, Some(PdResponse::GcBarrier(barrier)))
        }
    })
}

fn state_of(state: pdpb::GcState) -> GcState {
    GcState {
        txn_safe_point: Timestamp::from_version(state.txn_safe_point),
        gc_safe_point: Timestamp::from_version(state.gc_safe_point),
        barriers: state.gc_barriers.into_iter().map(barrier_of).collect(),
    }
}

fn barrier_of(info: pdpb::GcBarrierInfo) -> GcBarrier {
    let ttl = (info.ttl_seconds != FOREVER).then(|| Duration::from_secs(info.ttl_seconds.try_into().unwrap_or(0)));
    GcBarrier { id: info.barrier_id, ts: Timestamp::from_version(info.barrier_ts), ttl }
}

fn safe_point((old, new): (u64, u64), blocker: String) -> PdResponse {
    let [old, new] = [old, new].map(Timestamp::from_version);
    PdResponse::SafePoint(Box::new(AdvancedSafePoint { old, new, blocker }))
}

/// Whole seconds, rounded up: nobody loses time that was asked for.
fn ttl_seconds(ttl: Option<Duration>) -> i64 {
    let Some(ttl) = ttl else { return FOREVER };
    let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
    i64::try_from(seconds).unwrap_or(FOREVER)
}
