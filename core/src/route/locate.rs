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
//!
//!   in every phase: the deadline has passed ──────────────────────► done
//! ```
//!
//! Callers that miss the same region ask PD the same question, which the PD client joins into one. After the first
//! failure only PD's leader is asked, since a follower may know less.
//!
//! client-go: `RegionCache.findRegionByKey`, `loadRegion`.

use std::sync::Arc;
use std::task::Poll;

use super::usable_region::usable_region;
use crate::backoff::{Backoff, BackoffKind};
use crate::error::{CallFailure, Error, PdError};
use crate::key::Key;
use crate::knowledge::regions::{Inserted, Region};
use crate::machine::{Context, CurrentPhase, Event, Machine, SleepReason, Token, phases};
use crate::request::pd::{PdRegion, PdRequest, PdResponse};
use crate::time::Time;

/// Sorts behind every key that is in use, so that its region is the last one, or one close to it.
const BEHIND_ALL_KEYS: &[u8] = &[0xff; 64];

/// Regions looked at, one after the other, in search of the one before a key. More than one or two are a sign that PD is
/// broken.
const MAX_STEPS: u32 = 8;

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
    /// The region, or why there is none. It is of the place that was looked for.
    pub result: Result<Arc<Region>, Error>,
    /// What is left of the budget.
    pub backoff: Backoff,
}

/// Finds one region; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Locate {
    place: Place,
    backoff: Backoff,
    deadline: Time,
    /// Fires at the deadline; set with the first question to PD.
    alarm: Option<Token>,
    leader_only: bool,
    /// Whether an answer was refused because something newer is known.
    was_stale: bool,
    questions: u32,
    /// Regions looked at since the search last began anew.
    steps: u32,
    last: CallFailure,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    FetchingRegion { question: Token },
    FetchingStores { region: Arc<PdRegion>, waiting: Vec<(Token, u64)> },
    BackingOff { timer: Token },
}

phases! {
    Locate: Phase;
    start => FetchingRegion | done;
    FetchingRegion => FetchingStores | BackingOff | done;
    FetchingStores => FetchingRegion | BackingOff | done;
    BackingOff => FetchingRegion | done;
}

impl Locate {
    /// Looks for `place` with what `backoff` allows.
    #[must_use]
    pub fn new(place: Place, backoff: Backoff) -> Self {
        Locate {
            place,
            backoff,
            deadline: Time::MAX,
            alarm: None,
            leader_only: false,
            was_stale: false,
            questions: 0,
            steps: 0,
            last: CallFailure::NotAttempted,
            phase: Phase::Idle,
        }
    }

