use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::task::Poll;
use std::time::Duration;

use super::script::{Script, ts};
use super::*;
use crate::timestamp::Timestamp;

/// Sleeps, then asks for a timestamp.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct NapThenTimestamp(u64);

impl Machine for NapThenTimestamp {
    type Output = Timestamp;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Timestamp> {
        cx.sleep(Duration::from_millis(self.0), SleepReason::LockAlive);
        Poll::Pending
    }

    fn advance(&mut self, cx: &mut Context<'_>, _: Token, event: Event) -> Poll<Timestamp> {
        match event {
            Event::Pd(Ok(crate::request::pd::PdResponse::Timestamp(timestamp))) => Poll::Ready(timestamp),
            _ => {
                cx.timestamp();
                Poll::Pending
            }
        }
    }
}

/// Runs naps of 1, 2, … ms, and collects what they end with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Naps {
    fan_out: FanOut<NapThenTimestamp>,
    outputs: Vec<(ChildId, Timestamp)>,
}

impl Naps {
    fn new(count: u64, limit: usize) -> Self {
        let mut fan_out = FanOut::new(limit);
        for ms in 1..=count {
            fan_out.add(NapThenTimestamp(ms));
        }
        Naps { fan_out, outputs: Vec::new() }
    }

    fn collect(&mut self, cx: &mut Context<'_>) -> Poll<Vec<(ChildId, Timestamp)>> {
        while let Some(finished) = self.fan_out.next_finished(cx) {
            self.outputs.push(finished);
        }
        if self.fan_out.is_idle() { Poll::Ready(std::mem::take(&mut self.outputs)) } else { Poll::Pending }
    }
}

impl Machine for Naps {
    type Output = Vec<(ChildId, Timestamp)>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.fan_out.run(cx);
        self.collect(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output> {
        self.fan_out.handle(cx, token, event);
        self.collect(cx)
    }
}

fn nap_of(script: &mut Script<Naps>, ms: u64) -> Token {
    script.expect_sleep(|duration, _| assert_eq!(duration, Duration::from_millis(ms)))
}

#[test]
fn events_reach_the_child_that_waits_for_them() {
    let mut script = Script::new(Naps::new(2, 2));
    let (first, second) = (nap_of(&mut script, 1), nap_of(&mut script, 2));
    script.event(second, Event::Woken).expect_timestamp();
    script.timestamp(ts(20));
    script.event(first, Event::Woken).expect_timestamp();
    script.timestamp(ts(10));
    assert_eq!(script.expect_done(), [(ChildId(1), ts(20)), (ChildId(0), ts(10))]);
}

#[test]
fn no_more_children_run_than_the_limit_allows() {
    let mut script = Script::new(Naps::new(3, 2));
    let (first, _second) = (nap_of(&mut script, 1), nap_of(&mut script, 2));
    script.expect_nothing();
    script.event(first, Event::Woken).expect_timestamp();
    script.timestamp(ts(1));
    nap_of(&mut script, 3);
    script.expect_nothing();
}

#[test]
fn an_unknown_token_is_ignored() {
    let mut script = Script::new(Naps::new(1, 1));
    let nap = nap_of(&mut script, 1);
    script.event(Token(99), Event::Woken).expect_nothing();
    script.event(nap, Event::Woken).expect_timestamp();
    script.event(nap, Event::Woken).expect_nothing();
}

#[test]
fn cancelling_children_cancels_what_they_wait_for() {
    let mut outbox = Outbox::new();
    let (mut rng, config) = (crate::rng::Rng::new(1), crate::config::Config::default());
    let knowledge = crate::knowledge::Knowledge::new(Default::default(), &config);
    let mut cx = Context::new(crate::time::Time::ZERO, &mut rng, &knowledge, &config, &mut outbox);
    let mut naps = Naps::new(3, 2);
    naps.fan_out.run(&mut cx);
    naps.fan_out.cancel_all(&mut cx);
    assert!(naps.fan_out.is_idle());
    let cancelled: Vec<_> = outbox.drain().filter(|command| matches!(command, Command::Cancel { .. })).collect();
    assert_eq!(cancelled, [Command::Cancel { token: Token(0) }, Command::Cancel { token: Token(1) }]);
}

/// A background machine that does nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Idle(u64);

impl Machine for Idle {
    type Output = ();

    fn begin(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn advance(&mut self, _: &mut Context<'_>, _: Token, _: Event) -> Poll<()> {
        Poll::Ready(())
    }
}

#[test]
fn background_machines_are_data() {
    let hash = |machine: &BackgroundMachine| {
        let mut hasher = DefaultHasher::new();
        machine.hash(&mut hasher);
        hasher.finish()
    };
    let one = BackgroundMachine::new(Idle(1));
    assert_eq!(one, one.clone());
    assert_eq!(hash(&one), hash(&one.clone()));
    assert_ne!(one, BackgroundMachine::new(Idle(2)));
    assert_eq!(one.downcast_ref::<Idle>(), Some(&Idle(1)));
    assert_eq!(format!("{one:?}"), "Idle(1)");
}
