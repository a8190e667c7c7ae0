//! One HTTP/2 connection and the two streams on it, all on one task.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{Method, Request, Version};
use tikv_bench_load::Failure;
use tokio::net::TcpStream;

use crate::exchange::Exchange;

/// A byte and a length before each message of gRPC.
const PREFIX_BYTES: usize = 5;

/// Connects to the server that is PD and store at once. What this returns must be run; it ends when the connection does.
pub(crate) async fn open(address: &str, exchange: Arc<Exchange>) -> Result<impl Future<Output = ()> + use<>, Failure> {
    let io = TcpStream::connect(address).await?;
    io.set_nodelay(true)?;
    let mut builder = Builder::new();
    builder.initial_window_size(16 << 20).initial_connection_window_size(64 << 20);
    let (mut requests, connection) = builder.handshake::<_, Bytes>(io).await?;
    let mut batches = Stream::open(&mut requests, "/tikvpb.Tikv/BatchCommands")?;
    let mut timestamps = Stream::open(&mut requests, "/pdpb.PD/Tso")?;
    Ok(async move {
        // The connection ends with the last handle.
        let _requests = requests;
        let mut connection = pin!(connection);
        poll_fn(|cx| {
            exchange.task.register(cx.waker());
            if poll_streams(cx, &exchange, &mut batches, &mut timestamps).is_err() {
                return Poll::Ready(());
            }
            connection.as_mut().poll(cx).map(drop)
        })
        .await;
    })
}

fn poll_streams(
    cx: &mut Context<'_>,
    exchange: &Exchange,
    batches: &mut Stream,
    timestamps: &mut Stream,
) -> Result<(), Failure> {
    while let Poll::Ready(frame) = batches.poll_message(cx)? {
        exchange.receive_frame(frame)?;
    }
    while let Poll::Ready(message) = timestamps.poll_message(cx)? {
        exchange.receive_timestamps(message)?;
    }
    while let Some(frame) = exchange.take_frame() {
        batches.send(&frame)?;
    }
    while let Some(request) = exchange.take_timestamp_request() {
        timestamps.send(&request)?;
    }
    Ok(())
}

struct Stream {
    sending: SendStream<Bytes>,
    receiving: Receiving,
    /// Received and not cut into messages yet.
    received: BytesMut,
}

enum Receiving {
    Headers(ResponseFuture),
    Data(RecvStream),
}

impl Stream {
    fn open(requests: &mut SendRequest<Bytes>, path: &str) -> Result<Self, Failure> {
        let request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://floor{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (response, sending) = requests.send_request(request, false)?;
        Ok(Stream { sending, receiving: Receiving::Headers(response), received: BytesMut::new() })
    }

    /// More than the server's window is kept by `h2`, however much it is.
    fn send(&mut self, message: &[u8]) -> Result<(), Failure> {
        let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len())?);
        framed.put_slice(message);
        Ok(self.sending.send_data(framed.freeze(), false)?)
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Result<Poll<Bytes>, Failure> {
        loop {
            if let Some(message) = cut(&mut self.received) {
                return Ok(Poll::Ready(message));
            }
            match self.poll_data(cx) {
                Poll::Ready(data) => self.received.extend_from_slice(&data?),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Failure>> {
        if let Receiving::Headers(response) = &mut self.receiving {
            let response = ready!(pin!(response).poll(cx))?;
            self.receiving = Receiving::Data(response.into_body());
        }
        let Receiving::Data(stream) = &mut self.receiving else { return Poll::Pending };
        let data = ready!(stream.poll_data(cx)).ok_or("the server ended the stream")??;
        stream.flow_control().release_capacity(data.len())?;
        Poll::Ready(Ok(data))
    }
}

/// The first message, if it is whole.
fn cut(received: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(received.get(1..PREFIX_BYTES)?.try_into().ok()?);
    let end = PREFIX_BYTES + usize::try_from(length).ok()?;
    if received.len() < end {
        return None;
    }
    let mut message = received.split_to(end);
    message.advance(PREFIX_BYTES);
    Some(message.freeze())
}
