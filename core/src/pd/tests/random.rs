//! Random faults: whatever happens, everybody gets one answer, and timestamps keep their order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tikv_proto::pdpb;

use super::script::{fault, header, members_reply, region, region_reply};
use crate::config::Config;
use crate::error::{FaultKind, PdError};
use crate::pd::{CallId, PdClient, PdEffect, PdInput, QuestionId, StreamId, path};
use crate::request::pd::{PdRequest, PdResponse};
use crate::rng::Rng;
use crate::time::Time;
use crate::timestamp::Timestamp;

/// How long everybody waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest step of time between two looks at the timers.
const TICK: Duration = Duration::from_millis(4);
/// Waiters from this one on ask when the trouble is over.
const CALM: u32 = 400;

/// Three members of PD behind a network that delays, loses and breaks.
struct World {
    rng: Rng,
    now: Time,
    /// Percent of messages that fail, one way or another.
    trouble: u64,
    leader: u64,
    /// The last timestamp that PD has made.
    clock: u64,
    /// Changes of the region table; a region's version tells when it was read.
    version: u64,
    client: PdClient<u32>,
    calls: BTreeMap<CallId, Rpc>,
    streams: BTreeMap<StreamId, Stream>,
    /// Who waits, and what PD's clock and version were when it asked.
    questions: BTreeMap<u32, QuestionId>,
    waiting: BTreeMap<u32, (PdRequest, Time, u64, u64)>,
    granted: BTreeSet<Timestamp>,
    answered: usize,
}

/// A unary RPC on its way to a member, or its answer on its way back.
struct Rpc {
    address: String,
    path: &'static str,
    body: Bytes,
    /// What the member has answered; nothing if it does not lead.
    answer: Option<Option<Bytes>>,
}

