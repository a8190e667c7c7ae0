//! Pessimistic lock requests that wait, and who wakes them.
//!
//! Each store keeps a queue a key; the oldest transaction comes first. When the lock goes,
//!
//! - a request of normal mode is told to retry (a write conflict), and since its transaction may not come back, all others
//!   that waited by then are woken some time later;
//! - a request of force mode (fair locking) resumes, and the others go on waiting, for it.
//!
//! Shared locks are woken together. A wait ends with `KeyIsLocked` when its time is up, and with a deadlock when it would
//! close a circle. TiKV: `LockWaitQueues`, `WaiterManager`, `DetectTable` (which is one table for the cluster here, too).
//!
//! [`LockWaits`] is data: who runs a [`Storage`](crate::storage::Storage) without the cluster around it can keep one of his own.
//! He lets requests [join](LockWaits::join), tells it which locks [went](LockWaits::on_released) and which
//! [came](LockWaits::on_acquired), and answers or resumes whom it wakes.

use std::collections::BTreeMap;
use std::time::Duration;

use tikv_core::key::Key;
use tikv_core::request::Shared;
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_proto::deadlock::WaitForEntry;
use tikv_proto::kvrpcpb::{Deadlock, LockInfo, PessimisticLockRequest, PessimisticLockResponse};

use super::CallId;
use super::fingerprint::fingerprint;
use crate::storage::{LockWait, ReleasedLock};

/// How long after the first the others are woken. TiKV: `wake-up-delay-duration`.
const WAKE_UP_DELAY: Duration = Duration::from_millis(20);

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Waiter {
    /// The store where it waits.
    pub store_id: u64,
    /// The request.
    pub request: Shared<PessimisticLockRequest>,
    /// What it waits for.
    pub wait: LockWait,
    /// When it began to wait.
    pub since: Time,
    /// How long it waits at most.
    pub deadline: Time,
}

/// What becomes of a request that waited.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Woken {
    /// It is answered: retry.
    Retry(CallId, Waiter, ReleasedLock),
    /// It is tried again.
    Resume(CallId, Waiter),
    /// Its time is up.
    TimedOut(CallId, Waiter),
}

/// All requests that wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LockWaits {
    waiters: BTreeMap<CallId, Waiter>,
    /// By store and key. A queue is there as long as somebody waits in it.
    queues: BTreeMap<(u64, Key), Queue>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Queue {
    /// By start_ts; with the round in which the request joined.
    members: BTreeMap<(Timestamp, CallId), u64>,
    /// Rises when a request of normal mode is woken.
    round: u64,
    /// When the others are woken, and by what.
    wake_all: Option<(Time, ReleasedLock)>,
}

/// An edge of the wait-for graph: who waits, for whom, on which key.
struct Edge<'a> {
    waiter: Timestamp,
    holder: Timestamp,
    key: &'a Key,
    tag: &'a [u8],
    since: Time,
}

impl LockWaits {
    /// Lets a request wait, unless that would close a circle: then the deadlock is its answer.
    pub fn join(&mut self, call: CallId, waiter: Waiter) -> Option<PessimisticLockResponse> {
        if let Some(deadlock) = self.deadlock(&waiter) {
            return Some(waiter.wait.deadlock(deadlock));
        }
        let queue = self.queues.entry((waiter.store_id, waiter.wait.key.clone())).or_default();
        queue.members.insert((waiter.wait.start_ts, call), queue.round);
        self.waiters.insert(call, waiter);
        None
    }

