//! Commits or rolls back what a finished transaction left locked.
//!
//! ```text
//!   start ──► grouping ──► one request per region ──► answered by all: done
//!                ▲                │
//!                └── the region has changed
//! ```
//!
//! Repeating a request is harmless: TiKV finds the lock gone and the record there.
//!
//! client-go: `LockResolver.resolveLock`, `resolveRegionLocks`, `batchLiteResolveLocks`, `resolvePessimisticLock`.

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use tikv_proto::kvrpcpb;

use super::{background_options, lock_options};
use crate::backoff::{Backoff, budget};
use crate::canary::Canary;
use crate::error::{Error, KeyError};
use crate::key::Key;
use crate::knowledge::regions::Region;
use crate::knowledge::txn_status::FinalStatus;
use crate::machine::{Context, Event, Machine, Observation, Token};
use crate::route::{CallEnd, CallError, CallOptions, RegionCall, Shard, ShardEnd, Sharded, Unlocated};
use crate::time::Time;
use crate::timestamp::Timestamp;

/// Keys in one request.
const MAX_KEYS: usize = 1024;

/// What becomes of the locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Release {
    /// They end as their transaction has.
    Finish(FinalStatus),
    /// They are pessimistic, and removed if they were taken at `for_update_ts` or before. Leaves no record.
    Pessimistic {
        /// Later locks of the same transaction stay.
        for_update_ts: Timestamp,
    },
}

/// Which locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Those on the keys.
    Keys,
    /// All that the transaction has in the regions of the keys: TiKV looks for them itself.
    Regions,
}

/// The end of a [`ReleaseLocks`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Released {
    /// Whether all are gone.
    pub result: Result<(), Error>,
    /// What is left of the budget.
    pub backoff: Backoff,
}

/// Releases locks of one transaction; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReleaseLocks {
    keys: Vec<Key>,
    shares: Option<Sharded<Shares>>,
    policy: Shares,
    backoff: Backoff,
}

/// One share: the keys of one region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shares {
    start_ts: Timestamp,
    release: Release,
    scope: Scope,
    is_txn_file: bool,
    options: CallOptions,
}

impl ReleaseLocks {
    /// Releases the locks of transaction `start_ts` on `keys` (or in their regions).
    #[must_use]
    pub fn new(
        start_ts: Timestamp,
        keys: Vec<Key>,
        release: Release,
        scope: Scope,
        options: CallOptions,
        backoff: Backoff,
    ) -> Self {
        let policy = Shares { start_ts, release, scope, is_txn_file: false, options };
        ReleaseLocks { keys, shares: None, policy, backoff }
    }

    /// The transaction's mutations live in files.
    #[must_use]
    pub fn of_txn_file(mut self, is_txn_file: bool) -> Self {
        self.policy.is_txn_file = is_txn_file;
        self
    }

    /// Runs without an owner, with a budget of its own.
    pub(super) fn in_background(mut self) -> ReleaseInBackground {
        self.policy.options = background_options(&self.policy.options);
        self.backoff = Backoff::new(budget::ASYNC_RESOLVE_LOCK);
        ReleaseInBackground(self)
    }

    fn collect(&mut self, cx: &mut Context<'_>) -> Poll<Released> {
        let Some(shares) = &mut self.shares else { return Poll::Pending };
        while let Some(end) = shares.next_finished(cx) {
            match end {
                Ok(Released { result: Ok(()), backoff }) => self.backoff.merge(backoff),
                Ok(Released { result: Err(error), .. }) | Err(Unlocated { error, .. }) => {
                    shares.cancel_all(cx);
                    return self.done(Err(error));
                }
            }
        }
        if shares.is_idle() { self.done(Ok(())) } else { Poll::Pending }
    }

    fn done(&mut self, result: Result<(), Error>) -> Poll<Released> {
        self.shares = None;
        Poll::Ready(Released { result, backoff: self.backoff.take() })
    }
}

