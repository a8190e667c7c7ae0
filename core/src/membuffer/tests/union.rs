use std::collections::BTreeMap;

use quickcheck::quickcheck;

use super::*;

/// A value with the timestamp of its commit, which a buffered one does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Committed {
    value: Bytes,
    commit_ts: Option<u64>,
}

impl From<Bytes> for Committed {
    fn from(value: Bytes) -> Self {
        Committed { value, commit_ts: None }
    }
}

/// What is stored: each key with itself as its value.
fn stored<const N: usize>(keys: [&str; N]) -> BTreeMap<Key, Bytes> {
    keys.iter().map(|key| (Key::from(*key), Bytes::copy_from_slice(key.as_bytes()))).collect()
}

fn read(
    buffer: &MemBuffer,
    stored: &BTreeMap<Key, Bytes>,
    range: &KeyRange,
    direction: Direction,
) -> Vec<(Key, Bytes)> {
    let page = stored.iter().filter(|(key, _)| range.contains(key.as_slice()));
    let page: Vec<_> = page.map(|(key, value)| (key.clone(), value.clone())).collect();
    match direction {
        Direction::Forward => buffer.union(range, direction, page.into_iter()).collect(),
        Direction::Reverse => buffer.union(range, direction, page.into_iter().rev()).collect(),
    }
}

#[track_caller]
fn assert_union(
    buffer: &MemBuffer,
    stored: &BTreeMap<Key, Bytes>,
    start: &str,
    end: &str,
    direction: Direction,
    keys: &[&str],
) {
    let read = read(buffer, stored, &KeyRange::new(start, end), direction);
    let expected: Vec<_> = keys.iter().map(|key| (Key::from(*key), Bytes::copy_from_slice(key.as_bytes()))).collect();
    assert_eq!(read, expected);
}

#[test]
fn a_buffered_value_replaces_a_stored_one() {
    let committed = |value: &'static str, commit_ts| Committed { value: value.into(), commit_ts };
    let stored = [("1", Some(1_001)), ("2", Some(1_002))];
    let stored = stored.map(|(key, commit_ts)| (Key::from(key), committed(key, commit_ts)));
    let read = |buffer: &MemBuffer| -> Vec<_> {
        buffer.union(&KeyRange::ALL, Direction::Forward, stored.clone().into_iter()).map(|(_, value)| value).collect()
    };
    let mut buffer = MemBuffer::new();
    assert_eq!(read(&buffer), [committed("1", Some(1_001)), committed("2", Some(1_002))]);
    buffer.set("1", "mine").unwrap();
    assert_eq!(read(&buffer), [committed("mine", None), committed("2", Some(1_002))]);
    assert_eq!((buffer.size(), buffer.len()), (5, 1));
}

#[test]
fn a_tombstone_hides_a_stored_value() {
    let stored = stored(["1"]);
    let mut buffer = MemBuffer::new();
    buffer.delete("1").unwrap();
    assert_eq!(read(&buffer, &stored, &KeyRange::ALL, Direction::Forward), []);
    buffer.set("1", "2").unwrap();
    assert_eq!(read(&buffer, &stored, &KeyRange::ALL, Direction::Forward), [("1".into(), "2".into())]);
}

#[test]
fn a_scan_sees_the_writes_of_its_transaction() {
    let stored = stored(["1", "2", "3"]);
    let mut buffer = MemBuffer::new();
    assert_union(&buffer, &stored, "", "", Direction::Forward, &["1", "2", "3"]);
    assert_union(&buffer, &stored, "2", "", Direction::Forward, &["2", "3"]);
    buffer.set("4", "4").unwrap();
    assert_union(&buffer, &stored, "2", "", Direction::Forward, &["2", "3", "4"]);
    buffer.delete("3").unwrap();
    assert_union(&buffer, &stored, "2", "", Direction::Forward, &["2", "4"]);
    buffer.delete("0").unwrap();
    buffer.update_flags("21", &[FlagOp::SetKeyLocked]).unwrap();
    assert_union(&buffer, &stored, "", "", Direction::Forward, &["1", "2", "4"]);
}

#[test]
fn a_reverse_scan_sees_the_writes_of_its_transaction() {
    let stored = stored(["1", "2", "3"]);
    let mut buffer = MemBuffer::new();
    assert_union(&buffer, &stored, "", "", Direction::Reverse, &["3", "2", "1"]);
    assert_union(&buffer, &stored, "1", "3", Direction::Reverse, &["2", "1"]);
    assert_union(&buffer, &stored, "", "3", Direction::Reverse, &["2", "1"]);
    buffer.set("0", "0").unwrap();
    assert_union(&buffer, &stored, "", "3", Direction::Reverse, &["2", "1", "0"]);
    buffer.delete("1").unwrap();
    assert_union(&buffer, &stored, "", "3", Direction::Reverse, &["2", "0"]);
    assert_union(&buffer, &stored, "1", "3", Direction::Reverse, &["2"]);
}

quickcheck! {
    fn a_union_is_the_stored_map_with_the_writes_applied(
        stored: BTreeMap<u8, u8>,
        writes: Vec<(u8, Option<u8>)>,
        start: u8,
        end: u8
    ) -> bool {
        let pair = |(key, value)| (Key::from(&[key]), Bytes::from(vec![value]));
        let stored: BTreeMap<_, _> = stored.into_iter().map(pair).collect();
        let (mut buffer, mut expected) = (MemBuffer::new(), stored.clone());
        for (key, value) in writes {
            let key = Key::from(&[key]);
            match value {
                Some(value) => {
                    buffer.set(key.clone(), vec![value]).unwrap();
                    expected.insert(key, vec![value].into());
                }
                None => {
                    buffer.delete(key.clone()).unwrap();
                    expected.remove(&key);
                }
            }
        }
        let range = range(&[start], &[end]);
        let mut expected: Vec<_> = expected.into_iter().filter(|(key, _)| range.contains(key.as_slice())).collect();
        let ascending = read(&buffer, &stored, &range, Direction::Forward) == expected;
        expected.reverse();
        ascending && read(&buffer, &stored, &range, Direction::Reverse) == expected
    }
}
