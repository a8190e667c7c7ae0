//! One store's data: the storage half of a simulated TiKV.
//!
//! [`Storage`] answers the key-value requests of TiKV's gRPC interface as a TiKV would: transactional ones with versions,
//! locks and conflicts, and raw ones. It is pure: no clock, no thread, no I/O, no randomness; the same requests in the same
//! order give the same answers, and a clone goes its own way.
//!
//! ```
//! use tikv_core::key::KeyRange;
//! use tikv_proto::kvrpcpb::{GetRequest, RawGetRequest, RawPutRequest};
//! use tikv_sim::storage::{Config, Outcome, Storage};
//!
//! let mut storage = Storage::new(Config::default());
//! let put = RawPutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
//! storage.handle(&KeyRange::ALL, &put);
//! let get = RawGetRequest { key: "k".into(), ..Default::default() };
//! let Outcome::Answer(answer) = storage.handle(&KeyRange::ALL, &get).outcome else { panic!("reads are answered") };
//! assert_eq!(answer.value, "v");
//! ```
//!
//! # What the caller does
//!
//! - **Regions.** Data lies across regions. The caller checks epoch, leader, and that keys lie in the region; it passes the
//!   region's range, decoded for transactional requests and as it is for raw ones, so that scans end where the region
//!   does.
//! - **Waiting for locks.** [`Outcome::Wait`] is a pessimistic lock request that met a lock. See [`LockWait`] for how to go
//!   on; [`Handled::released`] tells which keys may be tried again.
//! - **Abort.** [`Outcome::Refused`] stands where a real TiKV would have hit an assertion and died. Nothing was changed.
//! - **Timestamps.** Reads push the store's max_ts, from which async commit and one-phase commit derive their commit_ts.
//!   After a change of leader the caller pushes it to a fresh timestamp by [`Storage::observe_ts`].
//! - **Time.** Only raw TTLs know of a clock, which [`Storage::set_unix_time`] sets.
//! - **Pessimistic locks in memory** are lost with their leader, unless [`Storage::persist_memory_locks`] writes them down.
//!
//! # What TiKV does that is not modelled
//!
//! Raw and transactional data do not see each other. The pessimistic lock table has no size limit. There is no flashback.

mod batch;
mod check_secondary_locks;
mod check_txn_status;
mod command;
mod commit;
mod crc64;
mod data;
mod delete_range;
mod errors;
mod flush;
mod gc;
#[cfg(test)]
mod harness;
mod heartbeat;
mod journal;
mod lock;
mod lock_wait;
mod mvcc_debug;
mod pessimistic_lock;
mod pessimistic_rollback;
mod prewrite;
mod prewrite_key;
mod raw;
mod read;
mod resolve;
mod rollback;
mod scan;
mod scan_lock;
mod txn;
mod txn_status_cache;
mod write;

use tikv_core::key::{Key, KeyRange};
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{self, LockInfo, PessimisticLockRequest, PessimisticLockResponse};

pub use self::command::Command;
use self::command::{Context, Reply};
use self::data::Data;
use self::errors::Error;
pub use self::journal::Change;
pub use self::lock_wait::{LockWait, ReleasedLock};
use self::pessimistic_lock::{Attempt, acquire_locks};
use self::raw::RawData;
use self::txn::MaxTs;
use self::txn_status_cache::TxnStatusCache;

/// How raw values are stored. TiKV: `storage.api-version` and `storage.enable-ttl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RawFormat {
    /// Without TTL.
    #[default]
    V1,
    /// With TTL.
    V1Ttl,
    /// With TTL, and with one column family only.
    V2,
}

/// Settings of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Keep pessimistic locks in memory (default: yes). TiKV: `pessimistic-txn.in-memory`.
    pub in_memory_pessimistic_locks: bool,
    /// How raw values are stored (default: API V1 without TTL).
    pub raw_format: RawFormat,
}

impl Default for Config {
    fn default() -> Self {
        Config { in_memory_pessimistic_locks: true, raw_format: RawFormat::V1 }
    }
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handled<R> {
    /// The answer, if there is one.
    pub outcome: Outcome<R>,
    /// Locks that went, in order. Who waits for them may try again.
    pub released: Vec<ReleasedLock>,
    /// Locks on keys that had none, in order. Who waits for such a key waits for another transaction now.
    pub acquired: Vec<LockInfo>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<R> {
    /// Answered. Errors are part of the response.
    Answer(R),
    /// A pessimistic lock request waits for another transaction. Nothing of it was done.
    Wait(Box<LockWait>),
    /// A real TiKV would have aborted, or does not know the method. Nothing was done.
    Refused(Refusal),
}

/// Why a request is refused: it breaks an assumption that TiKV asserts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// A write command without keys.
    #[error("a write command without keys")]
    NoKeys,
    /// A mutation of a kind that the command does not know.
    #[error("a mutation of a kind that the command does not know")]
    UnexpectedOp,
    /// Resolving keys of no transaction.
    #[error("resolving keys without a start_ts")]
    NoStartTs,
    /// A range whose end lies before its start.
    #[error("a range whose end lies before its start")]
    InvertedRange,
    /// Destroying a range without start or end.
    #[error("destroying a range without start or end")]
    UnboundedDestroy,
    /// Rolling back a lock beside a record of its own transaction.
    #[error("rolling back the lock of a transaction that has ended on the key")]
    LockOfCommittedTxn,
    /// Rolling back a shared lock on its own primary.
    #[error("rolling back a shared lock on its own primary")]
    SharedPrimary,
    /// Reading the buffer of a transaction that is not pipelined.
    #[error("reading a lock that no flush has written")]
    NotBuffered,
    /// Asking for a TTL without TTLs being enabled.
    #[error("asking for a TTL without TTLs being enabled")]
    TtlNotEnabled,
    /// The method is not implemented (any more).
    #[error("the method is not implemented")]
    Unimplemented,
}

/// The data of one store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Storage {
    config: Config,
    data: Data,
    raw: RawData,
    max_ts: MaxTs,
    txn_status_cache: TxnStatusCache,
}

