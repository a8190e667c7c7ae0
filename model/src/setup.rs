//! The cases: who does what, and how much can go wrong.

use std::time::Duration;

use bytes::Bytes;
use tikv_core::config::Config;
use tikv_core::engine::Operation;
use tikv_core::key::{Direction, Key, KeyRange};

use tikv_core::snapshot::{BatchGet, ReadThrough, Scan, SnapshotOptions};
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_core::txn::{Commit, CommitOptions, PipelinedOptions, PipelinedTransaction, Transaction};

use crate::client::Program;
use crate::history::History;
use crate::pipelining::Pipelining;
use crate::servers::LEAP_MS;
use crate::session::{Session, accepted};

const BEFORE_A_LEAP: Duration = Duration::from_millis(LEAP_MS / 2);

/// What a client does, one operation after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Writes all keys in one transaction. The first in order is the primary.
    Write(&'static [&'static str]),
    /// The same, to be over before time leaps.
    WriteInTime(&'static [&'static str]),
    /// The same, committing asynchronously.
    AsyncWrite(&'static [&'static str]),
    /// The same, in one phase if one request is enough, else in two.
    OnePhaseWrite(&'static [&'static str]),
    /// Locks keys before it writes them.
    Pessimistic(Pessimistic),
    /// Writes the keys in a pipelined transaction, which flushes one after the other. The first is the primary.
    Pipelined(&'static [&'static str]),
    /// Reads the keys, by region.
    BatchGet(&'static [&'static str]),
    /// Reads the keys from the first to the last, page by page.
    Scan(&'static [&'static str]),
}

/// A pessimistic transaction. Locks return what they found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pessimistic {
    /// The keys that it locks and writes, each once. The first is the primary.
    pub keys: &'static [&'static str],
    /// How it locks them.
    pub locks: Locks,
    /// How it ends.
    pub end: End,
}

/// How a pessimistic transaction locks its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Locks {
    /// All by one call. The keys must be in order.
    AtOnce,
    /// One call a key.
    OneByOne,
    /// One call a key, in fair locking; all over again if that met a conflict.
    Fairly,
    /// The first key in fair locking, which is then cancelled; all over again one by one.
    FairlyAtFirst,
}

/// How a pessimistic transaction ends once everything is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// It commits in two phases.
    Commit,
    /// It commits asynchronously.
    AsyncCommit,
    /// It commits in one phase if one request is enough, else in two.
    OnePhaseCommit,
    /// It is rolled back.
    RollBack,
}

/// How often things can go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Luck {
    /// Time-outs of calls that may be executed all the same, and calls that do not leave their client.
    pub faults: u8,
    /// Messages that are copied on their way.
    pub duplicates: u8,
    /// Clients that die.
    pub crashes: u8,
    /// Operations whose owner loses interest.
    pub abandons: u8,
    /// Splits of a region.
    pub splits: u8,
    /// Lock requests that the store lets wait no longer though no time leaps. When time leaps, it lets none wait.
    pub impatience: u8,
    /// Leaps of time. When nothing else can happen time leaps in any case.
    pub leaps: u8,
}

/// A case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Setup {
    /// For people.
    pub name: &'static str,
    /// Keys between regions.
    pub bounds: &'static [&'static str],
    /// Where a region can split.
    pub split_at: Option<&'static str>,
    /// What each client does.
    pub clients: Vec<Vec<Work>>,
    /// Whether transactions have a heartbeat. Those without one that are pessimistic do not outlive a leap, as others do not.
    pub heartbeats: bool,
    /// How much can go wrong.
    pub luck: Luck,
}

impl Luck {
    /// Whether nothing goes wrong. That a region splits is no misfortune.
    #[must_use]
    pub fn is_smooth(self) -> bool {
        self == Luck { splits: self.splits, ..Luck::default() }
    }
}

impl Work {
    /// The keys it is about, in order; of a pessimistic transaction in the order in which it locks them.
    #[must_use]
    pub fn keys(self) -> Vec<Key> {
        let keys = match self {
            Work::Write(keys) | Work::WriteInTime(keys) => keys,
            Work::AsyncWrite(keys) | Work::OnePhaseWrite(keys) => keys,
            Work::BatchGet(keys) | Work::Scan(keys) | Work::Pipelined(keys) => keys,
            Work::Pessimistic(script) => script.keys,
        };
        keys.iter().map(|key| Key::from(*key)).collect()
    }

    fn prewrites_decide(self) -> bool {
        match self {
            Work::Pessimistic(script) => matches!(script.end, End::AsyncCommit | End::OnePhaseCommit),
            _ => matches!(self, Work::AsyncWrite(_) | Work::OnePhaseWrite(_)),
        }
    }

