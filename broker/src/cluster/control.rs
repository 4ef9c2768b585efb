//! Carries out what the balancers of a store decide, and tells the other nodes what this one has.

use super::facts;
use super::landscape::Picture;
use base_cluster::Cluster;
use base_kv::Host;
use base_kv_api::balance::{Decision, Landscape};
use base_kv_balance::{Controller, Diagnosis, diagnose};
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How long one step may take. A change of membership waits for a majority; what takes longer is looked at anew.
const STEP: Duration = Duration::from_secs(30);
/// Views change for reasons that nobody tells: time passes, a learner catches up.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// What only indexes changed is told no more often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// One store of this node in its cluster.
pub(crate) struct Control {
    store: &'static str,
    host: Arc<Host>,
    cluster: Cluster,
    controller: Mutex<Controller>,
    /// How many voters the store wants.
    voters: u32,
    start: Instant,
    draining: Arc<AtomicBool>,
}

impl Control {
    pub(crate) fn new(
        store: &'static str,
        host: Arc<Host>,
        cluster: Cluster,
        controller: Controller,
        voters: u32,
        draining: Arc<AtomicBool>,
    ) -> Self {
        let controller = Mutex::new(controller);
        Self { store, host, cluster, controller, voters, start: Instant::now(), draining }
    }

    pub(crate) fn store(&self) -> &'static str {
        self.store
    }

    /// What this node knows of the store now.
    pub(crate) fn landscape(&self) -> Landscape {
        let (members, facts) = (self.cluster.members().borrow().clone(), self.cluster.facts().borrow().clone());
        let picture = Picture {
            members: &members,
            facts: &facts,
            joined: *self.cluster.joined().borrow(),
            start: self.start,
            now: Instant::now(),
            draining: self.draining.load(Ordering::Relaxed),
        };
        picture.landscape(self.store, self.host.replicas(self.store))
    }

    /// What is wrong with the store, as this node sees it.
    pub(crate) fn diagnosis(&self) -> Diagnosis {
        diagnose(&self.landscape(), self.voters)
    }

    /// What the balancers did lately and what they wait for, for people.
    pub(crate) fn whys(&self) -> Vec<(&'static str, String)> {
        let controller = self.controller.lock();
        controller.whys().filter(|(_, why)| !why.is_empty()).map(|(name, why)| (name, why.to_owned())).collect()
    }

    /// Runs until told to stop. Telling does not wait for steps: others need to know most while one takes long.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::join!(self.keep_telling(&stop), self.keep_balancing(&stop));
    }

    async fn keep_telling(&self, stop: &CancellationToken) {
        let mut changes = self.host.changes();
        let mut told = (Bytes::new(), Instant::now());
        loop {
            let changed = tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => changed.is_ok(),
                () = sleep(TELL_EVERY) => false,
            };
            self.tell(&mut told, changed);
        }
    }

    async fn keep_balancing(&self, stop: &CancellationToken) {
        let (mut members, mut facts) = (self.cluster.members(), self.cluster.facts());
        let mut changes = self.host.changes();
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = changes.changed() => {}
                _ = members.changed() => {}
                _ = facts.changed() => {}
                () = sleep(pause) => {}
            }
            pause = tokio::select! {
                () = stop.cancelled() => return,
                pause = self.step() => pause,
            };
        }
    }

    /// Tells the others what replicas this node has, when that has changed.
    fn tell(&self, told: &mut (Bytes, Instant), at_once: bool) {
        if !at_once && !told.0.is_empty() && told.1.elapsed() < TELL_EVERY {
            return;
        }
        let bytes = facts::encode_replicas(&self.host.replicas(self.store));
        if bytes != told.0 {
            match self.cluster.publish(&facts::replicas_key(self.store), bytes.clone()) {
                Ok(()) => *told = (bytes, Instant::now()),
                Err(error) => warn!(store = self.store, %error, "the other nodes are not told what this one has"),
            }
        }
    }

    /// One step, if there is one to take; tells when to look again.
    async fn step(&self) -> Duration {
        let landscape = self.landscape();
        let (decision, balancer) = self.controller.lock().next(self.start.elapsed(), &landscape);
        let command = match decision {
            Decision::Idle => return LOOK_AGAIN,
            Decision::WakeAfter(after) => return after.min(LOOK_AGAIN),
            Decision::Now(command) => command,
        };
        let balancer = balancer.unwrap_or("a balancer");
        info!(store = self.store, balancer, "{command}");
        let outcome = match timeout(STEP, self.host.execute(self.store, command)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it took too long; whether it will still be done is not known".to_owned()),
        };
        if let Err(why) = &outcome {
            debug!(store = self.store, balancer, why, "a range was not changed");
        }
        self.controller.lock().settled(self.start.elapsed(), outcome);
        Duration::from_millis(20)
    }
}
