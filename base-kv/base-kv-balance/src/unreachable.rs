use crate::registry::{BalancerKind, StoreSetup};
use crate::since::Since;
use crate::view::{SOON, is_alive, led};
use base_kv_api::balance::{Balancer, Command, Decision, Landscape, ReplicaView};
use base_kv_api::{RangeId, ReplicaId};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// Removes learners that their node says it does not have: it lost its disk, or never made them.
///
/// A node whose facts are unknown, or that does not answer, is no reason: only a node that is alive, has told what it has, and goes on
/// telling so for `suspicionSec`. Voters that were lost like this are replaced, not removed, by [`ReplicaCnt`](crate::ReplicaCnt).
pub struct UnreachableReplicaRemoval {
    suspicion: Duration,
    missing: Since<(RangeId, ReplicaId)>,
    why: String,
}

/// Options of [`UnreachableReplicaRemoval`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UnreachableReplicaRemovalOptions {
    /// Seconds that a node has to say that it lacks a replica, 1 to 86400.
    pub suspicion_sec: u64,
}

impl Default for UnreachableReplicaRemovalOptions {
    fn default() -> Self {
        Self { suspicion_sec: 10 }
    }
}

impl BalancerKind for UnreachableReplicaRemoval {
    const NAME: &'static str = "UnreachableReplicaRemovalBalancer";
    type Options = UnreachableReplicaRemovalOptions;

    fn build(options: Self::Options, _: &StoreSetup) -> Result<Box<dyn Balancer>, String> {
        if !(1..=86_400).contains(&options.suspicion_sec) {
            return Err("suspicionSec must be from 1 to 86400".into());
        }
        Ok(Box::new(Self::new(Duration::from_secs(options.suspicion_sec))))
    }
}

impl UnreachableReplicaRemoval {
    /// Removes what was missing for so long.
    #[must_use]
    pub fn new(suspicion: Duration) -> Self {
        Self { suspicion, missing: Since::default(), why: String::new() }
    }
}

fn missing<'a>(landscape: &'a Landscape, leader: &'a ReplicaView) -> impl Iterator<Item = ReplicaId> + 'a {
    leader.learners.iter().filter_map(|(replica, home)| {
        let node = landscape.nodes.get(home)?;
        let has = node.replicas.iter().any(|there| there.range == leader.range && there.replica == *replica);
        (is_alive(node) && node.known && !has).then_some(*replica)
    })
}

impl Balancer for UnreachableReplicaRemoval {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn balance(&mut self, now: Duration, landscape: &Landscape) -> Decision {
        let led = led(landscape);
        self.missing.observe(
            now,
            led.iter()
                .flat_map(|leader| missing(landscape, leader).map(|replica| (leader.range, replica)))
                .collect::<Vec<_>>(),
        );
        self.why.clear();
        let mut decision = Decision::Idle;
        for leader in led.into_iter().filter(|leader| !leader.changing) {
            let missing: BTreeSet<ReplicaId> = missing(landscape, leader).collect();
            let due = |replica: &ReplicaId| {
                self.missing.lasting(now, &(leader.range, *replica)).is_some_and(|lasting| lasting >= self.suspicion)
            };
            let learners: BTreeSet<ReplicaId> = missing.iter().copied().filter(due).collect();
            if !learners.is_empty() {
                self.why = format!("range {}: the nodes of {learners:?} don't have them", leader.range);
                return Decision::Now(Command::RemoveLearners { range: leader.range, config: leader.config, learners });
            }
            if !missing.is_empty() {
                self.why = format!("range {}: the nodes of {missing:?} don't have them yet", leader.range);
                decision = Decision::WakeAfter(SOON.min(self.suspicion));
            }
        }
        decision
    }

    fn why(&self) -> &str {
        &self.why
    }
}
