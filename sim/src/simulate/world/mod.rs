//! All of a run: the cluster, the clients, the messages between them, and the time.

mod audit;
mod errors;
mod inject;
mod newest;
mod notes;
mod outcomes;
mod owner;
mod pd;
mod pd_facts;
mod pipelined;
mod raw;
mod request_facts;
mod stores;
mod sweeps;
mod transactions;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tikv_core::config::Config;
use tikv_core::engine::{CheckId, Engine, EngineCommand, EngineTimer, OperationId, StoreCallId};
use tikv_core::error::Fault;
use tikv_core::key::Key;
use tikv_core::machine::Call;
use tikv_core::pd::{PdInput, StreamId};
use tikv_core::request::Response;
use tikv_core::rng::Rng;
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;

pub(super) use self::pipelined::Pipelining;
use super::Runner;
use super::check::{Broken, Check, History, RawHistory, Rule, broken, ensure};
use super::client::{Client, ClientId, Clock, count_down};
use super::elle::Observed;
use super::network::Network;
use super::options::Options;
use super::queue::Queue;
use super::report::{Report, Totals};
use super::scenario::Scenario;
use super::session::State;
use super::trace::{Entry, Node, Trace, TraceKind};
use super::workload::{Workload, WorkloadKind};
use crate::cluster::{CallId, Cluster, ClusterOptions, StoreOptions, encoded};
use crate::storage::Change;

/// How long the safety phase lasts at most, after the last fault has been injected.
const SAFETY_LIMIT: Duration = Duration::from_secs(600);
/// How long it may take until everything has ended, once nothing goes wrong any more.
const LIVENESS_LIMIT: Duration = Duration::from_secs(1_800);
/// Events at one point in time after which something must be spinning.
const SPIN_LIMIT: u32 = 1_000_000;

/// How far the run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Loading,
    Safety,
    Liveness,
    Audit,
}

