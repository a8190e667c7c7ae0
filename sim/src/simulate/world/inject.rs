//! Faults strike, and are mended.

use std::time::Duration;

use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_proto::metapb::PeerRole;

use super::{Ailment, Event, Mend, Phase, World, bound};
use crate::cluster::TopologyError;
use crate::simulate::check::Check;
use crate::simulate::faults::{FaultKind, Injection};
use crate::simulate::network::{Disturbance, Links, Way};
use crate::simulate::session::State;
use crate::simulate::trace::{Entry, More, Node, TraceKind};

/// How far timestamps run ahead of the clock at most.
const LONGEST_STANDSTILL_MS: u64 = 1_000;

impl World {
    pub(super) fn inject(&mut self, index: usize) -> Check {
        if self.phase != Phase::Safety {
            return Ok(());
        }
        let Some(fault) = self.scenario.faults.get(index).copied() else { return Ok(()) };
        *self.totals.faults.entry(fault.kind).or_default() += 1;
        let node = self.victim(&fault);
        let entry = Entry::at(node, TraceKind::Fault(fault.kind));
        let until = self.now + Duration::from_micros(fault.duration_us.into());
        let links = if self.trace.keeps() { self.disturbed(&fault) } else { String::new() };
        self.trace.add(self.now, entry, || More {
            until: lasts(fault.kind).then_some(until),
            detail: format!("number {index}: {fault}{links}"),
            ..More::default()
        });
        match fault.kind {
            FaultKind::Loss => self.disturb(&fault, until, Disturbance::Lossy(fault.amount)),
            FaultKind::Duplication => self.disturb(&fault, until, Disturbance::Duplicating(fault.amount)),
            FaultKind::Delay => self.disturb(&fault, until, Disturbance::Slow(micros(fault.amount))),
            FaultKind::Partition => self.disturb(&fault, until, Disturbance::Cut),
            FaultKind::Clog => self.disturb(&fault, until, Disturbance::Clogged),
            FaultKind::StoreCrash => self.stop_store(&fault, until)?,
            FaultKind::StoreSlow | FaultKind::Busy | FaultKind::DiskFull => self.ail(&fault, until),
            FaultKind::RegionErrors | FaultKind::Undetermined => self.ail(&fault, until),
            FaultKind::Split | FaultKind::Merge | FaultKind::LeaderTransfer | FaultKind::PeerChange => {
                self.change_regions(&fault);
            }
            FaultKind::PdCrash | FaultKind::PdLeader | FaultKind::PdStale => self.hit_pd(&fault, until),
            FaultKind::TsoJump => self.jump_timestamps(&fault),
            FaultKind::ClientCrash | FaultKind::Cancel => self.doom_client(&fault),
            FaultKind::Pause => self.pause_client(&fault, until),
            FaultKind::ClockJump => return self.jump_clock(&fault),
        }
        Ok(())
    }

    fn victim(&self, fault: &Injection) -> Node {
        match fault.kind {
            FaultKind::StoreCrash | FaultKind::StoreSlow | FaultKind::Busy => Node::Store(self.store_of(fault)),
            FaultKind::DiskFull | FaultKind::RegionErrors | FaultKind::Undetermined => {
                Node::Store(self.store_of(fault))
            }
            FaultKind::PdCrash | FaultKind::PdLeader => Node::Pd(self.member_of(fault)),
            FaultKind::ClientCrash | FaultKind::Cancel | FaultKind::Pause | FaultKind::ClockJump => {
                Node::Client(self.client_of(fault) as u8)
            }
            _ => Node::World,
        }
    }

    fn store_of(&self, fault: &Injection) -> u64 {
        1 + u64::from(fault.target) % u64::from(self.scenario.options.stores)
    }

    fn member_of(&self, fault: &Injection) -> u64 {
        1 + u64::from(fault.target) % u64::from(self.scenario.options.pd_members)
    }

    /// Never the auditor.
    fn client_of(&self, fault: &Injection) -> usize {
        usize::from(fault.target) % self.auditor()
    }

    // ---- The network ----

    fn disturb(&mut self, fault: &Injection, until: Time, disturbance: Disturbance) {
        let links = self.links(fault);
        self.network.disturb(until, links, disturbance);
    }

