//! Integers as bytes: of fixed width or as varints, comparable or not.
//!
//! | form | bytes | order of the encodings |
//! |---|---|---|
//! | [`encode_u64`], [`encode_i64`] | 8, big endian (signed: sign bit flipped) | as the numbers |
//! | [`encode_u64_desc`], [`encode_i64_desc`] | 8, the complement of the above | the other way round |
//! | [`encode_comparable_uvarint`], [`encode_comparable_varint`] | 1 to 9: a tag with the length, then big endian | as the numbers |
//! | [`encode_uvarint`], [`encode_varint`] | 1 to 10: base 128, little endian (signed: zigzag) | none |
//!
//! client-go: `util/codec/number.go`; TiKV: `codec::number`.

use super::DecodeError;

#[cfg(test)]
mod tests;

const SIGN_BIT: u64 = 1 << 63;
/// Longest plain varint of 64 bits.
const MAX_VARINT_BYTES: usize = 10;
/// Tags below this one announce `SMALL_TAG - tag` bytes of a negative number. From here on, up to `LARGE_TAG`, the tag
/// is the number itself, shifted by this much.
const SMALL_TAG: u8 = 8;
/// Tags above this one announce `tag - LARGE_TAG` bytes of a positive number.
const LARGE_TAG: u8 = u8::MAX - 8;

/// Appends eight bytes that compare as the numbers do.
pub fn encode_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends eight bytes that compare the other way round than the numbers do.
pub fn encode_u64_desc(out: &mut Vec<u8>, value: u64) {
    encode_u64(out, !value);
}

/// Appends eight bytes that compare as the numbers do.
pub fn encode_i64(out: &mut Vec<u8>, value: i64) {
    encode_u64(out, comparable_u64(value));
}

/// Appends eight bytes that compare the other way round than the numbers do.
pub fn encode_i64_desc(out: &mut Vec<u8>, value: i64) {
    encode_u64_desc(out, comparable_u64(value));
}

/// Reads what [`encode_u64`] wrote.
///
/// # Errors
///
/// [`DecodeError::Insufficient`].
pub fn decode_u64(input: &mut &[u8]) -> Result<u64, DecodeError> {
    let Some((bytes, rest)) = input.split_first_chunk() else {
        return Err(DecodeError::Insufficient { needed: 8, available: input.len() });
    };
    *input = rest;
    Ok(u64::from_be_bytes(*bytes))
}

/// Reads what [`encode_u64_desc`] wrote.
///
/// # Errors
///
/// [`DecodeError::Insufficient`].
pub fn decode_u64_desc(input: &mut &[u8]) -> Result<u64, DecodeError> {
    decode_u64(input).map(|value| !value)
}

/// Reads what [`encode_i64`] wrote.
///
/// # Errors
///
/// [`DecodeError::Insufficient`].
pub fn decode_i64(input: &mut &[u8]) -> Result<i64, DecodeError> {
    decode_u64(input).map(from_comparable_u64)
}

/// Reads what [`encode_i64_desc`] wrote.
///
/// # Errors
///
/// [`DecodeError::Insufficient`].
pub fn decode_i64_desc(input: &mut &[u8]) -> Result<i64, DecodeError> {
    decode_u64_desc(input).map(from_comparable_u64)
}

/// An unsigned number that compares with its like as `value` does.
#[must_use]
pub const fn comparable_u64(value: i64) -> u64 {
    value as u64 ^ SIGN_BIT
}

/// The number of which `value` is the [`comparable_u64`].
#[must_use]
pub const fn from_comparable_u64(value: u64) -> i64 {
    (value ^ SIGN_BIT) as i64
}

/// Appends one to ten bytes whose order says nothing: seven bits a byte, the lowest first, the high bit set on all but
/// the last.
pub fn encode_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends one to ten bytes whose order says nothing; small magnitudes are short.
pub fn encode_varint(out: &mut Vec<u8>, value: i64) {
    encode_uvarint(out, (value << 1 ^ value >> 63) as u64);
}

/// Reads what [`encode_uvarint`] wrote.
///
/// # Errors
///
/// [`DecodeError::Insufficient`], [`DecodeError::Overflow`].
pub fn decode_uvarint(input: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0;
    for (index, byte) in input.iter().enumerate().take(MAX_VARINT_BYTES) {
        if index == MAX_VARINT_BYTES - 1 && *byte > 1 {
            return Err(DecodeError::Overflow);
        }
        value |= u64::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            *input = &input[index + 1..];
            return Ok(value);
        }
    }
    Err(DecodeError::Insufficient { needed: input.len() + 1, available: input.len() })
}

