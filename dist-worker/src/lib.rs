//! The subscription routes: a coprocessor on a range, the in-memory index that its apply keeps, and the client.
//!
//! [`DistCoproc`] goes into a range, [`DistWorker`] talks to it and answers the broker's matches from the [`RouteIndex`] that both
//! share. Every node has a replica of all routes; who has died is known elsewhere, and says so with [`dist_api::DistService::forget_run`].
//! It knows no sessions and delivers nothing. Read [`RouteIndex`] first.

mod clients;
mod command;
mod coproc;
mod index;
mod schema;
#[cfg(test)]
mod testing;
mod worker;

pub use coproc::DistCoproc;
pub use index::RouteIndex;
pub use worker::DistWorker;
