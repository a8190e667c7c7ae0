//! A TCP proxy whose destination can change: to give a store another address, or to take it off the network.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards connections from a port of its own. Runs on the tokio runtime that it is started on, until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    upstream: Arc<Mutex<Option<SocketAddr>>>,
    /// Changes break the connections.
    generation: watch::Sender<u64>,
}

impl Proxy {
    /// Forwards to `upstream`.
    ///
    /// # Errors
    ///
    /// If no port is free.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let upstream = Arc::new(Mutex::new(Some(upstream)));
        let (generation, changes) = watch::channel(0);
        tokio::spawn(accept(listener, Arc::clone(&upstream), changes));
        Ok(Proxy { address, upstream, generation })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks all connections, and forwards new ones to `upstream` from now on; `None` closes them at once.
    pub fn forward_to(&self, upstream: Option<SocketAddr>) {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
        self.generation.send_modify(|generation| *generation += 1);
    }
}

async fn accept(listener: TcpListener, upstream: Arc<Mutex<Option<SocketAddr>>>, mut changes: watch::Receiver<u64>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            changed = changes.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Ok((client, _)) = accepted else { continue };
        let Some(to) = *upstream.lock().unwrap_or_else(PoisonError::into_inner) else { continue };
        tokio::spawn(forward(client, to, changes.clone()));
    }
}

async fn forward(mut client: TcpStream, to: SocketAddr, mut changes: watch::Receiver<u64>) {
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    // Only slower without it.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        // How the two part is their own affair.
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = changes.changed() => {}
    }
}
