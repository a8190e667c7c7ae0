//! A small pessimistic transaction whose owner loses interest after any number of answers: nothing stays locked, and it commits
//! wholly or not at all. Requests that are on their way then are executed before what cleans up, or as late as they can be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::task::Poll;

use bytes::Bytes;

use super::*;
use crate::machine::{Abandoned, BackgroundMachine, Context, Machine, Outbox};
use crate::rng::Rng;

/// A key's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    Pessimistic(Timestamp),
    Prewritten,
}

/// What TiKV has.
#[derive(Debug, Default)]
struct Store {
    locks: BTreeMap<Bytes, Lock>,
    rolled_back: BTreeSet<Bytes>,
    committed: BTreeSet<Bytes>,
}

impl Store {
    fn execute(&mut self, request: &Request) -> Answer {
        match request {
            Request::PessimisticLock(request) => {
                let keys: Vec<_> = request.mutations.iter().map(|mutation| mutation.key.clone()).collect();
                if keys.iter().any(|key| self.rolled_back.contains(key) || self.committed.contains(key)) {
                    return Answer::Refuse(kvrpcpb::KeyError { abort: "rolled back".into(), ..Default::default() });
                }
                let for_update_ts = Timestamp::from_version(request.for_update_ts);
                for key in keys {
                    self.locks.entry(key).or_insert(Lock::Pessimistic(for_update_ts));
                }
            }
            Request::PessimisticRollback(request) => {
                let newest = Timestamp::from_version(request.for_update_ts);
                for key in &request.keys {
                    if matches!(self.locks.get(key), Some(Lock::Pessimistic(ts)) if *ts <= newest) {
                        self.locks.remove(key);
                    }
                }
            }
            Request::Prewrite(request) => {
                let keys: Vec<_> = request.mutations.iter().map(|mutation| mutation.key.clone()).collect();
                if keys.iter().any(|key| self.rolled_back.contains(key)) {
                    return Answer::Refuse(conflict_with(start_ts(), "a"));
                }
                for (key, action) in keys.iter().zip(request.pessimistic_actions()) {
                    let is_locked = action == kvrpcpb::prewrite_request::PessimisticAction::DoPessimisticCheck;
                    assert!(!is_locked || self.locks.contains_key(key), "{key:?} has lost its lock");
                }
                self.locks.extend(keys.into_iter().map(|key| (key, Lock::Prewritten)));
            }
            Request::BatchRollback(request) => {
                for key in &request.keys {
                    assert!(!self.committed.contains(key), "a committed key is rolled back");
                    self.locks.remove(key);
                    self.rolled_back.insert(key.clone());
                }
            }
            Request::Commit(request) => {
                for key in &request.keys {
                    assert_eq!(self.locks.remove(key), Some(Lock::Prewritten), "{key:?} cannot be committed");
                    self.committed.insert(key.clone());
                }
            }
            Request::TxnHeartBeat(_) => {}
            other => panic!("{other:?}"),
        }
        Answer::Accept
    }
}

/// When requests that are on their way are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    AtOnce,
    /// After the first round of releases.
    BetweenReleases,
}

struct World {
    store: Store,
    knowledge: Knowledge,
    config: Config,
    rng: Rng,
    now: Time,
    /// Answers until the owner loses interest.
    left: usize,
    spawned: VecDeque<BackgroundMachine>,
    on_the_way: Vec<Request>,
}

/// The owner has lost interest.
struct Dropped;

impl World {
    fn new(left: usize) -> Self {
        World {
            store: Store::default(),
            knowledge: knowledge(KeyCodec::Txn, []),
            config: Config::default(),
            rng: Rng::new(1),
            now: Time::from_millis(1),
            left,
            spawned: VecDeque::new(),
            on_the_way: Vec::new(),
        }
    }

