//! The store's gRPC service.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::DecodeError;
use tikv_core::request::{Method, RequestKind};
use tikv_grpc::server::{Handler, IncomingCall, RequestStream, Responder, Service};
use tikv_grpc::{Code, Status};

use crate::answers::Answers;

const BATCH_COMMANDS: &str = "/tikvpb.Tikv/BatchCommands";

pub(crate) struct NullStore {
    answers: Arc<Answers>,
    unary: BTreeMap<&'static str, RequestKind>,
}

impl NullStore {
    pub(crate) fn new(answers: Answers) -> Self {
        let is_unary = |kind: &&RequestKind| matches!(kind.facts().method, Method::Unary { .. });
        let unary = RequestKind::ALL.iter().filter(is_unary).map(|kind| (kind.facts().path, *kind)).collect();
        NullStore { answers: Arc::new(answers), unary }
    }
}

impl Service for NullStore {
    fn call(&self, mut call: IncomingCall, responder: Responder) -> Handler {
        let answers = Arc::clone(&self.answers);
        if let Some(kind) = self.unary.get(call.path()).copied() {
            return Box::pin(async move {
                let message = call.requests.single().await;
                responder.reply(message.and_then(|message| answers.answer(kind, message).map_err(undecodable)));
            });
        }
        if call.path() == BATCH_COMMANDS {
            return Box::pin(batches(answers, call.requests, responder));
        }
        responder.finish(Status::unimplemented(call.path()));
        Box::pin(std::future::ready(()))
    }
}

/// Answers each frame by a frame.
async fn batches(answers: Arc<Answers>, mut requests: RequestStream, mut responder: Responder) {
    let status = loop {
        let answered = match requests.message().await {
            Ok(Some(frame)) => answers.answer_frame(frame).map_err(undecodable),
            Ok(None) => break Status::ok(),
            Err(status) => break status,
        };
        let sent = match answered {
            Ok(frame) => responder.ready().await.and_then(|()| responder.send(frame)),
            Err(status) => Err(status),
        };
        if let Err(status) = sent {
            break status;
        }
    };
    responder.finish(status);
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn undecodable(error: DecodeError) -> Status {
    Status::new(Code::Internal, format!("cannot decode the request: {error}"))
}
