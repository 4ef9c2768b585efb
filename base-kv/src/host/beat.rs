use super::Inner;
use crate::range::Replica;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// A leader whose disk is full tries so often to hand over.
const HAND_OVER_AGAIN: Duration = Duration::from_secs(2);

impl Inner {
    /// Begins to drive the clocks of all replicas; once.
    pub(super) fn beat(self: &Arc<Self>) {
        let mut beat = self.beat.lock();
        if beat.is_none() {
            let half = (self.shared.config.heartbeat / 2).max(Duration::from_millis(1));
            *beat = Some(tokio::spawn(run(Arc::downgrade(self), half)).abort_handle());
        }
    }
}

async fn run(inner: Weak<Inner>, half: Duration) {
    let mut ticks = interval(half);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut odd = false;
    let mut handed_over = None;
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        odd = !odd;
        let replicas = inner.replicas.read();
        replicas.values().for_each(|replica| replica.beat(odd));
        let now = Instant::now();
        if odd
            && inner.shared.space.full(inner.shared.clock.now())
            && handed_over.is_none_or(|at| now.duration_since(at) > HAND_OVER_AGAIN)
        {
            handed_over = Some(now);
            replicas.values().for_each(step_back);
        }
        if odd {
            replicas.values().for_each(|replica| inner.ask_if_forsaken(replica));
        }
    }
}

/// A leader that can't write lets another one lead.
fn step_back(replica: &Arc<Replica>) {
    if let Some(to) = replica.successor() {
        tracing::warn!(store = replica.store, range = %replica.range, %to, "the disk is full: another one shall lead");
        let replica = Arc::clone(replica);
        tokio::spawn(async move {
            if let Err(error) = replica.raft.trigger().transfer_leader(to).await {
                tracing::warn!(range = %replica.range, %error, "can't hand over");
            }
        });
    }
}
