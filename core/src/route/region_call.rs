//! One RPC to one region until it is answered.
//!
//! ```text
//!             to_key                      region
//!   start ───────────► Locating ────────────────────┐
//!     │ to_region                                   ▼
//!     └──────────────────────────────────────────► Calling ──► answered, refused, budget spent: done
//!                        ▲                          │  ▲
//!                        │ the region has changed   │  │ another replica, or the same once more
//!                        └──────────────────── BackingOff
//! ```
//!
//! A call *to a key* locates the key again when its region has changed. A call *to a region* hands that back
//! ([`CallError::Relocate`]), since its keys may lie in several regions now.
//!
//! What must not get lost on the way: whether any attempt may have been executed although no answer came
//! ([`CallEnd::maybe_executed`]), and that a later attempt is a repetition (`is_retry_request` in its context).
//!
//! client-go: `RegionRequestSender.SendReqCtx`, `sendReqState`.

use std::sync::Arc;
use std::task::Poll;

use tikv_proto::{errorpb, metapb};

use super::CallOptions;
use super::locate::{Locate, Located, Place, usable_region};
use super::region_error::RegionErrorKind;
use super::selector::{Choice, Selector};
use crate::backoff::{Backoff, BackoffKind};
use crate::error::{CallFailure, Error, Fault, FaultKind};
use crate::key::Key;
use crate::knowledge::regions::{Buckets, Region};
use crate::knowledge::stores::Liveness;
use crate::machine::{Context, Event, Machine, Observation, SleepReason, Token};
use crate::request::pd::PdRegion;
use crate::request::{Access, RequestContext, Response, Shared, StoreRequest, StoreResponse};

/// The end of a [`RegionCall`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallEnd<T> {
    /// The response (never one with a region error), or why there is none.
    pub result: Result<T, CallError>,
    /// The region that answered, or was asked last.
    pub region: Option<Arc<Region>>,
    /// The store that answered, or was asked last.
    pub address: Option<Arc<str>>,
    /// What is left of the budget.
    pub backoff: Backoff,
    /// RPCs sent.
    pub attempts: u32,
    /// Whether an attempt that brought no definite answer may have been executed.
    pub maybe_executed: bool,
}

/// Why a [`RegionCall`] brought no response.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CallError {
    /// The region has changed: its keys have to be located anew. Any back-off has been done. Only of calls to a region.
    Relocate(CallFailure),
    /// TiKV does not know whether it applied the write. Whether that can be repeated is for the caller to say.
    Undetermined(CallFailure),
    /// Nothing more can be tried.
    Failed(Error),
}

