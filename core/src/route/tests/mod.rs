//! Scripts of everything in this folder, with what they share.

mod access_path;
mod faults;
mod grouping;
mod locate;
mod range_walk;
mod region_call;
mod region_errors;
mod sharded;
mod sharded_anywhere;
mod usable_region;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tikv_proto::{errorpb, kvrpcpb, metapb};

use super::*;
use crate::backoff::BackoffKind;
use crate::config::Config;
use crate::key::Key;
use crate::keyspace::KeyCodec;
use crate::knowledge::Knowledge;
use crate::knowledge::regions::Region;
use crate::machine::script::{Script, knowledge};
use crate::machine::{Command, Event, Machine, SleepReason};
use crate::request::pd::{PdRegion, PdRequest, PdResponse};
use crate::request::{Response, StoreRequest};

/// A peer as [`script::region`](crate::machine::script::region) makes them.
fn peer(region_id: u64, store_id: u64) -> metapb::Peer {
    metapb::Peer { id: region_id * 10 + store_id, store_id, ..Default::default() }
}

/// A region of a transactional client as stores describe it, with peers on stores 1, 2 and 3.
fn region_meta(id: u64, version: u64, range: Range<&str>) -> metapb::Region {
    metapb::Region {
        id,
        start_key: KeyCodec::Txn.encode_region_key(&Key::from(range.start)),
        end_key: KeyCodec::Txn.encode_region_key(&Key::from(range.end)),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version }),
        peers: (1..=3).map(|store| peer(id, store)).collect(),
        ..Default::default()
    }
}

/// A region as PD describes it, led by the peer on store 1.
fn pd_region(id: u64, version: u64, range: Range<&str>) -> PdRegion {
    PdRegion { region: region_meta(id, version, range), leader: Some(peer(id, 1)), ..PdRegion::default() }
}

fn pd_store(id: u64) -> metapb::Store {
    metapb::Store { id, address: format!("store-{id}"), ..Default::default() }
}

fn the_region(region: PdRegion) -> Result<PdResponse, crate::error::PdError> {
    Ok(PdResponse::Region(Some(Arc::new(region))))
}

fn the_store(store: metapb::Store) -> Result<PdResponse, crate::error::PdError> {
    Ok(PdResponse::Store(Some(Arc::new(store))))
}

fn by_key(key: &str, leader_only: bool) -> PdRequest {
    PdRequest::RegionByKey { key: KeyCodec::Txn.encode_region_key(&Key::from(key)), leader_only }
}

/// The question for the last region.
fn behind_all_keys(leader_only: bool) -> PdRequest {
    PdRequest::RegionByKey { key: KeyCodec::Txn.encode_region_key(&Key::from(vec![0xff; 64])), leader_only }
}

fn options() -> CallOptions {
    CallOptions::new(&Config::default())
}

fn budget_of(seconds: u64) -> Backoff {
    Backoff::new(Duration::from_secs(seconds))
}

fn get_request() -> kvrpcpb::GetRequest {
    kvrpcpb::GetRequest { key: "k".into(), ..Default::default() }
}

/// A get from the only region.
fn get(knowledge: &Knowledge, options: CallOptions) -> RegionCall<kvrpcpb::GetRequest> {
    RegionCall::to_region(the_known_region(knowledge), get_request(), options, budget_of(40))
}

fn prewrite(knowledge: &Knowledge, options: CallOptions) -> RegionCall<kvrpcpb::PrewriteRequest> {
    let request = kvrpcpb::PrewriteRequest::default();
    RegionCall::to_region(the_known_region(knowledge), request, options, budget_of(40))
}

fn the_known_region(knowledge: &Knowledge) -> Arc<Region> {
    knowledge.regions.lookup(Time::ZERO, b"k").expect("a region that holds k")
}

/// Region 1 over all keys, and stores 1, 2 and 3.
fn one_region() -> Knowledge {
    knowledge(KeyCodec::Txn, [crate::machine::script::region(1, "".."")])
}

fn not_leader(leader: Option<metapb::Peer>) -> errorpb::Error {
    errorpb::Error { not_leader: Some(errorpb::NotLeader { region_id: 1, leader }), ..Default::default() }
}

fn epoch_not_match(current_regions: Vec<metapb::Region>) -> errorpb::Error {
    errorpb::Error { epoch_not_match: Some(errorpb::EpochNotMatch { current_regions }), ..Default::default() }
}

fn busy(reason: &str, estimated_wait_ms: u32) -> errorpb::Error {
    let busy = errorpb::ServerIsBusy { reason: reason.into(), estimated_wait_ms, ..Default::default() };
    errorpb::Error { server_is_busy: Some(busy), ..Default::default() }
}

/// Expects a back-off of this kind, and wakes the machine.
fn back_off<M: Machine>(script: &mut Script<M>, kind: BackoffKind)
where
    M::Output: Debug,
{
    script.expect_sleep(|duration, reason| {
        assert_eq!(reason, SleepReason::Backoff(kind));
        assert!(duration <= Duration::from_millis(kind.facts().cap_ms.into()), "{duration:?}");
    });
    script.wake();
}
