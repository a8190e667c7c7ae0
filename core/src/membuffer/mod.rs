//! The writes of a transaction before they are committed.
//!
//! A [`MemBuffer`] maps keys to values, tombstones and [flags](KeyFlags), in order. Reads of the transaction go through
//! it ([`MemBuffer::get`], [`MemBuffer::union`]), the commit reads it out ([`MemBuffer::iter_with_flags`]).
//!
//! Writes can be undone: a [stage](MemBuffer::stage) as a whole (a statement that fails), or back to a
//! [checkpoint](MemBuffer::checkpoint) (a savepoint). Values come back, flags do not: they tell of locks on TiKV, which
//! undoing does not release.
//!
//! Inside it are a log, with one record a write, and a tree of the keys: `docs/membuffer.md` tells how they lie in memory, what
//! each operation costs and how that compares to client-go.
//!
//! It is data: nothing in it waits or calls. client-go: `internal/unionstore`, `kv/keyflags.go`.

use crate::key::MAX_KEY_BYTES;

mod content;
mod flags;
mod iter;
mod log;
mod snapshot;
mod stage;
#[cfg(test)]
mod tests;
mod tree;
mod union;
mod value;

pub use flags::{FlagOp, KeyFlags};
pub use iter::{Flagged, Iter, IterWithFlags};
use log::{Full, Log, MAX_BYTES, MAX_VALUE_BYTES, NewRecord, Place, Record};
pub use snapshot::{Snapshot, SnapshotChanged, SnapshotCursor};
pub use stage::{Checkpoint, Stage, StageError};
use tree::Tree;
pub use union::Union;
pub use value::{Stored, Value, ValueRef};

/// The writes of a transaction, in the order of their keys.
///
/// Keys and values are copied into the buffer. Two buffers are equal if the same can be read from them, now and after the
/// same undoing.
///
/// ```
/// use tikv_core::membuffer::{FlagOp, MemBuffer, Value, ValueRef};
///
/// let mut buffer = MemBuffer::new();
/// buffer.set("a", "1")?;
/// buffer.delete_with_flags("b", &[FlagOp::SetAssertExist])?;
/// assert_eq!(buffer.get(b"a").map(ValueRef::to_value), Some(Value::Put("1".into())));
/// assert_eq!(buffer.get(b"b"), Some(ValueRef::Tombstone));
/// assert_eq!(buffer.get(b"c"), None);
/// # Ok::<(), tikv_core::membuffer::WriteError>(())
/// ```
#[derive(Clone, Default)]
pub struct MemBuffer {
    log: Log,
    tree: Tree,
    stages: Vec<Stage>,
    limits: Limits,
    size: usize,
    dirty: bool,
    /// Counts changes of what was before the first open stage.
    base_changes: u64,
    /// The footprint that was told last.
    told_footprint: usize,
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
    pub fn set(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), WriteError> {
        self.set_with_flags(key, value, &[])
    }

    /// Sets a key and changes its flags.
    ///
    /// # Errors
    ///
    /// Every [`WriteError`]; the buffer is as it was.
    pub fn set_with_flags(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ops: &[FlagOp],
    ) -> Result<(), WriteError> {
        let value = value.as_ref();
        if value.is_empty() {
            return Err(WriteError::EmptyValue);
        }
        self.write(key.as_ref(), value, ops)
    }

