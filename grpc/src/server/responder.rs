//! The answer to a client.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::call::Answer;
use crate::frame::{Batch, SendBuf};
use crate::options::MAX_SEND;
use crate::{Code, Metadata, Status};

/// Answers a call: any number of messages, then a status.
///
/// It can be moved to where the answer arises; the handler that got it can end before. Sending never waits by itself: what
/// is sent is buffered. Whoever sends much calls [`Responder::ready`] before each message or batch.
///
/// Dropping it without [`Responder::finish`] answers with the status `Unknown`.
#[derive(Debug)]
pub struct Responder {
    answer: Arc<Answer>,
    finished: bool,
}

impl Responder {
    pub(super) fn new(answer: Arc<Answer>) -> Self {
        Self { answer, finished: false }
    }

    /// Sets the metadata that goes before the first message. Without effect once a message is sent.
    pub fn set_metadata(&mut self, metadata: Metadata) {
        self.answer.set_metadata(metadata);
    }

    /// Sends the metadata now, before there is a message.
    ///
    /// # Errors
    /// `Cancelled` where the client is gone.
    pub fn send_metadata(&mut self) -> Result<(), Status> {
        self.answer.start()
    }

    /// Waits for room: less than `ServerOptions::send_buffer` is buffered, and the client's window is open.
    ///
    /// # Errors
    /// `Cancelled` where the client is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost; it can be called again.
    pub async fn ready(&mut self) -> Result<(), Status> {
        poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// [`Responder::ready`] as a poll. The task that polled last is woken.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.answer.poll_room(cx)
    }

    /// Sends a message, without copying it.
    ///
    /// # Errors
    /// `Cancelled` where the client is gone, `ResourceExhausted` where the message is longer than 2 GiB.
    pub fn send(&mut self, message: Bytes) -> Result<(), Status> {
        check_length(message.len())?;
        let (compressed, message) = self.answer.encoding().compress(message);
        self.answer.send(SendBuf::message(compressed, message))
    }

    /// Encodes a message (in one allocation) and sends it.
    ///
    /// # Errors
    /// As [`Responder::send`].
    pub fn send_encoded(&mut self, message: &impl prost::Message) -> Result<(), Status> {
        check_length(message.encoded_len())?;
        let mut batch = self.batch();
        batch.push_encoded(message);
        self.answer.send(batch.into_buf())
    }

    /// Sends several messages at once: they share DATA frames. An empty batch sends nothing.
    ///
    /// # Errors
    /// As [`Responder::send`]; the limit holds for the batch.
    pub fn send_batch(&mut self, batch: Batch) -> Result<(), Status> {
        check_length(batch.len())?;
        match batch.is_empty() {
            true => Ok(()),
            false => self.answer.send(batch.into_buf()),
        }
    }

    /// A batch whose messages are compressed as this call demands.
    pub fn batch(&self) -> Batch {
        Batch::with_encoding(self.answer.encoding())
    }

    /// Ends the call.
    pub fn finish(mut self, status: Status) {
        self.finished = true;
        self.answer.finish(status);
    }

    /// Ends the call with one message and OK, or with a status.
    pub fn reply(mut self, answer: Result<Bytes, Status>) {
        let status = answer.and_then(|message| self.send(message));
        self.finish(status.err().unwrap_or_else(Status::ok));
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.finished {
            self.answer.finish(Status::new(Code::Unknown, "the handler ended without an answer"));
        }
    }
}

fn check_length(len: usize) -> Result<(), Status> {
    match len <= MAX_SEND {
        true => Ok(()),
        false => Err(Status::new(Code::ResourceExhausted, format!("cannot send {len} bytes at once"))),
    }
}
