//! Has TiKV remove versions that nobody reads any more.
//!
//! ```text
//!   start ──► FetchingTimestamp ──► AdvancingTxnSafePoint ──► ResolvingLocks ──► AdvancingGcSafePoint ──► done
//! ```
//!
//! A safe point in the future would end every transaction there will be until then, and never go back: it is refused. Then PD is
//! told that nobody reads below the safe point any more; barriers may keep it from going as far as was asked for. Then every lock
//! from before is resolved: whether such a lock commits must be known before the versions go that tell. Then PD is told that
//! versions may go, and tells the stores, which remove them in their own time.
//!
//! client-go: `KVStore.GC`, which takes any safe point.

use std::task::Poll;

use super::gc_questions::{AdvanceGcSafePoint, AdvanceTxnSafePoint, ask};
use crate::error::Error;
use crate::key::KeyRange;
use crate::lock::{SweepLocks, Swept};
use crate::machine::{Context, CurrentPhase, Event, Machine, Token, phases};
use crate::oracle::FetchTimestamp;
use crate::pd::AskPd;
use crate::request::pd::AdvancedSafePoint;
use crate::route::CallOptions;
use crate::timestamp::Timestamp;

/// Regions whose locks are resolved at once, unless the caller says otherwise. client-go's default.
const CONCURRENCY: usize = 8;

/// What a [`CollectGarbage`] has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Collected {
    /// Versions that only a reader below it would see may be removed now. At most what was asked for.
    pub safe_point: Timestamp,
    /// If that is less than was asked for: PD's words for what needs older versions; else empty.
    pub blocker: String,
    /// The locks that were resolved for it.
    pub swept: Swept,
}

/// Collects garbage up to a safe point; see the [module documentation](self).
///
/// Ends with the first error. What was done until then stays, and to begin again is harmless; so it is to abandon it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CollectGarbage {
    target: Timestamp,
    options: CallOptions,
    concurrency: usize,
    collected: Collected,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    FetchingTimestamp(FetchTimestamp),
    AdvancingTxnSafePoint(AskPd<AdvanceTxnSafePoint>),
    ResolvingLocks(Box<SweepLocks>),
    AdvancingGcSafePoint(AskPd<AdvanceGcSafePoint>),
}

phases! {
    CollectGarbage: Phase;
    start => FetchingTimestamp | done;
    FetchingTimestamp => AdvancingTxnSafePoint | done;
    AdvancingTxnSafePoint => ResolvingLocks | done;
    ResolvingLocks => AdvancingGcSafePoint | done;
    AdvancingGcSafePoint => done;
}

type End = Result<Collected, Error>;

impl CollectGarbage {
    /// Up to `target`, or less if something needs older versions.
    #[must_use]
    pub fn new(target: Timestamp, options: CallOptions) -> Self {
        let (concurrency, phase) = (CONCURRENCY, Phase::Idle);
        CollectGarbage { target, options, concurrency, collected: Collected::default(), phase }
    }

    /// The same, with the locks of at most so many regions resolved at once (at least one). client-go: `WithConcurrency`.
    #[must_use]
    pub fn with_concurrency(mut self, regions: usize) -> Self {
        self.concurrency = regions;
        self
    }

    fn on_now(&mut self, cx: &mut Context<'_>, result: Result<Timestamp, Error>) -> Poll<End> {
        match result {
            Ok(now) if self.target > now => {
                let detail = format!("the safe point {} lies in the future: PD is at {now}", self.target);
                return self.done(Err(Error::InvalidArgument(detail.into())));
            }
            Ok(_) => {}
            Err(error) => return self.done(Err(error)),
        }
        let mut question = ask(cx.config(), AdvanceTxnSafePoint(self.target)).until(self.options.deadline);
        let poll = question.start(cx);
        self.phase = Phase::AdvancingTxnSafePoint(question);
        match poll {
            Poll::Ready(result) => self.on_txn_safe_point(cx, result),
            Poll::Pending => Poll::Pending,
        }
    }

    fn on_txn_safe_point(&mut self, cx: &mut Context<'_>, result: Result<AdvancedSafePoint, Error>) -> Poll<End> {
        match result {
            Ok(advanced) => {
                self.collected.safe_point = advanced.new.min(self.target);
                self.collected.blocker = if advanced.new < self.target { advanced.blocker } else { String::new() };
            }
            Err(error) => return self.done(Err(error)),
        }
        let sweep = SweepLocks::new(KeyRange::ALL, self.collected.safe_point, self.options.clone());
        let mut sweep = Box::new(sweep.with_concurrency(self.concurrency));
        let poll = sweep.start(cx);
        self.phase = Phase::ResolvingLocks(sweep);
        match poll {
            Poll::Ready(result) => self.on_swept(cx, result),
            Poll::Pending => Poll::Pending,
        }
    }

    fn on_swept(&mut self, cx: &mut Context<'_>, result: Result<Swept, Error>) -> Poll<End> {
        match result {
            Ok(swept) => self.collected.swept = swept,
            Err(error) => return self.done(Err(error)),
        }
        let question = AdvanceGcSafePoint(self.collected.safe_point);
        let mut question = ask(cx.config(), question).until(self.options.deadline);
        let poll = question.start(cx);
        self.phase = Phase::AdvancingGcSafePoint(question);
        match poll {
            Poll::Ready(result) => self.on_gc_safe_point(result),
            Poll::Pending => Poll::Pending,
        }
    }

    fn on_gc_safe_point(&mut self, result: Result<AdvancedSafePoint, Error>) -> Poll<End> {
        let collected = std::mem::take(&mut self.collected);
        self.done(result.map(|_| collected))
    }

    fn done(&mut self, result: End) -> Poll<End> {
        self.phase = Phase::Idle;
        Poll::Ready(result)
    }
}

impl Machine for CollectGarbage {
    type Output = End;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut fetch = FetchTimestamp::new(cx.config()).until(self.options.deadline);
        let poll = fetch.start(cx);
        self.phase = Phase::FetchingTimestamp(fetch);
        match poll {
            Poll::Ready(result) => self.on_now(cx, result),
            Poll::Pending => Poll::Pending,
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<End> {
        match &mut self.phase {
            Phase::Idle => Poll::Pending,
            Phase::FetchingTimestamp(fetch) => match fetch.handle(cx, token, event) {
                Poll::Ready(result) => self.on_now(cx, result),
                Poll::Pending => Poll::Pending,
            },
            Phase::AdvancingTxnSafePoint(question) => match question.handle(cx, token, event) {
                Poll::Ready(result) => self.on_txn_safe_point(cx, result),
                Poll::Pending => Poll::Pending,
            },
            Phase::ResolvingLocks(sweep) => match sweep.handle(cx, token, event) {
                Poll::Ready(result) => self.on_swept(cx, result),
                Poll::Pending => Poll::Pending,
            },
            Phase::AdvancingGcSafePoint(question) => match question.handle(cx, token, event) {
                Poll::Ready(result) => self.on_gc_safe_point(result),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
