//! Which errors operations may end with, and what they are called in totals.

use tikv_core::error::Error;
use tikv_core::timestamp::Timestamp;

use super::World;
use crate::simulate::check::{Check, Rule, ensure};
use crate::simulate::workload::WorkloadKind;

impl World {
    /// Counts an error. It must be one that can happen: some mean that the client has contradicted itself.
    pub(super) fn check_error(&mut self, start_ts: Timestamp, error: &Error) -> Check {
        let name = name(error);
        *self.totals.errors.entry(name).or_default() += 1;
        let plausible = match error {
            Error::WriteConflict(conflict) => conflict.conflict_ts != start_ts,
            Error::KeyExists { .. } => self.scenario.workload == WorkloadKind::Insert,
            // Whoever waits too long for others loses its own locks.
            Error::RolledBack { .. } => true,
            Error::Pd(_)
            | Error::RetriesExhausted { .. }
            | Error::Locked(_)
            | Error::TxnTooOld { .. }
            | Error::CommitTsLag { .. }
            | Error::Key(_) => self.has_faults(),
            Error::Undetermined { start_ts: named, .. } => self.has_faults() && *named == start_ts,
            Error::UndeterminedWrite { .. } => self.has_faults(),
            Error::DeadlineExceeded { .. } => self.scenario.options.deadline_permille > 0,
            _ => false,
        };
        ensure(plausible, Rule::PlausibleError, || format!("transaction {start_ts} ends with: {error} ({error:?})"))
    }

    fn has_faults(&self) -> bool {
        !self.scenario.faults.is_empty() || !self.scenario.options.is_patient()
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
        Error::RolledBack { .. } => "rolled back",
        Error::Key(_) => "key",
        Error::TxnTooOld { .. } => "transaction too old",
        Error::CommitTsLag { .. } => "commit_ts lag",
        Error::Refused { .. } => "refused",
        _ => "other",
    }
}
