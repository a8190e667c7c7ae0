use super::*;

/// Sizes at which a radix tree changes its nodes: 4, 16, 48 and 256 children.
const FAN_OUTS: [u32; 4] = [4, 16, 48, 256];

fn byte(value: u32) -> [u8; 1] {
    [value as u8]
}

#[test]
fn every_key_set_reads_back() {
    let mut buffer = MemBuffer::new();
    for byte in 0..=255_u8 {
        assert_eq!(buffer.get(&[byte]), None);
        set_all(&mut buffer, &[&[byte]]);
        assert_eq!(buffer.get(&[byte]).map(ValueRef::to_value), Some(put(&[byte])));
    }
    let mut buffer = MemBuffer::new();
    fill(&mut buffer, 0..10_000, 0);
    assert_reads(&buffer, &pairs(0..10_000, 0));
    assert_eq!((buffer.len(), buffer.size()), (10_000, 80_000));
}

#[test]
fn iteration_runs_both_ways_within_bounds() {
    let mut buffer = MemBuffer::new();
    fill(&mut buffer, 0..1_000, 0);
    assert_reads_in(&buffer, &KeyRange { end: key(400), ..KeyRange::ALL }, &pairs(0..400, 0));
    assert_reads_in(&buffer, &KeyRange { start: key(400), ..KeyRange::ALL }, &pairs(400..1_000, 0));
    assert_reads_in(&buffer, &KeyRange::new(key(400), key(600)), &pairs(400..600, 0));
}

#[test]
fn iteration_bounds_hold_for_any_number_of_keys() {
    for fan_out in FAN_OUTS {
        let mut buffer = MemBuffer::new();
        let expected: Vec<_> = (0..fan_out).map(|i| (Key::from(&byte(i)), put(&byte(i)))).collect();
        for i in 0..fan_out {
            set_all(&mut buffer, &[&byte(i)]);
        }
        assert_reads(&buffer, &expected);
        let middle = fan_out / 2;
        let (before, after) = expected.split_at(middle as usize);
        assert_reads_in(&buffer, &range(&byte(middle), &[]), after);
        assert_reads_in(&buffer, &range(&[], &byte(middle)), before);
        for (index, (key, _)) in expected.iter().enumerate() {
            assert_eq!(buffer.iter(&range(key.as_slice(), &[])).count(), expected.len() - index);
        }
    }
}

#[test]
fn an_iterator_starts_at_the_next_key_there_is() {
    let mut buffer = MemBuffer::new();
    for i in (0..100).step_by(2) {
        fill(&mut buffer, i..i + 1, 0);
    }
    for i in (0..98).step_by(2) {
        let first = |start: u32| buffer.iter(&KeyRange { start: key(start), ..KeyRange::ALL }).next();
        let last = |end: u32| buffer.iter(&KeyRange { end: key(end), ..KeyRange::ALL }).next_back();
        assert_eq!(first(i).map(|(key, _)| key.to_key()), Some(key(i)));
        assert_eq!(first(i + 1).map(|(key, _)| key.to_key()), Some(key(i + 2)));
        assert_eq!(last(i + 1).map(|(key, _)| key.to_key()), Some(key(i)));
        assert_eq!(last(i + 2).map(|(key, _)| key.to_key()), Some(key(i)));
    }
    assert_eq!(buffer.iter(&KeyRange { start: key(99), ..KeyRange::ALL }).count(), 0);
}

#[test]
fn an_iterator_of_a_table_starts_at_its_first_row() {
    let mut buffer = MemBuffer::new();
    let rows = ["record__0001", "record__0001_0002", "record__0001_0003", "record__0002", "record__0002_0002"];
    set_all(&mut buffer, &rows.map(str::as_bytes));
    assert_eq!(buffer.iter(&KeyRange::ALL).count(), rows.len());
    let (first, _) = buffer.iter(&range(b"record__0000", b"")).next().unwrap();
    assert_eq!(first.to_key(), Key::from("record__0001"));
}

#[test]
fn an_empty_buffer_has_nothing_to_read() {
    let buffer = MemBuffer::new();
    assert_eq!(buffer.get(&[0]), None);
    assert_eq!(buffer.flags(&[0]), None);
    assert_eq!(buffer.history(&[0]).count(), 0);
    assert_reads(&buffer, &[]);
    assert_reads_in(&buffer, &range(b"2", b""), &[]);
    assert_reads_in(&buffer, &range(b"", b"\xff"), &[]);
    assert!(buffer.is_empty() && !buffer.is_dirty() && !buffer.is_staging());
}

