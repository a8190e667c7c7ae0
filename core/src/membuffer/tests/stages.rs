use super::*;

#[test]
fn a_cleaned_up_stage_leaves_no_trace() {
    let mut buffer = MemBuffer::new();
    let base = fill_stage(&mut buffer, 0..1_000, 0);
    let size = buffer.size();
    let stage = fill_stage(&mut buffer, 0..1_000, 1);
    buffer.cleanup(stage).unwrap();
    assert_eq!((buffer.len(), buffer.size()), (1_000, size));
    assert_reads(&buffer, &pairs(0..1_000, 0));
    buffer.cleanup(base).unwrap();
    assert_reads(&buffer, &[]);
    assert_eq!((buffer.len(), buffer.size(), buffer.footprint()), (0, 0, 0));
}

#[test]
fn a_released_stage_overwrites_what_was_before() {
    let mut buffer = MemBuffer::new();
    for add in 0..2 {
        let stage = fill_stage(&mut buffer, 0..1_000, add);
        buffer.release(stage).unwrap();
        assert_eq!((buffer.len(), buffer.size()), (1_000, 8_000));
        assert_reads(&buffer, &pairs(0..1_000, add));
    }
}

#[test]
fn released_stages_that_overlap_keep_the_newest_value() {
    let mut buffer = MemBuffer::new();
    let stage = fill_stage(&mut buffer, 0..600, 0);
    buffer.release(stage).unwrap();
    assert_eq!(buffer.len(), 600);
    let stage = fill_stage(&mut buffer, 300..900, 1);
    buffer.release(stage).unwrap();
    assert_eq!(buffer.len(), 900);
    assert_reads(&buffer, &[pairs(0..300, 0), pairs(300..900, 1)].concat());
}

#[test]
fn nested_stages_end_one_by_one() {
    let mut buffer = MemBuffer::new();
    let stage_0 = fill_stage(&mut buffer, 0..200, 0);
    let stage_1 = fill_stage(&mut buffer, 0..100, 1);
    let stage_2 = fill_stage(&mut buffer, 50..150, 2);
    let stage_3 = fill_stage(&mut buffer, 100..120, 3);
    let stage_4 = fill_stage(&mut buffer, 0..150, 4);
    buffer.cleanup(stage_4).unwrap();
    assert_reads_in(&buffer, &KeyRange::new(key(100), key(150)), &[pairs(100..120, 3), pairs(120..150, 2)].concat());
    buffer.release(stage_3).unwrap();
    buffer.cleanup(stage_2).unwrap();
    buffer.release(stage_1).unwrap();
    buffer.release(stage_0).unwrap();
    assert_reads(&buffer, &[pairs(0..100, 1), pairs(100..200, 0)].concat());
}

#[test]
fn a_stage_released_into_one_that_is_cleaned_up_is_undone_too() {
    let mut buffer = MemBuffer::new();
    buffer.set("x", vec![0; 2]).unwrap();
    let outer = buffer.stage();
    buffer.set("x", vec![0; 3]).unwrap();
    let inner = buffer.stage();
    buffer.set("yz", vec![0; 1]).unwrap();
    assert_eq!(buffer.get(b"x").map(ValueRef::to_value), Some(put(&[0; 3])));
    buffer.release(inner).unwrap();
    assert_eq!(buffer.get(b"yz").map(ValueRef::to_value), Some(put(&[0; 1])));
    buffer.cleanup(outer).unwrap();
    assert_reads(&buffer, &[("x".into(), put(&[0; 2]))]);
}

#[test]
fn a_hundred_stages_deep_each_is_released_or_cleaned_up_on_its_own() {
    let mut buffer = MemBuffer::new();
    let mut stages = Vec::new();
    for depth in 0..100_u8 {
        let stage = buffer.stage();
        assert_eq!(stage.depth(), usize::from(depth) + 1);
        stages.push(stage);
        buffer.set("k", vec![depth]).unwrap();
        assert_eq!(buffer.get(b"k").map(ValueRef::to_value), Some(put(&[depth])));
    }
    for depth in (0..100_u8).rev() {
        let stage = stages.pop().unwrap();
        let expected = if depth % 2 == 1 {
            buffer.cleanup(stage).unwrap();
            depth - 1
        } else {
            buffer.release(stage).unwrap();
            depth
        };
        assert_eq!(buffer.get(b"k").map(ValueRef::to_value), Some(put(&[expected])));
    }
}

