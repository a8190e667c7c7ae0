//! gRPC over HTTP/2 for any async runtime.
//!
//! Both halves run on anything that reads and writes bytes: they take tokio's [`AsyncRead`](tokio::io::AsyncRead) and
//! [`AsyncWrite`](tokio::io::AsyncWrite), which are traits and no runtime, spawn nothing, start no timer of their own and
//! read no clock. The caller polls a [`Driver`] (client) or a [`server::ServerConnection`], on whatever it runs.
//!
//! ```
//! use std::sync::Arc;
//! use tikv_grpc::server::{Router, serve_connection, unary};
//! use tikv_grpc::{Call, Connection, Error, Options};
//!
//! # fn main() -> Result<(), Error> {
//! # futures::executor::block_on(async {
//! // Any pair of connected streams.
//! let (client_io, server_io) = tokio::io::duplex(1 << 16);
//!
//! let router = Router::new().with("/echo.Echo/Echo", unary(|message| async move { Ok(message) }));
//! let server = serve_connection(server_io, Arc::new(router), Default::default());
//!
//! let (channel, driver) = Connection::handshake(client_io, Options::new("echo:1")).await?;
//! let call = async move {
//!     let reply = channel.unary(Call::new("/echo.Echo/Echo"), "hello".into()).await?;
//!     assert_eq!(reply.message, "hello");
//!
//!     let (mut sender, mut streaming) = channel.bidirectional(Call::new("/echo.Echo/Echo")).await?;
//!     sender.ready().await?;
//!     sender.send("hello again".into())?;
//!     sender.finish()?;
//!     assert_eq!(streaming.message().await?.as_deref(), Some(&b"hello again"[..]));
//!     assert_eq!(streaming.message().await?, None);
//!     Ok::<(), Error>(())
//! };
//! // A program would spawn the server and the driver.
//! let (result, _, _) = futures::join!(call, driver, server);
//! result
//! # })
//! # }
//! ```
//!
//! # What it is made of
//!
//! ```text
//!           Channel ──open──► Sender ─────► messages ─┐                      Service
//!              │              Streaming ◄── messages ◄┤                         ▲ IncomingCall, Responder
//!   client     │ admission                            │ frames                  │               server
//!              ▼                                      ▼                         │
//!           Driver ───────────── HTTP/2 (h2) ──── bytes ──── HTTP/2 ──── ServerConnection
//! ```
//!
//! * **Messages** are [`Bytes`](bytes::Bytes), in both directions without a copy: outgoing payloads are chained behind
//!   their prefixes and written vectored, incoming ones are slices of the frame in which they came. Several messages leave
//!   together as a [`Batch`]. `…_encoded` and `decoded` do the same for messages of `prost`.
//! * **Back-pressure**: outgoing, [`Sender::ready`] waits while more than a bound is buffered or the peer's window is shut;
//!   incoming, the peer's window opens as messages are taken.
//! * **Errors** say whether the server may have executed the request ([`Error::not_sent`]), and why the connection is gone
//!   ([`ConnectionError`]). A call waits on this side, not within HTTP/2, while the server allows no further stream: given
//!   up there, it was certainly not sent.
//! * **Cancellation** is dropping: a call's future, its [`Streaming`] before the end, its [`Sender`] before
//!   [`Sender::finish`]. The stream is reset.
//! * **Time** comes from the caller's [`Clock`]: deadlines of calls, and keep-alive pings. Without one there are neither
//!   (but the server is still told the timeout).
//! * **Bounds**: on messages, headers, frames, windows, buffers, concurrent and queued calls, all in [`Options`] and
//!   [`server::ServerOptions`].
//!
//! Not here: TLS, connecting, connecting again, pools, retries, interceptors. No type of `h2` or `http` is in the interface.
//!
//! # Features
//!
//! * `gzip`: compression of messages (`grpc-encoding: gzip`), in both directions. Off by default.

#![forbid(unsafe_code)]

mod call;
mod client;
mod clock;
mod compression;
mod error;
mod frame;
mod metadata;
mod options;
pub mod server;
mod status;
mod stream;

pub use call::Call;
pub use client::{Channel, Connection, Driver, Reply, Sender, Streaming};
pub use clock::{Clock, Sleep};
pub use compression::Encoding;
pub use error::{ConnectionError, Error, ErrorKind};
pub use frame::Batch;
pub use metadata::{InvalidMetadata, Metadata, MetadataValue};
pub use options::{KeepAlive, Options, Scheme};
pub use status::{Code, Status};
