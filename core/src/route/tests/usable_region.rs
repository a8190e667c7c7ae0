use super::super::usable_region::usable_region;
use super::*;
use crate::knowledge::regions::Buckets;
use metapb::PeerRole;

/// Stores 1, 2 and 3 of TiKV, and 4 of TiFlash.
fn stores() -> Knowledge {
    let knowledge = knowledge(KeyCodec::Txn, []);
    let label = metapb::StoreLabel { key: "engine".into(), value: "tiflash".into() };
    knowledge.stores.learn(&metapb::Store { labels: vec![label], ..pd_store(4) });
    knowledge
}

/// The stores of the usable replicas, and that of the leader; `None` if there are none.
fn usable(knowledge: &Knowledge, described: &PdRegion) -> Option<(Vec<u64>, u64)> {
    let region = usable_region(knowledge, described).expect("well-formed bounds")?;
    let stores = region.replicas.iter().map(|replica| replica.peer.store_id).collect();
    Some((stores, region.leader().peer.store_id))
}

fn learner(store: u64) -> metapb::Peer {
    metapb::Peer { role: PeerRole::Learner.into(), ..peer(1, store) }
}

fn witness(store: u64) -> metapb::Peer {
    metapb::Peer { is_witness: true, ..peer(1, store) }
}

fn described(peers: &[metapb::Peer], leader: u64, down: &[u64]) -> PdRegion {
    let mut described = pd_region(1, 1, "".."");
    described.region.peers = peers.to_vec();
    described.leader = (leader != 0).then(|| peer(1, leader));
    described.down_peers = down.iter().map(|store| peer(1, *store)).collect();
    described
}

#[test]
fn only_replicas_that_can_answer_are_usable() {
    let (one, two, three, four) = (peer(1, 1), peer(1, 2), peer(1, 3), learner(4));
    let plain = [one, two, three];
    for (case, described, expected) in [
        ("all", described(&plain, 2, &[]), Some((vec![1, 2, 3], 2))),
        ("one is down", described(&plain, 2, &[3]), Some((vec![1, 2], 2))),
        ("the leader is down", described(&plain, 2, &[2]), Some((vec![1, 3], 1))),
        ("all are down", described(&plain, 2, &[1, 2, 3]), None),
        ("nobody leads", described(&plain, 0, &[]), Some((vec![1, 2, 3], 1))),
        ("the leader is a stranger", described(&plain, 9, &[]), Some((vec![1, 2, 3], 1))),
        ("on a store that is gone", described(&[one, peer(1, 9)], 1, &[]), Some((vec![1], 1))),
        ("no peers", described(&[], 1, &[]), None),
        ("a witness", described(&[one, witness(2), three], 1, &[]), Some((vec![1, 3], 1))),
        ("a witness that leads", described(&[one, witness(2), three], 2, &[]), Some((vec![1, 2, 3], 2))),
        ("a learner", described(&[learner(1), two], 2, &[]), Some((vec![1, 2], 2))),
        ("nobody leads, and a learner", described(&[learner(1), two], 0, &[]), Some((vec![1, 2], 2))),
        ("only a learner", described(&[learner(1)], 0, &[]), Some((vec![1], 1))),
        ("TiFlash first", described(&[four, one, two], 0, &[]), Some((vec![4, 1, 2], 1))),
        ("only TiFlash", described(&[four], 0, &[]), None),
    ] {
        assert_eq!(usable(&stores(), &described), expected, "{case}");
    }
}

#[test]
fn replicas_remember_the_epoch_of_their_store() {
    let knowledge = stores();
    knowledge.stores.report_failure(2, 0);
    let region = usable_region(&knowledge, &pd_region(1, 1, "".."")).expect("well-formed").expect("usable");
    assert_eq!(region.replicas.iter().map(|replica| replica.store_epoch).collect::<Vec<_>>(), [0, 1, 0]);
}

#[test]
fn buckets_are_taken_in_the_keys_of_the_client() {
    let encoded = |key: &str| KeyCodec::Txn.encode_region_key(&Key::from(key));
    let buckets = |keys: Vec<bytes::Bytes>| Some(metapb::Buckets { version: 5, keys, ..Default::default() });
    let keys = vec![Key::EMPTY, Key::from("c"), Key::EMPTY];
    for (described, expected) in [
        (None, None),
        (buckets(Vec::new()), None),
        (buckets(vec!["".into(), encoded("c"), "".into()]), Some(Arc::new(Buckets { version: 5, keys }))),
        (buckets(vec!["not encoded".into()]), None),
    ] {
        let described = PdRegion { buckets: described, ..pd_region(1, 1, "".."") };
        let region = usable_region(&stores(), &described).expect("well-formed").expect("usable");
        assert_eq!(region.buckets, expected);
    }
}

#[test]
fn a_region_without_an_epoch_is_the_oldest_of_all() {
    let mut described = pd_region(1, 1, "".."");
    described.region.region_epoch = None;
    let region = usable_region(&stores(), &described).expect("well-formed").expect("usable");
    assert_eq!((region.ver_id.conf_ver, region.ver_id.version), (0, 0));
}
