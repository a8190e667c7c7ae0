mod model;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// The time to live without jitter; all tests but one do without.
const TTL: Duration = Duration::from_secs(600);

fn index() -> RegionIndex {
    RegionIndex::new(&Config { region_ttl_jitter: Duration::ZERO, ..Config::default() })
}

/// A region led by the peer on the first of its stores.
fn region(id: u64, conf_ver: u64, version: u64, range: std::ops::Range<&str>) -> Region {
    let replicas = [1, 2, 3].map(|store| Replica { peer: peer(id, store), store_epoch: 0 });
    Region {
        ver_id: RegionVerId { id, conf_ver, version },
        range: KeyRange::new(range.start, range.end),
        replicas: replicas.to_vec(),
        leader: 0,
        buckets: None,
    }
}

fn peer(region_id: u64, store_id: u64) -> metapb::Peer {
    metapb::Peer { id: region_id * 10 + store_id, store_id, ..Default::default() }
}

fn with_buckets(version: u64, region: Region) -> Region {
    Region { buckets: Some(Arc::new(Buckets { version, keys: vec![Key::from("b")] })), ..region }
}

fn insert(index: &RegionIndex, region: Region) -> RegionVerId {
    let ver_id = region.ver_id;
    assert_eq!(index.insert(Time::ZERO, region), Inserted::Accepted);
    ver_id
}

/// The region that a look-up finds, or 0.
fn lookup(index: &RegionIndex, now: Time, key: &str) -> u64 {
    index.lookup(now, key.as_bytes()).map_or(0, |region| region.ver_id.id)
}

fn lookup_before(index: &RegionIndex, end: &str) -> u64 {
    index.lookup_before(Time::ZERO, end.as_bytes()).map_or(0, |region| region.ver_id.id)
}

