mod http;

use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message;
use tikv_grpc::{Call, Channel, Connection, Options, Sender, Streaming};
use tikv_proto::health::{HealthCheckRequest, HealthCheckResponse};
use tikv_proto::kvrpcpb::{
    Context, Mutation, Op, PessimisticLockRequest, PessimisticRollbackRequest, RawGetRequest, RawGetResponse,
    RawPutRequest, RawPutResponse,
};
use tikv_proto::meta_storagepb::{PutRequest, PutResponse, WatchRequest, WatchResponse};
use tikv_proto::pdpb::{
    GetMembersRequest, GetMembersResponse, GetRegionRequest, GetRegionResponse, GetStoreRequest, GetStoreResponse,
    QueryRegionRequest, QueryRegionResponse, RequestHeader, TsoRequest, TsoResponse,
};
use tikv_proto::tikvpb::batch_commands_request::Request;
use tikv_proto::tikvpb::batch_commands_request::request::Cmd;
use tikv_proto::tikvpb::batch_commands_response::response::Cmd as Answer;
use tikv_proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use tokio::net::TcpStream;

use super::*;

/// Runs a test on a runtime that the cluster knows nothing of.
fn with_cluster(options: ServeOptions, test: impl AsyncFnOnce(&ServedCluster)) {
    let cluster = ServedCluster::start_in_thread(options).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test(&cluster));
    cluster.shutdown();
}

async fn connect_with(address: SocketAddr, options: Options) -> Channel {
    let stream = TcpStream::connect(address).await.unwrap();
    let (channel, driver) = Connection::handshake(stream, options).await.unwrap();
    tokio::spawn(driver);
    channel
}

async fn connect(address: SocketAddr) -> Channel {
    connect_with(address, Options::new(address.to_string())).await
}

async fn connect_pd(cluster: &ServedCluster) -> Channel {
    connect(cluster.pd_endpoints()[0].parse().unwrap()).await
}

async fn ask<R: Message + Default>(channel: &Channel, path: &'static str, request: &impl Message) -> R {
    let reply = channel.unary(Call::new(path), request.encode_to_vec().into()).await.unwrap();
    R::decode(reply.message).unwrap()
}

fn header(cluster: &ServedCluster) -> Option<RequestHeader> {
    let cluster_id = cluster.with_cluster(|cluster, _| cluster.topology().cluster_id());
    Some(RequestHeader { cluster_id, ..RequestHeader::default() })
}

/// Where raw key `a` lives, and a channel to there.
async fn leader_of_a(cluster: &ServedCluster) -> (u64, Context, Channel) {
    let (store_id, context) = cluster.with_cluster(|cluster, _| cluster.leader_context(b"a")).unwrap();
    (store_id, context, connect(cluster.store_addresses()[&store_id]).await)
}

fn put(context: &Context, value: &'static str) -> RawPutRequest {
    let context = Some(Box::new(context.clone()));
    RawPutRequest { context, key: "a".into(), value: value.into(), ..RawPutRequest::default() }
}

fn get(context: &Context) -> RawGetRequest {
    RawGetRequest { context: Some(Box::new(context.clone())), key: "a".into(), ..RawGetRequest::default() }
}

fn lock(context: &Context, start_version: u64) -> PessimisticLockRequest {
    let mutation = Mutation { op: Op::PessimisticLock.into(), key: "a".into(), ..Mutation::default() };
    PessimisticLockRequest {
        context: Some(Box::new(context.clone())),
        mutations: vec![mutation],
        primary_lock: "a".into(),
        start_version,
        for_update_ts: start_version,
        lock_ttl: 3_000,
        wait_timeout: 900,
        ..PessimisticLockRequest::default()
    }
}

fn unlock(context: &Context, start_version: u64) -> PessimisticRollbackRequest {
    PessimisticRollbackRequest {
        context: Some(Box::new(context.clone())),
        start_version,
        for_update_ts: start_version,
        keys: vec!["a".into()],
    }
}

async fn batch_stream(channel: &Channel) -> (Sender, Streaming) {
    channel.bidirectional(Call::new("/tikvpb.Tikv/BatchCommands")).await.unwrap()
}

fn send(sender: &mut Sender, requests: Vec<(u64, Cmd)>) {
    let (request_ids, requests) = requests.into_iter().map(|(id, cmd)| (id, Request { cmd: Some(cmd) })).unzip();
    sender.send_encoded(&BatchCommandsRequest { requests, request_ids, ..Default::default() }).unwrap();
}

