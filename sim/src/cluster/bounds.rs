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
    let start = first_key_from(&bounds.start);
    if bounds.end.is_empty() {
        return KeyRange { start, end: Key::EMPTY };
    }
    match first_key_from(&bounds.end) {
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
fn first_key_from(bound: &Key) -> Key {
    let full_groups = bound.as_slice().chunks_exact(GROUP + 1).take_while(|group| group[GROUP] == FULL).count();
    let rest = &bound.as_slice()[full_groups * (GROUP + 1)..];
    let last = &rest[..last_payload_len(rest)];
    if full_groups == 0 {
        return Key::from(bound.to_bytes().slice(..last.len()));
    }
    let mut key = Vec::with_capacity(full_groups * GROUP + last.len());
    let groups = bound.as_slice().chunks_exact(GROUP + 1).take(full_groups);
    groups.for_each(|group| key.extend_from_slice(&group[..GROUP]));
    key.extend_from_slice(last);
    Key::from(key)
}

/// How much of the last group is the key's: of the first group that is not full, or of what is left without a marker.
fn last_payload_len(rest: &[u8]) -> usize {
    let Some((group, after)) = rest.split_first_chunk::<{ GROUP + 1 }>() else { return len_without_padding(rest) };
    let (payload, marker) = (&group[..GROUP], group[GROUP]);
    let len = usize::from(marker.saturating_sub(EMPTY_GROUP)) + usize::from(marker >= EMPTY_GROUP && !after.is_empty());
    len.clamp(len_without_padding(payload), GROUP)
}

/// Zeroes at the end could be padding.
fn len_without_padding(group: &[u8]) -> usize {
    group.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests;
