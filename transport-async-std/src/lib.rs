//! The async-std runtime for the tikv client.
//!
//! async-std is discontinued; its authors recommend smol, and so do we (`tikv-transport-smol`). This crate serves programs
//! that have not moved yet.
//!
//! ```no_run
//! async_std::task::block_on(async {
//!     let client = tikv::Client::connect(["127.0.0.1:2379"], tikv_transport_async_std::AsyncStd::new()).await?;
//!     client.raw().put("key", "value").await
//! })?;
//! # Ok::<(), tikv::Error>(())
//! ```

#![forbid(unsafe_code)]

use std::io;
use std::time::{Duration, Instant};

use async_std::net::TcpStream;
use async_std::task;
use tikv::{BoxFuture, Io, Runtime, Time};
use tokio_util::compat::FuturesAsyncReadCompatExt;

/// Runs the client on async-std's global executor. Its futures may be polled by any executor.
#[derive(Clone, Debug)]
pub struct AsyncStd {
    origin: Instant,
}

impl AsyncStd {
    /// On async-std's global executor.
    #[must_use]
    pub fn new() -> Self {
        AsyncStd { origin: Instant::now() }
    }
}

impl Default for AsyncStd {
    fn default() -> Self {
        AsyncStd::new()
    }
}

impl Runtime for AsyncStd {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let address = address.to_owned();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream.compat()) as Box<dyn Io>)
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        task::spawn(task);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(task::sleep(duration))
    }

    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }
}
