use crate::registry::{BalancerKind, StoreSetup};
use crate::since::Since;
use crate::view::{led, sooner, winner_over};
use base_kv_api::RangeId;
use base_kv_api::balance::{Balancer, Command, Decision, Landscape};
use serde::Deserialize;
use std::time::Duration;

/// Joins two histories of one range, as two halves of a cluster make them that never met.
///
/// The smaller lineage wins, by a rule that never changes its mind. The leader of the other one has what it holds carried over, and its
/// replicas set aside on disk. It acts once it has seen the winner led for two seconds; while either has no leader it waits.
#[derive(Default)]
pub struct RedundantRangeRemoval {
    seen: Since<(RangeId, RangeId)>,
    why: String,
}

/// How long a winner has to be there.
const STABLE: Duration = Duration::from_secs(2);

/// Options of [`RedundantRangeRemoval`]: none.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedundantRangeRemovalOptions {}

impl BalancerKind for RedundantRangeRemoval {
    const NAME: &'static str = "RedundantRangeRemovalBalancer";
    type Options = RedundantRangeRemovalOptions;

    fn build(_: Self::Options, _: &StoreSetup) -> Result<Box<dyn Balancer>, String> {
        Ok(Box::<Self>::default())
    }
}

impl Balancer for RedundantRangeRemoval {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn balance(&mut self, now: Duration, landscape: &Landscape) -> Decision {
        let pairs: Vec<(RangeId, RangeId)> = led(landscape)
            .into_iter()
            .filter(|leader| !leader.changing)
            .filter_map(|leader| Some((leader.range, winner_over(landscape, leader.range)?)))
            .collect();
        self.seen.observe(now, pairs.iter().copied());
        self.why.clear();
        pairs.into_iter().fold(Decision::Idle, |decision, pair| {
            if matches!(decision, Decision::Now(_)) {
                return decision;
            }
            let (loser, winner) = pair;
            self.why = format!("range {loser} has another history, {winner}, which wins");
            let lasting = self.seen.lasting(now, &pair).unwrap_or_default();
            let next = match STABLE.checked_sub(lasting).filter(|left| !left.is_zero()) {
                Some(left) => Decision::WakeAfter(left),
                None => Decision::Now(Command::Merge { loser, winner }),
            };
            sooner(decision, next)
        })
    }

    fn why(&self) -> &str {
        &self.why
    }
}
