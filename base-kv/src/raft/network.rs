use super::codec::put_vote;
use super::heartbeats::Heartbeats;
use super::wire::{self, Address, Refusal, kind};
use super::{Host, Image, LogId, Snapshot, Types, Vote};
use base_kv_api::{RangeId, ReplicaId};
use base_rpc::{CallError, CallFuture, Lane, Mesh, Service};
use base_types::NodeId;
use base_types::wire::{Reader, WireError};
use bytes::{BufMut, Bytes};
use futures_util::Stream;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, v2::RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The way of a replica to the others of its range, over the [`Mesh`] of the node; without one it has nobody to talk to.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) range: RangeId,
    pub(crate) from: ReplicaId,
    pub(crate) mesh: Option<Arc<Meshed>>,
    /// Where a snapshot is put together before it is sent.
    pub(crate) staging: PathBuf,
}

/// What all replicas of a node share to talk to others.
pub(crate) struct Meshed {
    pub(crate) mesh: Arc<dyn Mesh>,
    pub(crate) heartbeats: Heartbeats,
    /// How long an append may take, fsync over there included.
    pub(crate) append_deadline: Duration,
}

/// The way to one other replica.
pub(crate) struct Peer {
    address: Address,
    node: NodeId,
    peers: Peers,
    heartbeat: bool,
}

/// Appends that are on their way to one replica, and their bytes: what bounds the queue of its log.
const WINDOW: usize = 16;
const WINDOW_BYTES: usize = 8 << 20;

/// Bytes of a snapshot in one call.
pub(crate) const SNAPSHOT_CHUNK: usize = 512 << 10;
const CHUNK_DEADLINE: Duration = Duration::from_secs(10);
/// The last chunk is answered when all is installed.
const INSTALL_DEADLINE: Duration = Duration::from_secs(600);

/// Why a call brought nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
}

impl From<WireError> for Failed {
    fn from(error: WireError) -> Self {
        Self::Refused(wire::malformed(&error))
    }
}

impl Failed {
    /// `Unreachable` backs off, `Network` tries again.
    fn rpc(&self) -> RPCError<Types> {
        match self {
            Self::Call(CallError::TimedOut { .. } | CallError::Lost { .. } | CallError::Busy { .. }) => {
                NetworkError::from_string(self).into()
            }
            Self::Call(CallError::Unreachable { .. } | CallError::Refused { .. }) | Self::Refused(_) => {
                Unreachable::from_string(self).into()
            }
        }
    }
}

impl Meshed {
    /// Asks a node, and reads whether it did what it was asked.
    pub(crate) async fn ask(
        &self,
        node: NodeId,
        lane: Lane,
        service: Service,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Reader, Failed> {
        Ok(wire::read_reply(self.mesh.call(node, lane, service, body, deadline).await?)?)
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, to: ReplicaId, host: &Host) -> Peer {
        let address = Address { range: self.range, from: self.from, to };
        Peer { address, node: host.0, peers: self.clone(), heartbeat: false }
    }

    async fn new_heartbeat_client(&mut self, to: ReplicaId, host: &Host) -> Peer {
        Peer { heartbeat: true, ..self.new_client(to, host).await }
    }
}

impl Peer {
    fn meshed(&self) -> Result<&Arc<Meshed>, Unreachable<Types>> {
        let Address { range, from, to } = &self.address;
        let alone = || Unreachable::from_string(format!("no network from {from} to {to} of range {range}"));
        self.peers.mesh.as_ref().ok_or_else(alone)
    }

    async fn ask(&self, body: Bytes, option: &RPCOption) -> Result<Reader, RPCError<Types>> {
        let asked = self.meshed()?.ask(self.node, Lane::Raft, Service::RAFT, body, option.soft_ttl());
        asked.await.map_err(|failed| failed.rpc())
    }

