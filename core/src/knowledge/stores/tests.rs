use super::*;

fn store(id: u64, address: &str) -> metapb::Store {
    metapb::Store { id, address: address.into(), ..Default::default() }
}

fn labelled(id: u64, labels: &[(&str, &str)]) -> metapb::Store {
    let label = |(key, value): &(&str, &str)| metapb::StoreLabel { key: (*key).into(), value: (*value).into() };
    metapb::Store { labels: labels.iter().map(label).collect(), ..store(id, "a:1") }
}

fn known(stores: &StoreRegistry, id: u64) -> Arc<Store> {
    stores.get(id).expect("known")
}

#[test]
fn the_first_report_of_a_failure_wins() {
    let stores = StoreRegistry::default();
    stores.learn(&store(1, "a:1"));
    assert!(stores.report_failure(1, 0));
    assert!(!stores.report_failure(1, 0), "a late report of the same epoch");
    assert!(!stores.report_failure(2, 0), "of a store that nobody knows");
    let failed = known(&stores, 1);
    assert_eq!((failed.epoch, failed.liveness, failed.needs_check), (1, Liveness::Unreachable, true));
}

#[test]
fn a_store_that_pd_still_knows_is_worth_another_try() {
    let stores = StoreRegistry::default();
    stores.learn(&store(1, "a:1"));
    stores.report_failure(1, 0);
    stores.learn(&store(1, "a:1"));
    let checked = known(&stores, 1);
    assert_eq!((checked.epoch, checked.liveness, checked.needs_check), (1, Liveness::Reachable, false));
    assert!(stores.report_failure(1, 1), "and if it is still dead, that is news");
}

#[test]
fn a_store_that_is_seen_to_answer_is_worth_another_try_even_before_pd_is_asked() {
    let stores = StoreRegistry::default();
    stores.learn(&store(1, "a:1"));
    stores.report_failure(1, 0);
    stores.report_success(1);
    stores.report_success(2);
    let alive = known(&stores, 1);
    assert_eq!((alive.epoch, alive.liveness, alive.needs_check), (1, Liveness::Reachable, true));
    assert_eq!(stores.get(2), None);
}

#[test]
fn what_was_learnt_of_replicas_before_a_failure_holds_no_more() {
    let stores = StoreRegistry::default();
    stores.learn(&store(1, "a:1"));
    assert!(stores.get_at(1, 0).is_some());
    stores.report_failure(1, 0);
    assert_eq!((stores.get_at(1, 0), stores.get_at(1, 1)), (None, None), "not even now: it is unreachable");
    stores.learn(&store(1, "a:1"));
    assert_eq!(stores.get_at(1, 0), None);
    assert!(stores.get_at(1, 1).is_some());
    assert_eq!(stores.get_at(2, 0), None, "a store that nobody knows");
}

#[test]
fn a_late_report_about_an_old_address_counts_for_nothing() {
    let stores = StoreRegistry::default();
    stores.learn(&store(1, "a:1"));
    stores.learn(&store(1, "a:1"));
    assert_eq!(known(&stores, 1).epoch, 0);
    stores.learn(&store(1, "b:1"));
    assert_eq!((&*known(&stores, 1).address, known(&stores, 1).epoch), ("b:1", 1));
    assert!(!stores.report_failure(1, 0));
    assert_eq!(known(&stores, 1).liveness, Liveness::Reachable);
}

#[test]
fn labels_are_replaced_in_place() {
    let stores = StoreRegistry::default();
    stores.learn(&labelled(1, &[("zone", "east")]));
    stores.learn(&labelled(1, &[("zone", "west"), ("rack", "1")]));
    let expected = [("zone".to_owned(), "west".to_owned()), ("rack".to_owned(), "1".to_owned())];
    assert_eq!((known(&stores, 1).labels.as_slice(), known(&stores, 1).epoch), (&expected[..], 0));
}

#[test]
fn the_engine_label_tells_tiflash() {
    let stores = StoreRegistry::default();
    for (id, value, engine) in
        [(1, "tiflash", Engine::TiFlash), (2, "tiflash_compute", Engine::TiFlash), (3, "tikv", Engine::TiKv)]
    {
        stores.learn(&labelled(id, &[("engine", value)]));
        assert_eq!(known(&stores, id).engine, engine, "{value}");
    }
}

#[test]
fn a_store_in_doubt_is_checked_but_used() {
    let stores = StoreRegistry::default();
    stores.learn(&store(1, "a:1"));
    assert!(stores.request_check(1));
    assert!(!stores.request_check(1), "that is known already");
    assert!(!stores.request_check(2), "nobody knows that store");
    assert!(known(&stores, 1).needs_check);
    assert!(stores.get_at(1, 0).is_some());
    assert_eq!(stores.get(2), None);
}

#[test]
fn a_forgotten_store_begins_anew() {
    let stores = StoreRegistry::default();
    stores.learn(&store(1, "a:1"));
    stores.forget(1);
    assert_eq!((stores.get(1), stores.all()), (None, Vec::new()));
    assert!(!stores.report_failure(1, 0));
}

#[test]
fn a_clone_goes_its_own_way() {
    let stores = StoreRegistry::default();
    stores.learn(&store(1, "a:1"));
    let copy = stores.clone();
    stores.report_failure(1, 0);
    assert_eq!((known(&copy, 1).epoch, known(&stores, 1).epoch), (0, 1));
}