/// One RPC to one region; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegionCall<R> {
    target: Target,
    request: Shared<R>,
    options: CallOptions,
    backoff: Backoff,
    /// Whether an earlier call made the same request: then every attempt is a repetition.
    is_retry: bool,
    /// Whether a repetition could do the same thing twice: then an attempt without an answer is the last.
    at_most_once: bool,
    /// Whether an undetermined answer is simply a reason to ask again.
    repeatable: bool,
    attempts: u32,
    maybe_executed: bool,
    last: CallFailure,
    region: Option<Arc<Region>>,
    address: Option<Arc<str>>,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    Key(Key),
    Region(Arc<Region>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Locating(Locate),
    Calling { token: Token, selector: Selector, choice: Choice },
    BackingOff(AfterSleep),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum AfterSleep {
    SelectAgain(Selector),
    Relocate,
}

impl<R: StoreRequest> RegionCall<R> {
    /// A call to whichever region holds `key`.
    pub fn to_key(key: Key, request: impl Into<Shared<R>>, options: CallOptions, backoff: Backoff) -> Self {
        RegionCall::new(Target::Key(key), request.into(), options, backoff)
    }

    /// A call to `region`.
    pub fn to_region(
        region: Arc<Region>,
        request: impl Into<Shared<R>>,
        options: CallOptions,
        backoff: Backoff,
    ) -> Self {
        RegionCall::new(Target::Region(region), request.into(), options, backoff)
    }

    /// Marks every attempt as a repetition: the request may have been executed in an earlier call.
    #[must_use]
    pub fn as_retry(mut self, is_retry: bool) -> Self {
        self.is_retry |= is_retry;
        self
    }

    /// Forbids a repetition once an attempt may have been executed: the end is then [`CallError::Undetermined`]. For requests
    /// that are not idempotent.
    #[must_use]
    pub fn at_most_once(mut self) -> Self {
        self.at_most_once = true;
        self
    }

    /// For a write that may be executed any number of times: if TiKV does not know whether it applied it, it is sent again.
    #[must_use]
    pub fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    fn new(target: Target, request: Shared<R>, options: CallOptions, backoff: Backoff) -> Self {
        RegionCall {
            target,
            request,
            options,
            backoff,
            is_retry: false,
            at_most_once: false,
            repeatable: false,
            attempts: 0,
            maybe_executed: false,
            last: CallFailure::NotAttempted,
            region: None,
            address: None,
            phase: Phase::Idle,
        }
    }

    fn is_read() -> bool {
        R::KIND.facts().access == Access::Read
    }

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<CallEnd<R::Response>> {
        match &self.target {
            Target::Region(region) => {
                let selector = Selector::new(Arc::clone(region));
                self.send(cx, selector)
            }
            Target::Key(key) => {
                let mut locate = Locate::new(Place::Of(key.clone()), self.take_backoff());
                match locate.start(cx) {
                    Poll::Ready(located) => self.on_located(cx, located),
                    Poll::Pending => {
                        self.phase = Phase::Locating(locate);
                        Poll::Pending
                    }
                }
            }
        }
    }

    fn on_located(&mut self, cx: &mut Context<'_>, located: Located) -> Poll<CallEnd<R::Response>> {
        self.backoff = located.backoff;
        match located.result {
            Ok(region) => self.send(cx, Selector::new(region)),
            Err(error) => self.fail(error),
        }
    }

    /// Sends to the next replica, if there is one.
    fn send(&mut self, cx: &mut Context<'_>, mut selector: Selector) -> Poll<CallEnd<R::Response>> {
        self.region = Some(Arc::clone(selector.region()));
        if cx.now() >= self.options.deadline {
            return self.fail(self.deadline_exceeded());
        }
        let Some(choice) = selector.next(cx.now(), cx.knowledge(), Self::is_read()) else {
            return self.no_replica(cx, &selector);
        };
        let region = selector.region();
        let mut context = request_context(&self.options, region, &choice);
        context.is_retry_request = self.is_retry || self.attempts > 0;
        let timeout = self.options.timeout.min(self.options.deadline.saturating_since(cx.now()));
        let address = Arc::clone(&choice.store.address);
        self.address = Some(Arc::clone(&address));
        let token = cx.call(choice.store.id, address, context, R::wrap(self.request.clone()), timeout);
        self.attempts += 1;
        self.phase = Phase::Calling { token, selector, choice };
        Poll::Pending
    }

    fn no_replica(&mut self, cx: &mut Context<'_>, selector: &Selector) -> Poll<CallEnd<R::Response>> {
        if !selector.any_timed_out() {
            cx.knowledge().regions.invalidate(selector.ver_id());
        }
        if self.last == CallFailure::NotAttempted {
            self.last = CallFailure::NoReplica { region_id: selector.ver_id().id };
        }
        self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::Relocate)
    }

    fn on_reply(
        &mut self,
        cx: &mut Context<'_>,
        mut selector: Selector,
        choice: &Choice,
        reply: Result<Response, Fault>,
    ) -> Poll<CallEnd<R::Response>> {
        selector.attempt_ended(cx.now());
        let response = match reply {
            Ok(response) => response,
            Err(fault) => return self.on_fault(cx, selector, choice, fault),
        };
        if choice.store.liveness != Liveness::Reachable {
            cx.knowledge().stores.report_success(choice.store.id);
        }
        let mut response = match R::unwrap_response(response) {
            Ok(response) => response,
            Err(other) => return self.wrong_response(choice, &other),
        };
        if let Some(error) = response.take_region_error() {
            return self.on_region_error(cx, selector, choice, &error);
        }
        if choice.replica != selector.region().leader && !choice.replica_read {
            cx.knowledge().regions.switch_leader(selector.ver_id(), choice.store.id);
        }
        self.done(Ok(response))
    }

    fn on_fault(
        &mut self,
        cx: &mut Context<'_>,
        mut selector: Selector,
        choice: &Choice,
        fault: Fault,
    ) -> Poll<CallEnd<R::Response>> {
        self.maybe_executed |= fault.may_be_executed();
        self.last = CallFailure::Fault(fault.clone());
        match fault.kind {
            FaultKind::Closed => return self.fail(Error::Closed),
            FaultKind::Status(code) if is_final_status(code) => return self.fail(self.refused(choice, &fault.detail)),
            FaultKind::Timeout => selector.on_timeout(choice.replica),
            FaultKind::Unreachable | FaultKind::Disconnected | FaultKind::Protocol | FaultKind::Status(_) => {
                cx.knowledge().stores.report_failure(choice.store.id, choice.store.epoch);
            }
            FaultKind::Overloaded => {}
        }
        cx.observe(Observation::CallFailed { store_id: choice.store.id, fault });
        if self.at_most_once && self.maybe_executed {
            return self.done(Err(CallError::Undetermined(self.last.clone())));
        }
        if cx.now() >= self.options.deadline {
            return self.fail(self.deadline_exceeded());
        }
        self.back_off(cx, BackoffKind::TikvRpc, AfterSleep::SelectAgain(selector))
    }

    /// The table of region errors: what each teaches, and what comes next.
    fn on_region_error(
        &mut self,
        cx: &mut Context<'_>,
        mut selector: Selector,
        choice: &Choice,
        error: &errorpb::Error,
    ) -> Poll<CallEnd<R::Response>> {
        use RegionErrorKind as Kind;
        let kind = Kind::of(error);
        let ver_id = selector.ver_id();
        self.last =
            CallFailure::Region { name: kind.name(), region_id: ver_id.id, address: Arc::clone(&choice.store.address) };
        cx.observe(Observation::RegionError { name: kind.name(), region_id: ver_id.id, store_id: choice.store.id });
        let regions = &cx.knowledge().regions;
        match kind {
            Kind::UndeterminedResult => {
                self.maybe_executed = true;
                if self.repeatable {
                    return self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::SelectAgain(selector));
                }
                self.done(Err(CallError::Undetermined(self.last.clone())))
            }
            Kind::NotLeader { leader: Some(leader) } => {
                selector.on_not_leader(choice.replica, Some(leader.store_id));
                if !regions.switch_leader(ver_id, leader.store_id) {
                    regions.invalidate(ver_id);
                    return self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::Relocate);
                }
                self.bounded_resend(cx, selector)
            }
            Kind::NotLeader { leader: None } => {
                selector.on_not_leader(choice.replica, None);
                self.back_off(cx, BackoffKind::RegionScheduling, AfterSleep::SelectAgain(selector))
            }
            Kind::RegionNotFound => {
                regions.invalidate(ver_id);
                // A follower may have lost its peer while the leader still answers.
                if selector.leader_untried(cx.knowledge()) {
                    return self.bounded_resend(cx, selector);
                }
                self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::Relocate)
            }
            Kind::EpochNotMatch { current } => self.on_epoch_not_match(cx, selector, choice, current),
            Kind::BucketVersionNotMatch { version, keys } => {
                let codec = cx.knowledge().codec();
                let keys: Result<Vec<_>, _> = keys.iter().map(|key| codec.decode_region_key(key)).collect();
                if let Ok(keys) = keys {
                    regions.learn_buckets(ver_id, Buckets { version, keys });
                }
                self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::Relocate)
            }
            Kind::KeyNotInRegion | Kind::MismatchPeerId => {
                regions.invalidate(ver_id);
                self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::Relocate)
            }
            Kind::StoreNotMatch => {
                cx.knowledge().stores.request_check(choice.store.id);
                regions.invalidate(ver_id);
                self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::Relocate)
            }
            Kind::RecoveryInProgress => {
                regions.invalidate(ver_id);
                self.back_off(cx, BackoffKind::RegionRecoveryInProgress, AfterSleep::Relocate)
            }
            Kind::IsWitness => {
                regions.invalidate(ver_id);
                self.back_off(cx, BackoffKind::IsWitness, AfterSleep::Relocate)
            }
            Kind::FlashbackInProgress
            | Kind::FlashbackNotPrepared
            | Kind::RaftEntryTooLarge
            | Kind::InvalidMaxTsUpdate => {
                let message = if error.message.is_empty() { kind.name() } else { &error.message };
                self.fail(self.refused(choice, message))
            }
            Kind::DeadlineExceeded => {
                selector.on_timeout(choice.replica);
                self.back_off(cx, BackoffKind::TikvServerBusy, AfterSleep::SelectAgain(selector))
            }
            Kind::ServerIsBusy { .. } => {
                self.back_off(cx, BackoffKind::TikvServerBusy, AfterSleep::SelectAgain(selector))
            }
            Kind::DiskFull => self.back_off(cx, BackoffKind::TikvDiskFull, AfterSleep::SelectAgain(selector)),
            Kind::MaxTimestampNotSynced => {
                self.back_off(cx, BackoffKind::MaxTsNotSynced, AfterSleep::SelectAgain(selector))
            }
            Kind::RegionNotInitialized => {
                self.back_off(cx, BackoffKind::RegionNotInitialized, AfterSleep::SelectAgain(selector))
            }
            Kind::ReadIndexNotReady | Kind::ProposalInMergingMode | Kind::DataIsNotReady => {
                self.back_off(cx, BackoffKind::RegionScheduling, AfterSleep::SelectAgain(selector))
            }
            // client-go repeats the last two at once, up to ten times; a short back-off keeps that from being a hammer.
            Kind::StaleCommand | Kind::Other => {
                self.back_off(cx, BackoffKind::StaleCommand, AfterSleep::SelectAgain(selector))
            }
        }
    }

    /// The store has other regions in this one's place.
    fn on_epoch_not_match(
        &mut self,
        cx: &mut Context<'_>,
        selector: Selector,
        choice: &Choice,
        current: Vec<metapb::Region>,
    ) -> Poll<CallEnd<R::Response>> {
        let ver_id = selector.ver_id();
        let ours = current.iter().find(|region| region.id == ver_id.id).and_then(|region| region.region_epoch);
        let behind = ours.is_some_and(|epoch| epoch.conf_ver < ver_id.conf_ver || epoch.version < ver_id.version);
        if behind {
            // The store has not yet applied the split or change that PD told us of: it will.
            return self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::SelectAgain(selector));
        }
        cx.knowledge().regions.invalidate(ver_id);
        if current.is_empty() {
            return self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::Relocate);
        }
        for region in current {
            let leader = region.peers.iter().find(|peer| peer.store_id == choice.store.id).copied();
            let all_stores_known = region.peers.iter().all(|peer| cx.knowledge().stores.get(peer.store_id).is_some());
            let described = PdRegion { region, leader, ..PdRegion::default() };
            // A region that cannot be used as described is simply asked for when it is needed.
            if let (true, Ok(Some(region))) = (all_stores_known, usable_region(cx, &described)) {
                cx.knowledge().regions.insert(cx.now(), region);
            }
        }
        self.relocate(cx)
    }

    /// Tries again at once: something was learnt that makes the next attempt another one. Bounded by the selector, which
    /// gives each replica a limited number of attempts, and by the budget once attempts are many.
    fn bounded_resend(&mut self, cx: &mut Context<'_>, selector: Selector) -> Poll<CallEnd<R::Response>> {
        const RESENDS_WITHOUT_BACKOFF: u32 = 8;
        if self.attempts % RESENDS_WITHOUT_BACKOFF == 0 {
            return self.back_off(cx, BackoffKind::RegionScheduling, AfterSleep::SelectAgain(selector));
        }
        self.send(cx, selector)
    }

    fn back_off(&mut self, cx: &mut Context<'_>, kind: BackoffKind, then: AfterSleep) -> Poll<CallEnd<R::Response>> {
        match self.backoff.next(kind, cx.rng()) {
            Ok(sleep) => {
                let until_deadline = self.options.deadline.saturating_since(cx.now());
                cx.sleep(sleep.min(until_deadline), SleepReason::Backoff(kind));
                self.phase = Phase::BackingOff(then);
                Poll::Pending
            }
            Err(_) => self.fail(Error::RetriesExhausted {
                operation: R::KIND.facts().name,
                attempts: self.attempts,
                slept: self.backoff.total_sleep(),
                last: self.last.clone(),
            }),
        }
    }

    fn after_sleep(&mut self, cx: &mut Context<'_>, then: AfterSleep) -> Poll<CallEnd<R::Response>> {
        if cx.now() >= self.options.deadline {
            return self.fail(self.deadline_exceeded());
        }
        match then {
            AfterSleep::SelectAgain(selector) => self.send(cx, selector),
            AfterSleep::Relocate => self.relocate(cx),
        }
    }

    fn relocate(&mut self, cx: &mut Context<'_>) -> Poll<CallEnd<R::Response>> {
        match &self.target {
            Target::Key(_) => self.begin(cx),
            Target::Region(_) => self.done(Err(CallError::Relocate(self.last.clone()))),
        }
    }

    fn wrong_response(&mut self, choice: &Choice, actual: &Response) -> Poll<CallEnd<R::Response>> {
        self.maybe_executed = true;
        self.fail(Error::WrongResponse {
            operation: R::KIND.facts().name,
            address: Arc::clone(&choice.store.address),
            actual: actual.kind().facts().name,
        })
    }

    fn refused(&self, choice: &Choice, message: &str) -> Error {
        Error::Refused {
            operation: R::KIND.facts().name,
            address: Arc::clone(&choice.store.address),
            message: Arc::from(message),
        }
    }

    fn deadline_exceeded(&self) -> Error {
        Error::DeadlineExceeded { operation: R::KIND.facts().name, attempts: self.attempts, last: self.last.clone() }
    }

    fn fail(&mut self, error: Error) -> Poll<CallEnd<R::Response>> {
        self.done(Err(CallError::Failed(error)))
    }

    fn done(&mut self, result: Result<R::Response, CallError>) -> Poll<CallEnd<R::Response>> {
        self.phase = Phase::Idle;
        Poll::Ready(CallEnd {
            result,
            region: self.region.take(),
            address: self.address.take(),
            backoff: self.take_backoff(),
            attempts: self.attempts,
            maybe_executed: self.maybe_executed,
        })
    }

    fn take_backoff(&mut self) -> Backoff {
        std::mem::replace(&mut self.backoff, Backoff::none())
    }
}

