//! Resolves all locks of a range that are older than some time, many regions side by side.
//!
//! ```text
//!               the region of what is left            as many regions as may be, or all
//!   start ──► Locating ──► (its sweep begins) ──► … ──────────────────► Sweeping ──► all swept: done
//!                ▲                                                          │ one is swept
//!                └──────────────────────────────────────────────────────────┘
//! ```
//!
//! client-go: `KVStore.resolveLocks`, `ResolveLocksForRange`.

use std::task::Poll;

use super::sweep_region::SweepRegion;
use crate::backoff::budget;
use crate::error::Error;
use crate::key::KeyRange;
use crate::machine::{Context, CurrentPhase, Event, FanOut, Machine, Token, phases};
use crate::route::{self, CallOptions, Locate, Located, Place};
use crate::timestamp::Timestamp;

/// Regions that are swept at once, unless the caller says otherwise. client-go's default.
const CONCURRENCY: usize = 8;

/// What a [`SweepLocks`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Swept {
    /// Regions that were looked at.
    pub regions: u64,
    /// Locks that were resolved.
    pub locks: u64,
}

/// Resolves every lock of a range whose transaction began at `max_ts` or before, so that a garbage collector may remove old
/// versions; see the [module documentation](self). Transactions from before that are alive are ended: what
/// they have prewritten is rolled back, and their pessimistic locks are released.
/// Locks that come late, of requests that are still on their way, are left to whoever meets them.
///
/// Ends with the first error; what was resolved until then is resolved, and to begin again is harmless. Abandoned, it stops.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SweepLocks {
    /// What no sweep has begun of; `None` at the end.
    rest: Option<KeyRange>,
    max_ts: Timestamp,
    options: CallOptions,
    concurrency: usize,
    regions: FanOut<SweepRegion>,
    swept: Swept,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    /// Sweeps may be running.
    Locating(Locate),
    Sweeping,
}

phases! {
    SweepLocks: Phase;
    start => Locating | Sweeping | done;
    Locating => Sweeping | done;
    Sweeping => Locating | done;
}

type End = Result<Swept, Error>;

impl SweepLocks {
    /// Of `range`.
    #[must_use]
    pub fn new(range: KeyRange, max_ts: Timestamp, options: CallOptions) -> Self {
        SweepLocks {
            rest: (!range.is_empty()).then_some(range),
            max_ts,
            options,
            concurrency: CONCURRENCY,
            regions: FanOut::new(CONCURRENCY),
            swept: Swept::default(),
            phase: Phase::Idle,
        }
    }

    /// The same for at most so many regions at once (at least one). client-go: `WithConcurrency`.
    #[must_use]
    pub fn with_concurrency(mut self, regions: usize) -> Self {
        self.concurrency = regions.max(1);
        self.regions = FanOut::new(self.concurrency);
        self
    }

    /// Begins sweeps while there is room for them.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        while let Some(rest) = self.rest.as_ref().filter(|_| self.regions.running().count() < self.concurrency) {
            let backoff = route::budget(cx.config(), budget::LOCATE_REGION);
            let locate = Locate::new(Place::Of(rest.start.clone()), backoff);
            let mut locate = locate.with_deadline(self.options.deadline);
            match locate.start(cx) {
                Poll::Ready(located) => {
                    if let Err(error) = self.on_located(cx, located) {
                        return self.fail(cx, error);
                    }
                }
                Poll::Pending => {
                    self.phase = Phase::Locating(locate);
                    return Poll::Pending;
                }
            }
        }
        self.phase = Phase::Sweeping;
        self.collect(cx)
    }

    fn on_located(&mut self, cx: &mut Context<'_>, located: Located) -> Result<(), Error> {
        let region = located.result?;
        let Some(rest) = self.rest.take() else { return Ok(()) };
        let end = region.range.end.clone();
        let is_last = end.is_empty() || (!rest.end.is_empty() && end >= rest.end);
        let part = if is_last { rest.clone() } else { KeyRange { start: rest.start.clone(), end: end.clone() } };
        if !is_last {
            self.rest = Some(KeyRange { start: end, end: rest.end });
        }
        self.regions.add(SweepRegion::new(part, self.max_ts, self.options.clone()));
        self.regions.run(cx);
        Ok(())
    }

    fn collect(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut any = false;
        while let Some((_, end)) = self.regions.next_finished(cx) {
            match end {
                Ok(locks) => {
                    self.swept.regions += 1;
                    self.swept.locks += locks;
                    any = true;
                }
                Err(error) => return self.fail(cx, error),
            }
        }
        if matches!(self.phase, Phase::Locating(_)) {
            return Poll::Pending;
        }
        if any && self.rest.is_some() {
            return self.fill(cx);
        }
        if self.regions.is_idle() { self.done(Ok(self.swept)) } else { Poll::Pending }
    }

    fn fail(&mut self, cx: &mut Context<'_>, error: Error) -> Poll<End> {
        self.regions.cancel_all(cx);
        self.done(Err(error))
    }

    fn done(&mut self, result: End) -> Poll<End> {
        self.phase = Phase::Idle;
        Poll::Ready(result)
    }
}

impl Machine for SweepLocks {
    type Output = End;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.fill(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<End> {
        if self.regions.waits_for(token) {
            self.regions.handle(cx, token, event);
            return self.collect(cx);
        }
        let Phase::Locating(locate) = &mut self.phase else { return Poll::Pending };
        let Poll::Ready(located) = locate.handle(cx, token, event) else { return Poll::Pending };
        self.phase = Phase::Sweeping;
        match self.on_located(cx, located) {
            Ok(()) => self.fill(cx),
            Err(error) => self.fail(cx, error),
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
