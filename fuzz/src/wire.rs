//! Codecs and messages.

use bytes::Bytes;
use prost::Message;
use tikv_core::codec::{memcomparable, number};
use tikv_core::request::{RequestKind, decode_response};
use tikv_proto::tikvpb;

/// Whatever decodes must be what the encoder writes for it, and decoding must not go wrong on anything else.
pub fn codec(data: &[u8]) {
    let mut input = data;
    if let Ok(value) = memcomparable::decode(&mut input) {
        let mut encoded = Vec::new();
        memcomparable::encode(&mut encoded, &value);
        assert_eq!(encoded, data[..data.len() - input.len()]);
    }
    let mut encoded = Vec::new();
    memcomparable::encode(&mut encoded, data);
    assert_eq!(memcomparable::decode(&mut encoded.as_slice()).as_deref(), Ok(data));
    encoded.clear();
    memcomparable::encode_desc(&mut encoded, data);
    assert_eq!(memcomparable::decode_desc(&mut encoded.as_slice()).as_deref(), Ok(data));
    let (left, right) = data.split_at(data.len() / 2);
    assert_eq!(left.cmp(right), memcomparable::encode_key(left).cmp(&memcomparable::encode_key(right)));

    let mut input = data;
    if let Ok(value) = number::decode_comparable_varint(&mut input) {
        let mut encoded = Vec::new();
        number::encode_comparable_varint(&mut encoded, value);
        assert_eq!(number::decode_comparable_varint(&mut encoded.as_slice()), Ok(value));
    }
}

/// Arbitrary bytes as every message that a server can send, and the round trip of those that are one.
pub fn proto_decode(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    for kind in RequestKind::ALL {
        if let Ok(response) = decode_response(*kind, bytes.clone()) {
            let again = decode_response(*kind, response.encode_to_bytes());
            assert_eq!(again.as_ref(), Ok(&response));
        }
    }
    if let Ok(frame) = tikvpb::BatchCommandsResponse::decode(bytes) {
        assert_eq!(tikvpb::BatchCommandsResponse::decode(frame.encode_to_vec().as_slice()), Ok(frame));
    }
}
