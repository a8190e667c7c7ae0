//! The receiving half of a call.
//!
//! ```text
//!            headers              last message             trailers
//! Headers ───────────► Messages ───────────────► Trailers ──────────► Done
//!    │                     │                        │
//!    └─────────────────────┴────────────────────────┴───────────────► Failed
//!       a status that is not OK, a fault, a violation, the deadline
//! ```

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Response, StatusCode};

use super::Sender;
use super::channel::{Reply, decode};
use super::sender::SharedStream;
use super::shared::{Permit, Shared};
use crate::clock::Deadline;
use crate::error::{of_receiving, of_stream};
use crate::status::{code_of_http_status, read_status};
use crate::stream::{ReceiveError, Receiving};
use crate::{Encoding, Error, ErrorKind, Metadata, Status};

/// Receives the messages of a call, and how it ends.
///
/// A message that lies within one DATA frame is a slice of that frame, not a copy. (So a small message that is kept keeps
/// its whole frame in memory.)
///
/// Dropping it before the end cancels the call.
#[derive(Debug)]
pub struct Streaming {
    phase: Phase,
    /// The sending half, to reset the call although that half lives.
    sender: Option<Arc<SharedStream>>,
    permit: Option<Arc<Permit>>,
    shared: Arc<Shared>,
    deadline: Deadline,
    max_message: usize,
    headers: Metadata,
    /// The status that came with the headers although a body follows. It holds unless trailers say otherwise.
    early_status: Option<Status>,
    trailers: Metadata,
}

#[derive(Debug)]
enum Phase {
    Headers(ResponseFuture),
    Messages(Receiving),
    /// `truncated`: a message had begun when the last frame ended.
    Trailers {
        messages: Receiving,
        truncated: bool,
    },
    Done,
    Failed(Error),
}

impl Streaming {
    pub(super) fn new(
        response: ResponseFuture,
        sender: Option<&Sender>,
        permit: Arc<Permit>,
        deadline: Deadline,
        max_message: usize,
    ) -> Self {
        Self {
            phase: Phase::Headers(response),
            sender: sender.map(Sender::stream),
            shared: permit.0.clone(),
            permit: Some(permit),
            deadline,
            max_message,
            headers: Metadata::new(),
            early_status: None,
            trailers: Metadata::new(),
        }
    }

    /// The next message; `None` when the server has ended the call with OK.
    ///
    /// # Errors
    /// Every other end of the call. The same error again if it is asked again.
    ///
    /// # Cancel safety
    /// Nothing is lost; it can be called again. To cancel the call, drop the `Streaming`.
    pub async fn message(&mut self) -> Result<Option<Bytes>, Error> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// The next message, decoded. See [`Streaming::message`].
    ///
    /// # Errors
    /// Moreover [`ErrorKind::MalformedResponse`] where a message does not decode; the call is not ended by that.
    ///
    /// # Cancel safety
    /// As [`Streaming::message`].
    pub async fn decoded<T: prost::Message + Default>(&mut self) -> Result<Option<T>, Error> {
        self.message().await?.map(decode).transpose()
    }

