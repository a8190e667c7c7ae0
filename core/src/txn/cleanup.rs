//! Rolls back what a transaction that failed has (or may have) locked, in the background.
//!
//! ```text
//!             grouped                       ended                        all ended
//!   start ──► Grouping ──► RollingBackPrimary ──► RollingBackSecondaries ──► done
//! ```
//!
//! The batch of the primary comes first and alone, because the primary's state decides: from then on whoever meets another
//! of the locks can resolve it at once. The others follow whatever became of it, as a transaction that is cleaned up never
//! commits. A request that was cancelled or lost may be executed later; a rollback leaves a record that makes TiKV refuse
//! it, and at worst its lock expires.
//!
//! What is left when the budget is spent is observed, and resolved by whoever meets it. client-go:
//! `twoPhaseCommitter.cleanup`.

use std::task::Poll;

use tikv_proto::kvrpcpb::BatchRollbackRequest;

use super::batches::primary_first;
use super::keys_call::KeysShard;
use crate::backoff::{Backoff, budget};
use crate::error::Error;
use crate::key::Key;
use crate::machine::{Context, CurrentPhase, Event, Machine, Observation, Token, phases};
use crate::route::{self, CallOptions, Group, Grouped, Grouping, Sharded, Unlocated};
use crate::timestamp::Timestamp;

/// Rolls back a transaction that failed; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cleanup {
    primary: Key,
    batches: Sharded<KeysShard<BatchRollbackRequest>>,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Grouping(Grouping<Key>),
    RollingBackPrimary { secondaries: Vec<Group<Key>>, backoff: Backoff },
    RollingBackSecondaries,
}

phases! {
    Cleanup: Phase;
    start => Grouping | RollingBackPrimary;
    Grouping => RollingBackPrimary | done;
    RollingBackPrimary => RollingBackSecondaries | done;
    RollingBackSecondaries => done;
}

impl Cleanup {
    /// `None` if there is nothing to roll back: a request without keys would be refused.
    pub(super) fn new(
        cx: &Context<'_>,
        start_ts: Timestamp,
        primary: Key,
        keys: Vec<Key>,
        options: CallOptions,
    ) -> Option<Self> {
        if keys.is_empty() {
            return None;
        }
        let config = cx.config();
        let request = BatchRollbackRequest { start_version: start_ts.version(), ..BatchRollbackRequest::default() };
        let batches = Sharded::new(KeysShard::new(config, request, options), config.operation_concurrency);
        let grouping = Grouping::new(keys, route::budget(config, budget::CLEANUP));
        let phase = Phase::Grouping(grouping);
        Some(Cleanup { primary, batches, phase })
    }

    fn on_grouped(&mut self, cx: &mut Context<'_>, grouped: Grouped<Key>) -> Poll<()> {
        let groups = match grouped.result {
            Ok(groups) => groups,
            Err(Unlocated { error, .. }) => {
                observe(cx, error);
                return Poll::Ready(());
            }
        };
        let mut secondaries = primary_first(groups, &self.primary, self.batches.shard());
        for first in secondaries.drain(..secondaries.len().min(1)) {
            self.batches.add_group(cx, first, &grouped.backoff, false);
        }
        self.phase = Phase::RollingBackPrimary { secondaries, backoff: grouped.backoff };
        self.collect(cx)
    }

    fn collect(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            while let Some(end) = self.batches.next_finished(cx) {
                if let Err(Unlocated { error, .. }) | Ok(Err(error)) = end {
                    observe(cx, error);
                }
            }
            if !self.batches.is_idle() {
                return Poll::Pending;
            }
            match std::mem::replace(&mut self.phase, Phase::RollingBackSecondaries) {
                Phase::RollingBackPrimary { secondaries, backoff } => {
                    for group in secondaries {
                        self.batches.add_group(cx, group, &backoff, false);
                    }
                }
                Phase::Grouping(_) | Phase::RollingBackSecondaries => return Poll::Ready(()),
            }
        }
    }
}

impl Machine for Cleanup {
    type Output = ();

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Phase::Grouping(grouping) = &mut self.phase else { return Poll::Pending };
        match grouping.start(cx) {
            Poll::Ready(grouped) => self.on_grouped(cx, grouped),
            Poll::Pending => Poll::Pending,
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<()> {
        if let Phase::Grouping(grouping) = &mut self.phase {
            return match grouping.handle(cx, token, event) {
                Poll::Ready(grouped) => self.on_grouped(cx, grouped),
                Poll::Pending => Poll::Pending,
            };
        }
        self.batches.handle(cx, token, event);
        self.collect(cx)
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}

fn observe(cx: &mut Context<'_>, error: Error) {
    cx.observe(Observation::BackgroundFailed { task: "roll back", error });
}
