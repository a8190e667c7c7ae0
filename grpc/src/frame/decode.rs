//! Incoming messages: cut out of DATA frames without copying, put together where they span several.

#[cfg(test)]
mod tests;

use std::mem;

use bytes::{Buf, Bytes, BytesMut};

use super::PREFIX_LEN;

/// The most that the length a peer announces makes us allocate; beyond it the buffer grows with what really arrives.
const MAX_UPFRONT: usize = 4 << 20;

/// Cuts messages out of a sequence of frames.
///
/// Feed it a frame with [`Decoder::push`] whenever [`Decoder::next`] says that there is no whole message left.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// What of the current frame is not consumed.
    frame: Bytes,
    state: State,
    max_message: usize,
}

#[derive(Debug)]
enum State {
    /// Within a prefix, of which `have` bytes came with earlier frames.
    Prefix { bytes: [u8; PREFIX_LEN], have: usize },
    /// Within a message, of which `gathered` came with earlier frames.
    Body { compressed: bool, len: usize, gathered: BytesMut },
}

/// One message as it was on the wire.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) compressed: bool,
    pub(crate) payload: Bytes,
}

/// A sequence of bytes that is no sequence of messages, or none that we accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a message of {len} bytes is longer than the {limit} that are accepted")]
    TooLarge { len: usize, limit: usize },
    #[error("a message starts with the flag {0}, which is neither 0 nor 1")]
    Flag(u8),
}

const BETWEEN: State = State::Prefix { bytes: [0; PREFIX_LEN], have: 0 };

impl Decoder {
    /// Messages longer than `max_message` are refused as soon as their length is known.
    pub(crate) fn new(max_message: usize) -> Self {
        Self { frame: Bytes::new(), state: BETWEEN, max_message }
    }

    /// Adds a frame. The one before must be consumed, i.e. `next` has answered `None`.
    pub(crate) fn push(&mut self, frame: Bytes) {
        debug_assert!(self.frame.is_empty(), "a frame would be lost");
        self.frame = frame;
    }

    /// Whether a message has begun and not ended.
    pub(crate) fn is_within_message(&self) -> bool {
        !self.frame.is_empty() || !matches!(self.state, State::Prefix { have: 0, .. })
    }

    /// The next whole message.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, FrameError> {
        loop {
            match &mut self.state {
                State::Prefix { bytes, have } => {
                    let count = self.frame.len().min(PREFIX_LEN - *have);
                    bytes[*have..*have + count].copy_from_slice(&self.frame[..count]);
                    self.frame.advance(count);
                    *have += count;
                    if *have < PREFIX_LEN {
                        return Ok(None);
                    }
                    self.state = self.body()?;
                }
                State::Body { compressed, len, gathered } => {
                    let compressed = *compressed;
                    let Some(payload) = take_payload(&mut self.frame, *len, gathered) else { return Ok(None) };
                    self.state = BETWEEN;
                    return Ok(Some(Message { compressed, payload }));
                }
            }
        }
    }

    /// The state behind the prefix that is complete now.
    fn body(&self) -> Result<State, FrameError> {
        let State::Prefix { bytes: [flag, length @ ..], .. } = self.state else { return Ok(BETWEEN) };
        if flag > 1 {
            return Err(FrameError::Flag(flag));
        }
        let len = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if len > self.max_message {
            return Err(FrameError::TooLarge { len, limit: self.max_message });
        }
        Ok(State::Body { compressed: flag == 1, len, gathered: BytesMut::new() })
    }
}

fn take_payload(frame: &mut Bytes, len: usize, gathered: &mut BytesMut) -> Option<Bytes> {
    if gathered.is_empty() && frame.len() >= len {
        return Some(frame.split_to(len));
    }
    if gathered.is_empty() {
        gathered.reserve(len.min(MAX_UPFRONT));
    }
    let count = frame.len().min(len - gathered.len());
    gathered.extend_from_slice(&frame[..count]);
    frame.advance(count);
    (gathered.len() == len).then(|| mem::take(gathered).freeze())
}
