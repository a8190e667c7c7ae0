use std::time::Duration;

use tikv_proto::kvrpcpb::{SplitRegionRequest, SplitRegionResponse};
use tikv_proto::{errorpb, metapb};

use super::*;
use crate::error::{Execution, Fault, FaultKind};
use crate::keyspace::KeyCodec;
use crate::machine::Command;
use crate::machine::script::{Script, knowledge, region};

/// A script over two regions: up to "m", and the rest.
fn split_at(keys: &[&str], scatter: Scatter) -> Script<SplitRegions> {
    split_with(keys, SplitOptions { scatter, ..SplitOptions::new(&Config::default()) })
}

fn split_with(keys: &[&str], options: SplitOptions) -> Script<SplitRegions> {
    let split = SplitRegions::new(keys.iter().map(|key| Key::from(*key)).collect(), options);
    Script::with_knowledge(split, knowledge(KeyCodec::Txn, [region(1, "".."m"), region(2, "m".."")]))
}

fn expect_split(script: &mut Script<SplitRegions>, keys: &[&str]) -> Token {
    script.expect_call(1, |request: &SplitRegionRequest| {
        assert_eq!(request.split_keys, keys.iter().map(|key| key.as_bytes().to_vec()).collect::<Vec<_>>());
        assert!(!request.is_raw_kv);
    })
}

fn parts(ids: &[u64]) -> SplitRegionResponse {
    let regions = ids.iter().map(|id| metapb::Region { id: *id, ..metapb::Region::default() }).collect();
    SplitRegionResponse { regions, ..SplitRegionResponse::default() }
}

/// One region has been split into 11 and 1; PD is asked to spread the new one.
fn scattering(scatter: Scatter) -> Script<SplitRegions> {
    let mut script = split_at(&["a"], scatter);
    expect_split(&mut script, &["a"]);
    script.reply(parts(&[11, 1]));
    expect_scatter(&mut script);
    script
}

fn expect_scatter(script: &mut Script<SplitRegions>) {
    script.expect_pd(&PdRequest::ScatterRegions { regions: vec![11], group: String::new() });
}

fn expect_look(script: &mut Script<SplitRegions>) {
    script.expect_pd(&PdRequest::IsScattering { region_id: 11 });
}

fn pd_is_gone() -> Result<PdResponse, PdError> {
    Err(PdError::Fault(Fault::new(FaultKind::Timeout, Execution::MaybeExecuted, "pd")))
}

fn done(mut script: Script<SplitRegions>) -> Split {
    script.expect_done()
}

#[test]
fn each_region_splits_at_the_keys_that_it_holds() {
    let mut script = split_at(&["x", "c", "m", "a", "c"], Scatter::No);
    let (first, second) = (expect_split(&mut script, &["a", "c"]), expect_split(&mut script, &["x"]));
    script.reply_to(second, parts(&[21, 2])).reply_to(first, parts(&[11, 12, 1]));
    let known = &script.knowledge.regions;
    assert_eq!(known.lookup(script.now(), b"a"), None, "what is known of it is out of date");
    assert_eq!(done(script), Split { regions: vec![11, 12, 21], error: None });
}

#[test]
fn where_a_region_begins_nothing_is_asked() {
    assert_eq!(done(split_at(&["m"], Scatter::Finish)), Split::default());
    assert_eq!(done(split_at(&[], Scatter::Finish)), Split::default());
}

#[test]
fn a_region_that_has_split_meanwhile_is_located_anew() {
    let mut script = split_at(&["a"], Scatter::No);
    expect_split(&mut script, &["a"]);
    let missing = errorpb::RegionNotFound { region_id: 1 };
    script.region_error(errorpb::Error { region_not_found: Some(missing), ..errorpb::Error::default() });
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::RegionMiss)));
    script.wake();
    assert!(matches!(script.peek(), Some(Command::Pd { .. })), "PD is asked where the key is");
}

#[test]
fn what_is_split_counts_whatever_becomes_of_the_rest() {
    let mut script = split_at(&["a", "x"], Scatter::No);
    let (first, second) = (expect_split(&mut script, &["a"]), expect_split(&mut script, &["x"]));
    script.reply_to(first, parts(&[11, 1]));
    let closed = Fault::new(FaultKind::Closed, Execution::NotSent, "store-1");
    script.event(second, Event::Reply(Err(closed)));
    let split = done(script);
    assert_eq!(split.regions, [11]);
    assert!(split.error.is_some(), "{split:?}");
}

