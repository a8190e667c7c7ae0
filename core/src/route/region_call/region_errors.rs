//! What each region error teaches, and what comes next.

use tikv_proto::{errorpb, metapb};

use super::{AfterSleep, RegionCall, Step};
use crate::backoff::BackoffKind;
use crate::error::CallFailure;
use crate::machine::{Context, Observation};
use crate::request::pd::PdRegion;
use crate::request::{Access, StoreRequest};
use crate::route::region_error::RegionErrorKind;
use crate::route::selector::{Choice, LeaderHint, Selector};
use crate::route::usable_region::{decode_buckets, usable_region};

impl<R: StoreRequest> RegionCall<R> {
    /// The table of region errors.
    pub(super) fn on_region_error(
        &mut self,
        cx: &mut Context<'_>,
        mut selector: Selector,
        choice: &Choice,
        error: &errorpb::Error,
    ) -> Step<R> {
        use RegionErrorKind as Kind;
        let kind = Kind::of(error);
        let ver_id = selector.ver_id();
        let address = choice.store.address.clone();
        self.last = CallFailure::Region { name: kind.name(), region_id: ver_id.id, address };
        cx.observe(Observation::RegionError { name: kind.name(), region_id: ver_id.id, store_id: choice.store.id });
        let regions = &cx.knowledge().regions;
        match kind {
            Kind::UndeterminedResult => self.on_undetermined_result(cx, selector),
            Kind::NotLeader { leader } => {
                match selector.on_not_leader(cx.knowledge(), choice.replica, leader.as_ref()) {
                    LeaderHint::Known { too_often: false } => self.send(cx, selector),
                    LeaderHint::Known { too_often: true } | LeaderHint::None => {
                        self.back_off(cx, BackoffKind::RegionScheduling, AfterSleep::SelectAgain(selector))
                    }
                    LeaderHint::Stranger => {
                        regions.invalidate(ver_id);
                        self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::Relocate)
                    }
                }
            }
            Kind::RegionNotFound => {
                regions.invalidate(ver_id);
                if selector.on_region_not_found(cx.knowledge()) {
                    return self.send(cx, selector);
                }
                self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::Relocate)
            }
            Kind::EpochNotMatch { current } => self.on_epoch_not_match(cx, selector, choice, current),
            Kind::BucketVersionNotMatch { version, keys } => {
                if let Some(buckets) = decode_buckets(cx.knowledge().codec(), version, &keys) {
                    regions.learn_buckets(ver_id, buckets);
                }
                self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::Relocate)
            }
            Kind::KeyNotInRegion | Kind::MismatchPeerId => {
                regions.invalidate(ver_id);
                self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::Relocate)
            }
            Kind::StoreNotMatch => {
                regions.invalidate(ver_id);
                // Of many calls that meet this at once, the first has the connection made anew.
                if cx.knowledge().stores.request_check(choice.store.id) {
                    cx.reconnect(choice.store.address.clone());
                }
                self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::Relocate)
            }
            Kind::RecoveryInProgress => {
                regions.invalidate(ver_id);
                self.back_off(cx, BackoffKind::RegionRecoveryInProgress, AfterSleep::Relocate)
            }
            Kind::IsWitness => {
                regions.invalidate(ver_id);
                self.back_off(cx, BackoffKind::IsWitness, AfterSleep::Relocate)
            }
            Kind::FlashbackInProgress if choice.replica_read => {
                selector.forbid_replica_reads();
                self.send(cx, selector)
            }
            Kind::FlashbackInProgress
            | Kind::FlashbackNotPrepared
            | Kind::RaftEntryTooLarge
            | Kind::InvalidMaxTsUpdate => {
                let message = if error.message.is_empty() { kind.name() } else { &error.message };
                self.refused(choice, message)
            }
            Kind::DeadlineExceeded if self.is_short_read() => {
                selector.on_short_timeout(choice.replica);
                self.send(cx, selector)
            }
            Kind::DeadlineExceeded => self.on_busy(cx, selector, choice, 0),
            Kind::ServerIsBusy { estimated_wait_ms } => self.on_busy(cx, selector, choice, estimated_wait_ms),
            Kind::DiskFull => self.back_off(cx, BackoffKind::TikvDiskFull, AfterSleep::SelectAgain(selector)),
            Kind::MaxTimestampNotSynced => {
                self.back_off(cx, BackoffKind::MaxTsNotSynced, AfterSleep::SelectAgain(selector))
            }
            Kind::RegionNotInitialized => {
                self.back_off(cx, BackoffKind::RegionNotInitialized, AfterSleep::SelectAgain(selector))
            }
            Kind::DataIsNotReady if self.options.context.stale_read && !self.stale_read_failed => {
                self.stale_read_failed = true;
                self.send(cx, selector)
            }
            Kind::ReadIndexNotReady | Kind::ProposalInMergingMode | Kind::DataIsNotReady => {
                self.back_off(cx, BackoffKind::RegionScheduling, AfterSleep::SelectAgain(selector))
            }
            Kind::StaleCommand => self.on_stale_command(cx, selector),
            // client-go repeats this at once, up to ten times; a short back-off keeps that from being a hammer.
            Kind::Other => self.back_off(cx, BackoffKind::StaleCommand, AfterSleep::SelectAgain(selector)),
        }
    }

    /// The server does not know whether the write was applied.
    fn on_undetermined_result(&mut self, cx: &mut Context<'_>, selector: Selector) -> Step<R> {
        self.maybe_executed = true;
        if self.repeatable && !self.at_most_once {
            return self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::SelectAgain(selector));
        }
        self.undetermined()
    }

    /// The leader was deposed while the request was on its way through Raft. It may yet be applied by the next one.
    ///
    /// Like other errors without a cure, client-go repeats this at once, up to ten times; here a short back-off is made.
    fn on_stale_command(&mut self, cx: &mut Context<'_>, selector: Selector) -> Step<R> {
        self.maybe_executed |= R::FACTS.access != Access::Read;
        if self.at_most_once && self.maybe_executed {
            return self.undetermined();
        }
        self.back_off(cx, BackoffKind::StaleCommand, AfterSleep::SelectAgain(selector))
    }

    fn on_busy(
        &mut self,
        cx: &mut Context<'_>,
        mut selector: Selector,
        choice: &Choice,
        estimated_wait_ms: u32,
    ) -> Step<R> {
        if selector.on_busy(cx.knowledge(), choice.replica, estimated_wait_ms) {
            return self.send(cx, selector);
        }
        self.back_off(cx, BackoffKind::TikvServerBusy, AfterSleep::SelectAgain(selector))
    }

    /// The store has other regions in this one's place.
    fn on_epoch_not_match(
        &mut self,
        cx: &mut Context<'_>,
        selector: Selector,
        choice: &Choice,
        current: Vec<metapb::Region>,
    ) -> Step<R> {
        let ver_id = selector.ver_id();
        let ours = current.iter().find(|region| region.id == ver_id.id).and_then(|region| region.region_epoch);
        if ours.is_some_and(|epoch| epoch.conf_ver < ver_id.conf_ver || epoch.version < ver_id.version) {
            // The store has not yet applied the split or change that PD told us of: it will.
            return self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::SelectAgain(selector));
        }
        cx.knowledge().regions.invalidate(ver_id);
        let told_where = !current.is_empty();
        for region in current {
            learn_region(cx, region, choice.store.id);
        }
        self.epoch_mismatches += 1;
        // Once is news; a store that goes on like this does not lead anywhere.
        if told_where && self.epoch_mismatches == 1 && !self.is_retry {
            return self.relocate(cx);
        }
        self.back_off(cx, BackoffKind::RegionMiss, AfterSleep::Relocate)
    }
}

/// Learns a region from a store, which is likely to lead it. If it cannot be used as described (a store is not known yet,
/// say), it will be asked for when it is needed.
fn learn_region(cx: &Context<'_>, region: metapb::Region, store_id: u64) {
    let knowledge = cx.knowledge();
    if region.peers.iter().any(|peer| knowledge.stores.get(peer.store_id).is_none()) {
        return;
    }
    let leader = region.peers.iter().find(|peer| peer.store_id == store_id).copied();
    let described = PdRegion { region, leader, ..PdRegion::default() };
    if let Ok(Some(region)) = usable_region(knowledge, &described) {
        knowledge.regions.insert(cx.now(), region);
    }
}
