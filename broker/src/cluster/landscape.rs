//! What this node knows of the cluster, as the balancers and an operator see it: membership says who is there, facts say what they have.

use super::facts::{self, About};
use base_cluster::{Facts, Joined, MemberState, Members};
use base_kv_api::balance::{self, Landscape, Liveness, NodeView, ReplicaView};
use base_types::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tokio::time::Instant;

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
