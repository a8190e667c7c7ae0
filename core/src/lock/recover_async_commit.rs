//! Decides a transaction that commits asynchronously and whose client is gone.
//!
//! ```text
//!   start ──► grouping ──► CheckSecondaryLocks per region ──► answered by all ──► done
//!                ▲                │
//!                └── the region has changed
//! ```
//!
//! Such a transaction is committed as soon as all its keys are locked, whoever finds that out. The lock at the primary lists
//! the other keys, and TiKV, asked for their locks, makes sure that a lock which is missing never comes.
//!
//! | TiKV's answers | the transaction |
//! |---|---|
//! | a key is committed | committed at that timestamp |
//! | a lock does not belong to an async commit | fell back to committing its primary first: ask there |
//! | a lock is missing, and no commit either | rolled back |
//! | all locks are there | committed at the largest `min_commit_ts` of all |
//!
//! client-go: `LockResolver.checkAllSecondaries`, `asyncResolveData.addKeys`.

use std::sync::Arc;
use std::task::Poll;

use tikv_proto::kvrpcpb;

use super::lock_options;
use crate::backoff::Backoff;
use crate::error::{Error, KeyError, LockInfo};
use crate::key::Key;
use crate::knowledge::regions::Region;
use crate::knowledge::txn_status::FinalStatus;
use crate::machine::{Context, Event, Machine, Token};
use crate::route::{CallEnd, CallError, CallOptions, RegionCall, Shard, ShardEnd, Sharded};
use crate::time::Time;
use crate::timestamp::Timestamp;

/// Keys in one request.
const MAX_KEYS: usize = 1024;

/// What the secondaries told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Recovery {
    /// How the transaction ended.
    Final(FinalStatus),
    /// The transaction fell back: its primary decides, as without async commit.
    FellBack,
}

/// The end of a [`RecoverAsyncCommit`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recovered {
    /// The decision, or why there is none.
    pub result: Result<Recovery, Error>,
    /// What is left of the budget.
    pub backoff: Backoff,
}

/// Decides an async commit by its secondaries; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecoverAsyncCommit {
    secondaries: Vec<Key>,
    policy: Shares,
    shares: Option<Sharded<Shares>>,
    answers: Answers,
    backoff: Backoff,
}

/// What the answers so far add up to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Answers {
    /// Largest of all locks seen, the primary's included.
    min_commit_ts: Timestamp,
    /// Where a lock was missing: the commit timestamp, zero for none.
    missing: Option<Timestamp>,
    fell_back: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shares {
    start_ts: Timestamp,
    options: CallOptions,
}

impl RecoverAsyncCommit {
    /// Of the lock at the primary, as `CheckTxnStatus` showed it.
    #[must_use]
    pub fn new(primary: &LockInfo, options: CallOptions, backoff: Backoff) -> Self {
        RecoverAsyncCommit {
            secondaries: primary.secondaries.clone(),
            policy: Shares { start_ts: primary.start_ts, options },
            shares: None,
            answers: Answers { min_commit_ts: primary.min_commit_ts, missing: None, fell_back: false },
            backoff,
        }
    }

    fn collect(&mut self, cx: &mut Context<'_>) -> Poll<Recovered> {
        let Some(shares) = &mut self.shares else { return Poll::Pending };
        while let Some(end) = shares.next_finished(cx) {
            let added = end.map_err(Error::from).and_then(|share| {
                self.backoff.merge(share.backoff);
                self.answers.add(self.policy.start_ts, &share.result?)
            });
            if let Err(error) = added {
                shares.cancel_all(cx);
                return self.done(Err(error));
            }
        }
        if !shares.is_idle() {
            return Poll::Pending;
        }
        let decision = self.answers.decide(self.policy.start_ts);
        self.done(decision)
    }

    fn done(&mut self, result: Result<Recovery, Error>) -> Poll<Recovered> {
        self.shares = None;
        Poll::Ready(Recovered { result, backoff: self.backoff.take() })
    }
}

impl Answers {
    fn add(&mut self, start_ts: Timestamp, answer: &ShareAnswer) -> Result<(), Error> {
        if let Some(stranger) = answer.locks.iter().find(|lock| lock.lock_version != start_ts.version()) {
            return contradiction(start_ts, &format!("a lock of {} was shown for it", stranger.lock_version));
        }
        if answer.locks.len() < answer.keys {
            let known = *self.missing.get_or_insert(answer.commit_ts);
            if known != answer.commit_ts {
                return contradiction(start_ts, &format!("committed at {known} and at {}", answer.commit_ts));
            }
            return Ok(());
        }
        for lock in &answer.locks {
            self.fell_back |= !lock.use_async_commit;
            self.min_commit_ts = self.min_commit_ts.max(Timestamp::from_version(lock.min_commit_ts));
        }
        Ok(())
    }

