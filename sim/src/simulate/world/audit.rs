//! Before and after the workload: the data is loaded; and in the end all of it is read, and all locks are resolved.
//!
//! Both are done by a client of their own, the auditor, whom no fault ever hits.

use std::collections::BTreeMap;

use bytes::Bytes;
use tikv_core::key::{Key, KeyRange};
use tikv_core::txn::Transaction;

use super::{Phase, World};
use crate::simulate::check::{Broken, Check, Rule, broken, ensure};
use crate::simulate::elle::MicroOp;
use crate::simulate::workload::{Checked, Found, RawTask, Script, Step, WorkloadKind, written};

/// How often the auditor tries to resolve the last locks.
const MAX_AUDITS: u32 = 20;
/// After so many attempts, time is made to pass.
const PATIENT_AUDITS: u32 = 6;

impl World {
    /// Begins to load the data.
    pub(super) fn load(&mut self) -> Check {
        self.enter(Phase::Loading, "loading");
        let auditor = self.auditor();
        let initial = self.workload.initial();
        if initial.is_empty() {
            self.begin_workload();
            return Ok(());
        }
        self.begin(auditor, 0, Box::new(Load(initial)));
        self.pump(auditor)
    }

    /// Begins to read all that is there, or to resolve what locks are left.
    pub(super) fn audit(&mut self) -> Check {
        self.audits += 1;
        ensure(self.audits <= MAX_AUDITS, Rule::LocksResolved, || {
            let locked: Vec<_> = self.history.locked_keys().collect();
            format!("locks cannot be resolved: {locked:?}")
        })?;
        if self.audits > PATIENT_AUDITS {
            // Whose clock has jumped may have made locks to last for hours.
            self.cluster.pd_mut().advance_clock(3_600_000);
        }
        let auditor = self.auditor();
        if self.scenario.workload == WorkloadKind::Raw {
            let all = KeyRange::new(Key::EMPTY, Key::from("~"));
            self.begin_raw(auditor, 0, RawTask::Scan(all))?;
        } else {
            let locked: Vec<Key> = self.history.locked_keys().cloned().collect();
            // Reads do not mind all locks; writers do.
            let script: Box<dyn Script> = match self.audits % 2 == 0 && !locked.is_empty() {
                true => Box::new(Sweep(locked)),
                false => Box::new(ReadAll { has_read: false, found: BTreeMap::new(), micro_ops: self.micro_reads() }),
            };
            self.begin(auditor, 0, script);
        }
        self.pump(auditor)
    }

    fn micro_reads(&self) -> Vec<MicroOp> {
        let workload = self.scenario.workload;
        self.keys.iter().filter_map(|key| workload.micro_read(key)).collect()
    }

    pub(super) fn on_auditor_idle(&mut self, succeeded: bool) -> Check {
        if self.phase != Phase::Loading {
            return Ok(());
        }
        ensure(succeeded, Rule::PlausibleError, || "the data cannot be loaded".to_owned())?;
        self.begin_workload();
        Ok(())
    }

    /// All has come to rest. Whether the run is over.
    pub(super) fn end_audit(&mut self) -> Result<bool, Broken> {
        if self.history.locked_keys().len() > 0 || self.audits == 1 {
            self.audit()?;
            return Ok(false);
        }
        self.history.check_settled()?;
        self.check_leaks()?;
        let state = self.history.state();
        if let Err(detail) = self.workload.check(&state) {
            return broken(Rule::Workload, detail).map(|()| true);
        }
        Ok(true)
    }
}

#[derive(Debug)]
struct Load(Vec<(Key, Bytes)>);

impl Script for Load {
    fn step(&mut self, txn: &mut Transaction, _: Found) -> Checked<Step> {
        for (key, value) in self.0.drain(..) {
            written(txn.set(key, value))?;
        }
        Ok(Step::Commit)
    }
}

/// Writes nothing, but locks keys: whoever has locked them before has to be dealt with.
#[derive(Debug)]
struct Sweep(Vec<Key>);

impl Script for Sweep {
    fn step(&mut self, txn: &mut Transaction, _: Found) -> Checked<Step> {
        written(txn.lock_keys(self.0.drain(..)))?;
        Ok(Step::Commit)
    }
}

#[derive(Debug)]
struct ReadAll {
    has_read: bool,
    found: Found,
    micro_ops: Vec<MicroOp>,
}

impl Script for ReadAll {
    fn step(&mut self, _: &mut Transaction, found: Found) -> Checked<Step> {
        if !std::mem::replace(&mut self.has_read, true) {
            return Ok(Step::Scan(KeyRange::ALL));
        }
        self.found = found;
        Ok(Step::Commit)
    }

    fn micro_ops(&self) -> Vec<MicroOp> {
        self.micro_ops.clone()
    }
}