#[test]
fn a_range_without_keys_reads_empty() {
    let mut buffer = MemBuffer::new();
    set_all(&mut buffer, &[&[1, 1]]);
    assert_reads_in(&buffer, &range(&[1, 1], &[1, 1]), &[]);
    assert_reads_in(&buffer, &range(&[1, 0, 0], &[1, 0, 1]), &[]);
    assert_reads_in(&buffer, &range(&[1, 0, 1], &[1, 0, 0]), &[]);
    assert_reads_in(&buffer, &range(&[2], &[1]), &[]);

    for neighbours in [0, 5, 17, 49] {
        let mut buffer = MemBuffer::new();
        for i in 0..neighbours {
            set_all(&mut buffer, &[&[1, i]]);
        }
        set_all(&mut buffer, &[&[1, 100], &[1, 200]]);
        assert_reads_in(&buffer, &range(&[1, 100, 1], &[1, 200]), &[]);
    }
}

#[test]
fn bounds_need_not_be_keys_of_the_buffer() {
    let mut buffer = MemBuffer::new();
    set_all(&mut buffer, &[&[1]]);
    assert_reads_in(&buffer, &range(&[1], &[1, 1]), &[(Key::from(&[1]), put(&[1]))]);
    set_all(&mut buffer, &[&[2]]);
    assert_reads_in(&buffer, &range(&[1, 1], &[2, 2]), &[(Key::from(&[2]), put(&[2]))]);

    let mut buffer = MemBuffer::new();
    set_all(&mut buffer, &[&[1, 1]]);
    assert_reads_in(&buffer, &range(&[1, 0, 0], &[1, 2, 0]), &[(Key::from(&[1, 1]), put(&[1, 1]))]);
}

#[test]
fn keys_that_are_prefixes_of_each_other_stay_apart_and_in_order() {
    let mut buffer = MemBuffer::new();
    let keys: Vec<_> = (1..=20).map(|len| vec![0; len]).collect();
    for key in keys.iter().rev() {
        set_all(&mut buffer, &[key]);
    }
    let expected: Vec<_> = keys.iter().map(|key| (Key::from(key.as_slice()), put(key))).collect();
    assert_reads(&buffer, &expected);
    assert_eq!(buffer.get(&[0; 21]), None);

    let mut buffer = MemBuffer::new();
    set_all(&mut buffer, &[b"a", b"aa", b"aaa"]);
    assert_reads_in(&buffer, &range(b"aa", b"aaa"), &[("aa".into(), put(b"aa"))]);
}

#[test]
fn keys_with_long_common_prefixes_stay_apart() {
    for len in [2, 10, 20, 21, 22, 30, 300] {
        let mut buffer = MemBuffer::new();
        let key = |prefix: usize, tail: &[u8]| [vec![7; prefix], tail.to_vec()].concat();
        let mut keys = [key(len, &[0, 1]), key(len, &[0, 2]), key(len, &[0, 2, 1]), key(len, &[9]), key(1, &[1])];
        set_all(&mut buffer, &keys.iter().map(Vec::as_slice).collect::<Vec<_>>());
        keys.sort_unstable();
        let expected: Vec<_> = keys.iter().map(|key| (Key::from(key.as_slice()), put(key))).collect();
        assert_reads(&buffer, &expected);
        for absent in [key(len, &[]), key(len, &[0]), key(len, &[0, 3]), key(len - 1, &[0, 1]), key(len - 1, &[1, 1])] {
            assert!(keys.contains(&absent) || buffer.get(&absent).is_none(), "{absent:?}");
        }
        buffer.set(keys[1].clone(), "other").unwrap();
        assert_eq!(buffer.get(&keys[1]).map(ValueRef::to_value), Some(put(b"other")));
    }
}

