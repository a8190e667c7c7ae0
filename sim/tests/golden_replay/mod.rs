//! Runs recorded sequences of requests on the simulated storage.

mod compare;
mod dispatch;
mod messages;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde_json::Value;
use tikv_sim::storage::{Config, Storage};

use compare::Difference;
use dispatch::{KNOWN_RPCS, call};
use messages::Messages;

/// Differences that are printed for each family.
const PRINTED: usize = 5;

/// Replays all families of a folder, prints how many sequences of each agree, and fails unless all do.
pub(crate) fn replay_folder(folder: &Path) {
    let messages = Messages::new();
    let families = families(folder);
    assert!(!families.is_empty(), "no recorded sequences in {}", folder.display());
    let disagreeing: usize = families.iter().map(|family| replay_family(&messages, family)).sum();
    assert_eq!(disagreeing, 0, "sequences that do not agree");
}

fn families(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder can be read");
    let files = entries.map(|entry| entry.expect("the folder can be listed").path());
    let mut families: Vec<_> = files.filter(|file| file.to_string_lossy().ends_with(".jsonl.gz")).collect();
    families.sort();
    families
}

/// Returns how many sequences do not agree.
fn replay_family(messages: &Messages, file: &Path) -> usize {
    let lines = BufReader::new(GzDecoder::new(File::open(file).expect("the file can be opened"))).lines();
    let (mut total, mut differing) = (0, 0);
    for line in lines {
        let sequence: Value = serde_json::from_str(&line.expect("the file is gzip'd text")).expect("lines are JSON");
        total += 1;
        if let Err(difference) = replay_sequence(messages, &sequence) {
            differing += 1;
            if differing <= PRINTED {
                println!("{difference}");
            }
        }
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    println!("{name}: {} of {total} sequences agree", total - differing);
    differing
}

fn replay_sequence(messages: &Messages, sequence: &Value) -> Result<(), String> {
    let mut storage = Storage::new(Config::default());
    for (number, step) in sequence["steps"].as_array().into_iter().flatten().enumerate() {
        replay_step(messages, &mut storage, step).map_err(|differences| {
            let differences: Vec<_> = differences.iter().map(ToString::to_string).collect();
            format!(
                "{} seq {} step {number} {}\n  request  {}\n  expected {}\n  {}",
                sequence["family"].as_str().unwrap_or_default(),
                sequence["seq"],
                step["rpc"].as_str().unwrap_or_default(),
                step["request"],
                step["response"],
                differences.join("\n  "),
            )
        })?;
    }
    Ok(())
}

fn replay_step(messages: &Messages, storage: &mut Storage, step: &Value) -> Result<(), Vec<Difference>> {
    let rpc = step["rpc"].as_str().unwrap_or_default();
    assert!(KNOWN_RPCS.contains(&rpc), "a recorded RPC is not dispatched: {rpc}");
    let (request, response) = messages.of_rpc(rpc);
    let request = messages.encode(&request, &step["request"]);
    let actual = call(storage, rpc, &request).map_err(|refusal| vec![Difference::refused(refusal)])?;
    let expected = messages.to_message(&response, &step["response"]);
    let actual = messages.decode(&response, &actual);
    let differences = compare::compare(&expected, &actual, storage);
    if differences.is_empty() { Ok(()) } else { Err(differences) }
}
