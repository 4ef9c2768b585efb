use base_types::{NodeId, NodeIncarnation};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use tokio::time::Instant;

/// Every node that this one knows of, itself included. Views of different nodes differ for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// Whose view.
    pub me: NodeId,
    /// By id: what was seen of the newest run of each.
    pub nodes: BTreeMap<NodeId, Member>,
}

/// A node, as another one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The newest run that was seen. All earlier ones are dead.
    pub run: NodeIncarnation,
    /// Where it is reached, UDP and TCP.
    pub addr: SocketAddr,
    /// Whether it is there.
    pub state: MemberState,
    /// Whether it answers calls. None until the first call ended.
    pub rpc: Option<bool>,
}

/// Whether a node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It answers, itself or through others.
    Alive,
    /// It did not answer lately. Not dead: it has two seconds to object.
    Suspect,
    /// Declared dead, or evicted; since when, on this node's clock. This node itself is dead when it has to stay out until it is started again;
    /// [`crate::Problem`] tells why.
    Dead(Instant),
    /// It said that it leaves; since when, on this node's clock.
    Left(Instant),
}

impl MemberState {
    /// Alive or suspect.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// What happened to a node. Of one node in order, and with nothing between two runs of it left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberEvent {
    /// A run is there, for the first time or again.
    Up(NodeIncarnation),
    /// A run is dead, also because a newer run of the same node showed up.
    Dead(NodeIncarnation),
    /// A run left by its own will.
    Left(NodeIncarnation),
}

impl fmt::Display for MemberEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (run, what) = match self {
            Self::Up(run) => (run, "is up"),
            Self::Dead(run) => (run, "is dead"),
            Self::Left(run) => (run, "has left"),
        };
        write!(f, "node {} (start {}) {what}", run.node, run.incarnation.0)
    }
}

impl fmt::Display for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alone => "no seeds but this node: there is nobody to look for",
            Self::Majority => "more than half of the seeds are there",
            Self::Looking { .. } => "less than half of the seeds are there: looking for the others",
        })
    }
}

impl Members {
    /// One of them.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&Member> {
        self.nodes.get(&node)
    }

    /// The live ones without this node.
    pub fn live_peers(&self) -> impl Iterator<Item = &Member> {
        self.nodes.values().filter(|member| member.run.node != self.me && member.state.is_live())
    }

    /// Whether that run is known to have ended: its node is dead or has left, or a newer run of it is here.
    #[must_use]
    pub fn is_gone(&self, run: NodeIncarnation) -> bool {
        self.nodes.get(&run.node).is_some_and(|member| {
            member.run.incarnation > run.incarnation
                || member.run.incarnation == run.incarnation && !member.state.is_live()
        })
    }
}

/// How far a node has come in finding the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It has no seeds but itself: there is nobody to wait for.
    Alone,
    /// More than half of the seeds, the node itself counted if it is one, are alive and have told their facts.
    Majority,
    /// Less than that.
    Looking {
        /// Since when, on this node's clock.
        since: Instant,
    },
}
