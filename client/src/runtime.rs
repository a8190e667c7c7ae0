//! What the client needs of an async runtime.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tikv_core::time::Time;
use tokio::io::{AsyncRead, AsyncWrite};

/// A boxed future that can be sent to another thread.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connection: anything that can be read and written. The traits are tokio's, which need no tokio runtime;
/// `tokio_util::compat` adapts the ones of `futures`.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An async runtime: four things, so that another one is a page of code.
///
/// The crates `tikv-transport-tokio`, `tikv-transport-smol` and `tikv-transport-async-std` implement it for theirs, the
/// example `thread_runtime` for plain threads, and `tikv-sim` for a simulation with virtual time.
pub trait Runtime: Send + Sync + 'static {
    /// Opens a TCP connection to `address` (`host:port`), without delaying small packets.
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Io>>>;

    /// Runs `task` until it ends by itself, whatever becomes of the caller.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Ready after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// A clock that never goes back.
    fn now(&self) -> Time;
}
