//! Commits the secondaries of a committed transaction, in the background; after an async commit, its primary as well.
//!
//! ```text
//!   start ──► batches by region, side by side ──► all ended: done
//! ```
//!
//! Nothing depends on it: whoever meets a lock that was left finds its primary committed, or all keys of an async commit
//! locked, and commits it as well. Therefore
//! nothing is repeated beyond the budget, no deadline of the caller counts, and failures are only observed. One of them
//! should never happen and is worth an alarm: that a lock is gone although its primary has committed.
//!
//! client-go: the goroutine in `doActionOnGroupMutations`.

use std::task::Poll;

use tikv_proto::kvrpcpb::CommitRequest;

use super::keys_call::KeysShard;
use crate::backoff::budget;
use crate::key::Key;
use crate::machine::{Context, Event, Machine, Observation, Token};
use crate::route::{self, CallOptions, Sharded, Unlocated};
use crate::timestamp::Timestamp;

/// Commits the secondaries of a committed transaction; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CommitSecondaries {
    batches: Sharded<KeysShard<CommitRequest>>,
}

impl CommitSecondaries {
    /// `None` if there are no secondaries: a request without keys would be refused.
    pub(super) fn new(
        cx: &mut Context<'_>,
        start_ts: Timestamp,
        commit_ts: Timestamp,
        primary: &Key,
        secondaries: Vec<Key>,
        options: CallOptions,
    ) -> Option<Self> {
        if secondaries.is_empty() {
            return None;
        }
        let request = CommitRequest {
            start_version: start_ts.version(),
            commit_version: commit_ts.version(),
            primary_key: primary.to_bytes(),
            use_async_commit: secondaries.contains(primary),
            ..CommitRequest::default()
        };
        let shard = KeysShard::new(cx.config(), request, options);
        let mut batches = Sharded::new(shard, cx.config().operation_concurrency);
        let backoff = route::budget(cx.config(), budget::COMMIT_SECONDARY);
        batches.add_known(cx, secondaries, backoff, false);
        Some(CommitSecondaries { batches })
    }

    fn collect(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(end) = self.batches.next_finished(cx) {
            if let Err(Unlocated { error, .. }) | Ok(Err(error)) = end {
                cx.observe(Observation::BackgroundFailed { task: "commit secondaries", error });
            }
        }
        if self.batches.is_idle() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Machine for CommitSecondaries {
    type Output = ();

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.batches.run(cx);
        self.collect(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<()> {
        self.batches.handle(cx, token, event);
        self.collect(cx)
    }
}
