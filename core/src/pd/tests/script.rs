//! A harness in which a test plays PD and the driver. Effects are expected in the order of their issue.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tikv_proto::{metapb, pdpb};

use crate::config::Config;
use crate::error::{Execution, Fault, FaultKind, PdError};
use crate::pd::{CallId, PdClient, PdEffect, PdInput, PdTimer, QuestionId, StreamId, path};
use crate::request::pd::{PdRequest, PdResponse};
use crate::rng::Rng;
use crate::time::Time;
use crate::timestamp::Timestamp;

/// The cluster that PD belongs to.
pub(super) const CLUSTER: u64 = 7;

pub(super) struct PdScript {
    pub(super) client: PdClient<u32>,
    now: Time,
    /// What each waiter asked last.
    questions: BTreeMap<u32, QuestionId>,
    effects: VecDeque<PdEffect>,
    last_call: Option<CallId>,
    last_stream: Option<StreamId>,
}

pub(super) fn config() -> Config {
    Config::default()
}

pub(super) fn by_key(key: &'static str) -> PdRequest {
    PdRequest::RegionByKey { key: key.into(), leader_only: false }
}

/// A region from `start` to `end` (empty for no end) with one peer.
pub(super) fn region(id: u64, start: &'static str, end: &'static str) -> metapb::Region {
    metapb::Region {
        id,
        start_key: start.into(),
        end_key: end.into(),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
        peers: vec![metapb::Peer { id: id * 10, store_id: 1, ..Default::default() }],
        ..Default::default()
    }
}

pub(super) fn header() -> Option<pdpb::ResponseHeader> {
    Some(pdpb::ResponseHeader { cluster_id: CLUSTER, error: None })
}

