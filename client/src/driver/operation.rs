//! One machine on one task.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use smallvec::SmallVec;
use tikv_core::error::PdError;
use tikv_core::keyspace::KeyCodec;
use tikv_core::machine::{self, Abandoned, Call, Command, Event, Machine, Outbox, Token};
use tikv_core::pd::QuestionId;
use tikv_core::request::pd::PdRequest;
use tikv_core::rng::Rng;
use tikv_core::time::Time;
use tracing::Span;

use super::mailbox::Delivery;
use super::{Mailbox, Shared, Waiter};
use crate::check::CommitChecker;
use crate::interceptor::{Interceptors, Watched};
use crate::net::Submitted;
use crate::observe;
use crate::runtime::BoxFuture;

/// Drives `M` to its end on the task that polls it.
///
/// Dropped before the end, it asks the machine what is to become of it: most are simply forgotten, and what they wait for
/// is cancelled; one that has begun something that must be finished goes on as a task of its own.
pub(crate) struct Operation<M: Machine + Send + 'static>
where
    M::Output: Send,
{
    /// `None` once it has ended or moved on.
    running: Option<Running<M>>,
}

struct Running<M> {
    machine: M,
    codec: KeyCodec,
    shared: Arc<Shared>,
    interceptors: Interceptors,
    rng: Rng,
    /// The name of its next command.
    next_token: Token,
    /// When what it deals with happened. Never goes back.
    now: Time,
    mailbox: Arc<Mailbox>,
    /// One, most of the time.
    waits: SmallVec<[Wait; 1]>,
    /// Who is asked whether a transaction may commit.
    check: Option<CommitChecker>,
    started: bool,
    /// It runs without an owner: its output interests nobody, and it is not handed on again.
    detached: bool,
}

/// A command whose answer is waited for.
struct Wait {
    token: Token,
    on: WaitOn,
    /// Somebody looks at the call.
    watched: Option<Box<Watched>>,
    /// Open until the answer is taken, or no longer waited for; `None` if nobody traces.
    _span: Option<Box<Span>>,
}

enum WaitOn {
    /// A call on a store's BatchCommands stream.
    Batch(Submitted),
    /// A call or timer that runs on this very task.
    Future(BoxFuture<'static, Event>),
    /// A question to PD.
    Pd(QuestionId),
    /// Answered already; the event is in the mailbox.
    Nothing,
}

impl<M: Machine + Send + 'static> Operation<M>
where
    M::Output: Send,
{
    pub(crate) fn new(shared: &Arc<Shared>, interceptors: &Interceptors, codec: KeyCodec, machine: M) -> Self {
        Operation { running: Some(Running::new(shared, interceptors, codec, machine, false)) }
    }

    /// Runs `machine` on a task of its own, without an owner.
    pub(crate) fn spawn(shared: &Arc<Shared>, interceptors: &Interceptors, codec: KeyCodec, machine: M) {
        Operation { running: Some(Running::new(shared, interceptors, codec, machine, true)) }.detach();
    }

    /// The same, with somebody who is asked whether the transaction may commit.
    pub(crate) fn checked_by(mut self, check: Option<CommitChecker>) -> Self {
        if let Some(running) = &mut self.running {
            running.check = check;
        }
        self
    }

    /// Gives the operation up, unless it has begun something that must be finished: then nothing has changed, and it can be
    /// waited for.
    pub(crate) fn give_up(&mut self) -> bool {
        let Some(running) = self.running.as_mut() else { return true };
        if running.started && running.abandon() == Abandoned::FinishInBackground {
            return false;
        }
        running.cancel_waits();
        self.running = None;
        true
    }

    fn detach(self) {
        let Some(shared) = self.running.as_ref().map(|running| Arc::clone(&running.shared)) else { return };
        let Some(ticket) = shared.background.enter() else {
            // Whatever it would have cleaned up is left to those who meet it.
            tracing::warn!("too many background tasks: one is dropped");
            return;
        };
        shared.runtime.spawn(Box::pin(async move {
            self.await;
            drop(ticket);
        }));
    }
}

impl<M: Machine + Send + 'static> Future for Operation<M>
where
    M::Output: Send,
{
    type Output = M::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<M::Output> {
        // Polled after the end, a future may do anything but panic in its caller; this one never ends.
        let Some(running) = self.running.as_mut() else { return Poll::Pending };
        let poll = running.poll(cx);
        if poll.is_ready() {
            running.cancel_waits();
            self.running = None;
        }
        poll
    }
}

impl<M: Machine + Send + 'static> Unpin for Operation<M> where M::Output: Send {}

impl<M: Machine + Send + 'static> Drop for Operation<M>
where
    M::Output: Send,
{
    fn drop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        if running.started && !running.detached && running.abandon() == Abandoned::FinishInBackground {
            running.detached = true;
            Operation { running: Some(running) }.detach();
        } else {
            running.cancel_waits();
        }
    }
}

