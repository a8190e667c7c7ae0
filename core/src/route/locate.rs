//! Finds the region of a key.
//!
//! ```text
//!   start ──► known ──────────────────────────────────────────────► done
//!     │ unknown
//!     ▼          region            all stores known
//!   FetchingRegion ──► FetchingStores ──► (insert) ───────────────► done
//!     ▲      │ PD failed, no region, no usable replica    │ stale: once more, from PD's leader
//!     │      ▼                                            │
//!   BackingOff ◄──────────────────────────────────────────┘
//! ```
//!
//! Callers that miss the same region ask PD the same question, which the PD client joins into one. After the first
//! failure only PD's leader is asked, since a follower may know less.
//!
//! client-go: `RegionCache.findRegionByKey`, `loadRegion`.

use std::sync::Arc;
use std::task::Poll;

use tikv_proto::metapb;

use crate::backoff::{Backoff, BackoffKind};
use crate::error::{CallFailure, Error, PdError};
use crate::key::Key;
use crate::knowledge::regions::{Inserted, Region, RegionVerId, Replica};
use crate::machine::{Context, Event, Machine, SleepReason, Token};
use crate::request::pd::{PdRegion, PdRequest, PdResponse};

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The region that holds this key.
    Of(Key),
    /// The region that holds the greatest key below this one; an empty key stands for the end of all keys.
    Before(Key),
    /// The region of this id.
    Id(u64),
}

/// The end of a [`Locate`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Located {
    /// The region, or why there is none.
    pub result: Result<Arc<Region>, Error>,
    /// What is left of the budget.
    pub backoff: Backoff,
}

/// Finds one region; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Locate {
    place: Place,
    backoff: Backoff,
    leader_only: bool,
    reloaded: bool,
    questions: u32,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    FetchingRegion,
    FetchingStores { region: Arc<PdRegion>, waiting: Vec<(Token, u64)> },
    BackingOff,
}

impl Locate {
    /// Looks for `place` with what `backoff` allows.
    #[must_use]
    pub fn new(place: Place, backoff: Backoff) -> Self {
        Locate { place, backoff, leader_only: false, reloaded: false, questions: 0, phase: Phase::Idle }
    }

    fn lookup(&self, cx: &Context<'_>) -> Option<Arc<Region>> {
        let regions = &cx.knowledge().regions;
        match &self.place {
            Place::Of(key) => regions.lookup(cx.now(), key.as_slice()),
            Place::Before(key) => regions.lookup_before(cx.now(), key.as_slice()),
            Place::Id(id) => regions.get_by_id(*id),
        }
    }

    fn fetch_region(&mut self, cx: &mut Context<'_>) -> Poll<Located> {
        let (codec, leader_only) = (cx.knowledge().codec(), self.leader_only);
        cx.pd(match &self.place {
            Place::Of(key) => PdRequest::RegionByKey { key: codec.encode_region_key(key), leader_only },
            Place::Before(key) => PdRequest::PrevRegion { key: codec.encode_region_key(key), leader_only },
            Place::Id(id) => PdRequest::RegionById { id: *id, leader_only },
        });
        self.questions += 1;
        self.phase = Phase::FetchingRegion;
        Poll::Pending
    }

    fn on_region(&mut self, cx: &mut Context<'_>, answer: Result<PdResponse, PdError>) -> Poll<Located> {
        match answer {
            Ok(PdResponse::Region(Some(region))) => self.fetch_stores(cx, region),
            Ok(PdResponse::Region(None)) => self.back_off(cx, self.no_region()),
            Ok(_) => self.back_off(cx, self.no_region()),
            Err(error) => self.on_pd_error(cx, error),
        }
    }

    /// A region is of use only with the addresses of its stores.
    fn fetch_stores(&mut self, cx: &mut Context<'_>, region: Arc<PdRegion>) -> Poll<Located> {
        let stores = &cx.knowledge().stores;
        let mut waiting = Vec::new();
        for peer in &region.region.peers {
            if stores.get(peer.store_id).is_none_or(|store| store.needs_check) {
                waiting.push((cx.pd(PdRequest::Store { id: peer.store_id }), peer.store_id));
            }
        }
        if waiting.is_empty() {
            return self.insert(cx, &region);
        }
        self.phase = Phase::FetchingStores { region, waiting };
        Poll::Pending
    }

    fn on_store(&mut self, cx: &mut Context<'_>, token: Token, answer: Result<PdResponse, PdError>) -> Poll<Located> {
        let Phase::FetchingStores { region, waiting } = &mut self.phase else { return Poll::Pending };
        let Some(index) = waiting.iter().position(|(waited, _)| *waited == token) else { return Poll::Pending };
        let (_, store_id) = waiting.swap_remove(index);
        match answer {
            Ok(PdResponse::Store(Some(store))) => cx.knowledge().stores.learn(&store),
            Ok(PdResponse::Store(None)) => cx.knowledge().stores.forget(store_id),
            Ok(_) => {}
            Err(error) => {
                for (token, _) in std::mem::take(waiting) {
                    cx.cancel(token);
                }
                return self.on_pd_error(cx, error);
            }
        }
        if !waiting.is_empty() {
            return Poll::Pending;
        }
        let region = Arc::clone(region);
        self.insert(cx, &region)
    }

