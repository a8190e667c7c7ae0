//! What a commit writes: one mutation a key, built from the buffer of the transaction.
//!
//! | in the buffer | mutation |
//! |---|---|
//! | flags only, locked | `Lock` (`SharedLock` if the lock is shared) |
//! | flags only, not locked | none |
//! | value | `Put`, or `Insert` if the key is presumed absent |
//! | tombstone, presumed absent (inserted and deleted again) | `CheckNotExists`: checked by prewrite, never locked |
//! | tombstone, newly inserted | as flags only |
//! | tombstone | `Del` |
//!
//! A pessimistic transaction has no `CheckNotExists`, as it checks absence when it locks. Of each mutation it says whether the
//! key is locked, and if not, whether prewrite has to look for conflicts.
//!
//! Keys and values are shared with the buffer if it [shares](MemBuffer::share), else copied. client-go: `twoPhaseCommitter.initKeysAndMutations`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tikv_proto::kvrpcpb::prewrite_request::PessimisticAction;
use tikv_proto::kvrpcpb::{self, Assertion, AssertionLevel, Op};

use crate::config::Config;
use crate::error::{Error, check_key};
use crate::key::{Key, KeyRange};
use crate::membuffer::{Flagged, KeyFlags, Limits, MemBuffer, ValueRef};
use crate::route::Keyed;
use crate::timestamp::Timestamp;

/// One write (or check, or lock) of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mutation {
    /// The key.
    pub key: Key,
    /// The value of a `Put` or `Insert`, else empty.
    pub value: Bytes,
    /// What is done to the key.
    pub op: Op,
    /// What TiKV checks of the key beside conflicts.
    pub assertion: Assertion,
    /// How a pessimistic transaction is kept apart from others on this key. Without meaning for an optimistic one.
    pub action: PessimisticAction,
    /// The timestamp that the pessimistic lock must have; zero for whichever it has.
    pub expected_for_update_ts: Timestamp,
    /// Whether a prewrite that was not answered may have locked it.
    pub(super) maybe_locked: bool,
}

impl Mutation {
    /// Writes a value.
    pub fn put(key: impl Into<Key>, value: impl Into<Bytes>) -> Self {
        Mutation { value: value.into(), ..Mutation::without_value(key.into(), Op::Put) }
    }

    /// Deletes a key.
    pub fn delete(key: impl Into<Key>) -> Self {
        Mutation::without_value(key.into(), Op::Del)
    }

    /// Writes a value if the key is absent.
    pub fn insert(key: impl Into<Key>, value: impl Into<Bytes>) -> Self {
        Mutation { op: Op::Insert, ..Mutation::put(key, value) }
    }

    /// Changes nothing but conflicts with every writer of the key.
    pub fn lock(key: impl Into<Key>) -> Self {
        Mutation::without_value(key.into(), Op::Lock)
    }

    /// Checks that the key is absent, without a lock.
    pub fn check_not_exists(key: impl Into<Key>) -> Self {
        Mutation::without_value(key.into(), Op::CheckNotExists)
    }

    /// Whether prewriting it leaves a lock, to be committed or rolled back later.
    #[must_use]
    pub fn leaves_lock(&self) -> bool {
        self.op != Op::CheckNotExists
    }

    /// Length of key and value, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }

    pub(super) fn into_proto(self) -> kvrpcpb::Mutation {
        kvrpcpb::Mutation {
            op: self.op.into(),
            key: self.key.into_bytes(),
            value: self.value,
            assertion: self.assertion.into(),
        }
    }

    /// The same again, as far as the message tells.
    pub(super) fn from_proto(message: &kvrpcpb::Mutation) -> Self {
        let (value, assertion) = (message.value.clone(), message.assertion());
        Mutation { value, assertion, ..Mutation::without_value(message.key.clone().into(), message.op()) }
    }

    fn without_value(key: Key, op: Op) -> Self {
        Mutation {
            key,
            value: Bytes::new(),
            op,
            assertion: Assertion::None,
            action: PessimisticAction::SkipPessimisticCheck,
            expected_for_update_ts: Timestamp::ZERO,
            maybe_locked: false,
        }
    }

    fn of_pessimistic(mut self, flags: KeyFlags, locks: PessimisticWrites<'_>) -> Self {
        self.action = if flags.has_locked() {
            PessimisticAction::DoPessimisticCheck
        } else if flags.has_need_constraint_check_in_prewrite() || locks.check_unlocked {
            PessimisticAction::DoConstraintCheck
        } else {
            PessimisticAction::SkipPessimisticCheck
        };
        self.expected_for_update_ts = locks.constraints.get(&self.key).copied().unwrap_or_default();
        self
    }

