//! Serves a simulated TiKV cluster, or runs clients against one under virtual time.

mod cli;

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tikv_proto::kvrpcpb::ApiVersion;
use tikv_sim::cluster::{ClusterOptions, Effect, Fault, SplitCheck, StoreOptions, region_error};
use tikv_sim::serve::{ServeOptions, ServedCluster};
use tokio::sync::oneshot;

/// A simulation allocates some two hundred times a transaction.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A simulated TiKV and PD cluster.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves a cluster on 127.0.0.1, in memory. Prints `pd HOST:PORT` when it is ready, then answers commands from stdin, one
    /// line each (`help` lists them).
    Serve(Serve),
    /// Simulates clients and a cluster under virtual time and faults, seed after seed, and checks what comes of it.
    Run(cli::Run),
    /// Simulates one seed again, and prints what happens.
    Replay(cli::Replay),
    /// Has clients make deliberate mistakes, and tells which check noticed each, after how many seeds.
    #[cfg(feature = "canary")]
    Canaries(cli::Canaries),
}

#[derive(Args)]
struct Serve {
    /// Where PD listens; port 0 is any.
    #[arg(long, default_value = "127.0.0.1:0")]
    pd_addr: SocketAddr,
    /// Members of PD.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=9))]
    pd_members: u64,
    /// Stores.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=64))]
    stores: u64,
    /// Stores that each region lies on.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=64))]
    replicas: u64,
    /// Regions at the beginning.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=75))]
    regions: u64,
    /// How stores understand keys: 1 or 2.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    api_version: u8,
    /// Raw values have a TTL, which they always have on API version 2.
    #[arg(long)]
    raw_ttl: bool,
    /// Regions with so many transactional keys split by themselves. Without it, regions never do.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    region_max_keys: Option<u64>,
    /// Keys in each part of such a region. Without it, two thirds of --region-max-keys.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), requires = "region_max_keys")]
    region_split_keys: Option<u64>,
    /// A keyspace beside DEFAULT; may be repeated.
    #[arg(long = "keyspace", value_name = "NAME")]
    keyspaces: Vec<String>,
    /// Stores answer so much later: seconds, or with a unit, as in 5ms, 1s.
    #[arg(long, value_parser = duration)]
    delay: Option<Duration>,
    /// One of so many requests to stores is turned away because the store is busy.
    #[arg(long, value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(1..))]
    busy_each: Option<u32>,
    /// One of so many requests to stores is lost: neither executed nor answered.
    #[arg(long, value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(1..))]
    lose_each: Option<u32>,
    /// One of so many answers of stores is lost.
    #[arg(long, value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(1..))]
    lose_reply_each: Option<u32>,
    /// Compresses responses for clients that understand gzip.
    #[arg(long)]
    gzip: bool,
    /// Ends when stdin ends.
    #[arg(long)]
    exit_on_eof: bool,
    /// Ends after this time at the latest: seconds, or with a unit, as in 90s, 5m, 1h.
    #[arg(long, value_parser = duration)]
    lifetime: Option<Duration>,
}

fn main() -> ExitCode {
    let serve = match Cli::parse().command {
        Command::Serve(serve) => serve,
        Command::Run(run) => return run.execute(),
        Command::Replay(replay) => return replay.execute(),
        #[cfg(feature = "canary")]
        Command::Canaries(canaries) => return canaries.execute(),
    };
    match run(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "tikv-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(serve: Serve) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        // Signals are awaited from the beginning, so that none ends the process unawares.
        let signal = Signals::new()?;
        let (exit_on_eof, lifetime, faults) = (serve.exit_on_eof, serve.lifetime, faults(&serve));
        let cluster = Arc::new(ServedCluster::start(options(serve))?);
        cluster.with_cluster(|cluster, _| faults.into_iter().for_each(|fault| cluster.inject(fault)));
        announce(&cluster)?;
        let stdin_ended = serve_commands(cluster.clone());
        tokio::select! {
            () = signal.received() => {}
            Ok(()) = stdin_ended, if exit_on_eof => {}
            () = expired(lifetime) => {}
        }
        Ok(())
    });
    // The thread that reads stdin may never return; the process ends without it.
    runtime.shutdown_background();
    ended
}

fn options(serve: Serve) -> ServeOptions {
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let split_check = serve.region_max_keys.map(|max_keys| {
        let check = SplitCheck::at(count(max_keys));
        SplitCheck { split_keys: serve.region_split_keys.map_or(check.split_keys, count), ..check }
    });
    let cluster = ClusterOptions {
        stores: vec![StoreOptions::default(); count(serve.stores)],
        replicas: count(serve.replicas),
        regions: count(serve.regions),
        pd_members: count(serve.pd_members),
        split_check,
        api_version: match (serve.api_version, serve.raw_ttl) {
            (2, _) => ApiVersion::V2,
            (_, true) => ApiVersion::V1ttl,
            (_, false) => ApiVersion::V1,
        },
        keyspaces: serve.keyspaces,
        ..ClusterOptions::default()
    };
    ServeOptions { cluster, pd_addr: serve.pd_addr, gzip: serve.gzip }
}

/// What stores are to do wrong. A request meets the first one whose turn it is.
fn faults(serve: &Serve) -> Vec<Fault> {
    let busy = || Effect::RegionError(Box::new(region_error::server_is_busy("a fault was ordered", 0)));
    let some = [
        serve.busy_each.map(|each| Fault::new(busy()).each(each)),
        serve.lose_each.map(|each| Fault::new(Effect::Lose).each(each)),
        serve.lose_reply_each.map(|each| Fault::new(Effect::LoseReply).each(each)),
        serve.delay.map(|delay| Fault::new(Effect::DelayReply(delay))),
    ];
    some.into_iter().flatten().map(Fault::forever).collect()
}

fn announce(cluster: &ServedCluster) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "pd {}", cluster.pd_endpoints().join(","))?;
    stdout.flush()
}

/// Answers the lines of stdin. What is returned is done when stdin ends.
fn serve_commands(cluster: Arc<ServedCluster>) -> oneshot::Receiver<()> {
    let (ended, stdin_ended) = oneshot::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if line.trim().is_empty() {
                continue;
            }
            let answer = cluster.administrate(&line);
            let mut stdout = io::stdout().lock();
            if writeln!(stdout, "{answer}").and_then(|()| stdout.flush()).is_err() {
                break;
            }
        }
        let _ = ended.send(());
    });
    stdin_ended
}

async fn expired(lifetime: Option<Duration>) {
    match lifetime {
        Some(lifetime) => tokio::time::sleep(lifetime).await,
        None => std::future::pending().await,
    }
}

/// The signals that end the process.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    #[cfg(unix)]
    async fn received(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn new() -> io::Result<Self> {
        Ok(Signals {})
    }

    #[cfg(not(unix))]
    async fn received(self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("unknown unit {unit}")),
    };
    let number: u64 = number.parse().map_err(|_| "a number is expected".to_owned())?;
    Ok(Duration::from_millis(number.saturating_mul(milliseconds)))
}
