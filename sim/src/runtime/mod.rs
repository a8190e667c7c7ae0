//! An async runtime on virtual time: the client itself, and programs that use it, under simulation.
//!
//! A [`Simulation`] is a cluster, a network and an executor on one thread. Time passes only when every task waits, and which
//! of several ready tasks goes first, how long bytes are on their way and what breaks follows from one seed. So a test that
//! takes minutes of virtual time takes milliseconds, and one that fails fails again with the same seed.
//!
//! ```
//! use std::time::Duration;
//! use tikv_sim::runtime::{Chaos, Simulation, SimulationOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let chaos = Some(Chaos { calm_after: Duration::from_secs(5), ..Chaos::default() });
//! let mut simulation = Simulation::new(SimulationOptions { seed: 7, chaos, ..SimulationOptions::default() });
//! let (client, runtime) = (simulation.client(), simulation.runtime());
//! let read = simulation.run(async move {
//!     let client = client.connect(runtime).await?;
//!     client.raw().put("key", "value").await?;
//!     client.raw().get("key").await
//! })?;
//! assert_eq!(read?, Some("value".into()));
//! # Ok(())
//! # }
//! ```
//!
//! # Scripts
//!
//! Beside [`Chaos`], which follows from the seed, a test can say exactly what goes wrong: [`Simulation::inject`] orders a
//! [`Fault`] for particular requests, [`Simulation::intercept`] looks at every request and decides, and changes the cluster
//! between two of them. [`Simulation::run`] returns as soon as its program ends, and tasks that were spawned wait until the next
//! run, so a test can act in between.
//!
//! ```
//! use tikv_core::request::RequestKind;
//! use tikv_sim::cluster::{Effect, Fault, encoded};
//! use tikv_sim::runtime::{Simulation, SimulationOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut simulation = Simulation::new(SimulationOptions::default());
//! let client = simulation.run(simulation.client().connect(simulation.runtime()))??;
//! // The first commit is executed, and its answer gets lost: the client asks again when its patience with that call ends.
//! simulation.inject(Fault::new(Effect::LoseReply).on(RequestKind::Commit).on_key("k"));
//! // The region of the key splits after it was located and before the prewrite arrives.
//! let mut has_split = false;
//! simulation.intercept(move |cluster, arrival| {
//!     if arrival.kind() == RequestKind::Prewrite && !has_split {
//!         has_split = cluster.split(&encoded(b"k")).is_ok();
//!     }
//!     None
//! });
//! simulation.run(async {
//!     let txn = client.begin().await?;
//!     txn.put("k", "v")?;
//!     txn.commit().await
//! })??;
//! # Ok(())
//! # }
//! ```
//!
//! What runs in it must take time, tasks and timers from [`SimRuntime`], and randomness from a seed. Threads, other runtimes
//! and the clock of the machine are outside of the simulation.

mod chaos;
mod executor;
mod network;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use thiserror::Error;
use tikv::{BoxFuture, Client, ClientBuilder, Io, Runtime};
use tikv_core::rng::Rng;
use tikv_core::time::Time;

pub use self::chaos::{Chaos, Mishap};
use self::executor::{Executor, Step};
use self::network::Network;
use crate::cluster::{Arrival, Cluster, ClusterOptions, Effect, Fault, TopologyError};
use crate::serve::pd::PdService;
use crate::serve::shared::{Shared, keep_time};
use crate::serve::store::StoreService;

/// What is simulated. Take [`SimulationOptions::default`] and change what should differ.
#[derive(Clone, Debug)]
pub struct SimulationOptions {
    /// Everything that is left to chance follows from it. Default: 0.
    pub seed: u64,
    /// The cluster. Addresses are set when it starts: `pd-1:2379`, `store-1:20160` and so on.
    pub cluster: ClusterOptions,
    /// How long bytes are on their way. Default: 0.1 to 2 ms.
    pub latency: Range<Duration>,
    /// What goes wrong by itself. Default: nothing.
    pub chaos: Option<Chaos>,
    /// The virtual time after which [`Simulation::run`] gives up. Default: an hour.
    pub time_limit: Duration,
}

impl Default for SimulationOptions {
    fn default() -> Self {
        SimulationOptions {
            seed: 0,
            cluster: ClusterOptions::default(),
            latency: Duration::from_micros(100)..Duration::from_millis(2),
            chaos: None,
            time_limit: Duration::from_secs(3600),
        }
    }
}

/// Why a program did not come to its end. Add the seed to what is printed of it: that makes it happen again.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RunError {
    /// Nothing is left that could wake the program.
    #[error("the program waits at {now:?}, and nothing will ever wake it")]
    Stalled {
        /// When that was.
        now: Time,
    },
    /// Tasks wake each other, and time does not pass.
    #[error("tasks wake each other without end at {now:?}")]
    Spinning {
        /// When that was.
        now: Time,
    },
    /// [`SimulationOptions::time_limit`] has passed.
    #[error("the program has not ended within {limit:?}")]
    TimeLimit {
        /// The limit.
        limit: Duration,
    },
}

