//! Regions are split at keys, and the new ones spread over the stores: before more is written than one region should take.
//!
//! ```text
//!   start ──► Splitting ──► Scattering ──► Settling ⇄ Pausing ──► done
//!                            ▲      │
//!                            └─ BackingOff
//! ```
//!
//! PD decides where the new regions go, and whether that is worth while: a region that it does not move is not an error.
//!
//! client-go: `KVStore.SplitRegions`, `scatterRegion`, `WaitScatterRegionFinish`.

mod share;
#[cfg(test)]
mod tests;

use std::task::Poll;

use self::share::{Parts, Splitter};
use crate::backoff::{Backoff, BackoffKind, budget};
use crate::config::Config;
use crate::error::{CallFailure, Error, PdError};
use crate::key::Key;
use crate::machine::{Context, CurrentPhase, Event, Machine, SleepReason, Token, phases};
use crate::request::pd::{PdRequest, PdResponse};
use crate::route::{self, CallOptions, Sharded, Unlocated};
use crate::time::Time;

/// How regions are split.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SplitOptions {
    /// How RPCs are sent, and when all must be over.
    pub call: CallOptions,
    /// Whether the new regions are spread over the stores. Default: no.
    pub scatter: Scatter,
    /// PD spreads the regions of one group evenly. Default: the empty group of all that have none.
    pub group: String,
}

/// What becomes of new regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scatter {
    /// They stay on the stores of the region that they were a part of.
    #[default]
    No,
    /// PD is asked to spread them over the stores, and does so in its own time.
    Begin,
    /// That is waited for, up to two minutes.
    Finish,
}

/// What a [`SplitRegions`] ends with. What is split stays so, whatever went wrong after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Split {
    /// The new regions: of each that was split, all parts but one.
    pub regions: Vec<u64>,
    /// The first thing that went wrong.
    pub error: Option<Error>,
}

/// Splits regions; see the [module documentation](self). Transactional keys only. Keys at which a region begins already are
/// passed over. Abandoned, it stops where it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SplitRegions {
    keys: Vec<Key>,
    options: SplitOptions,
    split: Split,
    /// Of splitting, then of scattering.
    backoff: Backoff,
    /// Questions to PD.
    questions: u32,
    last: CallFailure,
    /// Fires at the deadline, once PD is asked.
    alarm: Option<Token>,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Starting,
    Splitting(Sharded<Splitter>),
    Scattering(Token),
    BackingOff(Token),
    /// `settled` of the new regions are where they shall be.
    Settling {
        question: Token,
        settled: usize,
    },
    Pausing {
        timer: Token,
        settled: usize,
    },
    Ended,
}

phases! {
    SplitRegions: Phase;
    start => Splitting | done;
    Splitting => Scattering | done;
    Scattering => BackingOff | Settling | done;
    BackingOff => Scattering | done;
    Settling => Pausing | done;
    Pausing => Settling | done;
}

impl SplitOptions {
    /// The defaults.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        SplitOptions { call: CallOptions::new(config), scatter: Scatter::No, group: String::new() }
    }
}

impl SplitRegions {
    /// Splits at `keys`.
    #[must_use]
    pub fn new(keys: Vec<Key>, options: SplitOptions) -> Self {
        SplitRegions {
            keys,
            options,
            split: Split::default(),
            backoff: Backoff::none(),
            questions: 0,
            last: CallFailure::NotAttempted,
            alarm: None,
            phase: Phase::Starting,
        }
    }

    fn collect(&mut self, cx: &mut Context<'_>, mut shares: Sharded<Splitter>) -> Poll<Split> {
        while let Some(end) = shares.next_finished(cx) {
            match end {
                Ok(Parts { regions, error }) => {
                    self.split.regions.extend(regions);
                    self.note(error);
                }
                Err(Unlocated { error, .. }) => self.note(Some(error)),
            }
        }
        if !shares.is_idle() {
            self.phase = Phase::Splitting(shares);
            return Poll::Pending;
        }
        self.split.regions.sort_unstable();
        if self.options.scatter == Scatter::No || self.split.regions.is_empty() {
            return self.done(cx);
        }
        self.backoff = route::budget(cx.config(), budget::WAIT_SCATTER_REGION_FINISH);
        let deadline = self.options.call.deadline;
        if deadline != Time::MAX {
            self.alarm = Some(cx.sleep(deadline.saturating_since(cx.now()), SleepReason::Deadline));
        }
        self.scatter(cx)
    }

    fn scatter(&mut self, cx: &mut Context<'_>) -> Poll<Split> {
        let (regions, group) = (self.split.regions.clone(), self.options.group.clone());
        self.questions += 1;
        self.phase = Phase::Scattering(cx.pd(PdRequest::ScatterRegions { regions, group }));
        Poll::Pending
    }

