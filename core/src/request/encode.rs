//! Requests and responses as bytes.

use bytes::{Buf, Bytes, BytesMut};
use prost::encoding::{DecodeContext, WireType, decode_key, encode_key, encode_varint, encoded_len_varint, key_len};

use super::{CallContext, Method, Request, RequestKind, Response};

/// Field number of `context` in every request that has one.
const CONTEXT_FIELD: u32 = 1;

/// Field number of `requests` in `tikvpb.BatchCommandsRequest`.
const BATCH_REQUESTS_FIELD: u32 = 1;

impl Request {
    /// Length in bytes of the request with `context`.
    #[must_use]
    pub fn encoded_len_with_context(&self, context: &CallContext) -> usize {
        BodyLen::of(self, context).total()
    }

    /// Appends the request with `context` to `buffer`, as the body of a unary call.
    ///
    /// The message itself is not touched: the context is written in front of it, where the field belongs.
    pub fn encode_with_context(&self, context: &CallContext, buffer: &mut BytesMut) {
        let body = BodyLen::of(self, context);
        append(buffer, body.total(), |space| self.write_body(context, body, space));
    }

    /// Appends the request with `context` to `buffer` as one entry of a `BatchCommandsRequest` (the `requests` field with
    /// its key). Entries may be concatenated. Returns false, and appends nothing, if the command cannot be batched.
    pub fn encode_batch_entry(&self, context: &CallContext, buffer: &mut BytesMut) -> bool {
        let Some(slot) = self.kind().batch_slot() else { return false };
        let body = BodyLen::of(self, context);
        let entry = field_len(slot, body.total());
        append(buffer, field_len(BATCH_REQUESTS_FIELD, entry), |space| {
            write_head(BATCH_REQUESTS_FIELD, entry, space);
            write_head(slot, body.total(), space);
            self.write_body(context, body, space);
        });
        true
    }

    fn write_body(&self, context: &CallContext, len: BodyLen, space: &mut &mut [u8]) {
        if let Some(context_len) = len.context {
            write_head(CONTEXT_FIELD, context_len, space);
            context.encode_raw(space);
        }
        self.encode_message(space);
    }
}

/// The length of a request with its context. Found once, since to find it is a good part of the work of encoding.
#[derive(Clone, Copy)]
struct BodyLen {
    /// Of the context, without the head of its field; none if the request takes none.
    context: Option<usize>,
    message: usize,
}

impl BodyLen {
    fn of(request: &Request, context: &CallContext) -> BodyLen {
        BodyLen {
            context: request.kind().takes_context().then(|| context.encoded_len()),
            message: request.message_len(),
        }
    }

    fn total(self) -> usize {
        self.context.map_or(0, |len| field_len(CONTEXT_FIELD, len)) + self.message
    }
}

/// Appends what `write` writes, which is `len` bytes. It writes into a slice: appending byte by byte, as variable-length
/// numbers are, would look for space and its owner at each of them.
fn append(buffer: &mut BytesMut, len: usize, write: impl FnOnce(&mut &mut [u8])) {
    let start = buffer.len();
    buffer.resize(start + len, 0);
    let mut space = &mut buffer[start..];
    write(&mut space);
    debug_assert!(space.is_empty(), "{} bytes were not written", space.len());
}

/// Length of a length-delimited field with its head.
fn field_len(field: u32, len: usize) -> usize {
    key_len(field) + encoded_len_varint(len as u64) + len
}

fn write_head(field: u32, len: usize, space: &mut &mut [u8]) {
    encode_key(field, WireType::LengthDelimited, space);
    encode_varint(len as u64, space);
}

impl RequestKind {
    /// The command's field number in a BatchCommands frame, if it can travel in one.
    #[must_use]
    pub const fn batch_slot(self) -> Option<u32> {
        match self.facts().method {
            Method::Unary { batch_slot } => batch_slot,
            Method::BatchOnly { batch_slot } => Some(batch_slot),
            Method::ServerStreaming => None,
        }
    }

    /// Decodes one entry of a `BatchCommandsResponse`, the answer to a command of this kind; `None` if it is empty or answers
    /// another command.
    ///
    /// # Errors
    ///
    /// If the bytes are not such an entry.
    pub fn decode_batch_response(self, mut entry: Bytes) -> Result<Option<Response>, prost::DecodeError> {
        // The entry is a choice of one of many fields; as always, the last one counts.
        let (mut last_field, mut body) = (None, Bytes::new());
        while entry.has_remaining() {
            let (field, wire_type) = decode_key(&mut entry)?;
            prost::encoding::bytes::merge(wire_type, &mut body, &mut entry, DecodeContext::default())?;
            last_field = Some(field);
        }
        if last_field.is_none() || last_field != self.batch_slot() {
            return Ok(None);
        }
        self.decode_response(body).map(Some)
    }
}

/// Decodes the body of a unary (or streamed) response to a command of `kind`.
///
/// # Errors
///
/// If the bytes are not such a message.
pub fn decode_response(kind: RequestKind, bytes: Bytes) -> Result<Response, prost::DecodeError> {
    kind.decode_response(bytes)
}
