//! A connection and the task that drives it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use super::Channel;
use super::channel::Inner;
use super::keep_alive::{Observed, Watch};
use super::shared::Shared;
use crate::error::of_stream;
use crate::frame::SendBuf;
use crate::{ConnectionError, Error, Options};

/// How a gRPC connection begins. See [`Connection::handshake`].
#[derive(Clone, Copy, Debug)]
pub struct Connection;

/// Moves the bytes of a connection. It must be polled (typically: spawned) for anything to happen on the connection.
///
/// Ends, with the reason, when the connection is closed by either side. Dropping it closes the connection: all calls fail
/// with [`ConnectionError::Closed`].
#[must_use = "nothing happens on a connection whose driver is not polled"]
pub struct Driver<T: AsyncRead + AsyncWrite + Unpin> {
    /// None once the connection is closed.
    connection: Option<h2::client::Connection<Observed<T>, SendBuf>>,
    watch: Option<Watch>,
    shared: Arc<Shared>,
    /// Weak, because the connection ends with its last channel.
    channel: Weak<Inner>,
}

impl Connection {
    /// Starts HTTP/2 on `io`: a TCP stream, a TLS stream, anything. Sends the client's preface and does not wait for the
    /// server's: a server that speaks something else is noticed by the [`Driver`].
    ///
    /// # Errors
    /// [`ErrorKind::Connection`](crate::ErrorKind::Connection) where writing fails,
    /// [`ErrorKind::InvalidCall`](crate::ErrorKind::InvalidCall) where the authority or the user agent in `options` cannot
    /// be sent. In both cases nothing was executed.
    ///
    /// # Cancel safety
    /// Dropping the future drops `io`.
    pub async fn handshake<T>(io: T, options: Options) -> Result<(Channel, Driver<T>), Error>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let (io, activity) = Observed::new(io);
        let handshake = options.h2().handshake::<_, SendBuf>(io).await;
        let (requests, mut connection) =
            handshake.map_err(|error| Error::before_sending(of_stream(&error, None).into_kind()))?;
        let watch = Watch::new(&options, activity, || connection.ping_pong());
        let shared = Arc::new(Shared::new(options.max_queued_calls));
        let channel = Channel::new(requests, shared.clone(), options)?;
        let driver = Driver { connection: Some(connection), watch, shared, channel: channel.downgrade() };
        Ok((channel, driver))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionError> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(self.shared.close_reason().unwrap_or(ConnectionError::Closed));
        };
        self.shared.driver.register(cx.waker());
        if self.shared.is_close_requested() {
            return Poll::Ready(ConnectionError::Closed);
        }
        if let Poll::Ready(end) = Pin::new(&mut *connection).poll(cx) {
            return Poll::Ready(match end {
                Err(error) => ConnectionError::of_h2(&error),
                Ok(()) => match self.channel.upgrade() {
                    Some(channel) => channel.refusal().unwrap_or(ConnectionError::ClosedByPeer),
                    None => ConnectionError::Closed,
                },
            });
        }
        self.shared.admission.set_limit(connection.max_concurrent_send_streams());
        match &mut self.watch {
            Some(watch) => watch.poll_lost(cx, || self.shared.admission.open() > 0),
            None => Poll::Pending,
        }
    }

    /// The reason is recorded before the streams learn of the end, so that they can tell it.
    fn close(&mut self, reason: ConnectionError) {
        self.shared.set_closed(reason);
        self.connection = None;
        self.watch = None;
        self.shared.admission.close();
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Driver<T> {
    type Output = ConnectionError;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_end(cx).map(|reason| {
            self.close(reason.clone());
            self.shared.close_reason().unwrap_or(reason)
        })
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Drop for Driver<T> {
    fn drop(&mut self) {
        self.close(ConnectionError::Closed);
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> fmt::Debug for Driver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("shared", &self.shared).finish_non_exhaustive()
    }
}
