//! Calls to stores, on their way there and back.

use std::time::Duration;

use tikv_core::engine::StoreCallId;
use tikv_core::error::{Execution, Fault, FaultKind};
use tikv_core::key::Key;
use tikv_core::machine::Call;
use tikv_core::request::{Access, Request, RequestKind, Response};
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_proto::errorpb;
use tikv_proto::kvrpcpb::CommitRole;

use super::request_facts::{facts, keys};
use super::{Ailment, Event, StoreMessage, World, fault};
use crate::cluster::{Served, StoreReply, region_error};
use crate::simulate::check::{Check, Deciding};
use crate::simulate::client::ClientId;
use crate::simulate::network::Way;
use crate::simulate::trace::{Entry, More, Node, TraceKind};
use crate::status::CallError;

/// How much of a message is shown.
const SHOWN_CHARS: usize = 600;

impl World {
    // ---- There ----

    pub(super) fn send_call(&mut self, index: usize, id: StoreCallId, call: Box<Call>) -> Check {
        self.check_sent(&call.request)?;
        let client = self.clients[index].id;
        let message = self.next_message();
        let found = self.store_at(&call.address);
        let node = Node::Store(found.unwrap_or(call.store_id));
        let name = call.request.kind().facts().name;
        self.trace_call(client, node, TraceKind::Request(name), message, &call, shown_request);
        let Some(store) = found else {
            let fault = fault(FaultKind::Unreachable, Execution::NotSent, &call.address);
            let at = self.network.arrival(self.now);
            self.answer_at(at, client, id, message, node, Err(fault));
            return Ok(());
        };

        let fate = self.network.fate(self.now, client.number, node, Way::Request);
        let may_double = !(is_raw_write(&call.request));
        let again = fate.again.filter(|_| may_double);
        let life = self.stores.get(&store).map_or(0, |state| state.life);
        let deadline = self.clients[index].clock.global(call.deadline);
        let mut sent = StoreMessage {
            client,
            id,
            call,
            message,
            store,
            life,
            unheard: false,
            is_double: again.is_some(),
            is_second: false,
            is_late: false,
        };
        if let Some(at) = again {
            self.totals.duplicated += 1;
            self.trace_message(&sent, TraceKind::Duplicated(sent.call.request.kind().facts().name));
            let double = StoreMessage { call: sent.call.clone(), unheard: true, is_second: true, ..sent };
            self.send(at, Event::AtStore(Box::new(double)));
            if fate.arrives.is_none() {
                self.doubles.insert(message);
            }
        }
        match fate.arrives {
            Some(at) => {
                if at >= deadline {
                    sent.unheard = true;
                    self.hear_nothing(&sent, FaultKind::Timeout, deadline);
                }
                self.send(at, Event::AtStore(Box::new(sent)));
            }
            None if fate.is_cut && !sent.is_double && self.rng.below(2) == 0 => {
                // A new connection is tried, in vain.
                let unreachable = fault(FaultKind::Unreachable, Execution::NotSent, &sent.call.address);
                let at = self.network.arrival(self.now);
                self.answer_at(at.min(deadline), client, id, message, node, Err(unreachable));
            }
            None => self.lose(&sent, Way::Request),
        }
        Ok(())
    }

    /// Who has given up sends no more locks; and what decides transactions is remembered.
    fn check_sent(&mut self, request: &Request) -> Check {
        match request {
            Request::Prewrite(prewrite) => {
                let deciding = match (prewrite.try_one_pc, prewrite.use_async_commit) {
                    (true, _) => Deciding::Request,
                    (false, true) => Deciding::AllLocks,
                    (false, false) => Deciding::Primary,
                };
                self.history.prewrite_sent(Timestamp::from_version(prewrite.start_version), deciding)?;
            }
            Request::Flush(flush) => {
                let primary = Key::from(flush.primary_key.clone());
                self.history.flush_sent(Timestamp::from_version(flush.start_ts), &primary, flush.generation)?;
            }
            Request::BroadcastTxnStatus(told) => {
                for status in told.txn_status.iter().filter(|status| status.is_completed) {
                    self.history.completion_told(Timestamp::from_version(status.start_ts))?;
                }
            }
            Request::TxnHeartBeat(beat) => {
                self.history.heartbeat_sent(Timestamp::from_version(beat.start_version))?;
            }
            Request::PessimisticLock(lock) => {
                self.history.lock_sent(Timestamp::from_version(lock.start_version))?;
            }
            Request::PessimisticRollback(release) => {
                let start_ts = Timestamp::from_version(release.start_version);
                if !self.may_be_ended_by_others(start_ts) {
                    let up_to = Timestamp::from_version(release.for_update_ts);
                    self.history.release_sent(start_ts, &release.keys, up_to)?;
                }
            }
            Request::Commit(commit) if commit.commit_role() == CommitRole::Primary => {
                self.history.commit_sent(Timestamp::from_version(commit.start_version));
            }
            _ => {}
        }
        Ok(())
    }

