//! How a client's connection behaves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Clock;
use crate::compression::Encoding;

/// The scheme that requests name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Without TLS.
    #[default]
    Http,
    /// Over TLS.
    Https,
}

/// Options of a client's connection. Take the defaults with [`Options::new`] and change what should differ.
///
/// ```
/// use tikv_grpc::{Options, Scheme};
///
/// let options = Options { scheme: Scheme::Https, max_receive_message: 64 << 20, ..Options::new("pd-0:2379") };
/// # let _ = options;
/// ```
#[derive(Clone)]
pub struct Options {
    /// The host and port that requests name (`:authority`).
    pub authority: String,
    /// The scheme that requests name. Default: [`Scheme::Http`].
    pub scheme: Scheme,
    /// The `user-agent` of requests.
    pub user_agent: String,
    /// How many bytes the server may send on one stream before we have consumed them. Default 128 MiB, as client-go;
    /// at most 2³¹ − 1.
    pub stream_window: u32,
    /// How many bytes the server may send on all streams together before we have consumed them. Default 128 MiB, as
    /// client-go; at least 65,535, at most 2³¹ − 1.
    pub connection_window: u32,
    /// The longest frame that the server may send, in bytes. A message that fits in one frame is received without a
    /// copy. Default 1 MiB; at least 16 KiB, at most 2²⁴ − 1.
    pub max_frame_size: u32,
    /// How many bytes of headers a response may have. Default 256 KiB.
    pub max_header_list_size: u32,
    /// The longest message that is received, in bytes (after decompression). Default: no limit but the protocol's 4 GiB,
    /// as client-go.
    pub max_receive_message: usize,
    /// The longest message, and the longest batch, that is sent, in bytes. Default and maximum: 2³¹ − 1 less some
    /// overhead.
    pub max_send_message: usize,
    /// How many bytes of a stream are buffered before [`Sender::poll_ready`](crate::Sender::poll_ready) waits. One batch
    /// more can be buffered, however long it is. Default 1 MiB.
    pub send_buffer: usize,
    /// How many calls can wait for the server to allow another stream (its SETTINGS_MAX_CONCURRENT_STREAMS). Default
    /// 16,384.
    pub max_queued_calls: usize,
    /// How messages are compressed. Default: not at all.
    pub compression: Encoding,
    /// When to ask an idle connection for a sign of life; needs a `clock`. Default: after 10 s, for 3 s, while there
    /// are calls, as client-go.
    pub keep_alive: Option<KeepAlive>,
    /// The timers for deadlines and keep-alive; without one neither is enforced. Default: none.
    pub clock: Option<Arc<dyn Clock>>,
}

/// How to find out that a peer is gone although the connection looks open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeepAlive {
    /// After so long without a byte from the peer, ping it. Observed in quarters: it can take a quarter longer.
    pub interval: Duration,
    /// After so long without a byte since the ping, give the connection up.
    pub timeout: Duration,
    /// Whether to ping while there are no calls. Servers count that as abuse unless configured otherwise.
    pub without_calls: bool,
}

const MAX_WINDOW: u32 = (1 << 31) - 1;

/// HTTP/2 counts what is buffered of a stream in 31 bits.
pub(crate) const MAX_SEND: usize = MAX_WINDOW as usize - 1024;

impl Options {
    /// The defaults for a server at `authority` (`host:port`).
    pub fn new(authority: impl Into<String>) -> Self {
        Self {
            authority: authority.into(),
            scheme: Scheme::Http,
            user_agent: concat!("tikv-grpc/", env!("CARGO_PKG_VERSION")).to_owned(),
            stream_window: 128 << 20,
            connection_window: 128 << 20,
            max_frame_size: 1 << 20,
            max_header_list_size: 256 << 10,
            max_receive_message: usize::MAX,
            max_send_message: MAX_SEND,
            send_buffer: 1 << 20,
            max_queued_calls: 16 << 10,
            compression: Encoding::default(),
            keep_alive: Some(KeepAlive::default()),
            clock: None,
        }
    }

    pub(crate) fn h2(&self) -> h2::client::Builder {
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(stream_window(self.stream_window))
            .initial_connection_window_size(connection_window(self.connection_window))
            .max_frame_size(max_frame_size(self.max_frame_size))
            .max_header_list_size(self.max_header_list_size)
            .max_send_buffer_size(self.send_buffer.max(1))
            .enable_push(false)
            // Cancelled calls are ordinary here. What a server still sends for them must be ignored, and must not count
            // as its misbehaviour until there is really much of it.
            .max_concurrent_reset_streams(RESET_STREAMS_REMEMBERED)
            .reset_stream_duration(RESET_STREAM_MEMORY)
            .max_local_error_reset_streams(Some(MAX_STREAM_ERRORS));
        builder
    }
}

pub(crate) const RESET_STREAMS_REMEMBERED: usize = 1024;
pub(crate) const RESET_STREAM_MEMORY: Duration = Duration::from_secs(3);
/// Over the whole life of a connection.
pub(crate) const MAX_STREAM_ERRORS: usize = 1 << 20;

pub(crate) fn max_frame_size(size: u32) -> u32 {
    size.clamp(16 << 10, (1 << 24) - 1)
}

pub(crate) fn connection_window(size: u32) -> u32 {
    size.clamp(65_535, MAX_WINDOW)
}

pub(crate) fn stream_window(size: u32) -> u32 {
    size.min(MAX_WINDOW)
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), timeout: Duration::from_secs(3), without_calls: false }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("authority", &self.authority)
            .field("scheme", &self.scheme)
            .field("user_agent", &self.user_agent)
            .field("stream_window", &self.stream_window)
            .field("connection_window", &self.connection_window)
            .field("max_frame_size", &self.max_frame_size)
            .field("max_header_list_size", &self.max_header_list_size)
            .field("max_receive_message", &self.max_receive_message)
            .field("max_send_message", &self.max_send_message)
            .field("send_buffer", &self.send_buffer)
            .field("max_queued_calls", &self.max_queued_calls)
            .field("compression", &self.compression)
            .field("keep_alive", &self.keep_alive)
            .field("clock", &self.clock.is_some())
            .finish()
    }
}
