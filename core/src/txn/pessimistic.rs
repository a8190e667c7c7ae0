//! What a pessimistic transaction has locked, between its calls.
//!
//! ```text
//!         begin_lock                end_lock, abandon_lock
//!  Open ──────────────► LockKeys runs ─────────────────────► Open
//! ```
//!
//! Which keys are locked is kept in the flags of the buffer, where the commit finds it; here is what goes beyond: the primary,
//! the newest for_update_ts, keys that may be locked though nobody knows (their requests were not answered, or given up),
//! and the state of [fair locking](super::fair_locking).
//!
//! client-go: `KVTxn.lockKeys`, `KVTxn.rollbackPessimisticLocks`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::fair_locking::FairLocking;
use super::heartbeat::Heartbeat;
use super::lock_keys::{LockDetails, LockRequest, Locked};
use super::lock_keys_batch::{LockItem, LockedKey};
use super::pessimistic_rollback::PessimisticRollback;
use super::transaction::checked;
use super::{LockOptions, PessimisticCommit, Transaction, TxnState};
use crate::error::{Error, InvalidLock};
use crate::key::{Key, KeyRange};
use crate::membuffer::{FlagOp, KeyFlags, ValueRef};
use crate::time::Time;
use crate::timestamp::Timestamp;

/// The state of a pessimistic transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Pessimistic {
    /// The key that was locked first, and names the transaction on all its locks.
    pub(super) primary: Option<Key>,
    /// The newest timestamp at which a key was locked; zero if none was.
    pub(super) for_update_ts: Timestamp,
    /// The timestamps that the locks of fair locking must still have when they are prewritten.
    pub(super) constraints: BTreeMap<Key, Timestamp>,
    /// Keys that were ever asked for in fair locking. A request that was given up may wait on, and raise a later lock to a
    /// version that nobody has seen, whichever way that was taken.
    pub(super) asked_fairly: BTreeSet<Key>,
    /// The call that locks keys.
    pub(super) under_way: Option<UnderWay>,
    /// Locked keys of which it was not asked whether they exist.
    pub(super) unchecked: BTreeSet<Key>,
    /// What fair locking has locked in vain, until there is a machine to release it.
    pub(super) unwanted: Option<Box<PessimisticRollback>>,
    /// Keys that may be locked though nobody knows.
    pub(super) in_doubt: BTreeSet<Key>,
    /// The newest timestamp of a release: a lock taken at this or before may go with it.
    pub(super) released_ts: Timestamp,
    /// How long its locks live without a heartbeat.
    pub(super) lock_ttl: Duration,
    /// When the lock of the primary has to be extended next.
    pub(super) next_beat: Option<Time>,
    pub(super) fair: Option<FairLocking>,
    /// What the calls took that have locked keys.
    pub(super) details: LockDetails,
    /// Whether somebody has taken over to clean up.
    pub(super) is_released: bool,
}

/// A call that locks keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct UnderWay {
    keys: Vec<Key>,
    primary: Key,
    chooses_primary: bool,
    lock: LockOptions,
    may_be_held: bool,
    force: bool,
}

