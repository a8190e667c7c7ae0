//! Sorted keys that are told apart by four bytes each.

use std::cmp::Ordering;

use super::lines::{LINE, Lines};
use super::words::{INLINE, WORDS, Words, common_len, head, mask};

/// Of each key of a node the four bytes that follow the prefix common to them all, in one array: a search looks at these
/// first and at the keys themselves, which are elsewhere, only where the four bytes are the same. Keys with much in common,
/// those of a table say, are told apart in this way just as well as random ones.
///
/// A shorter key is filled up with zeros; that makes ties, never a wrong order. What `key_at` gives is the key at an index.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Heads<const N: usize, Extra = ()> {
    /// The start of the prefix, filled up with zeros, as [`Words`].
    prefix: [u64; WORDS],
    /// Ones where `prefix` has bytes of the prefix.
    mask: [u64; WORDS],
    len: u16,
    prefix_len: u16,
    /// What else the node has: there is room for it in the first cache line.
    pub(super) extra: Extra,
    /// Those that are not used are the highest there are, so that a search can count over all of them.
    heads: Lines<u32, N>,
}

/// Where a key is, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) at: usize,
    pub(super) is_equal: bool,
    /// It begins with the prefix of the node.
    pub(super) shares_prefix: bool,
}

impl<const N: usize, Extra> Heads<N, Extra> {
    pub(super) fn new(extra: Extra) -> Self {
        let heads = Lines([u32::MAX; N]);
        Heads { prefix: [0; WORDS], mask: [0; WORDS], len: 0, prefix_len: 0, extra, heads }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Leading bytes that all keys have in common, at least.
    #[inline]
    pub(super) fn prefix_len(&self) -> usize {
        usize::from(self.prefix_len)
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() == N
    }

    /// The first key that is not less than `key`.
    #[inline]
    pub(super) fn search<'n>(&self, key: &Words<'_>, key_at: impl Fn(usize) -> &'n [u8]) -> Found {
        if !self.shares_prefix(key, &key_at) {
            let is_less = self.len == 0 || key.key < key_at(0);
            return Found { at: if is_less { 0 } else { self.len() }, is_equal: false, shares_prefix: false };
        }
        let skip = self.prefix_len();
        let head = head(key.key, skip);
        let first = self.rank(head);
        let ties = self.ties(first, head);
        if ties == 0 {
            return Found { at: first, is_equal: false, shares_prefix: true };
        }
        search_ties(first, ties, |at| key_at(at)[skip..].cmp(&key.key[skip..]))
    }

    /// Where `key` is, if it is here. Does without comparing prefixes, since it compares whole keys in the end.
    #[inline]
    pub(super) fn search_equal<'n>(&self, key: &Words<'_>, key_at: impl Fn(usize) -> &'n [u8]) -> Option<usize> {
        let skip = self.prefix_len();
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

    /// Heads that are less: at first by cache lines, then all of a line at once.
    #[inline]
    fn rank(&self, head: u32) -> usize {
        let lines: usize = (1..N / LINE).map(|line| usize::from(self.heads[line * LINE - 1] < head)).sum();
        let line = self.heads[lines * LINE..].first_chunk::<LINE>();
        let less = |line: &[u32; LINE]| line.iter().map(|other| u32::from(*other < head)).sum::<u32>();
        lines * LINE + line.map_or(0, less) as usize
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
    pub(super) fn insert<'k>(
        &mut self,
        at: usize,
        key: &[u8],
        shares_prefix: bool,
        key_at: impl Fn(usize) -> &'k [u8],
    ) {
        let len = self.len();
        if len == 0 {
            self.set_prefix(key, key.len());
        } else if !shares_prefix {
            let common = self.common_with_prefix(key, &key_at);
            if common < self.prefix_len() {
                self.set_prefix(key, common);
                self.read_heads(&key_at);
            }
        }
        self.heads.copy_within(at..len, at + 1);
        self.heads[at] = head(key, self.prefix_len());
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
        if common > self.prefix_len() {
            self.set_prefix(first, common);
            self.read_heads(&key_at);
        }
    }

    fn set_prefix(&mut self, key: &[u8], len: usize) {
        self.prefix_len = len as u16;
        self.mask = mask(len);
        self.prefix = Words::new(&key[..len]).words;
    }

    fn read_heads<'k>(&mut self, key_at: &impl Fn(usize) -> &'k [u8]) {
        let (len, skip) = (self.len(), self.prefix_len());
        self.heads[..len].iter_mut().enumerate().for_each(|(at, to)| *to = head(key_at(at), skip));
    }

    /// Whether `key` begins with the prefix.
    #[inline]
    fn shares_prefix<'n>(&self, key: &Words<'_>, key_at: &impl Fn(usize) -> &'n [u8]) -> bool {
        let len = self.prefix_len();
        if len <= key.shared {
            return true;
        }
        let differs = |at: usize| key.words[at] & self.mask[at] ^ self.prefix[at];
        if differs(0) | differs(1) | differs(2) != 0 || key.key.len() < len {
            return false;
        }
        let seen = key.shared.max(INLINE);
        len <= seen || key.key[seen..len] == key_at(0)[seen..len]
    }

    fn common_with_prefix<'n>(&self, key: &[u8], key_at: &impl Fn(usize) -> &'n [u8]) -> usize {
        let (len, words) = (self.prefix_len(), Words::new(key).words);
        let differs = |at: usize| words[at] & self.mask[at] ^ self.prefix[at];
        match (0..WORDS).find(|at| differs(*at) != 0) {
            Some(at) => (at * 8 + differs(at).leading_zeros() as usize / 8).min(key.len()),
            None if len <= INLINE => len.min(key.len()),
            None => common_len(key, &key_at(0)[..len]),
        }
    }
}

#[cfg(test)]
impl<const N: usize, Extra> Heads<N, Extra> {
    /// Panics unless the heads are those of the keys.
    pub(super) fn validate<'k>(&self, key_at: impl Fn(usize) -> &'k [u8]) {
        let (len, skip) = (self.len(), self.prefix_len());
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
            Ordering::Equal => return Found { at: middle, is_equal: true, shares_prefix: true },
            Ordering::Greater => high = middle,
        }
    }
    Found { at: low, is_equal: false, shares_prefix: true }
}
