//! Resource groups. Whatever a client asks of tokens is granted: nothing here is short of anything.

use prost::Message;
use tikv_proto::resource_manager::{
    DeleteResourceGroupRequest, DeleteResourceGroupResponse, GetResourceGroupRequest, GetResourceGroupResponse,
    GrantedRuTokenBucket, GroupMode, GroupRequestUnitSettings, KeyspaceIdValue, ListResourceGroupsRequest,
    ListResourceGroupsResponse, PutResourceGroupRequest, PutResourceGroupResponse, ResourceGroup, TokenBucket,
    TokenBucketRequest, TokenBucketResponse, TokenBucketsRequest, TokenBucketsResponse, TokenLimitSettings,
    keyspace_id_value, token_bucket_request,
};

use super::kv::{range_of, with_prefix};
use super::{Answer, Asked, NULL_KEYSPACE, Pd};
use crate::status::{Code, Status};

/// The group of those who name none.
const DEFAULT: &str = "default";
const DONE: &str = "Success!";
/// The default group's fill rate, which no one exceeds.
const UNLIMITED: u64 = i32::MAX as u64;

/// Where the groups of a keyspace are kept: clients watch these keys.
fn folder(keyspace_id: u32) -> String {
    match keyspace_id {
        NULL_KEYSPACE => "resource_group/settings/".to_owned(),
        id => format!("resource_group/keyspace/settings/{id}/"),
    }
}

fn keyspace_of(value: Option<&KeyspaceIdValue>) -> u32 {
    match value.and_then(|value| value.keyspace.as_ref()) {
        Some(keyspace_id_value::Keyspace::Value(id)) => *id,
        _ => NULL_KEYSPACE,
    }
}

/// Without limit, as after a cluster's set-up.
pub(super) fn default_group() -> ResourceGroup {
    let settings = TokenLimitSettings { fill_rate: UNLIMITED, burst_limit: -1, ..TokenLimitSettings::default() };
    let bucket = TokenBucket { settings: Some(settings), ..TokenBucket::default() };
    ResourceGroup {
        name: DEFAULT.to_owned(),
        mode: GroupMode::RuMode.into(),
        r_u_settings: Some(GroupRequestUnitSettings { r_u: Some(bucket) }),
        priority: 8,
        ..ResourceGroup::default()
    }
}

fn missing(name: &str) -> Status {
    Status::new(Code::Unknown, format!("the {name} resource group does not exist"))
}

impl Pd {
    fn resource_group(&self, keyspace_id: u32, name: &str) -> Option<ResourceGroup> {
        let stored = self.kv.get(&(folder(keyspace_id) + name));
        let stored = stored.and_then(|bytes| ResourceGroup::decode(bytes.clone()).ok());
        stored.or_else(|| (name == DEFAULT).then(default_group))
    }

    /// Adds or replaces a resource group, outside of keyspaces unless it names one.
    pub fn put_resource_group(&mut self, group: &ResourceGroup) {
        let key = folder(keyspace_of(group.keyspace_id.as_ref())) + &group.name;
        self.kv.put(key, group.encode_to_vec());
    }
}

pub(super) fn list(cx: &mut Asked<'_>, request: &ListResourceGroupsRequest) -> Answer<ListResourceGroupsResponse> {
    let keyspace_id = keyspace_of(request.keyspace_id.as_ref());
    let stored = with_prefix(folder(keyspace_id));
    let mut groups: Vec<ResourceGroup> =
        cx.pd.kv.scan(&stored).filter_map(|entry| ResourceGroup::decode(entry.value.clone()).ok()).collect();
    if groups.iter().all(|group| group.name != DEFAULT) {
        groups.push(default_group());
    }
    Ok(ListResourceGroupsResponse { error: None, groups })
}

pub(super) fn get(cx: &mut Asked<'_>, request: &GetResourceGroupRequest) -> Answer<GetResourceGroupResponse> {
    let name = &request.resource_group_name;
    let group = cx.pd.resource_group(keyspace_of(request.keyspace_id.as_ref()), name);
    Ok(GetResourceGroupResponse { error: None, group: Some(group.ok_or_else(|| missing(name))?) })
}

pub(super) fn add(cx: &mut Asked<'_>, request: &PutResourceGroupRequest) -> Answer<PutResourceGroupResponse> {
    let group = request.group.clone().unwrap_or_default();
    let keyspace_id = keyspace_of(group.keyspace_id.as_ref());
    if group.name.is_empty() || cx.pd.resource_group(keyspace_id, &group.name).is_some() {
        return Err(Status::new(Code::Unknown, format!("resource group {:?} cannot be added", group.name)));
    }
    cx.pd.put_resource_group(&group);
    Ok(PutResourceGroupResponse { error: None, body: DONE.to_owned() })
}

pub(super) fn modify(cx: &mut Asked<'_>, request: &PutResourceGroupRequest) -> Answer<PutResourceGroupResponse> {
    let group = request.group.clone().unwrap_or_default();
    let keyspace_id = keyspace_of(group.keyspace_id.as_ref());
    cx.pd.resource_group(keyspace_id, &group.name).ok_or_else(|| missing(&group.name))?;
    cx.pd.put_resource_group(&group);
    Ok(PutResourceGroupResponse { error: None, body: DONE.to_owned() })
}

pub(super) fn delete(cx: &mut Asked<'_>, request: &DeleteResourceGroupRequest) -> Answer<DeleteResourceGroupResponse> {
    let name = &request.resource_group_name;
    if name == DEFAULT {
        return Err(Status::new(Code::Unknown, "cannot delete the default group"));
    }
    let key = folder(keyspace_of(request.keyspace_id.as_ref())) + name;
    match cx.pd.kv.delete(&range_of(&key.into(), &Default::default())).is_empty() {
        true => Err(missing(name)),
        false => Ok(DeleteResourceGroupResponse { error: None, body: DONE.to_owned() }),
    }
}

pub(super) fn acquire_tokens(cx: &mut Asked<'_>, request: &TokenBucketsRequest) -> Answer<TokenBucketsResponse> {
    let wanted = request.requests.iter().filter(|request| !request.is_background);
    let responses = wanted.filter_map(|request| grant(cx.pd, request)).collect();
    Ok(TokenBucketsResponse { error: None, responses })
}

fn grant(pd: &Pd, request: &TokenBucketRequest) -> Option<TokenBucketResponse> {
    let keyspace_id = keyspace_of(request.keyspace_id.as_ref());
    let group = pd.resource_group(keyspace_id, &request.resource_group_name)?;
    let settings = group.r_u_settings.and_then(|settings| settings.r_u).and_then(|bucket| bucket.settings);
    let Some(token_bucket_request::Request::RuItems(asked)) = &request.request else { return None };
    let granted = |value: f64| GrantedRuTokenBucket {
        granted_tokens: Some(TokenBucket { settings, tokens: value }),
        ..GrantedRuTokenBucket::default()
    };
    Some(TokenBucketResponse {
        resource_group_name: group.name,
        granted_r_u_tokens: asked.request_r_u.iter().map(|item| granted(item.value)).collect(),
        granted_resource_tokens: Vec::new(),
        keyspace_id: Some(KeyspaceIdValue { keyspace: Some(keyspace_id_value::Keyspace::Value(keyspace_id)) }),
    })
}
