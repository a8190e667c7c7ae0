//! A transaction against a cluster that answers anything, in any order, and an owner that may lose interest at any time.
//!
//! The cluster has no data. What is checked is what the client may conclude of what it was told:
//!
//! - nothing is rolled back while a commit of the primary may have been executed, or after it was;
//! - nothing is committed after anything was rolled back;
//! - what is reported is what was answered;
//! - what may be locked is committed or rolled back, unless the outcome is open;
//! - no request is without keys, or with keys of another region;
//! - all of it ends.

use std::collections::BTreeSet;
use std::task::Poll;

use quickcheck::quickcheck;
use tikv_proto::{kvrpcpb, metapb};

use super::*;
use crate::error::{Execution, PdError};
use crate::machine::{Abandoned, Call, Context, Machine, Outbox};
use crate::rng::Rng;

/// Answers given at random before the cluster becomes friendly, or stops to answer.
const HOSTILE_ANSWERS: usize = 40;

struct World {
    rng: Rng,
    now: Time,
    config: Config,
    knowledge: Knowledge,
    regions: Vec<metapb::Region>,
    /// Whether the cluster will never again do what it is asked to.
    is_dying: bool,
    owner: Option<Running<Commit>>,
    background: Vec<Running<BackgroundMachine>>,
    spawned: Vec<BackgroundMachine>,
    answers: usize,
    report: Option<End>,
    history: History,
}

struct Running<M> {
    machine: M,
    outbox: Outbox,
    waiting: Vec<Command>,
}

/// What the client has sent, and what it was told.
#[derive(Default, Debug)]
struct History {
    prewritten: BTreeSet<String>,
    committed: BTreeSet<String>,
    rolled_back: BTreeSet<String>,
    commits_in_flight: usize,
    maybe_executed: bool,
    primary_committed: bool,
}

impl History {
    fn is_open(&self) -> bool {
        self.commits_in_flight > 0 || self.maybe_executed
    }

    fn on_request(&mut self, request: &Request) {
        match request {
            Request::Prewrite(request) => {
                assert!(self.rolled_back.is_empty(), "prewritten after a rollback: {self:?}");
                assert!(!request.mutations.is_empty());
                let locks = request.mutations.iter().filter(|mutation| mutation.op() != kvrpcpb::Op::CheckNotExists);
                self.prewritten.extend(locks.map(|mutation| String::from_utf8_lossy(&mutation.key).into_owned()));
            }
            Request::Commit(request) => {
                assert!(self.rolled_back.is_empty(), "committed after a rollback: {self:?}");
                assert!(!request.keys.is_empty());
                self.committed.extend(names(&request.keys));
                if request.commit_role() == kvrpcpb::CommitRole::Primary {
                    self.commits_in_flight += 1;
                } else {
                    assert!(self.primary_committed, "a secondary before its primary: {self:?}");
                }
            }
            Request::BatchRollback(request) => {
                assert!(!self.is_open() && !self.primary_committed, "rolled back what may be committed: {self:?}");
                assert!(!request.keys.is_empty());
                self.rolled_back.extend(names(&request.keys));
            }
            other => panic!("{other:?}"),
        }
    }

