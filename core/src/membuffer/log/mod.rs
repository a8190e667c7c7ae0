//! The records of a buffer in the order in which they were written: keys with their flags and values.

use super::KeyFlags;

mod block;
mod record;

pub(super) use block::{Block, MAX_BYTES};
pub(super) use record::{MAX_VALUE_BYTES, NewRecord, Record};

use block::Blocks;
use record::Extension;

/// Every key and value that may still be read, now or after something is undone.
///
/// Later records have higher places, so that a moment is the place where the log ended then, and undoing is cutting the log
/// there. A value that nothing could fall back to is overwritten in place if it has the room; any other is kept and pointed
/// to by its successor. Flags belong to the key: they are changed in place, in the newest record.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    blocks: Blocks,
    /// The records written since the first mark: what may be undone.
    undoable: Vec<Place>,
    /// Marks that something was written after, in order.
    marks: Vec<Mark>,
    now: Moment,
}

/// A point in the history of the buffer. Unlike places, moments never come again after something was undone.
pub(super) type Moment = u64;

/// Where a record is. Valid until the log is cut before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place(u32);

#[derive(Clone, Copy, Debug)]
struct Mark {
    moment: Moment,
    end: Place,
}

/// There is no place left: the log has [`MAX_BYTES`].
#[derive(Debug)]
pub(super) struct Full;

impl Log {
    #[inline]
    pub(super) fn record(&self, place: Place) -> Record<'_> {
        Record::new(self.blocks.at(place))
    }

    #[inline]
    pub(super) fn key(&self, place: Place) -> &[u8] {
        self.record(place).key()
    }

    /// Marks the present as a moment to fall back to: what is written was written before it. No two marks are the same.
    pub(super) fn mark(&mut self) -> Moment {
        self.now += 1;
        let end = self.blocks.end();
        if self.latest() < end {
            self.marks.push(Mark { moment: self.now, end });
        }
        self.now
    }

    /// Where the log ended at a moment: now, for a moment that this log has not seen.
    pub(super) fn end_at(&self, moment: Moment) -> Place {
        if moment > self.now {
            return self.blocks.end();
        }
        let after = self.marks.partition_point(|mark| mark.moment <= moment);
        self.marks[..after].last().map_or(Place::default(), |mark| mark.end)
    }

    /// The last moment that was marked before a record was written.
    pub(super) fn moment_of(&self, place: Place) -> Moment {
        let after = self.marks.partition_point(|mark| mark.end <= place);
        self.marks[..after].last().map_or(0, |mark| mark.moment)
    }

    /// Whether any value that was written since `moment` is still there.
    pub(super) fn written_since(&self, moment: Moment) -> bool {
        self.since(self.end_at(moment)).any(|(_, record)| record.has_value())
    }

    /// The records from `end` on that no other has replaced for good, the newest first.
    pub(super) fn since(&self, end: Place) -> impl Iterator<Item = (Place, Record<'_>)> {
        let places = self.undoable.iter().rev().take_while(move |place| **place >= end);
        places.map(|place| (*place, self.record(*place))).filter(|(_, record)| !record.is_dead())
    }

    /// Writes a key that has no record.
    #[inline]
    pub(super) fn append(&mut self, record: NewRecord<'_>) -> Result<Place, Full> {
        self.write(&record, None)
    }

    /// Writes a value over that of the record at `old`, which has the same key.
    pub(super) fn replace(&mut self, old: Place, new: NewRecord<'_>) -> Result<Place, Full> {
        let value = new.value.unwrap_or_default();
        let replaced = self.record(old);
        if !replaced.has_value() {
            let place = self.write(&new, None)?;
            record::set_dead(self.blocks.at_mut(old));
            return Ok(place);
        }
        if old < self.latest() {
            return self.write(&new, Some(Extension { previous: Some(old), capacity: value.len() }));
        }
        if value.len() <= replaced.capacity() && !self.blocks.is_shared(old) {
            let bytes = self.blocks.at_mut(old);
            record::set_value(bytes, value);
            record::set_flags(bytes, new.flags);
            return Ok(old);
        }
        // Room for twice as much, so that a value that grows and grows leaves little behind.
        let capacity = value.len().checked_next_power_of_two().unwrap_or(value.len()).min(MAX_VALUE_BYTES);
        let previous = replaced.previous();
        let place = self.write(&new, Some(Extension { previous, capacity }))?;
        record::set_dead(self.blocks.at_mut(old));
        Ok(place)
    }

    /// Changes the flags of a key, in its newest record.
    pub(super) fn set_flags(&mut self, place: Place, flags: KeyFlags) {
        record::set_flags(self.blocks.at_mut(place), flags);
    }

    /// The record at `place` and those that it replaced, the newest first.
    pub(super) fn history(&self, place: Option<Place>) -> impl Iterator<Item = (Place, Record<'_>)> {
        let at = |place| (place, self.record(place));
        std::iter::successors(place.map(at), move |(_, record)| record.previous().map(at))
    }

    /// The newest of a record and those that it replaced that is before `end`.
    pub(super) fn before(&self, place: Place, end: Place) -> Option<Record<'_>> {
        if place < end {
            return Some(self.record(place));
        }
        self.history(Some(place)).find(|(place, _)| *place < end).map(|(_, record)| record)
    }

    /// Takes the newest record off the list of what may be undone, unless it is before `end`. It stays readable until the
    /// log is cut.
    pub(super) fn pop_since(&mut self, end: Place) -> Option<Place> {
        self.undoable.last().is_some_and(|place| *place >= end).then(|| self.undoable.pop())?
    }

    /// Forgets all records from `end` on.
    pub(super) fn truncate(&mut self, end: Place) {
        self.blocks.truncate(end);
        while self.marks.last().is_some_and(|mark| mark.end > end) {
            self.marks.pop();
        }
        while self.pop_since(end).is_some() {}
    }

    /// Forgets everything. Moments stay in the past.
    pub(super) fn clear(&mut self) {
        self.truncate(Place::default());
        self.now += 1;
    }

    /// Makes keys and values that are read from now on share the memory of the log.
    pub(super) fn share(&mut self) {
        self.blocks.share();
    }

    /// Memory taken, in bytes.
    pub(super) fn footprint(&self) -> usize {
        self.blocks.footprint() + size_of_val(&self.undoable[..])
    }

    /// Where the latest moment is that something may fall back to.
    #[inline]
    fn latest(&self) -> Place {
        self.marks.last().map_or(Place::default(), |mark| mark.end)
    }

    #[inline]
    fn write(&mut self, new: &NewRecord<'_>, extension: Option<Extension>) -> Result<Place, Full> {
        let extension = extension.as_ref();
        let size = record::size(new, extension);
        let (place, bytes) = self.blocks.reserve(size).ok_or(Full)?;
        record::append(bytes, new, extension, size);
        if self.now > 0 {
            self.undoable.push(place);
        }
        Ok(place)
    }
}
