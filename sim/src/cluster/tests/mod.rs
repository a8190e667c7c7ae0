mod checks;
mod faults;
mod lock_waits;
mod split_check;
mod topology;

use std::time::Duration;

use tikv_core::request::{Request, Response};
use tikv_core::time::Time;
use tikv_proto::errorpb;
use tikv_proto::kvrpcpb::{
    CommitRequest, Context, GetRequest, Mutation, Op, PessimisticLockRequest, PrewriteRequest, RawGetRequest,
    RawPutRequest,
};

use super::*;

const NOW: Time = Time::from_millis(10_000);

/// Three stores, each with a peer of each of the two regions, which meet at `m`.
fn cluster() -> Cluster {
    Cluster::new(ClusterOptions { split_keys: Some(vec![encoded(b"m")]), ..ClusterOptions::default() })
}

/// The region that holds a transactional key.
fn region_of(cluster: &Cluster, key: &[u8]) -> Region {
    cluster.topology().regions().by_key(encoded(key).as_slice()).expect("all keys have a region").clone()
}

/// A context for the region's peer on a store.
fn context_on(region: &Region, store_id: u64) -> Context {
    Context {
        region_id: region.id(),
        region_epoch: region.meta.region_epoch,
        peer: region.peer_on(store_id).copied(),
        ..Context::default()
    }
}

/// Any store that holds a peer of the region, but the leader's.
fn follower_of(region: &Region) -> u64 {
    let peers = region.meta.peers.iter();
    peers.map(|peer| peer.store_id).find(|store| Some(*store) != region.leader).expect("there are followers")
}

fn get(key: &'static str, version: u64) -> Request {
    GetRequest { key: key.into(), version, ..GetRequest::default() }.into()
}

fn raw_get(key: &'static str) -> Request {
    RawGetRequest { key: key.into(), ..RawGetRequest::default() }.into()
}

fn raw_put(key: &'static str, value: &'static str) -> Request {
    RawPutRequest { key: key.into(), value: value.into(), ..RawPutRequest::default() }.into()
}

fn prewrite(key: &'static str, value: &'static str, start_ts: u64) -> Request {
    let mutation = Mutation { op: Op::Put.into(), key: key.into(), value: value.into(), ..Mutation::default() };
    PrewriteRequest {
        mutations: vec![mutation],
        primary_lock: key.into(),
        start_version: start_ts,
        lock_ttl: 3_000,
        ..PrewriteRequest::default()
    }
    .into()
}

fn commit(key: &'static str, start_ts: u64, commit_ts: u64) -> Request {
    let keys = vec![key.into()];
    CommitRequest { keys, start_version: start_ts, commit_version: commit_ts, ..CommitRequest::default() }.into()
}

/// What a request that must be answered at once is answered.
fn ask(cluster: &mut Cluster, store_id: u64, context: &Context, request: Request) -> StoreReply {
    match cluster.handle_store(NOW, store_id, context, request) {
        Served::Answered(reply) => reply,
        Served::Later(call) => panic!("{call:?} was to be answered at once"),
    }
}

/// Asks the leader of a key.
fn ask_leader(cluster: &mut Cluster, key: &str, request: Request) -> Response {
    let (store_id, context) = cluster.leader_context(encoded(key.as_bytes()).as_slice()).expect("there is a leader");
    ask(cluster, store_id, &context, request).expect("the leader answers")
}

/// The region error that a request is answered.
fn refusal(cluster: &mut Cluster, store_id: u64, context: &Context, request: Request) -> errorpb::Error {
    let reply = ask(cluster, store_id, context, request).expect("a region error is a response");
    reply.region_error().unwrap_or_else(|| panic!("no region error in {reply:?}")).clone()
}
