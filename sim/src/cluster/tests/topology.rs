use tikv_proto::kvrpcpb::SplitRegionRequest;
use tikv_proto::metapb::{PeerRole, RegionEpoch};

use super::*;

fn covers_everything(cluster: &Cluster) -> bool {
    let regions: Vec<_> = cluster.topology().regions().iter().collect();
    let meets = |pair: &[&Region]| pair[0].meta.end_key == pair[1].meta.start_key;
    regions[0].meta.start_key.is_empty()
        && regions[regions.len() - 1].meta.end_key.is_empty()
        && regions.windows(2).all(meets)
}

#[test]
fn a_new_cluster_spreads_regions_and_leaders_over_its_stores() {
    let cluster = Cluster::new(ClusterOptions { regions: 9, ..ClusterOptions::default() });
    assert!(covers_everything(&cluster));
    for store in cluster.topology().stores() {
        let led = cluster.topology().regions().iter().filter(|region| region.leader == Some(store.meta.id));
        assert_eq!(led.count(), 3);
    }
    // Letters and digits do not end up in one region, whether they are encoded or not.
    let region_of = |key: &[u8]| cluster.topology().regions().by_key(key).map(Region::id);
    assert_ne!(region_of(b"1"), region_of(b"x"));
    assert_ne!(region_of(encoded(b"1").as_slice()), region_of(encoded(b"x").as_slice()));
}

#[test]
fn on_api_v2_each_keyspace_has_regions_of_its_own() {
    let keyspaces = vec!["one".to_owned()];
    let api_version = ApiVersion::V2;
    let mut cluster = Cluster::new(ClusterOptions { api_version, keyspaces, regions: 2, ..ClusterOptions::default() });
    assert!(covers_everything(&cluster));
    let id_of = |key: &[u8]| region_of(&cluster, key).id();
    let keys = [&b"x\0\0\0a"[..], b"x\0\0\0A", b"x\0\0\x01a", b"x\0\0\x02", b"r\0\0\0a"];
    let ids: std::collections::BTreeSet<u64> = keys.iter().map(|key| id_of(key)).collect();
    assert_eq!(ids.len(), keys.len());

    // Raw keys are encoded as well.
    let (store_id, context) = cluster.leader_context(encoded(b"r\0\0\0a").as_slice()).unwrap();
    let request = RawGetRequest { key: "r\0\0\0a".into(), ..RawGetRequest::default() };
    assert_eq!(ask(&mut cluster, store_id, &context, request.into()).unwrap().region_error(), None);
}

#[test]
fn the_right_part_of_a_split_keeps_the_id_and_both_get_the_new_version() {
    let mut cluster = cluster();
    let old = region_of(&cluster, b"a");
    let (_, right) = cluster.split(&encoded(b"g")).unwrap();
    assert_eq!(right, old.id());
    let (left, right) = (region_of(&cluster, b"a"), cluster.topology().region(right).unwrap().clone());
    assert_eq!(left.epoch(), RegionEpoch { version: old.epoch().version + 1, ..old.epoch() });
    assert_eq!(left.epoch(), right.epoch());
    assert_eq!(left.leader, old.leader);
    assert_ne!(left.meta.peers[0].id, right.meta.peers[0].id);
    assert!(covers_everything(&cluster));
    let again = cluster.split(&encoded(b"g")).unwrap_err();
    assert_eq!(again, TopologyError::NotInside { region_id: right.id(), key: encoded(b"g") });
}

#[test]
fn a_store_splits_at_all_keys_of_a_request_at_once() {
    let mut cluster = cluster();
    let old = region_of(&cluster, b"a");
    let split_keys = vec!["g".into(), "d".into(), "d".into()];
    let request = SplitRegionRequest { split_keys, ..SplitRegionRequest::default() };
    let Response::SplitRegion(done) = ask_leader(&mut cluster, "a", request.into()) else { panic!() };
    assert_eq!(done.region_error, None);
    let ends: Vec<_> = done.regions.iter().map(|region| Key::from(region.end_key.clone())).collect();
    assert_eq!(ends, [encoded(b"d"), encoded(b"g"), encoded(b"m")]);
    assert_eq!(done.regions[2].id, old.id());
    assert!(done.regions.iter().all(|region| region.region_epoch.unwrap().version == old.epoch().version + 2));
}

#[test]
fn a_store_refuses_split_keys_of_another_region() {
    let mut cluster = cluster();
    let request = SplitRegionRequest { split_keys: vec!["z".into()], ..SplitRegionRequest::default() };
    let Response::SplitRegion(refused) = ask_leader(&mut cluster, "a", request.into()) else { panic!() };
    let outside = refused.region_error.unwrap().key_not_in_region.unwrap();
    assert_eq!(Key::from(outside.key), encoded(b"z"));
}

#[test]
fn data_stays_readable_across_splits_and_merges() {
    let mut cluster = cluster();
    ask_leader(&mut cluster, "a", prewrite("a", "1", 5));
    ask_leader(&mut cluster, "a", commit("a", 5, 6));
    let (left, right) = cluster.split(&encoded(b"g")).unwrap();
    cluster.topology_mut().merge(right, left).unwrap();
    assert!(covers_everything(&cluster));
    assert_eq!(region_of(&cluster, b"a").id(), left);
    let Response::Get(found) = ask_leader(&mut cluster, "a", get("a", 7)) else { panic!() };
    assert_eq!(found.value, "1");
}

