//! Keys of 16 bytes.

use tikv_core::key::Key;
use tikv_core::rng::Rng;

/// Keys are numbered from 0 to here, in their order.
pub const KEYS: u64 = 1_000_000_000_000;

/// The key of a number.
#[must_use]
pub fn key(number: u64) -> Key {
    format!("key-{number:012}").into()
}

/// So many keys all over the place.
#[must_use]
pub fn random(count: usize) -> Vec<Key> {
    let mut rng = Rng::new(1);
    (0..count).map(|_| key(rng.below(KEYS))).collect()
}

/// So many keys in their order, equally far apart.
#[must_use]
pub fn spread(count: u64) -> Vec<Key> {
    (0..count).map(|n| key(KEYS / count * n)).collect()
}
