//! A store's status port: its configuration, as far as there is one.

use std::sync::Arc;

use hyper::Method;
use serde_json::{Map, Value, json};
use tikv_proto::kvrpcpb::ApiVersion;

use super::http::{HttpAnswer, HttpRequest, HttpService};
use super::shared::Shared;
use crate::cluster::Cluster;

/// | path | |
/// |---|---|
/// | `/status` | nothing: the store runs |
/// | `/config` | those settings of a TiKV's that the simulation has |
pub(super) struct StoreStatus {
    shared: Arc<Shared>,
    store_id: u64,
}

impl StoreStatus {
    pub(super) fn new(shared: Arc<Shared>, store_id: u64) -> Self {
        StoreStatus { shared, store_id }
    }
}

impl HttpService for StoreStatus {
    fn answer(&self, request: &HttpRequest) -> HttpAnswer {
        match (&request.method, request.path().as_slice()) {
            (&Method::GET, ["status"]) => HttpAnswer::DONE,
            (&Method::GET, ["config"]) => {
                HttpAnswer::json(self.shared.with_cluster(|cluster, _| config(cluster, self.store_id)))
            }
            (_, ["status" | "config"]) => HttpAnswer::WRONG_METHOD,
            _ => HttpAnswer::NOT_FOUND,
        }
    }
}

fn config(cluster: &Cluster, store_id: u64) -> Value {
    let api_version = cluster.topology().api_version();
    let (number, ttl) = match api_version {
        ApiVersion::V1 => (1, false),
        ApiVersion::V1ttl => (1, true),
        ApiVersion::V2 | ApiVersion::V3 => (2, true),
    };
    let store = cluster.topology().store(store_id).map(|store| store.meta.clone()).unwrap_or_default();
    let mut coprocessor = Map::new();
    if let Some(check) = cluster.split_check() {
        coprocessor.insert("region-max-keys".to_owned(), check.max_keys.into());
        coprocessor.insert("region-split-keys".to_owned(), check.split_keys.into());
    }
    json!({
        "server": { "addr": store.address, "status-addr": store.status_address },
        "storage": { "api-version": number, "enable-ttl": ttl },
        "coprocessor": coprocessor,
    })
}
