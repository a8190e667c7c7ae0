//! What is kept of keys and values, and how they are handed out.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::*;

#[test]
fn what_is_read_after_sharing_shares_the_memory_of_the_buffer() {
    let mut buffer = MemBuffer::new();
    fill(&mut buffer, 0..1_000, 0);
    let pointers = |buffer: &MemBuffer| -> Vec<_> {
        let bytes =
            buffer.iter(&KeyRange::ALL).map(|(key, value)| (key.to_bytes(), value.as_put().unwrap().to_bytes()));
        bytes.map(|(key, value)| (key.as_ptr(), value.as_ptr())).collect()
    };
    buffer.share();
    assert_eq!(pointers(&buffer), pointers(&buffer));
    assert_reads(&buffer, &pairs(0..1_000, 0));
}

#[test]
fn a_shared_buffer_can_be_written_and_what_was_read_stays() {
    let mut buffer = MemBuffer::new();
    fill(&mut buffer, 0..1_000, 0);
    let before: Vec<_> = {
        buffer.share();
        buffer.iter(&KeyRange::ALL).map(owned).collect()
    };
    let stage = fill_stage(&mut buffer, 500..1_500, 1);
    buffer.update_flags(key(3), &[FlagOp::SetKeyLocked]).unwrap();
    assert_reads(&buffer, &[pairs(0..500, 0), pairs(500..1_500, 1)].concat());
    validate(&buffer);
    buffer.cleanup(stage).unwrap();
    fill(&mut buffer, 0..10, 7);
    assert_reads(&buffer, &[pairs(0..10, 7), pairs(10..1_000, 0)].concat());
    assert!(buffer.flags(key(3).as_slice()).unwrap().has_locked());
    assert_eq!(before, pairs(0..1_000, 0));
}

#[test]
fn values_of_every_length_lie_beside_each_other() {
    let lengths = [1, 7, 8, 100, 511, 512, 1_023, 65_536, (1 << 20) - 30, (1 << 20) + 1, 5 << 20, 3];
    let value = |index: usize| vec![index as u8 + 1; lengths[index]];
    let mut buffer = MemBuffer::new();
    for index in 0..lengths.len() {
        buffer.set(key(index as u32), value(index)).unwrap();
    }
    let (stage, size) = (buffer.stage(), buffer.size());
    for index in (0..lengths.len()).rev() {
        buffer.set(key(index as u32), value(lengths.len() - 1 - index)).unwrap();
    }
    assert_eq!(buffer.size(), size);
    buffer.cleanup(stage).unwrap();
    for index in 0..lengths.len() {
        assert!(buffer.get(key(index as u32).as_slice()).is_some_and(|read| read == put(&value(index))));
    }
    validate(&buffer);
    assert!(buffer.footprint() < 2 * size);
}

#[test]
fn a_value_that_grows_and_grows_leaves_little_behind() {
    let mut buffer = MemBuffer::new();
    for len in 1..=10_000 {
        buffer.set("k", vec![len as u8; len]).unwrap();
        assert_eq!(buffer.get(b"k").and_then(ValueRef::as_put).map(|value| value.len()), Some(len));
    }
    assert!(buffer.footprint() < 6 * 10_000, "{} bytes", buffer.footprint());
    assert_eq!(buffer.history(b"k").count(), 1);
    validate(&buffer);
}

#[test]
fn a_change_of_the_footprint_is_told_once() {
    let mut buffer = MemBuffer::new();
    assert_eq!(buffer.footprint_change(), None);
    buffer.set("k", "value").unwrap();
    assert_eq!(buffer.footprint_change(), Some(buffer.footprint()));
    assert_eq!(buffer.footprint_change(), None);
    buffer.set("k", "other").unwrap();
    assert_eq!(buffer.footprint_change(), None, "overwritten in its place");
    buffer.clear();
    assert_eq!(buffer.footprint_change(), Some(0));
}

#[test]
fn buffers_of_equal_content_are_equal_however_they_came_to_it() {
    let hash = |buffer: &MemBuffer| {
        let mut hasher = DefaultHasher::new();
        buffer.hash(&mut hasher);
        hasher.finish()
    };
    let (mut ascending, mut descending) = (MemBuffer::new(), MemBuffer::new());
    for i in 0..1_000 {
        ascending.set(key(i), number(i)).unwrap();
        descending.set(key(999 - i), number(999 - i)).unwrap();
    }
    assert_eq!(ascending, descending);
    assert_eq!(hash(&ascending), hash(&descending));
    descending.share();
    assert_eq!(ascending, descending);
    descending.update_flags(key(5), &[FlagOp::SetKeyLocked]).unwrap();
    assert_ne!(ascending, descending);
}

#[test]
fn buffers_that_go_back_to_different_values_differ() {
    let written = |old: &str| {
        let mut buffer = MemBuffer::new();
        buffer.set("k", old).unwrap();
        buffer.stage();
        buffer.set("k", "new").unwrap();
        buffer
    };
    assert_eq!(written("a"), written("a"));
    assert_ne!(written("a"), written("b"));
}

#[test]
fn several_keys_are_read_at_once_and_unknown_ones_left_out() {
    let mut buffer = MemBuffer::new();
    buffer.set("a", "1").unwrap();
    buffer.delete("c").unwrap();
    buffer.update_flags("d", &[FlagOp::SetKeyLocked]).unwrap();
    let found: Vec<_> = buffer.get_many(["c", "b", "a", "d"]).map(|(key, value)| (key, value.to_value())).collect();
    assert_eq!(found, [("c", Value::Tombstone), ("a", put(b"1"))]);
}