    /// [`Streaming::message`] as a poll. The task that polled last is woken.
    pub fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        let polled = self.poll_stream(cx);
        // What has arrived is worth more than the deadline.
        if polled.is_pending() && self.deadline.poll_passed(cx).is_ready() {
            return Poll::Ready(self.fail(Error::after_sending(ErrorKind::DeadlineExceeded)));
        }
        polled
    }

    /// Waits for the metadata that the server sends before its first message (or, where it sends none, for the end).
    ///
    /// # Errors
    /// As [`Streaming::message`].
    ///
    /// # Cancel safety
    /// Nothing is lost; it can be called again.
    pub async fn headers(&mut self) -> Result<&Metadata, Error> {
        poll_fn(|cx| {
            let polled = self.poll_headers(cx);
            if polled.is_pending() && self.deadline.poll_passed(cx).is_ready() {
                return Poll::Ready(self.fail(Error::after_sending(ErrorKind::DeadlineExceeded)).map(drop));
            }
            polled
        })
        .await?;
        Ok(&self.headers)
    }

    /// The metadata that came with the status OK. Empty before the end; that of another status is in the status.
    pub fn trailers(&self) -> &Metadata {
        &self.trailers
    }

    /// Waits for the end of a call that is answered by exactly one message.
    ///
    /// # Errors
    /// As [`Streaming::message`], and [`ErrorKind::MalformedResponse`] where there is no message or more than one.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub async fn into_reply(mut self) -> Result<Reply, Error> {
        let Some(message) = self.message().await? else {
            return Err(malformed("the call ended with OK, but without a message"));
        };
        match self.message().await? {
            Some(_) => Err(malformed("there is more than one message")),
            None => Ok(Reply {
                message,
                headers: std::mem::take(&mut self.headers),
                trailers: std::mem::take(&mut self.trailers),
            }),
        }
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        loop {
            match &mut self.phase {
                Phase::Headers(_) => ready!(self.poll_headers(cx))?,
                Phase::Messages(messages) => match ready!(messages.poll_message(cx)) {
                    Ok(Some(message)) => return Poll::Ready(Ok(Some(message))),
                    Ok(None) => self.on_last_message(false),
                    Err(ReceiveError::Truncated) => self.on_last_message(true),
                    Err(error) => return Poll::Ready(self.on_fault(error)),
                },
                Phase::Trailers { messages, truncated } => {
                    let truncated = *truncated;
                    return Poll::Ready(match ready!(messages.poll_trailers(cx)) {
                        Ok(trailers) => self.on_trailers(trailers, truncated),
                        Err(error) => self.on_fault(error),
                    });
                }
                Phase::Done => return Poll::Ready(Ok(None)),
                Phase::Failed(error) => return Poll::Ready(Err(error.clone())),
            }
        }
    }

    /// Ready once the phase is another than `Headers`.
    fn poll_headers(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.phase {
            Phase::Headers(response) => Poll::Ready(match ready!(Pin::new(response).poll(cx)) {
                Ok(response) => self.on_response(response),
                Err(error) => self.on_fault(ReceiveError::Http2(error)).map(drop),
            }),
            Phase::Failed(error) => Poll::Ready(Err(error.clone())),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn on_response(&mut self, response: Response<RecvStream>) -> Result<(), Error> {
        let (parts, stream) = response.into_parts();
        if stream.is_end_stream() || parts.status != StatusCode::OK || !is_grpc(&parts.headers) {
            return self.on_status(read_status(parts.headers).map_err(|_| parts.status)).map(drop);
        }
        match Encoding::announced(&parts.headers) {
            Ok(encoding) => {
                match read_status(parts.headers) {
                    Ok(status) => self.early_status = Some(status),
                    Err(headers) => self.headers = Metadata::from_headers(headers),
                }
                self.phase = Phase::Messages(Receiving::new(stream, encoding, self.max_message));
                Ok(())
            }
            Err(name) => self.fail(Error::after_sending(ErrorKind::UnknownEncoding(name))).map(drop),
        }
    }

    fn on_last_message(&mut self, truncated: bool) {
        if let Phase::Messages(messages) = std::mem::replace(&mut self.phase, Phase::Done) {
            self.phase = Phase::Trailers { messages, truncated };
        }
    }

    fn on_trailers(&mut self, trailers: Option<HeaderMap>, truncated: bool) -> Result<Option<Bytes>, Error> {
        let late_status = trailers.and_then(|trailers| read_status(trailers).ok());
        match late_status.or_else(|| self.early_status.take()) {
            Some(status) if truncated && status.is_ok() => self.fail(malformed(&ReceiveError::Truncated.to_string())),
            status => self.on_status(status.ok_or(StatusCode::OK)),
        }
    }

    /// The end of the call: the server's status, or the HTTP status where it sent none.
    fn on_status(&mut self, status: Result<Status, StatusCode>) -> Result<Option<Bytes>, Error> {
        match status {
            Ok(status) if status.is_ok() => {
                self.trailers = status.metadata;
                self.end(Phase::Done);
                Ok(None)
            }
            Ok(status) => self.fail(Error::after_sending(ErrorKind::Status(status))),
            Err(http) => {
                let message = format!("the server sent no gRPC status, but HTTP status {http}");
                let status = Status::new(code_of_http_status(http), message);
                self.fail(Error::after_sending(ErrorKind::Status(status)))
            }
        }
    }

    fn on_fault(&mut self, error: ReceiveError) -> Result<Option<Bytes>, Error> {
        let error = match error {
            ReceiveError::Http2(error) => of_stream(&error, self.shared.close_reason()),
            error => of_receiving(error),
        };
        self.fail(error)
    }

    fn fail(&mut self, error: Error) -> Result<Option<Bytes>, Error> {
        if let Some(sender) = &self.sender {
            sender.cancel();
        }
        self.end(Phase::Failed(error.clone()));
        Err(error)
    }

    /// Gives back all that the call held.
    fn end(&mut self, phase: Phase) {
        self.phase = phase;
        self.sender = None;
        self.permit = None;
        self.deadline = Deadline::default();
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        // Without a sending half, HTTP/2 resets the stream by itself when the last handle is dropped.
        if let Some(sender) = &self.sender {
            sender.cancel();
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn malformed(reason: &str) -> Error {
    Error::after_sending(ErrorKind::MalformedResponse(reason.to_owned()))
}