async fn receive(answers: &mut Streaming) -> Vec<(u64, Answer)> {
    let frame: BatchCommandsResponse = answers.decoded().await.unwrap().unwrap();
    let answers = frame.responses.into_iter().map(|response| response.cmd.expect("the command is known"));
    frame.request_ids.into_iter().zip(answers).collect()
}

#[test]
fn a_client_finds_its_way_from_pd_to_the_data() {
    with_cluster(ServeOptions::default(), async |cluster| {
        let pd = connect_pd(cluster).await;
        let members: GetMembersResponse = ask(&pd, "/pdpb.PD/GetMembers", &GetMembersRequest::default()).await;
        assert_eq!(members.leader.unwrap().client_urls, [format!("http://{}", cluster.pd_endpoints()[0])]);
        let header = header(cluster);
        let request = GetRegionRequest { header: header.clone(), region_key: "a".into(), ..Default::default() };
        let found: GetRegionResponse = ask(&pd, "/pdpb.PD/GetRegion", &request).await;
        let (region, leader) = (found.region.unwrap(), found.leader.unwrap());
        let request = GetStoreRequest { header, store_id: leader.store_id };
        let store: GetStoreResponse = ask(&pd, "/pdpb.PD/GetStore", &request).await;

        let store = connect(store.store.unwrap().address.parse().unwrap()).await;
        let context = Context {
            region_id: region.id,
            region_epoch: region.region_epoch,
            peer: Some(leader),
            ..Context::default()
        };
        let _: RawPutResponse = ask(&store, "/tikvpb.Tikv/RawPut", &put(&context, "1")).await;
        let found: RawGetResponse = ask(&store, "/tikvpb.Tikv/RawGet", &get(&context)).await;
        assert_eq!((found.value, found.region_error), ("1".into(), None));
        let health: HealthCheckResponse =
            ask(&store, "/grpc.health.v1.Health/Check", &HealthCheckRequest::default()).await;
        assert_eq!(health.status, 1);
    });
}

#[test]
fn requests_of_a_frame_are_executed_in_order_and_answered_in_one() {
    with_cluster(ServeOptions::default(), async |cluster| {
        let (store_id, context, store) = leader_of_a(cluster).await;
        let (mut sender, mut answers) = batch_stream(&store).await;
        let commands = vec![
            (7, Cmd::RawPut(put(&context, "1"))),
            (3, Cmd::RawGet(get(&context))),
            (5, Cmd::RawPut(put(&context, "2"))),
            (9, Cmd::RawGet(get(&context))),
        ];
        send(&mut sender, commands);
        let frame: BatchCommandsResponse = answers.decoded().await.unwrap().unwrap();
        assert_eq!(frame.request_ids, [7, 3, 5, 9]);
        let values = frame.responses.iter().filter_map(|response| match response.cmd.as_ref()? {
            Answer::RawGet(found) => Some(found.value.clone()),
            _ => None,
        });
        assert_eq!(values.collect::<Vec<_>>(), ["1", "2"]);
        // The first frame tells how the store feels.
        assert_eq!(frame.health_feedback.unwrap().store_id, store_id);
        sender.finish().unwrap();
        assert!(answers.message().await.unwrap().is_none());
    });
}

#[test]
fn a_request_that_waits_holds_nobody_up_and_is_answered_when_it_may() {
    with_cluster(ServeOptions::default(), async |cluster| {
        let (_, context, store) = leader_of_a(cluster).await;
        let (mut sender, mut answers) = batch_stream(&store).await;
        send(&mut sender, vec![(1, Cmd::PessimisticLock(lock(&context, 10)))]);
        assert_eq!(receive(&mut answers).await[0].0, 1);
        let commands = vec![(2, Cmd::PessimisticLock(lock(&context, 20))), (3, Cmd::RawGet(get(&context)))];
        send(&mut sender, commands);
        assert_eq!(receive(&mut answers).await.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [3]);

        send(&mut sender, vec![(4, Cmd::PessimisticRollback(unlock(&context, 10)))]);
        let mut ids = Vec::new();
        while ids.len() < 2 {
            for (id, answer) in receive(&mut answers).await {
                if let Answer::PessimisticLock(woken) = answer {
                    assert!(woken.errors[0].conflict.is_some());
                }
                ids.push(id);
            }
        }
        ids.sort_unstable();
        assert_eq!(ids, [2, 4]);
        // Nothing is left to wait for.
        sender.finish().unwrap();
        assert!(answers.message().await.unwrap().is_none());
    });
}

