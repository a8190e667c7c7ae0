//! The client and how it is made.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tikv_core::backoff::{BackoffKind, budget};
use tikv_core::config::Config;
use tikv_core::keyspace::KeyCodec;
use tikv_core::machine::Machine;
use tikv_core::pd::PdClient;
use tikv_core::rng::Rng;
use tikv_core::route;
use tikv_core::stream::BatchLimits;
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_grpc::KeepAlive;

use crate::Error;
use crate::driver::{KeySpaces, Operation, Shared};
use crate::interceptor::{Interceptor, Interceptors};
use crate::net::{NetOptions, PdService, StorePool};
use crate::raw::RawClient;
use crate::runtime::Runtime;
use crate::snapshot::Snapshot;
use crate::transaction::{Transaction, TransactionOptions};
use tikv_core::oracle::FetchTimestamp;

/// A client of one TiKV cluster. Cheap to clone, and safe to share between tasks and threads.
///
/// Its connections end when the last clone, and the last operation begun with one, is gone.
///
/// client-go: `tikv.KVStore`, `txnkv.Client`, `rawkv.Client`.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    interceptors: Interceptors,
}

/// Makes a [`Client`]. The defaults are client-go's.
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    config: Config,
    net: NetOptions,
    limits: BatchLimits,
    cluster_id: Option<u64>,
    timeout: Option<Duration>,
    seed: Option<u64>,
}

