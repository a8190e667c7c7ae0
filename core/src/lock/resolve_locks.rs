//! The locks that one caller met, of any number of transactions.
//!
//! ```text
//!   start ──► one ResolveTxn per transaction, side by side ──► all done, or one failed: done
//! ```
//!
//! client-go: `LockResolver.ResolveLocksWithOpts`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;

use super::resolve_txn::{Caller, Outcome, ResolveTxn, TxnEnd};
use crate::backoff::Backoff;
use crate::canary::Canary;
use crate::error::{Error, LockInfo};
use crate::key::Key;
use crate::knowledge::resolving::{Registered, ResolvingLock};
use crate::knowledge::txn_status::FinalStatus;
use crate::machine::{Context, Event, FanOut, Machine, Observation, Token};
use crate::route::CallOptions;
use crate::timestamp::Timestamp;

/// What is left of the locks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resolution {
    /// How long the first of the locks that still stand in the way can last, in milliseconds; 0 if none does any more.
    pub ms_before_expired: u64,
    /// For a reader: transactions whose locks hide nothing that it should see. They were rolled back, or commit after its
    /// timestamp. To be sent as `resolved_locks`.
    pub ignored: Vec<Timestamp>,
    /// For a reader: transactions that committed at or before its timestamp, so that what they locked is to be read. To be
    /// sent as `committed_locks`.
    pub accessible: Vec<Timestamp>,
}

/// The end of a [`ResolveLocks`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resolved {
    /// What is left of the locks, or why that is not known.
    pub result: Result<Resolution, Error>,
    /// What is left of the budget.
    pub backoff: Backoff,
}

/// Gets locks out of the way; see the [module documentation](super).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResolveLocks {
    caller: Caller,
    locks: Vec<LockInfo>,
    options: CallOptions,
    backoff: Backoff,
    transactions: FanOut<ResolveTxn>,
    resolution: Resolution,
    /// As long as it is under way.
    registered: Option<Registered>,
}

impl ResolveLocks {
    /// For a reader at `read_ts` ([`Timestamp::MAX`] allowed) that met `locks`. `lite`: no more than these keys are to be
    /// resolved. What is left of finished transactions is released in the background.
    #[must_use]
    pub fn for_read(
        read_ts: Timestamp,
        locks: Vec<LockInfo>,
        lite: bool,
        options: CallOptions,
        backoff: Backoff,
    ) -> Self {
        ResolveLocks::new(Caller::Reader { read_ts, lite, waits: false }, locks, options, backoff)
    }

    /// For a writer that met `locks`: one that prewrites gives its `start_ts`, one that asks for a pessimistic lock
    /// [`Timestamp::ZERO`]. Ends when the locks of finished transactions are released.
    #[must_use]
    pub fn for_write(caller_start_ts: Timestamp, locks: Vec<LockInfo>, options: CallOptions, backoff: Backoff) -> Self {
        ResolveLocks::new(Caller::Writer { start_ts: caller_start_ts }, locks, options, backoff)
    }

    /// For a reader that cannot read past the locks of finished transactions: ends when they are released.
    #[must_use]
    pub fn wait_for_release(mut self) -> Self {
        if let Caller::Reader { waits, .. } = &mut self.caller {
            *waits = true;
        }
        self
    }

    fn new(caller: Caller, locks: Vec<LockInfo>, options: CallOptions, backoff: Backoff) -> Self {
        let transactions = FanOut::new(1);
        let resolution = Resolution::default();
        ResolveLocks { caller, locks, options, backoff, transactions, resolution, registered: None }
    }

    fn collect(&mut self, cx: &mut Context<'_>) -> Poll<Resolved> {
        while let Some((_, TxnEnd { start_ts, result, backoff })) = self.transactions.next_finished(cx) {
            self.backoff.merge(backoff);
            match result {
                Ok(Outcome::CommitsLater) if cx.config().has_canary(Canary::ReadersSeeUncommitted) => {
                    self.resolution.accessible.push(start_ts);
                }
                Ok(outcome) => self.add(start_ts, outcome),
                Err(error) => {
                    self.transactions.cancel_all(cx);
                    return self.done(Err(error));
                }
            }
        }
        if !self.transactions.is_idle() {
            return Poll::Pending;
        }
        let mut resolution = std::mem::take(&mut self.resolution);
        for list in [&mut resolution.ignored, &mut resolution.accessible] {
            list.sort();
            list.dedup();
        }
        self.done(Ok(resolution))
    }

    fn add(&mut self, start_ts: Timestamp, outcome: Outcome) {
        let resolution = &mut self.resolution;
        match (outcome, self.caller) {
            (Outcome::Alive { ms_before_expired }, _) => {
                let least = match resolution.ms_before_expired {
                    0 => u64::MAX,
                    known => known,
                };
                resolution.ms_before_expired = least.min(ms_before_expired);
            }
            (Outcome::Final(FinalStatus::Committed(commit_ts)), Caller::Reader { read_ts, .. })
                if commit_ts <= read_ts =>
            {
                resolution.accessible.push(start_ts);
            }
            (Outcome::CommitsLater | Outcome::Final(_), Caller::Reader { .. }) => resolution.ignored.push(start_ts),
            (Outcome::Released, _) | (_, Caller::Writer { .. } | Caller::Collector) => {}
        }
    }

    fn done(&mut self, result: Result<Resolution, Error>) -> Poll<Resolved> {
        self.registered = None;
        Poll::Ready(Resolved { result, backoff: self.backoff.take() })
    }

    fn register(&self, cx: &Context<'_>) -> Registered {
        let caller_ts = self.caller.timestamp();
        let locks = self.locks.iter().map(|lock| {
            let (start_ts, key, primary) = (lock.start_ts, lock.key.clone(), lock.primary.clone());
            ResolvingLock { caller_ts, start_ts, key, primary }
        });
        cx.knowledge().resolving.add(locks.collect())
    }
}

impl Machine for ResolveLocks {
    type Output = Resolved;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Resolved> {
        self.registered = Some(self.register(cx));
        let transactions = match by_transaction(std::mem::take(&mut self.locks)) {
            Ok(transactions) => transactions,
            Err(error) => return self.done(Err(error)),
        };
        let caller_ts = self.caller.timestamp();
        self.transactions = FanOut::new(cx.config().operation_concurrency);
        for locks in transactions {
            let lock_ts = locks[0].start_ts;
            cx.observe(Observation::LockMet { caller_ts, lock_ts });
            let (options, backoff) = (self.options.clone(), self.backoff.fork());
            self.transactions.add(ResolveTxn::new(self.caller, locks, options, backoff));
        }
        self.transactions.run(cx);
        self.collect(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Resolved> {
        self.transactions.handle(cx, token, event);
        self.collect(cx)
    }
}

/// The locks of each transaction that name the same primary; none of these lists is empty. The pessimistic locks of a transaction
/// may name another primary than those it prewrote.
pub(super) fn by_transaction(locks: Vec<LockInfo>) -> Result<impl Iterator<Item = Vec<LockInfo>>, Error> {
    if locks.iter().any(|lock| lock.start_ts.is_zero()) {
        // A wrapper of shared locks, which has to be taken apart first, or nonsense.
        return Err(Error::InvalidArgument(Arc::from("a lock without a transaction")));
    }
    let mut transactions: BTreeMap<(Timestamp, bool, Key), Vec<LockInfo>> = BTreeMap::new();
    for lock in locks {
        let group = (lock.start_ts, lock.is_pessimistic(), lock.primary.clone());
        transactions.entry(group).or_default().push(lock);
    }
    Ok(transactions.into_values())
}
