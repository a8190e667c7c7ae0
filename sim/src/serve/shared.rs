//! The cluster as its servers share it: one at a time, and with one clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tikv_core::request::Request;
use tikv_core::time::Time;
use tikv_proto::kvrpcpb;
use tokio::sync::{Notify, watch};

use crate::cluster::{Arrival, CallId, Cluster, Effect, Served, StoreReply};
use crate::pd::PdCall;
use crate::status::Status;

/// What time it is for the cluster.
pub(crate) type Clock = Box<dyn Fn() -> Time + Send + Sync>;

/// Gets an answer that came late. Must not block, nor call the cluster.
pub(super) type LateReply = Box<dyn FnOnce(StoreReply) + Send>;

/// Looks at each request to a store before anything becomes of it.
pub(crate) type Interceptor = Box<dyn FnMut(&mut Cluster, &Arrival<'_>) -> Option<Effect> + Send>;

/// Hears at which address a store has begun (`true`) or ceased to run. Must not block, nor call the cluster.
pub(crate) type Listener = Box<dyn Fn(&str, bool) + Send>;

pub(crate) struct Shared {
    state: Mutex<State>,
    clock: Clock,
    /// Something is due earlier than it was.
    rescheduled: Notify,
    /// The revision of PD's settings.
    settings: watch::Sender<i64>,
}

struct State {
    cluster: Cluster,
    waiting: BTreeMap<CallId, LateReply>,
    next_wakeup: Option<Time>,
    interceptors: Vec<Interceptor>,
    /// Who wants to know, and which stores ran when it was told last, by address.
    running: Option<(Listener, BTreeSet<String>)>,
}

impl Shared {
    pub(crate) fn new(cluster: Cluster, clock: Clock) -> Self {
        let settings = watch::Sender::new(cluster.pd().settings_revision());
        let state =
            State { cluster, waiting: BTreeMap::new(), next_wakeup: None, interceptors: Vec::new(), running: None };
        Shared { state: Mutex::new(state), clock, rescheduled: Notify::new(), settings }
    }

    pub(super) fn now(&self) -> Time {
        (self.clock)()
    }

    pub(crate) fn with_cluster<R>(&self, act: impl FnOnce(&mut Cluster, Time) -> R) -> R {
        let now = self.now();
        let mut state = self.lock();
        let result = act(&mut state.cluster, now);
        self.settle(&mut state, now);
        result
    }

    /// Shows `interceptor` every request to a store from now on. Of several the first to choose an effect decides.
    pub(crate) fn intercept(&self, interceptor: Interceptor) {
        self.lock().interceptors.push(interceptor);
    }

    /// Tells `listener` of stores that cease to run, and of those that run again, from now on.
    pub(crate) fn on_running(&self, listener: Listener) {
        let mut state = self.lock();
        let running = running_addresses(&state.cluster);
        state.running = Some((listener, running));
    }

    /// Hands a request to a store: the answer, or a promise to call `late` with it.
    pub(super) fn handle_store(
        &self,
        store_id: u64,
        context: &kvrpcpb::Context,
        request: Request,
        late: impl FnOnce(CallId) -> LateReply,
    ) -> Result<StoreReply, CallId> {
        let now = self.now();
        let mut state = self.lock();
        let State { cluster, interceptors, .. } = &mut *state;
        let mut effect = None;
        for interceptor in interceptors {
            let chosen = interceptor(cluster, &Arrival { now, store_id, context, request: &request });
            effect = effect.or(chosen);
        }
        let served = cluster.handle_store_with(now, store_id, context, request, effect);
        let result = match served {
            Served::Answered(reply) => Ok(reply),
            Served::Later(call) => {
                state.waiting.insert(call, late(call));
                Err(call)
            }
        };
        self.settle(&mut state, now);
        result
    }

    pub(super) fn handle_pd(&self, call: &PdCall<'_>, message: Bytes) -> Result<Bytes, Status> {
        self.with_cluster(|cluster, now| cluster.handle_pd(now, call, message))
    }

    /// Nobody waits for the answer any more.
    pub(super) fn abandon(&self, call: CallId) {
        let mut state = self.lock();
        state.waiting.remove(&call);
        state.cluster.forget(call);
    }

    /// Changes whenever PD's settings do.
    pub(super) fn watch_settings(&self) -> watch::Receiver<i64> {
        self.settings.subscribe()
    }

    /// Hands late answers out, and looks at what is due next.
    fn settle(&self, state: &mut State, now: Time) {
        while let Some((call, reply)) = state.cluster.poll_reply(now) {
            if let Some(late) = state.waiting.remove(&call) {
                late(reply);
            }
        }
        let next_wakeup = state.cluster.next_wakeup();
        if next_wakeup != state.next_wakeup {
            state.next_wakeup = next_wakeup;
            self.rescheduled.notify_one();
        }
        if let Some((listener, before)) = &mut state.running {
            let running = running_addresses(&state.cluster);
            if running != *before {
                before.difference(&running).for_each(|address| listener(address, false));
                running.difference(before).for_each(|address| listener(address, true));
                *before = running;
            }
        }
        let revision = state.cluster.pd().settings_revision();
        self.settings.send_if_modified(|seen| std::mem::replace(seen, revision) != revision);
    }

    /// How long nothing is due; `None` if nothing is at all.
    fn idle_time(&self) -> Option<Duration> {
        let next = self.lock().next_wakeup?;
        Some(next.saturating_since(self.now()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn running_addresses(cluster: &Cluster) -> BTreeSet<String> {
    cluster.topology().stores().filter(|store| store.running).map(|store| store.meta.address.clone()).collect()
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Wakes the cluster when something is due.
pub(crate) async fn keep_time<S: Future<Output = ()>>(shared: Arc<Shared>, sleep: impl Fn(Duration) -> S) {
    loop {
        let rescheduled = shared.rescheduled.notified();
        match shared.idle_time() {
            // Both lead to another look.
            Some(idle) => tokio::select! {
                biased;
                () = rescheduled => {}
                () = sleep(idle) => {}
            },
            None => rescheduled.await,
        }
        shared.with_cluster(|_, _| ());
    }
}
