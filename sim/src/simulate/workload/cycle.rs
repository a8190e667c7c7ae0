//! Each key names the next one of a ring. Transactions take a node out and put it in one place further on; whatever happens,
//! there is one ring of all nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tikv_core::key::Key;
use tikv_core::rng::Rng;
use tikv_core::txn::Transaction;

use super::{Checked, Found, Script, Step, Task, Workload, hot_index, number, numbered_keys, value_of, written};

/// Nodes that a transaction follows.
const STEPS: usize = 3;

#[derive(Debug)]
pub(super) struct Cycle {
    nodes: Arc<[Key]>,
}

#[derive(Debug)]
struct Rotate {
    nodes: Arc<[Key]>,
    /// The node to begin with, and those after it that have been found.
    path: Vec<usize>,
    has_read: bool,
}

impl Cycle {
    pub(super) fn new(keys: u32) -> Self {
        // Four nodes have to be different.
        Cycle { nodes: numbered_keys(keys.max(4)).into() }
    }
}

impl Workload for Cycle {
    fn keys(&self) -> &[Key] {
        &self.nodes
    }

    fn initial(&self) -> Vec<(Key, Bytes)> {
        let next = |index: usize| value_of(((index + 1) % self.nodes.len()) as i64);
        self.nodes.iter().enumerate().map(|(index, node)| (node.clone(), next(index))).collect()
    }

    fn next(&mut self, rng: &mut Rng) -> Task {
        let first = hot_index(rng, self.nodes.len());
        Task::Transaction(Box::new(Rotate { nodes: Arc::clone(&self.nodes), path: vec![first], has_read: false }))
    }

    fn check(&self, state: &BTreeMap<Key, Bytes>) -> Checked<()> {
        let (mut node, mut visited) = (0, 0);
        loop {
            node = next_node(&self.nodes, state, node)?;
            visited += 1;
            if node == 0 || visited > self.nodes.len() {
                break;
            }
        }
        let len = self.nodes.len();
        if visited == len { Ok(()) } else { Err(format!("the ring has {visited} nodes, not {len}")) }
    }
}

fn next_node(nodes: &[Key], state: &BTreeMap<Key, Bytes>, node: usize) -> Checked<usize> {
    let next = number(state.get(&nodes[node]))?;
    usize::try_from(next).ok().filter(|next| *next < nodes.len()).ok_or_else(|| format!("{next} is no node"))
}

impl Script for Rotate {
    fn step(&mut self, txn: &mut Transaction, found: Found) -> Checked<Step> {
        let Some(last) = self.path.last().copied() else { return Ok(Step::Abandon) };
        if std::mem::replace(&mut self.has_read, true) {
            let next = next_node(&self.nodes, &found, last)?;
            if self.path.contains(&next) {
                return Err(format!("a ring of {} nodes: {next} comes again after {:?}", self.nodes.len(), self.path));
            }
            self.path.push(next);
        }
        let [first, second, third, fourth] = self.path[..] else {
            let last = self.path.last().copied().unwrap_or_default();
            return Ok(Step::Read(vec![self.nodes[last].clone()]));
        };
        debug_assert_eq!(self.path.len(), STEPS + 1);
        for (node, next) in [(first, third), (third, second), (second, fourth)] {
            written(txn.set(self.nodes[node].clone(), value_of(next as i64)))?;
        }
        Ok(Step::Commit)
    }
}
