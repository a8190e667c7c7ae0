//! What clients do in a simulation: small programs, each after an invariant of its own.
//!
//! Every read and every commit is checked against the true history anyway. A workload adds what its users would notice: money
//! that vanishes, a ring that breaks.

mod append;
mod bank;
mod cycle;
mod insert;
mod large;
mod locking;
mod long_fork;
mod queue;
mod raw;
mod register;
mod write_skew;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use tikv_core::error::Error;
use tikv_core::key::{Key, KeyRange};
use tikv_core::rng::Rng;
use tikv_core::txn::{LockOptions, LockedKey, Transaction};

use super::elle::MicroOp;

pub(super) use self::locking::Locking;
pub(super) use self::raw::RawTask;

macro_rules! workloads {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $new:path;)+) => {
        /// What clients do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum WorkloadKind {
            $($(#[$doc])* $name,)+
        }

        impl WorkloadKind {
            /// Every workload.
            pub const ALL: &'static [WorkloadKind] = &[$(WorkloadKind::$name,)+];

            /// Its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(WorkloadKind::$name => $text,)+
                }
            }

            /// Whether its [history](crate::simulate::Report::history) can be written, and what checkers call it.
            #[must_use]
            pub const fn history_model(self) -> Option<&'static str> {
                match self {
                    WorkloadKind::Append => Some("list-append"),
                    WorkloadKind::Register => Some("rw-register"),
                    _ => None,
                }
            }

            /// How a history tells of a read of a key.
            pub(super) fn micro_read(self, key: &Key) -> Option<MicroOp> {
                match self {
                    WorkloadKind::Append => Some(MicroOp::ReadList(key.clone())),
                    WorkloadKind::Register => Some(MicroOp::ReadRegister(key.clone())),
                    _ => None,
                }
            }

            /// Whether its scripts can be run by transactions that lock what they read.
            #[must_use]
            pub const fn may_lock(self) -> bool {
                matches!(self, WorkloadKind::Bank | WorkloadKind::WriteSkew | WorkloadKind::Cycle | WorkloadKind::Queue)
            }

            /// The workload on so many keys.
            pub(super) fn workload(self, keys: u32) -> Box<dyn Workload> {
                match self {
                    $(WorkloadKind::$name => Box::new($new(keys)),)+
                }
            }
        }
    };
}

