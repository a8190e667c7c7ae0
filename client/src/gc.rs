//! Garbage collection: old versions are removed when nobody reads them any more.

use std::ops::RangeBounds;
use std::time::Duration;

use tikv_core::admin::{CollectGarbage, Collected, DeleteGcBarrier, DestroyRange, GetGcState, SetGcBarrier};
use tikv_core::keyspace::KeyCodec;
use tikv_core::machine::Machine;
use tikv_core::pd::{AskPd, Question};
use tikv_core::request::pd::{GcBarrier, GcState};
use tikv_core::route::CallOptions;
use tikv_core::time::Time;
use tracing::Instrument;

use crate::range::key_range;
use crate::{Client, Error, Key, Timestamp};

/// Garbage collection of a cluster. TiKV keeps every version of a key until somebody says up to when nobody reads any more.
///
/// **Where TiDB runs, it says so by itself**, and nothing of this is needed but [barriers](Gc::set_barrier). Without TiDB some
/// service has to call [`Gc::collect`] now and then, every ten minutes say.
///
/// Cheap to clone. client-go: `KVStore.GC`, `gc.GCStatesClient`.
///
/// ```no_run
/// use tikv::Timestamp;
///
/// # async fn example(client: tikv::Client) -> Result<(), tikv::Error> {
/// // Whoever reads for longer than ten minutes sets a barrier.
/// let now = client.current_timestamp().await?;
/// let safe_point = Timestamp::compose(now.physical_ms().saturating_sub(10 * 60 * 1_000), 0);
/// let collected = client.gc().collect(safe_point).await?;
/// if !collected.blocker.is_empty() {
///     println!("only up to {}: {}", collected.safe_point, collected.blocker);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Gc {
    client: Client,
    timeout: Option<Duration>,
    concurrency: Option<usize>,
}

impl Client {
    /// Garbage collection of the cluster.
    #[must_use]
    pub fn gc(&self) -> Gc {
        Gc { client: self.clone(), timeout: None, concurrency: None }
    }
}

impl Gc {
    /// The same, each of whose calls ends after `timeout` at the latest. Default: the budgets of retries alone.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The same, with the locks of at most so many regions resolved at once. Default 8. client-go: `WithConcurrency`.
    #[must_use]
    pub fn with_concurrency(mut self, regions: usize) -> Self {
        self.concurrency = Some(regions);
        self
    }

    /// Lets TiKV remove every version that only a reader older than `safe_point` would see, after it has resolved every lock from
    /// before. The newest version of each key stays, unless it is a deletion.
    ///
    /// **Transactions from before that are alive are ended**, readers from before may miss what they should see, and what became of a
    /// transaction from before may not be known any more ([`Client::outcome_of`]). Whoever needs older versions sets a
    /// [barrier](Gc::set_barrier), below which nothing is collected; what was reached is told. A safe point never goes back: one
    /// below that of before is refused, as is one in the future. TiKV removes versions in its own time.
    ///
    /// client-go: `KVStore.GC`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a safe point in the future, [`Error::Pd`] if PD refuses it;
    /// [`Error::RetriesExhausted`], [`Error::DeadlineExceeded`], [`Error::Locked`] if a lock cannot be resolved now. To begin again
    /// is harmless.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops it; to begin again is harmless.
    pub async fn collect(&self, safe_point: Timestamp) -> Result<Collected, Error> {
        let collect = CollectGarbage::new(safe_point, self.options());
        let collect = match self.concurrency {
            Some(regions) => collect.with_concurrency(regions),
            None => collect,
        };
        self.drive("collect", collect).await
    }

    /// How far garbage collection is, and what holds it back. client-go: `GCStatesClient.GetGCState`.
    ///
    /// # Errors
    ///
    /// [`Error::Pd`] if PD refuses, [`Error::RetriesExhausted`], [`Error::DeadlineExceeded`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the question.
    pub async fn state(&self) -> Result<GcState, Error> {
        self.ask("state", GetGcState::ask(self.client.config())).await
    }

