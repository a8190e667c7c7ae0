use std::collections::BTreeMap;

use quickcheck::{Arbitrary, Gen, quickcheck};
use tikv_proto::kvrpcpb::{Assertion, AssertionLevel, Op};

use super::*;
use crate::key::{Key, MAX_KEY_BYTES};
use crate::membuffer::{FlagOp, MemBuffer};
use crate::route::Shard;

fn limits() -> TxnLimits {
    TxnLimits::new(&Config::default())
}

fn build(buffer: &MemBuffer, level: AssertionLevel) -> Result<Mutations, Error> {
    Mutations::of_buffer(buffer, level, limits(), |_| false)
}

fn ops(mutations: &Mutations) -> Vec<(Key, Op)> {
    mutations.as_slice().iter().map(|mutation| (mutation.key.clone(), mutation.op)).collect()
}

#[test]
fn every_kind_of_entry_becomes_its_mutation() {
    use FlagOp::*;
    let mut buffer = MemBuffer::new();
    let set = |buffer: &mut MemBuffer, key: &str, ops: &[FlagOp]| {
        buffer.set_with_flags(key, "value", ops).expect("room");
    };
    let delete = |buffer: &mut MemBuffer, key: &str, ops: &[FlagOp]| {
        buffer.delete_with_flags(key, ops).expect("room");
    };
    buffer.update_flags("01 flags", &[SetNeedLocked]).expect("room");
    buffer.update_flags("02 locked", &[SetKeyLocked]).expect("room");
    buffer.update_flags("03 shared", &[SetKeyLocked, SetKeyLockedInShareMode]).expect("room");
    set(&mut buffer, "04 put", &[]);
    set(&mut buffer, "05 insert", &[SetPresumeKeyNotExists]);
    set(&mut buffer, "06 put locked", &[SetKeyLocked]);
    delete(&mut buffer, "07 delete", &[]);
    delete(&mut buffer, "08 check", &[SetPresumeKeyNotExists, SetNewlyInserted]);
    delete(&mut buffer, "09 new", &[SetNewlyInserted]);
    delete(&mut buffer, "10 new locked", &[SetNewlyInserted, SetKeyLocked]);
    delete(&mut buffer, "11 delete locked", &[SetKeyLocked]);
    let mutations = build(&buffer, AssertionLevel::Off).expect("mutations");
    let expected = [
        ("02 locked", Op::Lock),
        ("03 shared", Op::SharedLock),
        ("04 put", Op::Put),
        ("05 insert", Op::Insert),
        ("06 put locked", Op::Put),
        ("07 delete", Op::Del),
        ("08 check", Op::CheckNotExists),
        ("10 new locked", Op::Lock),
        ("11 delete locked", Op::Del),
    ];
    assert_eq!(ops(&mutations), expected.map(|(key, op)| (Key::from(key), op)));
    assert_eq!(mutations.primary(), Some(&Key::from("02 locked")));
    let size: usize = expected.iter().map(|(key, _)| key.len()).sum::<usize>() + 3 * "value".len();
    assert_eq!(mutations.size_bytes(), size as u64);
}

#[test]
fn values_are_shared_with_the_buffer() {
    let mut buffer = MemBuffer::new();
    buffer.set("a", "a value that would be long if it were longer").expect("room");
    buffer.share();
    let values = || build(&buffer, AssertionLevel::Off).expect("mutations").into_vec();
    assert_eq!(values()[0].value.as_ptr(), values()[0].value.as_ptr());
}

#[test]
fn what_a_filter_finds_unnecessary_is_locked_at_most() {
    let mut buffer = MemBuffer::new();
    buffer.set("a", "1").expect("room");
    buffer.set_with_flags("b", "1", &[FlagOp::SetKeyLocked]).expect("room");
    buffer.delete_with_flags("c", &[FlagOp::SetKeyLocked]).expect("room");
    buffer.update_flags("d", &[FlagOp::SetKeyLocked]).expect("room");
    buffer.set("e", "1").expect("room");
    let unnecessary = |entry: &crate::membuffer::Flagged<'_>| entry.key.as_slice() < &b"e"[..];
    let mutations = Mutations::of_buffer(&buffer, AssertionLevel::Off, limits(), unnecessary).expect("mutations");
    let expected = [("b", Op::Lock), ("d", Op::Lock), ("e", Op::Put)];
    assert_eq!(ops(&mutations), expected.map(|(key, op)| (Key::from(key), op)));
    assert!(mutations.as_slice()[0].value.is_empty());
}