impl<R: StoreRequest> Machine for RegionCall<R> {
    type Output = CallEnd<R::Response>;

    fn start(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.begin(cx)
    }

    fn handle(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output> {
        match (std::mem::replace(&mut self.phase, Phase::Idle), event) {
            (Phase::Calling { token: called, selector, choice }, Event::Reply(reply)) if called == token => {
                self.on_reply(cx, selector, &choice, reply)
            }
            (Phase::BackingOff(then), Event::Woken) => self.after_sleep(cx, then),
            (Phase::Locating(mut locate), event) => match locate.handle(cx, token, event) {
                Poll::Ready(located) => self.on_located(cx, located),
                Poll::Pending => {
                    self.phase = Phase::Locating(locate);
                    Poll::Pending
                }
            },
            // Not for this phase: ignored.
            (phase, _) => {
                self.phase = phase;
                Poll::Pending
            }
        }
    }
}

impl<T> CallEnd<T> {
    /// The response, or the error with which the operation as a whole ends: for callers to whom an undetermined answer is an
    /// ordinary failure (reads, and calls that may be repeated).
    ///
    /// # Errors
    ///
    /// The error of the call.
    pub fn into_result(self, operation: &'static str) -> Result<T, Error> {
        let (attempts, slept) = (self.attempts, self.backoff.total_sleep());
        self.result.map_err(|error| match error {
            CallError::Failed(error) => error,
            CallError::Relocate(last) | CallError::Undetermined(last) => {
                Error::RetriesExhausted { operation, attempts, slept, last }
            }
        })
    }
}

fn request_context(options: &CallOptions, region: &Region, choice: &Choice) -> RequestContext {
    let mut context = (*options.context).clone();
    context.region_id = region.ver_id.id;
    context.region_epoch = Some(region.ver_id.epoch());
    context.peer = Some(region.replicas[choice.replica].peer);
    context.replica_read |= choice.replica_read;
    context
}

/// gRPC statuses that say that asking again is of no use: not implemented, not permitted, not authenticated.
fn is_final_status(code: u32) -> bool {
    matches!(code, 7 | 12 | 16)
}
