use tikv_core::timestamp::Timestamp;
use tikv_proto::etcdserverpb::{MemberListRequest, MemberListResponse};
use tikv_proto::health::{HealthCheckRequest, HealthCheckResponse};
use tikv_proto::pdpb::{
    AllocIdRequest, AllocIdResponse, ErrorType, GetClusterInfoRequest, GetClusterInfoResponse,
    GetExternalTimestampRequest, GetExternalTimestampResponse, GetMembersRequest, GetMembersResponse, GetRegionRequest,
    GetStoreRequest, ServiceMode, SetExternalTimestampRequest, SetExternalTimestampResponse,
};

use super::*;

fn three_members() -> Cluster {
    Cluster::new(ClusterOptions { pd_members: 3, ..ClusterOptions::default() })
}

#[test]
fn every_member_knows_all_members_and_the_leader_without_being_told_the_cluster() {
    let mut cluster = three_members();
    for member in [1, 2, 3] {
        let asked = PdCall { member, path: "/pdpb.PD/GetMembers", ..PdCall::default() };
        let answer = call(&mut cluster, NOW, &asked, &GetMembersRequest::default()).unwrap();
        let answer = GetMembersResponse::decode(answer).unwrap();
        assert_eq!(answer.header.unwrap().cluster_id, cluster.topology().cluster_id());
        assert_eq!(answer.leader.unwrap().client_urls, ["http://pd-1:2379"]);
        assert_eq!(answer.members.len(), 3);
    }
    let info: GetClusterInfoResponse = ask(&mut cluster, "/pdpb.PD/GetClusterInfo", &GetClusterInfoRequest::default());
    assert_eq!(info.service_modes, [i32::from(ServiceMode::PdSvcMode)]);
    let listed: MemberListResponse =
        ask(&mut cluster, "/etcdserverpb.Cluster/MemberList", &MemberListRequest::default());
    assert_eq!(listed.members.len(), 3);
    let health: HealthCheckResponse = ask(&mut cluster, "/grpc.health.v1.Health/Check", &HealthCheckRequest::default());
    assert_eq!(health.status, 1);
}

#[test]
fn a_member_that_does_not_lead_serves_regions_if_it_may_and_nothing_else() {
    let mut cluster = three_members();
    let region = GetRegionRequest { header: header(&cluster), ..GetRegionRequest::default() };
    let store = GetStoreRequest { header: header(&cluster), store_id: 1 };
    let asked = |path, allow_follower| PdCall { member: 2, path, allow_follower, ..PdCall::default() };

    let refused = call(&mut cluster, NOW, &asked("/pdpb.PD/GetRegion", false), &region).unwrap_err();
    assert_eq!(refused.code, Code::Unavailable);
    assert!(call(&mut cluster, NOW, &asked("/pdpb.PD/GetRegion", true), &region).is_ok());
    let refused = call(&mut cluster, NOW, &asked("/pdpb.PD/GetStore", true), &store).unwrap_err();
    assert_eq!(refused, Status::new(Code::Unavailable, "not leader"));
    let tso = TsoRequest { header: header(&cluster), count: 1, ..TsoRequest::default() };
    let refused = call(&mut cluster, NOW, &asked("/pdpb.PD/Tso", false), &tso).unwrap_err();
    assert!(refused.message.contains("not leader"), "{refused}");
}

#[test]
fn a_member_forwards_to_the_one_that_the_call_names() {
    let mut cluster = three_members();
    let store = GetStoreRequest { header: header(&cluster), store_id: 1 };
    let path = "/pdpb.PD/GetStore";
    let to = |host| PdCall { member: 2, path, forwarded_host: Some(host), ..PdCall::default() };
    assert!(call(&mut cluster, NOW, &to("http://pd-1:2379"), &store).is_ok());
    assert_eq!(call(&mut cluster, NOW, &to("http://pd-3:2379"), &store).unwrap_err().message, "not leader");
    assert_eq!(call(&mut cluster, NOW, &to("http://pd-9:2379"), &store).unwrap_err().code, Code::Unavailable);
}

#[test]
fn another_member_leads_when_the_leader_crashes_and_none_without_a_majority() {
    let mut cluster = three_members();
    let before = take_timestamps(&mut cluster, NOW, 1);
    cluster.pd_mut().stop_member(1);
    assert_eq!(cluster.pd().leader(), Some(2));
    assert!(take_timestamps(&mut cluster, NOW, 1) > before);
    let gone = PdCall { member: 1, path: "/pdpb.PD/GetMembers", ..PdCall::default() };
    assert_eq!(call(&mut cluster, NOW, &gone, &GetMembersRequest::default()).unwrap_err().code, Code::Unavailable);

    cluster.pd_mut().stop_member(3);
    assert_eq!(cluster.pd().leader(), None);
    cluster.pd_mut().start_member(1);
    assert_eq!(cluster.pd().leader(), Some(1));
}

