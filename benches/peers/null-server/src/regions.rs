//! How the keys of workloads are divided among stores.

use tikv_bench_load::{RECORDS, WRITERS, record, txn_record};
use tikv_core::key::Key;
use tikv_sim::cluster::encoded;

/// The bounds between regions: each store gets one of raw records, one of transactional records and one of what callers write.
/// None for a single store, whose region holds everything.
///
/// Regions go round the stores, so these three kinds are divided alike. Raw bounds are not such as transactional clients could
/// decode; so a bound of theirs lies between, and they never get to see a region that has another one.
pub(crate) fn bounds(stores: u64) -> Vec<Key> {
    if stores < 2 {
        return Vec::new();
    }
    let inner = || 1..stores;
    let raw = inner().map(|n| Key::from(record(RECORDS * n / stores)));
    let records = inner().map(|n| encoded(&txn_record(RECORDS * n / stores)));
    let written = inner().map(|n| encoded(format!("w{:04x}", WRITERS * n / stores).as_bytes()));
    raw.chain([encoded(b"t")]).chain(records).chain([encoded(b"w")]).chain(written).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tikv_bench_load::Keys;
    use tikv_core::codec::memcomparable::decode_key;
    use tikv_sim::cluster::Cluster;

    use super::*;
    use crate::pd;

    /// How many of the keys each store's regions hold.
    fn by_leader(cluster: &Cluster, keys: impl Iterator<Item = Key>) -> Vec<u64> {
        let mut counts = BTreeMap::new();
        for key in keys {
            let region = cluster.topology().regions().by_key(key.as_slice()).expect("regions cover all keys");
            *counts.entry(region.leader).or_default() += 1;
        }
        counts.into_values().collect()
    }

    fn cluster(stores: u16) -> Cluster {
        let addresses: Vec<_> = (1..=stores).map(|port| ([127, 0, 0, 1], port).into()).collect();
        pd::cluster(&addresses)
    }

    #[test]
    fn keys_of_each_kind_spread_evenly_over_stores() {
        for stores in [2, 3, 4, 16, 64, 256] {
            let cluster = cluster(stores);
            let raw = by_leader(&cluster, (0..RECORDS).map(|number| record(number).into()));
            let txn = by_leader(&cluster, (0..RECORDS).map(|number| encoded(&txn_record(number))));
            let written = (0..1024).flat_map(|caller| Keys::new(caller).to_write(1)).map(|key| encoded(&key));
            let written = by_leader(&cluster, written);
            // Callers can be divided by three only as far as their last digits can.
            for (keys, counts, off) in [(RECORDS, raw, 1), (RECORDS, txn, 1), (1024, written, 3)] {
                let fair = keys / u64::from(stores);
                let is_fair = counts.iter().all(|count| count.abs_diff(fair) <= off);
                assert!(is_fair && counts.len() == usize::from(stores), "{stores}: {counts:?}");
            }
        }
    }

    #[test]
    fn a_single_store_has_a_single_region() {
        assert_eq!(cluster(1).topology().regions().len(), 1);
    }

    #[test]
    fn each_store_has_an_address_of_its_own_and_pd_the_first() {
        let cluster = cluster(3);
        let addresses: Vec<_> = cluster.topology().stores().map(|store| store.meta.address.clone()).collect();
        assert_eq!(addresses, ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
        assert_eq!(cluster.pd().members()[0].client_url, "http://127.0.0.1:1");
    }

    #[test]
    fn transactional_clients_can_decode_the_bounds_around_their_keys() {
        let cluster = cluster(4);
        let keys = (0..RECORDS).map(txn_record).chain((0..64).flat_map(|caller| Keys::new(caller).to_write(1)));
        for key in keys {
            let region = cluster.topology().regions().by_key(encoded(&key).as_slice()).expect("regions cover all keys");
            for bound in [&region.meta.start_key, &region.meta.end_key] {
                assert!(bound.is_empty() || decode_key(bound).is_ok(), "{bound:?} of {key:?}");
            }
        }
    }
}