impl Machine for ReleaseLocks {
    type Output = Released;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Released> {
        self.policy.options = lock_options(&self.policy.options, cx.config());
        let mut keys = std::mem::take(&mut self.keys);
        keys.sort();
        keys.dedup();
        let mut shares = Sharded::new(self.policy.clone(), cx.config().operation_concurrency);
        shares.add_known(cx, keys, self.backoff.fork(), false);
        shares.run(cx);
        self.shares = Some(shares);
        self.collect(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Released> {
        if let Some(shares) = &mut self.shares {
            shares.handle(cx, token, event);
        }
        self.collect(cx)
    }
}

/// A [`ReleaseLocks`] that nobody waits for. If it fails, whoever meets the locks next tries again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ReleaseInBackground(ReleaseLocks);

impl Machine for ReleaseInBackground {
    type Output = ();

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let poll = self.0.start(cx);
        poll.map(|end| report(cx, end))
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<()> {
        let poll = self.0.handle(cx, token, event);
        poll.map(|end| report(cx, end))
    }
}

fn report(cx: &mut Context<'_>, end: Released) {
    if let Err(error) = end.result {
        cx.observe(Observation::BackgroundFailed { task: "release locks", error });
    }
}

impl Shard for Shares {
    type Item = Key;
    type Output = Released;
    type Child = Share;

    fn child(
        &self,
        _: &mut Context<'_>,
        region: Arc<Region>,
        keys: Vec<Key>,
        backoff: Backoff,
        is_retry: bool,
    ) -> Share {
        Share { policy: self.clone(), region, keys, is_retry, backoff, call: Call::None }
    }

    fn weight(&self, _: &Key) -> usize {
        1
    }

    fn batch_limit(&self) -> usize {
        match self.scope {
            Scope::Keys => MAX_KEYS,
            Scope::Regions => usize::MAX,
        }
    }

    fn deadline(&self) -> Time {
        self.options.deadline
    }
}

/// The request to one region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Share {
    policy: Shares,
    region: Arc<Region>,
    keys: Vec<Key>,
    is_retry: bool,
    backoff: Backoff,
    call: Call,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Call {
    None,
    Resolve(Box<RegionCall<kvrpcpb::ResolveLockRequest>>),
    RollBack(Box<RegionCall<kvrpcpb::PessimisticRollbackRequest>>),
}

type ShareEnd = ShardEnd<Key, Released>;

impl Share {
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<ShareEnd> {
        let (region, options, backoff) = (Arc::clone(&self.region), self.policy.options.clone(), self.backoff.take());
        match self.policy.release {
            Release::Finish(status) => {
                let call = RegionCall::to_region(region, self.resolve(cx, status), options, backoff);
                let mut call = call.repeatable().as_retry(self.is_retry);
                match call.start(cx) {
                    Poll::Ready(end) => self.on_resolved(cx, end),
                    Poll::Pending => {
                        self.call = Call::Resolve(Box::new(call));
                        Poll::Pending
                    }
                }
            }
            Release::Pessimistic { for_update_ts } => {
                let call = RegionCall::to_region(region, self.roll_back(for_update_ts), options, backoff);
                let mut call = call.repeatable().as_retry(self.is_retry);
                match call.start(cx) {
                    Poll::Ready(end) => self.on_rolled_back(end),
                    Poll::Pending => {
                        self.call = Call::RollBack(Box::new(call));
                        Poll::Pending
                    }
                }
            }
        }
    }

    fn resolve(&self, cx: &Context<'_>, status: FinalStatus) -> kvrpcpb::ResolveLockRequest {
        let commit_ts = match status {
            FinalStatus::Committed(commit_ts) if !cx.config().has_canary(Canary::CommitStatusLost) => commit_ts,
            FinalStatus::Committed(_) | FinalStatus::RolledBack => Timestamp::ZERO,
        };
        kvrpcpb::ResolveLockRequest {
            start_version: self.policy.start_ts.version(),
            commit_version: commit_ts.version(),
            keys: self.request_keys(),
            is_txn_file: self.policy.is_txn_file,
            ..kvrpcpb::ResolveLockRequest::default()
        }
    }

    fn roll_back(&self, for_update_ts: Timestamp) -> kvrpcpb::PessimisticRollbackRequest {
        kvrpcpb::PessimisticRollbackRequest {
            start_version: self.policy.start_ts.version(),
            for_update_ts: for_update_ts.version(),
            keys: self.request_keys(),
            ..kvrpcpb::PessimisticRollbackRequest::default()
        }
    }

    /// No keys: TiKV looks for the locks in the region.
    fn request_keys(&self) -> Vec<Bytes> {
        match self.policy.scope {
            Scope::Keys => self.keys.iter().map(Key::to_bytes).collect(),
            Scope::Regions => Vec::new(),
        }
    }

    fn on_resolved(&mut self, cx: &mut Context<'_>, end: CallEnd<kvrpcpb::ResolveLockResponse>) -> Poll<ShareEnd> {
        match self.response(end) {
            Ok(response) => match response.error.map(|error| KeyError::from_proto(*error)) {
                None => self.done(Ok(())),
                Some(KeyError::TxnLockNotFound { key }) if self.forget(&key) => {
                    if self.keys.is_empty() {
                        self.done(Ok(()))
                    } else {
                        self.send(cx)
                    }
                }
                Some(error) => self.done(Err(Error::Key(error))),
            },
            Err(end) => Poll::Ready(*end),
        }
    }

    /// One of the locks is gone, and with it (as old versions are collected) perhaps every trace of it: the others are to be
    /// released all the same. Returns false for a key that was not asked for.
    fn forget(&mut self, key: &Key) -> bool {
        let before = self.keys.len();
        self.keys.retain(|other| other != key);
        self.policy.scope == Scope::Keys && self.keys.len() < before
    }

    fn on_rolled_back(&mut self, end: CallEnd<kvrpcpb::PessimisticRollbackResponse>) -> Poll<ShareEnd> {
        match self.response(end) {
            Ok(response) => match response.errors.into_iter().next() {
                None => self.done(Ok(())),
                Some(error) => self.done(Err(Error::Key(KeyError::from_proto(error)))),
            },
            Err(end) => Poll::Ready(*end),
        }
    }

    fn response<T>(&mut self, end: CallEnd<T>) -> Result<T, Box<ShareEnd>> {
        if let Err(CallError::Relocate(_)) = end.result {
            let items = std::mem::take(&mut self.keys);
            return Err(Box::new(ShardEnd::Relocate { items, backoff: end.backoff }));
        }
        self.backoff = end.backoff.clone();
        let result = end.into_result("ResolveLock");
        result.map_err(|error| Box::new(ShardEnd::Done(Released { result: Err(error), backoff: self.backoff.take() })))
    }

    fn done(&mut self, result: Result<(), Error>) -> Poll<ShareEnd> {
        Poll::Ready(ShardEnd::Done(Released { result, backoff: self.backoff.take() }))
    }
}

impl Machine for Share {
    type Output = ShareEnd;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<ShareEnd> {
        self.send(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<ShareEnd> {
        match &mut self.call {
            Call::None => Poll::Pending,
            Call::Resolve(call) => match call.handle(cx, token, event) {
                Poll::Ready(end) => self.on_resolved(cx, end),
                Poll::Pending => Poll::Pending,
            },
            Call::RollBack(call) => match call.handle(cx, token, event) {
                Poll::Ready(end) => self.on_rolled_back(end),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}
