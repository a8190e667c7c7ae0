//! Which connections to a store the client opens and uses, on virtual time: there nothing but the client decides it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{join, join_all};
use tikv::{Client, ClientBuilder, Runtime};
use tikv_sim::cluster::{ClusterOptions, Effect, region_error};
use tikv_sim::runtime::{Simulation, SimulationOptions};
use tikv_tests::world::{ConnectionState, Rt};

/// Long enough for whatever is under way to end.
const A_WHILE: Duration = Duration::from_secs(1);

/// A cluster of one region, so that one store gets all calls, and a client with so many connections to each store.
fn cluster(connections: usize) -> (Simulation, ClientBuilder, Rt) {
    let cluster = ClusterOptions { regions: 1, ..ClusterOptions::default() };
    let simulation = Simulation::new(SimulationOptions { cluster, ..SimulationOptions::default() });
    let (builder, rt) = (simulation.client().connections_per_store(connections), Rt::new(simulation.runtime()));
    (simulation, builder, rt)
}

/// The connections to stores, in the order in which they were opened.
fn to_stores(rt: &Rt) -> Vec<ConnectionState> {
    rt.connections().into_iter().filter(|connection| connection.address.starts_with("store-")).collect()
}

fn open(rt: &Rt) -> Vec<bool> {
    to_stores(rt).iter().map(|connection| connection.is_open).collect()
}

/// On which of the connections so many calls go that follow each other.
async fn turns(rt: &Rt, calls: usize, call: impl AsyncFn()) -> Vec<usize> {
    let mut turns = Vec::new();
    for _ in 0..calls {
        let before = to_stores(rt);
        call().await;
        // What HTTP/2 itself has to say is said.
        rt.sleep(A_WHILE).await;
        let after = to_stores(rt);
        let writes_before = |index: usize| before.get(index).map_or(0, |connection| connection.writes);
        turns.extend((0..after.len()).filter(|index| after[*index].writes > writes_before(*index)));
    }
    turns
}

async fn get(client: &Client) {
    client.raw().get("key").await.unwrap();
}

async fn compare_and_swap(client: &Client) {
    client.raw().with_atomic(true).compare_and_swap("key", None, "value").await.unwrap();
}

#[test]
fn all_calls_share_the_only_connection() {
    // Nobody asks for none.
    for connections in [0, 1] {
        let (mut simulation, builder, rt) = cluster(connections);
        let turns = simulation.run(async {
            let client = builder.connect(rt.clone()).await.unwrap();
            let batched = turns(&rt, 3, async || get(&client).await).await;
            let unary = turns(&rt, 2, async || compare_and_swap(&client).await).await;
            join_all((0..100).map(|_| get(&client))).await;
            (batched, unary)
        });
        assert_eq!(turns, Ok((vec![0; 3], vec![0; 2])));
        assert_eq!(to_stores(&rt).len(), 1);
    }
}

#[test]
fn calls_take_the_connections_in_turn() {
    let (mut simulation, builder, rt) = cluster(3);
    let turns = simulation.run(async {
        let client = builder.connect(rt.clone()).await.unwrap();
        turns(&rt, 7, async || get(&client).await).await
    });
    assert_eq!(turns, Ok(vec![0, 1, 2, 0, 1, 2, 0]));
    assert_eq!(open(&rt), [true; 3]);
}

#[test]
fn calls_that_travel_in_no_batch_take_their_turn_too() {
    let (mut simulation, builder, rt) = cluster(2);
    let turns = simulation.run(async {
        let client = builder.connect(rt.clone()).await.unwrap();
        let unary = turns(&rt, 3, async || compare_and_swap(&client).await).await;
        (unary, turns(&rt, 1, async || get(&client).await).await)
    });
    assert_eq!(turns, Ok((vec![0, 1, 0], vec![1])));
}

#[test]
fn a_store_that_is_another_one_now_is_connected_to_anew_on_all_connections() {
    let (mut simulation, builder, rt) = cluster(2);
    let client = simulation.run(builder.connect(rt.clone())).unwrap().unwrap();
    let before = simulation.run(turns(&rt, 4, async || get(&client).await));
    assert_eq!(before, Ok(vec![0, 1, 0, 1]));
    let mut refused = false;
    simulation.intercept(move |_, arrival| {
        let error = region_error::store_not_match(arrival.store_id, arrival.store_id + 1);
        (!std::mem::replace(&mut refused, true)).then(|| Effect::RegionError(Box::new(error)))
    });
    simulation.run(get(&client)).unwrap();
    let after = simulation.run(turns(&rt, 4, async || get(&client).await));
    assert_eq!(open(&rt), [false, false, true, true]);
    // The first of the new ones was used when the refused call was repeated.
    assert_eq!(after, Ok(vec![3, 2, 3, 2]));
}

#[test]
fn a_closed_client_leaves_no_connection_open() {
    let (mut simulation, builder, rt) = cluster(4);
    let open_before = simulation.run(async {
        let client = builder.connect(rt.clone()).await.unwrap();
        join_all((0..4).map(|_| get(&client))).await;
        let open_before = open(&rt);
        client.close(A_WHILE).await;
        assert!(client.raw().get("key").await.is_err());
        rt.sleep(A_WHILE).await;
        open_before
    });
    assert_eq!(open_before, Ok(vec![true; 4]));
    assert_eq!(open(&rt), [false; 4]);
}

#[test]
fn the_limit_of_calls_in_flight_is_one_for_the_store() {
    let (mut simulation, builder, rt) = cluster(2);
    let arrived = Arc::new(AtomicUsize::new(0));
    let client = simulation.run(builder.max_calls_in_flight(4).connect(rt.clone())).unwrap().unwrap();
    simulation.run(get(&client)).unwrap();
    let count = Arc::clone(&arrived);
    simulation.intercept(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        Some(Effect::Delay(2 * A_WHILE))
    });
    let arrived = simulation.run(async {
        let early = async {
            rt.sleep(A_WHILE).await;
            arrived.load(Ordering::Relaxed)
        };
        join(join_all((0..8).map(|_| get(&client))), early).await.1
    });
    assert_eq!(arrived, Ok(4));
}
