use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tikv::{Client, Error, Runtime};
use tikv_core::request::RequestKind;

use super::*;
use crate::cluster::encoded;
use crate::status::{Code, Status};

fn simulation(seed: u64, chaos: Option<Chaos>) -> Simulation {
    Simulation::new(SimulationOptions { seed, chaos, ..SimulationOptions::default() })
}

fn balance(value: Option<bytes::Bytes>) -> u64 {
    value.map_or(100, |value| String::from_utf8_lossy(&value).parse().expect("a number"))
}

async fn transfer(client: &Client, from: u64, to: u64) -> Result<(), Error> {
    let keys = [format!("{from}account"), format!("{to}account")];
    client
        .run(|txn| {
            let keys = keys.clone();
            async move {
                let balances = [txn.get(keys[0].clone()).await?, txn.get(keys[1].clone()).await?].map(balance);
                if balances[0] > 0 {
                    txn.put(&keys[0], (balances[0] - 1).to_string())?;
                    txn.put(&keys[1], (balances[1] + 1).to_string())?;
                }
                Ok(())
            }
        })
        .await
}

/// Accounts 0 to 3 hold 100 each; whatever happens, that is what they hold in sum.
async fn bank(client: ClientBuilder, runtime: SimRuntime, seed: u64) -> u64 {
    let client = loop {
        // PD may be cut off.
        match client.clone().connect(runtime.clone()).await {
            Ok(client) => break client,
            Err(_) => runtime.sleep(Duration::from_millis(100)).await,
        }
    };
    let done = Arc::new(AtomicU64::new(0));
    let mut rng = Rng::new(seed);
    for _ in 0..4 {
        let (client, done, mut rng, timers) = (client.clone(), done.clone(), rng.child(), runtime.clone());
        runtime.spawn(Box::pin(async move {
            for _ in 0..10 {
                let from = rng.below(4);
                let to = (from + 1 + rng.below(3)) % 4;
                // Undetermined or failed: the sum tells whether that was the truth.
                let _ = transfer(&client, from, to).await;
                timers.sleep(Duration::from_millis(rng.below(500))).await;
            }
            done.fetch_add(1, Ordering::Relaxed);
        }));
    }
    while done.load(Ordering::Relaxed) < 4 {
        runtime.sleep(Duration::from_millis(500)).await;
    }
    // It is calm: a read succeeds within the patience of a client.
    runtime.sleep(Duration::from_secs(60)).await;
    let keys: Vec<String> = (0..4).map(|account| format!("{account}account")).collect();
    let snapshot = client.snapshot().await.expect("PD answers");
    let mut sum = 0;
    for key in keys {
        sum += balance(snapshot.get(key).await.expect("the stores answer"));
    }
    client.close(Duration::from_secs(10)).await;
    sum
}

#[test]
fn the_client_keeps_money_together_whatever_breaks() {
    for seed in 0..8 {
        let chaos = Chaos { calm_after: Duration::from_secs(20), ..Chaos::default() };
        let mut simulation = simulation(seed, Some(chaos));
        let program = bank(simulation.client(), simulation.runtime(), seed);
        assert_eq!(simulation.run(program), Ok(400), "seed {seed}");
    }
}

#[test]
fn a_seed_tells_everything() {
    let run = |seed| {
        let mut simulation = simulation(seed, Some(Chaos::default()));
        let program = bank(simulation.client(), simulation.runtime(), seed);
        (simulation.run(program), simulation.runtime().now(), simulation.fingerprint())
    };
    let once = run(3);
    assert_eq!(once, run(3));
    assert_ne!(once.2, run(4).2);
}

#[test]
fn time_passes_only_when_everybody_waits() {
    let mut simulation = simulation(1, None);
    let runtime = simulation.runtime();
    let began = runtime.now();
    let slept = simulation.run(async {
        runtime.sleep(Duration::from_secs(1000)).await;
        runtime.now()
    });
    assert_eq!(slept, Ok(began + Duration::from_secs(1000)));
}

#[test]
fn a_program_that_waits_for_nothing_is_told() {
    let mut simulation = simulation(1, None);
    let limited = simulation.run(std::future::pending::<()>());
    // The cluster's own timers may go on for ever.
    assert!(matches!(limited, Err(RunError::Stalled { .. } | RunError::TimeLimit { .. })), "{limited:?}");
}