    /// Deletes a key: the buffer remembers a tombstone, whether it knew of the key or not.
    ///
    /// # Errors
    ///
    /// [`WriteError`] about sizes; the buffer is as it was.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<(), WriteError> {
        self.delete_with_flags(key, &[])
    }

    /// Deletes a key and changes its flags.
    ///
    /// # Errors
    ///
    /// [`WriteError`] about sizes; the buffer is as it was.
    pub fn delete_with_flags(&mut self, key: impl AsRef<[u8]>, ops: &[FlagOp]) -> Result<(), WriteError> {
        self.write(key.as_ref(), &[], ops)
    }

    /// Changes the flags of a key and leaves its value. A key that is new to the buffer has flags only: it counts in
    /// [`MemBuffer::len`] and cannot be read. No stage or checkpoint takes flags back.
    ///
    /// # Errors
    ///
    /// [`WriteError::KeyTooLarge`], [`WriteError::TxnTooLarge`] of a buffer that can hold no more at all.
    pub fn update_flags(&mut self, key: impl AsRef<[u8]>, ops: &[FlagOp]) -> Result<(), WriteError> {
        let key = key.as_ref();
        check_key(key)?;
        let spot = self.tree.find_to_write(&self.log, key);
        let flags = self.flags_at(spot.place).apply(ops);
        match spot.place {
            Some(place) => self.log.set_flags(place, flags),
            None => {
                let record = NewRecord { key, value: None, flags };
                let place = self.log.append(record).map_err(|Full| self.full(key.len()))?;
                self.tree.insert(&self.log, spot, key, place);
                self.size += key.len();
            }
        }
        self.note_dirty(flags);
        Ok(())
    }

    /// What was written to a key last; `None` if nothing was, or flags only. Reads of the transaction then go to TiKV.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<ValueRef<'_>> {
        self.record(key)?.value()
    }

    /// What was written to several keys: for each key that was written, the key as it was asked for, in that order, and what
    /// was written to it last. What is left out has to be asked of TiKV. client-go: `BatchGet`.
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> impl Iterator<Item = (K, ValueRef<'_>)> {
        keys.into_iter().filter_map(|key| {
            let value = self.get(key.as_ref())?;
            Some((key, value))
        })
    }

    /// The flags of a key; `None` if the buffer does not know of it.
    #[must_use]
    pub fn flags(&self, key: &[u8]) -> Option<KeyFlags> {
        self.record(key).map(|record| record.flags())
    }

    /// What was written to a key, the newest first, as far as stages and checkpoints have kept it apart. client-go:
    /// `SelectValueHistory`.
    pub fn history(&self, key: &[u8]) -> impl Iterator<Item = ValueRef<'_>> {
        self.log.history(self.tree.get(&self.log, key)).filter_map(|(_, record)| record.value())
    }

    /// Keys in the buffer, those with flags only included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether the buffer knows of no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tree.len() == 0
    }

    /// Length of all keys and their newest values, in bytes: what the transaction sends.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Memory in use, in bytes, about: everything kept for undoing included. Zero for a buffer that was never written.
    /// client-go: `Mem`.
    #[must_use]
    pub fn footprint(&self) -> usize {
        self.log.footprint() + self.tree.footprint()
    }

    /// The [footprint](MemBuffer::footprint), if it has changed since this was last called: for an owner who accounts for
    /// memory, to be asked after a write. client-go: `SetMemoryFootprintChangeHook`.
    pub fn footprint_change(&mut self) -> Option<usize> {
        let footprint = self.footprint();
        let told = std::mem::replace(&mut self.told_footprint, footprint);
        (told != footprint).then_some(footprint)
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

    /// Makes keys and values that are [read](Stored::to_bytes) from now on share the memory of the buffer instead of copying it:
    /// for when all is written. Writing goes on to be possible, at the cost of copies.
    pub fn share(&mut self) {
        self.log.share();
    }

    /// Forgets everything but the limits. Open stages are ended; going back to an earlier checkpoint empties the
    /// buffer.
    pub fn clear(&mut self) {
        self.log.clear();
        self.tree.clear();
        self.stages.clear();
        self.size = 0;
        self.dirty = false;
        self.base_changes += 1;
    }

    fn write(&mut self, key: &[u8], value: &[u8], ops: &[FlagOp]) -> Result<(), WriteError> {
        self.check_entry(key, value)?;
        let spot = self.tree.find_to_write(&self.log, key);
        let replaced = spot.place.map(|place| self.log.record(place));
        let size = match &replaced {
            Some(record) => self.size - record.value_len() + value.len(),
            None => self.size + key.len() + value.len(),
        };
        if size > self.limits.total_bytes && size > self.size {
            return Err(WriteError::TxnTooLarge { size, limit: self.limits.total_bytes });
        }
        // Whoever writes a value has checked what was left to prewrite, unless the operations say otherwise.
        let flags = replaced.map_or(KeyFlags::NONE, |record| record.flags());
        let flags = flags.apply(&[FlagOp::DelNeedConstraintCheckInPrewrite]).apply(ops);
        let record = NewRecord { key, value: Some(value), flags };
        match spot.place {
            Some(old) => {
                let place = self.log.replace(old, record).map_err(|Full| self.full(key.len() + value.len()))?;
                self.tree.set(spot, place);
            }
            None => {
                let place = self.log.append(record).map_err(|Full| self.full(key.len() + value.len()))?;
                self.tree.insert(&self.log, spot, key, place);
            }
        }
        self.size = size;
        self.note_dirty(flags);
        self.base_changes += u64::from(self.stages.is_empty());
        Ok(())
    }

    fn check_entry(&self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        check_key(key)?;
        let (size, limit) = (key.len() + value.len(), self.limits.entry_bytes);
        if size > limit {
            return Err(WriteError::EntryTooLarge { size, limit });
        }
        if value.len() > MAX_VALUE_BYTES {
            return Err(WriteError::EntryTooLarge { size, limit: MAX_VALUE_BYTES });
        }
        Ok(())
    }

    fn full(&self, added: usize) -> WriteError {
        WriteError::TxnTooLarge { size: self.size + added, limit: MAX_BYTES }
    }

    fn record(&self, key: &[u8]) -> Option<Record<'_>> {
        self.tree.get(&self.log, key).map(|place| self.log.record(place))
    }

    fn flags_at(&self, place: Option<Place>) -> KeyFlags {
        place.map_or(KeyFlags::NONE, |place| self.log.record(place).flags())
    }

    fn note_dirty(&mut self, flags: KeyFlags) {
        self.dirty |= self.stages.is_empty() || !flags.persistent().is_none();
    }
}

fn check_key(key: &[u8]) -> Result<(), WriteError> {
    if key.len() > MAX_KEY_BYTES { Err(WriteError::KeyTooLarge { size: key.len() }) } else { Ok(()) }
}