impl Transaction {
    /// Begins to lock keys, exclusively unless the options say otherwise: as the request says, to be run by a
    /// [`LockKeys`](super::LockKeys), whose end goes to [`Transaction::end_lock`]. Keys that the transaction holds are not
    /// locked again. `now` is the time on the caller's clock.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`], [`Error::EmptyKey`], [`Error::KeyTooLarge`], [`Error::InvalidLock`] if the keys cannot be
    /// locked in this way, [`Error::KeyExists`] if a key must be absent and is known to exist.
    pub fn begin_lock(
        &mut self,
        now: Time,
        keys: impl IntoIterator<Item = Key>,
        options: LockOptions,
    ) -> Result<LockRequest, Error> {
        self.check_open()?;
        options.check()?;
        let keys = keys.into_iter().map(checked).collect::<Result<BTreeSet<_>, _>>()?;
        self.prepare_fair_locking(&keys, &options)?;
        let (mut items, mut held) = (Vec::new(), Vec::new());
        for key in keys {
            match self.held(&key, &options)? {
                Some(locked) => held.push(locked),
                None => {
                    let must_not_exist =
                        self.buffer().flags(key.as_slice()).is_some_and(KeyFlags::has_need_check_exists);
                    items.push(LockItem { key, must_not_exist });
                }
            }
        }
        let state = self.pessimistic_state()?;
        let known_primary = state.primary.clone();
        if options.lock_only_if_exists && known_primary.is_none() && items.len() > 1 {
            return Err(InvalidLock::OnlyIfExistsWithoutPrimary.into());
        }
        if options.shared && known_primary.is_none() && !items.is_empty() {
            return Err(InvalidLock::SharedWithoutPrimary.into());
        }
        let outdated = options.for_update_ts.is_some_and(|ts| ts <= state.released_ts);
        if let Some(item) = items.first().filter(|_| outdated) {
            return Err(InvalidLock::OutdatedForUpdateTs { key: item.key.clone() }.into());
        }
        let may_be_held = self.keep_fair_locks(now, &mut items, &mut held, &options)?;
        let state = self.pessimistic_state()?;
        let chooses_primary = state.primary.is_none() && !items.is_empty();
        let primary = state.primary.clone().or_else(|| items.first().map(|item| item.key.clone())).unwrap_or_default();
        let is_first_lock = chooses_primary && items.len() == 1 && !state.may_hold_locks();
        let force = state.fair.is_some() && items.len() == 1;
        let keys = items.iter().map(|item| item.key.clone()).collect();
        let (lock, under_primary) = (options, primary.clone());
        let under_way = UnderWay { keys, primary: under_primary, chooses_primary, lock, may_be_held, force };
        let state = self.pessimistic_mut()?;
        if force {
            state.asked_fairly.extend(under_way.keys.iter().cloned());
        }
        state.under_way = Some(under_way);
        let release = state.unwanted.take();
        let call = self.options().locking(options.deadline);
        let upkeep = self.options().upkeep();
        Ok(LockRequest {
            start_ts: self.start_ts(),
            started_at: self.started_at(),
            items,
            held,
            may_be_held,
            release,
            primary,
            chooses_primary,
            is_first_lock,
            force,
            lock: options,
            call,
            upkeep,
        })
    }

    /// Takes the end of a call that locks keys. Without effect if none is under way.
    pub fn end_lock(&mut self, end: &Result<Locked, Error>) {
        let Ok(state) = self.pessimistic_mut() else { return };
        let Some(under_way) = state.under_way.take() else { return };
        match end {
            Ok(locked) => self.on_locked(&under_way, locked),
            Err(error) => {
                state.released_ts = state.released_ts.max(under_way.lock.for_update_ts.unwrap_or_default());
                let refused = matches!(error, Error::WriteConflict(_) | Error::KeyExists { .. });
                if !refused || under_way.keys.len() > 1 || under_way.may_be_held {
                    state.in_doubt.extend(under_way.keys);
                }
            }
        }
    }

    /// The owner of a call that locks keys has lost interest: what it may have locked is released (by the machine that was
    /// abandoned, and once more when the transaction ends). Without effect if none is under way.
    pub fn abandon_lock(&mut self) {
        if let Some(under_way) = self.pessimistic_mut().ok().and_then(|state| state.under_way.take()) {
            if let Ok(state) = self.pessimistic_mut() {
                state.released_ts = state.released_ts.max(under_way.lock.for_update_ts.unwrap_or_default());
                state.in_doubt.extend(under_way.keys);
            }
        }
    }

