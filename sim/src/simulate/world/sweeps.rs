//! Sessions that resolve old locks, as garbage collection does, whether their transactions are alive or not.

use std::time::Duration;

use tikv_core::engine::Operation;
use tikv_core::error::Error;
use tikv_core::key::{Key, KeyRange};
use tikv_core::lock::{SweepLocks, Swept};
use tikv_core::route::CallOptions;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{Op, ScanLockRequest};

use super::World;
use crate::simulate::check::{Check, Rule, ensure};
use crate::simulate::session::{State, Sweep};
use crate::simulate::workload::WorkloadKind;
use crate::storage::Outcome;

impl World {
    /// Whether the session does that now instead of a transaction.
    pub(super) fn try_sweep(&mut self, index: usize, session: usize) -> bool {
        let permille = u64::from(self.scenario.options.sweep_permille);
        if permille == 0 || self.scenario.workload == WorkloadKind::Raw {
            return false;
        }
        let twice_a_life = 2 * self.config.lock_ttl.max(Duration::from_millis(1));
        let rng = &mut self.clients[index].sessions[session].rng;
        if rng.below(1000) >= permille {
            return false;
        }
        // Often so late that live transactions are ended, even young ones.
        let age = Duration::from_micros(rng.below(1 + twice_a_life.as_micros() as u64));
        let now = self.cluster.pd_mut().next_timestamp(self.now);
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let safe_point = Timestamp::compose(now.physical_ms().saturating_sub(age_ms), now.logical());
        self.swept_until = self.swept_until.max(safe_point);
        let deadline = self.deadline_of_next(index, session);
        let options = CallOptions::new(self.config_of(index)).with_deadline(deadline);
        let sweep = SweepLocks::new(KeyRange::ALL, safe_point, options);
        let met = self.prewritten_up_to(safe_point);
        self.clients[index].sessions[session].state = State::Sweeping(Sweep { safe_point, met });
        self.start(index, session, Operation::SweepLocks(sweep), deadline);
        true
    }

    pub(super) fn on_swept(
        &mut self,
        index: usize,
        session: usize,
        sweep: &Sweep,
        result: &Result<Swept, Error>,
    ) -> Check {
        match result {
            Err(error) => self.check_error(Timestamp::ZERO, error)?,
            Ok(_) => {
                self.totals.sweeps += 1;
                let left = self.prewritten_up_to(sweep.safe_point);
                let missed = sweep.met.iter().find(|lock| left.contains(lock));
                ensure(missed.is_none(), Rule::LocksResolved, || {
                    format!("a sweep up to {} has left this lock: {missed:?}", sweep.safe_point)
                })?;
            }
        }
        self.end_session(index, session, result.is_ok())
    }

    /// Prewritten locks of transactions that began at a timestamp or before, in order.
    fn prewritten_up_to(&mut self, max_ts: Timestamp) -> Vec<(Key, Timestamp)> {
        let request = ScanLockRequest { max_version: max_ts.version(), ..ScanLockRequest::default() };
        let Outcome::Answer(scanned) = self.cluster.storage_mut().handle(&KeyRange::ALL, &request).outcome else {
            return Vec::new();
        };
        let prewritten = scanned.locks.into_iter().filter(|lock| {
            lock.shared_lock_infos.is_empty() && lock.lock_type() != Op::PessimisticLock && lock.lock_version != 0
        });
        prewritten.map(|lock| (Key::from(lock.key), Timestamp::from_version(lock.lock_version))).collect()
    }
}