#[test]
fn the_primary_is_the_first_key_that_is_locked_exclusively() {
    let shared = |key| Mutation { op: Op::SharedLock, ..Mutation::lock(key) };
    let primary = |items| Mutations::new(items, limits()).map(|mutations| mutations.primary().cloned());
    let items = vec![Mutation::put("d", "1"), shared("b"), Mutation::check_not_exists("a"), Mutation::lock("c")];
    assert_eq!(primary(items), Ok(Some("c".into())));
    assert_eq!(primary(["b", "a"].map(Mutation::check_not_exists).into()), Ok(Some("a".into())));
    assert_eq!(primary(Vec::new()), Ok(None));
    for items in [vec![shared("a")], vec![Mutation::check_not_exists("a"), shared("b")]] {
        assert!(matches!(primary(items), Err(Error::InvalidArgument(_))));
    }
}

#[test]
fn assertions_are_passed_on_unless_they_are_off() {
    let mut buffer = MemBuffer::new();
    let flags = [
        ("a", FlagOp::SetAssertExist, Assertion::Exist),
        ("b", FlagOp::SetAssertNotExist, Assertion::NotExist),
        ("c", FlagOp::SetAssertUnknown, Assertion::None),
        ("d", FlagOp::SetAssertNone, Assertion::None),
    ];
    for (key, flag, _) in flags {
        buffer.set_with_flags(key, "1", &[flag]).expect("room");
    }
    for level in [AssertionLevel::Off, AssertionLevel::Fast, AssertionLevel::Strict] {
        let mutations = build(&buffer, level).expect("mutations");
        for (mutation, (_, _, expected)) in mutations.as_slice().iter().zip(flags) {
            let expected = if level == AssertionLevel::Off { Assertion::None } else { expected };
            assert_eq!(mutation.assertion, expected, "{:?} at {level:?}", mutation.key);
        }
    }
}

#[test]
fn what_is_too_large_or_makes_no_sense_is_refused_before_anything_is_sent() {
    let limits = TxnLimits { entry_bytes: 10, total_bytes: 15 };
    let refused = |items: Vec<Mutation>, limits| Mutations::new(items, limits).expect_err("refused");
    assert_eq!(refused(vec![Mutation::put("", "1")], limits), Error::EmptyKey);
    assert_eq!(refused(vec![Mutation::put("a", "")], limits), Error::EmptyValue { key: "a".into() });
    assert_eq!(refused(vec![Mutation::insert("a", "")], limits), Error::EmptyValue { key: "a".into() });
    let long = vec![0; MAX_KEY_BYTES + 1];
    let too_large = Error::KeyTooLarge { actual_bytes: MAX_KEY_BYTES + 1, limit_bytes: MAX_KEY_BYTES };
    assert_eq!(refused(vec![Mutation::delete(long)], self::limits()), too_large);
    let too_large = Error::EntryTooLarge { actual_bytes: 11, limit_bytes: 10 };
    assert_eq!(refused(vec![Mutation::put("a", "0123456789")], limits), too_large);
    let items = vec![Mutation::put("a", "012345678"), Mutation::put("b", "01234")];
    assert_eq!(refused(items, limits), Error::TxnTooLarge { actual_bytes: 16, limit_bytes: 15 });
    let twice = vec![Mutation::put("a", "1"), Mutation::delete("a")];
    assert!(matches!(refused(twice, limits), Error::InvalidArgument(_)));
    let fits = vec![Mutation::put("a", "012345678"), Mutation::put("b", "0123")];
    assert_eq!(Mutations::new(fits, limits).map(|mutations| mutations.size_bytes()), Ok(15));
}

/// Something done to a key.
#[derive(Clone, Copy, Debug)]
enum Step {
    Set,
    Insert,
    Delete,
    Lock,
    LockShared,
    MarkNew,
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        use Step::*;
        *g.choose(&[Set, Insert, Delete, Lock, LockShared, MarkNew]).unwrap_or(&Set)
    }
}

/// What the model knows of a key.
#[derive(Clone, Copy, Debug, Default)]
struct Model {
    value: Option<bool>,
    presumed_absent: bool,
    locked: bool,
    shared: bool,
    new: bool,
}

impl Model {
    fn apply(&mut self, step: Step) {
        match step {
            Step::Set => self.value = Some(true),
            Step::Insert => (self.value, self.presumed_absent) = (Some(true), true),
            Step::Delete => self.value = Some(false),
            Step::Lock => (self.locked, self.shared) = (true, false),
            Step::LockShared => (self.locked, self.shared) = (true, true),
            Step::MarkNew => self.new = true,
        }
    }

