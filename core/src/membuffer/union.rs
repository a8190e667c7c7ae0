//! What a transaction reads: its own writes over what is stored.

use bytes::Bytes;

use super::{Iter, MemBuffer, Stored, ValueRef};
use crate::key::{Direction, Key, KeyRange};

/// Stored pairs with the writes of a buffer laid over them: a buffered value replaces a stored one, a tombstone hides
/// it. See [`MemBuffer::union`].
#[derive(Clone, Debug)]
pub struct Union<'a, S: Iterator> {
    buffer: Iter<'a>,
    stored: S,
    direction: Direction,
    next_buffered: Option<(Stored<'a>, ValueRef<'a>)>,
    next_stored: Option<S::Item>,
}

impl MemBuffer {
    /// Lays the writes in `range` over `stored`: all stored pairs of that range, in that direction. Read page by page, the
    /// range is that of the page, up to the key where the next page begins. client-go: `UnionIter`.
    ///
    /// What a stored value is beside its bytes (its commit_ts, say) is the caller's; a buffered value becomes one by
    /// `From<Bytes>`.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use tikv_core::key::{Direction, Key, KeyRange};
    /// use tikv_core::membuffer::MemBuffer;
    ///
    /// let mut buffer = MemBuffer::new();
    /// buffer.set("b", "mine")?;
    /// buffer.delete("c")?;
    /// let stored = ["a", "b", "c"].map(|key| (Key::from(key), Bytes::from("stored")));
    /// let read: Vec<_> = buffer.union(&KeyRange::ALL, Direction::Forward, stored.into_iter()).collect();
    /// assert_eq!(read, [("a".into(), "stored".into()), ("b".into(), Bytes::from("mine"))]);
    /// # Ok::<(), tikv_core::membuffer::WriteError>(())
    /// ```
    pub fn union<S: Iterator>(&self, range: &KeyRange, direction: Direction, stored: S) -> Union<'_, S> {
        let mut union = Union { buffer: self.iter(range), stored, direction, next_buffered: None, next_stored: None };
        union.step_buffer();
        union.step_stored();
        union
    }
}

impl<'a, S: Iterator> Union<'a, S> {
    fn step_buffer(&mut self) -> Option<(Stored<'a>, ValueRef<'a>)> {
        let next = match self.direction {
            Direction::Forward => self.buffer.next(),
            Direction::Reverse => self.buffer.next_back(),
        };
        std::mem::replace(&mut self.next_buffered, next)
    }

    fn step_stored(&mut self) -> Option<S::Item> {
        let next = self.stored.next();
        std::mem::replace(&mut self.next_stored, next)
    }
}

impl<V: From<Bytes>, S: Iterator<Item = (Key, V)>> Iterator for Union<'_, S> {
    type Item = (Key, V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((buffered, _)) = self.next_buffered else { return self.step_stored() };
            if let Some((stored, _)) = &self.next_stored {
                let order = match self.direction {
                    Direction::Forward => stored.as_slice().cmp(&buffered),
                    Direction::Reverse => buffered.as_slice().cmp(stored.as_slice()),
                };
                if order.is_lt() {
                    return self.step_stored();
                }
                if order.is_eq() {
                    self.step_stored();
                }
            }
            if let Some((key, ValueRef::Put(value))) = self.step_buffer() {
                return Some((key.to_key(), V::from(value.to_bytes())));
            }
        }
    }
}
