use super::*;
use FlagOp::*;

fn flags(ops: &[FlagOp]) -> KeyFlags {
    KeyFlags::NONE.apply(ops)
}

#[test]
fn each_operation_sets_and_clears_its_flags() {
    let presumed = flags(&[SetPresumeKeyNotExists]);
    assert!(presumed.has_presume_key_not_exists() && presumed.has_need_check_exists());
    assert!(presumed.apply(&[DelPresumeKeyNotExists]).is_none());
    let unchecked = presumed.apply(&[DelNeedCheckExists]);
    assert!(unchecked.has_presume_key_not_exists() && !unchecked.has_need_check_exists());
    let earlier = flags(&[SetPreviousPresumeKeyNotExists, SetPresumeKeyNotExists, DelPresumeKeyNotExists]);
    assert!(earlier.has_presume_key_not_exists(), "an earlier statement's presumption stays");

    assert!(flags(&[SetKeyLocked]).has_locked() && flags(&[SetKeyLocked, DelKeyLocked]).is_none());
    assert!(flags(&[SetNeedLocked]).has_need_locked() && flags(&[SetNeedLocked, DelNeedLocked]).is_none());
    assert!(flags(&[SetPrewriteOnly]).has_prewrite_only());
    assert!(flags(&[SetIgnoredIn2Pc]).has_ignored_in_2pc());
    assert!(flags(&[SetReadable]).has_readable());
    assert!(flags(&[SetNewlyInserted]).has_newly_inserted());

    let shared = flags(&[SetKeyLocked, SetKeyLockedInShareMode]);
    assert!(shared.has_locked() && shared.has_locked_in_share_mode());
    let exclusive = shared.apply(&[SetKeyLockedInExclusiveMode]);
    assert!(exclusive.has_locked() && !exclusive.has_locked_in_share_mode());
}

#[test]
fn an_assertion_is_one_of_four() {
    let holds = |flags: KeyFlags| {
        (
            flags.has_assert_exist(),
            flags.has_assert_not_exist(),
            flags.has_assert_unknown(),
            flags.has_assertion_flags(),
        )
    };
    for before in [SetAssertExist, SetAssertNotExist, SetAssertUnknown, SetAssertNone] {
        assert_eq!(holds(flags(&[before, SetAssertExist])), (true, false, false, true));
        assert_eq!(holds(flags(&[before, SetAssertNotExist])), (false, true, false, true));
        assert_eq!(holds(flags(&[before, SetAssertUnknown])), (false, false, true, true));
        assert_eq!(holds(flags(&[before, SetAssertNone])), (false, false, false, false));
    }
}

#[test]
fn learning_what_a_locked_key_holds_ends_the_need_for_a_constraint_check() {
    let needed = flags(&[SetNeedConstraintCheckInPrewrite]);
    assert!(needed.has_need_constraint_check_in_prewrite());
    assert!(needed.apply(&[DelNeedConstraintCheckInPrewrite]).is_none());
    assert_eq!(needed.apply(&[SetKeyLockedValueExists]), flags(&[SetKeyLockedValueExists]));
    let exists = needed.apply(&[SetKeyLockedValueExists]);
    assert!(exists.has_locked_value_exists());
    assert!(exists.apply(&[SetKeyLockedValueNotExists]).is_none());
}

#[test]
fn only_what_tikv_knows_is_persistent() {
    let all = [
        SetPresumeKeyNotExists,
        SetNeedLocked,
        SetPrewriteOnly,
        SetIgnoredIn2Pc,
        SetReadable,
        SetNewlyInserted,
        SetAssertUnknown,
        SetPreviousPresumeKeyNotExists,
        SetKeyLockedValueExists,
        SetKeyLocked,
        SetKeyLockedInShareMode,
        SetNeedConstraintCheckInPrewrite,
    ];
    assert!(flags(&all[..8]).persistent().is_none());
    let persistent = flags(&all).persistent();
    assert_eq!(persistent, flags(&all[8..]));
    assert_eq!(
        format!("{persistent:?}"),
        "KEY_LOCKED | KEY_LOCKED_VALUE_EXISTS | NEED_CONSTRAINT_CHECK_IN_PREWRITE | KEY_LOCKED_IN_SHARE_MODE"
    );
    assert_eq!(format!("{:?}", KeyFlags::NONE), "NONE");
}

