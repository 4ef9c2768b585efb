//! Replicated ranges behind `base-kv-api`: openraft decides, RocksDB keeps.
//!
//! A [`Host`] is the disk of a node: one log that all replicas share, one thread that writes it and fsyncs once for whatever
//! waits, and the data of all replicas. [`Host::open_range`] puts a store's coprocessor on a replica and gives a [`Range`], the
//! `RangeClient` of the store.
//!
//! What it promises: a reply means that the command is in the log of a majority, on disk there, and applied here. What was
//! applied may be lost in a crash and is replayed from the log; the log is purged only up to what the data has on disk. The
//! first storage error stops a replica for good.
//!
//! Today every range has one voter and nobody to talk to. What cannot be added later is there: range, epoch and replica id are
//! part of every identity, replica ids are never used again, and pre-vote is on.
//!
//! No type of openraft or RocksDB is part of a public signature. Read [`Host`], then `range/queue.rs` and `raft/log_writer.rs`.

mod config;
mod engine;
mod home;
mod host;
#[cfg(test)]
mod host_test;
mod id;
mod raft;
mod range;
mod space;
mod stats;

pub use config::{Durability, KvConfig};
pub use home::OpenError;
pub use host::Host;
pub use id::{RangeId, ReplicaId};
pub use range::{Range, RangeSpec};
pub use stats::{HostStats, KvObserver, RangeStats, Role};
