mod gc;
mod map;
mod members;
mod storage;

use bytes::Bytes;
use prost::Message;
use tikv_core::time::Time;
use tikv_proto::pdpb::{RequestHeader, TsoRequest, TsoResponse};

use super::*;
use crate::cluster::{Cluster, ClusterOptions, encoded};

const NOW: Time = Time::from_millis(10_000);

fn cluster() -> Cluster {
    Cluster::new(ClusterOptions { split_keys: Some(vec![encoded(b"m")]), ..ClusterOptions::default() })
}

fn header(cluster: &Cluster) -> Option<RequestHeader> {
    Some(RequestHeader { cluster_id: cluster.topology().cluster_id(), ..RequestHeader::default() })
}

fn call(cluster: &mut Cluster, now: Time, call: &PdCall<'_>, request: &impl Message) -> Result<Bytes, Status> {
    cluster.handle_pd(now, call, request.encode_to_vec().into())
}

/// Asks the leader.
fn ask<R: Message + Default>(cluster: &mut Cluster, path: &str, request: &impl Message) -> R {
    let member = cluster.pd().leader().expect("somebody leads");
    let answer = call(cluster, NOW, &PdCall { member, path, ..PdCall::default() }, request);
    R::decode(answer.expect("PD answers")).expect("the answer is of the right type")
}

fn refusal(cluster: &mut Cluster, path: &str, request: &impl Message) -> Status {
    let asked = PdCall { member: 1, path, ..PdCall::default() };
    call(cluster, NOW, &asked, request).expect_err("PD refuses")
}

/// The last of `count` new timestamps.
fn take_timestamps(cluster: &mut Cluster, now: Time, count: u32) -> (i64, i64) {
    let request = TsoRequest { header: header(cluster), count, ..TsoRequest::default() };
    let path = PdCall { member: cluster.pd().leader().unwrap(), path: "/pdpb.PD/Tso", ..PdCall::default() };
    let answer = call(cluster, now, &path, &request).expect("the leader gives timestamps");
    let response = TsoResponse::decode(answer).unwrap();
    assert_eq!(response.count, count);
    let timestamp = response.timestamp.unwrap();
    (timestamp.physical, timestamp.logical)
}
