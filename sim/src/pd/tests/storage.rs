use tikv_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use tikv_proto::etcdserverpb::request_op::Request as Op;
use tikv_proto::etcdserverpb::{self, Compare, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse};
use tikv_proto::keyspacepb::{LoadKeyspaceRequest, LoadKeyspaceResponse};
use tikv_proto::meta_storagepb::event::EventType;
use tikv_proto::meta_storagepb::{GetRequest, GetResponse, PutRequest, PutResponse, WatchRequest, WatchResponse};
use tikv_proto::pdpb::{
    ErrorType, GlobalConfigItem, LoadGlobalConfigRequest, LoadGlobalConfigResponse, StoreGlobalConfigRequest,
    StoreGlobalConfigResponse,
};
use tikv_proto::resource_manager::token_bucket_request::{Request, RequestRu};
use tikv_proto::resource_manager::{
    ListResourceGroupsRequest, ListResourceGroupsResponse, PutResourceGroupRequest, PutResourceGroupResponse,
    RequestUnitItem, ResourceGroup, TokenBucketRequest, TokenBucketsRequest, TokenBucketsResponse,
};

use super::*;

fn etcd_put(cluster: &mut Cluster, key: &'static str, value: &'static str) -> etcdserverpb::PutResponse {
    let request = etcdserverpb::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
    ask(cluster, "/etcdserverpb.KV/Put", &request)
}

fn etcd_get(cluster: &mut Cluster, key: &'static str, range_end: &'static str) -> Vec<(Bytes, Bytes)> {
    let request = RangeRequest { key: key.into(), range_end: range_end.into(), ..RangeRequest::default() };
    let found: RangeResponse = ask(cluster, "/etcdserverpb.KV/Range", &request);
    found.kvs.into_iter().map(|entry| (entry.key, entry.value)).collect()
}

#[test]
fn etcd_keeps_keys_with_revisions_and_versions() {
    let mut cluster = cluster();
    etcd_put(&mut cluster, "a/1", "x");
    etcd_put(&mut cluster, "a/1", "y");
    etcd_put(&mut cluster, "b/1", "z");
    let request = RangeRequest { key: "a/1".into(), ..RangeRequest::default() };
    let found: RangeResponse = ask(&mut cluster, "/etcdserverpb.KV/Range", &request);
    let entry = &found.kvs[0];
    assert_eq!((&entry.value[..], entry.version, entry.create_revision, entry.mod_revision), (&b"y"[..], 2, 2, 3));
    assert_eq!(found.header.unwrap().revision, 4);
    assert_eq!(etcd_get(&mut cluster, "a", "b").len(), 1);
    assert_eq!(etcd_get(&mut cluster, "a", "\0").len(), 2);
}

#[test]
fn an_etcd_transaction_takes_one_branch_or_the_other_and_is_one_revision() {
    let mut cluster = cluster();
    let put = |key: &'static str| {
        let request = etcdserverpb::PutRequest { key: key.into(), value: "v".into(), ..Default::default() };
        RequestOp { request: Some(Op::RequestPut(request)) }
    };
    let mut missing = Compare { key: "k".into(), target_union: Some(TargetUnion::Version(0)), ..Compare::default() };
    missing.set_target(CompareTarget::Version);
    missing.set_result(CompareResult::Equal);
    let request = TxnRequest { compare: vec![missing], success: vec![put("k"), put("l")], failure: vec![put("m")] };
    let first: TxnResponse = ask(&mut cluster, "/etcdserverpb.KV/Txn", &request);
    let second: TxnResponse = ask(&mut cluster, "/etcdserverpb.KV/Txn", &request);
    assert_eq!((first.succeeded, second.succeeded), (true, false));
    assert_eq!(second.header.unwrap().revision, first.header.unwrap().revision + 1);
    assert_eq!(etcd_get(&mut cluster, "k", "z").len(), 3);
}

