//! A small pipelined transaction whose owner loses interest after any number of answers: in the end it has committed on all its
//! keys or on none, and if it was given up, nothing can be locked any more but by requests that come late, which find the
//! primary rolled back. Those are executed before what cleans up, or as late as they can be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::task::Poll;

use bytes::Bytes;

use super::*;
use crate::machine::{Abandoned, Context, Machine, Outbox};
use crate::rng::Rng;

/// What TiKV has.
#[derive(Debug, Default)]
struct Store {
    /// Generation and value of each lock; empty for a deletion.
    locks: BTreeMap<Bytes, (u64, Bytes)>,
    rolled_back: BTreeSet<Bytes>,
    committed: BTreeMap<Bytes, Bytes>,
}

impl Store {
    fn execute(&mut self, request: &Request, region: &Range<&str>) -> Response {
        match request {
            Request::Flush(request) => {
                let keys = request.mutations.iter().map(|mutation| mutation.key.clone());
                if keys.clone().any(|key| self.rolled_back.contains(&key) || self.committed.contains_key(&key)) {
                    let errors = vec![conflict_with(start_ts(), "a")];
                    return kvrpcpb::FlushResponse { errors, ..Default::default() }.into();
                }
                assert_eq!(request.primary_key, "a", "the primary stays the same");
                for mutation in &request.mutations {
                    let generation = self.locks.get(&mutation.key).map_or(0, |(generation, _)| *generation);
                    if request.generation > generation {
                        self.locks.insert(mutation.key.clone(), (request.generation, mutation.value.clone()));
                    }
                }
                kvrpcpb::FlushResponse::default().into()
            }
            Request::BufferBatchGet(request) => {
                let pair = |key: &Bytes| {
                    let (_, value) = self.locks.get(key)?;
                    Some(kvrpcpb::KvPair { key: key.clone(), value: value.clone(), ..Default::default() })
                };
                let pairs = request.keys.iter().filter_map(pair).collect();
                kvrpcpb::BufferBatchGetResponse { pairs, ..Default::default() }.into()
            }
            Request::BatchRollback(request) => {
                for key in &request.keys {
                    assert!(!self.committed.contains_key(key), "a committed key is rolled back");
                    self.locks.remove(key);
                    self.rolled_back.insert(key.clone());
                }
                kvrpcpb::BatchRollbackResponse::default().into()
            }
            Request::Commit(request) => {
                assert_eq!(request.keys, ["a"]);
                let (_, value) = self.locks.remove(&request.keys[0]).expect("the primary is locked");
                self.committed.insert("a".into(), value);
                kvrpcpb::CommitResponse::default().into()
            }
            Request::ResolveLock(request) => {
                let is_here = |key: &Bytes| {
                    key[..] >= *region.start.as_bytes() && (region.end.is_empty() || key[..] < *region.end.as_bytes())
                };
                let here: Vec<Bytes> = self.locks.keys().filter(|key| is_here(key)).cloned().collect();
                for key in here {
                    let (_, value) = self.locks.remove(&key).unwrap_or_default();
                    if request.commit_version > 0 {
                        assert!(self.committed.contains_key(&Bytes::from("a")), "before the primary");
                        self.committed.insert(key, value);
                    } else {
                        assert!(self.committed.is_empty(), "what is committed is rolled back");
                        self.rolled_back.insert(key);
                    }
                }
                kvrpcpb::ResolveLockResponse::default().into()
            }
            Request::TxnHeartBeat(_) => kvrpcpb::TxnHeartBeatResponse::default().into(),
            Request::BroadcastTxnStatus(_) => kvrpcpb::BroadcastTxnStatusResponse::default().into(),
            Request::BatchGet(_) => kvrpcpb::BatchGetResponse::default().into(),
            other => panic!("{other:?}"),
        }
    }
}

/// When requests that are on their way are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    BeforeCleanup,
    AfterAll,
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

