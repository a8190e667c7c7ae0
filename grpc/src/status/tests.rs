use http::StatusCode;
use http::header::{HeaderMap, HeaderValue};
use quickcheck::quickcheck;

use super::wire::{percent_decode, percent_encode};
use super::*;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn every_code_survives_the_wire() {
    for number in 0..17 {
        let code = Code::from_i32(number);
        assert_eq!(code as i32, number);
        assert_eq!(read_status(write_status(Status::new(code, ""))), Ok(Status::new(code, "")));
    }
}

#[test]
fn a_code_that_nobody_defined_is_unknown() {
    for number in ["17", "-1", "99999999999", "", "ok", "0x0"] {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_str(number).unwrap());
        assert_eq!(read_status(trailers).unwrap().code, Code::Unknown, "{number}");
    }
}

#[test]
fn message_details_and_metadata_come_with_the_status() {
    let trailers = headers(&[
        ("grpc-status", "5"),
        ("grpc-message", "no%20caf%C3%A9"),
        ("grpc-status-details-bin", "Zm8"),
        ("k", "v"),
    ]);
    let status = read_status(trailers).unwrap();
    assert_eq!((status.code, status.message.as_str()), (Code::NotFound, "no café"));
    assert_eq!(status.details, "fo");
    assert_eq!(status.metadata.get("k"), Some("v"));
}

#[test]
fn trailers_without_a_status_are_given_back() {
    assert_eq!(read_status(headers(&[("k", "v")])), Err(headers(&[("k", "v")])));
}

#[test]
fn only_what_is_no_printable_ascii_is_escaped() {
    assert_eq!(percent_encode("plain text ~!"), "plain text ~!");
    assert_eq!(percent_encode("100%\n\u{e9}\u{7f}"), "100%25%0A%C3%A9%7F");
}

#[test]
fn broken_escapes_stay_as_they_are() {
    assert_eq!(percent_decode(b"%"), "%");
    assert_eq!(percent_decode(b"%4"), "%4");
    assert_eq!(percent_decode(b"%zz%41"), "%zzA");
    assert_eq!(percent_decode(b"%+1"), "%+1");
    assert_eq!(percent_decode(b"%FF!"), "\u{fffd}!");
}

quickcheck! {
    fn messages_round_trip(message: String) -> bool {
        percent_decode(percent_encode(&message).as_bytes()) == message
    }

    fn decoding_never_panics(bytes: Vec<u8>) -> bool {
        percent_decode(&bytes).len() <= bytes.len() * 3
    }

    fn statuses_round_trip(number: u8, message: String, details: Vec<u8>) -> bool {
        let mut status = Status::new(Code::from_i32(i32::from(number % 17)), message);
        status.details = Bytes::from(details);
        read_status(write_status(status.clone())) == Ok(status)
    }
}

#[test]
fn http_statuses_map_as_the_protocol_says() {
    let table = [
        (400, Code::Internal),
        (401, Code::Unauthenticated),
        (403, Code::PermissionDenied),
        (404, Code::Unimplemented),
        (429, Code::Unavailable),
        (502, Code::Unavailable),
        (503, Code::Unavailable),
        (504, Code::Unavailable),
        (200, Code::Unknown),
        (500, Code::Unknown),
    ];
    for (http, code) in table {
        assert_eq!(code_of_http_status(StatusCode::from_u16(http).unwrap()), code, "{http}");
    }
}

#[test]
fn resets_map_as_the_protocol_says() {
    let table = [
        (0x0, Code::Internal),
        (0x1, Code::Internal),
        (0x2, Code::Internal),
        (0x3, Code::Internal),
        (0x4, Code::Internal),
        (0x5, Code::Unknown),
        (0x6, Code::Internal),
        (0x7, Code::Unavailable),
        (0x8, Code::Cancelled),
        (0x9, Code::Internal),
        (0xa, Code::Internal),
        (0xb, Code::ResourceExhausted),
        (0xc, Code::PermissionDenied),
        (0xd, Code::Unknown),
        (0xff, Code::Unknown),
    ];
    for (reason, code) in table {
        assert_eq!(code_of_reset(h2::Reason::from(reason)), code, "{reason:#x}");
    }
}