/// Something that is going to happen.
#[derive(Debug)]
enum Event {
    /// A request reaches a store.
    AtStore(Box<StoreMessage>),
    /// A client hears of its call to a store.
    FromStore { client: ClientId, id: StoreCallId, message: u64, from: Node, reply: Box<Result<Response, Fault>> },
    /// A message reaches a member of PD.
    AtPd { client: ClientId, member: u64, ask: PdAsk, path: &'static str, body: Bytes, message: u64 },
    /// A client hears of PD.
    FromPd { client: ClientId, member: u64, input: Box<PdInput>, message: u64 },
    /// The owner of a transaction says whether that may commit.
    FromOwner { client: ClientId, id: CheckId, allows: bool },
    /// A client looks at its timers, unless it has been armed for another time since.
    Wake(ClientId, Time),
    /// The cluster looks at what it has postponed, if that is when it wanted to.
    Cluster(Time),
    /// A session begins its next transaction.
    Turn(ClientId, usize),
    /// The fault with this index strikes.
    Inject(usize),
    /// What a fault has broken is mended.
    Mend(Mend),
}

#[derive(Debug)]
struct StoreMessage {
    client: ClientId,
    id: StoreCallId,
    call: Box<Call>,
    message: u64,
    store: u64,
    /// Which life of the store it was sent to.
    life: u32,
    /// Nobody hears of the answer.
    unheard: bool,
    /// It may arrive, or may have arrived, once more.
    is_double: bool,
    /// It is the one that comes once more.
    is_second: bool,
    /// The store has already taken its time.
    is_late: bool,
}

#[derive(Clone, Copy, Debug)]
enum PdAsk {
    Unary(tikv_core::pd::CallId),
    Stream(StreamId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mend {
    Store(u64),
    PdMember(u64),
    PdRegions,
    Client(u8),
}

/// What a store suffers from.
#[derive(Clone, Copy, Debug, Default)]
struct Ailment {
    until: Time,
    permille: u32,
    /// Which of several.
    variant: u16,
}

#[derive(Clone, Debug, Default)]
struct StoreState {
    life: u32,
    slow_until: Time,
    slow: Duration,
    busy: Ailment,
    full: Ailment,
    erring: Ailment,
    undetermined: Ailment,
}

pub(super) struct World {
    scenario: Scenario,
    config: Config,
    /// The auditor's.
    patient_config: Config,
    rng: Rng,
    now: Time,
    phase: Phase,
    /// When the phase began.
    phase_since: Time,
    /// No new transaction is begun, and no fault injected.
    last_fault: Time,
    queue: Queue<Event>,
    network: Network,
    cluster: Cluster,
    stores: BTreeMap<u64, StoreState>,
    /// Messages of which a double is under way that may be executed: the first one was, or was lost.
    doubles: BTreeSet<u64>,
    /// Calls that the cluster answers later.
    postponed: BTreeMap<CallId, Box<StoreMessage>>,
    /// When the cluster is looked at next; never, if at the end of time.
    cluster_armed: Time,
    /// The auditor is the last one.
    clients: Vec<Client>,
    workload: Box<dyn Workload>,
    keys: Vec<Key>,
    history: History,
    raw: RawHistory,
    changes: Vec<Change>,
    trace: Trace,
    /// What clients could tell, if that is wanted.
    observed: Option<Observed>,
    /// Who holds locks, if the trace is kept.
    lockers: BTreeMap<Key, Timestamp>,
    totals: Totals,
    /// Transactions that began until then may have been ended by others.
    swept_until: Timestamp,
    messages_under_way: u64,
    audits: u32,
}

impl World {
    /// Clients have these settings, but for the auditor, who has those of the scenario.
    pub(super) fn new(scenario: &Scenario, config: Config, runner: Runner) -> Self {
        let scenario = scenario.clone();
        let options = &scenario.options;
        let mut rng = Rng::new(scenario.seed ^ 0x5EED_0000_0000_0000);
        let workload = scenario.workload.workload(options.keys);
        let keys = workload.keys().to_vec();
        let patient_config = options.patient_config();
        let mut cluster = Cluster::new(cluster_options(&scenario, &keys, rng.next_u64()));
        cluster.storage_mut().enable_journal();
        let stores = cluster.topology().stores().map(|store| (store.meta.id, StoreState::default())).collect();
        let mut world = World {
            network: Network::new(options, rng.child()),
            queue: Queue::new(rng.child()),
            clients: Vec::new(),
            config,
            patient_config,
            now: Time::from_millis(1),
            phase: Phase::Loading,
            phase_since: Time::ZERO,
            last_fault: Time::ZERO,
            cluster,
            stores,
            doubles: BTreeSet::new(),
            postponed: BTreeMap::new(),
            cluster_armed: Time::MAX,
            workload,
            keys,
            history: History::default(),
            raw: RawHistory::default(),
            changes: Vec::new(),
            trace: Trace::new(runner.trace),
            observed: (runner.history && scenario.workload.history_model().is_some()).then(Observed::new),
            lockers: BTreeMap::new(),
            totals: Totals { runs: 1, ..Totals::default() },
            swept_until: Timestamp::ZERO,
            messages_under_way: 0,
            audits: 0,
            rng: rng.child(),
            scenario,
        };
        for number in 0..=world.scenario.options.clients as u8 {
            let is_auditor = u32::from(number) == world.scenario.options.clients;
            let client = world.new_client(number, is_auditor, rng.child());
            world.clients.push(client);
        }
        world
    }

    fn new_client(&self, number: u8, is_auditor: bool, mut rng: Rng) -> Client {
        let options = &self.scenario.options;
        let config = if is_auditor { &self.patient_config } else { &self.config };
        let engine = self.new_engine(config, &mut rng);
        let (clock, sessions) = if is_auditor {
            (Clock::new(0, 1_000_000), 1)
        } else {
            let drift = u64::from(options.clock_drift_ppm);
            let rate = 1_000_000 - drift + rng.below(2 * drift + 1);
            (Clock::new(rng.below(u64::from(options.clock_skew_ms) + 1), rate), options.sessions)
        };
        Client::new(number, engine, clock, sessions, rng)
    }

    fn new_engine(&self, config: &Config, rng: &mut Rng) -> Engine {
        let members = self.cluster.pd().members().iter();
        let mut endpoints: Vec<String> = members.map(|member| pd::address(&member.client_url).to_owned()).collect();
        let first = rng.below(endpoints.len() as u64) as usize;
        endpoints.rotate_left(first);
        Engine::new(config.clone(), endpoints, rng.next_u64())
    }

    // ---- The course of a run ----

    pub(super) fn run(mut self) -> Report {
        // A panic is a violation like any other. Nothing is used afterwards but what was written down.
        let violation = match catch_unwind(AssertUnwindSafe(|| self.run_to_end())) {
            Ok(ended) => ended.err(),
            Err(panic) => Some(Broken { rule: Rule::NoPanic, detail: message_of(panic.as_ref()) }),
        };
        if let Some(Broken { rule, detail }) = &violation {
            let entry = Entry::at(Node::World, TraceKind::Violation(rule.name()));
            self.trace.add(self.now, entry, || detail.clone());
        }
        self.totals.virtual_time = self.now.saturating_since(Time::ZERO);
        self.clients.iter().for_each(|client| self.totals.transitions.add(client.engine.transitions()));
        let history = self.observed.map(|observed| observed.finish(self.now));
        Report {
            totals: self.totals,
            violation,
            trace_hash: self.trace.hash(),
            trace: self.trace.into_events(),
            history,
        }
    }

    fn run_to_end(&mut self) -> Check {
        self.load()?;
        let mut spins = 0;
        while let Some((at, event)) = self.queue.pop() {
            spins = if at > self.now { 0 } else { spins + 1 };
            ensure(spins < SPIN_LIMIT, Rule::Termination, || format!("time does not get beyond {:?}", self.now))?;
            self.now = self.now.max(at);
            self.totals.events += 1;
            self.happen(event)?;
            if self.next_phase()? {
                return Ok(());
            }
        }
        broken(Rule::Termination, "nothing is going to happen any more")
    }

    /// Goes over to the next phase when it is time. Whether the run is over.
    fn next_phase(&mut self) -> Result<bool, Broken> {
        match self.phase {
            Phase::Loading => {}
            Phase::Safety => {
                let enough = self.totals.transactions >= u64::from(self.scenario.options.transactions);
                if enough || self.now >= self.last_fault.max(self.phase_since) + SAFETY_LIMIT {
                    self.heal();
                    self.enter(Phase::Liveness, "liveness");
                }
            }
            Phase::Liveness => {
                let late = self.now >= self.phase_since + self.liveness_limit();
                ensure(!late, Rule::Termination, || self.what_runs())?;
                if self.is_quiet() {
                    self.enter(Phase::Audit, "audit");
                    self.audit()?;
                }
            }
            Phase::Audit => {
                let late = self.now >= self.phase_since + self.liveness_limit();
                ensure(!late, Rule::Termination, || self.what_runs())?;
                if self.is_quiet() {
                    return self.end_audit();
                }
            }
        }
        Ok(false)
    }

    fn enter(&mut self, phase: Phase, name: &'static str) {
        self.phase = phase;
        self.phase_since = self.now;
        self.trace.add(self.now, Entry::at(Node::World, TraceKind::Phase(name)), String::new);
    }

    /// The workload begins, and so does the schedule of faults.
    fn begin_workload(&mut self) {
        self.enter(Phase::Safety, "safety");
        for (index, fault) in self.scenario.faults.iter().enumerate() {
            let at = self.now + Duration::from_micros(fault.at_us.into());
            self.last_fault = self.last_fault.max(at);
            self.queue.push(at, Event::Inject(index));
        }
        let auditor = self.auditor();
        for client in &self.clients[..auditor] {
            for session in 0..client.sessions.len() {
                let at = self.network.arrival(self.now);
                self.queue.push(at, Event::Turn(client.id, session));
            }
        }
    }

    /// The settings of a client.
    fn config_of(&self, index: usize) -> &Config {
        if index == self.auditor() { &self.patient_config } else { &self.config }
    }

    fn auditor(&self) -> usize {
        self.clients.len() - 1
    }

    /// Locks that nobody removes live as long as the options say, and longer by what their client believes its transaction to
    /// have lasted: if its clock has jumped, too long. Calls that nobody answers take their time as well.
    fn liveness_limit(&self) -> Duration {
        let Config { lock_ttl, managed_lock_ttl, call_timeout, .. } = &self.config;
        let jumped = self.clients.iter().map(|client| client.clock.jumped()).max().unwrap_or_default();
        LIVENESS_LIMIT + jumped + 2 * (*call_timeout + *lock_ttl.max(managed_lock_ttl))
    }

    /// Whether nothing runs and nothing is under way.
    fn is_quiet(&self) -> bool {
        self.messages_under_way == 0
            && self.postponed.is_empty()
            && self.clients.iter().all(|client| {
                let idle = client.sessions.iter().all(super::session::Session::is_idle);
                client.alive && idle && client.engine.running() == 0
            })
    }

    fn what_runs(&self) -> String {
        let mut running = Vec::new();
        for client in &self.clients {
            let sessions = client.sessions.iter().filter(|session| !session.is_idle());
            running.extend(sessions.map(|session| format!("client {}: {:?}", client.id.number, session.state)));
            running.push(format!("client {}: {} operations", client.id.number, client.engine.running()));
        }
        format!("{} messages are under way; {}", self.messages_under_way, running.join("; "))
    }

    /// An engine without operations waits for nothing.
    fn check_leaks(&self) -> Check {
        for client in &self.clients {
            let engine = &client.engine;
            let timer = engine.poll_timeout().filter(|(_, timer)| matches!(timer, EngineTimer::Operation(..)));
            let (operations, calls) = (engine.running(), engine.calls_under_way());
            ensure(operations == 0 && calls == 0 && timer.is_none(), Rule::NoLeak, || {
                format!("client {}: {operations} operations, {calls} calls, timer {timer:?}", client.id.number)
            })?;
        }
        Ok(())
    }

    // ---- Events ----

    fn happen(&mut self, event: Event) -> Check {
        let Some(event) = self.hold_up(event) else { return Ok(()) };
        match event {
            Event::AtStore(message) => {
                self.messages_under_way -= 1;
                self.at_store(message)
            }
            Event::FromStore { client, id, message, from, reply } => {
                self.messages_under_way -= 1;
                self.hear_of_store(client, id, message, from, *reply)
            }
            Event::AtPd { client, member, ask, path, body, message } => {
                self.messages_under_way -= 1;
                self.at_pd(client, member, ask, path, body, message)
            }
            Event::FromPd { client, member, input, message } => {
                self.messages_under_way -= 1;
                self.hear_of_pd(client, member, *input, message)
            }
            Event::FromOwner { client, id, allows } => self.hear_of_owner(client, id, allows),
            Event::Wake(client, armed) => self.wake(client, armed),
            Event::Cluster(armed) => self.wake_cluster(armed),
            Event::Turn(client, session) => match self.client(client) {
                Some(index) => {
                    self.turn(index, session)?;
                    self.pump(index)
                }
                None => Ok(()),
            },
            Event::Inject(index) => self.inject(index),
            Event::Mend(mend) => self.mend(mend),
        }
    }

    /// What would reach a client that stands still has to wait.
    fn hold_up(&mut self, event: Event) -> Option<Event> {
        let client = match &event {
            Event::FromStore { client, .. } | Event::FromPd { client, .. } | Event::FromOwner { client, .. } => *client,
            Event::Wake(client, _) | Event::Turn(client, _) => *client,
            _ => return Some(event),
        };
        let until = self.clients[usize::from(client.number)].paused_until;
        if until <= self.now {
            return Some(event);
        }
        self.queue.push(until, event);
        None
    }

    /// The client, unless this life of it is over.
    fn client(&self, id: ClientId) -> Option<usize> {
        let index = usize::from(id.number);
        let client = self.clients.get(index)?;
        (client.id == id && client.alive).then_some(index)
    }

    fn wake(&mut self, id: ClientId, armed: Time) -> Check {
        let Some(index) = self.client(id) else { return Ok(()) };
        let client = &mut self.clients[index];
        if client.armed != armed {
            return Ok(());
        }
        client.armed = Time::MAX;
        let local = client.clock.local(self.now);
        if client.engine.poll_timeout().is_some_and(|(due, _)| due <= local) {
            client.engine.handle_timeout(local);
        }
        self.pump(index)
    }

    /// Carries out what the engine of a client wants, tells the client what has ended, and sets its timer.
    fn pump(&mut self, index: usize) -> Check {
        let mut cancels = false;
        loop {
            let mut did_something = false;
            while let Some(command) = self.clients[index].engine.poll_command() {
                did_something = true;
                if count_down(&mut self.clients[index].dies_after) {
                    return self.kill_client(index);
                }
                cancels |= count_down(&mut self.clients[index].cancels_after);
                self.carry_out(index, command)?;
            }
            while let Some((id, outcome)) = self.clients[index].engine.poll_outcome() {
                did_something = true;
                self.on_outcome(index, id, outcome)?;
            }
            if did_something {
                continue;
            }
            // Not before all that the engine has said is carried out.
            if !std::mem::take(&mut cancels) {
                break;
            }
            self.cancel_all(index)?;
        }
        self.arm(index);
        Ok(())
    }

    /// Sees to it that the client is woken in time. Too early is harmless, and cheaper than to take a timer back.
    fn arm(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some((due, _)) = client.engine.poll_timeout() else { return };
        let at = client.clock.global(due).max(self.now);
        if at < client.armed {
            client.armed = at;
            self.queue.push(at, Event::Wake(client.id, at));
        }
    }

    fn carry_out(&mut self, index: usize, command: EngineCommand) -> Check {
        match command {
            EngineCommand::Call { id, call } => self.send_call(index, id, call),
            EngineCommand::Pd(effect) => {
                self.carry_out_pd(index, effect);
                Ok(())
            }
            // What has been sent cannot be called back, and an address is looked up for each message.
            EngineCommand::CancelCall { .. } | EngineCommand::Reconnect { .. } | EngineCommand::Observe(_) => Ok(()),
            EngineCommand::CheckCommit { id, start_ts, commit_ts } => {
                self.ask_owner(index, id, start_ts, commit_ts);
                Ok(())
            }
        }
    }

    fn local_now(&self, index: usize) -> Time {
        self.clients[index].clock.local(self.now)
    }

    fn send(&mut self, at: Time, event: Event) {
        self.messages_under_way += 1;
        self.queue.push(at, event);
    }

    fn next_message(&mut self) -> u64 {
        self.totals.messages += 1;
        self.totals.messages
    }

    /// Takes the engine of a client one step further.
    fn step(&mut self, index: usize, step: impl FnOnce(&mut Engine, Time)) -> Check {
        let client = &mut self.clients[index];
        let local = client.clock.local(self.now);
        step(&mut client.engine, local);
        self.pump(index)
    }

    /// Takes over what stores have done; `node` is who did it, if that is known.
    fn observe_changes(&mut self, node: Option<Node>) -> Check {
        self.cluster.storage_mut().take_changes(&mut self.changes);
        if self.trace.keeps() {
            self.note_changes(node);
        }
        for change in self.changes.drain(..) {
            if let Change::RawWritten { key, value } = &change {
                self.raw.observe(self.now, key, value.as_ref())?;
            } else {
                self.history.observe(&change)?;
            }
        }
        Ok(())
    }

    fn give_turn(&mut self, index: usize, session: usize) {
        let think_ns = u64::from(self.scenario.options.think_us) * 1_000;
        let client = &mut self.clients[index];
        let pause = Duration::from_nanos(client.sessions[session].rng.below(think_ns + 1));
        self.queue.push(self.now + pause, Event::Turn(client.id, session));
    }

    /// The session has finished what it did.
    fn become_idle(&mut self, index: usize, session: usize) {
        self.clients[index].sessions[session].state = State::Idle;
        self.keep_alive(index, session, None);
        self.stop_flush(index, session);
        if self.phase == Phase::Safety {
            self.give_turn(index, session);
        }
    }

    fn forget_operation(&mut self, index: usize, id: OperationId) -> Option<super::client::Running> {
        self.clients[index].running.remove(&id)
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}

fn cluster_options(scenario: &Scenario, keys: &[Key], seed: u64) -> ClusterOptions {
    let Options { stores, replicas, regions, pd_members, .. } = scenario.options;
    let regions = (regions as usize).clamp(1, keys.len());
    let split_keys = (1..regions).map(|index| bound(scenario.workload, &keys[index * keys.len() / regions])).collect();
    ClusterOptions {
        stores: vec![StoreOptions::default(); stores as usize],
        replicas: replicas as usize,
        split_keys: Some(split_keys),
        pd_members: pd_members as usize,
        seed,
        ..ClusterOptions::default()
    }
}

/// A key as regions are bounded.
fn bound(workload: WorkloadKind, key: &Key) -> Key {
    if workload == WorkloadKind::Raw { key.clone() } else { encoded(key.as_slice()) }
}

/// The fault of a call that was not answered.
fn fault(kind: tikv_core::error::FaultKind, execution: tikv_core::error::Execution, address: &Arc<str>) -> Fault {
    Fault::new(kind, execution, Arc::clone(address))
}
