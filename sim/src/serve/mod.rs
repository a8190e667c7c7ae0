//! A simulated cluster on TCP ports: PD and stores as clients of any kind expect them.
//!
//! ```
//! use tikv_sim::serve::{ServeOptions, ServedCluster};
//!
//! # fn main() -> std::io::Result<()> {
//! let cluster = ServedCluster::start_in_thread(ServeOptions::default())?;
//! // Connect any TiKV client to these, whatever runtime it uses.
//! let endpoints = cluster.pd_endpoints();
//! // Change the cluster under its feet.
//! cluster.split(b"user/1000").expect("nothing begins there yet");
//! cluster.stop_store(2)?;
//! cluster.shutdown();
//! # Ok(())
//! # }
//! ```
//!
//! Each member of PD and each store has a port of its own, and each store another one for its status. The data lives in memory
//! and ends with the cluster. Time is real here: timestamps follow the wall clock, locks and elections wait as long as they say.
//!
//! Unary calls, BatchCommands and PD's streams are served; calls that name another host
//! (`tikv-forwarded-host`, `pd-forwarded-host`) are forwarded. PD's ports also speak HTTP/1 and answer the more common paths of
//! PD's HTTP API; a store's status port answers `/status` and `/config`. What the simulation does not know is answered by
//! `Unimplemented` or 404: TiFlash, the coprocessor's streams. See [`cluster`](crate::cluster) and [`pd`](crate::pd) for more.

mod admin;
mod batch;
mod batch_entries;
mod endpoint;
mod http;
pub(crate) mod pd;
mod pd_http;
pub(crate) mod shared;
pub(crate) mod store;
mod store_status;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tikv_core::time::Time;
use tikv_grpc::Encoding;
use tikv_grpc::server::ServerOptions;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use self::endpoint::{Endpoint, Spoken};
use self::pd::PdService;
use self::pd_http::PdHttp;
use self::shared::Shared;
use self::store::StoreService;
use self::store_status::StoreStatus;
use crate::cluster::{Cluster, ClusterOptions, TopologyError, encoded};

/// What is served, and where. Take [`ServeOptions::default`] and change what should differ.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The cluster. Addresses of stores and the wall clock are set when it starts.
    pub cluster: ClusterOptions,
    /// Where the first member of PD listens. Default: any port of 127.0.0.1, as all others.
    pub pd_addr: SocketAddr,
    /// Whether responses are compressed for clients which understand that (by gzip). Requests may always be. Default: no.
    pub gzip: bool,
}

impl Default for ServeOptions {
    fn default() -> Self {
        ServeOptions { cluster: ClusterOptions::default(), pd_addr: any_port(), gzip: false }
    }
}

/// A cluster that is being served. Dropping it ends it, as [`ServedCluster::shutdown`] does.
#[derive(Debug)]
pub struct ServedCluster {
    shared: Arc<Shared>,
    members: BTreeMap<u64, Endpoint>,
    stores: BTreeMap<u64, Endpoint>,
    statuses: BTreeMap<u64, Endpoint>,
    timer: AbortHandle,
    thread: Option<OwnThread>,
}

/// The runtime of [`ServedCluster::start_in_thread`].
#[derive(Debug)]
struct OwnThread {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl ServedCluster {
    /// Serves a cluster on the tokio runtime that this is called in.
    ///
    /// # Errors
    ///
    /// If there is no such runtime, or a port cannot be opened.
    pub fn start(options: ServeOptions) -> io::Result<Self> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        start_on(&runtime, options)
    }

