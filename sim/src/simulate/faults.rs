//! What can go wrong, when it does, and the names of it.

use std::fmt;
use std::str::FromStr;

macro_rules! fault_kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)+) => {
        /// A kind of fault. What an [`Injection`] of it means, and how its numbers are read, is said here.
        ///
        /// Numbers are taken modulo what there is, so that every injection means something.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultKind {
            $($(#[$doc])* $name,)+
        }

        impl FaultKind {
            /// Every kind.
            pub const ALL: &'static [FaultKind] = &[$(FaultKind::$name,)+];

            /// Its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(FaultKind::$name => $text,)+
                }
            }
        }
    };
}

fault_kinds! {
    /// Messages are lost, each with a probability of `amount` in a thousand, on the link that `target` and `other` choose.
    Loss = "loss";
    /// Requests are executed twice, each with a probability of `amount` in a thousand: the second time late, and never if
    /// the first time was refused. Raw writes are not: nobody promises that it does no harm.
    Duplication = "duplication";
    /// Messages take up to `amount` µs longer, so that they overtake each other.
    Delay = "delay";
    /// Nothing passes, in one direction or both.
    Partition = "partition";
    /// Nothing passes until it is over; then everything arrives at once.
    Clog = "clog";
    /// Store `target` stops, and starts again after a while; if `other` is odd at another address, and if it is a multiple of
    /// four at the address of another stopped store.
    StoreCrash = "store-crash";
    /// Store `target` takes up to `amount` µs longer for each request.
    StoreSlow = "store-slow";
    /// Store `target` is too busy for `amount` in a thousand requests.
    Busy = "busy";
    /// The disk of store `target` is full.
    DiskFull = "disk-full";
    /// Store `target` answers `amount` in a thousand requests with a region error that `other` chooses.
    RegionErrors = "region-errors";
    /// Store `target` does not know of `amount` in a thousand writes whether it applied them.
    Undetermined = "undetermined";
    /// The region of key number `target` is split there.
    Split = "split";
    /// Region `target` is merged into a neighbour.
    Merge = "merge";
    /// Region `target` gets its leader on store `other`.
    LeaderTransfer = "leader-transfer";
    /// Member `target` of PD stops, and starts again after a while.
    PdCrash = "pd-crash";
    /// Member `target` of PD becomes its leader.
    PdLeader = "pd-leader";
    /// PD learns nothing new of regions for a while.
    PdStale = "pd-stale";
    /// Timestamps jump ahead by `amount` ms; if `other` is odd, by a second at most, and then stand still until the clock has
    /// caught up.
    TsoJump = "tso-jump";
    /// Client `target` dies after `amount` more commands, and begins anew after a while.
    ClientCrash = "client-crash";
    /// Client `target` loses interest in what it does, after `amount` more commands.
    Cancel = "cancel";
    /// Client `target` stands still for a while.
    Pause = "pause";
    /// The clock of client `target` jumps ahead by `amount` ms.
    ClockJump = "clock-jump";
    /// Region `target` gets a peer on store `other`, as a voter or a learner. Where it has one already, which does not lead, it
    /// loses it, or a voter becomes a learner and the other way round, or a full peer a witness.
    PeerChange = "peer-change";
}

