//! Timestamps, in batches over one stream to the leader.
//!
//! ```text
//!            somebody waits                 somebody waits, and not too many requests are in flight
//!   Closed ──────────────────► Open, idle ◄──────────────────────────► Open, in flight
//!     ▲                            │              the answer                  │
//!     └────────────────────────────┴──────────────────────────────────────────┘
//!        the stream ended, was silent for too long, or broke the protocol; or another member leads
//! ```
//!
//! While a request is in flight those who come queue, and go together in the next one: batches form by themselves, and
//! nobody is given a timestamp that PD may have made before it was asked for. When the stream ends, those who were in flight
//! queue again at their old place.
//!
//! client-go: `tso.tsoDispatcher`, `tso.tsoStream`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tikv_proto::pdpb;

use super::effect::{Effects, StreamId};
use super::member::Leader;
use super::message::{malformed, path, tso_range, tso_request};
use super::setback::{Setback, refusal, unreadable};
use super::waiting::QuestionId;
use crate::config::Config;
use crate::error::{Execution, Fault, FaultKind, PdError};
use crate::time::Time;
use crate::timestamp::Timestamp;

/// Requests that may be in flight at once. More would shorten the wait for the next batch and make batches smaller.
const IN_FLIGHT_LIMIT: usize = 1;

/// The timestamp stream, and who waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tso {
    batch_limit: usize,
    timeout: Duration,
    /// In the order in which they were asked.
    queue: VecDeque<QuestionId>,
    phase: Phase,
    /// The largest timestamp ever handed out.
    largest: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Closed,
    Open(Stream),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stream {
    id: StreamId,
    leader: Leader,
    /// Answered first in, first out.
    in_flight: VecDeque<Batch>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Batch {
    waiters: Vec<QuestionId>,
    deadline: Time,
}

/// One batch of timestamps: `first` for the first of the questions, the next one for the second, …
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Granted {
    pub(super) questions: Vec<QuestionId>,
    pub(super) first: Timestamp,
}

/// The stream has come to its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ended {
    /// Whom it was opened to.
    pub(super) leader: Leader,
    /// Why it ended.
    pub(super) fault: Fault,
    /// Must be asked again.
    pub(super) orphans: Vec<QuestionId>,
    /// Must not be asked again but fail with the error.
    pub(super) failed: Option<(Vec<QuestionId>, PdError)>,
}

impl Tso {
    pub(super) fn new(config: &Config) -> Self {
        Tso {
            batch_limit: usize::try_from(config.tso_batch_limit).unwrap_or(usize::MAX).max(1),
            timeout: config.pd_timeout,
            queue: VecDeque::new(),
            phase: Phase::Closed,
            largest: Timestamp::ZERO,
        }
    }

    /// Queues a question, in the order in which questions were asked.
    pub(super) fn ask(&mut self, question: QuestionId) {
        let place = self.queue.partition_point(|queued| *queued < question);
        self.queue.insert(place, question);
    }

    /// Nobody waits for the question any more. In flight, its timestamp is thrown away when it comes.
    pub(super) fn forget(&mut self, question: QuestionId) {
        if let Ok(place) = self.queue.binary_search(&question) {
            self.queue.remove(place);
        }
    }

    /// Whether the question has been sent and not been answered yet.
    pub(super) fn is_in_flight(&self, question: QuestionId) -> bool {
        self.queue.binary_search(&question).is_err()
    }

    /// Whether what is asked now has to wait for an answer on its way.
    pub(super) fn is_busy(&self) -> bool {
        matches!(&self.phase, Phase::Open(stream) if stream.in_flight.len() >= IN_FLIGHT_LIMIT)
    }

    /// Sends what waits, if the stream is free; opens it, if it is closed.
    pub(super) fn run(&mut self, now: Time, leader: &Leader, cluster_id: u64, effects: &mut Effects) {
        while !self.queue.is_empty() {
            let stream = match &mut self.phase {
                Phase::Open(stream) => stream,
                phase @ Phase::Closed => {
                    let id = effects.open(leader.address.clone(), path::TSO);
                    *phase = Phase::Open(Stream { id, leader: leader.clone(), in_flight: VecDeque::new() });
                    continue;
                }
            };
            if stream.in_flight.len() >= IN_FLIGHT_LIMIT {
                return;
            }
            let waiters: Vec<_> = self.queue.drain(..self.queue.len().min(self.batch_limit)).collect();
            let count = u32::try_from(waiters.len()).unwrap_or(u32::MAX);
            effects.send(stream.id, tso_request(cluster_id, count));
            stream.in_flight.push_back(Batch { waiters, deadline: now + self.timeout });
        }
    }

