//! The client and how it is made.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tikv_core::config::Config;
use tikv_core::keyspace::KeyCodec;
use tikv_core::machine::Machine;
use tikv_core::pd::PdClient;
use tikv_core::rng::Rng;
use tikv_core::stream::BatchLimits;
use tikv_core::timestamp::Timestamp;
use tikv_grpc::KeepAlive;

use crate::Error;
use crate::driver::{KeySpaces, Operation, Shared};
use crate::net::{NetOptions, PdService, StorePool};
use crate::raw::RawClient;
use crate::runtime::Runtime;
use tikv_core::oracle::FetchTimestamp;

/// A client of one TiKV cluster. Cheap to clone, and safe to share between tasks and threads.
///
/// Its connections end when the last clone, and the last operation begun with one, is gone.
///
/// client-go: `tikv.KVStore`, `txnkv.Client`, `rawkv.Client`.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// Makes a [`Client`]. The defaults are client-go's.
#[derive(Debug)]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    config: Config,
    net: NetOptions,
    limits: BatchLimits,
    cluster_id: Option<u64>,
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
            },
            limits: BatchLimits::default(),
            cluster_id: None,
            seed: None,
        }
    }

    /// Access to raw keys: single keys, batches and ranges without transactions.
    #[must_use]
    pub fn raw(&self) -> RawClient {
        RawClient::new(self.clone())
    }

    /// A new timestamp of PD's oracle.
    ///
    /// # Errors
    ///
    /// [`Error::Pd`] if PD does not answer within the budget of retries.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the question.
    pub async fn current_timestamp(&self) -> Result<Timestamp, Error> {
        self.run(KeyCodec::Txn, FetchTimestamp::new(&self.shared.config)).await
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

    pub(crate) async fn run<M>(&self, codec: KeyCodec, machine: M) -> M::Output
    where
        M: Machine + Send + 'static,
        M::Output: Send,
    {
        Operation::new(&self.shared, codec, machine).await
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

    /// Calls to one store that may be in flight at once; more are refused and retried after a back-off. Default 100,000.
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
    /// [`Error::Pd`], naming the endpoints, if no member answers within the budget of retries or the cluster is another one;
    /// [`Error::InvalidArgument`] without endpoints.
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
        let client = Client { shared: Arc::new(Shared::new(runtime, self.config, pd, stores, knowledge, rng)) };
        client.current_timestamp().await?;
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
