//! Arrays in cache lines.

use std::hint::black_box;
use std::ops::{Deref, DerefMut};

/// Heads, places or names in a cache line.
pub(super) const LINE: usize = 16;

/// Something that begins with a cache line.
#[derive(Clone, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct InLines<T>(pub(super) T);

/// An array of four-byte things that begins with a cache line, if the node does whose it is.
#[derive(Clone, Debug)]
#[repr(transparent)]
pub(super) struct Lines<T, const N: usize>(pub(super) [T; N]);

impl<T: Copy, const N: usize> Lines<T, N> {
    /// Brings the array near without waiting for it: nothing depends on what is read here. A search that does so while it
    /// waits for the heads of a node takes a quarter less time.
    #[inline]
    pub(super) fn touch(&self) {
        for line in self.0.chunks_exact(LINE) {
            black_box(line[0]);
        }
    }
}

impl<T, const N: usize> Deref for Lines<T, N> {
    type Target = [T; N];

    #[inline]
    fn deref(&self) -> &[T; N] {
        &self.0
    }
}

impl<T, const N: usize> DerefMut for Lines<T, N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T; N] {
        &mut self.0
    }
}

impl<T> Deref for InLines<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for InLines<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
