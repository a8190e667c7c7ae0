use super::*;
use crate::error::{Error, PdError};
use crate::machine::script::region;

/// A key with something that tells equal keys apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Item(Key, u32);

impl Keyed for Item {
    fn key(&self) -> &Key {
        &self.0
    }
}

fn items(keys: &[&str]) -> Vec<Item> {
    keys.iter().zip(0..).map(|(key, number)| Item(Key::from(*key), number)).collect()
}

fn grouping(keys: &[&str], knowledge: Knowledge) -> Script<Grouping<Item>> {
    Script::with_knowledge(Grouping::new(items(keys), budget_of(20)), knowledge)
}

/// Region ids with the numbers of their items.
fn groups(script: &mut Script<Grouping<Item>>) -> Vec<(u64, Vec<u32>)> {
    let groups = script.expect_done().result.expect("grouped");
    let numbers = |items: Vec<Item>| items.into_iter().map(|item| item.1).collect();
    groups.into_iter().map(|group| (group.region.ver_id.id, numbers(group.items))).collect()
}

fn three_regions() -> Knowledge {
    knowledge(KeyCodec::Txn, [region(1, "".."g"), region(2, "g".."p"), region(3, "p".."")])
}

#[test]
fn items_are_sorted_by_key_and_divided_by_region() {
    for (keys, expected) in [
        (&["a"][..], vec![(1, vec![0])]),
        (&["x", "h", "a", "g", "p"], vec![(1, vec![2]), (2, vec![3, 1]), (3, vec![4, 0])]),
        (&["z", "q", "y"], vec![(3, vec![1, 2, 0])]),
        (&["b", "a", "b", "a"], vec![(1, vec![1, 3, 0, 2])]),
        (&[""], vec![(1, vec![0])]),
        (&[], vec![]),
    ] {
        assert_eq!(groups(&mut grouping(keys, three_regions())), expected, "{keys:?}");
    }
}

#[test]
fn only_regions_that_are_not_known_are_asked_for() {
    let mut script = grouping(&["x", "a", "h", "y", "i"], knowledge(KeyCodec::Txn, [region(2, "g".."p")]));
    script.expect_pd(&by_key("a", false));
    script.pd(the_region(pd_region(1, 1, "".."g")));
    script.expect_pd(&by_key("x", false));
    script.pd(the_region(pd_region(3, 1, "p".."")));
    assert_eq!(groups(&mut script), [(1, vec![1]), (2, vec![2, 4]), (3, vec![0, 3])]);
}

#[test]
fn a_region_that_does_not_hold_the_key_is_not_taken_for_one_that_does() {
    let mut script = grouping(&["h"], knowledge(KeyCodec::Txn, []));
    script.expect_pd(&by_key("h", false));
    script.pd(the_region(pd_region(1, 1, "".."g")));
    back_off(&mut script, BackoffKind::PdRpc);
    script.expect_pd(&by_key("h", true));
    script.pd(the_region(pd_region(2, 1, "g".."")));
    let end = script.expect_done();
    assert_eq!(end.result.expect("grouped").len(), 1);
    assert!(end.backoff.total_sleep() > Duration::ZERO);
}

#[test]
fn if_a_key_cannot_be_located_there_are_no_groups_and_all_items_are_handed_back() {
    let mut script = grouping(&["a", "x"], knowledge(KeyCodec::Txn, [region(1, "".."g")]));
    script.expect_pd(&by_key("x", false));
    script.pd(Err(PdError::Closed));
    let unlocated = script.expect_done().result.expect_err("there is no PD any more");
    assert_eq!(unlocated.error, Error::Closed);
    assert_eq!(unlocated.items, items(&["a", "x"]));
}

#[test]
fn a_deadline_ends_the_wait_for_pd() {
    let grouping = Grouping::new(items(&["a"]), budget_of(20)).with_deadline(Time::from_millis(1_001));
    let mut script = Script::with_knowledge(grouping, knowledge(KeyCodec::Txn, []));
    let alarm = script.expect_sleep(|duration, _| assert_eq!(duration, Duration::from_secs(1)));
    let question = script.expect_pd(&by_key("a", false));
    script.event(alarm, Event::Woken).expect_cancel(question);
    assert!(matches!(script.expect_done().result, Err(Unlocated { error: Error::DeadlineExceeded { .. }, .. })));
}

#[test]
fn late_and_foreign_events_are_ignored() {
    let mut script = grouping(&["a", "x"], knowledge(KeyCodec::Txn, []));
    let first = script.expect_pd(&by_key("a", false));
    script.pd(the_region(pd_region(1, 1, "".."g")));
    script.expect_pd(&by_key("x", false));
    script.event(first, Event::Pd(Ok(PdResponse::Region(None)))).expect_nothing();
    script.pd(the_region(pd_region(3, 1, "g".."")));
    assert_eq!(groups(&mut script), [(1, vec![0]), (3, vec![1])]);
    assert!(script.poke(first, Event::Woken).is_pending());
}

#[test]
fn items_in_order_are_found_in_any_order() {
    let items = items(&["a", "c", "e", "g"]);
    for (keys, expected) in [
        (&["a", "c", "e", "g"][..], &[Some(0), Some(1), Some(2), Some(3)][..]),
        (&["c", "g", "a"], &[Some(1), Some(3), Some(0)]),
        (&["", "b", "c", "z", "e", "e"], &[None, None, Some(1), None, Some(2), Some(2)]),
    ] {
        let mut in_order = InOrder::new(&items);
        let found: Vec<_> = keys.iter().map(|key| in_order.find(key.as_bytes()).map(|item| item.1)).collect();
        assert_eq!(found, expected, "{keys:?}");
    }
}
