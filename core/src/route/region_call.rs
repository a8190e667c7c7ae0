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
//! What a fault of the network means is told in `faults.rs`, what a region error means in `region_errors.rs`.
//!
//! client-go: `RegionRequestSender.SendReqCtx`, `sendReqState`.

mod faults;
mod region_errors;

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::CallOptions;
use super::locate::{Locate, Located, Place};
use super::selector::{Choice, Next, Selector};
use crate::backoff::{Backoff, BackoffKind};
use crate::canary::Canary;
use crate::error::{CallFailure, Error, Execution, Fault, FaultKind};
use crate::key::Key;
use crate::knowledge::regions::Region;
use crate::knowledge::stores::Store;
use crate::machine::{Context, CurrentPhase, Event, Machine, SleepReason, Token, phases};
use crate::request::{Access, CallContext, KeyedRequest, RequestKind, Response, Shared, StoreRequest, StoreResponse};
use crate::time::{Time, whole_ms};

/// A read with a smaller time limit than this asks other replicas when the limit has passed, without a pause. client-go:
/// `client.ReadTimeoutShort`.
const SHORT_TIMEOUT: Duration = Duration::from_secs(30);

/// The end of a [`RegionCall`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallEnd<T> {
    /// The response (never one with a region error), or why there is none.
    pub result: Result<T, CallError>,
    /// The region that answered, or was asked last.
    pub region: Option<Arc<Region>>,
    /// The store that answered, or was asked last.
    pub store: Option<Arc<Store>>,
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
    /// The write may or may not have been applied, and it is for the caller to say whether it can be repeated: TiKV does not
    /// know, or the call was to be made [at most once](RegionCall::at_most_once).
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
    epoch_mismatches: u32,
    /// Whether a replica had not yet the data of a stale read: then the leader is asked for an ordinary one.
    stale_read_failed: bool,
    last: CallFailure,
    /// Whether the region of a call to a region was looked up in the step in which the call begins.
    is_fresh: bool,
    /// The region to be called; and then the one that was asked last.
    region: Option<Arc<Region>>,
    /// The store that was asked last.
    store: Option<Arc<Store>>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Target {
    /// The one that holds the key of the request.
    Key,
    Region,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Locating(Box<Locate>),
    Calling { token: Token, selector: Selector, choice: Choice },
    BackingOff { timer: Token, then: AfterSleep },
}