#[test]
fn a_key_is_found_in_the_region_that_holds_it() {
    let index = index();
    insert(&index, region(1, 1, 1, "b".."d"));
    insert(&index, region(2, 1, 1, "d".."f"));
    insert(&index, region(3, 1, 1, "h"..""));
    for (key, expected) in
        [("", 0), ("a", 0), ("b", 1), ("c", 1), ("czz", 1), ("d", 2), ("f", 0), ("g", 0), ("h", 3), ("zz", 3)]
    {
        assert_eq!(lookup(&index, Time::ZERO, key), expected, "{key}");
    }
    assert_eq!(index.all().iter().map(|region| region.ver_id.id).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((index.len(), index.is_empty()), (3, false));
}

#[test]
fn an_end_is_found_in_the_region_before_it() {
    let index = index();
    insert(&index, region(1, 1, 1, "b".."d"));
    insert(&index, region(2, 1, 1, "d".."f"));
    assert_eq!(lookup_before(&index, ""), 0, "the last region is not known");
    insert(&index, region(3, 1, 1, "h"..""));
    for (end, expected) in [("a", 0), ("b", 0), ("c", 1), ("d", 1), ("e", 2), ("f", 2), ("g", 0), ("h", 0), ("i", 3)] {
        assert_eq!(lookup_before(&index, end), expected, "{end}");
    }
    assert_eq!(lookup_before(&index, ""), 3, "the empty key stands for the end of all keys");
}

#[test]
fn a_region_is_found_by_its_id_in_its_newest_life() {
    let index = index();
    insert(&index, region(1, 1, 1, "a".."m"));
    let newest = insert(&index, region(1, 1, 2, "c".."m"));
    assert_eq!(index.lookup_id(Time::ZERO, 1).map(|region| region.ver_id), Some(newest));
    assert_eq!(index.lookup_id(Time::ZERO, 2), None);
    assert_eq!(index.len(), 1, "the earlier life began elsewhere, and is gone all the same");
    assert_eq!(index.lookup_id(Time::ZERO + TTL + SECOND, 1), None, "expired");
}

#[test]
fn a_split_takes_the_place_of_what_was_there() {
    let index = index();
    insert(&index, region(1, 1, 1, ""..""));
    insert(&index, region(2, 1, 2, "m"..""));
    assert_eq!((lookup(&index, Time::ZERO, "a"), lookup(&index, Time::ZERO, "n")), (1, 2), "the wider one is shadowed");
    insert(&index, region(1, 1, 2, "".."m"));
    assert_eq!((lookup(&index, Time::ZERO, "a"), lookup(&index, Time::ZERO, "n")), (1, 2));
    assert_eq!(index.len(), 2);
}

#[test]
fn a_merge_takes_the_place_of_all_that_it_merged() {
    let index = index();
    for (id, range) in [(1, "".."b"), (2, "b".."c"), (3, "c".."d"), (4, "d"..""), (5, "x".."y")] {
        let version = if id == 5 { 1 } else { 2 };
        index.insert(Time::ZERO, region(id, 1, version, range));
    }
    insert(&index, region(1, 1, 4, "".."d"));
    assert_eq!((lookup(&index, Time::ZERO, "c"), lookup(&index, Time::ZERO, "e")), (1, 4));
    insert(&index, region(1, 1, 5, ""..""));
    assert_eq!((lookup(&index, Time::ZERO, "e"), index.len()), (1, 1));
}

#[test]
fn a_shadowed_region_does_not_answer_for_the_keys_of_an_invalid_one() {
    let index = index();
    insert(&index, region(1, 1, 1, ""..""));
    let newer = insert(&index, region(2, 1, 2, "m".."t"));
    index.invalidate(newer);
    assert_eq!(lookup(&index, Time::ZERO, "n"), 0);
    assert_eq!(lookup(&index, Time::ZERO, "z"), 0, "the nearest start to the left decides");
    assert_eq!(lookup(&index, Time::ZERO, "a"), 1);
}

#[test]
fn older_news_of_a_region_are_stale() {
    for (conf_ver, version, expected) in [
        (3, 3, Inserted::Accepted),
        (4, 3, Inserted::Accepted),
        (3, 4, Inserted::Accepted),
        (2, 3, Inserted::Stale),
        (3, 2, Inserted::Stale),
        (2, 4, Inserted::Stale),
        (4, 2, Inserted::Stale),
    ] {
        let index = index();
        insert(&index, region(1, 3, 3, ""..""));
        assert_eq!(index.insert(Time::ZERO, region(1, conf_ver, version, ""..""),), expected, "{conf_ver} {version}");
    }
}

#[test]
fn a_region_is_stale_if_a_newer_one_begins_within_it() {
    let index = index();
    let newer = insert(&index, region(2, 1, 5, "m"..""));
    assert_eq!(index.insert(Time::ZERO, region(1, 9, 4, ""..""),), Inserted::Stale);
    assert_eq!(index.insert(Time::ZERO, region(3, 1, 4, "".."m"),), Inserted::Accepted, "next to it");
    index.invalidate(newer);
    assert_eq!(index.insert(Time::ZERO, region(1, 9, 4, ""..""),), Inserted::Stale, "what was seen stays seen");
}

#[test]
fn the_leader_of_pd_is_believed_against_what_is_no_longer_in_use() {
    let index = index();
    let newer = insert(&index, region(1, 1, 5, ""..""));
    assert_eq!(index.insert_from_pd_leader(Time::ZERO, region(1, 1, 4, ""..""),), Inserted::Stale);
    let expired = Time::ZERO + TTL + SECOND;
    assert_eq!(index.clone().insert_from_pd_leader(expired, region(1, 1, 4, ""..""),), Inserted::Accepted);
    index.invalidate(newer);
    assert_eq!(index.insert_from_pd_leader(Time::ZERO, region(1, 1, 4, ""..""),), Inserted::Accepted);
    assert_eq!(index.lookup(Time::ZERO, b"k").map(|region| region.ver_id.version), Some(4));
}

#[test]
fn a_region_that_makes_no_sense_is_refused() {
    let index = index();
    let nobody = Region { replicas: Vec::new(), ..region(1, 1, 1, "a".."b") };
    let nowhere = Region { leader: 3, ..region(1, 1, 1, "a".."b") };
    for malformed in [nobody, nowhere, region(1, 1, 1, "b".."b"), region(1, 1, 1, "b".."a")] {
        assert_eq!(index.insert(Time::ZERO, malformed), Inserted::Malformed);
    }
    assert!(index.is_empty());
}

#[test]
fn only_the_first_invalidation_counts() {
    let index = index();
    let ver_id = insert(&index, region(1, 1, 1, ""..""));
    assert!(index.invalidate(ver_id));
    assert!(!index.invalidate(ver_id));
    assert_eq!((lookup(&index, Time::ZERO, "k"), index.get(ver_id), index.len()), (0, None, 0));
    assert_eq!((index.lookup_id(Time::ZERO, 1), lookup_before(&index, "")), (None, 0));
    assert!(index.all().is_empty());
    insert(&index, region(1, 1, 1, ""..""));
    assert_eq!(lookup(&index, Time::ZERO, "k"), 1, "loaded again, it is as good as new");
}

#[test]
fn a_late_report_about_an_earlier_life_changes_nothing() {
    let index = index();
    let earlier = insert(&index, region(1, 1, 1, ""..""));
    let ver_id = insert(&index, region(1, 1, 2, ""..""));
    let buckets = Buckets { version: 1, keys: vec![Key::from("k")] };
    assert!(!index.invalidate(earlier));
    assert!(!index.request_reload(earlier));
    assert!(!index.let_expire(earlier));
    assert!(!index.switch_leader(earlier, &peer(1, 2)));
    assert!(!index.learn_buckets(earlier, buckets));
    assert_eq!(index.get(earlier), None);
    assert_eq!(index.get(ver_id).as_deref(), Some(&region(1, 1, 2, ""..""),));
}

#[test]
fn a_new_leader_is_learnt_if_it_is_a_peer() {
    let index = index();
    let ver_id = insert(&index, region(1, 1, 1, ""..""));
    let before = index.get(ver_id).expect("known");
    assert!(index.switch_leader(ver_id, &peer(1, 3)));
    assert_eq!(index.get(ver_id).expect("known").leader().peer, peer(1, 3));
    assert_eq!(before.leader().peer, peer(1, 1), "who holds it goes on with what it knew");
    assert!(!index.switch_leader(ver_id, &peer(1, 4)), "a store without a replica");
    assert!(!index.switch_leader(ver_id, &metapb::Peer { id: 99, ..peer(1, 2) }), "another peer on the same store");
    assert_eq!(index.get(ver_id).expect("known").leader().peer, peer(1, 3));
}

#[test]
fn a_region_lives_as_long_as_it_is_looked_up() {
    let index = index();
    insert(&index, region(1, 1, 1, ""..""));
    let mut now = Time::ZERO;
    for _ in 0..5 {
        now += TTL - SECOND;
        assert_eq!(lookup(&index, now, "k"), 1);
    }
    assert_eq!(lookup(&index, now + TTL, "k"), 0);
    assert_eq!(lookup(&index, now, "k"), 1, "a miss is no news");
}

#[test]
fn a_region_with_unusable_replicas_expires_even_if_it_is_looked_up() {
    let index = index();
    let ver_id = insert(&index, region(1, 1, 1, ""..""));
    assert!(index.let_expire(ver_id));
    assert_eq!(lookup(&index, Time::ZERO + TTL - SECOND, "k"), 1);
    assert_eq!(lookup(&index, Time::ZERO + TTL, "k"), 0);
    insert(&index, region(1, 1, 1, ""..""));
    assert_eq!(lookup(&index, Time::ZERO + TTL - SECOND, "k"), 1);
    assert_eq!(lookup(&index, Time::ZERO + TTL, "k"), 1, "loaded again, it may be complete");
}

#[test]
fn expiry_is_spread_by_the_jitter() {
    let config = Config::default();
    let index = RegionIndex::new(&config);
    let ids: Vec<u64> = (0..100).collect();
    let keys: Vec<String> = ids.iter().map(|id| format!("{id:03}")).collect();
    let alive = |now: Time| {
        let copy = index.clone();
        keys.iter().filter(|key| lookup(&copy, now, key) != 0).count()
    };
    for (id, key) in ids.iter().zip(&keys) {
        let mut region = region(id + 1, 1, 1, "".."x");
        region.range = KeyRange::new(key.as_str(), Key::from(key.as_str()).next());
        index.insert(Time::ZERO, region);
    }
    let check = |looked_up: Time| {
        assert_eq!(alive(looked_up + config.region_ttl - SECOND), 100);
        assert!((1..100).contains(&alive(looked_up + config.region_ttl + config.region_ttl_jitter / 2)));
        assert_eq!(alive(looked_up + config.region_ttl + config.region_ttl_jitter), 0);
    };
    check(Time::ZERO);
    let later = Time::ZERO + Duration::from_secs(300);
    for key in &keys {
        let _ = index.lookup(later, key.as_bytes());
    }
    check(later);
}

#[test]
fn a_requested_reload_is_a_miss_for_look_ups_only() {
    let index = index();
    let ver_id = insert(&index, region(1, 1, 1, ""..""));
    assert!(index.request_reload(ver_id));
    assert_eq!((lookup(&index, Time::ZERO, "k"), lookup_before(&index, "")), (0, 0));
    assert_eq!(index.lookup_id(Time::ZERO, 1), None);
    assert!(index.get(ver_id).is_some(), "running operations go on with it");
    assert!(index.switch_leader(ver_id, &peer(1, 2)));
    insert(&index, region(1, 1, 1, ""..""));
    assert_eq!(lookup(&index, Time::ZERO, "k"), 1);
}

#[test]
fn buckets_only_get_newer() {
    let index = index();
    let ver_id = insert(&index, region(1, 1, 1, ""..""));
    let version = || index.get(ver_id).and_then(|region| region.buckets.as_ref().map(|buckets| buckets.version));
    for (learnt, is_news, known) in [(3, true, 3), (3, false, 3), (2, false, 3), (4, true, 4)] {
        let buckets = Buckets { version: learnt, keys: vec![Key::from("k")] };
        assert_eq!(index.learn_buckets(ver_id, buckets), is_news);
        assert_eq!(version(), Some(known));
    }
}

#[test]
fn buckets_are_inherited_by_what_takes_their_place() {
    for (case, new, expected) in [
        ("none", region(1, 2, 2, "".."m"), 5),
        ("older", with_buckets(4, region(1, 2, 2, "".."m")), 5),
        ("newer", with_buckets(6, region(1, 2, 2, "".."m")), 6),
        ("its life began elsewhere", region(1, 2, 2, "a".."m"), 5),
        ("another region in its place", region(2, 2, 2, "".."m"), 5),
        ("the region to its right", region(2, 2, 2, "m"..""), 0),
    ] {
        for invalidated in [false, true] {
            let index = index();
            let earlier = insert(&index, with_buckets(5, region(1, 1, 1, "".."m")));
            if invalidated {
                index.invalidate(earlier);
            }
            let ver_id = insert(&index, new.clone());
            let buckets = index.get(ver_id).and_then(|region| region.buckets.clone());
            assert_eq!(buckets.map_or(0, |buckets| buckets.version), expected, "{case}");
        }
    }
}

#[test]
fn a_bucket_lies_within_its_region() {
    let all: &[&str] = &["", "c", "f", ""];
    let holes: &[&str] = &["c", "f"];
    let foreign: &[&str] = &["p", "q"];
    let disordered: &[&str] = &["f", "c", "x", "a"];
    for (range, bounds, key, expected) in [
        ("".."", all, "", Some("".."c")),
        ("".."", all, "b", Some("".."c")),
        ("".."", all, "c", Some("c".."f")),
        ("".."", all, "e", Some("c".."f")),
        ("".."", all, "z", Some("f".."")),
        ("".."", holes, "a", Some("".."c")),
        ("".."", holes, "f", Some("f".."")),
        ("b".."k", all, "b", Some("b".."c")),
        ("b".."k", all, "g", Some("f".."k")),
        ("b".."e", all, "d", Some("c".."e")),
        ("b".."k", foreign, "d", Some("b".."k")),
        ("x".."z", foreign, "y", Some("x".."z")),
        ("b".."k", &[], "d", Some("b".."k")),
        ("b".."k", all, "a", None),
        ("b".."k", all, "k", None),
    ] {
        let buckets = Buckets { version: 1, keys: bounds.iter().map(|bound| Key::from(*bound)).collect() };
        let region = Region { buckets: Some(Arc::new(buckets)), ..region(1, 1, 1, range.clone()) };
        let expected = expected.map(|bucket| KeyRange::new(bucket.start, bucket.end));
        assert_eq!(region.bucket_of(key.as_bytes()), expected, "{key} in {range:?} of {bounds:?}");
    }
    let buckets = Buckets { version: 1, keys: disordered.iter().map(|bound| Key::from(*bound)).collect() };
    let region = Region { buckets: Some(Arc::new(buckets)), ..region(1, 1, 1, "b".."k") };
    for key in ["b", "c", "d", "f", "g", "j"] {
        assert!(region.bucket_of(key.as_bytes()).is_some_and(|bucket| bucket.contains(key.as_bytes())), "{key}");
    }
}

/// Stores 1, 2 and 3, all reachable.
fn stores() -> StoreRegistry {
    let stores = StoreRegistry::default();
    for id in 1..=3 {
        stores.learn(&metapb::Store { id, address: format!("store-{id}"), ..Default::default() });
    }
    stores
}

#[test]
fn a_sweep_forgets_what_is_invalid_or_expired_a_few_at_a_time() {
    let (index, stores) = (index(), stores());
    for (id, range) in [(1, "".."b"), (2, "b".."c"), (3, "c".."d"), (4, "d".."e"), (5, "e".."")] {
        insert(&index, region(id, 1, 1, range));
    }
    let now = Time::ZERO + TTL - SECOND;
    assert_eq!((lookup(&index, now, "a"), lookup(&index, now, "d")), (1, 4));
    let later = now + SECOND + SECOND;
    assert_eq!(index.sweep(later, &stores, 2), 1, "regions 1 and 2, of which one was looked up");
    assert_eq!(index.sweep(later, &stores, 2), 1, "regions 3 and 4");
    assert_eq!(index.sweep(later, &stores, 2), 1, "region 5, and the round is over");
    assert_eq!(index.sweep(later, &stores, 2), 0, "region 1 and 4");
    index.invalidate(region(4, 1, 1, "d".."e").ver_id);
    assert_eq!(index.sweep(later, &stores, 10), 1);
    assert_eq!(index.all().iter().map(|region| region.ver_id.id).collect::<Vec<_>>(), [1]);
    assert_eq!(index.insert(Time::ZERO, region(4, 1, 0, "d".."e")), Inserted::Accepted, "nothing is left of it");
}

#[test]
fn a_sweep_lets_regions_expire_that_have_a_replica_on_a_failed_store() {
    for fail in [
        |stores: &StoreRegistry| assert!(stores.report_failure(3, 0)),
        |stores: &StoreRegistry| stores.forget(3),
        |stores: &StoreRegistry| stores.learn(&metapb::Store { id: 3, address: "moved".into(), ..Default::default() }),
    ] {
        let (index, stores) = (index(), stores());
        insert(&index, region(1, 1, 1, ""..""));
        assert_eq!(index.sweep(Time::ZERO, &stores, 1), 0);
        assert_eq!(lookup(&index, Time::ZERO + SECOND, "k"), 1);
        fail(&stores);
        assert_eq!(index.sweep(Time::ZERO, &stores, 1), 0);
        assert_eq!(lookup(&index, Time::ZERO + TTL, "k"), 1);
        assert_eq!(lookup(&index, Time::ZERO + TTL + SECOND, "k"), 0);
    }
}

#[test]
fn a_clone_goes_its_own_way() {
    let index = index();
    let ver_id = insert(&index, region(1, 1, 1, ""..""));
    let copy = index.clone();
    index.invalidate(ver_id);
    assert_eq!((lookup(&index, Time::ZERO, "k"), lookup(&copy, Time::ZERO, "k")), (0, 1));
    let _ = copy.lookup(Time::ZERO + TTL - SECOND, b"k");
    let another = copy.clone();
    assert_eq!(lookup(&another, Time::ZERO + TTL, "k"), 1, "with the life it has left");
}
