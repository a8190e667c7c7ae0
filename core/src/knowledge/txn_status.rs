//! What became of transactions whose locks were met.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::timestamp::Timestamp;

/// How a transaction ended. Only final states: one that is alive or not known is never cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinalStatus {
    /// Committed at this timestamp.
    Committed(Timestamp),
    /// Rolled back; it can never commit.
    RolledBack,
}

/// The last transactions found finished, first in, first out. client-go: `txnlock.LockResolver.resolved`.
#[derive(Debug)]
pub struct TxnStatusCache {
    capacity: usize,
    inner: Mutex<Inner>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    statuses: BTreeMap<Timestamp, FinalStatus>,
    order: VecDeque<Timestamp>,
}

impl TxnStatusCache {
    /// An empty cache of at most `capacity` transactions.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        TxnStatusCache { capacity, inner: Mutex::default() }
    }

    /// How the transaction ended, if that is remembered.
    #[must_use]
    pub fn get(&self, start_ts: Timestamp) -> Option<FinalStatus> {
        self.lock().statuses.get(&start_ts).copied()
    }

    /// Remembers how a transaction ended. The first report stays: an end is final, so a different one is a fault of the
    /// server, and is refused (returns false).
    pub fn insert(&self, start_ts: Timestamp, status: FinalStatus) -> bool {
        let mut inner = self.lock();
        if let Some(known) = inner.statuses.get(&start_ts) {
            return *known == status;
        }
        if inner.order.len() >= self.capacity {
            if let Some(oldest) = inner.order.pop_front() {
                inner.statuses.remove(&oldest);
            }
        }
        inner.statuses.insert(start_ts, status);
        inner.order.push_back(start_ts);
        true
    }

    /// All that is remembered, the oldest report first.
    #[must_use]
    pub fn all(&self) -> Vec<(Timestamp, FinalStatus)> {
        let inner = self.lock();
        inner.order.iter().filter_map(|start_ts| Some((*start_ts, *inner.statuses.get(start_ts)?))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for TxnStatusCache {
    fn clone(&self) -> Self {
        TxnStatusCache { capacity: self.capacity, inner: Mutex::new(self.lock().clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(n: u64) -> Timestamp {
        Timestamp::from_version(n)
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let cache = TxnStatusCache::new(2);
        for n in 1..=3 {
            assert!(cache.insert(ts(n), FinalStatus::RolledBack));
        }
        assert_eq!(cache.get(ts(1)), None);
        assert_eq!(cache.get(ts(3)), Some(FinalStatus::RolledBack));
        assert_eq!(cache.all(), [(ts(2), FinalStatus::RolledBack), (ts(3), FinalStatus::RolledBack)]);
    }

    #[test]
    fn the_first_report_stays() {
        let cache = TxnStatusCache::new(2);
        assert!(cache.insert(ts(1), FinalStatus::Committed(ts(5))));
        assert!(cache.insert(ts(1), FinalStatus::Committed(ts(5))));
        assert!(!cache.insert(ts(1), FinalStatus::RolledBack));
        assert_eq!(cache.get(ts(1)), Some(FinalStatus::Committed(ts(5))));
    }
}
