//! The handle for calls.

use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::task::noop_waker_ref;
use h2::client::SendRequest;

use super::call::{Opened, open};
use super::request::Template;
use super::shared::Shared;
use super::{Sender, Streaming};
use crate::frame::SendBuf;
use crate::options::MAX_SEND;
use crate::{Call, ConnectionError, Error, ErrorKind, Metadata, Options};

/// Makes calls on a connection. A clone is cheap and means the same connection; when the last one (and the last call) is
/// dropped, the connection is closed.
///
/// A call that cannot start because the connection is gone fails with [`ErrorKind::Connection`] and
/// [`Error::not_sent`]: nothing here connects again.
#[derive(Clone)]
pub struct Channel {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) requests: SendRequest<SendBuf>,
    pub(super) shared: Arc<Shared>,
    pub(super) template: Template,
    pub(super) options: Options,
}

/// The answer to a call that is answered by one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<T = Bytes> {
    /// The message.
    pub message: T,
    /// The metadata that the server sent before the message.
    pub headers: Metadata,
    /// The metadata that the server sent behind the message.
    pub trailers: Metadata,
}

impl Channel {
    pub(super) fn new(requests: SendRequest<SendBuf>, shared: Arc<Shared>, options: Options) -> Result<Self, Error> {
        let template = Template::new(&options)?;
        Ok(Self { inner: Arc::new(Inner { requests, shared, template, options }) })
    }

    pub(super) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.inner)
    }

    /// Sends one message and waits for the one that answers it.
    ///
    /// # Errors
    /// Every status but OK; all that [`ErrorKind`] lists.
    ///
    /// # Cancel safety
    /// Dropping the future resets the stream; whether the server executed the request is then unknown. Nothing is sent
    /// before the first poll.
    pub async fn unary(&self, call: Call, request: Bytes) -> Result<Reply, Error> {
        self.server_streaming(call, request).await?.into_reply().await
    }

    /// Like [`Channel::unary`], with messages that are encoded and decoded here.
    ///
    /// # Errors
    /// Moreover [`ErrorKind::MalformedResponse`] where the response does not decode.
    ///
    /// # Cancel safety
    /// As [`Channel::unary`].
    pub async fn unary_encoded<Request, Response>(
        &self,
        call: Call,
        request: &Request,
    ) -> Result<Reply<Response>, Error>
    where
        Request: prost::Message,
        Response: prost::Message + Default,
    {
        self.check_length(request.encoded_len())?;
        let request = match self.inner.options.compression {
            crate::Encoding::Identity => SendBuf::encoded(request),
            #[cfg(feature = "gzip")]
            _ => self.framed(request.encode_to_vec().into()),
        };
        let reply = self.start(call, request).await?.into_reply().await?;
        let message = decode(reply.message)?;
        Ok(Reply { message, headers: reply.headers, trailers: reply.trailers })
    }

    /// Sends one message and gives the stream of those that answer it.
    ///
    /// Waits only where the server allows no further stream now; the server's answer is not awaited.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready sends nothing, or resets the stream.
    pub async fn server_streaming(&self, call: Call, request: Bytes) -> Result<Streaming, Error> {
        self.check_length(request.len())?;
        self.start(call, self.framed(request)).await
    }

    /// Opens a call in which both sides send as many messages as they like, when they like.
    ///
    /// Waits only where the server allows no further stream now; the server's answer is not awaited. For a call in which
    /// only this side streams, use [`Sender::finish`] and [`Streaming::into_reply`].
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready sends nothing, or resets the stream.
    pub async fn bidirectional(&self, call: Call) -> Result<(Sender, Streaming), Error> {
        let opened = open(&self.inner, call).await?;
        let options = &self.inner.options;
        let permit = Arc::new(opened.permit);
        let max_send = options.max_send_message.min(MAX_SEND);
        let sender = Sender::new(opened.send, permit.clone(), options.compression, max_send);
        let streaming =
            Streaming::new(opened.response, Some(&sender), permit, opened.deadline, options.max_receive_message);
        Ok((sender, streaming))
    }

    /// Whether new calls are sure to fail: the connection is closed, or the server says goodbye. Never waits.
    pub fn is_closed(&self) -> bool {
        self.inner.shared.is_closed() || self.inner.refusal().is_some()
    }

    /// Why [`Channel::is_closed`]. `None` while it is not.
    pub fn close_reason(&self) -> Option<ConnectionError> {
        self.inner.shared.close_reason().or_else(|| self.inner.refusal())
    }

    /// Closes the connection at once. Calls in progress fail with [`ConnectionError::Closed`], on all clones. Takes effect
    /// when the [`Driver`](super::Driver) is polled next.
    pub fn close(&self) {
        self.inner.shared.request_close();
    }

    /// How many calls are in progress, streams included, queued calls not.
    pub fn calls(&self) -> usize {
        self.inner.shared.admission.open()
    }

    async fn start(&self, call: Call, request: SendBuf) -> Result<Streaming, Error> {
        let Opened { mut send, response, permit, deadline } = open(&self.inner, call).await?;
        // It only fails where the stream is gone again, and then the response says why.
        let _ = send.send_data(request, true);
        Ok(Streaming::new(response, None, Arc::new(permit), deadline, self.inner.options.max_receive_message))
    }

    fn framed(&self, request: Bytes) -> SendBuf {
        let (compressed, request) = self.inner.options.compression.compress(request);
        SendBuf::message(compressed, request)
    }

    fn check_length(&self, len: usize) -> Result<(), Error> {
        let limit = self.inner.options.max_send_message.min(MAX_SEND);
        match len <= limit {
            true => Ok(()),
            false => Err(Error::before_sending(ErrorKind::MessageTooLarge { len, limit })),
        }
    }
}

pub(super) fn decode<T: prost::Message + Default>(message: Bytes) -> Result<T, Error> {
    T::decode(message).map_err(|error| Error::after_sending(ErrorKind::MalformedResponse(error.to_string())))
}

impl Inner {
    /// Why HTTP/2 would not start another stream.
    pub(super) fn refusal(&self) -> Option<ConnectionError> {
        // It answers at once, because this clone has no stream that it could wait for.
        match self.requests.clone().poll_ready(&mut Context::from_waker(noop_waker_ref())) {
            Poll::Ready(Err(error)) => Some(ConnectionError::of_h2(&error)),
            _ => None,
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("authority", &self.inner.options.authority)
            .field("calls", &self.calls())
            .field("close_reason", &self.close_reason())
            .finish()
    }
}
