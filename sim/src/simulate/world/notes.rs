//! What the trace tells beyond messages: locks, commits, transactions. It is kept for those who look at a run; nothing else
//! depends on it.

use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::Op;

use super::{World, bound};
use crate::simulate::client::ClientId;
use crate::simulate::elle::Ending;
use crate::simulate::session::State;
use crate::simulate::trace::{Entry, More, Node, TraceKind};
use crate::storage::Change;

impl World {
    /// Notes the changes that are about to be observed. Without a node, each is the leader's of its region.
    pub(super) fn note_changes(&mut self, node: Option<Node>) {
        let changes = std::mem::take(&mut self.changes);
        for change in &changes {
            self.note_change(node, change);
        }
        self.changes = changes;
    }

    fn note_change(&mut self, node: Option<Node>, change: &Change) {
        let (key, kind, txn) = match change {
            Change::Locked { key, start_ts, .. } => {
                self.lockers.insert(key.clone(), *start_ts);
                (key, TraceKind::Locked("a key"), *start_ts)
            }
            Change::Unlocked { key } => {
                (key, TraceKind::Unlocked("a key"), self.lockers.remove(key).unwrap_or_default())
            }
            Change::Ended { key, start_ts, op: Op::Rollback, .. } => (key, TraceKind::RolledBack("a key"), *start_ts),
            Change::Ended { key, start_ts, op, .. } => (key, TraceKind::Committed(written(*op)), *start_ts),
            Change::RawWritten { key, value: Some(_) } => (key, TraceKind::Committed("a raw value"), Timestamp::ZERO),
            Change::RawWritten { key, value: None } => (key, TraceKind::Committed("a raw deletion"), Timestamp::ZERO),
        };
        let node = node.unwrap_or_else(|| self.leader_of(key));
        let entry = Entry { txn, key: Some(key.as_slice()), ..Entry::at(node, kind) };
        self.trace.note(self.now, entry, || match change {
            Change::Ended { op: Op::Rollback, .. } => String::new(),
            Change::Ended { commit_ts, .. } => format!("at {commit_ts}"),
            Change::RawWritten { value: Some(value), .. } => format!("{value:?}"),
            _ => String::new(),
        });
    }

    fn leader_of(&self, key: &Key) -> Node {
        let bound = bound(self.scenario.workload, key);
        let regions = self.cluster.topology().regions();
        let region = regions.iter().find(|region| {
            let (start, end) = (&region.meta.start_key, &region.meta.end_key);
            start[..] <= *bound.as_slice() && (end.is_empty() || *bound.as_slice() < end[..])
        });
        region.and_then(|region| region.leader).map_or(Node::World, Node::Store)
    }

    /// A reply reaches a client that has died since.
    pub(super) fn note_unheard(&mut self, client: ClientId, from: Node, message: u64) {
        let (to, kind) = (Node::Client(client.number), TraceKind::Dropped("a reply"));
        let entry = Entry { from, to, kind, message, txn: Timestamp::ZERO, key: None };
        self.trace.note(self.now, entry, String::new);
    }

    /// The transaction that a session is busy with, zero for none.
    pub(super) fn txn_of(&self, index: usize, session: usize) -> Timestamp {
        match self.clients[index].sessions.get(session).map(|session| &session.state) {
            Some(State::Reading(open) | State::Locking(open, _)) => open.txn.start_ts(),
            Some(State::Committing(txn)) => txn.start_ts(),
            Some(State::Asking(start_ts)) => *start_ts,
            Some(State::Pipelined(now)) => now.txn.start_ts(),
            _ => Timestamp::ZERO,
        }
    }

    /// A session has its transaction's start_ts.
    pub(super) fn note_begin(&mut self, index: usize, session: usize, start_ts: Timestamp) {
        if let Some(observed) = &mut self.observed {
            observed.begin(index, session, start_ts);
        }
        self.note_txn(index, session, start_ts, TraceKind::Begun("a transaction"));
    }

    /// A transaction of a session, or a raw call, has ended for its client.
    pub(super) fn note_end(&mut self, index: usize, session: usize, start_ts: Timestamp, how: &'static str) {
        if let Some(observed) = &mut self.observed {
            let ending = match how {
                "committed" | "read only" => Ending::Ok,
                "rolled back" | "given up" => Ending::Fail,
                _ => Ending::Info,
            };
            observed.end(self.now, index, session, ending);
        }
        self.note_txn(index, session, start_ts, TraceKind::Finished(how));
    }

    fn note_txn(&mut self, index: usize, session: usize, txn: Timestamp, kind: TraceKind) {
        let node = Node::Client(self.clients[index].id.number);
        let more = || More { session: Some(session), ..More::default() };
        self.trace.note(self.now, Entry { txn, ..Entry::at(node, kind) }, more);
    }
}

fn written(op: Op) -> &'static str {
    match op {
        Op::Put => "a value",
        Op::Del => "a deletion",
        _ => "a mere lock",
    }
}
