//! Settings that PD keeps for others: the meta storage, and the global configuration. Both can be watched.

use bytes::Bytes;
use prost::Message;
use tikv_core::key::KeyRange;
use tikv_proto::meta_storagepb::event::EventType;
use tikv_proto::meta_storagepb::{
    DeleteRequest, DeleteResponse, Error, ErrorType, Event, GetRequest, GetResponse, KeyValue as Pair, PutRequest,
    PutResponse, ResponseHeader, WatchRequest, WatchResponse,
};
use tikv_proto::mvccpb::KeyValue;
use tikv_proto::pdpb::{
    self, EventType as ConfigEvent, GlobalConfigItem, LoadGlobalConfigRequest, LoadGlobalConfigResponse,
    StoreGlobalConfigRequest, StoreGlobalConfigResponse, WatchGlobalConfigRequest, WatchGlobalConfigResponse,
};

use super::kv::{Change, range_of, with_prefix};
use super::{Answer, Asked, Pd};
use crate::status::{Code, Status};

// ---- Meta storage ----

fn meta_header(cx: &Asked<'_>, error: Option<Error>) -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: cx.topology.cluster_id(), error, revision: cx.pd.kv.revision() })
}

fn pair(entry: &KeyValue) -> Pair {
    Pair { key: entry.key.clone(), value: entry.value.clone(), ..Pair::default() }
}

