//! How a server's connection behaves.

use std::fmt;
use std::sync::Arc;

use super::Handler;
use crate::compression::Encoding;
use crate::options::{
    MAX_STREAM_ERRORS, RESET_STREAM_MEMORY, RESET_STREAMS_REMEMBERED, connection_window, max_frame_size, stream_window,
};

/// Options of a server's connection.
#[derive(Clone)]
pub struct ServerOptions {
    /// How many bytes a client may send on one stream before they are consumed. Default 2 MiB, as TiKV; at most 2³¹ − 1.
    pub stream_window: u32,
    /// How many bytes a client may send on all streams together before they are consumed. Default 16 MiB; at least 65,535,
    /// at most 2³¹ − 1.
    pub connection_window: u32,
    /// The longest frame that a client may send, in bytes. Default 1 MiB; at least 16 KiB, at most 2²⁴ − 1.
    pub max_frame_size: u32,
    /// How many bytes of headers a request may have. Default 64 KiB.
    pub max_header_list_size: u32,
    /// How many calls a client may have in progress. Default 1024, as TiKV.
    pub max_concurrent_streams: u32,
    /// The longest message that is received, in bytes (after decompression). Default: no limit but the protocol's 4 GiB.
    pub max_receive_message: usize,
    /// How many bytes of a response are buffered before [`Responder::poll_ready`](super::Responder::poll_ready) waits. One
    /// batch more can be buffered, however long it is. Default 1 MiB.
    pub send_buffer: usize,
    /// How messages are compressed for clients that understand it. Default: not at all.
    pub compression: Encoding,
    /// Where handlers run. Default: within the connection, all on its task.
    pub spawner: Option<Arc<dyn Spawn>>,
}

/// Runs handlers beside their connection, so that they use more than one thread.
pub trait Spawn: Send + Sync {
    /// Runs `handler` to its end.
    fn spawn(&self, handler: Handler);
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            stream_window: 2 << 20,
            connection_window: 16 << 20,
            max_frame_size: 1 << 20,
            max_header_list_size: 64 << 10,
            max_concurrent_streams: 1024,
            max_receive_message: usize::MAX,
            send_buffer: 1 << 20,
            compression: Encoding::default(),
            spawner: None,
        }
    }
}

impl ServerOptions {
    pub(super) fn h2(&self) -> h2::server::Builder {
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(stream_window(self.stream_window))
            .initial_connection_window_size(connection_window(self.connection_window))
            .max_frame_size(max_frame_size(self.max_frame_size))
            .max_header_list_size(self.max_header_list_size)
            .max_concurrent_streams(self.max_concurrent_streams)
            .max_send_buffer_size(self.send_buffer.max(1))
            // A client that gives up many calls at once is no attacker.
            .max_pending_accept_reset_streams(self.max_concurrent_streams as usize)
            .max_concurrent_reset_streams(RESET_STREAMS_REMEMBERED)
            .reset_stream_duration(RESET_STREAM_MEMORY)
            .max_local_error_reset_streams(Some(MAX_STREAM_ERRORS));
        builder
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions")
            .field("stream_window", &self.stream_window)
            .field("connection_window", &self.connection_window)
            .field("max_frame_size", &self.max_frame_size)
            .field("max_header_list_size", &self.max_header_list_size)
            .field("max_concurrent_streams", &self.max_concurrent_streams)
            .field("max_receive_message", &self.max_receive_message)
            .field("send_buffer", &self.send_buffer)
            .field("compression", &self.compression)
            .field("spawner", &self.spawner.is_some())
            .finish()
    }
}
