//! Connections that deliver their bytes after a while, or not at all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tikv::{BoxFuture, Io, Runtime};
use tikv_core::rng::Rng;
use tikv_core::time::Time;
use tikv_grpc::server::{ServerOptions, Service, serve_connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::SimRuntime;

/// Bytes that a connection holds for a reader, before the writer has to wait.
const MOST_BUFFERED: usize = 1 << 20;

/// Who listens where, and what the network does.
pub(super) struct Network(Mutex<State>);

struct State {
    rng: Rng,
    latency: Range<Duration>,
    listeners: BTreeMap<String, Listener>,
    /// Addresses whose bytes are held back, in both directions.
    cut_off: BTreeSet<String>,
    links: BTreeMap<u64, Weak<Link>>,
    next_link: u64,
    /// Who tries to connect to an address that is cut off.
    connecting: Vec<Waker>,
}

#[derive(Clone)]
struct Listener {
    service: Arc<dyn Service>,
    is_open: bool,
}

/// A connection: two pipes.
struct Link {
    address: String,
    state: Mutex<LinkState>,
}

#[derive(Default)]
struct LinkState {
    pipes: [Pipe; 2],
    is_broken: bool,
}

/// Bytes on their way in one direction.
#[derive(Default)]
struct Pipe {
    chunks: VecDeque<(Time, Bytes)>,
    buffered: usize,
    /// The writer has said that there is no more.
    is_closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// One end of a connection: it reads from the pipe of its index and writes to the other.
struct End {
    runtime: SimRuntime,
    link: Arc<Link>,
    reads: usize,
    /// Until the next bytes arrive.
    arrival: Option<BoxFuture<'static, ()>>,
}

impl Network {
    pub(super) fn new(seed: u64, latency: Range<Duration>) -> Self {
        Network(Mutex::new(State {
            rng: Rng::new(seed),
            latency,
            listeners: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            links: BTreeMap::new(),
            next_link: 0,
            connecting: Vec::new(),
        }))
    }

    /// Has `service` answer at `address`.
    pub(super) fn listen(&self, address: String, service: Arc<dyn Service>) {
        self.lock().listeners.insert(address, Listener { service, is_open: true });
    }

    /// Whether connections to `address` are accepted. Closing breaks those that are open.
    pub(super) fn set_open(&self, address: &str, is_open: bool) {
        if let Some(listener) = self.lock().listeners.get_mut(address) {
            listener.is_open = is_open;
        }
        if !is_open {
            self.break_connections(address);
        }
    }

    /// Breaks all connections to `address`. What is on its way is lost.
    pub(super) fn break_connections(&self, address: &str) {
        for link in self.links_to(address) {
            let wakers = {
                let mut state = link.lock();
                state.is_broken = true;
                state.pipes.each_mut().map(|pipe| {
                    pipe.chunks.clear();
                    [pipe.reader.take(), pipe.writer.take()]
                })
            };
            wakers.into_iter().flatten().flatten().for_each(Waker::wake);
        }
    }

    /// Holds back all bytes from and to `address`, or lets them go on. Connections stay.
    pub(super) fn set_cut_off(&self, address: &str, is_cut_off: bool) {
        let connecting = {
            let mut state = self.lock();
            if is_cut_off {
                state.cut_off.insert(address.to_owned());
                return;
            }
            state.cut_off.remove(address);
            std::mem::take(&mut state.connecting)
        };
        connecting.into_iter().for_each(Waker::wake);
        for link in self.links_to(address) {
            let readers = link.lock().pipes.each_mut().map(|pipe| pipe.reader.take());
            readers.into_iter().flatten().for_each(Waker::wake);
        }
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.lock().listeners.keys().cloned().collect()
    }

    fn latency(&self) -> Duration {
        let mut state = self.lock();
        let (start, end) = (state.latency.start.as_nanos() as u64, state.latency.end.as_nanos() as u64);
        Duration::from_nanos(state.rng.range(start..end))
    }

    fn is_cut_off(&self, address: &str) -> bool {
        self.lock().cut_off.contains(address)
    }

    fn links_to(&self, address: &str) -> Vec<Arc<Link>> {
        let mut state = self.lock();
        state.links.retain(|_, link| link.strong_count() > 0);
        state.links.values().filter_map(Weak::upgrade).filter(|link| link.address == address).collect()
    }

    fn poll_reachable(&self, address: &str, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.cut_off.contains(address) {
            state.connecting.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn accept(&self, address: &str) -> io::Result<(Arc<Link>, Arc<dyn Service>)> {
        let mut state = self.lock();
        let listener = state.listeners.get(address).filter(|listener| listener.is_open).cloned();
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there");
        let listener = listener.ok_or_else(refused)?;
        let link = Arc::new(Link { address: address.to_owned(), state: Mutex::default() });
        let id = state.next_link;
        state.next_link += 1;
        state.links.insert(id, Arc::downgrade(&link));
        Ok((link, listener.service))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects to a listener, which is served by a task of its own.
pub(super) async fn connect(runtime: SimRuntime, address: String) -> io::Result<Box<dyn Io>> {
    let network = runtime.network();
    std::future::poll_fn(|cx| network.poll_reachable(&address, cx)).await;
    runtime.sleep(network.latency()).await;
    let (link, service) = network.accept(&address)?;
    let end = |reads| End { runtime: runtime.clone(), link: link.clone(), reads, arrival: None };
    let (client, server) = (end(0), end(1));
    let serving = serve_connection(server, service, ServerOptions::default());
    runtime.spawn(Box::pin(async move {
        // How a client leaves is its own affair.
        let _ = serving.await;
    }));
    Ok(Box::new(client))
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pipe {
    /// Takes what has arrived.
    fn read(&mut self, now: Time, buffer: &mut ReadBuf<'_>) {
        while buffer.remaining() > 0 {
            let Some((at, chunk)) = self.chunks.front_mut().filter(|(at, _)| *at <= now) else { return };
            let _ = at;
            let part = chunk.split_to(chunk.len().min(buffer.remaining()));
            buffer.put_slice(&part);
            self.buffered -= part.len();
            if !chunk.has_remaining() {
                self.chunks.pop_front();
            }
        }
    }
}

impl AsyncRead for End {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let now = self.runtime.now();
            let arrives = {
                let mut state = self.link.lock();
                if state.is_broken {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                let pipe = &mut state.pipes[self.reads];
                if !self.runtime.network().is_cut_off(&self.link.address) {
                    let before = buffer.filled().len();
                    pipe.read(now, buffer);
                    if buffer.filled().len() > before {
                        let writer = pipe.writer.take();
                        drop(state);
                        writer.into_iter().for_each(Waker::wake);
                        return Poll::Ready(Ok(()));
                    }
                    if pipe.chunks.is_empty() && pipe.is_closed {
                        return Poll::Ready(Ok(()));
                    }
                }
                pipe.reader = Some(cx.waker().clone());
                pipe.chunks.front().map(|(at, _)| *at)
            };
            // Nothing yet, or held back: then it is the end of that which wakes.
            let Some(arrives) = arrives.filter(|at| *at > now) else { return Poll::Pending };
            let sleep = self.runtime.sleep(arrives.saturating_since(now));
            let arrival = self.arrival.insert(sleep);
            if arrival.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let arrives = self.runtime.now() + self.runtime.network().latency();
        let (reader, written) = {
            let mut state = self.link.lock();
            if state.is_broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let pipe = &mut state.pipes[1 - self.reads];
            if pipe.is_closed {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let room = MOST_BUFFERED.saturating_sub(pipe.buffered);
            if room == 0 {
                pipe.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let written = bytes.len().min(room);
            // Bytes keep their order.
            let arrives = pipe.chunks.back().map_or(arrives, |(last, _)| arrives.max(*last));
            pipe.chunks.push_back((arrives, Bytes::copy_from_slice(&bytes[..written])));
            pipe.buffered += written;
            (pipe.reader.take(), written)
        };
        reader.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let reader = {
            let mut state = self.link.lock();
            let pipe = &mut state.pipes[1 - self.reads];
            pipe.is_closed = true;
            pipe.reader.take()
        };
        reader.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

/// The other side reads what is on its way and then the end, and can write no more.
impl Drop for End {
    fn drop(&mut self) {
        let wakers = {
            let mut state = self.link.lock();
            state.pipes.each_mut().map(|pipe| {
                pipe.is_closed = true;
                [pipe.reader.take(), pipe.writer.take()]
            })
        };
        wakers.into_iter().flatten().flatten().for_each(Waker::wake);
    }
}