impl FaultKind {
    /// The largest `amount` that makes sense.
    pub(super) const fn max_amount(self) -> u32 {
        match self {
            FaultKind::Loss | FaultKind::Duplication | FaultKind::Undetermined => 500,
            FaultKind::Busy | FaultKind::RegionErrors => 1_000,
            FaultKind::Delay | FaultKind::StoreSlow => 10_000_000,
            FaultKind::TsoJump | FaultKind::ClockJump => 3_600_000,
            FaultKind::ClientCrash | FaultKind::Cancel => 50,
            _ => 0,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One fault of a schedule. Plain numbers, of which all mean something: a schedule can be cut and changed at will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Injection {
    /// When, in microseconds after the workload has begun.
    pub at_us: u32,
    /// What.
    pub kind: FaultKind,
    /// For how long, in microseconds, if it lasts.
    pub duration_us: u32,
    /// Where: see [`FaultKind`].
    pub target: u16,
    /// Where else: see [`FaultKind`].
    pub other: u16,
    /// How much: see [`FaultKind`].
    pub amount: u32,
}

impl Injection {
    /// The longest that a fault lasts, in µs.
    pub(super) const MAX_DURATION_US: u32 = 60_000_000;
    /// How many bytes it is.
    const BYTES: usize = 17;

    /// As bytes, which [`Injection::all_of_bytes`] reads.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Injection::BYTES] {
        let mut bytes = [0; Injection::BYTES];
        bytes[0] = self.kind as u8;
        bytes[1..5].copy_from_slice(&self.at_us.to_le_bytes());
        bytes[5..9].copy_from_slice(&self.duration_us.to_le_bytes());
        bytes[9..11].copy_from_slice(&self.target.to_le_bytes());
        bytes[11..13].copy_from_slice(&self.other.to_le_bytes());
        bytes[13..].copy_from_slice(&self.amount.to_le_bytes());
        bytes
    }

    /// The schedule that the bytes describe. All bytes do: what does not suffice for one more fault is left out, what is out of
    /// bounds is brought within.
    pub fn all_of_bytes(bytes: &[u8]) -> impl Iterator<Item = Injection> {
        bytes.chunks_exact(Injection::BYTES).map(|bytes| {
            let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
            let kind = FaultKind::ALL[usize::from(bytes[0]) % FaultKind::ALL.len()];
            Injection {
                kind,
                at_us: word(1),
                duration_us: word(5).min(Injection::MAX_DURATION_US),
                target: half(9),
                other: half(11),
                amount: word(13).min(kind.max_amount()),
            }
        })
    }
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Injection { at_us, kind, duration_us, target, other, amount } = *self;
        write!(f, "{}.{:06}s {kind} of {target}/{other}, amount {amount}", at_us / 1_000_000, at_us % 1_000_000)?;
        write!(f, ", for {}.{:06}s", duration_us / 1_000_000, duration_us % 1_000_000)
    }
}

/// A set of kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FaultSet(u32);

impl FaultSet {
    /// No fault at all.
    pub const NONE: FaultSet = FaultSet(0);
    /// Every kind.
    pub const ALL: FaultSet = FaultSet((1 << FaultKind::ALL.len()) - 1);

    /// Whether the kind is in it.
    #[must_use]
    pub const fn contains(self, kind: FaultKind) -> bool {
        self.0 & (1 << kind as u32) != 0
    }

    /// The same with one more kind.
    #[must_use]
    pub const fn with(self, kind: FaultKind) -> Self {
        FaultSet(self.0 | (1 << kind as u32))
    }

    /// Whether there is no kind in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its kinds, in order.
    pub fn kinds(self) -> impl Iterator<Item = FaultKind> {
        FaultKind::ALL.iter().copied().filter(move |kind| self.contains(*kind))
    }
}

impl FromIterator<FaultKind> for FaultSet {
    fn from_iter<I: IntoIterator<Item = FaultKind>>(kinds: I) -> Self {
        kinds.into_iter().fold(FaultSet::NONE, FaultSet::with)
    }
}

impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            FaultSet::NONE => f.write_str("none"),
            FaultSet::ALL => f.write_str("all"),
            set => {
                let names: Vec<_> = set.kinds().map(FaultKind::name).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

/// A name that is no fault's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no fault {0}; there are none, all, and {names}", names = FaultKind::ALL.iter().map(|k| k.name()).collect::<Vec<_>>().join(", "))]
pub struct UnknownFault(String);

impl FromStr for FaultSet {
    type Err = UnknownFault;

    /// `none`, `all`, or names with commas between.
    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        match text {
            "none" => Ok(FaultSet::NONE),
            "all" => Ok(FaultSet::ALL),
            list => list.split(',').map(fault_named).collect(),
        }
    }
}

fn fault_named(name: &str) -> Result<FaultKind, UnknownFault> {
    let found = FaultKind::ALL.iter().find(|kind| kind.name() == name);
    found.copied().ok_or_else(|| UnknownFault(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_read_as_it_is_shown() {
        let some: FaultSet = [FaultKind::Loss, FaultKind::ClockJump].into_iter().collect();
        for set in [FaultSet::NONE, FaultSet::ALL, some] {
            assert_eq!(set.to_string().parse(), Ok(set));
        }
        assert_eq!(some.to_string(), "loss,clock-jump");
        assert!("loss,rain".parse::<FaultSet>().is_err());
    }
}
