//! A client process: what it knows, and the machines it runs.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::task::Poll;

use tikv_core::backoff::BackoffKind;
use tikv_core::config::Config;
use tikv_core::engine::{Operation, Outcome};
use tikv_core::keyspace::KeyCodec;
use tikv_core::knowledge::Knowledge;
use tikv_core::machine::{
    Abandoned, BackgroundMachine, Call, Command, Context, Event, Machine, Outbox, SleepReason, Token,
};
use tikv_core::request::pd::PdResponse;
use tikv_core::rng::Rng;

use crate::pipelining::Pipelining;
use crate::servers::{Clock, Regions, ask_pd};
use crate::session::{Note, Session};

/// What a machine of a client is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Program {
    /// An operation that somebody waits for.
    Operation(Box<Operation>),
    /// A transaction that somebody waits for.
    Session(Box<Session>),
    /// The same of a pipelined transaction.
    Pipelining(Box<Pipelining>),
    /// What nobody waits for.
    Background(BackgroundMachine),
}

/// Names a machine of a client, in the order in which they were started.
pub(crate) type TaskId = u8;

/// A running machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Task {
    /// Its name.
    pub(crate) id: TaskId,
    program: Program,
    /// Whether anybody wants to know how it ends.
    pub(crate) owned: bool,
    outbox: Outbox,
    /// What it waits for.
    pub(crate) waits: BTreeMap<Token, Wait>,
}

/// What a machine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wait {
    /// The answer to a call.
    Reply,
    /// A sleep that may end now.
    Wake,
    /// A sleep that ends only when something has happened in the cluster: before, its machine could only ask in vain.
    Change,
    /// A sleep between the beats of a heart, which ends when time has passed.
    Leap,
}

/// One process.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Whether it runs.
    pub(crate) alive: bool,
    /// How many operations of its script it has begun.
    pub(crate) begun: usize,
    started: TaskId,
    /// Its machines.
    pub(crate) tasks: Vec<Task>,
    knowledge: Knowledge,
}

/// What a step of a machine has brought about outside of it.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Calls to be sent, with the machine that waits for the answer.
    pub(crate) calls: Vec<(TaskId, Call)>,
    /// Calls whose answers nobody waits for any more.
    pub(crate) cancelled: Vec<(TaskId, Token)>,
    /// How the machine that somebody waited for has ended.
    pub(crate) ended: Option<Outcome>,
    /// What the owners of transactions have learnt.
    pub(crate) notes: Vec<Note>,
}

impl Effects {
    /// Whether nobody but the machine will notice.
    pub(crate) fn is_nothing(&self) -> bool {
        self.calls.is_empty() && self.cancelled.is_empty() && self.ended.is_none() && self.notes.is_empty()
    }
}

/// What is the same for all clients during a step.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    /// The settings.
    pub(crate) config: &'a Config,
    /// Time, and timestamps.
    pub(crate) clock: &'a mut Clock,
    /// The regions as PD knows them.
    pub(crate) regions: &'a Regions,
}

impl Client {
    /// A process that knows where everything is.
    #[must_use]
    pub(crate) fn new(config: &Config, regions: &Regions) -> Self {
        let knowledge = Knowledge::new(KeyCodec::Txn, config);
        regions.teach(Clock::default().now(), &knowledge);
        Client { alive: true, begun: 0, started: 0, tasks: Vec::new(), knowledge }
    }

    /// Starts what somebody waits for.
    pub(crate) fn begin(&mut self, surroundings: &mut Surroundings<'_>, program: Program) -> Effects {
        self.begun += 1;
        let mut run = Run::new(self, surroundings);
        run.launch(program, true);
        run.finish();
        run.effects
    }

    /// Hands a machine what it waits for.
    pub(crate) fn deliver(
        &mut self,
        surroundings: &mut Surroundings<'_>,
        task: TaskId,
        token: Token,
        event: Event,
    ) -> Effects {
        let mut run = Run::new(self, surroundings);
        run.events.push_back((task, token, event));
        run.finish();
        run.effects
    }