    fn on_locked(&mut self, under_way: &UnderWay, locked: &Locked) {
        let mut newest = locked.for_update_ts;
        for key in locked.keys.iter().filter(|key| !key.was_locked && key.is_locked) {
            newest = newest.max(key.lock_ts);
            self.note_lock(under_way, key);
        }
        let is_locked = |key: &&LockedKey| key.is_locked && key.key == under_way.primary;
        let has_primary = under_way.chooses_primary && locked.keys.iter().any(|key| is_locked(&key));
        let Ok(state) = self.pessimistic_mut() else { return };
        state.for_update_ts = state.for_update_ts.max(newest);
        state.details = state.details.plus(locked.details);
        if has_primary {
            state.primary = Some(under_way.primary.clone());
            state.next_beat = locked.next_beat;
            if let Some(fair) = &mut state.fair {
                fair.chose_primary(&under_way.primary);
            }
        }
    }

    fn note_lock(&mut self, under_way: &UnderWay, key: &LockedKey) {
        if let Ok(state) = self.pessimistic_mut() {
            state.in_doubt.remove(&key.key);
            if let Some(fair) = state.fair.as_mut().filter(|_| under_way.force) {
                return fair.add(key.clone(), &under_way.lock);
            }
            if state.asked_fairly.contains(&key.key) && !under_way.lock.shared {
                state.constraints.insert(key.key.clone(), key.lock_ts);
            }
        }
        self.flag_lock(&key.key, key.exists.or(under_way.lock.must_not_exist.then_some(false)), under_way.lock.shared);
    }

    /// Notes in the buffer that a key is locked. Of a key of which nothing is known it is assumed that it exists.
    pub(super) fn flag_lock(&mut self, key: &Key, exists: Option<bool>, shared: bool) {
        // Of a key that was presumed absent TiKV has checked that it is.
        let flags = self.buffer().flags(key.as_slice()).unwrap_or_default();
        let exists = exists.or(flags.has_need_check_exists().then_some(false));
        let existence = match exists {
            Some(false) => FlagOp::SetKeyLockedValueNotExists,
            _ => FlagOp::SetKeyLockedValueExists,
        };
        if let (None, Ok(state)) = (exists, self.pessimistic_mut()) {
            state.unchecked.insert(key.clone());
        }
        let mode = if shared { FlagOp::SetKeyLockedInShareMode } else { FlagOp::SetKeyLockedInExclusiveMode };
        let ops = [FlagOp::SetKeyLocked, FlagOp::DelNeedCheckExists, existence, mode];
        // The key was checked before it was locked: flags alone break no limit.
        let _ = self.flag(key, &ops);
    }

    /// What is known of a key that the transaction has locked; `None` if it has to be locked.
    fn held(&self, key: &Key, options: &LockOptions) -> Result<Option<LockedKey>, Error> {
        let flags = self.buffer().flags(key.as_slice()).unwrap_or_default();
        let fair = self.pessimistic_state()?.fair.as_ref().and_then(|fair| fair.current(key));
        if flags.has_locked_in_share_mode() && !options.shared {
            return Err(InvalidLock::SharedUpgrade { key: key.clone() }.into());
        }
        let exists = match fair {
            Some(lock) => lock.exists,
            None if flags.has_locked() => self.locked_key_exists(key),
            None => return Ok(None),
        };
        if flags.has_need_check_exists() || options.must_not_exist {
            self.check_absence(key, exists)?;
        }
        let (lock_ts, value) = (fair.map_or(Timestamp::ZERO, |lock| lock.lock_ts), None);
        let (is_locked, was_locked, in_conflict) = (true, true, false);
        Ok(Some(LockedKey { key: key.clone(), is_locked, was_locked, value, exists: None, lock_ts, in_conflict }))
    }

    /// Whether a locked key exists, if that is known.
    fn locked_key_exists(&self, key: &Key) -> Option<bool> {
        let is_unchecked = self.pessimistic_state().is_ok_and(|state| state.unchecked.contains(key));
        let flags = self.buffer().flags(key.as_slice()).unwrap_or_default();
        (!is_unchecked).then(|| flags.has_locked_value_exists())
    }

