//! A harness in which a test plays the driver: given, command, answer, command, answer, done.
//!
//! Commands are expected in the order of issue. `expect_…` takes the next one and fails the test if it is another;
//! `reply`, `wake`, … answer the command that was expected last, `…_to` an earlier one.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::task::Poll;
use std::time::Duration;

use tikv_proto::{errorpb, metapb};

use super::{BackgroundMachine, Call, Command, Context, Event, Machine, Observation, Outbox, SleepReason, Token};
use crate::config::Config;
use crate::error::{Execution, Fault, FaultKind, PdError};
use crate::key::KeyRange;
use crate::keyspace::KeyCodec;
use crate::knowledge::Knowledge;
use crate::knowledge::regions::{Inserted, Region, RegionVerId, Replica};
use crate::request::pd::{PdRequest, PdResponse};
use crate::request::{RequestContext, Response, StoreRequest, StoreResponse};
use crate::rng::Rng;
use crate::time::Time;
use crate::timestamp::Timestamp;

pub(crate) struct Script<M: Machine> {
    machine: M,
    started: bool,
    now: Time,
    rng: Rng,
    pub(crate) config: Config,
    pub(crate) knowledge: Knowledge,
    outbox: Outbox,
    commands: VecDeque<Command>,
    observations: Vec<Observation>,
    last: Option<Token>,
    last_call: Option<Call>,
    output: Option<M::Output>,
}

/// A timestamp whose physical part is `ms` milliseconds.
pub(crate) fn ts(ms: u64) -> Timestamp {
    Timestamp::compose(ms, 0)
}

/// A region of version 1 whose peers are on stores 1, 2 and 3, led by the one on store 1; `region(2, "a".."m")`.
pub(crate) fn region(id: u64, range: std::ops::Range<&str>) -> Region {
    let replicas = (1..=3).map(|store| Replica {
        peer: metapb::Peer { id: id * 10 + store, store_id: store, ..Default::default() },
        store_epoch: 0,
    });
    Region {
        ver_id: RegionVerId { id, conf_ver: 1, version: 1 },
        range: KeyRange::new(range.start, range.end),
        replicas: replicas.collect(),
        leader: 0,
        buckets: None,
    }
}

/// Knowledge of stores 1, 2, 3 (addresses "store-1" and so on) and of the given regions.
pub(crate) fn knowledge(codec: KeyCodec, regions: impl IntoIterator<Item = Region>) -> Knowledge {
    let knowledge = Knowledge::new(codec, &Config::default());
    for id in 1..=3 {
        knowledge.stores.learn(&metapb::Store { id, address: format!("store-{id}"), ..Default::default() });
    }
    for region in regions {
        assert_eq!(knowledge.regions.insert(Time::ZERO, region), Inserted::Accepted);
    }
    knowledge
}

/// A fault after which the request may have been executed.
pub(crate) fn maybe_executed() -> Fault {
    Fault::new(FaultKind::Disconnected, Execution::MaybeExecuted, "store-1")
}

/// A fault before the request left.
pub(crate) fn not_sent() -> Fault {
    Fault::new(FaultKind::Unreachable, Execution::NotSent, "store-1")
}

