use std::time::Duration;

use quickcheck::{Arbitrary, Gen, quickcheck};
use tikv_proto::{errorpb, metapb};

use super::BackoffKind::{
    IsWitness, RegionMiss, RegionNotInitialized, RegionRecoveryInProgress, TikvRpc, TikvServerBusy, TxnLockFast,
    TxnNotFound,
};
use super::*;

/// client-go's table: name, base, cap, jitter, error.
const KINDS: &str = include_str!("kinds.tsv");
/// client-go's constants: name, milliseconds (or a plain number).
const BUDGETS: &str = include_str!("budgets.tsv");

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table.lines().skip(1).map(|line| line.split('\t').collect())
}

/// A weighted budget, as nearly all of client-go's are.
fn backoff(max_sleep_ms: u64) -> Backoff {
    Backoff::weighted(ms(max_sleep_ms), Tuning::default())
}

fn rng() -> Rng {
    Rng::new(7)
}

/// Sleeps until the budget is spent; the bound only keeps a broken backoff from looping forever.
fn exhaust(backoff: &mut Backoff, kind: BackoffKind) -> Exhausted {
    let mut rng = rng();
    (0..100_000).find_map(|_| backoff.next(kind, &mut rng).err()).expect("the budget has an end")
}

#[test]
fn every_kind_has_the_base_cap_jitter_and_error_of_client_go() {
    let mut names: Vec<&str> = BackoffKind::ALL.iter().map(|kind| kind.facts().name).collect();
    names.sort_unstable();
    let mut expected: Vec<&str> = rows(KINDS).map(|row| row[0]).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);

    for row in rows(KINDS) {
        let [name, base_ms, cap_ms, jitter, error] = row[..] else { panic!("{row:?}") };
        let kind = BackoffKind::ALL.iter().find(|kind| kind.facts().name == name).unwrap();
        let facts = kind.facts();
        assert_eq!((facts.base_ms.to_string(), facts.cap_ms.to_string()), (base_ms.into(), cap_ms.into()), "{name}");
        let expected_jitter = match jitter {
            "NoJitter" => Jitter::None,
            "FullJitter" => Jitter::Full,
            "EqualJitter" => Jitter::Equal,
            "DecorrJitter" => Jitter::Decorrelated,
            other => panic!("{other}"),
        };
        assert_eq!(facts.jitter, expected_jitter, "{name}");
        let error = error.trim_start_matches("New").trim_start_matches("Err").trim_end_matches("(\"\")");
        assert_eq!(format!("{:?}", facts.error).to_lowercase(), error.to_lowercase(), "{name}");
        assert_eq!(facts.excluded_up_to.is_some(), *kind == TikvServerBusy, "{name}");
    }
    assert_eq!(TikvServerBusy.facts().excluded_up_to, Some(ms(600_000)));
}

#[test]
fn every_budget_is_that_of_client_go() {
    for row in rows(BUDGETS) {
        let [name, value] = row[..] else { panic!("{row:?}") };
        let budget = match name {
            "asyncResolveLockMaxBackoff" => budget::ASYNC_RESOLVE_LOCK,
            "batchGetMaxBackoff" => budget::BATCH_GET,
            "broadcastMaxBackoff" => budget::BROADCAST,
            "cleanupMaxBackoff" => budget::CLEANUP,
            "CommitMaxBackoff" => budget::COMMIT,
            "CommitSecondaryMaxBackoff" => budget::COMMIT_SECONDARY,
            "deleteRangeOneRegionMaxBackoff" => budget::DELETE_RANGE_ONE_REGION,
            "gcResolveLockMaxBackoff" => budget::GC_RESOLVE_LOCK,
            "getMaxBackoff" => budget::GET,
            "getTxnStatusMaxBackoff" => budget::GET_TXN_STATUS,
            "keepAliveMaxBackoff" => budget::KEEP_ALIVE,
            "locateRegionMaxBackoff" => budget::LOCATE_REGION,
            "maxSplitRegionsBackoff" => budget::MAX_SPLIT_REGIONS,
            "pessimisticLockMaxBackoff" => budget::PESSIMISTIC_LOCK,
            "pessimisticRollbackMaxBackoff" => budget::PESSIMISTIC_ROLLBACK,
            "PrewriteMaxBackoff" => budget::PREWRITE,
            "rawkvMaxBackoff" => budget::RAW,
            "scannerNextMaxBackoff" => budget::SCANNER_NEXT,
            "splitRegionBackoff" => budget::SPLIT_REGION,
            "TsoMaxBackoff" => budget::TSO,
            "waitScatterRegionFinishBackoff" => budget::WAIT_SCATTER_REGION_FINISH,
            "DefBackOffWeight" => ms(Tuning::default().weight.into()),
            "DefBackoffLockFast" => ms(Tuning::default().lock_fast_base_ms.into()),
            "MaxRecordBackoffErrCount" => ms(RECENT as u64),
            other => panic!("{other} has no budget here"),
        };
        assert_eq!(budget.as_millis().to_string(), value, "{name}");
    }
    assert_eq!([0, 1, 3, 6, usize::MAX].map(budget::split_regions).map(|max| max.as_secs()), [0, 20, 60, 120, 120]);
}

