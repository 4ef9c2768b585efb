use crate::registry::{BalancerKind, StoreSetup};
use crate::view::{SOON, is_alive, replicas};
use base_kv_api::balance::{Balancer, Command, Decision, Joined, Landscape};
use base_types::{NodeId, NodeIncarnation};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Makes the first replica of each range, once, however the nodes start.
///
/// Nothing is made while the facts of a node that is alive are unknown, or while anybody, dead or gone nodes included, is known
/// to have a replica of the range: that is data which may come back. Otherwise the alive node with the smallest id makes it:
///
/// - at once when it has nobody to wait for ([`Joined::Alone`] and no other node in sight);
/// - when a majority of the seeds is there and nothing changed for a second ([`Joined::Majority`]);
/// - after `bootstrapTimeoutSec` without a majority ([`Joined::Looking`]), unless somebody has another range of the store: then this
///   one was made as well, and who has it is out of reach. A node that was told of others and finds none never makes one: a wrong secret or a
///   firewall would give it a history of its own.
///
/// In the last case two halves of a cluster can each make the range. They tell their histories apart by the lineage, and become one by
/// [`RedundantRangeRemoval`](crate::RedundantRangeRemoval).
pub struct RangeBootstrap {
    ranges: BTreeSet<u64>,
    timeout: Duration,
    seen: Option<(Duration, Shape)>,
    why: String,
}

/// How long nothing may change before somebody acts on it.
const STABLE: Duration = Duration::from_secs(1);

/// What has to stay as it is for a while: who is there, which run of it, and how far this node has joined.
type Shape = (bool, BTreeMap<NodeId, NodeIncarnation>);

/// Options of [`RangeBootstrap`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RangeBootstrapOptions {
    /// Seconds that a node looks for a majority of its seeds before it goes on without, 0 to 86400.
    pub bootstrap_timeout_sec: u64,
}

impl Default for RangeBootstrapOptions {
    fn default() -> Self {
        Self { bootstrap_timeout_sec: 5 }
    }
}

impl BalancerKind for RangeBootstrap {
    const NAME: &'static str = "RangeBootstrapBalancer";
    type Options = RangeBootstrapOptions;

    fn build(options: Self::Options, setup: &StoreSetup) -> Result<Box<dyn Balancer>, String> {
        if options.bootstrap_timeout_sec > 86_400 {
            return Err("bootstrapTimeoutSec must be from 0 to 86400".into());
        }
        Ok(Box::new(Self::new(setup.ranges.clone(), Duration::from_secs(options.bootstrap_timeout_sec))))
    }
}

impl RangeBootstrap {
    /// Sees to it that these ranges exist.
    #[must_use]
    pub fn new(ranges: BTreeSet<u64>, timeout: Duration) -> Self {
        Self { ranges, timeout, seen: None, why: String::new() }
    }

    /// How long the shape has been what it is.
    fn unchanged(&mut self, now: Duration, shape: Shape) -> Duration {
        match &self.seen {
            Some((since, seen)) if *seen == shape => now.saturating_sub(*since),
            _ => {
                self.seen = Some((now, shape));
                Duration::ZERO
            }
        }
    }

    fn wait(&mut self, after: Duration, why: String) -> Decision {
        self.why = why;
        Decision::WakeAfter(after)
    }
}

impl Balancer for RangeBootstrap {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn balance(&mut self, now: Duration, landscape: &Landscape) -> Decision {
        let known: BTreeSet<u64> = replicas(landscape).map(|(_, _, replica)| replica.range.id).collect();
        let Some(id) = self.ranges.difference(&known).next().copied() else {
            self.seen = None;
            self.why = "every range exists".into();
            return Decision::Idle;
        };
        let alive = || landscape.nodes.iter().filter(|(_, node)| is_alive(node));
        let joined = !matches!(landscape.joined, Joined::Looking { .. });
        let lasting = self.unchanged(now, (joined, alive().map(|(id, node)| (*id, node.run)).collect()));

        if let Some((node, _)) = alive().find(|(_, node)| !node.known) {
            return self.wait(SOON, format!("range {id}: waits to hear what node {node} has"));
        }
        if let Joined::Looking { since } = landscape.joined {
            let left = (since + self.timeout).saturating_sub(now);
            if !left.is_zero() {
                return self.wait(left, format!("range {id}: looks for a majority of the seeds"));
            }
            if alive().count() == 1 {
                let why = "no other node was found, and one that is told of others does not begin alone what they may have begun: start \
                           one of the seeds, or remove them all from the configuration";
                return self.wait(SOON, format!("range {id}: {why}"));
            }
            if !known.is_empty() {
                return self.wait(SOON, format!("range {id}: who has it is out of reach"));
            }
        }
        let maker = alive().find(|(_, node)| !node.draining).map(|(node, _)| *node);
        if maker != Some(landscape.me) {
            let who = maker.map_or_else(|| "nobody".to_owned(), |node| format!("node {node}"));
            return self.wait(SOON, format!("range {id}: it is {who} who makes it"));
        }
        let stable = if landscape.joined == Joined::Alone && alive().count() == 1 { Duration::ZERO } else { STABLE };
        if let Some(left) = stable.checked_sub(lasting).filter(|left| !left.is_zero()) {
            return self.wait(left, format!("range {id}: waits until nothing changes"));
        }
        self.why = match landscape.joined {
            Joined::Alone => format!("nobody has range {id}"),
            Joined::Majority => format!("nobody of a majority has range {id}, and this is the smallest of them"),
            Joined::Looking { .. } => format!("nobody in reach has range {id}, and no majority of the seeds was found"),
        };
        Decision::Now(Command::Bootstrap { id })
    }

    fn why(&self) -> &str {
        &self.why
    }
}
