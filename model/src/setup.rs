//! The cases: who does what, and how much can go wrong.

use std::time::Duration;

use bytes::Bytes;
use tikv_core::config::Config;
use tikv_core::engine::Operation;
use tikv_core::key::{Direction, Key, KeyRange};

use tikv_core::snapshot::{BatchGet, ReadThrough, Scan, SnapshotOptions};
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_core::txn::{Commit, CommitOptions, Transaction};

use crate::client::Program;
use crate::history::History;
use crate::servers::LEAP_MS;

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
    /// Reads the keys, by region.
    BatchGet(&'static [&'static str]),
    /// Reads the keys from the first to the last, page by page.
    Scan(&'static [&'static str]),
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
    /// Whether transactions are large enough for a heartbeat.
    pub heartbeats: bool,
    /// How much can go wrong.
    pub luck: Luck,
}

impl Work {
    /// The keys it is about, in order.
    #[must_use]
    pub fn keys(self) -> Vec<Key> {
        let keys = match self {
            Work::Write(keys) | Work::WriteInTime(keys) => keys,
            Work::AsyncWrite(keys) | Work::OnePhaseWrite(keys) => keys,
            Work::BatchGet(keys) | Work::Scan(keys) => keys,
        };
        keys.iter().map(|key| Key::from(*key)).collect()
    }

    fn prewrites_decide(self) -> bool {
        matches!(self, Work::AsyncWrite(_) | Work::OnePhaseWrite(_))
    }

    fn options(self, config: &Config, now: Time) -> CommitOptions {
        let mut options = CommitOptions::new(config);
        match self {
            Work::WriteInTime(_) => options.call.deadline = now + BEFORE_A_LEAP,
            Work::AsyncWrite(_) => options.async_commit = true,
            Work::OnePhaseWrite(_) => options.one_phase_commit = true,
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
