//! The connection to PD: carries out what core's PD client wants.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use futures::task::AtomicWaker;
use tikv_core::error::{Execution, Fault, FaultKind, PdError};
use tikv_core::machine::Event;
use tikv_core::pd::{CallId, PdClient, PdEffect, PdInput, QuestionId, StreamId};
use tikv_core::request::pd::{PdRequest, PdResponse};
use tikv_core::time::Time;
use tikv_grpc::{self as grpc, Sender, Streaming};

use super::connection::{Connector, NetOptions};
use super::fault;
use super::store::Timer;
use crate::driver::{KeySpaces, Waiter};
use crate::runtime::{BoxFuture, Runtime};

/// PD, as all operations of a client share it. A task of its own ([`PdService::run`]) does the I/O.
pub(crate) struct PdService {
    state: Mutex<State>,
    task: AtomicWaker,
}

struct State {
    client: PdClient<Waiter>,
    /// The task has been woken and has not looked yet.
    is_woken: bool,
    /// When the task looks by itself.
    due: Time,
    closed: bool,
}

impl PdService {
    pub(crate) fn new(client: PdClient<Waiter>) -> Self {
        PdService {
            state: Mutex::new(State { client, is_woken: false, due: Time::ZERO, closed: false }),
            task: AtomicWaker::new(),
        }
    }

    /// Asks PD; the answer goes to `waiter`, who comes back if the client is closed.
    pub(crate) fn submit(
        &self,
        now: Time,
        waiter: Waiter,
        request: PdRequest,
        deadline: Time,
    ) -> Result<QuestionId, Waiter> {
        let mut state = self.lock();
        if state.closed {
            return Err(waiter);
        }
        // The next message from PD, or the next timer, has the task look at it.
        let can_wait = deadline >= state.due && state.client.would_queue(&request);
        let question = state.client.submit(now, waiter, request, deadline);
        let wake = !can_wait && !std::mem::replace(&mut state.is_woken, true);
        drop(state);
        if wake {
            self.task.wake();
        }
        Ok(question)
    }

    /// Forgets a question. Whatever is left to be done for that, is done when the task next looks.
    pub(crate) fn cancel(&self, question: QuestionId) {
        self.lock().client.cancel(question);
    }

