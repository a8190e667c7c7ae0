//! The fingerprint of a key in a deadlock: FarmHash's `Fingerprint64`.
//!
//! A client compares it with those of the keys it just asked for, to learn whether the deadlock is one that a retry of
//! the statement can solve.

const K0: u64 = 0xC3A5_C85C_97CB_3127;
const K1: u64 = 0xB492_B66F_BE98_F273;
const K2: u64 = 0x9AE1_6A3B_2F90_404F;

/// FarmHash's `Fingerprint64` of the bytes.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> u64 {
    let mul = K2.wrapping_add(bytes.len() as u64 * 2);
    match bytes.len() {
        0 => K2,
        1..=3 => up_to_3(bytes),
        4..=7 => {
            let (first, last) = (word32(bytes, 0), word32(bytes, bytes.len() - 4));
            join((bytes.len() as u64).wrapping_add(first << 3), last, mul)
        }
        8..=16 => up_to_16(bytes, mul),
        17..=32 => {
            let (a, b) = (word(bytes, 0).wrapping_mul(K1), word(bytes, 8));
            let (y, z) = last_16(bytes, a, b, mul);
            join(y, z, mul)
        }
        33..=64 => up_to_64(bytes, mul),
        _ => longer(bytes),
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

fn word32(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk).into())
}

fn rotate(value: u64, bits: u32) -> u64 {
    value.rotate_right(bits)
}

fn mix(value: u64) -> u64 {
    value ^ (value >> 47)
}

fn join(u: u64, v: u64, mul: u64) -> u64 {
    let a = mix((u ^ v).wrapping_mul(mul));
    mix((v ^ a).wrapping_mul(mul)).wrapping_mul(mul)
}

fn sum(terms: &[u64]) -> u64 {
    terms.iter().fold(0, |sum, term| sum.wrapping_add(*term))
}

fn up_to_3(bytes: &[u8]) -> u64 {
    let byte = |at: usize| u64::from(bytes[at]);
    let y = byte(0) + (byte(bytes.len() / 2) << 8);
    let z = bytes.len() as u64 + (byte(bytes.len() - 1) << 2);
    mix(y.wrapping_mul(K2) ^ z.wrapping_mul(K0)).wrapping_mul(K2)
}

fn up_to_16(bytes: &[u8], mul: u64) -> u64 {
    let a = word(bytes, 0).wrapping_add(K2);
    let b = word(bytes, bytes.len() - 8);
    let c = rotate(b, 37).wrapping_mul(mul).wrapping_add(a);
    let d = rotate(a, 25).wrapping_add(b).wrapping_mul(mul);
    join(c, d, mul)
}

/// The last sixteen bytes, on top of what the first sixteen gave.
fn last_16(bytes: &[u8], a: u64, b: u64, mul: u64) -> (u64, u64) {
    let c = word(bytes, bytes.len() - 8).wrapping_mul(mul);
    let d = word(bytes, bytes.len() - 16).wrapping_mul(K2);
    let y = sum(&[rotate(a.wrapping_add(b), 43), rotate(c, 30), d]);
    (y, sum(&[a, rotate(b.wrapping_add(K2), 18), c]))
}

fn up_to_64(bytes: &[u8], mul: u64) -> u64 {
    let len = bytes.len();
    let (a, b) = (word(bytes, 0).wrapping_mul(K2), word(bytes, 8));
    let (y, rest) = last_16(bytes, a, b, mul);
    let z = join(y, rest, mul);
    let (e, f) = (word(bytes, 16).wrapping_mul(mul), word(bytes, 24));
    let g = y.wrapping_add(word(bytes, len - 32)).wrapping_mul(mul);
    let h = z.wrapping_add(word(bytes, len - 24)).wrapping_mul(mul);
    join(sum(&[rotate(e.wrapping_add(f), 43), rotate(g, 30), h]), sum(&[e, rotate(f.wrapping_add(a), 18), g]), mul)
}

struct State {
    x: u64,
    y: u64,
    z: u64,
    v: (u64, u64),
    w: (u64, u64),
}

fn longer(bytes: &[u8]) -> u64 {
    const SEED: u64 = 81;
    let y = SEED.wrapping_mul(K1).wrapping_add(113);
    let z = mix(y.wrapping_mul(K2).wrapping_add(113)).wrapping_mul(K2);
    let x = SEED.wrapping_mul(K2).wrapping_add(word(bytes, 0));
    let mut state = State { x, y, z, v: (0, 0), w: (0, 0) };

    let tail = (bytes.len() - 1) % 64;
    let blocks = (bytes.len() - 1) / 64;
    for block in bytes.chunks_exact(64).take(blocks) {
        state.absorb(block, K1, 1);
    }
    let mul = K1.wrapping_add((state.z & 0xFF) << 1);
    state.w.0 = state.w.0.wrapping_add(tail as u64);
    state.v.0 = state.v.0.wrapping_add(state.w.0);
    state.w.0 = state.w.0.wrapping_add(state.v.0);
    state.absorb(&bytes[bytes.len() - 64..], mul, 9);

    let State { x, y, z, v, w } = state;
    let first = sum(&[join(v.0, w.0, mul), mix(y).wrapping_mul(K0), z]);
    join(first, join(v.1, w.1, mul).wrapping_add(x), mul)
}

impl State {
    fn absorb(&mut self, block: &[u8], mul: u64, weight: u64) {
        let State { x, y, z, v, w } = self;
        *x = rotate(sum(&[*x, *y, v.0, word(block, 8)]), 37).wrapping_mul(mul) ^ w.1.wrapping_mul(weight);
        *y = rotate(sum(&[*y, v.1, word(block, 48)]), 42).wrapping_mul(mul);
        *y = sum(&[*y, v.0.wrapping_mul(weight), word(block, 40)]);
        *z = rotate(z.wrapping_add(w.0), 33).wrapping_mul(mul);
        *v = weak(block, v.1.wrapping_mul(mul), x.wrapping_add(w.0));
        *w = weak(&block[32..], z.wrapping_add(w.1), y.wrapping_add(word(block, 16)));
        std::mem::swap(z, x);
    }
}

/// Hashes the first 32 bytes, quickly and not too well.
fn weak(bytes: &[u8], a: u64, b: u64) -> (u64, u64) {
    let a = a.wrapping_add(word(bytes, 0));
    let b = rotate(sum(&[b, a, word(bytes, 24)]), 21);
    let c = a;
    let a = sum(&[a, word(bytes, 8), word(bytes, 16)]);
    (a.wrapping_add(word(bytes, 24)), sum(&[b, rotate(a, 44), c]))
}

#[cfg(test)]
mod tests;
