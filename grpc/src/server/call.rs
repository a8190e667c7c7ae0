//! A call in progress: what its responder and its connection share.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response};

use super::Handler;
use crate::frame::SendBuf;
use crate::status::write_status;
use crate::stream::send;
use crate::{Code, Encoding, Metadata, Status};

/// The sending direction of a call.
#[derive(Debug)]
pub(super) struct Answer {
    phase: Mutex<Phase>,
    encoding: Encoding,
    wakers: Arc<Wakers>,
    /// Wakes all of `wakers`.
    waker: Waker,
}

enum Phase {
    /// No headers yet.
    Headers(SendResponse<SendBuf>, Metadata),
    Messages(SendStream<SendBuf>),
    Done,
}

/// HTTP/2 remembers one task per direction of a stream, but two may wait here: the responder for room, and the connection
/// for the client's cancellation.
#[derive(Debug, Default)]
struct Wakers {
    room: AtomicWaker,
    cancelled: AtomicWaker,
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.room.wake();
        self.cancelled.wake();
    }
}

impl Answer {
    pub(super) fn new(respond: SendResponse<SendBuf>, encoding: Encoding) -> Self {
        let wakers = Arc::new(Wakers::default());
        let waker = Waker::from(wakers.clone());
        Self { phase: Mutex::new(Phase::Headers(respond, Metadata::new())), encoding, wakers, waker }
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Ready when there is room for a message.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.wakers.room.register(cx.waker());
        match &mut *self.lock() {
            Phase::Headers(..) => Poll::Ready(Ok(())),
            Phase::Messages(stream) => {
                send::poll_ready(stream, &mut Context::from_waker(&self.waker)).map_err(|send::Closed| cancelled())
            }
            Phase::Done => Poll::Ready(Err(cancelled())),
        }
    }

    /// Ready when the client is gone: it reset the stream or the connection is lost. Never, once the call is answered.
    fn poll_cancelled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.wakers.cancelled.register(cx.waker());
        let cx = &mut Context::from_waker(&self.waker);
        match &mut *self.lock() {
            Phase::Headers(respond, _) => respond.poll_reset(cx).map(drop),
            Phase::Messages(stream) => stream.poll_reset(cx).map(drop),
            Phase::Done => Poll::Pending,
        }
    }

    /// Sets what is sent before the first message. Too late, and without effect, once that is sent.
    pub(super) fn set_metadata(&self, metadata: Metadata) {
        if let Phase::Headers(_, headers) = &mut *self.lock() {
            *headers = metadata;
        }
    }

    /// Sends the headers, if that has not happened.
    pub(super) fn start(&self) -> Result<(), Status> {
        self.stream(&mut self.lock()).map(drop)
    }

    pub(super) fn send(&self, buf: SendBuf) -> Result<(), Status> {
        self.stream(&mut self.lock())?.send_data(buf, false).map_err(|_| cancelled())
    }

    /// Ends the call. It fails only where the client is gone, and then nobody wants to know.
    pub(super) fn finish(&self, status: Status) {
        match mem::replace(&mut *self.lock(), Phase::Done) {
            Phase::Headers(mut respond, metadata) => {
                let mut headers = metadata.into_headers();
                headers.extend(write_status(status));
                let _ = respond.send_response(response(headers, self.encoding), true);
            }
            Phase::Messages(mut stream) => {
                if stream.send_trailers(write_status(status)).is_err() {
                    stream.send_reset(Reason::INTERNAL_ERROR);
                }
            }
            Phase::Done => {}
        }
    }

    fn stream<'a>(&self, phase: &'a mut Phase) -> Result<&'a mut SendStream<SendBuf>, Status> {
        if let Phase::Headers(respond, metadata) = phase {
            let headers = mem::take(metadata).into_headers();
            let stream = respond.send_response(response(headers, self.encoding), false).map_err(|_| cancelled())?;
            *phase = Phase::Messages(stream);
        }
        match phase {
            Phase::Messages(stream) => Ok(stream),
            Phase::Headers(..) | Phase::Done => Err(cancelled()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn response(mut headers: HeaderMap, encoding: Encoding) -> Response<()> {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    encoding.announce(&mut headers);
    let mut response = Response::new(());
    *response.headers_mut() = headers;
    response
}

pub(super) fn cancelled() -> Status {
    Status::new(Code::Cancelled, "the client is gone")
}

impl std::fmt::Debug for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Headers(..) => "Headers",
            Phase::Messages(_) => "Messages",
            Phase::Done => "Done",
        })
    }
}

/// A handler, dropped as soon as its client is gone.
pub(super) struct Running {
    pub(super) handler: Handler,
    pub(super) answer: Arc<Answer>,
}

impl Future for Running {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.handler.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.answer.poll_cancelled(cx),
        }
    }
}
