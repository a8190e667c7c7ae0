//! Nodes of the tree.

use super::heads::Heads;
use super::lines::{InLines, Lines};
use super::words::Words;
use crate::membuffer::log::{Log, Place};

/// No node: what is before the first leaf and after the last.
pub(super) const NONE: u32 = u32::MAX;

/// Keys in a leaf, at most. More make searches longer where a leaf has to come from memory, fewer make the tree higher.
const KEYS: usize = 64;

/// Separators in an inner node, at most. There are few of these nodes, so that they stay near.
const SEPARATORS: usize = 256;

/// Keys in order, with the places of their newest records.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Leaf {
    pub(super) heads: Heads<KEYS, LeafInfo>,
    pub(super) places: Lines<Place, KEYS>,
}

/// What else there is to know of a leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeafInfo {
    pub(super) previous: u32,
    pub(super) next: u32,
    /// Index of the key that came last: the next one may be its neighbour.
    newest: u32,
}

/// Children with the keys that separate them: what is not less than a separator is on its right.
#[derive(Clone, Debug)]
pub(super) struct Inner {
    pub(super) heads: Heads<SEPARATORS>,
    /// Names of the separators.
    pub(super) separators: [u32; SEPARATORS],
    /// One more than separators.
    pub(super) children: [u32; SEPARATORS + 1],
}

impl Default for Leaf {
    fn default() -> Self {
        let info = LeafInfo { previous: NONE, next: NONE, newest: NONE };
        Leaf { heads: Heads::new(info), places: Lines([Place::default(); KEYS]) }
    }
}

impl Default for Inner {
    fn default() -> Self {
        Inner { heads: Heads::new(()), separators: [NONE; SEPARATORS], children: [NONE; SEPARATORS + 1] }
    }
}

impl Leaf {
    pub(super) fn info(&self) -> LeafInfo {
        self.heads.extra
    }

    pub(super) fn info_mut(&mut self) -> &mut LeafInfo {
        &mut self.heads.extra
    }

    /// The key at an index.
    pub(super) fn keys<'k>(&'k self, log: &'k Log) -> impl Fn(usize) -> &'k [u8] {
        |at| log.key(self.places[at])
    }

    pub(super) fn insert(&mut self, log: &Log, at: usize, key: &[u8], shares_prefix: bool, place: Place) {
        let Leaf { heads, places, .. } = self;
        let len = heads.len();
        heads.insert(at, key, shares_prefix, |at| log.key(places[at]));
        places.copy_within(at..len, at + 1);
        places[at] = place;
        heads.extra.newest = at as u32;
    }

    /// Where to split a full leaf, so that keys that come in order fill it, and whether the key to be inserted goes to the right
    /// of that.
    pub(super) fn cut(&self, at: usize) -> (usize, bool) {
        let len = self.heads.len();
        let (follows, precedes) = (at as u32 == self.info().newest.wrapping_add(1), at as u32 == self.info().newest);
        if at == 0 || at == len || follows || precedes { (at, at == len) } else { (len / 2, at > len / 2) }
    }

    pub(super) fn remove(&mut self, at: usize) {
        let len = self.heads.len();
        self.places.copy_within(at + 1..len, at);
        self.heads.remove(at);
    }

    /// Cuts off the keys from an index on. The links are left to the caller.
    pub(super) fn split_off(&mut self, at: usize) -> Leaf {
        let mut rest = Leaf::default();
        let len = self.heads.len();
        rest.places[..len - at].copy_from_slice(&self.places[at..len]);
        self.heads.split_off(at, &mut rest.heads);
        rest
    }

    pub(super) fn tighten(&mut self, log: &Log) {
        let Leaf { heads, places, .. } = self;
        heads.tighten(|at| log.key(places[at]));
    }
}

impl Inner {
    /// The child that a key belongs to.
    #[inline]
    pub(super) fn child_of(&self, separators: &Separators, key: &mut Words<'_>) -> usize {
        let found = self.heads.search(key, |at| separators.get(self.separators[at]));
        let at = found.at + usize::from(found.is_equal);
        // What is between two separators begins as they do.
        if 0 < at && at < self.heads.len() {
            key.shared = key.shared.max(self.heads.prefix_len());
        }
        at
    }

