//! The tokio runtime for the tikv client.
//!
//! ```no_run
//! # async fn example() -> Result<(), tikv::Error> {
//! let client = tikv::Client::connect(["127.0.0.1:2379"], tikv_transport_tokio::Tokio::current()).await?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

use std::io;
use std::time::{Duration, Instant};

use tikv::{BoxFuture, Io, Runtime, Time};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// Runs the client on a tokio runtime, which must have I/O and time enabled. Works with both flavours.
#[derive(Clone, Debug)]
pub struct Tokio {
    handle: Handle,
    origin: Instant,
}

impl Tokio {
    /// On the runtime of the caller.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime; there, use [`Tokio::new`].
    #[must_use]
    pub fn current() -> Self {
        Tokio::new(Handle::current())
    }

    /// On the runtime of `handle`.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        Tokio { handle, origin: Instant::now() }
    }
}

impl Runtime for Tokio {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let (handle, address) = (self.handle.clone(), address.to_owned());
        Box::pin(async move {
            // Sockets register with the runtime that they are made on, wherever the caller polls from.
            let connecting = handle.spawn(async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok::<_, io::Error>(stream)
            });
            let stream = connecting.await.map_err(io::Error::other)??;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.handle.spawn(task);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let _inside = self.handle.enter();
        Box::pin(tokio::time::sleep(duration))
    }

    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }
}
