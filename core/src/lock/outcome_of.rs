//! What became of a transaction whose commit ended with [`Error::Undetermined`].
//!
//! ```text
//!   start ──► ResolveTxn, as for a lock at its primary ──► committed, rolled back, or still open
//! ```
//!
//! client-go: `LockResolver.GetTxnStatus`, for which the caller has to understand async commit itself.

use std::task::Poll;
use std::time::Duration;

use super::resolve_txn::{Caller, Outcome, ResolveTxn, TxnEnd};
use crate::backoff::budget;
use crate::canary::Canary;
use crate::config::Config;
use crate::error::{Error, LockInfo};
use crate::key::Key;
use crate::knowledge::txn_status::FinalStatus;
use crate::machine::{Context, Event, Machine, Token};
use crate::route::{self, CallOptions};
use crate::timestamp::Timestamp;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TxnOutcome {
    /// It committed at this timestamp, for good.
    Committed(Timestamp),
    /// It has not committed and never will.
    RolledBack,
    /// Its locks are alive, so that it may still commit. After that time at the latest it can be told, unless its owner is
    /// alive and prolongs it.
    Open {
        /// How long its primary can last, by PD's time.
        for_up_to: Duration,
    },
}

/// Finds out what became of a transaction. One of which TiKV finds no trace is rolled back, so that a request that is still on
/// its way comes too late; one whose time is up is ended as any reader would end it. What is left of its locks is removed in
/// the background.
///
/// Ends with an error if TiKV could not be asked; the question can be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutcomeOf {
    resolve: ResolveTxn,
}

impl OutcomeOf {
    /// Of the transaction that began at `start_ts` and whose primary key is `primary`, as [`Error::Undetermined`] names them.
    /// A key that is not its primary gives a wrong answer.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyKey`].
    pub fn new(config: &Config, start_ts: Timestamp, primary: Key, options: CallOptions) -> Result<Self, Error> {
        if primary.is_empty() {
            return Err(Error::EmptyKey);
        }
        // A lock that has been there for long: nobody waits for a primary that is not there.
        let lock = LockInfo { key: primary.clone(), primary, start_ts, ttl_ms: 1, ..LockInfo::default() };
        let caller = Caller::Reader { read_ts: Timestamp::ZERO, lite: true, waits: false };
        let backoff = route::budget(config, budget::GET_TXN_STATUS);
        Ok(OutcomeOf { resolve: ResolveTxn::new(caller, vec![lock], options, backoff) })
    }
}

fn outcome(cx: &Context<'_>, end: TxnEnd) -> Result<TxnOutcome, Error> {
    Ok(match end.result? {
        Outcome::Alive { .. } if cx.config().has_canary(Canary::OpenTakenForRolledBack) => TxnOutcome::RolledBack,
        Outcome::Final(FinalStatus::Committed(commit_ts)) => TxnOutcome::Committed(commit_ts),
        Outcome::Final(FinalStatus::RolledBack) => TxnOutcome::RolledBack,
        Outcome::Alive { ms_before_expired } => {
            TxnOutcome::Open { for_up_to: Duration::from_millis(ms_before_expired) }
        }
        // Neither a reader at zero nor a prewritten lock meets these.
        Outcome::CommitsLater | Outcome::Released => TxnOutcome::Open { for_up_to: Duration::ZERO },
    })
}

impl Machine for OutcomeOf {
    type Output = Result<TxnOutcome, Error>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.resolve.start(cx).map(|end| outcome(cx, end))
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output> {
        self.resolve.handle(cx, token, event).map(|end| outcome(cx, end))
    }
}
