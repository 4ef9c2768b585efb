//! The port of persistent sessions: state, queue, acknowledgements, wills.
//!
//! An *inbox* is what the broker keeps of a session beyond a connection: subscriptions, the queue of QoS 1 and 2 messages, the
//! packet ids of QoS 2, the will, and when all of this ends. Every session that outlives its connection or has a will has one.
//! A session owns its inbox under a [`SessionVersion`]; an operation with an older one is refused and changes nothing.
//!
//! # Sequence numbers and packet ids
//! Entries of a queue are numbered from 1 without gaps. The packet id of an entry is `(seq - 1) % 65535 + 1`: it needs no state of its own
//! and survives every crash. A session must not have entries in flight that are 65,535 or more apart.

mod service;
mod state;
mod will;

pub use service::{AttachError, InboxError, InboxFuture, InboxListener, InboxService, SubscriptionPage};
pub use state::{
    Attach, Attached, Commit, Detach, DropCause, Entry, FullPolicy, InboxId, InboxReceiver, InboxStats, InboxSummary,
    Insert, InsertOutcome, Origin, QueueLimits, SessionVersion, packet_id_of,
};
pub use will::{PendingWill, WillFate};
