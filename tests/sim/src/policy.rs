//! Carries out what the balancers of a store decide, as the broker does.

use crate::world::World;
use base_cluster::{Cluster, Joined, MemberState};
use base_kv::Host;
use base_kv_api::balance::{self, Decision, Landscape, Liveness, NodeView};
use base_kv_balance::{BalancerError, BalancerSpec, Controller, Registry, StoreSetup};
use base_types::NodeId;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const STEP: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A dead node's replicas are replaced after so long, for there is not much time.
const REPLACE_DEAD_AFTER_SECS: u64 = 4;

pub(crate) struct Policy {
    pub(crate) store: &'static str,
    pub(crate) host: Arc<Host>,
    pub(crate) cluster: Cluster,
    pub(crate) world: Rc<World>,
}

fn controller() -> Result<Controller, BalancerError> {
    let replicas = serde_json::json!({ "replaceDeadAfterSec": REPLACE_DEAD_AFTER_SECS });
    let specs = [
        BalancerSpec { name: "ReplicaCntBalancer".into(), options: replicas },
        BalancerSpec::named("RangeLeaderBalancer"),
    ];
    Registry::standard().build(&specs, &StoreSetup::default())
}

impl Policy {
    /// Runs as long as the node.
    pub(crate) async fn run(self) -> Result<(), BalancerError> {
        let mut controller = controller()?;
        let start = Instant::now();
        let (mut members, mut facts, mut changes) = (self.cluster.members(), self.cluster.facts(), self.host.changes());
        let mut pause = Duration::ZERO;
        let key = format!("replicas/{}", self.store);
        loop {
            tokio::select! {
                _ = changes.changed() => {}
                _ = members.changed() => {}
                _ = facts.changed() => {}
                () = sleep(pause) => {}
            }
            // What is told is a ticket: the simulation has no need of the broker's encoding.
            let views = self.host.replicas(self.store);
            let ticket = self.world.put_views(self.cluster.me(), self.store, views);
            if let Some(ticket) = ticket
                && let Err(error) = self.cluster.publish(&key, ticket.to_be_bytes().to_vec())
            {
                self.world.trace(format_args!("facts are not told: {error}"));
            }
            pause = self.step(&mut controller, &key, start).await;
        }
    }

    async fn step(&self, controller: &mut Controller, key: &str, start: Instant) -> Duration {
        let landscape = self.landscape(key, start);
        let (decision, _) = controller.next(start.elapsed(), &landscape);
        let command = match decision {
            Decision::Idle => return LOOK_AGAIN,
            Decision::WakeAfter(after) => return after.min(LOOK_AGAIN),
            Decision::Now(command) => command,
        };
        let told = format!("{command:?}");
        let outcome = match timeout(STEP, self.host.execute(self.store, command)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it took too long".to_owned()),
        };
        self.world.trace(format_args!("{} on {}: {told}: {outcome:?}", self.store, self.cluster.me().node));
        controller.settled(start.elapsed(), outcome);
        Duration::from_millis(20)
    }

    fn landscape(&self, key: &str, start: Instant) -> Landscape {
        let (members, facts) = (self.cluster.members().borrow().clone(), self.cluster.facts().borrow().clone());
        let now = Instant::now();
        let view = |(id, member): (&NodeId, &base_cluster::Member)| {
            let ago = |since: Instant| now.saturating_duration_since(since);
            let liveness = match member.state {
                MemberState::Alive | MemberState::Suspect => Liveness::Alive,
                MemberState::Dead(since) => Liveness::Dead(ago(since)),
                MemberState::Left(since) => Liveness::Left(ago(since)),
            };
            let told = if *id == members.me {
                Some(self.host.replicas(self.store))
            } else {
                let ticket = facts.get(*id, key).and_then(|bytes| <[u8; 8]>::try_from(&bytes[..]).ok());
                ticket.and_then(|ticket| self.world.views(u64::from_be_bytes(ticket)))
            };
            let (known, replicas) = (told.is_some(), told.unwrap_or_default());
            (*id, NodeView { run: member.run, liveness, draining: false, known, replicas })
        };
        let nodes: BTreeMap<_, _> = members.nodes.iter().map(view).collect();
        let joined = match *self.cluster.joined().borrow() {
            Joined::Alone => balance::Joined::Alone,
            Joined::Majority => balance::Joined::Majority,
            Joined::Looking { since } => balance::Joined::Looking { since: since.saturating_duration_since(start) },
        };
        Landscape { me: members.me, store: self.store.to_owned(), nodes, joined }
    }
}
