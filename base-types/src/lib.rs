//! The words that more than one branch of the workspace speaks: tenants, clients, topics, messages, time.
//!
//! A type enters here when two branches need it. There is no I/O, no async and no lock in this crate. Every
//! newtype has one way in that checks; past it nobody checks again. Read [`TopicFilter`] and [`Message`] first.

mod clock;
mod id;
mod message;
mod qos;
mod subscription;
mod topic;
pub mod wire;

pub use clock::{Clock, ManualClock, SystemClock, WallMs};
pub use id::{ClientId, IdError, Incarnation, NodeId, NodeIncarnation, TenantId};
pub use message::Message;
pub use qos::{InvalidQoS, PacketId, QoS};
pub use subscription::{RetainHandling, SubscriptionOptions};
pub use topic::{
    MatchKind, SharedFilter, SharedMode, SubscriptionFilter, TopicError, TopicFilter, TopicName, filter_matches,
};
