//! Messages to PD and back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tikv_core::error::{Execution, Fault, FaultKind};
use tikv_core::pd::{PdEffect, PdInput, StreamId};
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;

use super::pd_facts::{answered, asked};
use super::{Event, PdAsk, World, fault};
use crate::pd::PdCall;
use crate::simulate::check::Check;
use crate::simulate::client::{ClientId, Stream};
use crate::simulate::network::Way;
use crate::simulate::trace::{Entry, Node, TraceKind};

/// `host:port` of a URL.
pub(super) fn address(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, address)| address)
}

impl World {
    pub(super) fn carry_out_pd(&mut self, index: usize, effect: PdEffect) {
        match effect {
            PdEffect::Call { call, address, path, body, .. } => self.send_unary(index, call, &address, path, body),
            PdEffect::CancelCall { .. } => {}
            PdEffect::OpenStream { stream, address, path } => self.open_stream(index, stream, &address, path),
            PdEffect::Send { stream, body } => self.send_on_stream(index, stream, body),
            PdEffect::CloseStream { stream } => {
                self.clients[index].streams.remove(&stream);
            }
        }
    }

    fn member_at(&self, wanted: &str) -> Option<u64> {
        let members = self.cluster.pd().members().iter();
        members.filter(|member| address(&member.client_url) == wanted).map(|member| member.id).next()
    }

    fn is_member_running(&self, id: u64) -> bool {
        self.cluster.pd().members().iter().any(|member| member.id == id && member.running)
    }

    fn send_unary(
        &mut self,
        index: usize,
        call: tikv_core::pd::CallId,
        address: &Arc<str>,
        path: &'static str,
        body: Bytes,
    ) {
        let client = self.clients[index].id;
        let message = self.next_message();
        let member = self.member_at(address).filter(|member| self.is_member_running(*member));
        let node = Node::Pd(member.unwrap_or_default());
        self.trace_pd(client, node, TraceKind::Request(path), message, || asked(path, &body));
        let Some(member) = member else {
            let unreachable = fault(FaultKind::Unreachable, Execution::NotSent, address);
            let at = self.network.arrival(self.now);
            self.tell(at, client, 0, PdInput::Reply { call, result: Err(unreachable) }, message);
            return;
        };
        let fate = self.network.fate(self.now, client.number, node, Way::Request);
        match fate.arrives {
            Some(at) => {
                self.send(at, Event::AtPd { client, member, ask: PdAsk::Unary(call), path, body, message });
            }
            None => {
                self.totals.lost += 1;
                self.trace_pd(client, node, TraceKind::Lost(path), message, String::new);
                // A client may notice, or not; it watches the time itself.
                if self.rng.below(2) == 0 {
                    let broken_off = self.now + self.connection_timeout();
                    let disconnected = fault(FaultKind::Disconnected, Execution::MaybeExecuted, address);
                    self.tell(broken_off, client, member, PdInput::Reply { call, result: Err(disconnected) }, message);
                }
            }
        }
    }

    fn connection_timeout(&self) -> Duration {
        Duration::from_millis(self.scenario.options.connection_timeout_ms.into())
    }

    fn open_stream(&mut self, index: usize, stream: StreamId, address: &Arc<str>, path: &'static str) {
        let client = self.clients[index].id;
        match self.member_at(address).filter(|member| self.is_member_running(*member)) {
            Some(member) => {
                let opened = Stream { member, path, sent_until: self.now, received_until: self.now };
                self.clients[index].streams.insert(stream, opened);
            }
            None => {
                let fault = fault(FaultKind::Unreachable, Execution::NotSent, address);
                let at = self.network.arrival(self.now);
                self.tell(at, client, 0, PdInput::StreamClosed { stream, fault }, 0);
            }
        }
    }

    fn send_on_stream(&mut self, index: usize, id: StreamId, body: Bytes) {
        let client = self.clients[index].id;
        let Some(stream) = self.clients[index].streams.get(&id) else { return };
        let (member, path, sent_until) = (stream.member, stream.path, stream.sent_until);
        let message = self.next_message();
        let node = Node::Pd(member);
        self.trace_pd(client, node, TraceKind::Request(path), message, || asked(path, &body));
        let fate = self.network.fate(self.now, client.number, node, Way::Request);
        let Some(at) = fate.arrives else { return self.break_stream(index, id, message, Way::Request) };
        let at = after(at, sent_until);
        if let Some(stream) = self.clients[index].streams.get_mut(&id) {
            stream.sent_until = at;
        }
        self.send(at, Event::AtPd { client, member, ask: PdAsk::Stream(id), path, body, message });
    }

    /// A stream that loses a message is broken. The client may hear of it, or not.
    fn break_stream(&mut self, index: usize, id: StreamId, message: u64, way: Way) {
        self.totals.lost += 1;
        let client = self.clients[index].id;
        let Some(stream) = self.clients[index].streams.remove(&id) else { return };
        let node = Node::Pd(stream.member);
        match way {
            Way::Request => self.trace_pd(client, node, TraceKind::Lost(stream.path), message, String::new),
            Way::Reply => self.trace_lost_answer(client, node, stream.path, message),
        }
        if self.rng.below(2) == 0 {
            let at = self.now + self.connection_timeout();
            self.close_stream(at, client, stream.member, id);
        }
    }

    fn close_stream(&mut self, at: Time, client: ClientId, member: u64, stream: StreamId) {
        let fault = fault(FaultKind::Disconnected, Execution::MaybeExecuted, &self.member_address(member));
        self.tell(at, client, member, PdInput::StreamClosed { stream, fault }, 0);
    }