#[derive(Default)]
struct Stream {
    address: String,
    requests: VecDeque<Bytes>,
    answers: VecDeque<Option<Bytes>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let endpoints = (1..=3).map(|n| format!("http://pd-{n}:2379")).collect();
        World {
            rng: Rng::new(seed),
            now: Time::from_millis(1),
            trouble: 20,
            leader: 1,
            clock: 1,
            version: 1,
            client: PdClient::new(&Config::default(), endpoints, None, Rng::new(seed)),
            calls: BTreeMap::new(),
            streams: BTreeMap::new(),
            questions: BTreeMap::new(),
            waiting: BTreeMap::new(),
            granted: BTreeSet::new(),
            answered: 0,
        }
    }

    fn leads(&self, address: &str) -> bool {
        address == format!("pd-{}:2379", self.leader)
    }

    fn step(&mut self, waiter: u32) {
        match self.rng.below(12) {
            0..=3 => self.ask(waiter),
            4 => {
                let cancelled = u32::try_from(self.rng.below(u64::from(waiter) + 1)).expect("small");
                if let Some(question) = self.questions.remove(&cancelled) {
                    self.client.cancel(question);
                }
                self.waiting.remove(&cancelled);
            }
            5 => self.leader = 1 + self.rng.below(3),
            6 => self.version += 1,
            7 => self.pass_time(),
            _ => {}
        }
        self.poll();
        self.answer_something();
        self.poll();
    }

    fn ask(&mut self, waiter: u32) {
        let request = match self.rng.below(4) {
            0 => PdRequest::RegionByKey { key: Bytes::from(vec![self.rng.below(4) as u8]), leader_only: true },
            1 => PdRequest::AllStores,
            _ => PdRequest::Timestamp,
        };
        let deadline = self.now + PATIENCE;
        self.waiting.insert(waiter, (request.clone(), deadline, self.clock, self.version));
        self.questions.insert(waiter, self.client.submit(self.now, waiter, request, deadline));
    }

    fn pass_time(&mut self) {
        if let Some((time, _)) = self.client.poll_timeout() {
            self.now = self.now.max(time);
        }
        self.client.handle_timeout(self.now);
    }

    fn nothing_is_on_its_way(&self) -> bool {
        let idle = |stream: &Stream| stream.requests.is_empty() && stream.answers.is_empty();
        self.calls.is_empty() && self.streams.values().all(idle)
    }

    /// Some message moves on.
    fn answer_something(&mut self) {
        self.now += TICK.mul_f64(self.rng.below(5) as f64 / 4.0);
        if self.client.poll_timeout().is_some_and(|(time, _)| time <= self.now) {
            self.client.handle_timeout(self.now);
        }
        match self.rng.below(2) {
            0 => self.move_call(),
            _ => self.move_stream(),
        }
    }

    /// Some RPC arrives, or its answer does, or it gets into trouble.
    fn move_call(&mut self) {
        let pick = self.rng.below(self.calls.len() as u64) as usize;
        let Some(call) = self.calls.keys().nth(pick).copied() else { return };
        let mut rpc = self.calls.remove(&call).expect("picked");
        let result = match (self.trouble(), rpc.answer.take()) {
            (Some(None), _) => return,
            (Some(Some(kind)), _) => Err(fault(kind)),
            (None, Some(answer)) => answer.ok_or_else(|| fault(FaultKind::Status(14))),
            (None, None) => {
                rpc.answer = Some(self.serve(&rpc.address, rpc.path, &rpc.body));
                self.calls.insert(call, rpc);
                return;
            }
        };
        self.client.handle(self.now, PdInput::Reply { call, result });
    }

    /// The next message of some stream arrives, or its answer does, or it gets into trouble.
    fn move_stream(&mut self) {
        let pick = self.rng.below(self.streams.len() as u64) as usize;
        let Some(stream) = self.streams.keys().nth(pick).copied() else { return };
        let mut open = self.streams.remove(&stream).expect("picked");
        let closed = match (self.trouble(), open.answers.pop_front(), open.requests.pop_front()) {
            (None, None, None) => None,
            (Some(None), ..) => None,
            (Some(Some(kind)), ..) => Some(kind),
            (None, Some(None), _) => Some(FaultKind::Status(14)),
            (None, Some(Some(body)), request) => {
                open.requests.extend(request);
                self.client.handle(self.now, PdInput::StreamMessage { stream, body });
                None
            }
            (None, None, Some(request)) => {
                open.answers.push_back(self.serve(&open.address, path::TSO, &request));
                None
            }
        };
        match closed {
            Some(kind) => self.client.handle(self.now, PdInput::StreamClosed { stream, fault: fault(kind) }),
            None => drop(self.streams.insert(stream, open)),
        }
    }

    /// Whether a message gets into trouble: none, lost, or reported as failed.
    fn trouble(&mut self) -> Option<Option<FaultKind>> {
        let kinds = [FaultKind::Unreachable, FaultKind::Disconnected, FaultKind::Status(14), FaultKind::Status(2)];
        let in_trouble = self.rng.below(100) < self.trouble;
        in_trouble.then(|| kinds.get(self.rng.below(6) as usize).copied())
    }

    /// What the member at `address` answers; `None` if it must lead for that but does not.
    fn serve(&mut self, address: &str, path: &'static str, body: &Bytes) -> Option<Bytes> {
        if path == path::GET_MEMBERS {
            let leader = (self.rng.below(4) > 0).then(|| format!("pd-{}", self.leader));
            return Some(members_reply(3, leader.as_deref()).encode_to_vec().into());
        }
        if !self.leads(address) {
            return None;
        }
        Some(match path {
            path::TSO => {
                let count = pdpb::TsoRequest::decode(body.clone()).expect("a request").count;
                self.clock += u64::from(count) + self.rng.below(3);
                let timestamp = Timestamp::from_version(self.clock);
                let timestamp = pdpb::Timestamp {
                    physical: timestamp.physical_ms() as i64,
                    logical: timestamp.logical() as i64,
                    suffix_bits: 0,
                };
                pdpb::TsoResponse { header: header(), count, timestamp: Some(timestamp) }.encode_to_vec().into()
            }
            path::GET_REGION => region_reply(region(self.version, "", "")).encode_to_vec().into(),
            _ => pdpb::GetAllStoresResponse { header: header(), ..Default::default() }.encode_to_vec().into(),
        })
    }

    /// Takes effects and answers, and checks the answers.
    fn poll(&mut self) {
        while let Some((waiter, answer)) = self.client.poll_completion() {
            let (request, deadline, clock, version) = self.waiting.remove(&waiter).expect("somebody who waits");
            match (request, answer) {
                (PdRequest::Timestamp, Ok(PdResponse::Timestamp(timestamp))) => {
                    assert!(timestamp.version() > clock, "made before it was asked for");
                    assert!(self.granted.last().is_none_or(|last| *last < timestamp), "out of order");
                    self.granted.insert(timestamp);
                }
                (PdRequest::RegionByKey { .. }, Ok(PdResponse::Region(Some(region)))) => {
                    assert!(region.region.id >= version, "read before it was asked for");
                }
                (PdRequest::AllStores, Ok(PdResponse::Stores(_))) => {}
                (_, Err(PdError::Fault(_) | PdError::NoLeader { .. })) if waiter < CALM => {}
                other => panic!("{other:?}"),
            }
            assert!(self.now <= deadline + TICK, "late");
            self.answered += 1;
        }
        while let Some(effect) = self.client.poll_effect() {
            match effect {
                PdEffect::Call { call, address, path, body, .. } => {
                    self.calls.insert(call, Rpc { address: address.to_string(), path, body, answer: None });
                }
                // What was cancelled may come all the same.
                PdEffect::CancelCall { call } if self.rng.below(2) == 0 => drop(self.calls.remove(&call)),
                PdEffect::CancelCall { .. } => {}
                PdEffect::OpenStream { stream, address, .. } => {
                    self.streams.insert(stream, Stream { address: address.to_string(), ..Stream::default() });
                }
                PdEffect::Send { stream, body } => {
                    self.streams.entry(stream).or_default().requests.push_back(body);
                }
                PdEffect::CloseStream { stream } if self.rng.below(2) == 0 => drop(self.streams.remove(&stream)),
                PdEffect::CloseStream { .. } => {}
            }
        }
    }
}

/// How many stories are told. Their seeds are fixed, so that a failure can be repeated.
const STORIES: u64 = 200;

#[test]
fn everybody_is_answered_once_and_timestamps_keep_their_order() {
    for seed in 0..STORIES {
        assert!(story(seed), "seed {seed}");
    }
}

fn story(seed: u64) -> bool {
    let mut world = World::new(seed);
    for waiter in 0..CALM {
        world.step(waiter);
    }
    // The trouble is over: whoever asks now gets what it asks for.
    world.trouble = 0;
    for waiter in CALM..CALM + 10 {
        world.ask(waiter);
    }
    for _ in 0..3_000 {
        if world.waiting.is_empty() {
            break;
        }
        world.poll();
        world.answer_something();
        world.poll();
        // A network in order delivers before anybody runs out of time.
        if world.nothing_is_on_its_way() {
            world.pass_time();
        }
    }
    assert!(world.waiting.is_empty(), "{:?}", world.client);
    world.answered > 50 && world.client.waiting_len() == 0
}