impl Client {
    /// Connects to the cluster whose PD listens at `endpoints` (`host:port`, one or more of its members), with defaults.
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::connect`].
    ///
    /// ```no_run
    /// # async fn connect(runtime: impl tikv::Runtime) -> Result<(), tikv::Error> {
    /// let client = tikv::Client::connect(["127.0.0.1:2379"], runtime).await?;
    /// client.raw().put("key", "value").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        runtime: impl Runtime,
    ) -> Result<Client, Error> {
        Client::builder(endpoints).connect(runtime).await
    }

    /// A builder for a client of the cluster whose PD listens at `endpoints` (`host:port`).
    pub fn builder(endpoints: impl IntoIterator<Item = impl Into<String>>) -> ClientBuilder {
        ClientBuilder {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            config: Config::default(),
            net: NetOptions {
                connect_timeout: Duration::from_secs(5),
                keep_alive: Some(KeepAlive::default()),
                max_receive_message: usize::MAX,
                connections_per_store: 1,
            },
            limits: BatchLimits::default(),
            cluster_id: None,
            timeout: None,
            seed: None,
        }
    }

    /// The same client; but what is done with this handle of it (transactions, snapshots, raw calls, and what these do in the
    /// background) shows its RPCs to `interceptor`, too. Those that were given before see an RPC first, and its end last.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// #[derive(Default)]
    /// struct Count(AtomicU64);
    ///
    /// impl tikv::Interceptor for Count {
    ///     fn before(&self, _: &mut tikv::OutgoingRpc<'_>) {
    ///         self.0.fetch_add(1, Ordering::Relaxed);
    ///     }
    /// }
    ///
    /// # async fn example(client: tikv::Client) -> Result<(), tikv::Error> {
    /// let count = Arc::new(Count::default());
    /// let txn = client.with_interceptor(count.clone()).begin().await?;
    /// txn.get("key").await?;
    /// println!("{} requests", count.0.load(Ordering::Relaxed));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// client-go: `SetRPCInterceptor`, `AddRPCInterceptor`, `interceptor.WithRPCInterceptor`.
    #[must_use]
    pub fn with_interceptor(&self, interceptor: Arc<dyn Interceptor>) -> Client {
        Client { shared: Arc::clone(&self.shared), interceptors: self.interceptors.with(interceptor) }
    }

    /// Access to raw keys: single keys, batches and ranges without transactions.
    #[must_use]
    pub fn raw(&self) -> RawClient {
        RawClient::new(self.clone())
    }

    /// A consistent view of all transactional keys as of now: a new timestamp is taken. client-go: `GetSnapshot`.
    ///
    /// # Errors
    ///
    /// As [`Client::current_timestamp`].
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        Ok(self.snapshot_at(self.current_timestamp().await?))
    }

    /// A consistent view of all transactional keys at `read_ts`. At [`Timestamp::MAX`] each read sees the newest committed
    /// version, and two reads may see two moments. Reads at any other timestamp that PD has not given yet fail with
    /// [`Error::InvalidArgument`]. client-go: `GetSnapshot`, `oracle.ValidateReadTS`.
    #[must_use]
    pub fn snapshot_at(&self, read_ts: Timestamp) -> Snapshot {
        Snapshot::new(self.clone(), read_ts)
    }

    /// Begins a transaction with the default options: a new timestamp is taken. client-go: `Begin`.
    ///
    /// # Errors
    ///
    /// As [`Client::current_timestamp`].
    pub async fn begin(&self) -> Result<Transaction, Error> {
        self.begin_with(TransactionOptions::default()).await
    }

    /// Begins a transaction.
    ///
    /// # Errors
    ///
    /// As [`Client::current_timestamp`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the question for a timestamp; nothing has begun.
    pub async fn begin_with(&self, options: TransactionOptions) -> Result<Transaction, Error> {
        let start_ts = match options.start_ts {
            Some(start_ts) => start_ts,
            None => self.timestamp_before(options.timeout.map(|limit| self.shared.runtime.now() + limit)).await?,
        };
        Ok(Transaction::new(self.clone(), start_ts, options))
    }

    /// Runs `body` in a transaction and commits it; runs it again, in a new transaction, as long as it or the commit fails in a
    /// way that another attempt can mend ([`Error::is_retryable`]), within a budget of pauses of about 40 s. An error that is
    /// not retryable rolls the transaction back and is returned. So is [`Error::Undetermined`]: the transaction may have
    /// committed, and is never run again.
    ///
    /// ```no_run
    /// # async fn example(client: tikv::Client) -> Result<(), tikv::Error> {
    /// client.run(|txn| async move {
    ///     let visits = txn.get("visits").await?.map_or(0, |bytes| bytes[0]);
    ///     txn.put("visits", vec![visits + 1])
    /// }).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// What `body` returned, or the error of the commit. When the budget is spent, the last retryable error.
    ///
    /// # Cancel safety
    ///
    /// As [`Transaction::commit`].
    pub async fn run<T, F>(&self, body: impl FnMut(Transaction) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.run_with(TransactionOptions::default(), body).await
    }

    /// [`Client::run`] with options, which hold for every attempt: pessimistic ones, for example, against deadlocks.
    ///
    /// # Errors
    ///
    /// As [`Client::run`].
    ///
    /// # Cancel safety
    ///
    /// As [`Transaction::commit`].
    pub async fn run_with<T, F>(
        &self,
        options: TransactionOptions,
        mut body: impl FnMut(Transaction) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut backoff = route::budget(self.config(), budget::PREWRITE);
        let mut rng = self.shared.child_rng();
        loop {
            let error = match self.attempt(options.clone(), &mut body).await {
                Ok(value) => return Ok(value),
                Err(error) if error.is_retryable() => error,
                Err(error) => return Err(error),
            };
            let Ok(pause) = backoff.next(BackoffKind::TxnLockFast, &mut rng) else { return Err(error) };
            tracing::debug!(%error, ?pause, "the transaction is run again");
            self.shared.runtime.sleep(pause).await;
        }
    }

    async fn attempt<T, F>(
        &self,
        options: TransactionOptions,
        body: &mut impl FnMut(Transaction) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let txn = self.begin_with(options).await?;
        match body(txn.clone()).await {
            Ok(value) => match txn.commit().await {
                // The body may have ended the transaction itself.
                Ok(_) | Err(Error::TxnFinished) => Ok(value),
                Err(error) => Err(error),
            },
            Err(error) => {
                // Already finished is as good.
                let _ = txn.rollback();
                Err(error)
            }
        }
    }

    /// A new timestamp of PD's oracle.
    ///
    /// # Errors
    ///
    /// [`Error::RetriesExhausted`] if PD does not answer within the budget of retries, about 30 s.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the question.
    pub async fn current_timestamp(&self) -> Result<Timestamp, Error> {
        self.timestamp_before(None).await
    }

    pub(crate) async fn timestamp_before(&self, deadline: Option<Time>) -> Result<Timestamp, Error> {
        let fetch = FetchTimestamp::new(&self.shared.config).until(deadline.unwrap_or(Time::MAX));
        self.drive(KeyCodec::Txn, fetch).await
    }

    /// The id of the cluster, as PD told it.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        self.shared.pd.cluster_id().unwrap_or_default()
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Waits until background work (commits of secondaries, clean-ups) has ended, but no longer than `limit`, and then closes
    /// all connections: of this client and of its clones. Returns how many background tasks were cut off; locks that they
    /// would have removed are removed by whoever meets them.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the client open.
    pub async fn close(&self, limit: Duration) -> usize {
        let mut timeout = self.shared.runtime.sleep(limit);
        poll_fn(|cx| match self.shared.background.poll_idle(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => timeout.as_mut().poll(cx),
        })
        .await;
        let abandoned = self.shared.background.running();
        self.shared.close();
        abandoned
    }

    /// Not an `async fn`: its future would hold the machine, and move it once more when it is polled first.
    pub(crate) fn drive<M>(&self, codec: KeyCodec, machine: M) -> Operation<M>
    where
        M: Machine + Send + 'static,
        M::Output: Send,
    {
        Operation::new(&self.shared, &self.interceptors, codec, machine)
    }

    /// Runs `machine` on a task of its own, without an owner.
    pub(crate) fn spawn<M>(&self, codec: KeyCodec, machine: M)
    where
        M: Machine + Send + 'static,
        M::Output: Send,
    {
        Operation::spawn(&self.shared, &self.interceptors, codec, machine);
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl ClientBuilder {
    /// Replaces the settings of the protocol: budgets, limits, batch sizes.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Limits the time of making one connection. Default 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.net.connect_timeout = limit;
        self
    }

    /// When a connection with calls in flight but no traffic is asked for a sign of life, and how long it has to answer.
    /// Default 10 s and 3 s; `None` never asks.
    #[must_use]
    pub fn keep_alive(mut self, interval_and_timeout: Option<(Duration, Duration)>) -> Self {
        self.net.keep_alive =
            interval_and_timeout.map(|(interval, timeout)| KeepAlive { interval, timeout, ..KeepAlive::default() });
        self
    }

    /// The longest message that is taken from a server, in bytes. Default: no limit.
    #[must_use]
    pub fn max_receive_message(mut self, bytes: usize) -> Self {
        self.net.max_receive_message = bytes;
        self
    }

    /// Connections to each store, which its calls take in turn. Default and least: 1, where client-go has 4.
    ///
    /// More help where a single one is the limit: where so many bytes are on their way that they fill the window of its flow
    /// control, on a network that is fast and far; or where whoever reads and writes it needs a whole processor for that, as
    /// with large values, or with encryption by a [`Runtime`] of one's own. They cost batches: calls that would have left in
    /// one frame leave in several, each with a wake-up, a write and a read on either side. Measure before you raise it.
    ///
    /// client-go: `TiKVClient.GrpcConnectionCount`.
    #[must_use]
    pub fn connections_per_store(mut self, connections: usize) -> Self {
        self.net.connections_per_store = connections.max(1);
        self
    }

    /// Calls to one store that may be in flight at once, divided among its connections; more are refused and retried after a
    /// back-off. Default 100,000.
    #[must_use]
    pub fn max_calls_in_flight(mut self, calls: usize) -> Self {
        self.limits.in_flight = calls;
        self
    }

    /// The cluster that PD must belong to. Default: whichever answers first; the client stays with that one.
    #[must_use]
    pub fn cluster_id(mut self, id: u64) -> Self {
        self.cluster_id = Some(id);
        self
    }

    /// Limits the time of [`ClientBuilder::connect`] as a whole: PD is not asked again after it. Default: the budget of retries
    /// alone, about 30 s.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// The seed of all randomness (jitters). Default: another one for each client.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Connects: finds PD's leader and takes a timestamp.
    ///
    /// # Errors
    ///
    /// [`Error::RetriesExhausted`] or [`Error::DeadlineExceeded`], naming the endpoints and what the last of them did, if no
    /// member answers in time; [`Error::Pd`] if the cluster is another one; [`Error::InvalidArgument`] without endpoints.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up.
    pub async fn connect(self, runtime: impl Runtime) -> Result<Client, Error> {
        if self.endpoints.is_empty() {
            return Err(Error::InvalidArgument(Arc::from("no endpoint of PD is given")));
        }
        let runtime: Arc<dyn Runtime> = Arc::new(runtime);
        let mut rng = Rng::new(self.seed.unwrap_or_else(random_seed));
        let pd = PdClient::new(&self.config, self.endpoints, self.cluster_id, rng.child());
        let pd = Arc::new(PdService::new(pd));
        let knowledge = Arc::new(KeySpaces::new(&self.config));
        let serve_pd = Arc::clone(&pd).run(Arc::clone(&runtime), self.net.clone(), Arc::clone(&knowledge));
        runtime.spawn(Box::pin(serve_pd));
        let stores = StorePool::new(Arc::clone(&runtime), self.net, self.limits);
        let deadline = self.timeout.map(|limit| runtime.now() + limit);
        let shared = Arc::new(Shared::new(runtime, self.config, pd, stores, knowledge, rng.next_u64()));
        let client = Client { shared, interceptors: Interceptors::default() };
        client.timestamp_before(deadline).await?;
        Ok(client)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("cluster_id", &self.cluster_id()).finish_non_exhaustive()
    }
}

/// The standard library's hashers are seeded at random; there is no other source of randomness without a dependency.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
