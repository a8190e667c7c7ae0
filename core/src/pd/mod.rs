//! The PD client: questions of many operations in, RPCs out; RPCs' answers in, operations' answers out.
//!
//! [`PdClient`] finds PD's leader and follows it, joins equal questions into one RPC, and fetches timestamps in batches. It
//! is not a [`Machine`](crate::machine::Machine), since it serves many and has no end of its own, but it is as sans-IO as
//! one: it is told the time and what has happened, and says what is to be done.
//!
//! | part | what it does |
//! |---|---|
//! | `waiting` | who waits for an answer, and until when |
//! | `discovery` | who leads |
//! | `tso` | timestamps |
//! | `query` | regions and stores |
//! | `message`, `gc`, `setback` | questions as bytes, bytes as answers, and what a failure means |
//! | `ask` | the machine of an operation that asks until it is answered |
//!
//! What an answer teaches (timestamps, regions, stores) is for the driver to put into
//! [`Knowledge`](crate::knowledge::Knowledge): it sees every answer.
//!
//! client-go: `pd.Client` with `servicediscovery`, `clients/tso` and `clients/router`.

mod ask;
mod discovery;
mod effect;
mod gc;
mod member;
mod message;
mod query;
mod setback;
#[cfg(test)]
mod tests;
mod tso;
mod waiting;

pub(crate) use ask::PHASES;
pub use ask::{AskPd, Question};
use discovery::{Discovery, Finding, Service};
use effect::Effects;
pub use effect::{CallId, PdEffect, PdInput, PdTimer, StreamId};
use member::Leader;
pub use member::{Endpoint, Member, Scheme};
pub use message::path;
use query::{Outcome, Queries};
use tso::{Ended, Granted, Tso};
pub use waiting::QuestionId;
use waiting::Waiting;

use crate::config::Config;
use crate::error::{Execution, Fault, FaultKind, PdError};
use crate::request::pd::{PdRequest, PdResponse};
use crate::rng::Rng;
use crate::time::Time;

/// The connection of one client to PD, shared by all its operations.
///
/// `W` names a waiter. The driver chooses it: an operation and a token, for instance.
///
/// # How to drive it
///
/// After any of
///
/// - [`submit`](PdClient::submit): somebody asks,
/// - [`cancel`](PdClient::cancel): somebody has lost interest,
/// - [`handle`](PdClient::handle): a reply, a stream's message or a stream's end has come,
/// - [`handle_timeout`](PdClient::handle_timeout): the time of the last [`poll_timeout`](PdClient::poll_timeout) has come,
/// - [`close`](PdClient::close): the client is no longer needed,
///
/// call, in this order,
///
/// 1. [`poll_completion`](PdClient::poll_completion) until it returns `None`, and hand the answers to their waiters,
/// 2. [`poll_effect`](PdClient::poll_effect) until it returns `None`, and carry the effects out in their order,
/// 3. [`poll_timeout`](PdClient::poll_timeout) once: it replaces the timer of before.
///
/// Questions that are submitted one after the other, before effects are polled, share RPCs where they can. A driver that
/// serves many operations should therefore hand in everything that is ready first.
///
/// # What it promises
///
/// - Every question is answered exactly once, by its deadline at the latest, unless it is cancelled.
/// - Nothing waits for a silent server: every RPC, and every request on a stream, is given up after [`Config::pd_timeout`],
///   and asked again while the question's deadline allows. All questions can be asked twice without harm.
/// - Timestamps are handed out in the order of the questions, each greater than all before. PD has made a timestamp after it
///   was asked for. One that is not greater than all before is an error ([`PdError::Malformed`]), and is not handed out.
/// - An answer about regions or stores is PD's knowledge at a moment after the question was submitted. (What PD knows may
///   be older than what a store knows.)
/// - No more than [`Config::pd_queue_limit`] questions wait; others fail with [`PdError::Overloaded`].
/// - PD of another cluster is never asked anything but who it is. If the endpoints turn out to be another cluster's, every
///   question fails with [`PdError::ClusterMismatch`], for ever.
///
/// ```
/// use tikv_core::config::Config;
/// use tikv_core::pd::{PdClient, PdEffect};
/// use tikv_core::request::pd::PdRequest;
/// use tikv_core::rng::Rng;
/// use tikv_core::time::Time;
///
/// let mut pd = PdClient::new(&Config::default(), vec!["http://pd-0:2379".into()], None, Rng::new(1));
/// pd.submit(Time::ZERO, "the first", PdRequest::Timestamp, Time::from_millis(3_000));
/// assert_eq!(pd.poll_completion(), None);
/// let Some(PdEffect::Call { address, path, .. }) = pd.poll_effect() else { panic!("PD's members come first") };
/// assert_eq!((&*address, path), ("pd-0:2379", tikv_core::pd::path::GET_MEMBERS));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PdClient<W> {
    queue_limit: usize,
    /// The latest time that the client was told.
    now: Time,
    waiting: Waiting<W>,
    discovery: Discovery,
    tso: Tso,
    queries: Queries,
    effects: Effects,
    /// Why nothing is asked any more.
    ended: Option<PdError>,
}

