//! Replays recorded answers of a real TiKV.
//!
//! `tests/golden` holds sequences of requests, one a line, with the answers that a TiKV (9.0.0-beta.2, one store, one
//! region) gave. Every sequence is replayed on an empty store, and every answer must agree. Set `GOLDEN_DIR` to a folder
//! with more of them to replay those as well.

#![allow(clippy::print_stdout)]

mod golden_replay;

use std::path::Path;

use golden_replay::replay_folder;

#[test]
fn golden_sequences_of_this_project_agree() {
    replay_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"));
}

#[test]
fn golden_sequences_of_the_given_folder_agree() {
    let beside_the_workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden");
    let folder = std::env::var_os("GOLDEN_DIR").map_or(beside_the_workspace, Into::into);
    if folder.is_dir() {
        replay_folder(&folder);
    } else {
        println!("no folder {}, nothing to replay", folder.display());
    }
}
