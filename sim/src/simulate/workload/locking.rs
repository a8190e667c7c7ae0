//! Makes a pessimistic transaction of a script: what it would read, it locks.
//!
//! ```text
//!   the script reads ──► exclusive locks: all at once, one by one, or fairly ──► shared locks, and a read ──► what was found
//! ```
//!
//! Keys that the script [only reads](Script::reads_only) may be locked in share mode. Fair locking runs the statement, which is
//! what the script reads at once, again after a conflict.

use std::time::Duration;

use tikv_core::error::Error;
use tikv_core::key::Key;
use tikv_core::rng::Rng;
use tikv_core::txn::{LockOptions, LockWait, LockedKey, OnConflict, Transaction};

use super::{Checked, FairStep, Found, Script, Step, WorkloadKind};
use crate::simulate::options::Options;

/// How often a call is made again.
const MOST_RETRIES: u32 = 3;
/// One in so many statements that lock fairly is cancelled, and made again without.
const CANCELLED: u64 = 8;

/// How a transaction locks, other than by the options of its calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LockMode {
    /// Fair locking.
    fair: bool,
    /// Keys that are only read are locked in share mode.
    shared: bool,
    /// Keys are locked one after the other, not all at once.
    one_by_one: bool,
    /// The first statement that locks fairly is cancelled.
    cancels: bool,
}

/// How long to wait, and what to do about conflicts, at random.
pub(super) fn lock_options(rng: &mut Rng) -> LockOptions {
    let wait = match rng.below(8) {
        0 => LockWait::NoWait,
        1 => LockWait::Default,
        2 => LockWait::For(Duration::from_millis(rng.below(3_000))),
        _ => LockWait::Always,
    };
    let on_conflict = if rng.below(3) == 0 { OnConflict::Fail } else { OnConflict::Retry };
    LockOptions::default().wait(wait).on_conflict(on_conflict).return_values()
}

/// Whether the same call may succeed if it is made again.
pub(super) fn is_worth_another_try(error: &Error) -> bool {
    match error {
        Error::WriteConflict(_) | Error::LockedNoWait(_) | Error::LockWaitTimeout(_) => true,
        Error::Deadlock(deadlock) => deadlock.of_one_call,
        _ => false,
    }
}

/// A script whose transaction is pessimistic.
#[derive(Debug)]
pub(in crate::simulate) struct Locking {
    script: Box<dyn Script>,
    options: LockOptions,
    mode: LockMode,
    /// All that was found under locks.
    known: Found,
    /// What the script waits for.
    asked: Vec<Key>,
    /// Calls still to be made for that, the last one first.
    left: Vec<Step>,
    /// The call that is under way.
    call: Option<Step>,
    holds_exclusive: bool,
    in_conflict: bool,
    /// Whether the script waits for what a scan finds.
    scans: bool,
    retries: u32,
}

impl Locking {
    /// The script as it is, or under locks, if the workload [allows](WorkloadKind::may_lock) that, and as the options of the run
    /// and chance will have it.
    pub(in crate::simulate) fn sometimes(
        workload: WorkloadKind,
        script: Box<dyn Script>,
        options: &Options,
        rng: &mut Rng,
    ) -> Box<dyn Script> {
        let mut chance = |permille: u32| rng.below(1000) < permille.into();
        if script.is_pessimistic() || !chance(options.pessimistic_permille) || !workload.may_lock() {
            return script;
        }
        let (fair, shared) = (chance(options.fair_permille), chance(options.shared_permille));
        let mode = LockMode { fair, shared, one_by_one: fair || rng.below(2) == 0, cancels: rng.below(CANCELLED) == 0 };
        let mut options = lock_options(rng);
        if shared && options.wait == LockWait::Always {
            // It may share the lock of a key that was the primary of one who has died. TiKV then does not tell that it has.
            options.wait = LockWait::For(Duration::from_secs(3));
        }
        let (known, asked, left) = (Found::new(), Vec::new(), Vec::new());
        let (call, holds_exclusive, in_conflict, scans, retries) = (None, false, false, false, 0);
        Box::new(Locking {
            script,
            options,
            mode,
            known,
            asked,
            left,
            call,
            holds_exclusive,
            in_conflict,
            scans,
            retries,
        })
    }