    /// Serves a cluster on a thread of its own, for programs that use another runtime, or none.
    ///
    /// # Errors
    ///
    /// If a port cannot be opened or the thread cannot be started.
    pub fn start_in_thread(options: ServeOptions) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut cluster = start_on(runtime.handle(), options)?;
        let (stop, stopped) = oneshot::channel();
        // It ends when it is told to, or when the sender is gone, which comes to the same.
        let run = move || drop(runtime.block_on(stopped));
        let thread = std::thread::Builder::new().name("tikv-sim".to_owned()).spawn(run)?;
        cluster.thread = Some(OwnThread { stop, thread });
        Ok(cluster)
    }

    /// Where PD listens, each member as `host:port`.
    #[must_use]
    pub fn pd_endpoints(&self) -> Vec<String> {
        self.members.values().map(|member| member.address().to_string()).collect()
    }

    /// Where stores tell their status, by id.
    #[must_use]
    pub fn status_addresses(&self) -> BTreeMap<u64, SocketAddr> {
        self.statuses.iter().map(|(id, status)| (*id, status.address())).collect()
    }

    /// Where stores listen, by id.
    #[must_use]
    pub fn store_addresses(&self) -> BTreeMap<u64, SocketAddr> {
        self.stores.iter().map(|(id, store)| (*id, store.address())).collect()
    }

    /// Looks at the cluster, or changes it, between two requests. `now` is its time.
    ///
    /// Stores and members should be stopped by the methods here, which also close their ports.
    pub fn with_cluster<R>(&self, change: impl FnOnce(&mut Cluster, Time) -> R) -> R {
        self.shared.with_cluster(change)
    }

    /// Splits the region that holds a key (as transactional clients write it). The ids of both parts.
    ///
    /// # Errors
    ///
    /// As [`Cluster::split`].
    pub fn split(&self, key: &[u8]) -> Result<(u64, u64), TopologyError> {
        self.with_cluster(|cluster, _| cluster.split(&encoded(key)))
    }

    /// Makes the peer on a store the region's leader.
    ///
    /// # Errors
    ///
    /// As [`Cluster::transfer_leader`].
    pub fn transfer_leader(&self, region_id: u64, store_id: u64) -> Result<(), TopologyError> {
        self.with_cluster(|cluster, _| cluster.transfer_leader(region_id, store_id))
    }

    /// Stops a store, as a crash does: breaks its connections and closes its port.
    ///
    /// # Errors
    ///
    /// If there is no such store.
    pub fn stop_store(&self, store_id: u64) -> io::Result<()> {
        find(&self.stores, store_id, "store")?.close();
        find(&self.statuses, store_id, "store")?.close();
        self.with_cluster(|cluster, now| cluster.stop_store(now, store_id)).map_err(io::Error::other)
    }

    /// Starts a stopped store, on the same port.
    ///
    /// # Errors
    ///
    /// If there is no such store, or somebody else has taken the port.
    pub fn start_store(&self, store_id: u64) -> io::Result<()> {
        let endpoint = find(&self.stores, store_id, "store")?;
        self.with_cluster(|cluster, now| cluster.start_store(now, store_id)).map_err(io::Error::other)?;
        endpoint.open()?;
        find(&self.statuses, store_id, "store")?.open()
    }

    /// Stops a member of PD. If it leads, another one takes over, if most run.
    ///
    /// # Errors
    ///
    /// If there is no such member.
    pub fn stop_pd(&self, member: u64) -> io::Result<()> {
        find(&self.members, member, "member of PD")?.close();
        self.with_cluster(|cluster, _| cluster.pd_mut().stop_member(member));
        Ok(())
    }

    /// Starts a stopped member of PD, on the same port.
    ///
    /// # Errors
    ///
    /// If there is no such member, or somebody else has taken the port.
    pub fn start_pd(&self, member: u64) -> io::Result<()> {
        let endpoint = find(&self.members, member, "member of PD")?;
        self.with_cluster(|cluster, _| cluster.pd_mut().start_member(member));
        endpoint.open()
    }

    /// Does what a line of the administration channel says, and answers it: `ok …` or `error …`. `help` lists the commands.
    #[must_use]
    pub fn administrate(&self, line: &str) -> String {
        admin::run(self, line)
    }

    /// Closes all ports and breaks all connections.
    pub fn shutdown(self) {
        // Dropping does it.
    }
}

impl Drop for ServedCluster {
    fn drop(&mut self) {
        self.timer.abort();
        self.members.values().chain(self.stores.values()).chain(self.statuses.values()).for_each(Endpoint::close);
        if let Some(OwnThread { stop, thread }) = self.thread.take() {
            // Neither can fail but by the thread's having ended.
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

fn find<'a>(endpoints: &'a BTreeMap<u64, Endpoint>, id: u64, what: &str) -> io::Result<&'a Endpoint> {
    endpoints.get(&id).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no {what} {id}")))
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn start_on(runtime: &Handle, options: ServeOptions) -> io::Result<ServedCluster> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    let wall_clock_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    let cluster = Cluster::new(ClusterOptions { wall_clock_ms, ..options.cluster });
    let server = ServerOptions {
        compression: if options.gzip { Encoding::Gzip } else { Encoding::Identity },
        ..ServerOptions::default()
    };

    let store_ids: Vec<u64> = cluster.topology().stores().map(|store| store.meta.id).collect();
    let member_ids: Vec<u64> = cluster.pd().members().iter().map(|member| member.id).collect();
    let started = Instant::now();
    let shared = Arc::new(Shared::new(cluster, Box::new(move || Time::ZERO + started.elapsed())));
    let mut members = BTreeMap::new();
    for id in member_ids {
        let grpc = Arc::new(PdService::new(shared.clone(), id));
        let spoken = Spoken::Both(grpc, Arc::new(PdHttp::new(shared.clone())));
        let address = if members.is_empty() { options.pd_addr } else { any_port() };
        members.insert(id, Endpoint::bind(runtime, address, spoken, server.clone())?);
    }
    let (mut stores, mut statuses) = (BTreeMap::new(), BTreeMap::new());
    for id in store_ids {
        let grpc = Spoken::Grpc(Arc::new(StoreService::new(shared.clone(), id)));
        stores.insert(id, Endpoint::bind(runtime, any_port(), grpc, server.clone())?);
        let status = Spoken::Http(Arc::new(StoreStatus::new(shared.clone(), id)));
        statuses.insert(id, Endpoint::bind(runtime, any_port(), status, server.clone())?);
    }
    let timer = runtime.spawn(shared::keep_time(shared.clone(), tokio::time::sleep)).abort_handle();
    let cluster = ServedCluster { shared, members, stores, statuses, timer, thread: None };
    cluster.publish_addresses();
    // Clients may come only now, when they are told where to go.
    let ServedCluster { members, stores, statuses, .. } = &cluster;
    members.values().chain(stores.values()).chain(statuses.values()).try_for_each(Endpoint::open)?;
    Ok(cluster)
}
impl ServedCluster {
    fn publish_addresses(&self) {
        self.with_cluster(|cluster, _| {
            for (id, endpoint) in &self.members {
                if let Some(member) = cluster.pd_mut().member_mut(*id) {
                    member.client_url = format!("http://{}", endpoint.address());
                }
            }
            for ((id, endpoint), status) in self.stores.iter().zip(self.statuses.values()) {
                if let Ok(store) = cluster.topology_mut().store_mut(*id) {
                    store.meta.address = endpoint.address().to_string();
                    store.meta.peer_address = store.meta.address.clone();
                    store.meta.status_address = status.address().to_string();
                }
            }
        });
    }
}

#[cfg(test)]
mod tests;
