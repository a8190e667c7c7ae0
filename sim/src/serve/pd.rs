//! PD's gRPC services, on one member.

use std::sync::Arc;

use tikv_grpc::server::{Handler, IncomingCall, RequestStream, Responder, Service};
use tikv_grpc::{Metadata, Status};

use super::shared::Shared;
use super::store::grpc_status;
use crate::pd::{PdCall, Shape, shape};

const FORWARDED_HOST: &str = "pd-forwarded-host";
const ALLOW_FOLLOWER: &str = "pd-allow-follower-handle";

pub(crate) struct PdService {
    shared: Arc<Shared>,
    member: u64,
}

impl PdService {
    pub(crate) fn new(shared: Arc<Shared>, member: u64) -> Self {
        PdService { shared, member }
    }
}

impl Service for PdService {
    fn call(&self, call: IncomingCall, responder: Responder) -> Handler {
        let Some(shape) = shape(call.path()) else {
            responder.finish(Status::unimplemented(call.path()));
            return Box::pin(std::future::ready(()));
        };
        let asked = Asked {
            shared: self.shared.clone(),
            member: self.member,
            path: call.path().to_owned(),
            metadata: call.metadata,
        };
        match shape {
            Shape::Unary => Box::pin(asked.answer_once(call.requests, responder)),
            Shape::Stream => Box::pin(asked.answer_each(call.requests, responder)),
            Shape::Watch => Box::pin(asked.watch(call.requests, responder)),
        }
    }
}

/// A call in progress.
struct Asked {
    shared: Arc<Shared>,
    member: u64,
    path: String,
    metadata: Metadata,
}

impl Asked {
    fn call(&self) -> PdCall<'_> {
        PdCall {
            member: self.member,
            path: &self.path,
            forwarded_host: self.metadata.get(FORWARDED_HOST),
            allow_follower: self.metadata.get(ALLOW_FOLLOWER).is_some(),
        }
    }

    async fn answer_once(self, mut requests: RequestStream, responder: Responder) {
        let asked = requests.single().await;
        let answer = asked.and_then(|message| self.shared.handle_pd(&self.call(), message).map_err(grpc_status));
        responder.reply(answer);
    }

    async fn answer_each(self, mut requests: RequestStream, mut responder: Responder) {
        // A client may want to hear that the stream stands before it asks.
        let mut ended = responder.send_metadata();
        while ended.is_ok() {
            ended = match requests.message().await {
                Ok(Some(message)) => match self.shared.handle_pd(&self.call(), message).map_err(grpc_status) {
                    Ok(answer) => responder.ready().await.and_then(|()| responder.send(answer)),
                    Err(status) => Err(status),
                },
                Ok(None) => Err(Status::ok()),
                Err(status) => Err(status),
            };
        }
        responder.finish(ended.err().unwrap_or_else(Status::ok));
    }

    async fn watch(self, mut requests: RequestStream, mut responder: Responder) {
        // Subscribed before the watch begins, so that nothing falls in between.
        let mut changes = self.shared.watch_settings();
        let begun = requests.single().await.and_then(|request| {
            let begun = self.shared.with_cluster(|cluster, _| cluster.pd().watch(&self.call(), request));
            begun.map_err(grpc_status)
        });
        let mut watch = match begun {
            Ok(watch) => watch,
            Err(status) => return responder.finish(status),
        };
        let mut ended = responder.send_metadata();
        while ended.is_ok() {
            let news = self.shared.with_cluster(|cluster, _| {
                let cluster_id = cluster.topology().cluster_id();
                cluster.pd().poll_watch(cluster_id, &mut watch)
            });
            ended = match news {
                Ok(Some(message)) => responder.ready().await.and_then(|()| responder.send(message)),
                Ok(None) => changes.changed().await.map_err(|_| Status::ok()),
                Err(last) => responder.send(last).and(Err(Status::ok())),
            };
        }
        responder.finish(ended.err().unwrap_or_else(Status::ok));
    }
}