#[test]
fn a_wait_is_over_when_its_time_is_up_although_nothing_happens() {
    let lock_wait_timeout = std::time::Duration::from_millis(10);
    let cluster = ClusterOptions { lock_wait_timeout, ..ClusterOptions::default() };
    with_cluster(ServeOptions { cluster, ..ServeOptions::default() }, async |cluster| {
        let (_, context, store) = leader_of_a(cluster).await;
        let (mut sender, mut answers) = batch_stream(&store).await;
        let commands = [10, 20].map(|ts| (ts, Cmd::PessimisticLock(lock(&context, ts))));
        send(&mut sender, commands.to_vec());
        assert_eq!(receive(&mut answers).await[0].0, 10);
        let (id, Answer::PessimisticLock(late)) = receive(&mut answers).await.remove(0) else { panic!() };
        assert_eq!((id, late.errors[0].locked.as_ref().unwrap().lock_version), (20, 10));
    });
}

#[test]
fn streams_of_pd_answer_each_message() {
    with_cluster(ServeOptions::default(), async |cluster| {
        let pd = connect_pd(cluster).await;
        let (mut sender, mut timestamps) = pd.bidirectional(Call::new("/pdpb.PD/Tso")).await.unwrap();
        let mut last = (0, 0);
        for count in [1, 100, 1] {
            let request = TsoRequest { header: header(cluster), count, ..TsoRequest::default() };
            sender.send_encoded(&request).unwrap();
            let answer: TsoResponse = timestamps.decoded().await.unwrap().unwrap();
            let timestamp = answer.timestamp.unwrap();
            assert!((timestamp.physical, timestamp.logical) >= (last.0, last.1 + i64::from(count)));
            last = (timestamp.physical, timestamp.logical);
        }
        let (mut sender, mut regions) = pd.bidirectional(Call::new("/pdpb.PD/QueryRegion")).await.unwrap();
        let keys = vec![Bytes::from("a"), Bytes::from("z")];
        sender.send_encoded(&QueryRegionRequest { header: header(cluster), keys, ..Default::default() }).unwrap();
        let answer: QueryRegionResponse = regions.decoded().await.unwrap().unwrap();
        assert_eq!(answer.regions_by_id.len(), 2);

        // What is wrong ends the stream with PD's status.
        sender.send_encoded(&QueryRegionRequest::default()).unwrap();
        let error = regions.message().await.unwrap_err();
        assert!(error.to_string().contains("mismatch cluster id"), "{error}");
    });
}

#[test]
fn a_change_of_settings_reaches_who_watches_them() {
    with_cluster(ServeOptions::default(), async |cluster| {
        let pd = connect_pd(cluster).await;
        let request = WatchRequest { key: "k".into(), ..WatchRequest::default() };
        let call = Call::new("/meta_storagepb.MetaStorage/Watch");
        let mut watch = pd.server_streaming(call, request.encode_to_vec().into()).await.unwrap();
        watch.headers().await.unwrap();
        let request = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
        let _: PutResponse = ask(&pd, "/meta_storagepb.MetaStorage/Put", &request).await;
        let told: WatchResponse = watch.decoded().await.unwrap().unwrap();
        assert_eq!(told.events[0].kv.as_ref().unwrap().value, "v");
    });
}

#[test]
fn a_store_forwards_what_is_for_another_one() {
    with_cluster(ServeOptions::default(), async |cluster| {
        let (store_id, context, _) = leader_of_a(cluster).await;
        let addresses = cluster.store_addresses();
        let other = addresses.keys().find(|id| **id != store_id).unwrap();
        let proxy = connect(addresses[other]).await;
        let mut call = Call::new("/tikvpb.Tikv/RawPut");
        call.metadata.insert("tikv-forwarded-host", &addresses[&store_id].to_string()).unwrap();
        let reply = proxy.unary(call, put(&context, "1").encode_to_vec().into()).await.unwrap();
        assert_eq!(RawPutResponse::decode(reply.message).unwrap(), RawPutResponse::default());
        // Without the metadata it is for the wrong store.
        let refused: RawPutResponse = ask(&proxy, "/tikvpb.Tikv/RawPut", &put(&context, "1")).await;
        assert_eq!(refused.region_error.unwrap().store_not_match.unwrap().actual_store_id, *other);
    });
}

