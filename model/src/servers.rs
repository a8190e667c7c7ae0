//! The cluster of a model: one store with the storage of the simulated cluster and its queues of requests that wait for locks,
//! regions, and PD's clock.
//!
//! PD answers at once and always right: what a slow answer could bring about, a slow message after it brings about as well,
//! and what an outdated one could, a region that splits after it was learnt does.

use std::fmt::Debug;
use std::sync::Arc;

use tikv_core::key::{Key, KeyRange};
use tikv_core::keyspace::KeyCodec;
use tikv_core::knowledge::Knowledge;
use tikv_core::machine::Call;
use tikv_core::request::pd::{PdRegion, PdRequest, PdResponse};
use tikv_core::request::{CallContext, Request, RequestKind, Response};
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_proto::{errorpb, metapb};
use tikv_sim::cluster::lock_wait::{LockWaits, Waiter, Woken};
use tikv_sim::cluster::{CallId, region_error};
use tikv_sim::storage::{Handled, LockWait, Outcome, Storage};

/// Where the one store listens.
pub(crate) const ADDRESS: &str = "store-1";
const STORE_ID: u64 = 1;
/// PD's clock when the model begins, in milliseconds.
const BEGIN_MS: u64 = 1_700_000_000_000;
/// How far time leaps: locks of small transactions that were there before have expired then.
pub(crate) const LEAP_MS: u64 = 10_000;

/// The regions, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Regions(Vec<Region>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Region {
    id: u64,
    version: u64,
    range: KeyRange,
}

/// All time there is: it stands still but for leaps, so that sleeps take no time, and messages as much as they like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Clock {
    /// Leaps so far.
    pub(crate) leaps: u8,
    /// Timestamps given so far.
    given: u16,
}

impl Clock {
    /// The clock of every process.
    #[must_use]
    pub(crate) fn now(self) -> Time {
        Time::from_millis(u64::from(self.leaps) * LEAP_MS)
    }

    /// Milliseconds of PD's clock.
    #[must_use]
    pub(crate) fn physical_ms(self) -> u64 {
        BEGIN_MS + u64::from(self.leaps) * LEAP_MS
    }

    /// A new timestamp.
    pub(crate) fn timestamp(&mut self) -> Timestamp {
        self.given += 1;
        Timestamp::compose(self.physical_ms(), u64::from(self.given))
    }
}

impl Regions {
    /// Regions with these bounds between them.
    #[must_use]
    pub(crate) fn new(bounds: &[&'static str]) -> Self {
        let starts = std::iter::once("").chain(bounds.iter().copied());
        let ends = bounds.iter().copied().chain(std::iter::once(""));
        let regions = starts.zip(ends).zip(1..);
        Regions(regions.map(|((start, end), id)| Region { id, version: 1, range: KeyRange::new(start, end) }).collect())
    }

    /// Splits the region that holds `key` there. The right part keeps the id, as TiKV does it by default.
    pub(crate) fn split(&mut self, key: &'static str) {
        let id = self.0.iter().map(|region| region.id).max().unwrap_or(0) + 1;
        let Some(index) = self.0.iter().position(|region| region.range.contains(key.as_bytes())) else { return };
        let whole = &mut self.0[index];
        whole.version += 1;
        let left = Region {
            id,
            version: whole.version,
            range: KeyRange { start: whole.range.start.clone(), end: Key::from(key) },
        };
        whole.range.start = Key::from(key);
        self.0.insert(index, left);
    }

    /// Teaches a client where everything is.
    pub(crate) fn teach(&self, now: Time, knowledge: &Knowledge) {
        knowledge.stores.learn(&store());
        for region in &self.0 {
            knowledge.regions.insert(now, region.known());
        }
    }

    /// The context of a request for the region of `key`; otherwise like another one.
    #[must_use]
    pub(crate) fn context(&self, key: &Key, like: &CallContext) -> CallContext {
        let region = self.0.iter().find(|region| region.range.contains(key.as_slice()));
        let meta = region.map(Region::meta).unwrap_or_default();
        let mut context = like.clone();
        context.region_id = meta.id;
        context.region_epoch = meta.region_epoch;
        context.peer = meta.peers.first().copied();
        context
    }

    fn by_encoded_key(&self, key: &[u8]) -> Option<&Region> {
        self.0.iter().find(|region| {
            let meta = region.meta();
            *meta.start_key <= *key && (meta.end_key.is_empty() || *key < *meta.end_key)
        })
    }

    /// The keys of the region that a request is for, if its sender knows the region as it is.
    fn check(&self, context: &CallContext) -> Result<KeyRange, Box<errorpb::Error>> {
        let id = context.region_id;
        let Some(region) = self.0.iter().find(|region| region.id == id) else {
            return Err(Box::new(region_error::region_not_found(id)));
        };
        let sent = context.region_epoch.unwrap_or_default();
        if sent.version != region.version {
            let siblings = self.0.iter().filter(|other| other.version == region.version).map(Region::meta).collect();
            return Err(Box::new(region_error::epoch_not_match(sent, siblings)));
        }
        Ok(region.range.clone())
    }
}

impl Region {
    fn meta(&self) -> metapb::Region {
        metapb::Region {
            id: self.id,
            start_key: KeyCodec::Txn.encode_region_key(&self.range.start),
            end_key: KeyCodec::Txn.encode_region_key(&self.range.end),
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: self.version }),
            peers: vec![self.peer()],
            ..metapb::Region::default()
        }
    }

    fn peer(&self) -> metapb::Peer {
        metapb::Peer { id: self.id * 10 + STORE_ID, store_id: STORE_ID, ..metapb::Peer::default() }
    }

    fn known(&self) -> tikv_core::knowledge::regions::Region {
        use tikv_core::knowledge::regions::{Region as Known, RegionVerId, Replica};
        Known {
            ver_id: RegionVerId { id: self.id, conf_ver: 1, version: self.version },
            range: self.range.clone(),
            replicas: vec![Replica { peer: self.peer(), store_epoch: 0 }],
            leader: 0,
            buckets: None,
        }
    }
}

