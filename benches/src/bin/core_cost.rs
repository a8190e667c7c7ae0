//! What one operation costs in core alone: its machine in a loop, answered at once, no I/O.
//!
//! `benches/core-cost` runs this under valgrind and prints instructions and allocations per operation, as the difference of
//! two runs of different length.
#![allow(clippy::print_stderr)]

use std::process::ExitCode;
use std::task::Poll;

use bytes::Bytes;
use tikv_core::config::Config;
use tikv_core::keyspace::KeyCodec;
use tikv_core::knowledge::Knowledge;
use tikv_core::knowledge::regions::{Region, RegionVerId, Replica};
use tikv_core::machine::{Command, Context, Event, Machine, Outbox};
use tikv_core::raw::{self, RawOptions};
use tikv_core::request::pd::{PdRequest, PdResponse};
use tikv_core::request::{Request, Response};
use tikv_core::rng::Rng;
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_core::txn::{Commit, CommitOptions, Transaction};
use tikv_proto::{kvrpcpb, metapb};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(operation), Some(count)) = (args.next(), args.next().and_then(|count| count.parse().ok())) else {
        eprintln!("usage: core_cost raw_get|raw_put|commit_1 COUNT");
        return ExitCode::FAILURE;
    };
    let mut world = World::new(if operation == "commit_1" { KeyCodec::Txn } else { KeyCodec::Raw });
    for _ in 0..count {
        let done = match operation.as_str() {
            "raw_get" => world.raw_get(),
            "raw_put" => world.raw_put(),
            "commit_1" => world.commit_1(),
            _ => false,
        };
        if !done {
            eprintln!("{operation} is not known, or did not succeed");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// One region on one store that says yes to everything.
struct World {
    config: Config,
    knowledge: Knowledge,
    options: RawOptions,
    rng: Rng,
    outbox: Outbox,
    key: Bytes,
    value: Bytes,
    clock: u64,
}

impl World {
    fn new(codec: KeyCodec) -> Self {
        let config = Config::default();
        let knowledge = Knowledge::new(codec, &config);
        knowledge.stores.learn(&metapb::Store { id: 1, address: "store-1:20160".into(), ..Default::default() });
        let peer = metapb::Peer { id: 2, store_id: 1, ..Default::default() };
        let region = Region {
            ver_id: RegionVerId { id: 1, conf_ver: 1, version: 1 },
            range: tikv_core::key::KeyRange::ALL,
            replicas: vec![Replica { peer, store_epoch: 0 }],
            leader: 0,
            buckets: None,
        };
        knowledge.regions.insert(Time::ZERO, region);
        World {
            options: RawOptions::new(&config),
            config,
            knowledge,
            rng: Rng::new(1),
            outbox: Outbox::new(),
            key: Bytes::from_static(b"a key of 16 bytes"),
            value: Bytes::from(vec![7; 64]),
            clock: 1,
        }
    }

    fn raw_get(&mut self) -> bool {
        let Ok(get) = raw::get(&self.config, self.key.clone().into(), &self.options) else { return false };
        self.run(get).is_ok_and(|value| value.is_some())
    }

    fn raw_put(&mut self) -> bool {
        let put = raw::put(&self.config, self.key.clone().into(), self.value.clone(), None, &self.options);
        put.is_ok_and(|put| self.run(put).is_ok())
    }

    fn commit_1(&mut self) -> bool {
        self.clock += 1;
        let start_ts = Timestamp::compose(1_000_000, self.clock);
        let mut txn = Transaction::new(&self.config, start_ts, Time::ZERO, CommitOptions::new(&self.config));
        if txn.set(self.key.clone(), self.value.clone()).is_err() {
            return false;
        }
        txn.begin_commit().is_ok_and(|request| self.run(Commit::new(request)).is_ok())
    }

    fn run<M: Machine>(&mut self, mut machine: M) -> M::Output {
        let now = Time::from_millis(1);
        let mut cx = Context::new(now, &mut self.rng, &self.knowledge, &self.config, &mut self.outbox);
        let mut poll = machine.start(&mut cx);
        loop {
            if let Poll::Ready(output) = poll {
                self.outbox.drain().for_each(drop);
                return output;
            }
            let commands: Vec<_> = self.outbox.drain().collect();
            for command in commands {
                let (token, event) = match command {
                    Command::Call(call) => (call.token, Event::Reply(Ok(self.answer(&call.request)))),
                    Command::Pd { token, request: PdRequest::Timestamp } => {
                        self.clock += 1;
                        let timestamp = Timestamp::compose(1_000_001, self.clock);
                        (token, Event::Pd(Ok(PdResponse::Timestamp(timestamp))))
                    }
                    _ => continue,
                };
                let mut cx = Context::new(now, &mut self.rng, &self.knowledge, &self.config, &mut self.outbox);
                poll = machine.handle(&mut cx, token, event);
            }
        }
    }

    fn answer(&self, request: &Request) -> Response {
        match request {
            Request::RawGet(_) => kvrpcpb::RawGetResponse { value: self.value.clone(), ..Default::default() }.into(),
            Request::RawPut(_) => kvrpcpb::RawPutResponse::default().into(),
            Request::Prewrite(_) => kvrpcpb::PrewriteResponse::default().into(),
            _ => kvrpcpb::CommitResponse::default().into(),
        }
    }
}