    /// The store that listens at an address, if there is one and it runs.
    fn store_at(&self, address: &str) -> Option<u64> {
        let stores = self.cluster.topology().stores();
        stores.filter(|store| store.running && store.meta.address == address).map(|store| store.meta.id).next()
    }

    /// The message, or its answer, is lost: the client notices when the connection is broken off, or the call's time is up.
    fn lose(&mut self, sent: &StoreMessage, way: Way) {
        self.totals.lost += 1;
        let (client, store) = (Node::Client(sent.client.number), Node::Store(sent.store));
        let (from, to) = if way == Way::Request { (client, store) } else { (store, client) };
        let (txn, key) = facts(&sent.call.request);
        let kind = TraceKind::Lost(sent.call.request.kind().facts().name);
        self.trace.add(self.now, Entry { from, to, kind, message: sent.message, txn, key }, String::new);
        if sent.unheard {
            return;
        }
        let deadline = self.deadline(sent);
        let broken_off = self.now + Duration::from_millis(self.scenario.options.connection_timeout_ms.into());
        if broken_off < deadline {
            self.hear_nothing(sent, FaultKind::Disconnected, broken_off);
        } else {
            self.hear_nothing(sent, FaultKind::Timeout, deadline);
        }
    }

    fn deadline(&self, sent: &StoreMessage) -> Time {
        self.clients[usize::from(sent.client.number)].clock.global(sent.call.deadline)
    }

    fn hear_nothing(&mut self, sent: &StoreMessage, kind: FaultKind, at: Time) {
        let fault = fault(kind, Execution::MaybeExecuted, &sent.call.address);
        self.answer_at(at.max(self.now), sent.client, sent.id, sent.message, Node::Store(sent.store), Err(fault));
    }

    // ---- At the store ----

    pub(super) fn at_store(&mut self, mut sent: Box<StoreMessage>) -> Check {
        // What was refused is not executed after all: no store says no and means yes.
        if sent.is_second && !sent.is_late && !self.doubles.remove(&sent.message) {
            self.note_dropped(&sent);
            return Ok(());
        }
        let state = self.stores.entry(sent.store).or_default();
        let runs = self.cluster.topology().is_running(sent.store);
        if state.life != sent.life || !runs {
            self.note_dropped(&sent);
            if !sent.unheard {
                self.refuse_connection(&sent);
            }
            return Ok(());
        }
        if state.slow_until > self.now && !sent.is_late {
            sent.is_late = true;
            let at = self.now + Duration::from_nanos(self.rng.below(state.slow.as_nanos() as u64 + 1));
            if !sent.unheard && at >= self.deadline(&sent) {
                let deadline = self.deadline(&sent);
                self.hear_nothing(&sent, FaultKind::Timeout, deadline);
                sent.unheard = true;
            }
            self.send(at, Event::AtStore(sent));
            return Ok(());
        }
        let kind = sent.call.request.kind();
        self.trace_message_at_store(&sent, TraceKind::Arrived(kind.facts().name));
        if let Some(refusal) = self.refusal(sent.store, kind) {
            self.reply(&sent, refusal);
            return Ok(());
        }
        let (context, request) = (sent.call.context.to_message(), sent.call.request.clone());
        let served = self.cluster.handle_store(self.now, sent.store, &context, request);
        self.observe_changes(Some(Node::Store(sent.store)))?;
        match served {
            Served::Answered(reply) => {
                let executed = matches!(&reply, Ok(response) if response.region_error().is_none());
                if executed && sent.is_double && !sent.is_second {
                    self.doubles.insert(sent.message);
                }
                let reply = self.forget_result(sent.store, kind, reply);
                self.reply(&sent, reply);
            }
            Served::Later(call) => {
                if !sent.unheard {
                    let deadline = self.deadline(&sent);
                    self.hear_nothing(&sent, FaultKind::Timeout, deadline);
                }
                self.postponed.insert(call, sent);
                if let Some(at) = self.cluster.next_wakeup() {
                    self.arm_cluster(at);
                }
            }
        }
        Ok(())
    }