const REGIONS: [(u64, Range<&str>); 2] = [(2, "".."m"), (3, "m".."")];

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
                if abandoned == Abandoned::FinishInBackground {
                    while poll.is_pending() {
                        poll = self.answer_one(&mut machine, &mut outbox, &mut waiting);
                    }
                }
                self.on_the_way.extend(waiting.into_iter().filter_map(|command| match command {
                    Command::Call(call) => Some(call.request),
                    _ => None,
                }));
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
                let region = REGIONS.iter().find(|(id, _)| *id == call.context.region_id);
                let range = region.map_or("".."", |(_, range)| range.clone());
                let response = self.store.execute(&call.request, &range);
                (call.token, Event::Reply(Ok(response)))
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

    fn run_background(&mut self, late: Late) {
        if late == Late::BeforeCleanup {
            self.deliver();
        }
        while let Some(mut machine) = self.spawned.pop_front() {
            let (mut outbox, mut waiting) = (Outbox::new(), VecDeque::new());
            let (mut poll, commands) = self.step(&mut outbox, |cx| machine.start(cx));
            take(&mut waiting, commands);
            while poll.is_pending() {
                poll = self.answer_one(&mut machine, &mut outbox, &mut waiting);
            }
        }
        self.deliver();
    }

    fn deliver(&mut self) {
        for request in std::mem::take(&mut self.on_the_way) {
            self.store.execute(&request, &REGIONS[0].1);
        }
    }

    /// Writes three generations over two regions, the same key more than once, reads, and commits.
    fn transaction(&mut self, txn: &mut PipelinedTransaction) -> Result<(), Dropped> {
        for (value, keys) in [("1", &["a", "z"][..]), ("2", &["a", "b"])] {
            for key in keys {
                txn.set(*key, value).expect("a write");
            }
            let generation = txn.begin_flush().expect("open").expect("something to flush");
            let end = self.run(Flush::new(generation))?;
            txn.end_flush(&end);
            assert!(end.is_ok(), "{end:?}");
        }
        let read = txn.begin_read(as_keys(&["a", "z", "c"])).expect("open");
        let options = SnapshotOptions::new(start_ts(), &self.config);
        let end = self.run(OwnRead::new(read, options, ReadThrough::new(start_ts())))?;
        let values: Vec<Bytes> = end.result.expect("pairs").into_iter().map(|pair| pair.value.bytes).collect();
        assert_eq!(values, ["2", "1"]);
        txn.set("b", "3").expect("a write");
        txn.set("y", "3").expect("a write");
        let request = txn.begin_commit().expect("open");
        let end = self.run(PipelinedCommit::new(request))?;
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

/// Whether the transaction ended before its owner lost interest.
fn dropped_after(answers: usize, late: Late) -> bool {
    let mut world = World::new(answers);
    let mut txn = pipelined_txn();
    let end = world.transaction(&mut txn);
    if end.is_err() {
        // A commit that was dropped has seen to itself.
        let _ = txn.rollback();
        world.spawned.extend(txn.release().map(BackgroundMachine::new));
    }
    world.run_background(late);
    let Store { locks, committed, rolled_back } = &world.store;
    let values: Vec<_> = committed.iter().map(|(key, value)| (&key[..], &value[..])).collect();
    let all: [(&[u8], &[u8]); 4] = [(b"a", b"2"), (b"b", b"3"), (b"y", b"3"), (b"z", b"1")];
    assert!(values.is_empty() || values == all, "after {answers} answers: {values:?}");
    // What came last has locked keys; who meets them finds the primary rolled back.
    let is_late = late == Late::AfterAll && rolled_back.contains(&Bytes::from("a"));
    assert!(
        locks.is_empty() || (is_late && !locks.contains_key(&Bytes::from("a"))),
        "after {answers} answers: {locks:?}"
    );
    end.is_ok()
}

#[test]
fn it_commits_on_all_its_keys_or_on_none_wherever_its_owner_loses_interest() {
    for late in [Late::BeforeCleanup, Late::AfterAll] {
        let mut answers = 0;
        while !dropped_after(answers, late) {
            answers += 1;
        }
        // Two regions and their stores, four flushes, three reads, a timestamp, and a commit: none was left out.
        assert!(answers >= 12, "{answers} answers are too few for all this");
    }
}