    /// `target` chooses the client, one of them or all; `other` the server and the way.
    fn links(&self, fault: &Injection) -> Links {
        let options = &self.scenario.options;
        let (clients, stores) = (options.clients, options.stores);
        let client = u32::from(fault.target) % (clients + 1);
        let (server, way) = (u32::from(fault.other >> 2), fault.other & 3);
        let server = server % (stores + options.pd_members + 1);
        Links {
            client: (client < clients).then_some(client as u8),
            server: match server {
                0 => None,
                store if store <= stores => Some(Node::Store(store.into())),
                member => Some(Node::Pd((member - stores).into())),
            },
            way: match way {
                0 => Some(Way::Request),
                1 => Some(Way::Reply),
                _ => None,
            },
        }
    }

    /// Which links a fault of the network disturbs, for people.
    fn disturbed(&self, fault: &Injection) -> String {
        use FaultKind::{Clog, Delay, Duplication, Loss, Partition};

        if !matches!(fault.kind, Loss | Duplication | Delay | Partition | Clog) {
            return String::new();
        }
        let Links { client, server, way } = self.links(fault);
        let client = client.map_or_else(|| "all clients".to_owned(), |number| Node::Client(number).to_string());
        let server = server.map_or_else(|| "all servers".to_owned(), |node| node.to_string());
        let arrow = match way {
            Some(Way::Request) => "→",
            Some(Way::Reply) => "←",
            None => "↔",
        };
        format!(": {client} {arrow} {server}")
    }

    // ---- Stores ----

    fn stop_store(&mut self, fault: &Injection, until: Time) -> Check {
        let store = self.store_of(fault);
        if !self.cluster.topology().is_running(store) {
            return Ok(());
        }
        if self.cluster.stop_store(self.now, store).is_ok() {
            if let Some(state) = self.stores.get_mut(&store) {
                state.life += 1;
            }
            self.observe_changes(Some(Node::Store(store)))?;
            self.poll_cluster()?;
            self.move_store(store, fault.other);
            self.queue.push(until, Event::Mend(Mend::Store(store)));
        }
        Ok(())
    }

    /// The store will be found elsewhere, perhaps where another one was.
    fn move_store(&mut self, id: u64, how: u16) {
        let topology = self.cluster.topology();
        let stopped = topology.stores().find(|store| store.meta.id != id && !store.running);
        let swapped = stopped.map(|store| (store.meta.id, store.meta.address.clone())).filter(|_| how % 4 == 0);
        let topology = self.cluster.topology_mut();
        match swapped {
            Some((other, address)) => {
                let Ok(store) = topology.store_mut(id) else { return };
                let own = std::mem::replace(&mut store.meta.address, address);
                if let Ok(other) = topology.store_mut(other) {
                    other.meta.address = own;
                }
            }
            None if how % 2 == 1 => {
                let Ok(store) = topology.store_mut(id) else { return };
                let life = self.stores.get(&id).map_or(0, |state| state.life);
                store.meta.address = format!("store-{id}-{life}:20160");
            }
            None => {}
        }
    }

    fn ail(&mut self, fault: &Injection, until: Time) {
        let store = self.store_of(fault);
        let Some(state) = self.stores.get_mut(&store) else { return };
        let ailment = Ailment { until, permille: fault.amount, variant: fault.other };
        match fault.kind {
            FaultKind::StoreSlow => (state.slow_until, state.slow) = (until, micros(fault.amount)),
            FaultKind::Busy => state.busy = ailment,
            FaultKind::DiskFull => state.full = Ailment { permille: 1000, ..ailment },
            FaultKind::RegionErrors => state.erring = ailment,
            _ => state.undetermined = ailment,
        }
    }

    // ---- Regions ----

    /// What cannot be done just now is not done.
    fn change_regions(&mut self, fault: &Injection) {
        let regions: Vec<u64> = self.cluster.topology().regions().iter().map(crate::cluster::Region::id).collect();
        let region = regions[usize::from(fault.target) % regions.len()];
        let _ = match fault.kind {
            FaultKind::Split => {
                let key = &self.keys[usize::from(fault.target) % self.keys.len()];
                self.cluster.split(&bound(self.scenario.workload, key)).map(drop)
            }
            FaultKind::Merge => self
                .neighbour(region, fault.other)
                .map_or(Ok(()), |neighbour| self.cluster.topology_mut().merge(region, neighbour)),
            FaultKind::PeerChange => self.change_peer(region, fault),
            _ => self.cluster.transfer_leader(region, self.store_and_rest(fault).0),
        };
    }

