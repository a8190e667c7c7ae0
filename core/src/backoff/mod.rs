//! When to try again, and when to give up.
//!
//! An operation owns one [`Backoff`]. Each time something is in its way, it names the [`BackoffKind`] and asks how long
//! to sleep:
//!
//! ```text
//!            next(kind) = Ok(sleep)                    woken
//!  trying ──────────────────────────────► sleeping ──────────► trying …
//!     │
//!     └── next(kind) = Err(Exhausted) ──► give up with the error of the kind that slept longest
//! ```
//!
//! Sleeps grow by kind and add up in one budget. Whether anything is left is asked *before* a sleep is handed out, so
//! the last sleep may reach beyond the budget. `TikvServerBusy` is not counted at first: an overloaded store is worth
//! waiting for.
//!
//! A backoff that was never asked is a few words without an allocation, so that the common operation, which succeeds at
//! once, pays nothing.
//!
//! client-go: `config/retry.(*Backoffer)`, without the context, the sleeping and the logging.

use std::fmt;
use std::time::Duration;

use tikv_proto::errorpb;

use crate::error::CallFailure;
use crate::rng::Rng;

pub mod budget;
mod kind;
#[cfg(test)]
mod tests;

use kind::Steps;
pub use kind::{BackoffKind, ErrorClass, Facts, Jitter};

/// How many reasons an [`Exhausted`] remembers. client-go: `MaxRecordBackoffErrCount`.
pub const RECENT: usize = 3;

/// What a user may tune of all backoffs. client-go: `kv.Variables`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuning {
    /// Multiplies every weighted budget. Default 2; 0 counts as 1.
    pub weight: u32,
    /// Base of [`BackoffKind::TxnLockFast`], in milliseconds. Default 10.
    pub lock_fast_base_ms: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning { weight: 2, lock_fast_base_ms: 10 }
    }
}

/// What to back off of before keys are located anew, once `error` has ended a call to their region. Nothing after an
/// `EpochNotMatch` that names the regions of today; [`BackoffKind::RegionMiss`] after anything else, also after the
/// [pseudo region error](is_pseudo_region_error). client-go: `MayBackoffForRegionError`.
#[must_use]
pub fn before_relocating(error: &errorpb::Error) -> Option<BackoffKind> {
    let told_where = error.epoch_not_match.is_some() && !is_pseudo_region_error(error);
    (!told_where).then_some(BackoffKind::RegionMiss)
}

/// Whether this is the region error that the client itself makes up when no replica is left to try: an `EpochNotMatch`
/// without regions. client-go: `IsFakeRegionError`.
#[must_use]
pub fn is_pseudo_region_error(error: &errorpb::Error) -> bool {
    error.epoch_not_match.as_ref().is_some_and(|mismatch| mismatch.current_regions.is_empty())
}

/// The budget of one operation: how much it has slept, of which kinds, and how much it still may.
///
/// ```
/// use std::time::Duration;
/// use tikv_core::backoff::{Backoff, BackoffKind, ErrorClass, Tuning, budget};
/// use tikv_core::rng::Rng;
///
/// let mut rng = Rng::new(1);
/// let mut backoff = Backoff::weighted(budget::GET, Tuning::default());
/// assert_eq!(backoff.next(BackoffKind::RegionMiss, &mut rng), Ok(Duration::from_millis(2)));
/// assert_eq!(backoff.next(BackoffKind::RegionMiss, &mut rng), Ok(Duration::from_millis(4)));
///
/// let exhausted = loop {
///     if let Err(exhausted) = backoff.next(BackoffKind::TikvRpc, &mut rng) {
///         break exhausted;
///     }
/// };
/// assert_eq!(exhausted.error(), Some(ErrorClass::TikvServerTimeout));
/// assert!(backoff.total_sleep() >= 2 * budget::GET);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backoff {
    limit: Limit,
    tuning: Tuning,
    /// Nothing until the first sleep.
    state: Option<Box<State>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Limit {
    Unlimited,
    Sleep(Duration),
    Nothing,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    spent: Spent,
    steps: [Steps; BackoffKind::COUNT],
    statistics: Statistics,
    earlier: Option<Earlier>,
}

/// What calls have met whose keys had to be located anew: it would be lost with them, and belongs into the error of the
/// operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Earlier {
    /// What was asked of TiKV.
    pub(crate) operation: &'static str,
    /// RPCs sent.
    pub(crate) attempts: u32,
    /// What the last of them met.
    pub(crate) last: CallFailure,
}

/// What counts against the budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Spent {
    total: Duration,
    /// The part of the total that does not count, yet.
    excluded: Duration,
}

impl Backoff {
    /// A budget of `max_sleep` as it is; zero means no limit. client-go: `NewBackoffer`.
    #[must_use]
    pub fn new(max_sleep: Duration) -> Self {
        Backoff::weighted(max_sleep, Tuning { weight: 1, ..Tuning::default() })
    }