    fn op(self) -> Option<Op> {
        let lock = if self.shared { Op::SharedLock } else { Op::Lock };
        match self.value {
            Some(true) if self.presumed_absent => Some(Op::Insert),
            Some(true) => Some(Op::Put),
            Some(false) if self.presumed_absent => Some(Op::CheckNotExists),
            Some(false) if !self.new => Some(Op::Del),
            _ => self.locked.then_some(lock),
        }
    }
}

fn apply(buffer: &mut MemBuffer, key: &Key, step: Step) {
    let key = key.clone();
    let done = match step {
        Step::Set => buffer.set(key, "value"),
        Step::Insert => buffer.set_with_flags(key, "value", &[FlagOp::SetPresumeKeyNotExists]),
        Step::Delete => buffer.delete(key),
        Step::Lock => buffer.update_flags(key, &[FlagOp::SetKeyLocked, FlagOp::SetKeyLockedInExclusiveMode]),
        Step::LockShared => buffer.update_flags(key, &[FlagOp::SetKeyLocked, FlagOp::SetKeyLockedInShareMode]),
        Step::MarkNew => buffer.update_flags(key, &[FlagOp::SetNewlyInserted]),
    };
    done.expect("room");
}

/// A shard that weighs keys by their length.
struct ByLength(usize);

impl Shard for ByLength {
    type Item = Key;
    type Output = ();
    type Child = Never;

    fn child(
        &self,
        _: &mut crate::machine::Context<'_>,
        _: Arc<crate::knowledge::regions::Region>,
        _: Vec<Key>,
        _: crate::backoff::Backoff,
        _: bool,
    ) -> Never {
        Never
    }

    fn weight(&self, key: &Key) -> usize {
        key.len()
    }

    fn batch_limit(&self) -> usize {
        self.0
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Never;

impl crate::machine::Machine for Never {
    type Output = crate::route::ShardEnd<Key, ()>;

    fn begin(&mut self, _: &mut crate::machine::Context<'_>) -> std::task::Poll<Self::Output> {
        std::task::Poll::Pending
    }

    fn advance(&mut self, _: &mut crate::machine::Context<'_>, _: Token, _: Event) -> std::task::Poll<Self::Output> {
        std::task::Poll::Pending
    }
}

quickcheck! {
    fn mutations_are_those_of_the_model(steps: Vec<(u8, Step)>) -> bool {
        let mut buffer = MemBuffer::new();
        let mut model: BTreeMap<Key, Model> = BTreeMap::new();
        for (key, step) in steps {
            let key = Key::from(vec![b'a' + key % 5]);
            apply(&mut buffer, &key, step);
            model.entry(key).or_default().apply(step);
        }
        let expected: Vec<_> = model.iter().filter_map(|(key, model)| Some((key.clone(), model.op()?))).collect();
        let can_be_primary = |op: Op| !matches!(op, Op::CheckNotExists | Op::SharedLock);
        match build(&buffer, AssertionLevel::Off) {
            Ok(mutations) => {
                let first = expected.iter().find(|(_, op)| can_be_primary(*op)).or(expected.first());
                ops(&mutations) == expected && mutations.primary() == first.map(|(key, _)| key)
            }
            Err(_) => {
                expected.iter().all(|(_, op)| !can_be_primary(*op))
                    && expected.iter().any(|(_, op)| *op == Op::SharedLock)
            }
        }
    }

    fn batches_hold_every_key_once_and_that_of_the_primary_is_first(keys: Vec<u16>, primary: usize, limit: u8) -> bool {
        let keys: std::collections::BTreeSet<_> = keys.into_iter().map(|key| Key::from(key.to_string())).collect();
        let keys: Vec<_> = keys.into_iter().collect();
        let Some(primary) = keys.get(primary % keys.len().max(1)).cloned() else { return true };
        let region = Arc::new(region(1, "".. ""));
        let (left, right) = keys.split_at(keys.len() / 2);
        let groups = [left, right].into_iter().filter(|items| !items.is_empty());
        let groups = groups.map(|items| crate::route::Group { region: Arc::clone(&region), items: items.to_vec() });
        let shard = ByLength(1 + usize::from(limit));
        let batches = super::super::batches::primary_first(groups.collect(), &primary, &shard);
        let closed = |items: &[Key]| {
            let all_but_last: usize = items.iter().rev().skip(1).map(Key::len).sum();
            !items.is_empty() && all_but_last < shard.0
        };
        let mut all: Vec<_> = batches.iter().flat_map(|batch| batch.items.clone()).collect();
        all.sort();
        all == keys && batches[0].items.contains(&primary) && batches.iter().all(|batch| closed(&batch.items))
    }
}