#[test]
fn requests_for_another_cluster_are_refused_in_pds_words() {
    let mut cluster = cluster();
    let store = GetStoreRequest { store_id: 1, ..GetStoreRequest::default() };
    let status = refusal(&mut cluster, "/pdpb.PD/GetStore", &store);
    assert_eq!(status.code, Code::FailedPrecondition);
    assert!(status.message.starts_with("mismatch cluster id, need 7000000000000000001"), "{status}");
    let tso = TsoRequest { count: 1, ..TsoRequest::default() };
    assert_eq!(refusal(&mut cluster, "/pdpb.PD/Tso", &tso).code, Code::FailedPrecondition);
}

#[test]
fn an_unknown_method_is_unimplemented() {
    let mut cluster = cluster();
    assert_eq!(refusal(&mut cluster, "/pdpb.PD/NoSuchMethod", &()).code, Code::Unimplemented);
    assert_eq!(shape("/pdpb.PD/NoSuchMethod"), None);
    assert_eq!(shape("/pdpb.PD/GetStore"), Some(Shape::Unary));
    assert_eq!(shape("/pdpb.PD/Tso"), Some(Shape::Stream));
    assert_eq!(shape("/meta_storagepb.MetaStorage/Watch"), Some(Shape::Watch));
}

#[test]
fn timestamps_follow_the_clock_and_never_repeat_or_go_back() {
    let mut cluster = cluster();
    let base = 1_700_000_000_000_i64;
    assert_eq!(take_timestamps(&mut cluster, NOW, 1), (base + 10_000, 1));
    // The answer is the last one: 2..=101 are given.
    assert_eq!(take_timestamps(&mut cluster, NOW, 100), (base + 10_000, 101));
    assert_eq!(take_timestamps(&mut cluster, Time::ZERO, 1), (base + 10_000, 102));
    assert_eq!(take_timestamps(&mut cluster, NOW + std::time::Duration::from_millis(1), 1), (base + 10_001, 1));
    // When a millisecond is used up, the next one begins early.
    assert_eq!(take_timestamps(&mut cluster, NOW, (1 << 18) - 2), (base + 10_001, (1 << 18) - 1));
    assert_eq!(take_timestamps(&mut cluster, NOW, 2), (base + 10_002, 2));
}

#[test]
fn the_oracle_gives_at_least_one_timestamp_and_no_more_than_a_millisecond_has() {
    let mut cluster = cluster();
    for count in [0, 1 << 18] {
        let request = TsoRequest { header: header(&cluster), count, ..TsoRequest::default() };
        assert_eq!(refusal(&mut cluster, "/pdpb.PD/Tso", &request).code, Code::Unknown);
    }
}

#[test]
fn timestamps_can_be_made_to_jump_ahead() {
    let mut cluster = cluster();
    let far = Timestamp::compose(1_800_000_000_000, 7);
    cluster.pd_mut().advance_timestamps(far);
    assert!(cluster.pd_mut().next_timestamp(NOW) > far);
}

#[test]
fn allocated_ids_are_never_those_of_anything_else() {
    let mut cluster = cluster();
    let request = AllocIdRequest { header: header(&cluster), count: 3 };
    let first: AllocIdResponse = ask(&mut cluster, "/pdpb.PD/AllocID", &request);
    let second: AllocIdResponse = ask(&mut cluster, "/pdpb.PD/AllocID", &request);
    assert_eq!((first.count, second.id), (3, first.id + 3));
    let (left, _) = cluster.split(&encoded(b"g")).unwrap();
    assert!(left > second.id);
}

#[test]
fn the_external_timestamp_only_rises_and_never_above_the_oracles() {
    let mut cluster = cluster();
    let path = "/pdpb.PD/SetExternalTimestamp";
    let newest = cluster.pd_mut().next_timestamp(NOW).version();
    let error_of = |cluster: &mut Cluster, timestamp| {
        let request = SetExternalTimestampRequest { header: header(cluster), timestamp };
        let answer: SetExternalTimestampResponse = ask(cluster, path, &request);
        answer.header.unwrap().error.map(|error| error.r#type())
    };
    assert_eq!(error_of(&mut cluster, newest), None);
    assert_eq!(error_of(&mut cluster, newest), Some(ErrorType::InvalidValue));
    assert_eq!(error_of(&mut cluster, newest + (1 << 40)), Some(ErrorType::InvalidValue));
    let request = GetExternalTimestampRequest { header: header(&cluster) };
    let kept: GetExternalTimestampResponse = ask(&mut cluster, "/pdpb.PD/GetExternalTimestamp", &request);
    assert_eq!(kept.timestamp, newest);
}
