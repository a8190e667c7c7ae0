//! Servers that do what they like.
//!
//! The input is a story: a few operations, and a list of *recipes* by which their questions are answered, over and over again:
//! honestly (by the simulated cluster), with errors of all kinds, with honest answers that were tampered with, with arbitrary
//! bytes, late, or not at all. Whatever the servers do, the client
//!
//! - does not panic;
//! - does not spin: only so many questions are asked without time passing;
//! - does not leak: operations end by their deadlines, and what they leave running in the background ends after some time;
//! - does not lie: a commit that is reported committed was answered with success, one with a definite error was not, and has no
//!   attempt whose end is not known.

mod answers;
mod ledger;
mod operations;
mod recipes;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tikv_core::config::Config;
use tikv_core::engine::{Engine, EngineCommand, OperationId, Outcome, StoreCallId};
use tikv_core::error::{Execution, Fault, FaultKind};
use tikv_core::machine::Call;
use tikv_core::pd::{PdEffect, PdInput};
use tikv_core::request::Response;
use tikv_core::time::Time;
use tikv_sim::cluster::{Cluster, ClusterOptions};

use self::ledger::Ledger;
use self::recipes::Recipes;
use crate::input::Input;

/// Commands without time passing. Larger than what any operation has to ask at once: its keys, twice over for good measure.
const MAX_COMMANDS_AT_ONCE: usize = 3_000;
/// Steps of a story. Every sleep of every budget is far below.
const MAX_STEPS: usize = 60_000;
/// Commands that are shown when something goes wrong.
const RECENT: usize = 12;
/// How late an operation may end.
const GRACE: Duration = Duration::from_millis(1);
/// How long what runs in the background may go on: some budgets of retries, each with its calls.
const MAX_BACKGROUND: Duration = Duration::from_secs(24 * 60 * 60);

/// See the [module documentation](self).
pub fn hostile_server(data: &[u8]) {
    let mut input = Input::new(data);
    let config = operations::config(&mut input);
    let mut story = Story::new(config, &mut input);
    story.tell();
}

struct Story {
    engine: Engine,
    cluster: Cluster,
    now: Time,
    recipes: Recipes,
    ledger: Ledger,
    /// When the operations must have ended.
    deadline: Time,
    /// Who waits for an outcome, and since when nobody does.
    open: BTreeMap<OperationId, usize>,
    all_ended: Option<Time>,
    /// What happens when. Calls that are not answered end by their deadlines.
    pending: BTreeMap<(Time, u64), Pending>,
    next: u64,
    commands_at_once: usize,
    /// The last commands, to tell what went wrong.
    recent: VecDeque<EngineCommand>,
}

enum Pending {
    Store(StoreCallId, Result<Response, Fault>),
    Pd(PdInput),
    Cancel(OperationId),
}

impl Story {
    fn new(config: Config, input: &mut Input<'_>) -> Self {
        let cluster = Cluster::new(ClusterOptions { regions: 3, seed: 1, ..ClusterOptions::default() });
        let engine = Engine::new(config, vec!["127.0.0.1:2379".into()], u64::from(input.byte()));
        let mut story = Story {
            engine,
            cluster,
            now: Time::from_millis(1),
            recipes: Recipes::default(),
            ledger: Ledger::default(),
            deadline: Time::from_millis(1) + input.pick(&operations::TIME_LIMITS),
            open: BTreeMap::new(),
            all_ended: None,
            pending: BTreeMap::new(),
            next: 0,
            commands_at_once: 0,
            recent: VecDeque::new(),
        };
        for index in 0..=usize::from(input.below(3)) {
            let begun = operations::operation(input, story.engine.config(), index, story.deadline);
            let Some((operation, commit)) = begun else { continue };
            story.ledger.begin(index, commit);
            let cancel = input.byte();
            let id = story.engine.start(story.now, operation);
            story.open.insert(id, index);
            if cancel >= 240 {
                let due = story.now + Duration::from_millis(u64::from(cancel - 240) * 100);
                story.later(due, Pending::Cancel(id));
            }
        }
        story.recipes = Recipes::read(input);
        story
    }

    fn later(&mut self, due: Time, what: Pending) {
        self.next += 1;
        self.pending.insert((due, self.next), what);
    }

    fn tell(&mut self) {
        for _ in 0..MAX_STEPS {
            self.carry_out();
            self.take_outcomes();
            if self.engine.running() == 0 {
                assert!(self.open.is_empty(), "an operation is gone without an outcome: {:?}", self.open);
                return;
            }
            self.check_ends();
            self.step();
        }
        panic!("never ends: {:#?}", self.recent);
    }

