//! For tests of stores: a key space in memory, a range without Raft, and a harness that proves a coprocessor deterministic.

mod harness;
mod mem_group;
mod mem_range;
mod mem_space;

pub use harness::CoprocHarness;
pub use mem_group::{MemGroup, MemReplica};
pub use mem_range::MemRange;
pub use mem_space::MemSpace;