    /// A budget of `max_sleep` times the weight; zero means no limit. client-go: `NewBackofferWithVars`.
    #[must_use]
    pub fn weighted(max_sleep: Duration, tuning: Tuning) -> Self {
        Backoff { limit: Limit::weighted(max_sleep, tuning), tuning, state: None }
    }

    /// No budget at all: the first obstacle ends the operation. client-go: `NewNoopBackoff`.
    #[must_use]
    pub fn none() -> Self {
        Backoff { limit: Limit::Nothing, tuning: Tuning::default(), state: None }
    }

    /// Hands the budget on and leaves [`Backoff::none`]: for a part that returns what it left of it.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Backoff::none())
    }

    /// How long to sleep now, counted as slept.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if the budget is spent. The backoff stays as it was.
    pub fn next(&mut self, kind: BackoffKind, rng: &mut Rng) -> Result<Duration, Exhausted> {
        self.next_bounded(kind, Duration::MAX, rng)
    }

    /// As [`Backoff::next`], but this sleep is at most `max_single_sleep` (the time until a lock expires, say). The
    /// next one grows as if it had not been cut. client-go: `BackoffWithCfgAndMaxSleep`.
    ///
    /// # Errors
    ///
    /// As [`Backoff::next`].
    pub fn next_bounded(
        &mut self,
        kind: BackoffKind,
        max_single_sleep: Duration,
        rng: &mut Rng,
    ) -> Result<Duration, Exhausted> {
        if let Some(limit) = self.spent_limit(kind) {
            return Err(self.exhausted(kind, limit));
        }
        let Facts { base_ms, cap_ms, jitter, excluded_up_to, .. } = *kind.facts();
        let base_ms = if kind == BackoffKind::TxnLockFast { self.tuning.lock_fast_base_ms } else { base_ms };
        let state = self.state.get_or_insert_default();
        let sleep = state.steps[kind as usize].next_ms(base_ms, cap_ms, jitter, rng);
        let sleep = Duration::from_millis(sleep.into()).min(max_single_sleep);
        state.spent.total = state.spent.total.saturating_add(sleep);
        if excluded_up_to.is_some() {
            state.spent.excluded = state.spent.excluded.saturating_add(sleep);
        }
        state.statistics.record(kind, sleep);
        Ok(sleep)
    }

    /// A backoff for a part of this operation: what is spent stays spent, but sleeps start short again, because the
    /// part meets obstacles of its own. client-go: `Fork`, `Clone`. (`Clone` here is an exact copy.)
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut fork = self.clone();
        if let Some(state) = &mut fork.state {
            state.steps = Default::default();
        }
        fork
    }

    /// Takes over what a fork of this has spent since. Of several forks that slept side by side, the one that slept
    /// longest counts. client-go: `UpdateUsingForked`.
    pub fn merge(&mut self, fork: Backoff) {
        let Some(theirs) = fork.state else { return };
        match &mut self.state {
            Some(ours) if theirs.spent.total < ours.spent.total => {}
            Some(ours) => {
                ours.spent = theirs.spent;
                ours.statistics = theirs.statistics;
            }
            ours @ None => *ours = Some(Box::new(State { steps: Default::default(), ..*theirs })),
        }
    }

    /// Forgets what is spent and how long sleeps have grown, for the next stage of the operation. Statistics stay.
    pub fn reset(&mut self) {
        if let Some(state) = &mut self.state {
            state.spent = Spent::default();
            state.steps = Default::default();
            state.earlier = None;
        }
    }

    /// [`Backoff::reset`], and a new budget of `max_sleep` times the weight. client-go: `ResetMaxSleep`.
    pub fn restart(&mut self, max_sleep: Duration) {
        self.reset();
        self.limit = Limit::weighted(max_sleep, self.tuning);
    }

    /// Remembers what a call has met whose keys have to be located anew. Of several the last counts; attempts add up.
    pub(crate) fn note_earlier(&mut self, operation: &'static str, attempts: u32, last: CallFailure) {
        let before = self.earlier().map_or(0, |earlier| earlier.attempts);
        let attempts = before.saturating_add(attempts);
        self.state.get_or_insert_default().earlier = Some(Earlier { operation, attempts, last });
    }

    pub(crate) fn earlier(&self) -> Option<&Earlier> {
        self.state.as_ref()?.earlier.as_ref()
    }

    /// The whole budget, weight included; `None` if there is no limit.
    #[must_use]
    pub fn max_sleep(&self) -> Option<Duration> {
        match self.limit {
            Limit::Unlimited => None,
            Limit::Sleep(max) => Some(max),
            Limit::Nothing => Some(Duration::ZERO),
        }
    }

    /// All sleeps since the start or the last reset.
    #[must_use]
    pub fn total_sleep(&self) -> Duration {
        self.state.as_ref().map_or(Duration::ZERO, |state| state.spent.total)
    }

    /// Sleeps by kind since the start, whatever was reset. Forks start with their parent's.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        const NONE: &Statistics = &Statistics::EMPTY;
        self.state.as_ref().map_or(NONE, |state| &state.statistics)
    }

    fn spent_limit(&self, kind: BackoffKind) -> Option<SpentLimit> {
        let max = match self.limit {
            Limit::Unlimited => return None,
            Limit::Nothing => return Some(SpentLimit::Sleep),
            Limit::Sleep(max) => max,
        };
        let Spent { total, excluded } = self.state.as_ref()?.spent;
        if total.saturating_sub(excluded) >= max {
            return Some(SpentLimit::Sleep);
        }
        let excluded_max = kind.facts().excluded_up_to?.max(max);
        (excluded >= excluded_max).then_some(SpentLimit::ExcludedSleep)
    }

    fn exhausted(&self, kind: BackoffKind, limit: SpentLimit) -> Exhausted {
        let max_sleep = self.max_sleep().unwrap_or(Duration::MAX);
        Exhausted { kind, limit, max_sleep, statistics: Box::new(self.statistics().clone()) }
    }
}

