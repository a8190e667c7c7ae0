//! A program that uses the client, under simulation: a shop whose stock must not go below zero, whatever breaks.
//!
//! `cargo run --release --example simulate_my_app -- [FIRST_SEED [RUNS]]`
//!
//! The program itself (`buy`, `customer`) knows nothing of the simulation: it gets a client and a [`Runtime`], as it would in
//! production. The seed decides in which order things happen and what breaks, so a run that fails can be looked at again.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tikv::{Client, Error, Key, Runtime};
use tikv_sim::runtime::{Chaos, RunError, Simulation, SimulationOptions};

const STOCK: u64 = 20;
const CUSTOMERS: u64 = 5;

/// What the customers were told.
#[derive(Debug, Default)]
struct Told {
    sold: AtomicU64,
    sold_out: AtomicU64,
    unknown: AtomicU64,
    failed: AtomicU64,
}

/// Takes one from the stock, and says whether there was one.
async fn buy(client: &Client) -> Result<bool, Error> {
    client
        .run(|txn| async move {
            let left = number(txn.get("stock").await?, STOCK);
            if left == 0 {
                return Ok(false);
            }
            txn.put("stock", (left - 1).to_string())?;
            Ok(true)
        })
        .await
}

async fn customer(client: Client, runtime: Arc<dyn Runtime>, told: Arc<Told>) {
    for _ in 0..8 {
        let counter = match buy(&client).await {
            Ok(true) => &told.sold,
            Ok(false) => &told.sold_out,
            Err(error) if error.is_undetermined() => &told.unknown,
            Err(_) => &told.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        runtime.sleep(Duration::from_millis(700)).await;
    }
}

fn number(value: Option<impl AsRef<[u8]>>, default: u64) -> u64 {
    value.and_then(|value| std::str::from_utf8(value.as_ref()).ok()?.parse().ok()).unwrap_or(default)
}

/// One run of the shop. What is left of the stock in the end, and what the customers were told.
fn simulate(seed: u64) -> Result<(u64, Arc<Told>), RunError> {
    let chaos = Some(Chaos { calm_after: Duration::from_secs(10), ..Chaos::default() });
    let mut simulation = Simulation::new(SimulationOptions { seed, chaos, ..SimulationOptions::default() });
    let (builder, runtime) = (simulation.client(), simulation.runtime());
    let told = Arc::new(Told::default());
    let everybody_was_told = told.clone();
    let left = simulation.run(async move {
        let client = loop {
            // PD may be out of reach.
            if let Ok(client) = builder.clone().connect(runtime.clone()).await {
                break client;
            }
        };
        let customers = (0..CUSTOMERS).map(|_| customer(client.clone(), Arc::new(runtime.clone()), told.clone()));
        futures::future::join_all(customers).await;
        // It is calm by now, or soon.
        runtime.sleep(Duration::from_secs(30)).await;
        let left = client.snapshot().await?.get(Key::from("stock")).await?;
        Ok::<_, Error>(number(left, STOCK))
    })?;
    Ok((left.expect("nothing breaks any more"), everybody_was_told))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (first, runs) = (argument(0)?, argument(20)?);
    for seed in first..first + runs {
        let (left, told) = simulate(seed).map_err(|error| format!("seed {seed}: {error}"))?;
        let [sold, sold_out, unknown, failed] =
            [&told.sold, &told.sold_out, &told.unknown, &told.failed].map(|counter| counter.load(Ordering::Relaxed));
        println!(
            "seed {seed}: {left} left of {STOCK}, {sold} sold, {sold_out} came too late, {unknown} do not know, {failed} failed"
        );
        // Whoever was told that it bought did; of those who do not know, any.
        if !(sold..=sold + unknown).contains(&(STOCK - left)) {
            return Err(format!("seed {seed}: {} were taken from the stock", STOCK - left).into());
        }
    }
    Ok(())
}
