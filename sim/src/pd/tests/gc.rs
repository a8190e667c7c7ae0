use std::time::Duration;

use tikv_proto::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};
use tikv_proto::pdpb::{
    AdvanceGcSafePointRequest, AdvanceGcSafePointResponse, AdvanceTxnSafePointRequest, AdvanceTxnSafePointResponse,
    DeleteGcBarrierRequest, DeleteGcBarrierResponse, GetGcStateRequest, GetGcStateResponse, KeyspaceScope,
    SetGcBarrierRequest, SetGcBarrierResponse, UpdateGcSafePointRequest, UpdateGcSafePointResponse,
    UpdateServiceGcSafePointRequest, UpdateServiceGcSafePointResponse, keyspace_scope,
};

use super::*;

fn advance_txn(cluster: &mut Cluster, target: u64) -> AdvanceTxnSafePointResponse {
    let request =
        AdvanceTxnSafePointRequest { header: header(cluster), target, ..AdvanceTxnSafePointRequest::default() };
    ask(cluster, "/pdpb.PD/AdvanceTxnSafePoint", &request)
}

fn advance_gc(cluster: &mut Cluster, target: u64) -> AdvanceGcSafePointResponse {
    let request = AdvanceGcSafePointRequest { header: header(cluster), target, ..AdvanceGcSafePointRequest::default() };
    ask(cluster, "/pdpb.PD/AdvanceGCSafePoint", &request)
}

fn set_barrier(cluster: &mut Cluster, id: &str, barrier_ts: u64, ttl_seconds: i64) -> SetGcBarrierResponse {
    let barrier_id = id.to_owned();
    let request = SetGcBarrierRequest {
        header: header(cluster),
        barrier_id,
        barrier_ts,
        ttl_seconds,
        ..SetGcBarrierRequest::default()
    };
    ask(cluster, "/pdpb.PD/SetGCBarrier", &request)
}

fn update_service(cluster: &mut Cluster, id: &'static str, safe_point: u64, ttl: i64) -> (Bytes, u64) {
    let request = UpdateServiceGcSafePointRequest { header: header(cluster), service_id: id.into(), ttl, safe_point };
    let answer: UpdateServiceGcSafePointResponse = ask(cluster, "/pdpb.PD/UpdateServiceGCSafePoint", &request);
    (answer.service_id, answer.min_safe_point)
}

fn is_refused(header: Option<ResponseHeader>) -> bool {
    header.unwrap().error.is_some()
}

#[test]
fn safe_points_never_go_back_and_the_gc_safe_point_never_passes_the_other() {
    let mut cluster = cluster();
    assert!(is_refused(advance_gc(&mut cluster, 100).header));
    let advanced = advance_txn(&mut cluster, 100);
    assert_eq!((advanced.old_txn_safe_point, advanced.new_txn_safe_point), (0, 100));
    assert!(is_refused(advance_txn(&mut cluster, 99).header));
    let advanced = advance_gc(&mut cluster, 90);
    assert_eq!((advanced.old_gc_safe_point, advanced.new_gc_safe_point), (0, 90));
    assert!(is_refused(advance_gc(&mut cluster, 89).header));
    assert!(is_refused(advance_gc(&mut cluster, 101).header));

    let request = GetGcStateRequest { header: header(&cluster), ..GetGcStateRequest::default() };
    let state: GetGcStateResponse = ask(&mut cluster, "/pdpb.PD/GetGCState", &request);
    let state = state.gc_state.unwrap();
    assert_eq!((state.txn_safe_point, state.gc_safe_point, state.is_keyspace_level_gc), (100, 90, false));
}

#[test]
fn the_txn_safe_point_is_where_older_clients_look_for_it() {
    let mut cluster = cluster();
    advance_txn(&mut cluster, 100);
    let request = RangeRequest { key: "/tidb/store/gcworker/saved_safe_point".into(), ..RangeRequest::default() };
    let found: RangeResponse = ask(&mut cluster, "/etcdserverpb.KV/Range", &request);
    assert_eq!(found.kvs[0].value, "100");
}

#[test]
fn a_barrier_holds_the_txn_safe_point_until_it_expires_or_is_deleted() {
    let mut cluster = cluster();
    assert_eq!(set_barrier(&mut cluster, "backup", 50, 10).new_barrier_info.unwrap().ttl_seconds, 10);
    set_barrier(&mut cluster, "cdc", 70, i64::MAX);
    let advanced = advance_txn(&mut cluster, 100);
    assert_eq!(advanced.new_txn_safe_point, 50);
    assert!(advanced.blocker_description.contains("backup"));
    assert!(is_refused(set_barrier(&mut cluster, "late", 49, 10).header));
    assert!(is_refused(set_barrier(&mut cluster, "gc_worker", 60, 10).header));

    let later = NOW + Duration::from_secs(10);
    let request =
        AdvanceTxnSafePointRequest { header: header(&cluster), target: 100, ..AdvanceTxnSafePointRequest::default() };
    let path = PdCall { member: 1, path: "/pdpb.PD/AdvanceTxnSafePoint", ..PdCall::default() };
    let advanced = call(&mut cluster, later, &path, &request).unwrap();
    assert_eq!(AdvanceTxnSafePointResponse::decode(advanced).unwrap().new_txn_safe_point, 70);

    let request = DeleteGcBarrierRequest { header: header(&cluster), barrier_id: "cdc".into(), ..Default::default() };
    let deleted: DeleteGcBarrierResponse = ask(&mut cluster, "/pdpb.PD/DeleteGCBarrier", &request);
    assert_eq!(deleted.deleted_barrier_info.unwrap().ttl_seconds, i64::MAX);
    assert_eq!(advance_txn(&mut cluster, 100).new_txn_safe_point, 100);
}

