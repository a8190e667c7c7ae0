//! The cases that are explored.

use crate::setup::{Luck, Setup, Work};

const A: &[&str] = &["a"];
const AB: &[&str] = &["a", "b"];
const ABC: &[&str] = &["a", "b", "c"];
const LUCKY: Luck = Luck { faults: 0, duplicates: 0, crashes: 0, abandons: 0, splits: 0, leaps: 0 };

fn two_regions(name: &'static str, clients: &[&[Work]], luck: Luck) -> Setup {
    let clients = clients.iter().map(|script| script.to_vec()).collect();
    Setup { name, bounds: &["b"], split_at: None, clients, luck }
}

/// A region that splits between the keys a and b.
fn one_region(name: &'static str, clients: &[&[Work]], luck: Luck) -> Setup {
    Setup { bounds: &[], split_at: Some("b"), ..two_regions(name, clients, luck) }
}

/// Explored by `cargo test`, in seconds.
#[must_use]
pub fn small() -> Vec<Setup> {
    use Work::{AsyncWrite, BatchGet, Scan, Write, WriteInTime};
    vec![
        two_regions("a writer and a reader", &[&[Write(AB)], &[BatchGet(AB)]], LUCKY),
        two_regions("a writer that dies", &[&[Write(AB)], &[BatchGet(AB)]], Luck { crashes: 1, ..LUCKY }),
        one_region("a region that splits", &[&[Write(AB)], &[Scan(AB)]], Luck { splits: 1, ..LUCKY }),
        two_regions("two writers", &[&[Write(AB)], &[Write(A)]], Luck { crashes: 1, leaps: 1, ..LUCKY }),
        one_region("a fault", &[&[Write(AB)], &[BatchGet(AB)]], Luck { faults: 1, ..LUCKY }),
        two_regions("a deadline", &[&[WriteInTime(A)], &[BatchGet(A)]], Luck { faults: 1, leaps: 1, ..LUCKY }),
        two_regions("an async commit", &[&[AsyncWrite(AB)], &[BatchGet(AB)]], Luck { crashes: 1, ..LUCKY }),
        two_regions("lost interest", &[&[Write(AB)], &[BatchGet(AB)]], Luck { abandons: 1, ..LUCKY }),
    ]
}

/// Explored by hand.
#[must_use]
pub fn large() -> Vec<Setup> {
    use Work::{AsyncWrite, BatchGet, Scan, Write, WriteInTime};
    let pair: &[&[Work]] = &[&[Write(AB)], &[BatchGet(AB)]];
    let writers: &[&[Work]] = &[&[Write(AB)], &[Write(AB)]];
    let async_pair: &[&[Work]] = &[&[AsyncWrite(AB)], &[BatchGet(AB)]];
    vec![
        two_regions(
            "L0 a deadline, a fault",
            &[&[WriteInTime(AB)], &[BatchGet(AB)]],
            Luck { faults: 1, leaps: 1, ..LUCKY },
        ),
        two_regions("L1 two faults", pair, Luck { faults: 2, ..LUCKY }),
        two_regions("L2 a fault, a death, a leap", pair, Luck { faults: 1, crashes: 1, leaps: 1, ..LUCKY }),
        two_regions("L3 copies, a death, a leap", pair, Luck { duplicates: 1, crashes: 1, leaps: 1, ..LUCKY }),
        one_region("L4 a split, a fault, a leap", pair, Luck { splits: 1, faults: 1, leaps: 1, ..LUCKY }),
        two_regions("L5 two writers, a leap", writers, Luck { leaps: 1, ..LUCKY }),
        two_regions("L6 two writers, a fault", writers, Luck { faults: 1, ..LUCKY }),
        two_regions("L7 async commit, a fault, a death", async_pair, Luck { faults: 1, crashes: 1, ..LUCKY }),
        two_regions("L8 three keys", &[&[Write(ABC)], &[Scan(ABC)]], Luck { crashes: 1, leaps: 1, ..LUCKY }),
        two_regions("L9 abandon, a fault", pair, Luck { abandons: 1, faults: 1, leaps: 1, ..LUCKY }),
        two_regions(
            "L10 async commit, two keys in three regions",
            &[&[AsyncWrite(ABC)], &[Scan(ABC)]],
            Luck { crashes: 1, leaps: 1, ..LUCKY },
        ),
    ]
}
