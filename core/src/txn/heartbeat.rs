//! Keeps the primary lock of a live transaction from expiring.
//!
//! ```text
//!   start            woken                timestamp             lock extended
//! ────────► Sleeping ─────► FetchingTimestamp ─────► Beating ───────────────► Sleeping …
//!              ▲                    │ PD failed         │ TiKV did not answer
//!              └────────────────────┴───────────────────┘
//!                  lock gone, transaction too old, or too many failures in a row: done
//! ```
//!
//! One beat every half of [`Config::managed_lock_ttl`]; each asks TiKV to extend the life of the lock to the transaction's age,
//! by PD's time, plus that whole. Runs beside its owner, from the moment the primary is locked until the owner cancels it.
//! A failure of PD counts like one of TiKV: neither ends it by itself, as the lock may outlive both.
//!
//! That of a [pipelined](super::pipelined) transaction, which may go on for hours, spares readers the question whether it will
//! commit before them: each beat raises the least commit_ts to the present.
//!
//! client-go: `keepAlive`, `sendTxnHeartBeat`.

use std::task::Poll;
use std::time::Duration;

use tikv_proto::kvrpcpb::{TxnHeartBeatRequest, TxnHeartBeatResponse};

use super::pipelined::Broadcast;
use super::refusal;
use crate::backoff::budget;
use crate::config::Config;
use crate::error::{Error, KeyError};
use crate::key::Key;
use crate::machine::{Context, CurrentPhase, Event, Machine, SleepReason, Token, phases};
use crate::oracle::FetchTimestamp;
use crate::route::{self, CallEnd, CallOptions, RegionCall};
use crate::time::{Time, whole_ms};
use crate::timestamp::Timestamp;

/// Failures in a row after which it gives up.
const MAX_CONSECUTIVE_FAILURES: u32 = 10;
/// However short a lock is to live.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// Heartbeat of one transaction: keeps the lock of its primary from expiring until its owner abandons it, or it cannot go on.
///
/// A pessimistic transaction has one from its first lock to its end: see
/// [`Transaction::keep_alive`](super::Transaction::keep_alive). Ends only if the lock can no longer be kept; that is no reason
/// to give up, as the commit finds out for certain whether anything was lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Heartbeat {
    primary: Key,
    start_ts: Timestamp,
    options: CallOptions,
    /// When the first beat is due; `None` is an interval after the start.
    due: Option<Time>,
    /// Whether the transaction is pipelined.
    is_pipelined: bool,
    /// Whether the commit_ts is pushed along.
    pushes: bool,
    failures: u32,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Sleeping,
    FetchingTimestamp(FetchTimestamp),
    Beating { call: RegionCall<TxnHeartBeatRequest>, pushed_to: Timestamp },
}

phases! {
    Heartbeat: Phase;
    start => Sleeping;
    Sleeping => FetchingTimestamp;
    FetchingTimestamp => Beating | Sleeping | done;
    Beating => Sleeping | done;
}

/// Why a heartbeat stopped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeartbeatEnd {
    /// TiKV refused: as a rule, because the lock is gone.
    Refused(KeyError),
    /// The transaction has lived longer than a heartbeat may keep it alive.
    TooOld {
        /// Its age by PD's clock.
        age: Duration,
    },
    /// PD or TiKV did not answer again and again.
    Unreachable(Error),
}

impl HeartbeatEnd {
    /// Why the heartbeat of transaction `start_ts` stopped, as an error.
    #[must_use]
    pub fn into_error(self, start_ts: Timestamp) -> Error {
        match self {
            HeartbeatEnd::Refused(reason @ (KeyError::TxnNotFound { .. } | KeyError::TxnLockNotFound { .. })) => {
                Error::RolledBack { start_ts, reason }
            }
            HeartbeatEnd::Refused(refusal) => Error::Key(refusal),
            HeartbeatEnd::TooOld { age } => Error::TxnTooOld { start_ts, age },
            HeartbeatEnd::Unreachable(error) => error,
        }
    }
}

impl Heartbeat {
    /// For the transaction that began at `start_ts` and has locked `primary`.
    pub(super) fn new(start_ts: Timestamp, primary: Key, options: CallOptions) -> Self {
        Heartbeat {
            primary,
            start_ts,
            options,
            due: None,
            is_pipelined: false,
            pushes: false,
            failures: 0,
            phase: Phase::Sleeping,
        }
    }

    /// The same, with the first beat at `due`.
    pub(super) fn due(mut self, due: Time) -> Self {
        self.due = Some(due);
        self
    }

    /// The same for a pipelined transaction, which may become older. If it `pushes`, it also promises readers, with each beat,
    /// that the transaction will not commit before then, and tells all stores so; not any more once the commit_ts is being
    /// fetched.
    pub(super) fn of_pipelined(mut self, pushes: bool) -> Self {
        (self.is_pipelined, self.pushes) = (true, pushes);
        self
    }

