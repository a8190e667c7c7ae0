use quickcheck::{QuickCheck, TestResult};

use super::*;

fn range(start: &[u8], end: &[u8]) -> KeyRange {
    KeyRange::new(Key::from(start), Key::from(end))
}

#[test]
fn bounds_that_are_encodings_are_decoded() {
    let bounds = KeyRange { start: encoded(b"abc"), end: encoded(b"longer than one group") };
    assert_eq!(txn_range(&bounds), range(b"abc", b"longer than one group"));
    assert_eq!(txn_range(&KeyRange::ALL), KeyRange::ALL);
}

#[test]
fn a_bound_that_is_no_encoding_lies_between_two_keys() {
    assert_eq!(first_key_from(&Key::from(b"m")), Key::from("m"));
    // Above the encoding of "m", and below that of the next key.
    assert_eq!(first_key_from(&Key::from(b"m\0\0\0\0\0\0\0\xF8\x01")), Key::from(b"m\0"));
    assert_eq!(first_key_from(&Key::from(b"m\0\0\0\0\0\0\0\xF7")), Key::from("m"));
    assert_eq!(first_key_from(&Key::from(b"m\0\0\0\0\0\0\0\x01")), Key::from("m"));
    assert_eq!(first_key_from(&Key::from(b"12345678\xFE")), Key::from("12345678"));
}

#[test]
fn a_region_that_ends_before_all_encodings_holds_no_transactional_key() {
    assert!(txn_range(&range(b"", b"\0")).is_empty());
}

#[test]
fn a_key_is_in_the_range_exactly_if_its_encoding_is_within_the_bounds() {
    fn property(start: Vec<u8>, end: Vec<u8>, key: Vec<u8>, shape: (bool, bool, u8)) -> TestResult {
        let [mut start, mut end, key] = [start, end, key].map(of_few_bytes);
        if shape.0 {
            start = encoded(&start).as_slice().to_vec();
            start.truncate(start.len() - usize::from(shape.2) % start.len());
        }
        if shape.1 {
            end = encoded(&end).as_slice().to_vec();
            end.push(shape.2);
        }
        let bounds = range(&start, &end);
        let inside = bounds.contains(encoded(&key).as_slice());
        TestResult::from_bool(bounds.is_empty() || txn_range(&bounds).contains(&key) == inside)
    }
    QuickCheck::new().tests(5_000).quickcheck(property as fn(_, _, _, _) -> _);
}

/// So that values often share prefixes and end in what looks like padding or a marker.
fn of_few_bytes(bytes: Vec<u8>) -> Vec<u8> {
    bytes.into_iter().map(|byte| [0, 1, b'a', 0xF7, 0xF8, 0xFE, 0xFF][usize::from(byte) % 7]).collect()
}
