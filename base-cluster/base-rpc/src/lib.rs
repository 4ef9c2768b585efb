//! Calls between the nodes of a cluster.
//!
//! [`Mesh`] is the port that everything above uses: a call to a node, on a lane, with a deadline, in the order of the calls.
//! [`MemMesh`] keeps it within a process, with links that a test can cut.
//!
//! What it promises: messages of one lane to one node are handed to the peer's [`Handler`] in the order in which they were given here, each at most
//! once. What it does not promise: that they arrive. A [`CallError`] says whether the peer may have seen the message.

mod mem;
mod mesh;

pub use mem::{MemHub, MemMesh};
pub use mesh::{CallError, CallFuture, Handler, Lane, Mesh, Reply, Service};
