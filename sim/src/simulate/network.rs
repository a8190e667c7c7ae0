//! What the network does to messages.

use std::time::Duration;

use tikv_core::rng::Rng;
use tikv_core::time::Time;

use super::options::Options;
use super::trace::Node;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Request,
    Reply,
}

/// What a disturbed link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disturbance {
    /// Loses messages, so many in a thousand.
    Lossy(u32),
    /// Delivers requests twice, so many in a thousand.
    Duplicating(u32),
    /// Delays messages by up to so much.
    Slow(Duration),
    /// Lets nothing pass.
    Cut,
    /// Lets nothing pass for now.
    Clogged,
}

/// Which links are disturbed: `None` is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Links {
    pub(super) client: Option<u8>,
    pub(super) server: Option<Node>,
    pub(super) way: Option<Way>,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// When it arrives; `None` if it is lost.
    pub(super) arrives: Option<Time>,
    /// When it arrives once more.
    pub(super) again: Option<Time>,
    /// Whether no message can pass at all, which a new connection would notice.
    pub(super) is_cut: bool,
}

/// The links between clients and servers.
#[derive(Clone, Debug)]
pub(super) struct Network {
    latency: Duration,
    jitter_ns: u64,
    disturbances: Vec<(Time, Links, Disturbance)>,
    rng: Rng,
}

impl Links {
    fn contains(&self, client: u8, server: Node, way: Way) -> bool {
        self.client.is_none_or(|wanted| wanted == client)
            && self.server.is_none_or(|wanted| wanted == server)
            && self.way.is_none_or(|wanted| wanted == way)
    }
}

impl Network {
    pub(super) fn new(options: &Options, rng: Rng) -> Self {
        Network {
            latency: Duration::from_micros(options.latency_us.into()),
            jitter_ns: u64::from(options.jitter_us) * 1_000,
            disturbances: Vec::new(),
            rng,
        }
    }

    pub(super) fn disturb(&mut self, until: Time, links: Links, disturbance: Disturbance) {
        self.disturbances.push((until, links, disturbance));
    }

    /// All is well from now on.
    pub(super) fn heal(&mut self) {
        self.disturbances.clear();
    }

    /// When something that is sent now arrives, if nothing disturbs it.
    pub(super) fn arrival(&mut self, now: Time) -> Time {
        now + self.latency + Duration::from_nanos(self.rng.below(self.jitter_ns + 1))
    }

    pub(super) fn fate(&mut self, now: Time, client: u8, server: Node, way: Way) -> Fate {
        let mut fate = Fate { arrives: Some(self.arrival(now)), ..Fate::default() };
        if self.disturbances.is_empty() {
            return fate;
        }
        self.disturbances.retain(|(until, ..)| *until > now);
        for index in 0..self.disturbances.len() {
            let (until, links, disturbance) = self.disturbances[index];
            if links.contains(client, server, way) {
                self.suffer(&mut fate, now, until, disturbance);
            }
        }
        fate
    }

    fn suffer(&mut self, fate: &mut Fate, now: Time, until: Time, disturbance: Disturbance) {
        match disturbance {
            Disturbance::Lossy(permille) => {
                if self.happens(permille) {
                    fate.arrives = None;
                }
            }
            Disturbance::Duplicating(permille) => {
                if self.happens(permille) {
                    let doublings = 10 + self.rng.below(25);
                    let spread_ns = self.rng.below(1 << doublings);
                    fate.again = Some(self.arrival(now) + Duration::from_nanos(spread_ns));
                }
            }
            Disturbance::Slow(up_to) => {
                let delay = Duration::from_nanos(self.rng.below(up_to.as_nanos() as u64 + 1));
                fate.arrives = fate.arrives.map(|at| at + delay);
            }
            Disturbance::Clogged => {
                let released = self.arrival(until);
                fate.arrives = fate.arrives.map(|at| at.max(released));
            }
            Disturbance::Cut => {
                fate.arrives = None;
                fate.is_cut = true;
            }
        }
    }

    fn happens(&mut self, permille: u32) -> bool {
        self.rng.below(1000) < u64::from(permille)
    }
}
