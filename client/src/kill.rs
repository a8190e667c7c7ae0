//! Ending what a transaction waits for, from another task.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use futures::future::{Either, select};
use smallvec::SmallVec;
use tikv_core::machine::Machine;

use crate::Error;
use crate::driver::Operation;

/// Ends what a transaction waits for: made by [`Transaction::kill_handle`](crate::Transaction::kill_handle) and
/// [`PipelinedTransaction::kill_handle`](crate::PipelinedTransaction::kill_handle). Cheap to clone; does not keep the transaction.
///
/// client-go: `kv.Variables.Killed`.
#[derive(Clone)]
pub struct KillHandle(Weak<dyn Killable>);

/// What can be killed.
pub(crate) trait Killable: Send + Sync {
    fn kill_switch(&self) -> &KillSwitch;
}

impl KillHandle {
    pub(crate) fn new<K: Killable + 'static>(transaction: &Arc<K>) -> Self {
        let transaction = Arc::downgrade(transaction);
        KillHandle(transaction)
    }

    /// Kills the transaction: its reads and its calls that lock keys end with [`Error::Killed`], those that wait now and those
    /// that come. So does its commit, which is rolled back then in the background; unless it may have been decided already: such a
    /// commit goes on, and ends as it ends. What the transaction has locked, or flushed, stays locked until it is rolled back or
    /// dropped.
    pub fn kill(&self) {
        if let Some(transaction) = self.0.upgrade() {
            transaction.kill_switch().kill();
        }
    }

    /// Whether it has been killed; false if it is no more.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.0.upgrade().is_some_and(|transaction| transaction.kill_switch().is_killed())
    }
}

impl std::fmt::Debug for KillHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KillHandle").field("is_killed", &self.is_killed()).finish()
    }
}

/// Whether a transaction is killed, and who is to be told.
#[derive(Debug, Default)]
pub(crate) struct KillSwitch {
    killed: AtomicBool,
    /// Bounded by the calls that the transaction runs at once.
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// One, most of the time.
    wakers: SmallVec<[(u64, Waker); 1]>,
}

impl KillSwitch {
    fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        // Whoever registers from now on sees it.
        let wakers = std::mem::take(&mut self.waiting().wakers);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_killed() { Err(Error::Killed) } else { Ok(()) }
    }

    /// What `call` comes to, unless the transaction is killed first: then the call goes no further. It stays where its caller
    /// has it, since it may be large.
    pub(crate) async fn run<T>(&self, call: Pin<&mut impl Future<Output = Result<T, Error>>>) -> Result<T, Error> {
        self.check()?;
        match select(call, self.killed()).await {
            Either::Left((end, _)) => end,
            Either::Right(_) => Err(Error::Killed),
        }
    }

    /// What `commit` comes to. Killed before anything may have decided, it is given up; later, it ends as it ends. It stays
    /// where its caller has it, since it is large.
    pub(crate) async fn run_commit<M, T>(&self, commit: &mut Operation<M>) -> Result<T, Error>
    where
        M: Machine<Output = Result<T, Error>> + Send + 'static,
        T: Send,
    {
        match select(commit, self.killed()).await {
            Either::Left((end, _)) => end,
            Either::Right(((), commit)) => match commit.give_up() {
                true => Err(Error::Killed),
                false => commit.await,
            },
        }
    }

    /// Ends when the transaction is killed.
    fn killed(&self) -> Killed<'_> {
        Killed { switch: self, id: None }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`KillSwitch::killed`].
struct Killed<'a> {
    switch: &'a KillSwitch,
    /// Its place among those who wait.
    id: Option<u64>,
}

impl Future for Killed<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let switch = self.switch;
        let mut waiting = switch.waiting();
        if switch.is_killed() {
            return Poll::Ready(());
        }
        let place = self.id.and_then(|id| waiting.wakers.iter_mut().find(|(other, _)| *other == id));
        match place {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => {
                let id = waiting.next;
                waiting.next += 1;
                waiting.wakers.push((id, cx.waker().clone()));
                self.id = Some(id);
            }
        }
        Poll::Pending
    }
}

impl Drop for Killed<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let mut waiting = self.switch.waiting();
        if let Some(index) = waiting.wakers.iter().position(|(other, _)| *other == id) {
            waiting.wakers.swap_remove(index);
        }
    }
}
