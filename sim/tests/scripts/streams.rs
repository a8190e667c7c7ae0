//! Connections and the calls on them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tikv::{BoxFuture, Client, Error, Io, Runtime};
use tikv_core::request::RequestKind;
use tikv_core::time::Time;
use tikv_sim::cluster::{Effect, Fault};
use tikv_sim::runtime::SimRuntime;
use tikv_sim::status::{Code, Status};

use crate::world::{World, millis, secs};

/// Counts how often a connection is tried.
#[derive(Clone)]
struct Counting(SimRuntime, Arc<AtomicUsize>);

impl Runtime for Counting {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.connect(address)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }

    fn now(&self) -> Time {
        self.0.now()
    }
}

/// The leaders of raw keys: of each store one key that it serves.
fn key_of_each_store(world: &World) -> [String; 3] {
    [1, 2, 3].map(|store| {
        let mut keys = (b'0'..=b'z').map(|byte| format!("{}k", char::from(byte)));
        let served = |key: &String| {
            world.simulation().with_cluster(|cluster, _| {
                let region = cluster.topology().regions().by_key(key.as_bytes()).expect("all keys have a region");
                cluster.transfer_leader(region.id(), region.leader.unwrap_or(1)).expect("it leads");
                cluster.leader_context(key.as_bytes()).is_some_and(|(leader, _)| leader == store)
            })
        };
        keys.find(served).expect("every store leads a region")
    })
}

/// R1: an end of the stream again and again is no reason to hurry.
#[test]
fn a_stream_that_always_breaks_is_not_opened_without_pauses() {
    let world = World::new();
    let attempts = Arc::new(AtomicUsize::new(0));
    let connect = world.simulation().client().connect(Counting(world.runtime.clone(), attempts.clone()));
    let client = world.run(connect).expect("PD answers");
    // As a store ends the stream of a client that it does not know.
    let broken = Status::new(Code::InvalidArgument, "simulated");
    world.inject(Fault::new(Effect::Status(broken)).on(RequestKind::RawPut).forever());
    let raw = client.raw().with_timeout(secs(10));
    world.run(raw.put("k", "v")).expect_err("no store takes it");
    let (sent, connected) = (world.count(RequestKind::RawPut), attempts.load(Ordering::Relaxed));
    assert!(sent < 100 && connected < 100, "{sent} sent and {connected} connected within 10 s");
}

/// R1: nor is a store that refuses connections.
#[test]
fn a_store_that_refuses_connections_is_not_tried_without_pauses() {
    let world = World::new();
    let attempts = Arc::new(AtomicUsize::new(0));
    let connect = world.simulation().client().connect(Counting(world.runtime.clone(), attempts.clone()));
    let client = world.run(connect).expect("PD answers");
    (1..=3).for_each(|store| world.simulation().stop_store(store).expect("it runs"));
    let raw = client.raw().with_timeout(secs(10));
    let calls = join_all((0..50).map(|_| raw.get("k")));
    for result in world.run(calls) {
        assert!(result.expect_err("nobody listens").is_timeout());
    }
    let connected = attempts.load(Ordering::Relaxed);
    assert!(connected < 1000, "{connected} connections were tried for 50 calls within 10 s");
}

/// R2.
#[test]
fn calls_on_a_stream_that_breaks_are_sent_again_at_once_and_not_when_their_time_is_up() {
    let world = World::new();
    let raw = world.client.raw();
    world.run(raw.put("k", "v")).expect("nothing is in the way");
    world.inject(Fault::new(Effect::Lose).on(RequestKind::RawGet).times(20));
    let raw = raw.clone();
    let calls = world.start(async move { join_all((0..20).map(|_| raw.get("k"))).await });
    world.until(|world| world.count(RequestKind::RawGet) == 20);
    for store in 1..=3 {
        world.simulation().break_connections(&format!("store-{store}:20160"));
    }
    let (results, took) = world.timed(calls.0);
    for result in results.expect("it ends") {
        assert_eq!(result.expect("the stream is opened again"), Some("v".into()));
    }
    // A call may take 30 s.
    assert!(took < secs(5), "{took:?}");
}

/// R3.
#[test]
fn calls_beyond_the_limit_of_a_stream_are_not_forgotten() {
    let world = World::new();
    let client = world.another_client(|builder| builder.max_calls_in_flight(2));
    let raw = client.raw();
    world.run(raw.put("k", "v")).expect("nothing is in the way");
    let (results, took) = world.timed(join_all((0..50).map(|_| raw.get("k"))));
    for result in results {
        assert_eq!(result.expect("there is room in the end"), Some("v".into()));
    }
    assert!(took < secs(20), "{took:?}");
}

/// R4: neither a store that cannot be connected to, nor one that takes nothing.
#[test]
fn one_bad_connection_holds_up_nobody_else() {
    for is_connected in [false, true] {
        let world = World::new();
        let client = world.another_client(|builder| builder);
        let keys = key_of_each_store(&world);
        if is_connected {
            for key in &keys {
                world.run(client.raw().get(key.clone())).expect("nothing is in the way");
            }
        }
        let [bad, good @ ..] = keys;
        world.simulation().set_cut_off("store-1:20160", true);
        let raw = client.raw().with_timeout(secs(20));
        let large = vec![0; 4 << 20];
        let stuck = world.start(async move { raw.put(bad, large).await });
        world.pass(millis(10));
        for _ in 0..5 {
            for key in &good {
                let (value, took) = world.timed(client.raw().get(key.clone()));
                assert_eq!(value.expect("its store is well"), None);
                assert!(took < millis(50), "{took:?}");
            }
        }
        world.simulation().set_cut_off("store-1:20160", false);
        world.join(stuck).expect("the store is back in time");
    }
}

/// R5.
#[test]
fn the_first_call_after_a_long_silence_goes_through() {
    let world = World::new();
    let raw = world.client.raw();
    world.run(raw.put("k", "v")).expect("nothing is in the way");
    (0..9).for_each(|_| world.pass(secs(300)));
    let (value, took) = world.timed(raw.get("k"));
    assert_eq!(value.expect("nothing is in the way"), Some("v".into()));
    assert_eq!(world.count(RequestKind::RawGet), 1);
    assert!(took < millis(100), "{took:?}");
}

/// R6.
#[test]
fn calls_that_wait_when_the_client_closes_end_then() {
    let world = World::new();
    let client: Client = world.another_client(|builder| builder);
    world.run(client.raw().put("k", "v")).expect("nothing is in the way");
    world.inject(Fault::new(Effect::Lose).on(RequestKind::RawGet).forever());
    let raw = client.raw();
    let calls = world.start(async move { join_all((0..10).map(|_| raw.get("k"))).await });
    world.until(|world| world.count(RequestKind::RawGet) == 10);
    world.run(client.close(Duration::ZERO));
    let (results, took) = world.timed(calls.0);
    for result in results.expect("it ends") {
        assert_eq!(result.expect_err("the client is closed"), Error::Closed);
    }
    assert!(took < millis(10), "{took:?}");
    let raw = client.raw();
    assert_eq!(world.run(raw.get("k")).expect_err("the client is closed"), Error::Closed);
}
