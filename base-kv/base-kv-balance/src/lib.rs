//! Policies over ranges: who makes them, who holds them, who leads them.
//!
//! Each policy is a [`Balancer`](base_kv_api::balance::Balancer), a value without clock and I/O that looks at a
//! [`Landscape`](base_kv_api::balance::Landscape) and names one next step. Every node runs the same policies on its own view, for the ranges that it
//! leads, and for those that nobody has made; there is no coordinator. Views differ and are old, so no policy trusts one: a command
//! is bound to the membership that it was computed for, and Raft itself has the last word.
//!
//! [`Registry`] knows the policies by the names that stand in the configuration, [`Controller`] asks them in order and remembers what was
//! done and why, [`diagnose`] says what is wrong with a landscape, for people.
//!
//! | name | does | always on |
//! | --- | --- | --- |
//! | `RedundantRangeRemovalBalancer` | joins two histories of one range ([`RedundantRangeRemoval`]) | yes |
//! | `RangeBootstrapBalancer` | makes the first replica of a range ([`RangeBootstrap`]) | yes |
//! | `UnreachableReplicaRemovalBalancer` | removes learners that their node does not have ([`UnreachableReplicaRemoval`]) | yes |
//! | `ReplicaCntBalancer` | brings voters and learners to their counts ([`ReplicaCnt`]) | default |
//! | `RangeLeaderBalancer` | spreads leaders ([`RangeLeader`]) | default |
//!
//! A new one is a file here with an `impl BalancerKind`, and a line in [`Registry::standard`].

mod backoff;
mod bootstrap;
mod controller;
mod diagnosis;
mod leader;
mod redundant;
mod registry;
mod replica_cnt;
mod since;
mod unreachable;
mod view;

pub use bootstrap::{RangeBootstrap, RangeBootstrapOptions};
pub use controller::{Controller, Outcome, Record};
pub use diagnosis::{Diagnosis, Problem, ProblemKind, RangeHealth, diagnose};
pub use leader::{RangeLeader, RangeLeaderOptions};
pub use redundant::{RedundantRangeRemoval, RedundantRangeRemovalOptions};
pub use registry::{BalancerError, BalancerKind, BalancerSpec, Registry, StoreSetup};
pub use replica_cnt::{ReplicaCnt, ReplicaCntOptions};
pub use unreachable::{UnreachableReplicaRemoval, UnreachableReplicaRemovalOptions};
