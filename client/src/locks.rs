//! Locks of transactions, listed and resolved on their own.

use std::ops::RangeBounds;
use std::time::Duration;

use tikv_core::backoff::budget;
use tikv_core::keyspace::KeyCodec;
use tikv_core::knowledge::resolving::ResolvingLock;
use tikv_core::lock::{
    CheckTxnStatus, Checked, Resolution, ResolveLocks, Resolved, SweepLocks, Swept, TxnStatus, scan_locks,
};
use tikv_core::machine::Machine;
use tikv_core::route::{self, CallOptions};
use tracing::Instrument;

use crate::range::key_range;
use crate::{Client, Error, Key, LockInfo, Timestamp};

/// The locks of a cluster. Reads and commits resolve what they meet by themselves; this is for tools, and for garbage collection.
///
/// Cheap to clone. client-go: `txnlock.LockResolver`, `tikv.ResolveLocksForRange`.
///
/// ```no_run
/// # async fn example(client: tikv::Client) -> Result<(), tikv::Error> {
/// let locks = client.locks();
/// let now = client.current_timestamp().await?;
/// // Who is in the way?
/// for lock in locks.scan("a".."b", now, 100).await? {
///     println!("{:?} is locked by {}: {:?}", lock.key, lock.start_ts, locks.txn_status(&lock).await?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Locks {
    client: Client,
    timeout: Option<Duration>,
}

impl Client {
    /// The locks of the cluster.
    #[must_use]
    pub fn locks(&self) -> Locks {
        Locks { client: self.clone(), timeout: None }
    }
}

impl Locks {
    /// The same, each of whose calls ends after `timeout` at the latest. Default: the budgets of retries alone.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The first locks of `range` whose transactions began at `max_ts` or before, in the order of their keys: about `limit`, and
    /// no more if no key is locked in share mode. If there are more, they begin at the key of the last one, for such a key has
    /// several.
    ///
    /// From now on no transaction can commit asynchronously at `max_ts` or before. client-go: `ScanLocks`.
    ///
    /// # Errors
    ///
    /// [`Error::RetriesExhausted`], [`Error::DeadlineExceeded`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the question.
    pub async fn scan<K: Into<Key> + Clone>(
        &self,
        range: impl RangeBounds<K>,
        max_ts: Timestamp,
        limit: u32,
    ) -> Result<Vec<LockInfo>, Error> {
        let scan = scan_locks(self.client.config(), key_range(&range), max_ts, limit, &self.options());
        self.drive("scan_locks", scan).await
    }

    /// What became of the transaction that holds `lock`, asked at its primary. One whose time is up is rolled back by that, as by
    /// anybody who meets its locks; what is left of its locks stays. One that commits asynchronously is shown as alive, with its
    /// time up, as long as nobody has counted its locks: [`Locks::resolve_for_write`] does, and so does [`Client::outcome_of`].
    ///
    /// client-go: `LockResolver.GetTxnStatusFromLock`.
    ///
    /// # Errors
    ///
    /// [`Error::RetriesExhausted`], [`Error::DeadlineExceeded`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the question.
    pub async fn txn_status(&self, lock: &LockInfo) -> Result<TxnStatus, Error> {
        let backoff = route::budget(self.client.config(), budget::GET_TXN_STATUS);
        let check = CheckTxnStatus::of_lock(lock, Timestamp::ZERO, self.options(), backoff);
        let Checked { result, .. } = self.drive("txn_status", check).await;
        result
    }

    /// The same for a transaction of which no lock is at hand, by its `start_ts` and the key that is its primary. If TiKV finds no
    /// trace of it, it is rolled back, so that the answer stays true: it may not have locked its primary yet. Without need of such
    /// details, ask [`Client::outcome_of`]. client-go: `LockResolver.GetTxnStatus`.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyKey`], and as [`Locks::txn_status`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the question.
    pub async fn txn_status_at(&self, start_ts: Timestamp, primary: impl Into<Key>) -> Result<TxnStatus, Error> {
        let primary = primary.into();
        if primary.is_empty() {
            return Err(Error::EmptyKey);
        }
        let backoff = route::budget(self.client.config(), budget::GET_TXN_STATUS);
        let check = CheckTxnStatus::of_txn(start_ts, primary, Timestamp::ZERO, self.options(), backoff);
        let Checked { result, .. } = self.drive("txn_status", check).await;
        result
    }

