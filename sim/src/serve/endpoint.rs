//! A TCP port with services behind it, which can be closed and opened again.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tikv_grpc::server::{ServerOptions, Service};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::http::{self, HttpService};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// How a client of gRPC begins (`PRI * HTTP/2.0`), and none of HTTP/1.
const PREFACE: &[u8; 3] = b"PRI";
/// How often, and how many times, it is looked whether the rest of the first word has come.
const FIRST_WORD: (Duration, u32) = (Duration::from_millis(1), 10_000);

/// What is spoken on a port.
#[derive(Clone)]
pub(super) enum Spoken {
    Grpc(Arc<dyn Service>),
    Http(Arc<dyn HttpService>),
    /// The first word of a client decides.
    Both(Arc<dyn Service>, Arc<dyn HttpService>),
}

pub(super) struct Endpoint {
    runtime: Handle,
    address: SocketAddr,
    port: Arc<Port>,
}

struct Port {
    spoken: Spoken,
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
    connections: BTreeMap<u64, AbortHandle>,
    next_connection: u64,
}

impl Endpoint {
    /// Takes a port, on which nobody is served yet.
    pub(super) fn bind(
        runtime: &Handle,
        address: SocketAddr,
        spoken: Spoken,
        options: ServerOptions,
    ) -> io::Result<Self> {
        let reserved = reserve(address)?;
        let address = reserved.local_addr()?;
        let state = Mutex::new(PortState { reserved: Some(reserved), ..PortState::default() });
        Ok(Endpoint { runtime: runtime.clone(), address, port: Arc::new(Port { spoken, options, state }) })
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
        std::mem::take(&mut state.connections).values().for_each(AbortHandle::abort);
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
    let mut state = port.lock();
    if state.listener.is_none() {
        // The port has been closed meanwhile.
        return;
    }
    let id = state.next_connection;
    state.next_connection += 1;
    let served = port.clone();
    let connection = tokio::spawn(async move {
        // How a client leaves is its own affair.
        let _ = served.serve_connection(stream).await;
        served.lock().connections.remove(&id);
    });
    // Its end is noted under the same lock, hence later.
    state.connections.insert(id, connection.abort_handle());
}

impl Port {
    async fn serve_connection(&self, stream: TcpStream) -> io::Result<()> {
        match self.spoken.clone() {
            Spoken::Grpc(service) => self.serve_grpc(stream, service).await,
            Spoken::Http(service) => http::serve_connection(stream, service).await.map_err(io::Error::other),
            Spoken::Both(grpc, http) => match begins_with_preface(&stream).await? {
                true => self.serve_grpc(stream, grpc).await,
                false => http::serve_connection(stream, http).await.map_err(io::Error::other),
            },
        }
    }

    async fn serve_grpc(&self, stream: TcpStream, service: Arc<dyn Service>) -> io::Result<()> {
        tikv_grpc::server::serve_connection(stream, service, self.options.clone()).await.map_err(io::Error::other)
    }
}

/// Looks at what has come without taking it.
async fn begins_with_preface(stream: &TcpStream) -> io::Result<bool> {
    let (pause, times) = FIRST_WORD;
    let mut first = [0; PREFACE.len()];
    for _ in 0..times {
        let len = stream.peek(&mut first).await?;
        let seen = &first[..len];
        if seen.is_empty() || seen.len() == PREFACE.len() || !PREFACE.starts_with(seen) {
            return Ok(seen == PREFACE);
        }
        // Less than a word: there is no way to await more of it. It is rare.
        tokio::time::sleep(pause).await;
    }
    Err(io::ErrorKind::TimedOut.into())
}
