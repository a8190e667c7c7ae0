//! What a client has learnt of the cluster, shared by all its operations.
//!
//! Data only: what is known and how it changes, never how it is asked for. Every change is compare-and-set on a version
//! (a region's epoch, a store's epoch), so that the first reporter wins and a late one changes nothing. Methods take
//! `&self`; the locks inside are held for one look-up or change and never across a step. A clone is deep: it goes its own
//! way, as a model checker needs it.

pub mod clock;
pub mod regions;
pub mod resolving;
pub mod stores;
pub mod txn_status;

use crate::config::Config;
use crate::keyspace::KeyCodec;
use clock::Clock;
use regions::RegionIndex;
use resolving::ResolvingRegistry;
use stores::StoreRegistry;
use txn_status::TxnStatusCache;

/// All that a client has learnt.
///
/// A raw and a transactional client see different region bounds, so each has a `Knowledge` of its own.
#[derive(Clone, Debug)]
pub struct Knowledge {
    codec: KeyCodec,
    /// Where keys are.
    pub regions: RegionIndex,
    /// Where stores are and how they fare.
    pub stores: StoreRegistry,
    /// What became of transactions whose locks were met.
    pub txn_statuses: TxnStatusCache,
    /// Which locks are just being resolved.
    pub resolving: ResolvingRegistry,
    /// What time it is by PD's clock, roughly.
    pub clock: Clock,
}

impl Knowledge {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(codec: KeyCodec, config: &Config) -> Self {
        Knowledge {
            codec,
            regions: RegionIndex::new(config),
            stores: StoreRegistry::default(),
            txn_statuses: TxnStatusCache::new(config.resolved_lock_cache_size),
            resolving: ResolvingRegistry::default(),
            clock: Clock::default(),
        }
    }

    /// How keys appear to PD.
    #[must_use]
    pub fn codec(&self) -> KeyCodec {
        self.codec
    }
}