    fn on_scattered(&mut self, cx: &mut Context<'_>, answer: Result<PdResponse, PdError>) -> Poll<Split> {
        match answer {
            Ok(_) if self.options.scatter == Scatter::Begin => self.done(cx),
            Ok(_) => self.look(cx, 0),
            Err(error) => match self.back_off(cx, BackoffKind::PdRpc, error) {
                Some(timer) => {
                    self.phase = Phase::BackingOff(timer);
                    Poll::Pending
                }
                None => self.done(cx),
            },
        }
    }

    /// Asks whether the next region still moves.
    fn look(&mut self, cx: &mut Context<'_>, settled: usize) -> Poll<Split> {
        let Some(&region_id) = self.split.regions.get(settled) else { return self.done(cx) };
        self.questions += 1;
        self.phase = Phase::Settling { question: cx.pd(PdRequest::IsScattering { region_id }), settled };
        Poll::Pending
    }

    fn on_looked(&mut self, cx: &mut Context<'_>, settled: usize, answer: Result<PdResponse, PdError>) -> Poll<Split> {
        let timer = match answer {
            Ok(PdResponse::IsScattering(true)) => self.pause(cx, BackoffKind::RegionMiss),
            Ok(_) => return self.look(cx, settled + 1),
            Err(error) => self.back_off(cx, BackoffKind::RegionMiss, error),
        };
        match timer {
            Some(timer) => {
                self.phase = Phase::Pausing { timer, settled };
                Poll::Pending
            }
            None => self.done(cx),
        }
    }

    /// `None`, and an error noted, if there is no point in asking again.
    fn back_off(&mut self, cx: &mut Context<'_>, kind: BackoffKind, error: PdError) -> Option<Token> {
        if !error.is_retryable() {
            self.note(Some(if error == PdError::Closed { Error::Closed } else { Error::Pd(error) }));
            return None;
        }
        self.last = CallFailure::Pd(error);
        self.pause(cx, kind)
    }

    fn pause(&mut self, cx: &mut Context<'_>, kind: BackoffKind) -> Option<Token> {
        if let Ok(sleep) = self.backoff.next(kind, cx.rng()) {
            return Some(cx.sleep(sleep, SleepReason::Backoff(kind)));
        }
        let (operation, attempts, last) = ("scatter regions", self.questions, self.last.clone());
        self.note(Some(Error::RetriesExhausted { operation, attempts, slept: self.backoff.total_sleep(), last }));
        None
    }

    fn on_alarm(&mut self, cx: &mut Context<'_>) -> Poll<Split> {
        self.alarm = None;
        match self.phase {
            Phase::Scattering(token)
            | Phase::BackingOff(token)
            | Phase::Settling { question: token, .. }
            | Phase::Pausing { timer: token, .. } => cx.cancel(token),
            Phase::Starting | Phase::Splitting(_) | Phase::Ended => {}
        }
        let (operation, attempts, last) = ("scatter regions", self.questions, self.last.clone());
        self.note(Some(Error::DeadlineExceeded { operation, attempts, last }));
        self.done(cx)
    }

    fn note(&mut self, error: Option<Error>) {
        self.split.error = self.split.error.take().or(error);
    }

    fn done(&mut self, cx: &mut Context<'_>) -> Poll<Split> {
        if let Some(alarm) = self.alarm.take() {
            cx.cancel(alarm);
        }
        self.phase = Phase::Ended;
        Poll::Ready(std::mem::take(&mut self.split))
    }
}

impl Machine for SplitRegions {
    type Output = Split;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Split> {
        let mut keys = std::mem::take(&mut self.keys);
        keys.sort();
        keys.dedup();
        let backoff = route::budget(cx.config(), budget::split_regions(keys.len()));
        let mut shares = Sharded::new(Splitter::new(self.options.call.clone()), cx.config().operation_concurrency);
        shares.add_known(cx, keys, backoff, false);
        shares.run(cx);
        self.collect(cx, shares)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Split> {
        if self.alarm == Some(token) {
            return self.on_alarm(cx);
        }
        match (std::mem::replace(&mut self.phase, Phase::Ended), event) {
            (Phase::Splitting(mut shares), event) => {
                shares.handle(cx, token, event);
                self.collect(cx, shares)
            }
            (Phase::Scattering(question), Event::Pd(answer)) if question == token => self.on_scattered(cx, answer),
            (Phase::BackingOff(timer), Event::Woken) if timer == token => self.scatter(cx),
            (Phase::Settling { question, settled }, Event::Pd(answer)) if question == token => {
                self.on_looked(cx, settled, answer)
            }
            (Phase::Pausing { timer, settled }, Event::Woken) if timer == token => self.look(cx, settled),
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
