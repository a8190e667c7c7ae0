//! Questions about garbage collection.

use std::time::Duration;

use tikv_proto::pdpb;

use super::script::{PdScript, error_header, header};
use crate::error::PdError;
use crate::pd::path;
use crate::request::pd::{AdvancedSafePoint, GcBarrier, GcRequest, GcState, PdRequest, PdResponse};
use crate::timestamp::Timestamp;

fn ts(version: u64) -> Timestamp {
    Timestamp::from_version(version)
}

/// All that belongs to no keyspace.
fn no_keyspace() -> Option<pdpb::KeyspaceScope> {
    Some(pdpb::KeyspaceScope { keyspace: Some(pdpb::keyspace_scope::Keyspace::KeyspaceId(u32::MAX)) })
}

fn info(ttl_seconds: i64) -> pdpb::GcBarrierInfo {
    pdpb::GcBarrierInfo { barrier_id: "backup".to_owned(), barrier_ts: 7, ttl_seconds }
}

fn barrier(ttl: Option<Duration>) -> GcBarrier {
    GcBarrier { id: "backup".to_owned(), ts: ts(7), ttl }
}

#[test]
fn the_state_tells_safe_points_and_barriers() {
    let mut script = PdScript::connected();
    script.ask(1, PdRequest::Gc(GcRequest::State));
    let request = script.expect_call::<pdpb::GetGcStateRequest>("pd-1", path::GET_GC_STATE);
    assert_eq!((request.keyspace_scope, request.exclude_gc_barriers), (no_keyspace(), false));
    let gc_state = Some(pdpb::GcState {
        txn_safe_point: 9,
        gc_safe_point: 8,
        gc_barriers: vec![info(30), info(i64::MAX), info(-1)],
        ..pdpb::GcState::default()
    });
    script.reply(pdpb::GetGcStateResponse { header: header(), gc_state, ..Default::default() });
    let barriers = [Some(Duration::from_secs(30)), None, Some(Duration::ZERO)].map(barrier).to_vec();
    let state = GcState { txn_safe_point: ts(9), gc_safe_point: ts(8), barriers };
    assert_eq!(script.expect_answer(1), Ok(PdResponse::GcState(Box::new(state))));
}

#[test]
fn safe_points_advance_as_far_as_pd_says() {
    let mut script = PdScript::connected();
    script.ask(1, PdRequest::Gc(GcRequest::AdvanceTxnSafePoint { target: ts(9) }));
    let request = script.expect_call::<pdpb::AdvanceTxnSafePointRequest>("pd-1", path::ADVANCE_TXN_SAFE_POINT);
    assert_eq!((request.keyspace_scope, request.target), (no_keyspace(), 9));
    script.reply(pdpb::AdvanceTxnSafePointResponse {
        header: header(),
        old_txn_safe_point: 5,
        new_txn_safe_point: 7,
        blocker_description: "backup".to_owned(),
    });
    let advanced = AdvancedSafePoint { old: ts(5), new: ts(7), blocker: "backup".to_owned() };
    assert_eq!(script.expect_answer(1), Ok(PdResponse::SafePoint(Box::new(advanced))));

    script.ask(2, PdRequest::Gc(GcRequest::AdvanceGcSafePoint { target: ts(7) }));
    let request = script.expect_call::<pdpb::AdvanceGcSafePointRequest>("pd-1", path::ADVANCE_GC_SAFE_POINT);
    assert_eq!((request.keyspace_scope, request.target), (no_keyspace(), 7));
    let (old_gc_safe_point, new_gc_safe_point) = (4, 7);
    script.reply(pdpb::AdvanceGcSafePointResponse { header: header(), old_gc_safe_point, new_gc_safe_point });
    let advanced = AdvancedSafePoint { old: ts(4), new: ts(7), blocker: String::new() };
    assert_eq!(script.expect_answer(2), Ok(PdResponse::SafePoint(Box::new(advanced))));
}

#[test]
fn the_time_of_a_barrier_is_rounded_up_to_seconds() {
    let mut script = PdScript::connected();
    let times = [
        (Some(Duration::from_secs(30)), 30),
        (Some(Duration::from_millis(1)), 1),
        (Some(Duration::from_millis(30_001)), 31),
        (Some(Duration::MAX), i64::MAX),
        (None, i64::MAX),
    ];
    for (waiter, (ttl, expected)) in (1..).zip(times) {
        script.ask(waiter, PdRequest::Gc(GcRequest::SetBarrier(barrier(ttl))));
        let request = script.expect_call::<pdpb::SetGcBarrierRequest>("pd-1", path::SET_GC_BARRIER);
        let asked = (request.barrier_id.as_str(), request.barrier_ts, request.ttl_seconds);
        assert_eq!((request.keyspace_scope, asked), (no_keyspace(), ("backup", 7, expected)));
        script.reply(pdpb::SetGcBarrierResponse { header: header(), new_barrier_info: Some(info(30)) });
        let answer = barrier(Some(Duration::from_secs(30)));
        assert_eq!(script.expect_answer(waiter), Ok(PdResponse::GcBarrier(Some(Box::new(answer)))));
    }
}

#[test]
fn a_barrier_that_is_deleted_is_told_if_there_was_one() {
    let mut script = PdScript::connected();
    for (waiter, there_was) in [(1, Some(info(i64::MAX))), (2, None)] {
        script.ask(waiter, PdRequest::Gc(GcRequest::DeleteBarrier { id: "backup".to_owned() }));
        let request = script.expect_call::<pdpb::DeleteGcBarrierRequest>("pd-1", path::DELETE_GC_BARRIER);
        assert_eq!((request.keyspace_scope, request.barrier_id.as_str()), (no_keyspace(), "backup"));
        let told = there_was.is_some().then(|| Box::new(barrier(None)));
        script.reply(pdpb::DeleteGcBarrierResponse { header: header(), deleted_barrier_info: there_was });
        assert_eq!(script.expect_answer(waiter), Ok(PdResponse::GcBarrier(told)));
    }
}

#[test]
fn a_refusal_is_told_in_pds_words_and_an_empty_answer_is_nonsense() {
    let mut script = PdScript::connected();
    script.ask(1, PdRequest::Gc(GcRequest::AdvanceGcSafePoint { target: ts(3) }));
    script.expect_call::<pdpb::AdvanceGcSafePointRequest>("pd-1", path::ADVANCE_GC_SAFE_POINT);
    let refusal = error_header(pdpb::ErrorType::Unknown, "a smaller value");
    script.reply(pdpb::AdvanceGcSafePointResponse { header: refusal, ..Default::default() });
    let Err(PdError::Refused { method: "AdvanceGCSafePoint", message, .. }) = script.expect_answer(1) else { panic!() };
    assert!(message.contains("a smaller value"), "{message}");

    script.ask(2, PdRequest::Gc(GcRequest::State)).expect_call::<pdpb::GetGcStateRequest>("pd-1", path::GET_GC_STATE);
    script.reply(pdpb::GetGcStateResponse { header: header(), ..Default::default() });
    assert!(matches!(script.expect_answer(2), Err(PdError::Malformed { method: "GetGCState", .. })));

    script.ask(3, PdRequest::Gc(GcRequest::SetBarrier(barrier(None))));
    script.expect_call::<pdpb::SetGcBarrierRequest>("pd-1", path::SET_GC_BARRIER);
    script.reply(pdpb::SetGcBarrierResponse { header: header(), new_barrier_info: None });
    assert!(matches!(script.expect_answer(3), Err(PdError::Malformed { method: "SetGCBarrier", .. })));
}