#[test]
fn stages_end_in_reverse_order_only() {
    let mut buffer = MemBuffer::new();
    let (outer, inner) = (buffer.stage(), buffer.stage());
    let before = buffer.clone();
    let not_innermost = Err(StageError::NotInnermost { depth: 1, open: 2 });
    assert_eq!((buffer.release(outer), buffer.cleanup(outer)), (not_innermost, not_innermost));
    assert_eq!(buffer, before);
    buffer.release(inner).unwrap();
    assert_eq!(buffer.release(inner), Err(StageError::NotOpen));

    let again = buffer.stage();
    assert_ne!(again, inner, "a stage that was ended is not confused with one in its place");
    assert_eq!(buffer.release(inner), Err(StageError::NotOpen));
    assert_eq!(buffer.cleanup(inner), Ok(()), "cleaning up what was ended does nothing");
    assert!(buffer.is_staging());
    buffer.cleanup(again).unwrap();
    buffer.cleanup(outer).unwrap();
    buffer.cleanup(outer).unwrap();
    assert!(!buffer.is_staging());
}

#[test]
fn an_outer_stage_can_be_ended_with_all_within_it() {
    let mut buffer = MemBuffer::new();
    for keeps in [true, false] {
        let outer = buffer.stage();
        buffer.set("k", if keeps { "1" } else { "x" }).expect("small");
        let inner = buffer.stage();
        buffer.set("k", if keeps { "3" } else { "y" }).expect("small");
        let ended = if keeps { buffer.release_nested(outer) } else { buffer.cleanup_nested(outer) };
        assert_eq!((ended, buffer.is_staging()), (Ok(()), false));
        assert_eq!(buffer.get(b"k").and_then(ValueRef::as_put).as_deref(), Some(&b"3"[..]), "kept: {keeps}");
        assert_eq!(buffer.release_nested(inner), Err(StageError::NotOpen));
        assert_eq!(buffer.cleanup_nested(outer), Err(StageError::NotOpen));
    }
}

#[test]
fn a_checkpoint_can_be_gone_back_to() {
    let mut buffer = MemBuffer::new();
    let start = buffer.checkpoint();
    set_all(&mut buffer, &[b"x"]);
    let with_x = buffer.checkpoint();
    set_all(&mut buffer, &[b"y"]);
    let stage = buffer.stage();
    set_all(&mut buffer, &[b"z"]);
    buffer.release(stage).unwrap();
    assert_reads(&buffer, &["x", "y", "z"].map(|key| (key.into(), put(key.as_bytes()))));

    buffer.revert(with_x).unwrap();
    assert_reads(&buffer, &[("x".into(), put(b"x"))]);
    buffer.set("x", "2").unwrap();
    buffer.revert(with_x).unwrap();
    assert_reads(&buffer, &[("x".into(), put(b"x"))]);
    buffer.revert(start).unwrap();
    assert_reads(&buffer, &[]);
}

#[test]
fn a_value_of_equal_length_written_after_a_checkpoint_is_undone_as_well() {
    let mut buffer = MemBuffer::new();
    buffer.set("k", "1").unwrap();
    let checkpoint = buffer.checkpoint();
    buffer.set("k", "2").unwrap();
    buffer.set("k", "3").unwrap();
    buffer.revert(checkpoint).unwrap();
    assert_eq!(buffer.get(b"k").map(ValueRef::to_value), Some(put(b"1")));
}

#[test]
fn a_checkpoint_before_an_open_stage_is_out_of_reach_until_the_stage_ends() {
    let mut buffer = MemBuffer::new();
    let outside = buffer.checkpoint();
    set_all(&mut buffer, &[b"a"]);
    let stage = buffer.stage();
    set_all(&mut buffer, &[b"b"]);
    let inside = buffer.checkpoint();
    set_all(&mut buffer, &[b"c"]);
    assert_eq!(buffer.revert(outside), Err(StageError::StageOpen));
    buffer.revert(inside).unwrap();
    assert_reads(&buffer, &["a", "b"].map(|key| (key.into(), put(key.as_bytes()))));
    buffer.cleanup(stage).unwrap();

    set_all(&mut buffer, &[b"d"]);
    buffer.revert(inside).unwrap();
    assert_reads(&buffer, &[("a".into(), put(b"a"))]);
    buffer.revert(outside).unwrap();
    assert_reads(&buffer, &[]);
}

