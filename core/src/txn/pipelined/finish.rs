//! Finishes a pipelined transaction whose fate is decided, in the background.
//!
//! ```text
//!   start ──► RollingBackPrimary ──► Resolving ──► Pausing ──► Telling ──► done
//!     │ committed                       ▲ │ some locks are left
//!     └─────────────────────────────────┘ └───────────────────────────────► done
//! ```
//!
//! The primary comes first. When it has committed that is done already; when the transaction is given up, the rollback of its
//! primary leaves a record there, so that whoever meets a lock, be it one that comes late, can resolve it at once, and the
//! transaction can never commit. Then all that it has locked is resolved by range.
//!
//! The stores are told at the beginning, and once more when no lock is left: then they may forget the transaction. Before that
//! there is a pause, for replicas that lag.
//!
//! client-go: `resolveFlushedLocks`, `twoPhaseCommitter.cleanup`.

use std::task::Poll;
use std::time::Duration;

use super::Broadcast;
use super::resolve_flushed::ResolveFlushed;
use crate::key::Key;
use crate::knowledge::txn_status::FinalStatus;
use crate::machine::{Abandoned, Context, CurrentPhase, Event, Machine, SleepReason, Token, phases};
use crate::route::CallOptions;
use crate::timestamp::Timestamp;
use crate::txn::cleanup::Cleanup;

/// How long after the last lock stores are told that none is left. client-go: `broadcastGracePeriod`.
const GRACE: Duration = Duration::from_secs(5);

/// What a pipelined transaction has on TiKV.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlushedLocks {
    pub(super) start_ts: Timestamp,
    pub(super) primary: Key,
    /// The first and the last key that is locked, or may be.
    pub(super) range: (Key, Key),
    /// Regions that are asked at once.
    pub(super) concurrency: usize,
}

/// Finishes a pipelined transaction; see the [module documentation](self). To be run in the background.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FinishFlushed {
    locks: FlushedLocks,
    status: FinalStatus,
    options: CallOptions,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Starting,
    RollingBackPrimary(Cleanup),
    Resolving(ResolveFlushed),
    Pausing,
    Telling(Broadcast),
    Ended,
}

phases! {
    FinishFlushed: Phase;
    start => RollingBackPrimary | Resolving;
    RollingBackPrimary => Resolving;
    Resolving => Pausing | done;
    Pausing => Telling | done;
    Telling => done;
}

impl FinishFlushed {
    /// Finishes the transaction that has these locks, as `status` says.
    pub(super) fn new(locks: FlushedLocks, status: FinalStatus, options: CallOptions) -> Self {
        FinishFlushed { locks, status, options, phase: Phase::Starting }
    }

    fn commit_ts(&self) -> Option<Timestamp> {
        match self.status {
            FinalStatus::Committed(commit_ts) => Some(commit_ts),
            FinalStatus::RolledBack => None,
        }
    }

    fn roll_back_primary(
        &mut self,
        cx: &mut Context<'_>,
        mut cleanup: Cleanup,
        step: impl FnOnce(&mut Cleanup, &mut Context<'_>) -> Poll<()>,
    ) -> Poll<()> {
        if step(&mut cleanup, cx).is_ready() {
            return self.resolve_all(cx);
        }
        self.phase = Phase::RollingBackPrimary(cleanup);
        Poll::Pending
    }

    fn resolve_all(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let FlushedLocks { start_ts, range, concurrency, .. } = self.locks.clone();
        let resolve = ResolveFlushed::new(start_ts, self.status, range, concurrency, self.options.clone());
        self.resolve(cx, resolve, ResolveFlushed::start)
    }

    fn resolve(
        &mut self,
        cx: &mut Context<'_>,
        mut resolve: ResolveFlushed,
        step: impl FnOnce(&mut ResolveFlushed, &mut Context<'_>) -> Poll<bool>,
    ) -> Poll<()> {
        match step(&mut resolve, cx) {
            Poll::Pending => {
                self.phase = Phase::Resolving(resolve);
                Poll::Pending
            }
            Poll::Ready(true) => {
                cx.sleep(GRACE, SleepReason::SlowReplicas);
                self.phase = Phase::Pausing;
                Poll::Pending
            }
            // The stores must not forget a transaction that has locks.
            Poll::Ready(false) => Poll::Ready(()),
        }
    }

    fn tell(
        &mut self,
        cx: &mut Context<'_>,
        mut broadcast: Broadcast,
        step: impl FnOnce(&mut Broadcast, &mut Context<'_>) -> Poll<()>,
    ) -> Poll<()> {
        let poll = step(&mut broadcast, cx);
        if poll.is_pending() {
            self.phase = Phase::Telling(broadcast);
        }
        poll
    }

    fn broadcast(&self, is_completed: bool) -> Broadcast {
        Broadcast::ended(self.locks.start_ts, self.commit_ts(), is_completed, self.options.clone())
    }
}

impl Machine for FinishFlushed {
    type Output = ();

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        cx.spawn(self.broadcast(false));
        if self.status != FinalStatus::RolledBack {
            return self.resolve_all(cx);
        }
        let FlushedLocks { start_ts, primary, .. } = self.locks.clone();
        match Cleanup::new(cx, start_ts, primary.clone(), vec![primary], self.options.clone()) {
            Some(cleanup) => self.roll_back_primary(cx, cleanup, Cleanup::start),
            None => self.resolve_all(cx),
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<()> {
        match (std::mem::replace(&mut self.phase, Phase::Ended), event) {
            (Phase::RollingBackPrimary(cleanup), event) => {
                self.roll_back_primary(cx, cleanup, |cleanup, cx| cleanup.handle(cx, token, event))
            }
            (Phase::Resolving(resolve), event) => {
                self.resolve(cx, resolve, |resolve, cx| resolve.handle(cx, token, event))
            }
            (Phase::Pausing, Event::Woken) => {
                let broadcast = self.broadcast(true);
                self.tell(cx, broadcast, Broadcast::start)
            }
            (Phase::Telling(broadcast), event) => {
                self.tell(cx, broadcast, |broadcast, cx| broadcast.handle(cx, token, event))
            }
            (phase, _) => {
                self.phase = phase;
                Poll::Pending
            }
        }
    }

    /// Locks that nobody needs do not become useful when nobody is interested in their release.
    fn abandon(&mut self, _: &mut Context<'_>) -> Abandoned {
        Abandoned::FinishInBackground
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
