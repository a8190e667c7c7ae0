//! A cluster that answers every request at once, from nothing: what is measured against it is the client.
//!
//! `bench-null-server` has one store with one region; `--stores N` so many, each with a port of its own, among which the keys of
//! workloads are divided. It prints `pd 127.0.0.1:PORT` and serves until stdin ends. The line `bytes` on stdin is answered by
//! `ok RECEIVED SENT`: what has gone over all of its connections so far, by this side's reads and writes.

mod answers;
mod counted;
mod oracle;
mod pd;
mod regions;
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

/// As many as there are ports that a process may be expected to have.
const MOST_STORES: usize = 1024;

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let stores = parse_stores(&words)?;
    // One thread answers more than any client asks, and several would take turns with the client's on the same processors.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let traffic = Arc::new(Traffic::default());
    let address = serve(&runtime, stores, &traffic)?;
    say(format_args!("pd {address}"))?;
    for line in io::stdin().lock().lines() {
        match &*line? {
            "bytes" => say(format_args!("ok {} {}", traffic.received(), traffic.sent()))?,
            other => say(format_args!("error no such command: {other}"))?,
        }
    }
    Ok(())
}

/// How many stores the command line asks for.
fn parse_stores(words: &[String]) -> io::Result<usize> {
    let count = match words {
        [] => Some(1),
        [name, count] if name == "--stores" => count.parse().ok().filter(|count| (1..=MOST_STORES).contains(count)),
        _ => None,
    };
    let usage = || format!("usage: bench-null-server [--stores N], N from 1 to {MOST_STORES}");
    count.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, usage()))
}

/// Serves whoever comes; where PD listens. PD and the first store share a port, which saves the floor the search for the store.
fn serve(runtime: &Runtime, stores: usize, traffic: &Arc<Traffic>) -> io::Result<SocketAddr> {
    let bind = |_| runtime.block_on(TcpListener::bind(("127.0.0.1", 0)));
    let listeners: Vec<TcpListener> = (0..stores).map(bind).collect::<io::Result<_>>()?;
    let addresses: Vec<SocketAddr> = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
    let (pd, store) = (NullPd::new(&addresses), NullStore::new(Answers::new()));
    // All stores answer alike.
    let service: Arc<dyn Service> = Arc::new(move |call: IncomingCall, responder: Responder| -> Handler {
        if call.path().starts_with("/tikvpb.Tikv/") { store.call(call, responder) } else { pd.call(call, responder) }
    });
    for listener in listeners {
        runtime.spawn(accept(listener, Arc::clone(&service), Arc::clone(traffic)));
    }
    addresses.first().copied().ok_or_else(|| io::Error::other("no store"))
}

async fn accept(listener: TcpListener, service: Arc<dyn Service>, traffic: Arc<Traffic>) {
    while let Ok((stream, _)) = listener.accept().await {
        // Only slower without it.
        let _ = stream.set_nodelay(true);
        let io = Counted::new(stream, Arc::clone(&traffic));
        // How a client leaves is its own affair.
        tokio::spawn(serve_connection(io, Arc::clone(&service), ServerOptions::default()));
    }
}

fn say(line: std::fmt::Arguments<'_>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_store_unless_more_are_asked_for() {
        let parse = |line: &str| parse_stores(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).ok();
        assert_eq!(["", "--stores 1", "--stores 256"].map(parse), [1, 1, 256].map(Some));
        let wrong = ["--stores", "--stores 0", "--stores x", "--stores 1025", "--regions 3", "256"];
        assert!(wrong.into_iter().all(|line| parse(line).is_none()));
    }
}
