//! The placement driver: members, timestamps, the map of the cluster, safe points, and a key-value store.
//!
//! All members share one state; what differs is which one leads. A call names its gRPC path ([`PdCall`]) and carries one
//! message: a unary request, or one message of a stream. [`shape`] tells servers which is which.
//!
//! Not simulated, and therefore answered by `Unimplemented`: heartbeats of regions and stores' reports, the region
//! synchronisation of members, namespaces, leases and watches of etcd itself, the separate TSO and scheduling services.
//! PD's HTTP API is where the cluster is served (`serve`).

mod etcd;
mod gc;
mod gc_calls;
mod keyspaces;
mod kv;
mod members;
mod regions;
mod resources;
mod routes;
mod settings;
#[cfg(test)]
mod tests;
mod tso;

use std::collections::BTreeMap;

use bytes::Bytes;
use tikv_core::time::Time;
use tikv_proto::keyspacepb::KeyspaceMeta;
use tikv_proto::pdpb::{Error, ErrorType, ResponseHeader};

use self::gc::Gc;
pub use self::keyspaces::{KeyspaceError, keyspace_id};
use self::kv::Kv;
pub use self::members::Member;
pub use self::routes::{Shape, shape};
pub use self::settings::Watch;
use self::tso::Oracle;
use crate::cluster::{ClusterOptions, Regions, Topology};
use crate::status::{Code, Status};

/// Stands for no keyspace at all.
const NULL_KEYSPACE: u32 = u32::MAX;

/// A call to a member of PD, without its message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PdCall<'a> {
    /// The member that is called.
    pub member: u64,
    /// `/package.Service/Method`.
    pub path: &'a str,
    /// Metadata `pd-forwarded-host`: the URL of the member that is to answer, through the one that is called.
    pub forwarded_host: Option<&'a str>,
    /// Metadata `pd-allow-follower-handle`: a member that does not lead may answer.
    pub allow_follower: bool,
}

/// The state of PD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pd {
    members: Vec<Member>,
    leader: Option<u64>,
    etcd_term: u64,
    replicas: u32,
    oracle: Oracle,
    external_timestamp: u64,
    kv: Kv,
    gc: Gc,
    keyspaces: BTreeMap<u32, KeyspaceMeta>,
    /// What PD still believes of regions.
    frozen_regions: Option<Regions>,
}

/// What a handler answers.
type Answer<T> = Result<T, Status>;

/// One call to a member, as its handler sees the world.
#[derive(Debug)]
struct Asked<'a> {
    now: Time,
    member: u64,
    pd: &'a mut Pd,
    topology: &'a mut Topology,
}

impl Pd {
    pub(crate) fn new(options: &ClusterOptions) -> Self {
        let members: Vec<Member> = (1..=options.pd_members.max(1) as u64).map(Member::new).collect();
        let created_at = i64::try_from(options.wall_clock_ms / 1_000).unwrap_or(i64::MAX);
        Pd {
            leader: members.first().map(|member| member.id),
            members,
            etcd_term: 2,
            replicas: u32::try_from(options.replicas).unwrap_or(u32::MAX),
            oracle: Oracle::new(options.wall_clock_ms),
            external_timestamp: 0,
            kv: Kv::default(),
            gc: Gc::default(),
            keyspaces: keyspaces::all(&options.keyspaces, created_at),
            frozen_regions: None,
        }
    }

    pub(crate) fn set_frozen_regions(&mut self, regions: Option<Regions>) {
        self.frozen_regions = regions;
    }

    /// Answers one message.
    pub(crate) fn handle(
        &mut self,
        now: Time,
        topology: &mut Topology,
        call: &PdCall<'_>,
        message: Bytes,
    ) -> Result<Bytes, Status> {
        let member = self.answering_member(call)?;
        let mut asked = Asked { now, member, pd: self, topology };
        routes::answer(&mut asked, call, message)
    }

    /// Begins to watch; what has happened then comes out of [`Pd::poll_watch`].
    ///
    /// # Errors
    ///
    /// If the path is none that can be watched, or the member cannot serve it.
    pub fn watch(&self, call: &PdCall<'_>, request: Bytes) -> Result<Watch, Status> {
        let member = self.answering_member(call)?;
        if self.leader != Some(member) {
            return Err(not_leader());
        }
        routes::watch(self, call.path, request)
    }

    /// The revision of the key-value store: it rises with every change.
    #[must_use]
    pub fn settings_revision(&self) -> i64 {
        self.kv.revision()
    }

    fn answering_member(&self, call: &PdCall<'_>) -> Result<u64, Status> {
        let called = self.member(call.member).filter(|member| member.running);
        let called = called.ok_or_else(|| Status::new(Code::Unavailable, "server not started"))?;
        let Some(host) = call.forwarded_host.filter(|host| !host.is_empty()) else { return Ok(called.id) };
        let target = self.members.iter().find(|member| member.client_url == host && member.running);
        let target = target.ok_or_else(|| Status::new(Code::Unavailable, format!("cannot forward to {host}")))?;
        Ok(target.id)
    }
}

impl Asked<'_> {
    fn leads(&self) -> bool {
        self.pd.leader == Some(self.member)
    }

    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { cluster_id: self.topology.cluster_id(), error: None })
    }

    fn failed(&self, kind: ErrorType, message: impl Into<String>) -> Option<ResponseHeader> {
        let error = Error { r#type: kind.into(), message: message.into() };
        Some(ResponseHeader { cluster_id: self.topology.cluster_id(), error: Some(error) })
    }

    /// PD's words, which clients look for.
    fn check_cluster(&self, sent: u64) -> Result<(), Status> {
        let ours = self.topology.cluster_id();
        if sent == ours {
            return Ok(());
        }
        Err(Status::new(Code::FailedPrecondition, format!("mismatch cluster id, need {ours} but got {sent}")))
    }
}

/// PD's words, which clients look for.
fn not_leader() -> Status {
    Status::new(Code::Unavailable, "not leader")
}
