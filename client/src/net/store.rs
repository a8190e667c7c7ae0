//! Calls to stores: BatchCommands streams, and unary calls for what cannot travel in a batch.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};

use bytes::BytesMut;
use futures::task::AtomicWaker;
use smallvec::SmallVec;
use tikv_core::error::{Execution, Fault, FaultKind};
use tikv_core::machine::{Call, Event};
use tikv_core::request::{Response, decode_response};
use tikv_core::stream::{BatchLimits, BatchStream};
use tikv_core::time::Time;
use tikv_grpc::{self as grpc, Sender, Streaming};

use super::connection::{Connector, NetOptions};
use super::fault;
use crate::driver::Waiter;
use crate::runtime::{BoxFuture, Runtime};

const BATCH_COMMANDS: &str = "/tikvpb.Tikv/BatchCommands";

/// So many calls are written at once, though other tasks might add to them, if the store has nothing to do: it begins with these
/// while the others are being submitted. Of 128 callers that all wait for one frame, half of the time either side would be idle.
const HEAD_START: usize = 32;

/// The connections to all stores.
pub(crate) struct StorePool {
    runtime: Arc<dyn Runtime>,
    options: NetOptions,
    limits: BatchLimits,
    connections: RwLock<Connections>,
    closed: AtomicBool,
}

#[derive(Default)]
struct Connections {
    by_address: BTreeMap<Arc<str>, Arc<StoreConnections>>,
    /// Where the last call to a store went. It is found without a look at the address, which lies beside the count of those
    /// who share it: all threads write there.
    by_store: BTreeMap<u64, (Arc<str>, Arc<StoreConnections>)>,
}

/// The connections to one address, at least one. Each is opened by the first call that goes to it.
struct StoreConnections {
    connections: SmallVec<[Arc<StoreConnection>; 1]>,
    /// How many calls there were, if there is a choice.
    calls: AtomicUsize,
}

/// A call that waits on a stream.
pub(crate) struct Submitted {
    connection: Arc<StoreConnection>,
    id: u64,
}

/// One connection to a store and the calls on its stream.
struct StoreConnection {
    connector: Connector,
    runtime: Arc<dyn Runtime>,
    state: Mutex<State>,
    /// The task that reads and writes the stream.
    task: AtomicWaker,
}

struct State {
    stream: BatchStream<Waiter>,
    /// Whether the task runs. It is started by the first call, and again by the next call after a broken connection.
    running: bool,
    /// Others are used from now on: the stream ends with the last call on it.
    retired: bool,
    closed: bool,
}

/// A stream that can be written and read.
struct OpenStream {
    sender: Sender,
    receiver: Streaming,
    /// Where the answers of a frame are collected. Empty in between; kept for its space.
    answers: Vec<Answer>,
    /// Whether other tasks have had their turn since there are calls to be written.
    gave_way: bool,
}

type Answer = (Waiter, Result<Response, Fault>);

impl StorePool {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, options: NetOptions, limits: BatchLimits) -> Self {
        StorePool { runtime, options, limits, connections: RwLock::default(), closed: AtomicBool::new(false) }
    }

    /// Puts a call on the stream to its store.
    pub(crate) fn submit(&self, waiter: Waiter, call: &Call) -> Result<Submitted, (Waiter, Fault)> {
        let connection = match self.connection(call.store_id, &call.address) {
            Ok(connection) => connection,
            Err(fault) => return Err((waiter, fault)),
        };
        let id = connection.submit(waiter, call)?;
        Ok(Submitted { connection, id })
    }

    /// Makes a call of its own.
    pub(crate) fn unary(&self, call: Call) -> BoxFuture<'static, Result<Response, Fault>> {
        let connection = self.connection(call.store_id, &call.address);
        Box::pin(async move { connection?.unary(call).await })
    }

    /// Has the next call to `address` connect anew. Calls on their way are not disturbed.
    pub(crate) fn reconnect(&self, address: &str) {
        let mut connections = self.connections.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(replaced) = connections.by_address.remove(address) {
            connections.by_store.retain(|_, (_, others)| !Arc::ptr_eq(others, &replaced));
            replaced.connections.iter().for_each(|connection| connection.retire());
        }
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let connections = std::mem::take(&mut *self.connections.write().unwrap_or_else(PoisonError::into_inner));
        for of_address in connections.by_address.into_values() {
            of_address.connections.iter().for_each(|connection| connection.close());
        }
    }

    fn connection(&self, store_id: u64, address: &Arc<str>) -> Result<Arc<StoreConnection>, Fault> {
        let connections = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        let last = connections.by_store.get(&store_id);
        if let Some((_, of_store)) = last.filter(|(known, _)| Arc::ptr_eq(known, address)) {
            return Ok(Arc::clone(of_store.next()));
        }
        drop(connections);
        let mut connections = self.connections.write().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            return Err(fault::closed(address));
        }
        let Connections { by_address, by_store } = &mut *connections;
        let of_address =
            by_address.entry(Arc::clone(address)).or_insert_with(|| Arc::new(self.connections_to(address)));
        by_store.insert(store_id, (Arc::clone(address), Arc::clone(of_address)));
        Ok(Arc::clone(of_address.next()))
    }

    fn connections_to(&self, address: &Arc<str>) -> StoreConnections {
        let count = self.options.connections_per_store.max(1);
        // The limit is one for the store.
        let limits = BatchLimits { in_flight: (self.limits.in_flight / count).max(1), ..self.limits };
        let connection = |_| {
            let runtime = Arc::clone(&self.runtime);
            let connector = Connector::new(Arc::clone(address), Arc::clone(&runtime), self.options.clone());
            let stream = BatchStream::new(Arc::clone(address), limits);
            let state = Mutex::new(State { stream, running: false, retired: false, closed: false });
            Arc::new(StoreConnection { connector, runtime, state, task: AtomicWaker::new() })
        };
        StoreConnections { connections: (0..count).map(connection).collect(), calls: AtomicUsize::new(0) }
    }
}

