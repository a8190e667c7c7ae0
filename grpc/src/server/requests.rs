//! The messages of a client.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::frame::FrameError;
use crate::stream::{ReceiveError, Receiving};
use crate::{Code, Status};

/// Receives the messages of a call on the server's side.
///
/// The client's window opens as messages are taken, so a handler that takes none holds the client back. Dropping it while
/// the client still sends tells the client to stop once the call is answered.
#[derive(Debug)]
pub struct RequestStream {
    messages: Receiving,
}

impl RequestStream {
    pub(super) fn new(messages: Receiving) -> Self {
        Self { messages }
    }

    /// The next message; `None` when the client has sent its last.
    ///
    /// # Errors
    /// A status to answer with: `Cancelled` where the client is gone, others where it violates the protocol or a limit. The
    /// same again if it is asked again.
    ///
    /// # Cancel safety
    /// Nothing is lost; it can be called again.
    pub async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// [`RequestStream::message`] as a poll. The task that polled last is woken.
    pub fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        self.messages.poll_message(cx).map_err(|error| status(&error))
    }

    /// The next message, decoded.
    ///
    /// # Errors
    /// As [`RequestStream::message`], and `Internal` where a message does not decode.
    ///
    /// # Cancel safety
    /// As [`RequestStream::message`].
    pub async fn decoded<T: prost::Message + Default>(&mut self) -> Result<Option<T>, Status> {
        let message = self.message().await?;
        message.map(T::decode).transpose().map_err(|error| Status::new(Code::Internal, error.to_string()))
    }

    /// The message of a call that has exactly one.
    ///
    /// # Errors
    /// As [`RequestStream::message`], and `Internal` where there is no message or more than one.
    ///
    /// # Cancel safety
    /// Nothing is lost but the message itself, if the future is dropped between the message and the client's end.
    pub async fn single(&mut self) -> Result<Bytes, Status> {
        let violation = |words: &str| Status::new(Code::Internal, words);
        let message = self.message().await?.ok_or_else(|| violation("the request has no message"))?;
        match self.message().await? {
            None => Ok(message),
            Some(_) => Err(violation("the request has more than one message")),
        }
    }
}

fn status(error: &ReceiveError) -> Status {
    let code = match error {
        ReceiveError::Http2(_) => Code::Cancelled,
        ReceiveError::Frame(FrameError::TooLarge { .. }) => Code::ResourceExhausted,
        ReceiveError::Frame(FrameError::Flag(_)) | ReceiveError::Decompress(_) | ReceiveError::Truncated => {
            Code::Internal
        }
    };
    Status::new(code, error.to_string())
}