#[test]
fn a_range_may_span_different_prefixes() {
    let (short, long) = ([1_u8; 10].as_slice(), [2_u8; 30].as_slice());
    let keys = [[short, &[1]].concat(), [short, &[2]].concat(), [long, &[3]].concat(), [long, &[4]].concat()];
    let mut buffer = MemBuffer::new();
    set_all(&mut buffer, &keys.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let expected: Vec<_> = keys.iter().map(|key| (Key::from(key.as_slice()), put(key))).collect();
    let (start, end) = ([&short[1..], &[0]].concat(), [&long[1..], &[3]].concat());
    assert_reads_in(&buffer, &range(&start, &end), &expected);
    assert_reads_in(&buffer, &range(&keys[1], &keys[3]), &expected[1..3]);
}

#[test]
fn an_overwritten_key_counts_once() {
    let mut buffer = MemBuffer::new();
    fill(&mut buffer, 0..1_000, 0);
    let size = buffer.size();
    for i in (0..1_000).step_by(3) {
        buffer.set(key(i), number(i * 10)).unwrap();
    }
    assert_eq!((buffer.len(), buffer.size()), (1_000, size));
    let expected: Vec<_> =
        (0..1_000).map(|i| (key(i), Value::Put(number(if i % 3 == 0 { i * 10 } else { i })))).collect();
    assert_reads(&buffer, &expected);

    buffer.set(key(0), "longer than four bytes").unwrap();
    buffer.delete(key(1)).unwrap();
    assert_eq!((buffer.len(), buffer.size()), (1_000, size + 18 - 4));
}

#[test]
fn overwriting_what_nothing_falls_back_to_takes_no_more_memory() {
    let mut buffer = MemBuffer::new();
    buffer.set("k", vec![1; 4_096]).unwrap();
    let footprint = buffer.footprint();
    for len in (1..=4_096).rev().step_by(64) {
        buffer.set("k", vec![2; len]).unwrap();
        assert!(buffer.footprint() <= footprint);
    }
    assert_eq!(buffer.history(b"k").count(), 1);
}

#[test]
fn a_deleted_key_reads_as_a_tombstone() {
    let mut buffer = MemBuffer::new();
    set_all(&mut buffer, &[b"a", b"b"]);
    buffer.delete("a").unwrap();
    buffer.delete("c").unwrap();
    let expected = [("a".into(), Value::Tombstone), ("b".into(), put(b"b")), ("c".into(), Value::Tombstone)];
    assert_reads(&buffer, &expected);
    assert_eq!((buffer.len(), buffer.size()), (3, 4));
}

#[test]
fn a_cleared_buffer_is_empty() {
    let mut buffer = MemBuffer::new();
    let limits = Limits { entry_bytes: 100, total_bytes: 100_000 };
    buffer.set_limits(limits);
    let checkpoint = buffer.checkpoint();
    fill(&mut buffer, 0..1_000, 0);
    let stage = fill_stage(&mut buffer, 0..10, 1);
    buffer.clear();
    assert_eq!((buffer.get(&[0, 0, 0, 0]), buffer.flags(&[0, 0, 0, 0])), (None, None));
    assert_reads(&buffer, &[]);
    assert_eq!((buffer.len(), buffer.size(), buffer.footprint(), buffer.limits()), (0, 0, 0, limits));
    assert!(!buffer.is_dirty());
    assert_eq!(buffer.release(stage), Err(StageError::NotOpen));

    fill(&mut buffer, 0..10, 0);
    buffer.revert(checkpoint).unwrap();
    assert!(buffer.is_empty(), "an earlier checkpoint stands for the empty buffer");
}

#[test]
fn a_write_beyond_the_limits_changes_nothing() {
    let mut buffer = MemBuffer::new();
    buffer.set_limits(Limits { entry_bytes: 500, total_bytes: 1_000 });
    assert_eq!(buffer.set("x", vec![0; 500]), Err(WriteError::EntryTooLarge { size: 501, limit: 500 }));
    buffer.set("x", vec![0; 499]).unwrap();
    assert_eq!(buffer.set("yz", vec![0; 499]), Err(WriteError::EntryTooLarge { size: 501, limit: 500 }));
    buffer.delete(vec![0; 499]).unwrap();

    let before = buffer.clone();
    assert_eq!(buffer.delete(vec![0; 500]), Err(WriteError::TxnTooLarge { size: 1_499, limit: 1_000 }));
    assert_eq!(buffer.set("y", vec![0; 1]), Err(WriteError::TxnTooLarge { size: 1_001, limit: 1_000 }));
    assert_eq!(buffer, before);

    buffer.set("x", "").unwrap_err();
    buffer.set_limits(Limits { total_bytes: 10, ..Limits::NONE });
    buffer.set("x", vec![0; 400]).unwrap();
    assert_eq!(buffer.size(), 900, "what makes a too large transaction smaller is taken");
}

#[test]
fn an_empty_value_is_refused() {
    let mut buffer = MemBuffer::new();
    assert_eq!(buffer.set("k", Bytes::new()), Err(WriteError::EmptyValue));
    assert_eq!(buffer.set_with_flags("k", "", &[FlagOp::SetKeyLocked]), Err(WriteError::EmptyValue));
    assert_eq!(buffer, MemBuffer::new());
}

#[test]
fn a_key_longer_than_16_bits_can_say_is_refused() {
    let (longest, too_long) = (vec![0; 0xFFFF], vec![0; 0x1_0000]);
    let mut buffer = MemBuffer::new();
    buffer.set(longest.clone(), too_long.clone()).unwrap();
    let refused = Err(WriteError::KeyTooLarge { size: 0x1_0000 });
    assert_eq!(buffer.set(too_long.clone(), longest), refused);
    assert_eq!(buffer.delete(too_long.clone()), refused);
    assert_eq!(buffer.update_flags(too_long, &[FlagOp::SetKeyLocked]), refused);
    assert_eq!(buffer.len(), 1);
}

#[test]
fn an_unused_buffer_takes_no_memory() {
    let buffer = MemBuffer::new();
    assert_eq!((buffer.footprint(), buffer.len()), (0, 0));
}

#[test]
fn the_footprint_follows_every_write() {
    let mut buffer = MemBuffer::new();
    let mut last = buffer.footprint();
    for i in 0..10 {
        buffer.set(key(i), "value").unwrap();
        assert!(buffer.footprint() > last);
        last = buffer.footprint();
    }
    let stage = buffer.stage();
    buffer.set(key(0), "other").unwrap();
    assert!(buffer.footprint() > last, "both values are kept");
    buffer.cleanup(stage).unwrap();
    assert_eq!(buffer.footprint(), last);
}
