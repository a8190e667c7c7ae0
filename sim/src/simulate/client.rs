//! A client: an engine, a clock of its own, and what it is busy with.

use std::collections::BTreeMap;
use std::time::Duration;

use tikv_core::engine::{Engine, OperationId};
use tikv_core::pd::StreamId;
use tikv_core::rng::Rng;
use tikv_core::time::Time;

use super::session::Session;

/// A clock that does not show the time of the simulation: it is ahead, and goes faster or slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    ahead_ns: u64,
    /// How much of that came by jumps.
    jumped_ns: u64,
    rate_ppm: u64,
}

const PPM: u64 = 1_000_000;

impl Clock {
    pub(super) fn new(ahead_ms: u64, rate_ppm: u64) -> Self {
        Clock { ahead_ns: ahead_ms * 1_000_000, jumped_ns: 0, rate_ppm: rate_ppm.max(1) }
    }

    /// What the clock shows at a time of the simulation.
    pub(super) fn local(&self, global: Time) -> Time {
        let shown = match self.rate_ppm {
            PPM => global.as_nanos(),
            rate => (u128::from(global.as_nanos()) * u128::from(rate) / u128::from(PPM)) as u64,
        };
        Time::from_nanos(shown.saturating_add(self.ahead_ns))
    }

    /// The first time of the simulation at which the clock shows at least this.
    pub(super) fn global(&self, local: Time) -> Time {
        if local == Time::MAX {
            return Time::MAX;
        }
        let shown = local.as_nanos().saturating_sub(self.ahead_ns);
        Time::from_nanos(match self.rate_ppm {
            PPM => shown,
            rate => (u128::from(shown) * u128::from(PPM)).div_ceil(u128::from(rate)) as u64,
        })
    }

    pub(super) fn jump(&mut self, ms: u64) {
        self.ahead_ns += ms * 1_000_000;
        self.jumped_ns += ms * 1_000_000;
    }

    /// How much longer than they do its transactions may believe to last.
    pub(super) fn jumped(&self) -> Duration {
        Duration::from_nanos(self.jumped_ns)
    }
}

/// Which life of which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientId {
    pub(super) number: u8,
    pub(super) life: u32,
}

/// A stream to a member of PD. Messages on it keep their order.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) member: u64,
    pub(super) path: &'static str,
    /// When the last message to PD arrives there.
    pub(super) sent_until: Time,
    /// When the last message from PD arrives here.
    pub(super) received_until: Time,
}

/// An operation that a session waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    pub(super) session: usize,
    /// By the client's clock, [`Time::MAX`] for none.
    pub(super) deadline: Time,
    /// How often the client had been held up when it began.
    pub(super) holdups: u32,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: ClientId,
    pub(super) engine: Engine,
    pub(super) clock: Clock,
    pub(super) alive: bool,
    /// Nothing is done before this time.
    pub(super) paused_until: Time,
    pub(super) holdups: u32,
    /// Commands after which the client dies.
    pub(super) dies_after: Option<u32>,
    /// Commands after which it loses interest in all it does.
    pub(super) cancels_after: Option<u32>,
    /// How long it stays dead.
    pub(super) down_for: Duration,
    pub(super) sessions: Vec<Session>,
    pub(super) running: BTreeMap<OperationId, Running>,
    pub(super) streams: BTreeMap<StreamId, Stream>,
    /// The next time at which it is going to be woken.
    pub(super) armed: Time,
    pub(super) rng: Rng,
}

impl Client {
    pub(super) fn new(number: u8, engine: Engine, clock: Clock, sessions: u32, mut rng: Rng) -> Self {
        Client {
            id: ClientId { number, life: 0 },
            engine,
            clock,
            alive: true,
            paused_until: Time::ZERO,
            holdups: 0,
            dies_after: None,
            cancels_after: None,
            down_for: Duration::ZERO,
            sessions: (0..sessions).map(|_| Session::new(rng.child())).collect(),
            running: BTreeMap::new(),
            streams: BTreeMap::new(),
            armed: Time::MAX,
            rng,
        }
    }

    /// All it knew is lost. Its clock goes on.
    pub(super) fn restart(&mut self, engine: Engine) {
        self.engine = engine;
        self.id.life += 1;
        self.alive = true;
        self.dies_after = None;
        self.cancels_after = None;
        self.running.clear();
        self.sessions.iter_mut().for_each(|session| (session.keep_alive, session.flush) = (None, None));
        self.streams.clear();
        self.armed = Time::MAX;
    }
}

/// Counts down; true when it reaches zero.
pub(super) fn count_down(left: &mut Option<u32>) -> bool {
    match left {
        None => false,
        Some(0) => {
            *left = None;
            true
        }
        Some(count) => {
            *count -= 1;
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_at_the_time_it_names_at_least_what_was_asked_for() {
        for clock in [Clock::new(0, PPM), Clock::new(7, PPM), Clock::new(3, 900_000), Clock::new(0, 1_100_001)] {
            for ms in [8, 9, 1_000, 123_456] {
                let local = Time::from_millis(ms);
                let global = clock.global(local);
                assert!(clock.local(global) >= local);
                let earlier = Time::from_nanos(global.as_nanos() - 2);
                assert!(clock.local(earlier) < local);
            }
            assert_eq!(clock.global(Time::MAX), Time::MAX);
        }
    }

    #[test]
    fn a_clock_that_jumps_never_goes_back() {
        let mut clock = Clock::new(0, PPM);
        let before = clock.local(Time::from_millis(10));
        clock.jump(5);
        assert_eq!(clock.local(Time::from_millis(10)), before + Duration::from_millis(5));
    }
}