    fn can_be_primary(&self) -> bool {
        !matches!(self.op, Op::CheckNotExists | Op::SharedLock)
    }
}

impl Keyed for Mutation {
    fn key(&self) -> &Key {
        &self.key
    }
}

/// How large a transaction and its parts may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TxnLimits {
    /// Longest key and value together, in bytes.
    pub entry_bytes: u64,
    /// Longest keys and values together, in bytes.
    pub total_bytes: u64,
}

impl TxnLimits {
    /// The limits of the configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        TxnLimits { entry_bytes: config.txn_entry_limit_bytes, total_bytes: config.txn_total_limit_bytes }
    }
}

impl From<Limits> for TxnLimits {
    fn from(limits: Limits) -> Self {
        let [entry_bytes, total_bytes] = [limits.entry_bytes, limits.total_bytes].map(|bytes| bytes as u64);
        TxnLimits { entry_bytes, total_bytes }
    }
}

/// All mutations of a transaction in the order of their keys, and which of them is the primary. May be empty: then there
/// is nothing to commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mutations {
    items: Vec<Mutation>,
    primary: usize,
    size_bytes: u64,
}

impl Mutations {
    /// The mutations of an optimistic transaction with these writes.
    ///
    /// `is_unnecessary` is asked of every key with a value or tombstone: what it says yes to is not written (and only
    /// locked, if the key is locked). client-go: `KVFilter`. At [`AssertionLevel::Off`] assertions are left out.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyKey`], [`Error::KeyTooLarge`], [`Error::EntryTooLarge`], [`Error::TxnTooLarge`], and
    /// [`Error::InvalidArgument`] if there are only shared locks, none of which can be the primary.
    pub fn of_buffer(
        buffer: &MemBuffer,
        level: AssertionLevel,
        limits: TxnLimits,
        mut is_unnecessary: impl FnMut(&Flagged<'_>) -> bool,
    ) -> Result<Self, Error> {
        let items = items(buffer, |entry| mutation(entry, level, None, &mut is_unnecessary));
        Mutations::of_sorted(items, limits)
    }

    /// The mutations of a pessimistic transaction with these writes and locks. All locked keys are among them.
    pub(super) fn of_pessimistic(
        buffer: &MemBuffer,
        locks: PessimisticWrites<'_>,
        level: AssertionLevel,
        limits: TxnLimits,
        mut is_unnecessary: impl FnMut(&Flagged<'_>) -> bool,
    ) -> Result<Self, Error> {
        let items = items(buffer, |entry| mutation(entry, level, Some(locks), &mut is_unnecessary));
        let mut mutations = Mutations::of_sorted(items, limits)?;
        let is_primary = |mutation: &Mutation| locks.primary == Some(&mutation.key) && mutation.can_be_primary();
        if let Some(primary) = mutations.items.iter().position(is_primary) {
            mutations.primary = primary;
        }
        Ok(mutations)
    }

    /// The given mutations.
    ///
    /// # Errors
    ///
    /// As [`Mutations::of_buffer`], [`Error::EmptyValue`] of a `Put` or `Insert`, and [`Error::InvalidArgument`] if a key
    /// occurs twice.
    pub fn new(mut items: Vec<Mutation>, limits: TxnLimits) -> Result<Self, Error> {
        items.sort_by(|a, b| a.key.cmp(&b.key));
        if items.windows(2).any(|pair| pair[0].key == pair[1].key) {
            return Err(Error::InvalidArgument("two mutations of one key".into()));
        }
        Mutations::of_sorted(items, limits)
    }

    fn of_sorted(items: Vec<Mutation>, limits: TxnLimits) -> Result<Self, Error> {
        let mut size_bytes = 0;
        for item in &items {
            check(item, limits)?;
            size_bytes += item.size_bytes() as u64;
        }
        if size_bytes > limits.total_bytes {
            return Err(Error::TxnTooLarge { actual_bytes: size_bytes, limit_bytes: limits.total_bytes });
        }
        let primary = match items.iter().position(Mutation::can_be_primary) {
            Some(primary) => primary,
            None if items.iter().any(Mutation::leaves_lock) => {
                return Err(Error::InvalidArgument("a shared lock cannot be the primary of its transaction".into()));
            }
            // Nothing will be locked, so that any key will do.
            None => 0,
        };
        Ok(Mutations { items, primary, size_bytes })
    }

    /// The key whose state decides about the transaction: the first that is locked. `None` if there is no mutation.
    #[must_use]
    pub fn primary(&self) -> Option<&Key> {
        self.items.get(self.primary).map(|mutation| &mutation.key)
    }

    /// The keys that prewrite locks, in order.
    pub fn locked_keys(&self) -> impl Iterator<Item = &Key> {
        self.items.iter().filter(|mutation| mutation.leaves_lock()).map(|mutation| &mutation.key)
    }

    /// The same, shared.
    pub(super) fn share_locked_keys(&self) -> Arc<[Key]> {
        // An iterator that knows its length fills the shared memory itself.
        match self.items.iter().all(Mutation::leaves_lock) {
            true => self.items.iter().map(|mutation| mutation.key.clone()).collect(),
            false => self.locked_keys().cloned().collect(),
        }
    }

    /// All of them, in the order of their keys.
    #[must_use]
    pub fn as_slice(&self) -> &[Mutation] {
        &self.items
    }

    /// All of them, in the order of their keys.
    #[must_use]
    pub fn into_vec(self) -> Vec<Mutation> {
        self.items
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Length of all keys and values, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

/// What decides about the mutations of a pessimistic transaction beside its buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct PessimisticWrites<'a> {
    /// The key that was locked first.
    pub(super) primary: Option<&'a Key>,
    /// The timestamps that locks must have.
    pub(super) constraints: &'a BTreeMap<Key, Timestamp>,
    /// Whether prewrite looks for conflicts of keys that are not locked.
    pub(super) check_unlocked: bool,
}

fn items(buffer: &MemBuffer, mut mutation: impl FnMut(&Flagged<'_>) -> Option<Mutation>) -> Vec<Mutation> {
    // Nearly every key has one.
    let mut items = Vec::with_capacity(buffer.len());
    items.extend(buffer.iter_with_flags(&KeyRange::ALL).filter_map(|entry| mutation(&entry)));
    items
}

fn mutation(
    entry: &Flagged<'_>,
    level: AssertionLevel,
    locks: Option<PessimisticWrites<'_>>,
    is_unnecessary: &mut impl FnMut(&Flagged<'_>) -> bool,
) -> Option<Mutation> {
    let flags = entry.flags;
    let unnecessary = entry.value.is_some() && is_unnecessary(entry);
    let (op, value) = match entry.value {
        None => (lock_op(flags)?, Bytes::new()),
        // A lock taken before must not be forgotten, though there is nothing to write.
        Some(ValueRef::Put(_)) if unnecessary => (lock_op(flags)?, Bytes::new()),
        Some(ValueRef::Put(value)) if flags.has_presume_key_not_exists() => (Op::Insert, value.to_bytes()),
        Some(ValueRef::Put(value)) => (Op::Put, value.to_bytes()),
        Some(ValueRef::Tombstone) if unnecessary && locks.is_some() => (lock_op(flags)?, Bytes::new()),
        Some(ValueRef::Tombstone) if unnecessary => return None,
        Some(ValueRef::Tombstone) if flags.has_presume_key_not_exists() && locks.is_none() => {
            (Op::CheckNotExists, Bytes::new())
        }
        Some(ValueRef::Tombstone) if flags.has_newly_inserted() => (lock_op(flags)?, Bytes::new()),
        Some(ValueRef::Tombstone) => (Op::Del, Bytes::new()),
    };
    let key = entry.key.to_key();
    let assertion = assertion(flags, level);
    let mutation = Mutation { value, assertion, ..Mutation::without_value(key, op) };
    Some(match locks {
        None => mutation,
        Some(locks) => mutation.of_pessimistic(flags, locks),
    })
}

fn lock_op(flags: KeyFlags) -> Option<Op> {
    let op = if flags.has_locked_in_share_mode() { Op::SharedLock } else { Op::Lock };
    flags.has_locked().then_some(op)
}

fn assertion(flags: KeyFlags, level: AssertionLevel) -> Assertion {
    match level {
        AssertionLevel::Off => Assertion::None,
        _ if flags.has_assert_exist() => Assertion::Exist,
        _ if flags.has_assert_not_exist() => Assertion::NotExist,
        _ => Assertion::None,
    }
}

fn check(mutation: &Mutation, limits: TxnLimits) -> Result<(), Error> {
    check_key(mutation.key.as_slice())?;
    if matches!(mutation.op, Op::Put | Op::Insert) && mutation.value.is_empty() {
        return Err(Error::EmptyValue { key: mutation.key.clone() });
    }
    let actual_bytes = mutation.size_bytes() as u64;
    if actual_bytes > limits.entry_bytes {
        return Err(Error::EntryTooLarge { actual_bytes, limit_bytes: limits.entry_bytes });
    }
    Ok(())
}
