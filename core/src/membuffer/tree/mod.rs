//! The order of keys: a B+ tree over the records of a [`Log`].
//!
//! ```text
//!   inner   prefix  heads      separators  children
//!                                 │            │
//!   leaf    prefix  heads      places  ◄───────┘   previous, next
//!                                 │
//!   log     … key value │ key value │ key value …
//! ```
//!
//! Nodes lie in arrays and name each other by index. On each level a search reads one array of heads (see [`heads`]), and then
//! the one record.
//!
//! A full leaf is halved, but where keys come in order it is split between them and what is behind, so that they fill their
//! leaves. A leaf goes when it is empty; nodes are never merged, since keys go in the reverse of the order in
//! which they came.

mod heads;
mod lines;
mod node;
mod walk;
mod words;

use lines::InLines;
use node::{Inner, Leaf, LeafInfo, Leaves, NONE, Separators, Slots};
use words::{Words, common_len};

use super::log::{Log, Place};

pub(super) use walk::{Position, Walk};

#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    leaves: Leaves,
    inners: Slots<InLines<Inner>>,
    separators: Separators,
    separator_bytes: usize,
    /// A leaf if `height` is zero, else an inner node. There is none while the tree is empty.
    root: u32,
    height: usize,
    first: u32,
    last: u32,
    len: usize,
    /// Counts keys that came or went: positions are valid as long as it stays.
    changes: u64,
}

/// Where a key is, or would be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    leaf: u32,
    at: usize,
    /// The key begins as all keys of the leaf.
    shares_prefix: bool,
    /// Its newest record.
    pub(super) place: Option<Place>,
}

/// Inner nodes from the root to a leaf, with the index of the child that was taken. 256 children a node make more keys of
/// height 5 than a place can tell apart.
#[derive(Default)]
struct Path {
    steps: [(u32, usize); 10],
    len: usize,
}

impl Tree {
    /// Keys in the tree.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// The newest record of a key.
    #[inline]
    pub(super) fn get(&self, log: &Log, key: &[u8]) -> Option<Place> {
        if self.len == 0 {
            return None;
        }
        let mut key = Words::new(key);
        let leaf = self.leaves.get(self.leaf_of(&mut key));
        leaf.places.touch();
        leaf.heads.search_equal(&key, leaf.keys(log)).map(|at| leaf.places[at])
    }

    /// Where a key is, or would be.
    #[inline]
    pub(super) fn find(&self, log: &Log, key: &[u8]) -> Spot {
        if self.len == 0 {
            return Spot { leaf: NONE, at: 0, shares_prefix: false, place: None };
        }
        let mut key = Words::new(key);
        let name = self.leaf_of(&mut key);
        let leaf = self.leaves.get(name);
        leaf.places.touch();
        let found = leaf.heads.search(&key, leaf.keys(log));
        let place = found.is_equal.then(|| leaf.places[found.at]);
        Spot { leaf: name, at: found.at, shares_prefix: found.shares_prefix, place }
    }

    #[inline]
    fn leaf_of(&self, key: &mut Words<'_>) -> u32 {
        let mut node = self.root;
        for _ in 0..self.height {
            let inner = self.inners.get(node);
            node = inner.children[inner.child_of(&self.separators, key)];
        }
        node
    }

    /// As [`Tree::find`], but at once if the key is behind all others.
    #[inline]
    pub(super) fn find_to_write(&self, log: &Log, key: &[u8]) -> Spot {
        if self.len > 0 {
            let leaf = self.leaves.get(self.last);
            let at = leaf.heads.len();
            if log.key(leaf.places[at - 1]) < key {
                return Spot { leaf: self.last, at, shares_prefix: false, place: None };
            }
        }
        self.find(log, key)
    }

    /// Changes the record of a key that is there.
    pub(super) fn set(&mut self, spot: Spot, place: Place) {
        self.leaves.get_mut(spot.leaf).places[spot.at] = place;
    }

    /// Adds a key that is not there.
    pub(super) fn insert(&mut self, log: &Log, spot: Spot, key: &[u8], place: Place) {
        self.len += 1;
        self.changes += 1;
        if spot.leaf == NONE {
            self.root = self.leaves.add_first();
            (self.first, self.last) = (self.root, self.root);
            self.leaves.get_mut(self.root).insert(log, 0, key, false, place);
            return;
        }
        let leaf = self.leaves.get_mut(spot.leaf);
        if leaf.heads.is_full() {
            self.split_leaf(log, spot, key, place);
        } else {
            leaf.insert(log, spot.at, key, spot.shares_prefix, place);
        }
    }

    /// Takes out a key that is there.
    pub(super) fn remove(&mut self, spot: Spot, key: &[u8]) {
        self.len -= 1;
        self.changes += 1;
        if self.len == 0 {
            *self = Tree { changes: self.changes, ..Tree::default() };
            return;
        }
        if self.leaves.get(spot.leaf).heads.len() > 1 {
            self.leaves.get_mut(spot.leaf).remove(spot.at);
            return;
        }
        let path = self.path_to(key);
        let LeafInfo { previous, next, .. } = self.leaves.free(spot.leaf).info();
        self.link(previous, next);
        self.remove_child(&path);
    }

