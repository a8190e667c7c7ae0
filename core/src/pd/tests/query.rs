use std::time::Duration;

use tikv_proto::{metapb, pdpb};

use super::script::{PdScript, by_key, config, error, error_header, header, members_reply, region, region_reply};
use crate::error::{Execution, FaultKind, PdError};
use crate::pd::{CallId, PdInput, PdTimer, path};
use crate::request::pd::{PdRequest, PdResponse};

#[test]
fn a_region_is_told_with_its_leader_its_peers_and_its_buckets() {
    let mut script = PdScript::connected();
    script.ask(1, by_key("k"));
    let request = script.expect_call::<pdpb::GetRegionRequest>("pd-1", path::GET_REGION);
    assert!(request.need_buckets);
    let peer = |id| metapb::Peer { id, store_id: id, ..Default::default() };
    let buckets = metapb::Buckets { region_id: 5, version: 3, ..Default::default() };
    script.reply(pdpb::GetRegionResponse {
        down_peers: vec![pdpb::PeerStats { peer: Some(peer(2)), down_seconds: 9 }],
        pending_peers: vec![peer(3)],
        buckets: Some(buckets.clone()),
        ..region_reply(region(5, "a", "z"))
    });
    let Ok(PdResponse::Region(Some(told))) = script.expect_answer(1) else { panic!("no region") };
    assert_eq!(told.region, region(5, "a", "z"));
    assert_eq!(told.leader, region(5, "a", "z").peers.pop());
    assert_eq!((&told.down_peers[..], &told.pending_peers[..]), (&[peer(2)][..], &[peer(3)][..]));
    assert_eq!(told.buckets, Some(buckets));
}

#[test]
fn no_region_is_an_answer() {
    let mut script = PdScript::connected();
    script.ask(1, by_key("k")).expect_region("pd-1", "k");
    script.reply(pdpb::GetRegionResponse { header: header(), ..Default::default() });
    assert_eq!(script.expect_answer(1), Ok(PdResponse::Region(None)));
    script.ask(2, PdRequest::RegionById { id: 5, leader_only: true });
    let request = script.expect_call::<pdpb::GetRegionByIdRequest>("pd-1", path::GET_REGION_BY_ID);
    assert_eq!(request.region_id, 5);
    let header = error_header(pdpb::ErrorType::RegionNotFound, "region 5 not found");
    script.reply(pdpb::GetRegionResponse { header, ..Default::default() });
    assert_eq!(script.expect_answer(2), Ok(PdResponse::Region(None)));
}

#[test]
fn the_empty_peer_that_pd_fills_in_is_no_leader() {
    let mut script = PdScript::connected();
    script.ask(1, by_key("k")).expect_region("pd-1", "k");
    let reply = region_reply(region(5, "", ""));
    script.reply(pdpb::GetRegionResponse { leader: Some(metapb::Peer::default()), ..reply });
    let Ok(PdResponse::Region(Some(told))) = script.expect_answer(1) else { panic!("no region") };
    assert_eq!(told.leader, None);
}

#[test]
fn another_region_than_asked_for_is_refused() {
    let mut script = PdScript::connected();
    script.ask(1, by_key("k")).expect_region("pd-1", "k");
    script.reply(region_reply(region(5, "a", "k")));
    assert!(matches!(error(script.expect_answer(1)), PdError::Malformed { method: "GetRegion", .. }));
    script.ask(2, PdRequest::RegionById { id: 6, leader_only: true });
    script.expect_call::<pdpb::GetRegionByIdRequest>("pd-1", path::GET_REGION_BY_ID);
    script.reply(region_reply(region(5, "", "")));
    assert!(matches!(error(script.expect_answer(2)), PdError::Malformed { method: "GetRegionByID", .. }));
}

