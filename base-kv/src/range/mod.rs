//! A range as its store sees it: commands in, replies out, reads beside.

mod answers;
mod client;
mod proposer;
mod queue;
mod reads;
mod replica;
mod session;

pub(crate) use client::Client;
pub(crate) use replica::{Back, Phase, Replica, Shared};

use crate::stats::RangeStats;
use async_trait::async_trait;
use base_kv_api::{KvError, KvRead, MutateError, MutateFuture, RangeClient, RangeId, ReplicaId};
use bytes::Bytes;
use std::sync::Arc;

/// What a range is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeSpec {
    /// The store, by its name: `dist`, `inbox` or `retain`.
    pub store: &'static str,
    /// Which range of the store; the whole store is range 0 until ranges are split.
    pub id: u64,
}

impl RangeSpec {
    /// The range that holds a whole store.
    #[must_use]
    pub fn whole(store: &'static str) -> Self {
        Self { store, id: 0 }
    }
}

/// The way to a range: through the replica on this node, to whoever leads. Cheap to clone.
///
/// It exists before a replica does. Until then commands wait, and reading fails.
#[derive(Clone)]
pub struct Range {
    pub(crate) client: Arc<Client>,
}

impl Range {
    /// The range, once there is a replica of it on this node.
    #[must_use]
    pub fn id(&self) -> Option<RangeId> {
        self.client.replica().map(|replica| replica.range)
    }

    /// The name of the replica on this node, if there is one.
    #[must_use]
    pub fn replica_id(&self) -> Option<ReplicaId> {
        self.client.replica().map(|replica| replica.id)
    }

    /// How the replica on this node is doing, if there is one.
    #[must_use]
    pub fn stats(&self) -> Option<RangeStats> {
        self.client.stats()
    }
}

#[async_trait]
impl RangeClient for Range {
    fn mutate(&self, _key: &[u8], command: Bytes) -> MutateFuture {
        self.client.mutate(&command, false)
    }

    fn mutate_from_reserve(&self, _key: &[u8], command: Bytes) -> MutateFuture {
        self.client.mutate(&command, true)
    }

    fn read(&self, _key: &[u8], with: &mut dyn FnMut(&dyn KvRead) -> Result<(), KvError>) -> Result<(), KvError> {
        match self.client.replica() {
            Some(replica) => replica.machine.read(with),
            None => Err(KvError { doing: "read", cause: "there is no replica of the range on this node".into() }),
        }
    }

    async fn linearize(&self, _key: &[u8]) -> Result<(), MutateError> {
        self.client.linearize().await
    }

    async fn ready(&self) {
        self.client.ready().await;
    }
}