#[test]
fn sleeps_without_jitter_double_up_to_the_cap() {
    let mut backoff = Backoff::new(Duration::ZERO);
    let sleeps: Vec<_> = (0..11).map(|_| backoff.next(RegionMiss, &mut rng()).unwrap().as_millis()).collect();
    assert_eq!(sleeps, [2, 4, 8, 16, 32, 64, 128, 256, 500, 500, 500]);
    assert_eq!(backoff.next(RegionNotInitialized, &mut rng()), Ok(ms(2)), "each kind has its own exponent");
}

#[test]
fn each_jitter_keeps_its_bounds() {
    let mut rng = rng();
    for _ in 0..200 {
        let mut steps = [Steps::default(); 3];
        let mut last = 100;
        for attempt in 0..40 {
            let e = (100_u64 << attempt).min(3_000) as u32;
            assert!(steps[0].next_ms(100, 3_000, Jitter::Full, &mut rng) < e);
            assert!((e / 2..e).contains(&steps[1].next_ms(100, 3_000, Jitter::Equal, &mut rng)));
            let sleep = steps[2].next_ms(100, 3_000, Jitter::Decorrelated, &mut rng);
            assert!((100..=3_000.min(3 * last)).contains(&sleep));
            last = sleep;
        }
    }
}

#[test]
fn a_base_below_two_counts_as_two() {
    let mut backoff = Backoff::weighted(budget::GET, Tuning { weight: 1, lock_fast_base_ms: 0 });
    assert_eq!(backoff.next(TxnLockFast, &mut rng()), Ok(ms(1)), "half of two, and nothing to roll dice for");
    let mut steps = Steps::default();
    assert_eq!(steps.next_ms(0, 500, Jitter::None, &mut rng()), 2);
}

#[test]
fn the_base_of_fast_lock_waits_is_tunable() {
    for lock_fast_base_ms in [10, 64, 400] {
        let mut backoff = Backoff::weighted(budget::GET, Tuning { lock_fast_base_ms, ..Tuning::default() });
        let sleep = backoff.next(TxnLockFast, &mut rng()).unwrap();
        assert!((ms(u64::from(lock_fast_base_ms) / 2)..ms(lock_fast_base_ms.into())).contains(&sleep));
    }
}

#[test]
fn a_single_sleep_can_be_bounded() {
    let mut backoff = backoff(2_000);
    assert_eq!(backoff.next_bounded(TxnLockFast, ms(3), &mut rng()), Ok(ms(3)));
    assert_eq!(backoff.total_sleep(), ms(3));

    let mut bounded = Backoff::new(Duration::ZERO);
    for _ in 0..5 {
        assert_eq!(bounded.next_bounded(RegionMiss, ms(1), &mut rng()), Ok(ms(1)));
    }
    assert_eq!(bounded.next(RegionMiss, &mut rng()), Ok(ms(64)), "a bound does not stop the growth");
}

