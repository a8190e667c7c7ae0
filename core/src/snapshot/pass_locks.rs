//! What a read does about the locks in its way before it asks again.
//!
//! ```text
//!             one is alive                 woken
//!   Resolving ────────────► Waiting ─────────────► done
//!       │ none is, and TiKV was not told so yet
//!       └────────────────────────────────────────► done
//! ```
//!
//! Each round either learns of a transaction that it did not know, or sleeps: a read cannot spin.

use std::task::Poll;

use crate::backoff::{Backoff, BackoffKind};
use crate::error::{Error, LockInfo};
use crate::key::Key;
use crate::lock::{Resolution, ResolveLocks, Resolved, deadline_exceeded, sleep_for_lock};
use crate::machine::{Context, CurrentPhase, Event, Machine, Token, phases};
use crate::route::CallOptions;
use crate::time::Time;
use crate::timestamp::Timestamp;

/// Rounds without a sleep before there is one in any case.
const MAX_ROUNDS_WITHOUT_SLEEP: u32 = 16;
/// Longest sleep when nothing tells how long to wait, in milliseconds.
const MAX_BLIND_SLEEP_MS: u64 = 1_000;

/// What is to be passed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Blocked {
    /// The keys to be read again.
    pub(super) keys: Vec<Key>,
    /// The locks on them, at least one.
    pub(super) locks: Vec<LockInfo>,
    /// TiKV had been told to let the read pass, and did not: the locks must be gone.
    pub(super) in_vain: bool,
    /// How often the read was blocked before.
    pub(super) rounds: u32,
}

/// Gets a read past locks; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PassLocks {
    blocked: Blocked,
    deadline: Time,
    resolution: Resolution,
    backoff: Backoff,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Resolving(Box<ResolveLocks>),
    Waiting { timer: Token, lock: Box<LockInfo> },
    Ended,
}

phases! {
    PassLocks: Phase;
    start => Resolving | Waiting | done;
    Resolving => Waiting | done;
    Waiting => done;
}

/// The end of a [`PassLocks`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Passed {
    pub(super) result: Result<Resolution, Error>,
    pub(super) keys: Vec<Key>,
    pub(super) rounds: u32,
    pub(super) backoff: Backoff,
}

impl PassLocks {
    /// `lite`: the read is for a single key, so that no more than its locks are to be resolved.
    pub(super) fn new(
        read_ts: Timestamp,
        blocked: Blocked,
        lite: bool,
        options: CallOptions,
        backoff: Backoff,
    ) -> Self {
        let deadline = options.deadline;
        let resolve = ResolveLocks::for_read(read_ts, blocked.locks.clone(), lite, options, backoff);
        let resolve = if blocked.in_vain { resolve.wait_for_release() } else { resolve };
        PassLocks {
            blocked,
            deadline,
            resolution: Resolution::default(),
            backoff: Backoff::none(),
            phase: Phase::Resolving(Box::new(resolve)),
        }
    }

    fn on_resolved(&mut self, cx: &mut Context<'_>, resolved: Resolved) -> Poll<Passed> {
        self.backoff = resolved.backoff;
        match resolved.result {
            Ok(resolution) => self.resolution = resolution,
            Err(error) => return self.done(Err(error)),
        }
        let ms_before_expired = match self.resolution.ms_before_expired {
            0 if !self.must_sleep() => return self.done(Ok(())),
            0 => MAX_BLIND_SLEEP_MS,
            ms => ms,
        };
        let lock = self.blocking();
        let kind = BackoffKind::TxnLockFast;
        match sleep_for_lock(cx, &mut self.backoff, kind, ms_before_expired, &lock, self.deadline) {
            Ok(timer) => {
                self.phase = Phase::Waiting { timer, lock: Box::new(lock) };
                Poll::Pending
            }
            Err(error) => self.done(Err(error)),
        }
    }

    fn must_sleep(&self) -> bool {
        self.blocked.in_vain || (self.blocked.rounds + 1) % MAX_ROUNDS_WITHOUT_SLEEP == 0
    }

    /// A lock that is waited for: one that cannot be passed, if there is one.
    fn blocking(&self) -> LockInfo {
        let Resolution { ignored, accessible, .. } = &self.resolution;
        let passable = |lock: &&LockInfo| ignored.contains(&lock.start_ts) || accessible.contains(&lock.start_ts);
        let locks = &self.blocked.locks;
        locks.iter().find(|lock| !passable(lock)).or(locks.first()).cloned().unwrap_or_default()
    }

    fn done(&mut self, result: Result<(), Error>) -> Poll<Passed> {
        self.phase = Phase::Ended;
        let resolution = std::mem::take(&mut self.resolution);
        Poll::Ready(Passed {
            result: result.map(|()| resolution),
            keys: std::mem::take(&mut self.blocked.keys),
            rounds: self.blocked.rounds + 1,
            backoff: self.backoff.take(),
        })
    }
}

impl Machine for PassLocks {
    type Output = Passed;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Passed> {
        let Phase::Resolving(resolve) = &mut self.phase else { return Poll::Pending };
        match resolve.start(cx) {
            Poll::Ready(resolved) => self.on_resolved(cx, resolved),
            Poll::Pending => Poll::Pending,
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Passed> {
        match (&mut self.phase, event) {
            (Phase::Resolving(resolve), event) => match resolve.handle(cx, token, event) {
                Poll::Ready(resolved) => self.on_resolved(cx, resolved),
                Poll::Pending => Poll::Pending,
            },
            (Phase::Waiting { timer, lock }, Event::Woken) if *timer == token => {
                let in_time = cx.now() < self.deadline;
                let result = if in_time { Ok(()) } else { Err(deadline_exceeded(lock)) };
                self.done(result)
            }
            _ => Poll::Pending,
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