#[test]
fn persistent_flags_stay_when_values_go() {
    const KEYS: u32 = 1_000;
    let mut buffer = MemBuffer::new();
    let stage = buffer.stage();
    for i in 0..KEYS {
        let ops = [SetPresumeKeyNotExists, SetKeyLocked];
        buffer.set_with_flags(key(i), number(i), if i % 2 == 0 { &ops } else { &ops[..1] }).unwrap();
    }
    buffer.cleanup(stage).unwrap();

    let locked = flags(&[SetKeyLocked]);
    for i in 0..KEYS {
        assert_eq!(buffer.get(key(i).as_slice()), None);
        assert_eq!(buffer.flags(key(i).as_slice()), (i % 2 == 0).then_some(locked));
    }
    assert_eq!((buffer.len(), buffer.size()), (500, 2_000));
    assert_reads(&buffer, &[]);
    let even: Vec<_> = (0..KEYS).step_by(2).map(key).collect();
    let forward: Vec<_> = buffer.iter_with_flags(&KeyRange::ALL).map(|item| item.key.to_key()).collect();
    let backward: Vec<_> = buffer.iter_with_flags(&KeyRange::ALL).rev().map(|item| item.key.to_key()).collect();
    assert_eq!(forward, even);
    assert!(backward.iter().eq(even.iter().rev()));
    assert!(buffer.iter_with_flags(&KeyRange::ALL).all(|item| item.value.is_none() && item.flags == locked));

    for i in 0..KEYS {
        buffer.update_flags(key(i), &[DelKeyLocked]).unwrap();
        assert_eq!(buffer.get(key(i).as_slice()), None);
        assert_eq!(buffer.flags(key(i).as_slice()), Some(KeyFlags::NONE), "a change of flags makes a key known");
    }
    assert_eq!((buffer.len(), buffer.size()), (1_000, 4_000));
}

#[test]
fn cleanup_keeps_persistent_flags_only() {
    let mut buffer = MemBuffer::new();
    let stage = buffer.stage();
    buffer.set_with_flags([1], [1], &[SetKeyLocked]).unwrap();
    buffer.set_with_flags([2], [2], &[SetPresumeKeyNotExists]).unwrap();
    buffer.set_with_flags([3], [3], &[SetKeyLocked, SetPresumeKeyNotExists]).unwrap();
    buffer.cleanup(stage).unwrap();
    assert_reads(&buffer, &[]);
    let locked = Some(flags(&[SetKeyLocked]));
    assert_eq!([[1], [2], [3]].map(|key| buffer.flags(&key)), [locked, None, locked]);
}

#[test]
fn flags_stay_as_they_are_while_a_key_has_an_older_value() {
    let mut buffer = MemBuffer::new();
    buffer.set("k", "old").unwrap();
    let stage = buffer.stage();
    buffer.set_with_flags("k", "new", &[SetPresumeKeyNotExists, SetAssertExist]).unwrap();
    buffer.cleanup(stage).unwrap();
    assert_eq!(buffer.get(b"k").map(ValueRef::to_value), Some(put(b"old")));
    assert_eq!(buffer.flags(b"k"), Some(flags(&[SetPresumeKeyNotExists, SetAssertExist])));
}

#[test]
fn a_written_value_ends_the_need_for_a_constraint_check() {
    let mut buffer = MemBuffer::new();
    let need = |buffer: &MemBuffer| buffer.flags(b"k").unwrap().has_need_constraint_check_in_prewrite();
    buffer.set_with_flags("k", "v", &[SetNeedConstraintCheckInPrewrite]).unwrap();
    assert!(need(&buffer), "asked for by the write itself");
    buffer.update_flags("k", &[SetReadable]).unwrap();
    assert!(need(&buffer), "no value was written");
    buffer.set("k", "v").unwrap();
    assert!(!need(&buffer));
}

#[test]
fn iteration_sees_flags() {
    let mut buffer = MemBuffer::new();
    buffer.set_with_flags("a", "a", &[SetPresumeKeyNotExists]).unwrap();
    buffer.delete_with_flags("b", &[SetKeyLocked]).unwrap();
    buffer.update_flags("c", &[SetReadable]).unwrap();
    let item = |item: Flagged<'_>| (item.key.to_key(), item.value.map(ValueRef::to_value), item.flags);
    let items: Vec<_> = buffer.iter_with_flags(&KeyRange::ALL).map(item).collect();
    let expected = [
        (Key::from("a"), Some(put(b"a")), flags(&[SetPresumeKeyNotExists])),
        (Key::from("b"), Some(Value::Tombstone), flags(&[SetKeyLocked])),
        (Key::from("c"), None, flags(&[SetReadable])),
    ];
    assert_eq!(items, expected);
}

#[test]
fn a_key_with_flags_only_cannot_be_read() {
    let mut buffer = MemBuffer::new();
    buffer.update_flags("k", &[SetAssertNone]).unwrap();
    assert_eq!((buffer.flags(b"k"), buffer.get(b"k")), (Some(KeyFlags::NONE), None));
    assert_eq!(buffer.history(b"k").count(), 0);
    assert_eq!(buffer.snapshot().get(b"k"), None);
    buffer.set("k", "v").unwrap();
    assert_eq!((buffer.len(), buffer.size()), (1, 2), "counted once, however it became known");
}