    /// A lock on a store has gone.
    pub fn on_released(&mut self, now: Time, store_id: u64, released: &ReleasedLock) -> Vec<Woken> {
        let place = (store_id, released.key.clone());
        let Some(queue) = self.queues.get_mut(&place) else { return Vec::new() };
        let mut woken = Vec::new();
        let mut must_wake_others = false;
        while let Some(first) = queue.members.first_entry() {
            let (_, call) = *first.key();
            let Some(waiter) = self.waiters.get(&call) else { break };
            if !woken.is_empty() && !waiter.wait.is_shared {
                break;
            }
            first.remove();
            let Some(waiter) = self.waiters.remove(&call) else { break };
            let is_shared = waiter.wait.is_shared;
            if waiter.wait.is_force {
                woken.push(Woken::Resume(call, waiter));
            } else {
                queue.round += 1;
                must_wake_others = true;
                woken.push(Woken::Retry(call, waiter, released.clone()));
            }
            if !is_shared {
                break;
            }
        }
        if must_wake_others {
            queue.wake_all = Some((now + WAKE_UP_DELAY, released.clone()));
        } else if let Some((_, latest)) = &mut queue.wake_all {
            *latest = released.clone();
        }
        if queue.members.is_empty() {
            self.queues.remove(&place);
        }
        woken
    }

    /// Somebody has locked a key: those who wait for the key wait for him now. Deadlocks that come of it.
    pub fn on_acquired(&mut self, store_id: u64, lock: &LockInfo) -> Vec<(CallId, PessimisticLockResponse)> {
        let Some(queue) = self.queues.get(&(store_id, Key::from(lock.key.clone()))) else { return Vec::new() };
        let calls: Vec<CallId> = queue.members.keys().map(|(_, call)| *call).collect();
        let mut victims = Vec::new();
        for call in calls {
            let Some(mut waiter) = self.waiters.remove(&call) else { continue };
            *waiter.wait.lock = lock.clone();
            let deadlock = self.deadlock(&waiter);
            self.waiters.insert(call, waiter);
            if let Some(deadlock) = deadlock {
                victims.extend(self.remove(call).map(|waiter| (call, waiter.wait.deadlock(deadlock))));
            }
        }
        victims
    }

    /// When somebody has to be woken at the latest.
    pub fn next_wakeup(&self) -> Option<Time> {
        let deadlines = self.waiters.values().map(|waiter| waiter.deadline);
        let rounds = self.queues.values().filter_map(|queue| Some(queue.wake_all.as_ref()?.0));
        deadlines.chain(rounds).min()
    }

    /// Wakes whose time has come.
    pub fn wake(&mut self, now: Time) -> Vec<Woken> {
        let mut woken = Vec::new();
        let is_due = |queue: &Queue| queue.wake_all.as_ref().is_some_and(|(at, _)| *at <= now);
        let due: Vec<_> =
            self.queues.iter().filter(|(_, queue)| is_due(queue)).map(|(place, _)| place.clone()).collect();
        for place in due {
            self.wake_all(&place, &mut woken);
        }
        let late: Vec<_> =
            self.waiters.iter().filter(|(_, waiter)| waiter.deadline <= now).map(|(call, _)| *call).collect();
        woken.extend(late.into_iter().filter_map(|call| Some(Woken::TimedOut(call, self.remove(call)?))));
        woken
    }

    /// Wakes those who joined before the last round, up to the first of force mode.
    fn wake_all(&mut self, place: &(u64, Key), woken: &mut Vec<Woken>) {
        let Some(queue) = self.queues.get_mut(place) else { return };
        let Some((_, released)) = queue.wake_all.take() else { return };
        while let Some(first) = queue.members.first_entry() {
            if *first.get() >= queue.round {
                break;
            }
            let ((_, call), _) = first.remove_entry();
            let Some(waiter) = self.waiters.remove(&call) else { continue };
            if waiter.wait.is_force {
                woken.push(Woken::Resume(call, waiter));
                break;
            }
            woken.push(Woken::Retry(call, waiter, released.clone()));
        }
        if queue.members.is_empty() {
            self.queues.remove(place);
        }
    }

    /// Takes away all that wait on a store.
    pub fn clear_store(&mut self, store_id: u64) -> Vec<CallId> {
        let here = |waiter: &Waiter| waiter.store_id == store_id;
        let calls: Vec<_> = self.waiters.iter().filter(|(_, waiter)| here(waiter)).map(|(call, _)| *call).collect();
        for call in &calls {
            self.remove(*call);
        }
        calls
    }

