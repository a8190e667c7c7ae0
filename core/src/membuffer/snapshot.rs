//! The buffer as it was before its first open stage.

use super::log::Place;
use super::tree::Position;
use super::{MemBuffer, Record, Stored, ValueRef};
use crate::key::{Direction, Key, KeyRange};

/// The buffer as it was before its first open stage was opened: what a statement sees that must not see its own writes.
/// The present, if no stage is open. client-go: `GetSnapshot`.
///
/// It borrows the buffer; [`SnapshotCursor`] reads on while the buffer is written.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    buffer: &'a MemBuffer,
    /// Where the log ended then; `None` for the present.
    end: Option<Place>,
}

impl MemBuffer {
    /// The buffer as it was before its first open stage.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot { buffer: self, end: self.stages.first().map(|stage| self.log.end_at(stage.start)) }
    }

    /// Reads the [`Snapshot`] step by step between writes.
    #[must_use]
    pub fn snapshot_cursor(&self, range: KeyRange, direction: Direction) -> SnapshotCursor {
        SnapshotCursor { range, direction, last: None, rest: None, base_changes: self.base_changes }
    }
}

impl<'a> Snapshot<'a> {
    /// The value of a key; `None` if the buffer knew of none.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<ValueRef<'a>> {
        self.before(self.buffer.tree.get(&self.buffer.log, key)?)?.value()
    }

    /// The keys in a range that had a value or a tombstone.
    pub fn iter(&self, range: &KeyRange) -> impl DoubleEndedIterator<Item = (Stored<'a>, ValueRef<'a>)> + use<'a> {
        let snapshot = *self;
        self.buffer.tree.walk(&self.buffer.log, range).filter_map(move |place| snapshot.pair(place))
    }

    fn before(&self, newest: Place) -> Option<Record<'a>> {
        match self.end {
            Some(end) => self.buffer.log.before(newest, end),
            None => Some(self.buffer.log.record(newest)),
        }
    }

    fn pair(&self, newest: Place) -> Option<(Stored<'a>, ValueRef<'a>)> {
        let record = self.before(newest)?;
        Some((record.stored_key(), record.value()?))
    }
}

/// Reads a [`Snapshot`] step by step while the buffer is written. client-go: `BatchedSnapshotIter`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotCursor {
    range: KeyRange,
    direction: Direction,
    /// The key that was read last.
    last: Option<Vec<u8>>,
    rest: Option<Rest>,
    base_changes: u64,
}

/// What is left to read, as long as no key has come or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rest {
    tree_changes: u64,
    ends: (Position, Position),
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
    pub fn next<'b>(&mut self, buffer: &'b MemBuffer) -> Result<Option<(Stored<'b>, ValueRef<'b>)>, SnapshotChanged> {
        if buffer.base_changes != self.base_changes {
            return Err(SnapshotChanged);
        }
        let (snapshot, tree_changes) = (buffer.snapshot(), buffer.tree.changes());
        let mut walk = match self.rest {
            Some(rest) if rest.tree_changes == tree_changes => buffer.tree.walk_between(rest.ends),
            _ => buffer.tree.walk(&buffer.log, &self.range_left()),
        };
        let next = match self.direction {
            Direction::Forward => walk.find_map(|place| snapshot.pair(place)),
            Direction::Reverse => walk.by_ref().rev().find_map(|place| snapshot.pair(place)),
        };
        self.rest = Some(Rest { tree_changes, ends: walk.ends() });
        if let Some((key, _)) = next {
            let last = self.last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(&key);
        }
        Ok(next)
    }

    /// The range, without what was read.
    fn range_left(&self) -> KeyRange {
        let range = self.range.clone();
        match (self.direction, &self.last) {
            (_, None) => range,
            (Direction::Forward, Some(last)) => KeyRange { start: Key::from(&last[..]).next(), ..range },
            // Nothing is before the empty key, and as an end it would mean no end.
            (Direction::Reverse, Some(last)) if last.is_empty() => KeyRange::new(&b"\0"[..], &b"\0"[..]),
            (Direction::Reverse, Some(last)) => KeyRange { end: Key::from(&last[..]), ..range },
        }
    }
}