    fn member_address(&self, id: u64) -> Arc<str> {
        let member = self.cluster.pd().members().iter().find(|member| member.id == id);
        Arc::from(member.map_or("", |member| address(&member.client_url)))
    }

    /// All streams to a member that has died end.
    pub(super) fn close_streams_to(&mut self, member: u64) {
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            let of_member = |stream: &&Stream| stream.member == member;
            let ended: Vec<StreamId> =
                client.streams.iter().filter(|(_, stream)| of_member(stream)).map(|(id, _)| *id).collect();
            let id = client.id;
            for stream in ended {
                self.clients[index].streams.remove(&stream);
                let at = self.network.arrival(self.now);
                self.close_stream(at, id, member, stream);
            }
        }
    }

    pub(super) fn at_pd(
        &mut self,
        client: ClientId,
        member: u64,
        ask: PdAsk,
        path: &'static str,
        body: Bytes,
        message: u64,
    ) -> Check {
        let node = Node::Pd(member);
        self.trace.add(self.now, Entry { message, ..Entry::at(node, TraceKind::Arrived(path)) }, String::new);
        let call = PdCall { member, path, ..PdCall::default() };
        let address = self.member_address(member);
        let runs = self.is_member_running(member);
        let answer = if runs {
            let answer = self.cluster.handle_pd(self.now, &call, body);
            self.observe_changes(Some(node))?;
            answer.map_err(|status| {
                let fault = fault(FaultKind::Status(status.code as u32), Execution::MaybeExecuted, &address);
                fault.with_detail(status.message.as_str())
            })
        } else {
            Err(fault(FaultKind::Disconnected, Execution::MaybeExecuted, &address))
        };
        self.answer_pd(client, member, ask, path, answer, message);
        Ok(())
    }

    fn answer_pd(
        &mut self,
        client: ClientId,
        member: u64,
        ask: PdAsk,
        path: &'static str,
        answer: Result<Bytes, Fault>,
        message: u64,
    ) {
        let node = Node::Pd(member);
        self.note_answer(client, node, path, &answer, message);
        let fate = self.network.fate(self.now, client.number, node, Way::Reply);
        match (ask, fate.arrives) {
            (PdAsk::Unary(call), Some(at)) => {
                self.tell(at, client, member, PdInput::Reply { call, result: answer }, message);
            }
            (PdAsk::Unary(_), None) => {
                self.totals.lost += 1;
                self.trace_lost_answer(client, node, path, message);
            }
            (PdAsk::Stream(stream), arrives) => {
                let Some(index) = self.client(client) else { return };
                let Some(at) = arrives else { return self.break_stream(index, stream, message, Way::Reply) };
                let Some(open) = self.clients[index].streams.get_mut(&stream) else { return };
                let at = after(at, open.received_until);
                open.received_until = at;
                let input = match answer {
                    Ok(body) => PdInput::StreamMessage { stream, body },
                    Err(fault) => {
                        self.clients[index].streams.remove(&stream);
                        PdInput::StreamClosed { stream, fault }
                    }
                };
                self.tell(at, client, member, input, message);
            }
        }
    }

    fn tell(&mut self, at: Time, client: ClientId, member: u64, input: PdInput, message: u64) {
        self.send(at, Event::FromPd { client, member, input: Box::new(input), message });
    }

    pub(super) fn hear_of_pd(&mut self, client: ClientId, member: u64, input: PdInput, message: u64) -> Check {
        let Some(index) = self.client(client) else {
            self.note_unheard(client, Node::Pd(member), message);
            return Ok(());
        };
        let name = match &input {
            PdInput::Reply { result: Ok(_), .. } | PdInput::StreamMessage { .. } => "a reply",
            PdInput::Reply { .. } => "a fault",
            PdInput::StreamClosed { .. } => "the end of a stream",
        };
        let (from, to) = (Node::Pd(member), Node::Client(client.number));
        let entry = Entry { from, to, kind: TraceKind::Answered(name), message, txn: Timestamp::ZERO, key: None };
        self.trace.add(self.now, entry, || match &input {
            PdInput::Reply { result: Err(fault), .. } | PdInput::StreamClosed { fault, .. } => fault.to_string(),
            _ => String::new(),
        });
        self.step(index, |engine, now| engine.handle_pd(now, input))
    }

    fn trace_pd(&mut self, client: ClientId, to: Node, kind: TraceKind, message: u64, detail: impl FnOnce() -> String) {
        let from = Node::Client(client.number);
        self.trace.add(self.now, Entry { from, to, kind, message, txn: Timestamp::ZERO, key: None }, detail);
    }

    fn trace_lost_answer(&mut self, client: ClientId, from: Node, path: &'static str, message: u64) {
        let (to, kind) = (Node::Client(client.number), TraceKind::Lost(path));
        self.trace.add(self.now, Entry { from, to, kind, message, txn: Timestamp::ZERO, key: None }, String::new);
    }

    fn note_answer(
        &mut self,
        client: ClientId,
        from: Node,
        path: &'static str,
        answer: &Result<Bytes, Fault>,
        message: u64,
    ) {
        let (to, kind) = (Node::Client(client.number), TraceKind::Reply(path));
        let entry = Entry { from, to, kind, message, txn: Timestamp::ZERO, key: None };
        self.trace.note(self.now, entry, || match answer {
            Ok(body) => answered(path, body),
            Err(fault) => fault.to_string(),
        });
    }
}

/// Not before, and not together with, the message in front.
fn after(at: Time, front: Time) -> Time {
    at.max(front + Duration::from_nanos(1))
}