    /// Loses interest in what somebody waits for.
    pub(crate) fn abandon(&mut self, surroundings: &mut Surroundings<'_>) -> Effects {
        let mut run = Run::new(self, surroundings);
        if let Some(mut task) = run.take(|task| task.owned) {
            let abandoned = run.with_context(&mut task, |program, cx| match program {
                Program::Operation(operation) => operation.abandon(cx),
                Program::Session(session) => session.abandon(cx),
                Program::Pipelining(session) => session.abandon(cx),
                Program::Background(_) => Abandoned::FinishInBackground,
            });
            task.owned = false;
            run.carry_out(&mut task);
            match abandoned {
                Abandoned::FinishInBackground => run.put_back(task),
                Abandoned::Discard => run.cancel_waits(task),
            }
            run.finish();
        }
        run.effects
    }

    /// The process dies. The calls whose answers it waited for.
    pub(crate) fn crash(&mut self) -> Vec<(TaskId, Token)> {
        self.alive = false;
        let tasks = std::mem::take(&mut self.tasks);
        tasks.into_iter().flat_map(|task| task.waits.into_keys().map(move |token| (task.id, token))).collect()
    }

    /// Something has happened in the cluster.
    pub(crate) fn on_change(&mut self) {
        self.wake(Wait::Change);
    }

    /// Time has passed.
    pub(crate) fn on_leap(&mut self) {
        self.wake(Wait::Change);
        self.wake(Wait::Leap);
    }

    fn wake(&mut self, sleepers: Wait) {
        for wait in self.tasks.iter_mut().flat_map(|task| task.waits.values_mut()) {
            if *wait == sleepers {
                *wait = Wait::Wake;
            }
        }
    }

    /// Whether anything waits for a change.
    #[must_use]
    pub(crate) fn waits_for_change(&self) -> bool {
        self.tasks.iter().any(|task| task.waits.values().any(|wait| *wait == Wait::Change))
    }

    /// The machine that somebody waits for.
    #[must_use]
    pub(crate) fn foreground(&self) -> Option<&Task> {
        self.tasks.iter().find(|task| task.owned)
    }
}

/// Expiry of what is known and the generators of regions are left out: no run is long enough for them to matter.
impl Hash for Client {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.alive, self.begun, self.started, &self.tasks).hash(state);
        if !self.alive {
            return;
        }
        let Knowledge { regions, stores, txn_statuses, clock, .. } = &self.knowledge;
        regions.all().hash(state);
        stores.all().hash(state);
        txn_statuses.all().hash(state);
        (clock.newest(), clock.newest_at()).hash(state);
    }
}

/// A step of one machine, and what follows from it at once: answers of PD, machines that it leaves running.
struct Run<'r, 's> {
    client: &'r mut Client,
    surroundings: &'r mut Surroundings<'s>,
    events: VecDeque<(TaskId, Token, Event)>,
    effects: Effects,
}

impl<'r, 's> Run<'r, 's> {
    fn new(client: &'r mut Client, surroundings: &'r mut Surroundings<'s>) -> Self {
        Run { client, surroundings, events: VecDeque::new(), effects: Effects::default() }
    }

    fn launch(&mut self, program: Program, owned: bool) {
        let id = self.client.started;
        self.client.started += 1;
        let mut task = Task { id, program, owned, outbox: Outbox::new(), waits: BTreeMap::new() };
        let poll = self.with_context(&mut task, Program::start);
        self.after_step(task, poll);
    }

    fn finish(&mut self) {
        while let Some((id, token, event)) = self.events.pop_front() {
            let Some(mut task) = self.take(|task| task.id == id) else { continue };
            let poll = self.with_context(&mut task, |program, cx| program.handle(cx, token, event));
            task.waits.remove(&token);
            self.after_step(task, poll);
        }
    }

