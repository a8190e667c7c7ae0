//! Finds out that the peer is gone although the connection looks open.
//!
//! ```text
//!            quiet for an interval                      neither pong nor byte for the timeout
//! Listening ───────────────────────► AwaitingPong ──────────────────────────────────────────► lost
//!     ▲                                   │ any byte
//!     └───────────────────────────────────┘
//! ```
//!
//! The interval is observed in quarters. So there is no clock to read and no timer to move when bytes arrive: each
//! quarter only compares a counter.
//!
//! client-go: `keepalive.ClientParameters` of grpc-go.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Clock, ConnectionError, KeepAlive, Options, Sleep};

/// In how many parts an interval is observed.
const PARTS: u32 = 4;

/// A transport that counts how often something arrives.
#[derive(Debug)]
pub(super) struct Observed<T> {
    io: T,
    arrivals: Activity,
}

/// How often something arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity(Arc<AtomicU64>);

/// Watches over a connection.
pub(super) struct Watch {
    clock: Arc<dyn Clock>,
    keep_alive: KeepAlive,
    ping_pong: PingPong,
    activity: Activity,
    seen: u64,
    sleep: Sleep,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Listening { quiet_parts: u32 },
    AwaitingPong,
}

impl Watch {
    /// None where `options` do not ask for it.
    pub(super) fn new(
        options: &Options,
        activity: Activity,
        ping_pong: impl FnOnce() -> Option<PingPong>,
    ) -> Option<Self> {
        let keep_alive = options.keep_alive?;
        let clock = options.clock.clone()?;
        let sleep = clock.sleep(part(keep_alive.interval));
        let phase = Phase::Listening { quiet_parts: 0 };
        Some(Self { clock, keep_alive, ping_pong: ping_pong()?, activity, seen: 0, sleep, phase })
    }

    /// Ready when the peer is to be taken for gone.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>, has_calls: impl Fn() -> bool) -> Poll<ConnectionError> {
        loop {
            match self.phase {
                Phase::Listening { quiet_parts } => {
                    ready!(self.sleep.as_mut().poll(cx));
                    let quiet_parts = if self.was_active() { 0 } else { quiet_parts + 1 };
                    if quiet_parts >= PARTS && (self.keep_alive.without_calls || has_calls()) {
                        self.ping();
                    } else {
                        self.listen(quiet_parts.min(PARTS));
                    }
                }
                Phase::AwaitingPong => {
                    // Every byte is a sign of life. The pong itself is taken, so that another ping can be sent.
                    let pong = self.ping_pong.poll_pong(cx).is_ready();
                    if self.was_active() || pong {
                        self.listen(0);
                        continue;
                    }
                    ready!(self.sleep.as_mut().poll(cx));
                    return Poll::Ready(ConnectionError::KeepAliveTimeout);
                }
            }
        }
    }

    fn listen(&mut self, quiet_parts: u32) {
        self.sleep = self.clock.sleep(part(self.keep_alive.interval));
        self.phase = Phase::Listening { quiet_parts };
    }

    /// Where an earlier ping has no pong yet, that one is still waited for.
    fn ping(&mut self) {
        let _ = self.ping_pong.send_ping(Ping::opaque());
        self.sleep = self.clock.sleep(self.keep_alive.timeout);
        self.phase = Phase::AwaitingPong;
    }

    fn was_active(&mut self) -> bool {
        let arrivals = self.activity.0.load(Ordering::Relaxed);
        let active = arrivals != self.seen;
        self.seen = arrivals;
        active
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("keep_alive", &self.keep_alive)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

/// Never zero, lest the watch spins.
fn part(interval: Duration) -> Duration {
    (interval / PARTS).max(Duration::from_millis(1))
}

impl<T> Observed<T> {
    pub(super) fn new(io: T) -> (Self, Activity) {
        let arrivals = Activity::default();
        (Self { io, arrivals: arrivals.clone() }, arrivals)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Observed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.arrivals.0.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Observed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
