//! BatchCommands: many requests in a frame, many answers in a frame, in whatever order they are ready.
//!
//! Requests of a frame are executed in their order. What is answered at once goes back in one frame; what waits (for a lock)
//! goes back when it is ready, together with whatever else is then. TiKV tells of its health in a frame now and then, and in
//! each that answers a request for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tikv_core::request::Response;
use tikv_core::time::Time;
use tikv_grpc::server::{RequestStream, Responder};
use tikv_grpc::{Code, Status};
use tikv_proto::kvrpcpb::{Context, HealthFeedback};
use tikv_proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use tokio::sync::mpsc;

use super::batch_entries::{entry_of, request_of};
use super::shared::{LateReply, Shared};
use super::store::{grpc_status, status_of};
use crate::cluster::{CallId, StoreReply};
use crate::status::{self, CallError};

/// How often a store tells of its health unasked. TiKV: `health-feedback-interval`.
const FEEDBACK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn serve(shared: Arc<Shared>, store_id: u64, mut requests: RequestStream, mut responder: Responder) {
    let (late, mut replies) = mpsc::unbounded_channel();
    let mut stream = BatchStream { shared, store_id, late, waiting: BTreeSet::new(), last_feedback: None };
    let mut is_open = true;
    while is_open || !stream.waiting.is_empty() {
        let mut frame = BatchCommandsResponse::default();
        let news = tokio::select! {
            biased;
            message = requests.message(), if is_open => match message {
                Ok(Some(message)) => stream.execute(message, &mut frame),
                Ok(None) => {
                    is_open = false;
                    Ok(())
                }
                Err(status) => Err(status),
            },
            Some(late) = replies.recv() => stream.take_late(late, &mut frame),
        };
        let news = news.and_then(|()| {
            let mut ready = std::iter::from_fn(|| replies.try_recv().ok());
            ready.try_for_each(|late| stream.take_late(late, &mut frame))
        });
        // Who does not take answers does not get to ask more.
        let sent = match news {
            Ok(()) if frame.request_ids.is_empty() => Ok(()),
            Ok(()) => responder.ready().await.and_then(|()| {
                stream.attach_feedback(&mut frame);
                responder.send_encoded(&frame)
            }),
            Err(status) => Err(status),
        };
        if let Err(status) = sent {
            return responder.finish(status);
        }
    }
    responder.finish(Status::ok());
}

/// An answer that came late, and the id under which it was asked for.
type Late = (u64, CallId, StoreReply);

struct BatchStream {
    shared: Arc<Shared>,
    store_id: u64,
    late: mpsc::UnboundedSender<Late>,
    waiting: BTreeSet<CallId>,
    last_feedback: Option<Time>,
}

impl BatchStream {
    /// Executes a frame of requests. Answers that are ready go into `frame`.
    fn execute(&mut self, message: Bytes, frame: &mut BatchCommandsResponse) -> Result<(), Status> {
        let message = BatchCommandsRequest::decode(message)
            .map_err(|error| Status::new(Code::Internal, format!("cannot decode the batch: {error}")))?;
        for (id, request) in message.request_ids.into_iter().zip(message.requests) {
            let Some((context, request)) = request.cmd.and_then(request_of) else {
                // As TiKV answers what it does not know.
                frame.request_ids.push(id);
                frame.responses.push(Default::default());
                continue;
            };
            let context: Context = context.map(|context| *context).unwrap_or_default();
            let sender = self.late.clone();
            let late = move |call| -> LateReply {
                // It fails where the stream is gone.
                Box::new(move |reply| drop(sender.send((id, call, reply))))
            };
            match self.shared.handle_store(self.store_id, &context, request, late) {
                Ok(reply) => answer(id, reply, frame)?,
                Err(call) => drop(self.waiting.insert(call)),
            }
        }
        Ok(())
    }

    fn take_late(&mut self, (id, call, reply): Late, frame: &mut BatchCommandsResponse) -> Result<(), Status> {
        self.waiting.remove(&call);
        answer(id, reply, frame)
    }

    fn attach_feedback(&mut self, frame: &mut BatchCommandsResponse) {
        use tikv_proto::tikvpb::batch_commands_response::response::Cmd;

        let asked = frame.responses.iter().find_map(|response| match &response.cmd {
            Some(Cmd::GetHealthFeedback(response)) => response.health_feedback,
            _ => None,
        });
        let now = self.shared.now();
        let is_due = self.last_feedback.is_none_or(|last| now.saturating_since(last) >= FEEDBACK_INTERVAL);
        frame.health_feedback = asked.or_else(|| if is_due { self.feedback() } else { None });
        if frame.health_feedback.is_some() {
            self.last_feedback = Some(now);
        }
    }

    fn feedback(&self) -> Option<HealthFeedback> {
        self.shared.with_cluster(|cluster, _| {
            let store = cluster.topology_mut().store_mut(self.store_id).ok()?;
            Some(store.health_feedback())
        })
    }
}

/// The stream is over: nobody waits for its answers any more.
impl Drop for BatchStream {
    fn drop(&mut self) {
        self.waiting.iter().for_each(|call| self.shared.abandon(*call));
    }
}

/// Puts an answer into a frame. What a unary call would answer by a status has no place in one: requests for another
/// cluster end the stream, others stay without an answer, as TiKV leaves them.
fn answer(id: u64, reply: StoreReply, frame: &mut BatchCommandsResponse) -> Result<(), Status> {
    match reply {
        Ok(response) => {
            frame.responses.extend(batch_entry(response));
            frame.request_ids.push(id);
            Ok(())
        }
        Err(CallError::Status(status)) if status.code == status::Code::InvalidArgument => Err(grpc_status(status)),
        Err(CallError::Status(_)) => Ok(()),
        Err(error) => Err(status_of(error)),
    }
}

fn batch_entry(response: Response) -> Option<tikv_proto::tikvpb::batch_commands_response::Response> {
    Some(entry_of(response).unwrap_or_default())
}
