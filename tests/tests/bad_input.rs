//! Servers that are not there, or not what they should be: every call ends in time, with an error that says what happened,
//! where, and how often it was tried.

use std::net::SocketAddr;
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tikv::{Client, ClientBuilder, Config, Error, PdError, TransactionOptions};
use tikv_grpc::Code;
use tikv_grpc::server::Router;
use tikv_proto::metapb::{Peer, Region, RegionEpoch};
use tikv_sim::serve::{ServeOptions, ServedCluster};
use tikv_tests::hostile::{self, CLUSTER_ID, FakePd, Frames, Tso};
use tikv_tests::world::Rt;
use tikv_transport_tokio::Tokio;
use tokio::runtime::{Builder, Handle};

/// The limit of each call here.
const LIMIT: Duration = Duration::from_millis(300);

/// Panics on the runtime's own threads, where the client's tasks run.
static PANICS_IN_TASKS: AtomicUsize = AtomicUsize::new(0);

fn run(test: impl AsyncFnOnce(Rt)) {
    static COUNT: Once = Once::new();
    COUNT.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() == Some("client") {
                PANICS_IN_TASKS.fetch_add(1, Ordering::Relaxed);
            }
            report(info);
        }));
    });
    let tokio = Builder::new_multi_thread().worker_threads(2).thread_name("client").enable_all().build().unwrap();
    tokio.block_on(async {
        let rt = Rt::new(Tokio::new(Handle::current()));
        rt.run(test(rt.clone())).await;
    });
    assert_eq!(PANICS_IN_TASKS.load(Ordering::Relaxed), 0);
}

/// Short limits for everything.
fn builder(endpoint: impl Into<String>) -> ClientBuilder {
    let mut config = Config::default();
    config.pd_timeout = Duration::from_millis(100);
    Client::builder([endpoint.into()]).config(config).connect_timeout(Duration::from_millis(100)).timeout(LIMIT)
}

/// The error of a client that cannot connect to `endpoint`, which it must name.
async fn no_connection(rt: &Rt, endpoint: impl ToString) -> Error {
    let endpoint = endpoint.to_string();
    let error = builder(&endpoint).connect(rt.clone()).await.unwrap_err();
    assert!(error.to_string().contains(&endpoint), "{error}");
    error
}

/// An error because time ran out, after some attempts at getting a timestamp.
fn is_timeout_of_connect(error: &Error) {
    let Error::DeadlineExceeded { operation, attempts, .. } = error else { panic!("{error:?}") };
    assert_eq!(*operation, "fetch timestamp");
    assert!(*attempts >= 1 && error.is_timeout() && error.to_string().contains("attempt"), "{error}");
}

#[test]
fn an_unknown_host_is_named() {
    run(async |rt| {
        let error = no_connection(&rt, "no-such-host.invalid:2379").await;
        is_timeout_of_connect(&error);
        assert!(error.to_string().contains("unreachable"), "{error}");
    });
}

#[test]
fn addresses_that_are_none_are_named() {
    run(async |rt| {
        for endpoint in ["nonsense", "127.0.0.1:99999", ":", "127.0.0.1", "[::1:2379", " "] {
            let error = no_connection(&rt, endpoint).await;
            assert!(error.is_timeout() || matches!(error, Error::InvalidArgument(_)), "{endpoint}: {error:?}");
        }
    });
}

#[test]
fn a_port_where_nobody_listens_is_named() {
    run(async |rt| {
        let (address, _reserved) = hostile::nobody();
        let error = no_connection(&rt, address).await;
        is_timeout_of_connect(&error);
        assert!(error.to_string().contains("unreachable"), "{error}");
    });
}

#[test]
fn a_server_that_says_nothing_runs_into_the_time_limit() {
    run(async |rt| {
        let error = no_connection(&rt, hostile::silent().await).await;
        is_timeout_of_connect(&error);
        assert!(error.to_string().contains("in time"), "{error}");
    });
}

#[test]
fn a_server_that_closes_at_once_is_disconnected() {
    run(async |rt| is_timeout_of_connect(&no_connection(&rt, hostile::closing().await).await));
}

#[test]
fn a_server_of_another_protocol_is_no_pd() {
    run(async |rt| {
        let others: [&[u8]; 5] = [
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            // A frame of HTTP/2 that must not come first.
            b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x01",
        ];
        for bytes in others {
            is_timeout_of_connect(&no_connection(&rt, hostile::saying(bytes).await).await);
        }
    });
}

#[test]
fn a_grpc_server_that_is_no_pd_is_refused() {
    run(async |rt| {
        let error = no_connection(&rt, hostile::grpc(Router::new()).await).await;
        is_timeout_of_connect(&error);
        assert!(error.to_string().contains(&format!("{}", Code::Unimplemented as u32)), "{error}");
    });
}

#[test]
fn members_that_make_no_sense_are_refused() {
    run(async |rt| {
        for members in [&b""[..], b"\xff\xff\xff\xff", b"\x0a\x02\x08\x2a"] {
            let pd = FakePd { members: Some(Bytes::from_static(members)), ..FakePd::new("") };
            is_timeout_of_connect(&no_connection(&rt, pd.start().await).await);
        }
    });
}