    /// What the script wants to do next.
    fn go_on(&mut self, txn: &mut Transaction) -> Checked<Step> {
        let known = &self.known;
        let found = self.asked.iter().filter_map(|key| Some((key.clone(), known.get(key)?.clone()))).collect();
        self.asked.clear();
        self.pass_on(txn, found)
    }

    fn pass_on(&mut self, txn: &mut Transaction, found: Found) -> Checked<Step> {
        match self.script.step(txn, found)? {
            Step::Read(keys) => {
                self.asked = keys;
                self.plan();
                Ok(self.next_call())
            }
            step => {
                self.scans = matches!(step, Step::Scan(_));
                Ok(step)
            }
        }
    }

    /// How to lock what is asked for.
    fn plan(&mut self) {
        let only_read = self.script.reads_only();
        let may_share = |key: &Key| self.mode.shared && only_read.contains(key);
        let (shared, mut exclusive): (Vec<Key>, Vec<Key>) = self.asked.iter().cloned().partition(may_share);
        let mut shared = shared.into_iter();
        if exclusive.is_empty() && !self.holds_exclusive {
            // The primary cannot be a shared lock.
            exclusive.extend(shared.next());
        }
        let shared: Vec<Key> = shared.collect();
        let mut calls = Vec::new();
        if !exclusive.is_empty() {
            calls.extend(self.mode.fair.then_some(Step::Fair(FairStep::Start)));
            let size = if self.mode.one_by_one { 1 } else { exclusive.len() };
            calls.extend(exclusive.chunks(size).map(|keys| Step::Lock(keys.to_vec(), self.options)));
            calls.extend(self.mode.fair.then_some(Step::Fair(FairStep::Finish)));
        }
        if !shared.is_empty() {
            let options = LockOptions::default().wait(self.options.wait).on_conflict(self.options.on_conflict).shared();
            calls.extend([Step::Lock(shared.clone(), options), Step::ReadLocked(shared)]);
        }
        calls.reverse();
        self.left = calls;
    }

    fn next_call(&mut self) -> Step {
        let mut call = self.left.pop();
        if let Some(Step::Fair(FairStep::Finish)) = call {
            if std::mem::take(&mut self.mode.cancels) {
                self.mode.fair = false;
                self.plan();
                call = Some(Step::Fair(FairStep::Cancel));
            } else if std::mem::take(&mut self.in_conflict) && self.retries < MOST_RETRIES {
                self.retries += 1;
                self.plan();
                // It has been started.
                self.left.pop();
                call = Some(Step::Fair(FairStep::Retry));
            } else {
                self.holds_exclusive = true;
            }
        }
        self.call.clone_from(&call);
        call.unwrap_or(Step::Abandon)
    }
}

impl Script for Locking {
    fn is_pessimistic(&self) -> bool {
        true
    }

    fn locked(&mut self, keys: &[LockedKey]) {
        self.in_conflict |= keys.iter().any(|key| key.in_conflict);
        self.holds_exclusive |= !self.mode.fair;
    }

    fn failed_to_lock(&mut self, error: &Error) -> Option<Step> {
        self.retries += 1;
        self.call.clone().filter(|_| is_worth_another_try(error) && self.retries <= MOST_RETRIES)
    }

    fn step(&mut self, txn: &mut Transaction, found: Found) -> Checked<Step> {
        if std::mem::take(&mut self.scans) {
            return self.pass_on(txn, found);
        }
        self.known.extend(found);
        if self.left.is_empty() { self.go_on(txn) } else { Ok(self.next_call()) }
    }
}
