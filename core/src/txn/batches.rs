//! The batches of a transaction, the primary's first.

use std::sync::Arc;

use crate::key::Key;
use crate::route::{Group, Keyed, Shard};

/// Divides groups into batches as `shard` would, in the order of their keys but for the batch that holds the primary,
/// which comes first. Each batch is again a group, and small enough not to be divided any further.
pub(super) fn primary_first<S: Shard>(groups: Vec<Group<S::Item>>, primary: &Key, shard: &S) -> Vec<Group<S::Item>> {
    let mut batches = Vec::new();
    for group in groups {
        let (mut items, mut weight) = (Vec::new(), 0);
        for item in group.items {
            weight += shard.weight(&item);
            items.push(item);
            if weight >= shard.batch_limit() {
                batches.push(Group { region: Arc::clone(&group.region), items: std::mem::take(&mut items) });
                weight = 0;
            }
        }
        if !items.is_empty() {
            batches.push(Group { region: group.region, items });
        }
    }
    let first = batches.iter().position(|batch| batch.items.iter().any(|item| item.key() == primary));
    if let Some(first) = first {
        batches[..=first].rotate_right(1);
    }
    batches
}
