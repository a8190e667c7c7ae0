//! Which errors operations may end with, and what they are called in totals.

use std::time::Duration;

use tikv_core::error::{Error, KeyError};
use tikv_core::timestamp::Timestamp;

use super::World;
use crate::simulate::check::{Check, Rule, ensure};
use crate::simulate::options::Options;
use crate::simulate::workload::WorkloadKind;

impl World {
    /// Counts an error. It must be one that can happen: some mean that the client has contradicted itself.
    pub(super) fn check_error(&mut self, start_ts: Timestamp, error: &Error) -> Check {
        let name = name(error);
        *self.totals.errors.entry(name).or_default() += 1;
        let plausible = match error {
            Error::WriteConflict(conflict) => conflict.conflict_ts != start_ts,
            Error::KeyExists { .. } => self.scenario.workload == WorkloadKind::Insert,
            // Whoever waits too long for others loses its own locks, but not before their time is up.
            Error::RolledBack { .. } => self.may_be_ended_by_others(start_ts),
            Error::Deadlock(_) | Error::LockWaitTimeout(_) | Error::LockedNoWait(_) => {
                self.scenario.workload.may_lock()
            }
            // A heartbeat may be late, and not every lock is on disk.
            Error::PessimisticLockLost { .. } => self.has_faults() || self.may_be_ended_by_others(start_ts),
            // TiKV has understood the request, and would never do that.
            Error::Key(KeyError::Abort(_) | KeyError::Unknown) => false,
            Error::Pd(_)
            | Error::RetriesExhausted { .. }
            | Error::TxnTooOld { .. }
            | Error::CommitTsLag { .. }
            | Error::Key(_) => self.has_faults(),
            // Nobody sees a circle of those who wait for locks where some of them have locked keys without asking first.
            Error::Locked(_) => self.has_faults() || self.scenario.options.pessimistic_permille > 0,
            Error::Undetermined { start_ts: named, .. } => self.has_faults() && *named == start_ts,
            Error::UndeterminedWrite { .. } => self.has_faults(),
            Error::CommitForbidden { start_ts: named, .. } => {
                self.scenario.options.ask_owner_permille > 0 && *named == start_ts
            }
            Error::DeadlineExceeded { .. } => self.scenario.options.deadline_permille > 0,
            _ => false,
        };
        ensure(plausible, Rule::PlausibleError, || format!("transaction {start_ts} ends with: {error} ({error:?})"))
    }

    /// Whether others may have ended a transaction: its time is up, or somebody has swept away what is as old.
    pub(super) fn may_be_ended_by_others(&mut self, start_ts: Timestamp) -> bool {
        start_ts <= self.swept_until || self.age(start_ts) >= self.shortest_life()
    }

    /// How long the locks of a transaction live at least from its start.
    pub(super) fn shortest_life(&self) -> Duration {
        let Options { lock_ttl_ms, managed_lock_ttl_ms, .. } = self.scenario.options;
        let is_pessimistic = self.scenario.workload.may_lock();
        let ms = if is_pessimistic { lock_ttl_ms.min(managed_lock_ttl_ms) } else { lock_ttl_ms };
        Duration::from_millis(ms.into())
    }

    /// How old a transaction is by PD's clock.
    pub(super) fn age(&mut self, start_ts: Timestamp) -> Duration {
        self.cluster.pd_mut().next_timestamp(self.now).physical_since(start_ts)
    }

    /// Whether there is anything that can make an operation fail.
    fn has_faults(&self) -> bool {
        let options = &self.scenario.options;
        !self.scenario.faults.is_empty() || !options.is_patient() || options.deadline_permille > 0
    }
}

fn name(error: &Error) -> &'static str {
    match error {
        Error::Pd(_) => "pd",
        Error::RetriesExhausted { .. } => "retries exhausted",
        Error::DeadlineExceeded { .. } => "deadline exceeded",
        Error::Undetermined { .. } => "undetermined",
        Error::UndeterminedWrite { .. } => "undetermined write",
        Error::WriteConflict(_) => "write conflict",
        Error::KeyExists { .. } => "key exists",
        Error::Locked(_) => "locked",
        Error::Deadlock(_) => "deadlock",
        Error::LockWaitTimeout(_) => "lock wait timeout",
        Error::LockedNoWait(_) => "locked, no wait",
        Error::PessimisticLockLost { .. } => "lock lost",
        Error::RolledBack { .. } => "rolled back",
        Error::Key(_) => "key",
        Error::TxnTooOld { .. } => "transaction too old",
        Error::CommitTsLag { .. } => "commit_ts lag",
        Error::CommitForbidden { .. } => "commit forbidden",
        Error::Refused { .. } => "refused",
        _ => "other",
    }
}