#[test]
fn scattering_is_waited_for_if_that_is_wanted() {
    let mut script = scattering(Scatter::Begin);
    script.pd(Ok(PdResponse::Scattered));
    assert_eq!(done(script), Split { regions: vec![11], error: None });
    let mut script = scattering(Scatter::Finish);
    script.pd(Ok(PdResponse::Scattered));
    expect_look(&mut script);
    script.pd(Ok(PdResponse::IsScattering(true)));
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::RegionMiss)));
    script.wake();
    expect_look(&mut script);
    script.pd(Ok(PdResponse::IsScattering(false)));
    assert_eq!(done(script), Split { regions: vec![11], error: None });
}

#[test]
fn pd_is_asked_again_but_not_without_end() {
    let mut script = scattering(Scatter::Begin);
    let mut questions = 1;
    loop {
        script.pd(pd_is_gone());
        if script.peek().is_none() {
            break;
        }
        script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::PdRpc)));
        script.wake();
        expect_scatter(&mut script);
        questions += 1;
    }
    let split = done(script);
    assert_eq!(split.regions, [11]);
    assert!(matches!(split.error, Some(Error::RetriesExhausted { attempts, .. }) if attempts == questions));
    let mut script = scattering(Scatter::Begin);
    script.pd(Err(PdError::Closed));
    assert_eq!(done(script).error, Some(Error::Closed));
}

#[test]
fn a_region_that_moves_without_end_is_not_waited_for_without_end() {
    let mut script = scattering(Scatter::Finish);
    script.pd(Ok(PdResponse::Scattered));
    for question in 0.. {
        assert!(question < 10_000, "no bound");
        expect_look(&mut script);
        script.pd(if question % 2 == 0 { Ok(PdResponse::IsScattering(true)) } else { pd_is_gone() });
        if script.peek().is_none() {
            break;
        }
        script.expect_sleep(|_, _| {});
        script.wake();
    }
    assert!(matches!(done(script).error, Some(Error::RetriesExhausted { .. })));
}

/// Split and before the deadline of a second, which is near.
fn with_deadline() -> Script<SplitRegions> {
    let mut options = SplitOptions { scatter: Scatter::Finish, ..SplitOptions::new(&Config::default()) };
    options.call.deadline = Time::from_millis(1_000);
    let mut script = split_with(&["a"], options);
    expect_split(&mut script, &["a"]);
    script.reply(parts(&[11, 1]));
    script
}

#[test]
fn a_deadline_ends_whatever_pd_is_asked() {
    for phase in ["Scattering", "BackingOff", "Settling", "Pausing"] {
        let mut script = with_deadline();
        let alarm = script.expect_alarm();
        expect_scatter(&mut script);
        if phase == "BackingOff" {
            script.pd(pd_is_gone());
            script.expect_sleep(|_, _| {});
        } else if phase != "Scattering" {
            script.pd(Ok(PdResponse::Scattered));
            expect_look(&mut script);
        }
        if phase == "Pausing" {
            script.pd(Ok(PdResponse::IsScattering(true)));
            script.expect_sleep(|_, _| {});
        }
        script.advance(Duration::from_secs(1)).event(alarm, Event::Woken);
        let waited = script.next();
        assert!(matches!(waited, Some(Command::Cancel { .. })), "{phase}: {waited:?}");
        let split = done(script);
        assert_eq!(split.regions, [11]);
        assert!(matches!(split.error, Some(Error::DeadlineExceeded { .. })), "{phase}: {split:?}");
    }
}

#[test]
fn an_end_in_time_forgets_the_deadline() {
    let mut script = with_deadline();
    let alarm = script.expect_alarm();
    expect_scatter(&mut script);
    script.pd(Ok(PdResponse::Scattered));
    expect_look(&mut script);
    script.pd(Ok(PdResponse::IsScattering(false)));
    script.expect_cancel(alarm);
    assert_eq!(done(script).error, None);
}

#[test]
fn events_that_nobody_waits_for_change_nothing() {
    let mut script = scattering(Scatter::Finish);
    let before = script.machine().clone();
    assert!(script.poke(Token(9_999), Event::Woken).is_pending());
    assert!(script.poke(Token(9_999), Event::Pd(Ok(PdResponse::Scattered))).is_pending());
    assert_eq!(*script.machine(), before);
}
