//! The async client on no async runtime: four functions over plain threads are a [`Runtime`].
//!
//! `cargo run --example thread_runtime -- 127.0.0.1:2379`
#![allow(clippy::print_stdout)]

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::executor::block_on;
use tikv::{BoxFuture, Client, Io, Runtime, Time};
use tikv_examples::BlockingStream;

/// A thread for each connection, task and timer.
struct Threads(Instant);

impl Runtime for Threads {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let address = address.to_owned();
        Box::pin(async move { Ok(Box::new(BlockingStream::connect(&address)?) as Box<dyn Io>) })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        thread::spawn(move || block_on(task));
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (fire, fired) = oneshot::channel();
        thread::spawn(move || {
            thread::sleep(duration);
            // Nobody waits any more if the future was dropped.
            let _ = fire.send(());
        });
        Box::pin(async move {
            let _ = fired.await;
        })
    }

    fn now(&self) -> Time {
        Time::ZERO + self.0.elapsed()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pd = std::env::args().nth(1).ok_or("usage: thread_runtime PD_ADDRESS")?;
    block_on(async {
        let client = Client::connect([pd], Threads(Instant::now())).await?;
        let start_ts = client.run(|txn| async move {
            txn.put("thread", "runtime")?;
            Ok(txn.start_ts())
        });
        println!("committed the transaction of {:?}", start_ts.await?);
        println!("thread: {:?}", client.snapshot().await?.get("thread").await?);
        Ok(())
    })
}
