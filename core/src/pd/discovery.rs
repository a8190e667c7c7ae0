//! Finding PD's leader, and noticing that it has changed.
//!
//! ```text
//!            somebody waits and no leader is known, or a refresh is due
//!   Resting ────────────────────────────────────────────────────────────► Asking ──┐ no leader in the answer, or none
//!     ▲ ▲                                                                  │ ▲ ▲ └──┘ came: the next member
//!     │ └────────────── a member names the leader ─────────────────────────┘ │ │
//!     │                                                   no member left     │ │ the pause is over
//!     └───────────── nobody waits any more ──────────────── Pausing ◄────────┘ │
//!                                                              │ ▲─────────────│── the leader failed
//!                                                              └───────────────┘
//! ```
//!
//! A round asks one member after the other, at most once each. The first answer that names a leader of the right cluster
//! ends it. A leader that fails is not asked for anything until a round has confirmed it or found another; when it fails
//! again without having worked in between, the pauses before rounds grow, so that nothing spins while PD elects (or can
//! answer questions but give no timestamps, or the other way round).
//!
//! client-go: `servicediscovery.serviceDiscovery`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tikv_proto::pdpb;

use super::effect::{CallId, Effects, PdTimer};
use super::member::{Endpoint, Leader, Member, Scheme};
use super::message::{members_request, path};
use super::setback::{refusal, unreadable};
use crate::config::Config;
use crate::error::{Execution, Fault, FaultKind, PdError};
use crate::rng::Rng;
use crate::time::Time;

/// How long a member may take to say who leads. Shorter than for other questions: another member can be asked instead.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(1);
/// First pause between two rounds, before jitter. client-go: `UpdateMemberBackOffBaseTime`.
const BACKOFF_BASE: Duration = Duration::from_millis(20);
/// Longest pause between two rounds, before jitter.
const BACKOFF_CAP: Duration = Duration::from_secs(1);
/// Rounds that are only a precaution keep this distance.
const REFRESH_MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Members' endpoints that are remembered; no cluster comes near it.
const MAX_ENDPOINTS: usize = 64;

/// What is known of PD's members, and how they are asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Discovery {
    rng: Rng,
    call_timeout: Duration,
    refresh_interval: Duration,
    /// What the user named. Asked too, after the members: it may be a name that outlives all of them.
    configured: Vec<Endpoint>,
    cluster: Cluster,
    members: Vec<Member>,
    /// The members' endpoints, and then the configured ones.
    endpoints: Vec<Endpoint>,
    member_endpoints: usize,
    leader: Option<Leader>,
    terms: u64,
    phase: Phase,
    /// When the last round ended.
    settled_at: Time,
    /// When to look for changes although nothing has failed.
    refresh_at: Time,
    /// Members asked so far: the next round begins with the next one.
    turn: usize,
    /// Who led when something failed; asked last.
    suspect: Option<Arc<str>>,
    failures: Failures,
    last_fault: Option<Fault>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Resting,
    Asking(Round),
    Pausing { until: Time },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Round {
    call: CallId,
    asked: Endpoint,
    deadline: Time,
    left: VecDeque<Endpoint>,
    /// Whether everybody asked so far belongs to another cluster.
    only_strangers: bool,
}

/// Which cluster the client works with.
///
/// Until a leader has been found, one member of another cluster is enough to refuse the endpoints: they were given wrongly.
/// Afterwards, the address of a member may have passed to another cluster; only if nobody else answers, in a whole round,
/// has the client's own cluster gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cluster {
    Any,
    Expected(u64),
    /// Its leader has been found.
    Found(u64),
}

/// What the leader is asked for, each failing and working for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Service {
    Timestamps,
    Queries,
}

/// How often something has failed since it last worked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Failures {
    rounds: u32,
    timestamps: u32,
    queries: u32,
}

/// What a step of discovery has brought.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Finding {
    /// Nothing yet.
    Pending,
    /// The leader is known, be it the old one or another.
    Leader,
    /// There is no PD of the expected cluster there. Final.
    Stranger(PdError),
}