#[test]
fn timestamps_that_make_no_sense_are_refused() {
    run(async |rt| {
        for tso in [Tso::Never, Tso::End, Tso::Garbage, Tso::TooFew, Tso::Without, Tso::Negative] {
            let pd = FakePd { tso, ..FakePd::new("") };
            is_timeout_of_connect(&no_connection(&rt, pd.start().await).await);
        }
        let pd = FakePd { tso: Tso::OtherCluster, ..FakePd::new("") };
        let error = no_connection(&rt, pd.start().await).await;
        is_timeout_of_connect(&error);
        assert!(error.to_string().contains(&format!("cluster {}", CLUSTER_ID + 1)), "{error}");
    });
}

#[test]
fn a_pd_of_another_cluster_is_refused_for_good() {
    run(async |rt| {
        let cluster = ServedCluster::start_in_thread(ServeOptions::default()).unwrap();
        let id = cluster.with_cluster(|cluster, _| cluster.topology().cluster_id());
        let endpoint = &cluster.pd_endpoints()[0];
        let error = builder(endpoint).cluster_id(7).connect(rt.clone()).await.unwrap_err();
        let Error::Pd(PdError::ClusterMismatch { address, expected, actual }) = &error else { panic!("{error:?}") };
        assert_eq!((&**address, *expected, *actual), (&**endpoint, 7, id));
        assert!(!error.is_retryable() && !error.is_timeout());
        assert_eq!(builder(endpoint).cluster_id(id).connect(rt.clone()).await.unwrap().cluster_id(), id);
    });
}

#[test]
fn one_good_endpoint_among_bad_ones_is_enough() {
    run(async |rt| {
        let cluster = ServedCluster::start_in_thread(ServeOptions::default()).unwrap();
        let (nobody, _reserved) = hostile::nobody();
        let mut endpoints = vec![
            "no-such-host.invalid:2379".to_owned(),
            nobody.to_string(),
            hostile::closing().await.to_string(),
            hostile::saying(b"SSH-2.0-OpenSSH_9.6\r\n").await.to_string(),
            hostile::silent().await.to_string(),
        ];
        endpoints.extend(cluster.pd_endpoints());
        let mut config = Config::default();
        config.pd_timeout = Duration::from_millis(100);
        let client = Client::builder(endpoints).config(config).connect(rt.clone()).await.unwrap();
        client.raw().put("k", "v").await.unwrap();
    });
}

/// A client of a right PD whose only store is at `store`.
async fn client_of(rt: &Rt, store: impl ToString) -> Client {
    let pd = FakePd::new(&store.to_string()).start().await;
    builder(pd.to_string()).connect(rt.clone()).await.unwrap()
}

/// Every kind of call fails in time, and says where and how often it tried.
async fn every_call_fails(client: &Client, store: &str) {
    let raw = client.raw().with_timeout(LIMIT);
    let snapshot = client.snapshot().await.unwrap().with_timeout(LIMIT);
    let txn = client.begin_with(TransactionOptions::default().timeout(LIMIT)).await.unwrap();
    txn.put("k", "v").unwrap();
    let calls = futures::join!(
        async { ("RawGet", raw.get("k").await.map(drop)) },
        async { ("RawPut", raw.put("k", "v").await) },
        async { ("RawBatchGet", raw.batch_get(["k", "l"]).await.map(drop)) },
        async { ("RawScan", raw.scan("k".."l", 10).await.map(drop)) },
        async { ("RawDeleteRange", raw.delete_range("k".."l").await) },
        async { ("RawChecksum", raw.checksum("k".."l").await.map(drop)) },
        async { ("Get", snapshot.get("k").await.map(drop)) },
        async { ("BatchGet", snapshot.batch_get(["k", "l"]).await.map(drop)) },
        async { ("Scan", snapshot.scan("k".."l", 10).await.map(drop)) },
        async { ("Prewrite", txn.commit().await.map(drop)) },
    );
    let (a, b, c, d, e, f, g, h, i, j) = calls;
    for (operation, end) in [a, b, c, d, e, f, g, h, i, j] {
        let error = end.unwrap_err();
        let text = error.to_string();
        assert!(!error.is_undetermined(), "{operation}: {error:?}");
        assert!(text.contains(operation), "{operation}: {text}");
        let Error::DeadlineExceeded { attempts, .. } = error else { panic!("{operation}: {error:?}") };
        assert!(attempts >= 1 && text.contains("attempt") && text.contains(store), "{operation}: {text}");
    }
}

/// As [`every_call_fails`], with stores that are reached but behave like this.
fn every_call_fails_on(frames: &[Frames]) {
    run(async |rt| {
        for frames in frames {
            let store = hostile::grpc(hostile::store(*frames)).await.to_string();
            let client = client_of(&rt, &store).await;
            every_call_fails(&client, &store).await;
        }
    });
}

