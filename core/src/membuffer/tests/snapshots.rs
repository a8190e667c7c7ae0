use super::*;

/// All that a cursor reads from where it stands.
fn rest(cursor: &mut SnapshotCursor, buffer: &MemBuffer) -> Vec<(Key, Value)> {
    std::iter::from_fn(|| cursor.next(buffer).unwrap()).map(owned).collect()
}

#[track_caller]
fn assert_snapshot(buffer: &MemBuffer, range: &KeyRange, expected: &[(Key, Value)]) {
    let snapshot = buffer.snapshot();
    let forward: Vec<_> = snapshot.iter(range).map(owned).collect();
    assert_eq!(forward, expected);
    let mut expected = expected.to_vec();
    assert_eq!(rest(&mut buffer.snapshot_cursor(range.clone(), Direction::Forward), buffer), expected);
    expected.reverse();
    let backward: Vec<_> = snapshot.iter(range).rev().map(owned).collect();
    assert_eq!(backward, expected);
    assert_eq!(rest(&mut buffer.snapshot_cursor(range.clone(), Direction::Reverse), buffer), expected);
    for (key, value) in &expected {
        assert_eq!(snapshot.get(key.as_slice()).map(ValueRef::to_value).as_ref(), Some(value));
    }
}

#[test]
fn without_a_stage_the_snapshot_is_the_present() {
    let mut buffer = MemBuffer::new();
    for i in 0..50 {
        buffer.set("k", vec![i]).unwrap();
        assert_snapshot(&buffer, &KeyRange::ALL, &[("k".into(), put(&[i]))]);
    }
}

#[test]
fn the_snapshot_does_not_see_what_stages_write() {
    let mut buffer = MemBuffer::new();
    buffer.update_flags([255], &[FlagOp::SetPresumeKeyNotExists]).unwrap();
    for i in 1..50_u8 {
        set_all(&mut buffer, &[&[2 * i]]);
    }
    let outer = buffer.stage();
    for i in 0..100_u8 {
        buffer.set([i], vec![2 * i + 1]).unwrap();
        if i == 50 {
            buffer.stage();
        }
    }
    buffer.delete([4]).unwrap();
    let expected: Vec<_> = (1..50_u8).map(|i| (Key::from(&[2 * i]), put(&[2 * i]))).collect();
    assert_snapshot(&buffer, &KeyRange::ALL, &expected);
    for absent in [1, 254, 255] {
        assert_eq!(buffer.snapshot().get(&[absent]), None);
    }
    let inner = *buffer.stages.last().unwrap();
    buffer.release(inner).unwrap();
    assert_snapshot(&buffer, &KeyRange::ALL, &expected);
    buffer.release(outer).unwrap();
    assert_eq!(buffer.snapshot().get(&[4]).map(ValueRef::to_value), Some(Value::Tombstone));
    assert_eq!(buffer.snapshot().get(&[1]).map(ValueRef::to_value), Some(put(&[3])));
}

#[test]
fn a_cursor_reads_on_while_stages_are_written() {
    for keys in [3, 4, 16, 17, 48, 64] {
        for direction in [Direction::Forward, Direction::Reverse] {
            let mut buffer = MemBuffer::new();
            for i in 0..keys {
                set_all(&mut buffer, &[&[0, i]]);
            }
            buffer.stage();
            let mut cursor = buffer.snapshot_cursor(range(&[0, 0], &[0, 255]), direction);
            let mut read = Vec::new();
            while let Some((key, value)) = cursor.next(&buffer).unwrap().map(owned) {
                assert_eq!(value, put(key.as_slice()));
                read.push(key);
                set_all(&mut buffer, &[&[0, keys], &[1, read.len() as u8]]);
                buffer.delete([0, 0]).unwrap();
            }
            let mut expected: Vec<_> = (0..keys).map(|i| Key::from(&[0, i])).collect();
            if direction == Direction::Reverse {
                expected.reverse();
            }
            assert_eq!(read, expected);
        }
    }
}

#[test]
fn a_cursor_keeps_to_its_range() {
    let mut buffer = MemBuffer::new();
    buffer.set("", "empty").unwrap();
    set_all(&mut buffer, &[&[1], &[2], &[2, 1], &[2, 1, 1], &[2, 1, 1, 1], &[3], &[4], &[5]]);
    buffer.stage();
    let cases: &[(&[u8], &[u8], std::ops::Range<usize>)] = &[
        (&[1], &[1], 0..0),
        (&[2], &[1], 0..0),
        (&[6], &[9], 0..0),
        (&[1], &[2], 1..2),
        (&[2], &[3], 2..6),
        (&[2], &[4], 2..7),
        (&[4], &[], 7..9),
        (&[], &[2], 0..2),
        (&[], &[], 0..9),
    ];
    let all: Vec<_> = buffer.iter(&KeyRange::ALL).map(owned).collect();
    for (start, end, expected) in cases {
        assert_snapshot(&buffer, &range(start, end), &all[expected.clone()]);
    }
}

#[test]
fn a_cursor_reads_any_number_of_keys() {
    let mut buffer = MemBuffer::new();
    fill(&mut buffer, 0..1_000, 0);
    buffer.stage();
    assert_snapshot(&buffer, &KeyRange::ALL, &pairs(0..1_000, 0));
}

#[test]
fn a_cursor_ends_when_what_it_reads_has_changed() {
    let ends: [fn(&mut MemBuffer, Stage, Checkpoint); 4] = [
        |buffer, stage, _| buffer.release(stage).unwrap(),
        |buffer, stage, _| {
            buffer.cleanup(stage).unwrap();
            buffer.set([2], "2").unwrap();
        },
        |buffer, stage, checkpoint| {
            buffer.cleanup(stage).unwrap();
            buffer.revert(checkpoint).unwrap();
        },
        |buffer, _, _| buffer.clear(),
    ];
    for end in ends {
        let mut buffer = MemBuffer::new();
        let checkpoint = buffer.checkpoint();
        set_all(&mut buffer, &[&[0], &[1]]);
        let stage = buffer.stage();
        let mut cursor = buffer.snapshot_cursor(range(&[0], &[255]), Direction::Forward);
        buffer.set([1], "new").unwrap();
        assert_eq!(cursor.next(&buffer).unwrap().map(owned), Some((Key::from(&[0]), put(&[0]))));
        end(&mut buffer, stage, checkpoint);
        buffer.stage();
        assert_eq!(cursor.next(&buffer), Err(SnapshotChanged));
        assert_eq!(cursor.next(&buffer), Err(SnapshotChanged));
    }
}

#[test]
fn a_cursor_outlives_a_stage_that_is_cleaned_up() {
    let mut buffer = MemBuffer::new();
    set_all(&mut buffer, &[&[0], &[1]]);
    let stage = buffer.stage();
    let mut cursor = buffer.snapshot_cursor(KeyRange::ALL, Direction::Forward);
    buffer.set([1], "new").unwrap();
    cursor.next(&buffer).unwrap();
    buffer.cleanup(stage).unwrap();
    assert_eq!(rest(&mut cursor, &buffer), [(Key::from(&[1]), put(&[1]))]);
}
