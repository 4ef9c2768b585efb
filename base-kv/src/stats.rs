pub use base_kv_api::balance::Role;
use base_kv_api::{RangeId, ReplicaId};
use std::time::Duration;

/// Who is told what happens inside, as it happens; for histograms. Called on hot paths: return at once.
pub trait KvObserver: Send + Sync + 'static {
    /// The log writer made a batch durable.
    fn synced(&self, took: Duration, entries: u64, bytes: u64) {
        let _ = (took, entries, bytes);
    }

    /// A log entry was committed and applied and its commands are answered; `took` since the first of them was queued.
    fn committed(&self, store: &'static str, took: Duration, commands: u64) {
        let _ = (store, took, commands);
    }
}

/// Nobody watches.
impl KvObserver for () {}

/// How the node's store is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HostStats {
    /// Batches that the log writer made durable since the start: fsyncs, with [`crate::Durability::Fsync`].
    pub syncs: u64,
    /// Log entries in them.
    pub entries: u64,
    /// Bytes of log in them.
    pub bytes: u64,
    /// Bytes that the disk has free.
    pub free_bytes: u64,
    /// Nothing is accepted: the disk has less than [`crate::KvConfig::min_free_bytes`] free.
    pub disk_full: bool,
    /// Bytes of memory that the engines use, roughly.
    pub memory_bytes: u64,
    /// Why the log is no longer written, if so.
    pub failure: Option<String>,
    /// The replicas on this node.
    pub ranges: Vec<RangeStats>,
}

/// How a replica is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RangeStats {
    /// The store that it belongs to.
    pub store: &'static str,
    /// The range.
    pub range: RangeId,
    /// The replica.
    pub replica: ReplicaId,
    /// What it is at the moment.
    pub role: Role,
    /// The term of its group.
    pub term: u64,
    /// The leader that it knows.
    pub leader: Option<ReplicaId>,
    /// Replicas that vote.
    pub voters: usize,
    /// Index of its last log entry; 0 for none, as below.
    pub last_index: u64,
    /// Index of the last entry that it knows to be committed.
    pub committed_index: u64,
    /// Index of the last entry that it applied.
    pub applied_index: u64,
    /// Index of the last entry that is no longer in its log.
    pub purged_index: u64,
    /// Commands that wait to be proposed.
    pub waiting_commands: usize,
    /// Their bytes.
    pub waiting_bytes: usize,
    /// Why it can't take commands now, if so.
    pub unready: Option<String>,
}
