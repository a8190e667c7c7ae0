use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tikv_proto::{kvrpcpb, metapb, pdpb};

use super::*;
use crate::error::{Error, Execution, FaultKind};
use crate::oracle::FetchTimestamp;
use crate::pd::path;
use crate::raw::{self, RawOptions};
use crate::timestamp::Timestamp;
use crate::txn::{Commit, CommitOptions, Transaction};

/// An engine whose PD answers for one region on one store; store calls are left to the test.
struct World {
    engine: Engine,
    now: Time,
    calls: VecDeque<(StoreCallId, Box<Call>)>,
    cancelled: Vec<StoreCallId>,
    checks: Vec<(CheckId, Timestamp)>,
    logical: i64,
}

impl World {
    fn new() -> Self {
        World {
            engine: Engine::new(Config::default(), vec!["pd:2379".into()], 1),
            now: Time::from_millis(1),
            calls: VecDeque::new(),
            cancelled: Vec::new(),
            checks: Vec::new(),
            logical: 0,
        }
    }

    fn start(&mut self, operation: Operation) -> OperationId {
        let id = self.engine.start(self.now, operation);
        self.settle();
        id
    }

    fn get(&mut self, key: &str) -> OperationId {
        let config = Config::default();
        let get = raw::get(&config, key.into(), &RawOptions::new(&config)).expect("a key");
        self.start(Operation::RawGet(get))
    }

    /// Carries out commands until the engine waits for a store or for time.
    fn settle(&mut self) {
        while let Some(command) = self.engine.poll_command() {
            match command {
                EngineCommand::Call { id, call } => self.calls.push_back((id, call)),
                EngineCommand::CancelCall { id } => self.cancelled.push(id),
                EngineCommand::Pd(effect) => self.answer_pd(effect),
                EngineCommand::CheckCommit { id, commit_ts, .. } => self.checks.push((id, commit_ts)),
                EngineCommand::Reconnect { .. } | EngineCommand::Observe(_) => {}
            }
        }
    }

    fn answer_pd(&mut self, effect: PdEffect) {
        let input = match effect {
            PdEffect::Call { call, path, .. } => PdInput::Reply { call, result: Ok(unary_answer(path)) },
            PdEffect::Send { stream, body } => PdInput::StreamMessage { stream, body: self.tso_answer(body) },
            _ => return,
        };
        self.engine.handle_pd(self.now, input);
    }

    fn tso_answer(&mut self, body: Bytes) -> Bytes {
        let count = pdpb::TsoRequest::decode(body).expect("a request").count;
        self.logical += i64::from(count);
        let timestamp = Some(pdpb::Timestamp { physical: 1_000, logical: self.logical, ..Default::default() });
        pdpb::TsoResponse { header: header(), count, timestamp }.encode_to_vec().into()
    }

    fn reply(&mut self, reply: Result<Response, Fault>) {
        let (id, _) = self.calls.pop_front().expect("a call");
        self.engine.handle_reply(self.now, id, reply);
        self.settle();
    }

    fn advance_to_timer(&mut self) -> EngineTimer {
        let (due, timer) = self.engine.poll_timeout().expect("a timer");
        self.now = self.now.max(due);
        self.engine.handle_timeout(self.now);
        self.settle();
        timer
    }
}

fn header() -> Option<pdpb::ResponseHeader> {
    Some(pdpb::ResponseHeader { cluster_id: 7, ..Default::default() })
}

fn unary_answer(path: &str) -> Bytes {
    let member = pdpb::Member {
        name: "pd".into(),
        member_id: 1,
        client_urls: vec!["http://pd:2379".into()],
        ..Default::default()
    };
    let peer = metapb::Peer { id: 10, store_id: 1, ..Default::default() };
    let region = metapb::Region {
        id: 1,
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
        peers: vec![peer],
        ..Default::default()
    };
    let store = metapb::Store { id: 1, address: "store:20160".into(), ..Default::default() };
    match path {
        path::GET_MEMBERS => pdpb::GetMembersResponse {
            header: header(),
            members: vec![member.clone()],
            leader: Some(member),
            ..Default::default()
        }
        .encode_to_vec(),
        path::GET_REGION => {
            pdpb::GetRegionResponse { header: header(), region: Some(region), leader: Some(peer), ..Default::default() }
                .encode_to_vec()
        }
        path::GET_STORE => {
            pdpb::GetStoreResponse { header: header(), store: Some(store), ..Default::default() }.encode_to_vec()
        }
        other => panic!("unexpected question {other}"),
    }
    .into()
}

fn value(text: &'static str) -> Result<Response, Fault> {
    let value = Bytes::from_static(text.as_bytes());
    Ok(kvrpcpb::RawGetResponse { value, ..Default::default() }.into())
}

#[test]
fn an_operation_goes_from_pd_to_the_store_and_back() {
    let mut world = World::new();
    let id = world.get("k");
    let (_, call) = world.calls.front().expect("routed");
    assert_eq!((&*call.address, call.context.region_id), ("store:20160", 1));
    world.reply(value("v"));
    assert_eq!(world.engine.poll_outcome(), Some((id, Outcome::RawGet(Ok(Some(Bytes::from_static(b"v")))))));
    assert_eq!(world.engine.running(), 0);
}

#[test]
fn what_one_operation_learnt_serves_the_next() {
    let mut world = World::new();
    world.get("a");
    world.reply(value("1"));
    let config = Config::default();
    let get = raw::get(&config, "b".into(), &RawOptions::new(&config)).expect("a key");
    world.engine.start(world.now, Operation::RawGet(get));
    assert!(matches!(world.engine.poll_command(), Some(EngineCommand::Call { .. })), "no question to PD");
}