    async fn send_snapshot(&self, vote: &Vote, path: PathBuf, transfer: u64) -> Result<Vote, StreamingError<Types>> {
        let meshed = Arc::clone(self.meshed()?);
        let io = |error: std::io::Error| NetworkError::<Types>::from_string(format!("read a snapshot: {error}"));
        let opened = crate::off_thread::off_thread(move || {
            let file = File::open(path)?;
            Ok((file.metadata()?.len(), file))
        });
        let joined = |error| NetworkError::<Types>::from_string(error);
        let (length, mut file): (u64, File) = opened.await.map_err(joined)?.map_err(io)?;
        let mut offset = 0;
        loop {
            let read = crate::off_thread::off_thread(move || {
                let mut chunk = Vec::with_capacity(SNAPSHOT_CHUNK);
                Read::by_ref(&mut file).take(SNAPSHOT_CHUNK as u64).read_to_end(&mut chunk)?;
                Ok((chunk, file))
            });
            let chunk;
            (chunk, file) = read.await.map_err(joined)?.map_err(io)?;
            let end = offset + chunk.len() as u64;
            let last = end >= length;
            let mut body = self.address.head(kind::SNAPSHOT, 64 + chunk.len());
            put_vote(&mut body, vote);
            body.put_u64(transfer);
            body.put_u64(offset);
            body.put_u8(u8::from(last));
            body.put_slice(&chunk);
            let deadline = if last { INSTALL_DEADLINE } else { CHUNK_DEADLINE };
            let asked = meshed.ask(self.node, Lane::Bulk, Service::REPLICA, body.freeze(), deadline).await;
            let mut r = asked.map_err(|failed| failed.rpc())?;
            let vote = super::codec::read_vote(&mut r).map_err(|error| Failed::from(error).rpc())?;
            if last {
                return Ok(vote);
            }
            offset = end;
        }
    }
}

/// A file that is gone when nobody needs it any more.
pub(crate) struct Passing(pub(crate) PathBuf);

impl Drop for Passing {
    fn drop(&mut self) {
        // What can't be removed now is removed at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Image;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let (prev, last) = (request.prev_log_id, last_of(&request));
        let r = self.ask(wire::append_request(&self.address, &request).freeze(), &option).await?;
        let result = wire::read_append_reply(r, prev, last).map_err(|error| Failed::from(error).rpc())?;
        Ok(result.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        let meshed = self.meshed().cloned();
        let (address, node, heartbeat) = (self.address, self.node, self.heartbeat);
        Box::pin(async move {
            let meshed = meshed?;
            let pending = VecDeque::with_capacity(1);
            let pipeline =
                Pipeline { input: Some(input), pending, bytes: 0, ended: false, meshed, address, node, heartbeat };
            Ok(Box::pin(pipeline) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let r = self.ask(wire::vote_request(&self.address, kind::VOTE, &request).freeze(), &option).await?;
        wire::read_vote_reply(r).map_err(|error| Failed::from(error).rpc())
    }

    // openraft's default grants.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let r = self.ask(wire::vote_request(&self.address, kind::PRE_VOTE, &request).freeze(), &option).await?;
        wire::read_vote_reply(r).map_err(|error| Failed::from(error).rpc())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let failed = |error: String| NetworkError::<Types>::from_string(format!("make a snapshot: {error}"));
        let transfer = crate::random::random().map_err(|error| failed(error.to_string()))?;
        let path = self.peers.staging.join(format!("{transfer:016x}.outgoing"));
        let file = Passing(path.clone());
        let made = crate::off_thread::off_thread(move || snapshot.snapshot.write_to(&path));
        made.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
        let sent = self.send_snapshot(&vote, file.0.clone(), transfer);
        tokio::select! {
            sent = sent => Ok(SnapshotResponse::new(sent?)),
            closed = cancel => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let r = self.ask(wire::transfer_request(&self.address, &request).freeze(), &option).await?;
        wire::read_transfer_reply(r).map_err(|error| Failed::from(error).rpc())
    }
}

fn last_of(request: &AppendEntriesRequest<Types>) -> Option<LogId> {
    request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id)
}

/// Appends on their way to one replica, their replies in order. The first that fails is the last one that is told.
struct Pipeline<S> {
    input: Option<S>,
    pending: VecDeque<OnItsWay>,
    bytes: usize,
    ended: bool,
    meshed: Arc<Meshed>,
    address: Address,
    node: NodeId,
    heartbeat: bool,
}

struct OnItsWay {
    reply: CallFuture,
    prev: Option<LogId>,
    last: Option<LogId>,
    bytes: usize,
}

impl<S> Pipeline<S> {
    fn send(&mut self, request: &AppendEntriesRequest<Types>) {
        let body = wire::append_request(&self.address, request).freeze();
        let bytes = body.len();
        let meshed = &self.meshed;
        let reply = if self.heartbeat {
            meshed.heartbeats.call(&meshed.mesh, self.node, body, meshed.append_deadline)
        } else {
            meshed.mesh.call(self.node, Lane::Raft, Service::RAFT, body, meshed.append_deadline)
        };
        self.bytes += bytes;
        self.pending.push_back(OnItsWay { reply, prev: request.prev_log_id, last: last_of(request), bytes });
    }
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Stream for Pipeline<S> {
    type Item = Result<StreamAppendResult<Types>, RPCError<Types>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        while this.pending.len() < WINDOW && (this.bytes < WINDOW_BYTES || this.pending.is_empty()) {
            let Some(input) = &mut this.input else { break };
            match Pin::new(input).poll_next(cx) {
                Poll::Ready(Some(request)) => this.send(&request),
                Poll::Ready(None) => this.input = None,
                Poll::Pending => break,
            }
        }
        let Some(front) = this.pending.front_mut() else {
            return if this.input.is_none() { Poll::Ready(None) } else { Poll::Pending };
        };
        let Poll::Ready(replied) = front.reply.as_mut().poll(cx) else { return Poll::Pending };
        let (prev, last) = (front.prev, front.last);
        this.bytes -= front.bytes;
        this.pending.pop_front();
        let result = replied.map_err(Failed::from).and_then(|bytes| {
            let r = wire::read_reply(bytes)?;
            Ok(wire::read_append_reply(r, prev, last)?)
        });
        let partly = matches!(&result, Ok(Ok(upto)) if *upto != last);
        this.ended = partly || !matches!(result, Ok(Ok(_)));
        Poll::Ready(Some(result.map_err(|failed| failed.rpc())))
    }
}
