//! Feeds mutations of a corpus to a target, for a while. Without libFuzzer's feedback, but on any compiler.
//!
//! ```text
//! cargo run --release -p tikv-fuzz --bin mutate -- TARGET SECONDS [SEED]
//! ```
//!
//! An input that makes the target panic is left in the file `crash-TARGET`, which 0 seconds try again.
#![allow(clippy::print_stdout, clippy::print_stderr)] // It is a program for people.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs, panic, process};

use tikv_core::rng::Rng;
use tikv_fuzz::TARGETS;

/// Longest input.
const MAX_BYTES: usize = 1024;
/// Mutations before new parents are drawn by chance from what has been run.
const POOL: usize = 4096;

fn main() {
    let mut args = env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let seconds = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(10);
    let mut rng = Rng::new(args.next().and_then(|arg| arg.parse().ok()).unwrap_or(1));
    let Some((name, target)) = TARGETS.iter().find(|(target, _)| *target == name) else {
        eprintln!("targets: {}", TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" "));
        process::exit(2);
    };
    if let Some(input) = fs::read(format!("crash-{name}")).ok().filter(|_| seconds == 0) {
        return target(&input);
    }
    let mut pool = corpus(name);
    let (begin, mut runs) = (Instant::now(), 0_u64);
    while begin.elapsed() < Duration::from_secs(seconds) {
        let input = mutate(&pool, &mut rng);
        if panic::catch_unwind(|| target(&input)).is_err() {
            let file = format!("crash-{name}");
            println!("{name}: found after {runs} runs: {file}: {:?}", fs::write(&file, &input));
            process::exit(1);
        }
        runs += 1;
        // Every kind of input is kept for a while, so that mutations add up.
        if pool.len() < POOL {
            pool.push(input);
        } else {
            let place = rng.below(pool.len() as u64) as usize;
            pool[place] = input;
        }
    }
    println!("{name}: {runs} runs in {seconds} s, nothing found");
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut inputs: Vec<Vec<u8>> = files.filter_map(|file| fs::read(file.path()).ok()).collect();
    inputs.sort();
    inputs.push(Vec::new());
    inputs
}

fn mutate(pool: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut parent = || pool[rng.below(pool.len() as u64) as usize].clone();
    let (mut input, other) = (parent(), parent());
    for _ in 0..=rng.below(6) {
        let at = rng.below(input.len() as u64 + 1) as usize;
        match rng.below(8) {
            0 | 1 if at < input.len() => input[at] = rng.below(256) as u8,
            2 if at < input.len() => input[at] ^= 1 << rng.below(8),
            3 => input.truncate(at),
            4 => {
                let from = rng.below(other.len() as u64 + 1) as usize;
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            5 if at < input.len() => {
                let piece = input[at..].to_vec();
                input.extend_from_slice(&piece);
            }
            _ => input.splice(at..at, (0..=rng.below(12)).map(|_| rng.below(256) as u8)).for_each(drop),
        }
    }
    input.truncate(MAX_BYTES);
    input
}
