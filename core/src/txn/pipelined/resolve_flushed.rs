//! Resolves all locks of a transaction in a range, region by region.
//!
//! ```text
//!              region of the next part       all parts are under way
//!   start ──► Locating ─────────────────► Resolving ─────────────────► done
//!                ▲                            │ there is room for one more part
//!                └────────────────────────────┘
//! ```
//!
//! Which keys the transaction has flushed nobody remembers, only the first and the last of them: TiKV looks for the locks
//! itself. Each part is the share of one region, as far as that was known when the part was cut; a [`RangeWalk`] visits what
//! has become of it. As many parts as the limit allows are under way at once.
//!
//! A part that fails is observed, and the others go on: whoever meets one of its locks resolves it.
//!
//! client-go: `buildPipelinedResolveHandler`, package `rangetask`.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tikv_proto::kvrpcpb::{ResolveLockRequest, ResolveLockResponse};

use crate::backoff::budget;
use crate::canary::Canary;
use crate::error::Error;
use crate::key::{Direction, Key, KeyRange};
use crate::knowledge::txn_status::FinalStatus;
use crate::machine::{Context, CurrentPhase, Event, FanOut, Machine, Observation, Token, phases};
use crate::route::{self, CallOptions, Locate, Located, Place, RangeVisit, RangeWalk};
use crate::timestamp::Timestamp;
use crate::txn::refusal;

/// Resolves all locks of a transaction in a range; see the [module documentation](self). Ends with whether all are gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ResolveFlushed {
    visit: Visit,
    options: CallOptions,
    /// What has not been cut into parts; empty when all has.
    rest: KeyRange,
    parts: FanOut<RangeWalk<Visit>>,
    limit: usize,
    all_gone: bool,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Locating(Locate),
    Resolving,
}

phases! {
    ResolveFlushed: Phase;
    start => Locating | Resolving;
    Locating => Resolving | done;
    Resolving => Locating | done;
}

/// What each region is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Visit {
    start_ts: Timestamp,
    status: FinalStatus,
}

impl ResolveFlushed {
    /// Resolves what transaction `start_ts`, which has ended as `status` says, has locked from `first` to `last`, both of them
    /// included.
    pub(super) fn new(
        start_ts: Timestamp,
        status: FinalStatus,
        (first, last): (Key, Key),
        limit: usize,
        options: CallOptions,
    ) -> Self {
        ResolveFlushed {
            visit: Visit { start_ts, status },
            options,
            rest: KeyRange::new(first, last.next()),
            parts: FanOut::new(limit),
            limit,
            all_gone: true,
            phase: Phase::Idle,
        }
    }

    fn max_sleep(&self) -> Duration {
        match self.visit.status {
            FinalStatus::Committed(_) => budget::COMMIT_SECONDARY,
            FinalStatus::RolledBack => budget::CLEANUP,
        }
    }

    /// Cuts parts as long as there is room for them.
    fn go_on(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.collect(cx);
        while !self.rest.is_empty() && self.parts.running().count() < self.limit {
            let budget = route::budget(cx.config(), budget::LOCATE_REGION);
            let mut locate = Locate::new(Place::Of(self.rest.start.clone()), budget);
            match locate.start(cx) {
                Poll::Ready(located) => self.on_located(cx, located),
                Poll::Pending => {
                    self.phase = Phase::Locating(locate);
                    return Poll::Pending;
                }
            }
        }
        if self.rest.is_empty() && self.parts.is_idle() {
            return Poll::Ready(self.all_gone);
        }
        self.phase = Phase::Resolving;
        Poll::Pending
    }

    fn on_located(&mut self, cx: &mut Context<'_>, located: Located) {
        let part = match located.result {
            Ok(region) => self.rest.intersection(&region.range),
            Err(error) => {
                self.observe(cx, error);
                None
            }
        };
        // Without a region there is nothing that could be cut.
        let Some(part) = part else {
            self.rest.start = self.rest.end.clone();
            self.all_gone = false;
            return;
        };
        self.rest.start = part.end.clone();
        let budget = route::budget(cx.config(), self.max_sleep());
        self.parts.add(RangeWalk::new(self.visit, part, Direction::Forward, self.options.clone(), budget));
        self.parts.run(cx);
        self.collect(cx);
    }

    fn collect(&mut self, cx: &mut Context<'_>) {
        while let Some((_, end)) = self.parts.next_finished(cx) {
            if let Err(error) = end {
                self.observe(cx, error);
            }
        }
    }

    fn observe(&mut self, cx: &mut Context<'_>, error: Error) {
        self.all_gone = false;
        cx.observe(Observation::BackgroundFailed { task: "resolve flushed locks", error });
    }
}

impl Machine for ResolveFlushed {
    type Output = bool;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let last = self.rest.end.as_slice().split_last().map_or(Key::EMPTY, |(_, last)| Key::from(last.to_vec()));
        if cx.config().has_canary(Canary::LastFlushedKeyForgotten) && self.rest.start < last {
            self.rest.end = last;
        }
        self.go_on(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<bool> {
        if self.parts.waits_for(token) {
            self.parts.handle(cx, token, event);
            self.collect(cx);
            // The next part is on its way already.
            return if matches!(self.phase, Phase::Locating(_)) { Poll::Pending } else { self.go_on(cx) };
        }
        match std::mem::replace(&mut self.phase, Phase::Resolving) {
            Phase::Locating(mut locate) => match locate.handle(cx, token, event) {
                Poll::Ready(located) => {
                    self.on_located(cx, located);
                    self.go_on(cx)
                }
                Poll::Pending => {
                    self.phase = Phase::Locating(locate);
                    Poll::Pending
                }
            },
            phase => {
                self.phase = phase;
                Poll::Pending
            }
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}

impl RangeVisit for Visit {
    type Request = ResolveLockRequest;
    type Output = ();

    fn request(&self, _: &KeyRange) -> ResolveLockRequest {
        let commit_version = match self.status {
            FinalStatus::Committed(commit_ts) => commit_ts.version(),
            FinalStatus::RolledBack => 0,
        };
        ResolveLockRequest { start_version: self.start_ts.version(), commit_version, ..ResolveLockRequest::default() }
    }

    fn on_response(&mut self, response: ResolveLockResponse, _: &Arc<str>) -> Result<(), Error> {
        refusal::key_error(response.error).map_or(Ok(()), |error| Err(Error::Key(error)))
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn finish(&mut self) {}
}