impl Storage {
    /// An empty store.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Storage {
            config,
            data: Data::default(),
            raw: RawData::new(config.raw_format),
            max_ts: MaxTs::default(),
            txn_status_cache: TxnStatusCache::default(),
        }
    }

    /// Answers a request that was sent to the given region. See the [module](self) for what the caller has to check.
    pub fn handle<C: Command>(&mut self, region: &KeyRange, request: &C) -> Handled<C::Response> {
        request.run(self, region, None)
    }

    /// Answers a request whose context is not in it.
    pub fn handle_with_context<C: Command>(
        &mut self,
        region: &KeyRange,
        context: &kvrpcpb::Context,
        request: &C,
    ) -> Handled<C::Response> {
        request.run(self, region, Some(context))
    }

    /// Tries a pessimistic lock request of force mode again, after it has waited: [`LockWait::is_force`].
    pub fn resume(&mut self, region: &KeyRange, request: &PessimisticLockRequest) -> Handled<PessimisticLockResponse> {
        self.run(region, None, |cx| acquire_locks(request, cx, Attempt::Resumed))
    }

    fn run<R: Reply>(
        &mut self,
        region: &KeyRange,
        options: Option<&kvrpcpb::Context>,
        command: impl FnOnce(&mut Context<'_>) -> Result<R, Error>,
    ) -> Handled<R> {
        let mut cx = Context { storage: self, region, options, released: Vec::new(), acquired: Vec::new() };
        let result = command(&mut cx);
        let Context { released, acquired, .. } = cx;
        let mut response = R::default();
        let outcome = match result {
            Ok(response) => Outcome::Answer(response),
            Err(Error::MustWait(wait)) => Outcome::Wait(wait),
            Err(Error::Refused(refusal)) => Outcome::Refused(refusal),
            Err(Error::Region(error)) => {
                response.set_region_error(error);
                Outcome::Answer(response)
            }
            Err(error) => {
                response.set_error(&error);
                Outcome::Answer(response)
            }
        };
        Handled { outcome, released, acquired }
    }

    /// The largest timestamp that reads on this store have used.
    #[must_use]
    pub fn max_ts(&self) -> Timestamp {
        self.max_ts.get()
    }

    /// Makes every commit_ts calculated from now on exceed `ts`.
    pub fn observe_ts(&mut self, ts: Timestamp) {
        self.max_ts.observe(ts);
    }

    /// Sets the clock by which raw values expire, in seconds since 1970.
    pub fn set_unix_time(&mut self, seconds: u64) {
        self.raw.now_s = seconds;
    }

    /// Writes the pessimistic locks of a range from memory to the store, as a leader does before it hands a region over.
    pub fn persist_memory_locks(&mut self, range: &KeyRange) {
        self.data.persist_memory_locks(range);
    }

    /// Forgets the pessimistic locks of a range that are only in memory, as when the leader of a region crashes.
    pub fn drop_memory_locks(&mut self, range: &KeyRange) {
        self.data.drop_memory_locks(range);
    }

    /// Keeps a journal of all changes from now on, to be taken by [`Storage::take_changes`]. Only garbage collection and
    /// the deletion of ranges are not in it.
    pub fn enable_journal(&mut self) {
        self.data.journal.enable();
        self.raw.journal.enable();
    }

    /// Appends what has changed since the last time, in order.
    pub fn take_changes(&mut self, into: &mut Vec<Change>) {
        self.data.journal.take(into);
        self.raw.journal.take(into);
    }

    /// The oldest transaction that has prewritten a change within a range: below it nothing more will be committed there,
    /// except what PD's clock has not reached. Zero does not occur; `None` is no such transaction.
    #[must_use]
    pub fn oldest_prewrite(&self, range: &KeyRange) -> Option<Timestamp> {
        self.data.oldest_prewrite(range)
    }

    /// The keys of a range that transactions have ended on, in order, each as often as it has write records.
    pub fn write_records(&self, range: &KeyRange) -> impl Iterator<Item = &Key> {
        self.data.range(range).flat_map(|(key, record)| std::iter::repeat_n(key, record.writes.len()))
    }

    /// Drops the versions of a range that no read at or after `safe_point` can see. Locks must have been resolved before.
    pub fn collect_garbage(&mut self, range: &KeyRange, safe_point: Timestamp) {
        gc::collect(&mut self.data, range, safe_point);
    }
}
