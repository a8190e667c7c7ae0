//! The cases that are explored.

use crate::setup::Work::{AsyncWrite, BatchGet, OnePhaseWrite, Pipelined, Scan, Write, WriteInTime};
use crate::setup::{End, Locks, Luck, Pessimistic, Setup, Work};

const A: &[&str] = &["a"];
const AB: &[&str] = &["a", "b"];
const ABC: &[&str] = &["a", "b", "c"];
const B: &[&str] = &["b"];
const BA: &[&str] = &["b", "a"];
const LUCKY: Luck = Luck { faults: 0, duplicates: 0, crashes: 0, abandons: 0, splits: 0, impatience: 0, leaps: 0 };

fn lock(keys: &'static [&'static str], locks: Locks, end: End) -> Work {
    Work::Pessimistic(Pessimistic { keys, locks, end })
}

/// The key a in one region, the others in the next.
fn two_regions(name: &'static str, clients: &[&[Work]], luck: Luck) -> Setup {
    let clients = clients.iter().map(|script| script.to_vec()).collect();
    Setup { name, bounds: &["b"], split_at: None, clients, heartbeats: false, luck }
}

/// A region that can split between the keys a and b.
fn one_region(name: &'static str, clients: &[&[Work]], luck: Luck) -> Setup {
    Setup { bounds: &[], split_at: Some("b"), ..two_regions(name, clients, luck) }
}

fn with_heartbeats(setup: Setup) -> Setup {
    Setup { heartbeats: true, ..setup }
}

/// Explored by `cargo test`, in seconds.
#[must_use]
pub fn small() -> Vec<Setup> {
    let (short, pair): (&[&[Work]], &[&[Work]]) =
        (&[&[WriteInTime(A)], &[BatchGet(A)]], &[&[Write(AB)], &[BatchGet(AB)]]);
    let mut cases = vec![
        two_regions("a writer that dies", pair, Luck { crashes: 1, ..LUCKY }),
        one_region("a region that splits", &[&[Write(AB)], &[Scan(AB)]], Luck { splits: 1, ..LUCKY }),
        two_regions("two writers, one dies", &[&[Write(AB)], &[Write(A)]], Luck { crashes: 1, ..LUCKY }),
        one_region("a fault", pair, Luck { faults: 1, ..LUCKY }),
        two_regions("a deadline", short, Luck { faults: 1, leaps: 1, ..LUCKY }),
        two_regions("an async commit", &[&[AsyncWrite(AB)], &[BatchGet(AB)]], Luck { crashes: 1, ..LUCKY }),
        one_region(
            "one phase",
            &[&[OnePhaseWrite(AB)], &[OnePhaseWrite(A), BatchGet(AB)]],
            Luck { faults: 1, crashes: 1, ..LUCKY },
        ),
        two_regions("lost interest", pair, Luck { abandons: 1, ..LUCKY }),
        with_heartbeats(two_regions("a heartbeat", &[&[Write(A)], &[BatchGet(A)]], Luck { leaps: 1, ..LUCKY })),
    ];
    cases.extend(small_pessimistic());
    cases.push(two_regions("flushes whose owner dies", &[&[Pipelined(AB)], &[Write(B)]], Luck { crashes: 1, ..LUCKY }));
    cases
}

/// Those of pessimistic transactions.
fn small_pessimistic() -> Vec<Setup> {
    use End::{AsyncCommit, Commit, OnePhaseCommit, RollBack};
    use Locks::{AtOnce, Fairly, OneByOne};
    let (one, both): (&[Work], &[Work]) = (&[lock(A, AtOnce, Commit)], &[lock(AB, AtOnce, Commit)]);
    let (death, fault) = (Luck { crashes: 1, ..LUCKY }, Luck { faults: 1, ..LUCKY });
    vec![
        two_regions("locks in opposite order", &[&[lock(AB, OneByOne, Commit)], &[lock(BA, OneByOne, Commit)]], LUCKY),
        two_regions("locks whose owner dies", &[both, one], death),
        two_regions("a lock request without an answer", &[one, one], fault),
        two_regions("locks released, a late request", &[&[lock(A, AtOnce, RollBack)], one], fault),
        two_regions("locks that expire", &[one, &[OnePhaseWrite(A)]], Luck { leaps: 1, ..LUCKY }),
        two_regions("locks, then an async commit", &[&[lock(AB, AtOnce, AsyncCommit)], one], death),
        one_region(
            "locks, then one phase",
            &[&[lock(AB, AtOnce, OnePhaseCommit)], &[lock(A, AtOnce, OnePhaseCommit)]],
            fault,
        ),
        two_regions("fair locking in conflict", &[&[lock(AB, Fairly, Commit)], &[Write(A)]], LUCKY),
        two_regions(
            "fair locking in opposite order",
            &[&[lock(AB, Fairly, Commit)], &[lock(BA, Fairly, Commit)]],
            LUCKY,
        ),
    ]
}

