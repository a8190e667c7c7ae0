//! Keyspaces: `DEFAULT`, those of the options, and those made later.

use std::collections::BTreeMap;

use tikv_core::time::Time;
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
/// The longest name of a keyspace, in bytes.
const LONGEST_NAME: usize = 20;

/// Why PD has no such keyspace, or makes none. The texts are PD's: clients look for them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyspaceError {
    /// There is none of that name or id.
    #[error("keyspace does not exist")]
    NotFound,
    /// There is one of that name.
    #[error("keyspace already exists")]
    Exists,
    /// The name has other characters than letters, digits, `-` and `_`, or too many of them, or is reserved.
    #[error("illegal keyspace name {0}")]
    IllegalName(String),
}

/// The id of a keyspace.
#[must_use]
pub fn keyspace_id(keyspace: &KeyspaceMeta) -> u32 {
    match keyspace.keyspace {
        Some(Keyspace::Id(id)) => id,
        _ => 0,
    }
}

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

    /// Makes a keyspace, with an id greater than all others.
    ///
    /// # Errors
    ///
    /// If there is one of that name, or there may be none.
    pub fn create_keyspace(
        &mut self,
        now: Time,
        name: &str,
        config: BTreeMap<String, String>,
    ) -> Result<KeyspaceMeta, KeyspaceError> {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(is_legal) {
            return Err(KeyspaceError::IllegalName(name.to_owned()));
        }
        if self.keyspaces.values().any(|keyspace| keyspace.name == name) {
            return Err(KeyspaceError::Exists);
        }
        let id = self.keyspaces.last_key_value().map_or(0, |(id, _)| id + 1);
        let created_at = i64::try_from(self.wall_clock_ms(now) / 1_000).unwrap_or(i64::MAX);
        let keyspace = KeyspaceMeta { config, ..new(id, name, created_at) };
        self.keyspaces.insert(id, keyspace.clone());
        Ok(keyspace)
    }

    /// A keyspace, to change it.
    pub fn keyspace_mut(&mut self, id: u32) -> Option<&mut KeyspaceMeta> {
        self.keyspaces.get_mut(&id)
    }
}

fn loaded(cx: &Asked<'_>, keyspace: Option<&KeyspaceMeta>) -> LoadKeyspaceResponse {
    let header = if keyspace.is_some() {
        cx.header()
    } else {
        cx.failed(ErrorType::EntryNotFound, KeyspaceError::NotFound.to_string())
    };
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
        let header = cx.failed(ErrorType::EntryNotFound, KeyspaceError::NotFound.to_string());
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
