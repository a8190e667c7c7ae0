//! What happened, event by event.

use std::fmt;

use tikv_core::key::Key;
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;

use super::faults::FaultKind;

/// Who does or suffers something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// A client, by its number.
    Client(u8),
    /// A store, by its id.
    Store(u64),
    /// A member of PD, by its id.
    Pd(u64),
    /// What is outside: the one who injects faults.
    World,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Client(number) => write!(f, "client-{number}"),
            Node::Store(id) => write!(f, "store-{id}"),
            Node::Pd(id) => write!(f, "pd-{id}"),
            Node::World => f.write_str("world"),
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TraceKind {
    /// A request left; the name is the command's.
    Request(&'static str),
    /// A request arrived.
    Arrived(&'static str),
    /// An answer left.
    Reply(&'static str),
    /// An answer, or what came instead, reached the one who asked.
    Answered(&'static str),
    /// A message was lost.
    Lost(&'static str),
    /// A request will arrive once more.
    Duplicated(&'static str),
    /// An operation began; the name is the operation's.
    Started(&'static str),
    /// An operation ended.
    Ended(&'static str),
    /// A fault was injected.
    Fault(FaultKind),
    /// Something recovered.
    Recovered(&'static str),
    /// The simulation goes over to another phase.
    Phase(&'static str),
    /// A check failed.
    Violation(&'static str),
    /// A message arrives where nobody is any more.
    Dropped(&'static str),
    /// A transaction begins: its client has its start_ts.
    Begun(&'static str),
    /// A transaction ends for its client; the name is how.
    Finished(&'static str),
    /// A store puts a lock on a key.
    Locked(&'static str),
    /// A store takes a lock from a key.
    Unlocked(&'static str),
    /// A transaction is committed on a key; the name is what it wrote.
    Committed(&'static str),
    /// A transaction is rolled back on a key.
    RolledBack(&'static str),
}

impl TraceKind {
    fn code(self) -> (u64, &'static str) {
        match self {
            TraceKind::Request(name) => (1, name),
            TraceKind::Arrived(name) => (2, name),
            TraceKind::Reply(name) => (3, name),
            TraceKind::Answered(name) => (4, name),
            TraceKind::Lost(name) => (5, name),
            TraceKind::Duplicated(name) => (6, name),
            TraceKind::Started(name) => (7, name),
            TraceKind::Ended(name) => (8, name),
            TraceKind::Fault(kind) => (9, kind.name()),
            TraceKind::Recovered(name) => (10, name),
            TraceKind::Phase(name) => (11, name),
            TraceKind::Violation(name) => (12, name),
            TraceKind::Dropped(name) => (13, name),
            TraceKind::Begun(name) => (14, name),
            TraceKind::Finished(name) => (15, name),
            TraceKind::Locked(name) => (16, name),
            TraceKind::Unlocked(name) => (17, name),
            TraceKind::Committed(name) => (18, name),
            TraceKind::RolledBack(name) => (19, name),
        }
    }
}

impl fmt::Display for TraceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, name) = self.code();
        let verb = match code {
            1 => "asks",
            2 => "receives",
            3 => "answers",
            4 => "hears of",
            5 => "loses",
            6 => "duplicates",
            7 => "starts",
            8 => "ends",
            9 => "FAULT",
            10 => "recovers",
            11 => "PHASE",
            12 => "VIOLATION",
            13 => "never gets",
            14 => "begins",
            15 => "finishes",
            16 => "locks",
            17 => "unlocks",
            18 => "commits",
            _ => "rolls back",
        };
        write!(f, "{verb} {name}")
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TraceEvent {
    /// When, in virtual time.
    pub at: Time,
    /// Where the message, or what else happened, comes from.
    pub from: Node,
    /// Where it goes; the same as `from` if nothing goes anywhere.
    pub to: Node,
    /// What happened.
    pub kind: TraceKind,
    /// The message, which has the same number when it leaves and when it arrives, and so has its answer; zero for none.
    pub message: u64,
    /// The transaction, zero for none.
    pub txn: Timestamp,
    /// The keys that it is about.
    pub keys: Vec<Key>,
    /// The region that a request names, zero for none.
    pub region: u64,
    /// Which of its client's sessions it happens in.
    pub session: Option<usize>,
    /// Whether the message is the copy of one that is under way twice.
    pub is_copy: bool,
    /// Until when the fault that begins here lasts; `at` for all else.
    pub until: Time,
    /// More, for people.
    pub detail: String,
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.at.as_nanos();
        write!(f, "{:>4}.{:09} {:>9}", nanos / 1_000_000_000, nanos % 1_000_000_000, self.from.to_string())?;
        match self.to == self.from {
            true => write!(f, "           ")?,
            false => write!(f, " → {:<8}", self.to.to_string())?,
        }
        write!(f, " {}", self.kind)?;
        if self.message != 0 {
            write!(f, " #{}", self.message)?;
        }
        if !self.txn.is_zero() {
            write!(f, " txn {}", self.txn)?;
        }
        if let Some(key) = self.keys.first() {
            write!(f, " {key:?}")?;
        }
        if self.keys.len() > 1 {
            write!(f, " and {} more", self.keys.len() - 1)?;
        }
        if self.region != 0 {
            write!(f, " region {}", self.region)?;
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, " {}", self.detail) }
    }
}

/// Hashes all events, and keeps them if that is wanted.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    hash: StableHash,
    events: Option<Vec<TraceEvent>>,
    pub(super) count: u64,
}

/// One event, on its way into the trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) from: Node,
    pub(super) to: Node,
    pub(super) kind: TraceKind,
    pub(super) message: u64,
    pub(super) txn: Timestamp,
    pub(super) key: Option<&'a [u8]>,
}

/// What else is known of an event, for those who look at it: it is not part of the hash, and made only if events are kept.
#[derive(Clone, Debug, Default)]
pub(super) struct More {
    /// The transaction, if the entry does not name it.
    pub(super) txn: Timestamp,
    /// All keys, if the entry names the first of several or none.
    pub(super) keys: Vec<Key>,
    pub(super) region: u64,
    pub(super) session: Option<usize>,
    pub(super) is_copy: bool,
    pub(super) until: Option<Time>,
    pub(super) detail: String,
}

impl From<String> for More {
    fn from(detail: String) -> Self {
        More { detail, ..More::default() }
    }
}

impl Entry<'_> {
    pub(super) fn at(node: Node, kind: TraceKind) -> Self {
        Entry { from: node, to: node, kind, message: 0, txn: Timestamp::ZERO, key: None }
    }
}

impl Trace {
    /// `keep`: whether the events can be had afterwards.
    pub(super) fn new(keep: bool) -> Self {
        Trace { hash: StableHash::new(), events: keep.then(Vec::new), count: 0 }
    }

    pub(super) fn add<M: Into<More>>(&mut self, at: Time, entry: Entry<'_>, more: impl FnOnce() -> M) {
        let Entry { from, to, kind, message, txn, key } = entry;
        let (code, name) = kind.code();
        self.count += 1;
        self.hash.add(at.as_nanos());
        self.hash.add(code << 56 ^ node_code(from) << 28 ^ node_code(to));
        self.hash.add_bytes(name.as_bytes());
        self.hash.add(message);
        self.hash.add(txn.version());
        self.hash.add_bytes(key.unwrap_or_default());
        self.note(at, entry, more);
    }

    /// What follows from other events, and is not one by itself: it is kept if events are, and leaves the hash as it is.
    pub(super) fn note<M: Into<More>>(&mut self, at: Time, entry: Entry<'_>, more: impl FnOnce() -> M) {
        let Some(events) = &mut self.events else { return };
        let Entry { from, to, kind, message, txn, key } = entry;
        let More { txn: other_txn, mut keys, region, session, is_copy, until, detail } = more().into();
        if keys.is_empty() {
            keys.extend(key.map(Key::from));
        }
        let txn = if txn.is_zero() { other_txn } else { txn };
        let until = until.unwrap_or(at);
        events.push(TraceEvent { at, from, to, kind, message, txn, keys, region, session, is_copy, until, detail });
    }

    /// Whether events are kept.
    pub(super) fn keeps(&self) -> bool {
        self.events.is_some()
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash.0
    }

    pub(super) fn into_events(self) -> Vec<TraceEvent> {
        self.events.unwrap_or_default()
    }
}

fn node_code(node: Node) -> u64 {
    match node {
        Node::Client(number) => 1 << 24 | u64::from(number),
        Node::Store(id) => 2 << 24 | id,
        Node::Pd(id) => 3 << 24 | id,
        Node::World => 4 << 24,
    }
}

/// A hash that is the same in every process, on every machine, with every version of the standard library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StableHash(u64);

impl StableHash {
    fn new() -> Self {
        StableHash(0x6A09_E667_F3BC_C908)
    }

    fn add(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ mixed >> 29;
    }

    fn add_bytes(&mut self, bytes: &[u8]) {
        self.add(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
            self.add(word);
        }
    }
}
