//! Requests and responses as bytes.

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tikv_proto::{kvrpcpb, tikvpb};

use super::{Method, Request, RequestKind, Response};

/// Field number of `context` in every request that has one.
const CONTEXT_FIELD: u32 = 1;

/// Field number of `requests` in `tikvpb.BatchCommandsRequest`.
const BATCH_REQUESTS_FIELD: u32 = 1;

impl Request {
    /// Length in bytes of the request with `context`.
    #[must_use]
    pub fn encoded_len_with_context(&self, context: &kvrpcpb::Context) -> usize {
        let context_len = if self.kind().takes_context() { context_field_len(context) } else { 0 };
        context_len + self.message_len()
    }

    /// Appends the request with `context` to `buffer`, as the body of a unary call.
    ///
    /// The message itself is not touched: the context is written in front of it, where the field belongs.
    pub fn encode_with_context(&self, context: &kvrpcpb::Context, buffer: &mut BytesMut) {
        if self.kind().takes_context() {
            encode_len_delimited_head(CONTEXT_FIELD, context.encoded_len(), buffer);
            context.encode_raw(buffer);
        }
        self.encode_message(buffer);
    }

    /// Appends the request with `context` to `buffer` as one entry of a `BatchCommandsRequest` (the `requests` field with
    /// its key). Entries may be concatenated. Returns false, and appends nothing, if the command cannot be batched.
    pub fn encode_batch_entry(&self, context: &kvrpcpb::Context, buffer: &mut BytesMut) -> bool {
        let Some(slot) = self.kind().batch_slot() else { return false };
        let body = self.encoded_len_with_context(context);
        let entry = key_len(slot) + encoded_len_varint(body as u64) + body;
        buffer.reserve(key_len(BATCH_REQUESTS_FIELD) + encoded_len_varint(entry as u64) + entry);
        encode_len_delimited_head(BATCH_REQUESTS_FIELD, entry, buffer);
        encode_len_delimited_head(slot, body, buffer);
        self.encode_with_context(context, buffer);
        true
    }
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
}

/// Decodes the body of a unary (or streamed) response to a command of `kind`.
///
/// # Errors
///
/// If the bytes are not such a message.
pub fn decode_response(kind: RequestKind, bytes: Bytes) -> Result<Response, prost::DecodeError> {
    kind.decode_response(bytes)
}

/// The response in one entry of a `BatchCommandsResponse`; `None` if the entry is empty or of a command not in the table.
#[must_use]
pub fn decode_batch_response(entry: tikvpb::batch_commands_response::Response) -> Option<Response> {
    use tikvpb::batch_commands_response::response::Cmd;
    Some(match entry.cmd? {
        Cmd::Get(response) => Response::Get(response),
        Cmd::Scan(response) => Response::Scan(response),
        Cmd::Prewrite(response) => Response::Prewrite(response),
        Cmd::Commit(response) => Response::Commit(response),
        Cmd::Cleanup(response) => Response::Cleanup(response),
        Cmd::BatchGet(response) => Response::BatchGet(response),
        Cmd::BatchRollback(response) => Response::BatchRollback(response),
        Cmd::ScanLock(response) => Response::ScanLock(response),
        Cmd::ResolveLock(response) => Response::ResolveLock(response),
        Cmd::Gc(response) => Response::Gc(response),
        Cmd::DeleteRange(response) => Response::DeleteRange(response),
        Cmd::RawGet(response) => Response::RawGet(response),
        Cmd::RawBatchGet(response) => Response::RawBatchGet(response),
        Cmd::RawPut(response) => Response::RawPut(response),
        Cmd::RawBatchPut(response) => Response::RawBatchPut(response),
        Cmd::RawDelete(response) => Response::RawDelete(response),
        Cmd::RawBatchDelete(response) => Response::RawBatchDelete(response),
        Cmd::RawScan(response) => Response::RawScan(response),
        Cmd::RawDeleteRange(response) => Response::RawDeleteRange(response),
        Cmd::Coprocessor(response) => Response::Coprocessor(response),
        Cmd::PessimisticLock(response) => Response::PessimisticLock(response),
        Cmd::PessimisticRollback(response) => Response::PessimisticRollback(response),
        Cmd::CheckTxnStatus(response) => Response::CheckTxnStatus(response),
        Cmd::TxnHeartBeat(response) => Response::TxnHeartBeat(response),
        Cmd::CheckSecondaryLocks(response) => Response::CheckSecondaryLocks(response),
        Cmd::FlashbackToVersion(response) => Response::FlashbackToVersion(response),
        Cmd::PrepareFlashbackToVersion(response) => Response::PrepareFlashbackToVersion(response),
        Cmd::Flush(response) => Response::Flush(response),
        Cmd::BufferBatchGet(response) => Response::BufferBatchGet(response),
        Cmd::GetHealthFeedback(response) => Response::GetHealthFeedback(response),
        Cmd::BroadcastTxnStatus(response) => Response::BroadcastTxnStatus(response),
        Cmd::Empty(response) => Response::Empty(response),
        _ => return None,
    })
}

fn context_field_len(context: &kvrpcpb::Context) -> usize {
    let len = context.encoded_len();
    key_len(CONTEXT_FIELD) + encoded_len_varint(len as u64) + len
}

fn encode_len_delimited_head(field: u32, len: usize, buffer: &mut BytesMut) {
    encode_key(field, WireType::LengthDelimited, buffer);
    encode_varint(len as u64, buffer);
}
