//! Where regions are split before a large transaction is written to them.
//!
//! client-go: `twoPhaseCommitter.preSplitRegion`.

use super::mutations::Mutation;
use crate::config::Config;
use crate::key::Key;
use crate::route::Group;

/// The keys, if a region has to take so many that it would have to split anyway: one for each [`Config::pre_split_bytes`].
pub(super) fn keys(config: &Config, groups: &[Group<Mutation>]) -> Vec<Key> {
    let large = groups.iter().filter(|group| group.items.len() >= config.pre_split_keys);
    large.flat_map(|group| keys_in(config.pre_split_bytes, &group.items)).collect()
}

fn keys_in(limit_bytes: u64, mutations: &[Mutation]) -> impl Iterator<Item = Key> {
    let mut size_bytes = 0;
    mutations.iter().filter_map(move |mutation| {
        size_bytes += mutation.size_bytes() as u64;
        if size_bytes < limit_bytes {
            return None;
        }
        size_bytes = 0;
        Some(mutation.key.clone())
    })
}
