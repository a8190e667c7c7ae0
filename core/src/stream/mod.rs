//! Many calls over one BatchCommands stream.
//!
//! TiKV's BatchCommands is a bidirectional stream whose frames carry any number of requests, each with an id, and whose
//! answers come back in any order and any grouping. [`BatchStream`] gives out the ids, collects requests into frames, and
//! finds the waiter of each answer. Batches form by themselves: whatever was submitted while the last frame was being
//! written leaves in the next one; nobody waits for company.
//!
//! client-go: `batchCommandsClient`, `batchConn`.

mod slots;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use tikv_proto::{kvrpcpb, tikvpb};

use crate::error::{Execution, Fault, FaultKind};
use crate::machine::Call;
use crate::request::{RequestKind, Response, decode_batch_response};
use crate::time::Time;
use slots::Slots;

/// Field number of `request_ids` in `tikvpb.BatchCommandsRequest`.
const REQUEST_IDS_FIELD: u32 = 2;

/// The calls of one BatchCommands stream. `W` names who waits for an answer.
///
/// The owner of the stream, in this order:
///
/// 1. [`submit`](BatchStream::submit)s calls at any time, also before the stream is open.
/// 2. While the stream can take more, writes what [`poll_frame`](BatchStream::poll_frame) gives.
/// 3. Hands every received message to [`handle_frame`](BatchStream::handle_frame).
/// 4. Calls [`handle_timeout`](BatchStream::handle_timeout) not before [`poll_timeout`](BatchStream::poll_timeout).
/// 5. When the stream breaks, calls [`close`](BatchStream::close); the value can then serve the next stream.
///
/// Every submitted call is answered exactly once, through the callback of one of the last three, unless it was cancelled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchStream<W> {
    address: Arc<str>,
    limits: BatchLimits,
    slots: Slots<InFlight<W>>,
    /// Encoded entries of calls that have not been written, in the order of their ids.
    pending: BytesMut,
    /// Id and encoded length of each pending entry.
    pending_entries: Vec<(u64, usize)>,
    /// No deadline is earlier than this.
    earliest_deadline: Time,
}

/// Bounds of a [`BatchStream`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchLimits {
    /// Calls submitted and not answered. More are refused with [`FaultKind::Overloaded`].
    pub in_flight: usize,
    /// Requests in one frame.
    pub frame_requests: usize,
    /// Bytes after which a frame takes no further request.
    pub frame_bytes: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        BatchLimits { in_flight: 100_000, frame_requests: 256, frame_bytes: 1024 * 1024 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct InFlight<W> {
    waiter: W,
    kind: RequestKind,
    deadline: Time,
    written: bool,
}

/// What a frame said besides its answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FrameNews {
    /// How busy the store's transport layer is, in percent.
    pub transport_layer_load: u64,
    /// How healthy the store feels.
    pub health_feedback: Option<kvrpcpb::HealthFeedback>,
}

impl<W> BatchStream<W> {
    /// No calls yet, to the store at `address`.
    pub fn new(address: impl Into<Arc<str>>, limits: BatchLimits) -> Self {
        BatchStream {
            address: address.into(),
            limits,
            slots: Slots::default(),
            pending: BytesMut::new(),
            pending_entries: Vec::new(),
            earliest_deadline: Time::MAX,
        }
    }

    /// Takes a call. Returns its id, for [`BatchStream::cancel`].
    ///
    /// # Errors
    ///
    /// The waiter back with a fault ([`Execution::NotSent`]) if too many calls are in flight, or the command cannot travel
    /// in a batch.
    pub fn submit(&mut self, waiter: W, call: &Call) -> Result<u64, (W, Fault)> {
        // Ids that were never answered hold their place in the window, so the window is bounded as well.
        if self.slots.len() >= self.limits.in_flight || self.slots.window() >= self.limits.in_flight.saturating_mul(8) {
            return Err((waiter, self.fault(FaultKind::Overloaded, Execution::NotSent)));
        }
        let before = self.pending.len();
        if !call.request.encode_batch_entry(&call.context, &mut self.pending) {
            let fault = self.fault(FaultKind::Protocol, Execution::NotSent);
            return Err((waiter, fault.with_detail("the command cannot be batched")));
        }
        let kind = call.request.kind();
        let id = self.slots.insert(InFlight { waiter, kind, deadline: call.deadline, written: false });
        self.pending_entries.push((id, self.pending.len() - before));
        self.earliest_deadline = self.earliest_deadline.min(call.deadline);
        Ok(id)
    }

    /// Forgets a call; its answer will be ignored. If it has not been written it still will be. Returns whether it was
    /// waiting.
    pub fn cancel(&mut self, id: u64) -> bool {
        self.slots.remove(id).is_some()
    }