    /// The number `other` as one of a store, and what is left of it.
    fn store_and_rest(&self, fault: &Injection) -> (u64, u16) {
        let stores = self.scenario.options.stores as u16;
        (1 + u64::from(fault.other % stores), fault.other / stores)
    }

    fn change_peer(&mut self, region: u64, fault: &Injection) -> Result<(), TopologyError> {
        let (store, how) = self.store_and_rest(fault);
        let topology = self.cluster.topology_mut();
        let peer = topology.regions().get(region).and_then(|region| region.peer_on(store)).copied();
        let Some(peer) = peer else {
            let role = if how % 2 == 0 { PeerRole::Voter } else { PeerRole::Learner };
            return topology.add_peer(region, store, role);
        };
        let other_role = if peer.role() == PeerRole::Voter { PeerRole::Learner } else { PeerRole::Voter };
        match how % 3 {
            0 => topology.remove_peer(region, store),
            1 => topology.set_peer(region, store, other_role, peer.is_witness),
            _ => topology.set_peer(region, store, peer.role(), !peer.is_witness),
        }
    }

    fn neighbour(&self, region: u64, side: u16) -> Option<u64> {
        let regions = self.cluster.topology().regions();
        let region = regions.get(region)?;
        let next = regions.iter().find(|next| next.meta.start_key == region.meta.end_key && next.id() != region.id());
        let previous =
            regions.iter().find(|next| next.meta.end_key == region.meta.start_key && next.id() != region.id());
        let [first, second] = if side % 2 == 0 { [next, previous] } else { [previous, next] };
        first.or(second).map(crate::cluster::Region::id)
    }

    // ---- PD ----

    fn hit_pd(&mut self, fault: &Injection, until: Time) {
        let member = self.member_of(fault);
        match fault.kind {
            FaultKind::PdCrash => {
                self.cluster.pd_mut().stop_member(member);
                self.close_streams_to(member);
                self.queue.push(until, Event::Mend(Mend::PdMember(member)));
            }
            FaultKind::PdLeader => {
                let runs = self.cluster.pd().members().iter().any(|known| known.id == member && known.running);
                if runs && self.cluster.pd().leader().is_some() {
                    self.cluster.pd_mut().set_leader(Some(member));
                }
            }
            _ => {
                self.cluster.freeze_pd();
                self.queue.push(until, Event::Mend(Mend::PdRegions));
            }
        }
    }

    /// The clock that timestamps follow jumps; or they run ahead of it for a while, and then stand still until it has caught
    /// up.
    fn jump_timestamps(&mut self, fault: &Injection) {
        let ms = u64::from(fault.amount);
        if fault.other % 2 == 0 {
            self.cluster.pd_mut().advance_clock(ms);
        } else {
            let now = self.cluster.pd_mut().next_timestamp(self.now);
            let ahead = Timestamp::compose(now.physical_ms() + ms.min(LONGEST_STANDSTILL_MS), 0);
            self.cluster.pd_mut().advance_timestamps(ahead);
        }
    }

    // ---- Clients ----

    fn doom_client(&mut self, fault: &Injection) {
        let index = self.client_of(fault);
        let client = &mut self.clients[index];
        if !client.alive {
            return;
        }
        if fault.kind == FaultKind::ClientCrash {
            client.dies_after = Some(fault.amount);
            client.down_for = micros(fault.duration_us);
        } else {
            client.cancels_after = Some(fault.amount);
        }
    }

    /// The client dies now: what it has not sent yet is never sent.
    pub(super) fn kill_client(&mut self, index: usize) -> Check {
        for session in 0..self.clients[index].sessions.len() {
            self.abandon_session(index, session, true)?;
        }
        let client = &mut self.clients[index];
        client.alive = false;
        let until = self.now + client.down_for;
        let number = client.id.number;
        self.trace.add(
            self.now,
            Entry::at(Node::Client(number), TraceKind::Recovered("never, this life")),
            String::new,
        );
        self.queue.push(until, Event::Mend(Mend::Client(number)));
        Ok(())
    }

    /// The client loses interest in all it does.
    pub(super) fn cancel_all(&mut self, index: usize) -> Check {
        let local = self.local_now(index);
        let running: Vec<_> = self.clients[index].running.keys().copied().collect();
        for id in running {
            self.clients[index].engine.cancel(local, id);
        }
        self.clients[index].running.clear();
        for session in 0..self.clients[index].sessions.len() {
            if !self.clients[index].sessions[session].is_idle() {
                self.abandon_session(index, session, false)?;
                self.become_idle(index, session);
            }
        }
        Ok(())
    }

