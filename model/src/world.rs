//! The whole as a [`Model`]: clients, their messages, the cluster, and what has been bad luck so far.
//!
//! | step | what happens |
//! |---|---|
//! | begin | a client begins the next operation of its script, at a fresh timestamp |
//! | execute | a message arrives, in any order, and is answered, unless it has to wait for a lock |
//! | duplicate | the network makes a copy of a message |
//! | answer | an answer arrives |
//! | be impatient | the store lets a request wait no longer for a lock |
//! | wake others | the store wakes all that waited for a lock, since who was woken first may not have come back |
//! | time out | a client waits no longer; the message may yet arrive, at any time or never |
//! | refuse | a message does not leave its client |
//! | wake | a sleep ends |
//! | abandon | the owner of an operation loses interest |
//! | crash | a client dies; its messages may yet arrive |
//! | split | a region splits |
//! | leap | time passes, so that all locks of before expire, and no request waits any longer |
//!
//! Bad luck is rationed, which is what bounds the model; everything else happens in every order. A sleep that could only be
//! followed by the same question ends when something in the cluster has changed.

use std::sync::Arc;

use tikv_core::config::Config;
use tikv_core::error::{Execution, Fault, FaultKind};
use tikv_core::key::Key;
use tikv_core::machine::{Call, Event, Token};
use tikv_core::request::Response;
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_sim::cluster::lock_wait::{LockWaits, Woken};
use tikv_sim::storage::Storage;

use crate::client::{Client, Effects, Surroundings, TaskId, Wait};
use crate::explorer::Model;
use crate::fingerprint::{Part, fingerprint};
use crate::history::{History, property};
use crate::mistake::Mistake;
use crate::servers::{ADDRESS, Clock, Regions, Store};
use crate::setup::{Luck, Setup};
use crate::view::View;

use self::messages::{Message, Stage, Waiter, is_write};
use self::record::{note, record};

mod describe;
mod messages;
mod record;
mod settle;

/// More leaps than any operation survives.
const MAX_LEAPS: u8 = 30;

/// A state of the whole.
#[derive(Clone, Debug)]
pub struct World {
    clients: Vec<Part<Client>>,
    /// In the order of their fingerprints, so that the order in which they were sent does not tell states apart.
    messages: Vec<Part<Message>>,
    storage: Part<Storage>,
    /// Who waits in the store for a lock.
    waits: Part<LockWaits>,
    /// Of the storage; follows from it.
    view: Arc<View>,
    regions: Part<Regions>,
    clock: Clock,
    luck: Luck,
    history: Part<History>,
}

/// A step of the whole. Messages by their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The client begins its next operation.
    Begin(usize),
    /// The message arrives at its store.
    Execute(usize),
    /// The network copies the message.
    Duplicate(usize),
    /// The answer arrives at its client.
    Answer(usize),
    /// The store lets the request wait no longer for a lock.
    BeImpatient(usize),
    /// The store wakes all whose lock has gone some time ago.
    WakeOthers,
    /// The client gets no answer in time.
    TimeOut(usize),
    /// The message does not leave its client.
    Refuse(usize),
    /// A sleep of the client's machine ends.
    Wake(usize, TaskId, Token),
    /// Nobody wants to know any more how the client's operation ends.
    Abandon(usize),
    /// The client dies.
    Crash(usize),
    /// A region splits.
    Split,
    /// Time passes.
    Leap,
}

/// The model of a [`Setup`].
#[derive(Clone, Debug)]
pub struct Protocol {
    setup: Setup,
    mistake: Option<Mistake>,
    config: Config,
    keys: Vec<Key>,
}