    fn after_step(&mut self, mut task: Task, poll: Poll<Option<Outcome>>) {
        self.carry_out(&mut task);
        match poll {
            Poll::Pending => self.put_back(task),
            Poll::Ready(end) => {
                if task.owned {
                    self.effects.ended = end;
                }
                self.cancel_waits(task);
            }
        }
    }

    fn carry_out(&mut self, task: &mut Task) {
        let commands: Vec<_> = task.outbox.drain().collect();
        for command in commands {
            match command {
                Command::Call(call) => {
                    task.waits.insert(call.token, Wait::Reply);
                    self.effects.calls.push((task.id, call));
                }
                Command::Pd { token, request } => {
                    let answer = ask_pd(self.surroundings.clock, self.surroundings.regions, &request);
                    if let PdResponse::Timestamp(timestamp) = answer {
                        self.client.knowledge.clock.learn(self.surroundings.clock.now(), timestamp);
                    }
                    self.events.push_back((task.id, token, Event::Pd(Ok(answer))));
                }
                Command::Sleep { token, reason, .. } => {
                    task.waits.insert(token, wait_for(reason));
                }
                Command::Cancel { token } => {
                    self.events.retain(|(id, other, _)| (*id, *other) != (task.id, token));
                    if task.waits.remove(&token) == Some(Wait::Reply) {
                        self.effects.cancelled.push((task.id, token));
                    }
                }
                Command::Spawn(machine) => self.launch(Program::Background(machine), false),
                // No transaction here asks its owner.
                Command::CheckCommit { .. } | Command::Reconnect { .. } | Command::Observe(_) => {}
            }
        }
    }

    fn with_context<T>(&mut self, task: &mut Task, step: impl FnOnce(&mut Program, &mut Context<'_>) -> T) -> T {
        let (now, config) = (self.surroundings.clock.now(), self.surroundings.config);
        // Always the same dice: how long a sleep is does not matter where sleeps take no time.
        let mut rng = Rng::new(0);
        let mut cx = Context::new(now, &mut rng, &self.client.knowledge, config, &mut task.outbox);
        let result = step(&mut task.program, &mut cx);
        if let Program::Session(session) = &mut task.program {
            self.effects.notes.extend(session.take_notes());
        }
        result
    }

    fn cancel_waits(&mut self, task: Task) {
        for (token, wait) in task.waits {
            if wait == Wait::Reply {
                self.effects.cancelled.push((task.id, token));
            }
        }
    }

    fn take(&mut self, which: impl Fn(&Task) -> bool) -> Option<Task> {
        let index = self.client.tasks.iter().position(which)?;
        Some(self.client.tasks.remove(index))
    }

    fn put_back(&mut self, task: Task) {
        let tasks = &mut self.client.tasks;
        let index = tasks.partition_point(|other| other.id < task.id);
        tasks.insert(index, task);
    }
}

fn wait_for(reason: SleepReason) -> Wait {
    match reason {
        SleepReason::LockAlive | SleepReason::Backoff(BackoffKind::TxnNotFound) => Wait::Change,
        SleepReason::Heartbeat => Wait::Leap,
        _ => Wait::Wake,
    }
}

impl Program {
    fn start(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        match self {
            Program::Operation(operation) => operation.start(cx).map(Some),
            Program::Session(session) => session.start(cx).map(Some),
            Program::Pipelining(session) => session.start(cx).map(Some),
            Program::Background(machine) => machine.start(cx).map(|()| None),
        }
    }

    fn handle(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Option<Outcome>> {
        match self {
            Program::Operation(operation) => operation.handle(cx, token, event).map(Some),
            Program::Session(session) => session.handle(cx, token, event).map(Some),
            Program::Pipelining(session) => session.handle(cx, token, event).map(Some),
            Program::Background(machine) => machine.handle(cx, token, event).map(|()| None),
        }
    }
}
