//! Questions that every policy asks of a landscape.

use base_kv_api::RangeId;
use base_kv_api::balance::{Decision, Landscape, Liveness, NodeView, ReplicaView, Role};
use base_types::NodeId;
use std::time::Duration;

/// A replica is caught up when it lacks fewer log entries than this: what the leader has in flight at full load.
pub(crate) const LAG_MAX: u64 = 128;

/// How soon to look again when something is on its way.
pub(crate) const SOON: Duration = Duration::from_secs(1);

pub(crate) fn is_alive(node: &NodeView) -> bool {
    node.liveness == Liveness::Alive
}

/// Whether a node can be given something: it is there, it is known, and it stays.
pub(crate) fn takes(node: &NodeView) -> bool {
    is_alive(node) && node.known && !node.draining
}

/// All replicas with the node that describes them, also of dead nodes.
pub(crate) fn replicas(landscape: &Landscape) -> impl Iterator<Item = (NodeId, &NodeView, &ReplicaView)> {
    landscape.nodes.iter().flat_map(|(id, node)| node.replicas.iter().map(move |replica| (*id, node, replica)))
}

/// The leaders that answer, at most one of each range: of two that both think so the one of the higher term.
pub(crate) fn leaders(landscape: &Landscape) -> Vec<(NodeId, &ReplicaView)> {
    let mut leaders: Vec<(NodeId, &ReplicaView)> = replicas(landscape)
        .filter(|(_, node, replica)| is_alive(node) && replica.role == Role::Leader)
        .map(|(id, _, replica)| (id, replica))
        .collect();
    leaders.sort_by_key(|(_, replica)| (replica.range, std::cmp::Reverse(replica.term)));
    leaders.dedup_by_key(|(_, replica)| replica.range);
    leaders
}

/// The ranges that this node leads, unless it sees that it was deposed, or that the range goes on in a later epoch.
pub(crate) fn led(landscape: &Landscape) -> Vec<&ReplicaView> {
    let own = landscape.nodes.get(&landscape.me).map(|node| node.replicas.as_slice()).unwrap_or_default();
    own.iter()
        .filter(|replica| replica.role == Role::Leader)
        .filter(|leader| {
            !replicas(landscape).any(|(_, node, other)| {
                let same = (other.range.id, other.range.lineage) == (leader.range.id, leader.range.lineage);
                is_alive(node) && same && (other.range.epoch, other.term) > (leader.range.epoch, leader.term)
            })
        })
        .collect()
}

/// Another history of the same range that is led, and wins over this one: the smaller one does.
pub(crate) fn winner_over(landscape: &Landscape, range: RangeId) -> Option<RangeId> {
    leaders(landscape)
        .into_iter()
        .map(|(_, leader)| leader.range)
        .filter(|other| other.id == range.id && other.lineage < range.lineage)
        .min_by_key(|other| (other.lineage, std::cmp::Reverse(other.epoch)))
}

/// How many of so many voters are a majority.
pub(crate) fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Where a range likes to be, lower first: every range orders the nodes in its own way, always the same.
pub(crate) fn preference(range: RangeId, node: NodeId) -> u64 {
    let mut x = node.0 ^ range.id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The decision that is due first.
pub(crate) fn sooner(a: Decision, b: Decision) -> Decision {
    match (a, b) {
        (Decision::Now(command), _) | (_, Decision::Now(command)) => Decision::Now(command),
        (Decision::WakeAfter(a), Decision::WakeAfter(b)) => Decision::WakeAfter(a.min(b)),
        (Decision::WakeAfter(after), Decision::Idle) | (Decision::Idle, Decision::WakeAfter(after)) => {
            Decision::WakeAfter(after)
        }
        (Decision::Idle, Decision::Idle) => Decision::Idle,
    }
}
