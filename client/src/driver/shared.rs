//! What all operations of a client share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures::task::AtomicWaker;
use tikv_core::config::Config;
use tikv_core::keyspace::KeyCodec;
use tikv_core::knowledge::Knowledge;
use tikv_core::rng::Rng;

use crate::latches::LatchQueues;
use crate::net::{PdService, StorePool};
use crate::runtime::Runtime;

/// Tasks that may run without an owner at once: commits of secondaries, clean-ups, resolutions of locks.
const BACKGROUND_LIMIT: usize = 10_000;

/// What all operations share. No lock here is held for longer than a look-up.
///
/// Aligned to a cache line, so that threads that only read it do not wait for those that count its references.
#[repr(align(64))]
pub(crate) struct Shared {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) config: Config,
    pub(crate) pd: Arc<PdService>,
    pub(crate) stores: StorePool,
    pub(crate) background: Arc<Background>,
    /// Where the commits of optimistic transactions take turns, if they do.
    pub(crate) latches: Option<Arc<LatchQueues>>,
    knowledge: Arc<KeySpaces>,
    seed: u64,
    /// Operations that have begun.
    begun: Padded<AtomicU64>,
}

/// On a cache line of its own, since all threads write it.
#[repr(align(64))]
struct Padded<T>(T);

/// What is known, apart for raw and transactional keys, whose regions have other bounds.
pub(crate) struct KeySpaces {
    pub(crate) raw: Knowledge,
    pub(crate) txn: Knowledge,
}

impl Shared {
    pub(crate) fn new(
        runtime: Arc<dyn Runtime>,
        config: Config,
        pd: Arc<PdService>,
        stores: StorePool,
        knowledge: Arc<KeySpaces>,
        seed: u64,
    ) -> Self {
        let latches = LatchQueues::new(&config);
        let (background, begun) = (Arc::default(), Padded(AtomicU64::new(0)));
        Shared { runtime, config, pd, stores, background, latches, knowledge, seed, begun }
    }

    pub(crate) fn knowledge(&self, codec: KeyCodec) -> &Knowledge {
        match codec {
            KeyCodec::Raw => &self.knowledge.raw,
            _ => &self.knowledge.txn,
        }
    }

    /// The dice of one operation.
    pub(crate) fn child_rng(&self) -> Rng {
        let number = self.begun.0.fetch_add(1, Ordering::Relaxed);
        // The roll keeps the sequences of neighbours apart.
        Rng::new(self.seed ^ number).child()
    }

    /// Ends all connections: what waits for an answer gets a fault.
    pub(crate) fn close(&self) {
        self.pd.close();
        self.stores.close();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

impl KeySpaces {
    pub(crate) fn new(config: &Config) -> Self {
        KeySpaces { raw: Knowledge::new(KeyCodec::Raw, config), txn: Knowledge::new(KeyCodec::Txn, config) }
    }
}

/// Counts the tasks without an owner.
#[derive(Default)]
pub(crate) struct Background {
    running: AtomicUsize,
    idle: AtomicWaker,
}

/// One task's share of the limit.
pub(crate) struct Ticket(Arc<Background>);

impl Background {
    /// `None` if too many are running already.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Ticket> {
        let room = |running| (running < BACKGROUND_LIMIT).then_some(running + 1);
        self.running.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).ok()?;
        Some(Ticket(Arc::clone(self)))
    }

    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    /// Ready when none is running. One task at a time can wait.
    pub(crate) fn poll_idle(&self, cx: &std::task::Context<'_>) -> std::task::Poll<()> {
        self.idle.register(cx.waker());
        if self.running() == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_tasks_run_in_the_background_than_there_is_room_for() {
        let background = Arc::new(Background::default());
        let mut tickets: Vec<Ticket> = (0..BACKGROUND_LIMIT).map_while(|_| background.enter()).collect();
        assert_eq!(tickets.len(), BACKGROUND_LIMIT);
        assert!(background.enter().is_none());
        drop(tickets.pop());
        let ticket = background.enter();
        assert!(ticket.is_some() && background.enter().is_none());
        drop((tickets, ticket));
        assert_eq!(background.running(), 0);
    }
}
