//! A range as its store sees it: commands in, replies out, reads beside.

mod answers;
mod proposer;
mod queue;
mod replica;

pub(crate) use replica::{Replica, Shared};

use crate::id::{RangeId, ReplicaId};
use crate::stats::RangeStats;
use async_trait::async_trait;
use base_kv_api::{KvError, KvRead, MutateError, MutateFuture, RangeClient};
use bytes::Bytes;
use std::sync::Arc;

/// What a range is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// A replica on this node, and the way to the range's leader. Cheap to clone.
#[derive(Clone)]
pub struct Range {
    pub(crate) replica: Arc<Replica>,
}

impl Range {
    /// The range's name in its store.
    #[must_use]
    pub fn id(&self) -> RangeId {
        self.replica.range
    }

    /// The name of the replica on this node.
    #[must_use]
    pub fn replica_id(&self) -> ReplicaId {
        self.replica.id
    }

    /// How it is doing.
    #[must_use]
    pub fn stats(&self) -> RangeStats {
        self.replica.stats()
    }
}

#[async_trait]
impl RangeClient for Range {
    fn mutate(&self, _key: &[u8], command: Bytes) -> MutateFuture {
        self.replica.mutate(&command, self.replica.needed())
    }

    fn mutate_from_reserve(&self, _key: &[u8], command: Bytes) -> MutateFuture {
        self.replica.mutate(&command, self.replica.needed() / 2)
    }

    fn read(&self, _key: &[u8], with: &mut dyn FnMut(&dyn KvRead) -> Result<(), KvError>) -> Result<(), KvError> {
        self.replica.machine.read(with)
    }

    async fn linearize(&self, _key: &[u8]) -> Result<(), MutateError> {
        self.replica.linearize().await
    }

    async fn ready(&self) {
        self.replica.ready().await;
    }
}
