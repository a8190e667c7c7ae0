//! Keys and key ranges.

use std::fmt;
use std::ops::{Bound, RangeBounds};

use bytes::Bytes;

#[cfg(test)]
mod tests;

/// The longest key that TiKV accepts, in bytes (client-go limits keys to what fits 16 bits).
pub const MAX_KEY_BYTES: usize = u16::MAX as usize;

/// A key: any bytes, ordered as bytes. Cloning shares the bytes.
///
/// ```
/// use tikv_core::key::Key;
///
/// let key = Key::from("a");
/// assert_eq!(key.next(), Key::from(b"a\0".to_vec()));
/// assert!(Key::from("a") < key.next() && key.next() < Key::from("aa"));
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

/// Where the empty key lies. The address of an empty slice may be one that nothing is at, and comparing with it then takes the
/// vector instructions of some processors, which mask out what they must not read, hundreds of cycles.
static NO_BYTES: [u8; 1] = [0];

impl Key {
    /// The empty key: the start of the key space, or (as an end) its end.
    pub const EMPTY: Key = Key(Bytes::from_static(NO_BYTES.split_at(0).0));

    /// A key over bytes that live as long as the program.
    #[must_use]
    pub const fn from_static(bytes: &'static [u8]) -> Self {
        Key(Bytes::from_static(bytes))
    }

    /// The bytes of the key.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The bytes of the key, shared.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The bytes of the key, shared.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether this is [`Key::EMPTY`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest key after this one: the same bytes and a zero. client-go: `kv.NextKey`.
    #[must_use]
    pub fn next(&self) -> Key {
        let mut bytes = Vec::with_capacity(self.0.len() + 1);
        bytes.extend_from_slice(&self.0);
        bytes.push(0);
        Key(bytes.into())
    }

    /// The smallest key after every key that starts with this one; [`Key::EMPTY`] (no end) if there is none.
    /// client-go: `kv.PrefixNextKey`.
    #[must_use]
    pub fn prefix_end(&self) -> Key {
        let Some(last) = self.0.iter().rposition(|byte| *byte != u8::MAX) else { return Key::EMPTY };
        let mut bytes = self.0[..=last].to_vec();
        bytes[last] += 1;
        Key(bytes.into())
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Default for Key {
    fn default() -> Self {
        Key::EMPTY
    }
}

impl From<Bytes> for Key {
    fn from(bytes: Bytes) -> Self {
        Key(bytes)
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        Key(bytes.into())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Key(text.into())
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Key(Bytes::copy_from_slice(bytes))
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Key::from(text.as_bytes())
    }
}

impl<const N: usize> From<&[u8; N]> for Key {
    fn from(bytes: &[u8; N]) -> Self {
        Key::from(bytes.as_slice())
    }
}

impl From<Key> for Bytes {
    fn from(key: Key) -> Self {
        key.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The end of all keys, for a reverse scan from there: TiKV takes an empty bound for the lowest key. Longer than the longest
/// key that TiKV stores (`storage.max-key-size`, 8 KiB).
static BEHIND_ALL_KEYS: [u8; 8 * 1024 + 1] = [u8::MAX; 8 * 1024 + 1];

/// Which way keys are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the smallest key to the largest.
    #[default]
    Forward,
    /// From the largest key to the smallest.
    Reverse,
}

impl Direction {
    /// `start_key` and `end_key` of a scan request for `range`: TiKV's reverse scan begins at its exclusive upper bound.
    #[must_use]
    pub(crate) fn scan_bounds(self, range: &KeyRange) -> (Bytes, Bytes) {
        match self {
            Direction::Forward => (range.start.to_bytes(), range.end.to_bytes()),
            Direction::Reverse if range.end.is_empty() => {
                (Bytes::from_static(&BEHIND_ALL_KEYS), range.start.to_bytes())
            }
            Direction::Reverse => (range.end.to_bytes(), range.start.to_bytes()),
        }
    }

    /// Which of two keys comes first, read this way: `Less` for `a`.
    #[must_use]
    pub fn compare(self, a: &Key, b: &Key) -> std::cmp::Ordering {
        match self {
            Direction::Forward => a.cmp(b),
            Direction::Reverse => b.cmp(a),
        }
    }
}

/// The keys from `start` (inclusive) to `end` (exclusive). An empty `end` means no end.
///
/// ```
/// use tikv_core::key::{Key, KeyRange};
///
/// let range = KeyRange::from(Key::from("b")..Key::from("d"));
/// assert!(range.contains(b"b") && range.contains(b"c") && !range.contains(b"d"));
/// assert!(KeyRange::ALL.contains(b"anything"));
/// assert_eq!(range.intersection(&KeyRange::from(Key::from("c")..)), Some(KeyRange::from(Key::from("c")..Key::from("d"))));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRange {
    /// First key of the range.
    pub start: Key,
    /// First key after the range; empty for no end.
    pub end: Key,
}

impl KeyRange {
    /// Every key.
    pub const ALL: KeyRange = KeyRange { start: Key::EMPTY, end: Key::EMPTY };

    /// The range from `start` (inclusive) to `end` (exclusive, empty for no end).
    #[must_use]
    pub fn new(start: impl Into<Key>, end: impl Into<Key>) -> Self {
        KeyRange { start: start.into(), end: end.into() }
    }

    /// Whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start.as_slice() <= key && self.is_before_end(key)
    }

    /// Whether `key` lies before the end of the range.
    #[must_use]
    pub fn is_before_end(&self, key: &[u8]) -> bool {
        self.end.is_empty() || key < self.end.as_slice()
    }

    /// Whether no key lies in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.start >= self.end
    }

    /// The keys in both ranges, if there are any.
    #[must_use]
    pub fn intersection(&self, other: &KeyRange) -> Option<KeyRange> {
        let start = self.start.clone().max(other.start.clone());
        let end = match (self.end.is_empty(), other.end.is_empty()) {
            (true, _) => other.end.clone(),
            (_, true) => self.end.clone(),
            _ => self.end.clone().min(other.end.clone()),
        };
        let range = KeyRange { start, end };
        (!range.is_empty()).then_some(range)
    }
}

impl<R: RangeBounds<Key>> From<R> for KeyRange {
    /// Inclusive ends and exclusive starts become the next key.
    fn from(range: R) -> Self {
        let start = match range.start_bound() {
            Bound::Included(key) => key.clone(),
            Bound::Excluded(key) => key.next(),
            Bound::Unbounded => Key::EMPTY,
        };
        let end = match range.end_bound() {
            Bound::Included(key) => key.next(),
            Bound::Excluded(key) => key.clone(),
            Bound::Unbounded => Key::EMPTY,
        };
        KeyRange { start, end }
    }
}
