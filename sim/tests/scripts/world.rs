//! A cluster, a client, and a record of what came to the stores.

use std::cell::{Ref, RefCell};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use tikv::{Client, ClientBuilder, Config, Error, Key, KeyRange, Runtime, Timestamp, Transaction};
use tikv_core::request::{Request, RequestKind, Response};
use tikv_core::time::Time;
use tikv_proto::errorpb;
use tikv_proto::kvrpcpb::{
    BatchRollbackRequest, CommitRequest, Context, LockInfo, Mutation, Op, PessimisticLockRequest, PrewriteRequest,
    ScanLockRequest,
};
use tikv_sim::cluster::{Cluster, Effect, Fault, Served, encoded};
use tikv_sim::runtime::{SimRuntime, Simulation, SimulationOptions};
use tikv_sim::storage::Outcome;

/// Three keys in three regions. The first one becomes the primary.
pub(crate) const KEYS: [&str; 3] = ["0k", "ak", "zk"];

/// What is under test.
pub(crate) struct World {
    simulation: RefCell<Simulation>,
    pub(crate) runtime: SimRuntime,
    pub(crate) client: Client,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// A request that came to a store.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Time,
    pub(crate) store_id: u64,
    pub(crate) context: Context,
    pub(crate) request: Request,
}

/// A task that runs beside the test.
pub(crate) struct Started<T>(pub(crate) oneshot::Receiver<T>);

impl World {
    /// The default cluster and client.
    pub(crate) fn new() -> Self {
        World::with(|_| (), |_| ())
    }

    /// Another cluster, or other settings of the client.
    pub(crate) fn with(cluster: impl FnOnce(&mut SimulationOptions), config: impl FnOnce(&mut Config)) -> Self {
        let mut options = SimulationOptions { time_limit: secs(600), ..SimulationOptions::default() };
        cluster(&mut options);
        let mut simulation = Simulation::new(options);
        let (runtime, builder) = (simulation.runtime(), simulation.client());
        let mut settings = Config::default();
        config(&mut settings);
        let connect = builder.config(settings).connect(runtime.clone());
        let client = simulation.run(connect).expect("it ends").expect("PD answers");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = seen.clone();
        simulation.intercept(move |_, arrival| {
            record.lock().unwrap_or_else(PoisonError::into_inner).push(Seen {
                at: arrival.now,
                store_id: arrival.store_id,
                context: arrival.context.clone(),
                request: arrival.request.clone().with_context(arrival.context.clone()),
            });
            None
        });
        World { simulation: RefCell::new(simulation), runtime, client, seen }
    }

    /// The default cluster, and other settings of the client.
    pub(crate) fn with_config(config: impl FnOnce(&mut Config)) -> Self {
        World::with(|_| (), config)
    }

    /// Another client of the same cluster.
    pub(crate) fn another_client(&self, change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
        let connect = change(self.simulation().client()).connect(self.runtime.clone());
        self.run(connect).expect("PD answers")
    }

