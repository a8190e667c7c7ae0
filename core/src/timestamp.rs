//! PD's timestamps: the order of all transactions.

use std::fmt;
use std::time::Duration;

/// Bits of the logical counter below the physical milliseconds.
pub const LOGICAL_BITS: u32 = 18;

/// A timestamp of PD's oracle (TSO): wall-clock milliseconds since 1970 shifted left by [`LOGICAL_BITS`], plus a logical
/// counter. It orders transactions; it says nothing of the local clock.
///
/// client-go: `oracle.ComposeTS`, `oracle.ExtractPhysical`, `oracle.ExtractLogical`.
///
/// ```
/// use tikv_core::timestamp::Timestamp;
///
/// let ts = Timestamp::compose(1_700_000_000_000, 5);
/// assert_eq!((ts.physical_ms(), ts.logical()), (1_700_000_000_000, 5));
/// assert!(ts < ts.next());
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Before every timestamp; in requests it means "none given".
    pub const ZERO: Timestamp = Timestamp(0);
    /// After every timestamp: a read at it sees the newest committed version.
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    /// The timestamp as it travels on the wire.
    #[must_use]
    pub const fn from_version(version: u64) -> Self {
        Timestamp(version)
    }

    /// The wire form of this timestamp.
    #[must_use]
    pub const fn version(self) -> u64 {
        self.0
    }

    /// Builds a timestamp of wall-clock milliseconds and a logical counter (which may overflow into the milliseconds, as
    /// in PD).
    #[must_use]
    pub const fn compose(physical_ms: u64, logical: u64) -> Self {
        Timestamp((physical_ms << LOGICAL_BITS).wrapping_add(logical))
    }

    /// Wall-clock milliseconds since 1970.
    #[must_use]
    pub const fn physical_ms(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    /// The logical counter within its millisecond.
    #[must_use]
    pub const fn logical(self) -> u64 {
        self.0 & ((1 << LOGICAL_BITS) - 1)
    }

    /// Whether this is [`Timestamp::ZERO`], "none given".
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The timestamp right after this one; [`Timestamp::MAX`] stays.
    #[must_use]
    pub const fn next(self) -> Self {
        Timestamp(self.0.saturating_add(1))
    }

    /// The timestamp that much later, in whole milliseconds; at most [`Timestamp::MAX`].
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(u64::MAX >> LOGICAL_BITS);
        Timestamp::from_version(self.version().saturating_add(ms << LOGICAL_BITS))
    }

    /// Physical time from `earlier` to this; zero if `earlier` is later.
    #[must_use]
    pub const fn physical_since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.physical_ms().saturating_sub(earlier.physical_ms()))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Timestamp::MAX => f.write_str("ts(max)"),
            _ => write!(f, "ts({})", self.0),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
