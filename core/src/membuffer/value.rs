//! What is read from a buffer.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use super::log::Block;
use crate::key::Key;

/// What was written to a key last, with its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// A value. Never empty: TiKV cannot tell an empty one from none.
    Put(Bytes),
    /// The key is deleted.
    Tombstone,
}

/// What was written to a key last, as it lies in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueRef<'a> {
    /// A value. Never empty: TiKV cannot tell an empty one from none.
    Put(Stored<'a>),
    /// The key is deleted.
    Tombstone,
}

/// A key or value as it lies in the buffer: a slice that knows how to be [shared](Stored::to_bytes).
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    bytes: &'a [u8],
    block: &'a Block,
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
}

impl<'a> ValueRef<'a> {
    /// The value; `None` for a tombstone.
    #[must_use]
    pub fn as_put(self) -> Option<Stored<'a>> {
        match self {
            ValueRef::Put(value) => Some(value),
            ValueRef::Tombstone => None,
        }
    }

    /// Whether the key is deleted.
    #[must_use]
    pub fn is_tombstone(self) -> bool {
        matches!(self, ValueRef::Tombstone)
    }

    /// The same, with bytes of its own or shared ones, as [`Stored::to_bytes`] has it.
    #[must_use]
    pub fn to_value(self) -> Value {
        match self {
            ValueRef::Put(value) => Value::Put(value.to_bytes()),
            ValueRef::Tombstone => Value::Tombstone,
        }
    }
}

impl PartialEq<Value> for ValueRef<'_> {
    fn eq(&self, other: &Value) -> bool {
        self.as_put().as_deref() == other.as_put().map(|value| &value[..])
    }
}

impl<'a> Stored<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8], block: &'a Block) -> Self {
        Stored { bytes, block }
    }

    /// The bytes, for as long as the buffer is not written.
    #[must_use]
    pub fn as_slice(self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes, for as long as they are needed: a copy, or shared with the buffer after
    /// [`MemBuffer::share`](super::MemBuffer::share).
    #[must_use]
    pub fn to_bytes(self) -> Bytes {
        match self.block.shared() {
            Some(block) => block.slice_ref(self.bytes),
            None => Bytes::copy_from_slice(self.bytes),
        }
    }

    /// As [`Stored::to_bytes`].
    #[must_use]
    pub fn to_key(self) -> Key {
        self.to_bytes().into()
    }
}

impl Deref for Stored<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl AsRef<[u8]> for Stored<'_> {
    fn as_ref(&self) -> &[u8] {
        self.bytes
    }
}

impl PartialEq for Stored<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Stored<'_> {}

impl PartialEq<[u8]> for Stored<'_> {
    fn eq(&self, other: &[u8]) -> bool {
        self.bytes == other
    }
}

impl PartialEq<Key> for Stored<'_> {
    fn eq(&self, other: &Key) -> bool {
        self.bytes == other.as_slice()
    }
}

impl std::hash::Hash for Stored<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl fmt::Debug for Stored<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.bytes.escape_ascii())
    }
}
