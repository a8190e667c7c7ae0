//! The sending half of a bidirectional call.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};

use super::shared::Permit;
use crate::frame::{Batch, SendBuf};
use crate::stream::send;
use crate::{Encoding, Error, ErrorKind};

/// Sends the messages of a bidirectional call.
///
/// Sending never waits by itself: what is sent is buffered. Whoever sends much calls [`Sender::ready`] (or
/// [`Sender::poll_ready`]) before each message or batch, and so does not send faster than the server takes it.
///
/// The errors of this half speak of the messages at hand: [`Error::not_sent`] says that they did not go out, which is so
/// for all of them. How the call ended is said by the receiving half.
///
/// Dropping it before [`Sender::finish`] cancels the call.
#[derive(Debug)]
pub struct Sender {
    stream: Arc<SharedStream>,
    encoding: Encoding,
    max_message: usize,
    finished: bool,
    _permit: Arc<Permit>,
}

/// Both halves of a call can reset it.
#[derive(Debug)]
pub(super) struct SharedStream(Mutex<SendStream<SendBuf>>);

impl Sender {
    pub(super) fn new(
        stream: SendStream<SendBuf>,
        permit: Arc<Permit>,
        encoding: Encoding,
        max_message: usize,
    ) -> Self {
        let stream = Arc::new(SharedStream(Mutex::new(stream)));
        Self { stream, encoding, max_message, finished: false, _permit: permit }
    }

    /// Waits for room: less than `Options::send_buffer` is buffered, and the server's window is open.
    ///
    /// # Errors
    /// [`ErrorKind::Ended`].
    ///
    /// # Cancel safety
    /// Nothing is lost; it can be called again.
    pub async fn ready(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// [`Sender::ready`] as a poll. The task that polled last is woken.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        send::poll_ready(&mut self.stream.lock(), cx).map_err(|send::Closed| ended())
    }

    /// Sends a message, as is: neither its bytes are copied, nor is anything allocated.
    ///
    /// # Errors
    /// [`ErrorKind::Ended`], [`ErrorKind::MessageTooLarge`].
    pub fn send(&mut self, message: Bytes) -> Result<(), Error> {
        self.check_length(message.len())?;
        let (compressed, message) = self.encoding.compress(message);
        self.send_buf(SendBuf::message(compressed, message))
    }

    /// Encodes a message (in one allocation) and sends it.
    ///
    /// # Errors
    /// [`ErrorKind::Ended`], [`ErrorKind::MessageTooLarge`].
    pub fn send_encoded(&mut self, message: &impl prost::Message) -> Result<(), Error> {
        self.check_length(message.encoded_len())?;
        let mut batch = self.batch();
        batch.push_encoded(message);
        self.send_buf(batch.into_buf())
    }

    /// Sends several messages at once: they share DATA frames. An empty batch sends nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Ended`]; [`ErrorKind::MessageTooLarge`] if one of them is, or all together are longer than 2 GiB. None
    /// of them is sent then.
    pub fn send_batch(&mut self, batch: Batch) -> Result<(), Error> {
        self.check_length(batch.largest())?;
        check(batch.len(), crate::options::MAX_SEND)?;
        match batch.is_empty() {
            true => Ok(()),
            false => self.send_buf(batch.into_buf()),
        }
    }

    /// A batch whose messages are compressed as this call demands. (One from [`Batch::new`] is sent uncompressed, which
    /// every receiver understands.)
    pub fn batch(&self) -> Batch {
        Batch::with_encoding(self.encoding)
    }

    /// Says that no more messages follow. The server can still send.
    ///
    /// # Errors
    /// [`ErrorKind::Ended`].
    pub fn finish(mut self) -> Result<(), Error> {
        self.finished = true;
        self.stream.lock().send_data(SendBuf::empty(), true).map_err(|_| ended())
    }

    pub(super) fn stream(&self) -> Arc<SharedStream> {
        self.stream.clone()
    }

    fn send_buf(&mut self, buf: SendBuf) -> Result<(), Error> {
        self.stream.lock().send_data(buf, false).map_err(|_| ended())
    }

    fn check_length(&self, len: usize) -> Result<(), Error> {
        check(len, self.max_message)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.finished {
            self.stream.cancel();
        }
    }
}

impl SharedStream {
    /// Resets the stream, unless it is over.
    pub(super) fn cancel(&self) {
        self.lock().send_reset(Reason::CANCEL);
    }

    fn lock(&self) -> MutexGuard<'_, SendStream<SendBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(len: usize, limit: usize) -> Result<(), Error> {
    match len <= limit {
        true => Ok(()),
        false => Err(Error::before_sending(ErrorKind::MessageTooLarge { len, limit })),
    }
}

fn ended() -> Error {
    Error::before_sending(ErrorKind::Ended)
}