workloads! {
    /// Money moves between accounts, and none is made or lost.
    Bank = "bank", bank::Bank::new;
    /// Single keys are read and written.
    Register = "register", register::Register::new;
    /// Lists grow at their ends.
    Append = "append", append::Append::new;
    /// Counters rise one at a time, and readers of all of them must agree on the order.
    LongFork = "long-fork", long_fork::LongFork::new;
    /// Of two that are on duty one may leave; the other one is locked against that.
    WriteSkew = "write-skew", write_skew::WriteSkew::new;
    /// The nodes of a ring change places.
    Cycle = "cycle", cycle::Cycle::new;
    /// Keys are inserted that must be absent.
    Insert = "insert", insert::Insert::new;
    /// Many keys over many regions are written at once.
    Large = "large", large::Large::new;
    /// Work is taken from queues by pessimistic transactions, each piece once.
    Queue = "queue", queue::Queue::new;
    /// Raw keys are read, written, and compared and swapped.
    Raw = "raw", raw::Raw::new;
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no workload's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no workload {0}; there are {names}", names = WorkloadKind::ALL.iter().map(|k| k.name()).collect::<Vec<_>>().join(", "))]
pub struct UnknownWorkload(String);

impl FromStr for WorkloadKind {
    type Err = UnknownWorkload;

    fn from_str(name: &str) -> Result<Self, UnknownWorkload> {
        let found = WorkloadKind::ALL.iter().find(|kind| kind.name() == name);
        found.copied().ok_or_else(|| UnknownWorkload(name.to_owned()))
    }
}

/// What a script found wrong.
pub(super) type Checked<T> = Result<T, String>;

/// The source of what clients do.
pub(super) trait Workload: fmt::Debug {
    /// All keys that it may write, in order. Regions are split at these.
    fn keys(&self) -> &[Key];

    /// What is there before it begins.
    fn initial(&self) -> Vec<(Key, Bytes)> {
        Vec::new()
    }

    /// What to do next.
    fn next(&mut self, rng: &mut Rng) -> Task;

    /// Whether the invariant holds of all pairs at some timestamp.
    fn check(&self, state: &BTreeMap<Key, Bytes>) -> Checked<()> {
        let _ = state;
        Ok(())
    }
}

/// Something to do.
#[derive(Debug)]
pub(super) enum Task {
    Transaction(Box<dyn Script>),
    /// Read the newest version of a key, without a transaction.
    ReadNewest(Key),
    Raw(RawTask),
}

/// What is done in one transaction, step by step.
pub(super) trait Script: fmt::Debug {
    /// Whether the transaction locks keys before it writes them.
    fn is_pessimistic(&self) -> bool {
        false
    }

    /// Keys that it reads and never writes.
    fn reads_only(&self) -> &[Key] {
        &[]
    }

    /// Keys were locked, or were locked already.
    fn locked(&mut self, keys: &[LockedKey]) {
        let _ = keys;
    }

    /// Keys could not be locked. What to do next, if the transaction is to go on.
    fn failed_to_lock(&mut self, error: &Error) -> Option<Step> {
        let _ = error;
        None
    }

    /// Takes what the last step has found, writes into the transaction, and says what to do next.
    fn step(&mut self, txn: &mut Transaction, found: Found) -> Checked<Step>;

    /// All that it is going to do, as checkers of histories understand it; nothing if they do not.
    fn micro_ops(&self) -> Vec<MicroOp> {
        Vec::new()
    }
}

/// What to do next in a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Read these keys, in whatever way.
    Read(Vec<Key>),
    /// Read all pairs of a range.
    Scan(KeyRange),
    /// Lock these keys, and read what is newest, unless in share mode. Keys that are locked already are not read.
    Lock(Vec<Key>, LockOptions),
    /// Read these keys, which are locked, in the present.
    ReadLocked(Vec<Key>),
    /// Begin, repeat or end a statement that locks fairly.
    Fair(FairStep),
    Commit,
    /// Give the transaction up.
    Abandon,
}

/// What becomes of a statement that locks fairly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FairStep {
    Start,
    Retry,
    Finish,
    Cancel,
}

/// What the last step has found: nothing at first, then the pairs that exist.
pub(super) type Found = BTreeMap<Key, Bytes>;

/// `count` keys in order, beginning with different letters.
pub(super) fn numbered_keys(count: u32) -> Vec<Key> {
    (0..count).map(|number| Key::from(format!("k{number:04}"))).collect()
}

/// An index below `len`, small ones more often than large ones: some keys are hot.
pub(super) fn hot_index(rng: &mut Rng, len: usize) -> usize {
    let bound = if rng.below(2) == 0 { len as u64 } else { (len as u64).div_ceil(4) };
    rng.below(bound) as usize
}

/// Two different indices below `len`, which is at least 2.
pub(super) fn two_indices(rng: &mut Rng, len: usize) -> (usize, usize) {
    let first = hot_index(rng, len);
    let second = (first + 1 + rng.below(len as u64 - 1) as usize) % len;
    (first, second)
}

/// The number that a value is.
pub(super) fn number(value: Option<&Bytes>) -> Checked<i64> {
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).ok_or_else(|| format!("{value:?} is no number"))
}

/// A number as a value.
pub(super) fn value_of(number: i64) -> Bytes {
    number.to_string().into()
}

/// Turns an error of the transaction's buffer into a finding: none is expected.
pub(super) fn written(result: Result<(), Error>) -> Checked<()> {
    result.map_err(|error| format!("a write was refused: {error}"))
}
