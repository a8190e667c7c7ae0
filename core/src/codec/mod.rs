//! Encodings of keys and numbers that keep their order.
//!
//! TiKV stores and compares plain bytes. To find a range of rows by a range of bytes, a typed value must be encoded so
//! that the bytes compare as the values do. Two families do that here:
//!
//! - [`memcomparable`] for byte strings: also no encoding is a prefix of another, so that a suffix (a timestamp) can
//!   follow.
//!   Region boundaries and the keys inside TiKV's storage have this form.
//! - [`number`] for integers, of fixed and of variable width, plus the plain varints that do not keep the order.
//!
//! Encoders append to a `Vec<u8>` and cannot fail. Decoders take `&mut &[u8]`, step over what they have read, and leave
//! the input as it was when they fail.

pub mod memcomparable;
pub mod number;

/// The bytes are not what the encoder would have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DecodeError {
    /// The input ends before the value does.
    #[error("insufficient bytes: {needed} needed, {available} left")]
    Insufficient {
        /// Bytes that the next part of the value takes.
        needed: usize,
        /// Bytes that the input still holds.
        available: usize,
    },
    /// The ninth byte of a group does not say how many of the eight before it count.
    #[error("invalid marker {marker:#04x} after a group of bytes")]
    InvalidMarker {
        /// The marker as found.
        marker: u8,
    },
    /// A byte behind the end of the value, within its last group, is not padding.
    #[error("invalid padding {found:#04x} in the last group of bytes")]
    InvalidPadding {
        /// The byte found in place of padding.
        found: u8,
    },
    /// A varint goes on after 64 bits.
    #[error("varint larger than 64 bits")]
    Overflow,
    /// The tag or the sign of a comparable varint contradicts the type asked for.
    #[error("comparable varint with tag {tag:#04x} is out of range")]
    OutOfRange {
        /// The first byte of the varint.
        tag: u8,
    },
}
