//! Region bounds, and the keys between them.
//!
//! Bounds are bytes as TiKV's engine orders them. Keys of the transactional API are memcomparable-encoded there, raw keys of
//! API v1 are not. So a region holds one range of raw keys and another range of transactional keys: those whose encodings
//! lie between its bounds. A bound need not be an encoding itself, since raw clients may split anywhere.

use tikv_core::codec::memcomparable;
use tikv_core::key::{Key, KeyRange};

const GROUP: usize = 8;
const FULL: u8 = 0xFF;
/// As start and end: no key at all.
const NO_KEY: Key = Key::from_static(&[0]);
/// Marker of a group without payload.
const EMPTY_GROUP: u8 = FULL - GROUP as u8;

/// The transactional keys whose encodings lie within encoded bounds.
#[must_use]
pub fn txn_range(bounds: &KeyRange) -> KeyRange {
    let start = first_key_from(bounds.start.as_slice());
    if bounds.end.is_empty() {
        return KeyRange { start, end: Key::EMPTY };
    }
    match first_key_from(bounds.end.as_slice()) {
        // Even the empty key lies after the bounds; as an end it would mean that there is none.
        end if end.is_empty() => KeyRange { start: NO_KEY, end: NO_KEY },
        end => KeyRange { start, end },
    }
}

/// A key as regions are bounded: the encoding of a transactional key, or, on API v2, of any key. Raw keys of API v1 are as
/// they are.
#[must_use]
pub fn encoded(key: &[u8]) -> Key {
    let mut bytes = Vec::with_capacity(memcomparable::encoded_len(key.len()));
    memcomparable::encode(&mut bytes, key);
    Key::from(bytes)
}

/// The smallest key whose encoding is not below `bound`.
fn first_key_from(bound: &[u8]) -> Key {
    let mut key = Vec::with_capacity(bound.len());
    let mut rest = bound;
    while let Some((group, after)) = rest.split_first_chunk::<{ GROUP + 1 }>() {
        let (payload, marker) = (&group[..GROUP], group[GROUP]);
        if marker == FULL {
            key.extend_from_slice(payload);
            rest = after;
            continue;
        }
        let fitting = without_padding(payload).len();
        let len =
            usize::from(marker.saturating_sub(EMPTY_GROUP)) + usize::from(marker >= EMPTY_GROUP && !after.is_empty());
        key.extend_from_slice(&payload[..len.clamp(fitting, GROUP)]);
        return Key::from(key);
    }
    key.extend_from_slice(without_padding(rest));
    Key::from(key)
}

/// What zeroes at the end could be padding for.
fn without_padding(group: &[u8]) -> &[u8] {
    let len = group.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &group[..len]
}

#[cfg(test)]
mod tests;
