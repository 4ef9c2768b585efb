//! Who is in the cluster. For now: who this node is.
//!
//! [`Identity`] gives a node its name and counts its starts. Membership (gossip, failure detection, facts about other nodes)
//! is not here yet: there is one node.

mod identity;

pub use identity::{Identity, IdentityError};
