//! The writes of a transaction before they are committed.
//!
//! A [`MemBuffer`] maps keys to values, tombstones and [flags](KeyFlags), in order. Reads of the transaction go through
//! it ([`MemBuffer::get`], [`MemBuffer::union`]), the commit reads it out ([`MemBuffer::iter_with_flags`]).
//!
//! Writes can be undone: a [stage](MemBuffer::stage) as a whole (a statement that fails), or back to a
//! [checkpoint](MemBuffer::checkpoint) (a savepoint). Values come back, flags do not: they tell of locks on TiKV, which
//! undoing does not release.
//!
//! It is data: nothing in it waits or calls. client-go: `internal/unionstore`, `kv/keyflags.go`.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::key::{Key, MAX_KEY_BYTES};

mod flags;
mod iter;
mod log;
mod snapshot;
mod stage;
#[cfg(test)]
mod tests;
mod union;

pub use flags::{FlagOp, KeyFlags};
pub use iter::{Flagged, Iter, IterWithFlags};
use log::{Log, Place};
pub use snapshot::{Snapshot, SnapshotChanged, SnapshotCursor};
pub use stage::{Checkpoint, Stage, StageError};
pub use union::Union;

/// The writes of a transaction, in the order of their keys.
///
/// ```
/// use tikv_core::membuffer::{FlagOp, MemBuffer, Value};
///
/// let mut buffer = MemBuffer::new();
/// buffer.set("a", "1")?;
/// buffer.delete_with_flags("b", &[FlagOp::SetAssertExist])?;
/// assert_eq!(buffer.get(b"a"), Some(&Value::Put("1".into())));
/// assert_eq!(buffer.get(b"b"), Some(&Value::Tombstone));
/// assert_eq!(buffer.get(b"c"), None);
/// # Ok::<(), tikv_core::membuffer::WriteError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemBuffer {
    entries: BTreeMap<Key, Entry>,
    log: Log,
    stages: Vec<Stage>,
    limits: Limits,
    size: usize,
    footprint: usize,
    dirty: bool,
    /// Counts changes of what was before the first open stage.
    base_changes: u64,
}

/// What was written to a key last.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// A value. Never empty: TiKV cannot tell an empty one from none.
    Put(Bytes),
    /// The key is deleted.
    Tombstone,
}

/// How much a buffer takes. client-go: `SetEntrySizeLimit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Longest key and value together, in bytes. Default: no limit.
    pub entry_bytes: usize,
    /// Longest keys and values of the whole buffer, in bytes. Default: no limit.
    pub total_bytes: usize,
}

impl Limits {
    /// No limit but that of keys, [`MAX_KEY_BYTES`].
    pub const NONE: Limits = Limits { entry_bytes: usize::MAX, total_bytes: usize::MAX };
}

impl Default for Limits {
    fn default() -> Self {
        Limits::NONE
    }
}

