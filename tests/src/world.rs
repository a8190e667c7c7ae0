//! What a scenario gets: a simulated cluster on TCP ports of its own, a client, and the runtime that it runs on.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{Either, select};
use tikv::{BoxFuture, Client, ClientBuilder, Config, Error, Io, Runtime, Time};
use tikv_core::key::KeyRange;
use tikv_sim::cluster::{ClusterOptions, Fault};
use tikv_sim::serve::{ServeOptions, ServedCluster};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A scenario that takes longer hangs. Generous, since many run at once on slow machines.
const PATIENCE: Duration = Duration::from_secs(120);

/// One of the runtimes, with counters on its connections. Cheap to clone.
#[derive(Clone)]
pub struct Rt {
    runtime: Arc<dyn Runtime>,
    /// In the order in which they were made.
    connections: Arc<Mutex<Vec<Made>>>,
}

/// A connection that was made, and maybe gone since.
#[derive(Debug)]
struct Made {
    address: String,
    writes: Arc<AtomicUsize>,
    open: Weak<()>,
}

/// A connection as it was when somebody asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionState {
    /// Whom to.
    pub address: String,
    /// How often something was written to it.
    pub writes: usize,
    /// Whether the client still holds it.
    pub is_open: bool,
}

impl Rt {
    /// On `runtime`.
    pub fn new(runtime: impl Runtime) -> Self {
        Rt { runtime: Arc::new(runtime), connections: Arc::default() }
    }

    /// Runs `future` as a task; the result is that of the task, which goes on if the result is dropped.
    pub fn task<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Task<T> {
        let (done, result) = oneshot::channel();
        self.runtime.spawn(Box::pin(async move {
            // Nobody may want to know.
            let _ = done.send(future.await);
        }));
        Task(result)
    }

    /// Waits for a scenario, but not forever.
    ///
    /// # Panics
    ///
    /// If the scenario hangs.
    pub async fn run(&self, scenario: impl Future<Output = ()>) {
        match select(pin!(scenario), self.runtime.sleep(PATIENCE)).await {
            Either::Left(_) => {}
            Either::Right(_) => panic!("the scenario hangs"),
        }
    }

    /// Asks again and again, with pauses, until the answer is `Some`. It is [`Rt::run`] that ends this if it never is.
    pub async fn until<T>(&self, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            self.runtime.sleep(Duration::from_millis(5)).await;
        }
    }

    /// How often something was written to a connection so far.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.made().iter().map(|made| made.writes.load(Ordering::Relaxed)).sum()
    }

    /// All connections so far, in the order in which they were made.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionState> {
        let state = |made: &Made| ConnectionState {
            address: made.address.clone(),
            writes: made.writes.load(Ordering::Relaxed),
            is_open: made.open.strong_count() > 0,
        };
        self.made().iter().map(state).collect()
    }

    fn made(&self) -> MutexGuard<'_, Vec<Made>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Rt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rt").field("connections", &self.connections).finish_non_exhaustive()
    }
}

impl Runtime for Rt {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let connecting = self.runtime.connect(address);
        let (rt, address) = (self.clone(), address.to_owned());
        Box::pin(async move {
            let (io, writes, open) = (connecting.await?, Arc::default(), Arc::new(()));
            rt.made().push(Made { address, writes: Arc::clone(&writes), open: Arc::downgrade(&open) });
            Ok(Box::new(Counted { io, writes, _open: open }) as Box<dyn Io>)
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(task);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.runtime.sleep(duration)
    }

    fn now(&self) -> Time {
        self.runtime.now()
    }
}

/// A task's result.
#[derive(Debug)]
pub struct Task<T>(oneshot::Receiver<T>);

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(cx).map(|result| result.expect("the task has not panicked"))
    }
}

/// A connection whose writes are counted.
struct Counted {
    io: Box<dyn Io>,
    writes: Arc<AtomicUsize>,
    /// Gone with this.
    _open: Arc<()>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut *self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut *self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }
}

/// A cluster and a client of it.
#[derive(Debug)]
pub struct World {
    /// The runtime of the scenario.
    pub rt: Rt,
    /// The cluster: split it, stop its stores, inject faults.
    pub cluster: ServedCluster,
    /// A client with the default settings.
    pub client: Client,
}

impl World {
    /// Three stores and eight regions, bounded by single bytes between `0` and `z`; elections are quick.
    pub async fn new(rt: &Rt) -> Self {
        World::with(rt, |_| ()).await
    }

    /// The same with other options.
    ///
    /// # Panics
    ///
    /// If the cluster cannot be served, or the client cannot connect.
    pub async fn with(rt: &Rt, change: impl FnOnce(&mut ClusterOptions)) -> Self {
        let mut options = ServeOptions::default();
        options.cluster.election_timeout = Duration::from_millis(50);
        change(&mut options.cluster);
        let cluster = ServedCluster::start_in_thread(options).expect("a cluster can be served");
        let client = Client::connect(cluster.pd_endpoints(), rt.clone()).await.expect("the client connects");
        World { rt: rt.clone(), cluster, client }
    }

    /// Another client, with other settings.
    ///
    /// # Panics
    ///
    /// If it cannot connect.
    pub async fn client_with(&self, change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
        let builder = change(Client::builder(self.cluster.pd_endpoints()));
        builder.connect(self.rt.clone()).await.expect("the client connects")
    }

    /// A client whose transactions leave locks that live only for a moment.
    pub async fn client_of_short_lived_locks(&self) -> Client {
        let mut config = Config::default();
        config.lock_ttl = Duration::from_millis(50);
        self.client_with(|builder| builder.config(config)).await
    }

    /// Makes stores misbehave.
    pub fn inject(&self, fault: Fault) {
        self.cluster.with_cluster(|cluster, _| cluster.inject(fault));
    }

    /// Makes stores behave again. What was lost stays lost.
    pub fn clear_faults(&self) {
        self.cluster.with_cluster(|cluster, _| cluster.clear_faults());
    }

    /// The region that holds a key of transactions.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn region_of(&self, key: &str) -> u64 {
        let key = tikv_sim::cluster::encoded(key.as_bytes());
        self.cluster.with_cluster(|cluster, _| {
            cluster.topology().regions().by_key(key.as_slice()).expect("regions cover all keys").id()
        })
    }

    /// Waits until no transaction has a lock anywhere.
    pub async fn no_locks_are_left(&self) {
        let oldest = || self.cluster.with_cluster(|cluster, _| cluster.storage().oldest_prewrite(&KeyRange::ALL));
        self.rt.until(async || oldest().is_none().then_some(())).await;
    }
}

/// Polls `future` at most `polls` times (each time it asks to be polled), then drops it. `None` if it had not ended.
pub async fn poll_at_most<T>(polls: u64, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let poll = future.as_mut().poll(cx).map(Some);
        // The last poll is not waited for.
        if poll.is_pending() && left == 0 { Poll::Ready(None) } else { poll }
    })
    .await
}

/// Whether time ran out, and the error says of what, after at least one attempt, and where.
#[must_use]
pub fn is_explained_timeout(error: &Error, operation: &str, address: &str) -> bool {
    let text = error.to_string();
    error.is_timeout() && text.contains(operation) && text.contains(address) && text.contains("attempts")
}
