use quickcheck::{Arbitrary, Gen, TestResult, quickcheck};

use super::*;

/// Timestamps within one millisecond.
fn at(logical: u64) -> Timestamp {
    Timestamp::compose(1_000, logical)
}

fn keys(names: &[&str]) -> Vec<Key> {
    names.iter().map(|name| Key::from(*name)).collect()
}

fn granted(acquired: &Acquired) -> LatchId {
    match acquired {
        Acquired::Granted(id) => *id,
        other => panic!("{other:?}"),
    }
}

fn waiting(acquired: &Acquired) -> LatchId {
    match acquired {
        Acquired::Waiting(id) => *id,
        other => panic!("{other:?}"),
    }
}

fn its_turn(id: LatchId) -> Woken {
    Woken { id, result: Ok(()) }
}

fn stale(id: LatchId, key: &str, start_ts: Timestamp, commit_ts: Timestamp) -> Woken {
    Woken { id, result: Err(NewerCommit { key: key.into(), start_ts, commit_ts }) }
}

/// client-go: `TestWakeUp`.
#[test]
fn who_waits_is_woken_and_told_that_it_has_lost() {
    let mut latches = Latches::new(LatchLimits::default());
    let first = granted(&latches.acquire(at(1), keys(&["a", "b", "c"])));
    let second = waiting(&latches.acquire(at(2), keys(&["d", "e", "a", "c"])));
    assert_eq!(latches.release(first, Some(at(3))), [stale(second, "a", at(1), at(3))]);
    assert_eq!(latches.release(second, None), [], "it holds nothing");
    granted(&latches.acquire(at(4), keys(&["d", "e", "a", "c"])));
}

/// client-go: `TestFirstAcquireFailedWithStale`.
#[test]
fn who_began_before_the_last_commit_has_lost_at_once() {
    let mut latches = Latches::new(LatchLimits::default());
    let first = granted(&latches.acquire(at(1), keys(&["a", "b"])));
    assert_eq!(latches.release(first, Some(at(3))), []);
    let newer = NewerCommit { key: "b".into(), start_ts: at(1), commit_ts: at(3) };
    assert_eq!(latches.acquire(at(2), keys(&["b", "c"])), Acquired::Stale(newer));
    granted(&latches.acquire(at(3), keys(&["a", "b", "c"])));
}

/// client-go: `TestRecycle`.
#[test]
fn a_key_is_forgotten_two_minutes_after_its_last_commit_but_not_while_it_is_held() {
    let mut latches = Latches::new(LatchLimits::default());
    let first = granted(&latches.acquire(at(1), keys(&["a", "b"])));
    let second = waiting(&latches.acquire(at(3), keys(&["b", "c"])));
    assert_eq!(latches.release(first, Some(at(2))), [its_turn(second)]);
    assert_eq!(latches.release(second, Some(at(4))), []);
    assert_eq!(latches.keys(), 3);
    let held = granted(&latches.acquire(at(5), keys(&["c"])));
    let later = Timestamp::compose(1_000 + 120_001, 0);
    let other = granted(&latches.acquire(later, keys(&["z"])));
    assert_eq!(latches.keys(), 2, "c and z");
    assert_eq!((latches.release(held, None), latches.release(other, None)), (vec![], vec![]));
}

#[test]
fn a_transaction_that_does_not_commit_leaves_no_trace() {
    let mut latches = Latches::new(LatchLimits::default());
    let first = granted(&latches.acquire(at(2), keys(&["a", "b"])));
    let second = waiting(&latches.acquire(at(1), keys(&["b"])));
    assert_eq!(latches.release(first, None), [its_turn(second)], "nothing newer was committed");
    assert_eq!(latches.release(second, None), []);
    assert_eq!((latches.keys(), latches.waiting()), (0, 0));
    assert_eq!(latches.release(second, None), [], "a second time it changes nothing");
}

#[test]
fn a_key_goes_to_who_came_first_and_nobody_overtakes() {
    let mut latches = Latches::new(LatchLimits::default());
    let first = granted(&latches.acquire(at(1), keys(&["k"])));
    let others: Vec<_> = (2..5).map(|ts| waiting(&latches.acquire(at(ts), keys(&["k"])))).collect();
    let mut holder = first;
    for next in others {
        assert_eq!(latches.release(holder, None), [its_turn(next)]);
        waiting(&latches.acquire(at(9), keys(&["k"])));
        holder = next;
    }
}

#[test]
fn who_loses_interest_loses_its_place_and_what_it_held() {
    let mut latches = Latches::new(LatchLimits::default());
    let first = granted(&latches.acquire(at(1), keys(&["b"])));
    let second = waiting(&latches.acquire(at(2), keys(&["a", "b"])));
    let third = waiting(&latches.acquire(at(3), keys(&["a"])));
    let fourth = waiting(&latches.acquire(at(4), keys(&["b"])));
    assert_eq!(latches.release(second, None), [its_turn(third)]);
    assert_eq!(latches.release(first, None), [its_turn(fourth)]);
    assert_eq!(latches.waiting(), 0);
}

#[test]
fn a_stale_one_hands_on_what_it_held() {
    let mut latches = Latches::new(LatchLimits::default());
    let first = granted(&latches.acquire(at(1), keys(&["b"])));
    let second = waiting(&latches.acquire(at(2), keys(&["a", "b"])));
    let third = waiting(&latches.acquire(at(9), keys(&["a"])));
    assert_eq!(latches.release(first, Some(at(5))), [stale(second, "b", at(1), at(5)), its_turn(third)]);
}

