//! One region after the other over a range.
//!
//! ```text
//!   start ──► Locating ──► Calling (the part of the range in this region) ──► next region … ──► done
//!                ▲            │ the region has changed
//!                └────────────┘
//! ```

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::task::Poll;

use super::CallOptions;
use super::locate::{Locate, Located, Place, not_of_place};
use super::region_call::{CallEnd, CallError, RegionCall};
use crate::backoff::Backoff;
use crate::canary::Canary;
use crate::error::Error;
use crate::key::{Direction, KeyRange};
use crate::machine::{Context, CurrentPhase, Event, Machine, Token, phases};
use crate::request::StoreRequest;

/// What is asked of each region, and when to stop.
pub trait RangeVisit {
    /// The request to one region.
    type Request: StoreRequest;
    /// What the walk ends with.
    type Output: Clone + Debug + Eq + Hash;

    /// The request for the part of the range that lies in one region.
    fn request(&self, part: &KeyRange) -> Self::Request;

    /// Takes a region's response. `Err` ends the walk.
    ///
    /// # Errors
    ///
    /// If the region refused.
    fn on_response(
        &mut self,
        response: <Self::Request as StoreRequest>::Response,
        address: &Arc<str>,
    ) -> Result<(), Error>;

    /// Whether the request may be executed any number of times, so that it is simply sent again if TiKV does not know whether
    /// it was. Reads always are.
    fn is_repeatable(&self) -> bool {
        false
    }

    /// Whether enough has been seen before the end of the range.
    fn is_satisfied(&self) -> bool {
        false
    }

    /// What the walk ends with; called once.
    fn finish(&mut self) -> Self::Output;
}

/// Visits the regions of a range, one at a time; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RangeWalk<V: RangeVisit> {
    visit: V,
    /// What is left of the range.
    rest: KeyRange,
    direction: Direction,
    options: CallOptions,
    /// The budget of each region's call; restarted for every region.
    budget: Backoff,
    backoff: Backoff,
    /// Whether what comes next was in a request before.
    is_retry: bool,
    phase: Phase<V::Request>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase<R> {
    Idle,
    Locating(Locate),
    Calling { call: Box<RegionCall<R>>, part: KeyRange },
}

phases! {
    RangeWalk: Phase<R>;
    start => Locating | Calling | done;
    Locating => Calling | done;
    Calling => Locating | done;
}

impl<V: RangeVisit> RangeWalk<V> {
    /// A walk over `range` with `budget` for each region.
    pub fn new(visit: V, range: KeyRange, direction: Direction, options: CallOptions, budget: Backoff) -> Self {
        let backoff = budget.clone();
        RangeWalk { visit, rest: range, direction, options, budget, backoff, is_retry: false, phase: Phase::Idle }
    }

    fn next_region(&mut self, cx: &mut Context<'_>) -> Poll<Result<V::Output, Error>> {
        loop {
            let place = match self.direction {
                Direction::Forward => Place::Of(self.rest.start.clone()),
                Direction::Reverse => Place::Before(self.rest.end.clone()),
            };
            let locate = Locate::new(place, self.backoff.take());
            let mut locate = locate.with_deadline(self.options.deadline);
            let Poll::Ready(located) = locate.start(cx) else {
                self.phase = Phase::Locating(locate);
                return Poll::Pending;
            };
            match self.call(cx, located) {
                Ok(Some(end)) => match self.on_call_end(cx, end) {
                    Some(done) => return Poll::Ready(done),
                    None => continue,
                },
                Ok(None) => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Calls the located region with its part of the range.
    fn call(
        &mut self,
        cx: &mut Context<'_>,
        located: Located,
    ) -> Result<Option<CallEnd<<V::Request as StoreRequest>::Response>>, Error> {
        let region = located.result?;
        let part = self.rest.intersection(&region.range).ok_or_else(|| not_of_place(&region))?;
        let request = self.visit.request(&part);
        let call = RegionCall::to_region(region, request, self.options.clone(), located.backoff);
        let call = if self.visit.is_repeatable() { call.repeatable() } else { call };
        let mut call = call.as_retry(self.is_retry);
        match call.start(cx) {
            Poll::Ready(end) => {
                self.phase = Phase::Calling { call: Box::new(call), part };
                Ok(Some(end))
            }
            Poll::Pending => {
                self.phase = Phase::Calling { call: Box::new(call), part };
                Ok(None)
            }
        }
    }

    /// `None` if the walk goes on.
    fn on_call_end(
        &mut self,
        cx: &Context<'_>,
        end: CallEnd<<V::Request as StoreRequest>::Response>,
    ) -> Option<Result<V::Output, Error>> {
        let Phase::Calling { part, .. } = std::mem::replace(&mut self.phase, Phase::Idle) else { return None };
        if let Err(CallError::Relocate(_)) = end.result {
            self.backoff = end.backoff;
            self.is_retry |= end.attempts > 0;
            return None;
        }
        let address = end.address().map_or_else(|| Arc::from(""), Arc::clone);
        let taken = end
            .into_result(V::Request::KIND.facts().name)
            .and_then(|response| self.visit.on_response(response, &address));
        if let Err(error) = taken {
            return Some(Err(error));
        }
        if self.visit.is_satisfied() || !self.step_over(&part) {
            return Some(Ok(self.visit.finish()));
        }
        if cx.config().has_canary(Canary::RawScanSkipsRegionStart) && self.direction == Direction::Forward {
            self.rest.start = self.rest.start.next();
        }
        self.backoff = self.budget.clone();
        self.is_retry = false;
        None
    }

    /// Leaves the visited part behind. False at the end of the range.
    fn step_over(&mut self, part: &KeyRange) -> bool {
        match self.direction {
            Direction::Forward => {
                let at_end = part.end.is_empty() || part.end == self.rest.end;
                self.rest.start = part.end.clone();
                !at_end
            }
            Direction::Reverse => {
                let at_start = part.start == self.rest.start;
                self.rest.end = part.start.clone();
                !at_start
            }
        }
    }
}

impl<V: RangeVisit> Machine for RangeWalk<V> {
    type Output = Result<V::Output, Error>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.rest.is_empty() || self.visit.is_satisfied() {
            return Poll::Ready(Ok(self.visit.finish()));
        }
        self.next_region(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output> {
        let end = match &mut self.phase {
            Phase::Idle => return Poll::Pending,
            Phase::Locating(locate) => {
                let Poll::Ready(located) = locate.handle(cx, token, event) else { return Poll::Pending };
                match self.call(cx, located) {
                    Ok(Some(end)) => end,
                    Ok(None) => return Poll::Pending,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            Phase::Calling { call, .. } => {
                let Poll::Ready(end) = call.handle(cx, token, event) else { return Poll::Pending };
                end
            }
        };
        match self.on_call_end(cx, end) {
            Some(done) => Poll::Ready(done),
            None => self.next_region(cx),
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
