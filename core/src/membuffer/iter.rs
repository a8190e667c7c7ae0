//! Reading a buffer in order.

use std::collections::btree_map;
use std::ops::Bound;

use super::{Entry, KeyFlags, MemBuffer, Value};
use crate::key::{Key, KeyRange};

/// The keys of a range that have a value or a tombstone, in order, from either end.
#[derive(Clone, Debug)]
pub struct Iter<'a>(IterWithFlags<'a>);

/// All keys of a range, those with flags only included, in order, from either end.
#[derive(Clone, Debug)]
pub struct IterWithFlags<'a> {
    buffer: &'a MemBuffer,
    entries: btree_map::Range<'a, Key, Entry>,
}

/// A key of the buffer with all that the buffer knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flagged<'a> {
    /// The key.
    pub key: &'a Key,
    /// Its value or tombstone; `None` if it has flags only.
    pub value: Option<&'a Value>,
    /// Its flags.
    pub flags: KeyFlags,
}

impl MemBuffer {
    /// The keys of a range that have a value or a tombstone.
    #[must_use]
    pub fn iter(&self, range: &KeyRange) -> Iter<'_> {
        Iter(self.iter_with_flags(range))
    }

    /// All keys of a range, with their flags.
    #[must_use]
    pub fn iter_with_flags(&self, range: &KeyRange) -> IterWithFlags<'_> {
        IterWithFlags { buffer: self, entries: self.entries.range::<[u8], _>(bounds(range)) }
    }
}

impl<'a> IterWithFlags<'a> {
    fn item(&self, (key, entry): (&'a Key, &'a Entry)) -> Flagged<'a> {
        let value = entry.newest.map(|place| &self.buffer.log.get(place).value);
        Flagged { key, value, flags: entry.flags }
    }
}

impl<'a> Iterator for IterWithFlags<'a> {
    type Item = Flagged<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some(self.item(entry))
    }
}

impl DoubleEndedIterator for IterWithFlags<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next_back()?;
        Some(self.item(entry))
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a Key, &'a Value);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.find_map(|item| Some((item.key, item.value?)))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.by_ref().rev().find_map(|item| Some((item.key, item.value?)))
    }
}

/// The bounds of `range` as a map wants them, which panics if they are the wrong way round.
pub(super) fn bounds(range: &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    let start = range.start.as_slice();
    let end = if range.is_empty() {
        Bound::Excluded(start)
    } else if range.end.is_empty() {
        Bound::Unbounded
    } else {
        Bound::Excluded(range.end.as_slice())
    };
    (Bound::Included(start), end)
}
