use base_types::{NodeId, NodeIncarnation};
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Which connection between two nodes: what is large never delays what is urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Raft: appends, votes, heartbeats. Small, urgent.
    Raft,
    /// Commands for leaders, messages for live sessions.
    Data,
    /// Snapshots and facts: as fast as the rest lets it.
    Bulk,
}

impl Lane {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Raft, Self::Data, Self::Bulk];

    /// Its place in [`Lane::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Who is called at a node. The numbers go over the wire: never change one, never use one again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Service(pub u8);

impl Service {
    /// `base-cluster`: facts about nodes.
    pub const FACTS: Self = Self(1);
    /// `base-kv`: Raft messages.
    pub const RAFT: Self = Self(2);
    /// `base-kv`: commands for the leader of a range, read indexes.
    pub const RANGE: Self = Self(3);
    /// `base-kv`: make and retire replicas, snapshots.
    pub const REPLICA: Self = Self(4);
    /// `broker`: messages for live sessions.
    pub const LIVE: Self = Self(5);
    /// `broker`: who holds which client id.
    pub const CLAIMS: Self = Self(6);
    /// `broker`: what an operator asks.
    pub const ADMIN: Self = Self(7);
}

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing was sent: no connection to the node, or its address is not known.
    #[error("node {to} can't be reached: {cause}")]
    Unreachable {
        /// Whom.
        to: NodeId,
        /// Why.
        cause: String,
    },
    /// Nothing was sent: too much waits for that node on that lane.
    #[error("too much waits for node {to}")]
    Busy {
        /// For whom.
        to: NodeId,
    },
    /// Maybe sent, maybe done: no reply within the deadline.
    #[error("node {to} did not answer in time")]
    TimedOut {
        /// Who.
        to: NodeId,
    },
    /// Maybe sent, maybe done: the connection ended before the reply.
    #[error("the connection to node {to} ended")]
    Lost {
        /// To whom.
        to: NodeId,
    },
    /// Sent, and not done: the peer has nobody who answers this, or he dropped it.
    #[error("node {to} refused the call")]
    Refused {
        /// Who.
        to: NodeId,
    },
}

impl CallError {
    /// Whether the peer may have done what was asked.
    #[must_use]
    pub fn maybe_done(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::Lost { .. })
    }
}

/// The future of a reply. The message is in the queue of its lane as soon as `call` returned, in the order of the calls.
/// Dropping it forgets the reply, not the message.
pub type CallFuture = Pin<Box<dyn Future<Output = Result<Bytes, CallError>> + Send>>;

/// Answers a call, once. Dropped unused, the caller is told [`CallError::Refused`] at once.
#[derive(Debug)]
pub struct Reply(pub(crate) Option<Box<dyn FnOnceBytes>>);

/// What a [`Reply`] does; a name for a closure.
pub(crate) trait FnOnceBytes: Send + Sync {
    fn answer(self: Box<Self>, body: Option<Bytes>);
}

impl std::fmt::Debug for dyn FnOnceBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}

impl FnOnceBytes for oneshot::Sender<Option<Bytes>> {
    fn answer(self: Box<Self>, body: Option<Bytes>) {
        // Nobody waits any more: that is his matter.
        let _ = self.send(body);
    }
}

impl Reply {
    /// Answers.
    pub fn send(mut self, body: Bytes) {
        if let Some(reply) = self.0.take() {
            reply.answer(Some(body));
        }
    }

    /// A reply that nobody waits for.
    #[must_use]
    pub fn nobody() -> Self {
        Self(None)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            reply.answer(None);
        }
    }
}

/// Who answers the calls to one service of this node.
pub trait Handler: Send + Sync + 'static {
    /// Takes a message of a peer that proved who it is. Called in the order of arrival per (peer, lane), never twice at the same time for
    /// one of them; returns at once: what takes time moves `reply` into a task. `body` may be a slice of what was read together with it,
    /// up to 128 KiB: who keeps a small one for long copies it.
    fn handle(&self, from: NodeIncarnation, body: Bytes, reply: Reply);
}

impl<F: Fn(NodeIncarnation, Bytes, Reply) + Send + Sync + 'static> Handler for F {
    fn handle(&self, from: NodeIncarnation, body: Bytes, reply: Reply) {
        self(from, body, reply);
    }
}

/// The other nodes, as this one can talk to them.
pub trait Mesh: Send + Sync + 'static {
    /// This run of this node.
    fn me(&self) -> NodeIncarnation;

    /// Calls a service of a node. Queued at once, in order, bounded; a call to the own node is handed to the own handler.
    fn call(&self, to: NodeId, lane: Lane, service: Service, body: Bytes, deadline: Duration) -> CallFuture;

    /// As [`Mesh::call`], without a reply.
    ///
    /// # Errors
    /// [`CallError::Unreachable`] and [`CallError::Busy`]. Without an error it may still get lost.
    fn send(&self, to: NodeId, lane: Lane, service: Service, body: Bytes) -> Result<(), CallError>;

    /// From now on `handler` answers the calls to `service`. Once per service, before the node joins.
    fn serve(&self, service: Service, handler: Arc<dyn Handler>);
}
