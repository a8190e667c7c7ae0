//! Members of PD: who they are, which one leads.

use tikv_proto::health::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};
use tikv_proto::pdpb::{
    AllocIdRequest, AllocIdResponse, BootstrapRequest, BootstrapResponse, ErrorType, GetClusterConfigRequest,
    GetClusterConfigResponse, GetClusterInfoRequest, GetClusterInfoResponse, GetDcLocationInfoRequest,
    GetDcLocationInfoResponse, GetMembersRequest, GetMembersResponse, IsBootstrappedRequest, IsBootstrappedResponse,
    IsSnapshotRecoveringRequest, IsSnapshotRecoveringResponse, Member as MemberInfo, ServiceMode, SyncMaxTsRequest,
    SyncMaxTsResponse,
};
use tikv_proto::{etcdserverpb, metapb};

use super::{Answer, Asked, Pd};

/// A member of PD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where clients find it, as a URL.
    pub client_url: String,
    /// Whether it runs.
    pub running: bool,
}

impl Member {
    pub(super) fn new(id: u64) -> Self {
        Member { id, name: format!("pd-{id}"), client_url: format!("http://pd-{id}:2379"), running: true }
    }

    fn info(&self) -> MemberInfo {
        MemberInfo {
            name: self.name.clone(),
            member_id: self.id,
            peer_urls: vec![self.client_url.clone()],
            client_urls: vec![self.client_url.clone()],
            binary_version: crate::cluster::VERSION.to_owned(),
            ..MemberInfo::default()
        }
    }
}

impl Pd {
    /// The members, by id.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A member, to change it. To stop one use [`Pd::stop_member`].
    pub fn member_mut(&mut self, id: u64) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    pub(super) fn member(&self, id: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The member that leads.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        self.leader
    }

    /// Makes a member the leader; nobody, if it does not run.
    pub fn set_leader(&mut self, id: Option<u64>) {
        self.leader = id.filter(|id| self.member(*id).is_some_and(|member| member.running));
        self.etcd_term += 1;
    }

    /// Stops a member, as a crash does. If it leads, the next one that runs takes over, provided that most do.
    pub fn stop_member(&mut self, id: u64) {
        self.set_running(id, false);
    }

    /// Starts a stopped member.
    pub fn start_member(&mut self, id: u64) {
        self.set_running(id, true);
    }

    fn set_running(&mut self, id: u64, running: bool) {
        if let Some(member) = self.member_mut(id) {
            member.running = running;
        }
        let running = |member: &&Member| member.running;
        let has_quorum = self.members.iter().filter(running).count() * 2 > self.members.len();
        let leads = self.leader.and_then(|id| self.member(id)).is_some_and(|member| member.running);
        if !has_quorum {
            self.leader = None;
        } else if !leads {
            self.set_leader(self.members.iter().find(running).map(|member| member.id));
        }
    }
}

pub(super) fn get_members(cx: &mut Asked<'_>, _: &GetMembersRequest) -> Answer<GetMembersResponse> {
    let leader = cx.pd.leader.and_then(|id| cx.pd.member(id)).map(Member::info);
    Ok(GetMembersResponse {
        header: cx.header(),
        members: cx.pd.members.iter().map(Member::info).collect(),
        etcd_leader: leader.clone(),
        leader,
        ..GetMembersResponse::default()
    })
}

/// PD serves timestamps itself.
pub(super) fn get_cluster_info(cx: &mut Asked<'_>, _: &GetClusterInfoRequest) -> Answer<GetClusterInfoResponse> {
    let service_modes = vec![ServiceMode::PdSvcMode.into()];
    Ok(GetClusterInfoResponse { header: cx.header(), service_modes, tso_urls: Vec::new() })
}

pub(super) fn member_list(
    cx: &mut Asked<'_>,
    _: &etcdserverpb::MemberListRequest,
) -> Answer<etcdserverpb::MemberListResponse> {
    let member = |member: &Member| etcdserverpb::Member {
        id: member.id,
        name: member.name.clone(),
        peer_ur_ls: vec![member.client_url.clone()],
        client_ur_ls: vec![member.client_url.clone()],
        is_learner: false,
    };
    let members = cx.pd.members.iter().map(member).collect();
    Ok(etcdserverpb::MemberListResponse { header: Some(cx.etcd_header()), members })
}

pub(super) fn check_health(_: &mut Asked<'_>, _: &HealthCheckRequest) -> Answer<HealthCheckResponse> {
    Ok(HealthCheckResponse { status: ServingStatus::Serving.into() })
}

pub(super) fn is_bootstrapped(cx: &mut Asked<'_>, _: &IsBootstrappedRequest) -> Answer<IsBootstrappedResponse> {
    Ok(IsBootstrappedResponse { header: cx.header(), bootstrapped: true })
}

pub(super) fn bootstrap(cx: &mut Asked<'_>, _: &BootstrapRequest) -> Answer<BootstrapResponse> {
    let header = cx.failed(ErrorType::AlreadyBootstrapped, "cluster is already bootstrapped");
    Ok(BootstrapResponse { header, ..BootstrapResponse::default() })
}

pub(super) fn alloc_id(cx: &mut Asked<'_>, request: &AllocIdRequest) -> Answer<AllocIdResponse> {
    let count = request.count.max(1);
    let first = cx.topology.alloc_ids(count);
    // The last of them; a single one is not counted.
    let id = first + u64::from(count) - 1;
    Ok(AllocIdResponse { header: cx.header(), id, count: if count > 1 { count } else { 0 } })
}

pub(super) fn get_cluster_config(cx: &mut Asked<'_>, _: &GetClusterConfigRequest) -> Answer<GetClusterConfigResponse> {
    let cluster = metapb::Cluster { id: cx.topology.cluster_id(), max_peer_count: cx.pd.replicas };
    Ok(GetClusterConfigResponse { header: cx.header(), cluster: Some(cluster) })
}

pub(super) fn is_snapshot_recovering(
    cx: &mut Asked<'_>,
    _: &IsSnapshotRecoveringRequest,
) -> Answer<IsSnapshotRecoveringResponse> {
    Ok(IsSnapshotRecoveringResponse { header: cx.header(), marked: false })
}

pub(super) fn sync_max_ts(cx: &mut Asked<'_>, _: &SyncMaxTsRequest) -> Answer<SyncMaxTsResponse> {
    Ok(SyncMaxTsResponse { header: cx.header(), ..SyncMaxTsResponse::default() })
}

pub(super) fn get_dc_location_info(
    cx: &mut Asked<'_>,
    _: &GetDcLocationInfoRequest,
) -> Answer<GetDcLocationInfoResponse> {
    Ok(GetDcLocationInfoResponse { header: cx.header(), ..GetDcLocationInfoResponse::default() })
}