#[test]
fn the_region_before_a_key_and_the_regions_of_a_range_are_asked_for() {
    let mut script = PdScript::connected();
    script.ask(1, PdRequest::PrevRegion { key: "k".into(), leader_only: true });
    let request = script.expect_call::<pdpb::GetRegionRequest>("pd-1", path::GET_PREV_REGION);
    assert_eq!(request.region_key, "k");
    script.reply(region_reply(region(4, "a", "k"))).expect_region_answer(1, 4);

    let range = PdRequest::ScanRegions { start: "a".into(), end: "z".into(), limit: 2, leader_only: true };
    script.ask(2, range);
    let request = script.expect_call::<pdpb::BatchScanRegionsRequest>("pd-1", path::BATCH_SCAN_REGIONS);
    assert_eq!(request.ranges, [pdpb::KeyRange { start_key: "a".into(), end_key: "z".into() }]);
    assert_eq!((request.limit, request.contain_all_key_range), (2, false));
    let found = |region| pdpb::Region { region: Some(region), leader: Some(Default::default()), ..Default::default() };
    let regions = vec![found(region(4, "a", "k")), found(region(5, "k", ""))];
    script.reply(pdpb::BatchScanRegionsResponse { header: header(), regions });
    let Ok(PdResponse::Regions(told)) = script.expect_answer(2) else { panic!("no regions") };
    assert_eq!(told.iter().map(|told| told.region.id).collect::<Vec<_>>(), [4, 5]);
    assert!(told.iter().all(|told| told.leader.is_none()));
}

#[test]
fn a_tombstone_and_an_unknown_store_are_no_store() {
    let mut script = PdScript::connected();
    let tombstone = metapb::Store { state: metapb::StoreState::Tombstone.into(), ..Default::default() };
    let removed = metapb::Store { node_state: metapb::NodeState::Removed.into(), ..Default::default() };
    let unknown = error_header(pdpb::ErrorType::Unknown, "invalid store ID 3, not found");
    let dead = error_header(pdpb::ErrorType::StoreTombstone, "store is tombstone");
    for reply in [
        pdpb::GetStoreResponse { header: header(), store: Some(tombstone), ..Default::default() },
        pdpb::GetStoreResponse { header: header(), store: Some(removed), ..Default::default() },
        pdpb::GetStoreResponse { header: unknown, ..Default::default() },
        pdpb::GetStoreResponse { header: dead, ..Default::default() },
    ] {
        script.ask(1, PdRequest::Store { id: 3 });
        assert_eq!(script.expect_call::<pdpb::GetStoreRequest>("pd-1", path::GET_STORE).store_id, 3);
        assert_eq!(script.reply(reply).expect_answer(1), Ok(PdResponse::Store(None)));
    }
    let store = metapb::Store { id: 3, address: "tikv-3:20160".into(), ..Default::default() };
    script.ask(1, PdRequest::Store { id: 3 }).expect_call::<pdpb::GetStoreRequest>("pd-1", path::GET_STORE);
    script.reply(pdpb::GetStoreResponse { header: header(), store: Some(store.clone()), ..Default::default() });
    assert_eq!(script.expect_answer(1), Ok(PdResponse::Store(Some(store.into()))));
}

#[test]
fn all_stores_are_told_without_tombstones() {
    let mut script = PdScript::connected();
    script.ask(1, PdRequest::AllStores);
    let request = script.expect_call::<pdpb::GetAllStoresRequest>("pd-1", path::GET_ALL_STORES);
    assert!(request.exclude_tombstone_stores);
    let store = |id, state: metapb::StoreState| metapb::Store { id, state: state.into(), ..Default::default() };
    let stores = vec![store(1, metapb::StoreState::Up), store(2, metapb::StoreState::Tombstone)];
    script.reply(pdpb::GetAllStoresResponse { header: header(), stores });
    let Ok(PdResponse::Stores(stores)) = script.expect_answer(1) else { panic!("no stores") };
    assert_eq!(stores.iter().map(|store| store.id).collect::<Vec<_>>(), [1]);
}

#[test]
fn equal_questions_share_one_rpc() {
    let mut script = PdScript::connected();
    for waiter in 1..=100 {
        script.ask(waiter, PdRequest::RegionByKey { key: "k".into(), leader_only: waiter % 2 == 0 });
    }
    script.expect_region("pd-1", "k");
    script.expect_nothing();
    script.reply(region_reply(region(5, "", "")));
    for waiter in 1..=100 {
        script.expect_region_answer(waiter, 5);
    }
    script.expect_nothing();
}