/// Explored by hand.
#[must_use]
pub fn large() -> Vec<Setup> {
    let pair: &[&[Work]] = &[&[Write(AB)], &[BatchGet(AB)]];
    let in_time: &[&[Work]] = &[&[WriteInTime(AB)], &[BatchGet(AB)]];
    let writers: &[&[Work]] = &[&[Write(AB)], &[Write(AB)]];
    let async_pair: &[&[Work]] = &[&[AsyncWrite(AB)], &[BatchGet(AB)]];
    let mut cases = vec![
        two_regions("two faults", pair, Luck { faults: 2, ..LUCKY }),
        two_regions("a fault, a death, a leap", pair, Luck { faults: 1, crashes: 1, leaps: 1, ..LUCKY }),
        two_regions("a deadline, a fault, a leap", in_time, Luck { faults: 1, leaps: 1, ..LUCKY }),
        two_regions("a copy, a death, a leap", pair, Luck { duplicates: 1, crashes: 1, leaps: 1, ..LUCKY }),
        one_region("a split, a fault, a leap", pair, Luck { splits: 1, faults: 1, leaps: 1, ..LUCKY }),
        two_regions("two writers, a death, a leap", writers, Luck { crashes: 1, leaps: 1, ..LUCKY }),
        two_regions("two writers, a fault", writers, Luck { faults: 1, ..LUCKY }),
        two_regions("two writers, a reader after one", &[&[Write(AB)], &[Write(A), BatchGet(AB)]], LUCKY),
        two_regions("lost interest, a leap", pair, Luck { abandons: 1, leaps: 1, ..LUCKY }),
        two_regions(
            "three keys, a death, a leap",
            &[&[Write(ABC)], &[Scan(ABC)]],
            Luck { crashes: 1, leaps: 1, ..LUCKY },
        ),
        two_regions("async commit, a fault, a death", async_pair, Luck { faults: 1, crashes: 1, ..LUCKY }),
        two_regions(
            "async commit of three keys, a death",
            &[&[AsyncWrite(ABC)], &[Scan(ABC)]],
            Luck { crashes: 1, ..LUCKY },
        ),
        one_region(
            "one phase, a split, a fault",
            &[&[OnePhaseWrite(AB)], &[BatchGet(AB)]],
            Luck { splits: 1, faults: 1, crashes: 1, ..LUCKY },
        ),
        one_region("async commit, a split, a death", async_pair, Luck { splits: 1, crashes: 1, leaps: 1, ..LUCKY }),
        two_regions("async commit against 2PC", &[&[AsyncWrite(AB)], &[Write(AB)]], Luck { crashes: 1, ..LUCKY }),
        with_heartbeats(two_regions("a heartbeat, a fault", pair, Luck { faults: 1, leaps: 2, ..LUCKY })),
    ];
    cases.extend(large_pessimistic());
    let pipelined: &[&[Work]] = &[&[Pipelined(AB)], &[BatchGet(AB)]];
    let against_a_writer: &[&[Work]] = &[&[Pipelined(AB)], &[Write(B)]];
    cases.push(two_regions("flushes, a death, a leap", against_a_writer, Luck { crashes: 1, leaps: 1, ..LUCKY }));
    cases.push(one_region("flushes, a split, a fault", pipelined, Luck { splits: 1, faults: 1, ..LUCKY }));
    cases
}

/// Those of pessimistic transactions.
fn large_pessimistic() -> Vec<Setup> {
    use End::{AsyncCommit, Commit};
    use Locks::{AtOnce, Fairly, FairlyAtFirst, OneByOne};
    let (one, both): (&[Work], &[Work]) = (&[lock(A, AtOnce, Commit)], &[lock(AB, OneByOne, Commit)]);
    vec![
        two_regions("locks, a fault, a leap", &[both, one], Luck { faults: 1, leaps: 1, ..LUCKY }),
        two_regions(
            "locks in opposite order, a fault, a death",
            &[both, &[lock(BA, OneByOne, Commit)]],
            Luck { faults: 1, crashes: 1, ..LUCKY },
        ),
        two_regions(
            "fair locking, a copy, a leap",
            &[&[lock(A, Fairly, Commit)], &[OnePhaseWrite(A)]],
            Luck { duplicates: 1, leaps: 1, ..LUCKY },
        ),
        two_regions(
            "fair locking cancelled, a fault",
            &[&[lock(AB, FairlyAtFirst, Commit)], &[lock(A, Fairly, Commit)]],
            Luck { faults: 1, ..LUCKY },
        ),
        one_region(
            "locks, then an async commit, a split, a death",
            &[&[lock(AB, AtOnce, AsyncCommit)], &[lock(AB, AtOnce, AsyncCommit)]],
            Luck { splits: 1, crashes: 1, ..LUCKY },
        ),
        one_region(
            "locks in opposite order, a split",
            &[both, &[lock(BA, OneByOne, Commit)]],
            Luck { splits: 1, ..LUCKY },
        ),
        two_regions("locks, lost interest", &[both, one], Luck { abandons: 1, impatience: 1, ..LUCKY }),
        two_regions("three lock a key, one is impatient", &[one, one, one], Luck { impatience: 1, ..LUCKY }),
        with_heartbeats(two_regions("locks, a heartbeat, a leap", &[one, one], Luck { leaps: 1, ..LUCKY })),
    ]
}
