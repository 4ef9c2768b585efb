//! The port of the subscription routes: what a topic name is routed to.
//!
//! A route leads from a filter to a *receiver*: a node that has live sessions for the filter, or an inbox. The broker looks
//! routes up in an in-memory index of this node ([`DistService::matches`], no I/O) and adds and removes them through ranges.

mod route;
mod service;

pub use route::{GroupMatch, InboxMatch, Matches, Receiver, Route};
pub use service::{DistError, DistListener, DistService, InboxLives};
