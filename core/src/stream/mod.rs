//! Many calls over one BatchCommands stream.
//!
//! TiKV's BatchCommands is a bidirectional stream whose frames carry any number of requests, each with an id, and whose
//! answers come back in any order and any grouping. [`BatchStream`] gives out the ids, collects requests into frames, and
//! finds the waiter of each answer. Batches form by themselves: whatever was submitted while the last frame was being
//! written leaves in the next one; nobody waits for company.
//!
//! client-go: `batchCommandsClient`, `batchConn`.

mod frame;
mod pending;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use tikv_proto::kvrpcpb;

use crate::error::{Execution, Fault, FaultKind};
use crate::machine::Call;
use crate::request::{RequestKind, Response};
use crate::slots::Slots;
use crate::time::Time;
use frame::ResponseFrame;
use pending::Pending;

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
    /// Requests that have not been written.
    pending: Pending,
    /// No deadline is earlier than this.
    earliest_deadline: Time,
    /// Where the ids of a received frame are collected. Empty in between; kept for its space.
    received_ids: Vec<u64>,
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
            pending: Pending::default(),
            earliest_deadline: Time::MAX,
            received_ids: Vec::new(),
        }
    }

    /// Takes a call. Returns its id, for [`BatchStream::cancel`].
    ///
    /// # Errors
    ///
    /// The waiter back with a fault ([`Execution::NotSent`]) if too many calls are in flight, or the command cannot travel
    /// in a batch.
    pub fn submit(&mut self, waiter: W, call: &Call) -> Result<u64, (W, Fault)> {
        if self.slots.len() >= self.limits.in_flight {
            return Err((waiter, self.fault(FaultKind::Overloaded, Execution::NotSent)));
        }
        let id = self.slots.next_id();
        if !self.pending.push(id, |buffer| call.request.encode_batch_entry(&call.context, buffer)) {
            let fault = self.fault(FaultKind::Protocol, Execution::NotSent);
            return Err((waiter, fault.with_detail("the command cannot be batched")));
        }
        let kind = call.request.kind();
        self.slots.insert(InFlight { waiter, kind, deadline: call.deadline, written: false });
        self.earliest_deadline = self.earliest_deadline.min(call.deadline);
        Ok(id)
    }

    /// Forgets a call. If it has not been written it never will be, otherwise its answer will be ignored. Returns whether it
    /// was waiting.
    pub fn cancel(&mut self, id: u64) -> bool {
        self.remove(id).is_some()
    }

    /// Whether [`BatchStream::poll_frame`] may have something to give.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Calls that may wait to be written: with those among them that nobody waits for any more.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.requests()
    }

    /// Calls submitted and not answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.slots.len()
    }

    /// The next frame to be written: a `BatchCommandsRequest` in two parts, of which the second may be empty. Its calls count as written from
    /// now on, that is, as possibly executed.
    pub fn poll_frame(&mut self) -> Option<[Bytes; 2]> {
        self.pending.take_frame(self.limits, |id| match self.slots.get_mut(id) {
            Some(call) => {
                call.written = true;
                true
            }
            None => false,
        })
    }

    /// Takes a received `BatchCommandsResponse` and answers the calls in it. Answers to unknown, cancelled or timed-out calls
    /// are ignored.
    ///
    /// # Errors
    ///
    /// If the message as a whole makes no sense; the stream cannot be trusted any more and should be [`close`](BatchStream::close)d
    /// with that fault.
    pub fn handle_frame(
        &mut self,
        frame: Bytes,
        mut answer: impl FnMut(W, Result<Response, Fault>),
    ) -> Result<FrameNews, Fault> {
        let mut ids = std::mem::take(&mut self.received_ids);
        let mut frame = ResponseFrame::decode(frame, &mut ids).map_err(|error| self.nonsense(&error.to_string()))?;
        if frame.responses != ids.len() {
            return Err(self.nonsense("a batch with more answers than ids, or fewer"));
        }
        for id in ids.drain(..) {
            let Some(response) = frame.next_response() else { break };
            // An answer to what was never asked is nobody's answer.
            let written = self.slots.get_mut(id).is_some_and(|call| call.written);
            let Some(call) = written.then(|| self.slots.remove(id)).flatten() else { continue };
            let result = match call.kind.decode_batch_response(response) {
                Ok(Some(response)) => Ok(response),
                Ok(None) => Err(self.nonsense("the answer belongs to another command")),
                Err(error) => Err(self.nonsense(&error.to_string())),
            };
            answer(call.waiter, result);
        }
        self.received_ids = ids;
        Ok(frame.news)
    }

    /// When [`BatchStream::handle_timeout`] is due; `None` while no call waits. May be too early, never too late.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        (self.slots.len() > 0 && self.earliest_deadline != Time::MAX).then_some(self.earliest_deadline)
    }

    /// Answers the calls whose deadline has passed. Those that have not been written never will be.
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
            let Some(call) = self.remove(id) else { continue };
            let fault = self.fault(FaultKind::Timeout, call.execution());
            answer(call.waiter, Err(fault));
        }
    }

    /// The stream has broken (or never came to be): answers every call with `kind`, those that were written as possibly
    /// executed. Ids go on, so that late answers of an old stream cannot meet a new call.
    pub fn close(&mut self, kind: FaultKind, detail: &str, mut answer: impl FnMut(W, Result<Response, Fault>)) {
        let detail: Arc<str> = Arc::from(detail);
        self.pending.clear();
        self.earliest_deadline = Time::MAX;
        for call in self.slots.take_all() {
            let fault = self.fault(kind, call.execution()).with_detail(Arc::clone(&detail));
            answer(call.waiter, Err(fault));
        }
    }

    /// Removes a call before its answer has come.
    fn remove(&mut self, id: u64) -> Option<InFlight<W>> {
        let call = self.slots.remove(id)?;
        if !call.written {
            self.pending.abandon(|id| self.slots.contains(id));
        }
        Some(call)
    }

    fn nonsense(&self, detail: &str) -> Fault {
        self.fault(FaultKind::Protocol, Execution::MaybeExecuted).with_detail(detail)
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