impl StoreConnections {
    /// The one whose turn it is. Where there is no choice nothing is counted: all threads would write there.
    fn next(&self) -> &Arc<StoreConnection> {
        match &*self.connections {
            [only] => only,
            several => &several[self.calls.fetch_add(1, Ordering::Relaxed) % several.len()],
        }
    }
}

impl State {
    /// Whether all calls in flight are still to be written.
    fn is_store_idle(&self) -> bool {
        self.stream.in_flight() <= self.stream.pending()
    }

    /// Whether there is something to be written that other tasks should be let add to.
    fn is_worth_waiting(&self) -> bool {
        self.stream.has_pending() && (self.stream.pending() < HEAD_START || !self.is_store_idle())
    }
}

impl Submitted {
    /// Forgets the call.
    pub(crate) fn cancel(self) {
        self.connection.lock().stream.cancel(self.id);
    }
}

impl StoreConnection {
    fn submit(self: &Arc<Self>, waiter: Waiter, call: &Call) -> Result<u64, (Waiter, Fault)> {
        let (id, start, wake) = {
            let mut state = self.lock();
            if state.closed {
                return Err((waiter, fault::closed(self.connector.address())));
            }
            let id = state.stream.submit(waiter, call)?;
            let start = !std::mem::replace(&mut state.running, true);
            // Whoever finds calls pending already knows the task woken.
            let pending = state.stream.pending();
            (id, start, pending == 1 || (pending == HEAD_START && state.is_store_idle()))
        };
        if start {
            self.runtime.spawn(Box::pin(Arc::clone(self).run()));
        } else if wake {
            self.task.wake();
        }
        Ok(id)
    }

    async fn unary(&self, call: Call) -> Result<Response, Fault> {
        let address = self.connector.address();
        let kind = call.request.kind();
        let channel = self.channel_before(call.deadline).await?;
        let mut body = BytesMut::with_capacity(call.request.encoded_len_with_context(&call.context));
        call.request.encode_with_context(&call.context, &mut body);
        let rpc = grpc::Call::new(kind.facts().path).with_timeout(call.timeout(self.runtime.now()));
        let reply = channel.unary(rpc, body.freeze()).await.map_err(|error| fault::of_grpc(&error, address))?;
        decode_response(kind, reply.message).map_err(|error| {
            Fault::new(FaultKind::Protocol, Execution::MaybeExecuted, Arc::clone(address))
                .with_detail(error.to_string())
        })
    }

    async fn channel_before(&self, deadline: Time) -> Result<grpc::Channel, Fault> {
        let mut channel = pin!(self.connector.channel());
        let mut timeout = self.runtime.sleep(deadline.saturating_since(self.runtime.now()));
        poll_fn(|cx| {
            if let Poll::Ready(channel) = channel.as_mut().poll(cx) {
                return Poll::Ready(channel);
            }
            timeout
                .as_mut()
                .poll(cx)
                .map(|()| Err(Fault::new(FaultKind::Timeout, Execution::NotSent, Arc::clone(self.connector.address()))))
        })
        .await
    }

    /// Serves the stream until it breaks; then all its calls are answered with the fault.
    async fn run(self: Arc<Self>) {
        let mut timer = Timer::default();
        let fault = match self.open(&mut timer).await {
            Ok((sender, receiver)) => {
                let mut stream = OpenStream { sender, receiver, answers: Vec::new(), gave_way: false };
                poll_fn(|cx| self.poll_stream(cx, &mut stream, &mut timer)).await
            }
            Err(fault) => fault,
        };
        // However a connection ends that is being closed, it ends because of that.
        let is_closed = self.lock().closed;
        self.end(&if is_closed { fault::closed(self.connector.address()) } else { fault });
    }

