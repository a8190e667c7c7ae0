//! PD's HTTP API, as far as clients, tests and people with `curl` use it.
//!
//! Any member answers: one that does not lead passes a request on to the leader.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tikv_core::key::KeyRange;
use tikv_core::time::Time;
use tikv_proto::keyspacepb::KeyspaceMeta;
use tikv_proto::metapb;

use super::http::{HttpAnswer, HttpRequest, HttpService};
use super::shared::Shared;
use crate::cluster::{Cluster, Region, Store, VERSION};
use crate::pd::{KeyspaceError, Member};

/// | path | |
/// |---|---|
/// | `GET /pd/api/v1/ping`, `health`, `version`, `cluster`, `members`, `leader` | the members |
/// | `GET /pd/api/v1/stores`, `store/ID` | the stores |
/// | `GET /pd/api/v1/regions`, `region/id/ID` | the regions |
/// | `GET /pd/api/v1/min-resolved-ts[?scope=cluster\|ID,…]` | how far followers serve stale reads |
/// | `GET`, `POST /pd/api/v2/keyspaces`, `GET /pd/api/v2/keyspaces/NAME`, `keyspaces/id/ID` | the keyspaces |
pub(super) struct PdHttp {
    shared: Arc<Shared>,
}

impl PdHttp {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        PdHttp { shared }
    }
}

impl HttpService for PdHttp {
    fn answer(&self, request: &HttpRequest) -> HttpAnswer {
        let path = request.path();
        let ["pd", "api", version, rest @ ..] = path.as_slice() else { return HttpAnswer::NOT_FOUND };
        let is_get = request.method == Method::GET;
        self.shared.with_cluster(|cluster, now| match (*version, rest) {
            ("v1", ["ping"]) if is_get => HttpAnswer::DONE,
            ("v1", ["health"]) if is_get => HttpAnswer::json(health(cluster)),
            _ if cluster.pd().leader().is_none() => {
                HttpAnswer::failed(StatusCode::SERVICE_UNAVAILABLE, "no leader of PD")
            }
            ("v2", ["keyspaces"]) if request.method == Method::POST => create_keyspace(cluster, now, &request.body),
            (version, rest) => match read(cluster, now, version, rest, &request.parameters()) {
                Some(answer) if is_get => answer,
                Some(_) => HttpAnswer::WRONG_METHOD,
                None => HttpAnswer::NOT_FOUND,
            },
        })
    }
}

/// What only looks; `None` if there is no such path.
fn read(
    cluster: &Cluster,
    now: Time,
    version: &str,
    path: &[&str],
    parameters: &BTreeMap<&str, &str>,
) -> Option<HttpAnswer> {
    let topology = cluster.topology();
    let answer = match (version, path) {
        // Here it is for other methods than GET.
        ("v1", ["ping" | "health"]) => HttpAnswer::WRONG_METHOD,
        ("v1", ["version"]) => HttpAnswer::json(json!({ "version": VERSION })),
        ("v1", ["cluster"]) => HttpAnswer::json(json!({ "id": topology.cluster_id() })),
        ("v1", ["members"]) => HttpAnswer::json(members(cluster)),
        ("v1", ["leader"]) => HttpAnswer::json(leader(cluster)),
        ("v1", ["stores"]) => {
            let stores: Vec<Value> = topology.stores().map(|store| store_info(cluster, store)).collect();
            HttpAnswer::json(json!({ "count": stores.len(), "stores": stores }))
        }
        ("v1", ["store", id]) => match id.parse().ok().and_then(|id| topology.store(id).ok()) {
            Some(store) => HttpAnswer::json(store_info(cluster, store)),
            None => HttpAnswer::failed(StatusCode::NOT_FOUND, format!("store {id} not found")),
        },
        ("v1", ["regions"]) => {
            let regions: Vec<Value> = topology.regions().iter().map(region_info).collect();
            HttpAnswer::json(json!({ "count": regions.len(), "regions": regions }))
        }
        ("v1", ["region", "id", id]) => match id.parse() {
            // As PD, which does not say that there is none.
            Ok(id) => HttpAnswer::json(topology.regions().get(id).map_or(Value::Null, region_info)),
            Err(_) => HttpAnswer::failed(StatusCode::BAD_REQUEST, format!("{id} is no id of a region")),
        },
        ("v1", ["min-resolved-ts"]) => min_resolved_ts(cluster, now, parameters.get("scope").copied()),
        ("v2", ["keyspaces"]) => {
            let keyspaces: Vec<Value> = cluster.pd().keyspaces().values().map(keyspace_info).collect();
            HttpAnswer::json(json!({ "keyspaces": keyspaces, "next_page_token": "" }))
        }
        ("v2", ["keyspaces", "id", id]) => {
            keyspace(id.parse().ok().and_then(|id: u32| cluster.pd().keyspaces().get(&id)))
        }
        ("v2", ["keyspaces", name]) => {
            keyspace(cluster.pd().keyspaces().values().find(|keyspace| keyspace.name == **name))
        }
        _ => return None,
    };
    Some(answer)
}

// ---- Members ----

fn health(cluster: &Cluster) -> Value {
    let member = |member: &Member| {
        json!({
            "name": member.name,
            "member_id": member.id,
            "client_urls": [member.client_url],
            "health": member.running,
        })
    };
    cluster.pd().members().iter().map(member).collect()
}

fn member_info(member: &Member) -> Value {
    json!({
        "name": member.name,
        "member_id": member.id,
        "client_urls": [member.client_url],
        "peer_urls": [member.client_url],
        "binary_version": VERSION,
    })
}