impl<W> PdClient<W> {
    /// A client of the PD whose members listen on `endpoints` (`host:port` or URLs). One of them is enough; the others are
    /// learnt from it. `expected_cluster_id` guards against the endpoints of another cluster; without it, the first cluster
    /// that answers is taken for the right one.
    ///
    /// Nothing happens before the first question.
    #[must_use]
    #[allow(clippy::needless_pass_by_value)] // Whoever makes a client gives its endpoints away.
    pub fn new(config: &Config, endpoints: Vec<String>, expected_cluster_id: Option<u64>, rng: Rng) -> Self {
        PdClient {
            queue_limit: config.pd_queue_limit,
            now: Time::ZERO,
            waiting: Waiting::new(),
            discovery: Discovery::new(config, &endpoints, expected_cluster_id, rng),
            tso: Tso::new(config),
            queries: Queries::new(config),
            effects: Effects::default(),
            ended: None,
        }
    }

    /// Asks a question. The answer comes from [`PdClient::poll_completion`], at `deadline` at the latest.
    pub fn submit(&mut self, now: Time, waiter: W, request: PdRequest, deadline: Time) -> QuestionId {
        self.advance(now);
        let refusal = self.refusal();
        let asked = request.clone();
        let question = self.waiting.ask(waiter, request, deadline);
        match refusal {
            Some(error) => self.waiting.answer(question, Err(error)),
            None => self.ask(&asked, question),
        }
        question
    }

    /// Forgets a question. It will not be answered; an answer that has not been fetched yet is dropped.
    pub fn cancel(&mut self, question: QuestionId) {
        if let Some(request) = self.waiting.forget(question) {
            self.forget(&request, question);
        }
    }

    /// Whether such a question, if it was asked now, would be sent only after the next message from PD: then asking it is no
    /// reason to poll for effects.
    #[must_use]
    pub fn would_queue(&self, request: &PdRequest) -> bool {
        *request == PdRequest::Timestamp && self.tso.is_busy()
    }

    /// Takes what has happened.
    pub fn handle(&mut self, now: Time, input: PdInput) {
        self.advance(now);
        if self.ended.is_some() {
            return;
        }
        let cluster_id = self.discovery.cluster_id().unwrap_or_default();
        match input {
            PdInput::Reply { call, result } if self.discovery.is_asking(call) => {
                let somebody_waits = self.waiting.len() > 0;
                let finding = self.discovery.on_reply(self.now, result, somebody_waits, &mut self.effects);
                self.on_finding(finding);
            }
            PdInput::Reply { call, result } => {
                if let Some(outcome) = self.queries.on_reply(call, cluster_id, result) {
                    self.on_outcome(outcome);
                }
            }
            PdInput::StreamMessage { stream, body } => {
                match self.tso.on_message(stream, body, cluster_id, &mut self.effects) {
                    Some(Ok(granted)) => self.on_granted(granted),
                    Some(Err(ended)) => self.on_stream_ended(ended),
                    None => {}
                }
            }
            PdInput::StreamClosed { stream, fault } => {
                if let Some(ended) = self.tso.on_closed(stream, fault) {
                    self.on_stream_ended(ended);
                }
            }
        }
    }

    /// Time has passed. Calling it early, or without need, does no harm.
    pub fn handle_timeout(&mut self, now: Time) {
        self.advance(now);
        if self.ended.is_some() {
            return;
        }
        while let Some(outcome) = self.queries.handle_timeout(self.now, &mut self.effects) {
            self.on_outcome(outcome);
        }
        if let Some(ended) = self.tso.handle_timeout(self.now, &mut self.effects) {
            self.on_stream_ended(ended);
        }
        self.expire();
        let somebody_waits = self.waiting.len() > 0;
        let finding = self.discovery.handle_timeout(self.now, somebody_waits, &mut self.effects);
        self.on_finding(finding);
    }

    /// The next thing to do. To be called until it returns `None`.
    pub fn poll_effect(&mut self) -> Option<PdEffect> {
        if self.effects.is_empty() && self.ended.is_none() {
            self.run();
        }
        self.effects.pop()
    }

    /// The next answer. To be called until it returns `None`.
    pub fn poll_completion(&mut self) -> Option<(W, Result<PdResponse, PdError>)> {
        self.waiting.next_answer()
    }

    /// When to call [`PdClient::handle_timeout`], and why; `None` for never, as things are.
    pub fn poll_timeout(&self) -> Option<(Time, PdTimer)> {
        if self.ended.is_some() {
            return None;
        }
        let named = |timer| move |time| (time, timer);
        let timers = [
            self.discovery.poll_timeout(),
            self.tso.poll_timeout().map(named(PdTimer::TimestampStreamSilent)),
            self.queries.poll_timeout().map(named(PdTimer::CallSilent)),
            self.waiting.next_deadline().map(named(PdTimer::Deadline)),
        ];
        timers.into_iter().flatten().min_by_key(|(time, _)| *time)
    }

    /// The cluster: as expected, or as the first answer said.
    pub fn cluster_id(&self) -> Option<u64> {
        self.discovery.cluster_id()
    }

