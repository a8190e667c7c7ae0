//! Where stores are and how they fare.

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
    /// Whether PD should be asked again before the address is trusted.
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

/// Whether a store answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// The last contact succeeded, or none was tried.
    #[default]
    Reachable,
    /// The last contact failed.
    Unreachable,
}

/// The stores of the cluster, by id.
#[derive(Debug, Default)]
pub struct StoreRegistry(RwLock<BTreeMap<u64, Arc<Store>>>);

impl StoreRegistry {
    /// The store as it is known now.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Arc<Store>> {
        self.read(|stores| stores.get(&id).cloned())
    }

    /// All stores, by id.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Store>> {
        self.read(|stores| stores.values().cloned().collect())
    }

    /// Learns what PD says of a store. A changed address raises the epoch and makes it reachable again.
    pub fn learn(&self, store: &metapb::Store) {
        let labels: Vec<_> = store.labels.iter().map(|label| (label.key.clone(), label.value.clone())).collect();
        let engine = if labels.iter().any(|(key, value)| key == "engine" && value == "tiflash") {
            Engine::TiFlash
        } else {
            Engine::TiKv
        };
        self.write(|stores| match stores.get_mut(&store.id) {
            Some(known) => {
                let known = Arc::make_mut(known);
                if *known.address != *store.address {
                    known.address = Arc::from(store.address.as_str());
                    known.epoch += 1;
                    known.liveness = Liveness::Reachable;
                }
                known.labels = labels;
                known.engine = engine;
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

    /// The store answered: it is reachable.
    pub fn report_success(&self, id: u64) {
        let stale = self.read(|stores| stores.get(&id).is_some_and(|store| store.liveness != Liveness::Reachable));
        if stale {
            self.write(|stores| {
                if let Some(store) = stores.get_mut(&id) {
                    Arc::make_mut(store).liveness = Liveness::Reachable;
                }
            });
        }
    }

    /// The store's identity is in doubt (it said it is another store): asks for a check with PD.
    pub fn request_check(&self, id: u64) {
        self.write(|stores| {
            if let Some(store) = stores.get_mut(&id) {
                Arc::make_mut(store).needs_check = true;
            }
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn store(id: u64, address: &str) -> metapb::Store {
        metapb::Store { id, address: address.into(), ..Default::default() }
    }

    #[test]
    fn the_first_report_of_a_failure_wins() {
        let stores = StoreRegistry::default();
        stores.learn(&store(1, "a:1"));
        assert!(stores.report_failure(1, 0));
        assert!(!stores.report_failure(1, 0), "a late report of the same epoch");
        let known = stores.get(1).expect("known");
        assert_eq!((known.epoch, known.liveness, known.needs_check), (1, Liveness::Unreachable, true));
        stores.report_success(1);
        assert_eq!(stores.get(1).expect("known").liveness, Liveness::Reachable);
    }

    #[test]
    fn a_new_address_is_a_new_epoch() {
        let stores = StoreRegistry::default();
        stores.learn(&store(1, "a:1"));
        stores.learn(&store(1, "a:1"));
        assert_eq!(stores.get(1).expect("known").epoch, 0);
        stores.learn(&store(1, "b:1"));
        let known = stores.get(1).expect("known");
        assert_eq!((&*known.address, known.epoch), ("b:1", 1));
        stores.forget(1);
        assert_eq!(stores.get(1), None);
    }

    #[test]
    fn the_engine_label_tells_tiflash() {
        let stores = StoreRegistry::default();
        let label = metapb::StoreLabel { key: "engine".into(), value: "tiflash".into() };
        stores.learn(&metapb::Store { labels: vec![label], ..store(2, "f:1") });
        assert_eq!(stores.get(2).expect("known").engine, Engine::TiFlash);
    }
}
