//! Releases pessimistic locks of a transaction that goes on, or has ended without a commit, in the background.
//!
//! ```text
//!   start ──► RollingBack ──────────────────────────────► done
//!                  ▲     │ requests that lock were given up
//!                  │     ▼
//!                  └── Pausing
//! ```
//!
//! A pessimistic lock goes without a trace, so that the transaction can lock the key again. What keeps a release that is late
//! from taking away such a newer lock is its timestamp: only locks that were taken at [`PessimisticRollback`]'s
//! `for_update_ts` or before go.
//!
//! For the same reason a request to lock that was given up, but arrives or wakes up behind the release, locks all the same.
//! If there can be one, the release is repeated once, after TiKV has stopped to let it wait. What then is left is released
//! when the transaction ends, or expires with it.
//!
//! client-go: `KVTxn.asyncPessimisticRollback`, `actionPessimisticRollback`.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tikv_proto::kvrpcpb::{PessimisticRollbackRequest, PessimisticRollbackResponse};

use super::keys_call::{KeysRequest, KeysShard};
use crate::backoff::budget;
use crate::canary::Canary;
use crate::config::Config;
use crate::error::KeyError;
use crate::key::Key;
use crate::machine::{Abandoned, Context, CurrentPhase, Event, Machine, Observation, SleepReason, Token, phases};
use crate::route::{self, CallOptions, Sharded, Unlocated};
use crate::time::Time;
use crate::timestamp::Timestamp;

/// After this time no request that was given up waits in TiKV any more: it lets them wait for 1 s.
const LATE_LOCKS_AFTER: Duration = Duration::from_millis(1_500);

/// Releases pessimistic locks; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PessimisticRollback {
    start_ts: Timestamp,
    keys: Vec<Key>,
    for_update_ts: Timestamp,
    options: CallOptions,
    /// Whether requests that lock may still be on their way.
    again: bool,
    has_failed: bool,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Starting,
    RollingBack(Sharded<KeysShard<PessimisticRollbackRequest>>),
    Pausing,
    Ended,
}

phases! {
    PessimisticRollback: Phase;
    start => RollingBack;
    RollingBack => Pausing | done;
    Pausing => RollingBack | done;
}

impl PessimisticRollback {
    /// Releases what transaction `start_ts` locked at `for_update_ts` or before.
    pub(super) fn new(start_ts: Timestamp, keys: Vec<Key>, for_update_ts: Timestamp, options: CallOptions) -> Self {
        PessimisticRollback {
            start_ts,
            keys,
            for_update_ts,
            options,
            again: false,
            has_failed: false,
            phase: Phase::Starting,
        }
    }

    /// Repeats the release a little later.
    pub(super) fn again(mut self, again: bool) -> Self {
        self.again = again;
        self
    }

    /// Ends at `deadline` for one who waits; see [`has_failed`](Self::has_failed).
    pub(super) fn until(mut self, deadline: Time) -> Self {
        self.options.deadline = self.options.deadline.min(deadline);
        self
    }

    /// Whether some locks may be left.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// The transaction whose locks are released.
    #[must_use]
    pub fn start_ts(&self) -> Timestamp {
        self.start_ts
    }

    /// The keys whose locks are released.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn roll_back(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let config = cx.config();
        let request = PessimisticRollbackRequest {
            start_version: self.start_ts.version(),
            for_update_ts: self.request_ts(config).version(),
            ..PessimisticRollbackRequest::default()
        };
        let shard = KeysShard::new(config, request, self.options.clone());
        let mut batches = Sharded::new(shard, config.operation_concurrency);
        batches.add_known(cx, self.keys.clone(), route::budget(config, budget::PESSIMISTIC_ROLLBACK), false);
        batches.run(cx);
        self.collect(cx, batches)
    }

    fn request_ts(&self, config: &Config) -> Timestamp {
        match config.has_canary(Canary::LaterLocksReleased) {
            true => Timestamp::MAX,
            false => self.for_update_ts,
        }
    }

    fn collect(
        &mut self,
        cx: &mut Context<'_>,
        mut batches: Sharded<KeysShard<PessimisticRollbackRequest>>,
    ) -> Poll<()> {
        while let Some(end) = batches.next_finished(cx) {
            if let Err(Unlocated { error, .. }) | Ok(Err(error)) = end {
                self.has_failed = true;
                cx.observe(Observation::BackgroundFailed { task: "release pessimistic locks", error });
            }
        }
        if !batches.is_idle() {
            self.phase = Phase::RollingBack(batches);
            return Poll::Pending;
        }
        if std::mem::take(&mut self.again) {
            cx.sleep(LATE_LOCKS_AFTER, SleepReason::LateLocks);
            self.phase = Phase::Pausing;
            return Poll::Pending;
        }
        self.phase = Phase::Ended;
        Poll::Ready(())
    }
}

impl Machine for PessimisticRollback {
    type Output = ();

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.phase {
            Phase::Starting => self.roll_back(cx),
            _ => Poll::Pending,
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<()> {
        match (std::mem::replace(&mut self.phase, Phase::Ended), event) {
            (Phase::RollingBack(mut batches), event) => {
                batches.handle(cx, token, event);
                self.collect(cx, batches)
            }
            (Phase::Pausing, Event::Woken) => self.roll_back(cx),
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

impl KeysRequest for PessimisticRollbackRequest {
    fn with_keys(&self, keys: Vec<Bytes>) -> Self {
        PessimisticRollbackRequest { keys, ..self.clone() }
    }

    fn keys(&self) -> &[Bytes] {
        &self.keys
    }

    fn refusal(response: PessimisticRollbackResponse) -> Option<KeyError> {
        response.errors.into_iter().next().map(KeyError::from_proto)
    }
}
