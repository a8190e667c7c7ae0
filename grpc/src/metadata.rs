//! Metadata: the key/value pairs that travel before (headers) and after (trailers) the messages of a call.

mod base64;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Key/value pairs of a call, in either direction.
///
/// Keys are case-insensitive. A key that ends in `-bin` carries bytes, every other key carries printable ASCII text.
/// A key can have several values. What belongs to the protocol itself (`grpc-*`, `content-type`, `te`, …) can neither be
/// set nor seen here.
///
/// ```
/// use tikv_grpc::Metadata;
///
/// let mut metadata = Metadata::new();
/// metadata.insert("tikv-forwarded-host", "10.0.0.7:20160")?;
/// metadata.insert_bin("trace-bin", &[0, 159, 146, 150])?;
/// assert_eq!(metadata.get("tikv-forwarded-host"), Some("10.0.0.7:20160"));
/// assert_eq!(metadata.get_bin("trace-bin").as_deref(), Some(&[0, 159, 146, 150][..]));
/// # Ok::<(), tikv_grpc::InvalidMetadata>(())
/// ```
#[derive(Clone, Default)]
pub struct Metadata {
    /// Boxed, because it is in every status and mostly there is none. Without what belongs to the protocol.
    headers: Option<Box<HeaderMap>>,
}

/// One value of [`Metadata`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataValue<'a> {
    /// The value of an ordinary key.
    Ascii(&'a str),
    /// The decoded value of a `-bin` key.
    Binary(Bytes),
}

/// A key or a value that cannot be sent as metadata.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMetadata {
    /// The key is empty, has characters that a header name cannot have, or ends (or does not end) in `-bin` although its
    /// value is text (or bytes).
    #[error("`{0}` is not a metadata key for such a value")]
    Key(String),
    /// The key belongs to HTTP or gRPC itself.
    #[error("`{0}` is reserved by the protocol")]
    Reserved(String),
    /// The value has characters that are not printable ASCII.
    #[error("the value of `{0}` is not printable ASCII")]
    Value(String),
}

impl Metadata {
    /// No pairs. Allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to one text value, replacing all that it had.
    pub fn insert(&mut self, key: &str, value: &str) -> Result<(), InvalidMetadata> {
        self.headers_mut().insert(ascii_key(key)?, ascii_value(key, value)?);
        Ok(())
    }

    /// Adds a text value to those that `key` has.
    pub fn append(&mut self, key: &str, value: &str) -> Result<(), InvalidMetadata> {
        self.headers_mut().append(ascii_key(key)?, ascii_value(key, value)?);
        Ok(())
    }

    /// Sets `key`, which must end in `-bin`, to one value of bytes, replacing all that it had.
    pub fn insert_bin(&mut self, key: &str, value: &[u8]) -> Result<(), InvalidMetadata> {
        self.headers_mut().insert(binary_key(key)?, binary_value(key, value)?);
        Ok(())
    }

    /// Adds a value of bytes to those that `key`, which must end in `-bin`, has.
    pub fn append_bin(&mut self, key: &str, value: &[u8]) -> Result<(), InvalidMetadata> {
        self.headers_mut().append(binary_key(key)?, binary_value(key, value)?);
        Ok(())
    }

