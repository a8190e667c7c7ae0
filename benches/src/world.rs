//! A cluster that says yes to everything.

use std::task::Poll;

use bytes::Bytes;
use tikv_core::config::Config;
use tikv_core::key::{Direction, Key, KeyRange};
use tikv_core::keyspace::KeyCodec;
use tikv_core::knowledge::Knowledge;
use tikv_core::knowledge::regions::{Region, RegionVerId, Replica};
use tikv_core::machine::{BackgroundMachine, Call, Command, Context, Event, Machine, Outbox};
use tikv_core::raw::{self, RawOptions};
use tikv_core::request::pd::{PdRequest, PdResponse};
use tikv_core::request::{Request, Response};
use tikv_core::rng::Rng;
use tikv_core::snapshot::{self, ReadThrough, ScanCursor, ScanPage, SnapshotOptions};
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_core::txn::{Commit, CommitOptions, Transaction};
use tikv_proto::{kvrpcpb, metapb};

use crate::keys;

/// Pairs of a page of a scan.
pub const PAGE_PAIRS: u32 = 256;
const REPLICAS: u64 = 3;
const NOW: Time = Time::from_millis(1);

/// How much a client knows.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Regions, equally large.
    pub regions: u64,
    /// Stores, on three of which each region is.
    pub stores: u64,
}

/// A client that knows its cluster, and the answers it gets. No RPC fails, no key is locked.
#[derive(Debug)]
pub struct World {
    config: Config,
    knowledge: Knowledge,
    options: RawOptions,
    rng: Rng,
    outbox: Outbox,
    background: Vec<BackgroundMachine>,
    value: Bytes,
    /// Answers to scans, made beforehand since they are not the client's work.
    pages: Vec<Vec<kvrpcpb::KvPair>>,
    clock: u64,
}

impl World {
    /// Everything is known of a cluster of this size.
    #[must_use]
    pub fn new(codec: KeyCodec, size: Size) -> Self {
        let mut config = Config::default();
        config.txn_total_limit_bytes = 1 << 40;
        let knowledge = Knowledge::new(codec, &config);
        fill(&knowledge, size);
        World {
            knowledge,
            options: RawOptions::new(&config),
            config,
            rng: Rng::new(1),
            outbox: Outbox::new(),
            background: Vec::new(),
            value: Bytes::from(vec![7; 64]),
            pages: Vec::new(),
            clock: 1,
        }
    }

    /// Ready to answer so many scans.
    #[must_use]
    pub fn with_pages(mut self, count: usize) -> Self {
        let pair =
            |key: Key| kvrpcpb::KvPair { key: key.into_bytes(), value: self.value.clone(), ..Default::default() };
        let page: Vec<_> = keys::spread(PAGE_PAIRS.into()).into_iter().map(pair).collect();
        self.pages = vec![page; count];
        self
    }

    /// Whether the region of a key is known.
    #[must_use]
    pub fn locate(&self, key: &Key) -> bool {
        self.knowledge.regions.lookup(NOW, key.as_slice()).is_some()
    }

    /// The machine of a raw get.
    #[must_use]
    pub fn raw_get_machine(&self, key: &Key) -> Option<raw::Get> {
        raw::get(&self.config, key.clone(), &self.options).ok()
    }

    /// Reads a raw key. Whether that went well, as with all that follow.
    pub fn raw_get(&mut self, key: &Key) -> bool {
        let Ok(get) = raw::get(&self.config, key.clone(), &self.options) else { return false };
        let value = self.run(get);
        value.is_some_and(|value| value.is_ok_and(|value| value.is_some()))
    }

    /// Writes a raw key.
    pub fn raw_put(&mut self, key: &Key) -> bool {
        let Ok(put) = raw::put(&self.config, key.clone(), self.value.clone(), None, &self.options) else {
            return false;
        };
        self.run(put).is_some_and(|put| put.is_ok())
    }

    /// Reads a key at a timestamp.
    pub fn snapshot_get(&mut self, key: &Key) -> bool {
        let read_ts = self.timestamp();
        let options = SnapshotOptions::new(read_ts, &self.config);
        let get = snapshot::Get::new(&self.config, key.clone(), options, ReadThrough::new(read_ts));
        self.run(get).is_some_and(|read| read.result.is_ok_and(|value| value.is_some()))
    }

    /// Reads a page of a scan of everything.
    pub fn scan_page(&mut self) -> bool {
        let read_ts = self.timestamp();
        let options = SnapshotOptions::new(read_ts, &self.config);
        let cursor = ScanCursor::new(KeyRange::ALL, Direction::Forward);
        let scan = ScanPage::new(&self.config, cursor, PAGE_PAIRS, options, ReadThrough::new(read_ts));
        let page = self.run(scan).and_then(|read| read.result.ok());
        page.is_some_and(|page| page.pairs.len() == PAGE_PAIRS as usize)
    }

    /// Writes keys in an optimistic transaction and commits it in two phases, secondaries included.
    pub fn commit(&mut self, keys: &[Key]) -> bool {
        let start_ts = self.timestamp();
        let mut txn = Transaction::new(&self.config, start_ts, Time::ZERO, CommitOptions::new(&self.config));
        if keys.iter().any(|key| txn.set(key.clone(), self.value.clone()).is_err()) {
            return false;
        }
        let Ok(request) = txn.begin_commit() else { return false };
        self.run(Commit::new(request)).is_some_and(|end| end.is_ok())
    }