    fn insert(&mut self, cx: &mut Context<'_>, described: &PdRegion) -> Poll<Located> {
        let region = match usable_region(cx, described) {
            Ok(Some(region)) => region,
            Ok(None) => return self.back_off(cx, CallFailure::NoReplica { region_id: described.region.id }),
            Err(error) => return self.done(Err(Error::Pd(error))),
        };
        let ver_id = region.ver_id;
        match cx.knowledge().regions.insert(cx.now(), region.clone()) {
            // PD's follower may lag behind: what is known is newer than its answer. Its leader is asked once; what that
            // one says is used even if the index refuses it again.
            Inserted::Stale if !self.reloaded => {
                self.reloaded = true;
                self.leader_only = true;
                self.fetch_region(cx)
            }
            Inserted::Malformed => self.back_off(cx, CallFailure::NoReplica { region_id: ver_id.id }),
            Inserted::Accepted | Inserted::Stale => {
                let known = cx.knowledge().regions.get(ver_id);
                self.done(Ok(known.unwrap_or_else(|| Arc::new(region))))
            }
        }
    }

    fn on_pd_error(&mut self, cx: &mut Context<'_>, error: PdError) -> Poll<Located> {
        if error.is_retryable() {
            self.back_off(cx, CallFailure::Pd(error))
        } else {
            self.done(Err(if error == PdError::Closed { Error::Closed } else { Error::Pd(error) }))
        }
    }

    fn back_off(&mut self, cx: &mut Context<'_>, last: CallFailure) -> Poll<Located> {
        self.leader_only = true;
        match self.backoff.next(BackoffKind::PdRpc, cx.rng()) {
            Ok(sleep) => {
                cx.sleep(sleep, SleepReason::Backoff(BackoffKind::PdRpc));
                self.phase = Phase::BackingOff;
                Poll::Pending
            }
            Err(_) => {
                let error = Error::RetriesExhausted {
                    operation: "locate region",
                    attempts: self.questions,
                    slept: self.backoff.total_sleep(),
                    last,
                };
                self.done(Err(error))
            }
        }
    }

    fn no_region(&self) -> CallFailure {
        match &self.place {
            Place::Of(key) | Place::Before(key) => CallFailure::NoRegion { key: key.clone() },
            Place::Id(id) => CallFailure::NoReplica { region_id: *id },
        }
    }

    fn done(&mut self, result: Result<Arc<Region>, Error>) -> Poll<Located> {
        self.phase = Phase::Idle;
        Poll::Ready(Located { result, backoff: std::mem::replace(&mut self.backoff, Backoff::none()) })
    }
}

impl Machine for Locate {
    type Output = Located;

    fn start(&mut self, cx: &mut Context<'_>) -> Poll<Located> {
        match self.lookup(cx) {
            Some(region) => self.done(Ok(region)),
            None => self.fetch_region(cx),
        }
    }

    fn handle(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Located> {
        match (&self.phase, event) {
            (Phase::FetchingRegion, Event::Pd(answer)) => self.on_region(cx, answer),
            (Phase::FetchingStores { .. }, Event::Pd(answer)) => self.on_store(cx, token, answer),
            // Somebody else may have loaded it in the meantime.
            (Phase::BackingOff, Event::Woken) => match self.lookup(cx) {
                Some(region) => self.done(Ok(region)),
                None => self.fetch_region(cx),
            },
            _ => Poll::Pending,
        }
    }
}

/// The region with the replicas that can be used: not those that are down, on stores that are gone, or witnesses (which
/// hold no data) other than the leader. `None` if there are none.
pub(super) fn usable_region(cx: &Context<'_>, described: &PdRegion) -> Result<Option<Region>, PdError> {
    let meta = &described.region;
    let range = cx.knowledge().codec().decode_region_range(&meta.start_key, &meta.end_key).map_err(|error| {
        PdError::Malformed {
            address: Arc::from(""),
            method: "GetRegion",
            detail: format!("bounds of region {}: {error}", meta.id).into(),
        }
    })?;
    let leader_id = described.leader.as_ref().map_or(0, |leader| leader.id);
    let is_down = |peer: &metapb::Peer| described.down_peers.iter().any(|down| down.id == peer.id);
    let replicas: Vec<_> = (meta.peers.iter())
        .filter(|peer| !is_down(peer) && (!peer.is_witness || peer.id == leader_id))
        .filter_map(|peer| {
            let store = cx.knowledge().stores.get(peer.store_id)?;
            Some(Replica { peer: *peer, store_epoch: store.epoch })
        })
        .collect();
    if replicas.is_empty() {
        return Ok(None);
    }
    let epoch = meta.region_epoch.unwrap_or_default();
    Ok(Some(Region {
        ver_id: RegionVerId { id: meta.id, conf_ver: epoch.conf_ver, version: epoch.version },
        range,
        leader: replicas.iter().position(|replica| replica.peer.id == leader_id).unwrap_or(0),
        replicas,
        buckets: None,
    }))
}
