//! How a record lies in memory.
//!
//! ```text
//! plain      value_len:4 key_len:2 flags:2                          key value padding
//! extended   value_len:4 key_len:2 flags:2 previous:4 capacity:4    key value spare padding
//! ```
//!
//! Numbers are little-endian. Key flags take 14 of 16 bits; the others say what kind of record it is. Most records are plain:
//! a key that is written once pays for eight bytes beside key and value.

use super::super::{KeyFlags, Stored, ValueRef};
use super::Place;
use super::block::{Block, UNIT};

const EXTENDED: u16 = 1 << 14;
const DEAD: u16 = 1 << 15;
const KEY_FLAGS: u16 = EXTENDED - 1;

const NO_VALUE: u32 = u32::MAX;
const NO_PLACE: u32 = u32::MAX;

const PLAIN_BYTES: usize = 8;
const EXTENDED_BYTES: usize = 16;
const FLAGS_AT: usize = 6;

/// Longest value, in bytes.
pub(in super::super) const MAX_VALUE_BYTES: usize = NO_VALUE as usize - 1;

/// A record to be written.
#[derive(Clone, Copy)]
pub(in super::super) struct NewRecord<'a> {
    pub(in super::super) key: &'a [u8],
    /// Empty for a tombstone; `None` for a key that has flags only.
    pub(in super::super) value: Option<&'a [u8]>,
    pub(in super::super) flags: KeyFlags,
}

/// What only a record has that took the place of another.
#[derive(Clone, Copy)]
pub(super) struct Extension {
    /// What comes back when the record is undone.
    pub(super) previous: Option<Place>,
    /// Bytes that the value may grow to.
    pub(super) capacity: usize,
}

#[derive(Clone, Copy)]
struct Header(u64);

impl Header {
    #[inline]
    fn read(bytes: &[u8]) -> Self {
        Header(bytes.first_chunk().map_or(0, |header| u64::from_le_bytes(*header)))
    }

    #[inline]
    fn value_len(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    fn key_len(self) -> usize {
        usize::from((self.0 >> 32) as u16)
    }

    #[inline]
    fn flags(self) -> u16 {
        (self.0 >> 48) as u16
    }

    #[inline]
    fn len(self) -> usize {
        if self.flags() & EXTENDED == 0 { PLAIN_BYTES } else { EXTENDED_BYTES }
    }
}

/// A record, borrowed.
#[derive(Clone, Copy)]
pub(in super::super) struct Record<'a> {
    header: Header,
    /// Begins with the header and goes on behind the record.
    bytes: &'a [u8],
    block: &'a Block,
}

impl<'a> Record<'a> {
    #[inline]
    pub(super) fn new((block, bytes): (&'a Block, &'a [u8])) -> Self {
        Record { header: Header::read(bytes), bytes, block }
    }

    #[inline]
    pub(in super::super) fn key(&self) -> &'a [u8] {
        let start = self.header.len();
        &self.bytes[start..start + self.header.key_len()]
    }

    #[inline]
    pub(in super::super) fn stored_key(&self) -> Stored<'a> {
        Stored::new(self.key(), self.block)
    }

    #[inline]
    pub(in super::super) fn flags(&self) -> KeyFlags {
        KeyFlags::from_bits(self.header.flags() & KEY_FLAGS)
    }

    /// The value or tombstone; `None` for a key that has flags only.
    #[inline]
    pub(in super::super) fn value(&self) -> Option<ValueRef<'a>> {
        match self.header.value_len() {
            NO_VALUE => None,
            0 => Some(ValueRef::Tombstone),
            len => {
                let start = self.header.len() + self.header.key_len();
                Some(ValueRef::Put(Stored::new(&self.bytes[start..start + len as usize], self.block)))
            }
        }
    }

    /// Length of the value, 0 for anything else.
    #[inline]
    pub(in super::super) fn value_len(&self) -> usize {
        match self.header.value_len() {
            NO_VALUE => 0,
            len => len as usize,
        }
    }

    #[inline]
    pub(in super::super) fn has_value(&self) -> bool {
        self.header.value_len() != NO_VALUE
    }

    /// Whether another record has taken its place for good.
    #[inline]
    pub(in super::super) fn is_dead(&self) -> bool {
        self.header.flags() & DEAD != 0
    }

    /// What comes back when it is undone.
    pub(in super::super) fn previous(&self) -> Option<Place> {
        self.extension(PLAIN_BYTES).filter(|place| *place != NO_PLACE).map(Place)
    }

    /// Bytes that the value may grow to in its place.
    pub(super) fn capacity(&self) -> usize {
        self.extension(PLAIN_BYTES + 4).map_or(self.value_len(), |capacity| capacity as usize)
    }

    fn extension(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..)?.first_chunk()?;
        (self.header.len() == EXTENDED_BYTES).then(|| u32::from_le_bytes(*bytes))
    }
}

/// Bytes that a record takes.
pub(super) fn size(record: &NewRecord<'_>, extension: Option<&Extension>) -> usize {
    let (header, value) = match extension {
        Some(extension) => (EXTENDED_BYTES, extension.capacity),
        None => (PLAIN_BYTES, record.value.map_or(0, <[u8]>::len)),
    };
    (header + record.key.len() + value).next_multiple_of(UNIT)
}

/// Appends a record, which takes `size` bytes.
#[inline]
pub(super) fn append(bytes: &mut Vec<u8>, record: &NewRecord<'_>, extension: Option<&Extension>, size: usize) {
    let end = bytes.len() + size;
    let value_len = record.value.map_or(NO_VALUE, |value| value.len() as u32);
    let kind = if extension.is_some() { EXTENDED } else { 0 };
    let header = u64::from(value_len) | (record.key.len() as u64) << 32 | u64::from(record.flags.bits() | kind) << 48;
    bytes.extend_from_slice(&header.to_le_bytes());
    if let Some(Extension { previous, capacity }) = extension {
        bytes.extend_from_slice(&previous.map_or(NO_PLACE, |place| place.0).to_le_bytes());
        bytes.extend_from_slice(&(*capacity as u32).to_le_bytes());
    }
    bytes.extend_from_slice(record.key);
    bytes.extend_from_slice(record.value.unwrap_or_default());
    bytes.resize(end, 0);
}

/// Overwrites the value of the record at the start of `bytes`. It fits.
pub(super) fn set_value(bytes: &mut [u8], value: &[u8]) {
    let header = Header::read(bytes);
    let start = header.len() + header.key_len();
    bytes[start..start + value.len()].copy_from_slice(value);
    bytes[..4].copy_from_slice(&(value.len() as u32).to_le_bytes());
}

pub(super) fn set_flags(bytes: &mut [u8], flags: KeyFlags) {
    let kind = Header::read(bytes).flags() & !KEY_FLAGS;
    bytes[FLAGS_AT..PLAIN_BYTES].copy_from_slice(&(flags.bits() | kind).to_le_bytes());
}

pub(super) fn set_dead(bytes: &mut [u8]) {
    let flags = Header::read(bytes).flags() | DEAD;
    bytes[FLAGS_AT..PLAIN_BYTES].copy_from_slice(&flags.to_le_bytes());
}