    fn options(self, config: &Config, now: Time) -> CommitOptions {
        let mut options = CommitOptions::new(config);
        match self {
            Work::WriteInTime(_) => options.call.deadline = now + BEFORE_A_LEAP,
            Work::AsyncWrite(_) => options.async_commit = true,
            Work::OnePhaseWrite(_) => options.one_phase_commit = true,
            Work::Pessimistic(script) => {
                options.async_commit = script.end == End::AsyncCommit;
                options.one_phase_commit = script.end == End::OnePhaseCommit;
            }
            _ => {}
        }
        options
    }

    /// The machine that does it. `owner`: the client, and the place in its script.
    pub(crate) fn begin(
        self,
        history: &mut History,
        config: &Config,
        ts: Timestamp,
        now: Time,
        owner: (usize, usize),
    ) -> Program {
        let keys = self.keys();
        let value = Bytes::from(format!("{}.{}", owner.0, owner.1));
        let operation = match self {
            Work::Pessimistic(script) => {
                history.begin_pessimistic(ts, owner, keys, value.clone(), self.prewrites_decide());
                let txn = Transaction::new(config, ts, now, self.options(config, now)).into_pessimistic(config);
                return Program::Session(Box::new(Session::new(txn, script, value, outlives_leaps(config))));
            }
            Work::Pipelined(_) => {
                history.begin(ts, owner, keys.clone(), value.clone(), false);
                let (options, pipelined) = (self.options(config, now), PipelinedOptions::default());
                let txn = accepted(PipelinedTransaction::new(config, ts, now, options, pipelined));
                return Program::Pipelining(Box::new(Pipelining::new(txn, keys, value, outlives_leaps(config))));
            }
            Work::Write(_) | Work::WriteInTime(_) | Work::AsyncWrite(_) | Work::OnePhaseWrite(_) => {
                history.begin(ts, owner, keys.clone(), value.clone(), self.prewrites_decide());
                Operation::Commit(write(config, (ts, now), keys, &value, self.options(config, now)))
            }
            Work::BatchGet(_) => {
                history.on_new_timestamp(ts);
                batch_get(config, ts, keys)
            }
            Work::Scan(_) => {
                history.on_new_timestamp(ts);
                let range = KeyRange { start: keys[0].clone(), end: keys[keys.len() - 1].next() };
                let options = SnapshotOptions::new(ts, config);
                let scan = Scan::new(range, Direction::Forward, usize::MAX, options, ReadThrough::new(ts));
                Operation::SnapshotScan(scan)
            }
        };
        Program::Operation(Box::new(operation))
    }
}

/// The configuration of a case: a leap is the end of whatever has no heartbeat.
pub(crate) fn config(heartbeats: bool) -> Config {
    let mut config = Config::default();
    if heartbeats {
        config.heartbeat_txn_bytes = 0;
    } else {
        config.managed_lock_ttl = config.lock_ttl;
    }
    config
}

/// Whether the owner of a pessimistic transaction keeps it alive while it does nothing.
fn outlives_leaps(config: &Config) -> bool {
    config.heartbeat_txn_bytes == 0
}

/// Writes keys in one transaction that begins at `ts`, in two phases.
pub(crate) fn write_all(config: &Config, ts: Timestamp, now: Time, keys: Vec<Key>, value: &Bytes) -> Operation {
    Operation::Commit(write(config, (ts, now), keys, value, CommitOptions::new(config)))
}

/// Reads keys at `ts`.
pub(crate) fn batch_get(config: &Config, ts: Timestamp, keys: Vec<Key>) -> Operation {
    Operation::SnapshotBatchGet(BatchGet::new(config, keys, SnapshotOptions::new(ts, config), ReadThrough::new(ts)))
}

fn write(
    config: &Config,
    (start_ts, now): (Timestamp, Time),
    keys: Vec<Key>,
    value: &Bytes,
    options: CommitOptions,
) -> Commit {
    let mut txn = Transaction::new(config, start_ts, now, options);
    let request = keys.into_iter().try_for_each(|key| txn.set(key, value.clone())).and_then(|()| txn.begin_commit());
    Commit::new(request.unwrap_or_else(|error| unreachable!("short keys and values can be written: {error}")))
}

impl Setup {
    /// All keys that anybody touches.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<_> = self.clients.iter().flatten().flat_map(|work| work.keys()).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Whether TiKV calculates commit timestamps, so that it matters what was read.
    #[must_use]
    pub fn prewrites_decide(&self) -> bool {
        self.clients.iter().flatten().any(|work| work.prewrites_decide())
    }
}
