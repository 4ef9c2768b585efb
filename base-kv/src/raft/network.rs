use super::{Host, Image, Snapshot, Types, Vote};
use crate::id::{RangeId, ReplicaId};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, v2::RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use std::future::Future;

/// The network of a range that has one voter: nobody can be reached.
///
/// The address of everything that will ever be sent is complete already: range, epoch, and both replica ids.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoPeers {
    pub(crate) range: RangeId,
    pub(crate) from: ReplicaId,
}

/// Where messages for one replica would go.
pub(crate) struct NoPeer {
    range: RangeId,
    from: ReplicaId,
    to: ReplicaId,
}

impl RaftNetworkFactory<Types> for NoPeers {
    type Network = NoPeer;

    async fn new_client(&mut self, to: ReplicaId, _: &Host) -> NoPeer {
        NoPeer { range: self.range, from: self.from, to }
    }
}

impl NoPeer {
    fn unreachable(&self) -> Unreachable<Types> {
        Unreachable::from_string(format!("no network from {} to {} of range {}", self.from, self.to, self.range))
    }
}

impl RaftNetworkV2<Types> for NoPeer {
    type SnapshotData = Image;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    async fn vote(&mut self, _: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    // openraft's default grants.
    async fn pre_vote(&mut self, _: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: Snapshot,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(self.unreachable().into())
    }
}