    /// Forgets all keys.
    pub(super) fn clear(&mut self) {
        *self = Tree { changes: self.changes + 1, ..Tree::default() };
    }

    /// Memory taken, in bytes.
    pub(super) fn footprint(&self) -> usize {
        let separators = self.separators.len() * size_of::<Box<[u8]>>() + self.separator_bytes;
        self.leaves.len() * size_of::<Leaf>() + self.inners.len() * size_of::<Inner>() + separators
    }

    fn split_leaf(&mut self, log: &Log, spot: Spot, key: &[u8], place: Place) {
        let path = self.path_to(key);
        let left = self.leaves.get_mut(spot.leaf);
        let ((cut, goes_right), next) = (left.cut(spot.at), left.info().next);
        let mut right = left.split_off(cut);
        if goes_right {
            right.insert(log, spot.at - cut, key, spot.shares_prefix, place);
        } else {
            left.insert(log, spot.at, key, spot.shares_prefix, place);
        }
        left.tighten(log);
        right.tighten(log);
        let (before, behind) = (left.keys(log)(left.heads.len() - 1), right.keys(log)(0));
        // A leaf that is left full shall get no more keys, else each of them splits it again.
        let separator = if left.heads.is_full() { low_separator(before, behind) } else { separator(before, behind) };
        let right = self.leaves.add(right);
        self.link(spot.leaf, right);
        self.link(right, next);
        self.add_child(&path, separator, right);
    }

    /// Adds a child behind the one at the end of a path; splits what is full.
    fn add_child(&mut self, path: &Path, separator: Box<[u8]>, mut child: u32) {
        self.separator_bytes += separator.len();
        let mut separator = self.separators.add(separator);
        for (name, at) in path.upwards() {
            let inner = self.inners.get_mut(name);
            if !inner.heads.is_full() {
                inner.insert(&self.separators, at, separator, child);
                return;
            }
            (separator, child) = self.split_inner(name, at, separator, child);
        }
        let mut root = Inner::default();
        root.children[0] = self.root;
        root.insert(&self.separators, 0, separator, child);
        self.root = self.inners.add(InLines(root));
        self.height += 1;
    }

    /// Splits a full node and adds a child to it. Says what is new in the node above.
    fn split_inner(&mut self, name: u32, at: usize, separator: u32, child: u32) -> (u32, u32) {
        let left = self.inners.get_mut(name);
        let len = left.heads.len();
        if at == len {
            // Keys come in order: leave this node full.
            let mut right = Inner::default();
            right.children[0] = child;
            return (separator, self.inners.add(InLines(right)));
        }
        let cut = len / 2;
        let (up, mut right) = left.split_at(cut);
        if at <= cut {
            left.insert(&self.separators, at, separator, child);
        } else {
            right.insert(&self.separators, at - cut - 1, separator, child);
        }
        left.tighten(&self.separators);
        right.tighten(&self.separators);
        (up, self.inners.add(InLines(right)))
    }

    /// Takes out the child at the end of a path, and what has no child left.
    fn remove_child(&mut self, path: &Path) {
        for (name, at) in path.upwards() {
            let inner = self.inners.get_mut(name);
            match inner.remove(at) {
                Some(separator) => {
                    self.separator_bytes -= self.separators.free(separator).len();
                    break;
                }
                None => drop(self.inners.free(name)),
            }
        }
        while self.height > 0 && self.inners.get(self.root).heads.len() == 0 {
            self.root = self.inners.free(self.root).children[0];
            self.height -= 1;
        }
    }

    /// Makes two leaves neighbours, or one of them the first or last.
    fn link(&mut self, left: u32, right: u32) {
        match left {
            NONE => self.first = right,
            left => self.leaves.get_mut(left).info_mut().next = right,
        }
        match right {
            NONE => self.last = left,
            right => self.leaves.get_mut(right).info_mut().previous = left,
        }
    }

    fn path_to(&self, key: &[u8]) -> Path {
        let (mut path, mut node, mut key) = (Path::default(), self.root, Words::new(key));
        for _ in 0..self.height {
            let inner = self.inners.get(node);
            let at = inner.child_of(&self.separators, &mut key);
            path.steps[path.len] = (node, at);
            path.len += 1;
            node = inner.children[at];
        }
        path
    }
}

impl Path {
    fn upwards(&self) -> impl Iterator<Item = (u32, usize)> {
        self.steps[..self.len].iter().rev().copied()
    }
}

/// The shortest key that is greater than `left` and not greater than `right`.
fn separator(left: &[u8], right: &[u8]) -> Box<[u8]> {
    right[..right.len().min(common_len(left, right) + 1)].into()
}

/// About the smallest such key.
fn low_separator(left: &[u8], right: &[u8]) -> Box<[u8]> {
    let common = common_len(left, right);
    // `left` is the start of `right` or less at a byte that is not the highest.
    let last = left.get(common).map_or(0, |byte| byte + 1);
    [&left[..common], &[last]].concat().into()
}

#[cfg(test)]
#[path = "validate.rs"]
mod validate;
