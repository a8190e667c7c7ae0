use quickcheck::quickcheck;

use super::*;

fn encoded(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, value);
    out
}

fn encoded_desc(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_desc(&mut out, value);
    out
}

#[test]
fn a_value_is_padded_to_groups_of_eight_with_a_marker_each() {
    let cases: &[(&[u8], &[u8])] = &[
        (&[], &[0, 0, 0, 0, 0, 0, 0, 0, 247]),
        (&[0], &[0, 0, 0, 0, 0, 0, 0, 0, 248]),
        (&[1, 2, 3], &[1, 2, 3, 0, 0, 0, 0, 0, 250]),
        (&[1, 2, 3, 0], &[1, 2, 3, 0, 0, 0, 0, 0, 251]),
        (&[1, 2, 3, 4, 5, 6, 7], &[1, 2, 3, 4, 5, 6, 7, 0, 254]),
        (&[0; 8], &[0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0, 247]),
        (&[1, 2, 3, 4, 5, 6, 7, 8], &[1, 2, 3, 4, 5, 6, 7, 8, 255, 0, 0, 0, 0, 0, 0, 0, 0, 247]),
        (&[1, 2, 3, 4, 5, 6, 7, 8, 9], &[1, 2, 3, 4, 5, 6, 7, 8, 255, 9, 0, 0, 0, 0, 0, 0, 0, 248]),
    ];
    for (value, bytes) in cases {
        assert_eq!(encoded(value), *bytes);
        assert_eq!(encoded_desc(value), bytes.iter().map(|byte| !byte).collect::<Vec<_>>());
        assert_eq!(decode(&mut &bytes[..]).as_deref(), Ok(*value));
        assert_eq!(decode_desc(&mut encoded_desc(value).as_slice()).as_deref(), Ok(*value));
    }
}

#[test]
fn malformed_bytes_are_refused_and_stay_unread() {
    let insufficient = |available| DecodeError::Insufficient { needed: 9, available };
    let cases: &[(&[u8], DecodeError)] = &[
        (&[], insufficient(0)),
        (&[1, 2, 3, 4], insufficient(4)),
        (&[0, 0, 0, 0, 0, 0, 0, 247], insufficient(8)),
        (&[1, 2, 3, 4, 5, 6, 7, 8, 255], insufficient(0)),
        (&[1, 2, 3, 4, 5, 6, 7, 8, 255, 1], insufficient(1)),
        (&[1, 2, 3, 4, 5, 6, 7, 8, 246], DecodeError::InvalidMarker { marker: 246 }),
        (&[1, 2, 3, 4, 5, 6, 7, 8, 0], DecodeError::InvalidMarker { marker: 0 }),
        (&[1, 2, 3, 4, 5, 6, 7, 8, 255, 1, 2, 3, 4, 5, 6, 7, 8, 0], DecodeError::InvalidMarker { marker: 0 }),
        (&[1, 2, 3, 4, 5, 6, 7, 8, 255, 1, 2, 3, 4, 5, 6, 7, 8, 1], DecodeError::InvalidMarker { marker: 1 }),
        (&[1, 0, 0, 0, 0, 0, 0, 1, 248], DecodeError::InvalidPadding { found: 1 }),
        (&[1, 2, 3, 4, 5, 6, 7, 8, 254], DecodeError::InvalidPadding { found: 8 }),
        (&[0, 0, 0, 0, 0, 0, 0, 7, 247], DecodeError::InvalidPadding { found: 7 }),
    ];
    for (bytes, error) in cases {
        let mut input = *bytes;
        assert_eq!(decode(&mut input), Err(*error), "{bytes:?}");
        assert_eq!(input, *bytes);

        let flipped: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
        let mut input = flipped.as_slice();
        let error = match *error {
            DecodeError::InvalidMarker { marker } => DecodeError::InvalidMarker { marker: !marker },
            DecodeError::InvalidPadding { found } => DecodeError::InvalidPadding { found: !found },
            other => other,
        };
        assert_eq!(decode_desc(&mut input), Err(error), "{flipped:?}");
        assert_eq!(input, flipped);
    }
}

#[test]
fn a_key_decodes_whatever_follows_it() {
    let mut boundary = encode_key(b"table_1").into_bytes().to_vec();
    assert_eq!(decode_key(&boundary), Ok(Key::from("table_1")));
    boundary.extend_from_slice(b"tail");
    assert_eq!(decode_key(&boundary), Ok(Key::from("table_1")));
    assert_eq!(decode_key(b"table_1"), Err(DecodeError::Insufficient { needed: 9, available: 7 }));
}

#[test]
fn encoding_into_an_empty_buffer_allocates_once_and_exactly() {
    for len in 0..40 {
        let bytes = encoded(&vec![7; len]);
        assert_eq!((bytes.len(), bytes.capacity()), (encoded_len(len), encoded_len(len)));
    }
}

quickcheck! {
    fn every_value_survives_a_round_trip(value: Vec<u8>, rest: Vec<u8>) -> bool {
        let (mut asc, mut desc) = (encoded(&value), encoded_desc(&value));
        asc.extend_from_slice(&rest);
        desc.extend_from_slice(&rest);
        let (mut asc, mut desc) = (asc.as_slice(), desc.as_slice());
        let decoded = (decode(&mut asc), decode_desc(&mut desc));
        decoded == (Ok(value.clone()), Ok(value)) && asc == rest && desc == rest
    }

    fn encodings_compare_as_values_do(a: Vec<u8>, b: Vec<u8>, shared: Vec<u8>) -> bool {
        let (a, b) = ([shared.as_slice(), &a].concat(), [shared.as_slice(), &b].concat());
        encoded(&a).cmp(&encoded(&b)) == a.cmp(&b) && encoded_desc(&a).cmp(&encoded_desc(&b)) == b.cmp(&a)
    }

    fn no_encoding_is_a_prefix_of_another(a: Vec<u8>, tail: Vec<u8>) -> bool {
        let longer = [a.as_slice(), &tail].concat();
        tail.is_empty() || !encoded(&longer).starts_with(&encoded(&a))
    }

    fn whatever_decodes_encodes_to_the_same_bytes(bytes: Vec<u8>) -> bool {
        let mut input = bytes.as_slice();
        match decode(&mut input) {
            Ok(value) => encoded(&value) == bytes[..bytes.len() - input.len()],
            Err(_) => input == bytes,
        }
    }
}