#[test]
fn who_asks_after_the_rpc_was_sent_is_answered_by_the_next_one() {
    let mut script = PdScript::connected();
    script.ask(1, by_key("k")).expect_region("pd-1", "k");
    script.ask(2, by_key("k")).ask(3, by_key("k")).expect_nothing();
    script.reply(region_reply(region(5, "", ""))).expect_region_answer(1, 5).expect_no_answer();
    script.expect_region("pd-1", "k");
    script.reply(region_reply(region(6, "k", "")));
    script.expect_region_answer(2, 6).expect_region_answer(3, 6).expect_nothing();
}

#[test]
fn a_region_answers_everybody_who_had_asked_for_one_of_its_keys() {
    let mut script = PdScript::connected();
    script.ask(1, by_key("b")).ask(2, by_key("c")).ask(3, by_key("m"));
    let (b, c, m) =
        (script.expect_region("pd-1", "b"), script.expect_region("pd-1", "c"), script.expect_region("pd-1", "m"));
    script.ask(4, by_key("d")).ask(5, by_key("c"));
    let d = script.expect_region("pd-1", "d");
    // Waiters 4 and 5 asked after this was sent: the region may have been split since.
    script.reply_to(b, region_reply(region(5, "a", "m"))).expect_region_answer(1, 5).expect_region_answer(2, 5);
    script.expect_nothing();
    script.reply_to(c, region_reply(region(5, "a", "m"))).expect_no_answer();
    let again = script.expect_region("pd-1", "c");
    script.reply_to(again, region_reply(region(6, "c", "m"))).expect_region_answer(5, 6).expect_region_answer(4, 6);
    script.reply_to(d, region_reply(region(6, "c", "m"))).expect_nothing();
    script.reply_to(m, region_reply(region(7, "m", ""))).expect_region_answer(3, 7).expect_nothing();
}

#[test]
fn many_keys_of_one_region_cost_a_few_rpcs() {
    let mut script = PdScript::connected();
    let key = |n: u32| PdRequest::RegionByKey { key: n.to_string().into(), leader_only: true };
    for waiter in 1..=10_000 {
        script.ask(waiter, key(waiter));
    }
    let mut sent = Vec::new();
    for _ in 0..64 {
        script.expect_call::<pdpb::GetRegionRequest>("pd-1", path::GET_REGION);
        sent.push(script.last_call());
    }
    script.expect_nothing();
    for call in sent {
        script.reply_to(call, region_reply(region(5, "", "")));
    }
    let mut answered = 0;
    while let Some((_, answer)) = script.client.poll_completion() {
        assert!(matches!(answer, Ok(PdResponse::Region(Some(_)))));
        answered += 1;
    }
    assert_eq!(answered, 10_000);
    script.expect_nothing();
}

#[test]
fn no_more_rpcs_are_in_flight_than_the_limit_allows() {
    let mut script = PdScript::connected();
    for id in 1..=66 {
        script.ask(id, PdRequest::Store { id: u64::from(id) });
    }
    let mut sent = Vec::new();
    for id in 1..=64 {
        assert_eq!(script.expect_call::<pdpb::GetStoreRequest>("pd-1", path::GET_STORE).store_id, id);
        sent.push(script.last_call());
    }
    script.expect_nothing();
    script.cancel(65);
    let store = Some(metapb::Store { id: 9, ..Default::default() });
    script.reply_to(sent[8], pdpb::GetStoreResponse { header: header(), store, ..Default::default() });
    script.expect_answer(9).expect("a store");
    assert_eq!(script.expect_call::<pdpb::GetStoreRequest>("pd-1", path::GET_STORE).store_id, 66);
}

#[test]
fn a_question_in_flight_to_a_lost_leader_is_asked_at_the_new_one() {
    let mut script = PdScript::connected();
    script.ask(1, by_key("k")).expect_region("pd-1", "k");
    script.fault(FaultKind::Status(14)).expect_no_answer();
    assert_eq!(script.client.leader(), None);
    script.expect_members("pd-2");
    script.reply(members_reply(3, Some("pd-2"))).expect_region("pd-2", "k");
    script.reply(region_reply(region(5, "", ""))).expect_region_answer(1, 5).expect_nothing();
}

#[test]
fn a_member_that_says_in_its_answer_that_it_does_not_lead_is_believed() {
    let mut script = PdScript::connected();
    script.ask(1, by_key("k")).expect_region("pd-1", "k");
    let header = error_header(pdpb::ErrorType::Unknown, "not leader");
    script.reply(pdpb::GetRegionResponse { header, ..Default::default() });
    script.expect_search("pd-2");
}

