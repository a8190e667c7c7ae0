//! gzip by `flate2` (its backend in Rust).

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::DecompressError;

/// Compresses; a message that would not become shorter stays as it is.
pub(super) fn compress(message: Bytes) -> (bool, Bytes) {
    let mut encoder = GzEncoder::new(Vec::with_capacity(message.len() / 2), Compression::default());
    let compressed = encoder.write_all(&message).and_then(|()| encoder.finish());
    match compressed {
        Ok(compressed) if compressed.len() < message.len() => (true, compressed.into()),
        _ => (false, message),
    }
}

pub(super) fn decompress(message: &[u8], limit: usize) -> Result<Bytes, DecompressError> {
    // One byte more than the limit tells "exactly as long" from "too long".
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut decompressed = Vec::new();
    let mut decoder = MultiGzDecoder::new(message).take(bound);
    decoder.read_to_end(&mut decompressed).map_err(|error| DecompressError::Corrupt(error.to_string()))?;
    if decompressed.len() > limit {
        return Err(DecompressError::TooLarge { limit });
    }
    Ok(decompressed.into())
}
