//! Reading a buffer in order.

use super::tree::Walk;
use super::{KeyFlags, MemBuffer, Record, Stored, ValueRef};
use crate::key::KeyRange;

/// The keys of a range that have a value or a tombstone, in order, from either end.
#[derive(Clone, Debug)]
pub struct Iter<'a>(IterWithFlags<'a>);

/// All keys of a range, those with flags only included, in order, from either end.
#[derive(Clone, Debug)]
pub struct IterWithFlags<'a> {
    buffer: &'a MemBuffer,
    walk: Walk<'a>,
}

/// A key of the buffer with all that the buffer knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flagged<'a> {
    /// The key.
    pub key: Stored<'a>,
    /// Its value or tombstone; `None` if it has flags only.
    pub value: Option<ValueRef<'a>>,
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
        IterWithFlags { buffer: self, walk: self.tree.walk(&self.log, range) }
    }
}

impl<'a> Flagged<'a> {
    fn new(record: &Record<'a>) -> Self {
        Flagged { key: record.stored_key(), value: record.value(), flags: record.flags() }
    }
}

/// `None` for a key with flags only.
fn pair<'a>(record: &Record<'a>) -> Option<(Stored<'a>, ValueRef<'a>)> {
    Some((record.stored_key(), record.value()?))
}

impl<'a> Iterator for IterWithFlags<'a> {
    type Item = Flagged<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.walk.next().map(|place| Flagged::new(&self.buffer.log.record(place)))
    }
}

impl DoubleEndedIterator for IterWithFlags<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.walk.next_back().map(|place| Flagged::new(&self.buffer.log.record(place)))
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Stored<'a>, ValueRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let IterWithFlags { buffer, walk } = &mut self.0;
        walk.find_map(|place| pair(&buffer.log.record(place)))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let IterWithFlags { buffer, walk } = &mut self.0;
        walk.rev().find_map(|place| pair(&buffer.log.record(place)))
    }
}