phases! {
    RegionCall: Phase;
    start => Locating | Calling | BackingOff | done;
    Locating => Calling | BackingOff | done;
    Calling => Locating | BackingOff | done;
    BackingOff => Locating | Calling | done;
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum AfterSleep {
    SelectAgain(Selector),
    Relocate,
}

/// The end of a step.
type Step<R> = Poll<CallEnd<<R as StoreRequest>::Response>>;

impl<R: KeyedRequest> RegionCall<R> {
    /// A call to whichever region holds the key of the request.
    pub fn to_key(request: impl Into<Shared<R>>, options: CallOptions, backoff: Backoff) -> Self {
        RegionCall::new(Target::Key, request.into(), options, backoff)
    }
}

impl<R: StoreRequest> RegionCall<R> {
    /// A call to `region`.
    pub fn to_region(
        region: Arc<Region>,
        request: impl Into<Shared<R>>,
        options: CallOptions,
        backoff: Backoff,
    ) -> Self {
        RegionCall { region: Some(region), ..RegionCall::new(Target::Region, request.into(), options, backoff) }
    }

    /// Tells that the region was looked up in this very step, so that its leader need not be looked up again.
    #[must_use]
    pub fn fresh(mut self, is_fresh: bool) -> Self {
        self.is_fresh = is_fresh;
        self
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
    /// Reads always are.
    #[must_use]
    pub fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    /// What is asked.
    #[must_use]
    pub fn request(&self) -> &R {
        &self.request
    }

    /// Whether an attempt may have been executed whose answer has not come.
    #[must_use]
    pub fn may_be_executed(&self) -> bool {
        self.maybe_executed || matches!(self.phase, Phase::Calling { .. })
    }

    fn new(target: Target, request: Shared<R>, options: CallOptions, backoff: Backoff) -> Self {
        RegionCall {
            target,
            request,
            options,
            backoff,
            is_retry: false,
            at_most_once: false,
            repeatable: R::FACTS.access == Access::Read,
            attempts: 0,
            maybe_executed: false,
            epoch_mismatches: 0,
            stale_read_failed: false,
            last: CallFailure::NotAttempted,
            is_fresh: false,
            region: None,
            store: None,
            phase: Phase::Idle,
        }
    }

    fn locate_or_send(&mut self, cx: &mut Context<'_>) -> Step<R> {
        match self.target {
            Target::Region => {
                let Some(region) = self.region.take() else { return Poll::Pending };
                let is_fresh = std::mem::take(&mut self.is_fresh);
                self.send(cx, if is_fresh { Selector::fresh(region) } else { Selector::new(region) })
            }
            Target::Key => {
                // There is one: calls to a key are made of nothing but a `KeyedRequest`.
                let Some(key) = self.request.routing_key() else { return Poll::Pending };
                // As most regions are: then nothing has to be kept for the case that they are not.
                if let Some(region) = cx.knowledge().regions.lookup(cx.now(), key) {
                    return self.send(cx, Selector::fresh(region));
                }
                let key = Key::from(key.clone());
                let locate = Locate::new(Place::Of(key), self.backoff.take());
                let mut locate = locate.with_deadline(self.options.deadline);
                match locate.start(cx) {
                    Poll::Ready(located) => self.on_located(cx, located),
                    Poll::Pending => {
                        self.phase = Phase::Locating(Box::new(locate));
                        Poll::Pending
                    }
                }
            }
        }
    }

    fn on_located(&mut self, cx: &mut Context<'_>, located: Located) -> Step<R> {
        self.backoff = located.backoff;
        match located.result {
            Ok(region) => self.send(cx, Selector::new(region)),
            Err(Error::DeadlineExceeded { last, .. }) => {
                if self.attempts == 0 {
                    self.last = last;
                }
                self.deadline_exceeded()
            }
            Err(error) => self.fail(error),
        }
    }

    /// Sends to the next replica, if there is one.
    fn send(&mut self, cx: &mut Context<'_>, mut selector: Selector) -> Step<R> {
        if cx.now() >= self.deadline(cx) {
            return self.deadline_exceeded();
        }
        let choice = match selector.next(cx.now(), cx.knowledge(), may_read_replica(R::KIND)) {
            Next::Send(choice) => choice,
            Next::BackOff(kind) => return self.back_off(cx, kind, AfterSleep::SelectAgain(selector)),
            Next::Exhausted(kind) => return self.no_replica(cx, &selector, kind),
        };
        let timeout = self.options.timeout.min(self.deadline(cx).saturating_since(cx.now()));
        let context = self.request_context(selector.region(), &choice, timeout);
        let address = Arc::clone(&choice.store.address);
        let token = cx.call(choice.store.id, address, context, R::wrap(self.request.clone()), timeout);
        self.attempts += 1;
        self.phase = Phase::Calling { token, selector, choice };
        Poll::Pending
    }

    fn request_context(&self, region: &Region, choice: &Choice, timeout: Duration) -> CallContext {
        let mut context = self.options.context.clone();
        context.region_id = region.ver_id.id;
        context.region_epoch = Some(region.ver_id.epoch());
        context.peer = region.replicas.get(choice.replica).map(|replica| replica.peer);
        context.replica_read |= choice.replica_read;
        context.stale_read &= !choice.replica_read && !self.stale_read_failed;
        context.is_retry_request |= self.is_retry || self.attempts > 0;
        // So that TiKV does not work on what nobody waits for.
        if context.max_execution_duration_ms == 0 {
            context.max_execution_duration_ms = whole_ms(timeout).max(1);
        }
        context
    }

    fn no_replica(&mut self, cx: &mut Context<'_>, selector: &Selector, kind: BackoffKind) -> Step<R> {
        if !selector.any_timed_out() {
            cx.knowledge().regions.invalidate(selector.ver_id());
        }
        if self.last == CallFailure::NotAttempted {
            self.last = CallFailure::NoReplica { region_id: selector.ver_id().id };
        }
        self.back_off(cx, kind, AfterSleep::Relocate)
    }

    fn on_reply(
        &mut self,
        cx: &mut Context<'_>,
        mut selector: Selector,
        choice: Choice,
        reply: Result<Response, Fault>,
    ) -> Step<R> {
        let response = match reply {
            Ok(response) => response,
            Err(fault) => {
                self.note_failure(cx, &mut selector, &choice);
                return self.on_fault(cx, selector, &choice, fault);
            }
        };
        let mut response = match R::unwrap_response(response) {
            Ok(response) => response,
            Err(other) => {
                self.note_failure(cx, &mut selector, &choice);
                return self.wrong_response(&choice, &other);
            }
        };
        if let Some(error) = response.take_region_error() {
            self.note_failure(cx, &mut selector, &choice);
            return self.on_region_error(cx, selector, &choice, &error);
        }
        self.learn_leader(cx, selector.region(), &choice);
        self.region = Some(selector.into_region());
        self.store = Some(choice.store);
        self.done(Ok(response))
    }

    fn note_failure(&mut self, cx: &Context<'_>, selector: &mut Selector, choice: &Choice) {
        selector.attempt_failed(cx.now());
        self.region = Some(Arc::clone(selector.region()));
        self.store = Some(Arc::clone(&choice.store));
    }

    /// Only the leader serves what is not expressly a read from any replica.
    fn learn_leader(&self, cx: &Context<'_>, region: &Region, choice: &Choice) {
        let any_may_serve = choice.replica_read || self.options.context.replica_read || self.options.context.stale_read;
        if any_may_serve || choice.replica == region.leader {
            return;
        }
        if let Some(replica) = region.replicas.get(choice.replica) {
            cx.knowledge().regions.switch_leader(region.ver_id, &replica.peer);
        }
    }

    fn back_off(&mut self, cx: &mut Context<'_>, kind: BackoffKind, then: AfterSleep) -> Step<R> {
        if cx.now() >= self.deadline(cx) {
            return self.deadline_exceeded();
        }
        match self.backoff.next(kind, cx.rng()) {
            Ok(sleep) => {
                let until_deadline = self.deadline(cx).saturating_since(cx.now());
                let timer = cx.sleep(sleep.min(until_deadline), SleepReason::Backoff(kind));
                self.phase = Phase::BackingOff { timer, then };
                Poll::Pending
            }
            Err(_) => {
                let (operation, slept) = (R::FACTS.name, self.backoff.total_sleep());
                let (attempts, last) = self.history();
                self.fail(Error::RetriesExhausted { operation, attempts, slept, last })
            }
        }
    }

    fn after_sleep(&mut self, cx: &mut Context<'_>, then: AfterSleep) -> Step<R> {
        if cx.now() >= self.deadline(cx) {
            return self.deadline_exceeded();
        }
        match then {
            // Others may have learnt in the meantime that the region is no more.
            AfterSleep::SelectAgain(selector) if cx.knowledge().regions.get(selector.ver_id()).is_some() => {
                self.send(cx, selector)
            }
            AfterSleep::SelectAgain(_) | AfterSleep::Relocate => self.relocate(cx),
        }
    }

    fn relocate(&mut self, cx: &mut Context<'_>) -> Step<R> {
        match self.target {
            Target::Key => self.locate_or_send(cx),
            Target::Region => {
                let (_, last) = self.history();
                self.backoff.note_earlier(R::FACTS.name, self.attempts, last.clone());
                self.done(Err(CallError::Relocate(last)))
            }
        }
    }

    fn wrong_response(&mut self, choice: &Choice, actual: &Response) -> Step<R> {
        let address = Arc::clone(&choice.store.address);
        let (operation, actual) = (R::FACTS.name, actual.kind().facts().name);
        self.maybe_executed = true;
        let fault = Fault::new(FaultKind::Protocol, Execution::MaybeExecuted, Arc::clone(&address));
        self.last = CallFailure::Fault(fault.with_detail(format!("{operation} was answered with {actual}")));
        self.fail(Error::WrongResponse { operation, address, actual })
    }

    fn refused(&mut self, choice: &Choice, message: &str) -> Step<R> {
        self.fail(Error::Refused {
            operation: R::FACTS.name,
            address: Arc::clone(&choice.store.address),
            message: Arc::from(message),
        })
    }

    fn deadline(&self, cx: &Context<'_>) -> Time {
        if cx.config().has_canary(Canary::DeadlinesIgnored) { Time::MAX } else { self.options.deadline }
    }

    fn deadline_exceeded(&mut self) -> Step<R> {
        let (attempts, last) = self.history();
        self.fail(Error::DeadlineExceeded { operation: R::FACTS.name, attempts, last })
    }

    /// The attempts and what the last one met, calls included whose keys had to be located anew.
    fn history(&self) -> (u32, CallFailure) {
        match self.backoff.earlier() {
            None => (self.attempts, self.last.clone()),
            Some(earlier) => {
                // That no replica is left says less than what became of the attempts.
                let no_attempt = matches!(self.last, CallFailure::NotAttempted | CallFailure::NoReplica { .. });
                let last = if no_attempt { &earlier.last } else { &self.last };
                (earlier.attempts.saturating_add(self.attempts), last.clone())
            }
        }
    }

    /// Nothing, not even that the client is closing, masks that the one attempt allowed may have been executed.
    fn fail(&mut self, error: Error) -> Step<R> {
        if self.at_most_once && self.maybe_executed {
            return self.undetermined();
        }
        self.done(Err(CallError::Failed(error)))
    }

    fn undetermined(&mut self) -> Step<R> {
        self.done(Err(CallError::Undetermined(self.last.clone())))
    }

    fn done(&mut self, result: Result<R::Response, CallError>) -> Step<R> {
        self.phase = Phase::Idle;
        Poll::Ready(CallEnd {
            result,
            region: self.region.take(),
            store: self.store.take(),
            backoff: self.backoff.take(),
            attempts: self.attempts,
            maybe_executed: self.maybe_executed,
        })
    }
}

impl<R: StoreRequest> Machine for RegionCall<R> {
    type Output = CallEnd<R::Response>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Step<R> {
        self.locate_or_send(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Step<R> {
        match (std::mem::replace(&mut self.phase, Phase::Idle), event) {
            (Phase::Calling { token: called, selector, choice }, Event::Reply(reply)) if called == token => {
                self.on_reply(cx, selector, choice, reply)
            }
            (Phase::BackingOff { timer, then }, Event::Woken) if timer == token => self.after_sleep(cx, then),
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

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}

impl<T> CallEnd<T> {
    /// Where the store listens that answered, or was asked last.
    pub fn address(&self) -> Option<&Arc<str>> {
        self.store.as_ref().map(|store| &store.address)
    }

    /// Whether that store has the replica that was taken for the region's leader from the beginning.
    pub(crate) fn is_of_leader(&self) -> bool {
        let leader = self.region.as_ref().and_then(|region| region.replicas.get(region.leader));
        self.store.as_ref().zip(leader).is_some_and(|(store, leader)| store.id == leader.peer.store_id)
    }

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

/// Whether a follower can serve the request. Not all that reads: locks in memory, for one, are the leader's alone.
fn may_read_replica(kind: RequestKind) -> bool {
    matches!(
        kind,
        RequestKind::Get
            | RequestKind::BatchGet
            | RequestKind::Scan
            | RequestKind::Coprocessor
            | RequestKind::CoprocessorStream
            | RequestKind::BatchCoprocessor
    )
}