fn leader(cluster: &Cluster) -> Value {
    let pd = cluster.pd();
    pd.members().iter().find(|member| Some(member.id) == pd.leader()).map_or(Value::Null, member_info)
}

fn members(cluster: &Cluster) -> Value {
    let members: Vec<Value> = cluster.pd().members().iter().map(member_info).collect();
    json!({
        "header": { "cluster_id": cluster.topology().cluster_id() },
        "members": members,
        "leader": leader(cluster),
        "etcd_leader": leader(cluster),
    })
}

// ---- Stores and regions ----

fn store_info(cluster: &Cluster, store: &Store) -> Value {
    let meta = &store.meta;
    let labels: Vec<Value> =
        meta.labels.iter().map(|label| json!({ "key": label.key, "value": label.value })).collect();
    let regions = || cluster.topology().regions().iter();
    json!({
        "store": {
            "id": meta.id,
            "address": meta.address,
            "peer_address": meta.peer_address,
            "status_address": meta.status_address,
            "version": meta.version,
            "labels": labels,
            "state_name": match meta.state() {
                metapb::StoreState::Up if !store.running => "Disconnected",
                metapb::StoreState::Up => "Up",
                metapb::StoreState::Offline => "Offline",
                metapb::StoreState::Tombstone => "Tombstone",
            },
        },
        "status": {
            "leader_count": regions().filter(|region| region.leader == Some(meta.id)).count(),
            "region_count": regions().filter(|region| region.peer_on(meta.id).is_some()).count(),
            "slow_score": store.slow_score,
        },
    })
}

fn region_info(region: &Region) -> Value {
    let leader = region.reported_leader.and_then(|store_id| region.peer_on(store_id));
    json!({
        "id": region.id(),
        "start_key": hex(&region.meta.start_key),
        "end_key": hex(&region.meta.end_key),
        "epoch": { "conf_ver": region.epoch().conf_ver, "version": region.epoch().version },
        "peers": region.meta.peers.iter().map(peer_info).collect::<Value>(),
        "leader": leader.map_or_else(|| json!({}), peer_info),
    })
}

fn peer_info(peer: &metapb::Peer) -> Value {
    json!({
        "id": peer.id,
        "store_id": peer.store_id,
        "role_name": peer.role().as_str_name(),
        "is_learner": peer.role() == metapb::PeerRole::Learner,
        "is_witness": peer.is_witness,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// All data is in one place, so that all stores are equally far.
fn min_resolved_ts(cluster: &Cluster, now: Time, scope: Option<&str>) -> HttpAnswer {
    let resolved = cluster.safe_ts(now, &KeyRange::ALL).version();
    let known: Vec<u64> = cluster.topology().stores().map(|store| store.meta.id).collect();
    let scope: Option<Vec<u64>> = match scope {
        None => None,
        Some("cluster") => Some(known.clone()),
        Some(ids) => match ids.split(',').map(str::parse).collect() {
            Ok(ids) => Some(ids),
            Err(_) => return HttpAnswer::failed(StatusCode::BAD_REQUEST, format!("{ids} is no list of stores")),
        },
    };
    // What has never told anything holds nobody back.
    let of_store = |id: &u64| (id.to_string(), if known.contains(id) { resolved } else { u64::MAX });
    let stores: Option<BTreeMap<String, u64>> = scope.map(|ids| ids.iter().map(of_store).collect());
    let lowest = stores.as_ref().map_or(Some(resolved), |stores| stores.values().min().copied());
    HttpAnswer::json(json!({
        "is_real_time": true,
        "min_resolved_ts": lowest.filter(|ts| *ts != u64::MAX).unwrap_or(0),
        "persist_interval": "1s",
        "stores_min_resolved_ts": stores,
    }))
}

// ---- Keyspaces ----

fn keyspace(found: Option<&KeyspaceMeta>) -> HttpAnswer {
    match found {
        Some(keyspace) => HttpAnswer::json(keyspace_info(keyspace)),
        None => HttpAnswer::failed(StatusCode::INTERNAL_SERVER_ERROR, KeyspaceError::NotFound.to_string()),
    }
}

fn keyspace_info(keyspace: &KeyspaceMeta) -> Value {
    json!({
        "id": crate::pd::keyspace_id(keyspace),
        "name": keyspace.name,
        "state": keyspace.state().as_str_name(),
        "created_at": keyspace.created_at,
        "state_changed_at": keyspace.state_changed_at,
        "config": keyspace.config,
    })
}

/// The body: `{"name": …, "config": {…}}`, all of strings.
fn create_keyspace(cluster: &mut Cluster, now: Time, body: &[u8]) -> HttpAnswer {
    let asked: Option<Value> = serde_json::from_slice(body).ok();
    let Some((name, config)) = asked.as_ref().and_then(keyspace_asked_for) else {
        return HttpAnswer::failed(StatusCode::BAD_REQUEST, "a name is expected, and perhaps a config of strings");
    };
    match cluster.create_keyspace(now, name, config) {
        Ok(keyspace) => HttpAnswer::json(keyspace_info(&keyspace)),
        Err(error) => HttpAnswer::failed(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn keyspace_asked_for(asked: &Value) -> Option<(&str, BTreeMap<String, String>)> {
    let name = asked.get("name")?.as_str()?;
    let config = match asked.get("config") {
        None | Some(Value::Null) => BTreeMap::new(),
        Some(config) => {
            let setting = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
            config.as_object()?.iter().map(setting).collect::<Option<_>>()?
        }
    };
    Some((name, config))
}
