//! A cluster of stores and PD, simulated: messages in, messages out.
//!
//! ```
//! use tikv_core::request::{Request, Response};
//! use tikv_core::time::Time;
//! use tikv_proto::kvrpcpb::{RawGetRequest, RawPutRequest};
//! use tikv_sim::cluster::{Cluster, ClusterOptions, Served};
//!
//! let mut cluster = Cluster::new(ClusterOptions::default());
//! let (store, context) = cluster.leader_context(b"k").expect("every region has a leader");
//! let put = Request::from(RawPutRequest { key: "k".into(), value: "v".into(), ..Default::default() });
//! cluster.handle_store(Time::ZERO, store, &context, put);
//!
//! let get = Request::from(RawGetRequest { key: "k".into(), ..Default::default() });
//! match cluster.handle_store(Time::ZERO, store, &context, get) {
//!     Served::Answered(Ok(Response::RawGet(response))) => assert_eq!(response.value, "v"),
//!     other => panic!("{other:?}"),
//! }
//! ```
//!
//! # How to drive it
//!
//! A request goes to a store by [`Cluster::handle_store`] and to a member of PD by [`Cluster::handle_pd`]. Most are
//! answered at once. Some wait (for a lock, or because a [`Fault`] delays them); their answers come out of
//! [`Cluster::poll_reply`], which is to be asked after every request and whenever [`Cluster::next_wakeup`] has come. Nothing
//! happens by itself: all time is what the caller says it is, and the same calls give the same answers. A clone goes its
//! own way.
//!
//! # What is one, and what is each store's
//!
//! All regions share one [`Storage`]: a write is on all replicas as soon as it is answered. A replica that lags is
//! therefore not modelled by old data but by what it says: follower reads ask the leader anyway, and stale reads are
//! refused above the safe timestamp ([`Cluster::safe_ts`]), below which old data and new data agree. What really is each
//! store's own is modelled around the storage: which peers it holds and leads, which requests wait there, its health and
//! load. Pessimistic locks in memory belong to a region's leader: they go when it crashes, and stay when it hands over. The
//! largest timestamp read (max_ts) is one for all, so it never falls behind, as a leader that has asked PD does not.
//!
//! Stores collect garbage as soon as the GC safe point advances: what a real cluster may keep for a while is gone at once.

mod bounds;
mod check;
mod faults;
mod fingerprint;
pub mod lock_wait;
mod options;
pub mod region_error;
mod regions;
mod request_keys;
mod requests;
mod split_check;
mod store_requests;
mod stores;
#[cfg(test)]
mod tests;
mod topology;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tikv_core::key::{Key, KeyRange};
use tikv_core::request::{Request, Response};
use tikv_core::rng::Rng;
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_proto::keyspacepb::KeyspaceMeta;
use tikv_proto::kvrpcpb::{self, ApiVersion};

pub use self::bounds::{encoded, txn_range};
use self::faults::Faults;
pub use self::faults::{Arrival, Effect, Fault};
pub use self::fingerprint::fingerprint;
use self::lock_wait::LockWaits;
pub(crate) use self::options::keyspace_prefix;
pub use self::options::{ClusterOptions, SplitCheck, StoreOptions};
pub use self::regions::{Region, Regions};
use self::split_check::SplitChecks;
pub use self::stores::Store;
pub(crate) use self::stores::VERSION;
pub use self::topology::{Topology, TopologyError};
use crate::pd::{KeyspaceError, Pd, PdCall, keyspace_id};
use crate::status::{CallError, Status};
use crate::storage::{Config, RawFormat, Storage};

/// Names a request to a store that was not answered at once. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

