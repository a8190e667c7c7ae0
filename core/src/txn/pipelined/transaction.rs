//! The state of a pipelined transaction between its calls.
//!
//! ```text
//!                        begin_flush              end_flush
//!           ┌──────► Open ──────────► Flush runs ──────────► Open
//!           │                                      failed ──► RolledBack ──► release
//!           │        begin_commit                 end_commit
//!         Open ─────────────────────► Committing ───────────► Committed, RolledBack, Undetermined
//! ```
//!
//! At any time there is a buffer that can be written, at most one that is being flushed, and what was flushed before lies in
//! TiKV: its keys are forgotten here, but for the first and the last.
//!
//! Scans, locks on keys that are not written, stages and pessimistic locks there are none. A lock would replace a value that
//! the same transaction has flushed, and TiKV cannot read a buffer in which there are such locks.
//!
//! client-go: `PipelinedMemDB`, `KVTxn` with `WithPipelinedTxn`.

use std::collections::BTreeMap;
use std::time::Duration;

use tikv_proto::kvrpcpb::Op;

use super::commit::PipelinedCommitRequest;
use super::finish::{FinishFlushed, FlushedLocks};
use super::flush::{Flushed, Generation};
use super::options::PipelinedOptions;
use super::own_read::{OwnReadEnd, OwnReadRequest, pair};
use crate::config::Config;
use crate::error::{Error, check_key};
use crate::key::Key;
use crate::knowledge::txn_status::FinalStatus;
use crate::membuffer::{FlagOp, Limits, MemBuffer, ValueRef};
use crate::time::Time;
use crate::timestamp::Timestamp;
use crate::txn::transaction::{checked, write_error};
use crate::txn::{
    Buffered, CommitOptions, CommitOutcome, Heartbeat, HeartbeatEnd, Mutation, Mutations, TxnLimits, TxnState,
};

/// Who asks, for TiKV's statistics, unless the caller says something else. client-go: `PipelinedRequestSource`.
const REQUEST_SOURCE: &str = "external_pdml";

/// A flush counts as at most this long when the next ones are throttled: longer than the retries of a batch may sleep. What
/// lasts longer has stood still with its process, or seen its clock jump, and would throttle all that follows for hours.
const LONGEST_FLUSH: Duration = Duration::from_secs(60);

/// A pipelined transaction between its calls. Plain data.
///
/// ```
/// use tikv_core::config::Config;
/// use tikv_core::time::Time;
/// use tikv_core::timestamp::Timestamp;
/// use tikv_core::txn::{CommitOptions, FlushDue, PipelinedOptions, PipelinedTransaction};
///
/// let config = Config::default();
/// let start_ts = Timestamp::compose(1_700_000_000_000, 0);
/// let options = PipelinedOptions { min_flush_keys: 2, min_flush_bytes: 0, ..PipelinedOptions::default() };
/// let mut txn = PipelinedTransaction::new(&config, start_ts, Time::ZERO, CommitOptions::new(&config), options)?;
/// txn.set("a", "1")?;
/// assert_eq!(txn.flush_due(), FlushDue::No);
/// txn.delete("b")?;
/// assert_eq!(txn.flush_due(), FlushDue::Now);
/// // To be run by a `Flush`; meanwhile the transaction can be read and written.
/// let generation = txn.begin_flush()?.expect("something to flush");
/// assert_eq!((generation.number(), generation.mutations().len()), (1, 2));
/// # Ok::<(), tikv_core::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PipelinedTransaction {
    start_ts: Timestamp,
    started_at: Time,
    options: CommitOptions,
    pipelined: PipelinedOptions,
    limits: TxnLimits,
    state: TxnState,
    /// Why it was rolled back, if nobody asked for that.
    failure: Option<Error>,
    /// What can be written.
    buffer: MemBuffer,
    /// What is being flushed.
    flushing: Option<MemBuffer>,
    /// The last generation that was begun to be flushed; zero if none was.
    generation: u64,
    /// Locked from the first generation on that locks anything.
    primary: Option<Key>,
    /// Whether the primary has been flushed.
    primary_is_locked: bool,
    /// The first and the last key that is locked, or may be.
    range: Option<(Key, Key)>,
    /// Keys and bytes flushed or being flushed.
    sent: (usize, usize),
    has_deleted: bool,
    next_beat: Option<Time>,
    read_cache: ReadCache,
    /// The weighted mean of how long flushes take, in µs; zero before the first.
    flush_us: u64,
    /// Whether somebody has taken over to clean up.
    is_released: bool,
}