pub(super) fn error_header(kind: pdpb::ErrorType, message: &str) -> Option<pdpb::ResponseHeader> {
    let error = Some(pdpb::Error { r#type: kind.into(), message: message.into() });
    Some(pdpb::ResponseHeader { cluster_id: CLUSTER, error })
}

/// A reply with `region` in it, led by its first peer.
pub(super) fn region_reply(region: metapb::Region) -> pdpb::GetRegionResponse {
    pdpb::GetRegionResponse {
        header: header(),
        leader: region.peers.first().copied(),
        region: Some(region),
        ..Default::default()
    }
}

/// What members `pd-1`, `pd-2`, … say of `leader`, which is one of them or nobody.
pub(super) fn members_reply(count: usize, leader: Option<&str>) -> pdpb::GetMembersResponse {
    let member = |name: &str| pdpb::Member {
        name: name.into(),
        member_id: name.bytes().map(u64::from).sum(),
        client_urls: vec![format!("http://{name}:2379")],
        ..Default::default()
    };
    pdpb::GetMembersResponse {
        header: header(),
        members: (1..=count).map(|n| member(&format!("pd-{n}"))).collect(),
        leader: leader.map(member),
        ..Default::default()
    }
}

impl PdScript {
    /// A client that knows of `count` members, `pd-1` and so on, and has asked nothing yet.
    pub(super) fn new(count: usize) -> Self {
        PdScript::with(&config(), count, None)
    }

    pub(super) fn with(config: &Config, count: usize, expected_cluster_id: Option<u64>) -> Self {
        let endpoints = (1..=count).map(|n| format!("http://pd-{n}:2379")).collect();
        PdScript {
            client: PdClient::new(config, endpoints, expected_cluster_id, Rng::new(1)),
            now: Time::from_millis(1),
            questions: BTreeMap::new(),
            effects: VecDeque::new(),
            last_call: None,
            last_stream: None,
        }
    }

    /// A client that has found its leader, `pd-1` of three, and has no question left.
    pub(super) fn connected() -> Self {
        PdScript::connected_with(&config())
    }

    pub(super) fn connected_with(config: &Config) -> Self {
        let mut script = PdScript::with(config, 3, None);
        script.ask(0, PdRequest::AllStores);
        script.expect_members("pd-1");
        script.reply(members_reply(3, Some("pd-1")));
        script.expect_call::<pdpb::GetAllStoresRequest>("pd-1", path::GET_ALL_STORES);
        script.reply(pdpb::GetAllStoresResponse { header: header(), ..Default::default() });
        assert_eq!(script.expect_answer(0), Ok(PdResponse::Stores(vec![])));
        script.expect_nothing();
        script
    }

    /// A client that has found its leader and has its timestamp stream open, with nothing in flight.
    pub(super) fn with_stream() -> Self {
        let mut script = PdScript::connected();
        script.ask_timestamp(0);
        script.expect_stream("pd-1");
        script.expect_tso(1);
        script.grant(1, 0, 1);
        script.expect_timestamp(0, 1, 0);
        script
    }

    pub(super) fn now(&self) -> Time {
        self.now
    }

    pub(super) fn advance(&mut self, duration: Duration) -> &mut Self {
        self.now += duration;
        self
    }

    /// Asks with ten seconds to wait.
    pub(super) fn ask(&mut self, waiter: u32, request: PdRequest) -> &mut Self {
        self.ask_within(waiter, request, Duration::from_secs(10))
    }

    pub(super) fn ask_within(&mut self, waiter: u32, request: PdRequest, time: Duration) -> &mut Self {
        let question = self.client.submit(self.now, waiter, request, self.now + time);
        self.questions.insert(waiter, question);
        self
    }

    /// Forgets what `waiter` asked last.
    pub(super) fn cancel(&mut self, waiter: u32) {
        self.client.cancel(self.questions[&waiter]);
    }

    pub(super) fn ask_timestamp(&mut self, waiter: u32) -> &mut Self {
        self.ask(waiter, PdRequest::Timestamp)
    }

    /// Goes on to the next timer, which is expected to be `timer`, and lets it fire.
    pub(super) fn fire(&mut self, timer: PdTimer) -> &mut Self {
        let (time, reason) = self.client.poll_timeout().expect("a timer");
        assert_eq!(reason, timer, "at {time:?}");
        self.now = self.now.max(time);
        self.client.handle_timeout(self.now);
        self
    }

    /// Expects an RPC of type `R` to `host`.
    pub(super) fn expect_call<R: Message + Default>(&mut self, host: &str, expected_path: &str) -> R {
        let effect = self.next_effect();
        let PdEffect::Call { call, address, path, body, .. } = effect else { panic!("no call but {effect:?}") };
        assert_eq!((&*address, path), (&*format!("{host}:2379"), expected_path));
        self.last_call = Some(call);
        R::decode(body).expect("what was encoded")
    }

    pub(super) fn expect_members(&mut self, host: &str) -> CallId {
        self.expect_call::<pdpb::GetMembersRequest>(host, path::GET_MEMBERS);
        self.last_call()
    }

    /// Expects that a member is asked who leads, at once or after a pause.
    pub(super) fn expect_search(&mut self, host: &str) -> CallId {
        self.expect_search_among(&[host])
    }

    pub(super) fn expect_search_among(&mut self, hosts: &[&str]) -> CallId {
        self.collect();
        if self.effects.is_empty() {
            self.fire(PdTimer::DiscoveryBackoff);
            self.collect();
        }
        let Some(PdEffect::Call { address, .. }) = self.effects.front() else { panic!("no call: {:?}", self.effects) };
        let host = address.trim_end_matches(":2379").to_owned();
        assert!(hosts.contains(&&*host), "{host}");
        self.expect_members(&host)
    }

    /// Expects a question for the region of `key`.
    pub(super) fn expect_region(&mut self, host: &str, key: &str) -> CallId {
        let request = self.expect_call::<pdpb::GetRegionRequest>(host, path::GET_REGION);
        assert_eq!(request.region_key, key.as_bytes());
        assert_eq!(request.header.expect("a header").cluster_id, CLUSTER);
        self.last_call()
    }

    pub(super) fn last_call(&self) -> CallId {
        self.last_call.expect("an expected call")
    }

    pub(super) fn expect_cancel(&mut self, call: CallId) -> &mut Self {
        assert_eq!(self.next_effect(), PdEffect::CancelCall { call });
        self
    }

    pub(super) fn expect_stream(&mut self, host: &str) -> StreamId {
        let effect = self.next_effect();
        let PdEffect::OpenStream { stream, address, path } = effect else { panic!("no stream but {effect:?}") };
        assert_eq!((&*address, path), (&*format!("{host}:2379"), path::TSO));
        self.last_stream = Some(stream);
        stream
    }

    /// Expects a request for `count` timestamps on the last stream.
    pub(super) fn expect_tso(&mut self, count: u32) -> &mut Self {
        let effect = self.next_effect();
        let PdEffect::Send { stream, body } = effect else { panic!("no request for timestamps but {effect:?}") };
        assert_eq!(Some(stream), self.last_stream);
        let request = pdpb::TsoRequest::decode(body).expect("what was encoded");
        assert_eq!((request.header.expect("a header").cluster_id, request.count), (CLUSTER, count));
        self
    }

    /// Expects a request for `count` timestamps and returns the stream that it is on.
    pub(super) fn expect_tso_stream(&mut self, count: u32) -> StreamId {
        self.expect_tso(count);
        self.last_stream()
    }

    pub(super) fn last_stream(&self) -> StreamId {
        self.last_stream.expect("an expected stream")
    }

    pub(super) fn expect_close(&mut self, stream: StreamId) -> &mut Self {
        assert_eq!(self.next_effect(), PdEffect::CloseStream { stream });
        self
    }

    /// Expects that nothing is to be done and nobody has an answer.
    pub(super) fn expect_nothing(&mut self) -> &mut Self {
        self.collect();
        assert!(self.effects.is_empty(), "unexpected: {:?}", self.effects);
        self.expect_no_answer()
    }

    pub(super) fn expect_no_answer(&mut self) -> &mut Self {
        assert_eq!(self.client.poll_completion(), None);
        self
    }

    /// Expects that the next answer is for `waiter`.
    pub(super) fn expect_answer(&mut self, waiter: u32) -> Result<PdResponse, PdError> {
        let (answered, answer) = self.client.poll_completion().expect("an answer");
        assert_eq!(answered, waiter, "{answer:?}");
        answer
    }

    pub(super) fn expect_timestamp(&mut self, waiter: u32, physical: u64, logical: u64) -> &mut Self {
        let expected = PdResponse::Timestamp(Timestamp::compose(physical, logical));
        assert_eq!(self.expect_answer(waiter), Ok(expected));
        self
    }

    /// Expects that `waiter` is told of a region.
    pub(super) fn expect_region_answer(&mut self, waiter: u32, id: u64) -> &mut Self {
        let answer = self.expect_answer(waiter);
        let Ok(PdResponse::Region(Some(region))) = &answer else { panic!("{answer:?}") };
        assert_eq!(region.region.id, id);
        self
    }

    /// Answers the last RPC.
    pub(super) fn reply(&mut self, message: impl Message) -> &mut Self {
        self.reply_to(self.last_call(), message)
    }

    #[allow(clippy::needless_pass_by_value)] // Stories read better without borrowing what they make up.
    pub(super) fn reply_to(&mut self, call: CallId, message: impl Message) -> &mut Self {
        self.input(PdInput::Reply { call, result: Ok(message.encode_to_vec().into()) })
    }

    /// The last RPC fails.
    pub(super) fn fault(&mut self, kind: FaultKind) -> &mut Self {
        self.fault_to(self.last_call(), kind)
    }

    pub(super) fn fault_to(&mut self, call: CallId, kind: FaultKind) -> &mut Self {
        self.input(PdInput::Reply { call, result: Err(fault(kind)) })
    }

    /// Answers a request for timestamps: `logical` is the largest of `count`.
    pub(super) fn grant(&mut self, physical: i64, logical: i64, count: u32) -> &mut Self {
        let timestamp = Some(pdpb::Timestamp { physical, logical, suffix_bits: 0 });
        self.message(pdpb::TsoResponse { header: header(), count, timestamp })
    }

    /// A message comes on the last stream.
    #[allow(clippy::needless_pass_by_value)]
    pub(super) fn message(&mut self, message: impl Message) -> &mut Self {
        self.raw_message(message.encode_to_vec().into())
    }

    pub(super) fn raw_message(&mut self, body: Bytes) -> &mut Self {
        let stream = self.last_stream();
        self.input(PdInput::StreamMessage { stream, body })
    }

    /// The last stream ends.
    pub(super) fn stream_closed(&mut self, kind: FaultKind) -> &mut Self {
        let stream = self.last_stream();
        self.input(PdInput::StreamClosed { stream, fault: fault(kind) })
    }

    pub(super) fn input(&mut self, input: PdInput) -> &mut Self {
        self.client.handle(self.now, input);
        self
    }

    fn next_effect(&mut self) -> PdEffect {
        self.collect();
        self.effects.pop_front().unwrap_or_else(|| panic!("nothing is to be done; {:?}", self.client))
    }

    fn collect(&mut self) {
        while let Some(effect) = self.client.poll_effect() {
            self.effects.push_back(effect);
        }
    }
}

pub(super) fn fault(kind: FaultKind) -> Fault {
    let execution = if kind == FaultKind::Unreachable { Execution::NotSent } else { Execution::MaybeExecuted };
    Fault::new(kind, execution, "pd")
}

/// The error inside, for a message that tells what came instead.
pub(super) fn error<T: Debug>(answer: Result<T, PdError>) -> PdError {
    answer.expect_err("an error")
}