/// A cluster and a network on virtual time. Dropping it drops all tasks.
pub struct Simulation {
    seed: u64,
    time_limit: Duration,
    runtime: SimRuntime,
    hosts: Arc<Hosts>,
}

/// The runtime of a [`Simulation`], for clients and for programs of their users. Cheap to clone.
#[derive(Clone)]
pub struct SimRuntime(Arc<World>);

struct World {
    executor: Executor,
    network: Network,
}

/// The machines of the cluster.
struct Hosts {
    shared: Arc<Shared>,
    members: BTreeMap<u64, String>,
    stores: BTreeMap<u64, String>,
}

impl Simulation {
    /// Starts a cluster at [`Time::ZERO`].
    #[must_use]
    pub fn new(options: SimulationOptions) -> Self {
        let mut rng = Rng::new(options.seed);
        let world = Arc::new(World {
            executor: Executor::new(rng.next_u64()),
            network: Network::new(rng.next_u64(), options.latency),
        });
        let runtime = SimRuntime(world);
        let cluster = Cluster::new(ClusterOptions { seed: rng.next_u64(), ..options.cluster });
        let hosts = Arc::new(Hosts::start(&runtime, cluster));
        let simulation = Simulation { seed: options.seed, time_limit: options.time_limit, runtime, hosts };
        if let Some(chaos) = options.chaos {
            let (runtime, hosts) = (simulation.runtime(), simulation.hosts.clone());
            simulation.runtime.spawn(Box::pin(chaos::run(chaos, rng.child(), runtime, hosts)));
        }
        simulation
    }

    /// The runtime to connect with, and to take timers and tasks from.
    #[must_use]
    pub fn runtime(&self) -> SimRuntime {
        self.runtime.clone()
    }

    /// A client of the cluster, seeded, to be [connected](ClientBuilder::connect) with [`Simulation::runtime`].
    #[must_use]
    pub fn client(&self) -> ClientBuilder {
        Client::builder(self.pd_endpoints()).seed(self.seed)
    }

    /// Where PD listens in the simulated network.
    #[must_use]
    pub fn pd_endpoints(&self) -> Vec<String> {
        self.hosts.members.values().cloned().collect()
    }

    /// Runs `program` to its end, and with it all tasks. What was spawned and has not ended goes on in the next run.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it does not end.
    pub fn run<T>(&mut self, program: impl Future<Output = T>) -> Result<T, RunError> {
        let executor = &self.runtime.0.executor;
        let deadline = executor.now() + self.time_limit;
        let mut program = pin!(program);
        let waker = executor.main_waker();
        executor.wake_main();
        loop {
            let now = executor.now();
            match executor.step() {
                Step::PollMain => {
                    if let Poll::Ready(output) = program.as_mut().poll(&mut Context::from_waker(&waker)) {
                        return Ok(output);
                    }
                }
                Step::Polled => {}
                Step::TimePassed if executor.now() > deadline => {
                    return Err(RunError::TimeLimit { limit: self.time_limit });
                }
                Step::TimePassed => {}
                Step::Stalled => return Err(RunError::Stalled { now }),
                Step::Spinning => return Err(RunError::Spinning { now }),
            }
        }
    }

    /// Looks at the cluster, or changes it. Where a store ceases to run, its connections break, and nobody can connect until it
    /// runs again.
    pub fn with_cluster<R>(&self, change: impl FnOnce(&mut Cluster, Time) -> R) -> R {
        self.hosts.shared.with_cluster(change)
    }

    /// Orders a store to misbehave, as [`Cluster::inject`].
    pub fn inject(&self, fault: Fault) {
        self.with_cluster(|cluster, _| cluster.inject(fault));
    }

