//! Keys as numbers.

/// Bytes of the common prefix that a node knows without looking at a key: those of a row or the start of an index entry.
pub(super) const INLINE: usize = 24;
pub(super) const WORDS: usize = INLINE / 8;

/// A key to be searched for, with its first bytes as numbers, filled up with zeros: nodes on the way compare them with their
/// prefixes.
#[derive(Clone, Copy)]
pub(super) struct Words<'k> {
    pub(super) key: &'k [u8],
    pub(super) words: [u64; WORDS],
    /// Leading bytes that it is known to have in common with all keys below the node that was looked at last.
    pub(super) shared: usize,
}

impl<'k> Words<'k> {
    #[inline]
    pub(super) fn new(key: &'k [u8]) -> Self {
        Words { key, words: [0, 8, 16].map(|at| word(key.get(at..).unwrap_or_default())), shared: 0 }
    }
}

/// The first eight bytes, in the order of bytes.
#[inline]
fn word(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(word) => u64::from_be_bytes(*word),
        None => bytes.iter().rev().fold(0, |word, byte| word >> 8 | u64::from(*byte) << 56),
    }
}

/// Ones where a key of `len` bytes has bytes in its [`Words`].
pub(super) fn mask(len: usize) -> [u64; WORDS] {
    [0, 8, 16].map(|at| match len.saturating_sub(at) {
        0 => 0,
        bytes @ 1..8 => !(u64::MAX >> (8 * bytes)),
        _ => u64::MAX,
    })
}

/// The four bytes of `key` from `skip` on, filled up with zeros. The key has that many bytes or more.
#[inline]
pub(super) fn head(key: &[u8], skip: usize) -> u32 {
    let rest = &key[skip..];
    match rest.first_chunk() {
        Some(head) => u32::from_be_bytes(*head),
        None => (word(rest) >> 32) as u32,
    }
}

/// Length of the longest common prefix.
pub(super) fn common_len(a: &[u8], b: &[u8]) -> usize {
    const STEP: usize = 16;
    let same = a.chunks_exact(STEP).zip(b.chunks_exact(STEP)).take_while(|(a, b)| a == b).count() * STEP;
    same + a[same..].iter().zip(&b[same..]).take_while(|(a, b)| a == b).count()
}
