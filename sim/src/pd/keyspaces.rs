//! Keyspaces: `DEFAULT`, and those of the options. They are made before the cluster starts and only change their state.

use std::collections::BTreeMap;

use tikv_proto::keyspacepb::keyspace_meta::Keyspace;
use tikv_proto::keyspacepb::{
    GetAllKeyspacesRequest, GetAllKeyspacesResponse, KeyspaceMeta, KeyspaceState, LoadKeyspaceByIdRequest,
    LoadKeyspaceRequest, LoadKeyspaceResponse, LookupKeyspaceRequest, LookupKeyspaceResponse,
    UpdateKeyspaceStateRequest, UpdateKeyspaceStateResponse, get_all_keyspaces_request, load_keyspace_by_id_request,
    update_keyspace_state_request,
};
use tikv_proto::pdpb::ErrorType;

use super::{Answer, Asked, Pd};

/// The keyspace of those who name none.
const DEFAULT: &str = "DEFAULT";
/// The setting that says who collects garbage: `unified` for all together, or `keyspace_level`.
pub(super) const GC_MANAGEMENT_TYPE: &str = "gc_management_type";
/// The keyspace collects its garbage itself.
pub(super) const KEYSPACE_LEVEL: &str = "keyspace_level";
/// PD's text for a keyspace that is not there, which clients look for.
const NOT_FOUND: &str = "keyspace does not exist";

pub(super) fn all(names: &[String], created_at: i64) -> BTreeMap<u32, KeyspaceMeta> {
    let names = std::iter::once(DEFAULT).chain(names.iter().map(String::as_str));
    (0..).zip(names).map(|(id, name)| (id, new(id, name, created_at))).collect()
}

fn new(id: u32, name: &str, created_at: i64) -> KeyspaceMeta {
    KeyspaceMeta {
        name: name.to_owned(),
        state: KeyspaceState::Enabled.into(),
        created_at,
        state_changed_at: created_at,
        config: BTreeMap::new(),
        keyspace: Some(Keyspace::Id(id)),
    }
}

impl Pd {
    /// The keyspaces, by id.
    #[must_use]
    pub fn keyspaces(&self) -> &BTreeMap<u32, KeyspaceMeta> {
        &self.keyspaces
    }

    /// A keyspace, to change it.
    pub fn keyspace_mut(&mut self, id: u32) -> Option<&mut KeyspaceMeta> {
        self.keyspaces.get_mut(&id)
    }
}

fn loaded(cx: &Asked<'_>, keyspace: Option<&KeyspaceMeta>) -> LoadKeyspaceResponse {
    let header = if keyspace.is_some() { cx.header() } else { cx.failed(ErrorType::EntryNotFound, NOT_FOUND) };
    LoadKeyspaceResponse { header, keyspace: keyspace.cloned() }
}

pub(super) fn load(cx: &mut Asked<'_>, request: &LoadKeyspaceRequest) -> Answer<LoadKeyspaceResponse> {
    Ok(loaded(cx, cx.pd.keyspaces.values().find(|keyspace| keyspace.name == request.name)))
}

pub(super) fn load_by_id(cx: &mut Asked<'_>, request: &LoadKeyspaceByIdRequest) -> Answer<LoadKeyspaceResponse> {
    let id = match request.keyspace {
        Some(load_keyspace_by_id_request::Keyspace::Id(id)) => Some(id),
        Some(load_keyspace_by_id_request::Keyspace::KeyspaceIdentity(_)) => None,
        None => Some(0),
    };
    Ok(loaded(cx, id.and_then(|id| cx.pd.keyspaces.get(&id))))
}

pub(super) fn lookup(cx: &mut Asked<'_>, request: &LookupKeyspaceRequest) -> Answer<LookupKeyspaceResponse> {
    let named = |keyspace: &&KeyspaceMeta| keyspace.name == request.name;
    let keyspaces = cx.pd.keyspaces.values().filter(named).cloned().collect();
    Ok(LookupKeyspaceResponse { header: cx.header(), keyspaces })
}

pub(super) fn get_all(cx: &mut Asked<'_>, request: &GetAllKeyspacesRequest) -> Answer<GetAllKeyspacesResponse> {
    let start = match request.start_keyspace {
        Some(get_all_keyspaces_request::StartKeyspace::StartId(id)) => id,
        _ => 0,
    };
    let limit = if request.limit == 0 { usize::MAX } else { request.limit as usize };
    let keyspaces = cx.pd.keyspaces.range(start..).take(limit).map(|(_, keyspace)| keyspace.clone()).collect();
    Ok(GetAllKeyspacesResponse { header: cx.header(), keyspaces })
}

pub(super) fn update_state(
    cx: &mut Asked<'_>,
    request: &UpdateKeyspaceStateRequest,
) -> Answer<UpdateKeyspaceStateResponse> {
    let changed_at = i64::try_from(cx.pd.wall_clock_ms(cx.now) / 1_000).unwrap_or(i64::MAX);
    let id = match request.keyspace {
        Some(update_keyspace_state_request::Keyspace::Id(id)) => id,
        _ => 0,
    };
    let wanted = request.state();
    let Some(keyspace) = cx.pd.keyspaces.get_mut(&id) else {
        let header = cx.failed(ErrorType::EntryNotFound, NOT_FOUND);
        return Ok(UpdateKeyspaceStateResponse { header, keyspace: None });
    };
    if !may_become(keyspace.state(), wanted) || id == 0 {
        let message = format!("cannot change keyspace {} to {wanted:?}", keyspace.name);
        let header = cx.failed(ErrorType::Unknown, message);
        return Ok(UpdateKeyspaceStateResponse { header, keyspace: None });
    }
    keyspace.set_state(wanted);
    keyspace.state_changed_at = changed_at;
    let keyspace = Some(keyspace.clone());
    Ok(UpdateKeyspaceStateResponse { header: cx.header(), keyspace })
}

/// A keyspace goes from enabled to disabled and back, then is archived, then gone.
fn may_become(from: KeyspaceState, to: KeyspaceState) -> bool {
    use KeyspaceState::{Archived, Disabled, Enabled, Tombstone};
    from == to || matches!((from, to), (Enabled, Disabled) | (Disabled, Enabled | Archived) | (Archived, Tombstone))
}