    pub(super) fn poll_cluster(&mut self) -> Check {
        while let Some((call, reply)) = self.cluster.poll_reply(self.now) {
            if let Some(sent) = self.postponed.remove(&call) {
                self.reply(&sent, reply);
            }
        }
        self.observe_changes(None)?;
        if let Some(at) = self.cluster.next_wakeup().filter(|_| !self.postponed.is_empty()) {
            self.arm_cluster(at);
        }
        Ok(())
    }

    /// Sees to it that the cluster is looked at in time, once.
    fn arm_cluster(&mut self, at: Time) {
        let at = at.max(self.now);
        if at < self.cluster_armed {
            self.cluster_armed = at;
            self.queue.push(at, Event::Cluster(at));
        }
    }

    pub(super) fn wake_cluster(&mut self, armed: Time) -> Check {
        if self.cluster_armed != armed {
            return Ok(());
        }
        self.cluster_armed = Time::MAX;
        self.poll_cluster()
    }

    /// The store has died since the message left. Nothing was executed; but the client can know so only sometimes.
    fn refuse_connection(&mut self, sent: &StoreMessage) {
        let may_know = !sent.is_double && self.rng.below(2) == 0;
        let fault = if may_know {
            fault(FaultKind::Unreachable, Execution::NotSent, &sent.call.address)
        } else {
            fault(FaultKind::Disconnected, Execution::MaybeExecuted, &sent.call.address)
        };
        let at = self.network.arrival(self.now).min(self.deadline(sent)).max(self.now);
        self.answer_at(at, sent.client, sent.id, sent.message, Node::Store(sent.store), Err(fault));
    }

    /// Whether an ailment shows now.
    fn shows(&mut self, ailment: Ailment) -> bool {
        ailment.until > self.now && self.rng.below(1000) < u64::from(ailment.permille)
    }

    /// What an ailing store answers without having done anything.
    fn refusal(&mut self, store: u64, kind: RequestKind) -> Option<StoreReply> {
        let state = self.stores.get(&store)?.clone();
        let error = if self.shows(state.busy) {
            region_error::server_is_busy("the store is busy", 0)
        } else if kind.facts().access == Access::Write && self.shows(state.full) {
            disk_full(store)
        } else if self.shows(state.erring) {
            passing_error(state.erring.variant)
        } else {
            return None;
        };
        Response::of_region_error(kind, error).map(Ok)
    }

    /// An ailing store may not know what came of a write.
    fn forget_result(&mut self, store: u64, kind: RequestKind, reply: StoreReply) -> StoreReply {
        let Some(ailment) = self.stores.get(&store).map(|state| state.undetermined) else { return reply };
        if kind.facts().access != Access::Write || !self.shows(ailment) {
            return reply;
        }
        let error = errorpb::Error {
            message: "the result of the proposal is not known".to_owned(),
            undetermined_result: Some(errorpb::UndeterminedResult::default()),
            ..errorpb::Error::default()
        };
        Response::of_region_error(kind, error).map_or(reply, Ok)
    }

    // ---- And back ----

    fn reply(&mut self, sent: &StoreMessage, reply: StoreReply) {
        let name = sent.call.request.kind().facts().name;
        let node = Node::Store(sent.store);
        let entry = Entry {
            from: node,
            to: Node::Client(sent.client.number),
            kind: TraceKind::Reply(name),
            message: sent.message,
            txn: Timestamp::ZERO,
            key: None,
        };
        self.trace.add(self.now, entry, || More {
            txn: facts(&sent.call.request).0,
            keys: keys(&sent.call.request),
            is_copy: sent.is_second,
            detail: shown(&reply),
            ..More::default()
        });
        if sent.unheard {
            return;
        }
        let fate = self.network.fate(self.now, sent.client.number, node, Way::Reply);
        let deadline = self.deadline(sent);
        match fate.arrives {
            Some(at) if at < deadline => {
                let reply = reply.map_err(|error| fault_of(&error, sent));
                self.answer_at(at, sent.client, sent.id, sent.message, node, reply);
            }
            Some(_) => self.hear_nothing(sent, FaultKind::Timeout, deadline),
            None => self.lose(sent, Way::Reply),
        }
    }

    fn answer_at(
        &mut self,
        at: Time,
        client: ClientId,
        id: StoreCallId,
        message: u64,
        from: Node,
        reply: Result<Response, Fault>,
    ) {
        self.send(at, Event::FromStore { client, id, message, from, reply: Box::new(reply) });
    }

