use std::sync::Arc;
use std::time::Duration;

use tikv_proto::kvrpcpb::{
    RawGetResponse, ScanLockRequest, ScanLockResponse, UnsafeDestroyRangeRequest, UnsafeDestroyRangeResponse,
};
use tikv_proto::metapb;

use super::*;
use crate::backoff::BackoffKind;
use crate::config::Config;
use crate::error::{Error, Execution, Fault, FaultKind, PdError};
use crate::key::KeyRange;
use crate::keyspace::KeyCodec;
use crate::lock::Swept;
use crate::machine::script::{Script, knowledge, not_sent, region, ts};
use crate::machine::{Event, SleepReason, Token};
use crate::pd::AskPd;
use crate::request::pd::{AdvancedSafePoint, GcBarrier, GcRequest, GcState, PdRequest, PdResponse};
use crate::route::CallOptions;
use crate::time::Time;
use crate::timestamp::Timestamp;

fn options() -> CallOptions {
    CallOptions::new(&Config::default())
}

fn advanced(old: u64, new: u64, blocker: &str) -> Result<PdResponse, PdError> {
    Ok(PdResponse::SafePoint(Box::new(AdvancedSafePoint { old: ts(old), new: ts(new), blocker: blocker.to_owned() })))
}

fn refused() -> PdError {
    PdError::Refused { address: "pd".into(), method: "AdvanceTxnSafePoint", message: "smaller".into() }
}

// ---- CollectGarbage ----

/// Up to 100, in one region.
fn collect() -> Script<CollectGarbage> {
    Script::new(CollectGarbage::new(ts(100), options()))
}

/// PD is asked to move the txn safe point.
fn advancing() -> Script<CollectGarbage> {
    let mut script = collect();
    script.expect_timestamp();
    script.timestamp(ts(200));
    script.expect_pd(&PdRequest::Gc(GcRequest::AdvanceTxnSafePoint { target: ts(100) }));
    script
}

fn expect_sweep(script: &mut Script<CollectGarbage>, max_ts: Timestamp) -> Token {
    script.expect_call(1, |request: &ScanLockRequest| assert_eq!(request.max_version, max_ts.version()))
}

#[test]
fn locks_are_resolved_between_the_two_safe_points() {
    let mut script = advancing();
    script.pd(advanced(50, 100, "nothing to speak of"));
    expect_sweep(&mut script, ts(100));
    script.reply(ScanLockResponse::default());
    script.expect_pd(&PdRequest::Gc(GcRequest::AdvanceGcSafePoint { target: ts(100) }));
    script.pd(advanced(50, 100, ""));
    let swept = Swept { regions: 1, locks: 0 };
    let collected = Collected { safe_point: ts(100), blocker: String::new(), swept };
    assert_eq!(script.expect_done(), Ok(collected));
}

/// Whoever needs older versions has PD keep them.
#[test]
fn nothing_is_collected_beyond_what_pd_allows() {
    let mut script = advancing();
    script.pd(advanced(50, 70, "a backup"));
    expect_sweep(&mut script, ts(70));
    script.reply(ScanLockResponse::default());
    script.expect_pd(&PdRequest::Gc(GcRequest::AdvanceGcSafePoint { target: ts(70) }));
    script.pd(advanced(50, 70, ""));
    let collected = script.expect_done().expect("PD agrees");
    assert_eq!((collected.safe_point, collected.blocker.as_str()), (ts(70), "a backup"));
}

/// A safe point never goes back: this one would end all transactions for good.
#[test]
fn a_safe_point_in_the_future_is_refused_before_pd_hears_of_it() {
    for (now, is_refused) in [(ts(99), true), (ts(100), false)] {
        let mut script = collect();
        script.expect_timestamp();
        script.timestamp(now);
        if is_refused {
            assert!(matches!(script.expect_done(), Err(Error::InvalidArgument(_))));
        } else {
            script.expect_pd(&PdRequest::Gc(GcRequest::AdvanceTxnSafePoint { target: ts(100) }));
        }
    }
}

#[test]
fn it_ends_with_the_first_error_and_goes_no_further() {
    let closed = || Err(PdError::Closed);
    let mut script = collect();
    script.expect_timestamp();
    assert_eq!(script.pd(closed()).expect_done(), Err(Error::Closed));

    let mut script = advancing();
    assert_eq!(script.pd(Err(refused())).expect_done(), Err(Error::Pd(refused())), "the safe point would go back");

    let mut script = advancing();
    script.pd(advanced(50, 100, ""));
    expect_sweep(&mut script, ts(100));
    script.fault(Fault::new(FaultKind::Closed, Execution::NotSent, "store-1"));
    assert_eq!(script.expect_done(), Err(Error::Closed), "locks may be left: nothing may go");

    let mut script = advancing();
    script.pd(advanced(50, 100, ""));
    expect_sweep(&mut script, ts(100));
    script.reply(ScanLockResponse::default());
    script.expect_pd(&PdRequest::Gc(GcRequest::AdvanceGcSafePoint { target: ts(100) }));
    assert_eq!(script.pd(Err(refused())).expect_done(), Err(Error::Pd(refused())));
}