    /// To change the cluster. Not while a program runs.
    pub(crate) fn simulation(&self) -> Ref<'_, Simulation> {
        self.simulation.borrow()
    }

    // ---- Time ----

    /// Runs a program to its end.
    pub(crate) fn run<T>(&self, program: impl Future<Output = T>) -> T {
        self.simulation.borrow_mut().run(program).expect("it ends")
    }

    /// Runs a program to its end, and says how long that took.
    pub(crate) fn timed<T>(&self, program: impl Future<Output = T>) -> (T, Duration) {
        let began = self.now();
        let output = self.run(program);
        (output, self.now().saturating_since(began))
    }

    /// Lets a program run beside the test.
    pub(crate) fn start<T: Send + 'static>(&self, program: impl Future<Output = T> + Send + 'static) -> Started<T> {
        let (sender, receiver) = oneshot::channel();
        self.runtime.spawn(Box::pin(async move { drop(sender.send(program.await)) }));
        Started(receiver)
    }

    /// Waits for a program that runs beside the test.
    pub(crate) fn join<T>(&self, started: Started<T>) -> T {
        self.run(started.0).expect("it was not dropped")
    }

    pub(crate) fn pass(&self, duration: Duration) {
        let sleep = self.runtime.sleep(duration);
        self.run(sleep);
    }

    /// Lets time pass until something has happened, within a minute.
    pub(crate) fn until(&self, has_happened: impl Fn(&World) -> bool) {
        for _ in 0..60_000 {
            if has_happened(self) {
                return;
            }
            self.pass(Duration::from_millis(1));
        }
        panic!("it does not happen");
    }

    pub(crate) fn now(&self) -> Time {
        self.runtime.now()
    }

    // ---- What goes wrong ----

    pub(crate) fn inject(&self, fault: Fault) {
        self.simulation().inject(fault);
    }

    pub(crate) fn clear_faults(&self) {
        self.simulation().with_cluster(|cluster, _| cluster.clear_faults());
    }

    pub(crate) fn set_pd_cut_off(&self, is_cut_off: bool) {
        for address in self.simulation().pd_endpoints() {
            self.simulation().set_cut_off(&address, is_cut_off);
        }
    }

    /// The store that leads the region of a transactional key.
    pub(crate) fn leader_of(&self, key: &str) -> u64 {
        self.simulation()
            .with_cluster(|cluster, _| cluster.leader_context(encoded(key.as_bytes()).as_slice()).expect("a leader").0)
    }

    // ---- What came to the stores ----

    /// The requests of a kind, in order.
    pub(crate) fn seen(&self, kind: RequestKind) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|seen| seen.request.kind() == kind).cloned().collect()
    }

    pub(crate) fn count(&self, kind: RequestKind) -> usize {
        self.seen(kind).len()
    }

    /// Requests of a kind that name a key.
    pub(crate) fn count_of(&self, kind: RequestKind, key: &str) -> usize {
        self.seen(kind).iter().filter(|seen| seen.names(key)).count()
    }

    pub(crate) fn forget_seen(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    // ---- Transactions of the client ----

    pub(crate) fn begin(&self) -> Transaction {
        let client = self.client.clone();
        self.run(client.begin()).expect("PD answers")
    }

    /// A transaction that has written `value` to each of the keys, not yet committed.
    pub(crate) fn writes(&self, keys: &[&str], value: &'static str) -> Transaction {
        let txn = self.begin();
        keys.iter().for_each(|key| txn.put(key, value).expect("it fits"));
        txn
    }

    /// Writes and commits, secondaries too.
    pub(crate) fn write(&self, keys: &[&str], value: &'static str) -> Timestamp {
        let txn = self.writes(keys, value);
        let outcome = self.run(txn.commit()).expect("nothing is in the way");
        self.until(|world| world.locks().is_empty());
        outcome.commit_ts.expect("it wrote")
    }

    pub(crate) fn commit(&self, txn: &Transaction) -> Started<Result<Timestamp, Error>> {
        let txn = txn.clone();
        self.start(async move { txn.commit().await.map(|outcome| outcome.commit_ts.expect("it wrote")) })
    }

    /// What a new snapshot finds.
    pub(crate) fn read(&self, key: &str) -> Option<String> {
        self.try_read(key).expect("it can be read")
    }

    pub(crate) fn try_read(&self, key: &str) -> Result<Option<String>, Error> {
        let (client, key) = (self.client.clone(), key.to_owned());
        // Nothing here takes that long, but what has no end should not take forever to fail.
        let read = async move { client.snapshot().await?.with_timeout(secs(30)).get(key).await };
        self.run(read).map(|value| value.as_ref().map(text))
    }

    /// What a new snapshot finds, key by key.
    pub(crate) fn read_all(&self, keys: &[&str]) -> Vec<Option<String>> {
        keys.iter().map(|key| self.read(key)).collect()
    }

    pub(crate) fn timestamp(&self) -> Timestamp {
        let client = self.client.clone();
        self.run(client.current_timestamp()).expect("PD answers")
    }

    // ---- The data, and transactions of others ----

    /// All locks.
    pub(crate) fn locks(&self) -> Vec<LockInfo> {
        let scan = ScanLockRequest { max_version: u64::MAX, limit: 10_000, ..ScanLockRequest::default() };
        self.simulation().with_cluster(|cluster, _| match cluster.storage_mut().handle(&KeyRange::ALL, &scan).outcome {
            Outcome::Answer(scanned) => scanned.locks,
            other => panic!("{other:?}"),
        })
    }

    /// The keys that a transaction has locked, in order.
    pub(crate) fn locked_keys(&self, start_ts: Timestamp) -> Vec<String> {
        let locks = self.locks().into_iter().filter(|lock| lock.lock_version == start_ts.version());
        locks.map(|lock| text(&lock.key)).collect()
    }

    /// Asks the leader of a key, as another client does. What is ordered with [`World::inject`] concerns it too.
    pub(crate) fn ask(&self, key: &str, request: impl Into<Request>) -> Response {
        self.simulation().with_cluster(|cluster, now| {
            let (store, context) =
                cluster.leader_context(encoded(key.as_bytes()).as_slice()).expect("there is a leader");
            match cluster.handle_store(now, store, &context, request.into()) {
                Served::Answered(Ok(response)) => response,
                other => panic!("{other:?}"),
            }
        })
    }
}

