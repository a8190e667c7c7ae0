//! Bugs that clients of TiKV have had, each as a script that this client must survive.
//!
//! The async client runs under virtual time against the simulated cluster; what goes wrong is ordered, not left to chance.
//! `docs/parity/known-bugs.tsv` lists all known bugs, those that are looked at here and those that are looked at elsewhere; S9,
//! R1 and so on are their names there. And what takes the same world to look at: garbage collection, killed transactions, owners that
//! are asked.

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