#[test]
fn a_store_that_never_answers_runs_into_the_time_limit() {
    every_call_fails_on(&[Frames::Never, Frames::UnknownIds]);
}

#[test]
fn a_store_that_ends_its_streams_is_asked_again_and_then_given_up() {
    let codes = [Code::Unavailable, Code::Internal, Code::Cancelled];
    every_call_fails_on(&[Frames::End].into_iter().chain(codes.map(Frames::Fail)).collect::<Vec<_>>());
}

#[test]
fn a_store_that_sends_frames_which_cannot_be_decoded_is_given_up() {
    every_call_fails_on(&[Frames::Garbage, Frames::IdsWithoutAnswers]);
}

#[test]
fn a_store_that_answers_another_question_is_given_up() {
    every_call_fails_on(&[Frames::WrongCommand, Frames::NoCommand]);
}

#[test]
fn a_store_that_is_no_store_is_given_up() {
    run(async |rt| {
        let (nobody, _reserved) = hostile::nobody();
        let stores: [SocketAddr; 4] = [
            nobody,
            hostile::silent().await,
            hostile::closing().await,
            hostile::saying(b"HTTP/1.1 400 Bad Request\r\n\r\n").await,
        ];
        for store in stores {
            let client = client_of(&rt, store).await;
            let raw = client.raw().with_timeout(LIMIT);
            let error = raw.get("k").await.unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, Error::DeadlineExceeded { operation: "RawGet", .. }), "{error:?}");
            assert!(text.contains("attempt") && text.contains(&store.to_string()), "{text}");
        }
    });
}

#[test]
fn a_store_that_will_never_serve_this_client_is_given_up_at_once() {
    run(async |rt| {
        for code in [Code::Unimplemented, Code::PermissionDenied, Code::Unauthenticated] {
            let store = hostile::grpc(hostile::store(Frames::Fail(code))).await.to_string();
            let client = client_of(&rt, &store).await;
            let error = client.raw().get("k").await.unwrap_err();
            let Error::Refused { operation: "RawGet", address, message } = &error else { panic!("{error:?}") };
            assert!(**address == *store && message.contains(&code.to_string()), "{error:?}");
        }
    });
}

#[test]
fn a_store_without_an_address_is_never_found() {
    run(async |rt| {
        for address in ["", "nonsense", "no-such-host.invalid:20160", "http://"] {
            let client = client_of(&rt, address).await;
            let error = client.raw().with_timeout(LIMIT).get("k").await.unwrap_err();
            assert!(matches!(error, Error::DeadlineExceeded { operation: "RawGet", .. }), "{address}: {error:?}");
        }
    });
}

#[test]
fn a_commit_that_a_store_may_have_seen_is_undetermined() {
    run(async |rt| {
        // A swap is not repeated, and an answer that makes no sense tells nothing.
        let store = hostile::grpc(hostile::store(Frames::Never)).await.to_string();
        let client = client_of(&rt, &store).await;
        let raw = client.raw().with_timeout(LIMIT).with_atomic(true);
        let error = raw.compare_and_swap("k", None, "v").await.unwrap_err();
        assert!(matches!(error, Error::UndeterminedWrite { .. }), "{error:?}");
        assert!(error.to_string().contains(&store), "{error}");
    });
}

#[test]
fn regions_that_make_no_sense_are_never_used() {
    run(async |rt| {
        let right = FakePd::new("127.0.0.1:1").region.unwrap();
        let epoch = Some(RegionEpoch { conf_ver: 1, version: 1 });
        let wrong: [(&str, Option<Region>); 6] = [
            ("none", None),
            ("empty", Some(Region::default())),
            ("elsewhere", Some(Region { start_key: "x".into(), end_key: "z".into(), ..right.clone() })),
            ("upside down", Some(Region { start_key: "z".into(), end_key: "a".into(), ..right.clone() })),
            ("without peers", Some(Region { peers: Vec::new(), ..right.clone() })),
            ("with a peer on no store", Some(Region { peers: vec![Peer::default()], region_epoch: epoch, ..right })),
        ];
        for (what, region) in wrong {
            let pd = FakePd { region, ..FakePd::new("127.0.0.1:1") };
            let client = builder(pd.start().await.to_string()).connect(rt.clone()).await.unwrap();
            let error = client.raw().with_timeout(LIMIT).get("k").await.unwrap_err();
            let text = error.to_string();
            assert!(error.is_timeout() || matches!(error, Error::Pd(_)), "{what}: {error:?}");
            assert!(!text.is_empty(), "{what}: {error:?}");
        }
    });
}

#[test]
fn a_store_that_pd_does_not_know_is_never_used() {
    run(async |rt| {
        let pd = FakePd { store: None, ..FakePd::new("") };
        let client = builder(pd.start().await.to_string()).connect(rt.clone()).await.unwrap();
        let error = client.raw().with_timeout(LIMIT).get("k").await.unwrap_err();
        assert!(error.is_timeout() || matches!(error, Error::Pd(_)), "{error:?}");
    });
}