    /// Keeps all that a reader at `ts` or later sees from being collected, for as long as a backup or a long read takes. `ttl` is
    /// how long the barrier stands by itself, rounded up to seconds; `None` until it is [deleted](Gc::delete_barrier), and a
    /// service that dies then holds garbage collection back for good. The name is unique in the cluster; to set it again moves
    /// the barrier, and begins its time anew.
    ///
    /// client-go: `GCStatesClient.SetGCBarrier`.
    ///
    /// # Errors
    ///
    /// [`Error::Pd`] if the txn safe point is beyond `ts` already, so that versions may be gone; [`Error::InvalidArgument`] for an
    /// empty name or no time; [`Error::RetriesExhausted`], [`Error::DeadlineExceeded`].
    ///
    /// # Cancel safety
    ///
    /// Whether the barrier is set is not known if the future is dropped; delete it, or let its time pass.
    pub async fn set_barrier(
        &self,
        id: impl Into<String>,
        ts: Timestamp,
        ttl: Option<Duration>,
    ) -> Result<GcBarrier, Error> {
        let barrier = GcBarrier { id: id.into(), ts, ttl };
        self.ask("set_barrier", SetGcBarrier::ask(self.client.config(), barrier)?).await
    }

    /// Deletes a barrier, and says what it was, if PD still knew it.
    ///
    /// client-go: `GCStatesClient.DeleteGCBarrier`.
    ///
    /// # Errors
    ///
    /// As [`Gc::set_barrier`].
    ///
    /// # Cancel safety
    ///
    /// Whether it is deleted is not known if the future is dropped; to delete it again is harmless.
    pub async fn delete_barrier(&self, id: impl Into<String>) -> Result<Option<GcBarrier>, Error> {
        self.ask("delete_barrier", DeleteGcBarrier::ask(self.client.config(), id)?).await
    }

    /// Drops all keys of `range`, all their versions and all their locks, from every store at once: past Raft, and past every
    /// transaction. Its room on disk is free soon. **Nobody may ever use the range again**, reads included: what comes in
    /// meanwhile may be dropped on some replicas and not on others.
    ///
    /// The range needs a first key and an end. Repeated, it does no harm. client-go: `KVStore.UnsafeDestroyRange`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] without bounds; [`Error::Refused`] in the words of a store; [`Error::RetriesExhausted`],
    /// [`Error::DeadlineExceeded`]. Other stores may have dropped the range then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, some stores may have dropped the range. To begin again is harmless.
    pub async fn destroy_range<K: Into<Key> + Clone>(&self, range: impl RangeBounds<K>) -> Result<(), Error> {
        self.drive("destroy_range", DestroyRange::new(key_range(&range), self.options())?).await
    }

    fn deadline(&self) -> Time {
        self.timeout.map_or(Time::MAX, |timeout| self.client.shared().runtime.now() + timeout)
    }

    fn options(&self) -> CallOptions {
        CallOptions::new(self.client.config()).with_deadline(self.deadline())
    }

    async fn ask<Q>(&self, operation: &'static str, question: AskPd<Q>) -> Result<Q::Answer, Error>
    where
        Q: Question + Send + 'static,
        Q::Answer: Send,
    {
        self.drive(operation, question.until(self.deadline())).await
    }

    async fn drive<M>(&self, operation: &'static str, machine: M) -> M::Output
    where
        M: Machine + Send + 'static,
        M::Output: Send,
    {
        let span = tracing::debug_span!("tikv.gc", operation);
        self.client.drive(KeyCodec::Txn, machine).instrument(span).await
    }
}

impl std::fmt::Debug for Gc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (timeout, concurrency) = (&self.timeout, &self.concurrency);
        f.debug_struct("Gc").field("timeout", timeout).field("concurrency", concurrency).finish_non_exhaustive()
    }
}
