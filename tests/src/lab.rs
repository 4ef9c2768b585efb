//! The fault laboratory: a cluster of real processes, each in a network namespace of its own, a load with sequence numbers, faults, and
//! a checker that knows what may not happen.
//!
//! [`Sandbox`] and [`Net`] are where the nodes live, [`Cluster`] is what can be done to them, [`Load`] the clients, and [`Checker`]
//! the judge. A [`Scenario`] is a named play with all of these; `hermod-lab` runs them.

mod checker;
mod cluster;
mod findings;
mod load;
mod net;
mod sandbox;
mod scenario;
mod switch;
mod table;
mod throughput;

pub use checker::{Checker, Delivery, Event, Message, Sink, SinkKind, Source};
pub use cluster::{Cluster, ClusterSetup, Range, STORES};
pub use findings::Findings;
pub use load::{Cast, Load};
pub use net::Net;
pub use sandbox::{Sandbox, Scratch};
pub use scenario::{Plan, Run, SCENARIOS, Scenario, Theatre, scenario};
pub use table::{print_header, print_row};
pub use throughput::{Flow, Throughput, throughput};