    fn decide(&self, start_ts: Timestamp) -> Result<Recovery, Error> {
        match self.missing {
            Some(commit_ts) if !commit_ts.is_zero() => {
                if !self.fell_back && commit_ts < self.min_commit_ts {
                    let detail = format!("committed at {commit_ts}, before its min_commit_ts {}", self.min_commit_ts);
                    return contradiction(start_ts, &detail);
                }
                Ok(Recovery::Final(FinalStatus::Committed(commit_ts)))
            }
            _ if self.fell_back => Ok(Recovery::FellBack),
            Some(_) => Ok(Recovery::Final(FinalStatus::RolledBack)),
            None if self.min_commit_ts <= start_ts => {
                contradiction(start_ts, &format!("an async commit with min_commit_ts {}", self.min_commit_ts))
            }
            None => Ok(Recovery::Final(FinalStatus::Committed(self.min_commit_ts))),
        }
    }
}

fn contradiction<T>(start_ts: Timestamp, detail: &str) -> Result<T, Error> {
    Err(Error::Contradiction { start_ts, detail: Arc::from(detail) })
}

impl Machine for RecoverAsyncCommit {
    type Output = Recovered;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Recovered> {
        self.policy.options = lock_options(&self.policy.options, cx.config());
        let mut keys = std::mem::take(&mut self.secondaries);
        // TiKV counts a key as often as it is asked for; so must we.
        keys.sort();
        keys.dedup();
        let mut shares = Sharded::new(self.policy.clone(), cx.config().operation_concurrency);
        shares.add_known(cx, keys, self.backoff.fork(), false);
        shares.run(cx);
        self.shares = Some(shares);
        self.collect(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Recovered> {
        if let Some(shares) = &mut self.shares {
            shares.handle(cx, token, event);
        }
        self.collect(cx)
    }
}

impl Shard for Shares {
    type Item = Key;
    type Output = ShareResult;
    type Child = Share;

    fn child(
        &self,
        _: &mut Context<'_>,
        region: Arc<Region>,
        keys: Vec<Key>,
        backoff: Backoff,
        is_retry: bool,
    ) -> Share {
        let request = kvrpcpb::CheckSecondaryLocksRequest {
            context: None,
            keys: keys.iter().map(Key::to_bytes).collect(),
            start_version: self.start_ts.version(),
        };
        let call = RegionCall::to_region(region, request, self.options.clone(), backoff);
        Share { keys, call: call.repeatable().as_retry(is_retry) }
    }

    fn weight(&self, _: &Key) -> usize {
        1
    }

    fn batch_limit(&self) -> usize {
        MAX_KEYS
    }

    fn deadline(&self) -> Time {
        self.options.deadline
    }
}

/// The request to one region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Share {
    keys: Vec<Key>,
    call: RegionCall<kvrpcpb::CheckSecondaryLocksRequest>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ShareResult {
    result: Result<ShareAnswer, Error>,
    backoff: Backoff,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ShareAnswer {
    keys: usize,
    locks: Vec<kvrpcpb::LockInfo>,
    commit_ts: Timestamp,
}

impl Share {
    fn on_answer(&mut self, end: CallEnd<kvrpcpb::CheckSecondaryLocksResponse>) -> Poll<ShardEnd<Key, ShareResult>> {
        let backoff = end.backoff.clone();
        if let Err(CallError::Relocate(_)) = end.result {
            return Poll::Ready(ShardEnd::Relocate { items: std::mem::take(&mut self.keys), backoff });
        }
        let result = end.into_result("CheckSecondaryLocks").and_then(|response| match response.error {
            Some(error) => Err(Error::Key(KeyError::from_proto(*error))),
            None => Ok(ShareAnswer {
                keys: self.keys.len(),
                locks: response.locks,
                commit_ts: Timestamp::from_version(response.commit_ts),
            }),
        });
        Poll::Ready(ShardEnd::Done(ShareResult { result, backoff }))
    }
}

impl Machine for Share {
    type Output = ShardEnd<Key, ShareResult>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.call.start(cx) {
            Poll::Ready(end) => self.on_answer(end),
            Poll::Pending => Poll::Pending,
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output> {
        match self.call.handle(cx, token, event) {
            Poll::Ready(end) => self.on_answer(end),
            Poll::Pending => Poll::Pending,
        }
    }
}
