//! PD: that of the simulated cluster, but for timestamps, which are too many.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prost::Message;
use tikv_core::time::Time;
use tikv_grpc::server::{Handler, IncomingCall, RequestStream, Responder, Service};
use tikv_grpc::{Code, Status};
use tikv_proto::pdpb::{ResponseHeader, TsoRequest, TsoResponse};
use tikv_sim::cluster::{Cluster, ClusterOptions, StoreOptions};
use tikv_sim::pd::{PdCall, Shape, shape};

use crate::oracle::Oracle;
use crate::regions::bounds;

const TSO: &str = "/pdpb.PD/Tso";

/// The only one.
pub(crate) const MEMBER: u64 = 1;

pub(crate) struct NullPd {
    oracle: Arc<Oracle>,
    cluster: Arc<Mutex<Cluster>>,
}

impl NullPd {
    /// The PD of a cluster whose stores listen at these addresses, and PD at the first of them.
    pub(crate) fn new(addresses: &[SocketAddr]) -> Self {
        NullPd { oracle: Arc::default(), cluster: Arc::new(Mutex::new(cluster(addresses))) }
    }
}

/// What PD tells of the cluster.
pub(crate) fn cluster(addresses: &[SocketAddr]) -> Cluster {
    let store = |address: &SocketAddr| StoreOptions { address: address.to_string(), ..StoreOptions::default() };
    let mut cluster = Cluster::new(ClusterOptions {
        stores: addresses.iter().map(store).collect(),
        replicas: 1,
        split_keys: Some(bounds(addresses.len() as u64)),
        ..ClusterOptions::default()
    });
    if let (Some(member), Some(address)) = (cluster.pd_mut().member_mut(MEMBER), addresses.first()) {
        member.client_url = format!("http://{address}");
    }
    cluster
}

impl Service for NullPd {
    fn call(&self, call: IncomingCall, responder: Responder) -> Handler {
        match shape(call.path()) {
            _ if call.path() == TSO => {
                let cluster_id = lock(&self.cluster).topology().cluster_id();
                Box::pin(timestamps(Arc::clone(&self.oracle), cluster_id, call.requests, responder))
            }
            Some(Shape::Unary) => Box::pin(answer(Arc::clone(&self.cluster), call, responder)),
            // Newer clients ask for regions so.
            Some(Shape::Stream) => Box::pin(answer_each(Arc::clone(&self.cluster), call, responder)),
            _ => {
                responder.finish(Status::unimplemented(call.path()));
                Box::pin(std::future::ready(()))
            }
        }
    }
}

async fn answer(cluster: Arc<Mutex<Cluster>>, mut call: IncomingCall, responder: Responder) {
    let answer = call.requests.single().await.and_then(|message| ask(&cluster, call.path(), message));
    responder.reply(answer);
}

async fn answer_each(cluster: Arc<Mutex<Cluster>>, mut call: IncomingCall, mut responder: Responder) {
    let mut ended = responder.send_metadata();
    while ended.is_ok() {
        ended = match call.requests.message().await {
            Ok(Some(message)) => match ask(&cluster, call.path(), message) {
                Ok(answer) => responder.ready().await.and_then(|()| responder.send(answer)),
                Err(status) => Err(status),
            },
            Ok(None) => Err(Status::ok()),
            Err(status) => Err(status),
        };
    }
    responder.finish(ended.err().unwrap_or_else(Status::ok));
}

fn ask(cluster: &Mutex<Cluster>, path: &str, message: Bytes) -> Result<Bytes, Status> {
    let asked = PdCall { member: MEMBER, path, forwarded_host: None, allow_follower: false };
    let answer = lock(cluster).handle_pd(Time::ZERO, &asked, message);
    answer.map_err(|status| Status::new(Code::from_i32(status.code as i32), status.message))
}

async fn timestamps(oracle: Arc<Oracle>, cluster_id: u64, mut requests: RequestStream, mut responder: Responder) {
    let mut ended = responder.send_metadata();
    while ended.is_ok() {
        ended = match requests.message().await {
            Ok(Some(message)) => {
                timestamp(&oracle, cluster_id, message).and_then(|reply| responder.send_encoded(&reply))
            }
            Ok(None) => Err(Status::ok()),
            Err(status) => Err(status),
        };
    }
    responder.finish(ended.err().unwrap_or_else(Status::ok));
}

fn timestamp(oracle: &Oracle, cluster_id: u64, message: Bytes) -> Result<TsoResponse, Status> {
    let request = TsoRequest::decode(message).map_err(|error| Status::new(Code::Internal, error.to_string()))?;
    Ok(TsoResponse {
        header: Some(ResponseHeader { cluster_id, ..ResponseHeader::default() }),
        count: request.count,
        timestamp: Some(oracle.next(request.count)),
    })
}

fn lock(cluster: &Mutex<Cluster>) -> MutexGuard<'_, Cluster> {
    cluster.lock().unwrap_or_else(PoisonError::into_inner)
}