#[test]
fn a_stopped_store_breaks_its_connections_and_takes_none_until_it_is_back() {
    with_cluster(ServeOptions::default(), async |cluster| {
        let (store_id, context, store) = leader_of_a(cluster).await;
        let (_sender, mut answers) = batch_stream(&store).await;
        cluster.stop_store(store_id).unwrap();
        assert!(answers.message().await.is_err());
        let address = cluster.store_addresses()[&store_id];
        assert!(TcpStream::connect(address).await.is_err());

        cluster.start_store(store_id).unwrap();
        let store = connect(address).await;
        let refused: RawPutResponse = ask(&store, "/tikvpb.Tikv/RawPut", &put(&context, "1")).await;
        assert!(refused.region_error.unwrap().not_leader.is_some());
    });
}

#[test]
fn another_member_of_pd_takes_over_from_a_stopped_one() {
    let cluster = ClusterOptions { pd_members: 3, ..ClusterOptions::default() };
    with_cluster(ServeOptions { cluster, ..ServeOptions::default() }, async |cluster| {
        cluster.stop_pd(1).unwrap();
        let endpoints = cluster.pd_endpoints();
        assert!(TcpStream::connect(&endpoints[0]).await.is_err());
        let second = connect(endpoints[1].parse().unwrap()).await;
        let members: GetMembersResponse = ask(&second, "/pdpb.PD/GetMembers", &GetMembersRequest::default()).await;
        assert_eq!(members.leader.unwrap().client_urls, [format!("http://{}", endpoints[1])]);
        cluster.start_pd(1).unwrap();
        assert!(TcpStream::connect(&endpoints[0]).await.is_ok());
    });
}

#[test]
fn compressed_requests_are_understood_and_answers_compressed_if_wanted() {
    for gzip in [false, true] {
        with_cluster(ServeOptions { gzip, ..ServeOptions::default() }, async |cluster| {
            let (store_id, context, _) = leader_of_a(cluster).await;
            let address = cluster.store_addresses()[&store_id];
            let options = Options { compression: Encoding::Gzip, ..Options::new(address.to_string()) };
            let store = connect_with(address, options).await;
            let _: RawPutResponse = ask(&store, "/tikvpb.Tikv/RawPut", &put(&context, "1")).await;
            let found: RawGetResponse = ask(&store, "/tikvpb.Tikv/RawGet", &get(&context)).await;
            assert_eq!(found.value, "1");
        });
    }
}

#[test]
fn methods_that_are_not_simulated_are_unimplemented() {
    with_cluster(ServeOptions::default(), async |cluster| {
        let (_, _, store) = leader_of_a(cluster).await;
        for path in ["/tikvpb.Tikv/CoprocessorStream", "/tikvpb.Tikv/KvGC", "/tikvpb.Tikv/NoSuchMethod"] {
            let error = store.unary(Call::new(path), Bytes::new()).await.unwrap_err();
            assert_eq!(error.status().unwrap().code, tikv_grpc::Code::Unimplemented, "{path}");
        }
    });
}

#[test]
fn the_administration_channel_changes_the_cluster() {
    let cluster = ServedCluster::start_in_thread(ServeOptions::default()).unwrap();
    assert!(cluster.administrate("help").starts_with("ok help regions"));
    assert_eq!(cluster.administrate("regions").split(' ').count(), 9);
    let split = cluster.administrate("split 6b6579");
    let ids: Vec<&str> = split.split(' ').collect();
    assert!(matches!(ids[..], ["ok", _, _]), "{split}");
    let described = cluster.administrate("regions");
    let region = described.split(' ').find(|region| region.starts_with(&format!("{}:", ids[2]))).unwrap();
    assert!(region.contains(":6b65790000000000fa:"), "{region}");
    assert!(cluster.administrate("split 6b6579").starts_with("error region"));
    assert!(cluster.administrate("split 6b657").starts_with("error"));

    for store in 1..=3 {
        assert_eq!(cluster.administrate(&format!("transfer-leader {} {store}", ids[1])), "ok");
    }
    assert_eq!(cluster.administrate("stop-store 2"), "ok");
    assert_eq!(cluster.administrate("start-store 2"), "ok");
    assert_eq!(cluster.administrate("stop-pd"), "ok");
    assert_eq!(cluster.administrate("start-pd"), "ok");
    assert!(cluster.administrate("stop-store 9").starts_with("error no store 9"));
    assert!(cluster.administrate("stop-store").starts_with("error unknown command"));
    assert!(cluster.administrate("stores").starts_with("ok 1:127.0.0.1:"));
}