#[test]
fn a_merge_raises_the_version_above_both() {
    let mut cluster = cluster();
    let (left, right) = (region_of(&cluster, b"a"), region_of(&cluster, b"z"));
    cluster.split(&encoded(b"g")).unwrap();
    let left = cluster.topology().region(left.id()).unwrap().clone();
    // The second region begins with other peers in front, but on the same stores.
    cluster.topology_mut().merge(left.id(), right.id()).unwrap();
    let merged = region_of(&cluster, b"z");
    assert_eq!(merged.epoch().version, left.epoch().version + 2);
    assert_eq!(merged.meta.start_key, left.meta.start_key);
    assert_eq!(cluster.topology().region(left.id()), Err(TopologyError::NoRegion(left.id())));
    let first = region_of(&cluster, b"a");
    let error = cluster.topology_mut().merge(merged.id(), merged.id()).unwrap_err();
    assert_eq!(error, TopologyError::NotMergeable(merged.id(), merged.id()));
    assert_eq!(cluster.topology_mut().merge(first.id(), merged.id()), Ok(()));
    assert!(covers_everything(&cluster));
}

#[test]
fn a_transfer_of_leadership_raises_the_term_and_nothing_else() {
    let mut cluster = cluster();
    let old = region_of(&cluster, b"a");
    let follower = follower_of(&old);
    cluster.transfer_leader(old.id(), follower).unwrap();
    let new = region_of(&cluster, b"a");
    assert_eq!((new.leader, new.term, new.epoch()), (Some(follower), old.term + 1, old.epoch()));
    let error = cluster.transfer_leader(old.id(), 99).unwrap_err();
    assert_eq!(error, TopologyError::NoPeer { region_id: old.id(), store_id: 99 });
}

#[test]
fn a_crashed_leader_is_replaced_after_the_election_timeout() {
    let mut cluster = cluster();
    let region = region_of(&cluster, b"a");
    let leader = region.leader.unwrap();
    cluster.stop_store(NOW, leader).unwrap();
    assert_eq!(region_of(&cluster, b"a").leader, None);
    // PD does not know yet.
    assert_eq!(region_of(&cluster, b"a").reported_leader, Some(leader));
    let unreachable = ask(&mut cluster, leader, &context_on(&region, leader), get("a", 5));
    assert_eq!(unreachable, Err(CallError::Unreachable));

    let at = cluster.next_wakeup().unwrap();
    assert_eq!(at, NOW + Duration::from_secs(1));
    assert_eq!(cluster.poll_reply(at), None);
    let elected = region_of(&cluster, b"a");
    assert!(elected.leader.is_some_and(|store| store != leader));
    assert_eq!((elected.term, elected.reported_leader), (region.term + 1, elected.leader));
}

#[test]
fn without_a_majority_nobody_leads_until_one_is_back() {
    let mut cluster = cluster();
    cluster.stop_store(NOW, 1).unwrap();
    cluster.stop_store(NOW, 2).unwrap();
    cluster.poll_reply(NOW + Duration::from_secs(60));
    assert_eq!(region_of(&cluster, b"a").leader, None);
    let later = NOW + Duration::from_secs(60);
    cluster.start_store(later, 2).unwrap();
    cluster.poll_reply(later + Duration::from_secs(1));
    assert!(matches!(region_of(&cluster, b"a").leader, Some(2 | 3)));
}

#[test]
fn a_change_of_peers_raises_conf_ver() {
    let mut cluster = cluster();
    let region = region_of(&cluster, b"a");
    let store = cluster.topology_mut().add_store(&StoreOptions::default());
    let topology = cluster.topology_mut();
    topology.add_peer(region.id(), store, PeerRole::Learner).unwrap();
    let again = topology.add_peer(region.id(), store, PeerRole::Voter).unwrap_err();
    assert_eq!(again, TopologyError::PeerExists { region_id: region.id(), store_id: store });
    topology.set_peer(region.id(), store, PeerRole::Voter, false).unwrap();
    assert_eq!(topology.remove_store(store), Err(TopologyError::StoreInUse(store)));
    topology.remove_peer(region.id(), store).unwrap();
    topology.remove_store(store).unwrap();
    assert!(topology.store(store).unwrap().is_tombstone());
    assert_eq!(region_of(&cluster, b"a").epoch().conf_ver, region.epoch().conf_ver + 3);

    let leader = region.leader.unwrap();
    let error = cluster.topology_mut().remove_peer(region.id(), leader).unwrap_err();
    assert_eq!(error, TopologyError::Leads { region_id: region.id(), store_id: leader });
}

#[test]
fn the_same_calls_lead_to_the_same_cluster() {
    let run = || {
        let mut cluster = Cluster::new(ClusterOptions { seed: 7, ..ClusterOptions::default() });
        for store in [1, 2, 1] {
            cluster.stop_store(NOW, store).unwrap();
            cluster.poll_reply(NOW + Duration::from_secs(1));
            cluster.start_store(NOW + Duration::from_secs(2), store).unwrap();
        }
        cluster
    };
    assert_eq!(run().topology(), run().topology());
}

#[test]
fn a_clone_goes_its_own_way() {
    let mut cluster = cluster();
    let mut other = cluster.clone();
    ask_leader(&mut cluster, "a", raw_put("a", "1"));
    other.split(&encoded(b"g")).unwrap();
    let Response::RawGet(found) = ask_leader(&mut other, "a", raw_get("a")) else { panic!() };
    assert!(found.not_found);
    assert_eq!(cluster.topology().regions().len(), 2);
}
