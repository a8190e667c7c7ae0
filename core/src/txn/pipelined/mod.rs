//! Pipelined transactions: what they write is flushed to TiKV while they are still writing.
//!
//! An ordinary transaction keeps all that it writes in memory until it commits. A pipelined one writes in generations: when
//! the buffer is large enough it is sent to TiKV, as locks that carry the new values, while the next buffer fills. The commit
//! then has little left to do: it flushes the rest, commits the primary, which decides, and has the locks of all the rest
//! resolved region by region, in the background, since nobody remembers their keys.
//!
//! ```text
//!  PipelinedTransaction (data) ──► Generation (data) ──► Flush ──► per batch: FlushBatch
//!       │                                                └──► Heartbeat          from the lock of the primary on
//!       ├──► OwnReadRequest (data) ──► OwnRead            buffers, then what is flushed, then the snapshot
//!       ├──► Heartbeat                                    between the first flush and the commit
//!       ├──► FinishFlushed                                in the background, if it is given up
//!       └──► PipelinedCommit ──► Flush                    the rest
//!                            ├──► CommitPrimary           decides the transaction
//!                            └──► FinishFlushed           in the background
//!                                   ├──► ResolveFlushed   region by region
//!                                   └──► Broadcast        tells the stores what became of it
//! ```
//!
//! client-go: `PipelinedMemDB`, `pipelined_flush.go`.

mod broadcast;
mod commit;
mod finish;
mod flush;
mod flush_batch;
mod options;
mod own_read;
mod resolve_flushed;
mod transaction;

pub(super) use broadcast::Broadcast;
pub use commit::{PipelinedCommit, PipelinedCommitRequest};
pub use finish::FinishFlushed;
pub use flush::{Flush, Flushed, Generation};
pub use options::PipelinedOptions;
pub use own_read::{OwnRead, OwnReadEnd, OwnReadRequest};
pub use transaction::{FlushDue, PipelinedTransaction};

use crate::machine::Phases;

/// The machines of this folder that have phases.
pub(crate) const PHASES: &[&Phases] = &[
    &flush::PHASES,
    &flush_batch::PHASES,
    &own_read::PHASES,
    &commit::PHASES,
    &finish::PHASES,
    &resolve_flushed::PHASES,
];
