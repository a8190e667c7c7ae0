//! Runs machines on the model: virtual time, requests and answers in any order, some of them lost.

use std::time::Duration;

use super::Model;
use crate::config::Config;
use crate::error::{Execution, Fault, FaultKind};
use crate::keyspace::KeyCodec;
use crate::knowledge::Knowledge;
use crate::machine::script::knowledge;
use crate::machine::{BackgroundMachine, Call, Command, Context, Event, Machine, Outbox, Token};
use crate::request::pd::{PdRequest, PdResponse};
use crate::rng::Rng;
use crate::time::Time;
use crate::timestamp::Timestamp;

/// More steps than any read here needs.
const MAX_STEPS: usize = 20_000;

/// A client and its cluster.
#[derive(Debug)]
pub(in crate::snapshot::tests) struct Run {
    pub(in crate::snapshot::tests) model: Model,
    pub(in crate::snapshot::tests) config: Config,
    knowledge: Knowledge,
    rng: Rng,
    now: Time,
    pd_start: Timestamp,
    background: Vec<BackgroundMachine>,
}

/// Something on its way.
#[derive(Debug)]
struct Pending {
    at: Time,
    token: Token,
    what: What,
}

#[derive(Debug)]
enum What {
    Request(Call),
    Question(PdRequest),
    Answer(Box<Event>),
}

impl Run {
    /// A client that knows nothing of the cluster of `model` but its stores.
    pub(in crate::snapshot::tests) fn new(model: Model, rng: Rng) -> Self {
        Run {
            pd_start: model.last_ts().next(),
            model,
            config: Config::default(),
            knowledge: knowledge(KeyCodec::Txn, []),
            rng,
            now: Time::from_millis(1),
            background: Vec::new(),
        }
    }

    /// PD's newest timestamp.
    pub(in crate::snapshot::tests) fn pd_now(&self) -> Timestamp {
        Timestamp::compose(self.pd_start.physical_ms() + self.now.as_millis(), self.pd_start.logical())
    }

    /// What the machine ends with.
    pub(in crate::snapshot::tests) fn run<M: Machine>(&mut self, mut machine: M) -> M::Output {
        let mut outbox = Outbox::new();
        let mut pending: Vec<Pending> = Vec::new();
        let mut rng = self.rng.child();
        let mut cx = Context::new(self.now, &mut rng, &self.knowledge, &self.config, &mut outbox);
        let mut poll = machine.start(&mut cx);
        for _ in 0..MAX_STEPS {
            self.collect(&mut outbox, &mut pending);
            if let std::task::Poll::Ready(output) = poll {
                return output;
            }
            let next = (0..pending.len()).min_by_key(|index| (pending[*index].at, pending[*index].token));
            let Pending { at, token, what } = pending.remove(next.expect("the machine waits for nothing"));
            self.now = self.now.max(at);
            let event = match what {
                What::Answer(event) => *event,
                What::Question(question) => {
                    pending.push(self.on_its_way(token, Event::Pd(Ok(self.answer(question)))));
                    continue;
                }
                What::Request(call) => {
                    let event = self.deliver(&call);
                    pending.push(self.on_its_way(token, event));
                    continue;
                }
            };
            let mut cx = Context::new(self.now, &mut rng, &self.knowledge, &self.config, &mut outbox);
            poll = machine.handle(&mut cx, token, event);
        }
        panic!("no end in sight");
    }

    /// Background tasks run to their end, or are lost.
    pub(in crate::snapshot::tests) fn run_background(&mut self) {
        for machine in std::mem::take(&mut self.background) {
            if self.rng.below(3) > 0 {
                self.run(machine);
            }
        }
    }

    fn collect(&mut self, outbox: &mut Outbox, pending: &mut Vec<Pending>) {
        for command in outbox.drain() {
            match command {
                Command::Call(call) => {
                    let (at, token) = (self.delayed(), call.token);
                    pending.push(Pending { at, token, what: What::Request(call) });
                }
                Command::Pd { token, request } => {
                    pending.push(Pending { at: self.delayed(), token, what: What::Question(request) });
                }
                Command::Sleep { token, until, .. } => {
                    pending.push(Pending { at: until, token, what: What::Answer(Box::new(Event::Woken)) });
                }
                Command::Cancel { token } => pending.retain(|other| other.token != token),
                Command::Spawn(machine) => self.background.push(machine),
                Command::CheckCommit { .. } | Command::Reconnect { .. } | Command::Observe(_) => {}
            }
        }
    }

    fn delayed(&mut self) -> Time {
        self.now + Duration::from_micros(self.rng.below(5_000))
    }

    fn on_its_way(&mut self, token: Token, event: Event) -> Pending {
        Pending { at: self.delayed(), token, what: What::Answer(Box::new(event)) }
    }

    /// A request reaches its store, or does not, and the answer gets back, or does not.
    fn deliver(&mut self, call: &Call) -> Event {
        let lost = |execution| Fault::new(FaultKind::Timeout, execution, call.address.clone());
        match self.rng.below(40) {
            0 => Event::Reply(Err(lost(Execution::NotSent))),
            1 => {
                self.model.execute(call);
                Event::Reply(Err(lost(Execution::MaybeExecuted)))
            }
            _ => Event::Reply(Ok(self.model.execute(call))),
        }
    }

    fn answer(&self, question: PdRequest) -> PdResponse {
        match question {
            PdRequest::Timestamp => PdResponse::Timestamp(self.pd_now()),
            PdRequest::RegionByKey { key, .. } => PdResponse::Region(Some(self.model.regions.of(&key))),
            PdRequest::PrevRegion { key, .. } => PdResponse::Region(self.model.regions.before(&key)),
            question => panic!("a read asked {question:?}"),
        }
    }
}