pub(super) fn get(cx: &mut Asked<'_>, request: &GetRequest) -> Answer<GetResponse> {
    if request.revision > 0 && request.revision < cx.pd.kv.revision() {
        let message = "required revision has been compacted".to_owned();
        let header = meta_header(cx, Some(Error { r#type: ErrorType::Unknown.into(), message }));
        return Ok(GetResponse { header, ..GetResponse::default() });
    }
    let range = range_of(&request.key, &request.range_end);
    let mut kvs: Vec<Pair> = cx.pd.kv.scan(&range).map(pair).collect();
    let count = kvs.len() as i64;
    let more = request.limit > 0 && count > request.limit;
    if more {
        kvs.truncate(usize::try_from(request.limit).unwrap_or(usize::MAX));
    }
    Ok(GetResponse { header: meta_header(cx, None), kvs, more, count })
}

pub(super) fn put(cx: &mut Asked<'_>, request: &PutRequest) -> Answer<PutResponse> {
    let previous = cx.pd.kv.put(request.key.clone(), request.value.clone()).filter(|_| request.prev_kv);
    Ok(PutResponse { header: meta_header(cx, None), prev_kv: previous.as_ref().map(pair) })
}

/// PD deletes one key, whatever end the request names.
pub(super) fn delete(cx: &mut Asked<'_>, request: &DeleteRequest) -> Answer<DeleteResponse> {
    let gone = cx.pd.kv.delete(&range_of(&request.key, &Bytes::new()));
    let prev_kvs = if request.prev_kv { gone.iter().map(pair).collect() } else { Vec::new() };
    Ok(DeleteResponse { header: meta_header(cx, None), deleted: gone.len() as i64, prev_kvs })
}

// ---- Global configuration ----

/// What a path stands for if the request names none, or this one without its last slash.
const ROOT: &str = "/global/config/";

fn config_path(path: &str) -> Result<&str, Status> {
    match path {
        "" | "/global/config" => Ok(ROOT),
        path if path.starts_with(ROOT) => Ok(path),
        path => Err(Status::new(Code::InvalidArgument, format!("global config path {path:?} is not allowed"))),
    }
}

fn config_key(path: &str, name: &str) -> String {
    let folder = path.strip_suffix('/').unwrap_or(path);
    if name.is_empty() { folder.to_owned() } else { format!("{folder}/{name}") }
}

pub(super) fn store_global_config(
    cx: &mut Asked<'_>,
    request: &StoreGlobalConfigRequest,
) -> Answer<StoreGlobalConfigResponse> {
    let path = config_path(&request.config_path)?;
    let revision = cx.pd.kv.next_revision();
    for change in &request.changes {
        let key = config_key(path, &change.name);
        match change.kind() {
            ConfigEvent::Put => {
                let value = if change.value.is_empty() { change.payload.clone() } else { change.value.clone().into() };
                cx.pd.kv.put_at(revision, key.into(), value, 0);
            }
            ConfigEvent::Delete => drop(cx.pd.kv.delete_at(revision, &range_of(&key.into(), &Bytes::new()))),
        }
    }
    Ok(StoreGlobalConfigResponse::default())
}

pub(super) fn load_global_config(
    cx: &mut Asked<'_>,
    request: &LoadGlobalConfigRequest,
) -> Answer<LoadGlobalConfigResponse> {
    let path = config_path(&request.config_path)?;
    let items = if request.names.is_empty() {
        cx.pd.kv.scan(&with_prefix(path)).map(config_item).collect()
    } else {
        request.names.iter().map(|name| named_config(cx.pd, path, name)).collect()
    };
    Ok(LoadGlobalConfigResponse { items, revision: cx.pd.kv.revision() })
}

fn config_item(entry: &KeyValue) -> GlobalConfigItem {
    let name = String::from_utf8_lossy(&entry.key).into_owned();
    GlobalConfigItem { name, payload: entry.value.clone(), ..GlobalConfigItem::default() }
}

fn named_config(pd: &Pd, path: &str, name: &str) -> GlobalConfigItem {
    let payload = pd.kv.get(&config_key(path, name)).cloned();
    let missing = || pdpb::Error {
        r#type: pdpb::ErrorType::GlobalConfigNotFound.into(),
        message: format!("key {name} not found"),
    };
    GlobalConfigItem {
        name: name.to_owned(),
        error: payload.is_none().then(missing),
        payload: payload.unwrap_or_default(),
        ..GlobalConfigItem::default()
    }
}

// ---- Watching ----

/// Someone who watches settings: see [`Pd::watch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    target: Target,
    range: KeyRange,
    /// The first revision that has not been told.
    next_revision: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    MetaStorage,
    GlobalConfig,
}

impl Watch {
    pub(super) fn meta_storage(pd: &Pd, request: &WatchRequest) -> Self {
        let range = range_of(&request.key, &request.range_end);
        Watch { target: Target::MetaStorage, range, next_revision: first(pd, request.start_revision) }
    }

    pub(super) fn global_config(pd: &Pd, request: &WatchGlobalConfigRequest) -> Result<Self, Status> {
        let range = with_prefix(config_path(&request.config_path)?);
        Ok(Watch { target: Target::GlobalConfig, range, next_revision: first(pd, request.revision) })
    }
}

/// No revision means from now on.
fn first(pd: &Pd, revision: i64) -> i64 {
    if revision > 0 { revision } else { pd.kv.revision() + 1 }
}

impl Pd {
    /// What has happened since the watch was asked last: an encoded message, or nothing.
    ///
    /// # Errors
    ///
    /// A message that says so, if too much has happened to remember it all; the watch is over then.
    pub fn poll_watch(&self, cluster_id: u64, watch: &mut Watch) -> Result<Option<Bytes>, Bytes> {
        let from = watch.next_revision;
        watch.next_revision = from.max(self.kv.revision() + 1);
        let error = (from <= self.kv.compacted()).then_some("required watch revision has been compacted");
        let changes: Vec<&Change> = self.kv.changes_since(&watch.range, from).collect();
        if changes.is_empty() && error.is_none() {
            return Ok(None);
        }
        let message: Bytes = match watch.target {
            Target::MetaStorage => self.meta_events(cluster_id, &changes, error).encode_to_vec(),
            Target::GlobalConfig => self.config_events(cluster_id, &changes, error).encode_to_vec(),
        }
        .into();
        if error.is_some() { Err(message) } else { Ok(Some(message)) }
    }

    fn meta_events(&self, cluster_id: u64, changes: &[&Change], error: Option<&str>) -> WatchResponse {
        let event = |change: &&Change| Event {
            r#type: if change.is_delete { EventType::Delete } else { EventType::Put }.into(),
            kv: Some(Pair {
                key: change.entry.key.clone(),
                create_revision: change.entry.create_revision,
                mod_revision: change.entry.mod_revision,
                version: change.entry.version,
                value: change.entry.value.clone(),
                lease: change.entry.lease,
            }),
            prev_kv: change.previous.as_ref().map(pair),
        };
        let revision = self.kv.revision();
        let error = error.map(|message| Error { r#type: ErrorType::DataCompacted.into(), message: message.to_owned() });
        WatchResponse {
            compact_revision: if error.is_some() { self.kv.compacted() } else { 0 },
            events: if error.is_some() { Vec::new() } else { changes.iter().map(event).collect() },
            header: Some(ResponseHeader { cluster_id, error, revision }),
        }
    }

    fn config_events(&self, cluster_id: u64, changes: &[&Change], error: Option<&str>) -> WatchGlobalConfigResponse {
        let item = |change: &&Change| {
            let mut item = config_item(&change.entry);
            item.set_kind(if change.is_delete { ConfigEvent::Delete } else { ConfigEvent::Put });
            item
        };
        let header = error.map(|message| pdpb::ResponseHeader {
            cluster_id,
            error: Some(pdpb::Error { r#type: pdpb::ErrorType::DataCompacted.into(), message: message.to_owned() }),
        });
        let changes = if error.is_some() { Vec::new() } else { changes.iter().map(item).collect() };
        WatchGlobalConfigResponse { changes, revision: self.kv.revision(), header }
    }
}
