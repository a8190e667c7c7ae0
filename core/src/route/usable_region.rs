//! From the description of a region to what requests can be sent to.

use std::sync::Arc;

use bytes::Bytes;
use tikv_proto::metapb::{self, PeerRole};

use crate::error::PdError;
use crate::keyspace::KeyCodec;
use crate::knowledge::Knowledge;
use crate::knowledge::regions::{Buckets, Region, RegionVerId, Replica};
use crate::knowledge::stores::Engine;
use crate::request::pd::PdRegion;

/// The region with the replicas that can be used: not those that are down, on stores that are gone, or witnesses (which
/// hold no data) other than the leader. `None` if none of them is on a TiKV store. client-go: `newRegion`.
///
/// # Errors
///
/// [`PdError::Malformed`] if the bounds are of another kind of client.
pub(super) fn usable_region(knowledge: &Knowledge, described: &PdRegion) -> Result<Option<Region>, PdError> {
    let meta = &described.region;
    let codec = knowledge.codec();
    let range = codec.decode_region_range(&meta.start_key, &meta.end_key).map_err(|error| PdError::Malformed {
        address: Arc::from(""),
        method: "GetRegion",
        detail: format!("bounds of region {}: {error}", meta.id).into(),
    })?;
    let leader_id = described.leader.as_ref().map_or(0, |leader| leader.id);
    let is_down = |peer: &metapb::Peer| described.down_peers.iter().any(|down| down.id == peer.id);
    let (mut replicas, mut leader, mut voter, mut any) = (Vec::with_capacity(meta.peers.len()), None, None, None);
    for peer in &meta.peers {
        let is_leader = peer.id == leader_id;
        if is_down(peer) || (peer.is_witness && !is_leader) {
            continue;
        }
        let Some(store) = knowledge.stores.get(peer.store_id) else { continue };
        if store.engine == Engine::TiKv {
            let index = Some(replicas.len());
            leader = leader.or(index.filter(|_| is_leader));
            voter = voter.or(index.filter(|_| peer.role() != PeerRole::Learner));
            any = any.or(index);
        }
        replicas.push(Replica { peer: *peer, store_epoch: store.epoch });
    }
    // Without a known leader the first that could be one is as good as any: it will say who leads.
    let Some(leader) = leader.or(voter).or(any) else { return Ok(None) };
    let epoch = meta.region_epoch.unwrap_or_default();
    Ok(Some(Region {
        ver_id: RegionVerId { id: meta.id, conf_ver: epoch.conf_ver, version: epoch.version },
        range,
        replicas,
        leader,
        buckets: (described.buckets.as_ref())
            .and_then(|buckets| decode_buckets(codec, buckets.version, &buckets.keys))
            .map(Arc::new),
    }))
}

/// Buckets in the client's keys; `None` if there are none, or they are of another kind of client: they only make things
/// faster.
pub(super) fn decode_buckets(codec: KeyCodec, version: u64, keys: &[Bytes]) -> Option<Buckets> {
    let keys: Vec<_> = keys.iter().map(|key| codec.decode_region_key(key)).collect::<Result<_, _>>().ok()?;
    (!keys.is_empty()).then_some(Buckets { version, keys })
}