#[test]
fn no_more_than_a_bound_wait_and_no_more_than_a_bound_are_remembered() {
    let mut latches = Latches::new(LatchLimits { remembered_keys: 2, waiting: 1 });
    let first = granted(&latches.acquire(at(1), keys(&["a"])));
    let second = waiting(&latches.acquire(at(2), keys(&["a"])));
    assert_eq!(latches.acquire(at(3), keys(&["A", "a"])), Acquired::Busy);
    assert_eq!((latches.waiting(), latches.keys()), (1, 1), "nothing is left of it");
    assert_eq!(latches.release(first, None), [its_turn(second)]);
    assert_eq!(latches.release(second, Some(at(4))), []);
    for (key, ts) in [("b", 5), ("c", 6)] {
        let id = granted(&latches.acquire(at(ts), keys(&[key])));
        assert_eq!(latches.release(id, Some(at(ts))), []);
    }
    assert_eq!(latches.keys(), 2);
    granted(&latches.acquire(at(1), keys(&["a"])));
}

/// What a crowd of transactions does: some arrive, some end, some lose interest.
#[derive(Clone, Debug)]
enum Step {
    Arrive { keys: Vec<u8>, age: u64 },
    End { which: usize, commits: bool },
    LoseInterest { which: usize },
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        match u8::arbitrary(g) % 5 {
            0 | 1 => {
                let count = usize::arbitrary(g) % 4 + 1;
                let keys = (0..count).map(|_| u8::arbitrary(g) % 8).collect();
                Step::Arrive { keys, age: u64::arbitrary(g) % 10 }
            }
            2 | 3 => Step::End { which: usize::arbitrary(g), commits: bool::arbitrary(g) },
            _ => Step::LoseInterest { which: usize::arbitrary(g) },
        }
    }
}

/// The same by a list: who holds all its keys, who waits, and who committed last.
#[derive(Default)]
struct Crowd {
    now: u64,
    holding: BTreeMap<LatchId, (Timestamp, Vec<u8>)>,
    waiting: BTreeMap<LatchId, (Timestamp, Vec<u8>)>,
    last_commit: BTreeMap<u8, Timestamp>,
}

impl Crowd {
    fn is_stale(&self, start_ts: Timestamp, keys: &[u8]) -> bool {
        keys.iter().any(|key| self.last_commit.get(key).is_some_and(|commit_ts| *commit_ts > start_ts))
    }

    fn check_exclusion(&self) {
        let mut held = BTreeSet::new();
        for key in self.holding.values().flat_map(|(_, keys)| keys) {
            assert!(held.insert(*key), "two hold key {key}");
        }
    }

    fn arrive(&mut self, latches: &mut Latches, mut keys: Vec<u8>, age: u64) {
        keys.sort_unstable();
        keys.dedup();
        self.now += 1;
        let start_ts = at(self.now.saturating_sub(age));
        match latches.acquire(start_ts, keys.iter().map(|key| Key::from(vec![*key]))) {
            Acquired::Granted(id) => {
                assert!(!self.is_stale(start_ts, &keys));
                self.holding.insert(id, (start_ts, keys));
            }
            Acquired::Waiting(id) => drop(self.waiting.insert(id, (start_ts, keys))),
            Acquired::Stale(newer) => {
                assert!(self.is_stale(start_ts, &keys));
                assert_eq!(self.last_commit.get(&newer.key.as_slice()[0]), Some(&newer.commit_ts));
            }
            Acquired::Busy => panic!("far below the bound"),
        }
    }

    fn end(&mut self, latches: &mut Latches, id: LatchId, commits: bool) {
        let holder = self.holding.remove(&id);
        self.waiting.remove(&id);
        self.now += 1;
        let commit_ts = commits.then(|| at(self.now));
        if let (Some((_, keys)), Some(commit_ts)) = (holder, commit_ts) {
            self.last_commit.extend(keys.into_iter().map(|key| (key, commit_ts)));
        }
        for Woken { id, result } in latches.release(id, commit_ts) {
            let (start_ts, keys) = self.waiting.remove(&id).expect("only who waits is woken");
            assert_eq!(result.is_err(), self.is_stale(start_ts, &keys));
            if result.is_ok() {
                self.holding.insert(id, (start_ts, keys));
            }
        }
        self.check_exclusion();
    }
}

fn nth(of: &BTreeMap<LatchId, (Timestamp, Vec<u8>)>, which: usize) -> Option<LatchId> {
    of.keys().nth(which % of.len().max(1)).copied()
}

quickcheck! {
    /// client-go: `TestWithConcurrency`.
    fn nobody_shares_a_key_nobody_is_forgotten_and_nothing_is_left(steps: Vec<Step>) -> TestResult {
        let mut latches = Latches::new(LatchLimits::default());
        let mut crowd = Crowd::default();
        for step in steps {
            match step {
                Step::Arrive { keys, age } => crowd.arrive(&mut latches, keys, age),
                Step::End { which, commits } => {
                    if let Some(id) = nth(&crowd.holding, which) {
                        crowd.end(&mut latches, id, commits);
                    }
                }
                Step::LoseInterest { which } => {
                    if let Some(id) = nth(&crowd.waiting, which) {
                        crowd.end(&mut latches, id, false);
                    }
                }
            }
            assert_eq!(latches.waiting(), crowd.waiting.len());
        }
        // As long as somebody holds a key the others have their turn.
        while let Some(id) = nth(&crowd.holding, 0) {
            crowd.end(&mut latches, id, false);
        }
        assert!(crowd.waiting.is_empty(), "somebody waits for nobody");
        assert_eq!(latches.keys(), crowd.last_commit.len(), "what nobody committed to is not remembered");
        TestResult::passed()
    }
}
