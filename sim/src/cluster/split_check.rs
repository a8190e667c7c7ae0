//! Regions that split by themselves when they have grown too large.
//!
//! As a real store, which looks at what has been written to every few seconds, this looks at a region some time after a write
//! to it ([`SplitCheck`]). TiKV: `on_split_region_check_tick`, and the checker by keys.

use std::collections::BTreeSet;

use tikv_core::key::Key;
use tikv_core::request::{Access, RequestKind};
use tikv_core::time::Time;
use tikv_proto::kvrpcpb::ApiVersion;

use super::request_keys::is_raw;
use super::{Cluster, SplitCheck, encoded};

/// Which regions are to be looked at, and when.
#[derive(Clone, Debug, Default)]
pub(super) struct SplitChecks {
    pub(super) at: Option<Time>,
    /// Ids, and whether raw keys were written.
    regions: BTreeSet<(u64, bool)>,
}

impl Cluster {
    /// When and how regions split by themselves; `None` if they do not.
    #[must_use]
    pub fn split_check(&self) -> Option<SplitCheck> {
        self.split_check
    }

    /// Has the region that a request has been executed in looked at, if that may have made it grow.
    pub(super) fn plan_split_check(&mut self, now: Time, region_id: u64, kind: RequestKind) {
        if kind.facts().access == Access::Write {
            self.plan(now, region_id, is_raw(kind));
        }
    }

    fn plan(&mut self, now: Time, region_id: u64, raw: bool) {
        let Some(check) = self.split_check else { return };
        self.split_checks.regions.insert((region_id, raw));
        self.split_checks.at.get_or_insert(now + check.interval);
    }

    /// Splits the regions that are too large, if it is time.
    pub(super) fn run_split_checks(&mut self, now: Time) {
        let Some(check) = self.split_check.filter(|_| self.split_checks.at.is_some_and(|at| at <= now)) else { return };
        for (region_id, raw) in std::mem::take(&mut self.split_checks).regions {
            let split_keys = check.split_keys(&self.first_keys(region_id, raw, check.enough_keys()));
            if split_keys.is_empty() {
                continue;
            }
            // What is left keeps the id, and may still be too large. A region without a leader has to wait as well.
            let _ = self.topology.split_region(region_id, &split_keys);
            self.plan(now, region_id, raw);
        }
    }

    /// The first keys of one API in a region, as regions are bounded, in order.
    fn first_keys(&self, region_id: u64, raw: bool, limit: usize) -> Vec<Key> {
        let Some(region) = self.topology.regions().get(region_id) else { return Vec::new() };
        let is_plain = raw && self.topology.api_version() != ApiVersion::V2;
        let range = if is_plain { region.bounds() } else { self.txn_range(region) };
        let encode = |key: &Key| encoded(key.as_slice());
        match (raw, is_plain) {
            (true, true) => self.storage.raw_keys(&range).take(limit).cloned().collect(),
            (true, false) => self.storage.raw_keys(&range).take(limit).map(encode).collect(),
            (false, _) => self.storage.committed_keys(&range).take(limit).map(encode).collect(),
        }
    }
}

impl SplitCheck {
    /// Who knows so many keys knows where to split.
    fn enough_keys(&self) -> usize {
        self.split_keys.saturating_mul(self.batch_limit).saturating_add(self.max_keys).saturating_add(1)
    }

    /// Where to split a region that holds these keys.
    fn split_keys(&self, keys: &[Key]) -> Vec<Key> {
        if keys.len() <= self.max_keys {
            return Vec::new();
        }
        let step = self.split_keys.max(1);
        let mut begins: Vec<usize> = (step..keys.len()).step_by(step).collect();
        // The last two parts stay together if that is not too large.
        let last = begins.last().map_or(0, |last| keys.len() - last);
        if last + step < self.max_keys {
            begins.pop();
        }
        begins.into_iter().take(self.batch_limit).filter_map(|index| keys.get(index)).cloned().collect()
    }
}