    fn check_absence(&self, key: &Key, exists: Option<bool>) -> Result<(), Error> {
        let key = key.clone();
        match exists {
            Some(false) => Ok(()),
            Some(true) => Err(Error::KeyExists { key }),
            None => Err(InvalidLock::ExistenceUnknown { key }.into()),
        }
    }

    /// Checks what can be checked when a key is inserted, and says what has to be checked by the prewrite.
    pub(super) fn absence_flags(&self, key: &[u8]) -> Result<&'static [FlagOp], Error> {
        let Ok(state) = self.pessimistic_state() else { return Ok(&[FlagOp::SetPresumeKeyNotExists]) };
        let key = &Key::from(key);
        let fair = state.fair.as_ref().and_then(|fair| fair.current(key));
        let is_locked = self.buffer().flags(key.as_slice()).is_some_and(KeyFlags::has_locked);
        let exists = match fair {
            Some(lock) => lock.exists,
            None if is_locked => self.locked_key_exists(key),
            // Prewrite checks nothing of the keys of a pessimistic transaction, unless it is told to.
            None => return Ok(&[FlagOp::SetPresumeKeyNotExists, FlagOp::SetNeedConstraintCheckInPrewrite]),
        };
        self.check_absence(key, exists)?;
        Ok(&[FlagOp::SetPresumeKeyNotExists])
    }

    /// Whether it locks keys before it writes them.
    #[must_use]
    pub fn is_pessimistic(&self) -> bool {
        self.pessimistic_state().is_ok()
    }

    /// The newest timestamp at which a key was locked, zero if none was. A key that is locked has at this timestamp the value
    /// that it had when it was locked. client-go: `committer.forUpdateTS`.
    #[must_use]
    pub fn for_update_ts(&self) -> Timestamp {
        self.pessimistic_state().map_or(Timestamp::ZERO, |state| state.for_update_ts)
    }

    /// What those of its calls took that have locked keys. client-go: `util.LockKeysDetailCtxKey`.
    #[must_use]
    pub fn lock_details(&self) -> LockDetails {
        self.pessimistic_state().map_or_else(|_| LockDetails::default(), |state| state.details)
    }

    /// Whether it holds the pessimistic lock of a key.
    #[must_use]
    pub fn holds_lock(&self, key: &[u8]) -> bool {
        let fair = self.pessimistic_state().ok().and_then(|state| state.fair.as_ref());
        let is_fair = fair.is_some_and(|fair| fair.current(&Key::from(key.to_vec())).is_some());
        self.is_pessimistic() && (is_fair || self.buffer().flags(key).is_some_and(KeyFlags::has_locked))
    }

    /// The heartbeat that keeps its locks alive, for as long as they have to be: `None` as long as nothing is locked, and
    /// once it has ended. To be run beside the transaction, and abandoned with it; to be replaced if the
    /// [primary](Heartbeat::primary) has become another one.
    #[must_use]
    pub fn keep_alive(&self) -> Option<Heartbeat> {
        let state = self.pessimistic_state().ok()?;
        let is_live = matches!(self.state(), TxnState::Open | TxnState::Committing);
        let last_primary = || state.fair.as_ref().and_then(FairLocking::last_primary);
        let primary = state.primary.as_ref().or_else(last_primary).filter(|_| is_live)?;
        let heartbeat = Heartbeat::new(self.start_ts(), primary.clone(), self.options().upkeep());
        Some(match state.next_beat {
            Some(due) => heartbeat.due(due),
            None => heartbeat,
        })
    }

    /// What has to be released of a transaction that has ended without a commit, once: a machine to be run in the background,
    /// `None` if there is nothing to do. client-go: `KVTxn.Rollback`.
    pub fn release(&mut self) -> Option<PessimisticRollback> {
        if self.state() != TxnState::RolledBack {
            return None;
        }
        let state = self.pessimistic_mut().ok()?;
        if std::mem::replace(&mut state.is_released, true) {
            return None;
        }
        let mut keys = std::mem::take(&mut state.in_doubt);
        // Requests of a call that was given up may still be on their way.
        let in_doubt = !keys.is_empty() || state.under_way.is_some();
        keys.extend(state.under_way.take().into_iter().flat_map(|under_way| under_way.keys));
        keys.extend(state.unwanted.take().iter().flat_map(|unwanted| unwanted.keys().to_vec()));
        keys.extend(state.fair.take().into_iter().flat_map(FairLocking::into_keys));
        keys.extend(self.flagged_locks());
        let (start_ts, upkeep) = (self.start_ts(), self.options().upkeep());
        // It locks nothing any more, so that whatever it has locked can go.
        let keys: Vec<Key> = keys.into_iter().collect();
        (!keys.is_empty()).then(|| PessimisticRollback::new(start_ts, keys, Timestamp::MAX, upkeep).again(in_doubt))
    }

    /// What has to be released of a call that locked keys when the transaction had been given up already: a machine to be run
    /// in the background. `None` if the transaction has not been given up.
    #[must_use]
    pub fn release_late(&self, locked: &Locked) -> Option<PessimisticRollback> {
        let keys = locked.keys.iter().filter(|key| key.is_locked && !key.was_locked);
        let keys: Vec<Key> = keys.map(|key| key.key.clone()).collect();
        let is_over = self.state() == TxnState::RolledBack && !keys.is_empty();
        let upkeep = self.options().upkeep();
        is_over.then(|| PessimisticRollback::new(self.start_ts(), keys, Timestamp::MAX, upkeep))
    }

    fn flagged_locks(&self) -> Vec<Key> {
        let entries = self.buffer().iter_with_flags(&KeyRange::ALL);
        entries.filter(|entry| entry.flags.has_locked()).map(|entry| entry.key.to_key()).collect()
    }

    /// Sets a key that must be absent, whose absence was checked when it was locked.
    ///
    /// # Errors
    ///
    /// As [`Transaction::set`].
    pub fn set_absent(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        let key = key.as_ref();
        let is_deleted = matches!(self.buffer().get(key), Some(ValueRef::Tombstone));
        let ops: &[FlagOp] = if is_deleted { &[] } else { &[FlagOp::SetNewlyInserted] };
        self.write(key, value.as_ref(), ops)
    }
}

