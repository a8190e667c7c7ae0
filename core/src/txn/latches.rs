//! Latches: the transactions of one client that write the same keys commit one after the other.
//!
//! Optimistic transactions learn of a conflict from TiKV alone, after a round trip, and meet each other's locks on the way. With
//! latches those of one client queue up in its memory instead, and one that has lost to another hears so before anything is
//! sent. They guard nothing: without them, or with too few of them, TiKV finds every conflict.
//!
//! ```text
//!   acquire ──► Granted ──────────────────────────────────────► release: wakes who waits for its keys
//!      │ ├────► Waiting ──► woken: its turn, or stale ────────────▲
//!      │ │            └──── loses interest ───────────────────────┘
//!      │ ├────► Stale: another has committed to one of the keys since it began
//!      │ └────► Busy: too many wait
//! ```
//!
//! Each key has a queue, first come, first served. A transaction takes its keys in their order, so that two never wait for
//! each other. A key that nobody holds is remembered for a while, with who committed to it last.
//!
//! client-go: package `internal/latch`. There a latch belongs to all keys of one hash value, and one that was woken may be
//! overtaken.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::key::Key;
use crate::timestamp::Timestamp;

/// How long a key is remembered at most, in milliseconds of PD's time. client-go: `expireDuration`.
const REMEMBERED_MS: u64 = 120_000;

/// The latches of one client. Data without a clock: who is to be woken is told to the caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Latches {
    limits: LatchLimits,
    latches: BTreeMap<Key, Latch>,
    transactions: BTreeMap<LatchId, Holder>,
    waiting: usize,
    /// Keys that nobody holds, by the age of what was committed to them.
    remembered: BTreeSet<(Timestamp, Key)>,
    next_id: u64,
}

/// How much [`Latches`] may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LatchLimits {
    /// Keys that nobody holds but whose last commit is remembered; beyond that the oldest are forgotten. Default: 65,536.
    pub remembered_keys: usize,
    /// Transactions that may wait at once; one more goes on without latches. Default: 65,536.
    pub waiting: usize,
}

impl Default for LatchLimits {
    fn default() -> Self {
        LatchLimits { remembered_keys: 1 << 16, waiting: 1 << 16 }
    }
}

/// A transaction that holds latches or waits for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LatchId(u64);

/// What became of a request for latches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "what is held has to be released"]
pub enum Acquired {
    /// All keys are its own until [`Latches::release`].
    Granted(LatchId),
    /// Others hold some of them: [`Latches::release`] of theirs will tell when it is its turn.
    Waiting(LatchId),
    /// It would meet a conflict; nothing is held.
    Stale(NewerCommit),
    /// Too many wait; nothing is held, and the transaction may go on without.
    Busy,
}

/// A commit that makes an older transaction fail.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NewerCommit {
    /// The key that both write.
    pub key: Key,
    /// The transaction that has committed.
    pub start_ts: Timestamp,
    /// When it committed.
    pub commit_ts: Timestamp,
}

