//! Hermod, the program: listeners, shards, services, and the command line. The only crate that knows concrete types of all others.

mod admission;
mod boot;
mod cluster;
mod counters;
mod disk;
mod listener;
mod live;
mod node;
mod routes;
mod seen;
mod services;
mod shard;

pub mod cli;
pub mod start;
