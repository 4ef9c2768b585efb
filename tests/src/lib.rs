//! What judges the broker from outside: a client swarm with its own wire format, the load generator, the durability checker,
//! and the processes under test. The tests themselves stand in `tests/`, one file per feature.

pub mod durability;
pub mod lab;
pub mod load;
pub mod wire;

mod client;
mod daemon;
mod disk;
mod histogram;
mod http;
mod mosquitto;
mod node;
mod random;
mod swarm;
mod tool;
mod tracker;
mod usage;
mod wait;

pub use client::{Client, Message};
pub use daemon::{Daemon, free_port, loopback, raise_file_limit};
pub use disk::Disk;
pub use histogram::Histogram;
pub use http::{http_get, sample};
pub use mosquitto::Mosquitto;
pub use node::{Node, NodeSetup, accepts_clients, hermod};
pub use swarm::{Event, Swarm, answer};
pub use tool::{Tool, python, script};
pub use tracker::{Found, SharedTracker, Tracker};
pub use usage::Usage;
pub use wait::wait_until;
