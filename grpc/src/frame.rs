//! Length-prefixed messages, the payload of a gRPC stream:
//!
//! ```text
//! ┌────────────┬──────────────────┬─────────────┐
//! │ compressed │ length           │ message     │ …
//! │ 1 byte     │ 4 bytes, big end │ length bytes│
//! └────────────┴──────────────────┴─────────────┘
//! ```
//!
//! HTTP/2 cuts this sequence into DATA frames anywhere: many messages can share a frame, a message can span many.

mod decode;
mod encode;

pub(crate) use decode::{Decoder, FrameError};
pub use encode::Batch;
pub(crate) use encode::SendBuf;

/// The bytes in front of each message.
pub(crate) const PREFIX_LEN: usize = 5;

fn prefix(compressed: bool, len: usize) -> [u8; PREFIX_LEN] {
    let [a, b, c, d] = (len as u32).to_be_bytes();
    [u8::from(compressed), a, b, c, d]
}
