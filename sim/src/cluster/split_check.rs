//! Regions that split by themselves when they have grown too large.
//!
//! A real store looks at its regions every few seconds; here a region is looked at after each write to it, so that it is never
//! larger than it may be. TiKV: the split checker by keys (`coprocessor.region-max-keys`).

use tikv_core::key::Key;
use tikv_core::request::{Access, RequestKind};
use tikv_proto::kvrpcpb::ApiVersion;

use super::request_keys::is_raw;
use super::{Cluster, SplitCheck, encoded};

impl Cluster {
    /// When regions split by themselves.
    #[must_use]
    pub fn split_check(&self) -> Option<SplitCheck> {
        self.split_check
    }

    /// Splits the region that a request has written to, if it is too large now.
    pub(super) fn check_size(&mut self, region_id: u64, kind: RequestKind) {
        let Some(check) = self.split_check.filter(|_| kind.facts().access == Access::Write) else { return };
        let keys = self.keys_of_region(region_id, is_raw(kind));
        let split_keys = check.split_keys(&keys);
        if !split_keys.is_empty() {
            // A region whose leader is gone is split another time.
            let _ = self.topology.split_region(region_id, &split_keys);
        }
    }

    /// The keys of one API in a region, as regions are bounded, in order.
    fn keys_of_region(&self, region_id: u64, raw: bool) -> Vec<Key> {
        let Some(region) = self.topology.regions().get(region_id) else { return Vec::new() };
        let is_plain = raw && self.topology.api_version() != ApiVersion::V2;
        let range = if is_plain { region.bounds() } else { self.txn_range(region) };
        match (raw, is_plain) {
            (true, true) => self.storage.raw_keys(&range).cloned().collect(),
            (true, false) => self.storage.raw_keys(&range).map(|key| encoded(key.as_slice())).collect(),
            (false, _) => self.storage.committed_keys(&range).map(|key| encoded(key.as_slice())).collect(),
        }
    }
}

impl SplitCheck {
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
        begins.into_iter().filter_map(|index| keys.get(index)).cloned().collect()
    }
}
