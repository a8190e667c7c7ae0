//! What is drawn of a trace: lanes, what flies between them, what happens on them and what lasts there.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tikv_core::key::Key;
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;

use crate::simulate::check::Broken;
use crate::simulate::trace::{Node, TraceEvent, TraceKind};

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Delivered,
    /// On the way when the run ended, or never heard of again.
    Open,
    Lost,
    /// Arrived where nobody was any more.
    Dropped,
    /// Could not be delivered, and its sender noticed.
    Refused,
    /// An answer that nobody waited for any more.
    Unheard,
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) message: u64,
    pub(super) from: Node,
    pub(super) to: Node,
    pub(super) sent: Time,
    pub(super) arrived: Option<Time>,
    pub(super) fate: Fate,
    pub(super) is_reply: bool,
    pub(super) is_copy: bool,
    name: &'static str,
    txn: Timestamp,
    keys: Vec<Key>,
    region: u64,
    text: String,
}

/// Something that happens on a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    node: Node,
    at: Time,
    kind: &'static str,
    name: String,
    message: u64,
    txn: Timestamp,
    keys: Vec<Key>,
    text: String,
}

/// Something that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    node: Node,
    kind: &'static str,
    name: &'static str,
    from: Time,
    to: Option<Time>,
    session: usize,
    txn: Timestamp,
    text: String,
}

/// All that is drawn.
#[derive(Clone, Debug, Default)]
pub(super) struct Chart {
    pub(super) lanes: Vec<Node>,
    pub(super) flights: Vec<Flight>,
    marks: Vec<Mark>,
    spans: Vec<Span>,
    phases: Vec<(&'static str, Time)>,
    end: Time,
    /// The flights of each message: its request, its copy, its answer.
    requests: BTreeMap<u64, usize>,
    copies: BTreeMap<u64, usize>,
    replies: BTreeMap<u64, usize>,
    /// What goes on in sessions.
    txns: BTreeMap<(Node, usize), usize>,
    operations: BTreeMap<(Node, usize), usize>,
    /// Clients that are down.
    down: BTreeMap<Node, usize>,
}

impl Chart {
    pub(super) fn new(trace: &[TraceEvent]) -> Self {
        let mut chart = Chart::default();
        let mut lanes: Vec<Node> = trace.iter().flat_map(|event| [event.from, event.to]).collect();
        lanes.sort();
        lanes.dedup();
        // Above clients is who is asked for timestamps, beneath them who has the data: hardly any line crosses a lane.
        lanes.sort_by_key(|node| match node {
            Node::World => 0,
            Node::Pd(_) => 1,
            Node::Client(_) => 2,
            Node::Store(_) => 3,
        });
        chart.lanes = lanes;
        chart.end = trace.last().map_or(Time::ZERO, |event| event.at);
        for event in trace {
            chart.add(event);
        }
        chart.close();
        chart
    }

    fn add(&mut self, event: &TraceEvent) {
        match event.kind {
            TraceKind::Request(name) => {
                self.requests.insert(event.message, self.flights.len());
                self.flights.push(flight(event, name));
            }
            TraceKind::Duplicated(name) => {
                self.copies.insert(event.message, self.flights.len());
                self.flights.push(Flight { is_copy: true, ..flight(event, name) });
            }
            TraceKind::Reply(name) => {
                let index = self.flights.len();
                if event.is_copy {
                    self.flights.push(Flight { is_reply: true, fate: Fate::Unheard, ..flight(event, name) });
                } else {
                    self.replies.insert(event.message, index);
                    self.flights.push(Flight { is_reply: true, ..flight(event, name) });
                }
            }
            TraceKind::Arrived(_) => self.land(event, Fate::Delivered),
            TraceKind::Dropped(_) => self.land(event, Fate::Dropped),
            TraceKind::Lost(_) => self.land(event, Fate::Lost),
            TraceKind::Answered("a reply") => self.land(event, Fate::Delivered),
            TraceKind::Answered(name) => self.hear_of_fault(event, name),
            TraceKind::Started(name) => {
                if let Some(session) = event.session {
                    self.operations.insert((event.from, session), self.spans.len());
                    self.spans.push(span(event, "operation", name, session));
                }
            }
            TraceKind::Ended(_) => self.end_operation(event),
            TraceKind::Begun(_) => {
                if let Some(session) = event.session {
                    self.txns.insert((event.from, session), self.spans.len());
                    self.spans.push(span(event, "txn", "running", session));
                }
            }
            TraceKind::Finished(how) => self.end_txn(event, how),
            TraceKind::Fault(fault) => self.strike(event, fault.name()),
            TraceKind::Recovered("never, this life") => {
                self.down.insert(event.from, self.spans.len());
                self.spans.push(span(event, "down", "down", 0));
            }
            TraceKind::Recovered(name) => {
                let down = self.down.remove(&event.from).and_then(|index| self.spans.get_mut(index));
                if let Some(span) = down {
                    span.to = Some(event.at);
                }
                self.mark(event, "recovery", format!("recovers {name}"));
            }
            TraceKind::Phase(name) => self.phases.push((name, event.at)),
            TraceKind::Locked(_) => self.mark(event, "lock", "locks".to_owned()),
            TraceKind::Unlocked(_) => self.mark(event, "unlock", "unlocks".to_owned()),
            TraceKind::Committed(what) => self.mark(event, "commit", format!("commits {what}")),
            TraceKind::RolledBack(_) => self.mark(event, "rollback", "rolls back".to_owned()),
            TraceKind::Violation(rule) => self.mark(event, "violation", rule.to_owned()),
        }
    }

