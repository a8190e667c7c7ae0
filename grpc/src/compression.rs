//! Message compression (`grpc-encoding`).

#[cfg(feature = "gzip")]
mod gzip;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// How messages are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// Not at all.
    #[default]
    Identity,
    /// With gzip (feature `gzip`).
    #[cfg(feature = "gzip")]
    Gzip,
}

/// A compressed message that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecompressError {
    #[error("a message is compressed, but the stream announced no compression")]
    Unannounced,
    #[cfg(feature = "gzip")]
    #[error("a compressed message is corrupt: {0}")]
    Corrupt(String),
    #[cfg(feature = "gzip")]
    #[error("a compressed message has more than the {limit} bytes that are accepted")]
    TooLarge { limit: usize },
}

impl Encoding {
    /// Compresses a message; says whether it did.
    pub(crate) fn compress(self, message: Bytes) -> (bool, Bytes) {
        match self {
            Encoding::Identity => (false, message),
            #[cfg(feature = "gzip")]
            Encoding::Gzip => gzip::compress(message),
        }
    }

    /// Undoes the compression of a message, which must not become longer than `limit`.
    pub(crate) fn decompress(self, message: Bytes, limit: usize) -> Result<Bytes, DecompressError> {
        match self {
            Encoding::Identity => {
                let _ = (message, limit);
                Err(DecompressError::Unannounced)
            }
            #[cfg(feature = "gzip")]
            Encoding::Gzip => gzip::decompress(&message, limit),
        }
    }

    /// Says in `headers` how messages are compressed and which compression is understood in return.
    pub(crate) fn announce(self, headers: &mut HeaderMap) {
        if let Some(name) = self.name() {
            headers.insert(GRPC_ENCODING, HeaderValue::from_static(name));
        }
        if cfg!(feature = "gzip") {
            headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("gzip,identity"));
        }
    }

    /// The encoding that `headers` announce, or the name of one that is unknown.
    pub(crate) fn announced(headers: &HeaderMap) -> Result<Self, String> {
        let Some(name) = headers.get(GRPC_ENCODING) else { return Ok(Encoding::Identity) };
        match name.as_bytes() {
            b"identity" => Ok(Encoding::Identity),
            #[cfg(feature = "gzip")]
            b"gzip" => Ok(Encoding::Gzip),
            name => Err(String::from_utf8_lossy(name).into_owned()),
        }
    }

    /// Whether the peer that sent `headers` understands messages in this encoding.
    pub(crate) fn is_accepted(self, headers: &HeaderMap) -> bool {
        let Some(name) = self.name() else { return true };
        let lists = headers.get_all(GRPC_ACCEPT_ENCODING).into_iter().filter_map(|list| list.to_str().ok());
        lists.flat_map(|list| list.split(',')).any(|accepted| accepted.trim() == name)
    }

    /// How headers call it; nothing, where messages are as they are.
    fn name(self) -> Option<&'static str> {
        match self {
            Encoding::Identity => None,
            #[cfg(feature = "gzip")]
            Encoding::Gzip => Some("gzip"),
        }
    }
}
