//! Walking along the leaves.

use super::node::NONE;
use super::{Log, Spot, Tree};
use crate::key::KeyRange;
use crate::membuffer::log::Place;

/// Before a key, or behind the last one. Valid until a key comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Position {
    leaf: u32,
    /// Less than the keys of the leaf, unless the position is behind the last key.
    at: u32,
}

/// The records between two positions, from either end.
#[derive(Clone, Debug)]
pub(in super::super) struct Walk<'a> {
    tree: &'a Tree,
    front: Position,
    back: Position,
}

impl Tree {
    /// The keys in a range.
    pub(in super::super) fn walk(&self, log: &Log, range: &KeyRange) -> Walk<'_> {
        let front = if range.start.is_empty() { self.start() } else { self.position(log, range.start.as_slice()) };
        let back = if range.is_empty() {
            front
        } else if range.end.is_empty() {
            self.end()
        } else {
            self.position(log, range.end.as_slice())
        };
        Walk { tree: self, front, back }
    }

    /// The keys between the ends of another walk. No key has come or gone since.
    pub(in super::super) fn walk_between(&self, (front, back): (Position, Position)) -> Walk<'_> {
        Walk { tree: self, front, back }
    }

    /// Before the first key that is not less than `key`.
    fn position(&self, log: &Log, key: &[u8]) -> Position {
        let Spot { leaf, at, .. } = self.find(log, key);
        self.normal(Position { leaf, at: at as u32 })
    }

    fn start(&self) -> Position {
        Position { leaf: if self.len == 0 { NONE } else { self.first }, at: 0 }
    }

    fn end(&self) -> Position {
        if self.len == 0 {
            return self.start();
        }
        Position { leaf: self.last, at: self.leaves.get(self.last).heads.len() as u32 }
    }

    #[inline]
    fn normal(&self, position: Position) -> Position {
        if position.leaf == NONE {
            return position;
        }
        let leaf = self.leaves.get(position.leaf);
        let next = leaf.info().next;
        if position.at as usize == leaf.heads.len() && next != NONE {
            return Position { leaf: next, at: 0 };
        }
        position
    }
}

impl Walk<'_> {
    /// What [`Tree::walk_between`] takes to go on.
    pub(in super::super) fn ends(&self) -> (Position, Position) {
        (self.front, self.back)
    }
}

impl Iterator for Walk<'_> {
    type Item = Place;

    #[inline]
    fn next(&mut self) -> Option<Place> {
        if self.front == self.back {
            return None;
        }
        let Position { leaf, at } = self.front;
        let place = self.tree.leaves.get(leaf).places[at as usize];
        self.front = self.tree.normal(Position { leaf, at: at + 1 });
        Some(place)
    }
}

impl DoubleEndedIterator for Walk<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Place> {
        if self.front == self.back {
            return None;
        }
        let Position { mut leaf, mut at } = self.back;
        if at == 0 {
            leaf = self.tree.leaves.get(leaf).info().previous;
            at = self.tree.leaves.get(leaf).heads.len() as u32;
        }
        self.back = Position { leaf, at: at - 1 };
        Some(self.tree.leaves.get(leaf).places[at as usize - 1])
    }
}