fn store() -> metapb::Store {
    metapb::Store { id: STORE_ID, address: ADDRESS.to_owned(), ..metapb::Store::default() }
}

/// PD's answer. The machines of the model ask nothing else.
pub(crate) fn ask_pd(clock: &mut Clock, regions: &Regions, question: &PdRequest) -> PdResponse {
    let described = |region: &Region| {
        Arc::new(PdRegion { region: region.meta(), leader: Some(region.peer()), ..PdRegion::default() })
    };
    match question {
        PdRequest::Timestamp => PdResponse::Timestamp(clock.timestamp()),
        PdRequest::RegionByKey { key, .. } => PdResponse::Region(regions.by_encoded_key(key).map(described)),
        PdRequest::Store { .. } => PdResponse::Store(Some(Arc::new(store()))),
        other => unreachable!("no machine of the model asks PD for {other:?}"),
    }
}

/// The store at work: what it holds, and who waits there for locks.
#[derive(Debug)]
pub(crate) struct Store<'a> {
    pub(crate) storage: &'a mut Storage,
    pub(crate) waits: &'a mut LockWaits,
    pub(crate) regions: &'a Regions,
    pub(crate) now: Time,
    /// Answers to requests that have waited.
    pub(crate) answers: Vec<(CallId, Response)>,
}

impl Store<'_> {
    /// What the store does with a request, and its answer; `None` if it waits for a lock, by this name.
    pub(crate) fn execute(&mut self, name: CallId, call: &Call) -> Option<Response> {
        let kind = call.request.kind();
        let range = match self.regions.check(&call.context) {
            _ if !kind.facts().regional => KeyRange::ALL,
            Ok(range) => range,
            Err(error) => return Some(of_region_error(kind, *error)),
        };
        macro_rules! run {
            ($($kind:ident)+) => {
                match call.request.clone().with_context(call.context.to_message()) {
                    $(Request::$kind(request) => {
                        let handled = self.storage.handle(&range, &*request);
                        self.finish(handled).ok().map(Response::from)
                    })+
                    Request::PessimisticLock(request) => {
                        let handled = self.storage.handle(&range, &*request);
                        let wait = match self.finish(handled) {
                            Ok(response) => return Some(response.into()),
                            Err(wait) => *wait,
                        };
                        // How long it waits, the model decides.
                        let (since, deadline) = (self.now, Time::MAX);
                        self.join(name, Waiter { store_id: STORE_ID, request, wait, since, deadline })
                    }
                    other => unreachable!("no machine of the model sends {other:?}"),
                }
            };
        }
        run!(
            Get BatchGet Scan Prewrite Commit BatchRollback ResolveLock CheckTxnStatus CheckSecondaryLocks TxnHeartBeat
            PessimisticRollback Flush BroadcastTxnStatus
        )
    }

    fn join(&mut self, name: CallId, waiter: Waiter) -> Option<Response> {
        self.waits.join(name, waiter).map(Response::from)
    }

    /// Wakes whom a command concerns. What the command waits for, if it has to wait.
    fn finish<R: Debug>(&mut self, handled: Handled<R>) -> Result<R, Box<LockWait>> {
        let Handled { outcome, released, acquired } = handled;
        for lock in &acquired {
            let victims = self.waits.on_acquired(STORE_ID, lock);
            self.answers.extend(victims.into_iter().map(|(name, deadlock)| (name, deadlock.into())));
        }
        for released in &released {
            let woken = self.waits.on_released(self.now, STORE_ID, released);
            self.answer_woken(woken);
        }
        match outcome {
            Outcome::Answer(response) => Ok(response),
            Outcome::Wait(wait) => Err(wait),
            Outcome::Refused(refusal) => unreachable!("TiKV would die: {refusal}"),
        }
    }

    /// Answers those who need not wait any longer, or tries them again.
    pub(crate) fn answer_woken(&mut self, woken: Vec<Woken>) {
        for woken in woken {
            let (name, answer) = match woken {
                Woken::Retry(name, waiter, released) => (name, Some(waiter.wait.woken(&released).into())),
                Woken::TimedOut(name, waiter) => (name, Some(waiter.wait.locked().into())),
                Woken::Resume(name, waiter) => (name, self.resume(name, waiter)),
            };
            self.answers.extend(answer.map(|answer| (name, answer)));
        }
    }

    fn resume(&mut self, name: CallId, mut waiter: Waiter) -> Option<Response> {
        let context = waiter.request.context.as_deref().cloned().unwrap_or_default();
        let range = match self.regions.check(&context.into()) {
            Ok(range) => range,
            Err(error) => return Some(of_region_error(RequestKind::PessimisticLock, *error)),
        };
        let handled = self.storage.resume(&range, &waiter.request);
        match self.finish(handled) {
            Ok(response) => Some(response.into()),
            Err(wait) => {
                waiter.wait = *wait;
                self.join(name, waiter)
            }
        }
    }
}

fn of_region_error(kind: RequestKind, error: errorpb::Error) -> Response {
    Response::of_region_error(kind, error).unwrap_or_else(|| unreachable!("{kind:?} is of a region"))
}