/// A transaction that waits no longer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Woken {
    /// Who.
    pub id: LatchId,
    /// All keys are its own; or it is stale, and holds nothing any more.
    pub result: Result<(), NewerCommit>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Latch {
    holder: Option<LatchId>,
    queue: VecDeque<LatchId>,
    /// The last commit: its timestamp (zero if none is known), and who it was.
    commit_ts: Timestamp,
    committed_by: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Holder {
    start_ts: Timestamp,
    /// In order, each once. The first `held` are its own; it waits for the next, if there is one.
    keys: Vec<Key>,
    held: usize,
}

enum Advanced {
    Granted,
    Waiting,
    Stale(NewerCommit),
}

impl Latches {
    /// No latch is held.
    #[must_use]
    pub fn new(limits: LatchLimits) -> Self {
        Latches {
            limits,
            latches: BTreeMap::new(),
            transactions: BTreeMap::new(),
            waiting: 0,
            remembered: BTreeSet::new(),
            next_id: 0,
        }
    }

    /// Takes the latches of `keys`, which the transaction that began at `start_ts` is about to commit, or a place in their
    /// queues.
    pub fn acquire(&mut self, start_ts: Timestamp, keys: impl IntoIterator<Item = Key>) -> Acquired {
        self.forget_before(start_ts);
        let keys: BTreeSet<Key> = keys.into_iter().collect();
        let id = LatchId(self.next_id);
        self.next_id += 1;
        self.transactions.insert(id, Holder { start_ts, keys: keys.into_iter().collect(), held: 0 });
        match self.advance(id) {
            Advanced::Granted => Acquired::Granted(id),
            Advanced::Waiting if self.waiting <= self.limits.waiting => Acquired::Waiting(id),
            Advanced::Waiting => {
                self.give_back(id);
                Acquired::Busy
            }
            Advanced::Stale(newer) => {
                self.give_back(id);
                Acquired::Stale(newer)
            }
        }
    }

    /// Gives the latches back, and the place in the queue of one that still waits. `commit_ts`: when it committed, if it has.
    /// Returns whose wait is over, in the order in which they came.
    #[must_use]
    pub fn release(&mut self, id: LatchId, commit_ts: Option<Timestamp>) -> Vec<Woken> {
        let mut woken = Vec::new();
        if let Some(holder) = self.leave(id) {
            self.pass_on(holder, commit_ts, &mut woken);
        }
        self.forget_beyond(self.limits.remembered_keys);
        woken
    }

    /// Transactions that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Keys that are held or remembered.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.latches.len()
    }

    /// Takes key after key, as far as possible.
    fn advance(&mut self, id: LatchId) -> Advanced {
        let Some(holder) = self.transactions.get_mut(&id) else { return Advanced::Granted };
        while let Some(key) = holder.keys.get(holder.held) {
            let latch = self.latches.entry(key.clone()).or_default();
            if let Some(newer) = latch.newer_than(holder.start_ts, key) {
                return Advanced::Stale(newer);
            }
            if latch.holder.is_some() {
                latch.queue.push_back(id);
                self.waiting += 1;
                return Advanced::Waiting;
            }
            latch.holder = Some(id);
            self.remembered.remove(&(latch.commit_ts, key.clone()));
            holder.held += 1;
        }
        Advanced::Granted
    }

    /// What was taken a moment ago: nobody can have queued up for it.
    fn give_back(&mut self, id: LatchId) {
        if let Some(holder) = self.leave(id) {
            self.pass_on(holder, None, &mut Vec::new());
        }
    }

    /// Removes a transaction, from the queue as well.
    fn leave(&mut self, id: LatchId) -> Option<Holder> {
        let holder = self.transactions.remove(&id)?;
        if let Some(latch) = holder.keys.get(holder.held).and_then(|key| self.latches.get_mut(key)) {
            let before = latch.queue.len();
            latch.queue.retain(|other| *other != id);
            self.waiting -= before - latch.queue.len();
        }
        Some(holder)
    }

    /// Hands each key to who waits for it longest. Those who find themselves stale hand theirs on at once.
    fn pass_on(&mut self, holder: Holder, commit_ts: Option<Timestamp>, woken: &mut Vec<Woken>) {
        let mut leaving = VecDeque::from([(holder, commit_ts)]);
        while let Some((Holder { start_ts, keys, held }, commit_ts)) = leaving.pop_front() {
            for key in keys.into_iter().take(held) {
                let Some(next) = self.free(&key, start_ts, commit_ts) else { continue };
                let result = match self.hand_over(next, &key) {
                    Advanced::Granted => Ok(()),
                    Advanced::Waiting => continue,
                    Advanced::Stale(newer) => Err(newer),
                };
                if result.is_err() {
                    leaving.extend(self.leave(next).map(|stale| (stale, None)));
                }
                woken.push(Woken { id: next, result });
            }
        }
        woken.sort_by_key(|woken| woken.id);
    }

    /// `key` has lost its holder. Returns who is next, and holds it from now on.
    fn free(&mut self, key: &Key, start_ts: Timestamp, commit_ts: Option<Timestamp>) -> Option<LatchId> {
        let latch = self.latches.get_mut(key)?;
        if let Some(commit_ts) = commit_ts.filter(|commit_ts| *commit_ts > latch.commit_ts) {
            (latch.commit_ts, latch.committed_by) = (commit_ts, start_ts);
        }
        let next = latch.queue.pop_front();
        latch.holder = next;
        match (next, latch.commit_ts) {
            (Some(_), _) => self.waiting -= 1,
            (None, Timestamp::ZERO) => drop(self.latches.remove(key)),
            (None, commit_ts) => drop(self.remembered.insert((commit_ts, key.clone()))),
        }
        next
    }

    fn hand_over(&mut self, next: LatchId, key: &Key) -> Advanced {
        let Some(holder) = self.transactions.get_mut(&next) else { return Advanced::Granted };
        holder.held += 1;
        let start_ts = holder.start_ts;
        match self.latches.get(key).and_then(|latch| latch.newer_than(start_ts, key)) {
            Some(newer) => Advanced::Stale(newer),
            None => self.advance(next),
        }
    }

    fn forget_before(&mut self, now: Timestamp) {
        let oldest_ms = now.physical_ms().saturating_sub(REMEMBERED_MS);
        while let Some((commit_ts, _)) = self.remembered.first() {
            if commit_ts.physical_ms() >= oldest_ms {
                return;
            }
            self.forget_oldest();
        }
    }

    fn forget_beyond(&mut self, limit: usize) {
        while self.remembered.len() > limit {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.remembered.pop_first() {
            self.latches.remove(&key);
        }
    }
}

impl Latch {
    fn newer_than(&self, start_ts: Timestamp, key: &Key) -> Option<NewerCommit> {
        let newer = || NewerCommit { key: key.clone(), start_ts: self.committed_by, commit_ts: self.commit_ts };
        (self.commit_ts > start_ts).then(newer)
    }
}
