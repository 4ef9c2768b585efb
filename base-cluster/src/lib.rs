//! Who is in the cluster: who this node is, who the others are, and what they tell of themselves.
//!
//! [`Identity`] gives a node its name and counts its starts. [`Cluster`] takes part in the gossip (SWIM over sealed UDP packets): it finds the others
//! through seeds, tells who is alive ([`Members`], [`MemberEvent`]), and carries facts ([`Facts`]): small values that a node owns and all nodes know,
//! exchanged over the [`Links`]. What is wrong it says in words ([`Problem`]).

mod cluster;
mod driver;
mod exchange;
mod facts;
mod identity;
mod links;
mod member;
mod net;
mod options;
mod peer;
mod problem;
mod seal;
mod seeds;
mod swim;

pub use cluster::{Cluster, EvictError, Packets};
pub use facts::{FactError, Facts, NodeFacts};
pub use identity::{Identity, IdentityError};
pub use links::Links;
pub use member::{Joined, Member, MemberEvent, MemberState, Members};
pub use net::Datagrams;
pub use options::{Advertise, ClusterOptions, Secret, StartError};
pub use problem::Problem;
pub use seal::Refusal;
