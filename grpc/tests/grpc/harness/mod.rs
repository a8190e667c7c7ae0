//! Runs tests on one thread, in virtual time: what cannot go on is a failure at once, nothing ever waits.

pub(crate) mod clock;
pub(crate) mod raw;
pub(crate) mod script;

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::task::Poll;

use futures::executor::{LocalPool, LocalSpawner};
use futures::task::LocalSpawnExt;
use tikv_grpc::{Channel, Connection, ConnectionError, Options};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};

/// Spawns what runs beside the test.
#[derive(Clone)]
pub(crate) struct Tasks(LocalSpawner);

impl Tasks {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.spawn_local(task).expect("the pool lives as long as the test");
    }

    /// Connects a client to `io` and drives it.
    pub(crate) async fn connect(&self, io: impl AsyncRead + AsyncWrite + Unpin + 'static, options: Options) -> Client {
        let (channel, driver) = Connection::handshake(io, options).await.expect("a handshake");
        let end = Rc::new(RefCell::new(None));
        let ended = end.clone();
        self.spawn(async move {
            let reason = driver.await;
            *ended.borrow_mut() = Some(reason);
        });
        Client { channel, end }
    }
}

/// A channel, and how its driver ended.
pub(crate) struct Client {
    pub(crate) channel: Channel,
    end: Rc<RefCell<Option<ConnectionError>>>,
}

impl Client {
    pub(crate) fn end(&self) -> Option<ConnectionError> {
        self.end.borrow().clone()
    }
}

impl std::ops::Deref for Client {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.channel
    }
}

/// Runs a test to its end; panics if it stalls before.
pub(crate) fn run<F: Future<Output = ()> + 'static>(test: impl FnOnce(Tasks) -> F) {
    let mut pool = LocalPool::new();
    let tasks = Tasks(pool.spawner());
    let done = Rc::new(RefCell::new(false));
    let (test, finished) = (test(tasks.clone()), done.clone());
    tasks.spawn(async move {
        test.await;
        *finished.borrow_mut() = true;
    });
    pool.run_until_stalled();
    assert!(*done.borrow(), "the test is stalled: everybody waits for somebody");
}

/// Lets all other tasks go on until there is (very probably) nothing left for them to do.
pub(crate) async fn settle() {
    for _ in 0..200 {
        let mut yielded = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// A connection within this process. The ends write in portions of at most `1 << 16` bytes.
pub(crate) fn pipe() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(1 << 16)
}

pub(crate) fn options() -> Options {
    Options::new("tikv:20160")
}
