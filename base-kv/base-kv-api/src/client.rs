use crate::{KvError, KvRead};
use async_trait::async_trait;
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;

/// Why a mutation has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MutateError {
    /// Nothing was proposed: the queue of the range is full. Try again later, or tell the client that the server is busy.
    #[error("the range has {waiting} commands waiting, its limit")]
    Busy {
        /// How many wait.
        waiting: usize,
    },
    /// Nothing was proposed: this node can't reach a leader of the range.
    #[error("the range has no leader that can be reached")]
    NoLeader,
    /// Nothing was proposed: too large for one entry.
    #[error("a command of {size} bytes is larger than the {limit} bytes that are allowed")]
    TooLarge {
        /// Bytes.
        size: usize,
        /// Bytes.
        limit: usize,
    },
    /// Nothing was proposed: the disk is (nearly) full. The range goes on by itself once there is space.
    #[error("the disk is full: {free} bytes are free, {needed} are kept in reserve")]
    NoSpace {
        /// Bytes that are free.
        free: u64,
        /// Bytes below which nothing is accepted.
        needed: u64,
    },
    /// Proposed, but whether it was committed is not known: the leader changed or the deadline passed.
    #[error("the outcome is unknown: the leader changed or the deadline passed")]
    Unknown,
    /// The replica stopped because its storage failed. The text says how.
    #[error("the range stopped: {cause}")]
    Stopped {
        /// What happened.
        cause: String,
    },
}

impl MutateError {
    /// Whether the same command may be tried again without harm and with hope.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::NoLeader | Self::NoSpace { .. })
    }
}

/// The future of a reply. The command is in the queue of its range as soon as `mutate` returned, in the order of the calls.
pub type MutateFuture = Pin<Box<dyn Future<Output = Result<Bytes, MutateError>> + Send>>;

/// How a store talks to its ranges.
#[async_trait]
pub trait RangeClient: Send + Sync + 'static {
    /// Proposes one command to the range that holds `key`. The reply comes after it is committed, on disk, and applied here.
    ///
    /// Commands to one range are applied in the order of the calls, also when the futures are polled in another order.
    /// Never blocks: a full queue answers [`MutateError::Busy`].
    fn mutate(&self, key: &[u8], command: Bytes) -> MutateFuture;

    /// As [`Self::mutate`], for a command that ends or removes something: it may use half of the reserve that is kept of a full disk,
    /// so that what is stored can be read, acknowledged and removed, which makes room.
    fn mutate_from_reserve(&self, key: &[u8], command: Bytes) -> MutateFuture {
        self.mutate(key, command)
    }

    /// A consistent, possibly stale view of the range that holds `key`, from the replica on this node.
    ///
    /// # Errors
    /// When the engine fails.
    fn read(&self, key: &[u8], with: &mut dyn FnMut(&dyn KvRead) -> Result<(), KvError>) -> Result<(), KvError>;

    /// Waits until the view of this node holds everything that was committed before the call.
    ///
    /// # Errors
    /// When no leader confirms within the deadline.
    async fn linearize(&self, key: &[u8]) -> Result<(), MutateError>;

    /// Waits until the range has a leader that this node can reach.
    async fn ready(&self);
}