    /// Whether [`BatchStream::poll_frame`] has something to give.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending_entries.is_empty()
    }

    /// Calls submitted and not answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.slots.len()
    }

    /// The next frame to be written: a `BatchCommandsRequest` in two parts, entries and ids. Its calls count as written from
    /// now on, that is, as possibly executed.
    pub fn poll_frame(&mut self) -> Option<[Bytes; 2]> {
        let (mut requests, mut bytes) = (0, 0);
        while let Some((_, len)) = self.pending_entries.get(requests) {
            let full = requests >= self.limits.frame_requests || bytes + len > self.limits.frame_bytes;
            if full && requests > 0 {
                break;
            }
            requests += 1;
            bytes += len;
        }
        if requests == 0 {
            return None;
        }
        let ids: usize = self.pending_entries[..requests].iter().map(|(id, _)| encoded_len_varint(*id)).sum();
        let mut tail = BytesMut::with_capacity(ids + 8);
        encode_key(REQUEST_IDS_FIELD, WireType::LengthDelimited, &mut tail);
        encode_varint(ids as u64, &mut tail);
        for (id, _) in self.pending_entries.drain(..requests) {
            encode_varint(id, &mut tail);
            if let Some(call) = self.slots.get_mut(id) {
                call.written = true;
            }
        }
        Some([self.pending.split_to(bytes).freeze(), tail.freeze()])
    }

    /// Takes a received `BatchCommandsResponse` and answers the calls in it. Answers to unknown, cancelled or timed-out calls
    /// are ignored.
    ///
    /// # Errors
    ///
    /// If the message makes no sense; the stream cannot be trusted any more and should be [`close`](BatchStream::close)d
    /// with that fault.
    pub fn handle_frame(
        &mut self,
        frame: Bytes,
        mut answer: impl FnMut(W, Result<Response, Fault>),
    ) -> Result<FrameNews, Fault> {
        let frame = tikvpb::BatchCommandsResponse::decode(frame).map_err(|error| {
            self.fault(FaultKind::Protocol, Execution::MaybeExecuted).with_detail(error.to_string())
        })?;
        if frame.responses.len() != frame.request_ids.len() {
            let fault = self.fault(FaultKind::Protocol, Execution::MaybeExecuted);
            return Err(fault.with_detail("a batch with more answers than ids, or fewer"));
        }
        for (id, entry) in frame.request_ids.into_iter().zip(frame.responses) {
            let Some(call) = self.slots.remove(id) else { continue };
            match decode_batch_response(entry) {
                Some(response) if response.kind() == call.kind => answer(call.waiter, Ok(response)),
                _ => {
                    let fault = self.fault(FaultKind::Protocol, Execution::MaybeExecuted);
                    answer(call.waiter, Err(fault.with_detail("the answer belongs to another command")));
                }
            }
        }
        Ok(FrameNews { transport_layer_load: frame.transport_layer_load, health_feedback: frame.health_feedback })
    }

    /// When [`BatchStream::handle_timeout`] is due; `None` while no call waits. May be too early, never too late.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        (self.slots.len() > 0 && self.earliest_deadline != Time::MAX).then_some(self.earliest_deadline)
    }

    /// Answers the calls whose deadline has passed.
    pub fn handle_timeout(&mut self, now: Time, mut answer: impl FnMut(W, Result<Response, Fault>)) {
        if now < self.earliest_deadline {
            return;
        }
        // One pass a time-out, not one a call: most calls share a time limit, so that passes are far between.
        self.earliest_deadline = Time::MAX;
        let mut overdue = Vec::new();
        for (id, call) in self.slots.iter() {
            if call.deadline <= now {
                overdue.push(id);
            } else {
                self.earliest_deadline = self.earliest_deadline.min(call.deadline);
            }
        }
        for id in overdue {
            let Some(call) = self.slots.remove(id) else { continue };
            let fault = self.fault(FaultKind::Timeout, call.execution());
            answer(call.waiter, Err(fault));
        }
    }

    /// The stream has broken (or never came to be): answers every call with `kind`, those that were written as possibly
    /// executed. Ids go on, so that late answers of an old stream cannot meet a new call.
    pub fn close(&mut self, kind: FaultKind, detail: &str, mut answer: impl FnMut(W, Result<Response, Fault>)) {
        let detail: Arc<str> = Arc::from(detail);
        self.pending.clear();
        self.pending_entries.clear();
        self.earliest_deadline = Time::MAX;
        for call in self.slots.take_all() {
            let fault = self.fault(kind, call.execution()).with_detail(Arc::clone(&detail));
            answer(call.waiter, Err(fault));
        }
    }

    fn fault(&self, kind: FaultKind, execution: Execution) -> Fault {
        Fault::new(kind, execution, Arc::clone(&self.address))
    }
}

impl<W> InFlight<W> {
    fn execution(&self) -> Execution {
        if self.written { Execution::MaybeExecuted } else { Execution::NotSent }
    }
}
