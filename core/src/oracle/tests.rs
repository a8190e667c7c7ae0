use std::time::Duration;

use super::*;
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
fn no_question_is_asked_again_after_the_deadline() {
    let deadline = Time::from_millis(100);
    let mut script = Script::new(FetchTimestamp::new(&Config::default()).until(deadline));
    script.expect_timestamp();
    script.pd(Err(PdError::Fault(not_sent())));
    let mut slept = Duration::ZERO;
    script.expect_sleep(|sleep, _| slept = sleep);
    assert_eq!(script.now() + slept, deadline);
    script.advance(slept).wake().expect_timestamp();
    let error = script.pd(Err(PdError::Fault(not_sent()))).expect_done().expect_err("PD never answered");
    assert!(matches!(error, Error::DeadlineExceeded { attempts: 2, .. }) && error.is_timeout(), "{error}");
}
