//! The state of a transaction between its calls.
//!
//! ```text
//!         begin_commit                 end_commit
//!  Open ──────────────► Committing ──────────────► Finished (committed, failed, undetermined)
//!    │ begin_commit failed                             ▲
//!    │ rollback                                        │
//!    └─────────────────────────────────────────────────┘
//! ```
//!
//! Plain data: reads go through the buffer first and to a snapshot at `start_ts` for what the buffer does not know; writes
//! stay in the buffer; the commit is a [`Commit`](super::Commit) machine made of [`Transaction::begin_commit`]'s request.
//! What a scan finds is laid under the buffer by [`MemBuffer::union`].
//!
//! client-go: `KVTxn`.

use bytes::Bytes;

use super::mutations::PessimisticWrites;
use super::pessimistic::Pessimistic;
use super::{CommitOptions, CommitOutcome, CommitRequest, Mutations, TxnLimits, UnlockedWrites};
use crate::config::Config;
use crate::error::{Error, InvalidLock, check_key};
use crate::key::{Key, MAX_KEY_BYTES};
use crate::membuffer::{FlagOp, Flagged, Limits, MemBuffer, ValueRef, WriteError};
use crate::time::Time;
use crate::timestamp::Timestamp;

/// A transaction between its calls: what it has written and locked, how it is to commit, and how far it has come. Plain data.
///
/// Reads ask [`Transaction::read`] first and TiKV, at `start_ts`, for what is unknown; what a scan finds there is laid under
/// the writes by [`MemBuffer::union`]. [`Transaction::begin_commit`] makes the request of a [`Commit`](super::Commit).
///
/// ```
/// use tikv_core::config::Config;
/// use tikv_core::time::Time;
/// use tikv_core::timestamp::Timestamp;
/// use tikv_core::txn::{Buffered, CommitOptions, Transaction};
///
/// let config = Config::default();
/// let start_ts = Timestamp::compose(1_700_000_000_000, 0);
/// let mut txn = Transaction::new(&config, start_ts, Time::ZERO, CommitOptions::new(&config));
/// txn.set("a", "1")?;
/// txn.delete("b")?;
/// assert_eq!(txn.read(b"a")?, Buffered::Value("1".into()));
/// assert_eq!(txn.read(b"b")?, Buffered::Deleted);
/// assert_eq!(txn.read(b"c")?, Buffered::Unknown);
/// assert_eq!(txn.begin_commit()?.mutations.len(), 2);
/// # Ok::<(), tikv_core::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transaction {
    start_ts: Timestamp,
    started_at: Time,
    /// Empty once it is being committed: what it wrote lives on in the mutations.
    buffer: MemBuffer,
    /// Keys that were in the buffer until then, and bytes of these keys and values.
    committing: (usize, usize),
    options: CommitOptions,
    state: TxnState,
    /// `None` if it is optimistic.
    pessimistic: Option<Box<Pessimistic>>,
}

/// How far a transaction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TxnState {
    /// It can be read and written.
    Open,
    /// It is being committed; nothing can be changed any more.
    Committing,
    /// It has committed.
    Committed(CommitOutcome),
    /// It has not committed and never will, be it that its owner rolled it back or that the commit failed.
    RolledBack,
    /// Whether it has committed is not known.
    Undetermined,
}

/// What the buffer of a transaction knows of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Buffered {
    /// The transaction has set the key to this value.
    Value(Bytes),
    /// The transaction has deleted the key.
    Deleted,
    /// The transaction has not written the key: TiKV has to be asked.
    Unknown,
}

/// What the buffer of a transaction knows of several keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BufferedReads {
    /// The values that the transaction has set, in the order of the question. Deleted keys are left out.
    pub found: Vec<(Key, Bytes)>,
    /// The keys of which TiKV has to be asked, in the order of the question.
    pub unknown: Vec<Key>,
}

impl Transaction {
    /// A transaction that reads at `start_ts` and began at `started_at` on the caller's clock.
    #[must_use]
    pub fn new(config: &Config, start_ts: Timestamp, started_at: Time, options: CommitOptions) -> Self {
        let limits = TxnLimits::new(config);
        let mut buffer = MemBuffer::new();
        buffer.set_limits(Limits {
            entry_bytes: usize::try_from(limits.entry_bytes).unwrap_or(usize::MAX),
            total_bytes: usize::try_from(limits.total_bytes).unwrap_or(usize::MAX),
        });
        let (committing, state, pessimistic) = ((0, 0), TxnState::Open, None);
        Transaction { start_ts, started_at, buffer, committing, options, state, pessimistic }
    }

