//! A TCP port with a gRPC service behind it, which can be closed and opened again.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tikv_grpc::server::{ServerHandle, ServerOptions, Service, serve_connection};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

pub(super) struct Endpoint {
    runtime: Handle,
    address: SocketAddr,
    port: Arc<Port>,
}

struct Port {
    service: Arc<dyn Service>,
    options: ServerOptions,
    state: Mutex<PortState>,
}

#[derive(Default)]
struct PortState {
    listener: Option<TcpListener>,
    /// Holds the port while nobody listens, lest somebody else gets it.
    reserved: Option<TcpSocket>,
    /// Of the task that accepts.
    acceptor: Option<Waker>,
    is_accepting: bool,
    connections: BTreeMap<u64, ServerHandle>,
    next_connection: u64,
}

impl Endpoint {
    /// Takes a port, on which nobody is served yet.
    pub(super) fn bind(
        runtime: &Handle,
        address: SocketAddr,
        service: Arc<dyn Service>,
        options: ServerOptions,
    ) -> io::Result<Self> {
        let reserved = reserve(address)?;
        let address = reserved.local_addr()?;
        let state = Mutex::new(PortState { reserved: Some(reserved), ..PortState::default() });
        Ok(Endpoint { runtime: runtime.clone(), address, port: Arc::new(Port { service, options, state }) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves whoever comes, from now on. Without effect on an open port.
    pub(super) fn open(&self) -> io::Result<()> {
        let mut state = self.port.lock();
        if state.listener.is_none() {
            let reserved = state.reserved.take().map_or_else(|| reserve(self.address), Ok)?;
            let _entered = self.runtime.enter();
            state.listener = Some(reserved.listen(BACKLOG)?);
        }
        if !state.is_accepting {
            state.is_accepting = true;
            self.runtime.spawn(accept(self.port.clone()));
        }
        Ok(())
    }

    /// Closes the port and breaks its connections. When this returns nobody can connect any more.
    pub(super) fn close(&self) {
        let mut state = self.port.lock();
        if state.listener.take().is_some() {
            // Where that fails, it is tried again when the port is opened.
            state.reserved = reserve(self.address).ok();
        }
        state.is_accepting = false;
        std::mem::take(&mut state.connections).values().for_each(ServerHandle::close);
        if let Some(acceptor) = state.acceptor.take() {
            acceptor.wake();
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Takes a port without listening: nobody can connect.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Old connections, which linger for a while, do not matter.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

impl Port {
    fn lock(&self) -> MutexGuard<'_, PortState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next connection; `None` when the port is closed.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<io::Result<TcpStream>>> {
        let mut state = self.lock();
        state.acceptor = Some(cx.waker().clone());
        match &state.listener {
            Some(listener) => listener.poll_accept(cx).map(|accepted| Some(accepted.map(|(stream, _)| stream))),
            None => Poll::Ready(None),
        }
    }
}

async fn accept(port: Arc<Port>) {
    while let Some(accepted) = poll_fn(|cx| port.poll_accept(cx)).await {
        match accepted {
            Ok(stream) => serve(&port, stream),
            // The client is gone again, or there are too many open files: others may have more luck.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

fn serve(port: &Arc<Port>, stream: TcpStream) {
    // Only slower without it.
    let _ = stream.set_nodelay(true);
    let connection = serve_connection(stream, port.service.clone(), port.options.clone());
    let id = {
        let mut state = port.lock();
        let id = state.next_connection;
        state.next_connection += 1;
        state.connections.insert(id, connection.handle());
        id
    };
    let port = port.clone();
    tokio::spawn(async move {
        // How a client leaves is its own affair.
        let _ = connection.await;
        port.lock().connections.remove(&id);
    });
}