impl Limit {
    fn weighted(max_sleep: Duration, tuning: Tuning) -> Self {
        match max_sleep {
            Duration::ZERO => Limit::Unlimited,
            max => Limit::Sleep(max.saturating_mul(tuning.weight.max(1))),
        }
    }
}

/// Which part of the budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpentLimit {
    /// The sleeps that count.
    Sleep,
    /// The sleeps of a kind that did not count until they, too, were too many.
    ExcludedSleep,
}

/// The budget is spent: the operation gives up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exhausted {
    /// What was in the way last, and would have needed one more sleep.
    pub kind: BackoffKind,
    /// Which part of the budget is spent.
    pub limit: SpentLimit,
    /// The budget, weight included.
    pub max_sleep: Duration,
    /// Where it went.
    pub statistics: Box<Statistics>,
}

impl Exhausted {
    /// The class of error to report: that of the kind that slept longest. `None` if nothing slept that counts; then the
    /// error that was in the way is the one to report.
    #[must_use]
    pub fn error(&self) -> Option<ErrorClass> {
        self.statistics.longest().map(|kind| kind.facts().error)
    }
}

impl std::error::Error for Exhausted {}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.limit {
            SpentLimit::Sleep => "back-off budget",
            SpentLimit::ExcludedSleep => "back-off budget of uncounted sleeps",
        };
        write!(f, "{what} of {:?} is spent at {}, after {}", self.max_sleep, self.kind, self.statistics)
    }
}

/// How often and how long an operation has slept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Statistics {
    kinds: [KindStatistics; BackoffKind::COUNT],
    recent: [Option<BackoffKind>; RECENT],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct KindStatistics {
    times: u32,
    slept: Duration,
}

impl Statistics {
    const EMPTY: Statistics = Statistics {
        kinds: [KindStatistics { times: 0, slept: Duration::ZERO }; BackoffKind::COUNT],
        recent: [None; RECENT],
    };

    /// Sleeps of a kind.
    #[must_use]
    pub fn times(&self, kind: BackoffKind) -> u32 {
        self.kinds[kind as usize].times
    }

    /// Time slept for a kind.
    #[must_use]
    pub fn slept(&self, kind: BackoffKind) -> Duration {
        self.kinds[kind as usize].slept
    }

    /// Sleeps of all kinds.
    #[must_use]
    pub fn total_times(&self) -> u32 {
        self.kinds.iter().fold(0, |total, kind| total.saturating_add(kind.times))
    }

    /// The kinds that slept at least once, with how often and how long, in the order of the enum.
    pub fn iter(&self) -> impl Iterator<Item = (BackoffKind, u32, Duration)> {
        let kinds = BackoffKind::ALL.iter().zip(&self.kinds).filter(|(_, kind)| kind.times > 0);
        kinds.map(|(kind, statistics)| (*kind, statistics.times, statistics.slept))
    }

    /// The kinds of the last [`RECENT`] sleeps, the oldest first.
    pub fn recent(&self) -> impl Iterator<Item = BackoffKind> {
        self.recent.iter().flatten().copied()
    }

    /// The kind that slept longest, of those that count from the start; the first one if several did.
    #[must_use]
    pub fn longest(&self) -> Option<BackoffKind> {
        let counted = |kind: &BackoffKind| kind.facts().excluded_up_to.is_none() && !self.slept(*kind).is_zero();
        BackoffKind::ALL.iter().rev().copied().filter(counted).max_by_key(|kind| self.slept(*kind))
    }

    fn record(&mut self, kind: BackoffKind, sleep: Duration) {
        let statistics = &mut self.kinds[kind as usize];
        statistics.times = statistics.times.saturating_add(1);
        statistics.slept = statistics.slept.saturating_add(sleep);
        self.recent.rotate_left(1);
        self.recent[RECENT - 1] = Some(kind);
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.total_times() == 0 {
            return f.write_str("no sleep");
        }
        for (index, (kind, times, slept)) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{kind} x{times} ({slept:?})")?;
        }
        Ok(())
    }
}
