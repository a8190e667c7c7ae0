//! Fair locking: a statement that is run again after a conflict keeps the locks that it has.
//!
//! ```text
//!            start                done
//!  (normal) ───────► attempt ─────────────► (normal), locks kept
//!     ▲                │ ▲
//!     │ cancel:        │ │ retry: what this attempt has locked, the next one finds;
//!     │ all released   │ │ what the attempt before has locked and this one did not want is released
//!     └────────────────┘─┘
//! ```
//!
//! Normally, a request that waits for a lock is told, once that is gone, to come again with a newer timestamp, and on the way
//! another one may be faster. In fair locking it gets the lock, as of the version that is newest then, and is told that there
//! was a conflict ([`LockedKey::in_conflict`]): the statement has read older versions before, and is to be run again. That
//! attempt finds the key locked.
//!
//! - Only calls for a single exclusive key are fair. One for several ends fair locking as `done` does.
//! - A key of the attempt before is not locked again if its lock names the right primary, all that is asked is known of it, and
//!   it cannot have expired. Otherwise it is locked again, which raises its lock.
//! - What was locked fairly is committed only if the lock still has the timestamp it was taken at: in between, another request of
//!   this transaction that is late may have taken the lock anew, at a version that nobody has seen.
//!
//! client-go: `KVTxn.StartAggressiveLocking` and what follows it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::lock_keys_batch::{LockItem, LockedKey};
use super::pessimistic::Pessimistic;
use super::pessimistic_rollback::PessimisticRollback;
use super::{LockOptions, Transaction};
use crate::error::{Error, InvalidLock};
use crate::key::Key;
use crate::time::Time;

/// A statement that locks fairly.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FairLocking {
    /// What this attempt has locked.
    current: BTreeMap<Key, FairLock>,
    /// What the attempt before has locked, and this one has not asked for yet.
    last: BTreeMap<Key, FairLock>,
    /// The primary, if this attempt has chosen it.
    primary: Option<Key>,
    /// The primary, if the attempt before has chosen it.
    last_primary: Option<Key>,
    began_at: Time,
    last_began_at: Time,
}

/// A lock, and what was asked about its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FairLock {
    locked: LockedKey,
    has_value: bool,
    has_existence: bool,
}

impl FairLocking {
    fn new(now: Time) -> Self {
        FairLocking {
            current: BTreeMap::new(),
            last: BTreeMap::new(),
            primary: None,
            last_primary: None,
            began_at: now,
            last_began_at: now,
        }
    }

    pub(super) fn current(&self, key: &Key) -> Option<&LockedKey> {
        self.current.get(key).map(|lock| &lock.locked)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.current.is_empty() && self.last.is_empty()
    }

    pub(super) fn last_primary(&self) -> Option<&Key> {
        self.last_primary.as_ref()
    }

    pub(super) fn chose_primary(&mut self, primary: &Key) {
        self.primary = Some(primary.clone());
    }

    pub(super) fn add(&mut self, locked: LockedKey, options: &LockOptions) {
        let has_value = options.return_values || locked.in_conflict;
        let has_existence = has_value || options.check_existence;
        self.current.insert(locked.key.clone(), FairLock { locked, has_value, has_existence });
    }

    pub(super) fn into_keys(self) -> impl Iterator<Item = Key> {
        self.current.into_keys().chain(self.last.into_keys())
    }

    fn has_expired(&self, now: Time, ttl: Duration) -> bool {
        now.saturating_since(self.last_began_at) >= ttl
    }
}

impl FairLock {
    /// What a call is told of a key that was locked by the attempt before.
    fn answers(&self, options: &LockOptions) -> Option<LockedKey> {
        let suffices = (self.has_value || !options.return_values) && (self.has_existence || !options.check_existence);
        let mut locked = self.locked.clone();
        // The conflict is what the statement is run again for.
        locked.in_conflict = false;
        if !options.return_values {
            locked.value = None;
        }
        suffices.then_some(locked)
    }
}

impl Transaction {
    /// Begins fair locking, at `now` on the caller's clock. client-go: `StartAggressiveLocking`.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`], [`Error::InvalidLock`] of an optimistic transaction, one that is in fair locking, or is just
    /// locking keys.
    pub fn start_fair_locking(&mut self, now: Time) -> Result<(), Error> {
        self.check_open()?;
        let state = self.idle_pessimistic()?;
        if state.fair.is_some() {
            return Err(InvalidLock::Fair.into());
        }
        state.fair = Some(FairLocking::new(now));
        Ok(())
    }

    /// Ends an attempt and begins the next one. What the attempt before the last one has locked, and the last one had no use
    /// for, is released by the machine that is returned. client-go: `RetryAggressiveLocking`.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`], [`Error::InvalidLock`] if it is not in fair locking or is just locking keys.
    pub fn retry_fair_locking(&mut self, now: Time) -> Result<Option<PessimisticRollback>, Error> {
        self.check_open()?;
        let state = self.idle_pessimistic()?;
        let fair = state.fair.as_mut().ok_or(InvalidLock::NotFair)?;
        let unwanted = std::mem::replace(&mut fair.last, std::mem::take(&mut fair.current));
        fair.last_primary = fair.primary.take();
        if fair.last_primary.is_some() {
            // The next attempt may lock other keys, and chooses anew.
            state.primary = None;
        }
        fair.last_began_at = std::mem::replace(&mut fair.began_at, now);
        Ok(self.release_fair_locks(unwanted.into_keys().collect()))
    }