/// The buffer does not take a write. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum WriteError {
    /// An empty value cannot be told from none. client-go: `ErrCannotSetNilValue`.
    #[error("cannot set an empty value")]
    EmptyValue,
    /// client-go: `ErrKeyTooLarge`.
    #[error("key of {size} bytes exceeds the limit of {}", MAX_KEY_BYTES)]
    KeyTooLarge {
        /// Length of the key, in bytes.
        size: usize,
    },
    /// client-go: `ErrEntryTooLarge`.
    #[error("entry of {size} bytes exceeds the limit of {limit}")]
    EntryTooLarge {
        /// Length of key and value, in bytes.
        size: usize,
        /// [`Limits::entry_bytes`].
        limit: usize,
    },
    /// client-go: `ErrTxnTooLarge`.
    #[error("transaction of {size} bytes exceeds the limit of {limit}")]
    TxnTooLarge {
        /// Length of all keys and values, the refused ones included, in bytes.
        size: usize,
        /// [`Limits::total_bytes`].
        limit: usize,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Entry {
    flags: KeyFlags,
    /// None for a key that has flags only.
    newest: Option<Place>,
}

impl MemBuffer {
    /// An empty buffer without limits. Allocates nothing.
    #[must_use]
    pub fn new() -> Self {
        MemBuffer::default()
    }

    /// Sets a key. The value must not be empty.
    ///
    /// # Errors
    ///
    /// Every [`WriteError`]; the buffer is as it was.
    pub fn set(&mut self, key: impl Into<Key>, value: impl Into<Bytes>) -> Result<(), WriteError> {
        self.set_with_flags(key, value, &[])
    }

    /// Sets a key and changes its flags.
    ///
    /// # Errors
    ///
    /// Every [`WriteError`]; the buffer is as it was.
    pub fn set_with_flags(
        &mut self,
        key: impl Into<Key>,
        value: impl Into<Bytes>,
        ops: &[FlagOp],
    ) -> Result<(), WriteError> {
        let value = value.into();
        if value.is_empty() {
            return Err(WriteError::EmptyValue);
        }
        self.write(key.into(), Value::Put(value), ops)
    }

    /// Deletes a key: the buffer remembers a tombstone, whether it knew of the key or not.
    ///
    /// # Errors
    ///
    /// [`WriteError`] about sizes; the buffer is as it was.
    pub fn delete(&mut self, key: impl Into<Key>) -> Result<(), WriteError> {
        self.delete_with_flags(key, &[])
    }

    /// Deletes a key and changes its flags.
    ///
    /// # Errors
    ///
    /// [`WriteError`] about sizes; the buffer is as it was.
    pub fn delete_with_flags(&mut self, key: impl Into<Key>, ops: &[FlagOp]) -> Result<(), WriteError> {
        self.write(key.into(), Value::Tombstone, ops)
    }

    /// Changes the flags of a key and leaves its value. A key that is new to the buffer has flags only: it counts in
    /// [`MemBuffer::len`] and cannot be read. No stage or checkpoint takes flags back.
    ///
    /// # Errors
    ///
    /// [`WriteError::KeyTooLarge`].
    pub fn update_flags(&mut self, key: impl Into<Key>, ops: &[FlagOp]) -> Result<(), WriteError> {
        let key = key.into();
        check_key(&key)?;
        let Entry { flags, newest } = self.entries.get(&key).copied().unwrap_or_default();
        self.put_entry(key, Entry { flags: flags.apply(ops), newest });
        Ok(())
    }

    /// What was written to a key last; `None` if nothing was, or flags only. Reads of the transaction then go to TiKV.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Value> {
        let place = self.entries.get(key)?.newest?;
        Some(&self.log.get(place).value)
    }

    /// The flags of a key; `None` if the buffer does not know of it.
    #[must_use]
    pub fn flags(&self, key: &[u8]) -> Option<KeyFlags> {
        self.entries.get(key).map(|entry| entry.flags)
    }

    /// What was written to a key, the newest first, as far as stages and checkpoints have kept it apart. client-go:
    /// `SelectValueHistory`.
    pub fn history(&self, key: &[u8]) -> impl Iterator<Item = &Value> {
        let newest = self.entries.get(key).and_then(|entry| entry.newest);
        self.log.history(newest).map(|version| &version.value)
    }

    /// Keys in the buffer, those with flags only included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the buffer knows of no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Length of all keys and their newest values, in bytes: what the transaction sends.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Memory in use, in bytes, about: everything kept for undoing included. Zero for a buffer that was never written.
    #[must_use]
    pub fn footprint(&self) -> usize {
        self.footprint
    }

    /// Whether there is anything to commit: a write outside of stages, in a stage that was released, or a persistent
    /// flag.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// How much the buffer takes.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Changes how much the buffer takes. What is in it stays, whatever its size.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Forgets everything but the limits. Open stages are ended; going back to an earlier checkpoint empties the
    /// buffer.
    pub fn clear(&mut self) {
        self.log.clear();
        let (log, limits) = (std::mem::take(&mut self.log), self.limits);
        *self = MemBuffer { log, limits, base_changes: self.base_changes + 1, ..MemBuffer::default() };
    }

    fn write(&mut self, key: Key, value: Value, ops: &[FlagOp]) -> Result<(), WriteError> {
        check_key(&key)?;
        let entry_size = key.len() + value.len();
        if entry_size > self.limits.entry_bytes {
            return Err(WriteError::EntryTooLarge { size: entry_size, limit: self.limits.entry_bytes });
        }
        let known = self.entries.get(&key).copied();
        let Entry { flags, newest } = known.unwrap_or_default();
        let replaced = newest.map_or(0, |place| self.log.get(place).value.len());
        let size = self.size - replaced + value.len() + if known.is_some() { 0 } else { key.len() };
        if size > self.limits.total_bytes && size > self.size {
            return Err(WriteError::TxnTooLarge { size, limit: self.limits.total_bytes });
        }
        // Whoever writes a value has checked what was left to prewrite, unless the operations say otherwise.
        let flags = flags.apply(&[FlagOp::DelNeedConstraintCheckInPrewrite]).apply(ops);
        let place = self.append(&key, value, newest);
        self.put_entry(key, Entry { flags, newest: Some(place) });
        if self.stages.is_empty() {
            self.base_changes += 1;
        }
        Ok(())
    }

    fn append(&mut self, key: &Key, value: Value, previous: Option<Place>) -> Place {
        let replaced = previous.map_or(0, |place| self.log.get(place).value.len());
        let added = value.len();
        self.size = self.size - replaced + added;
        let (place, lost) = self.log.write(key, value, previous);
        self.footprint = match lost {
            Some(lost) => self.footprint - lost.len() + added,
            None => self.footprint + self.log.get(place).footprint(),
        };
        place
    }

    fn put_entry(&mut self, key: Key, entry: Entry) {
        self.dirty |= self.stages.is_empty() || !entry.flags.persistent().is_none();
        let (key_size, footprint) = (key.len(), Entry::footprint(&key));
        if self.entries.insert(key, entry).is_none() {
            self.size += key_size;
            self.footprint += footprint;
        }
    }
}

impl Value {
    /// The value; `None` for a tombstone.
    #[must_use]
    pub fn as_put(&self) -> Option<&Bytes> {
        match self {
            Value::Put(value) => Some(value),
            Value::Tombstone => None,
        }
    }

    /// Whether the key is deleted.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        matches!(self, Value::Tombstone)
    }

    /// Length in bytes, 0 for a tombstone.
    fn len(&self) -> usize {
        self.as_put().map_or(0, Bytes::len)
    }
}

impl Entry {
    /// What an entry adds to the footprint of the buffer, in bytes.
    fn footprint(key: &Key) -> usize {
        size_of::<Key>() + size_of::<Entry>() + key.len()
    }
}

fn check_key(key: &Key) -> Result<(), WriteError> {
    if key.len() > MAX_KEY_BYTES { Err(WriteError::KeyTooLarge { size: key.len() }) } else { Ok(()) }
}
