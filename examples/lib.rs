//! What the examples share: a TCP stream without an async runtime, and a cluster to run against.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use tikv_sim::serve::{ServeOptions, ServedCluster};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A blocking TCP stream as `AsyncRead + AsyncWrite`: a thread reads ahead, writes block their caller. The simplest thing that
/// works; for a program with few connections it is not even slow.
#[derive(Debug)]
pub struct BlockingStream {
    stream: TcpStream,
    incoming: Arc<Mutex<Incoming>>,
}

#[derive(Debug, Default)]
struct Incoming {
    bytes: Vec<u8>,
    end: Option<io::ErrorKind>,
    reader: Option<Waker>,
}

impl BlockingStream {
    /// Connects to `address` (`host:port`).
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    pub fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let incoming = Arc::new(Mutex::new(Incoming::default()));
        let (source, sink) = (stream.try_clone()?, Arc::clone(&incoming));
        thread::spawn(move || read_ahead(source, &sink));
        Ok(BlockingStream { stream, incoming })
    }
}

fn read_ahead(mut source: TcpStream, incoming: &Mutex<Incoming>) {
    let mut chunk = [0; 64 * 1024];
    loop {
        let read = source.read(&mut chunk);
        let mut incoming = incoming.lock().unwrap_or_else(PoisonError::into_inner);
        let goes_on = match read {
            Ok(0) => {
                incoming.end = Some(io::ErrorKind::UnexpectedEof);
                false
            }
            Ok(len) => {
                incoming.bytes.extend_from_slice(&chunk[..len]);
                true
            }
            Err(error) => {
                incoming.end = Some(error.kind());
                false
            }
        };
        if let Some(reader) = incoming.reader.take() {
            reader.wake();
        }
        if !goes_on {
            return;
        }
    }
}

impl AsyncRead for BlockingStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        if incoming.bytes.is_empty() {
            return match incoming.end {
                // The end of the stream: nothing is read.
                Some(io::ErrorKind::UnexpectedEof) => Poll::Ready(Ok(())),
                Some(kind) => Poll::Ready(Err(kind.into())),
                None => {
                    incoming.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        let len = incoming.bytes.len().min(buffer.remaining());
        buffer.put_slice(&incoming.bytes[..len]);
        incoming.bytes.drain(..len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BlockingStream {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.stream.write(bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shutdown(Shutdown::Write))
    }
}

impl Drop for BlockingStream {
    fn drop(&mut self) {
        // Ends the thread that reads ahead. The peer may have closed first.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// The cluster that an example runs against.
#[derive(Debug)]
pub enum Cluster {
    /// One that runs already; its PD listens here.
    Given(String),
    /// A simulated one, on TCP ports of this machine; it ends with the example.
    Simulated {
        /// Where its PD listens.
        pd: String,
        /// The cluster.
        cluster: Box<ServedCluster>,
    },
}

/// The cluster that the command line names with `--pd HOST:PORT`, or else a simulated one.
///
/// # Errors
///
/// If the command line is something else, or no port can be opened.
pub fn cluster(args: impl IntoIterator<Item = String>) -> io::Result<Cluster> {
    let mut args = args.into_iter().skip(1);
    match (args.next().as_deref(), args.next()) {
        (None, _) => {
            let cluster = Box::new(ServedCluster::start_in_thread(ServeOptions::default())?);
            let pd = cluster.pd_endpoints().into_iter().next().ok_or(io::ErrorKind::NotConnected)?;
            Ok(Cluster::Simulated { pd, cluster })
        }
        (Some("--pd"), Some(pd)) => Ok(Cluster::Given(pd)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: [--pd HOST:PORT]")),
    }
}

impl Cluster {
    /// Where PD listens.
    #[must_use]
    pub fn pd(&self) -> &str {
        match self {
            Cluster::Given(pd) | Cluster::Simulated { pd, .. } => pd,
        }
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cluster::Given(pd) => write!(f, "the cluster whose PD listens at {pd}"),
            Cluster::Simulated { pd, cluster } => {
                let stores = cluster.store_addresses().len();
                write!(f, "a simulated cluster of {stores} stores on this machine, PD at {pd}")
            }
        }
    }
}
