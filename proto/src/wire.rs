//! What generated code is built on: prost, but for how fields of bytes are written.

pub(crate) use ::prost::*;

pub(crate) mod encoding {
    pub(crate) use ::prost::encoding::*;

    /// prost holds the bytes by a reference of its own while it copies them, which changes the count of references twice for
    /// each key and each value of a request, and where many of them share a buffer, all have the same count.
    pub(crate) mod bytes {
        use ::bytes::{BufMut, Bytes};

        pub(crate) use ::prost::encoding::bytes::{encoded_len, encoded_len_repeated, merge, merge_repeated};
        use ::prost::encoding::{WireType, encode_key, encode_varint};

        /// Below this, a number takes one byte, of which a field's takes three bits for the wire type.
        const ONE_BYTE: usize = 1 << 7;

        pub(crate) fn encode(field: u32, value: &Bytes, buffer: &mut impl BufMut) {
            let key = field << 3 | WireType::LengthDelimited as u32;
            if (key as usize) < ONE_BYTE && value.len() < ONE_BYTE {
                buffer.put_slice(&[key as u8, value.len() as u8]);
            } else {
                encode_key(field, WireType::LengthDelimited, buffer);
                encode_varint(value.len() as u64, buffer);
            }
            buffer.put_slice(value);
        }

        pub(crate) fn encode_repeated(field: u32, values: &[Bytes], buffer: &mut impl BufMut) {
            for value in values {
                encode(field, value, buffer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ::bytes::Bytes;

    use super::encoding::bytes;

    #[test]
    fn fields_of_bytes_are_written_as_prost_writes_them() {
        for field in [1, 15, 16, 2047, 536_870_911] {
            let lengths = [0, 1, 127, 128, 300, 20_000];
            let values: Vec<_> = lengths.iter().map(|length| Bytes::from(vec![b'v'; *length])).collect();
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            bytes::encode_repeated(field, &values, &mut ours);
            ::prost::encoding::bytes::encode_repeated(field, &values, &mut theirs);
            assert_eq!(ours, theirs);
            assert_eq!(ours.len(), bytes::encoded_len_repeated(field, &values));
        }
    }
}