    /// Adds a separator at an index and the child on its right.
    pub(super) fn insert(&mut self, separators: &Separators, at: usize, separator: u32, child: u32) {
        let Inner { heads, separators: names, children } = self;
        let len = heads.len();
        heads.insert(at, separators.get(separator), false, |at| separators.get(names[at]));
        names.copy_within(at..len, at + 1);
        names[at] = separator;
        children.copy_within(at + 1..len + 1, at + 2);
        children[at + 1] = child;
    }

    /// Takes out a child and a separator beside it, and gives that back if there was one.
    pub(super) fn remove(&mut self, child: usize) -> Option<u32> {
        let len = self.heads.len();
        self.children.copy_within(child + 1..len + 1, child);
        let at = child.saturating_sub(1);
        if len == 0 {
            return None;
        }
        let separator = self.separators[at];
        self.separators.copy_within(at + 1..len, at);
        self.heads.remove(at);
        Some(separator)
    }

    /// Cuts off what is on the right of a separator, which belongs to neither half any more.
    pub(super) fn split_at(&mut self, at: usize) -> (u32, Inner) {
        let (mut rest, len) = (Inner::default(), self.heads.len());
        rest.separators[..len - at - 1].copy_from_slice(&self.separators[at + 1..len]);
        rest.children[..len - at].copy_from_slice(&self.children[at + 1..len + 1]);
        self.heads.split_off(at + 1, &mut rest.heads);
        self.heads.truncate(at);
        (self.separators[at], rest)
    }

    pub(super) fn tighten(&mut self, separators: &Separators) {
        let Inner { heads, separators: names, .. } = self;
        heads.tighten(|at| separators.get(names[at]));
    }
}

/// All leaves. Most transactions have one only: memory that may begin anywhere is cheaper to get.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaves {
    /// The first one, as long as there has been no other.
    only: Option<Box<Leaf>>,
    many: Slots<InLines<Leaf>>,
}

/// The name of the only leaf.
const ONLY: u32 = 0;

impl Leaves {
    /// Adds an empty leaf, the first one of its tree.
    pub(super) fn add_first(&mut self) -> u32 {
        if !self.many.list.is_empty() {
            return self.many.add(InLines::default());
        }
        self.only = Some(Box::default());
        ONLY
    }

    pub(super) fn add(&mut self, leaf: Leaf) -> u32 {
        if let Some(only) = self.only.take() {
            self.many.add(InLines(*only));
        }
        self.many.add(InLines(leaf))
    }

    /// Not the only one: a tree without keys is made anew.
    pub(super) fn free(&mut self, name: u32) -> Leaf {
        self.many.free(name).0
    }

    #[inline]
    pub(super) fn get(&self, name: u32) -> &Leaf {
        match &self.only {
            Some(only) => only,
            None => self.many.get(name),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, name: u32) -> &mut Leaf {
        match &mut self.only {
            Some(only) => only,
            None => self.many.get_mut(name),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.many.len() + usize::from(self.only.is_some())
    }
}

/// The bytes of separators: as many of a key as it takes to tell it from the one before it.
pub(super) type Separators = Slots<Box<[u8]>>;

/// Things with a number as a name. What is freed is used again.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots<T> {
    list: Vec<T>,
    free: Vec<u32>,
}

impl<T: Default> Slots<T> {
    pub(super) fn add(&mut self, item: T) -> u32 {
        if let Some(name) = self.free.pop() {
            self.list[name as usize] = item;
            return name;
        }
        self.list.push(item);
        self.list.len() as u32 - 1
    }

    pub(super) fn free(&mut self, name: u32) -> T {
        self.free.push(name);
        std::mem::take(&mut self.list[name as usize])
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len() - self.free.len()
    }
}

impl<T> Slots<T> {
    #[inline]
    pub(super) fn get(&self, name: u32) -> &T {
        &self.list[name as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, name: u32) -> &mut T {
        &mut self.list[name as usize]
    }
}
