//! States as 64-bit numbers.
//!
//! The explorer remembers a state by its fingerprint alone. Among n states the odds that two share one are about n²/2⁶⁵: one
//! in four million for three million states.

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// The fingerprint of a value; the same in every run.
#[must_use]
pub(crate) fn fingerprint(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = Fingerprinter::default();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Multiplies to 128 bits and folds the halves together for every word.
#[derive(Clone, Debug)]
struct Fingerprinter(u64);

const SEED: u64 = 0x243F_6A88_85A3_08D3;
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

impl Default for Fingerprinter {
    fn default() -> Self {
        Fingerprinter(SEED)
    }
}

impl Hasher for Fingerprinter {
    fn finish(&self) -> u64 {
        fold(self.0 ^ SEED, FACTOR)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = fold(self.0.rotate_left(23) ^ word, FACTOR);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ SEED) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64) ^ a
}

/// A part of a state: shared between the states that have it in common, and fingerprinted only when it changes.
#[derive(Debug)]
pub(crate) struct Part<T> {
    value: Arc<T>,
    fingerprint: u64,
}

impl<T: Hash + Clone> Part<T> {
    /// A part of a state.
    pub(crate) fn new(value: T) -> Self {
        let fingerprint = fingerprint(&value);
        Part { value: Arc::new(value), fingerprint }
    }

    /// Its fingerprint.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Changes it, for this state alone.
    pub(crate) fn edit<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(Arc::make_mut(&mut self.value));
        self.fingerprint = fingerprint(&*self.value);
        result
    }
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Part { value: Arc::clone(&self.value), fingerprint: self.fingerprint }
    }
}

impl<T> Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn small_values_have_fingerprints_of_their_own() {
        let pairs: BTreeSet<u64> = (0..300_u64).flat_map(|a| (0..300_u64).map(move |b| fingerprint(&(a, b)))).collect();
        assert_eq!(pairs.len(), 300 * 300);
        assert_ne!(fingerprint("ab"), fingerprint("ba"));
        assert_ne!(fingerprint(&["a", ""]), fingerprint(&["", "a"]));
    }

    #[test]
    fn a_changed_part_leaves_its_copies_alone() {
        let one = Part::new(vec![1]);
        let mut other = one.clone();
        other.edit(|list| list.push(2));
        assert_eq!((one.as_slice(), other.as_slice()), (&[1][..], &[1, 2][..]));
        assert_ne!(one.fingerprint(), other.fingerprint());
        other.edit(|list| list.truncate(1));
        assert_eq!(one.fingerprint(), other.fingerprint());
    }
}
