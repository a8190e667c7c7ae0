//! Asking the owner of a transaction whether it may commit.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::runtime::BoxFuture;
use crate::{Timestamp, TransactionOptions};

/// A timestamp that a transaction may be committed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CommitCheck {
    /// The transaction.
    pub start_ts: Timestamp,
    /// When it would commit in two phases. By its prewrites, it would commit a little later, within
    /// [`Config::async_commit_safe_window`](crate::Config::async_commit_safe_window).
    pub commit_ts: Timestamp,
}

/// What answers a [`CommitCheck`].
#[derive(Clone)]
pub(crate) struct CommitChecker(Arc<dyn Fn(CommitCheck) -> BoxFuture<'static, Result<(), String>> + Send + Sync>);

impl TransactionOptions {
    /// Has `check` asked before the transaction commits whether it may, at the timestamp that it would commit at: whether the
    /// schema that it has written by is still valid then, for example. If not, and `check` says why, the commit ends with
    /// [`Error::CommitForbidden`](crate::Error::CommitForbidden), and the transaction is rolled back. Every timestamp is checked,
    /// also one that replaces another. While `check` is running the transaction's keys are locked, unless it is to commit
    /// asynchronously or in one phase; and a time limit of the commit holds for it too.
    ///
    /// Such a transaction always takes a timestamp of PD before it commits asynchronously or in one phase.
    ///
    /// client-go: `SetSchemaLeaseChecker`, `SetSchemaVer`.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use tikv::TransactionOptions;
    ///
    /// let version = Arc::new(AtomicU64::new(7));
    /// let written_by = version.load(Ordering::Acquire);
    /// let options = TransactionOptions::default().check_commit(move |check| {
    ///     let now = version.load(Ordering::Acquire);
    ///     async move {
    ///         if now == written_by { Ok(()) } else { Err(format!("version {now} at {}", check.commit_ts)) }
    ///     }
    /// });
    /// ```
    #[must_use]
    pub fn check_commit<F>(mut self, check: impl Fn(CommitCheck) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.check = Some(CommitChecker(Arc::new(move |about| Box::pin(check(about)))));
        self
    }
}

impl CommitChecker {
    pub(crate) fn ask(&self, start_ts: Timestamp, commit_ts: Timestamp) -> BoxFuture<'static, Result<(), String>> {
        (self.0)(CommitCheck { start_ts, commit_ts })
    }
}

impl fmt::Debug for CommitChecker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CommitChecker")
    }
}