impl Seen {
    /// Whether it names a key.
    pub(crate) fn names(&self, key: &str) -> bool {
        let Seen { at: now, store_id, context, request } = self;
        let arrival = tikv_sim::cluster::Arrival { now: *now, store_id: *store_id, context, request };
        arrival.names(key.as_bytes())
    }
}

/// A transaction of another client, step by step.
#[derive(Clone, Debug)]
pub(crate) struct Other {
    pub(crate) start_ts: Timestamp,
    pub(crate) primary: &'static str,
    pub(crate) ttl: Duration,
    /// The keys that an async commit names at its primary.
    pub(crate) secondaries: Option<Vec<&'static str>>,
}

impl Other {
    /// A transaction in two phases whose locks live for a second.
    pub(crate) fn new(world: &World, primary: &'static str) -> Self {
        Other { start_ts: world.timestamp(), primary, ttl: Duration::from_secs(1), secondaries: None }
    }

    /// It commits asynchronously.
    pub(crate) fn with_secondaries(mut self, secondaries: &[&'static str]) -> Self {
        self.secondaries = Some(secondaries.to_vec());
        self
    }

    /// Prewrites one key, `value` on it.
    pub(crate) fn prewrite(&self, world: &World, key: &'static str, value: &'static str) {
        let response = world.ask(key, self.prewrite_request(key, value));
        let Response::Prewrite(response) = response else { panic!("{response:?}") };
        assert!(response.errors.is_empty() && response.region_error.is_none(), "{response:?}");
    }

    pub(crate) fn prewrite_request(&self, key: &'static str, value: &'static str) -> PrewriteRequest {
        let is_primary = key == self.primary;
        let secondaries = self.secondaries.iter().flatten().filter(|_| is_primary);
        PrewriteRequest {
            mutations: vec![Mutation {
                op: Op::Put.into(),
                key: key.into(),
                value: value.into(),
                ..Default::default()
            }],
            primary_lock: self.primary.into(),
            start_version: self.start_ts.version(),
            lock_ttl: self.ttl.as_millis() as u64,
            min_commit_ts: self.start_ts.next().version(),
            use_async_commit: self.secondaries.is_some(),
            secondaries: secondaries.map(|key| Bytes::from(*key)).collect(),
            ..PrewriteRequest::default()
        }
    }

    /// Locks a key pessimistically.
    pub(crate) fn lock(&self, world: &World, key: &'static str) {
        let mutations = vec![Mutation { op: Op::PessimisticLock.into(), key: key.into(), ..Default::default() }];
        let request = PessimisticLockRequest {
            mutations,
            primary_lock: self.primary.into(),
            start_version: self.start_ts.version(),
            for_update_ts: self.start_ts.version(),
            lock_ttl: self.ttl.as_millis() as u64,
            ..PessimisticLockRequest::default()
        };
        let Response::PessimisticLock(response) = world.ask(key, request) else { panic!() };
        assert!(response.errors.is_empty() && response.region_error.is_none(), "{response:?}");
    }

    pub(crate) fn commit(&self, world: &World, key: &'static str, commit_ts: Timestamp) {
        let request = CommitRequest {
            keys: vec![key.into()],
            start_version: self.start_ts.version(),
            commit_version: commit_ts.version(),
            ..CommitRequest::default()
        };
        let Response::Commit(response) = world.ask(key, request) else { panic!() };
        assert!(response.error.is_none() && response.region_error.is_none(), "{response:?}");
    }

    pub(crate) fn roll_back(&self, world: &World, key: &'static str) {
        let request = BatchRollbackRequest {
            keys: vec![key.into()],
            start_version: self.start_ts.version(),
            ..BatchRollbackRequest::default()
        };
        let Response::BatchRollback(response) = world.ask(key, request) else { panic!() };
        assert!(response.error.is_none() && response.region_error.is_none(), "{response:?}");
    }
}

/// The request is not executed and answered with this error.
pub(crate) fn refused(error: errorpb::Error) -> Effect {
    Effect::RegionError(Box::new(error))
}

pub(crate) fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

pub(crate) fn split_at(cluster: &mut Cluster, key: &str) {
    cluster.split(&encoded(key.as_bytes())).expect("no region begins there");
}

pub(crate) fn keys(keys: &[&str]) -> Vec<Key> {
    keys.iter().map(|key| Key::from(key.to_string())).collect()
}

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