/// Reads what [`encode_varint`] wrote.
///
/// # Errors
///
/// [`DecodeError::Insufficient`], [`DecodeError::Overflow`].
pub fn decode_varint(input: &mut &[u8]) -> Result<i64, DecodeError> {
    decode_uvarint(input).map(|value| (value >> 1) as i64 ^ -((value & 1) as i64))
}

/// Appends one to nine bytes that compare as the numbers do. Numbers up to 239 take one byte.
pub fn encode_comparable_uvarint(out: &mut Vec<u8>, value: u64) {
    if value <= u64::from(LARGE_TAG - SMALL_TAG) {
        out.push(value as u8 + SMALL_TAG);
        return;
    }
    let len = significant_bytes(value);
    out.push(LARGE_TAG + len as u8);
    out.extend_from_slice(&value.to_be_bytes()[8 - len..]);
}

/// Appends one to nine bytes that compare as the numbers do. Numbers from 0 to 239 take one byte.
pub fn encode_comparable_varint(out: &mut Vec<u8>, value: i64) {
    if value >= 0 {
        return encode_comparable_uvarint(out, value as u64);
    }
    // Written in two's complement; the leading ones that the length implies are left out.
    let len = significant_bytes(value.unsigned_abs());
    out.push(SMALL_TAG - len as u8);
    out.extend_from_slice(&value.to_be_bytes()[8 - len..]);
}

/// Reads what [`encode_comparable_uvarint`] wrote.
///
/// # Errors
///
/// [`DecodeError::Insufficient`]; [`DecodeError::OutOfRange`] for a negative number.
pub fn decode_comparable_uvarint(input: &mut &[u8]) -> Result<u64, DecodeError> {
    let (tag, number, rest) = comparable_varint(input)?;
    let Comparable::Positive(value) = number else { return Err(DecodeError::OutOfRange { tag }) };
    *input = rest;
    Ok(value)
}

/// Reads what [`encode_comparable_varint`] wrote.
///
/// # Errors
///
/// [`DecodeError::Insufficient`]; [`DecodeError::OutOfRange`] for a number that an `i64` cannot hold.
pub fn decode_comparable_varint(input: &mut &[u8]) -> Result<i64, DecodeError> {
    let (tag, number, rest) = comparable_varint(input)?;
    let value = match number {
        Comparable::Positive(value) => i64::try_from(value).ok(),
        Comparable::Negative(bits) => Some(bits as i64).filter(|value| *value < 0),
    };
    let value = value.ok_or(DecodeError::OutOfRange { tag })?;
    *input = rest;
    Ok(value)
}

enum Comparable {
    Positive(u64),
    /// In two's complement.
    Negative(u64),
}

fn comparable_varint(input: &[u8]) -> Result<(u8, Comparable, &[u8]), DecodeError> {
    let Some((&tag, rest)) = input.split_first() else {
        return Err(DecodeError::Insufficient { needed: 1, available: 0 });
    };
    if tag < SMALL_TAG {
        let (bits, rest) = big_endian(rest, usize::from(SMALL_TAG - tag), u64::MAX)?;
        Ok((tag, Comparable::Negative(bits), rest))
    } else if tag <= LARGE_TAG {
        Ok((tag, Comparable::Positive(u64::from(tag - SMALL_TAG)), rest))
    } else {
        let (value, rest) = big_endian(rest, usize::from(tag - LARGE_TAG), 0)?;
        Ok((tag, Comparable::Positive(value), rest))
    }
}

/// The number of `len` bytes at the start of `input`, the bits before them as in `fill`.
fn big_endian(input: &[u8], len: usize, fill: u64) -> Result<(u64, &[u8]), DecodeError> {
    if input.len() < len {
        return Err(DecodeError::Insufficient { needed: len, available: input.len() });
    }
    let (bytes, rest) = input.split_at(len);
    Ok((bytes.iter().fold(fill, |value, byte| value << 8 | u64::from(*byte)), rest))
}

/// Bytes without the leading zero bytes, at least one.
fn significant_bytes(value: u64) -> usize {
    8 - (value | 1).leading_zeros() as usize / 8
}
