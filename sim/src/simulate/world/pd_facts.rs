//! What messages to and from PD say, for people.

use bytes::Bytes;
use prost::Message;
use tikv_proto::pdpb;

/// What is asked, as far as it is of interest.
pub(super) fn asked(path: &str, body: &Bytes) -> String {
    match path {
        "/pdpb.PD/Tso" => shown(body, |ask: pdpb::TsoRequest| format!("{} timestamps", ask.count)),
        "/pdpb.PD/GetRegion" => {
            shown(body, |ask: pdpb::GetRegionRequest| format!("the region of {:?}", ask.region_key))
        }
        "/pdpb.PD/GetStore" => shown(body, |ask: pdpb::GetStoreRequest| format!("store {}", ask.store_id)),
        _ => String::new(),
    }
}

/// What is answered.
pub(super) fn answered(path: &str, body: &Bytes) -> String {
    match path {
        "/pdpb.PD/Tso" => shown(body, |answer: pdpb::TsoResponse| {
            let last = answer.timestamp.unwrap_or_default();
            format!("{} timestamps up to {}", answer.count, (last.physical << 18) + last.logical)
        }),
        "/pdpb.PD/GetRegion" => shown(body, |answer: pdpb::GetRegionResponse| {
            let region = answer.region.unwrap_or_default();
            let epoch = region.region_epoch.unwrap_or_default();
            let leader = answer.leader.map_or(0, |peer| peer.store_id);
            let (start, end) = (region.start_key, region.end_key);
            format!(
                "region {} v{} c{} {start:?}..{end:?}, leader store-{leader}",
                region.id, epoch.version, epoch.conf_ver
            )
        }),
        "/pdpb.PD/GetStore" => shown(body, |answer: pdpb::GetStoreResponse| {
            let store = answer.store.unwrap_or_default();
            format!("store-{} at {}", store.id, store.address)
        }),
        "/pdpb.PD/GetMembers" => shown(body, |answer: pdpb::GetMembersResponse| {
            let leader = answer.leader.map_or_else(|| "nobody".to_owned(), |member| format!("pd-{}", member.member_id));
            format!("{} members, led by {leader}", answer.members.len())
        }),
        _ => String::new(),
    }
}

fn shown<M: Message + Default>(body: &Bytes, show: impl FnOnce(M) -> String) -> String {
    M::decode(body.clone()).map_or_else(|error| error.to_string(), show)
}