    /// Where the leader listens, `host:port`, unless it has to be found (again).
    pub fn leader(&self) -> Option<&str> {
        self.discovery.leader().map(|leader| &*leader.address)
    }

    /// The members, as the last answer named them.
    pub fn members(&self) -> &[Member] {
        self.discovery.members()
    }

    /// How many questions wait for an answer.
    pub fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// Ends everything: who waits, and whoever asks later, gets [`PdError::Closed`]. Effects that close streams follow.
    pub fn close(&mut self) {
        self.end(PdError::Closed);
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    /// Why a question cannot be taken, if so.
    fn refusal(&self) -> Option<PdError> {
        if let Some(error) = &self.ended {
            return Some(error.clone());
        }
        if !self.discovery.has_endpoints() {
            return Some(self.discovery.no_leader());
        }
        let limit = self.queue_limit;
        (self.waiting.len() >= limit).then_some(PdError::Overloaded { limit })
    }

    fn ask(&mut self, request: &PdRequest, question: QuestionId) {
        match request {
            PdRequest::Timestamp => self.tso.ask(question),
            _ => self.queries.ask(request, question),
        }
    }

    fn forget(&mut self, request: &PdRequest, question: QuestionId) {
        match request {
            PdRequest::Timestamp => self.tso.forget(question),
            _ => self.queries.forget(request, question),
        }
    }

    /// Sends what can be sent.
    fn run(&mut self) {
        self.discovery.run(self.now, self.waiting.len() > 0, &mut self.effects);
        let (Some(leader), Some(cluster_id)) = (self.discovery.leader(), self.discovery.cluster_id()) else { return };
        self.tso.run(self.now, leader, cluster_id, &mut self.effects);
        self.queries.run(self.now, leader, cluster_id, self.waiting.next_id(), &mut self.effects);
    }

    fn on_finding(&mut self, finding: Finding) {
        match finding {
            Finding::Pending => {}
            Finding::Stranger(error) => self.end(error),
            Finding::Leader => {
                if let Some(leader) = self.discovery.leader().cloned() {
                    self.queries.follow(&leader, &mut self.effects);
                    let orphans = self.tso.follow(&leader, &mut self.effects);
                    self.ask_again(orphans);
                }
            }
        }
    }

    fn on_granted(&mut self, granted: Granted) {
        self.discovery.leader_works(Service::Timestamps);
        let mut timestamp = granted.first;
        for question in granted.questions {
            self.waiting.answer(question, Ok(PdResponse::Timestamp(timestamp)));
            timestamp = timestamp.next();
        }
    }

    fn on_stream_ended(&mut self, ended: Ended) {
        if let Some((questions, error)) = ended.failed {
            self.fail(questions, &error);
        }
        self.ask_again(ended.orphans);
        self.discovery.doubt(self.now, &ended.leader, Service::Timestamps, ended.fault);
    }

    fn on_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Answered(questions, response) => {
                self.discovery.leader_works(Service::Queries);
                for question in questions {
                    self.waiting.answer(question, Ok(response.clone()));
                }
            }
            Outcome::Failed(questions, error) => {
                self.fail(questions, &error);
                self.discovery.refresh_soon(self.now);
            }
            Outcome::LeaderInDoubt(leader, fault) => self.discovery.doubt(self.now, &leader, Service::Queries, fault),
        }
    }

    /// Queues timestamps again that somebody still waits for.
    fn ask_again(&mut self, questions: Vec<QuestionId>) {
        for question in questions {
            if self.waiting.contains(question) {
                self.tso.ask(question);
            }
        }
    }

    fn fail(&mut self, questions: Vec<QuestionId>, error: &PdError) {
        for question in questions {
            self.waiting.answer(question, Err(error.clone()));
        }
    }

    /// Answers those whose deadline has passed.
    fn expire(&mut self) {
        let mut no_leader = None;
        for (question, request) in self.waiting.overdue(self.now) {
            let error = match self.discovery.leader() {
                Some(leader) => {
                    let in_flight = match &request {
                        PdRequest::Timestamp => self.tso.is_in_flight(question),
                        request => self.queries.is_in_flight(request, question),
                    };
                    too_late(leader, in_flight, self.discovery.last_fault())
                }
                None => no_leader.get_or_insert_with(|| self.discovery.no_leader()).clone(),
            };
            self.waiting.answer(question, Err(error));
            self.forget(&request, question);
        }
    }

    fn end(&mut self, error: PdError) {
        if self.ended.is_some() {
            return;
        }
        self.waiting.fail_all(&error);
        self.discovery.stop(&mut self.effects);
        self.tso.stop(&mut self.effects);
        self.queries.stop(&mut self.effects);
        self.ended = Some(error);
    }
}

/// The error of a question whose deadline has passed although there is a leader.
fn too_late(leader: &Leader, in_flight: bool, last: Option<&Fault>) -> PdError {
    let execution = if in_flight { Execution::MaybeExecuted } else { Execution::NotSent };
    let fault = Fault::new(FaultKind::Timeout, execution, leader.address.clone());
    PdError::Fault(match last {
        Some(last) => fault.with_detail(format!("before that, {last}")),
        None => fault,
    })
}