    /// Gets `locks` out of the way of a writer: commits or rolls back those whose transactions have ended, or whose time is up.
    /// Says how long the first of the others can last; then the call can be repeated. Returns when the locks are released.
    ///
    /// client-go: `LockResolver.ResolveLocks`.
    ///
    /// ```no_run
    /// # async fn example(client: tikv::Client, runtime: impl tikv::Runtime) -> Result<(), tikv::Error> {
    /// use std::time::Duration;
    ///
    /// let now = client.current_timestamp().await?;
    /// loop {
    ///     let met = client.locks().scan("a".."b", now, 100).await?;
    ///     let left = client.locks().resolve_for_write(met).await?;
    ///     if left.ms_before_expired == 0 {
    ///         break;
    ///     }
    ///     runtime.sleep(Duration::from_millis(left.ms_before_expired)).await;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::RetriesExhausted`], [`Error::DeadlineExceeded`]; [`Error::InvalidArgument`] if a lock has no `start_ts`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops it; to begin again is harmless.
    pub async fn resolve_for_write(&self, locks: Vec<LockInfo>) -> Result<Resolution, Error> {
        let backoff = route::budget(self.client.config(), budget::GC_RESOLVE_LOCK);
        let resolve = ResolveLocks::for_write(Timestamp::ZERO, locks, self.options(), backoff);
        let Resolved { result, .. } = self.drive("resolve_locks", resolve).await;
        result
    }

    /// Gets `locks` out of the way of a reader at `read_ts`, and says which of them it may ignore, and of which it is to see the
    /// values. Transactions that are alive are made to commit later than `read_ts` if that can be. What is left of those that have
    /// ended is released in the background. client-go: `LockResolver.ResolveLocksForRead`.
    ///
    /// # Errors
    ///
    /// As [`Locks::resolve_for_write`].
    ///
    /// # Cancel safety
    ///
    /// As [`Locks::resolve_for_write`].
    pub async fn resolve_for_read(&self, read_ts: Timestamp, locks: Vec<LockInfo>) -> Result<Resolution, Error> {
        let backoff = route::budget(self.client.config(), budget::GC_RESOLVE_LOCK);
        let resolve = ResolveLocks::for_read(read_ts, locks, false, self.options(), backoff);
        let Resolved { result, .. } = self.drive("resolve_locks", resolve).await;
        result
    }

    /// Resolves every lock of `range` whose transaction began at `safe_point` or before, so that old versions can be collected:
    /// one of the steps of garbage collection. **Transactions from before that are alive are ended**: one that is just committing
    /// fails, and pessimistic locks are gone. So `safe_point` must be one that no transaction in use is older than, and that PD
    /// knows of.
    ///
    /// Regions are looked at side by side, at most eight at once. Nothing is resolved twice: after an error, begin again.
    ///
    /// client-go: `KVStore.GC`, its third step; `ResolveLocksForRange`.
    ///
    /// # Errors
    ///
    /// [`Error::RetriesExhausted`], [`Error::DeadlineExceeded`], [`Error::Locked`] if a lock cannot be resolved now. What was
    /// resolved until then stays so.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops it; to begin again is harmless.
    pub async fn sweep<K: Into<Key> + Clone>(
        &self,
        range: impl RangeBounds<K>,
        safe_point: Timestamp,
    ) -> Result<Swept, Error> {
        let sweep = SweepLocks::new(key_range(&range), safe_point, self.options());
        self.drive("sweep_locks", sweep).await
    }

    /// The locks that reads, commits and others of this client and its clones are getting out of their way at this moment. Those who
    /// know already that the transaction is alive, and wait for it, are not among them. client-go: `LockResolver.Resolving`.
    #[must_use]
    pub fn resolving(&self) -> Vec<ResolvingLock> {
        self.client.shared().knowledge(KeyCodec::Txn).resolving.list()
    }

    fn options(&self) -> CallOptions {
        let options = CallOptions::new(self.client.config());
        match self.timeout {
            Some(timeout) => options.with_deadline(self.client.shared().runtime.now() + timeout),
            None => options,
        }
    }

    async fn drive<M>(&self, operation: &'static str, machine: M) -> M::Output
    where
        M: Machine + Send + 'static,
        M::Output: Send,
    {
        let span = tracing::debug_span!("tikv.locks", operation);
        self.client.drive(KeyCodec::Txn, machine).instrument(span).await
    }
}

impl std::fmt::Debug for Locks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Locks").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