impl<M: Machine> Script<M>
where
    M::Output: Debug,
{
    /// The machine with knowledge of one region over all keys, for transactional keys.
    pub(crate) fn new(machine: M) -> Self {
        Script::with_knowledge(machine, knowledge(KeyCodec::Txn, [region(1, "".."")]))
    }

    pub(crate) fn with_knowledge(machine: M, knowledge: Knowledge) -> Self {
        Script {
            machine,
            started: false,
            now: Time::from_millis(1),
            rng: Rng::new(1),
            config: Config::default(),
            knowledge,
            outbox: Outbox::new(),
            commands: VecDeque::new(),
            observations: Vec::new(),
            last: None,
            last_call: None,
            output: None,
        }
    }

    /// Virtual time goes on.
    pub(crate) fn advance(&mut self, duration: Duration) -> &mut Self {
        self.now += duration;
        self
    }

    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// Expects an RPC of type `R` to `store`, checks it, and returns its token.
    pub(crate) fn expect_call<R: StoreRequest>(&mut self, store: u64, check: impl FnOnce(&R)) -> Token {
        let command = self.next_command();
        let Command::Call(call) = command else { panic!("expected {:?}, got {command:?}", R::KIND) };
        assert_eq!(call.store_id, store, "{call:?}");
        let request = call.request.clone();
        assert_eq!(request.kind(), R::KIND, "{request:?}");
        // The row of the table is known, so that the message can be read back through its encoding.
        let mut bytes = bytes::BytesMut::new();
        request.encode_with_context(&Default::default(), &mut bytes);
        check(&R::decode(bytes.freeze()).expect("what was encoded"));
        let token = call.token;
        self.last = Some(token);
        self.last_call = Some(call);
        token
    }

    /// The RPC that was expected last.
    pub(crate) fn last_call(&self) -> &Call {
        self.last_call.as_ref().expect("an expected call")
    }

    /// The context of that RPC, as its store sees it.
    pub(crate) fn last_context(&self) -> RequestContext {
        self.last_call().context.to_message()
    }

    pub(crate) fn expect_sleep(&mut self, check: impl FnOnce(Duration, SleepReason)) -> Token {
        let now = self.now;
        let command = self.next_command();
        let Command::Sleep { token, until, reason } = command else { panic!("expected a sleep, got {command:?}") };
        check(until.saturating_since(now), reason);
        self.last = Some(token);
        token
    }

    /// Expects the sleep that ends at the deadline, to be woken by [`Script::event`].
    pub(crate) fn expect_alarm(&mut self) -> Token {
        self.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Deadline))
    }

    pub(crate) fn expect_pd(&mut self, expected: &PdRequest) -> Token {
        let command = self.next_command();
        let Command::Pd { token, request } = command else { panic!("expected {expected:?}, got {command:?}") };
        assert_eq!(request, *expected);
        self.last = Some(token);
        token
    }

    /// Expects that the owner is asked whether the transaction may commit at this timestamp.
    pub(crate) fn expect_check(&mut self, expected: Timestamp) -> Token {
        let command = self.next_command();
        let Command::CheckCommit { token, commit_ts, .. } = command else {
            panic!("expected a check, got {command:?}")
        };
        assert_eq!(commit_ts, expected);
        self.last = Some(token);
        token
    }

    pub(crate) fn expect_timestamp(&mut self) -> Token {
        self.expect_pd(&PdRequest::Timestamp)
    }

    pub(crate) fn expect_cancel(&mut self, token: Token) -> &mut Self {
        let command = self.next_command();
        assert_eq!(command, Command::Cancel { token });
        self
    }

    pub(crate) fn expect_reconnect(&mut self, expected: &str) -> &mut Self {
        let command = self.next_command();
        let Command::Reconnect { address } = command else { panic!("expected a reconnect, got {command:?}") };
        assert_eq!(&*address, expected);
        self
    }

    pub(crate) fn expect_spawn(&mut self) -> BackgroundMachine {
        let command = self.next_command();
        let Command::Spawn(machine) = command else { panic!("expected a background machine, got {command:?}") };
        machine
    }

    /// Takes the next command, whatever it is; none if the machine waits or has ended. Answered by [`Script::event`].
    pub(crate) fn next(&mut self) -> Option<Command> {
        self.ensure_started();
        self.commands.pop_front()
    }

    /// The next command, left where it is.
    pub(crate) fn peek(&mut self) -> Option<&Command> {
        self.ensure_started();
        self.commands.front()
    }

    /// Expects that no command is left.
    pub(crate) fn expect_nothing(&mut self) -> &mut Self {
        self.ensure_started();
        assert!(self.commands.is_empty(), "unexpected: {:?}", self.commands);
        self
    }

    pub(crate) fn reply<R: StoreResponse>(&mut self, response: R) -> &mut Self
    where
        Response: From<R>,
    {
        let token = self.last.expect("an expected command");
        self.reply_to(token, response)
    }

    pub(crate) fn reply_to<R: StoreResponse>(&mut self, token: Token, response: R) -> &mut Self
    where
        Response: From<R>,
    {
        self.event(token, Event::Reply(Ok(response.into())))
    }

    /// Answers the last call with nothing but a region error.
    pub(crate) fn region_error(&mut self, error: errorpb::Error) -> &mut Self {
        let call = self.last_call();
        let (token, kind) = (call.token, call.request.kind());
        let response = Response::of_region_error(kind, error).expect("a regional command");
        self.event(token, Event::Reply(Ok(response)))
    }

    pub(crate) fn fault(&mut self, fault: Fault) -> &mut Self {
        let token = self.last.expect("an expected command");
        self.event(token, Event::Reply(Err(fault)))
    }

    pub(crate) fn timestamp(&mut self, timestamp: Timestamp) -> &mut Self {
        self.pd(Ok(PdResponse::Timestamp(timestamp)))
    }

    pub(crate) fn pd(&mut self, response: Result<PdResponse, PdError>) -> &mut Self {
        let token = self.last.expect("an expected command");
        self.event(token, Event::Pd(response))
    }

    /// The timer that was expected last fires.
    pub(crate) fn wake(&mut self) -> &mut Self {
        let token = self.last.expect("an expected command");
        self.event(token, Event::Woken)
    }

    /// Hands any event in.
    pub(crate) fn event(&mut self, token: Token, event: Event) -> &mut Self {
        assert!(self.output.is_none(), "an event after the end: {event:?}");
        self.step(|machine, cx| machine.handle(cx, token, event));
        self
    }

    /// Expects that the machine has ended, and returns its output.
    pub(crate) fn expect_done(&mut self) -> M::Output {
        self.expect_nothing();
        self.output.take().expect("the machine has not ended")
    }

    /// The output, if the machine has ended.
    pub(crate) fn take_output(&mut self) -> Option<M::Output> {
        self.output.take()
    }

    /// Hands any event in, even after the end.
    pub(crate) fn poke(&mut self, token: Token, event: Event) -> Poll<M::Output> {
        let mut cx = Context::new(self.now, &mut self.rng, &self.knowledge, &self.config, &mut self.outbox);
        let poll = self.machine.handle(&mut cx, token, event);
        self.collect();
        poll
    }

    pub(crate) fn machine(&self) -> &M {
        &self.machine
    }

    /// The owner loses interest.
    pub(crate) fn abandon(&mut self) -> super::Abandoned {
        self.ensure_started();
        let mut cx = Context::new(self.now, &mut self.rng, &self.knowledge, &self.config, &mut self.outbox);
        let abandoned = self.machine.abandon(&mut cx);
        self.collect();
        abandoned
    }

    /// What observers were told so far.
    pub(crate) fn observations(&self) -> &[Observation] {
        &self.observations
    }

    fn next_command(&mut self) -> Command {
        self.ensure_started();
        let output = &self.output;
        self.commands.pop_front().unwrap_or_else(|| panic!("no command is left; output: {output:?}"))
    }

    fn ensure_started(&mut self) {
        if !self.started {
            self.started = true;
            self.step(Machine::start);
        }
    }

    fn step(&mut self, step: impl FnOnce(&mut M, &mut Context<'_>) -> Poll<M::Output>) {
        let mut cx = Context::new(self.now, &mut self.rng, &self.knowledge, &self.config, &mut self.outbox);
        if let Poll::Ready(output) = step(&mut self.machine, &mut cx) {
            self.output = Some(output);
        }
        self.collect();
    }

    fn collect(&mut self) {
        for command in self.outbox.drain() {
            match command {
                Command::Observe(observation) => self.observations.push(observation),
                command => self.commands.push_back(command),
            }
        }
    }
}