impl<M: Machine> Running<M> {
    fn new(shared: &Arc<Shared>, interceptors: &Interceptors, codec: KeyCodec, machine: M, detached: bool) -> Self {
        Running {
            machine,
            codec,
            rng: shared.child_rng(),
            shared: Arc::clone(shared),
            interceptors: interceptors.clone(),
            next_token: Token::default(),
            now: Time::ZERO,
            mailbox: Arc::new(Mailbox::default()),
            waits: SmallVec::new(),
            check: None,
            started: false,
            detached,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<M::Output> {
        if !self.started {
            self.started = true;
            self.now = self.shared.runtime.now();
            if let Poll::Ready(output) = self.step(Machine::start) {
                return Poll::Ready(output);
            }
        }
        while let Some((token, event)) = self.next_event(cx) {
            if let Poll::Ready(output) = self.step(|machine, cx| machine.handle(cx, token, event)) {
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    }

    fn step<T>(&mut self, step: impl FnOnce(&mut M, &mut machine::Context<'_>) -> T) -> T {
        let shared = &self.shared;
        let mut outbox = Outbox::continued(self.next_token);
        let mut cx =
            machine::Context::new(self.now, &mut self.rng, shared.knowledge(self.codec), &shared.config, &mut outbox);
        let result = step(&mut self.machine, &mut cx);
        self.next_token = outbox.next_token();
        while let Some(command) = outbox.pop() {
            self.carry_out(command);
        }
        result
    }

    /// The next event for a command that is still waited for.
    fn next_event(&mut self, cx: &mut Context<'_>) -> Option<(Token, Event)> {
        while let Poll::Ready(Delivery { token, event, at }) = self.mailbox.poll_pop(cx) {
            if let Some(wait) = self.take_wait(token) {
                self.now = self.now.max(at);
                self.show_end(&wait, Some(&event));
                return Some((token, event));
            }
        }
        for index in 0..self.waits.len() {
            let WaitOn::Future(future) = &mut self.waits[index].on else { continue };
            if let Poll::Ready(event) = future.as_mut().poll(cx) {
                let wait = self.waits.swap_remove(index);
                self.now = self.shared.runtime.now();
                self.show_end(&wait, Some(&event));
                return Some((wait.token, event));
            }
        }
        None
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Call(call) => self.call(call),
            Command::Pd { token, request } => self.ask_pd(token, request),
            Command::CheckCommit { token, start_ts, commit_ts } => {
                let Some(check) = &self.check else {
                    let nobody = Err(Arc::from("nobody is there to be asked"));
                    Waiter::new(&self.mailbox, token).deliver(self.now, Event::Checked(nobody));
                    self.wait(token, WaitOn::Nothing);
                    return;
                };
                let answer = check.ask(start_ts, commit_ts);
                let checked = async move { Event::Checked(answer.await.map_err(Arc::from)) };
                self.wait(token, WaitOn::Future(Box::pin(checked)));
            }
            Command::Sleep { token, until, .. } => {
                let sleep = self.shared.runtime.sleep(until.saturating_since(self.now));
                let woken = async move {
                    sleep.await;
                    Event::Woken
                };
                self.wait(token, WaitOn::Future(Box::pin(woken)));
            }
            Command::Cancel { token } => {
                if let Some(wait) = self.take_wait(token) {
                    self.cancel(wait);
                }
            }
            Command::Reconnect { address } => self.shared.stores.reconnect(&address),
            Command::Spawn(machine) => {
                Operation::spawn(&self.shared, &self.interceptors, self.codec, machine);
            }
            Command::Observe(observation) => observe::observation(&observation),
        }
    }

    fn call(&mut self, mut call: Call) {
        let token = call.token;
        let watched = self.interceptors.before(self.now, &mut call);
        let span = observe::call_span(&call);
        if call.request.kind().batch_slot().is_none() {
            let future = self.shared.stores.unary(call);
            let reply = async move { Event::Reply(future.await) };
            self.waits.push(Wait { token, on: WaitOn::Future(Box::pin(reply)), watched, _span: span });
            return;
        }
        let waiter = Waiter::new(&self.mailbox, token);
        let on = match self.shared.stores.submit(waiter, &call) {
            Ok(submitted) => WaitOn::Batch(submitted),
            Err((waiter, fault)) => {
                waiter.deliver(self.now, Event::Reply(Err(fault)));
                WaitOn::Nothing
            }
        };
        self.waits.push(Wait { token, on, watched, _span: span });
    }

    fn ask_pd(&mut self, token: Token, request: PdRequest) {
        let deadline = self.now + self.shared.config.pd_timeout;
        let on = match self.shared.pd.submit(self.now, Waiter::new(&self.mailbox, token), request, deadline) {
            Ok(question) => WaitOn::Pd(question),
            Err(waiter) => {
                waiter.deliver(self.now, Event::Pd(Err(PdError::Closed)));
                WaitOn::Nothing
            }
        };
        self.wait(token, on);
    }

    fn wait(&mut self, token: Token, on: WaitOn) {
        self.waits.push(Wait { token, on, watched: None, _span: None });
    }

    /// Shows who looks how a call ended; `None` if nobody waits for it any more.
    fn show_end(&self, wait: &Wait, event: Option<&Event>) {
        let Some(watched) = &wait.watched else { return };
        let reply = match event {
            Some(Event::Reply(reply)) => Some(reply.as_ref()),
            _ => None,
        };
        watched.after(self.shared.runtime.now(), reply);
    }

    fn take_wait(&mut self, token: Token) -> Option<Wait> {
        let index = self.waits.iter().position(|wait| wait.token == token)?;
        Some(self.waits.swap_remove(index))
    }

    fn cancel(&self, wait: Wait) {
        self.show_end(&wait, None);
        match wait.on {
            WaitOn::Batch(submitted) => submitted.cancel(),
            WaitOn::Pd(question) => self.shared.pd.cancel(question),
            WaitOn::Future(_) | WaitOn::Nothing => {}
        }
    }

    fn cancel_waits(&mut self) {
        for wait in std::mem::take(&mut self.waits) {
            self.cancel(wait);
        }
    }

    fn abandon(&mut self) -> Abandoned {
        self.now = self.shared.runtime.now();
        self.step(Machine::abandon)
    }
}
