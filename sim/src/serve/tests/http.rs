use serde_json::{Value, json};
use tikv_proto::keyspacepb::{LoadKeyspaceRequest, LoadKeyspaceResponse};
use tikv_proto::kvrpcpb::ApiVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::cluster::SplitCheck;

/// The status of an answer, and what it says.
async fn send(address: SocketAddr, request: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() })
}

async fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
    let len = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {len}");
    send(address, &format!("{head}\r\n\r\n{body}")).await
}

/// Asks PD, which must have an answer.
async fn pd(cluster: &ServedCluster, path: &str) -> Value {
    let (status, answer) = http(pd_address(cluster), "GET", path, "").await;
    assert_eq!(status, 200, "{path}");
    answer
}

fn pd_address(cluster: &ServedCluster) -> SocketAddr {
    cluster.pd_endpoints()[0].parse().unwrap()
}

#[test]
fn pd_answers_http_on_the_port_of_its_grpc() {
    with_cluster(ServeOptions::default(), async |cluster| {
        let address = pd_address(cluster);
        assert_eq!(http(address, "GET", "/pd/api/v1/ping", "").await, (200, Value::Null));
        assert_eq!(http(address, "HEAD", "/pd/api/v1/regions", "").await.0, 405);
        assert_eq!(http(address, "PUT", "/pd/api/v1/ping", "").await.0, 405);
        assert_eq!(http(address, "GET", "/pd/api/v1/nothing", "").await.0, 404);
        assert_eq!(http(address, "GET", "/", "").await.0, 404);
        let channel = connect_pd(cluster).await;
        let members: GetMembersResponse = ask(&channel, "/pdpb.PD/GetMembers", &GetMembersRequest::default()).await;
        assert_eq!(members.members.len(), 1);
    });
}

