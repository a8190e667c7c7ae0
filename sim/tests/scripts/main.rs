//! The async client under virtual time, against the simulated cluster; what goes wrong is ordered, not left to chance.
//!
//! Most scripts are of bugs that clients of TiKV have had, and that this client must not have: `docs/parity/known-bugs.tsv` lists
//! them, those that are looked at here and those that are looked at elsewhere; S9, R1 and so on are their names there. The others
//! need the same world: garbage collection, killed transactions, shared locks, regions that are split, and so on.

mod commit;
mod decided_by_prewrites;
mod forbidden;
mod gc;
mod interceptors;
mod killed;
mod locking;
mod locks;
mod outcome;
mod pessimistic;
mod pipelined;
mod raw;
mod reads;
mod regions;
mod retries;
mod rollback;
mod routing;
mod shared_locks;
mod streams;
mod timestamps;
mod world;
