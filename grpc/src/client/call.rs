//! How a call gets its stream.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use h2::SendStream;
use h2::client::ResponseFuture;

use super::admission::{QueueFull, Ticket};
use super::channel::Inner;
use super::shared::{Permit, Shared};
use crate::clock::Deadline;
use crate::error::of_stream;
use crate::frame::SendBuf;
use crate::{Call, Error, ErrorKind};

/// A call whose HEADERS were handed to the connection.
pub(super) struct Opened {
    pub(super) send: SendStream<SendBuf>,
    pub(super) response: ResponseFuture,
    pub(super) permit: Permit,
    pub(super) deadline: Deadline,
}

/// Waits for a slot and opens the stream. Whatever goes wrong here, nothing was sent.
pub(super) async fn open(channel: &Inner, call: Call) -> Result<Opened, Error> {
    let mut deadline = Deadline::after(call.timeout, channel.options.clock.as_ref());
    let request = channel.template.request(call)?;
    let permit = enter(channel, &mut deadline).await?;
    let opened = channel.requests.clone().send_request(request, false);
    let (response, send) = opened.map_err(|error| refused(&error, channel))?;
    Ok(Opened { send, response, permit, deadline })
}

async fn enter(channel: &Inner, deadline: &mut Deadline) -> Result<Permit, Error> {
    let mut waiting = Waiting { shared: &channel.shared, ticket: Ticket::default() };
    poll_fn(|cx| {
        if deadline.poll_passed(cx).is_ready() {
            return Poll::Ready(Err(Error::before_sending(ErrorKind::DeadlineExceeded)));
        }
        waiting.poll(cx)
    })
    .await
}

/// Leaves the queue when dropped.
struct Waiting<'a> {
    shared: &'a Arc<Shared>,
    ticket: Ticket,
}

impl Waiting<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Permit, Error>> {
        self.shared.admission.poll_enter(cx, &mut self.ticket).map(|entered| match entered {
            Ok(()) => Ok(Permit(self.shared.clone())),
            Err(QueueFull(waiting)) => Err(Error::before_sending(ErrorKind::TooManyCalls(waiting))),
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.admission.leave(&mut self.ticket);
    }
}

fn refused(error: &h2::Error, channel: &Inner) -> Error {
    let reason = of_stream(error, channel.shared.close_reason());
    Error::before_sending(reason.into_kind())
}
