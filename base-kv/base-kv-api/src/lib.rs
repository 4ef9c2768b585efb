//! The port between replicated ranges and the stores that live in them.
//!
//! A store crate implements [`Coproc`]: a deterministic state machine over a [`KvSpace`]. It talks to its replicas through a
//! [`RangeClient`]. It does not know Raft, RocksDB, or how many replicas there are; `base-kv` does not know MQTT.
//! [`testing`] has what a store needs to be tested without them.

pub mod balance;
mod client;
mod coproc;
mod id;
mod overlay;
mod space;
pub mod testing;

pub use client::{MutateError, MutateFuture, RangeClient};
pub use coproc::{ApplyCx, Coproc};
pub use id::{RangeId, ReplicaId};
pub use overlay::{Overlay, Writes};
pub use space::{KvError, KvRead, KvSpace, Visit};