/// Whether a pipelined transaction is to be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlushDue {
    /// Not yet; or not before the flush that runs has ended.
    No,
    /// Now.
    Now,
    /// The buffer is full, and the flush before has not ended: nothing can be written until it has.
    Blocked,
}

/// What was flushed of keys that have been read; true until the next flush.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct ReadCache {
    keys: BTreeMap<Key, Buffered>,
    bytes: usize,
}

/// Where a key has been found.
enum Found {
    Here(Buffered),
    /// It may have been flushed.
    MaybeFlushed,
}

impl PipelinedTransaction {
    /// A transaction that reads at `start_ts` and began at `started_at` on the caller's clock. It never commits
    /// asynchronously, nor in one phase, whatever `options` say.
    ///
    /// # Errors
    ///
    /// Those of [`PipelinedOptions::check`].
    pub fn new(
        config: &Config,
        start_ts: Timestamp,
        started_at: Time,
        mut options: CommitOptions,
        pipelined: PipelinedOptions,
    ) -> Result<Self, Error> {
        pipelined.check()?;
        if options.call.context.rest().is_none_or(|rest| rest.request_source.is_empty()) {
            options.call = options.call.with_context(|context| context.request_source = REQUEST_SOURCE.to_owned());
        }
        let limits = TxnLimits { total_bytes: u64::MAX, ..TxnLimits::new(config) };
        Ok(PipelinedTransaction {
            start_ts,
            started_at,
            options,
            pipelined,
            limits,
            state: TxnState::Open,
            failure: None,
            buffer: new_buffer(limits),
            flushing: None,
            generation: 0,
            primary: None,
            primary_is_locked: false,
            range: None,
            sent: (0, 0),
            has_deleted: false,
            next_beat: None,
            read_cache: ReadCache::default(),
            flush_us: 0,
            is_released: false,
        })
    }

    /// The timestamp it reads at, and its identity.
    #[must_use]
    pub fn start_ts(&self) -> Timestamp {
        self.start_ts
    }

    /// How far it has come.
    #[must_use]
    pub fn state(&self) -> TxnState {
        self.state
    }

    /// How it will commit.
    #[must_use]
    pub fn options(&self) -> &CommitOptions {
        &self.options
    }

