//! Questions about regions and stores: one RPC for all who want to know the same.
//!
//! ```text
//!             sent to the leader                    answered: those who asked before it was sent have their answer
//!   Queued ───────────────────────► In flight ──────────────────────────────────────────────────────► (gone)
//!     ▲                                 │
//!     └─────────────────────────────────┘
//!       the leader failed or changed; or somebody asked after it was sent
//! ```
//!
//! Equal questions share a [`Lookup`], and a lookup has at most one RPC in flight. An answer is given only to those who had
//! asked before its RPC was sent: whoever asks later may know of a change that the answer does not show yet (a split, a new
//! leader), and would be sent to the wrong place once more. They wait for the lookup's next RPC.
//!
//! By the same rule, the region in an answer is given to everyone who had asked by then for a key in that region: when
//! thousands of keys of one region have to be located at once, a few RPCs will do.
//!
//! client-go has no such joining of its own (its router client sends what waits in one `QueryRegion` message).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::effect::{CallId, Effects};
use super::member::Leader;
use super::message::{decode, encode, range};
use super::setback::Setback;
use super::waiting::QuestionId;
use crate::config::Config;
use crate::error::{Execution, Fault, FaultKind, PdError};
use crate::request::pd::{PdRegion, PdRequest, PdResponse};
use crate::time::Time;

/// RPCs in flight at once; further lookups queue.
const IN_FLIGHT_LIMIT: usize = 64;

/// The lookups of all waiters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Queries {
    timeout: Duration,
    lookups: BTreeMap<PdRequest, Lookup>,
    /// Lookups without an RPC, those first that somebody has waited for longest.
    queue: BTreeMap<QuestionId, PdRequest>,
    /// Lookups with an RPC. The RPC with the smallest id is the oldest.
    in_flight: BTreeMap<CallId, Flight>,
}

/// All who want to know one thing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Lookup {
    questions: BTreeSet<QuestionId>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// At the place in the queue of the question that was the oldest then.
    Queued(QuestionId),
    InFlight(CallId),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Flight {
    request: PdRequest,
    leader: Leader,
    deadline: Time,
    /// Questions with smaller ids were asked before the RPC was sent.
    asked_before: QuestionId,
}

/// What came of an RPC.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// The leader has answered these questions.
    Answered(Vec<QuestionId>, PdResponse),
    /// These questions have failed.
    Failed(Vec<QuestionId>, PdError),
    /// The questions are queued again.
    LeaderInDoubt(Leader, Fault),
}

impl Queries {
    pub(super) fn new(config: &Config) -> Self {
        Queries {
            timeout: config.pd_timeout,
            lookups: BTreeMap::new(),
            queue: BTreeMap::new(),
            in_flight: BTreeMap::new(),
        }
    }

    /// Adds a question.
    pub(super) fn ask(&mut self, request: &PdRequest, question: QuestionId) {
        let request = normal(request);
        if let Some(lookup) = self.lookups.get_mut(&request) {
            lookup.questions.insert(question);
            return;
        }
        self.queue.insert(question, request.clone());
        self.lookups.insert(request, Lookup { questions: [question].into(), phase: Phase::Queued(question) });
    }

    /// Nobody waits for the question any more. An RPC in flight is left alone: that it stays silent would be news.
    pub(super) fn forget(&mut self, request: &PdRequest, question: QuestionId) {
        let request = normal(request);
        if let Some(lookup) = self.lookups.get_mut(&request) {
            lookup.questions.remove(&question);
            self.remove_if_unwanted(&request);
        }
    }

    /// Whether an RPC that could answer the question is in flight.
    pub(super) fn is_in_flight(&self, request: &PdRequest, question: QuestionId) -> bool {
        let Some(Lookup { phase: Phase::InFlight(call), .. }) = self.lookups.get(&normal(request)) else {
            return false;
        };
        self.in_flight.get(call).is_some_and(|flight| question < flight.asked_before)
    }

    /// Sends what waits, as far as the limit allows. `next` is the id that the next question will get.
    pub(super) fn run(&mut self, now: Time, leader: &Leader, cluster_id: u64, next: QuestionId, effects: &mut Effects) {
        while self.in_flight.len() < IN_FLIGHT_LIMIT {
            let Some((_, request)) = self.queue.pop_first() else { return };
            let Some((path, body)) = encode(&request, cluster_id) else { continue };
            let Some(lookup) = self.lookups.get_mut(&request) else { continue };
            let call = effects.call(leader.address.clone(), path, body, self.timeout);
            lookup.phase = Phase::InFlight(call);
            let deadline = now + self.timeout;
            self.in_flight.insert(call, Flight { request, leader: leader.clone(), deadline, asked_before: next });
        }
    }

