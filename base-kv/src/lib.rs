//! Replicated ranges behind `base-kv-api`: openraft decides, RocksDB keeps.
//!
//! A [`Host`] is the disk of a node: one log that all replicas share, one thread that writes it and fsyncs once for whatever
//! waits, and the data of all replicas. The stores say what lives in their ranges ([`Host::register`]) and get a [`Range`], the
//! `RangeClient`. What a balancer decides is carried out by [`Host::execute`]; what it sees comes from [`Host::replicas`].
//!
//! What it promises: a reply means that the command is in the log of a majority, on disk there, and applied on this node. What was
//! applied may be lost in a crash and is replayed from the log; the log is purged only up to what the data has on disk. The
//! first storage error stops a replica for good.
//!
//! Every node proposes: its entries go in order to whoever leads, numbered, and again as long as their outcome is open
//! (`range/session.rs`, `range/proposer.rs`); the range applies each once (`raft/proposers.rs`). The replies are those of the own
//! replica. Range, lineage, epoch and both replica ids are part of every message; replica ids are never used again.
//!
//! No type of openraft or RocksDB is part of a public signature. Read [`Host`], then `range/proposer.rs` and `raft/log_writer.rs`.

#[cfg(test)]
mod cluster_test;
mod config;
mod engine;
mod home;
mod host;
#[cfg(test)]
mod host_test;
mod off_thread;
mod raft;
mod random;
mod range;
#[cfg(feature = "sim")]
pub mod sim;
mod space;
mod stats;

pub use base_kv_api::{RangeId, ReplicaId};
pub use config::{Durability, KvConfig};
pub use home::OpenError;
pub use host::{ExecuteError, Host};
pub use range::{Range, RangeSpec};
pub use stats::{HostStats, KvObserver, RangeStats, Role};