#[test]
fn the_weight_multiplies_the_budget() {
    assert_eq!(backoff(800).max_sleep(), Some(ms(1_600)));
    assert_eq!(Backoff::weighted(ms(800), Tuning { weight: 0, ..Tuning::default() }).max_sleep(), Some(ms(800)));
    assert_eq!(Backoff::new(ms(800)).max_sleep(), Some(ms(800)));
    assert_eq!(Backoff::weighted(Duration::MAX, Tuning::default()).max_sleep(), Some(Duration::MAX));
}

#[test]
fn exhaustion_is_blamed_on_the_kind_that_slept_longest() {
    let mut backoff = backoff(800);
    let mut rng = rng();
    let sleeps = [
        RegionMiss,
        RegionNotInitialized,
        RegionNotInitialized,
        RegionRecoveryInProgress,
        TikvServerBusy, // at least a second, and not counted
        IsWitness,
    ];
    for kind in sleeps {
        backoff.next(kind, &mut rng).unwrap();
    }
    assert!(backoff.total_sleep() > ms(1_500));
    let exhausted = exhaust(&mut backoff, TxnNotFound);
    assert_eq!((exhausted.kind, exhausted.limit, exhausted.max_sleep), (TxnNotFound, SpentLimit::Sleep, ms(1_600)));
    let slept = |kind| exhausted.statistics.slept(kind);
    let longest = if slept(IsWitness) > slept(TxnNotFound) { IsWitness } else { TxnNotFound };
    assert_eq!(exhausted.error(), Some(longest.facts().error));
    assert_eq!(exhausted.statistics.longest(), Some(longest));
}

#[test]
fn nothing_is_blamed_when_nothing_counted_slept() {
    let exhausted = Backoff::none().next(TikvRpc, &mut rng()).unwrap_err();
    assert_eq!((exhausted.kind, exhausted.error(), exhausted.max_sleep), (TikvRpc, None, Duration::ZERO));
}

#[test]
fn the_budget_is_checked_before_a_sleep_and_may_be_exceeded_by_the_last() {
    let mut backoff = Backoff::new(ms(7));
    for sleep in [2, 4, 8] {
        assert_eq!(backoff.next(RegionMiss, &mut rng()), Ok(ms(sleep)));
    }
    let before = backoff.clone();
    assert!(backoff.next(RegionMiss, &mut rng()).is_err());
    assert_eq!(backoff, before, "a refusal changes nothing");
}

#[test]
fn busy_stores_are_waited_for_beyond_the_budget_but_not_forever() {
    let mut backoff = backoff(1);
    let exhausted = exhaust(&mut backoff, TikvServerBusy);
    assert_eq!((exhausted.limit, exhausted.error()), (SpentLimit::ExcludedSleep, None));
    assert!((ms(600_000)..ms(610_000)).contains(&backoff.total_sleep()));
    assert_eq!(backoff.next(RegionMiss, &mut rng()), Ok(ms(2)), "the counted budget is untouched");
    assert!(exhaust(&mut backoff, RegionMiss).limit == SpentLimit::Sleep);

    let mut patient = Backoff::new(ms(700_000));
    exhaust(&mut patient, TikvServerBusy);
    assert!((ms(700_000)..ms(710_000)).contains(&patient.total_sleep()), "both limits must be reached");
}

#[test]
fn without_a_limit_there_is_no_end() {
    let mut backoff = backoff(0);
    assert_eq!(backoff.max_sleep(), None);
    for kind in BackoffKind::ALL.iter().cycle().take(10_000) {
        assert!(backoff.next(*kind, &mut rng()).is_ok());
    }
}