#[test]
fn as_many_regions_as_wanted_are_swept_at_once() {
    for (concurrency, expected) in [(1, 1), (2, 2)] {
        let machine = CollectGarbage::new(ts(100), options()).with_concurrency(concurrency);
        let regions = knowledge(KeyCodec::Txn, [region(1, "".."m"), region(2, "m".."")]);
        let mut script = Script::with_knowledge(machine, regions);
        script.expect_timestamp();
        script.timestamp(ts(200));
        script.expect_pd(&PdRequest::Gc(GcRequest::AdvanceTxnSafePoint { target: ts(100) }));
        script.pd(advanced(50, 100, ""));
        for _ in 0..expected {
            expect_sweep(&mut script, ts(100));
        }
        script.expect_nothing();
    }
}

#[test]
fn its_deadline_ends_it_whatever_it_waits_for() {
    let options = options().with_deadline(Time::from_millis(100));
    let mut script = Script::new(CollectGarbage::new(ts(100), options));
    let alarm = script.expect_alarm();
    let question = script.expect_timestamp();
    script.advance(Duration::from_millis(99)).event(alarm, Event::Woken).expect_cancel(question);
    assert!(script.expect_done().expect_err("PD is silent").is_timeout());
}

// ---- DestroyRange ----

fn destroy(options: CallOptions) -> Script<DestroyRange> {
    Script::new(DestroyRange::new(KeyRange::new("a", "c"), options).expect("it has bounds"))
}

fn stores() -> Result<PdResponse, PdError> {
    let store = |id, engine: &str| {
        let labels = vec![metapb::StoreLabel { key: "engine".to_owned(), value: engine.to_owned() }];
        Arc::new(metapb::Store { id, address: format!("store-{id}"), labels, ..metapb::Store::default() })
    };
    Ok(PdResponse::Stores(vec![store(1, ""), store(2, ""), store(3, "tiflash")]))
}

/// Both stores that keep rows are asked.
fn destroying() -> (Script<DestroyRange>, [Token; 2]) {
    let mut script = destroy(options());
    script.expect_pd(&PdRequest::AllStores);
    script.pd(stores());
    let calls = [1, 2].map(|store| expect_destroy(&mut script, store));
    (script, calls)
}

fn expect_destroy(script: &mut Script<DestroyRange>, store: u64) -> Token {
    script.expect_call(store, |request: &UnsafeDestroyRangeRequest| {
        assert_eq!((&request.start_key[..], &request.end_key[..]), (&b"a"[..], &b"c"[..]));
    })
}

#[test]
fn every_store_with_rows_drops_the_range() {
    let (mut script, [one, two]) = destroying();
    script.expect_nothing();
    script.reply_to(two, UnsafeDestroyRangeResponse::default()).reply_to(one, UnsafeDestroyRangeResponse::default());
    assert_eq!(script.expect_done(), Ok(()));
}

#[test]
fn a_range_without_bounds_is_refused_and_an_empty_one_is_nothing_to_do() {
    for (start, end) in [("", ""), ("a", ""), ("", "c")] {
        let refused = DestroyRange::new(KeyRange::new(start, end), options());
        assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{start}..{end}");
    }
    let empty = DestroyRange::new(KeyRange::new("c", "a"), options()).expect("it has bounds");
    assert_eq!(Script::new(empty).expect_done(), Ok(()));
}

#[test]
fn a_store_that_does_not_answer_is_asked_again() {
    let (mut script, [one, two]) = destroying();
    script.reply_to(two, UnsafeDestroyRangeResponse::default());
    script.event(one, Event::Reply(Err(not_sent())));
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::TikvRpc)));
    script.wake();
    let again = expect_destroy(&mut script, 1);
    script.reply_to(again, UnsafeDestroyRangeResponse::default());
    assert_eq!(script.expect_done(), Ok(()));
}

#[test]
fn a_store_that_never_answers_ends_it() {
    let (mut script, [mut one, two]) = destroying();
    script.reply_to(two, UnsafeDestroyRangeResponse::default());
    let mut calls = 1;
    let error = loop {
        script.event(one, Event::Reply(Err(not_sent())));
        if let Some(end) = script.take_output() {
            break end.expect_err("it never answers");
        }
        script.expect_sleep(|_, _| {});
        script.wake();
        one = expect_destroy(&mut script, 1);
        calls += 1;
    };
    assert!(matches!(error, Error::RetriesExhausted { attempts, .. } if attempts == calls), "{error}");
}