    /// Gives up at `deadline`, whatever it waits for then.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Time) -> Self {
        self.deadline = deadline;
        self
    }

    fn find(&mut self, cx: &mut Context<'_>) -> Poll<Located> {
        if let Some(region) = self.lookup(cx) {
            return self.done(cx, Ok(region));
        }
        if cx.now() >= self.deadline {
            return self.deadline_exceeded(cx);
        }
        self.steps = 0;
        let codec = cx.knowledge().codec();
        let leader_only = self.leader_only;
        let question = match &self.place {
            Place::Of(key) => PdRequest::RegionByKey { key: codec.encode_region_key(key), leader_only },
            // PD's own question for the previous region means the one before the region that holds the key.
            Place::Before(key) => {
                let key = if key.is_empty() { Key::from_static(BEHIND_ALL_KEYS) } else { key.clone() };
                PdRequest::RegionByKey { key: codec.encode_region_key(&key), leader_only }
            }
            Place::Id(id) => PdRequest::RegionById { id: *id, leader_only },
        };
        self.ask(cx, question)
    }

    fn lookup(&self, cx: &Context<'_>) -> Option<Arc<Region>> {
        let regions = &cx.knowledge().regions;
        match &self.place {
            Place::Of(key) => regions.lookup(cx.now(), key.as_slice()),
            Place::Before(key) => regions.lookup_before(cx.now(), key.as_slice()),
            Place::Id(id) => regions.lookup_id(cx.now(), *id),
        }
    }

    fn ask(&mut self, cx: &mut Context<'_>, question: PdRequest) -> Poll<Located> {
        if self.alarm.is_none() && self.deadline != Time::MAX {
            self.alarm = Some(cx.sleep(self.deadline.saturating_since(cx.now()), SleepReason::Deadline));
        }
        let question = cx.pd(question);
        self.questions += 1;
        self.steps += 1;
        self.phase = Phase::FetchingRegion { question };
        Poll::Pending
    }

    fn on_region(&mut self, cx: &mut Context<'_>, answer: Result<PdResponse, PdError>) -> Poll<Located> {
        match answer {
            Ok(PdResponse::Region(Some(region))) => match self.step_towards(cx, &region) {
                Some(question) if self.steps < MAX_STEPS => self.ask(cx, question),
                Some(_) => self.back_off(cx, self.no_region()),
                None => self.fetch_stores(cx, region),
            },
            // PD's leader knows every region.
            Ok(PdResponse::Region(None)) if self.leader_only && matches!(self.place, Place::Id(_)) => {
                self.last = self.no_region();
                self.exhausted(cx)
            }
            Ok(_) => self.back_off(cx, self.no_region()),
            Err(error) => self.on_pd_error(cx, error),
        }
    }

    /// The next question, if this region is not yet the one before the key.
    fn step_towards(&self, cx: &Context<'_>, region: &PdRegion) -> Option<PdRequest> {
        let Place::Before(key) = &self.place else { return None };
        let leader_only = self.leader_only;
        let key = cx.knowledge().codec().encode_region_key(key);
        let (start, end) = (&region.region.start_key, &region.region.end_key);
        if key.is_empty() {
            return (!end.is_empty()).then(|| PdRequest::RegionByKey { key: end.clone(), leader_only });
        }
        (*start == key).then_some(PdRequest::PrevRegion { key, leader_only })
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
        let stores = &cx.knowledge().stores;
        match answer {
            Ok(PdResponse::Store(Some(store))) if store.id == store_id && !store.address.is_empty() => {
                stores.learn(&store);
            }
            // A store without an address is as good as none.
            Ok(_) => stores.forget(store_id),
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
        let region = match usable_region(cx.knowledge(), described) {
            Ok(Some(region)) => region,
            Ok(None) => return self.back_off(cx, CallFailure::NoReplica { region_id: described.region.id }),
            Err(error) => return self.done(cx, Err(Error::Pd(error))),
        };
        if !self.is_of_place(&region) {
            return self.back_off(cx, self.no_region());
        }
        let (ver_id, regions) = (region.ver_id, &cx.knowledge().regions);
        let inserted = if self.leader_only {
            regions.insert_from_pd_leader(cx.now(), region.clone())
        } else {
            regions.insert(cx.now(), region.clone())
        };
        match inserted {
            // PD's follower may lag behind: what is known is newer than its answer. Its leader is asked once; what that
            // one says is used even if the index refuses it again.
            Inserted::Stale if !self.was_stale => {
                self.was_stale = true;
                self.leader_only = true;
                self.find(cx)
            }
            Inserted::Malformed => self.back_off(cx, CallFailure::NoReplica { region_id: ver_id.id }),
            Inserted::Accepted | Inserted::Stale => {
                if !described.down_peers.is_empty() {
                    regions.let_expire(ver_id);
                }
                // With what is inherited from its earlier life.
                let known = regions.get(ver_id).filter(|_| inserted == Inserted::Accepted);
                self.done(cx, Ok(known.unwrap_or_else(|| Arc::new(region))))
            }
        }
    }

    fn is_of_place(&self, region: &Region) -> bool {
        match &self.place {
            Place::Of(key) => region.range.contains(key.as_slice()),
            Place::Before(end) if end.is_empty() => region.range.end.is_empty(),
            Place::Before(end) => {
                region.range.start < *end && (region.range.end.is_empty() || *end <= region.range.end)
            }
            Place::Id(id) => region.ver_id.id == *id,
        }
    }

    fn on_pd_error(&mut self, cx: &mut Context<'_>, error: PdError) -> Poll<Located> {
        if error.is_retryable() {
            self.back_off(cx, CallFailure::Pd(error))
        } else {
            self.done(cx, Err(if error == PdError::Closed { Error::Closed } else { Error::Pd(error) }))
        }
    }

    fn back_off(&mut self, cx: &mut Context<'_>, last: CallFailure) -> Poll<Located> {
        self.last = last;
        self.leader_only = true;
        match self.backoff.next(BackoffKind::PdRpc, cx.rng()) {
            Ok(sleep) => {
                let timer = cx.sleep(sleep, SleepReason::Backoff(BackoffKind::PdRpc));
                self.phase = Phase::BackingOff { timer };
                Poll::Pending
            }
            Err(_) => self.exhausted(cx),
        }
    }

    fn no_region(&self) -> CallFailure {
        match &self.place {
            Place::Of(key) | Place::Before(key) => CallFailure::NoRegion { key: key.clone() },
            Place::Id(id) => CallFailure::NoReplica { region_id: *id },
        }
    }

    fn exhausted(&mut self, cx: &mut Context<'_>) -> Poll<Located> {
        let (operation, attempts, last) = self.history();
        let slept = self.backoff.total_sleep();
        self.done(cx, Err(Error::RetriesExhausted { operation, attempts, slept, last }))
    }

    fn deadline_exceeded(&mut self, cx: &mut Context<'_>) -> Poll<Located> {
        let (operation, attempts, last) = self.history();
        self.done(cx, Err(Error::DeadlineExceeded { operation, attempts, last }))
    }

    /// What the error of this tells. Where a call has been tried before, it is the call that fails, not its locating.
    fn history(&self) -> (&'static str, u32, CallFailure) {
        match self.backoff.earlier() {
            None => ("locate region", self.questions, self.last.clone()),
            Some(earlier) => {
                let last = if self.last == CallFailure::NotAttempted { &earlier.last } else { &self.last };
                (earlier.operation, earlier.attempts, last.clone())
            }
        }
    }

    /// The deadline has passed: whatever is on its way is not waited for.
    fn on_alarm(&mut self, cx: &mut Context<'_>) -> Poll<Located> {
        self.alarm = None;
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => {}
            Phase::FetchingRegion { question: token } | Phase::BackingOff { timer: token } => cx.cancel(token),
            Phase::FetchingStores { waiting, .. } => waiting.into_iter().for_each(|(token, _)| cx.cancel(token)),
        }
        self.deadline_exceeded(cx)
    }

    fn done(&mut self, cx: &mut Context<'_>, result: Result<Arc<Region>, Error>) -> Poll<Located> {
        if let Some(alarm) = self.alarm.take() {
            cx.cancel(alarm);
        }
        self.phase = Phase::Idle;
        Poll::Ready(Located { result, backoff: self.backoff.take() })
    }
}

impl Machine for Locate {
    type Output = Located;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Located> {
        self.find(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Located> {
        match (&self.phase, event) {
            (_, Event::Woken) if self.alarm == Some(token) => self.on_alarm(cx),
            (Phase::FetchingRegion { question }, Event::Pd(answer)) if *question == token => self.on_region(cx, answer),
            (Phase::FetchingStores { .. }, Event::Pd(answer)) => self.on_store(cx, token, answer),
            // Somebody else may have loaded it in the meantime.
            (Phase::BackingOff { timer }, Event::Woken) if *timer == token => self.find(cx),
            _ => Poll::Pending,
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}

/// [`Locate`] never ends with such a region; its callers rely on it, and have this for want of a proof.
pub(super) fn not_of_place(region: &Region) -> Error {
    let detail = format!("region {} does not hold the key that it was located by", region.ver_id.id);
    Error::Pd(PdError::Malformed { address: Arc::from(""), method: "GetRegion", detail: detail.into() })
}
