use std::time::Duration;

use super::*;
use crate::backoff::BackoffKind;
use crate::error::PdError;
use crate::machine::SleepReason;
use crate::machine::script::{Script, not_sent, ts};

#[test]
fn a_failure_of_pd_is_waited_out() {
    let mut script = Script::new(FetchTimestamp::new(&Config::default()));
    script.expect_timestamp();
    script.pd(Err(PdError::Fault(not_sent())));
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::PdRpc)));
    script.wake().expect_timestamp();
    assert_eq!(script.timestamp(ts(7)).expect_done(), Ok(ts(7)));
}

#[test]
fn the_wrong_cluster_and_a_closed_client_are_final() {
    let mismatch = PdError::ClusterMismatch { address: "pd".into(), expected: 1, actual: 2 };
    for (error, expected) in [(mismatch.clone(), Error::Pd(mismatch)), (PdError::Closed, Error::Closed)] {
        let mut script = Script::new(FetchTimestamp::new(&Config::default()));
        script.expect_timestamp();
        assert_eq!(script.pd(Err(error)).expect_done(), Err(expected));
    }
}

#[test]
fn a_silent_pd_ends_in_an_error_that_counts_the_attempts() {
    let mut script = Script::new(FetchTimestamp::new(&Config::default()));
    let mut asked = 0;
    let error = loop {
        script.expect_timestamp();
        asked += 1;
        script.pd(Err(PdError::Fault(not_sent())));
        if let Some(output) = script.take_output() {
            break output.expect_err("PD never answered");
        }
        script.expect_sleep(|_, _| {});
        script.wake();
    };
    assert!(matches!(error, Error::RetriesExhausted { attempts, .. } if attempts == asked), "{error}");
    assert!(error.is_timeout());
}

#[test]
fn it_ends_at_its_deadline_whatever_it_waits_for() {
    let deadline = Time::from_millis(100);
    for is_backing_off in [false, true] {
        let mut script = Script::new(FetchTimestamp::new(&Config::default()).until(deadline));
        let (alarm, question) = (script.expect_alarm(), script.expect_timestamp());
        let mut waits_for = question;
        if is_backing_off {
            script.event(question, Event::Pd(Err(PdError::Fault(not_sent()))));
            waits_for = script.expect_sleep(|_, _| {});
        }
        script.advance(Duration::from_millis(99)).event(alarm, Event::Woken);
        script.expect_cancel(waits_for);
        let error = script.expect_done().expect_err("PD never answered");
        assert!(matches!(error, Error::DeadlineExceeded { attempts: 1, .. }) && error.is_timeout(), "{error}");
    }
}

#[test]
fn a_timestamp_in_time_silences_the_alarm() {
    let mut script = Script::new(FetchTimestamp::new(&Config::default()).until(Time::from_millis(100)));
    let alarm = script.expect_alarm();
    script.expect_timestamp();
    script.timestamp(ts(7)).expect_cancel(alarm);
    assert_eq!(script.expect_done(), Ok(ts(7)));
}
