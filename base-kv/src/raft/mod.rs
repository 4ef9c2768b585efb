//! What openraft asks for: types, log store, state machine, network. Nothing outside of this folder and `range` sees openraft.

mod codec;
mod image;
mod keys;
mod log_store;
mod log_writer;
mod network;
mod proposal;
mod state_machine;
#[cfg(test)]
mod suite;

pub(crate) use codec::fixed_u64;
pub(crate) use image::Image;
pub(crate) use keys::RECORD;
pub(crate) use keys::{Slot, global_key, slot_key};
pub(crate) use log_store::{LogStore, Progress};
pub(crate) use log_writer::{Change, LogWriter};
pub(crate) use network::NoPeers;
pub(crate) use proposal::{Gathering, Proposal};
pub(crate) use state_machine::{Machine, StateMachine};

use crate::id::ReplicaId;
use base_types::NodeId;
use openraft::raft::responder::Responder;
use std::fmt;

/// The types of a range's Raft group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl openraft::RaftTypeConfig for Types {
    type D = Proposal;
    type R = Replies;
    type NodeId = ReplicaId;
    type Node = Host;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, ReplicaId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Proposal, ReplicaId, Host>;
    type Entry = openraft::Entry<Self::LeaderId, Self::Payload>;
    type AsyncRuntime = openraft::impls::TokioRuntime;
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

/// Where a replica lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host(pub(crate) NodeId);

impl Default for Host {
    fn default() -> Self {
        Self(NodeId(0))
    }
}

/// What the commands of one entry were answered.
#[derive(Debug, Default)]
pub(crate) struct Replies(pub(crate) Vec<bytes::Bytes>);

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
