use quickcheck::quickcheck;

use super::*;

#[test]
fn base64_agrees_with_the_test_vectors_of_rfc_4648() {
    let vectors: [(&str, &str); 7] = [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ];
    for (bytes, padded) in vectors {
        let unpadded = padded.trim_end_matches('=');
        assert_eq!(base64::encode(bytes.as_bytes()), unpadded.as_bytes());
        assert_eq!(base64::decode(unpadded.as_bytes()).as_deref(), Some(bytes.as_bytes()));
        assert_eq!(base64::decode(padded.as_bytes()).as_deref(), Some(bytes.as_bytes()));
    }
}

#[test]
fn what_is_no_base64_decodes_to_nothing() {
    for text in ["Z", "Zg=", "Zg===", "=", "Zh", "Zm9=", "Z g=", "Zm9v\n", "Zm-_", "===="] {
        assert_eq!(base64::decode(text.as_bytes()), None, "{text}");
    }
}

quickcheck! {
    fn base64_round_trips(bytes: Vec<u8>) -> bool {
        base64::decode(&base64::encode(&bytes)) == Some(bytes)
    }

    fn decoding_base64_never_panics_and_is_canonical(text: Vec<u8>) -> bool {
        match base64::decode(&text) {
            Some(bytes) => base64::encode(&bytes) == without_padding(&text),
            None => true,
        }
    }

    fn binary_values_round_trip(values: Vec<Vec<u8>>) -> bool {
        let mut metadata = Metadata::new();
        for value in &values {
            metadata.append_bin("x-bin", value).unwrap();
        }
        metadata.get_all_bin("x-bin").map(|value| value.to_vec()).collect::<Vec<_>>() == values
    }
}

fn without_padding(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| *byte != b'=').collect()
}

#[test]
fn keys_are_case_insensitive_and_have_several_values() {
    let mut metadata = Metadata::new();
    metadata.insert("Key", "a").unwrap();
    metadata.append("kEY", "b").unwrap();
    assert_eq!(metadata.get("KEY"), Some("a"));
    assert_eq!(metadata.get_all("key").collect::<Vec<_>>(), ["a", "b"]);
    metadata.insert("key", "c").unwrap();
    assert_eq!(metadata.get_all("key").collect::<Vec<_>>(), ["c"]);
    assert!(metadata.remove("KEY"));
    assert!(metadata.is_empty());
}

#[test]
fn binary_values_joined_by_commas_are_told_apart() {
    let mut headers = HeaderMap::new();
    headers.insert("x-bin", HeaderValue::from_static("Zm9v, YmFy,Zg=="));
    let metadata = Metadata::from_headers(headers);
    assert_eq!(metadata.get_all_bin("x-bin").collect::<Vec<_>>(), ["foo", "bar", "f"]);
}

#[test]
fn text_and_bytes_do_not_mix() {
    let mut metadata = Metadata::new();
    assert_eq!(metadata.insert("a-bin", "text"), Err(InvalidMetadata::Key("a-bin".into())));
    assert_eq!(metadata.insert_bin("a", b"bytes"), Err(InvalidMetadata::Key("a".into())));
    metadata.insert_bin("a-bin", b"bytes").unwrap();
    assert_eq!(metadata.get("a-bin"), None);
    assert_eq!(metadata.get_bin("a"), None);
}

#[test]
fn what_belongs_to_the_protocol_can_neither_be_set_nor_seen() {
    let mut metadata = Metadata::new();
    for key in ["grpc-timeout", "GRPC-status", "Content-Type", "te", "connection"] {
        assert_eq!(metadata.insert(key, "1"), Err(InvalidMetadata::Reserved(key.into())));
    }
    assert_eq!(metadata.insert(":path", "/"), Err(InvalidMetadata::Key(":path".into())));
    assert_eq!(metadata.insert("", "1"), Err(InvalidMetadata::Key("".into())));
    assert_eq!(metadata.insert("a", "\u{e9}"), Err(InvalidMetadata::Value("a".into())));
    assert_eq!(metadata.insert("a", "line\nbreak"), Err(InvalidMetadata::Value("a".into())));

    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", HeaderValue::from_static("0"));
    let metadata = Metadata::from_headers(headers);
    assert_eq!(metadata.get("grpc-status"), None);
    assert_eq!(metadata.iter().count(), 0);
    assert!(metadata.is_empty());
}

#[test]
fn all_pairs_can_be_walked() {
    let mut metadata = Metadata::new();
    metadata.append("a", "1").unwrap();
    metadata.append("a", "2").unwrap();
    metadata.append_bin("b-bin", b"3").unwrap();
    let pairs = metadata.iter().collect::<Vec<_>>();
    assert_eq!(pairs.len(), 3);
    assert!(pairs.contains(&("a", MetadataValue::Ascii("1"))));
    assert!(pairs.contains(&("a", MetadataValue::Ascii("2"))));
    assert!(pairs.contains(&("b-bin", MetadataValue::Binary(Bytes::from_static(b"3")))));
}