    /// The first call that a machine makes.
    pub fn first_call(&mut self, machine: &mut impl Machine) -> Option<Call> {
        let mut cx = Context::new(NOW, &mut self.rng, &self.knowledge, &self.config, &mut self.outbox);
        let _ = machine.start(&mut cx);
        self.outbox.drain().find_map(|command| match command {
            Command::Call(call) => Some(call),
            _ => None,
        })
    }

    /// Runs a machine to its end, and then what it has left for the background. `None` if it waits for anything else than
    /// an answer.
    fn run<M: Machine>(&mut self, mut machine: M) -> Option<M::Output> {
        let output = self.drive(&mut machine);
        while let Some(mut machine) = self.background.pop() {
            self.drive(&mut machine);
        }
        output
    }

    fn drive<M: Machine>(&mut self, machine: &mut M) -> Option<M::Output> {
        let mut poll = self.step(|cx| machine.start(cx));
        while poll.is_pending() {
            match self.outbox.pop()? {
                Command::Call(call) => {
                    let response = self.answer(&call.request);
                    poll = self.step(|cx| machine.handle(cx, call.token, Event::Reply(Ok(response))));
                }
                Command::Pd { token, request: PdRequest::Timestamp } => {
                    let response = PdResponse::Timestamp(self.timestamp());
                    poll = self.step(|cx| machine.handle(cx, token, Event::Pd(Ok(response))));
                }
                Command::Spawn(machine) => self.background.push(machine),
                // Timers: nothing here takes time.
                _ => {}
            }
        }
        self.drop_commands();
        match poll {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    fn step<T>(&mut self, step: impl FnOnce(&mut Context<'_>) -> T) -> T {
        step(&mut Context::new(NOW, &mut self.rng, &self.knowledge, &self.config, &mut self.outbox))
    }

    /// Nobody waits any more, but what was to be spawned is.
    fn drop_commands(&mut self) {
        while let Some(command) = self.outbox.pop() {
            if let Command::Spawn(machine) = command {
                self.background.push(machine);
            }
        }
    }

    fn answer(&mut self, request: &Request) -> Response {
        let value = self.value.clone();
        match request {
            Request::RawGet(_) => kvrpcpb::RawGetResponse { value, ..Default::default() }.into(),
            Request::RawPut(_) => kvrpcpb::RawPutResponse::default().into(),
            Request::Get(_) => kvrpcpb::GetResponse { value, ..Default::default() }.into(),
            Request::Scan(_) => {
                kvrpcpb::ScanResponse { pairs: self.pages.pop().unwrap_or_default(), ..Default::default() }.into()
            }
            Request::Prewrite(_) => kvrpcpb::PrewriteResponse::default().into(),
            _ => kvrpcpb::CommitResponse::default().into(),
        }
    }

    fn timestamp(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp::compose(1_000_000, self.clock)
    }
}

/// Tells a client all about a cluster of this size.
pub fn fill(knowledge: &Knowledge, size: Size) {
    for id in 1..=size.stores {
        knowledge.stores.learn(&metapb::Store { id, address: format!("store-{id}:20160"), ..Default::default() });
    }
    let bound = |n: u64| if n % size.regions == 0 { Key::EMPTY } else { keys::key(keys::KEYS / size.regions * n) };
    for n in 0..size.regions {
        let replica = |i: u64| {
            let store_id = (n + i) % size.stores + 1;
            Replica { peer: metapb::Peer { id: n * REPLICAS + i + 1, store_id, ..Default::default() }, store_epoch: 0 }
        };
        let region = Region {
            ver_id: RegionVerId { id: n + 1, conf_ver: 1, version: 1 },
            range: KeyRange { start: bound(n), end: bound(n + 1) },
            replicas: (0..REPLICAS.min(size.stores)).map(replica).collect(),
            leader: 0,
            buckets: None,
        };
        knowledge.regions.insert(Time::ZERO, region);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(codec: KeyCodec, regions: u64) -> World {
        World::new(codec, Size { regions, stores: 5 }).with_pages(1)
    }

    #[test]
    fn every_operation_succeeds() {
        let key = keys::key(7);
        assert!(world(KeyCodec::Raw, 3).raw_get(&key));
        assert!(world(KeyCodec::Raw, 3).raw_put(&key));
        assert!(world(KeyCodec::Txn, 3).snapshot_get(&key));
        assert!(world(KeyCodec::Txn, 1).scan_page());
        assert!(world(KeyCodec::Txn, 1).commit(&[key]));
        assert!(world(KeyCodec::Txn, 10).commit(&keys::spread(1000)));
    }

    #[test]
    fn every_key_is_in_a_known_region() {
        let world = world(KeyCodec::Raw, 1000);
        assert_eq!(world.knowledge.regions.len(), 1000);
        assert!(keys::random(1000).iter().all(|key| world.locate(key)));
    }

    #[test]
    fn nothing_of_an_operation_is_left_behind() {
        let mut world = world(KeyCodec::Txn, 10);
        assert!(world.commit(&keys::spread(100)));
        assert!(world.background.is_empty() && world.outbox.is_empty());
    }
}