#[test]
fn a_stage_lists_what_it_wrote() {
    let mut buffer = MemBuffer::new();
    let stage_1 = fill_stage(&mut buffer, 0..100, 0);
    let stage_2 = fill_stage(&mut buffer, 50..100, 1);
    fill(&mut buffer, 50..150, 2);
    let stage_3 = fill_stage(&mut buffer, 100..200, 3);

    let staged = |buffer: &MemBuffer, stage| {
        let mut staged: Vec<_> = buffer.staged(stage).unwrap().map(owned).collect();
        staged.sort_by(|(a, _), (b, _)| a.cmp(b));
        staged
    };
    assert_eq!(staged(&buffer, stage_3), pairs(100..200, 3));
    assert_eq!(staged(&buffer, stage_2), [pairs(50..100, 2), pairs(100..200, 3)].concat());
    buffer.cleanup(stage_3).unwrap();
    assert_eq!(buffer.staged(stage_3).err(), Some(StageError::NotOpen));
    buffer.release(stage_2).unwrap();
    assert_eq!(staged(&buffer, stage_1), [pairs(0..50, 0), pairs(50..150, 2)].concat());
    let first = buffer.staged(stage_1).unwrap().next();
    assert_eq!(first.map(|(key, _)| key.to_key()), Some(key(149)), "the last written comes first");
}

#[test]
fn a_buffer_is_dirty_once_there_is_something_to_commit() {
    let mut buffer = MemBuffer::new();
    buffer.set("k", "v").unwrap();
    assert!(buffer.is_dirty());

    let mut buffer = MemBuffer::new();
    let stage = buffer.stage();
    buffer.set("k", "v").unwrap();
    buffer.cleanup(stage).unwrap();
    assert!(!buffer.is_dirty());
    let stage = buffer.stage();
    buffer.release(stage).unwrap();
    assert!(!buffer.is_dirty(), "an empty stage leaves nothing to commit");
    let (outer, inner) = (buffer.stage(), buffer.stage());
    buffer.set("k", "v").unwrap();
    buffer.release(inner).unwrap();
    assert!(!buffer.is_dirty(), "the outer stage may still be cleaned up");
    buffer.release(outer).unwrap();
    assert!(buffer.is_dirty());
}

#[test]
fn persistent_flags_make_a_buffer_dirty_at_once() {
    for (op, dirty) in [(FlagOp::SetKeyLocked, true), (FlagOp::SetPresumeKeyNotExists, false)] {
        let mut buffer = MemBuffer::new();
        let stage = buffer.stage();
        buffer.set_with_flags("k", "v", &[op]).unwrap();
        buffer.cleanup(stage).unwrap();
        assert_eq!(buffer.is_dirty(), dirty, "{op:?}");
    }
}

#[test]
fn the_history_of_a_key_goes_back_through_its_stages() {
    let mut buffer = MemBuffer::new();
    buffer.set("k", "1").unwrap();
    let stage = buffer.stage();
    buffer.set("k", "11").unwrap();
    let history: Vec<_> = buffer.history(b"k").map(ValueRef::to_value).collect();
    assert_eq!(history, [put(b"11"), put(b"1")]);
    assert_eq!(buffer.history(b"k").find(|value| *value == put(b"1")).map(ValueRef::to_value), Some(put(b"1")));
    assert_eq!(buffer.history(b"k").find(|value| *value == put(b"111")), None);
    assert_eq!(buffer.history(b"other").count(), 0);
    buffer.cleanup(stage).unwrap();
    let history: Vec<_> = buffer.history(b"k").map(ValueRef::to_value).collect();
    assert_eq!(history, [put(b"1")]);
}

#[test]
fn a_key_read_from_a_stage_outlives_it() {
    let mut buffer = MemBuffer::new();
    let stage = buffer.stage();
    buffer.set("k", "v").unwrap();
    let handle = buffer.iter_with_flags(&KeyRange::ALL).next().unwrap().key.to_key();
    assert_eq!((&handle, buffer.get(handle.as_slice()).map(ValueRef::to_value)), (&Key::from("k"), Some(put(b"v"))));
    buffer.cleanup(stage).unwrap();
    assert_eq!((&handle, buffer.get(handle.as_slice()).map(ValueRef::to_value)), (&Key::from("k"), None));
}

#[test]
fn the_memory_of_a_cleaned_up_stage_is_given_back() {
    let mut buffer = MemBuffer::new();
    let mut footprint = None;
    for _ in 0..10 {
        let stage = buffer.stage();
        for i in 0..100_u8 {
            buffer.set(vec![i; 256], "value").unwrap();
        }
        assert!(buffer.footprint() <= *footprint.get_or_insert(buffer.footprint()));
        buffer.cleanup(stage).unwrap();
        assert_eq!(buffer.footprint(), 0);
    }
}
