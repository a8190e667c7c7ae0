//! Regions, as the stores and PD have them.

use std::sync::Arc;

use tikv_proto::{errorpb, kvrpcpb, metapb};

use crate::key::{Key, KeyRange};
use crate::keyspace::KeyCodec;
use crate::request::pd::PdRegion;
use crate::rng::Rng;

/// All regions, in the order of their keys.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    regions: Vec<Region>,
    next_id: u64,
}

#[derive(Clone, Debug)]
struct Region {
    id: u64,
    version: u64,
    range: KeyRange,
}

impl Layout {
    /// Between one and five regions.
    pub(super) fn new(rng: &mut Rng) -> Self {
        let mut layout = Layout { regions: vec![Region { id: 1, version: 1, range: KeyRange::ALL }], next_id: 2 };
        for _ in 0..rng.below(5) {
            layout.split(rng);
        }
        layout
    }

    /// Now and then a region splits, or two merge.
    pub(super) fn change(&mut self, rng: &mut Rng) {
        match rng.below(12) {
            0 => self.split(rng),
            1 => self.merge(rng),
            _ => {}
        }
    }

    fn split(&mut self, rng: &mut Rng) {
        let at = super::transactions::random_key(rng);
        let Some(index) = self.regions.iter().position(|region| region.range.contains(at.as_slice())) else { return };
        let region = &mut self.regions[index];
        if region.range.start == at {
            return;
        }
        region.version += 1;
        let left = Region {
            id: self.next_id,
            version: region.version,
            range: KeyRange::new(region.range.start.clone(), at.clone()),
        };
        region.range.start = at;
        self.next_id += 1;
        self.regions.insert(index, left);
    }

    fn merge(&mut self, rng: &mut Rng) {
        if self.regions.len() < 2 {
            return;
        }
        let index = rng.below(self.regions.len() as u64 - 1) as usize;
        let right = self.regions.remove(index + 1);
        let left = &mut self.regions[index];
        left.version = left.version.max(right.version) + 1;
        left.range.end = right.range.end;
    }

    /// The bounds of the region that a request names, if it still is as the request says.
    pub(super) fn check(&self, context: &kvrpcpb::Context, rng: &mut Rng) -> Result<KeyRange, Box<errorpb::Error>> {
        let Some(region) = self.regions.iter().find(|region| region.id == context.region_id) else {
            let region_not_found = Some(errorpb::RegionNotFound { region_id: context.region_id });
            return Err(Box::new(errorpb::Error { region_not_found, ..errorpb::Error::default() }));
        };
        if context.region_epoch.is_some_and(|epoch| epoch.version == region.version) {
            return Ok(region.range.clone());
        }
        // A store may not be able to say what has become of the region.
        let current_regions = match rng.below(2) {
            0 => Vec::new(),
            _ => self.regions.iter().map(Region::describe).collect(),
        };
        Err(Box::new(errorpb::Error {
            epoch_not_match: Some(errorpb::EpochNotMatch { current_regions }),
            ..errorpb::Error::default()
        }))
    }

    /// The region of a key, both as PD knows them.
    pub(super) fn of(&self, key: &[u8]) -> Arc<PdRegion> {
        self.regions[self.index_of(key)].for_pd()
    }

    /// The region before that of a key, both as PD knows them.
    pub(super) fn before(&self, key: &[u8]) -> Option<Arc<PdRegion>> {
        Some(self.regions[self.index_of(key).checked_sub(1)?].for_pd())
    }

    fn index_of(&self, key: &[u8]) -> usize {
        let begins_behind = |region: &Region| &region.describe().start_key[..] > key;
        let behind = self.regions.iter().position(begins_behind).unwrap_or(self.regions.len());
        behind - 1
    }
}

impl Region {
    fn describe(&self) -> metapb::Region {
        let encode = |key: &Key| KeyCodec::Txn.encode_region_key(key);
        let peer = |store| metapb::Peer { id: self.id * 10 + store, store_id: store, ..metapb::Peer::default() };
        metapb::Region {
            id: self.id,
            start_key: encode(&self.range.start),
            end_key: encode(&self.range.end),
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: self.version }),
            peers: (1..=3).map(peer).collect(),
            ..metapb::Region::default()
        }
    }

    fn for_pd(&self) -> Arc<PdRegion> {
        let region = self.describe();
        let leader = region.peers.first().copied();
        Arc::new(PdRegion { region, leader, ..PdRegion::default() })
    }
}
