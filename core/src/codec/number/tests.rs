use std::fmt::Debug;

use quickcheck::quickcheck;

use super::*;

type Encode<T> = fn(&mut Vec<u8>, T);
type Decode<T> = fn(&mut &[u8]) -> Result<T, DecodeError>;

const UNSIGNED: &[(Encode<u64>, Decode<u64>)] = &[
    (encode_u64, decode_u64),
    (encode_u64_desc, decode_u64_desc),
    (encode_uvarint, decode_uvarint),
    (encode_comparable_uvarint, decode_comparable_uvarint),
];

const SIGNED: &[(Encode<i64>, Decode<i64>)] = &[
    (encode_i64, decode_i64),
    (encode_i64_desc, decode_i64_desc),
    (encode_varint, decode_varint),
    (encode_comparable_varint, decode_comparable_varint),
];

fn encoded<T>(encode: Encode<T>, value: T) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, value);
    out
}

/// Decodes with bytes behind the value, and with every shorter input.
fn survives<T: Copy + Debug + PartialEq>(encode: Encode<T>, decode: Decode<T>, value: T) -> bool {
    let mut bytes = encoded(encode, value);
    let cut_is_refused = (0..bytes.len()).all(|len| {
        let mut input = &bytes[..len];
        matches!(decode(&mut input), Err(DecodeError::Insufficient { .. })) && input.len() == len
    });
    bytes.push(0xAB);
    let mut input = bytes.as_slice();
    decode(&mut input) == Ok(value) && input == [0xAB] && cut_is_refused
}

/// Numbers at and around each power of two, where lengths and tags change.
fn edges() -> Vec<u64> {
    let mut edges: Vec<u64> = (0..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]).collect();
    edges.extend([238, 239, 240, 241, u64::MAX - 1, u64::MAX]);
    edges
}

#[test]
fn numbers_at_the_edges_survive_a_round_trip() {
    for value in edges() {
        for (encode, decode) in UNSIGNED {
            assert!(survives(*encode, *decode, value), "{value}");
        }
        for (encode, decode) in SIGNED {
            assert!(survives(*encode, *decode, value as i64), "{value}");
            assert!(survives(*encode, *decode, (value as i64).wrapping_neg()), "{value}");
        }
    }
}

#[test]
fn neighbours_at_the_edges_stay_in_order() {
    let mut signed: Vec<i64> =
        edges().into_iter().flat_map(|value| [value as i64, (value as i64).wrapping_neg()]).collect();
    signed.sort_unstable();
    signed.dedup();
    for pair in signed.windows(2) {
        let compare = |encode: Encode<i64>| encoded(encode, pair[0]).cmp(&encoded(encode, pair[1]));
        assert!(compare(encode_i64).is_lt() && compare(encode_i64_desc).is_gt(), "{pair:?}");
        assert!(compare(encode_comparable_varint).is_lt(), "{pair:?}");
    }
}