    /// A message has got where it goes, or as far as it ever will.
    fn land(&mut self, event: &TraceEvent, fate: Fate) {
        let is_request = matches!(event.to, Node::Store(_) | Node::Pd(_));
        let known = match (is_request, event.is_copy) {
            (true, true) => &self.copies,
            (true, false) => &self.requests,
            (false, _) => &self.replies,
        };
        let Some(flight) = known.get(&event.message).and_then(|index| self.flights.get_mut(*index)) else { return };
        flight.fate = fate;
        flight.arrived = (fate != Fate::Lost).then_some(event.at);
    }

    /// Instead of an answer, a client hears that there will be none.
    fn hear_of_fault(&mut self, event: &TraceEvent, name: &'static str) {
        let request = self.requests.get(&event.message).and_then(|index| self.flights.get_mut(*index));
        let (mut txn, mut keys) = (event.txn, Vec::new());
        if let Some(request) = request {
            (txn, keys) = (request.txn, request.keys.clone());
            if request.fate == Fate::Open {
                request.fate = Fate::Refused;
            }
        }
        let reply = self.replies.get(&event.message).and_then(|index| self.flights.get_mut(*index));
        if let Some(reply) = reply.filter(|reply| reply.fate == Fate::Open) {
            reply.fate = Fate::Unheard;
        }
        let mark = Mark { node: event.to, txn, keys, ..mark(event, "failure", format!("hears of {name}")) };
        self.marks.push(mark);
    }

    fn end_operation(&mut self, event: &TraceEvent) {
        let Some(session) = event.session else { return };
        let index = self.operations.remove(&(event.from, session));
        if let Some(span) = index.and_then(|index| self.spans.get_mut(index)) {
            span.to = Some(event.at);
            span.text.clone_from(&event.detail);
        }
    }

    fn end_txn(&mut self, event: &TraceEvent, how: &'static str) {
        let Some(session) = event.session else { return };
        let ended = [self.operations.remove(&(event.from, session)), self.txns.remove(&(event.from, session))];
        for index in ended.into_iter().flatten() {
            if let Some(span) = self.spans.get_mut(index) {
                span.to = Some(event.at);
                if span.kind == "txn" {
                    span.name = how;
                }
            }
        }
    }

    fn strike(&mut self, event: &TraceEvent, name: &'static str) {
        if event.until > event.at {
            let kind = if name.ends_with("-crash") { "down" } else { "fault" };
            self.spans.push(Span { to: Some(event.until), ..span(event, kind, name, 0) });
        }
        self.mark(event, "fault", name.to_owned());
    }

    fn mark(&mut self, event: &TraceEvent, kind: &'static str, name: String) {
        self.marks.push(mark(event, kind, name));
    }

    /// All that has not ended ends with the run; faults, when all is mended.
    fn close(&mut self) {
        let mended = self.phases.iter().find(|(name, _)| *name == "liveness").map_or(self.end, |(_, at)| *at);
        for span in &mut self.spans {
            let last = if matches!(span.kind, "fault" | "down") { mended } else { self.end };
            span.to = Some(span.to.unwrap_or(last).min(last).max(span.from));
        }
    }

    // ---- As data for the page ----

    /// The rule that was broken, and where to look: what happened last, and the transactions and keys that are named.
    pub(super) fn violation(&self, trace: &[TraceEvent], broken: &Broken) -> Value {
        let by_it = trace.iter().rev().find(|event| event.from != Node::World || event.to != Node::World);
        let txns: Vec<String> = self.txns().iter().map(ToString::to_string).collect();
        let named = txns.iter().filter(|txn| broken.detail.contains(txn.as_str()));
        let keys = self.keys().into_iter().filter(|key| broken.detail.contains(&format!("{key:?}")));
        json!({
            "rule": broken.rule.name(),
            "detail": broken.detail,
            "at": micros(self.end),
            "event": by_it.map(ToString::to_string),
            "lane": by_it.map(|event| self.lane(event.to)),
            "message": by_it.map(|event| event.message),
            "txns": named.collect::<Vec<_>>(),
            "keys": keys.map(shown_key).collect::<Vec<_>>(),
        })
    }