#[test]
fn tasks_that_wake_each_other_for_ever_are_told() {
    let mut simulation = simulation(1, None);
    let spinning = simulation.run(std::future::poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    }));
    assert!(matches!(spinning, Err(RunError::Spinning { .. })), "{spinning:?}");
}

#[test]
fn what_is_cut_off_arrives_later_and_a_closed_port_refuses() {
    let mut simulation = simulation(5, None);
    let (client, runtime) = (simulation.client(), simulation.runtime());
    let client = simulation.run(async { client.connect(runtime.clone()).await }).expect("ends").expect("connects");
    simulation.run(client.raw().put("a", "1")).expect("ends").expect("puts");

    let leader = simulation.with_cluster(|cluster, _| cluster.leader_context(b"a").expect("led").0);
    let address = format!("store-{leader}:20160");
    simulation.set_cut_off(&address, true);
    let late = simulation.run(async {
        let began = runtime.now();
        let get = client.raw().with_timeout(Duration::from_secs(1)).get("a").await;
        (get, runtime.now().saturating_since(began))
    });
    let (get, took) = late.expect("ends");
    assert!(get.expect_err("nobody answers").is_timeout());
    assert_eq!(took, Duration::from_secs(1));
    simulation.set_cut_off(&address, false);
    assert_eq!(simulation.run(client.raw().get("a")).expect("ends").expect("gets"), Some("1".into()));

    simulation.stop_store(leader).expect("runs");
    simulation.start_store(leader).expect("stopped");
    assert_eq!(simulation.run(client.raw().get("a")).expect("ends").expect("gets"), Some("1".into()));
}

/// A simulation without chaos, and a client of it.
fn scripted() -> (Simulation, Client) {
    let mut simulation = simulation(1, None);
    let connect = simulation.client().connect(simulation.runtime());
    let client = simulation.run(connect).expect("ends").expect("connects");
    (simulation, client)
}

#[test]
fn rules_see_every_request_and_the_first_to_choose_decides() {
    let (mut simulation, client) = scripted();
    let seen = Arc::new(AtomicU64::new(0));
    let counted = seen.clone();
    simulation.intercept(|_, arrival| (arrival.kind() == RequestKind::RawPut).then_some(Effect::Lose));
    simulation.intercept(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        Some(Effect::Status(Status::new(Code::Internal, "nobody gets that far")))
    });
    let raw = client.raw().with_timeout(Duration::from_secs(1));
    assert!(simulation.run(raw.put("a", "1")).expect("ends").expect_err("it is lost").is_timeout());
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

#[test]
fn a_rule_may_change_the_cluster_before_the_request_is_executed() {
    let (mut simulation, client) = scripted();
    simulation.run(client.raw().put("0a", "1")).expect("ends").expect("puts");
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    simulation.intercept(move |cluster, arrival| {
        if arrival.names(b"0a") && counted.fetch_add(1, Ordering::Relaxed) == 0 {
            cluster.split(&encoded(b"0")).expect("no region begins there");
        }
        None
    });
    assert_eq!(simulation.run(client.raw().get("0a")).expect("ends").expect("gets"), Some("1".into()));
    assert_eq!(asked.load(Ordering::Relaxed), 2, "the first one came with an old epoch");
}

#[test]
fn a_store_that_crashes_takes_its_connections_along() {
    let (mut simulation, client) = scripted();
    let leader = simulation.with_cluster(|cluster, _| cluster.leader_context(b"a").expect("led").0);
    simulation.inject(Fault::new(Effect::Crash).on(RequestKind::RawPut));
    let runtime = simulation.runtime();
    let began = runtime.now();
    simulation.run(client.raw().put("a", "1")).expect("ends").expect("puts");
    // Nobody waits for an answer that cannot come any more; another leader is elected after a second.
    assert!(runtime.now().saturating_since(began) < Duration::from_secs(5));
    assert!(!simulation.with_cluster(|cluster, _| cluster.topology().is_running(leader)));
}

#[test]
fn a_store_can_come_back_at_another_address() {
    let (mut simulation, client) = scripted();
    simulation.run(client.raw().put("a", "1")).expect("ends").expect("puts");
    for store_id in 1..=3 {
        simulation.move_store(store_id, &format!("elsewhere-{store_id}:20160")).expect("there is such a store");
    }
    assert_eq!(simulation.run(client.raw().get("a")).expect("ends").expect("gets"), Some("1".into()));
}
