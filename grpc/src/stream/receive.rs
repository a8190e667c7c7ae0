//! DATA frames in, messages out.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;

use crate::compression::{DecompressError, Encoding};
use crate::frame::{Decoder, FrameError};

/// The receiving direction of a stream.
///
/// The peer may send more as soon as a frame is taken out of HTTP/2, and a frame is only taken out when all messages before
/// it have been handed on. So what is buffered is bounded by the window (plus the message being put together).
#[derive(Debug)]
pub(crate) struct Receiving {
    stream: RecvStream,
    decoder: Decoder,
    encoding: Encoding,
    max_message: usize,
}

impl From<DecompressError> for ReceiveError {
    fn from(error: DecompressError) -> Self {
        match error {
            #[cfg(feature = "gzip")]
            DecompressError::TooLarge { limit } => FrameError::TooLarge { len: limit.saturating_add(1), limit }.into(),
            error => ReceiveError::Decompress(error),
        }
    }
}

/// Why no further message can be received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("{0}")]
    Http2(h2::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Decompress(DecompressError),
    #[error("the stream ended within a message")]
    Truncated,
}

impl Receiving {
    pub(crate) fn new(stream: RecvStream, encoding: Encoding, max_message: usize) -> Self {
        Self { stream, decoder: Decoder::new(max_message), encoding, max_message }
    }

    /// The next message; `None` when the peer has sent its last.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ReceiveError>> {
        loop {
            if let Some(message) = self.decoder.next()? {
                return Poll::Ready(match message.compressed {
                    false => Ok(Some(message.payload)),
                    true => Ok(Some(self.encoding.decompress(message.payload, self.max_message)?)),
                });
            }
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(frame)) => {
                    // It only fails where the stream is gone, and the next poll says so.
                    let _ = self.stream.flow_control().release_capacity(frame.len());
                    self.decoder.push(frame);
                }
                Some(Err(error)) => return Poll::Ready(Err(ReceiveError::Http2(error))),
                None if self.decoder.is_within_message() => return Poll::Ready(Err(ReceiveError::Truncated)),
                None => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// What follows the last message.
    pub(crate) fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, ReceiveError>> {
        self.stream.poll_trailers(cx).map_err(ReceiveError::Http2)
    }
}
