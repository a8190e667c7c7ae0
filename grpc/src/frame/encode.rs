//! Outgoing messages: prefixes are put between payloads, payloads are not copied.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{PREFIX_LEN, prefix};
use crate::compression::Encoding;

/// Below this a payload is copied next to its prefix: cheaper than a reference count and a slice of its own.
const COPY_BELOW: usize = 256;

/// The buffer for prefixes (about a hundred of them) and small payloads.
const TAIL_CAPACITY: usize = 512;

/// Messages that leave together: as few DATA frames, system calls and allocations as they fit in.
///
/// Payloads of 256 bytes and more are not copied. A batch costs one small buffer for its prefixes (another one for every
/// hundred messages, and for small payloads, which are copied) and one list of chunks.
///
/// ```
/// use tikv_grpc::Batch;
///
/// let mut batch = Batch::new();
/// batch.push("first".into());
/// batch.push_parts(vec!["a message ".into(), "in two parts".into()]);
/// batch.push_encoded(&String::from("google.protobuf.StringValue"));
/// assert_eq!(batch.messages(), 3);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Batch {
    encoding: Encoding,
    /// Chunks that are complete; none of them is empty.
    chunks: VecDeque<Bytes>,
    /// Prefixes and small payloads since the last complete chunk.
    tail: BytesMut,
    /// The bytes in `chunks`.
    complete: usize,
    messages: usize,
    largest: usize,
}

impl Batch {
    /// No messages. Allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// No messages yet; those that follow are compressed with `encoding`.
    pub(crate) fn with_encoding(encoding: Encoding) -> Self {
        Self { encoding, ..Self::default() }
    }

    /// Appends a message.
    pub fn push(&mut self, message: Bytes) {
        let (compressed, message) = self.encoding.compress(message);
        self.start(compressed, message.len());
        self.append(message);
    }

    /// Appends one message that lies in several parts.
    pub fn push_parts(&mut self, parts: Vec<Bytes>) {
        if self.encoding != Encoding::Identity {
            return self.push(parts.concat().into());
        }
        self.start(false, parts.iter().map(Bytes::len).sum());
        for part in parts {
            self.append(part);
        }
    }

    /// Encodes `message` and appends it. It is encoded in place, behind its prefix.
    pub fn push_encoded(&mut self, message: &impl prost::Message) {
        let len = message.encoded_len();
        if self.encoding != Encoding::Identity {
            return self.push(message.encode_to_vec().into());
        }
        self.tail.reserve(PREFIX_LEN + len);
        self.start(false, len);
        message.encode_raw(&mut self.tail);
    }

    /// How many messages were appended.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// Whether there are no messages.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// The bytes that this puts on the wire, prefixes included.
    pub fn len(&self) -> usize {
        self.complete + self.tail.len()
    }

    /// The length of the longest message.
    pub(crate) fn largest(&self) -> usize {
        self.largest
    }

    pub(crate) fn into_buf(mut self) -> SendBuf {
        let remaining = self.len();
        let chunks = if self.chunks.is_empty() {
            Chunks::One(self.tail.freeze())
        } else {
            self.complete_tail();
            Chunks::Many(self.chunks)
        };
        SendBuf { prefix: [0; PREFIX_LEN], prefix_sent: PREFIX_LEN, remaining, chunks }
    }

    fn start(&mut self, compressed: bool, len: usize) {
        self.messages += 1;
        self.largest = self.largest.max(len);
        if self.tail.capacity() - self.tail.len() < PREFIX_LEN {
            self.tail.reserve(TAIL_CAPACITY);
        }
        self.tail.put_slice(&prefix(compressed, len));
    }

    fn append(&mut self, payload: Bytes) {
        if payload.len() < COPY_BELOW {
            return self.tail.put_slice(&payload);
        }
        self.complete_tail();
        self.complete += payload.len();
        self.chunks.push_back(payload);
    }

    fn complete_tail(&mut self) {
        if !self.tail.is_empty() {
            self.complete += self.tail.len();
            // `split` leaves the rest of the buffer to the prefixes to come.
            self.chunks.push_back(self.tail.split().freeze());
        }
    }
}

/// What is handed to HTTP/2: one message, or a batch of them.
#[derive(Debug)]
pub(crate) struct SendBuf {
    prefix: [u8; PREFIX_LEN],
    prefix_sent: usize,
    remaining: usize,
    chunks: Chunks,
}

#[derive(Debug)]
enum Chunks {
    One(Bytes),
    /// None of them is empty.
    Many(VecDeque<Bytes>),
}

impl SendBuf {
    /// Nothing, to end a stream.
    pub(crate) fn empty() -> Self {
        Self { prefix: [0; PREFIX_LEN], prefix_sent: PREFIX_LEN, remaining: 0, chunks: Chunks::One(Bytes::new()) }
    }

    /// One message. Allocates nothing and copies nothing.
    pub(crate) fn message(compressed: bool, payload: Bytes) -> Self {
        let prefix = prefix(compressed, payload.len());
        Self { prefix, prefix_sent: 0, remaining: PREFIX_LEN + payload.len(), chunks: Chunks::One(payload) }
    }

    /// One message, encoded behind its prefix: one allocation, one chunk.
    pub(crate) fn encoded(message: &impl prost::Message) -> Self {
        let mut batch = Batch::new();
        batch.push_encoded(message);
        batch.into_buf()
    }
}

impl Buf for SendBuf {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        if self.prefix_sent < PREFIX_LEN {
            return &self.prefix[self.prefix_sent..];
        }
        match &self.chunks {
            Chunks::One(chunk) => chunk,
            Chunks::Many(chunks) => chunks.front().map_or(&[], |chunk| chunk),
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let prefix = &self.prefix[self.prefix_sent..];
        let (one, many) = match &self.chunks {
            Chunks::One(chunk) => (Some(chunk), None),
            Chunks::Many(chunks) => (None, Some(chunks)),
        };
        let payload = one.into_iter().chain(many.into_iter().flatten()).map(|chunk| &chunk[..]);
        let chunks = [prefix].into_iter().chain(payload).filter(|chunk| !chunk.is_empty());
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(chunks) {
            *slice = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining, "cannot advance past the end");
        self.remaining -= count;
        let of_prefix = count.min(PREFIX_LEN - self.prefix_sent);
        self.prefix_sent += of_prefix;
        let mut count = count - of_prefix;
        match &mut self.chunks {
            Chunks::One(chunk) => chunk.advance(count),
            Chunks::Many(chunks) => {
                while let Some(chunk) = chunks.front_mut() {
                    if count < chunk.len() {
                        return chunk.advance(count);
                    }
                    count -= chunk.len();
                    chunks.pop_front();
                }
            }
        }
    }
}