impl Protocol {
    /// As the client ships.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let (keys, config) = (setup.keys(), crate::setup::config(setup.heartbeats));
        Protocol { setup, mistake: None, config, keys }
    }

    /// With a deliberate mistake in the wiring: some property must turn out broken.
    #[must_use]
    pub fn with_mistake(mut self, mistake: Mistake) -> Self {
        self.mistake = Some(mistake);
        self
    }

    fn step(&self, world: &mut World, index: usize, step: impl FnOnce(&mut Client, &mut Surroundings<'_>) -> Effects) {
        let World { clients, clock, regions, .. } = world;
        let mut surroundings = Surroundings { config: &self.config, clock, regions };
        let effects = clients[index].edit(|client| step(client, &mut surroundings));
        for (task, token) in effects.cancelled {
            world.forget(Waiter { client: index, task, token });
        }
        for (task, call) in effects.calls {
            let waiter = Waiter { client: index, task, token: call.token };
            for (waiter, call) in self.wire(world, waiter, call) {
                world.insert(Message { waiter, call: Arc::new(call), stage: Stage::Sent });
            }
        }
        if !effects.notes.is_empty() {
            world.history.edit(|history| effects.notes.into_iter().for_each(|it| note(history, it)));
        }
        if let Some(end) = effects.ended {
            let owner = (index, world.clients[index].begun - 1);
            let work = self.setup.clients.get(index).and_then(|script| script.get(owner.1));
            let keys = work.map_or_else(|| self.keys.clone(), |work| work.keys());
            world.history.edit(|history| record(history, end, owner, keys));
        }
    }

    /// From the client to the network: as it is, but for a mistake.
    fn wire(&self, world: &World, waiter: Waiter, mut call: Call) -> Vec<(Option<Waiter>, Call)> {
        let extra = self.mistake.and_then(|mistake| mistake.on_call(&mut call, &world.regions, &world.history));
        let extra = extra.map(|call| (None, call));
        extra.into_iter().chain([(Some(waiter), call)]).collect()
    }

    fn begin(&self, world: &mut World, index: usize) {
        let number = world.clients[index].begun;
        let Some(script) = self.setup.clients.get(index).and_then(|script| script.get(number)) else { return };
        let start_ts = world.clock.timestamp();
        let now = world.clock.now();
        let program = world.history.edit(|history| script.begin(history, &self.config, start_ts, now, (index, number)));
        self.step(world, index, |client, surroundings| client.begin(surroundings, program));
    }

    fn execute(&self, world: &mut World, place: usize) {
        let message = world.take(place);
        let name = world.unused_name();
        let answer = self.serve(world, |store| store.execute(name, &message.call));
        match answer {
            Some(answer) => self.take_answer(world, message, answer),
            None => world.insert(Message { stage: Stage::Queued(name), ..message }),
        }
    }

    /// Puts the store to work, and sends the answers to those who have waited.
    fn serve<T>(&self, world: &mut World, work: impl FnOnce(&mut Store<'_>) -> T) -> T {
        let before = world.storage.fingerprint();
        let World { storage, waits, regions, clock, .. } = world;
        let now = clock.now();
        let (result, answers) = storage.edit(|storage| {
            waits.edit(|waits| {
                let mut store = Store { storage, waits, regions, now, answers: Vec::new() };
                let result = work(&mut store);
                (result, store.answers)
            })
        });
        if world.storage.fingerprint() != before {
            world.on_change(&self.keys);
        }
        for (name, answer) in answers {
            if let Some(message) = world.take_queued(name) {
                self.take_answer(world, message, answer);
            }
        }
        result
    }

    fn take_answer(&self, world: &mut World, mut message: Message, mut answer: Response) {
        world.check_expiry(&self.config, &message.call, &answer);
        if let Some(mistake) = self.mistake {
            mistake.on_answer(&mut answer);
        }
        let Some(waiter) = message.waiter else { return };
        if !self.is_taken_quietly(world, waiter, &answer) {
            message.stage = Stage::Answered(Arc::new(answer));
            world.insert(message);
        }
    }

    fn be_impatient(&self, world: &mut World, place: usize) {
        let Stage::Queued(name) = world.messages[place].stage else { return };
        world.luck.impatience -= 1;
        self.serve(world, |store| {
            if let Some(waiter) = store.waits.remove(name) {
                store.answer_woken(vec![Woken::TimedOut(name, waiter)]);
            }
        });
    }

    /// The store does what is due at that time.
    fn wake_queued(&self, world: &mut World, now: Time) {
        self.serve(world, |store| {
            let woken = store.waits.wake(now);
            store.answer_woken(woken);
        });
    }

    fn leap(&self, world: &mut World) {
        world.luck.leaps = world.luck.leaps.saturating_sub(1);
        world.clock.leaps += 1;
        self.wake_queued(world, Time::MAX);
        for client in &mut world.clients {
            client.edit(Client::on_leap);
        }
    }

    /// An answer that changes nothing but its machine (one of several that it waits for, say) arrives at once: when it does
    /// makes no difference to anybody.
    fn is_taken_quietly(&self, world: &mut World, waiter: Waiter, answer: &Response) -> bool {
        let Waiter { client, task, token } = waiter;
        let (mut clock, mut receiver) = (world.clock, world.clients[client].clone());
        let mut surroundings = Surroundings { config: &self.config, clock: &mut clock, regions: &world.regions };
        let event = Event::Reply(Ok(answer.clone()));
        let effects = receiver.edit(|client| client.deliver(&mut surroundings, task, token, event));
        let is_quiet = effects.is_nothing() && clock == world.clock;
        if is_quiet {
            world.clients[client] = receiver;
        }
        is_quiet
    }

    fn answer(&self, world: &mut World, place: usize) {
        let Message { waiter: Some(Waiter { client, task, token }), stage: Stage::Answered(answer), .. } =
            world.take(place)
        else {
            return;
        };
        let event = Event::Reply(Ok(Response::clone(&answer)));
        self.step(world, client, |client, surroundings| client.deliver(surroundings, task, token, event));
    }

    fn fault(&self, world: &mut World, place: usize, kind: FaultKind, execution: Execution) {
        world.luck.faults -= 1;
        let message = world.take(place);
        let Some(waiter) = message.waiter else { return };
        if execution == Execution::MaybeExecuted {
            world.insert_orphan(message);
        }
        let execution = self.mistake.map_or(execution, |mistake| mistake.on_fault(execution));
        let event = Event::Reply(Err(Fault::new(kind, execution, ADDRESS)));
        let Waiter { client, task, token } = waiter;
        self.step(world, client, |client, surroundings| client.deliver(surroundings, task, token, event));
    }

    /// Whether anything is left that bad luck could disturb.
    fn goes_on(&self, world: &World) -> bool {
        let mut clients = world.clients.iter().zip(&self.setup.clients);
        !world.messages.is_empty()
            || clients.any(|(client, script)| client.alive && (client.begun < script.len() || !client.tasks.is_empty()))
    }

    fn luck_actions(&self, world: &World, actions: &mut Vec<Action>) {
        let Luck { abandons, crashes, splits, leaps, .. } = world.luck;
        if !self.goes_on(world) {
            return;
        }
        for (index, client) in world.clients.iter().enumerate().filter(|(_, client)| client.alive) {
            if abandons > 0 && client.foreground().is_some() {
                actions.push(Action::Abandon(index));
            }
            if crashes > 0 && !client.tasks.is_empty() {
                actions.push(Action::Crash(index));
            }
        }
        if splits > 0 && self.setup.split_at.is_some() {
            actions.push(Action::Split);
        }
        if leaps > 0 {
            actions.push(Action::Leap);
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn initial(&self) -> World {
        let regions = Regions::new(self.setup.bounds);
        let clients = self.setup.clients.iter().map(|_| Part::new(Client::new(&self.config, &regions)));
        let mut storage = Storage::new(tikv_sim::storage::Config::default());
        if !self.setup.prewrites_decide() {
            // Nobody asks what was read last, so that it need not tell states apart.
            storage.observe_ts(Timestamp::from_version(u64::MAX - 1));
        }
        World {
            clients: clients.collect(),
            messages: Vec::new(),
            waits: Part::new(LockWaits::default()),
            view: Arc::new(View::new(&storage, &self.keys)),
            storage: Part::new(storage),
            regions: Part::new(regions),
            clock: Clock::default(),
            luck: self.setup.luck,
            history: Part::new(History::default()),
        }
    }

    fn actions(&self, world: &World) -> Vec<Action> {
        let mut actions = Vec::new();
        for (index, client) in world.clients.iter().enumerate().filter(|(_, client)| client.alive) {
            if client.foreground().is_none() && client.begun < self.setup.clients[index].len() {
                actions.push(Action::Begin(index));
            }
            for task in &client.tasks {
                let awake = task.waits.iter().filter(|(_, wait)| **wait == Wait::Wake);
                actions.extend(awake.map(|(token, _)| Action::Wake(index, task.id, *token)));
            }
        }
        for (place, message) in world.messages.iter().enumerate() {
            // An answer that is lost is a message that arrives after its client has given up.
            let may_fail = world.luck.faults > 0 && message.waiter.is_some();
            match message.stage {
                Stage::Answered(_) => actions.push(Action::Answer(place)),
                Stage::Queued(_) => {
                    actions.extend(may_fail.then_some(Action::TimeOut(place)));
                    actions.extend((world.luck.impatience > 0).then_some(Action::BeImpatient(place)));
                }
                Stage::Sent => {
                    actions.push(Action::Execute(place));
                    if may_fail {
                        actions.extend([Action::TimeOut(place), Action::Refuse(place)]);
                    }
                    if world.luck.duplicates > 0 && is_write(&message.call.request) {
                        actions.push(Action::Duplicate(place));
                    }
                }
            }
        }
        actions.extend(world.next_round().map(|_| Action::WakeOthers));
        self.luck_actions(world, &mut actions);
        // When nothing else can happen, time passes, however often it has.
        let waits = world.clients.iter().any(|client| client.waits_for_change()) || world.is_anybody_queued();
        if waits && actions.iter().all(|action| matches!(action, Action::Split)) && world.clock.leaps < MAX_LEAPS {
            actions.push(Action::Leap);
        }
        actions
    }

    fn next(&self, world: &World, action: &Action) -> World {
        let mut world = world.clone();
        match *action {
            Action::Begin(client) => self.begin(&mut world, client),
            Action::Execute(place) => self.execute(&mut world, place),
            Action::Duplicate(place) => {
                world.luck.duplicates -= 1;
                let copy = Message::clone(&world.messages[place]);
                world.insert_orphan(copy);
            }
            Action::BeImpatient(place) => self.be_impatient(&mut world, place),
            Action::WakeOthers => {
                if let Some(now) = world.next_round() {
                    self.wake_queued(&mut world, now);
                }
            }
            Action::Answer(place) => self.answer(&mut world, place),
            Action::TimeOut(place) => self.fault(&mut world, place, FaultKind::Timeout, Execution::MaybeExecuted),
            Action::Refuse(place) => self.fault(&mut world, place, FaultKind::Overloaded, Execution::NotSent),
            Action::Wake(client, task, token) => self.step(&mut world, client, |client, surroundings| {
                client.deliver(surroundings, task, token, Event::Woken)
            }),
            Action::Abandon(client) => {
                world.luck.abandons -= 1;
                self.step(&mut world, client, Client::abandon);
            }
            Action::Crash(client) => {
                world.luck.crashes -= 1;
                let calls = world.clients[client].edit(Client::crash);
                for (task, token) in calls {
                    world.forget(Waiter { client, task, token });
                }
            }
            Action::Split => {
                world.luck.splits -= 1;
                if let Some(key) = self.setup.split_at {
                    world.regions.edit(|regions| regions.split(key));
                    world.wake_all();
                }
            }
            Action::Leap => self.leap(&mut world),
        }
        world
    }

    fn fingerprint(&self, world: &World) -> u64 {
        let World { clients, messages, storage, waits, regions, clock, luck, history, view: _ } = world;
        let clients: Vec<u64> = clients.iter().map(Part::fingerprint).collect();
        let messages: Vec<u64> = messages.iter().map(Part::fingerprint).collect();
        let store = (storage.fingerprint(), waits.fingerprint());
        let rest = (store, regions.fingerprint(), history.fingerprint(), clock, luck);
        fingerprint(&(clients, messages, rest))
    }

    fn check(&self, world: &World, is_final: bool) -> Result<(), &'static str> {
        world.history.check(&world.view)?;
        if self.setup.luck.is_smooth() && world.clock.leaps > 0 {
            return Err(property::NO_HELP_OF_TIME);
        }
        if !is_final {
            return Ok(());
        }
        let waits = |client: &Part<Client>| client.alive && client.foreground().is_some();
        if world.clients.iter().any(waits) {
            return Err(property::NOBODY_WAITS);
        }
        self.check_resolvable(world)
    }

    fn describe(&self, world: &World, action: &Action) -> String {
        world.describe(action)
    }
}

impl World {
    /// The storage has changed.
    fn on_change(&mut self, keys: &[Key]) {
        let view = View::new(&self.storage, keys);
        if view != *self.view {
            self.history.edit(|history| history.observe(&view));
            self.view = Arc::new(view);
        }
        self.wake_all();
    }

    fn wake_all(&mut self) {
        for client in &mut self.clients {
            if client.waits_for_change() {
                client.edit(Client::on_change);
            }
        }
    }
}
