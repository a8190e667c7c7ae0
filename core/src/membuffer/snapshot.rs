//! The buffer as it was before its first open stage.

use super::log::Moment;
use super::{MemBuffer, Value, iter};
use crate::key::{Direction, Key, KeyRange};

/// The buffer as it was before its first open stage was opened: what a statement sees that must not see its own writes.
/// The present, if no stage is open. client-go: `GetSnapshot`.
///
/// It borrows the buffer; [`SnapshotCursor`] reads on while the buffer is written.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    buffer: &'a MemBuffer,
    until: Moment,
}

impl MemBuffer {
    /// The buffer as it was before its first open stage.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot { buffer: self, until: self.stages.first().map_or(Moment::MAX, |stage| stage.start) }
    }

    /// Reads the [`Snapshot`] step by step between writes.
    #[must_use]
    pub fn snapshot_cursor(&self, range: KeyRange, direction: Direction) -> SnapshotCursor {
        SnapshotCursor { range, direction, last: None, base_changes: self.base_changes }
    }
}

impl<'a> Snapshot<'a> {
    /// The value of a key; `None` if the buffer knew of none.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&'a Value> {
        let entry = self.buffer.entries.get(key)?;
        Some(&self.buffer.log.before(entry.newest, self.until)?.value)
    }

    /// The keys in a range that had a value or a tombstone.
    pub fn iter(&self, range: &KeyRange) -> impl DoubleEndedIterator<Item = (&'a Key, &'a Value)> + use<'a> {
        let Snapshot { buffer, until } = *self;
        let entries = buffer.entries.range::<[u8], _>(iter::bounds(range));
        entries.filter_map(move |(key, entry)| Some((key, &buffer.log.before(entry.newest, until)?.value)))
    }
}

/// Reads a [`Snapshot`] step by step while the buffer is written. client-go: `BatchedSnapshotIter`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotCursor {
    range: KeyRange,
    direction: Direction,
    last: Option<Key>,
    base_changes: u64,
}

/// What was before the first open stage has changed: the stage was released, or a write happened outside of stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the snapshot of the buffer has changed since the cursor was made")]
pub struct SnapshotChanged;

impl SnapshotCursor {
    /// The next key and its value (or tombstone); `None` at the end. `buffer` must be the one that the cursor is of.
    ///
    /// # Errors
    ///
    /// [`SnapshotChanged`], from then on.
    pub fn next(&mut self, buffer: &MemBuffer) -> Result<Option<(Key, Value)>, SnapshotChanged> {
        if buffer.base_changes != self.base_changes {
            return Err(SnapshotChanged);
        }
        let snapshot = buffer.snapshot();
        let next = match (self.direction, &self.last) {
            (Direction::Forward, None) => snapshot.iter(&self.range).next(),
            (Direction::Forward, Some(last)) => {
                let rest = KeyRange { start: last.next(), end: self.range.end.clone() };
                snapshot.iter(&rest).next()
            }
            (Direction::Reverse, None) => snapshot.iter(&self.range).next_back(),
            // Nothing is before the empty key, and as an end it would mean no end.
            (Direction::Reverse, Some(last)) if last.is_empty() => None,
            (Direction::Reverse, Some(last)) => {
                let rest = KeyRange { start: self.range.start.clone(), end: last.clone() };
                snapshot.iter(&rest).next_back()
            }
        };
        let Some((key, value)) = next else { return Ok(None) };
        self.last = Some(key.clone());
        Ok(Some((key.clone(), value.clone())))
    }
}
