//! The whole protocol behind one value, for event loops of one's own.
//!
//! An [`Engine`] holds the PD client, what is known of the cluster, and a table of running operations. It does no I/O: the
//! owner moves messages. The async client does not use it (each of its operations runs on its caller's task); simulations,
//! fuzzers, and programs without an async runtime do. Both drive the same machines.

mod operation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Poll;

pub use operation::{Operation, Outcome};

use crate::config::Config;
use crate::error::Fault;
use crate::keyspace::KeyCodec;
use crate::knowledge::Knowledge;
use crate::machine::{
    Abandoned, BackgroundMachine, Call, Command, Context, Event, Machine, Observation, Outbox, Phases, SleepReason,
    Token, TransitionCounts,
};
use crate::pd::{PdClient, PdEffect, PdInput, PdTimer, QuestionId};
use crate::request::Response;
use crate::request::pd::PdResponse;
use crate::rng::Rng;
use crate::time::Time;
use crate::timestamp::Timestamp;
use crate::{admin, lock, pd, route, snapshot, split, txn};

/// The machines that declare their phases.
pub fn phases() -> impl Iterator<Item = &'static Phases> {
    const SINGLE: &[&Phases] = &[&pd::PHASES, &split::PHASES];
    let all =
        [SINGLE, route::PHASES, lock::PHASES, snapshot::PHASES, txn::PHASES, txn::PIPELINED_PHASES, admin::PHASES];
    all.into_iter().flatten().copied()
}

/// Names an operation of an [`Engine`]. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub u64);

/// Names an RPC to a store. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreCallId(pub u64);

/// Names a question to the owner of a transaction. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckId(OperationId, Token);

/// Something that the engine wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EngineCommand {
    /// Send an RPC to a store; answered by [`Engine::handle_reply`].
    Call {
        /// Names the RPC.
        id: StoreCallId,
        /// Address, context, request and deadline.
        call: Box<Call>,
    },
    /// Forget an RPC; a reply that still comes is ignored.
    CancelCall {
        /// The RPC.
        id: StoreCallId,
    },
    /// Not the store that was expected listens at this address: connect anew for the next call to it, since the name may
    /// stand for another machine by now.
    Reconnect {
        /// Where.
        address: Arc<str>,
    },
    /// Ask the owner of a transaction whether it may commit; answered by [`Engine::handle_checked`].
    CheckCommit {
        /// Names the question.
        id: CheckId,
        /// The transaction.
        start_ts: Timestamp,
        /// When it would commit.
        commit_ts: Timestamp,
    },
    /// Talk to PD; answered by [`Engine::handle_pd`].
    Pd(PdEffect),
    /// Something worth telling an observer.
    Observe(Observation),
}

/// Why the engine wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineTimer {
    /// An operation sleeps.
    Operation(OperationId, SleepReason),
    /// The PD client watches the time.
    Pd(PdTimer),
}

/// The protocol as a table of operations.
///
/// # How to drive it
///
/// After any of [`start`](Engine::start), [`cancel`](Engine::cancel), [`handle_reply`](Engine::handle_reply),
/// [`handle_pd`](Engine::handle_pd) and [`handle_timeout`](Engine::handle_timeout), call, in this order,
///
/// 1. [`poll_command`](Engine::poll_command) until it returns `None`, and carry the commands out,
/// 2. [`poll_outcome`](Engine::poll_outcome) until it returns `None`: operations that have ended,
/// 3. [`poll_timeout`](Engine::poll_timeout) once: it replaces the timer of before.
///
/// Times given to the engine must never go back. The number of running operations is the owner's to bound.
///
/// ```
/// use tikv_core::config::Config;
/// use tikv_core::engine::{Engine, EngineCommand, Operation};
/// use tikv_core::raw::{self, RawOptions};
/// use tikv_core::time::Time;
///
/// let config = Config::default();
/// let mut engine = Engine::new(config.clone(), vec!["pd:2379".into()], 1);
/// let get = raw::get(&config, "key".into(), &RawOptions::new(&config))?;
/// engine.start(Time::ZERO, Operation::RawGet(get));
/// // The region of the key is not known, so PD is asked for its members first.
/// assert!(matches!(engine.poll_command(), Some(EngineCommand::Pd(_))));
/// # Ok::<(), tikv_core::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Engine {
    config: Config,
    raw: Knowledge,
    txn: Knowledge,
    pd: PdClient<Waiter>,
    rng: Rng,
    next_operation: u64,
    next_call: u64,
    /// None where an operation takes a step: it comes back to its place, or goes.
    operations: BTreeMap<OperationId, Option<Box<Running>>>,
    calls: BTreeMap<StoreCallId, Waiter>,
    timers: BTreeMap<(Time, Waiter), SleepReason>,
    commands: VecDeque<EngineCommand>,
    outcomes: VecDeque<(OperationId, Outcome)>,
    transitions: TransitionCounts,
}