    /// Ends fair locking: what it has locked is released by the machine that is returned. client-go:
    /// `CancelAggressiveLocking`.
    ///
    /// # Errors
    ///
    /// As [`Transaction::retry_fair_locking`].
    pub fn cancel_fair_locking(&mut self) -> Result<Option<PessimisticRollback>, Error> {
        self.check_open()?;
        let state = self.idle_pessimistic()?;
        let fair = state.fair.take().ok_or(InvalidLock::NotFair)?;
        if fair.primary.is_some() {
            state.primary = None;
        }
        Ok(self.release_fair_locks(fair.into_keys().collect()))
    }

    /// Ends fair locking: what the last attempt has locked stays locked, what only the one before has locked is released by the
    /// machine that is returned. client-go: `DoneAggressiveLocking`.
    ///
    /// # Errors
    ///
    /// As [`Transaction::retry_fair_locking`].
    pub fn finish_fair_locking(&mut self) -> Result<Option<PessimisticRollback>, Error> {
        self.check_open()?;
        let state = self.idle_pessimistic()?;
        let fair = state.fair.take().ok_or(InvalidLock::NotFair)?;
        for (key, lock) in fair.current {
            let state = self.idle_pessimistic()?;
            state.constraints.entry(key.clone()).or_insert(lock.locked.lock_ts);
            self.flag_lock(&key, lock.locked.exists.filter(|_| lock.has_existence), false);
        }
        Ok(self.release_fair_locks(fair.last.into_keys().collect()))
    }

    /// Whether it is in fair locking. client-go: `IsInAggressiveLockingMode`.
    #[must_use]
    pub fn is_fair_locking(&self) -> bool {
        self.pessimistic_state().is_ok_and(|state| state.fair.is_some())
    }

    /// Whether a key was locked by the present attempt of fair locking. client-go: `IsInAggressiveLockingStage`.
    #[must_use]
    pub fn is_locked_fairly(&self, key: &Key) -> bool {
        let fair = self.pessimistic_state().ok().and_then(|state| state.fair.as_ref());
        fair.is_some_and(|fair| fair.current(key).is_some())
    }

    /// Before a call locks keys: one that cannot be fair ends fair locking.
    pub(super) fn prepare_fair_locking(&mut self, keys: &BTreeSet<Key>, options: &LockOptions) -> Result<(), Error> {
        let state = self.idle_pessimistic()?;
        match state.fair {
            Some(_) if options.shared => Err(InvalidLock::SharedInFairLocking.into()),
            Some(_) if keys.len() > 1 => {
                let unwanted = self.finish_fair_locking()?;
                self.pessimistic_mut()?.unwanted = unwanted.map(Box::new);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Moves what need not be locked again from `items` to `held`. Whether what is left may be locked by the attempt before.
    pub(super) fn keep_fair_locks(
        &mut self,
        now: Time,
        items: &mut Vec<LockItem>,
        held: &mut Vec<LockedKey>,
        options: &LockOptions,
    ) -> Result<bool, Error> {
        let state = self.pessimistic_mut()?;
        let ttl = state.lock_ttl;
        let Some(fair) = &mut state.fair else { return Ok(false) };
        let [item] = items.as_slice() else { return Ok(false) };
        let Some(lock) = fair.last.get(&item.key) else { return Ok(false) };
        let conflict_ts = lock.locked.lock_ts;
        if options.for_update_ts.is_some_and(|ts| ts < conflict_ts) {
            return Err(InvalidLock::OutdatedForUpdateTs { key: item.key.clone() }.into());
        }
        let must_not_exist = item.must_not_exist || options.must_not_exist;
        let Some(lock) = fair.last.remove(&item.key) else { return Ok(false) };
        let chooses_primary = state.primary.is_none();
        let same_primary = match (&state.primary, &fair.primary) {
            (None, _) => fair.last_primary.as_ref() == Some(&item.key),
            (Some(primary), Some(_)) => fair.last_primary.as_ref() == Some(primary),
            (Some(_), None) => true,
        };
        let answer = lock.answers(options).filter(|answer| {
            let exists_amiss = (must_not_exist || options.lock_only_if_exists) && answer.exists.is_none();
            same_primary && !exists_amiss && !fair.has_expired(now, ttl)
        });
        let Some(answer) = answer else { return Ok(true) };
        if must_not_exist && answer.exists == Some(true) {
            let key = item.key.clone();
            fair.last.insert(key.clone(), lock);
            return Err(Error::KeyExists { key });
        }
        if chooses_primary {
            state.primary = Some(item.key.clone());
            fair.primary = Some(item.key.clone());
        }
        let mut kept = lock;
        kept.locked.in_conflict = false;
        fair.current.insert(item.key.clone(), kept);
        held.push(LockedKey { was_locked: true, ..answer });
        items.clear();
        Ok(false)
    }

    fn release_fair_locks(&mut self, keys: Vec<Key>) -> Option<PessimisticRollback> {
        let (start_ts, upkeep) = (self.start_ts(), self.options().upkeep());
        let state = self.pessimistic_mut().ok().filter(|_| !keys.is_empty())?;
        // No lock is newer, and none that is taken from now on is as old.
        state.released_ts = state.released_ts.max(state.for_update_ts);
        Some(PessimisticRollback::new(start_ts, keys, state.for_update_ts, upkeep))
    }

    fn idle_pessimistic(&mut self) -> Result<&mut Pessimistic, Error> {
        let state = self.pessimistic_mut()?;
        match state.under_way {
            Some(_) => Err(InvalidLock::Concurrent.into()),
            None => Ok(state),
        }
    }
}