    /// A message came. `None` if it is not from this stream.
    pub(super) fn on_message(
        &mut self,
        stream: StreamId,
        body: Bytes,
        cluster_id: u64,
        effects: &mut Effects,
    ) -> Option<Result<Granted, Ended>> {
        let Phase::Open(open) = &mut self.phase else { return None };
        if open.id != stream {
            return None;
        }
        let address = open.leader.address.clone();
        let count = open.in_flight.front().map(|batch| batch.waiters.len());
        let (first, last) = match read(&address, cluster_id, count, body) {
            Ok(range) => range,
            Err(fault) => return self.end(fault, effects).map(Err),
        };
        let batch = open.in_flight.pop_front()?;
        if first <= self.largest {
            let detail = format!("{first} after {} had been handed out", self.largest);
            let mut ended = self.end(refusal(&address, detail.as_str()), effects)?;
            ended.failed = Some((batch.waiters, malformed(&address, path::TSO, detail)));
            return Some(Err(ended));
        }
        self.largest = last;
        Some(Ok(Granted { questions: batch.waiters, first }))
    }

    /// The stream ended by itself. `None` if it is not this one.
    pub(super) fn on_closed(&mut self, stream: StreamId, fault: Fault) -> Option<Ended> {
        match &self.phase {
            Phase::Open(open) if open.id == stream => self.take(fault),
            _ => None,
        }
    }

    /// Ends a stream that has been silent for too long.
    pub(super) fn handle_timeout(&mut self, now: Time, effects: &mut Effects) -> Option<Ended> {
        if self.poll_timeout()? > now {
            return None;
        }
        let Phase::Open(stream) = &self.phase else { return None };
        let silent = Fault::new(FaultKind::Timeout, Execution::MaybeExecuted, stream.leader.address.clone());
        self.end(silent, effects)
    }

    /// A round of discovery has named the leader: a stream to another member is of no use.
    pub(super) fn follow(&mut self, leader: &Leader, effects: &mut Effects) -> Vec<QuestionId> {
        match &mut self.phase {
            Phase::Open(stream) if stream.leader.address != leader.address => {
                let moved = refusal(&stream.leader.address, "does not lead any more");
                self.end(moved, effects).map(|ended| ended.orphans).unwrap_or_default()
            }
            Phase::Open(stream) => {
                stream.leader = leader.clone();
                Vec::new()
            }
            Phase::Closed => Vec::new(),
        }
    }

    /// Stops for good.
    pub(super) fn stop(&mut self, effects: &mut Effects) {
        if let Phase::Open(stream) = std::mem::replace(&mut self.phase, Phase::Closed) {
            effects.close(stream.id);
        }
        self.queue.clear();
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        match &self.phase {
            Phase::Open(stream) => stream.in_flight.front().map(|batch| batch.deadline),
            Phase::Closed => None,
        }
    }

    fn end(&mut self, fault: Fault, effects: &mut Effects) -> Option<Ended> {
        if let Phase::Open(stream) = &self.phase {
            effects.close(stream.id);
        }
        self.take(fault)
    }

    fn take(&mut self, fault: Fault) -> Option<Ended> {
        let Phase::Open(stream) = std::mem::replace(&mut self.phase, Phase::Closed) else { return None };
        let orphans = stream.in_flight.into_iter().flat_map(|batch| batch.waiters).collect();
        Some(Ended { leader: stream.leader, fault, orphans, failed: None })
    }
}

/// The first and the last timestamp of a response to a request for `count` of them.
fn read(
    address: &Arc<str>,
    cluster_id: u64,
    count: Option<usize>,
    body: Bytes,
) -> Result<(Timestamp, Timestamp), Fault> {
    let response = pdpb::TsoResponse::decode(body).map_err(|error| unreadable(address, path::TSO, &error))?;
    match Setback::of_header(address, path::TSO, cluster_id, response.header.as_ref()) {
        Ok(()) => {}
        Err(Setback::LeaderInDoubt(fault)) => return Err(fault),
        Err(Setback::Final(error)) => return Err(refusal(address, error.to_string())),
    }
    let count = count.and_then(|count| u32::try_from(count).ok()).ok_or("an answer to no request");
    count.and_then(|count| tso_range(&response, count)).map_err(|detail| refusal(address, detail))
}
