//! Calls between the nodes of a cluster.
//!
//! [`Mesh`] is the port that everything above uses: a call to a node, on a lane, with a deadline, in the order of the calls. [`Rpc`] keeps it
//! over TCP, between nodes that have proven to each other that they belong together ([`Security`]). [`MemMesh`] keeps it within a process,
//! with links that a test can cut.
//!
//! What it promises: messages of one lane to one node are handed to the peer's [`Handler`] in the order in which they were given here, each at most
//! once. What it does not promise: that they arrive. A [`CallError`] says whether the peer may have seen the message.

mod config;
mod frame;
mod handshake;
mod hello;
mod inlet;
mod line;
mod mem;
mod mesh;
pub mod net;
mod noise;
mod pump;
mod queue;
mod refusal;
mod rpc;
mod single;
mod stats;
mod tls;
mod wire;

pub use config::{Bounds, Listen, PROTOCOL_VERSION, RpcConfig, Secret, Security, Timing};
pub use mem::{MemHub, MemMesh};
pub use mesh::{CallError, CallFuture, Handler, Lane, Mesh, Reply, Service};
pub use refusal::RefusedBecause;
pub use rpc::{AddrCallError, PeerStatus, Reach, Rpc, StartError};
pub use stats::{Counters, LaneCounters};
pub use tls::{Tls, TlsError};
