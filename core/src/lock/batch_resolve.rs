//! Ends many transactions at once, and releases their locks: what garbage collection does.
//!
//! ```text
//!   start ──► Deciding ──► Releasing ──► done
//!                │ one ResolveTxn per transaction, side by side; pessimistic locks are gone when it ends
//!                └──► only pessimistic locks, or one failed: done
//! ```
//!
//! TiKV is asked to end each transaction whether its time is up or not; one that commits asynchronously is decided by its
//! secondaries, as ever. Then each region is told in one request how the transactions ended that have locks there.
//!
//! client-go: `LockResolver.BatchResolveLocks`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;

use tikv_proto::kvrpcpb;

use super::lock_options;
use super::resolve_locks::by_transaction;
use super::resolve_txn::{Caller, Outcome, ResolveTxn, TxnEnd};
use crate::backoff::Backoff;
use crate::error::{Error, KeyError, LockInfo};
use crate::key::Key;
use crate::knowledge::regions::Region;
use crate::knowledge::txn_status::FinalStatus;
use crate::machine::{Context, CurrentPhase, Event, FanOut, Machine, Token, phases};
use crate::route::{CallOptions, Keyed, RegionCall, Shard, ShardCall, ShardReply, Sharded};
use crate::time::Time;
use crate::timestamp::Timestamp;

/// The end of a [`BatchResolve`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchResolved {
    /// Whether all locks are gone. After an error some may be.
    pub result: Result<(), Error>,
    /// What is left of the budget.
    pub backoff: Backoff,
}

/// Gets rid of locks, of transactions that are alive too; see the [module documentation](self).
///
/// A transaction that has prewritten and is alive has not committed then and never will; its owner hears so when it tries. Only
/// for locks from before a time at which no transaction may have begun that still matters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchResolve {
    locks: Vec<LockInfo>,
    /// How the transactions ended.
    ends: BTreeMap<Timestamp, FinalStatus>,
    options: CallOptions,
    backoff: Backoff,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Deciding(FanOut<ResolveTxn>),
    Releasing(Sharded<Shares>),
}

phases! {
    BatchResolve: Phase;
    start => Deciding | Releasing | done;
    Deciding => Releasing | done;
    Releasing => done;
}

impl BatchResolve {
    /// Of `locks`, one page of those of a region, or of several.
    #[must_use]
    pub fn new(locks: Vec<LockInfo>, options: CallOptions, backoff: Backoff) -> Self {
        BatchResolve { locks, ends: BTreeMap::new(), options, backoff, phase: Phase::Idle }
    }

    fn decide(&mut self, cx: &mut Context<'_>) -> Poll<BatchResolved> {
        let transactions = match by_transaction(self.locks.clone()) {
            Ok(transactions) => transactions,
            Err(error) => return self.done(Err(error)),
        };
        let mut deciding = FanOut::new(cx.config().operation_concurrency);
        for locks in transactions {
            deciding.add(ResolveTxn::new(Caller::Collector, locks, self.options.clone(), self.backoff.fork()));
        }
        // Pessimistic locks are released on the way.
        self.locks.retain(|lock| !lock.is_pessimistic());
        deciding.run(cx);
        self.on_decided(cx, deciding)
    }

    fn on_decided(&mut self, cx: &mut Context<'_>, mut deciding: FanOut<ResolveTxn>) -> Poll<BatchResolved> {
        while let Some((_, TxnEnd { start_ts, result, backoff })) = deciding.next_finished(cx) {
            self.backoff.merge(backoff);
            if let Err(error) = result.and_then(|outcome| self.add(start_ts, outcome)) {
                deciding.cancel_all(cx);
                return self.done(Err(error));
            }
        }
        if deciding.is_idle() {
            return self.release(cx);
        }
        self.phase = Phase::Deciding(deciding);
        Poll::Pending
    }

    fn add(&mut self, start_ts: Timestamp, outcome: Outcome) -> Result<(), Error> {
        match outcome {
            Outcome::Final(end) => match self.ends.insert(start_ts, end) {
                Some(other) if other != end => {
                    let detail = format!("it has ended in two ways: {other:?} and {end:?}").into();
                    Err(Error::Contradiction { start_ts, detail })
                }
                _ => Ok(()),
            },
            // Pessimistic locks are gone; and nobody is told here that a transaction goes on.
            Outcome::Released | Outcome::Alive { .. } | Outcome::CommitsLater => Ok(()),
        }
    }