    pub(super) fn hear_of_store(
        &mut self,
        client: ClientId,
        id: StoreCallId,
        message: u64,
        from: Node,
        reply: Result<Response, Fault>,
    ) -> Check {
        let Some(index) = self.client(client) else {
            self.note_unheard(client, from, message);
            return Ok(());
        };
        let name = match &reply {
            Ok(_) => "a reply",
            Err(_) => "a fault",
        };
        let entry = Entry {
            from,
            to: Node::Client(client.number),
            kind: TraceKind::Answered(name),
            message,
            txn: Timestamp::ZERO,
            key: None,
        };
        self.trace.add(self.now, entry, || reply.as_ref().err().map_or_else(String::new, ToString::to_string));
        self.step(index, |engine, now| engine.handle_reply(now, id, reply))
    }

    // ---- Traces ----

    fn trace_call(
        &mut self,
        client: ClientId,
        to: Node,
        kind: TraceKind,
        message: u64,
        call: &Call,
        detail: impl FnOnce(&Call) -> String,
    ) {
        let (txn, key) = facts(&call.request);
        let from = Node::Client(client.number);
        self.trace.add(self.now, Entry { from, to, kind, message, txn, key }, || More {
            keys: keys(&call.request),
            region: call.context.region_id,
            detail: detail(call),
            ..More::default()
        });
    }

    fn trace_message(&mut self, sent: &StoreMessage, kind: TraceKind) {
        self.trace_call(sent.client, Node::Store(sent.store), kind, sent.message, &sent.call, |_| String::new());
    }

    fn trace_message_at_store(&mut self, sent: &StoreMessage, kind: TraceKind) {
        let (txn, key) = facts(&sent.call.request);
        let node = Node::Store(sent.store);
        let entry = Entry { from: node, to: node, kind, message: sent.message, txn, key };
        let more = || More { keys: keys(&sent.call.request), is_copy: sent.is_second, ..More::default() };
        self.trace.add(self.now, entry, more);
    }

    fn note_dropped(&mut self, sent: &StoreMessage) {
        let node = Node::Store(sent.store);
        let kind = TraceKind::Dropped(sent.call.request.kind().facts().name);
        let entry = Entry { message: sent.message, ..Entry::at(node, kind) };
        self.trace.note(self.now, entry, || More { is_copy: sent.is_second, ..More::default() });
    }
}

fn shown_request(call: &Call) -> String {
    let epoch = call.context.region_epoch.unwrap_or_default();
    format!("v{} c{} {}", epoch.version, epoch.conf_ver, shortened(format!("{:?}", call.request)))
}

/// A write that is not harmless when it comes again.
fn is_raw_write(request: &Request) -> bool {
    let kind = request.kind();
    kind.facts().access == Access::Write && kind.facts().name.starts_with("Raw")
}

fn fault_of(error: &CallError, sent: &StoreMessage) -> Fault {
    let address = &sent.call.address;
    match error {
        CallError::Unreachable if !sent.is_double => fault(FaultKind::Unreachable, Execution::NotSent, address),
        CallError::Unreachable | CallError::Disconnected => {
            fault(FaultKind::Disconnected, Execution::MaybeExecuted, address)
        }
        CallError::Status(status) => {
            let fault = fault(FaultKind::Status(status.code as u32), Execution::MaybeExecuted, address);
            fault.with_detail(status.message.as_str())
        }
    }
}

fn disk_full(store: u64) -> errorpb::Error {
    let reason = "the disk is full".to_owned();
    errorpb::Error {
        message: reason.clone(),
        disk_full: Some(errorpb::DiskFull { store_id: vec![store], reason }),
        ..errorpb::Error::default()
    }
}

/// An error that says nothing but "try again".
fn passing_error(variant: u16) -> errorpb::Error {
    match variant % 6 {
        0 => region_error::stale_command(),
        1 => region_error::deadline_exceeded(),
        2 => region_error::not_leader(0, None),
        3 => errorpb::Error {
            message: "the region is being merged".to_owned(),
            proposal_in_merging_mode: Some(errorpb::ProposalInMergingMode::default()),
            ..errorpb::Error::default()
        },
        4 => errorpb::Error {
            message: "the largest timestamp read is not known".to_owned(),
            max_timestamp_not_synced: Some(errorpb::MaxTimestampNotSynced {}),
            ..errorpb::Error::default()
        },
        _ => region_error::other("something is wrong"),
    }
}

fn shown(reply: &StoreReply) -> String {
    shortened(match reply {
        Ok(response) => format!("{response:?}"),
        Err(error) => error.to_string(),
    })
}

fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(SHOWN_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text
}