    async fn open(&self, timer: &mut Timer) -> Result<(Sender, Streaming), Fault> {
        let mut open = pin!(async {
            let channel = self.connector.channel().await?;
            let opened = channel.bidirectional(grpc::Call::new(BATCH_COMMANDS)).await;
            opened.map_err(|error| fault::of_grpc(&error, self.connector.address()))
        });
        poll_fn(|cx| {
            if let Poll::Ready(result) = open.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            if self.lock().closed {
                return Poll::Ready(Err(fault::closed(self.connector.address())));
            }
            // Calls may run out of time before the connection is made.
            self.task.register(cx.waker());
            self.poll_timeouts(cx, timer);
            Poll::Pending
        })
        .await
    }

    fn poll_stream(&self, cx: &mut Context<'_>, stream: &mut OpenStream, timer: &mut Timer) -> Poll<Fault> {
        let OpenStream { sender, receiver, answers, gave_way } = stream;
        self.task.register(cx.waker());
        while let Poll::Ready(message) = receiver.poll_message(cx) {
            let frame = match message {
                Ok(Some(frame)) => frame,
                Ok(None) => return Poll::Ready(self.disconnected("the store ended the stream")),
                Err(error) => return Poll::Ready(fault::of_grpc(&error, self.connector.address())),
            };
            let news = self.lock().stream.handle_frame(frame, |waiter, result| answers.push((waiter, result)));
            deliver(self.runtime.now(), answers.drain(..));
            if let Err(fault) = news {
                return Poll::Ready(fault);
            }
        }
        // Other tasks that can run, to whom an answer has come perhaps, go first: what they submit leaves in the same frame.
        // Runtimes like tokio run a task that was woken before all others, and frames would have one call each.
        *gave_way = !*gave_way && self.lock().is_worth_waiting();
        if *gave_way {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            match sender.poll_ready(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Poll::Ready(fault::of_grpc(&error, self.connector.address())),
                Poll::Ready(Ok(())) => {}
            }
            let Some(frame) = self.lock().stream.poll_frame() else { break };
            let mut batch = sender.batch();
            batch.push_parts(frame.into());
            if let Err(error) = sender.send_batch(batch) {
                return Poll::Ready(fault::of_grpc(&error, self.connector.address()));
            }
        }
        {
            let state = self.lock();
            if state.closed {
                return Poll::Ready(fault::closed(self.connector.address()));
            }
            if state.retired && state.stream.in_flight() == 0 && !state.stream.has_pending() {
                return Poll::Ready(self.disconnected("the connection was replaced"));
            }
        }
        self.poll_timeouts(cx, timer);
        Poll::Pending
    }

    fn poll_timeouts(&self, cx: &mut Context<'_>, timer: &mut Timer) {
        loop {
            let due = self.lock().stream.poll_timeout();
            if !timer.poll(cx, &*self.runtime, due) {
                return;
            }
            let mut answers = Vec::new();
            let now = self.runtime.now();
            self.lock().stream.handle_timeout(now, |waiter, result| answers.push((waiter, result)));
            deliver(now, answers);
        }
    }

    fn end(&self, fault: &Fault) {
        let mut answers = Vec::new();
        {
            let mut state = self.lock();
            state.running = false;
            state.stream.close(fault.kind, &fault.detail, |waiter, result| answers.push((waiter, result)));
        }
        deliver(self.runtime.now(), answers);
    }

    fn retire(&self) {
        self.lock().retired = true;
        self.task.wake();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.connector.close();
        self.task.wake();
    }

    fn disconnected(&self, detail: &'static str) -> Fault {
        let address = Arc::clone(self.connector.address());
        Fault::new(FaultKind::Disconnected, Execution::MaybeExecuted, address).with_detail(detail)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn deliver(now: Time, answers: impl IntoIterator<Item = Answer>) {
    for (waiter, result) in answers {
        waiter.deliver(now, Event::Reply(result));
    }
}

/// One timer for all calls of a stream.
#[derive(Default)]
pub(super) struct Timer(Option<(Time, BoxFuture<'static, ()>)>);

impl Timer {
    /// Whether `due` has come. If not, the task is woken when it does; an earlier wake-up is possible and harmless.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, runtime: &dyn Runtime, due: Option<Time>) -> bool {
        let Some(due) = due else { return false };
        let now = runtime.now();
        if due <= now {
            self.0 = None;
            return true;
        }
        // A timer that fires too early costs one look; making a new one for every change costs more.
        if self.0.as_ref().is_none_or(|(set_for, _)| *set_for > due) {
            self.0 = Some((due, runtime.sleep(due.saturating_since(now))));
        }
        let Some((_, sleep)) = &mut self.0 else { return false };
        if sleep.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.0 = None;
        let now = runtime.now();
        if due <= now {
            return true;
        }
        // Fired for an earlier time: set it for this one.
        let mut sleep = runtime.sleep(due.saturating_since(now));
        let fired = sleep.as_mut().poll(cx).is_ready();
        self.0 = Some((due, sleep));
        fired
    }
}
