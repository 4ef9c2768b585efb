use std::path::PathBuf;
use std::time::Duration;

/// What a node's key-value store is told at start.
#[derive(Clone, Debug)]
pub struct KvConfig {
    /// Where everything is kept; made when it is not there.
    pub data_dir: PathBuf,
    /// What an acknowledged command survives.
    pub durability: Durability,
    /// Nothing new is accepted while the disk has less than this free, in bytes. The reserve keeps the engine from ever running
    /// into the end of the disk itself, so that it goes on by itself once there is space. Half of it is for commands that remove
    /// something (`RangeClient::mutate_from_reserve`). Default 64 MiB.
    pub min_free_bytes: u64,
    /// Commands that may wait to be proposed, per range. Default 65,536.
    pub queue_commands: usize,
    /// Bytes of commands that may wait to be proposed, per range. Default 8 MiB.
    pub queue_bytes: usize,
    /// The largest command, in bytes. Default 4 MiB.
    pub command_bytes: usize,
    /// Commands in one log entry, at most. Default 4,096.
    pub entry_commands: usize,
    /// Bytes after which a log entry takes no further command. Default 1 MiB.
    pub entry_bytes: usize,
    /// Log entries of this node and a range that may be on their way at the same time. Default 2: one is being synced while the next is
    /// gathered.
    pub entries_in_flight: usize,
    /// As [`KvConfig::entries_in_flight`], while another node leads. Default 4.
    pub forwards_in_flight: usize,
    /// For so long a command is tried: what could not be sent by then ends as `NoLeader`, what was sent and has no outcome as `Unknown`.
    /// Default 8 s.
    pub deadline: Duration,
    /// How often a leader tells its followers that it is there. Default 125 ms.
    pub heartbeat: Duration,
    /// A follower that hears nothing for a time between these campaigns. The first, less one heartbeat, is also the lease for which a leader
    /// that a majority answered may go on. Default 500 to 800 ms.
    pub election: (Duration, Duration),
    /// Bytes of log entries after which the data is flushed and the log purged, per range. With [`KvConfig::log_entries`] it
    /// bounds what a restart replays. With more than one replica, the log keeps as much once more, for those that were away for a while.
    /// Default 64 MiB.
    pub log_bytes: u64,
    /// Log entries after which the data is flushed and the log purged, per range. Default 100,000.
    pub log_entries: u64,
    /// Bytes of a memtable of the data; up to three exist. Default 16 MiB.
    pub memtable_bytes: usize,
    /// Bytes of data blocks that are cached. Default 32 MiB.
    pub cache_bytes: usize,
}

/// What a command survives once it was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A power cut: answered after fsync.
    #[default]
    Fsync,
    /// The death of the process, not a power cut: answered once the operating system has it. A weaker promise that a person has to
    /// choose.
    NoSync,
}

impl Default for KvConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./data"),
            durability: Durability::Fsync,
            min_free_bytes: 64 << 20,
            queue_commands: 65_536,
            queue_bytes: 8 << 20,
            command_bytes: 4 << 20,
            entry_commands: 4_096,
            entry_bytes: 1 << 20,
            entries_in_flight: 2,
            forwards_in_flight: 4,
            deadline: Duration::from_secs(8),
            heartbeat: Duration::from_millis(125),
            election: (Duration::from_millis(500), Duration::from_millis(800)),
            log_bytes: 64 << 20,
            log_entries: 100_000,
            memtable_bytes: 16 << 20,
            cache_bytes: 32 << 20,
        }
    }
}
