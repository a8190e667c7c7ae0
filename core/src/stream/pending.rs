//! Requests that wait to be written.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};

use super::BatchLimits;

/// Field number of `request_ids` in `tikvpb.BatchCommandsRequest`.
const REQUEST_IDS_FIELD: u32 = 2;

/// The longest head of the list of ids: key and length.
const MAX_HEAD_BYTES: usize = 1 + 5;

/// Space for requests is allocated in pieces of this size, or, where frames are larger, in such that hold a frame, up to the
/// second size: a stream that is idle keeps a piece.
const PIECE_BYTES: usize = 16 * 1024;
const MAX_PIECE_BYTES: usize = 64 * 1024;

/// This many abandoned requests, and half of all, are tolerated before the space they take is won back.
const TOLERATED: usize = 64;

/// Encoded requests in a row, in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Pending {
    bytes: BytesMut,
    /// Bytes of the last frame: the next one is likely to need as much space.
    last_frame: usize,
    entries: VecDeque<Entry>,
    /// Entries that nobody waits for any more.
    abandoned: usize,
    /// Where ids are collected. Empty but while a frame is taken; kept for its space.
    ids: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    id: u64,
    len: usize,
}

impl Pending {
    /// Adds the request that `encode` appends, unless it says that there is none.
    pub(super) fn push(&mut self, id: u64, encode: impl FnOnce(&mut BytesMut) -> bool) -> bool {
        if self.bytes.capacity() == 0 {
            let likely = self.last_frame.next_power_of_two();
            self.bytes = BytesMut::with_capacity(likely.clamp(PIECE_BYTES, MAX_PIECE_BYTES));
        }
        let before = self.bytes.len();
        let encoded = encode(&mut self.bytes);
        if encoded {
            self.entries.push_back(Entry { id, len: self.bytes.len() - before });
        }
        encoded
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn requests(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Nobody waits for one of the requests any more; it will be left out. `is_wanted` tells of the others.
    pub(super) fn abandon(&mut self, is_wanted: impl Fn(u64) -> bool) {
        self.abandoned += 1;
        if self.abandoned > TOLERATED + self.entries.len() / 2 {
            let mut bytes = std::mem::take(&mut self.bytes);
            let mut kept = BytesMut::new();
            self.entries.retain(|entry| {
                let encoded = bytes.split_to(entry.len);
                let wanted = is_wanted(entry.id);
                if wanted {
                    kept.extend_from_slice(&encoded);
                }
                wanted
            });
            self.bytes = kept;
            self.abandoned = 0;
        }
    }

    /// Forgets all requests.
    pub(super) fn clear(&mut self) {
        *self = Pending::default();
    }

    /// Takes the requests of one frame: `requests`, and `request_ids` for those among them that `claim` says are still
    /// wanted. It is asked once for each.
    pub(super) fn take_frame(&mut self, limits: BatchLimits, mut claim: impl FnMut(u64) -> bool) -> Option<[Bytes; 2]> {
        let mut frame = Frame::default();
        while let Some(Entry { id, len }) = self.entries.front().copied() {
            if frame.requests > 0 && (frame.requests >= limits.frame_requests || frame.len + len > limits.frame_bytes) {
                break;
            }
            self.entries.pop_front();
            if claim(id) {
                encode_varint(id, &mut self.ids);
                frame.add(len);
            } else {
                self.abandoned = self.abandoned.saturating_sub(1);
                frame.skip(len, &mut self.bytes);
            }
        }
        (frame.requests > 0).then(|| self.finish(frame))
    }

    /// The bytes of a frame: in one piece if nothing else waits behind it and nothing had to be left out.
    fn finish(&mut self, mut frame: Frame) -> [Bytes; 2] {
        let parts = if self.entries.is_empty() && frame.copied.is_empty() {
            write_ids(&self.ids, &mut self.bytes);
            let bytes = self.bytes.split().freeze();
            self.last_frame = bytes.len();
            if self.bytes.capacity() < self.last_frame {
                // It would be filled, to be copied into a larger one.
                self.bytes = BytesMut::new();
            }
            [bytes, Bytes::new()]
        } else {
            let mut requests = self.bytes.split_to(frame.uncopied);
            if !frame.copied.is_empty() {
                frame.copied.extend_from_slice(&requests);
                requests = frame.copied;
            }
            let mut ids = BytesMut::with_capacity(MAX_HEAD_BYTES + self.ids.len());
            write_ids(&self.ids, &mut ids);
            [requests.freeze(), ids.freeze()]
        };
        self.ids.clear();
        parts
    }
}

fn write_ids(ids: &[u8], buffer: &mut BytesMut) {
    encode_key(REQUEST_IDS_FIELD, WireType::LengthDelimited, buffer);
    encode_varint(ids.len() as u64, buffer);
    buffer.extend_from_slice(ids);
}

/// A frame as it grows.
#[derive(Default)]
struct Frame {
    requests: usize,
    /// Bytes of its requests.
    len: usize,
    /// Those of them that still lie at the front of the pending bytes, from where they need not be copied.
    uncopied: usize,
    copied: BytesMut,
}

impl Frame {
    fn add(&mut self, len: usize) {
        self.requests += 1;
        self.len += len;
        self.uncopied += len;
    }

    /// Leaves out the next request.
    fn skip(&mut self, len: usize, bytes: &mut BytesMut) {
        self.copied.extend_from_slice(&bytes.split_to(self.uncopied));
        self.uncopied = 0;
        bytes.advance(len);
    }
}