#[test]
fn a_watch_tells_every_change_of_its_keys_once() {
    let mut cluster = cluster();
    let cluster_id = cluster.topology().cluster_id();
    let put = |cluster: &mut Cluster, key: &'static str, value: &'static str| {
        let request = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
        let _: PutResponse = ask(cluster, "/meta_storagepb.MetaStorage/Put", &request);
    };
    put(&mut cluster, "a/1", "before");
    let request = WatchRequest { key: "a/".into(), range_end: "a0".into(), ..WatchRequest::default() };
    let path = PdCall { member: 1, path: "/meta_storagepb.MetaStorage/Watch", ..PdCall::default() };
    let mut watch = cluster.pd().watch(&path, request.encode_to_vec().into()).unwrap();
    assert_eq!(cluster.pd().poll_watch(cluster_id, &mut watch), Ok(None));

    put(&mut cluster, "a/1", "after");
    put(&mut cluster, "b/1", "elsewhere");
    let told = cluster.pd().poll_watch(cluster_id, &mut watch).unwrap().unwrap();
    let told = WatchResponse::decode(told).unwrap();
    assert_eq!(told.events.len(), 1);
    assert_eq!(told.events[0].r#type(), EventType::Put);
    assert_eq!(told.events[0].kv.as_ref().unwrap().value, "after");
    assert_eq!(told.events[0].prev_kv.as_ref().unwrap().value, "before");
    assert_eq!(cluster.pd().poll_watch(cluster_id, &mut watch), Ok(None));

    let request = GetRequest { key: "a/".into(), range_end: "a0".into(), ..GetRequest::default() };
    let found: GetResponse = ask(&mut cluster, "/meta_storagepb.MetaStorage/Get", &request);
    assert_eq!(found.kvs[0].value, "after");
}

#[test]
fn a_watch_from_a_forgotten_revision_ends_with_an_error() {
    let mut cluster = cluster();
    for _ in 0..5_000 {
        cluster.pd_mut().kv.put("a", "x");
    }
    let request = WatchRequest { key: "a".into(), start_revision: 1, ..WatchRequest::default() };
    let path = PdCall { member: 1, path: "/meta_storagepb.MetaStorage/Watch", ..PdCall::default() };
    let mut watch = cluster.pd().watch(&path, request.encode_to_vec().into()).unwrap();
    let told = cluster.pd().poll_watch(1, &mut watch).unwrap_err();
    let told = WatchResponse::decode(told).unwrap();
    assert!(told.compact_revision > 1);
    assert!(told.header.unwrap().error.is_some());
}

#[test]
fn global_configuration_is_kept_under_its_path() {
    let mut cluster = cluster();
    let change = GlobalConfigItem { name: "n".into(), payload: "v".into(), ..GlobalConfigItem::default() };
    let request = StoreGlobalConfigRequest { changes: vec![change], config_path: String::new() };
    let _: StoreGlobalConfigResponse = ask(&mut cluster, "/pdpb.PD/StoreGlobalConfig", &request);
    let request = LoadGlobalConfigRequest { names: vec!["n".into(), "x".into()], ..Default::default() };
    let named: LoadGlobalConfigResponse = ask(&mut cluster, "/pdpb.PD/LoadGlobalConfig", &request);
    assert_eq!(named.items[0].payload, "v");
    assert_eq!(named.items[1].error.as_ref().unwrap().r#type(), ErrorType::GlobalConfigNotFound);
    let all: LoadGlobalConfigResponse =
        ask(&mut cluster, "/pdpb.PD/LoadGlobalConfig", &LoadGlobalConfigRequest::default());
    assert_eq!(all.items[0].name, "/global/config/n");
    let elsewhere = LoadGlobalConfigRequest { config_path: "/tidb".into(), ..Default::default() };
    assert_eq!(refusal(&mut cluster, "/pdpb.PD/LoadGlobalConfig", &elsewhere).code, Code::InvalidArgument);
}

#[test]
fn the_default_keyspace_is_there_and_an_unknown_one_is_not_found() {
    let mut cluster = cluster();
    let load = |cluster: &mut Cluster, name: &str| -> LoadKeyspaceResponse {
        let request = LoadKeyspaceRequest { header: header(cluster), name: name.to_owned(), namespace: None };
        ask(cluster, "/keyspacepb.Keyspace/LoadKeyspace", &request)
    };
    let keyspace = load(&mut cluster, "DEFAULT").keyspace.unwrap();
    assert_eq!(keyspace.keyspace, Some(tikv_proto::keyspacepb::keyspace_meta::Keyspace::Id(0)));
    let error = load(&mut cluster, "nowhere").header.unwrap().error.unwrap();
    assert_eq!(error.r#type(), ErrorType::EntryNotFound);
}

#[test]
fn resource_groups_are_kept_and_tokens_are_granted_to_those_that_exist() {
    let mut cluster = cluster();
    let group = ResourceGroup { name: "batch".into(), ..ResourceGroup::default() };
    let request = PutResourceGroupRequest { group: Some(group) };
    let _: PutResourceGroupResponse = ask(&mut cluster, "/resource_manager.ResourceManager/AddResourceGroup", &request);
    let again = refusal(&mut cluster, "/resource_manager.ResourceManager/AddResourceGroup", &request);
    assert_eq!(again.code, Code::Unknown);
    let listed: ListResourceGroupsResponse = ask(
        &mut cluster,
        "/resource_manager.ResourceManager/ListResourceGroups",
        &ListResourceGroupsRequest::default(),
    );
    let names: Vec<_> = listed.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["batch", "default"]);

    let ask_for = |name: &str| TokenBucketRequest {
        resource_group_name: name.to_owned(),
        request: Some(Request::RuItems(RequestRu {
            request_r_u: vec![RequestUnitItem { value: 100.0, ..RequestUnitItem::default() }],
        })),
        ..TokenBucketRequest::default()
    };
    let requests = vec![ask_for("default"), ask_for("nobody"), ask_for("batch")];
    let request = TokenBucketsRequest { requests, ..TokenBucketsRequest::default() };
    let path = "/resource_manager.ResourceManager/AcquireTokenBuckets";
    let granted: TokenBucketsResponse = ask(&mut cluster, path, &request);
    let tokens = granted.responses.iter().map(|response| {
        (response.resource_group_name.as_str(), response.granted_r_u_tokens[0].granted_tokens.unwrap().tokens)
    });
    assert_eq!(tokens.collect::<Vec<_>>(), [("default", 100.0), ("batch", 100.0)]);
}
