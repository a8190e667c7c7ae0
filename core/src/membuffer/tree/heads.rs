//! Sorted keys that are told apart by four bytes each.

use std::cmp::Ordering;
use std::hint::black_box;
use std::ops::{Deref, DerefMut};

/// Keys in a node, at most.
pub(super) const CAPACITY: usize = 64;

const QUARTER: usize = CAPACITY / 4;

/// Heads or places in a cache line.
const LINE: usize = 16;

/// Bytes of the common prefix that a node knows without looking at a key: those of a row or the start of an index entry.
const INLINE: usize = 24;
const WORDS: usize = INLINE / 8;

/// Of each key of a node the four bytes that follow the prefix common to them all, in one array: a search looks at these
/// first and at the keys themselves, which are elsewhere, only where the four bytes are the same. Keys with much in common,
/// those of a table say, are told apart in this way just as well as random ones.
///
/// A shorter key is filled up with zeros; that makes ties, never a wrong order. What `key_at` gives is the key at an index.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Heads<Extra = ()> {
    /// The start of the prefix, filled up with zeros, as [`Words`].
    prefix: [u64; WORDS],
    /// Ones where `prefix` has bytes of the prefix.
    mask: [u64; WORDS],
    len: u16,
    prefix_len: u16,
    /// What else the node has: there is room for it in the first cache line.
    pub(super) extra: Extra,
    /// Those that are not used are the highest there are, so that a search can count over all of them.
    heads: Lines<u32>,
}

/// An array that begins with a cache line.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Lines<T>(pub(super) [T; CAPACITY]);

impl<T: Copy> Lines<T> {
    /// Brings the array near without waiting for it. Nothing depends on what is read here.
    #[inline]
    pub(super) fn touch(&self) {
        for line in self.0.chunks_exact(LINE) {
            black_box(line[0]);
        }
    }
}

impl<T> Deref for Lines<T> {
    type Target = [T; CAPACITY];

    #[inline]
    fn deref(&self) -> &[T; CAPACITY] {
        &self.0
    }
}

impl<T> DerefMut for Lines<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T; CAPACITY] {
        &mut self.0
    }
}

/// Where a key is, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) at: usize,
    pub(super) is_equal: bool,
}

/// A key to be searched for, with its first bytes in registers: all nodes on the way compare them with their prefixes.
#[derive(Clone, Copy)]
pub(super) struct Words<'k> {
    key: &'k [u8],
    words: [u64; WORDS],
}

impl<'k> Words<'k> {
    #[inline]
    pub(super) fn new(key: &'k [u8]) -> Self {
        let words = match key.first_chunk::<INLINE>() {
            Some(start) => words(start),
            None => {
                let mut start = [0; INLINE];
                start[..key.len()].copy_from_slice(key);
                words(&start)
            }
        };
        Words { key, words }
    }
}

#[inline]
fn words(bytes: &[u8; INLINE]) -> [u64; WORDS] {
    let word = |at: usize| bytes[at * 8..].first_chunk().map_or(0, |word| u64::from_be_bytes(*word));
    [word(0), word(1), word(2)]
}

impl<Extra> Heads<Extra> {
    pub(super) fn new(extra: Extra) -> Self {
        let heads = Lines([u32::MAX; CAPACITY]);
        Heads { prefix: [0; WORDS], mask: [0; WORDS], len: 0, prefix_len: 0, extra, heads }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() == CAPACITY
    }

