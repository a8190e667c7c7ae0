//! Byte strings whose encodings compare as they do, and of which none is a prefix of another.
//!
//! The value is cut into groups of eight bytes. Each group is followed by a marker, `0xFF - (padding bytes)`; only the
//! last group is padded, with zeroes. A value whose length is a multiple of eight ends with a group of nothing but
//! padding.
//!
//! ```text
//!   ""         00 00 00 00 00 00 00 00 F7
//!   "abc"      61 62 63 00 00 00 00 00 FA
//!   "abcdefgh" 61 62 63 64 65 66 67 68 FF 00 00 00 00 00 00 00 00 F7
//! ```
//!
//! The descending form is the complement of every byte of that. client-go: `codec.EncodeBytes`, `codec.DecodeBytes`;
//! TiKV: `codec::bytes`.

use super::DecodeError;
use crate::key::Key;

#[cfg(test)]
mod tests;

const GROUP: usize = 8;
const MARKER: u8 = 0xFF;

/// Length of the encoding of `len` bytes.
///
/// ```
/// use tikv_core::codec::memcomparable::encoded_len;
///
/// assert_eq!([0, 7, 8, 9].map(encoded_len), [9, 9, 18, 18]);
/// ```
#[must_use]
pub const fn encoded_len(len: usize) -> usize {
    (len / GROUP + 1) * (GROUP + 1)
}

/// Appends `value`, so that encodings compare as values do.
pub fn encode(out: &mut Vec<u8>, value: &[u8]) {
    out.reserve(encoded_len(value.len()));
    let groups = value.chunks_exact(GROUP);
    let last = groups.remainder();
    for group in groups {
        out.extend_from_slice(group);
        out.push(MARKER);
    }
    let padding = GROUP - last.len();
    out.extend_from_slice(last);
    out.extend_from_slice(&[0; GROUP][..padding]);
    out.push(MARKER - padding as u8);
}

/// Appends `value`, so that encodings compare the other way round than values do.
pub fn encode_desc(out: &mut Vec<u8>, value: &[u8]) {
    let start = out.len();
    encode(out, value);
    complement(&mut out[start..]);
}

/// Reads what [`encode`] wrote and steps over it.
///
/// # Errors
///
/// [`DecodeError::Insufficient`], [`DecodeError::InvalidMarker`] or [`DecodeError::InvalidPadding`]; `input` stays.
///
/// ```
/// use tikv_core::codec::memcomparable::{decode, encode};
///
/// let mut bytes = Vec::new();
/// encode(&mut bytes, b"row");
/// bytes.extend_from_slice(b"rest");
/// let mut input = bytes.as_slice();
/// assert_eq!(decode(&mut input), Ok(b"row".to_vec()));
/// assert_eq!(input, b"rest");
/// ```
pub fn decode(input: &mut &[u8]) -> Result<Vec<u8>, DecodeError> {
    decode_as(input, 0)
}

/// Reads what [`encode_desc`] wrote and steps over it.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_desc(input: &mut &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut value = decode_as(input, MARKER)?;
    complement(&mut value);
    Ok(value)
}

/// The encoding of a whole key, as PD and TiKV know it in transactional mode. client-go:
/// `memComparableCodec.encodeKey`.
#[must_use]
pub fn encode_key(key: &[u8]) -> Key {
    let mut out = Vec::new();
    encode(&mut out, key);
    Key::from(out)
}

/// The key of which `encoded` is the encoding. Bytes behind it (a timestamp, or the tail of a boundary that someone
/// chose by hand) do not matter, as in client-go's `memComparableCodec.decodeKey`.
///
/// # Errors
///
/// As [`decode`]. A region boundary that fails here was not made by a transactional client.
pub fn decode_key(mut encoded: &[u8]) -> Result<Key, DecodeError> {
    decode(&mut encoded).map(Key::from)
}

/// Decodes groups of which every byte was combined with `mask` by exclusive or. The value still carries the mask.
fn decode_as(input: &mut &[u8], mask: u8) -> Result<Vec<u8>, DecodeError> {
    let groups = count_groups(input, mask)?;
    let (encoded, rest) = input.split_at(groups * (GROUP + 1));
    let mut value = Vec::with_capacity(groups * GROUP);
    for group in encoded.chunks_exact(GROUP + 1) {
        value.extend_from_slice(&group[..GROUP]);
    }
    let marker = encoded[encoded.len() - 1] ^ mask;
    let padding = usize::from(MARKER - marker);
    if padding > GROUP {
        return Err(DecodeError::InvalidMarker { marker: marker ^ mask });
    }
    let end = value.len() - padding;
    if let Some(found) = value[end..].iter().find(|byte| **byte != mask) {
        return Err(DecodeError::InvalidPadding { found: *found });
    }
    value.truncate(end);
    *input = rest;
    Ok(value)
}

/// Groups up to and including the first that is not full. Counting first lets the value be allocated once.
fn count_groups(input: &[u8], mask: u8) -> Result<usize, DecodeError> {
    let mut groups = input.chunks_exact(GROUP + 1);
    match groups.position(|group| group[GROUP] ^ mask != MARKER) {
        Some(full) => Ok(full + 1),
        None => Err(DecodeError::Insufficient { needed: GROUP + 1, available: input.len() % (GROUP + 1) }),
    }
}

fn complement(bytes: &mut [u8]) {
    for byte in bytes {
        *byte = !*byte;
    }
}
