//! What this node knows of the cluster, as the balancers and an operator see it: membership says who is there, facts say what they have.

use super::facts::{self, About};
use base_cluster::{Facts, Joined, MemberState, Members};
use base_kv_api::balance::{self, Landscape, Liveness, NodeView, ReplicaView};
use base_types::{NodeId, NodeIncarnation};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// How long ago a node left that is not waited for.
const FOR_GOOD: Duration = Duration::from_secs(24 * 3600);

/// Of one moment.
pub(crate) struct Picture<'a> {
    pub(crate) members: &'a Members,
    pub(crate) facts: &'a Facts,
    pub(crate) joined: Joined,
    /// When the process started: the beginning of the balancers' time.
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    /// This node is on its way out.
    pub(crate) draining: bool,
}

impl Picture<'_> {
    /// What a node tells of itself.
    pub(crate) fn about(&self, node: NodeId) -> Option<About> {
        self.facts.get(node, facts::ABOUT).and_then(|bytes| About::decode(bytes.clone()).ok())
    }

    /// What operators said will not come back, told by any node.
    pub(crate) fn evicted(&self) -> Vec<NodeIncarnation> {
        let told = self.members.nodes.keys().filter_map(|node| self.facts.get(*node, facts::EVICTED));
        told.filter_map(|bytes| facts::decode_runs(bytes.clone()).ok()).flatten().collect()
    }

    fn is_taken(&self, addr: SocketAddr) -> bool {
        self.members.nodes.values().any(|member| member.addr == addr && member.state.is_live())
    }

    /// The view of one store. What this node has itself comes from `own`, not from what it told others.
    pub(crate) fn landscape(&self, store: &str, own: Vec<ReplicaView>) -> Landscape {
        let me = self.members.me;
        let key = facts::replicas_key(store);
        let mut own = Some(own);
        let mut nodes = BTreeMap::new();
        for (id, member) in &self.members.nodes {
            let ago = |since: Instant| self.now.saturating_duration_since(since);
            let liveness = match member.state {
                MemberState::Alive | MemberState::Suspect => Liveness::Alive,
                // Another node answers at its address: it was replaced, or lost its disk, and won't come back.
                MemberState::Dead(since) if self.is_taken(member.addr) => Liveness::Left(ago(since)),
                MemberState::Dead(since) => Liveness::Dead(ago(since)),
                MemberState::Left(since) => Liveness::Left(ago(since)),
            };
            let is_me = *id == me;
            let told = if is_me {
                own.take()
            } else {
                self.facts.get(*id, &key).and_then(|bytes| facts::decode_replicas(bytes.clone()).ok())
            };
            let draining = if is_me { self.draining } else { self.about(*id).is_some_and(|about| about.draining) };
            let known = told.is_some();
            let replicas = told.unwrap_or_default();
            nodes.insert(*id, NodeView { run: member.run, liveness, draining, known, replicas });
        }
        for run in self.evicted() {
            let gone = Liveness::Left(FOR_GOOD);
            match nodes.get_mut(&run.node) {
                Some(view) if view.run.incarnation > run.incarnation || view.liveness == Liveness::Alive => {}
                Some(view) => view.liveness = gone,
                None => {
                    let view = NodeView { run, liveness: gone, draining: false, known: false, replicas: Vec::new() };
                    nodes.insert(run.node, view);
                }
            }
        }
        let joined = match self.joined {
            Joined::Alone => balance::Joined::Alone,
            Joined::Majority => balance::Joined::Majority,
            Joined::Looking { since } => {
                balance::Joined::Looking { since: since.saturating_duration_since(self.start) }
            }
        };
        Landscape { me, store: store.to_owned(), nodes, joined }
    }
}