#[test]
fn a_fork_keeps_what_is_spent_and_starts_with_short_sleeps() {
    let mut backoff = backoff(4);
    for _ in 0..3 {
        backoff.next(RegionNotInitialized, &mut rng()).unwrap();
    }
    let mut fork = backoff.fork();
    assert_eq!(fork.total_sleep(), backoff.total_sleep());
    assert_eq!(fork.statistics(), backoff.statistics());
    let exhausted = fork.next(TikvRpc, &mut rng()).unwrap_err();
    assert_eq!(exhausted.error(), Some(ErrorClass::RegionNotInitialized));

    let mut unlimited = Backoff::new(Duration::ZERO);
    assert_eq!([(); 2].map(|()| unlimited.next(RegionMiss, &mut rng()).unwrap()), [ms(2), ms(4)]);
    let mut copy = unlimited.clone();
    assert_eq!(unlimited.fork().next(RegionMiss, &mut rng()), Ok(ms(2)));
    assert_eq!(copy.next(RegionMiss, &mut rng()), Ok(ms(8)), "a clone is an exact copy");
}

#[test]
fn merging_a_fork_takes_over_what_it_spent() {
    let mut parent = backoff(4);
    for _ in 0..2 {
        parent.next(RegionNotInitialized, &mut rng()).unwrap();
    }
    let mut fork = parent.fork();
    fork.next(TikvRpc, &mut rng()).unwrap();
    let (total, statistics) = (fork.total_sleep(), fork.statistics().clone());
    parent.merge(fork);
    assert_eq!((parent.total_sleep(), parent.statistics()), (total, &statistics));
    assert!(parent.next(RegionMiss, &mut rng()).is_err());

    let mut fresh = backoff(4);
    let mut fork = fresh.fork();
    fork.next(RegionMiss, &mut rng()).unwrap();
    fresh.merge(fork);
    assert_eq!(fresh.total_sleep(), ms(2));
    assert_eq!(fresh.next(RegionMiss, &mut rng()), Ok(ms(2)), "the parent's sleeps grow on their own");
}

#[test]
fn of_forks_that_slept_side_by_side_the_longest_counts() {
    let mut parent = backoff(1_000);
    parent.next(RegionMiss, &mut rng()).unwrap();
    let (mut short, mut long) = (parent.fork(), parent.fork());
    short.next(RegionMiss, &mut rng()).unwrap();
    long.next(TikvRpc, &mut rng()).unwrap();
    let expected = long.total_sleep();
    parent.merge(long);
    parent.merge(short);
    parent.merge(backoff(1_000));
    assert_eq!(parent.total_sleep(), expected);
    assert_eq!((parent.statistics().times(RegionMiss), parent.statistics().times(TikvRpc)), (1, 1));
}

#[test]
fn a_reset_forgets_sleeps_but_not_statistics() {
    let mut backoff = backoff(4);
    exhaust(&mut backoff, RegionMiss);
    let statistics = backoff.statistics().clone();
    backoff.reset();
    assert_eq!((backoff.total_sleep(), backoff.statistics()), (Duration::ZERO, &statistics));
    assert_eq!(backoff.next(RegionMiss, &mut rng()), Ok(ms(2)));

    backoff.restart(ms(100));
    assert_eq!((backoff.total_sleep(), backoff.max_sleep()), (Duration::ZERO, Some(ms(200))));
}

#[test]
fn statistics_count_every_sleep_and_remember_the_last_three() {
    let mut backoff = backoff(1_000_000);
    assert_eq!(backoff.statistics().total_times(), 0);
    assert_eq!(backoff.statistics().recent().count(), 0);
    for times in 1..=32 {
        let kind = BackoffKind::ALL[times % BackoffKind::COUNT];
        backoff.next(kind, &mut rng()).unwrap();
        assert_eq!(backoff.statistics().total_times(), times as u32);
        let recent: Vec<_> = backoff.statistics().recent().collect();
        let expected: Vec<_> = (1..=times)
            .map(|times| BackoffKind::ALL[times % BackoffKind::COUNT])
            .skip(times.saturating_sub(3))
            .collect();
        assert_eq!(recent, expected);
    }
}

