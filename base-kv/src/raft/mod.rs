//! What openraft asks for: types, log store, state machine, network. Nothing outside of this folder and `range` sees openraft.

mod codec;
mod heartbeats;
mod image;
mod incoming;
mod keys;
mod log_store;
mod log_writer;
mod network;
mod proposal;
mod proposers;
mod state_machine;
#[cfg(test)]
mod suite;
pub(crate) mod wire;

pub(crate) use codec::{
    put_log_id, put_membership, put_replica, put_vote, read_log_id, read_membership, read_vote, replica,
};
pub(crate) use heartbeats::{Heartbeats, heartbeats, joined};
pub(crate) use image::{Image, read_image};
pub(crate) use incoming::Incoming;
pub(crate) use keys::RECORD;
#[cfg(test)]
pub(crate) use keys::entry_start;
pub(crate) use keys::{Slot, data_slot_span, global_key, slot_key};
pub(crate) use log_store::{LogStore, Progress};
pub(crate) use log_writer::{Change, LogWriter};
pub(crate) use network::{Failed, Meshed, Peers};
pub(crate) use proposal::{Gathering, Origin, Proposal};
pub(crate) use proposers::{Last, Proposers, Verdict};
pub(crate) use state_machine::{Machine, Outcome, Settle, SharedCoproc, StateMachine};

use base_kv_api::ReplicaId;
use base_types::NodeId;
use openraft::raft::responder::Responder;
use std::fmt;

/// The types of a range's Raft group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl openraft::RaftTypeConfig for Types {
    type D = Proposal;
    type R = ();
    type NodeId = ReplicaId;
    type Node = Host;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, ReplicaId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Proposal, ReplicaId, Host>;
    type Entry = openraft::Entry<Self::LeaderId, Self::Payload>;
    #[cfg(not(feature = "sim"))]
    type AsyncRuntime = openraft::impls::TokioRuntime;
    #[cfg(feature = "sim")]
    type AsyncRuntime = crate::sim::Seeded;
    type Responder<T>
        = Callback<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type LeaderId = openraft::type_config::alias::CommittedLeaderIdOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type Membership = openraft::Membership<ReplicaId, Host>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<Types, Image>;
pub(crate) type Raft = openraft::Raft<Types, StateMachine>;

/// The reply that names a replica.
pub(crate) fn done_with_replica(id: ReplicaId) -> bytes::BytesMut {
    let mut out = wire::done(16);
    put_replica(&mut out, id);
    out
}

/// Where a replica lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host(pub(crate) NodeId);

impl Default for Host {
    fn default() -> Self {
        Self(NodeId(0))
    }
}

/// Called once with how a proposal ended; dropped uncalled when that is not known.
pub(crate) struct Callback<T>(pub(crate) Box<dyn FnOnce(T) + Send>);

impl<T: Send + 'static> Responder<Types, T> for Callback<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// An error of the store, for openraft: fatal for the replica.
pub(crate) fn io_error(error: impl fmt::Display) -> std::io::Error {
    std::io::Error::other(error.to_string())
}