    /// Shows `rule` every request that comes to a store from now on, before anything becomes of it. It may change the cluster,
    /// and choose what happens to the request; if it does not, [`Simulation::inject`]ed faults count. Of several rules, which
    /// all see every request, the first to choose decides.
    ///
    /// The rule is called while the cluster is held: it must not call the simulation.
    pub fn intercept(&self, rule: impl FnMut(&mut Cluster, &Arrival<'_>) -> Option<Effect> + Send + 'static) {
        self.hosts.shared.intercept(Box::new(rule));
    }

    /// Stops a store, as a crash does.
    ///
    /// # Errors
    ///
    /// If there is no such store.
    pub fn stop_store(&self, store_id: u64) -> Result<(), TopologyError> {
        self.hosts.stop_store(store_id)
    }

    /// Starts a stopped store.
    ///
    /// # Errors
    ///
    /// If there is no such store.
    pub fn start_store(&self, store_id: u64) -> Result<(), TopologyError> {
        self.hosts.start_store(store_id)
    }

    /// Stops a store and starts it again at another address, where nobody may listen yet.
    ///
    /// # Errors
    ///
    /// If there is no such store.
    pub fn move_store(&self, store_id: u64, address: &str) -> Result<(), TopologyError> {
        self.hosts.stop_store(store_id)?;
        let service = Arc::new(StoreService::new(self.hosts.shared.clone(), store_id));
        self.runtime.network().listen(address.to_owned(), service);
        self.with_cluster(|cluster, _| {
            let store = cluster.topology_mut().store_mut(store_id)?;
            store.meta.address = address.to_owned();
            store.meta.peer_address = address.to_owned();
            Ok(())
        })?;
        self.hosts.start_store(store_id)
    }

    /// Breaks all connections to an address; new ones can be made.
    pub fn break_connections(&self, address: &str) {
        self.runtime.network().break_connections(address);
    }

    /// Holds back all bytes from and to an address (`store-1:20160`, `pd-1:2379`), or lets them go on.
    pub fn set_cut_off(&self, address: &str, is_cut_off: bool) {
        self.runtime.network().set_cut_off(address, is_cut_off);
    }

    /// Tells apart runs in which anything was polled at another time or in another order.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.runtime.0.executor.fingerprint()
    }

    /// Tasks that have not ended, those of the cluster included.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.runtime.0.executor.tasks()
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // They hold the runtime, which holds them.
        self.runtime.0.executor.clear();
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("seed", &self.seed).field("now", &self.runtime.now()).finish_non_exhaustive()
    }
}

impl SimRuntime {
    fn network(&self) -> &Network {
        &self.0.network
    }
}

impl Runtime for SimRuntime {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        Box::pin(network::connect(self.clone(), address.to_owned()))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.executor.spawn(task);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(Sleep { world: self.0.clone(), until: self.now() + duration, timer: None })
    }

    fn now(&self) -> Time {
        self.0.executor.now()
    }
}

impl fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimRuntime").field("now", &self.now()).finish_non_exhaustive()
    }
}

struct Sleep {
    world: Arc<World>,
    until: Time,
    timer: Option<(Time, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(timer) = self.timer.take() {
            self.world.executor.cancel_timer(timer);
        }
        if self.world.executor.now() >= self.until {
            return Poll::Ready(());
        }
        let until = self.until;
        self.timer = Some(self.world.executor.set_timer(until, cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            self.world.executor.cancel_timer(timer);
        }
    }
}

impl Hosts {
    fn start(runtime: &SimRuntime, mut cluster: Cluster) -> Self {
        let member_ids: Vec<u64> = cluster.pd().members().iter().map(|member| member.id).collect();
        let store_ids: Vec<u64> = cluster.topology().stores().map(|store| store.meta.id).collect();
        let members: BTreeMap<_, _> = member_ids.into_iter().map(|id| (id, format!("pd-{id}:2379"))).collect();
        let stores: BTreeMap<_, _> = store_ids.into_iter().map(|id| (id, format!("store-{id}:20160"))).collect();
        for (id, address) in &members {
            if let Some(member) = cluster.pd_mut().member_mut(*id) {
                member.client_url = format!("http://{address}");
            }
        }
        for (id, address) in &stores {
            if let Ok(store) = cluster.topology_mut().store_mut(*id) {
                store.meta.address.clone_from(address);
                store.meta.peer_address.clone_from(address);
            }
        }
        let world: Weak<World> = Arc::downgrade(&runtime.0);
        let clock = move || world.upgrade().map_or(Time::ZERO, |world| world.executor.now());
        let shared = Arc::new(Shared::new(cluster, Box::new(clock)));
        for (id, address) in &members {
            runtime.network().listen(address.clone(), Arc::new(PdService::new(shared.clone(), *id)));
        }
        for (id, address) in &stores {
            runtime.network().listen(address.clone(), Arc::new(StoreService::new(shared.clone(), *id)));
        }
        let world: Weak<World> = Arc::downgrade(&runtime.0);
        shared.on_running(Box::new(move |address, is_running| {
            if let Some(world) = world.upgrade() {
                world.network.set_open(address, is_running);
            }
        }));
        let timers = runtime.clone();
        runtime.spawn(Box::pin(keep_time(shared.clone(), move |duration| timers.sleep(duration))));
        Hosts { shared, members, stores }
    }

    fn stop_store(&self, store_id: u64) -> Result<(), TopologyError> {
        self.shared.with_cluster(|cluster, now| cluster.stop_store(now, store_id))
    }

    fn start_store(&self, store_id: u64) -> Result<(), TopologyError> {
        self.shared.with_cluster(|cluster, now| cluster.start_store(now, store_id))
    }
}
