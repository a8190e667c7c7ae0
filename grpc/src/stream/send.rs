//! Back-pressure of the sending direction.

use std::task::{Context, Poll};

use h2::SendStream;

use crate::frame::SendBuf;

/// The stream takes nothing any more: it is reset, or its connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// Ready when the stream has room: less is buffered than `send_buffer`, and the peer's window is open.
///
/// One byte of room is enough. What is sent then is buffered whole, so a stream buffers at most one batch above its limit.
/// Reserving more would take it away from the other streams of the connection.
pub(crate) fn poll_ready(stream: &mut SendStream<SendBuf>, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
    if stream.capacity() > 0 {
        return Poll::Ready(Ok(()));
    }
    stream.reserve_capacity(1);
    match stream.poll_capacity(cx) {
        Poll::Ready(Some(Ok(_))) => Poll::Ready(Ok(())),
        Poll::Ready(Some(Err(_)) | None) => Poll::Ready(Err(Closed)),
        Poll::Pending => Poll::Pending,
    }
}