    /// The first key that is not less than `key`.
    #[inline]
    pub(super) fn search<'n>(&self, key: &Words<'_>, key_at: impl Fn(usize) -> &'n [u8]) -> Found {
        if !self.shares_prefix(key, &key_at) {
            let is_less = self.len == 0 || key.key < key_at(0);
            return Found { at: if is_less { 0 } else { self.len() }, is_equal: false };
        }
        let skip = usize::from(self.prefix_len);
        let head = head(key.key, skip);
        let first = self.rank(head);
        let ties = self.ties(first, head);
        if ties == 0 {
            return Found { at: first, is_equal: false };
        }
        search_ties(first, ties, |at| key_at(at)[skip..].cmp(&key.key[skip..]))
    }

    /// Where `key` is, if it is here. Does without comparing prefixes, since it compares whole keys in the end.
    #[inline]
    pub(super) fn search_equal<'n>(&self, key: &Words<'_>, key_at: impl Fn(usize) -> &'n [u8]) -> Option<usize> {
        let skip = usize::from(self.prefix_len);
        if key.key.len() < skip {
            return None;
        }
        let head = head(key.key, skip);
        let first = self.rank(head);
        match self.ties(first, head) {
            0 => None,
            1 => (key_at(first) == key.key).then_some(first),
            ties => {
                let found = search_ties(first, ties, |at| key_at(at).cmp(key.key));
                found.is_equal.then_some(found.at)
            }
        }
    }

    /// Heads that are less: at first by quarters, then all of a quarter at once.
    #[inline]
    fn rank(&self, head: u32) -> usize {
        let is_less = |other: u32| usize::from(other < head);
        let quarters =
            [QUARTER, 2 * QUARTER, 3 * QUARTER].map(|end| is_less(self.heads[end - 1])).iter().sum::<usize>();
        let quarter = self.heads[quarters * QUARTER..].first_chunk::<QUARTER>();
        let less = |quarter: &[u32; QUARTER]| quarter.iter().map(|other| u32::from(*other < head)).sum::<u32>();
        quarters * QUARTER + quarter.map_or(0, less) as usize
    }

    /// Heads from an index on that are the same.
    #[inline]
    fn ties(&self, first: usize, head: u32) -> usize {
        if first >= self.len() || self.heads[first] != head {
            return 0;
        }
        self.heads[first..self.len()].iter().take_while(|other| **other == head).count()
    }

    /// Makes room for a key at an index. There is room for one more.
    pub(super) fn insert<'k>(&mut self, at: usize, key: &[u8], key_at: impl Fn(usize) -> &'k [u8]) {
        let len = self.len();
        if len == 0 {
            self.set_prefix(key, key.len());
        } else {
            let common = self.common_with_prefix(key, &key_at);
            if common < usize::from(self.prefix_len) {
                self.set_prefix(key, common);
                self.read_heads(&key_at);
            }
        }
        self.heads.copy_within(at..len, at + 1);
        self.heads[at] = head(key, usize::from(self.prefix_len));
        self.len += 1;
    }

    pub(super) fn remove(&mut self, at: usize) {
        let len = self.len();
        self.heads.copy_within(at + 1..len, at);
        self.heads[len - 1] = u32::MAX;
        self.len -= 1;
        if self.len == 0 {
            self.set_prefix(&[], 0);
        }
    }

    /// Moves the keys from an index on to a node without any.
    pub(super) fn split_off(&mut self, at: usize, rest: &mut Self) {
        let len = self.len();
        (rest.prefix, rest.mask, rest.prefix_len) = (self.prefix, self.mask, self.prefix_len);
        rest.heads[..len - at].copy_from_slice(&self.heads[at..len]);
        rest.len = (len - at) as u16;
        self.truncate(at);
    }

    pub(super) fn truncate(&mut self, len: usize) {
        let old = self.len();
        self.heads[len..old].fill(u32::MAX);
        self.len = len as u16;
    }

    /// Takes a longer prefix if that may tell apart what the heads do not. Looking at all keys costs, so it is done only where
    /// it helps.
    pub(super) fn tighten<'k>(&mut self, key_at: impl Fn(usize) -> &'k [u8]) {
        let len = self.len();
        if self.heads[..len].windows(2).all(|pair| pair[0] != pair[1]) {
            return;
        }
        let (first, last) = (key_at(0), key_at(len - 1));
        let common = common_len(first, last);
        if common > usize::from(self.prefix_len) {
            self.set_prefix(first, common);
            self.read_heads(&key_at);
        }
    }

    fn set_prefix(&mut self, key: &[u8], len: usize) {
        self.prefix_len = len as u16;
        let inline = len.min(INLINE);
        let mut mask = [0; INLINE];
        mask[..inline].fill(u8::MAX);
        self.mask = words(&mask);
        self.prefix = Words::new(&key[..inline]).words;
    }

    fn read_heads<'k>(&mut self, key_at: &impl Fn(usize) -> &'k [u8]) {
        let (len, skip) = (self.len(), usize::from(self.prefix_len));
        self.heads[..len].iter_mut().enumerate().for_each(|(at, to)| *to = head(key_at(at), skip));
    }

    /// Whether `key` begins with the prefix.
    #[inline]
    fn shares_prefix<'n>(&self, key: &Words<'_>, key_at: &impl Fn(usize) -> &'n [u8]) -> bool {
        let len = usize::from(self.prefix_len);
        let differs = |at: usize| key.words[at] & self.mask[at] ^ self.prefix[at];
        if differs(0) | differs(1) | differs(2) != 0 || key.key.len() < len {
            return false;
        }
        len <= INLINE || key.key[INLINE..len] == key_at(0)[INLINE..len]
    }

    fn common_with_prefix<'n>(&self, key: &[u8], key_at: &impl Fn(usize) -> &'n [u8]) -> usize {
        let len = usize::from(self.prefix_len);
        let words = Words::new(key).words;
        let differs = |at: usize| words[at] & self.mask[at] ^ self.prefix[at];
        match (0..WORDS).find(|at| differs(*at) != 0) {
            Some(at) => (at * 8 + differs(at).leading_zeros() as usize / 8).min(key.len()),
            None if len <= INLINE => len.min(key.len()),
            None => common_len(key, &key_at(0)[..len]),
        }
    }
}