    /// How many keys it has written, those counted twice that were written again after they had been flushed, and bytes of
    /// these keys and values. client-go: `Len`, `Size`.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.sent.0 + self.buffer.len(), self.sent.1 + self.buffer.size())
    }

    /// The generations that have been flushed, or are being flushed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The key whose state decides; `None` until something is flushed that can be locked.
    #[must_use]
    pub fn primary(&self) -> Option<&Key> {
        self.primary.as_ref()
    }

    /// Whether a flush runs. client-go: `OnFlushing`.
    #[must_use]
    pub fn is_flushing(&self) -> bool {
        self.flushing.is_some()
    }

    /// Whether the buffer that can be written is empty.
    #[must_use]
    pub fn has_nothing_to_flush(&self) -> bool {
        self.buffer.is_empty()
    }

    // ---- Writing ----

    /// Sets a key, whether it exists or not.
    ///
    /// # Errors
    ///
    /// [`Error::BufferFull`], [`Error::EmptyKey`], [`Error::EmptyValue`], [`Error::KeyTooLarge`], [`Error::EntryTooLarge`];
    /// nothing has changed then. [`Error::TxnFinished`], and if a flush or the heartbeat has failed, its error.
    pub fn set(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.write(key.as_ref(), value.as_ref(), &[])
    }

    /// Sets a key that must be absent. That is checked when it is flushed; the flush then fails with [`Error::KeyExists`], and
    /// the transaction is rolled back.
    ///
    /// # Errors
    ///
    /// As [`PipelinedTransaction::set`], and [`Error::KeyExists`] if the transaction has just set the key itself.
    pub fn insert(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        let (key, value) = (key.as_ref(), value.as_ref());
        match self.find(key) {
            Found::Here(Buffered::Value(_)) => Err(Error::KeyExists { key: key.into() }),
            Found::Here(Buffered::Deleted) => self.write(key, value, &[]),
            Found::Here(Buffered::Unknown) | Found::MaybeFlushed => {
                self.write(key, value, &[FlagOp::SetPresumeKeyNotExists])
            }
        }
    }

    /// Deletes a key, whether it exists or not.
    ///
    /// # Errors
    ///
    /// As [`PipelinedTransaction::set`], but for values.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<(), Error> {
        let key = key.as_ref();
        check_key(key)?;
        self.check_room()?;
        self.buffer.delete(key).map_err(|error| write_error(key, error))
    }

    /// Asserts of a key that was written, and has not been flushed since, whether it existed before this transaction. Checked
    /// when it is flushed for the first time, at the [assertion level](CommitOptions::assertion_level); the flush then fails
    /// with [`Error::AssertionFailed`].
    ///
    /// # Errors
    ///
    /// As [`PipelinedTransaction::set`].
    pub fn assert_existence(&mut self, key: impl Into<Key>, exists: bool) -> Result<(), Error> {
        let key = checked(key.into())?;
        self.check_open()?;
        let op = if exists { FlagOp::SetAssertExist } else { FlagOp::SetAssertNotExist };
        if self.buffer.get(key.as_slice()).is_none() {
            return Err(Error::InvalidArgument("an assertion of a key that is not in the buffer".into()));
        }
        self.buffer.update_flags(&key, &[op]).map_err(|error| write_error(key.as_slice(), error))
    }

    fn write(&mut self, key: &[u8], value: &[u8], ops: &[FlagOp]) -> Result<(), Error> {
        check_key(key)?;
        self.check_room()?;
        self.buffer.set_with_flags(key, value, ops).map_err(|error| write_error(key, error))
    }

    // ---- Flushing ----

    /// Whether the buffer is large enough to be flushed.
    #[must_use]
    pub fn flush_due(&self) -> FlushDue {
        let PipelinedOptions { min_flush_keys, min_flush_bytes, force_flush_bytes, .. } = self.pipelined;
        let memory = self.buffer.footprint();
        let is_full = memory >= force_flush_bytes && !self.buffer.is_empty();
        let is_large = memory >= min_flush_bytes && self.buffer.len() >= min_flush_keys && !self.buffer.is_empty();
        match (is_full, self.is_flushing()) {
            _ if self.state != TxnState::Open => FlushDue::No,
            (true, true) => FlushDue::Blocked,
            (true, false) => FlushDue::Now,
            (false, false) if is_large => FlushDue::Now,
            (false, _) => FlushDue::No,
        }
    }

    /// Begins to flush what is buffered, however little: the answer is to be run by a [`Flush`](super::Flush), whose end goes to
    /// [`PipelinedTransaction::end_flush`]. `None` if nothing is buffered, or a flush runs already. client-go: `Flush(true)`.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`], and if a flush or the heartbeat has failed, its error.
    pub fn begin_flush(&mut self) -> Result<Option<Generation>, Error> {
        self.check_open()?;
        if self.is_flushing() {
            return Ok(None);
        }
        let mut options = self.options.clone();
        // It goes on beside the transaction, whose calls may have deadlines of their own.
        options.call.deadline = Time::MAX;
        self.next_generation(options)
    }

    fn next_generation(&mut self, options: CommitOptions) -> Result<Option<Generation>, Error> {
        if self.buffer.is_empty() {
            return Ok(None);
        }
        self.read_cache = ReadCache::default();
        let mut buffer = std::mem::replace(&mut self.buffer, new_buffer(self.limits));
        buffer.share();
        self.sent = (self.sent.0 + buffer.len(), self.sent.1 + buffer.size());
        let mutations = Mutations::of_buffer(&buffer, self.options.assertion_level, self.limits, |_| false);
        self.flushing = Some(buffer);
        let mutations = mutations.inspect_err(|error| self.fail(error.clone()))?;
        self.generation += 1;
        let had_primary = self.primary.is_some();
        self.cover(&mutations);
        let first = mutations.as_slice().first().map(|mutation| mutation.key.clone()).unwrap_or_default();
        let generation = Generation {
            start_ts: self.start_ts,
            started_at: self.started_at,
            number: self.generation,
            // Where nothing is locked, any key will do.
            primary: self.primary.clone().unwrap_or(first),
            locks_primary: !had_primary && self.primary.is_some(),
            deleted_before: self.has_deleted,
            pause: self.pause(),
            concurrency: self.pipelined.flush_concurrency,
            mutations: mutations.into_vec(),
            options,
        };
        self.has_deleted |= generation.mutations.iter().any(|mutation| mutation.op == Op::Del);
        Ok(Some(generation))
    }

    /// The keys are going to be locked.
    fn cover(&mut self, mutations: &Mutations) {
        let (first, last) = {
            let locked = mutations.as_slice().iter().filter(|mutation| mutation.leaves_lock());
            let mut keys = locked.map(|mutation: &Mutation| mutation.key.clone());
            let Some(first) = keys.next() else { return };
            let last = keys.last().unwrap_or_else(|| first.clone());
            (first, last)
        };
        if self.primary.is_none() {
            self.primary = mutations.primary().cloned();
        }
        self.range = Some(match self.range.take() {
            Some((start, end)) => (start.min(first), end.max(last)),
            None => (first, last),
        });
    }

    /// How long the next flush stands still first.
    fn pause(&self) -> Duration {
        let permille = u64::from(self.pipelined.write_throttle_permille.min(999));
        Duration::from_micros(self.flush_us.saturating_mul(permille) / (1000 - permille))
    }

    /// Takes the end of a flush. An error ends the transaction: what it has flushed is to be
    /// [released](PipelinedTransaction::release). Without effect if none runs.
    pub fn end_flush(&mut self, end: &Result<Flushed, Error>) {
        if self.flushing.take().is_none() || self.state != TxnState::Open {
            return;
        }
        match end {
            Ok(flushed) => {
                self.primary_is_locked |= self.primary.is_some();
                self.next_beat = flushed.next_beat.or(self.next_beat);
                let us = u64::try_from(flushed.duration.min(LONGEST_FLUSH).as_micros()).unwrap_or(u64::MAX);
                self.flush_us = weighted_mean(self.flush_us, us);
            }
            Err(error) => self.fail(error.clone()),
        }
    }

    /// The heartbeat that keeps its locks alive between its first flush and its commit: `None` before and after. To be run
    /// beside the transaction, from the end of its first flush on, and to be abandoned when the commit begins; its end goes to
    /// [`PipelinedTransaction::end_keep_alive`].
    #[must_use]
    pub fn keep_alive(&self) -> Option<Heartbeat> {
        let primary = self.primary.clone().filter(|_| self.primary_is_locked && self.state == TxnState::Open)?;
        let heartbeat = Heartbeat::new(self.start_ts, primary, self.options.upkeep());
        let heartbeat = match self.next_beat {
            Some(due) => heartbeat.due(due),
            None => heartbeat,
        };
        Some(heartbeat.of_pipelined(true))
    }

    /// Its heartbeat has ended: without it the transaction could not commit, and ends as well. What it has flushed is to be
    /// [released](PipelinedTransaction::release).
    pub fn end_keep_alive(&mut self, end: HeartbeatEnd) {
        if self.state == TxnState::Open {
            self.fail(end.into_error(self.start_ts));
        }
    }

    // ---- Reading ----

    /// Begins to read keys: the answer is to be run by an [`OwnRead`](super::OwnRead), whose end goes to
    /// [`PipelinedTransaction::end_read`].
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`], [`Error::EmptyKey`], [`Error::KeyTooLarge`], and if a flush or the heartbeat has failed, its
    /// error.
    pub fn begin_read(&self, keys: impl IntoIterator<Item = Key>) -> Result<OwnReadRequest, Error> {
        self.check_open()?;
        let mut keys = keys.into_iter().map(checked).collect::<Result<Vec<Key>, Error>>()?;
        keys.sort();
        keys.dedup();
        let (start_ts, generation) = (self.start_ts, self.generation);
        let (found, flushed, stored) = (Vec::new(), Vec::new(), Vec::new());
        let mut request = OwnReadRequest { start_ts, generation, found, flushed, stored };
        for key in keys {
            match self.find(key.as_slice()) {
                Found::Here(Buffered::Value(value)) => request.found.push(pair(&key, &value)),
                Found::Here(Buffered::Deleted) => {}
                Found::Here(Buffered::Unknown) => request.stored.push(key),
                Found::MaybeFlushed => request.flushed.push(key),
            }
        }
        Ok(request)
    }

    /// Takes over what a read has learnt, unless something has been flushed since it began.
    pub fn end_read(&mut self, end: &OwnReadEnd) {
        if end.generation == self.generation && self.state == TxnState::Open {
            for (key, flushed) in &end.flushed {
                self.read_cache.add(key, flushed, self.pipelined.read_cache_bytes);
            }
        }
    }

    /// Unknown is what has certainly not been flushed.
    fn find(&self, key: &[u8]) -> Found {
        let buffers = [Some(&self.buffer), self.flushing.as_ref()];
        let newest = buffers.into_iter().flatten().find_map(|buffer| buffer.get(key));
        match newest {
            Some(ValueRef::Put(value)) => Found::Here(Buffered::Value(value.to_bytes())),
            Some(ValueRef::Tombstone) => Found::Here(Buffered::Deleted),
            None if !self.may_be_flushed(key) => Found::Here(Buffered::Unknown),
            None => self.read_cache.keys.get(key).cloned().map_or(Found::MaybeFlushed, Found::Here),
        }
    }

    fn may_be_flushed(&self, key: &[u8]) -> bool {
        let has_flushed = self.generation > u64::from(self.is_flushing());
        has_flushed
            && self.range.as_ref().is_some_and(|(first, last)| first.as_slice() <= key && key <= last.as_slice())
    }

    // ---- Ending ----

    /// Closes the transaction for everything but its commit, which flushes what is left first. Its heartbeat is to be abandoned
    /// before the commit is run: that has its own.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if a flush runs, [`Error::TxnFinished`], and if a flush or the heartbeat has failed, its error.
    pub fn begin_commit(&mut self) -> Result<PipelinedCommitRequest, Error> {
        self.check_open()?;
        if self.is_flushing() {
            return Err(Error::InvalidArgument("a flush of the transaction runs".into()));
        }
        let rest = self.next_generation(self.options.clone())?;
        self.state = TxnState::Committing;
        self.is_released = true;
        Ok(PipelinedCommitRequest {
            start_ts: self.start_ts,
            rest,
            primary_is_locked: self.primary_is_locked,
            locks: self.locks(),
            options: self.options.clone(),
        })
    }

    /// Takes the end of its commit. Without effect unless it is being committed.
    pub fn end_commit(&mut self, end: &Result<CommitOutcome, Error>) {
        if self.state != TxnState::Committing {
            return;
        }
        self.flushing = None;
        self.state = match end {
            Ok(outcome) => TxnState::Committed(*outcome),
            Err(error) if error.is_undetermined() => TxnState::Undetermined,
            Err(_) => TxnState::RolledBack,
        };
    }

    /// Gives it up. A flush that runs is to be abandoned, and so is the heartbeat; what has been flushed is to be
    /// [released](PipelinedTransaction::release).
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`] once it is no longer open.
    pub fn rollback(&mut self) -> Result<(), Error> {
        if self.state != TxnState::Open {
            return Err(Error::TxnFinished);
        }
        self.state = TxnState::RolledBack;
        Ok(())
    }

    /// What has to be released of a transaction that has ended without a commit, once: a machine to be run in the background,
    /// `None` if there is nothing to do. The flush that ran, if any, must have been abandoned.
    pub fn release(&mut self) -> Option<FinishFlushed> {
        if self.state != TxnState::RolledBack || std::mem::replace(&mut self.is_released, true) {
            return None;
        }
        self.flushing = None;
        let upkeep = self.options.upkeep();
        self.locks().map(|locks| FinishFlushed::new(locks, FinalStatus::RolledBack, upkeep))
    }

    fn locks(&self) -> Option<FlushedLocks> {
        Some(FlushedLocks {
            start_ts: self.start_ts,
            primary: self.primary.clone()?,
            range: self.range.clone()?,
            concurrency: self.pipelined.resolve_concurrency,
        })
    }

    /// It has not committed and never will.
    fn fail(&mut self, error: Error) {
        self.state = TxnState::RolledBack;
        self.failure.get_or_insert(error);
    }

    /// Whether it can be used.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`], and if a flush or the heartbeat has failed, its error.
    pub fn check_open(&self) -> Result<(), Error> {
        match &self.failure {
            _ if self.state == TxnState::Open => Ok(()),
            Some(error) => Err(error.clone()),
            None => Err(Error::TxnFinished),
        }
    }

    fn check_room(&self) -> Result<(), Error> {
        self.check_open()?;
        let (size_bytes, limit_bytes) = (self.buffer.footprint() as u64, self.pipelined.force_flush_bytes as u64);
        if size_bytes >= limit_bytes && !self.buffer.is_empty() {
            return Err(Error::BufferFull { size_bytes, limit_bytes });
        }
        Ok(())
    }
}

impl ReadCache {
    /// Remembers as much as there is room for.
    fn add(&mut self, key: &Key, flushed: &Buffered, limit_bytes: usize) {
        let value_bytes = if let Buffered::Value(value) = flushed { value.len() } else { 0 };
        let bytes = self.bytes.saturating_add(key.len() + value_bytes);
        if bytes <= limit_bytes && !self.keys.contains_key(key) {
            self.keys.insert(key.clone(), flushed.clone());
            self.bytes = bytes;
        }
    }
}

/// Without a limit of its own: the transaction sees to that.
fn new_buffer(limits: TxnLimits) -> MemBuffer {
    let mut buffer = MemBuffer::new();
    let entry_bytes = usize::try_from(limits.entry_bytes).unwrap_or(usize::MAX);
    buffer.set_limits(Limits { entry_bytes, total_bytes: usize::MAX });
    buffer
}

/// Each new value counts for 2 of 11, as in a moving average over ten; the first for all.
fn weighted_mean(mean: u64, new: u64) -> u64 {
    if mean == 0 { new } else { (mean.saturating_mul(9).saturating_add(new.saturating_mul(2))) / 11 }
}