impl Discovery {
    pub(super) fn new(config: &Config, endpoints: &[String], expected_cluster_id: Option<u64>, rng: Rng) -> Self {
        let configured = unique(endpoints.iter().filter_map(|url| Endpoint::parse(url)));
        Discovery {
            rng,
            call_timeout: config.pd_timeout.min(MEMBER_TIMEOUT),
            refresh_interval: config.pd_refresh_interval,
            endpoints: configured.clone(),
            member_endpoints: 0,
            configured,
            cluster: expected_cluster_id.map_or(Cluster::Any, Cluster::Expected),
            members: Vec::new(),
            leader: None,
            terms: 0,
            phase: Phase::Resting,
            settled_at: Time::ZERO,
            refresh_at: Time::MAX,
            turn: 0,
            suspect: None,
            failures: Failures::default(),
            last_fault: None,
        }
    }

    pub(super) fn leader(&self) -> Option<&Leader> {
        self.leader.as_ref()
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(super) fn cluster_id(&self) -> Option<u64> {
        match self.cluster {
            Cluster::Any => None,
            Cluster::Expected(id) | Cluster::Found(id) => Some(id),
        }
    }

    /// Whether there is anybody to ask at all.
    pub(super) fn has_endpoints(&self) -> bool {
        !self.endpoints.is_empty()
    }

    /// Begins a round if there is a reason: somebody waits for a leader, or it is time to look again.
    pub(super) fn run(&mut self, now: Time, somebody_waits: bool, effects: &mut Effects) {
        let wanted = match self.phase {
            Phase::Resting => self.refresh_at <= now || (self.leader.is_none() && somebody_waits),
            Phase::Pausing { until } => until <= now,
            Phase::Asking(_) => false,
        };
        if wanted {
            self.start_round(now, effects);
        }
    }

    /// The leader failed (in its term). It is not asked again until a round has confirmed it.
    pub(super) fn doubt(&mut self, now: Time, failed: &Leader, service: Service, fault: Fault) {
        let Some(leader) = self.leader.take_if(|leader| leader.term == failed.term) else { return };
        self.suspect = Some(leader.address);
        self.last_fault = Some(fault);
        if !matches!(self.phase, Phase::Asking(_)) {
            self.phase = Phase::Pausing { until: now + self.pause() };
        }
        let failures = self.failures.of(service);
        *failures = failures.saturating_add(1);
    }

    /// Something is odd, but the leader seems to be there: look again soon.
    pub(super) fn refresh_soon(&mut self, now: Time) {
        if self.leader.is_some() {
            self.refresh_at = self.refresh_at.min((self.settled_at + REFRESH_MIN_INTERVAL).max(now));
        }
    }

    /// The leader has answered.
    pub(super) fn leader_works(&mut self, service: Service) {
        *self.failures.of(service) = 0;
        self.last_fault = None;
    }

    pub(super) fn is_asking(&self, call: CallId) -> bool {
        matches!(&self.phase, Phase::Asking(round) if round.call == call)
    }

    /// Takes the answer of the member that was asked.
    pub(super) fn on_reply(
        &mut self,
        now: Time,
        result: Result<Bytes, Fault>,
        somebody_waits: bool,
        effects: &mut Effects,
    ) -> Finding {
        let Phase::Asking(mut round) = std::mem::replace(&mut self.phase, Phase::Resting) else {
            return Finding::Pending;
        };
        let answer = result.map_err(Failure::Fault).and_then(|body| self.read(&round.asked, body));
        match answer {
            Ok((response, leader)) => {
                self.adopt(now, &response, leader);
                return Finding::Leader;
            }
            Err(Failure::Fault(fault)) => {
                self.last_fault = Some(fault);
                round.only_strangers = false;
            }
            Err(Failure::Stranger(error)) => {
                let found = matches!(self.cluster, Cluster::Found(_));
                if !found || (round.only_strangers && round.left.is_empty()) {
                    return Finding::Stranger(error);
                }
                self.last_fault = Some(refusal(&round.asked.address, error.to_string()));
            }
        }
        self.next_member(now, round, somebody_waits, effects)
    }

    /// Time has passed. Returns what came of it, as [`Discovery::on_reply`] does.
    pub(super) fn handle_timeout(&mut self, now: Time, somebody_waits: bool, effects: &mut Effects) -> Finding {
        match &self.phase {
            Phase::Asking(round) if round.deadline <= now => {
                effects.cancel(round.call);
                let silent = Fault::new(FaultKind::Timeout, Execution::MaybeExecuted, round.asked.address.clone());
                return self.on_reply(now, Err(silent), somebody_waits, effects);
            }
            _ => self.run(now, somebody_waits, effects),
        }
        Finding::Pending
    }

    pub(super) fn poll_timeout(&self) -> Option<(Time, PdTimer)> {
        match &self.phase {
            Phase::Asking(round) => Some((round.deadline, PdTimer::MemberSilent)),
            Phase::Pausing { until } => Some((*until, PdTimer::DiscoveryBackoff)),
            Phase::Resting => (self.refresh_at < Time::MAX).then_some((self.refresh_at, PdTimer::Refresh)),
        }
    }

    /// Stops for good.
    pub(super) fn stop(&mut self, effects: &mut Effects) {
        if let Phase::Asking(round) = std::mem::replace(&mut self.phase, Phase::Resting) {
            effects.cancel(round.call);
        }
        self.leader = None;
        self.refresh_at = Time::MAX;
    }

    /// The error of whoever has waited in vain for a leader.
    pub(super) fn no_leader(&self) -> PdError {
        let endpoints = self.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
        let last = self.last_fault.clone().unwrap_or_else(|| match &self.phase {
            Phase::Asking(round) => {
                Fault::new(FaultKind::Timeout, Execution::MaybeExecuted, round.asked.address.clone())
            }
            _ => Fault::new(FaultKind::Unreachable, Execution::NotSent, "").with_detail("nobody was asked"),
        });
        PdError::NoLeader { endpoints, last }
    }

    /// What failed last, unless the leader has worked since.
    pub(super) fn last_fault(&self) -> Option<&Fault> {
        self.last_fault.as_ref()
    }

    fn start_round(&mut self, now: Time, effects: &mut Effects) {
        let (members, others) = self.endpoints.split_at(self.member_endpoints.min(self.endpoints.len()));
        let mut order = rotated(members, self.turn);
        // The leader knows best who leads; one that has failed may be frozen, and a follower may know of its successor.
        let position = |address: &Arc<str>| order.iter().position(|endpoint| endpoint.address == *address);
        if let Some(index) = self.leader.as_ref().and_then(|leader| position(&leader.address)) {
            order.rotate_left(index);
        } else if let Some(suspect) = self.suspect.as_ref().and_then(position).and_then(|index| order.remove(index)) {
            order.push_back(suspect);
        }
        order.append(&mut rotated(others, self.turn));
        if let Some(first) = order.pop_front() {
            self.ask(now, first, order, true, effects);
        }
    }

    fn ask(
        &mut self,
        now: Time,
        asked: Endpoint,
        left: VecDeque<Endpoint>,
        only_strangers: bool,
        effects: &mut Effects,
    ) {
        self.turn = self.turn.wrapping_add(1);
        let call = effects.call(asked.address.clone(), path::GET_MEMBERS, members_request(), self.call_timeout);
        let deadline = now + self.call_timeout;
        self.phase = Phase::Asking(Round { call, asked, deadline, left, only_strangers });
    }

    /// Asks the next member of the round, or ends the round without a leader.
    fn next_member(&mut self, now: Time, mut round: Round, somebody_waits: bool, effects: &mut Effects) -> Finding {
        if let Some(next) = round.left.pop_front() {
            self.ask(now, next, round.left, round.only_strangers, effects);
            return Finding::Pending;
        }
        self.settled_at = now;
        if self.leader.is_some() {
            self.refresh_at = now + self.refresh_interval;
        } else if somebody_waits {
            self.failures.rounds = self.failures.rounds.saturating_add(1);
            self.phase = Phase::Pausing { until: now + self.pause() };
        } else {
            self.refresh_at = Time::MAX;
        }
        Finding::Pending
    }

    /// Who leads, by the answer of one member.
    fn read(&mut self, asked: &Endpoint, body: Bytes) -> Result<(pdpb::GetMembersResponse, Endpoint), Failure> {
        let address = &asked.address;
        let response = pdpb::GetMembersResponse::decode(body)
            .map_err(|error| Failure::Fault(unreadable(address, path::GET_MEMBERS, &error)))?;
        let header = response.header.clone().unwrap_or_default();
        if let Some(error) = header.error.filter(|error| error.r#type() != pdpb::ErrorType::Ok) {
            return Err(Failure::Fault(refusal(address, error.message)));
        }
        if header.cluster_id == 0 {
            return Err(Failure::Fault(refusal(address, "belongs to no cluster yet")));
        }
        if let Some(expected) = self.cluster_id().filter(|expected| *expected != header.cluster_id) {
            let address = Arc::clone(address);
            return Err(Failure::Stranger(PdError::ClusterMismatch { address, expected, actual: header.cluster_id }));
        }
        if self.cluster == Cluster::Any {
            self.cluster = Cluster::Expected(header.cluster_id);
        }
        let leader = response.leader.as_ref().map(Member::read);
        let leader = leader.as_ref().and_then(|leader| leader.endpoint(self.wanted_scheme())).cloned();
        match leader {
            Some(leader) => Ok((response, leader)),
            None => Err(Failure::Fault(refusal(address, "knows no leader"))),
        }
    }

    fn adopt(&mut self, now: Time, response: &pdpb::GetMembersResponse, leader: Endpoint) {
        if let Some(header) = &response.header {
            self.cluster = Cluster::Found(header.cluster_id);
        }
        self.members = response.members.iter().take(MAX_ENDPOINTS).map(Member::read).collect();
        let of_members = unique(self.members.iter().flat_map(|member| member.endpoints.iter().cloned()));
        self.member_endpoints = of_members.len();
        self.endpoints = unique(of_members.into_iter().chain(self.configured.iter().cloned()));
        if self.leader.as_ref().is_none_or(|known| known.address != leader.address) {
            self.terms += 1;
            self.leader = Some(Leader { address: leader.address, term: self.terms });
        }
        self.failures.rounds = 0;
        self.settled_at = now;
        self.refresh_at = now + self.refresh_interval;
    }

    fn wanted_scheme(&self) -> Option<Scheme> {
        self.configured.iter().find_map(|endpoint| endpoint.scheme)
    }

    /// Nothing before anything has failed; then exponential, between half of it and all of it.
    fn pause(&mut self) -> Duration {
        let Some(exponent) = self.failures.most().checked_sub(1) else { return Duration::ZERO };
        let whole = BACKOFF_BASE.saturating_mul(1 << exponent.min(16)).min(BACKOFF_CAP);
        let half = u64::try_from(whole.as_nanos() / 2).unwrap_or(u64::MAX);
        Duration::from_nanos(half + self.rng.below(half))
    }
}

impl Failures {
    fn of(&mut self, service: Service) -> &mut u32 {
        match service {
            Service::Timestamps => &mut self.timestamps,
            Service::Queries => &mut self.queries,
        }
    }

    fn most(self) -> u32 {
        self.rounds.max(self.timestamps).max(self.queries)
    }
}

/// Why a member's answer does not tell the leader.
enum Failure {
    Fault(Fault),
    /// It belongs to another cluster.
    Stranger(PdError),
}

/// All of `endpoints`, beginning with the one whose turn it is.
fn rotated(endpoints: &[Endpoint], turn: usize) -> VecDeque<Endpoint> {
    let mut order: VecDeque<Endpoint> = endpoints.iter().cloned().collect();
    order.rotate_left(turn.checked_rem(endpoints.len()).unwrap_or(0));
    order
}

/// Endpoints with different addresses, in order, as many as may be remembered.
fn unique(endpoints: impl Iterator<Item = Endpoint>) -> Vec<Endpoint> {
    let mut unique: Vec<Endpoint> = Vec::new();
    for endpoint in endpoints {
        if unique.len() < MAX_ENDPOINTS && unique.iter().all(|known| known.address != endpoint.address) {
            unique.push(endpoint);
        }
    }
    unique
}
