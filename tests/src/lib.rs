//! What judges the broker from outside: a client swarm with its own wire format, the load generator, the durability checker,
//! and the processes under test. The tests themselves stand in `tests/`, one file per feature.

pub mod durability;
pub mod load;
pub mod wire;

mod client;
mod daemon;
mod histogram;
mod mosquitto;
mod node;
mod swarm;
mod tool;
mod tracker;
mod usage;
mod wait;

pub use client::{Client, Message};
pub use daemon::{Daemon, free_port, loopback, raise_file_limit};
pub use histogram::Histogram;
pub use mosquitto::Mosquitto;
pub use node::{Node, NodeSetup, accepts_clients, hermod};
pub use swarm::{Event, Swarm, answer};
pub use tool::{Tool, python, script};
pub use tracker::{Found, SharedTracker, Tracker};
pub use usage::Usage;
pub use wait::wait_until;