    pub(crate) fn cluster_id(&self) -> Option<u64> {
        self.lock().client.cluster_id()
    }

    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.client.close();
        drop(state);
        self.task.wake();
    }

    /// Serves until the client is closed.
    pub(crate) async fn run(self: Arc<Self>, runtime: Arc<dyn Runtime>, net: NetOptions, knowledge: Arc<KeySpaces>) {
        let task = Task {
            service: self,
            runtime,
            net,
            knowledge,
            connectors: BTreeMap::new(),
            calls: FuturesUnordered::new(),
            streams: BTreeMap::new(),
            timer: Timer::default(),
            batch: Batch::default(),
        };
        task.await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Task {
    service: Arc<PdService>,
    runtime: Arc<dyn Runtime>,
    net: NetOptions,
    knowledge: Arc<KeySpaces>,
    connectors: BTreeMap<Arc<str>, Arc<Connector>>,
    calls: FuturesUnordered<BoxFuture<'static, (CallId, Result<Bytes, Fault>)>>,
    streams: BTreeMap<StreamId, Stream>,
    timer: Timer,
    batch: Batch,
}

/// What one look at the client and at the network brings. Empty in between; kept for its space.
#[derive(Default)]
struct Batch {
    completions: Completions,
    effects: Vec<PdEffect>,
    inputs: Vec<PdInput>,
}

/// One bidirectional stream, opened while messages for it may already wait.
struct Stream {
    address: Arc<str>,
    phase: StreamPhase,
    /// Bounded by the requests that core has in flight on it.
    outgoing: VecDeque<Bytes>,
}

enum StreamPhase {
    Opening(BoxFuture<'static, Result<(Sender, Streaming), Fault>>),
    Open(Box<(Sender, Streaming)>),
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = &mut *self;
        task.service.task.register(cx.waker());
        loop {
            if task.serve_client() {
                return Poll::Ready(());
            }
            task.poll_network(cx);
            let now = task.runtime.now();
            let mut state = task.service.lock();
            let due = state.client.poll_timeout().map(|(due, _)| due);
            state.due = due.unwrap_or(Time::MAX);
            let timed_out = task.timer.poll(cx, &*task.runtime, due);
            if task.batch.inputs.is_empty() && !timed_out {
                return Poll::Pending;
            }
            for input in task.batch.inputs.drain(..) {
                state.client.handle(now, input);
            }
            if timed_out {
                state.client.handle_timeout(task.runtime.now());
            }
        }
    }
}

impl Task {
    /// Hands out what the client has answered and carries out what it wants. True when all is over.
    fn serve_client(&mut self) -> bool {
        let Batch { completions, effects, .. } = &mut self.batch;
        let closed = {
            let mut state = self.service.lock();
            state.is_woken = false;
            completions.extend(std::iter::from_fn(|| state.client.poll_completion()));
            effects.extend(std::iter::from_fn(|| state.client.poll_effect()));
            state.closed
        };
        if !completions.is_empty() {
            deliver(self.runtime.now(), &self.knowledge, completions);
        }
        if closed {
            return true;
        }
        let mut effects = std::mem::take(effects);
        effects.drain(..).for_each(|effect| self.carry_out(effect));
        self.batch.effects = effects;
        false
    }

    fn carry_out(&mut self, effect: PdEffect) {
        match effect {
            PdEffect::Call { call, address, path, body, timeout } => {
                let connector = self.connector(&address);
                self.calls.push(Box::pin(async move {
                    let result = async {
                        let channel = connector.channel().await?;
                        let reply = channel.unary(grpc::Call::new(path).with_timeout(timeout), body).await;
                        reply.map(|reply| reply.message).map_err(|error| fault::of_grpc(&error, &address))
                    };
                    (call, result.await)
                }));
            }
            // The reply of a call that was given up is ignored; its own timeout ends it.
            PdEffect::CancelCall { .. } => {}
            PdEffect::OpenStream { stream, address, path } => {
                let connector = self.connector(&address);
                let at = Arc::clone(&address);
                let opening = async move {
                    let channel = connector.channel().await?;
                    let opened = channel.bidirectional(grpc::Call::new(path)).await;
                    opened.map_err(|error| fault::of_grpc(&error, &at))
                };
                let phase = StreamPhase::Opening(Box::pin(opening));
                self.streams.insert(stream, Stream { address, phase, outgoing: VecDeque::new() });
            }
            PdEffect::Send { stream, body } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.outgoing.push_back(body);
                }
            }
            PdEffect::CloseStream { stream } => {
                self.streams.remove(&stream);
            }
        }
    }

    fn poll_network(&mut self, cx: &mut Context<'_>) {
        let inputs = &mut self.batch.inputs;
        while let Poll::Ready(Some((call, result))) = self.calls.poll_next_unpin(cx) {
            inputs.push(PdInput::Reply { call, result });
        }
        let mut closed = Vec::new();
        for (id, stream) in &mut self.streams {
            if let Poll::Ready(fault) =
                stream.poll(cx, |body| inputs.push(PdInput::StreamMessage { stream: *id, body }))
            {
                closed.push((*id, fault));
            }
        }
        for (stream, fault) in closed {
            self.streams.remove(&stream);
            inputs.push(PdInput::StreamClosed { stream, fault });
        }
    }

    fn connector(&mut self, address: &Arc<str>) -> Arc<Connector> {
        let connector = self.connectors.entry(Arc::clone(address)).or_insert_with(|| {
            Arc::new(Connector::new(Arc::clone(address), Arc::clone(&self.runtime), self.net.clone()))
        });
        Arc::clone(connector)
    }
}

/// The answers to questions, and who asked.
type Completions = Vec<(Waiter, Result<PdResponse, PdError>)>;

fn deliver(now: Time, knowledge: &KeySpaces, completions: &mut Completions) {
    // Of a batch the last one says most.
    let timestamps = completions.iter().filter_map(|(_, result)| match result {
        Ok(PdResponse::Timestamp(timestamp)) => Some(*timestamp),
        _ => None,
    });
    if let Some(newest) = timestamps.max() {
        knowledge.raw.clock.learn(now, newest);
        knowledge.txn.clock.learn(now, newest);
    }
    for (waiter, result) in completions.drain(..) {
        waiter.deliver(now, Event::Pd(result));
    }
}

impl Stream {
    /// Ready when the stream has ended.
    fn poll(&mut self, cx: &mut Context<'_>, mut received: impl FnMut(Bytes)) -> Poll<Fault> {
        if let StreamPhase::Opening(opening) = &mut self.phase {
            match opening.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(fault)) => return Poll::Ready(fault),
                Poll::Ready(Ok(opened)) => self.phase = StreamPhase::Open(Box::new(opened)),
            }
        }
        let StreamPhase::Open(open) = &mut self.phase else { return Poll::Pending };
        let (sender, receiver) = &mut **open;
        for body in self.outgoing.drain(..) {
            if let Err(error) = sender.send(body) {
                return Poll::Ready(fault::of_grpc(&error, &self.address));
            }
        }
        loop {
            match receiver.poll_message(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(body))) => received(body),
                Poll::Ready(Ok(None)) => {
                    let fault =
                        Fault::new(FaultKind::Disconnected, Execution::MaybeExecuted, Arc::clone(&self.address));
                    return Poll::Ready(fault.with_detail("PD ended the stream"));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(fault::of_grpc(&error, &self.address)),
            }
        }
    }
}