impl CallId {
    /// For callers that keep requests waiting by themselves: see [`lock_wait`].
    #[must_use]
    pub const fn new(number: u64) -> Self {
        CallId(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What comes back from a store.
pub type StoreReply = Result<Response, CallError>;

/// What became of a request to a store.
#[derive(Clone, Debug, PartialEq)]
pub enum Served {
    /// The answer.
    Answered(StoreReply),
    /// The answer comes out of [`Cluster::poll_reply`] later, under this id, or never if a fault swallows it.
    Later(CallId),
}

/// A simulated cluster. See the [module](self).
#[derive(Clone, Debug)]
pub struct Cluster {
    topology: Topology,
    storage: Storage,
    pd: Pd,
    faults: Faults,
    waits: LockWaits,
    replies: VecDeque<(CallId, StoreReply)>,
    later: BTreeMap<(Time, CallId), Postponed>,
    next_call: u64,
    lock_wait_timeout: Duration,
    safe_ts_lag: Duration,
    split_check: Option<SplitCheck>,
    split_checks: SplitChecks,
}

/// What is done at some later time.
#[derive(Clone, Debug)]
enum Postponed {
    Request {
        store_id: u64,
        context: kvrpcpb::Context,
        request: Request,
    },
    /// As a request, but its answer interests nobody.
    Replay {
        store_id: u64,
        context: kvrpcpb::Context,
        request: Request,
    },
    Reply {
        store_id: u64,
        reply: StoreReply,
    },
}

impl Cluster {
    /// A cluster that has just been set up.
    #[must_use]
    #[allow(clippy::needless_pass_by_value)] // They are written where the cluster is made, and of no use afterwards.
    pub fn new(options: ClusterOptions) -> Self {
        let mut rng = Rng::new(options.seed);
        let raw_format = match options.api_version {
            ApiVersion::V1ttl => RawFormat::V1Ttl,
            ApiVersion::V2 | ApiVersion::V3 => RawFormat::V2,
            ApiVersion::V1 => RawFormat::V1,
        };
        Cluster {
            topology: Topology::new(&options, rng.child()),
            storage: Storage::new(Config { raw_format, ..Config::default() }),
            pd: Pd::new(&options),
            faults: Faults::default(),
            waits: LockWaits::default(),
            replies: VecDeque::new(),
            later: BTreeMap::new(),
            next_call: 0,
            lock_wait_timeout: options.lock_wait_timeout,
            safe_ts_lag: options.safe_ts_lag,
            split_check: options.split_check,
            split_checks: SplitChecks::default(),
        }
    }

    // ---- Messages ----

    /// Hands a request to a store. The context may also be inside the request; the one given here counts.
    pub fn handle_store(&mut self, now: Time, store_id: u64, context: &kvrpcpb::Context, request: Request) -> Served {
        self.handle_store_with(now, store_id, context, request, None)
    }

    /// As [`Cluster::handle_store`], with an effect on this very request; without one, [`Cluster::inject`]ed faults count.
    pub fn handle_store_with(
        &mut self,
        now: Time,
        store_id: u64,
        context: &kvrpcpb::Context,
        request: Request,
        effect: Option<Effect>,
    ) -> Served {
        self.advance(now);
        let call = self.new_call();
        match self.accept(now, call, store_id, context, request, effect) {
            Some(reply) => Served::Answered(reply),
            None => Served::Later(call),
        }
    }

    /// The next answer to a request that was not answered at once.
    pub fn poll_reply(&mut self, now: Time) -> Option<(CallId, StoreReply)> {
        self.advance(now);
        self.replies.pop_front()
    }

    /// When [`Cluster::poll_reply`] has to be asked again at the latest; a time in the past if there are answers now.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Time> {
        if !self.replies.is_empty() {
            return Some(Time::ZERO);
        }
        let postponed = self.later.first_key_value().map(|((at, _), _)| *at);
        [postponed, self.waits.next_wakeup(), self.topology.next_election(), self.split_checks.at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Nobody waits for an answer any more. The request may have been, or may yet be, executed.
    pub fn forget(&mut self, call: CallId) {
        self.waits.remove(call);
        self.replies.retain(|(replied, _)| *replied != call);
    }

    /// Hands one message to a member of PD: a unary request, or one message of a stream. What comes back answers it.
    ///
    /// # Errors
    ///
    /// The status that ends the call or stream.
    pub fn handle_pd(&mut self, now: Time, call: &PdCall<'_>, message: Bytes) -> Result<Bytes, Status> {
        self.advance(now);
        let answer = self.pd.handle(now, &mut self.topology, call, message);
        for (range, safe_point) in self.pd.take_garbage_ranges() {
            self.storage.collect_garbage(&range, safe_point);
        }
        answer
    }

    /// Orders a store to misbehave.
    pub fn inject(&mut self, fault: Fault) {
        self.faults.add(fault);
    }

    /// Ends all that [`Cluster::inject`] has ordered; requests that are delayed already stay so.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    // ---- The world ----

    /// Stores and regions.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Stores and regions, to change them in ways that touch nothing else: splits, merges, peers, labels.
    ///
    /// Leaders and stores should go through [`Cluster::transfer_leader`], [`Cluster::stop_store`] and
    /// [`Cluster::start_store`].
    pub fn topology_mut(&mut self) -> &mut Topology {
        &mut self.topology
    }

    /// The placement driver.
    #[must_use]
    pub fn pd(&self) -> &Pd {
        &self.pd
    }

    /// The placement driver, to change it: members, keyspaces, timestamps.
    pub fn pd_mut(&mut self) -> &mut Pd {
        &mut self.pd
    }

    /// Lets PD answer from the regions as they are now, whatever becomes of them, until [`Cluster::thaw_pd`]: as if
    /// heartbeats were held up.
    pub fn freeze_pd(&mut self) {
        self.pd.set_frozen_regions(Some(self.topology.regions().clone()));
    }

    /// Tells PD of all that has happened to regions.
    pub fn thaw_pd(&mut self) {
        self.pd.set_frozen_regions(None);
    }

    /// The data of all regions.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The data of all regions, to change it behind everybody's back.
    pub fn storage_mut(&mut self) -> &mut Storage {
        &mut self.storage
    }

    /// Where a key lives: its region's leader, and a context that fits. The key is as regions are bounded: see [`encoded`].
    #[must_use]
    pub fn leader_context(&self, encoded_key: &[u8]) -> Option<(u64, kvrpcpb::Context)> {
        self.context_of(self.topology.regions().by_key(encoded_key)?)
    }

    /// The store of a region's leader, and a context that fits.
    #[must_use]
    pub fn context_of(&self, region: &Region) -> Option<(u64, kvrpcpb::Context)> {
        let peer = *region.leader_peer()?;
        let context = kvrpcpb::Context {
            region_id: region.id(),
            region_epoch: region.meta.region_epoch,
            peer: Some(peer),
            api_version: self.topology.api_version().into(),
            ..kvrpcpb::Context::default()
        };
        Some((peer.store_id, context))
    }

    /// Splits the region that holds an encoded key. The ids of both parts; the right one keeps the old id.
    ///
    /// # Errors
    ///
    /// As [`Topology::split`].
    pub fn split(&mut self, key: &Key) -> Result<(u64, u64), TopologyError> {
        self.topology.split(key)
    }

    /// Makes a keyspace, and splits regions at its bounds.
    ///
    /// # Errors
    ///
    /// As [`Pd::create_keyspace`](crate::pd::Pd::create_keyspace).
    pub fn create_keyspace(
        &mut self,
        now: Time,
        name: &str,
        config: BTreeMap<String, String>,
    ) -> Result<KeyspaceMeta, KeyspaceError> {
        let keyspace = self.pd.create_keyspace(now, name, config)?;
        let id = keyspace_id(&keyspace);
        for prefix in [b'r', b'x'].into_iter().flat_map(|mode| [id, id + 1].map(|id| keyspace_prefix(mode, id))) {
            // The keyspace before this one may end there already.
            let _ = self.topology.split(&encoded(&prefix));
        }
        Ok(keyspace)
    }

    /// Makes the peer on a store the region's leader. Locks in memory are handed over.
    ///
    /// # Errors
    ///
    /// As [`Topology::transfer_leader`].
    pub fn transfer_leader(&mut self, region_id: u64, store_id: u64) -> Result<(), TopologyError> {
        self.topology.transfer_leader(region_id, store_id)?;
        let range = self.txn_range(self.topology.region(region_id)?);
        self.storage.persist_memory_locks(&range);
        Ok(())
    }

    /// Stops a store, as a crash does: what waits there is cut off, locks in its memory are lost, and other stores take over
    /// after an election.
    ///
    /// # Errors
    ///
    /// If there is no such store.
    pub fn stop_store(&mut self, now: Time, store_id: u64) -> Result<(), TopologyError> {
        self.advance(now);
        let led = self.topology.regions().iter().filter(|region| region.leader == Some(store_id));
        let lost: Vec<KeyRange> = led.map(|region| self.txn_range(region)).collect();
        self.topology.stop_store(now, store_id)?;
        for range in &lost {
            self.storage.drop_memory_locks(range);
        }
        let waiting = self.waits.clear_store(store_id);
        self.replies.extend(waiting.into_iter().map(|call| (call, Err(CallError::Disconnected))));
        self.disconnect_postponed(now, store_id);
        Ok(())
    }

    /// Requests under way to the store meet no one; replies under way from it are cut off.
    fn disconnect_postponed(&mut self, now: Time, store_id: u64) {
        let there = |postponed: &Postponed| match postponed {
            Postponed::Request { store_id: to, .. } | Postponed::Replay { store_id: to, .. } => *to == store_id,
            Postponed::Reply { store_id: from, .. } => *from == store_id,
        };
        let calls: Vec<_> = self.later.iter().filter(|(_, postponed)| there(postponed)).map(|(at, _)| *at).collect();
        for (at, call) in calls {
            let Some(Postponed::Request { .. } | Postponed::Reply { .. }) = self.later.remove(&(at, call)) else {
                continue;
            };
            self.later.insert((now, call), Postponed::Reply { store_id, reply: Err(CallError::Disconnected) });
        }
    }

    /// Starts a stopped store.
    ///
    /// # Errors
    ///
    /// If there is no such store.
    pub fn start_store(&mut self, now: Time, store_id: u64) -> Result<(), TopologyError> {
        self.advance(now);
        self.topology.start_store(now, store_id)
    }

    /// The timestamp up to which a region's followers serve stale reads: some way behind PD's clock, and below every lock.
    #[must_use]
    pub fn safe_ts(&self, now: Time, range: &KeyRange) -> Timestamp {
        let by_clock = Timestamp::compose(self.pd.wall_clock_ms(now - self.safe_ts_lag), 0);
        match self.storage.oldest_prewrite(range) {
            Some(start_ts) => by_clock.min(Timestamp::from_version(start_ts.version().saturating_sub(1))),
            None => by_clock,
        }
    }

    // ---- Time ----

    /// Does everything that is due.
    fn advance(&mut self, now: Time) {
        self.topology.hold_elections(now);
        self.run_split_checks(now);
        self.storage.set_unix_time(self.pd.wall_clock_ms(now) / 1_000);
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let ((_, call), postponed) = entry.remove_entry();
            let reply = match postponed {
                Postponed::Reply { reply, .. } => Some(reply),
                Postponed::Request { store_id, context, request } => {
                    self.execute(now, call, store_id, &context, request)
                }
                Postponed::Replay { store_id, context, request } => {
                    self.execute_unheard(now, call, store_id, &context, request);
                    None
                }
            };
            self.replies.extend(reply.map(|reply| (call, reply)));
        }
        let woken = self.waits.wake(now);
        self.answer_woken(now, woken);
    }

    fn new_call(&mut self) -> CallId {
        self.next_call += 1;
        CallId(self.next_call)
    }

    /// The transactional keys of a region.
    fn txn_range(&self, region: &Region) -> KeyRange {
        txn_range(&region.bounds())
    }
}
