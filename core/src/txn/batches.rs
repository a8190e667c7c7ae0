//! The batches of a transaction, the primary's first.

use crate::key::Key;
use crate::route::{Group, Keyed, Shard, divide, is_batch};

/// Divides groups into batches as `shard` would, in the order of their keys but for the batch that holds the primary,
/// which comes first. Each batch is again a group, and small enough not to be divided any further.
pub(super) fn primary_first<S: Shard>(groups: Vec<Group<S::Item>>, primary: &Key, shard: &S) -> Vec<Group<S::Item>> {
    let mut batches = groups;
    if !batches.iter().all(|group| is_batch(shard, &group.items)) {
        let groups = std::mem::take(&mut batches);
        groups.into_iter().for_each(|group| divide(shard, group, |batch| batches.push(batch)));
    }
    let first = batches.iter().position(|batch| batch.items.iter().any(|item| item.key() == primary));
    if let Some(first) = first.filter(|first| *first > 0) {
        batches[..=first].rotate_right(1);
    }
    batches
}
