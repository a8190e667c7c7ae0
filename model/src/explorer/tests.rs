use super::*;

/// Two counters that each step up to a bound.
struct Grid {
    bound: u64,
    forbidden: Option<(u64, u64)>,
}

impl Model for Grid {
    type State = (u64, u64);
    type Action = bool;

    fn initial(&self) -> (u64, u64) {
        (0, 0)
    }

    fn actions(&self, (x, y): &(u64, u64)) -> Vec<bool> {
        [(true, *x < self.bound), (false, *y < self.bound)]
            .into_iter()
            .filter_map(|(it, may)| may.then_some(it))
            .collect()
    }

    fn next(&self, (x, y): &(u64, u64), right: &bool) -> (u64, u64) {
        if *right { (x + 1, *y) } else { (*x, y + 1) }
    }

    fn fingerprint(&self, state: &(u64, u64)) -> u64 {
        crate::fingerprint::fingerprint(state)
    }

    fn check(&self, state: &(u64, u64), is_final: bool) -> Result<(), &'static str> {
        if is_final && *state != (self.bound, self.bound) {
            return Err("it ends in the corner");
        }
        if Some(*state) == self.forbidden { Err("not there") } else { Ok(()) }
    }

    fn describe(&self, _: &(u64, u64), right: &bool) -> String {
        if *right { "right" } else { "up" }.to_owned()
    }
}

const LIMITS: Limits = Limits { states: 1_000_000, threads: 1 };

#[test]
fn every_state_is_visited_once_whatever_the_way() {
    let grid = Grid { bound: 99, forbidden: None };
    let expected =
        Explored { states: 10_000, transitions: 19_800, final_states: 1, depth: 198, complete: true, broken: None };
    assert_eq!(explore(&grid, LIMITS), expected);
    assert_eq!(explore(&grid, Limits { threads: 3, ..LIMITS }), expected);
}

#[test]
fn a_broken_property_comes_with_a_shortest_way() {
    let explored = explore(&Grid { bound: 9, forbidden: Some((2, 1)) }, LIMITS);
    let Broken { property, mut steps } = explored.broken.expect("a broken property");
    steps.sort();
    assert_eq!((property, steps), ("not there", vec!["right".to_owned(), "right".to_owned(), "up".to_owned()]));
    assert!(!explored.complete);
}

#[test]
fn a_limit_ends_the_search_and_is_told() {
    let explored = explore(&Grid { bound: 99, forbidden: None }, Limits { states: 50, ..LIMITS });
    assert!(explored.states >= 50 && explored.states < 200 && !explored.complete && explored.broken.is_none());
}
