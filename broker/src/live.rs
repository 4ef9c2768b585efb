//! The live sessions of this node: where each is, and what it subscribed to.
//!
//! Readers (the shards, once per batch) take a lock of their own cache line; only subscribing, connecting and leaving write.

mod registry;
mod table;

pub(crate) use registry::Registry;
pub(crate) use table::{LiveTable, Target};

/// Where a live session is. A slot that was reused has another generation, so a stale reference leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionRef {
    pub(crate) shard: u16,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}