    /// All of it, as the page reads it.
    pub(super) fn to_json(&self) -> Value {
        let names = Names { txns: self.txns(), keys: self.keys().into_iter().cloned().collect() };
        let flights = self.flights.iter().map(|flight| {
            json!([
                flight.message,
                self.lane(flight.from),
                self.lane(flight.to),
                micros(flight.sent),
                flight.arrived.map(micros),
                format!("{:?}", flight.fate).to_lowercase(),
                flight.is_reply,
                flight.is_copy,
                short_name(flight.name),
                names.txn(flight.txn),
                names.keys(&flight.keys),
                flight.region,
                flight.text,
            ])
        });
        let marks = self.marks.iter().map(|mark| {
            json!([
                self.lane(mark.node),
                micros(mark.at),
                mark.kind,
                mark.name,
                mark.message,
                names.txn(mark.txn),
                names.keys(&mark.keys),
                mark.text,
            ])
        });
        let spans = self.spans.iter().map(|span| {
            json!([
                self.lane(span.node),
                span.kind,
                span.name,
                micros(span.from),
                span.to.map(micros),
                span.session,
                names.txn(span.txn),
                span.text,
            ])
        });
        json!({
            "lanes": self.lanes.iter().map(|node| json!([self.name(*node), kind_of(*node)])).collect::<Vec<_>>(),
            "txns": names.txns.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "keys": names.keys.iter().map(shown_key).collect::<Vec<_>>(),
            "phases": self.phases.iter().map(|(name, at)| json!([name, micros(*at)])).collect::<Vec<_>>(),
            "end": micros(self.end),
            "flights": flights.collect::<Vec<_>>(),
            "marks": marks.collect::<Vec<_>>(),
            "spans": spans.collect::<Vec<_>>(),
        })
    }

    /// The last client reads and resolves what others have left.
    fn name(&self, node: Node) -> String {
        let last = self.lanes.iter().rev().find(|known| matches!(known, Node::Client(_)));
        match node {
            Node::World => "faults".to_owned(),
            Node::Pd(0) => "no PD".to_owned(),
            node if last == Some(&node) => "auditor".to_owned(),
            node => node.to_string(),
        }
    }

    fn lane(&self, node: Node) -> Option<usize> {
        self.lanes.iter().position(|known| *known == node)
    }

    fn txns(&self) -> Vec<Timestamp> {
        let of_flights = self.flights.iter().map(|flight| flight.txn);
        let of_marks = self.marks.iter().map(|mark| mark.txn);
        let all = of_flights.chain(of_marks).chain(self.spans.iter().map(|span| span.txn));
        let mut txns: Vec<Timestamp> = all.filter(|txn| !txn.is_zero()).collect();
        txns.sort();
        txns.dedup();
        txns
    }

    fn keys(&self) -> Vec<&Key> {
        let of_flights = self.flights.iter().flat_map(|flight| &flight.keys);
        let mut keys: Vec<&Key> = of_flights.chain(self.marks.iter().flat_map(|mark| &mark.keys)).collect();
        keys.sort();
        keys.dedup();
        keys
    }
}

/// Transactions and keys are named once, and pointed to by numbers, since there are so many flights.
struct Names {
    txns: Vec<Timestamp>,
    keys: Vec<Key>,
}

impl Names {
    fn txn(&self, txn: Timestamp) -> Option<usize> {
        self.txns.binary_search(&txn).ok()
    }

    fn keys(&self, keys: &[Key]) -> Vec<usize> {
        keys.iter().filter_map(|key| self.keys.binary_search(key).ok()).collect()
    }
}

fn kind_of(node: Node) -> &'static str {
    match node {
        Node::Client(_) => "client",
        Node::Store(_) => "store",
        Node::Pd(_) => "pd",
        Node::World => "world",
    }
}

fn flight(event: &TraceEvent, name: &'static str) -> Flight {
    Flight {
        message: event.message,
        from: event.from,
        to: event.to,
        sent: event.at,
        arrived: None,
        fate: Fate::Open,
        is_reply: false,
        is_copy: event.is_copy,
        name,
        txn: event.txn,
        keys: event.keys.clone(),
        region: event.region,
        text: event.detail.clone(),
    }
}

fn mark(event: &TraceEvent, kind: &'static str, name: String) -> Mark {
    let TraceEvent { at, message, txn, .. } = *event;
    Mark { node: event.from, at, kind, name, message, txn, keys: event.keys.clone(), text: event.detail.clone() }
}

fn span(event: &TraceEvent, kind: &'static str, name: &'static str, session: usize) -> Span {
    let TraceEvent { from: node, at: from, txn, .. } = *event;
    Span { node, kind, name, from, to: None, session, txn, text: event.detail.clone() }
}

/// The command without the service.
fn short_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// As people write it.
fn shown_key(key: &Key) -> String {
    key.as_slice().escape_ascii().to_string()
}

/// Microseconds, with the nanoseconds behind the point.
fn micros(at: Time) -> f64 {
    at.as_nanos() as f64 / 1_000.0
}