    fn on_answer(&mut self, request: &Request, answer: &Answer) {
        let Request::Commit(request) = request else { return };
        if request.commit_role() != kvrpcpb::CommitRole::Primary {
            return;
        }
        self.commits_in_flight -= 1;
        match answer {
            Answer::Accept => (self.maybe_executed, self.primary_committed) = (false, true),
            Answer::Refuse(_) => self.maybe_executed = false,
            Answer::RegionError(error) => self.maybe_executed |= error.undetermined_result.is_some(),
            Answer::Fault(fault) => self.maybe_executed |= fault.may_be_executed(),
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let letters: Vec<_> = ('a'..='z').filter(|_| rng.below(4) == 0).map(String::from).collect();
        let items = letters.iter().map(|key| match rng.below(6) {
            0 => Mutation::check_not_exists(key.as_str()),
            1 => Mutation::delete(key.as_str()),
            _ => Mutation::put(key.as_str(), "x".repeat(1 + rng.below(20_000) as usize)),
        });
        let mutations = mutations(items);
        let config = Config { operation_concurrency: 1 + rng.below(4) as usize, ..Config::default() };
        let owner = Running::new(commit_with(mutations, options()));
        World {
            now: Time::from_millis(1),
            knowledge: knowledge(KeyCodec::Txn, []),
            regions: vec![described(2, 1, "".."m"), described(3, 1, "m".."")],
            is_dying: rng.below(4) == 0,
            owner: Some(owner),
            background: Vec::new(),
            spawned: Vec::new(),
            answers: 0,
            report: None,
            history: History::default(),
            config,
            rng,
        }
    }

    fn run(mut self) {
        let abandon_at = self.rng.below(60) as usize;
        self.start_owner();
        for step in 0..20_000 {
            if step == abandon_at && self.rng.below(2) == 0 {
                self.abandon();
            }
            self.start_spawned();
            if !self.step() {
                return self.check_end();
            }
        }
        panic!("no end");
    }

    /// Answers one of the commands that wait; false if none does.
    fn step(&mut self) -> bool {
        let owners = self.owner.as_ref().map_or(0, |owner| owner.waiting.len());
        let waiting = owners + self.background.iter().map(|machine| machine.waiting.len()).sum::<usize>();
        if waiting == 0 {
            return false;
        }
        if self.answers < HOSTILE_ANSWERS && self.rng.below(10) == 0 {
            self.split();
        }
        let mut index = self.rng.below(waiting as u64) as usize;
        if index < owners {
            self.step_owner(index);
            return true;
        }
        index -= owners;
        for number in 0..self.background.len() {
            let len = self.background[number].waiting.len();
            if index < len {
                self.step_background(number, index);
                return true;
            }
            index -= len;
        }
        true
    }

    fn start_spawned(&mut self) {
        while let Some(machine) = self.spawned.pop() {
            let mut machine = Running::new(machine);
            if machine.step(self, Machine::start).is_pending() {
                self.background.push(machine);
            }
        }
    }

    fn start_owner(&mut self) {
        let Some(mut owner) = self.owner.take() else { return };
        let poll = owner.step(self, Machine::start);
        self.after_owner(owner, poll);
    }

    fn step_owner(&mut self, index: usize) {
        let Some(mut owner) = self.owner.take() else { return };
        let (token, event) = self.answer(owner.waiting.remove(index));
        let poll = owner.step(self, |machine, cx| machine.handle(cx, token, event));
        self.after_owner(owner, poll);
    }

    fn after_owner(&mut self, owner: Running<Commit>, poll: Poll<End>) {
        match poll {
            Poll::Ready(report) => self.report = Some(report),
            Poll::Pending => self.owner = Some(owner),
        }
    }

    fn step_background(&mut self, number: usize, index: usize) {
        let mut machine = self.background.remove(number);
        let (token, event) = self.answer(machine.waiting.remove(index));
        if machine.step(self, |machine, cx| machine.handle(cx, token, event)).is_pending() {
            self.background.push(machine);
        }
    }

    fn abandon(&mut self) {
        let Some(mut owner) = self.owner.take() else { return };
        match owner.step(self, Machine::abandon) {
            Abandoned::FinishInBackground => self.owner = Some(owner),
            Abandoned::Discard => assert_eq!(self.history.commits_in_flight, 0, "a commit was thrown away"),
        }
    }

    fn answer(&mut self, command: Command) -> (Token, Event) {
        let hostile = self.answers < HOSTILE_ANSWERS;
        self.answers += 1;
        match command {
            Command::Call(call) => {
                let answer = self.answer_to(&call, hostile);
                self.history.on_answer(&call.request, &answer);
                let answer_event = super::answer(&call.request, answer);
                (call.token, answer_event)
            }
            Command::Pd { token, .. } if hostile && self.rng.below(5) == 0 => {
                let fault = Fault::new(FaultKind::Timeout, Execution::MaybeExecuted, "pd");
                (token, Event::Pd(Err(PdError::Fault(fault))))
            }
            Command::Pd { token, request } => (token, Event::Pd(Ok(self.pd_answer(&request)))),
            Command::Sleep { token, until, .. } => {
                self.now = self.now.max(until);
                (token, Event::Woken)
            }
            other => panic!("{other:?}"),
        }
    }

    fn answer_to(&mut self, call: &Call, hostile: bool) -> Answer {
        let (id, epoch) = (call.context.region_id, call.context.region_epoch);
        let Some(region) = self.regions.iter().find(|region| region.id == id && region.region_epoch == epoch) else {
            let current_regions = self.regions.clone();
            let epoch_not_match = Some(errorpb::EpochNotMatch { current_regions });
            return Answer::RegionError(errorpb::Error { epoch_not_match, ..Default::default() });
        };
        check_keys(region, &call.request);
        let choice = match (hostile, self.is_dying) {
            (true, _) => self.rng.below(13),
            (false, true) => self.rng.range(9..11),
            (false, false) => 0,
        };
        match choice {
            0..=4 => Answer::Accept,
            5 => Answer::RegionError(server_is_busy()),
            6 => Answer::RegionError(undetermined_result()),
            7 => Answer::RegionError(errorpb::Error {
                not_leader: Some(errorpb::NotLeader::default()),
                ..Default::default()
            }),
            8 => Answer::Refuse(self.refusal(&call.request)),
            9 => Answer::Fault(Fault::new(FaultKind::Unreachable, Execution::NotSent, "store-1")),
            10 => Answer::RegionError(errorpb::Error {
                region_not_found: Some(errorpb::RegionNotFound::default()),
                ..Default::default()
            }),
            11 => Answer::Fault(Fault::new(FaultKind::Timeout, Execution::MaybeExecuted, "store-1")),
            _ => Answer::Fault(Fault::new(FaultKind::Disconnected, Execution::MaybeExecuted, "store-1")),
        }
    }

    fn refusal(&mut self, request: &Request) -> kvrpcpb::KeyError {
        match request {
            Request::Prewrite(_) => conflict_with(ts(1_500), "a"),
            Request::Commit(commit) if self.rng.below(2) == 0 => {
                let attempted = Timestamp::from_version(commit.commit_version);
                let primary = String::from_utf8_lossy(&commit.primary_key);
                commit_ts_expired(&primary, attempted, attempted.next())
            }
            _ => lock_not_found("a"),
        }
    }

    fn pd_answer(&self, request: &PdRequest) -> PdResponse {
        match request {
            PdRequest::Timestamp => PdResponse::Timestamp(ts(2_000 + self.answers as u64)),
            PdRequest::RegionByKey { key, .. } => {
                let holds = |region: &&metapb::Region| {
                    region.start_key <= *key && (region.end_key.is_empty() || *key < region.end_key)
                };
                let region = self.regions.iter().find(holds).map(|region| {
                    Arc::new(PdRegion { region: region.clone(), leader: Some(region.peers[0]), ..Default::default() })
                });
                PdResponse::Region(region)
            }
            other => pd_answer(other),
        }
    }

    /// Splits a region at some letter.
    fn split(&mut self) {
        let letter = String::from(char::from(b'a' + self.rng.below(26) as u8));
        let at = KeyCodec::Txn.encode_region_key(&letter.as_str().into());
        let splits =
            |region: &metapb::Region| region.start_key < at && (region.end_key.is_empty() || at < region.end_key);
        let id = 10 + self.regions.len() as u64;
        let Some(region) = self.regions.iter_mut().find(|region| splits(region)) else { return };
        let mut right = metapb::Region { id, start_key: at.clone(), ..region.clone() };
        region.end_key = at;
        for region in [&mut *region, &mut right] {
            let epoch = region.region_epoch.get_or_insert_default();
            epoch.version += 1;
        }
        self.regions.push(right);
    }

    fn check_end(&self) {
        let history = &self.history;
        assert!(self.owner.is_none(), "it waits for nothing and has not ended");
        match &self.report {
            Some(Ok(CommitOutcome { commit_ts: Some(_), .. })) => {
                assert!(history.primary_committed);
                let all_committed = history.committed == history.prewritten;
                assert!(all_committed || self.is_dying, "locks are left behind: {history:?}");
            }
            Some(Ok(CommitOutcome { commit_ts: None, .. })) => assert!(history.prewritten.is_empty()),
            Some(Err(error)) if error.is_undetermined() => {
                assert!(history.maybe_executed, "a false alarm: {error}");
                assert!(history.rolled_back.is_empty());
            }
            // An owner that has lost interest is told nothing, but nothing is left behind.
            Some(Err(_)) | None => {
                assert!(!history.is_open() && !history.primary_committed, "{history:?}");
                let all_rolled_back = history.rolled_back.is_superset(&history.prewritten);
                assert!(all_rolled_back || self.is_dying, "locks are left behind: {history:?}");
            }
        }
    }
}

impl<M> Running<M> {
    fn new(machine: M) -> Self {
        Running { machine, outbox: Outbox::new(), waiting: Vec::new() }
    }

