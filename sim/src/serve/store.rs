//! A store's gRPC services: `tikvpb.Tikv`, and the health service.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tikv_core::request::{Method, RequestKind, Response};
use tikv_grpc::server::{Handler, IncomingCall, Responder, Service};
use tikv_grpc::{Code, Metadata, Status};
use tikv_proto::health::HealthCheckResponse;
use tikv_proto::health::health_check_response::ServingStatus;
use tikv_proto::kvrpcpb::RawBatchScanRequest;
use tokio::sync::oneshot;

use super::batch;
use super::shared::Shared;
use crate::cluster::{CallId, StoreReply};
use crate::status::{self, CallError};

const BATCH_COMMANDS: &str = "/tikvpb.Tikv/BatchCommands";
const RAW_BATCH_SCAN: &str = "/tikvpb.Tikv/RawBatchScan";
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// Names the store (by its address) that is to answer, through the one that is called.
const FORWARDED_HOST: &str = "tikv-forwarded-host";

pub(crate) struct StoreService {
    shared: Arc<Shared>,
    store_id: u64,
    unary: BTreeMap<&'static str, RequestKind>,
}

impl StoreService {
    pub(crate) fn new(shared: Arc<Shared>, store_id: u64) -> Self {
        let is_unary = |kind: &&RequestKind| matches!(kind.facts().method, Method::Unary { .. });
        let unary = RequestKind::ALL.iter().filter(is_unary).map(|kind| (kind.facts().path, *kind)).collect();
        StoreService { shared, store_id, unary }
    }

    /// The store that is to answer.
    fn answering_store(&self, metadata: &Metadata) -> Result<u64, Status> {
        let Some(host) = metadata.get(FORWARDED_HOST).filter(|host| !host.is_empty()) else { return Ok(self.store_id) };
        let found = self.shared.with_cluster(|cluster, _| {
            let mut stores = cluster.topology().stores();
            stores.find(|store| store.running && store.meta.address == host).map(|store| store.meta.id)
        });
        found.ok_or_else(|| Status::new(Code::Unavailable, format!("cannot forward to {host}")))
    }
}

impl Service for StoreService {
    fn call(&self, mut call: IncomingCall, responder: Responder) -> Handler {
        let store_id = match self.answering_store(&call.metadata) {
            Ok(store_id) => store_id,
            Err(status) => {
                responder.finish(status);
                return Box::pin(std::future::ready(()));
            }
        };
        let shared = self.shared.clone();
        if let Some(kind) = self.unary.get(call.path()).copied() {
            return Box::pin(async move {
                responder.reply(match call.requests.single().await {
                    Ok(message) => answer(shared, store_id, kind, message).await,
                    Err(status) => Err(status),
                });
            });
        }
        match call.path() {
            BATCH_COMMANDS => Box::pin(batch::serve(shared, store_id, call.requests, responder)),
            RAW_BATCH_SCAN => Box::pin(async move {
                responder.reply(match call.requests.single().await {
                    Ok(message) => raw_batch_scan(&shared, store_id, message),
                    Err(status) => Err(status),
                });
            }),
            HEALTH_CHECK => Box::pin(async move {
                let health = HealthCheckResponse { status: ServingStatus::Serving.into() };
                let asked = call.requests.single().await;
                responder.reply(asked.map(|_| health.encode_to_vec().into()));
            }),
            path => {
                responder.finish(Status::unimplemented(path));
                Box::pin(std::future::ready(()))
            }
        }
    }
}

async fn answer(shared: Arc<Shared>, store_id: u64, kind: RequestKind, message: Bytes) -> Result<Bytes, Status> {
    let (context, request) = kind.decode_request(message).map_err(|error| undecodable(&error))?;
    let (reply, replied) = oneshot::channel();
    // It fails where nobody waits any more.
    let late = |_| -> super::shared::LateReply { Box::new(move |late| drop(reply.send(late))) };
    let answered = match shared.handle_store(store_id, &context.unwrap_or_default(), request, late) {
        Ok(answered) => answered,
        Err(call) => {
            let _waiting = Waiting { shared, call };
            replied.await.unwrap_or(Err(CallError::Disconnected))
        }
    };
    encode(answered)
}

fn raw_batch_scan(shared: &Shared, store_id: u64, message: Bytes) -> Result<Bytes, Status> {
    let request = RawBatchScanRequest::decode(message).map_err(|error| undecodable(&error))?;
    let scanned = shared.with_cluster(|cluster, now| cluster.raw_batch_scan(now, store_id, &request));
    scanned.map(|response| response.encode_to_vec().into()).map_err(status_of)
}

fn undecodable(error: &prost::DecodeError) -> Status {
    Status::new(Code::Internal, format!("cannot decode the request: {error}"))
}

fn encode(reply: StoreReply) -> Result<Bytes, Status> {
    reply.map(|response: Response| response.encode_to_bytes()).map_err(status_of)
}

pub(super) fn status_of(error: CallError) -> Status {
    match error {
        CallError::Status(status) => grpc_status(status),
        CallError::Unreachable | CallError::Disconnected => Status::new(Code::Unavailable, error.to_string()),
    }
}

pub(super) fn grpc_status(status: status::Status) -> Status {
    let number = i32::try_from(status.code as u32).unwrap_or(i32::MAX);
    Status::new(Code::from_i32(number), status.message)
}

/// Takes a call back whose client has left.
struct Waiting {
    shared: Arc<Shared>,
    call: CallId,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.abandon(self.call);
    }
}
