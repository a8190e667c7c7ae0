use super::*;

#[test]
fn the_sequence_is_that_of_splitmix64() {
    // The reference implementation, seeded with 1234567.
    let mut rng = Rng::new(1_234_567);
    let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
    assert_eq!([rng.next_u64(), rng.next_u64(), rng.next_u64()], expected);
}

#[test]
fn numbers_stay_below_their_bound_and_reach_everything_there() {
    let mut rng = Rng::new(1);
    for bound in [1, 2, 3, 10] {
        let mut seen = vec![false; bound as usize];
        for _ in 0..1_000 {
            seen[rng.below(bound) as usize] = true;
        }
        assert!(seen.into_iter().all(|seen| seen), "{bound}");
    }
    assert_eq!((rng.below(0), rng.range(7..7), rng.range(Range { start: 9, end: 7 })), (0, 7, 9));
    assert!((0..1_000).all(|_| (5..8).contains(&rng.range(5..8))));
    assert!((0..100).any(|_| rng.below(u64::MAX) > u64::MAX / 2));
}

#[test]
fn a_child_goes_its_own_way() {
    let (mut one, mut other) = (Rng::new(7), Rng::new(7));
    let mut child = one.child();
    let _ = other.child();
    for _ in 0..10 {
        child.next_u64();
    }
    assert_eq!(one.next_u64(), other.next_u64(), "however often the child rolls");
}