    fn carry_out(&mut self) {
        while let Some(command) = self.engine.poll_command() {
            self.commands_at_once += 1;
            assert!(self.commands_at_once < MAX_COMMANDS_AT_ONCE, "spins: {:#?}", self.recent);
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(command.clone());
            match command {
                EngineCommand::Call { id, call } => self.answer_call(id, &call),
                EngineCommand::Pd(effect) => self.answer_pd(effect),
                EngineCommand::CancelCall { id } => {
                    self.ledger.cancelled(id);
                    self.pending.retain(|_, what| !matches!(what, Pending::Store(other, _) if *other == id));
                }
                // No transaction here asks its owner.
                EngineCommand::CheckCommit { .. } | EngineCommand::Reconnect { .. } | EngineCommand::Observe(_) => {}
            }
        }
    }

    fn answer_call(&mut self, id: StoreCallId, call: &Call) {
        self.ledger.sent(id, call);
        let answer = self.recipes.next_for_store().answer_call(&mut self.cluster, self.now, call);
        let latest = call.deadline.max(self.now);
        let (due, reply) = match answer {
            Some((delay, reply)) if self.now + delay < latest => (self.now + delay, reply),
            _ => (latest, Err(Fault::new(FaultKind::Timeout, Execution::MaybeExecuted, call.address.clone()))),
        };
        self.later(due, Pending::Store(id, reply));
    }

    fn answer_pd(&mut self, effect: PdEffect) {
        if matches!(effect, PdEffect::CancelCall { .. } | PdEffect::CloseStream { .. }) {
            return;
        }
        if let Some((delay, input)) = self.recipes.next_for_pd(&effect).answer_pd(&mut self.cluster, self.now, effect) {
            self.later(self.now + delay, Pending::Pd(input));
        }
    }

    fn take_outcomes(&mut self) {
        while let Some((id, outcome)) = self.engine.poll_outcome() {
            let index = self.open.remove(&id).expect("one outcome per operation that nobody has cancelled");
            assert!(self.now <= self.deadline + GRACE, "ends late, at {:?}: {outcome:?}", self.now);
            if let Outcome::Commit(result) = &outcome {
                self.ledger.check(index, result);
            }
        }
        if self.open.is_empty() && self.all_ended.is_none() {
            self.all_ended = Some(self.now);
        }
    }

    fn check_ends(&self) {
        assert!(
            self.open.is_empty() || self.now <= self.deadline + GRACE,
            "goes on after its deadline: {:#?}",
            self.recent
        );
        let since = self.all_ended.map_or(Duration::ZERO, |ended| self.now.saturating_since(ended));
        assert!(since < MAX_BACKGROUND, "never ends in the background: {:#?}", self.recent);
    }

    /// The next thing that happens.
    fn step(&mut self) {
        let timer = self.engine.poll_timeout().map(|(due, _)| due);
        let first = self.pending.first_key_value().map(|((due, _), _)| *due);
        let due = [timer, first].into_iter().flatten().min().expect("waits for nothing");
        if due > self.now {
            self.now = due;
            self.commands_at_once = 0;
        }
        if first.is_none_or(|first| first > due) {
            return self.engine.handle_timeout(self.now);
        }
        match self.pending.pop_first().map(|(_, what)| what) {
            Some(Pending::Store(id, reply)) => {
                self.ledger.answered(id, &reply);
                self.engine.handle_reply(self.now, id, reply.clone());
                // Nobody waits for it any more: to be ignored.
                self.engine.handle_reply(self.now, id, reply);
            }
            Some(Pending::Pd(input)) => self.engine.handle_pd(self.now, input),
            Some(Pending::Cancel(id)) if self.open.remove(&id).is_some() => self.engine.cancel(self.now, id),
            Some(Pending::Cancel(_)) | None => {}
        }
    }
}

/// What bytes become on their way through a transport that does not understand them.
fn undecodable(address: &std::sync::Arc<str>) -> Fault {
    Fault::new(FaultKind::Protocol, Execution::MaybeExecuted, address.clone())
}

/// Changes some bytes of an honest message.
fn tamper(message: &Bytes, edits: &[u8]) -> Bytes {
    let mut bytes = message.to_vec();
    for edit in edits.chunks(3) {
        let (at, with) = (usize::from(edit[0]), edit.get(1).copied().unwrap_or(0));
        match edit.get(2).copied().unwrap_or(0) % 3 {
            0 if at < bytes.len() => bytes[at] ^= with,
            1 => bytes.truncate(at),
            _ => bytes.push(with),
        }
    }
    bytes.into()
}
