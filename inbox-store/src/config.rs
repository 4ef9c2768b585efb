use base_types::NodeId;
use std::time::Duration;

/// Settings of the inboxes of a node.
#[derive(Clone, Debug)]
pub struct InboxConfig {
    /// This node: what is attached here is told to the listener.
    pub node: NodeId,
    /// Bytes of queued messages that are kept in memory too, so that a connected session reads nothing from disk; all inboxes together,
    /// each message counted for each receiver. Default 64 MiB.
    pub cache_bytes: usize,
    /// The same for one inbox. Default 4 MiB.
    pub cache_bytes_per_inbox: usize,
    /// How long until a due will that was not settled is told again. Default 5 s.
    pub will_retell: Duration,
    /// How long a change that the range refuses for a passing reason is tried again. Inserts are not: their order matters. Default 5 s.
    pub deadline: Duration,
}

impl InboxConfig {
    /// The defaults, on this node.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            cache_bytes: 64 << 20,
            cache_bytes_per_inbox: 4 << 20,
            will_retell: Duration::from_secs(5),
            deadline: Duration::from_secs(5),
        }
    }
}