    fn release(&mut self, cx: &mut Context<'_>) -> Poll<BatchResolved> {
        let mut locks = Vec::new();
        for lock in std::mem::take(&mut self.locks) {
            // All have ended: otherwise it would not have come to this.
            let Some(end) = self.ends.get(&lock.start_ts) else { continue };
            let commit_ts = match end {
                FinalStatus::Committed(commit_ts) => *commit_ts,
                FinalStatus::RolledBack => Timestamp::ZERO,
            };
            let (start_ts, is_txn_file) = (lock.start_ts, lock.is_txn_file);
            locks.push(Ended { key: lock.key, start_ts, commit_ts, is_txn_file });
        }
        // Of shared locks, a key has several.
        locks.sort_by(|a, b| a.key.cmp(&b.key));
        let options = lock_options(&self.options, cx.config());
        let mut shares = Sharded::new(Shares { options }, cx.config().operation_concurrency);
        shares.add_known(cx, locks, self.backoff.fork(), false);
        shares.run(cx);
        self.on_released(cx, shares)
    }

    fn on_released(&mut self, cx: &mut Context<'_>, mut shares: Sharded<Shares>) -> Poll<BatchResolved> {
        while let Some(end) = shares.next_finished(cx) {
            let result = end.map_err(Error::from).and_then(|reply| reply.result);
            let refusal = match result {
                Ok(response) => response.error.map(|error| Error::Key(KeyError::from_proto(*error))),
                Err(error) => Some(error),
            };
            if let Some(error) = refusal {
                shares.cancel_all(cx);
                return self.done(Err(error));
            }
        }
        if shares.is_idle() {
            return self.done(Ok(()));
        }
        self.phase = Phase::Releasing(shares);
        Poll::Pending
    }

    fn done(&mut self, result: Result<(), Error>) -> Poll<BatchResolved> {
        self.phase = Phase::Idle;
        Poll::Ready(BatchResolved { result, backoff: self.backoff.take() })
    }
}

impl Machine for BatchResolve {
    type Output = BatchResolved;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<BatchResolved> {
        self.decide(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<BatchResolved> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Deciding(mut deciding) => {
                deciding.handle(cx, token, event);
                self.on_decided(cx, deciding)
            }
            Phase::Releasing(mut shares) => {
                shares.handle(cx, token, event);
                self.on_released(cx, shares)
            }
            Phase::Idle => Poll::Pending,
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}

/// A lock of a transaction that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ended {
    key: Key,
    start_ts: Timestamp,
    /// Zero if it was rolled back.
    commit_ts: Timestamp,
    is_txn_file: bool,
}

impl Keyed for Ended {
    fn key(&self) -> &Key {
        &self.key
    }
}

/// One share: the locks of one region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shares {
    options: CallOptions,
}

impl Shard for Shares {
    type Item = Ended;
    type Output = ShardReply<Ended, kvrpcpb::ResolveLockResponse>;
    type Child = ShardCall<kvrpcpb::ResolveLockRequest, Ended>;

    fn child(
        &self,
        _: &mut Context<'_>,
        region: Arc<Region>,
        locks: Vec<Ended>,
        backoff: Backoff,
        is_retry: bool,
    ) -> Self::Child {
        let info = |lock: &Ended| kvrpcpb::TxnInfo {
            txn: lock.start_ts.version(),
            status: lock.commit_ts.version(),
            is_txn_file: lock.is_txn_file,
        };
        let txn_infos: BTreeMap<Timestamp, kvrpcpb::TxnInfo> =
            locks.iter().map(|lock| (lock.start_ts, info(lock))).collect();
        let txn_infos = txn_infos.into_values().collect();
        let request = kvrpcpb::ResolveLockRequest { txn_infos, ..Default::default() };
        let call = RegionCall::to_region(region, request, self.options.clone(), backoff);
        ShardCall::new(locks, call.repeatable().as_retry(is_retry))
    }

    fn weight(&self, _: &Ended) -> usize {
        1
    }

    fn batch_limit(&self) -> usize {
        usize::MAX
    }

    fn deadline(&self) -> Time {
        self.options.deadline
    }
}