    fn step<T>(&mut self, world: &mut World, step: impl FnOnce(&mut M, &mut Context<'_>) -> T) -> T {
        let World { now, rng, knowledge, config, .. } = world;
        let mut cx = Context::new(*now, rng, knowledge, config, &mut self.outbox);
        let result = step(&mut self.machine, &mut cx);
        let commands: Vec<_> = self.outbox.drain().collect();
        for command in commands {
            match command {
                Command::Reconnect { .. } | Command::Observe(_) => {}
                Command::Cancel { token } => self.waiting.retain(|waiting| token_of(waiting) != Some(token)),
                Command::Spawn(machine) => world.spawned.push(machine),
                Command::Call(call) => {
                    world.history.on_request(&call.request);
                    self.waiting.push(Command::Call(call));
                }
                command => self.waiting.push(command),
            }
        }
        result
    }
}

fn token_of(command: &Command) -> Option<Token> {
    match command {
        Command::Call(call) => Some(call.token),
        Command::Pd { token, .. } | Command::Sleep { token, .. } => Some(*token),
        _ => None,
    }
}

fn check_keys(region: &metapb::Region, request: &Request) {
    let keys: Vec<bytes::Bytes> = match request {
        Request::Prewrite(request) => request.mutations.iter().map(|mutation| mutation.key.clone()).collect(),
        Request::Commit(request) => request.keys.clone(),
        Request::BatchRollback(request) => request.keys.clone(),
        other => panic!("{other:?}"),
    };
    for key in keys {
        let key = KeyCodec::Txn.encode_region_key(&key.into());
        assert!(region.start_key <= key && (region.end_key.is_empty() || key < region.end_key), "of another region");
    }
}

quickcheck! {
    fn what_is_concluded_follows_from_what_was_answered(seed: u64) -> bool {
        World::new(seed).run();
        true
    }
}