    /// The same as a pessimistic transaction: it locks keys, by [`Transaction::begin_lock`], before it writes them. client-go:
    /// `SetPessimistic`.
    #[must_use]
    pub fn into_pessimistic(mut self, config: &Config) -> Self {
        self.pessimistic.get_or_insert_default().lock_ttl = config.managed_lock_ttl;
        self
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

    /// How it will commit, to be changed.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`] once it is no longer open.
    pub fn options_mut(&mut self) -> Result<&mut CommitOptions, Error> {
        self.check_open()?;
        Ok(&mut self.options)
    }

    /// How many keys it has written, and bytes of these keys and values. client-go: `Len`, `Size`.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.committing.0 + self.buffer.len(), self.committing.1 + self.buffer.size())
    }

    /// Its writes. None any more as soon as its commit has begun.
    #[must_use]
    pub fn buffer(&self) -> &MemBuffer {
        &self.buffer
    }

    /// Its writes, to be changed: stages, checkpoints, flags.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`] once it is no longer open.
    pub fn buffer_mut(&mut self) -> Result<&mut MemBuffer, Error> {
        self.check_open()?;
        Ok(&mut self.buffer)
    }

    /// What it has written to a key.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`] once it is no longer open.
    pub fn read(&self, key: &[u8]) -> Result<Buffered, Error> {
        self.check_open()?;
        Ok(match self.buffer.get(key) {
            Some(ValueRef::Put(value)) => Buffered::Value(value.to_bytes()),
            Some(ValueRef::Tombstone) => Buffered::Deleted,
            None => Buffered::Unknown,
        })
    }

    /// What it has written to several keys. client-go: `BufferBatchGetter`.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`] once it is no longer open.
    pub fn read_many(&self, keys: impl IntoIterator<Item = Key>) -> Result<BufferedReads, Error> {
        let mut reads = BufferedReads::default();
        for key in keys {
            match self.read(key.as_slice())? {
                Buffered::Value(value) => reads.found.push((key, value)),
                Buffered::Deleted => {}
                Buffered::Unknown => reads.unknown.push(key),
            }
        }
        Ok(reads)
    }

    /// Sets a key, whether it exists or not. Key and value are copied.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`], [`Error::EmptyKey`], [`Error::EmptyValue`], [`Error::KeyTooLarge`],
    /// [`Error::EntryTooLarge`], [`Error::TxnTooLarge`]. Nothing has changed then.
    pub fn set(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.write(key.as_ref(), value.as_ref(), &[])
    }

    /// Sets a key that must be absent. If the transaction has not set it itself, that is checked when it commits, which then
    /// fails with [`Error::KeyExists`]; or when it is locked, if a pessimistic transaction locks it afterwards.
    ///
    /// # Errors
    ///
    /// As [`Transaction::set`], [`Error::KeyExists`] if the transaction itself has set the key, or has locked it and knows that
    /// it exists, and [`Error::InvalidLock`] if it has locked the key without asking whether it exists.
    pub fn insert(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        let (key, value) = (key.as_ref(), value.as_ref());
        match self.read(key)? {
            Buffered::Value(_) => Err(Error::KeyExists { key: key.into() }),
            Buffered::Deleted => self.write(key, value, &[]),
            Buffered::Unknown => {
                let flags = self.absence_flags(key)?;
                self.write(key, value, flags)
            }
        }
    }

