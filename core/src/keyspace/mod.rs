//! How a client's keys appear to PD.
//!
//! PD orders regions by encoded keys. In API v1 a transactional client's keys are memcomparable-encoded there and plain in
//! requests; a raw client's keys are plain everywhere. client-go: `internal/apicodec`, `locate.CodecPDClient`.

use bytes::Bytes;

use crate::codec;
use crate::key::{Key, KeyRange};

/// The codec of one client's key space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyCodec {
    /// API v1, raw keys: as they are.
    Raw,
    /// API v1, transactional keys: memcomparable in region bounds.
    #[default]
    Txn,
}

impl KeyCodec {
    /// A key as PD orders it.
    #[must_use]
    pub fn encode_region_key(self, key: &Key) -> Bytes {
        match self {
            KeyCodec::Raw => key.to_bytes(),
            KeyCodec::Txn if key.is_empty() => Bytes::new(),
            KeyCodec::Txn => codec::memcomparable::encode_key(key.as_slice()).into_bytes(),
        }
    }

    /// The bounds of a region as PD knows them, in the client's keys.
    ///
    /// # Errors
    ///
    /// If a bound is not such an encoding: the region belongs to another kind of client.
    pub fn decode_region_range(self, start: &Bytes, end: &Bytes) -> Result<KeyRange, codec::DecodeError> {
        Ok(KeyRange { start: self.decode_region_key(start)?, end: self.decode_region_key(end)? })
    }

    /// A key as PD orders it, in the client's form.
    ///
    /// # Errors
    ///
    /// If the key is not such an encoding.
    pub fn decode_region_key(self, key: &Bytes) -> Result<Key, codec::DecodeError> {
        match self {
            _ if key.is_empty() => Ok(Key::EMPTY),
            KeyCodec::Raw => Ok(key.clone().into()),
            KeyCodec::Txn => codec::memcomparable::decode_key(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactional_keys_are_encoded_in_region_bounds_and_nowhere_else() {
        let range = KeyRange::new("a", "b");
        let (start, end) = (KeyCodec::Txn.encode_region_key(&range.start), KeyCodec::Txn.encode_region_key(&range.end));
        assert_eq!(&start[..], b"a\0\0\0\0\0\0\0\xf8");
        assert_eq!(KeyCodec::Txn.decode_region_range(&start, &end), Ok(range));
        assert!(KeyCodec::Txn.encode_region_key(&Key::EMPTY).is_empty(), "the edges of the key space stay empty");
        assert_eq!(KeyCodec::Txn.decode_region_range(&Bytes::new(), &Bytes::new()), Ok(KeyRange::ALL));
    }

    #[test]
    fn the_edges_of_the_key_space_lie_where_every_look_up_can_compare_them_fast() {
        for codec in [KeyCodec::Raw, KeyCodec::Txn] {
            let edge = codec.decode_region_key(&Bytes::new()).expect("an edge");
            assert_eq!(edge.as_slice().as_ptr(), Key::EMPTY.as_slice().as_ptr());
        }
    }

    #[test]
    fn raw_keys_are_never_encoded() {
        assert_eq!(&KeyCodec::Raw.encode_region_key(&Key::from("a"))[..], b"a");
        assert_eq!(KeyCodec::Raw.decode_region_key(&Bytes::from_static(b"a")), Ok(Key::from("a")));
    }

    #[test]
    fn a_bound_of_another_kind_of_client_is_refused() {
        assert!(KeyCodec::Txn.decode_region_key(&Bytes::from_static(b"plain")).is_err());
    }
}