#[cfg(test)]
impl<Extra> Heads<Extra> {
    /// Panics unless the heads are those of the keys.
    pub(super) fn validate<'k>(&self, key_at: impl Fn(usize) -> &'k [u8]) {
        let (len, skip) = (self.len(), usize::from(self.prefix_len));
        assert!(self.heads[len..].iter().all(|unused| *unused == u32::MAX));
        for at in 0..len {
            let key = key_at(at);
            assert!(self.shares_prefix(&Words::new(key), &key_at));
            assert_eq!(&key[..skip], &key_at(0)[..skip]);
            assert_eq!(self.heads[at], head(key, skip));
            assert!(at == 0 || key_at(at - 1) < key);
        }
    }
}

/// The first of `ties` keys from `first` on that is not less.
fn search_ties(first: usize, ties: usize, order: impl Fn(usize) -> Ordering) -> Found {
    let (mut low, mut high) = (first, first + ties);
    while low < high {
        let middle = low + (high - low) / 2;
        match order(middle) {
            Ordering::Less => low = middle + 1,
            Ordering::Equal => return Found { at: middle, is_equal: true },
            Ordering::Greater => high = middle,
        }
    }
    Found { at: low, is_equal: false }
}

/// The four bytes of `key` from `skip` on, in the order of bytes. The key has that many bytes or more.
#[inline]
fn head(key: &[u8], skip: usize) -> u32 {
    let rest = &key[skip..];
    match rest.first_chunk() {
        Some(head) => u32::from_be_bytes(*head),
        None => {
            let mut head = [0; 4];
            head[..rest.len()].copy_from_slice(rest);
            u32::from_be_bytes(head)
        }
    }
}

/// Length of the longest common prefix.
pub(super) fn common_len(a: &[u8], b: &[u8]) -> usize {
    const STEP: usize = 16;
    let same = a.chunks_exact(STEP).zip(b.chunks_exact(STEP)).take_while(|(a, b)| a == b).count() * STEP;
    same + a[same..].iter().zip(&b[same..]).take_while(|(a, b)| a == b).count()
}