#[test]
fn a_silent_leader_is_given_up_and_the_question_asked_again() {
    let mut script = PdScript::connected();
    let silent = script.ask(1, by_key("k")).expect_region("pd-1", "k");
    let sent = script.now();
    script.fire(PdTimer::CallSilent).expect_cancel(silent);
    assert_eq!(script.now().saturating_since(sent), config().pd_timeout);
    script.expect_search("pd-2");
    script.reply(members_reply(3, Some("pd-3"))).expect_region("pd-3", "k");
    script.reply_to(silent, region_reply(region(4, "", ""))).expect_no_answer();
    script.reply(region_reply(region(5, "", ""))).expect_region_answer(1, 5).expect_nothing();
}

#[test]
fn a_refusal_is_final_for_who_had_asked_and_members_are_looked_at_again() {
    let mut script = PdScript::connected();
    script.advance(Duration::from_secs(5)).ask(1, by_key("k")).expect_region("pd-1", "k");
    script.ask(2, by_key("k"));
    let header = error_header(pdpb::ErrorType::NotBootstrapped, "cluster is not bootstrapped");
    script.reply(pdpb::GetRegionResponse { header, ..Default::default() });
    let failed = error(script.expect_answer(1));
    assert!(matches!(failed, PdError::Refused { method: "GetRegion", .. }) && failed.is_retryable());
    script.expect_members("pd-1");
    script.expect_region("pd-1", "k");
    script.reply(region_reply(region(5, "", ""))).expect_region_answer(2, 5);
}

#[test]
fn refusals_one_after_the_other_do_not_make_members_be_asked_all_the_time() {
    let mut script = PdScript::connected();
    for waiter in 1..=10 {
        script.ask(waiter, by_key("k")).expect_region("pd-1", "k");
        script.fault(FaultKind::Status(8));
        assert!(matches!(script.expect_answer(waiter), Err(PdError::Fault(_))));
        script.expect_nothing();
    }
    let (at, timer) = script.client.poll_timeout().expect("a timer");
    assert_eq!((at.saturating_since(script.now()), timer), (Duration::from_secs(1), PdTimer::Refresh));
}

#[test]
fn an_unreadable_answer_is_final() {
    let mut script = PdScript::connected();
    let call = script.ask(1, by_key("k")).expect_region("pd-1", "k");
    script.input(PdInput::Reply { call, result: Ok(b"\xff\xff".as_slice().into()) });
    assert!(matches!(error(script.expect_answer(1)), PdError::Malformed { method: "GetRegion", .. }));
}

#[test]
fn who_waits_beyond_its_deadline_is_told_whether_pd_was_asked() {
    let mut script = PdScript::connected();
    script.ask_within(1, by_key("k"), Duration::from_millis(100)).expect_region("pd-1", "k");
    script.ask_within(2, by_key("k"), Duration::from_millis(200));
    for (waiter, execution) in [(1, Execution::MaybeExecuted), (2, Execution::NotSent)] {
        let PdError::Fault(fault) = error(script.fire(PdTimer::Deadline).expect_answer(waiter)) else { panic!() };
        assert_eq!((fault.kind, fault.execution, &*fault.address), (FaultKind::Timeout, execution, "pd-1:2379"));
    }
    // The leader's silence is noticed all the same.
    script.expect_nothing();
    script.fire(PdTimer::CallSilent);
    assert_eq!(script.client.leader(), None);
}

#[test]
fn a_cancelled_question_is_not_sent() {
    let mut script = PdScript::connected();
    script.ask(1, by_key("k")).ask(2, by_key("m"));
    script.cancel(1);
    let m = script.expect_region("pd-1", "m");
    script.expect_nothing();
    script.cancel(2);
    script.reply_to(m, region_reply(region(5, "", ""))).expect_nothing();
    assert_eq!(script.client.waiting_len(), 0);
}

#[test]
fn replies_to_unknown_calls_are_ignored() {
    let mut script = PdScript::connected();
    script.ask(1, by_key("k")).expect_region("pd-1", "k");
    let before = script.client.clone();
    script.fault_to(CallId(999), FaultKind::Disconnected);
    assert_eq!(script.client, before);
}
