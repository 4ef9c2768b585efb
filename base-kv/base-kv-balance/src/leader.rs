use crate::backoff::Backoff;
use crate::registry::{BalancerKind, StoreSetup};
use crate::view::{LAG_MAX, SOON, leaders, led, takes};
use base_kv_api::balance::{Balancer, Command, Decision, Landscape, ReplicaView, Role};
use base_kv_api::{RangeId, ReplicaId};
use base_types::NodeId;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Spreads leaders: no node leads two ranges of a store more than another that could lead one of them.
///
/// A node that is on its way out hands over what it leads, at once. Otherwise every node computes the same one move for the whole store,
/// and only the node that would give away makes it; a range whose leader changed in the last minute stays where it is. So old views cost a
/// move, and never a game of ping-pong. A target must be alive, known, not on its way out, sound, and have caught up.
#[derive(Default)]
pub struct RangeLeader {
    /// Who leads, and since when as far as seen. The first leader seen counts as old.
    seen: BTreeMap<RangeId, (ReplicaId, Duration)>,
    refused: Backoff<(RangeId, ReplicaId)>,
    why: String,
}

/// How long a leader stays before the range may be moved to spread leaders.
const REST: Duration = Duration::from_secs(60);

/// Options of [`RangeLeader`]: none.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeLeaderOptions {}

impl BalancerKind for RangeLeader {
    const NAME: &'static str = "RangeLeaderBalancer";
    type Options = RangeLeaderOptions;

    fn build(_: Self::Options, _: &StoreSetup) -> Result<Box<dyn Balancer>, String> {
        Ok(Box::<Self>::default())
    }
}

impl RangeLeader {
    fn observe(&mut self, now: Duration, leaders: &[(NodeId, &ReplicaView)]) {
        for (_, leader) in leaders {
            match self.seen.get(&leader.range) {
                Some((replica, _)) if *replica == leader.replica => {}
                Some(_) => drop(self.seen.insert(leader.range, (leader.replica, now))),
                // What was there before us has settled long ago, or never moved.
                None => drop(self.seen.insert(leader.range, (leader.replica, now.saturating_sub(REST)))),
            }
        }
        // A range without a leader for the moment keeps its entry; one that is no more does not.
        if self.seen.len() > 4 * leaders.len() + 16 {
            self.seen.retain(|range, _| leaders.iter().any(|(_, leader)| leader.range == *range));
        }
    }

    /// The best voter to hand a range to: it leads least.
    fn target(
        &self,
        now: Duration,
        landscape: &Landscape,
        leader: &ReplicaView,
        load: &BTreeMap<NodeId, usize>,
    ) -> Option<(usize, NodeId, ReplicaId)> {
        let sound = |replica: &ReplicaId, home: &NodeId| {
            let node = landscape.nodes.get(home).filter(|node| takes(node))?;
            let there = node.replicas.iter().find(|there| there.range == leader.range && there.replica == *replica)?;
            let matched = leader.matched.get(replica)?;
            let ready = there.role == Role::Follower && there.fault.is_none() && matched + LAG_MAX >= leader.last.1;
            ready.then_some(())
        };
        leader
            .voters
            .iter()
            .filter(|(replica, home)| **replica != leader.replica && sound(replica, home).is_some())
            .filter(|(replica, _)| self.refused.wait(now, &(leader.range, **replica)).is_none())
            .map(|(replica, home)| (load.get(home).copied().unwrap_or(0), *home, *replica))
            .min()
    }
}

impl Balancer for RangeLeader {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn balance(&mut self, now: Duration, landscape: &Landscape) -> Decision {
        let leaders = leaders(landscape);
        self.observe(now, &leaders);
        self.why.clear();
        let mut load: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (node, _) in &leaders {
            *load.entry(*node).or_default() += 1;
        }
        let draining = landscape.nodes.get(&landscape.me).is_some_and(|me| me.draining);
        if draining {
            let own = led(landscape);
            for leader in &own {
                if let Some((_, node, to)) = self.target(now, landscape, leader, &load) {
                    self.why = format!("range {}: this node is on its way out, node {node} takes over", leader.range);
                    return Decision::Now(Command::TransferLeader { range: leader.range, to });
                }
            }
            return if own.is_empty() {
                Decision::Idle
            } else {
                self.why = "this node is on its way out, and nobody can take over yet".into();
                Decision::WakeAfter(SOON)
            };
        }
        let mut moves: Vec<_> = leaders
            .iter()
            .filter(|(_, leader)| !leader.changing)
            .filter_map(|(from, leader)| {
                let (least, node, to) = self.target(now, landscape, leader, &load)?;
                let most = load.get(from).copied().unwrap_or(0);
                (most >= least + 2).then_some((std::cmp::Reverse(most), *from, least, node, leader.range, to))
            })
            .collect();
        moves.sort();
        let rested = |range: &RangeId| {
            self.seen.get(range).map_or(Duration::ZERO, |(_, since)| (*since + REST).saturating_sub(now))
        };
        let waiting = moves.iter().map(|(_, _, _, _, range, _)| rested(range)).filter(|left| !left.is_zero()).min();
        let next = moves.iter().find(|(_, _, _, _, range, _)| rested(range).is_zero());
        match next {
            Some((std::cmp::Reverse(most), from, least, node, range, to)) if *from == landscape.me => {
                self.why = format!("range {range}: this node leads {most}, node {node} leads {least}");
                Decision::Now(Command::TransferLeader { range: *range, to: *to })
            }
            Some((_, from, ..)) => {
                self.why = format!("node {from} has to give away a leader first");
                Decision::WakeAfter(SOON)
            }
            None => waiting.map_or(Decision::Idle, |left| {
                self.why = "leaders are uneven, and changed less than a minute ago".into();
                Decision::WakeAfter(left)
            }),
        }
    }

    fn settled(&mut self, now: Duration, command: &Command, outcome: Result<(), &str>) {
        if let Command::TransferLeader { range, to } = command {
            match outcome {
                Ok(()) => self.refused.accepted(&(*range, *to)),
                Err(_) => self.refused.refused(now, (*range, *to)),
            }
        }
    }

    fn why(&self) -> &str {
        &self.why
    }
}
