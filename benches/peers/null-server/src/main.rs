//! A cluster of one region that answers every request at once, from nothing: what is measured against it is the client.
//!
//! `bench-null-server` prints `pd 127.0.0.1:PORT` and serves until stdin ends. The line `bytes` on stdin is answered by
//! `ok RECEIVED SENT`: what has gone over all of its connections so far, by this side's reads and writes.

mod answers;
mod counted;
mod oracle;
mod pd;
mod store;

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use tikv_grpc::server::{Handler, IncomingCall, Responder, ServerOptions, Service, serve_connection};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::answers::Answers;
use crate::counted::{Counted, Traffic};
use crate::pd::NullPd;
use crate::store::NullStore;

fn main() -> io::Result<()> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let traffic = Arc::new(Traffic::default());
    let address = serve(&runtime, &traffic)?;
    say(format_args!("pd {address}"))?;
    for line in io::stdin().lock().lines() {
        match &*line? {
            "bytes" => say(format_args!("ok {} {}", traffic.received(), traffic.sent()))?,
            other => say(format_args!("error no such command: {other}"))?,
        }
    }
    Ok(())
}

/// Serves whoever comes. PD and the store share a port, which saves the floor the search for the store.
fn serve(runtime: &Runtime, traffic: &Arc<Traffic>) -> io::Result<SocketAddr> {
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let address = listener.local_addr()?;
    let (pd, store) = (NullPd::new(address), NullStore::new(Answers::new()));
    let both = move |call: IncomingCall, responder: Responder| -> Handler {
        if call.path().starts_with("/tikvpb.Tikv/") { store.call(call, responder) } else { pd.call(call, responder) }
    };
    let (service, traffic): (Arc<dyn Service>, _) = (Arc::new(both), Arc::clone(traffic));
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Only slower without it.
            let _ = stream.set_nodelay(true);
            let io = Counted::new(stream, Arc::clone(&traffic));
            // How a client leaves is its own affair.
            tokio::spawn(serve_connection(io, Arc::clone(&service), ServerOptions::default()));
        }
    });
    Ok(address)
}

fn say(line: std::fmt::Arguments<'_>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
