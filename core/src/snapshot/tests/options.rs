use std::time::Duration;

use super::*;
use crate::error::Error;
use crate::key::{Direction, KeyRange};
use crate::machine::{Command, Event};
use crate::route::CallOptions;
use crate::snapshot::{BatchGet, Get, Isolation, Scan};
use crate::time::Time;

fn next(options: &SnapshotOptions, known: &ReadThrough) -> CallOptions {
    options.call_options(options.call.timeout, true, false, known)
}

#[test]
fn the_defaults_are_those_of_the_configuration() {
    let options = options();
    assert_eq!((options.scan_batch_size, options.batch_get_size), (256, 5_120));
    assert_eq!((options.call.timeout, options.batch_timeout), (Duration::from_secs(30), Duration::from_secs(60)));
}

#[test]
fn a_threshold_that_does_not_fit_is_none() {
    let options = options().busy_threshold(Duration::from_secs(u64::from(u32::MAX)));
    assert_eq!(options.call.context.busy_threshold_ms, 0);
}

#[test]
fn the_next_request_tells_only_what_is_known_now() {
    let mut known = fresh();
    known.ignore(ts(1));
    let told = next(&options(), &known);
    assert_eq!(told.context.to_message().resolved_locks, versions(&[1]));
    let options = options().with_context(|context| context.resolved_locks = versions(&[2]));
    assert!(
        next(&options, &fresh()).context.to_message().resolved_locks.is_empty(),
        "not what somebody left in the context"
    );
}

#[test]
fn a_read_that_meets_no_lock_sends_the_context_as_it_is_with_a_time_limit() {
    let options = options().isolation(Isolation::ReadCommitted);
    let mut expected = options.call.context.clone();
    expected.max_execution_duration_ms = 30_000;
    assert_eq!(next(&options, &fresh()).context, expected);
}

/// PD does not answer until the deadline has passed.
fn ends_in_time<T: Debug>(machine: impl Machine<Output = Read<T>>) {
    let mut script = Script::with_knowledge(machine, knowledge(KeyCodec::Txn, []));
    let alarm = script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Deadline));
    let Some(Command::Pd { token: question, .. }) = script.next() else { panic!("PD is to be asked") };
    script.event(alarm, Event::Woken).expect_cancel(question);
    let error = script.expect_done().result.expect_err("too late");
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
}

#[test]
fn a_deadline_ends_reads_that_wait_for_pd_to_locate_a_region() {
    let mut options = options();
    options.call.deadline = Time::from_millis(11);
    ends_in_time(Get::new(&config(), Key::from("a"), options.clone(), fresh()));
    ends_in_time(BatchGet::new(&config(), keys(&["a", "b"]), options.clone(), fresh()));
    for direction in [Direction::Forward, Direction::Reverse] {
        ends_in_time(Scan::new(KeyRange::ALL, direction, 10, options.clone(), fresh()));
    }
}
