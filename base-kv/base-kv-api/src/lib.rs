//! The port between replicated ranges and the stores that live in them.
//!
//! A store crate implements [`Coproc`]: a deterministic state machine over a [`KvSpace`]. It talks to its replicas through a
//! [`RangeClient`]. It does not know Raft, RocksDB, or how many replicas there are; `base-kv` does not know MQTT.

mod client;
mod coproc;
mod space;

pub use client::{MutateError, MutateFuture, RangeClient};
pub use coproc::{ApplyCx, Coproc};
pub use space::{KvError, KvRead, KvSpace, Visit};