    fn step<T>(&mut self, outbox: &mut Outbox, step: impl FnOnce(&mut Context<'_>) -> T) -> (T, Vec<Command>) {
        let mut cx = Context::new(self.now, &mut self.rng, &self.knowledge, &self.config, outbox);
        let result = step(&mut cx);
        let mut commands = Vec::new();
        for command in outbox.drain() {
            match command {
                Command::Spawn(machine) => self.spawned.push_back(machine),
                Command::Observe(_) | Command::Reconnect { .. } => {}
                command => commands.push(command),
            }
        }
        (result, commands)
    }

    /// Runs a machine of the owner, who may lose interest on the way.
    fn run<M: Machine>(&mut self, mut machine: M) -> Result<M::Output, Dropped> {
        let (mut outbox, mut waiting) = (Outbox::new(), VecDeque::new());
        let (mut poll, commands) = self.step(&mut outbox, |cx| machine.start(cx));
        take(&mut waiting, commands);
        loop {
            if let Poll::Ready(output) = poll {
                return Ok(output);
            }
            if self.left == 0 {
                let (abandoned, commands) = self.step(&mut outbox, |cx| machine.abandon(cx));
                take(&mut waiting, commands);
                if abandoned == Abandoned::Discard {
                    self.on_the_way.extend(waiting.into_iter().filter_map(request_of));
                    return Err(Dropped);
                }
                // It goes on without an owner.
                self.left = usize::MAX;
                while poll.is_pending() {
                    poll = self.answer_one(&mut machine, &mut outbox, &mut waiting);
                }
                return Err(Dropped);
            }
            self.left -= 1;
            poll = self.answer_one(&mut machine, &mut outbox, &mut waiting);
        }
    }

    fn answer_one<M: Machine>(
        &mut self,
        machine: &mut M,
        outbox: &mut Outbox,
        waiting: &mut VecDeque<Command>,
    ) -> Poll<M::Output> {
        // Timers come last.
        let index = waiting.iter().position(|command| !matches!(command, Command::Sleep { .. })).unwrap_or(0);
        let (token, event) = match waiting.remove(index).expect("it waits for nothing, and has not ended") {
            Command::Call(call) => {
                let answered = self.store.execute(&call.request);
                (call.token, answer(&call.request, answered))
            }
            Command::Pd { token, request } => (token, Event::Pd(Ok(pd_answer(&request)))),
            Command::Sleep { token, until, .. } => {
                self.now = self.now.max(until);
                (token, Event::Woken)
            }
            other => panic!("{other:?}"),
        };
        let (poll, commands) = self.step(outbox, |cx| machine.handle(cx, token, event));
        take(waiting, commands);
        poll
    }

    /// Runs what was left to the background. Before the second round of a release, what was late arrives.
    fn run_background(&mut self, late: Late) {
        if late == Late::AtOnce {
            self.deliver();
        }
        while let Some(mut machine) = self.spawned.pop_front() {
            let (mut outbox, mut waiting) = (Outbox::new(), VecDeque::new());
            let (mut poll, commands) = self.step(&mut outbox, |cx| machine.start(cx));
            take(&mut waiting, commands);
            while poll.is_pending() {
                let pauses =
                    |command: &Command| matches!(command, Command::Sleep { reason: SleepReason::LateLocks, .. });
                if waiting.iter().any(pauses) {
                    self.deliver();
                }
                poll = self.answer_one(&mut machine, &mut outbox, &mut waiting);
            }
        }
        self.deliver();
    }

    fn deliver(&mut self) {
        for request in std::mem::take(&mut self.on_the_way) {
            self.store.execute(&request);
        }
    }

    /// Locks two keys in two regions, one more, writes one of them and another, and commits.
    fn transaction(&mut self, txn: &mut Transaction) -> Result<(), Dropped> {
        for keys in [&["a", "z"][..], &["k"]] {
            let request = txn.begin_lock(self.now, as_keys(keys), LockOptions::default()).expect("a request");
            match self.run(LockKeys::new(request)) {
                Ok(end) => txn.end_lock(&end),
                Err(Dropped) => {
                    txn.abandon_lock();
                    return Err(Dropped);
                }
            }
        }
        txn.set("a", "value").expect("set");
        txn.set("b", "value").expect("set");
        let request = txn.begin_commit().expect("a request");
        let end = self.run(Commit::new(request))?;
        txn.end_commit(&end);
        assert!(end.is_ok(), "{end:?}");
        Ok(())
    }
}

fn take(waiting: &mut VecDeque<Command>, commands: Vec<Command>) {
    for command in commands {
        match command {
            Command::Cancel { token } => waiting.retain(|waiting| token_of(waiting) != Some(token)),
            command => waiting.push_back(command),
        }
    }
}

fn token_of(command: &Command) -> Option<Token> {
    match command {
        Command::Call(call) => Some(call.token),
        Command::Pd { token, .. } | Command::Sleep { token, .. } => Some(*token),
        _ => None,
    }
}

fn request_of(command: Command) -> Option<Request> {
    match command {
        Command::Call(call) => Some(call.request),
        _ => None,
    }
}

/// Whether the transaction ended before its owner lost interest.
fn dropped_after(answers: usize, late: Late) -> bool {
    let mut world = World::new(answers);
    let mut txn = pessimistic();
    let end = world.transaction(&mut txn);
    if end.is_err() {
        let _ = txn.rollback();
        world.spawned.extend(txn.release().map(BackgroundMachine::new));
    }
    world.run_background(late);
    let Store { locks, committed, rolled_back } = &world.store;
    assert!(locks.is_empty(), "after {answers} answers: {locks:?}");
    assert!(committed.is_empty() || committed.len() == 4, "after {answers} answers: {committed:?}");
    assert!(committed.is_disjoint(rolled_back));
    end.is_ok()
}

#[test]
fn nothing_stays_locked_wherever_its_owner_loses_interest() {
    for late in [Late::AtOnce, Late::BetweenReleases] {
        let mut answers = 0;
        while !dropped_after(answers, late) {
            answers += 1;
        }
        // Four regions and stores, five timestamps and locks, two prewrites, a commit: none was left out.
        assert!(answers >= 10, "{answers} answers are too few for all this");
    }
}