/// Who waits for an answer.
type Waiter = (OperationId, Token);

#[derive(Clone, Debug)]
struct Running {
    task: Task,
    codec: KeyCodec,
    rng: Rng,
    /// Keeps the counter of the operation's tokens.
    outbox: Outbox,
    /// What is waited for, in the order of the tokens, which is the order of the commands.
    waits: Vec<(Token, Wait)>,
    /// Whether anybody wants to know the outcome.
    owned: bool,
}

#[derive(Clone, Debug)]
enum Task {
    Operation(Box<Operation>),
    Background(BackgroundMachine),
}

#[derive(Clone, Copy, Debug)]
enum Wait {
    Call(StoreCallId),
    Timer(Time),
    Pd(QuestionId),
    Check,
}

impl Engine {
    /// An engine that knows nothing but where PD's members listen (`host:port`). Everything random follows from `seed`.
    #[must_use]
    pub fn new(config: Config, endpoints: Vec<String>, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        Engine {
            raw: Knowledge::new(KeyCodec::Raw, &config),
            txn: Knowledge::new(KeyCodec::Txn, &config),
            pd: PdClient::new(&config, endpoints, None, rng.child()),
            config,
            rng,
            next_operation: 0,
            next_call: 0,
            operations: BTreeMap::new(),
            calls: BTreeMap::new(),
            timers: BTreeMap::new(),
            commands: VecDeque::new(),
            outcomes: VecDeque::new(),
            transitions: TransitionCounts::default(),
        }
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is known of the cluster, as raw or transactional keys see it.
    #[must_use]
    pub fn knowledge(&self, codec: KeyCodec) -> &Knowledge {
        match codec {
            KeyCodec::Raw => &self.raw,
            KeyCodec::Txn => &self.txn,
        }
    }

    /// Begins an operation.
    pub fn start(&mut self, now: Time, operation: Operation) -> OperationId {
        let codec = operation.codec();
        let id = self.launch(now, Task::Operation(Box::new(operation)), codec, true);
        self.serve_pd(now);
        id
    }

    /// The owner of an operation has lost interest: its outcome will not be reported. What has to be finished is finished in
    /// the background, everything else is forgotten.
    pub fn cancel(&mut self, now: Time, id: OperationId) {
        let Some(mut running) = self.operations.remove(&id).flatten().filter(|running| running.owned) else { return };
        let abandoned = self.with_context(now, &mut running, Task::abandon);
        running.owned = false;
        self.carry_out(now, id, &mut running);
        match abandoned {
            Abandoned::FinishInBackground => {
                self.operations.insert(id, Some(running));
            }
            Abandoned::Discard => self.cancel_waits(id, *running),
        }
        self.serve_pd(now);
    }

    /// A store has answered, or the network has failed. Unknown ids are ignored.
    pub fn handle_reply(&mut self, now: Time, id: StoreCallId, reply: Result<Response, Fault>) {
        if let Some(waiter) = self.calls.remove(&id) {
            self.deliver(now, waiter, Event::Reply(reply));
            self.serve_pd(now);
        }
    }

    /// The owner of a transaction has said whether it may commit, and if not, why. Unknown ids are ignored.
    pub fn handle_checked(&mut self, now: Time, CheckId(operation, token): CheckId, answer: Result<(), Arc<str>>) {
        self.deliver(now, (operation, token), Event::Checked(answer));
        self.serve_pd(now);
    }

    /// PD has answered, or the network has failed.
    pub fn handle_pd(&mut self, now: Time, input: PdInput) {
        self.pd.handle(now, input);
        self.serve_pd(now);
    }

    /// The time of [`Engine::poll_timeout`] has come. Too early is harmless.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(((due, waiter), _)) = self.timers.first_key_value() {
            if *due > now {
                break;
            }
            let waiter = *waiter;
            self.timers.pop_first();
            self.deliver(now, waiter, Event::Woken);
        }
        if self.pd.poll_timeout().is_some_and(|(due, _)| due <= now) {
            self.pd.handle_timeout(now);
        }
        self.serve_pd(now);
    }

    /// The next command to carry out.
    #[must_use]
    pub fn poll_command(&mut self) -> Option<EngineCommand> {
        // PD's effects are taken as late as possible: questions asked together share an RPC.
        self.commands.pop_front().or_else(|| self.pd.poll_effect().map(EngineCommand::Pd))
    }

    /// The next operation that has ended.
    #[must_use]
    pub fn poll_outcome(&mut self) -> Option<(OperationId, Outcome)> {
        self.outcomes.pop_front()
    }

    /// When [`Engine::handle_timeout`] is due, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Time, EngineTimer)> {
        let operation =
            self.timers.first_key_value().map(|((due, (id, _)), reason)| (*due, EngineTimer::Operation(*id, *reason)));
        let pd = self.pd.poll_timeout().map(|(due, timer)| (due, EngineTimer::Pd(timer)));
        match (operation, pd) {
            (Some(operation), Some(pd)) if pd.0 < operation.0 => Some(pd),
            (Some(operation), _) => Some(operation),
            (None, pd) => pd,
        }
    }

    /// How many operations run, those in the background included.
    #[must_use]
    pub fn running(&self) -> usize {
        self.operations.len()
    }

    /// How many calls to stores it expects to hear of. None without operations.
    #[must_use]
    pub fn calls_under_way(&self) -> usize {
        self.calls.len()
    }

    /// How often each transition between phases was taken; nothing is counted without the feature `transitions`.
    #[must_use]
    pub fn transitions(&self) -> &TransitionCounts {
        &self.transitions
    }

    fn launch(&mut self, now: Time, task: Task, codec: KeyCodec, owned: bool) -> OperationId {
        let id = OperationId(self.next_operation);
        self.next_operation += 1;
        let (rng, outbox, waits) = (self.rng.child(), Outbox::new(), Vec::new());
        let mut running = Box::new(Running { task, codec, rng, outbox, waits, owned });
        let poll = self.with_context(now, &mut running, Task::start);
        self.after_step(now, id, running, poll);
        id
    }

    fn deliver(&mut self, now: Time, (id, token): Waiter, event: Event) {
        let Some(mut running) = self.operations.get_mut(&id).and_then(Option::take) else { return };
        let poll = match take_wait(&mut running.waits, token) {
            Some(_) => self.with_context(now, &mut running, |task, cx| task.handle(cx, token, event)),
            None => Poll::Pending,
        };
        self.after_step(now, id, running, poll);
    }

    fn after_step(&mut self, now: Time, id: OperationId, mut running: Box<Running>, poll: Poll<Option<Outcome>>) {
        self.carry_out(now, id, &mut running);
        match poll {
            Poll::Pending => {
                self.operations.insert(id, Some(running));
            }
            Poll::Ready(outcome) => {
                self.operations.remove(&id);
                if let Some(outcome) = outcome.filter(|_| running.owned) {
                    self.outcomes.push_back((id, outcome));
                }
                self.cancel_waits(id, *running);
            }
        }
    }

    fn with_context<T>(
        &self,
        now: Time,
        running: &mut Running,
        step: impl FnOnce(&mut Task, &mut Context<'_>) -> T,
    ) -> T {
        let knowledge = self.knowledge(running.codec);
        let mut cx = Context::new(now, &mut running.rng, knowledge, &self.config, &mut running.outbox);
        step(&mut running.task, &mut cx)
    }

    fn carry_out(&mut self, now: Time, id: OperationId, running: &mut Running) {
        #[cfg(feature = "transitions")]
        running.outbox.take_transitions().for_each(|step| self.transitions.note(step));
        let Running { outbox, waits, codec, .. } = running;
        for command in outbox.drain() {
            match command {
                Command::Call(call) => {
                    let call_id = StoreCallId(self.next_call);
                    self.next_call += 1;
                    waits.push((call.token, Wait::Call(call_id)));
                    self.calls.insert(call_id, (id, call.token));
                    self.commands.push_back(EngineCommand::Call { id: call_id, call: Box::new(call) });
                }
                Command::Pd { token, request } => {
                    let question = self.pd.submit(now, (id, token), request, now + self.config.pd_timeout);
                    waits.push((token, Wait::Pd(question)));
                }
                Command::CheckCommit { token, start_ts, commit_ts } => {
                    waits.push((token, Wait::Check));
                    let id = CheckId(id, token);
                    self.commands.push_back(EngineCommand::CheckCommit { id, start_ts, commit_ts });
                }
                Command::Sleep { token, until, reason } => {
                    waits.push((token, Wait::Timer(until)));
                    self.timers.insert((until, (id, token)), reason);
                }
                Command::Cancel { token } => {
                    if let Some(wait) = take_wait(waits, token) {
                        self.cancel_wait((id, token), wait);
                    }
                }
                Command::Reconnect { address } => self.commands.push_back(EngineCommand::Reconnect { address }),
                Command::Spawn(machine) => {
                    self.launch(now, Task::Background(machine), *codec, false);
                }
                Command::Observe(observation) => self.commands.push_back(EngineCommand::Observe(observation)),
            }
        }
    }

    /// Hands out what the PD client has answered. An answer may make an operation ask again, but never without end: each
    /// question is a step of an operation that is bounded itself.
    fn serve_pd(&mut self, now: Time) {
        while let Some((waiter, answer)) = self.pd.poll_completion() {
            if let Ok(PdResponse::Timestamp(timestamp)) = answer {
                self.raw.clock.learn(now, timestamp);
                self.txn.clock.learn(now, timestamp);
            }
            self.deliver(now, waiter, Event::Pd(answer));
        }
    }

    fn cancel_waits(&mut self, id: OperationId, running: Running) {
        for (token, wait) in running.waits {
            self.cancel_wait((id, token), wait);
        }
    }

    fn cancel_wait(&mut self, waiter: Waiter, wait: Wait) {
        match wait {
            Wait::Call(call) => {
                self.calls.remove(&call);
                self.cancel_call(call);
            }
            Wait::Timer(due) => {
                self.timers.remove(&(due, waiter));
            }
            Wait::Pd(question) => self.pd.cancel(question),
            // Whoever is asked answers in vain.
            Wait::Check => {}
        }
    }

    /// A call that nobody has taken yet is not sent at all: sent and cancelled in one breath, it would still reach its store.
    fn cancel_call(&mut self, cancelled: StoreCallId) {
        let untaken = |command: &EngineCommand| matches!(command, EngineCommand::Call { id, .. } if *id == cancelled);
        match self.commands.iter().rposition(untaken) {
            Some(index) => drop(self.commands.remove(index)),
            None => self.commands.push_back(EngineCommand::CancelCall { id: cancelled }),
        }
    }
}

/// What was waited for under this name.
fn take_wait(waits: &mut Vec<(Token, Wait)>, token: Token) -> Option<Wait> {
    let index = waits.binary_search_by_key(&token, |(token, _)| *token).ok()?;
    Some(waits.remove(index).1)
}

impl Task {
    fn start(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        match self {
            Task::Operation(operation) => operation.start(cx).map(Some),
            Task::Background(machine) => machine.start(cx).map(|()| None),
        }
    }

    fn handle(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Option<Outcome>> {
        match self {
            Task::Operation(operation) => operation.handle(cx, token, event).map(Some),
            Task::Background(machine) => machine.handle(cx, token, event).map(|()| None),
        }
    }

    fn abandon(&mut self, cx: &mut Context<'_>) -> Abandoned {
        match self {
            Task::Operation(operation) => operation.abandon(cx),
            Task::Background(machine) => machine.abandon(cx),
        }
    }
}
