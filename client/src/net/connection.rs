//! One HTTP/2 connection to an address, made when it is needed and made anew when it broke.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, Shared, select};
use tikv_core::error::Fault;
use tikv_grpc::{Channel, Clock, Connection, KeepAlive, Options, Sleep};

use super::fault;
use crate::runtime::{BoxFuture, Runtime};

/// How connections are made.
#[derive(Clone, Debug)]
pub(crate) struct NetOptions {
    /// Time limit of making a connection.
    pub(crate) connect_timeout: Duration,
    /// When an idle connection is asked for a sign of life.
    pub(crate) keep_alive: Option<KeepAlive>,
    /// Longest message that is received, in bytes.
    pub(crate) max_receive_message: usize,
    /// Connections to each store, among which its calls are divided.
    pub(crate) connections_per_store: usize,
}

/// A connection to one address.
pub(crate) struct Connector {
    address: Arc<str>,
    runtime: Arc<dyn Runtime>,
    options: NetOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connecting: Option<Connecting>,
    channel: Option<Channel>,
    closed: bool,
}

/// An attempt that several callers wait for.
type Connecting = Shared<BoxFuture<'static, Result<Channel, Fault>>>;

impl Connector {
    pub(crate) fn new(address: Arc<str>, runtime: Arc<dyn Runtime>, options: NetOptions) -> Self {
        Connector { address, runtime, options, state: Mutex::default() }
    }

    pub(crate) fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// The open connection, or a new one.
    pub(crate) async fn channel(&self) -> Result<Channel, Fault> {
        let connecting = {
            let mut state = self.lock();
            if state.closed {
                return Err(fault::closed(&self.address));
            }
            if let Some(channel) = state.channel.as_ref().filter(|channel| !channel.is_closed()) {
                return Ok(channel.clone());
            }
            state.channel = None;
            state.connecting.get_or_insert_with(|| self.connect().boxed().shared()).clone()
        };
        let result = connecting.clone().await;
        let mut state = self.lock();
        if state.connecting.as_ref().is_some_and(|current| current.ptr_eq(&connecting)) {
            state.connecting = None;
            if let (Ok(channel), false) = (&result, state.closed) {
                state.channel = Some(channel.clone());
            }
        }
        result
    }

    /// Gives the connection up; no other will be made.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.connecting = None;
        if let Some(channel) = state.channel.take() {
            channel.close();
        }
    }

    fn connect(&self) -> impl Future<Output = Result<Channel, Fault>> + Send + 'static {
        let (address, runtime) = (Arc::clone(&self.address), Arc::clone(&self.runtime));
        let options = Options {
            keep_alive: self.options.keep_alive,
            max_receive_message: self.options.max_receive_message,
            clock: Some(Arc::new(RuntimeClock(Arc::clone(&runtime)))),
            ..Options::new(&*address)
        };
        let limit = self.options.connect_timeout;
        async move {
            let timeout = runtime.sleep(limit);
            let connect = handshake(&address, &runtime, options).boxed();
            match select(connect, timeout).await {
                Either::Left((result, _)) => result,
                Either::Right(_) => Err(fault::unreachable(&address, format!("no connection within {limit:?}"))),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.close();
    }
}

async fn handshake(address: &Arc<str>, runtime: &Arc<dyn Runtime>, options: Options) -> Result<Channel, Fault> {
    let io = runtime.connect(address).await.map_err(|error| fault::unreachable(address, error.to_string()))?;
    let (channel, driver) =
        Connection::handshake(io, options).await.map_err(|error| fault::unreachable(address, error.to_string()))?;
    let address = Arc::clone(address);
    runtime.spawn(Box::pin(async move {
        let end = driver.await;
        tracing::debug!(%address, %end, "connection ended");
    }));
    Ok(channel)
}

/// The runtime's timers for gRPC's deadlines and keep-alive.
struct RuntimeClock(Arc<dyn Runtime>);

impl Clock for RuntimeClock {
    fn sleep(&self, duration: Duration) -> Sleep {
        self.0.sleep(duration)
    }
}
