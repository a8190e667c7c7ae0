//! A server of bare HTTP/2, to answer in ways in which no gRPC server does.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use tokio::io::DuplexStream;

use super::Tasks;

/// Requests that arrived, in order.
#[derive(Clone, Default)]
pub(crate) struct RawServer(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    requests: VecDeque<(Request<RecvStream>, SendResponse<Bytes>)>,
    waiting: Option<Waker>,
    command: Option<Command>,
    connection: Option<Waker>,
    frozen: bool,
}

enum Command {
    Abort(Reason),
    Freeze,
}

pub(crate) struct RawCall {
    pub(crate) request: Request<()>,
    pub(crate) body: RecvStream,
    pub(crate) respond: SendResponse<Bytes>,
}

impl RawServer {
    pub(crate) fn serve(tasks: &Tasks, io: DuplexStream) -> Self {
        Self::serve_with(tasks, io, &h2::server::Builder::new())
    }

    pub(crate) fn serve_with(tasks: &Tasks, io: DuplexStream, builder: &h2::server::Builder) -> Self {
        let server = Self::default();
        let (state, handshake) = (server.clone(), builder.handshake(io));
        tasks.spawn(async move {
            let connection = handshake.await.expect("a client's preface");
            state.drive(connection).await;
        });
        server
    }

    async fn drive(&self, mut connection: Connection<DuplexStream, Bytes>) {
        poll_fn(|cx| {
            self.0.borrow_mut().connection = Some(cx.waker().clone());
            let command = self.0.borrow_mut().command.take();
            match command {
                Some(Command::Abort(reason)) => connection.abrupt_shutdown(reason),
                Some(Command::Freeze) => self.0.borrow_mut().frozen = true,
                None => {}
            }
            if self.0.borrow().frozen {
                return Poll::Pending;
            }
            loop {
                match connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok(request))) => {
                        let mut state = self.0.borrow_mut();
                        state.requests.push_back(request);
                        state.waiting.take().into_iter().for_each(Waker::wake);
                    }
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }

    fn command(&self, command: Command) {
        let mut state = self.0.borrow_mut();
        state.command = Some(command);
        state.connection.take().into_iter().for_each(Waker::wake);
    }

    /// Says goodbye and closes.
    pub(crate) fn abort(&self, reason: Reason) {
        self.command(Command::Abort(reason));
    }

    /// Keeps the connection open, but neither reads nor writes any more.
    pub(crate) fn freeze(&self) {
        self.command(Command::Freeze);
    }

    pub(crate) async fn accept(&self) -> RawCall {
        let (request, respond) = poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            match state.requests.pop_front() {
                Some(request) => Poll::Ready(request),
                None => {
                    state.waiting = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        let (head, body) = request.into_parts();
        RawCall { request: Request::from_parts(head, ()), body, respond }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.0.borrow().requests.is_empty()
    }
}

impl RawCall {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.request.headers().get(name).map(|value| value.to_str().expect("text"))
    }

    /// Everything that the client sends.
    pub(crate) async fn read_to_end(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(data) = self.body.data().await {
            let data = data.expect("data");
            self.body.flow_control().release_capacity(data.len()).expect("capacity");
            body.extend_from_slice(&data);
        }
        body
    }

    /// The next DATA frame.
    pub(crate) async fn read(&mut self) -> Bytes {
        let data = self.body.data().await.expect("more data").expect("data");
        self.body.flow_control().release_capacity(data.len()).expect("capacity");
        data
    }

    pub(crate) fn respond(&mut self) -> SendStream<Bytes> {
        self.respond.send_response(grpc_headers(&[]), false).expect("a stream that is open")
    }

    pub(crate) fn respond_with(&mut self, headers: &[(&'static str, &str)]) -> SendStream<Bytes> {
        self.respond.send_response(grpc_headers(headers), false).expect("a stream that is open")
    }

    /// Answers with headers that are trailers as well.
    pub(crate) fn respond_trailers_only(&mut self, headers: &[(&'static str, &str)]) {
        self.respond.send_response(grpc_headers(headers), true).expect("a stream that is open");
    }
}

pub(crate) fn grpc_headers(more: &[(&'static str, &str)]) -> Response<()> {
    let mut response = Response::new(());
    *response.headers_mut() = headers(more);
    response.headers_mut().entry("content-type").or_insert(HeaderValue::from_static("application/grpc"));
    response
}

pub(crate) fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header"));
    }
    headers
}

pub(crate) fn ok() -> HeaderMap {
    headers(&[("grpc-status", "0")])
}

/// A message with its prefix.
pub(crate) fn framed(message: impl AsRef<[u8]>) -> Bytes {
    let message = message.as_ref();
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).expect("a short message").to_be_bytes());
    framed.extend_from_slice(message);
    framed.into()
}
