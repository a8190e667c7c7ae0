//! Where stores are and how they fare.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tikv_proto::metapb;

/// A store as it is known now. client-go: `locate.Store`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// The store's id.
    pub id: u64,
    /// Where it listens.
    pub address: Arc<str>,
    /// Its labels, as key and value.
    pub labels: Vec<(String, String)>,
    /// TiKV or TiFlash.
    pub engine: Engine,
    /// Raised whenever the store fails: what was learnt of its replicas before no longer holds.
    pub epoch: u64,
    /// Whether it answers.
    pub liveness: Liveness,
    /// Whether PD is to be asked again before the address is trusted.
    pub needs_check: bool,
}

/// What a store runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Rows.
    #[default]
    TiKv,
    /// Columns.
    TiFlash,
}

impl Engine {
    /// What the labels of a store say.
    #[must_use]
    pub fn of(store: &metapb::Store) -> Self {
        let is_tiflash = |label: &metapb::StoreLabel| {
            label.key == "engine" && matches!(label.value.as_str(), "tiflash" | "tiflash_compute")
        };
        if store.labels.iter().any(is_tiflash) { Engine::TiFlash } else { Engine::TiKv }
    }
}

/// Whether a store is worth a try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// Nothing speaks against it.
    #[default]
    Reachable,
    /// It failed, and PD has not confirmed its address since.
    Unreachable,
}

/// The stores of the cluster, by id.
///
/// ```text
///                    report_failure: epoch + 1
///   Reachable ───────────────────────────────────► Unreachable, needs_check
///       ▲                                                  │
///       └──────────────────────────────────────────────────┘
///              learn: PD still knows it, here or at another address
/// ```
///
/// There is no probing: whoever loads a region asks PD about its stores that need a check, and then the next request is the
/// probe. A store that is still dead fails it, and is unreachable again.
#[derive(Debug, Default)]
pub struct StoreRegistry(RwLock<BTreeMap<u64, Arc<Store>>>);

impl StoreRegistry {
    /// The store as it is known now.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Arc<Store>> {
        self.read(|stores| stores.get(&id).cloned())
    }

    /// The store, unless it has failed since it had `epoch`.
    #[must_use]
    pub fn get_at(&self, id: u64, epoch: u64) -> Option<Arc<Store>> {
        self.get(id).filter(|store| store.epoch == epoch && store.liveness == Liveness::Reachable)
    }

    /// All stores, by id.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Store>> {
        self.read(|stores| stores.values().cloned().collect())
    }

    /// Learns what PD says of a store: it has been checked, and is worth a try. A changed address raises the epoch, so that
    /// late reports about the old address count for nothing.
    pub fn learn(&self, store: &metapb::Store) {
        let labels: Vec<_> = store.labels.iter().map(|label| (label.key.clone(), label.value.clone())).collect();
        let engine = Engine::of(store);
        self.write(|stores| match stores.get_mut(&store.id) {
            Some(known) => {
                let known = Arc::make_mut(known);
                if *known.address != *store.address {
                    known.address = Arc::from(store.address.as_str());
                    known.epoch += 1;
                }
                known.labels = labels;
                known.engine = engine;
                known.liveness = Liveness::Reachable;
                known.needs_check = false;
            }
            None => {
                let fresh = Store {
                    id: store.id,
                    address: Arc::from(store.address.as_str()),
                    labels,
                    engine,
                    epoch: 0,
                    liveness: Liveness::Reachable,
                    needs_check: false,
                };
                stores.insert(store.id, Arc::new(fresh));
            }
        });
    }

    /// PD no longer knows the store, or only its tombstone: forgets it.
    pub fn forget(&self, id: u64) {
        self.write(|stores| {
            stores.remove(&id);
        });
    }

    /// The store failed while at `epoch`: raises the epoch once, marks it unreachable, and asks for a check with PD.
    /// Returns whether this was the first report of that epoch.
    pub fn report_failure(&self, id: u64, epoch: u64) -> bool {
        self.update_at(id, epoch, |store| {
            store.epoch += 1;
            store.liveness = Liveness::Unreachable;
            store.needs_check = true;
        })
    }

    /// The store is known to answer, from a health check, say: it is worth a try.
    pub fn report_success(&self, id: u64) {
        self.write(|stores| {
            if let Some(store) = stores.get_mut(&id) {
                Arc::make_mut(store).liveness = Liveness::Reachable;
            }
        });
    }

    /// The store's identity is in doubt (it said it is another store): asks for a check with PD. Returns whether this was
    /// the first doubt since the last check.
    pub fn request_check(&self, id: u64) -> bool {
        self.write(|stores| match stores.get_mut(&id) {
            Some(store) if !store.needs_check => {
                Arc::make_mut(store).needs_check = true;
                true
            }
            _ => false,
        })
    }

    fn update_at(&self, id: u64, epoch: u64, update: impl FnOnce(&mut Store)) -> bool {
        self.write(|stores| match stores.get_mut(&id) {
            Some(store) if store.epoch == epoch => {
                update(Arc::make_mut(store));
                true
            }
            _ => false,
        })
    }

    fn read<R>(&self, f: impl FnOnce(&BTreeMap<u64, Arc<Store>>) -> R) -> R {
        f(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<R>(&self, f: impl FnOnce(&mut BTreeMap<u64, Arc<Store>>) -> R) -> R {
        f(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Clone for StoreRegistry {
    fn clone(&self) -> Self {
        StoreRegistry(RwLock::new(self.read(Clone::clone)))
    }
}
