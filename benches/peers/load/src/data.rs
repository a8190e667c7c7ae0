//! The records that servers hold, and the keys that callers choose.

/// Raw records, and as many transactional ones.
pub const RECORDS: u64 = 10_000;

/// Keys of one raw batch get.
pub const BATCH_KEYS: usize = 100;

/// The length of every value.
pub const VALUE_BYTES: usize = 100;

/// The bounds of the transactional records: what is written while measuring lies outside of them.
pub const TXN_RECORDS: std::ops::Range<&str> = "txn/".."txn0";

/// The key of a raw record, 16 bytes.
pub fn record(number: u64) -> Vec<u8> {
    key(b"raw/", number)
}

/// The key of a transactional record, 16 bytes.
pub fn txn_record(number: u64) -> Vec<u8> {
    key(b"txn/", number)
}

/// Made by hand: what `format` takes for it is a tenth of what a client takes for a raw get.
fn key<const N: usize>(prefix: &[u8; N], mut number: u64) -> Vec<u8> {
    let mut key = [b'0'; 16];
    key[..N].copy_from_slice(prefix);
    for digit in key[N..].iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
    key.to_vec()
}

/// What every record holds.
pub fn value() -> Vec<u8> {
    vec![b'v'; VALUE_BYTES]
}

/// So many callers have keys of their own to write. These begin with `w` and four hexadecimal digits, those of the caller's number
/// in reverse: whichever division of all these digits is an even one divides callers evenly, few or many.
pub const WRITERS: u64 = 1 << 16;

/// A part of what callers write: others in each process, which meets no locks that another has left behind.
const PROCESS_BITS: u32 = 20;

/// The choices of one caller.
#[derive(Clone, Debug)]
pub struct Keys {
    rng: fastrand::Rng,
    /// What the keys to write begin with: nobody else's do.
    own: [u8; 10],
    written: u64,
}

impl Keys {
    /// Those of the caller with this number: always the same ones, but for keys to write.
    pub fn new(caller: usize) -> Self {
        let process = std::process::id() % (1 << PROCESS_BITS);
        let mut own = [b'0'; 10];
        let digits = format!("{caller:04x}");
        let written = "w".bytes().chain(digits.bytes().rev()).chain(format!("{process:05x}").into_bytes());
        own.iter_mut().zip(written).for_each(|(own, byte)| *own = byte);
        Keys { rng: fastrand::Rng::with_seed(caller as u64), own, written: 0 }
    }

    /// The number of any record.
    pub fn any(&mut self) -> u64 {
        self.rng.u64(0..RECORDS)
    }

    /// Whether an event happens that does so `of_100` times of 100.
    pub fn chance(&mut self, of_100: u32) -> bool {
        self.rng.u32(0..100) < of_100
    }

    /// The next `count` keys to write in a transaction, in order. No other caller has them, nor has one of another process,
    /// so that nobody conflicts.
    pub fn to_write(&mut self, count: usize) -> impl Iterator<Item = Vec<u8>> + use<> {
        let (own, first) = (self.own, self.written % 100_000);
        self.written += count as u64;
        (first..first + count as u64).map(move |number| key(&own, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_writers_differ_and_leave_records_alone() {
        let mut keys: Vec<_> = (2046..2049).flat_map(|caller| Keys::new(caller).to_write(100)).collect();
        assert!(keys.iter().all(|key| key.len() == 16 && !key.starts_with(b"txn/")));
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 300);
    }

    #[test]
    fn keys_are_numbers_in_digits() {
        assert_eq!(record(12_345), b"raw/000000012345");
        assert_eq!(txn_record(0), b"txn/000000000000");
    }

    #[test]
    fn records_lie_within_their_bounds() {
        for number in [0, RECORDS - 1] {
            let key = txn_record(number);
            assert!(TXN_RECORDS.start.as_bytes() <= &*key && &*key < TXN_RECORDS.end.as_bytes());
        }
    }
}