#[test]
fn numbers_of_fixed_width_are_big_endian() {
    assert_eq!(encoded(encode_u64, 0x0102), [0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(encoded(encode_u64_desc, 0x0102), [255, 255, 255, 255, 255, 255, 254, 253]);
    assert_eq!(encoded(encode_i64, -1), [0x7F, 255, 255, 255, 255, 255, 255, 255]);
    assert_eq!(encoded(encode_i64, i64::MIN), [0; 8]);
    assert_eq!(encoded(encode_i64_desc, 1), [0x7F, 255, 255, 255, 255, 255, 255, 254]);
    assert_eq!((comparable_u64(i64::MIN), comparable_u64(i64::MAX)), (0, u64::MAX));
}

#[test]
fn plain_varints_are_base_128_and_zigzag() {
    assert_eq!(encoded(encode_uvarint, 300), [0xAC, 0x02]);
    assert_eq!(encoded(encode_uvarint, u64::MAX), [255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
    let zigzag = [(0, 0), (-1, 1), (1, 2), (-2, 3), (63, 126), (-64, 127)];
    for (value, byte) in zigzag {
        assert_eq!(encoded(encode_varint, value), [byte]);
    }
}

#[test]
fn comparable_varints_begin_with_a_tag_of_sign_and_length() {
    let unsigned: &[(u64, &[u8])] = &[
        (0, &[8]),
        (239, &[247]),
        (240, &[248, 240]),
        (0xFF, &[248, 0xFF]),
        (0x100, &[249, 1, 0]),
        (0xFF_FFFF, &[250, 255, 255, 255]),
        (u64::MAX, &[255, 255, 255, 255, 255, 255, 255, 255, 255]),
    ];
    for (value, bytes) in unsigned {
        assert_eq!(encoded(encode_comparable_uvarint, *value), *bytes);
    }
    let signed: &[(i64, &[u8])] = &[
        (-1, &[7, 0xFF]),
        (-0xFF, &[7, 1]),
        (-0x100, &[6, 0xFF, 0]),
        (-0xFFFF, &[6, 0, 1]),
        (-0x1_0000, &[5, 0xFF, 0, 0]),
        (i64::MIN, &[0, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        (i64::MAX, &[255, 0x7F, 255, 255, 255, 255, 255, 255, 255]),
    ];
    for (value, bytes) in signed {
        assert_eq!(encoded(encode_comparable_varint, *value), *bytes);
    }
}

#[test]
fn a_plain_varint_of_more_than_64_bits_is_refused() {
    for bytes in [&[0xFF; 10][..], &[0xFF; 11], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2]] {
        let mut input = bytes;
        assert_eq!(decode_uvarint(&mut input), Err(DecodeError::Overflow));
        assert_eq!(decode_varint(&mut input), Err(DecodeError::Overflow));
        assert_eq!(input, bytes);
    }
}

#[test]
fn a_comparable_varint_of_the_wrong_sign_or_size_is_refused() {
    assert_eq!(decode_comparable_uvarint(&mut &[7, 0xFF][..]), Err(DecodeError::OutOfRange { tag: 7 }));
    let too_large = encoded(encode_comparable_uvarint, 1 << 63);
    assert_eq!(decode_comparable_varint(&mut too_large.as_slice()), Err(DecodeError::OutOfRange { tag: 255 }));
    let not_negative = [0, 0x7F, 255, 255, 255, 255, 255, 255, 255];
    assert_eq!(decode_comparable_varint(&mut &not_negative[..]), Err(DecodeError::OutOfRange { tag: 0 }));
}

quickcheck! {
    fn every_number_survives_a_round_trip(unsigned: u64, signed: i64) -> bool {
        UNSIGNED.iter().all(|(encode, decode)| survives(*encode, *decode, unsigned))
            && SIGNED.iter().all(|(encode, decode)| survives(*encode, *decode, signed))
    }

    fn comparable_encodings_compare_as_numbers_do(a: u64, b: u64, c: i64, d: i64) -> bool {
        let unsigned = |encode: Encode<u64>| encoded(encode, a).cmp(&encoded(encode, b));
        let signed = |encode: Encode<i64>| encoded(encode, c).cmp(&encoded(encode, d));
        unsigned(encode_u64) == a.cmp(&b)
            && unsigned(encode_u64_desc) == b.cmp(&a)
            && unsigned(encode_comparable_uvarint) == a.cmp(&b)
            && signed(encode_i64) == c.cmp(&d)
            && signed(encode_i64_desc) == d.cmp(&c)
            && signed(encode_comparable_varint) == c.cmp(&d)
    }

    fn hostile_bytes_are_read_or_refused(bytes: Vec<u8>) -> bool {
        let unsigned = UNSIGNED.iter().all(|(_, decode)| {
            let mut input = bytes.as_slice();
            decode(&mut input).is_ok() || input == bytes
        });
        let signed = SIGNED.iter().all(|(_, decode)| {
            let mut input = bytes.as_slice();
            decode(&mut input).is_ok() || input == bytes
        });
        unsigned && signed
    }
}