#[test]
fn timestamps_asked_together_come_together_and_in_order() {
    let mut world = World::new();
    let ids: Vec<_> = (0..1_000)
        .map(|_| world.engine.start(world.now, Operation::Timestamp(FetchTimestamp::new(&Config::default()))))
        .collect();
    world.settle();
    let mut last = Timestamp::ZERO;
    for id in ids {
        let Some((ended, Outcome::Timestamp(Ok(timestamp)))) = world.engine.poll_outcome() else { panic!() };
        assert_eq!(ended, id);
        assert!(timestamp > last);
        last = timestamp;
    }
    assert_eq!(world.engine.knowledge(KeyCodec::Raw).clock.newest(), Some(last));
}

#[test]
fn a_cancelled_read_is_forgotten_and_its_call_with_it() {
    let mut world = World::new();
    let id = world.get("k");
    let call = world.calls.front().expect("routed").0;
    world.engine.cancel(world.now, id);
    world.settle();
    assert_eq!(world.cancelled, [call]);
    world.engine.handle_reply(world.now, call, value("late"));
    assert_eq!(world.engine.poll_outcome(), None);
    assert_eq!((world.engine.running(), world.engine.calls_under_way()), (0, 0));
}

#[test]
fn a_call_that_nobody_has_taken_is_not_sent_once_it_is_cancelled() {
    let mut world = World::new();
    world.get("a");
    world.reply(value("1"));
    world.engine.poll_outcome().expect("the end of what taught the region");
    let config = Config::default();
    let get = raw::get(&config, "k".into(), &RawOptions::new(&config)).expect("a key");
    let id = world.engine.start(world.now, Operation::RawGet(get));
    world.engine.cancel(world.now, id);
    assert_eq!(world.engine.poll_command(), None);
}

#[test]
fn an_operation_that_backs_off_is_woken_by_its_timer() {
    let mut world = World::new();
    let id = world.get("k");
    world.reply(Err(Fault::new(FaultKind::Overloaded, Execution::NotSent, "store:20160")));
    assert!(world.calls.is_empty());
    world.engine.handle_timeout(world.now);
    world.settle();
    assert!(world.calls.is_empty(), "too early");
    let mut timer = world.advance_to_timer();
    while !matches!(timer, EngineTimer::Operation(..)) {
        timer = world.advance_to_timer();
    }
    assert!(matches!(timer, EngineTimer::Operation(woken, SleepReason::Backoff(_)) if woken == id));
    world.reply(value("v"));
    assert!(matches!(world.engine.poll_outcome(), Some((_, Outcome::RawGet(Ok(Some(_)))))));
}

#[test]
fn an_unreachable_pd_ends_the_operation_with_an_error_that_names_it() {
    let mut engine = Engine::new(Config::default(), vec!["pd:2379".into()], 1);
    let mut now = Time::ZERO;
    engine.start(now, Operation::Timestamp(FetchTimestamp::new(&Config::default())));
    for _ in 0..10_000 {
        while let Some(command) = engine.poll_command() {
            if let EngineCommand::Pd(PdEffect::Call { call, address, .. }) = command {
                let fault = Fault::new(FaultKind::Unreachable, Execution::NotSent, address);
                engine.handle_pd(now, PdInput::Reply { call, result: Err(fault) });
            }
        }
        if let Some((_, outcome)) = engine.poll_outcome() {
            let Outcome::Timestamp(Err(error)) = outcome else { panic!("{outcome:?}") };
            assert!(
                matches!(error, Error::RetriesExhausted { .. }) && error.to_string().contains("pd:2379"),
                "{error}"
            );
            assert!(now > Time::ZERO + Duration::from_secs(20), "the whole budget was spent");
            return;
        }
        let (due, _) = engine.poll_timeout().expect("it never waits for nothing");
        now = now.max(due);
        engine.handle_timeout(now);
    }
    panic!("no end");
}

#[test]
fn a_clone_continues_on_its_own() {
    let mut world = World::new();
    world.get("k");
    let mut fork = world.engine.clone();
    let (call, _) = world.calls.front().expect("routed");
    fork.handle_reply(world.now, *call, value("other"));
    assert_eq!(fork.poll_outcome().map(|(_, outcome)| outcome), Some(Outcome::RawGet(Ok(Some("other".into())))));
    assert_eq!(world.engine.running(), 1);
}

#[test]
fn the_owner_of_a_transaction_is_asked_before_it_commits_if_it_wants_to_be() {
    let mut world = World::new();
    let mut options = CommitOptions::new(world.engine.config());
    options.commit_ts.ask_owner = true;
    let start_ts = Timestamp::compose(1, 0);
    let mut txn = Transaction::new(world.engine.config(), start_ts, world.now, options);
    txn.set("key", "value").expect("it fits");
    let request = txn.begin_commit().expect("it is open");
    let id = world.start(Operation::Commit(Commit::new(request)));
    let (call, _) = world.calls.pop_front().expect("a prewrite");
    world.engine.handle_reply(world.now, call, Ok(kvrpcpb::PrewriteResponse::default().into()));
    world.settle();
    let (check, commit_ts) = world.checks.pop().expect("a question");
    world.engine.handle_checked(world.now, check, Err("no".into()));
    let forbidden = Error::CommitForbidden { start_ts, commit_ts, reason: "no".into() };
    assert_eq!(world.engine.poll_outcome(), Some((id, Outcome::Commit(Err(forbidden)))));
    world.engine.handle_checked(world.now, check, Ok(()));
    assert_eq!(world.engine.poll_outcome(), None, "it is over");
}
