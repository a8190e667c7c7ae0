//! Status on the wire: `grpc-status`, `grpc-message`, `grpc-status-details-bin`, and what HTTP says where these are missing.

use std::borrow::Cow;

use bytes::Bytes;
use h2::Reason;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::{Code, Status};
use crate::Metadata;
use crate::metadata::{decode_binary_header, encode_binary_header};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Takes the status out of trailers (or of headers that are trailers as well). `None` where `grpc-status` is missing; a
/// `grpc-status` that is no number means [`Code::Unknown`].
pub(crate) fn read_status(mut headers: HeaderMap) -> Result<Status, HeaderMap> {
    let Some(code) = headers.remove(GRPC_STATUS) else { return Err(headers) };
    let number = code.to_str().ok().and_then(|text| text.parse().ok());
    let message = headers.remove(GRPC_MESSAGE);
    let details = headers.remove(GRPC_STATUS_DETAILS);
    Ok(Status {
        code: number.map_or(Code::Unknown, Code::from_i32),
        message: message.map(|value| percent_decode(value.as_bytes())).unwrap_or_default(),
        details: details.as_ref().and_then(decode_binary_header).unwrap_or_default(),
        metadata: Metadata::from_headers(headers),
    })
}

/// The trailers that say `status`.
pub(crate) fn write_status(status: Status) -> HeaderMap {
    let mut trailers = status.metadata.into_headers();
    trailers.insert(GRPC_STATUS, code_value(status.code));
    if !status.message.is_empty() {
        let encoded = percent_encode(&status.message);
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(encoded.into_owned())) {
            trailers.insert(GRPC_MESSAGE, value);
        }
    }
    if !status.details.is_empty() {
        if let Some(value) = encode_binary_header(&status.details) {
            trailers.insert(GRPC_STATUS_DETAILS, value);
        }
    }
    trailers
}

/// What an answer without `grpc-status` means, as gRPC's "HTTP to gRPC status code mapping" has it.
pub(crate) fn code_of_http_status(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// What a RST_STREAM means, as the "Errors" section of gRPC over HTTP/2 has it.
pub(crate) fn code_of_reset(reason: Reason) -> Code {
    match reason {
        Reason::REFUSED_STREAM => Code::Unavailable,
        Reason::CANCEL => Code::Cancelled,
        Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
        Reason::NO_ERROR
        | Reason::PROTOCOL_ERROR
        | Reason::INTERNAL_ERROR
        | Reason::FLOW_CONTROL_ERROR
        | Reason::SETTINGS_TIMEOUT
        | Reason::FRAME_SIZE_ERROR
        | Reason::COMPRESSION_ERROR
        | Reason::CONNECT_ERROR => Code::Internal,
        _ => Code::Unknown,
    }
}

fn code_value(code: Code) -> HeaderValue {
    // The success of every call takes the path without formatting.
    match code {
        Code::Ok => HeaderValue::from_static("0"),
        code => HeaderValue::from(code as u16),
    }
}

/// Escapes `%` and all that is no printable ASCII.
pub(super) fn percent_encode(text: &str) -> Cow<'_, str> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'%';
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    Cow::Owned(encoded)
}

/// Lenient, as the protocol demands: an escape that is none stays as it is, what is no UTF-8 becomes replacement characters.
pub(super) fn percent_decode(text: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        match escaped(rest) {
            Some(byte) => {
                decoded.push(byte);
                rest = &rest[3..];
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn escaped(text: &[u8]) -> Option<u8> {
    let hex = |digit: u8| char::from(digit).to_digit(16);
    match text {
        [b'%', high, low, ..] => u8::try_from(hex(*high)? << 4 | hex(*low)?).ok(),
        _ => None,
    }
}