    /// Deletes a key, whether it exists or not.
    ///
    /// # Errors
    ///
    /// As [`Transaction::set`], but for values.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<(), Error> {
        let key = key.as_ref();
        check_key(key)?;
        self.check_open()?;
        self.buffer.delete(key).map_err(|error| write_error(key, error))
    }

    /// Makes the commit conflict with every other transaction that has written any of these keys since `start_ts`, though this
    /// one only read them: a guard against write skew. Nothing is sent before the commit.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`], [`Error::EmptyKey`], [`Error::KeyTooLarge`], [`Error::InvalidArgument`] of a pessimistic
    /// transaction: see [`Transaction::begin_lock`].
    pub fn lock_keys(&mut self, keys: impl IntoIterator<Item = Key>) -> Result<(), Error> {
        const LOCKED: &[FlagOp] = &[
            FlagOp::SetKeyLocked,
            FlagOp::DelNeedCheckExists,
            FlagOp::SetKeyLockedValueExists,
            FlagOp::SetKeyLockedInExclusiveMode,
        ];
        self.check_open()?;
        if self.is_pessimistic() {
            return Err(Error::InvalidArgument("a pessimistic transaction locks keys by a call".into()));
        }
        for key in keys {
            let key = checked(key)?;
            self.buffer.update_flags(&key, LOCKED).map_err(|error| write_error(key.as_slice(), error))?;
        }
        Ok(())
    }

    /// Closes the transaction for everything but its commit, and says what that writes. The answer may be empty: then there
    /// is nothing to commit, and [`Commit`](super::Commit) ends at once.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`], [`Error::InvalidArgument`] if a stage is open, [`Error::InvalidLock`] if keys are just being
    /// locked, or were in fair locking that has not been ended, and those of [`Mutations::of_buffer`]. After the last the
    /// transaction is rolled back: what it has locked is to be [released](Transaction::release).
    pub fn begin_commit(&mut self) -> Result<CommitRequest, Error> {
        self.begin_filtered_commit(|_| false)
    }

    /// As [`Transaction::begin_commit`], but without the writes that `is_unnecessary` says yes to. client-go: `SetKVFilter`.
    ///
    /// # Errors
    ///
    /// As [`Transaction::begin_commit`].
    pub fn begin_filtered_commit(
        &mut self,
        is_unnecessary: impl FnMut(&Flagged<'_>) -> bool,
    ) -> Result<CommitRequest, Error> {
        self.check_open()?;
        if self.buffer.is_staging() {
            return Err(Error::InvalidArgument("a stage of the transaction is open".into()));
        }
        if let Some(pessimistic) = &self.pessimistic {
            pessimistic.check_idle()?;
        }
        self.state = TxnState::RolledBack;
        self.buffer.share();
        let (level, limits) = (self.options.assertion_level, TxnLimits::from(self.buffer.limits()));
        let (mutations, pessimistic) = match &mut self.pessimistic {
            None => (Mutations::of_buffer(&self.buffer, level, limits, is_unnecessary)?, None),
            Some(state) => {
                let check_unlocked = self.options.unlocked_writes == UnlockedWrites::Check;
                let locks = PessimisticWrites {
                    primary: state.primary.as_ref(),
                    constraints: &state.constraints,
                    check_unlocked,
                };
                let mutations = Mutations::of_pessimistic(&self.buffer, locks, level, limits, is_unnecessary)?;
                (mutations, Some(state.begin_commit(self.start_ts)))
            }
        };
        self.state = TxnState::Committing;
        self.committing = self.size();
        self.buffer = MemBuffer::new();
        Ok(CommitRequest {
            start_ts: self.start_ts,
            started_at: self.started_at,
            mutations,
            pessimistic,
            options: self.options.clone(),
        })
    }

    /// Takes the end of its commit. Without effect unless it is being committed.
    pub fn end_commit(&mut self, end: &Result<CommitOutcome, Error>) {
        if self.state != TxnState::Committing {
            return;
        }
        self.state = match end {
            Ok(outcome) => TxnState::Committed(*outcome),
            Err(error) if error.is_undetermined() => TxnState::Undetermined,
            Err(_) => TxnState::RolledBack,
        };
    }

    /// Gives it up. An optimistic transaction has nothing on TiKV before it commits, so that nothing has to be sent; what a
    /// pessimistic one has locked is to be [released](Transaction::release).
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`] once it is no longer open.
    pub fn rollback(&mut self) -> Result<(), Error> {
        self.check_open()?;
        self.state = TxnState::RolledBack;
        Ok(())
    }

    /// When it began, on the caller's clock.
    pub(super) fn started_at(&self) -> Time {
        self.started_at
    }

    pub(super) fn pessimistic_state(&self) -> Result<&Pessimistic, InvalidLock> {
        self.pessimistic.as_deref().ok_or(InvalidLock::Optimistic)
    }

    pub(super) fn pessimistic_mut(&mut self) -> Result<&mut Pessimistic, InvalidLock> {
        self.pessimistic.as_deref_mut().ok_or(InvalidLock::Optimistic)
    }

    pub(super) fn flag(&mut self, key: &Key, ops: &[FlagOp]) -> Result<(), Error> {
        self.buffer.update_flags(key, ops).map_err(|error| write_error(key.as_slice(), error))
    }

    pub(super) fn write(&mut self, key: &[u8], value: &[u8], ops: &[FlagOp]) -> Result<(), Error> {
        check_key(key)?;
        self.check_open()?;
        self.buffer.set_with_flags(key, value, ops).map_err(|error| write_error(key, error))
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        if self.state == TxnState::Open { Ok(()) } else { Err(Error::TxnFinished) }
    }
}

pub(super) fn checked(key: Key) -> Result<Key, Error> {
    check_key(key.as_slice()).map(|()| key)
}

#[cold]
pub(super) fn write_error(key: &[u8], error: WriteError) -> Error {
    match error {
        WriteError::EmptyValue => Error::EmptyValue { key: key.into() },
        WriteError::KeyTooLarge { size } => Error::KeyTooLarge { actual_bytes: size, limit_bytes: MAX_KEY_BYTES },
        WriteError::EntryTooLarge { size, limit } => {
            Error::EntryTooLarge { actual_bytes: size as u64, limit_bytes: limit as u64 }
        }
        WriteError::TxnTooLarge { size, limit } => {
            Error::TxnTooLarge { actual_bytes: size as u64, limit_bytes: limit as u64 }
        }
    }
}