    /// Takes a request away that nobody waits for any more.
    pub fn remove(&mut self, call: CallId) -> Option<Waiter> {
        let waiter = self.waiters.remove(&call)?;
        let place = waiter.place();
        if let Some(queue) = self.queues.get_mut(&place) {
            queue.members.remove(&(waiter.wait.start_ts, call));
            if queue.members.is_empty() {
                self.queues.remove(&place);
            }
        }
        Some(waiter)
    }

    /// Who waits on a store. TiKV: `GetLockWaitInfo`.
    pub fn entries(&self, now: Time, store_id: u64) -> Vec<WaitForEntry> {
        let here = self.waiters.values().filter(|waiter| waiter.store_id == store_id);
        here.flat_map(Waiter::edges).map(|edge| edge.entry(now)).collect()
    }

    /// The circle that a new wait would close. A transaction's first lock request closes none.
    fn deadlock(&self, waiter: &Waiter) -> Option<Deadlock> {
        if waiter.wait.is_first_lock {
            return None;
        }
        for edge in waiter.edges() {
            let Some(path) = self.path(edge.holder, edge.waiter) else { continue };
            let Some(last) = path.last() else { continue };
            let (deadlock_key, deadlock_key_hash) = (last.key.to_bytes(), fingerprint(last.key.as_slice()));
            let wait_chain = path.iter().chain([&edge]).map(|edge| edge.entry(waiter.since)).collect();
            return Some(Deadlock {
                lock_ts: edge.holder.version(),
                lock_key: edge.key.to_bytes(),
                deadlock_key_hash,
                wait_chain,
                deadlock_key,
            });
        }
        None
    }

    /// A chain of waits from one transaction to another.
    fn path(&self, from: Timestamp, to: Timestamp) -> Option<Vec<Edge<'_>>> {
        let mut by_waiter: BTreeMap<Timestamp, Vec<Edge<'_>>> = BTreeMap::new();
        for edge in self.waiters.values().flat_map(Waiter::edges) {
            by_waiter.entry(edge.waiter).or_default().push(edge);
        }
        // How each transaction was reached; also those that lead nowhere.
        let mut reached_by: BTreeMap<Timestamp, Edge<'_>> = BTreeMap::new();
        let mut stack = vec![from];
        while let Some(txn) = stack.pop() {
            for edge in by_waiter.remove(&txn).unwrap_or_default() {
                let holder = edge.holder;
                if holder == from || reached_by.contains_key(&holder) {
                    continue;
                }
                reached_by.insert(holder, edge);
                stack.push(holder);
            }
        }
        let mut path = Vec::new();
        let mut at = to;
        while at != from {
            let edge = reached_by.remove(&at)?;
            at = edge.waiter;
            path.push(edge);
        }
        path.reverse();
        Some(path)
    }
}

impl Waiter {
    fn place(&self) -> (u64, Key) {
        (self.store_id, self.wait.key.clone())
    }

    /// A shared lock has many holders.
    fn edges(&self) -> impl Iterator<Item = Edge<'_>> {
        let lock = &self.wait.lock;
        let tag = self.request.context.as_deref().map_or(&[][..], |context| &context.resource_group_tag);
        let alone = lock.shared_lock_infos.is_empty().then_some(lock.as_ref());
        let holders = alone.into_iter().chain(&lock.shared_lock_infos);
        holders.map(move |lock| Edge {
            waiter: self.wait.start_ts,
            holder: Timestamp::from_version(lock.lock_version),
            key: &self.wait.key,
            tag,
            since: self.since,
        })
    }
}

impl Edge<'_> {
    fn entry(&self, now: Time) -> WaitForEntry {
        WaitForEntry {
            txn: self.waiter.version(),
            wait_for_txn: self.holder.version(),
            key_hash: fingerprint(self.key.as_slice()),
            key: self.key.to_bytes(),
            resource_group_tag: self.tag.to_vec().into(),
            wait_time: u64::try_from(now.saturating_since(self.since).as_millis()).unwrap_or(u64::MAX),
        }
    }
}
