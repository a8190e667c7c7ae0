//! What goes wrong by itself.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tikv::Runtime;
use tikv_core::request::RequestKind;
use tikv_core::rng::Rng;

use super::{Hosts, SimRuntime};
use crate::cluster::{Effect, Fault, Region, encoded, region_error};

/// Mishaps at random times, until it is calm. Take [`Chaos::default`] and change what should differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chaos {
    /// When they end: what is down comes back, what is held back arrives. Default: after 30 s.
    pub calm_after: Duration,
    /// The pause between two. Default: up to 200 ms.
    pub pause: Range<Duration>,
    /// How long what is down stays down. Default: up to 3 s.
    pub outage: Range<Duration>,
    /// What may happen, each as likely as the others. Default: everything.
    pub mishaps: Vec<Mishap>,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mishap {
    /// The connections of a store or of a member of PD break.
    BrokenConnections,
    /// All that goes to a store or to a member of PD, or comes from it, arrives only after an outage.
    CutOff,
    /// A store crashes, and starts again after an outage.
    StoreDown,
    /// A region splits.
    Split,
    /// Another store leads a region.
    LeaderTransfer,
    /// A store says that it is busy, to some requests.
    Busy,
    /// Requests get lost on a store.
    LostRequest,
    /// Requests are executed, and their answers get lost.
    LostReply,
    /// Answers come late.
    Slow,
}

impl Mishap {
    /// Each of them.
    pub const ALL: [Mishap; 9] = [
        Mishap::BrokenConnections,
        Mishap::CutOff,
        Mishap::StoreDown,
        Mishap::Split,
        Mishap::LeaderTransfer,
        Mishap::Busy,
        Mishap::LostRequest,
        Mishap::LostReply,
        Mishap::Slow,
    ];
}

impl Default for Chaos {
    fn default() -> Self {
        Chaos {
            calm_after: Duration::from_secs(30),
            pause: Duration::ZERO..Duration::from_millis(200),
            outage: Duration::ZERO..Duration::from_secs(3),
            mishaps: Mishap::ALL.to_vec(),
        }
    }
}

/// Lets mishaps happen until it is calm.
pub(super) async fn run(chaos: Chaos, rng: Rng, runtime: SimRuntime, hosts: Arc<Hosts>) {
    let calm_at = runtime.now() + chaos.calm_after;
    let mut trouble = Trouble { chaos, rng, runtime, hosts };
    while trouble.runtime.now() < calm_at && !trouble.chaos.mishaps.is_empty() {
        let pause = trouble.between(&trouble.chaos.pause.clone());
        trouble.runtime.sleep(pause).await;
        let index = trouble.rng.below(trouble.chaos.mishaps.len() as u64) as usize;
        trouble.happen(trouble.chaos.mishaps[index]);
    }
    trouble.hosts.shared.with_cluster(|cluster, _| cluster.clear_faults());
}

struct Trouble {
    chaos: Chaos,
    rng: Rng,
    runtime: SimRuntime,
    hosts: Arc<Hosts>,
}

impl Trouble {
    fn happen(&mut self, mishap: Mishap) {
        match mishap {
            Mishap::BrokenConnections => {
                let address = self.any_address();
                self.runtime.network().break_connections(&address);
            }
            Mishap::CutOff => {
                let address = self.any_address();
                self.runtime.network().set_cut_off(&address, true);
                self.after_outage(move |runtime, _| runtime.network().set_cut_off(&address, false));
            }
            Mishap::StoreDown => {
                let store_id = self.any_store();
                // One that is down already comes back when it would have.
                if self.hosts.stop_store(store_id).is_ok() {
                    self.after_outage(move |_, hosts| drop(hosts.start_store(store_id)));
                }
            }
            Mishap::Split => {
                let key = encoded(&self.rng.next_u64().to_be_bytes()[..2]);
                // A region may begin there.
                self.hosts.shared.with_cluster(|cluster, _| drop(cluster.split(&key)));
            }
            Mishap::LeaderTransfer => self.transfer_leader(),
            Mishap::Busy => {
                let busy = region_error::server_is_busy("simulated", 0);
                self.inject(Effect::RegionError(Box::new(busy)));
            }
            Mishap::LostRequest => self.inject(Effect::Lose),
            Mishap::LostReply => self.inject(Effect::LoseReply),
            Mishap::Slow => {
                let delay = self.between(&self.chaos.outage.clone());
                self.inject(Effect::DelayReply(delay));
            }
        }
    }

    fn inject(&mut self, effect: Effect) {
        let kind = RequestKind::ALL[self.rng.below(RequestKind::ALL.len() as u64) as usize];
        let times = 1 + self.rng.below(3) as u32;
        let fault = Fault::new(effect).on_store(self.any_store()).times(times);
        // Half of them wait for a particular request, which may be a rare one.
        let fault = if self.rng.below(2) == 0 { fault.on(kind) } else { fault };
        self.hosts.shared.with_cluster(|cluster, _| cluster.inject(fault));
    }

    fn transfer_leader(&mut self) {
        let (region, store_id) = (self.rng.next_u64(), self.any_store());
        self.hosts.shared.with_cluster(|cluster, _| {
            let regions = cluster.topology().regions();
            let nth = (region % regions.len().max(1) as u64) as usize;
            let id = regions.iter().nth(nth).map(Region::id);
            if let Some(id) = id {
                // That store may have no peer, or not run.
                drop(cluster.transfer_leader(id, store_id));
            }
        });
    }

    fn after_outage(&mut self, repair: impl FnOnce(&SimRuntime, &Hosts) + Send + 'static) {
        let outage = self.between(&self.chaos.outage.clone());
        let (runtime, hosts) = (self.runtime.clone(), self.hosts.clone());
        self.runtime.spawn(Box::pin(async move {
            runtime.sleep(outage).await;
            repair(&runtime, &hosts);
        }));
    }

    fn any_address(&mut self) -> String {
        let mut addresses = self.runtime.network().addresses();
        let index = self.rng.below(addresses.len() as u64) as usize;
        addresses.swap_remove(index)
    }

    fn any_store(&mut self) -> u64 {
        let nth = self.rng.below(self.hosts.stores.len() as u64) as usize;
        self.hosts.stores.keys().nth(nth).copied().unwrap_or_default()
    }

    fn between(&mut self, range: &Range<Duration>) -> Duration {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.rng.range(nanos(range.start)..nanos(range.end)))
    }
}
