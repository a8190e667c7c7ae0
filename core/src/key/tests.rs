use quickcheck::quickcheck;

use super::*;

#[test]
fn after_a_prefix_comes_the_prefix_with_its_last_byte_raised() {
    let cases: &[(&[u8], &[u8])] = &[
        (b"a", b"b"),
        (b"ab\xff", b"ac"),
        (b"a\xff\xff", b"b"),
        (b"a\x00", b"a\x01"),
        // No key is after every key that begins so.
        (b"", b""),
        (b"\xff", b""),
        (b"\xff\xff", b""),
        (b"\xff\xff\xff\xff", b""),
    ];
    for (prefix, end) in cases {
        assert_eq!(Key::from(*prefix).prefix_end(), Key::from(*end));
    }
}

#[test]
fn an_order_reads_keys_up_or_down() {
    let (a, b) = (Key::from("a"), Key::from("b"));
    assert!(Direction::Forward.compare(&a, &b).is_lt() && Direction::Reverse.compare(&a, &b).is_gt());
    assert!(Direction::Forward.compare(&a, &a).is_eq() && Direction::Reverse.compare(&a, &a).is_eq());
}

quickcheck! {
    fn a_prefix_ends_right_after_its_last_key(prefix: Vec<u8>, tail: Vec<u8>, other: Vec<u8>) -> bool {
        let prefix = Key::from(prefix);
        let range = KeyRange { start: prefix.clone(), end: prefix.prefix_end() };
        range.contains(&[prefix.as_slice(), &tail].concat())
            && range.contains(&other) == other.starts_with(prefix.as_slice())
    }

    fn no_key_lies_between_a_key_and_its_next(key: Vec<u8>, other: Vec<u8>) -> bool {
        let (key, other) = (Key::from(key), Key::from(other));
        key < key.next() && (other <= key || other >= key.next())
    }

    fn an_intersection_holds_what_both_ranges_hold(a: (Vec<u8>, Vec<u8>), b: (Vec<u8>, Vec<u8>), key: Vec<u8>) -> bool {
        let (a, b) = (KeyRange::new(a.0, a.1), KeyRange::new(b.0, b.1));
        let both = a.intersection(&b).is_some_and(|both| both.contains(&key));
        both == (a.contains(&key) && b.contains(&key))
    }
}