#[test]
fn a_refusal_and_nonsense_and_the_end_of_the_client_are_final_and_stop_the_others() {
    let refusal = UnsafeDestroyRangeResponse { error: "no".to_owned(), ..UnsafeDestroyRangeResponse::default() };
    let (mut script, [one, two]) = destroying();
    script.reply_to(one, refusal).expect_cancel(two);
    let (operation, address) = ("UnsafeDestroyRange", Arc::from("store-1"));
    assert_eq!(script.expect_done(), Err(Error::Refused { operation, address, message: "no".into() }));

    let (mut script, [one, two]) = destroying();
    script.reply_to(one, RawGetResponse::default()).expect_cancel(two);
    assert!(matches!(script.expect_done(), Err(Error::WrongResponse { actual: "RawGet", .. })));

    let (mut script, [one, two]) = destroying();
    script.event(one, Event::Reply(Err(Fault::new(FaultKind::Closed, Execution::NotSent, "store-1"))));
    script.expect_cancel(two);
    assert_eq!(script.expect_done(), Err(Error::Closed));

    let mut script = destroy(options());
    script.expect_pd(&PdRequest::AllStores);
    assert_eq!(script.pd(Err(PdError::Closed)).expect_done(), Err(Error::Closed));
}

#[test]
fn the_deadline_ends_what_stores_are_asked() {
    let mut script = destroy(options().with_deadline(Time::from_millis(100)));
    let of_the_question = script.expect_alarm();
    script.expect_pd(&PdRequest::AllStores);
    script.pd(stores()).expect_cancel(of_the_question);
    let alarm = script.expect_alarm();
    let [one, two] = [1, 2].map(|store| expect_destroy(&mut script, store));
    script.reply_to(one, UnsafeDestroyRangeResponse::default());
    script.advance(Duration::from_millis(99)).event(alarm, Event::Woken).expect_cancel(two);
    let error = script.expect_done().expect_err("a store is silent");
    assert!(matches!(error, Error::DeadlineExceeded { operation: "UnsafeDestroyRange", attempts: 1, .. }), "{error}");
}

// ---- Questions ----

fn barrier(ttl: Option<Duration>) -> GcBarrier {
    GcBarrier { id: "backup".to_owned(), ts: ts(7), ttl }
}

#[test]
fn the_state_and_the_barriers_are_what_pd_says() {
    let config = Config::default();
    let state = GcState { txn_safe_point: ts(9), gc_safe_point: ts(8), barriers: vec![barrier(None)] };
    let mut script = Script::new(GetGcState::ask(&config));
    script.expect_pd(&PdRequest::Gc(GcRequest::State));
    script.pd(Ok(PdResponse::GcState(Box::new(state.clone()))));
    assert_eq!(script.expect_done(), Ok(state));

    let minute = barrier(Some(Duration::from_secs(60)));
    let mut script = Script::new(SetGcBarrier::ask(&config, minute.clone()).expect("it makes sense"));
    script.expect_pd(&PdRequest::Gc(GcRequest::SetBarrier(minute.clone())));
    script.pd(Ok(PdResponse::GcBarrier(Some(Box::new(minute.clone())))));
    assert_eq!(script.expect_done(), Ok(minute.clone()));

    let mut script = Script::new(DeleteGcBarrier::ask(&config, "backup").expect("a name"));
    script.expect_pd(&PdRequest::Gc(GcRequest::DeleteBarrier { id: "backup".to_owned() }));
    script.pd(Ok(PdResponse::GcBarrier(Some(Box::new(minute.clone())))));
    assert_eq!(script.expect_done(), Ok(Some(minute)));
}

#[test]
fn barriers_have_names_and_time_to_stand() {
    let config = Config::default();
    let nameless = GcBarrier { id: String::new(), ..barrier(None) };
    for refused in [SetGcBarrier::ask(&config, nameless), SetGcBarrier::ask(&config, barrier(Some(Duration::ZERO)))] {
        assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
    }
    assert!(matches!(DeleteGcBarrier::ask(&config, ""), Err(Error::InvalidArgument(_))));
}

#[test]
fn a_refusal_is_told_at_once_and_a_failure_is_waited_out() {
    let ask = || -> Script<AskPd<GetGcState>> { Script::new(GetGcState::ask(&Config::default())) };
    let mut script = ask();
    script.expect_pd(&PdRequest::Gc(GcRequest::State));
    assert_eq!(script.pd(Err(refused())).expect_done(), Err(Error::Pd(refused())));
    let mut script = ask();
    script.expect_pd(&PdRequest::Gc(GcRequest::State));
    script.pd(Err(PdError::Fault(not_sent())));
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::PdRpc)));
    script.wake();
    script.expect_pd(&PdRequest::Gc(GcRequest::State));
    script.pd(Ok(PdResponse::GcState(Box::default())));
    assert_eq!(script.expect_done(), Ok(GcState::default()));
}

/// The answer to another question is none.
#[test]
fn what_answers_something_else_is_not_taken() {
    let mut script = Script::new(GetGcState::ask(&Config::default()));
    script.expect_pd(&PdRequest::Gc(GcRequest::State));
    script.pd(Ok(PdResponse::Scattered)).expect_nothing();
    assert_eq!(script.take_output(), None);
}