#[test]
fn a_first_word_that_comes_in_pieces_is_understood() {
    with_cluster(ServeOptions::default(), async |cluster| {
        let mut stream = TcpStream::connect(pd_address(cluster)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in ["P", "UT /pd/api/v1/ping HTTP/1.1\r\nHost: x\r\n", "Connection: close\r\n\r\n"] {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    });
}

#[test]
fn pd_tells_of_members_stores_and_regions() {
    let cluster = ClusterOptions { pd_members: 3, ..ClusterOptions::default() };
    with_cluster(ServeOptions { cluster, ..ServeOptions::default() }, async |cluster| {
        let members = pd(cluster, "/pd/api/v1/members").await;
        assert_eq!(members["members"].as_array().unwrap().len(), 3);
        assert_eq!(members["leader"]["client_urls"][0], format!("http://{}", cluster.pd_endpoints()[0]));
        let stores = pd(cluster, "/pd/api/v1/stores").await;
        assert_eq!(stores["count"], 3);
        assert_eq!(stores["stores"][0]["store"]["status_address"], cluster.status_addresses()[&1].to_string());
        assert_eq!(stores["stores"][0], pd(cluster, "/pd/api/v1/store/1").await);

        let before = pd(cluster, "/pd/api/v1/regions").await;
        let (left, _) = cluster.split(b"key").unwrap();
        let after = pd(cluster, "/pd/api/v1/regions").await;
        assert_eq!(after["count"].as_u64(), before["count"].as_u64().map(|count| count + 1));
        let region = pd(cluster, &format!("/pd/api/v1/region/id/{left}")).await;
        assert_eq!(region["end_key"], "6B65790000000000FA");
        assert_eq!(pd(cluster, "/pd/api/v1/region/id/99999").await, Value::Null);

        cluster.stop_pd(2).unwrap();
        let health = pd(cluster, "/pd/api/v1/health").await;
        assert_eq!((&health[0]["health"], &health[1]["health"]), (&json!(true), &json!(false)));
        // Without a majority there is no leader, and nobody who knows.
        cluster.stop_pd(3).unwrap();
        assert_eq!(http(pd_address(cluster), "GET", "/pd/api/v1/regions", "").await.0, 503);
        assert_eq!(http(pd_address(cluster), "GET", "/pd/api/v1/ping", "").await.0, 200);
    });
}

#[test]
fn the_resolved_timestamp_is_told_of_the_cluster_and_of_the_stores_that_are_named() {
    with_cluster(ServeOptions::default(), async |cluster| {
        let path = "/pd/api/v1/min-resolved-ts";
        let all = pd(cluster, path).await;
        assert_eq!((&all["is_real_time"], &all["stores_min_resolved_ts"]), (&json!(true), &Value::Null));
        let now = cluster.with_cluster(|cluster, now| cluster.pd_mut().next_timestamp(now)).version();
        let told = all["min_resolved_ts"].as_u64().unwrap();
        assert!(told > 0 && told < now);

        let two = pd(cluster, &format!("{path}?scope=1,2")).await;
        assert_eq!(two["stores_min_resolved_ts"].as_object().unwrap().len(), 2);
        assert_eq!(two["min_resolved_ts"], two["stores_min_resolved_ts"]["2"]);
        // What is unknown does not count.
        let strange = pd(cluster, &format!("{path}?scope=9")).await;
        assert_eq!(strange["stores_min_resolved_ts"]["9"].as_u64(), Some(u64::MAX));
        assert_eq!(strange["min_resolved_ts"], 0);
        let each = pd(cluster, &format!("{path}?scope=cluster")).await;
        assert!(each["stores_min_resolved_ts"]["3"].as_u64().unwrap() >= told);
        assert_eq!(http(pd_address(cluster), "GET", &format!("{path}?scope=one"), "").await.0, 400);
    });
}

#[test]
fn a_keyspace_is_made_over_http_and_has_regions_of_its_own() {
    let cluster = ClusterOptions { api_version: ApiVersion::V2, ..ClusterOptions::default() };
    with_cluster(ServeOptions { cluster, ..ServeOptions::default() }, async |cluster| {
        let path = "/pd/api/v2/keyspaces";
        let body = r#"{"name": "ks-1", "config": {"gc_management_type": "keyspace_level"}}"#;
        let (status, made) = http(pd_address(cluster), "POST", path, body).await;
        assert_eq!((status, &made["id"], &made["state"]), (200, &json!(1), &json!("ENABLED")));
        assert_eq!(pd(cluster, &format!("{path}/ks-1")).await, made);
        assert_eq!(pd(cluster, &format!("{path}/id/1")).await, made);
        assert_eq!(pd(cluster, path).await["keyspaces"].as_array().unwrap().len(), 2);

        let channel = connect_pd(cluster).await;
        let request = LoadKeyspaceRequest { header: header(cluster), name: "ks-1".into(), ..Default::default() };
        let loaded: LoadKeyspaceResponse = ask(&channel, "/keyspacepb.Keyspace/LoadKeyspace", &request).await;
        assert_eq!(loaded.keyspace.unwrap().config["gc_management_type"], "keyspace_level");
        cluster.with_cluster(|cluster, _| {
            for bound in [b"r\0\0\x01", b"r\0\0\x02", b"x\0\0\x01", b"x\0\0\x02"] {
                let bound = encoded(bound);
                let region = cluster.topology().regions().by_key(bound.as_slice()).unwrap();
                assert_eq!(region.meta.start_key, bound.as_slice());
            }
        });

        assert_eq!(http(pd_address(cluster), "POST", path, body).await, (500, json!("keyspace already exists")));
        for refused in [r#"{"name": "a b"}"#, r#"{"name": ""}"#, r#"{"name": "a-name-of-21-letters-"}"#] {
            assert_eq!(http(pd_address(cluster), "POST", path, refused).await.0, 500, "{refused}");
        }
        for refused in ["", "[]", r#"{"name": 1}"#, r#"{"name": "a", "config": {"b": 1}}"#] {
            assert_eq!(http(pd_address(cluster), "POST", path, refused).await.0, 400, "{refused}");
        }
        assert_eq!(http(pd_address(cluster), "GET", &format!("{path}/none"), "").await.0, 500);
    });
}

#[test]
fn a_store_tells_its_settings_on_its_status_port() {
    for (api_version, number, ttl) in
        [(ApiVersion::V1, 1, false), (ApiVersion::V1ttl, 1, true), (ApiVersion::V2, 2, true)]
    {
        let split_check = Some(SplitCheck::at(10));
        let cluster = ClusterOptions { api_version, split_check, ..ClusterOptions::default() };
        with_cluster(ServeOptions { cluster, ..ServeOptions::default() }, async |cluster| {
            let address = cluster.status_addresses()[&2];
            let (status, config) = http(address, "GET", "/config", "").await;
            assert_eq!((status, &config["storage"]), (200, &json!({ "api-version": number, "enable-ttl": ttl })));
            assert_eq!(config["server"]["addr"], cluster.store_addresses()[&2].to_string());
            assert_eq!(config["coprocessor"], json!({ "region-max-keys": 10, "region-split-keys": 8 }));
            assert_eq!(http(address, "GET", "/status", "").await, (200, Value::Null));
            assert_eq!(http(address, "POST", "/config", "").await.0, 405);
            assert_eq!(http(address, "GET", "/pd/api/v1/ping", "").await.0, 404);

            cluster.stop_store(2).unwrap();
            assert!(TcpStream::connect(address).await.is_err());
            cluster.start_store(2).unwrap();
            assert_eq!(http(address, "GET", "/status", "").await.0, 200);
        });
    }
}
