//! A server's connection: one future that moves its bytes and runs its handlers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use futures::task::AtomicWaker;
use h2::RecvStream;
use h2::server::{Handshake, SendResponse};
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::call::{Answer, Running};
use super::{IncomingCall, RequestStream, Responder, ServerOptions, Service};
use crate::call::read_timeout;
use crate::frame::SendBuf;
use crate::stream::Receiving;
use crate::{Code, ConnectionError, Encoding, Metadata, Status};

/// Serves one client on `io`. The future that it returns must be polled until the client leaves.
pub fn serve_connection<T>(io: T, service: Arc<dyn Service>, options: ServerOptions) -> ServerConnection<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    ServerConnection {
        state: State::Handshake(options.h2().handshake(io)),
        calls: FuturesUnordered::new(),
        service,
        options,
        control: Arc::new(Control::default()),
    }
}

/// A connection that is served. Ends when the client leaves; with an error where it does not leave politely.
///
/// Handlers run within it, all on one task, unless [`ServerOptions::spawner`] says otherwise. One poll reads what has
/// arrived, lets every handler go on that it concerns, and leaves what they send to the next poll, for which they have woken
/// it: answers of many calls leave in few writes, and neither side waits for the other.
///
/// Dropping it closes the connection and drops its handlers.
#[must_use = "nothing is served unless it is polled"]
pub struct ServerConnection<T: AsyncRead + AsyncWrite + Unpin> {
    state: State<T>,
    calls: FuturesUnordered<Running>,
    service: Arc<dyn Service>,
    options: ServerOptions,
    control: Arc<Control>,
}

/// Ends a connection that is served from outside of its task.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    control: Arc<Control>,
}

enum State<T> {
    Handshake(Handshake<T, SendBuf>),
    Open(h2::server::Connection<T, SendBuf>),
    Closed,
}

#[derive(Debug, Default)]
struct Control {
    wish: AtomicU8,
    connection: AtomicWaker,
}

const SHUT_DOWN: u8 = 1;
const CLOSE: u8 = 2;

impl ServerHandle {
    /// Says goodbye (GOAWAY): calls in progress are answered, new ones are refused, then the connection is closed.
    pub fn shut_down(&self) {
        self.wish(SHUT_DOWN);
    }

    /// Closes the connection without a word, as a crash does.
    pub fn close(&self) {
        self.wish(CLOSE);
    }

    fn wish(&self, wish: u8) {
        self.control.wish.fetch_max(wish, Ordering::AcqRel);
        self.control.connection.wake();
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> ServerConnection<T> {
    /// A handle to end the connection from elsewhere.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { control: self.control.clone() }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.control.connection.register(cx.waker());
        let wish = self.control.wish.load(Ordering::Acquire);
        if wish == CLOSE {
            return Poll::Ready(Ok(()));
        }
        if let State::Handshake(handshake) = &mut self.state {
            match ready!(Pin::new(handshake).poll(cx)) {
                Ok(connection) => self.state = State::Open(connection),
                Err(error) => return Poll::Ready(end(&error)),
            }
        }
        if let State::Open(connection) = &mut self.state {
            if wish == SHUT_DOWN {
                // Without effect from the second time on.
                connection.graceful_shutdown();
            }
        }
        let ended = self.poll_accept(cx);
        self.poll_calls(cx);
        ended
    }

    /// Moves bytes, and starts the calls that arrive.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        let State::Open(connection) = &mut self.state else { return Poll::Ready(Ok(())) };
        loop {
            match ready!(connection.poll_accept(cx)) {
                Some(Ok((request, respond))) => {
                    let Some(running) = start(request, respond, &*self.service, &self.options) else { continue };
                    match &self.options.spawner {
                        Some(spawner) => spawner.spawn(Box::pin(running)),
                        None => self.calls.push(running),
                    }
                }
                Some(Err(error)) => return Poll::Ready(end(&error)),
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Lets handlers go on. Not without end: after each has had its turn, others get theirs.
    fn poll_calls(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(())) = self.calls.poll_next_unpin(cx) {}
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for ServerConnection<T> {
    type Output = Result<(), ConnectionError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(self.poll_end(cx));
        self.state = State::Closed;
        self.calls.clear();
        Poll::Ready(ended)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> fmt::Debug for ServerConnection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConnection").field("calls", &self.calls.len()).finish_non_exhaustive()
    }
}

/// A client that simply goes away is no error.
fn end(error: &h2::Error) -> Result<(), ConnectionError> {
    match ConnectionError::of_h2(error) {
        ConnectionError::ClosedByPeer => Ok(()),
        error => Err(error),
    }
}

/// Starts the handler of a request; answers requests that are no gRPC, or none that can be handled, itself.
fn start(
    request: Request<RecvStream>,
    mut respond: SendResponse<SendBuf>,
    service: &dyn Service,
    options: &ServerOptions,
) -> Option<Running> {
    if let Some(refusal) = refusal(&request) {
        let mut response = Response::new(());
        *response.status_mut() = refusal;
        let _ = respond.send_response(response, true);
        return None;
    }
    let (head, body) = request.into_parts();
    let encoding =
        if options.compression.is_accepted(&head.headers) { options.compression } else { Encoding::Identity };
    let answer = Arc::new(Answer::new(respond, encoding));
    match Encoding::announced(&head.headers) {
        Ok(received) => {
            let call = IncomingCall {
                uri: head.uri,
                timeout: read_timeout(&head.headers),
                metadata: Metadata::from_headers(head.headers),
                requests: RequestStream::new(Receiving::new(body, received, options.max_receive_message)),
            };
            let handler = service.call(call, Responder::new(answer.clone()));
            Some(Running { handler, answer })
        }
        Err(name) => {
            let message = format!("requests compressed with `{name}` are not supported");
            answer.finish(Status::new(Code::Unimplemented, message));
            None
        }
    }
}

fn refusal(request: &Request<RecvStream>) -> Option<StatusCode> {
    if request.method() != Method::POST {
        return Some(StatusCode::METHOD_NOT_ALLOWED);
    }
    (!is_grpc(request.headers())).then_some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