impl Pessimistic {
    /// Whether the transaction can commit.
    pub(super) fn check_idle(&self) -> Result<(), InvalidLock> {
        match (&self.under_way, &self.fair) {
            (Some(_), _) => Err(InvalidLock::Concurrent),
            (None, Some(fair)) if !fair.is_empty() => Err(InvalidLock::Fair),
            _ => Ok(()),
        }
    }

    /// What the commit has to know. It cleans up, whatever becomes of it.
    pub(super) fn begin_commit(&mut self, start_ts: Timestamp) -> PessimisticCommit {
        self.is_released = true;
        self.fair = None;
        let unwanted = self.unwanted.take();
        let unwanted = unwanted.iter().flat_map(|unwanted| unwanted.keys().iter().cloned());
        let in_doubt: Vec<Key> = std::mem::take(&mut self.in_doubt).into_iter().chain(unwanted).collect();
        // A lock that is there all the same would be none that an optimistic transaction can have.
        let least = if in_doubt.is_empty() { Timestamp::ZERO } else { start_ts };
        let for_update_ts = self.for_update_ts.max(least);
        PessimisticCommit { for_update_ts, primary_is_locked: self.primary.is_some(), in_doubt }
    }

    /// Whether somebody may wait for a lock of the transaction.
    fn may_hold_locks(&self) -> bool {
        let has_fair_locks = self.fair.as_ref().is_some_and(|fair| !fair.is_empty());
        self.primary.is_some() || !self.in_doubt.is_empty() || has_fair_locks
    }
}
