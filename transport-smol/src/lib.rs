//! The smol runtime for the tikv client.
//!
//! ```no_run
//! smol::block_on(async {
//!     let client = tikv::Client::connect(["127.0.0.1:2379"], tikv_transport_smol::Smol::new()).await?;
//!     client.raw().put("key", "value").await
//! })?;
//! # Ok::<(), tikv::Error>(())
//! ```

#![forbid(unsafe_code)]

use std::io;
use std::time::{Duration, Instant};

use smol::Timer;
use smol::net::TcpStream;
use tikv::{BoxFuture, Io, Runtime, Time};
use tokio_util::compat::FuturesAsyncReadCompatExt;

/// Runs the client on smol's global executor. Its futures may be polled by any executor.
#[derive(Clone, Debug)]
pub struct Smol {
    origin: Instant,
}

impl Smol {
    /// On smol's global executor.
    #[must_use]
    pub fn new() -> Self {
        Smol { origin: Instant::now() }
    }
}

impl Default for Smol {
    fn default() -> Self {
        Smol::new()
    }
}

impl Runtime for Smol {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let address = address.to_owned();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream.compat()) as Box<dyn Io>)
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        smol::spawn(task).detach();
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let timer = Timer::after(duration);
        Box::pin(async move {
            timer.await;
        })
    }

    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }
}
