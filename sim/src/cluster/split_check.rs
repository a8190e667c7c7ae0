//! Regions that split by themselves when they have grown too large.
//!
//! As a real store, which looks at what has been written to every few seconds, this looks at a region some time after a write
//! to it ([`SplitCheck`]). TiKV: `on_split_region_check_tick`, and the checker by keys.

use std::collections::BTreeSet;

use tikv_core::key::Key;
use tikv_core::request::{Access, RequestKind};
use tikv_core::time::Time;

use super::request_keys::is_raw;
use super::{Cluster, SplitCheck, encoded};

/// Which regions are to be looked at, and when.
#[derive(Clone, Debug, Default)]
pub(super) struct SplitChecks {
    pub(super) at: Option<Time>,
    regions: BTreeSet<u64>,
}

impl Cluster {
    /// When and how regions split by themselves; `None` if they do not.
    #[must_use]
    pub fn split_check(&self) -> Option<SplitCheck> {
        self.split_check
    }

    /// Has the region that a request has been executed in looked at, if that may have made it grow.
    pub(super) fn plan_split_check(&mut self, now: Time, region_id: u64, kind: RequestKind) {
        let Some(check) = self.split_check else { return };
        if kind.facts().access == Access::Write && !is_raw(kind) {
            self.split_checks.regions.insert(region_id);
            self.split_checks.at.get_or_insert(now + check.interval);
        }
    }

    /// Splits the regions that are too large, if it is time.
    pub(super) fn run_split_checks(&mut self, now: Time) {
        let Some(check) = self.split_check.filter(|_| self.split_checks.at.is_some_and(|at| at <= now)) else { return };
        for region_id in std::mem::take(&mut self.split_checks).regions {
            let split_keys = self.where_to_split(region_id, &check);
            if split_keys.is_empty() {
                continue;
            }
            // What is left keeps the id, and may still be too large. A region without a leader has to wait as well.
            let _ = self.topology.split_region(region_id, &split_keys);
            self.split_checks.regions.insert(region_id);
            self.split_checks.at = Some(now + check.interval);
        }
    }

    fn where_to_split(&self, region_id: u64, check: &SplitCheck) -> Vec<Key> {
        let Some(region) = self.topology.regions().get(region_id) else { return Vec::new() };
        let range = self.txn_range(region);
        let records: Vec<&Key> = self.storage.write_records(&range).take(check.enough_records()).collect();
        let mut keys: Vec<Key> = check.split_keys(&records).map(|key| encoded(key.as_slice())).collect();
        // The versions of a key stay together.
        keys.dedup();
        keys.retain(|key| *key != region.bounds().start);
        keys
    }
}

impl SplitCheck {
    /// Who knows so many records knows where to split.
    fn enough_records(&self) -> usize {
        self.split_keys.saturating_mul(self.batch_limit).saturating_add(self.max_keys)
    }

    /// Where to split a region that holds these records.
    fn split_keys<'a>(&self, records: &'a [&'a Key]) -> impl Iterator<Item = &'a Key> {
        let step = self.split_keys.max(1);
        let is_large = records.len() >= self.max_keys;
        let begins = (step..if is_large { records.len() } else { 0 }).step_by(step);
        // The last two parts stay together if that is not too large.
        let last = begins.clone().next_back().map_or(0, |last| records.len() - last);
        let kept = if last + step < self.max_keys { begins.len().saturating_sub(1) } else { begins.len() };
        begins.take(kept.min(self.batch_limit)).map(|index| records[index])
    }
}