    /// Whether a beat is under way.
    pub(super) fn is_beating(&self) -> bool {
        !matches!(self.phase, Phase::Sleeping)
    }

    /// The primary whose lock it extends.
    #[must_use]
    pub fn primary(&self) -> &Key {
        &self.primary
    }

    /// From one beat to the next.
    pub(super) fn interval(config: &Config) -> Duration {
        (config.managed_lock_ttl / 2).max(SHORTEST_INTERVAL)
    }

    fn sleep(&mut self, cx: &mut Context<'_>) -> Poll<HeartbeatEnd> {
        let due = self.due.take().map(|due| due.saturating_since(cx.now()));
        cx.sleep(due.unwrap_or(Heartbeat::interval(cx.config())), SleepReason::Heartbeat);
        self.phase = Phase::Sleeping;
        Poll::Pending
    }

    fn fetch_timestamp(
        &mut self,
        cx: &mut Context<'_>,
        mut fetch: FetchTimestamp,
        step: impl FnOnce(&mut FetchTimestamp, &mut Context<'_>) -> Poll<Result<Timestamp, Error>>,
    ) -> Poll<HeartbeatEnd> {
        match step(&mut fetch, cx) {
            Poll::Ready(Ok(now)) => self.beat(cx, now),
            Poll::Ready(Err(error)) => self.on_failure(cx, error),
            Poll::Pending => {
                self.phase = Phase::FetchingTimestamp(fetch);
                Poll::Pending
            }
        }
    }

    fn beat(&mut self, cx: &mut Context<'_>, now: Timestamp) -> Poll<HeartbeatEnd> {
        let age = now.physical_since(self.start_ts);
        let config = cx.config();
        let max_age = if self.is_pipelined { config.max_pipelined_heartbeat_age } else { config.max_heartbeat_age };
        if age > max_age {
            return Poll::Ready(HeartbeatEnd::TooOld { age });
        }
        let pushed_to = if self.pushes { now } else { Timestamp::ZERO };
        let request = TxnHeartBeatRequest {
            primary_lock: self.primary.to_bytes(),
            start_version: self.start_ts.version(),
            advise_lock_ttl: advised_ttl_ms(config, age),
            min_commit_ts: pushed_to.version(),
            ..TxnHeartBeatRequest::default()
        };
        let backoff = route::budget(config, budget::KEEP_ALIVE);
        let call = RegionCall::to_key(request, self.options.clone(), backoff).repeatable();
        self.call(cx, call, pushed_to, RegionCall::start)
    }

    fn call(
        &mut self,
        cx: &mut Context<'_>,
        mut call: RegionCall<TxnHeartBeatRequest>,
        pushed_to: Timestamp,
        step: impl FnOnce(&mut RegionCall<TxnHeartBeatRequest>, &mut Context<'_>) -> Poll<CallEnd<TxnHeartBeatResponse>>,
    ) -> Poll<HeartbeatEnd> {
        let Poll::Ready(end) = step(&mut call, cx) else {
            self.phase = Phase::Beating { call, pushed_to };
            return Poll::Pending;
        };
        match end.into_result("TxnHeartBeat").map(|response| refusal::key_error(response.error)) {
            Ok(Some(refusal)) => Poll::Ready(HeartbeatEnd::Refused(refusal)),
            Ok(None) => {
                self.failures = 0;
                if self.pushes {
                    // Only now: no store may know more than the lock of the primary tells.
                    cx.spawn(Broadcast::alive(self.start_ts, pushed_to, self.options.clone()));
                }
                self.sleep(cx)
            }
            Err(error) => self.on_failure(cx, error),
        }
    }

    fn on_failure(&mut self, cx: &mut Context<'_>, error: Error) -> Poll<HeartbeatEnd> {
        self.failures += 1;
        if self.failures > MAX_CONSECUTIVE_FAILURES || error == Error::Closed {
            return Poll::Ready(HeartbeatEnd::Unreachable(error));
        }
        self.sleep(cx)
    }
}

impl Machine for Heartbeat {
    type Output = HeartbeatEnd;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<HeartbeatEnd> {
        self.sleep(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<HeartbeatEnd> {
        match (std::mem::replace(&mut self.phase, Phase::Sleeping), event) {
            (Phase::Sleeping, Event::Woken) => {
                let fetch = FetchTimestamp::new(cx.config());
                self.fetch_timestamp(cx, fetch, FetchTimestamp::start)
            }
            (Phase::FetchingTimestamp(fetch), event) => {
                self.fetch_timestamp(cx, fetch, |fetch, cx| fetch.handle(cx, token, event))
            }
            (Phase::Beating { call, pushed_to }, event) => {
                self.call(cx, call, pushed_to, |call, cx| call.handle(cx, token, event))
            }
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

fn advised_ttl_ms(config: &Config, age: Duration) -> u64 {
    whole_ms(age.saturating_add(config.managed_lock_ttl))
}
