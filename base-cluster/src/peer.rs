use base_types::{Incarnation, NodeId, NodeIncarnation};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What foca knows a node by. The id tells whether two of them are the same node; of these the later one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    node: u64,
    incarnation: u64,
    /// Rises within a run: each time the others had declared it dead by mistake.
    pub(crate) generation: u32,
    /// It says good-bye.
    pub(crate) left: bool,
    /// Drawn anew by each run; a packet for it has to name it, so that one of an earlier run is worth nothing.
    pub(crate) salt: u64,
    pub(crate) addr: SocketAddr,
}

/// The generation of a run that an operator evicted: no other of that run wins against it.
const EVICTED: u32 = u32::MAX;

impl Peer {
    pub(crate) fn new(run: NodeIncarnation, salt: u64, addr: SocketAddr) -> Self {
        Self { node: run.node.0, incarnation: run.incarnation.0, generation: 0, left: false, salt, addr }
    }

    pub(crate) fn run(&self) -> NodeIncarnation {
        NodeIncarnation { node: self.node(), incarnation: Incarnation(self.incarnation) }
    }

    pub(crate) fn node(&self) -> NodeId {
        NodeId(self.node)
    }

    pub(crate) fn leaving(self) -> Self {
        Self { generation: self.generation.saturating_add(1).min(EVICTED - 1), left: true, ..self }
    }

    pub(crate) fn evicted(self) -> Self {
        Self { generation: EVICTED, ..self }
    }

    pub(crate) fn is_evicted(&self) -> bool {
        self.generation == EVICTED
    }

    fn rank(&self) -> (u64, u32, bool, u64, SocketAddr) {
        // The last two only so that two processes with one identity are told apart everywhere in the same way.
        (self.incarnation, self.generation, self.left, self.salt, self.addr)
    }
}

impl foca::Identity for Peer {
    type Addr = u64;

    fn renew(&self) -> Option<Self> {
        let generation = self.generation + u32::from(self.generation < EVICTED);
        (!self.left && generation < EVICTED).then_some(Self { generation, ..*self })
    }

    fn addr(&self) -> u64 {
        self.node
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }
}
