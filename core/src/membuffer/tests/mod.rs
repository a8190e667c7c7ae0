use std::collections::BTreeSet;

use bytes::Bytes;

use super::*;
use crate::key::{Direction, Key, KeyRange};

mod flags;
mod memory;
mod model;
mod reads;
mod snapshots;
mod stages;
mod tree;
mod union;

/// Asserts that tree and log are in order and tell the same story.
#[track_caller]
fn validate(buffer: &MemBuffer) {
    let newest = buffer.tree.validate(&buffer.log);
    let records = || newest.iter().map(|place| buffer.log.record(*place));
    assert!(records().all(|record| !record.is_dead()));
    assert_eq!(buffer.size(), records().map(|record| record.key().len() + record.value_len()).sum::<usize>());
    // Nothing that can be undone is out of reach, and nothing in reach is older than what it replaced.
    let reachable: BTreeSet<_> =
        newest.iter().flat_map(|place| buffer.log.history(Some(*place))).map(|(place, _)| place).collect();
    assert!(buffer.log.since(Place::default()).all(|(place, _)| reachable.contains(&place)));
    for place in newest {
        let history: Vec<_> = buffer.log.history(Some(place)).collect();
        assert!(history.windows(2).all(|pair| pair[0].0 > pair[1].0 && pair[0].1.key() == pair[1].1.key()));
        assert!(history.len() == 1 || history.iter().all(|(_, record)| record.has_value()));
    }
}

/// The key of a number, in the order of numbers.
fn key(number: u32) -> Key {
    Key::from(&number.to_be_bytes())
}

fn owned((key, value): (Stored<'_>, ValueRef<'_>)) -> (Key, Value) {
    (key.to_key(), value.to_value())
}

fn put(bytes: &[u8]) -> Value {
    Value::Put(Bytes::copy_from_slice(bytes))
}

fn number(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// Sets each key of `numbers` to its number plus `add`.
fn fill(buffer: &mut MemBuffer, numbers: std::ops::Range<u32>, add: u32) {
    for i in numbers {
        buffer.set(key(i), number(i + add)).unwrap();
    }
}

/// As [`fill`], in a stage of its own.
fn fill_stage(buffer: &mut MemBuffer, numbers: std::ops::Range<u32>, add: u32) -> Stage {
    let stage = buffer.stage();
    fill(buffer, numbers, add);
    stage
}

/// Sets each key to itself.
fn set_all(buffer: &mut MemBuffer, keys: &[&[u8]]) {
    for key in keys {
        buffer.set(*key, Bytes::copy_from_slice(key)).unwrap();
    }
}

fn range(start: &[u8], end: &[u8]) -> KeyRange {
    KeyRange::new(start, end)
}

/// Asserts that `range` reads as `expected`, from either end and key by key.
#[track_caller]
fn assert_reads_in(buffer: &MemBuffer, range: &KeyRange, expected: &[(Key, Value)]) {
    let forward: Vec<_> = buffer.iter(range).map(owned).collect();
    assert_eq!(forward, expected);
    let mut backward: Vec<_> = buffer.iter(range).rev().map(owned).collect();
    backward.reverse();
    assert_eq!(backward, expected);
    for (key, value) in expected {
        assert_eq!(buffer.get(key.as_slice()).map(ValueRef::to_value).as_ref(), Some(value));
    }
}

#[track_caller]
fn assert_reads(buffer: &MemBuffer, expected: &[(Key, Value)]) {
    assert_reads_in(buffer, &KeyRange::ALL, expected);
}

/// The pairs that [`fill`] writes.
fn pairs(numbers: std::ops::Range<u32>, add: u32) -> Vec<(Key, Value)> {
    numbers.map(|i| (key(i), Value::Put(number(i + add)))).collect()
}