#[test]
fn keys_are_located_anew_at_once_only_if_the_error_says_where_they_are() {
    let epoch_not_match = |current_regions| errorpb::Error {
        epoch_not_match: Some(errorpb::EpochNotMatch { current_regions }),
        ..Default::default()
    };
    let real = epoch_not_match(vec![metapb::Region { id: 1, ..Default::default() }]);
    assert!(!is_pseudo_region_error(&real));
    assert_eq!(before_relocating(&real), None);

    let pseudo = epoch_not_match(vec![]);
    assert!(is_pseudo_region_error(&pseudo));
    let not_leader = errorpb::Error { not_leader: Some(Default::default()), ..Default::default() };
    let busy = errorpb::Error { server_is_busy: Some(Default::default()), ..Default::default() };
    let not_synced = errorpb::Error { max_timestamp_not_synced: Some(Default::default()), ..Default::default() };
    for error in [pseudo, not_leader, busy, not_synced] {
        let kind = before_relocating(&error).unwrap();
        assert_eq!(kind, RegionMiss);
        assert!(Backoff::new(ms(1)).next(kind, &mut rng()).unwrap() > Duration::ZERO);
        assert!(Backoff::none().next(kind, &mut rng()).is_err(), "without a budget the error is final");
    }
}

#[test]
fn an_exhausted_budget_says_where_it_went() {
    let mut backoff = Backoff::new(ms(5));
    let exhausted = exhaust(&mut backoff, RegionMiss);
    assert_eq!(exhausted.to_string(), "back-off budget of 5ms is spent at regionMiss, after regionMiss x2 (6ms)");
    let refused = Backoff::none().next(TikvRpc, &mut rng()).unwrap_err();
    assert_eq!(refused.to_string(), "back-off budget of 0ns is spent at tikvRPC, after no sleep");
}

#[test]
fn an_operation_that_never_backs_off_allocates_nothing() {
    let backoff = backoff(20_000);
    assert!(backoff.state.is_none() && backoff.fork().state.is_none());
    assert!(size_of::<Backoff>() <= 32);
}

#[derive(Clone, Copy, Debug)]
struct Kind(BackoffKind);

impl Arbitrary for Kind {
    fn arbitrary(g: &mut Gen) -> Self {
        Kind(*g.choose(BackoffKind::ALL).unwrap())
    }
}

quickcheck! {
    fn counted_sleep_exceeds_the_budget_by_one_sleep_at_most(max_ms: u16, seed: u64, kinds: Vec<Kind>) -> bool {
        let max = ms(u64::from(max_ms) + 1);
        let (mut backoff, mut rng) = (Backoff::new(max), Rng::new(seed));
        let mut counted = Duration::ZERO;
        kinds.iter().cycle().take(kinds.len() * 8).all(|Kind(kind)| match backoff.next(*kind, &mut rng) {
            Ok(sleep) if *kind == TikvServerBusy => sleep <= ms(10_000),
            Ok(sleep) => {
                let allowed = counted < max;
                counted += sleep;
                allowed && sleep <= ms(kind.facts().cap_ms.into())
            }
            Err(exhausted) if counted < max => exhausted.limit == SpentLimit::ExcludedSleep && *kind == TikvServerBusy,
            Err(exhausted) => exhausted.limit == SpentLimit::Sleep,
        })
    }

    fn statistics_add_up(seed: u64, kinds: Vec<Kind>) -> bool {
        let (mut backoff, mut rng) = (Backoff::new(Duration::ZERO), Rng::new(seed));
        let total: Duration = kinds.iter().map(|Kind(kind)| backoff.next(*kind, &mut rng).unwrap()).sum();
        let statistics = backoff.statistics();
        total == backoff.total_sleep()
            && total == statistics.iter().map(|(_, _, slept)| slept).sum()
            && statistics.total_times() as usize == kinds.len()
            && BackoffKind::ALL.iter().all(|kind| {
                statistics.times(*kind) as usize == kinds.iter().filter(|Kind(other)| other == kind).count()
            })
    }

    fn the_same_seed_sleeps_the_same(seed: u64, kinds: Vec<Kind>) -> bool {
        let run = || {
            let (mut backoff, mut rng) = (backoff(20_000), Rng::new(seed));
            kinds.iter().map(|Kind(kind)| backoff.next(*kind, &mut rng)).collect::<Vec<_>>()
        };
        run() == run()
    }
}
