//! Received frames.

use bytes::{Buf, Bytes};
use prost::DecodeError;
use prost::encoding::{self, DecodeContext, WireType, check_wire_type, decode_key, skip_field};

use super::FrameNews;

/// Field numbers of `tikvpb.BatchCommandsResponse`.
mod field {
    pub(super) const RESPONSES: u32 = 1;
    pub(super) const REQUEST_IDS: u32 = 2;
    pub(super) const TRANSPORT_LAYER_LOAD: u32 = 3;
    pub(super) const HEALTH_FEEDBACK: u32 = 4;
}

/// A `BatchCommandsResponse` whose responses have not been decoded: what they answer is known only with the ids, which come
/// last. So each of them is decoded once, into what its waiter gets, or not at all.
#[derive(Debug, Default)]
pub(super) struct ResponseFrame {
    bytes: Bytes,
    /// How many responses there are.
    pub(super) responses: usize,
    pub(super) news: FrameNews,
}

impl ResponseFrame {
    /// Reads everything but the responses; the ids of what they answer are appended to `request_ids`.
    pub(super) fn decode(bytes: Bytes, request_ids: &mut Vec<u64>) -> Result<Self, DecodeError> {
        let mut frame = ResponseFrame::default();
        let mut rest: &[u8] = &bytes;
        while rest.has_remaining() {
            let (field, wire_type) = decode_key(&mut rest)?;
            let context = DecodeContext::default();
            match field {
                field::RESPONSES => {
                    check_wire_type(WireType::LengthDelimited, wire_type)?;
                    skip_field(wire_type, field, &mut rest, context)?;
                    frame.responses += 1;
                }
                field::REQUEST_IDS => {
                    encoding::uint64::merge_repeated(wire_type, request_ids, &mut rest, context)?;
                }
                field::TRANSPORT_LAYER_LOAD => {
                    encoding::uint64::merge(wire_type, &mut frame.news.transport_layer_load, &mut rest, context)?;
                }
                field::HEALTH_FEEDBACK => {
                    let feedback = frame.news.health_feedback.get_or_insert_default();
                    encoding::message::merge(wire_type, feedback, &mut rest, context)?;
                }
                _ => skip_field(wire_type, field, &mut rest, context)?,
            }
        }
        frame.bytes = bytes;
        Ok(frame)
    }

    /// Takes the next response, still encoded.
    pub(super) fn next_response(&mut self) -> Option<Bytes> {
        // Everything has been walked over once without an error.
        while self.bytes.has_remaining() {
            let (field, wire_type) = decode_key(&mut self.bytes).ok()?;
            let context = DecodeContext::default();
            if field == field::RESPONSES {
                let mut response = Bytes::new();
                encoding::bytes::merge(wire_type, &mut response, &mut self.bytes, context).ok()?;
                return Some(response);
            }
            skip_field(wire_type, field, &mut self.bytes, context).ok()?;
        }
        None
    }
}