#[test]
fn a_barrier_that_has_been_passed_behind_pds_back_does_not_pull_the_txn_safe_point_back() {
    let mut cluster = cluster();
    set_barrier(&mut cluster, "backup", 50, 10);
    let saved =
        PutRequest { key: "/tidb/store/gcworker/saved_safe_point".into(), value: "60".into(), ..PutRequest::default() };
    let _: PutResponse = ask(&mut cluster, "/etcdserverpb.KV/Put", &saved);
    let advanced = advance_txn(&mut cluster, 100);
    assert_eq!((advanced.old_txn_safe_point, advanced.new_txn_safe_point), (60, 60));
}

#[test]
fn service_safe_points_are_barriers_by_their_old_name() {
    let mut cluster = cluster();
    assert_eq!(update_service(&mut cluster, "backup", 50, 60), ("gc_worker".into(), 0));
    assert_eq!(update_service(&mut cluster, "gc_worker", 100, i64::MAX), ("backup".into(), 50));
    // Too late: nothing is set, and the answer tells.
    assert_eq!(update_service(&mut cluster, "late", 40, 60), ("gc_worker".into(), 50));
    update_service(&mut cluster, "backup", 0, 0);
    assert_eq!(update_service(&mut cluster, "gc_worker", 100, i64::MAX), ("gc_worker".into(), 100));

    let request = UpdateGcSafePointRequest { header: header(&cluster), safe_point: 80 };
    let updated: UpdateGcSafePointResponse = ask(&mut cluster, "/pdpb.PD/UpdateGCSafePoint", &request);
    assert_eq!(updated.new_safe_point, 80);
    let request = UpdateGcSafePointRequest { safe_point: 0, ..request };
    let read: UpdateGcSafePointResponse = ask(&mut cluster, "/pdpb.PD/UpdateGCSafePoint", &request);
    assert_eq!(read.new_safe_point, 80);
}

#[test]
fn a_keyspace_collects_with_all_others_unless_it_is_set_to_collect_alone() {
    let keyspaces = vec!["shared".to_owned(), "own".to_owned()];
    let mut cluster = Cluster::new(ClusterOptions { keyspaces, ..ClusterOptions::default() });
    let own = cluster.pd_mut().keyspace_mut(2).unwrap();
    own.config.insert("gc_management_type".to_owned(), "keyspace_level".to_owned());
    let scope = |id| Some(KeyspaceScope { keyspace: Some(keyspace_scope::Keyspace::KeyspaceId(id)) });
    let advance = |cluster: &mut Cluster, id, target| -> AdvanceTxnSafePointResponse {
        let request = AdvanceTxnSafePointRequest { header: header(cluster), keyspace_scope: scope(id), target };
        ask(cluster, "/pdpb.PD/AdvanceTxnSafePoint", &request)
    };
    assert!(is_refused(advance(&mut cluster, 1, 10).header));
    assert_eq!(advance(&mut cluster, 2, 20).new_txn_safe_point, 20);
    assert_eq!(advance(&mut cluster, u32::MAX, 30).new_txn_safe_point, 30);
    for (id, txn_safe_point) in [(1, 30), (2, 20), (u32::MAX, 30)] {
        let request = GetGcStateRequest { header: header(&cluster), keyspace_scope: scope(id), ..Default::default() };
        let state: GetGcStateResponse = ask(&mut cluster, "/pdpb.PD/GetGCState", &request);
        assert_eq!(state.gc_state.unwrap().txn_safe_point, txn_safe_point, "of keyspace {id}");
    }
}

#[test]
fn stores_drop_what_nobody_can_read_when_the_gc_safe_point_advances() {
    use tikv_core::key::KeyRange;
    use tikv_proto::kvrpcpb::{CommitRequest, GetRequest, Mutation, Op, PrewriteRequest};

    let mut cluster = cluster();
    for (value, start_version) in [("old", 10), ("new", 20)] {
        let put = Mutation { op: Op::Put.into(), key: "a".into(), value: value.into(), ..Mutation::default() };
        let mutations = vec![put];
        let prewrite =
            PrewriteRequest { mutations, primary_lock: "a".into(), start_version, ..PrewriteRequest::default() };
        cluster.storage_mut().handle(&KeyRange::ALL, &prewrite);
        let commit = CommitRequest {
            keys: vec!["a".into()],
            start_version,
            commit_version: start_version + 1,
            ..CommitRequest::default()
        };
        cluster.storage_mut().handle(&KeyRange::ALL, &commit);
    }
    let read = |cluster: &mut Cluster, version| {
        let get = GetRequest { key: "a".into(), version, ..GetRequest::default() };
        match cluster.storage_mut().handle(&KeyRange::ALL, &get).outcome {
            crate::storage::Outcome::Answer(found) => found.value,
            other => panic!("{other:?}"),
        }
    };
    advance_txn(&mut cluster, 30);
    assert_eq!(read(&mut cluster, 15), "old");
    advance_gc(&mut cluster, 30);
    assert_eq!((read(&mut cluster, 15), read(&mut cluster, 30)), (Bytes::new(), "new".into()));
}