    /// Takes the answer to an RPC. `None` if it is not known (any more).
    pub(super) fn on_reply(&mut self, call: CallId, cluster_id: u64, result: Result<Bytes, Fault>) -> Option<Outcome> {
        let flight = self.in_flight.remove(&call)?;
        let address = &flight.leader.address;
        let answer =
            result.map_err(Setback::of_fault).and_then(|body| decode(&flight.request, address, cluster_id, body));
        Some(match answer {
            Ok(response) => {
                let mut answered = self.take(&flight.request, flight.asked_before);
                if let PdResponse::Region(Some(region)) = &response {
                    answered.append(&mut self.take_keys_of(region, flight.asked_before));
                }
                self.requeue(flight.request);
                Outcome::Answered(answered, response)
            }
            Err(Setback::Final(error)) => {
                let failed = self.take(&flight.request, flight.asked_before);
                self.requeue(flight.request);
                Outcome::Failed(failed, error)
            }
            Err(Setback::LeaderInDoubt(fault)) => {
                self.requeue(flight.request);
                Outcome::LeaderInDoubt(flight.leader, fault)
            }
        })
    }

    /// Gives up the oldest RPC if it has been silent for too long.
    pub(super) fn handle_timeout(&mut self, now: Time, effects: &mut Effects) -> Option<Outcome> {
        let (call, flight) = self.in_flight.first_key_value().filter(|(_, flight)| flight.deadline <= now)?;
        let (call, address) = (*call, Arc::clone(&flight.leader.address));
        effects.cancel(call);
        let silent = Fault::new(FaultKind::Timeout, Execution::MaybeExecuted, address);
        self.on_reply(call, 0, Err(silent))
    }

    /// A round of discovery has named the leader: what another member was asked is asked again.
    pub(super) fn follow(&mut self, leader: &Leader, effects: &mut Effects) {
        let mut lost = Vec::new();
        for (call, flight) in &mut self.in_flight {
            if flight.leader.address == leader.address {
                flight.leader = leader.clone();
            } else {
                lost.push(*call);
            }
        }
        for call in lost {
            effects.cancel(call);
            if let Some(flight) = self.in_flight.remove(&call) {
                self.requeue(flight.request);
            }
        }
    }

    /// Stops for good.
    pub(super) fn stop(&mut self, effects: &mut Effects) {
        for call in std::mem::take(&mut self.in_flight).into_keys() {
            effects.cancel(call);
        }
        self.lookups.clear();
        self.queue.clear();
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.in_flight.first_key_value().map(|(_, flight)| flight.deadline)
    }

    /// Takes the questions of a lookup that were asked in time.
    fn take(&mut self, request: &PdRequest, asked_before: QuestionId) -> Vec<QuestionId> {
        self.lookups.get_mut(request).map(|lookup| lookup.take(asked_before)).unwrap_or_default()
    }

    /// Takes the questions for keys in `region` that were asked in time. Their own RPCs, if they are in flight, come back to
    /// nobody.
    fn take_keys_of(&mut self, region: &PdRegion, asked_before: QuestionId) -> Vec<QuestionId> {
        let range = range(region);
        let first = PdRequest::RegionByKey { key: range.start.to_bytes(), leader_only: true };
        let (mut taken, mut touched) = (Vec::new(), Vec::new());
        for (request, lookup) in self.lookups.range_mut(first..) {
            match request {
                PdRequest::RegionByKey { key, .. } if range.is_before_end(key) => {}
                _ => break,
            }
            taken.append(&mut lookup.take(asked_before));
            touched.push(request.clone());
        }
        touched.iter().for_each(|request| self.remove_if_unwanted(request));
        taken
    }

    /// The RPC of a lookup is over: queues the lookup for the next one, if anybody still wants to know.
    fn requeue(&mut self, request: PdRequest) {
        let Some(lookup) = self.lookups.get_mut(&request) else { return };
        match lookup.questions.first() {
            Some(oldest) => {
                lookup.phase = Phase::Queued(*oldest);
                self.queue.insert(*oldest, request);
            }
            None => {
                self.lookups.remove(&request);
            }
        }
    }

    /// Removes a lookup that nobody wants to know, unless its RPC is in flight.
    fn remove_if_unwanted(&mut self, request: &PdRequest) {
        let Some(lookup) = self.lookups.get(request) else { return };
        if let (Phase::Queued(place), true) = (lookup.phase, lookup.questions.is_empty()) {
            self.queue.remove(&place);
            self.lookups.remove(request);
        }
    }
}

impl Lookup {
    /// Takes the questions before `asked_before`.
    fn take(&mut self, asked_before: QuestionId) -> Vec<QuestionId> {
        let later = self.questions.split_off(&asked_before);
        std::mem::replace(&mut self.questions, later).into_iter().collect()
    }
}

/// The question under which equal ones meet. All are put to the leader, who may answer either kind.
fn normal(request: &PdRequest) -> PdRequest {
    let mut request = request.clone();
    match &mut request {
        PdRequest::RegionByKey { leader_only, .. }
        | PdRequest::PrevRegion { leader_only, .. }
        | PdRequest::RegionById { leader_only, .. }
        | PdRequest::ScanRegions { leader_only, .. } => *leader_only = true,
        PdRequest::Timestamp
        | PdRequest::Store { .. }
        | PdRequest::AllStores
        | PdRequest::ScatterRegions { .. }
        | PdRequest::IsScattering { .. }
        | PdRequest::Gc(_) => {}
    }
    request
}