    /// The first text value of `key`. `None` for a `-bin` key and for a value that is no printable ASCII.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.get_all(key).next()
    }

    /// All text values of `key`, in the order in which they were sent.
    pub fn get_all<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.values(key, !is_binary(key)).filter_map(|value| value.to_str().ok())
    }

    /// The first value of the `-bin` key `key`. `None` where that is no base64.
    pub fn get_bin(&self, key: &str) -> Option<Bytes> {
        self.get_all_bin(key).next()
    }

    /// All values of the `-bin` key `key`, in the order in which they were sent.
    pub fn get_all_bin<'a>(&'a self, key: &str) -> impl Iterator<Item = Bytes> + use<'a> {
        self.values(key, is_binary(key)).flat_map(decode_binary)
    }

    /// Removes all values of `key`. Says whether there were any.
    pub fn remove(&mut self, key: &str) -> bool {
        self.headers.as_mut().is_some_and(|headers| headers.remove(key).is_some())
    }

    /// All pairs; those of one key in the order in which they were sent, the keys in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, MetadataValue<'_>)> {
        let headers = self.headers.iter().flat_map(|headers| headers.iter());
        headers.flat_map(|(key, value)| {
            let (text, binary) = match is_binary(key.as_str()) {
                true => (None, Some(decode_binary(value).map(MetadataValue::Binary))),
                false => (value.to_str().ok().map(MetadataValue::Ascii), None),
            };
            text.into_iter().chain(binary.into_iter().flatten()).map(|value| (key.as_str(), value))
        })
    }

    /// Whether there is nothing to see.
    pub fn is_empty(&self) -> bool {
        self.headers.as_ref().is_none_or(|headers| headers.is_empty())
    }

    /// What is metadata in received headers. Mostly nothing is.
    pub(crate) fn from_headers(mut headers: HeaderMap) -> Self {
        let reserved: Vec<_> = headers.keys().filter(|key| is_reserved(key.as_str())).cloned().collect();
        if reserved.len() == headers.keys_len() {
            return Self::new();
        }
        for key in reserved {
            headers.remove(key);
        }
        Self { headers: Some(Box::new(headers)) }
    }

    pub(crate) fn into_headers(self) -> HeaderMap {
        self.headers.map(|headers| *headers).unwrap_or_default()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers.get_or_insert_default()
    }

    fn values<'a>(&'a self, key: &str, fits: bool) -> impl Iterator<Item = &'a HeaderValue> + use<'a> {
        let headers = self.headers.as_ref().filter(|_| fits);
        headers.map(|headers| headers.get_all(key).into_iter()).into_iter().flatten()
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        match (&self.headers, &other.headers) {
            (Some(ours), Some(theirs)) => ours == theirs,
            (ours, theirs) => ours.iter().chain(theirs).all(|headers| headers.is_empty()),
        }
    }
}

impl Eq for Metadata {}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Reads a base64 header, as `grpc-status-details-bin` is one.
pub(crate) fn decode_binary_header(value: &HeaderValue) -> Option<Bytes> {
    base64::decode(value.as_bytes()).map(Bytes::from)
}

/// Writes a base64 header.
pub(crate) fn encode_binary_header(value: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(Bytes::from(base64::encode(value))).ok()
}

fn is_binary(key: &str) -> bool {
    key.len() >= 4 && key.as_bytes()[key.len() - 4..].eq_ignore_ascii_case(b"-bin")
}

fn is_reserved(key: &str) -> bool {
    const NAMES: [&str; 10] = [
        "te",
        "content-type",
        "content-length",
        "user-agent",
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        "host",
    ];
    let grpc = key.len() >= 5 && key.as_bytes()[..5].eq_ignore_ascii_case(b"grpc-");
    grpc || NAMES.iter().any(|name| key.eq_ignore_ascii_case(name))
}

fn key(key: &str, binary: bool) -> Result<HeaderName, InvalidMetadata> {
    if is_reserved(key) {
        return Err(InvalidMetadata::Reserved(key.to_owned()));
    }
    match HeaderName::from_bytes(key.as_bytes()) {
        Ok(name) if is_binary(key) == binary => Ok(name),
        _ => Err(InvalidMetadata::Key(key.to_owned())),
    }
}

fn ascii_key(name: &str) -> Result<HeaderName, InvalidMetadata> {
    key(name, false)
}

fn binary_key(name: &str) -> Result<HeaderName, InvalidMetadata> {
    key(name, true)
}

fn ascii_value(key: &str, value: &str) -> Result<HeaderValue, InvalidMetadata> {
    let printable = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let value = HeaderValue::from_str(value).ok().filter(|_| printable);
    value.ok_or_else(|| InvalidMetadata::Value(key.to_owned()))
}

fn binary_value(key: &str, value: &[u8]) -> Result<HeaderValue, InvalidMetadata> {
    encode_binary_header(value).ok_or_else(|| InvalidMetadata::Value(key.to_owned()))
}

/// Several binary values can arrive joined by commas in one header.
fn decode_binary(value: &HeaderValue) -> impl Iterator<Item = Bytes> {
    let parts = value.as_bytes().split(|byte| *byte == b',');
    parts.filter_map(|part| base64::decode(part.trim_ascii()).map(Bytes::from))
}