    fn abandon_session(&mut self, index: usize, session: usize, died: bool) -> Check {
        let mut state = std::mem::replace(&mut self.clients[index].sessions[session].state, State::Idle);
        let (start_ts, how) = match &state {
            State::Idle | State::Sweeping(_) => return Ok(()),
            // It has ended and was counted.
            State::Asking(_) => return self.abandon(&state, died),
            State::Beginning { .. } => (Timestamp::ZERO, "given up"),
            State::Reading(open) | State::Locking(open, _) => (open.txn.start_ts(), "given up"),
            State::Committing(txn) => (txn.start_ts(), "abandoned"),
            State::Pipelined(now) => (now.txn.start_ts(), "abandoned"),
            State::ReadingNewest(..) | State::Raw(_) => (Timestamp::ZERO, "abandoned"),
        };
        self.totals.abandoned += 1;
        self.note_end(index, session, start_ts, how);
        self.abandon(&state, died)?;
        if !died {
            self.release(index, state.release());
            if let State::Pipelined(now) = &mut state {
                let finish = now.release();
                self.finish_flushed(index, finish);
            }
        }
        Ok(())
    }

    fn pause_client(&mut self, fault: &Injection, until: Time) {
        let index = self.client_of(fault);
        let client = &mut self.clients[index];
        client.paused_until = until.max(client.paused_until);
        client.holdups += 1;
    }

    fn jump_clock(&mut self, fault: &Injection) -> Check {
        let index = self.client_of(fault);
        self.clients[index].clock.jump(fault.amount.into());
        self.clients[index].holdups += 1;
        if self.clients[index].alive { self.pump(index) } else { Ok(()) }
    }

    // ---- The end of it ----

    pub(super) fn mend(&mut self, mend: Mend) -> Check {
        let (node, name) = match mend {
            Mend::Store(store) => {
                // It may be running already.
                let _ = self.cluster.start_store(self.now, store);
                (Node::Store(store), "as a store")
            }
            Mend::PdMember(member) => {
                self.cluster.pd_mut().start_member(member);
                (Node::Pd(member), "as a member of PD")
            }
            Mend::PdRegions => {
                self.cluster.thaw_pd();
                (Node::World, "what PD knows")
            }
            Mend::Client(number) => {
                self.restart_client(usize::from(number));
                (Node::Client(number), "as a client")
            }
        };
        self.trace.add(self.now, Entry::at(node, TraceKind::Recovered(name)), String::new);
        Ok(())
    }

    fn restart_client(&mut self, index: usize) {
        if self.clients[index].alive {
            return;
        }
        let mut rng = self.clients[index].rng.child();
        let engine = self.new_engine(&self.config, &mut rng);
        self.totals.transitions.add(self.clients[index].engine.transitions());
        self.clients[index].restart(engine);
        if self.phase == Phase::Safety {
            for session in 0..self.clients[index].sessions.len() {
                self.give_turn(index, session);
            }
        }
    }

    /// From now on nothing goes wrong any more.
    pub(super) fn heal(&mut self) {
        self.network.heal();
        let stores: Vec<u64> = self.stores.keys().copied().collect();
        for store in stores {
            if !self.cluster.topology().is_running(store) {
                let _ = self.cluster.start_store(self.now, store);
            }
            if let Some(state) = self.stores.get_mut(&store) {
                *state = super::StoreState { life: state.life, ..super::StoreState::default() };
            }
        }
        for member in 1..=u64::from(self.scenario.options.pd_members) {
            self.cluster.pd_mut().start_member(member);
        }
        self.cluster.thaw_pd();
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            client.paused_until = Time::ZERO;
            client.dies_after = None;
            client.cancels_after = None;
            self.restart_client(index);
        }
    }
}

/// Whether a fault has an end. A doomed client is not over before it has died and come back, which is told by itself.
fn lasts(kind: FaultKind) -> bool {
    use FaultKind::{Cancel, ClientCrash, ClockJump, LeaderTransfer, Merge, PdLeader, Split, TsoJump};

    !matches!(kind, Cancel | ClientCrash | ClockJump | LeaderTransfer | Merge | PdLeader | Split | TsoJump)
}

fn micros(amount: u32) -> Duration {
    Duration::from_micros(amount.into())
}
