use super::Inner;
use crate::raft::LogWriter;
use crate::range::Replica;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// A leader that can't write tries so often to hand over.
const HAND_OVER_AGAIN: Duration = Duration::from_secs(2);
/// A disk that finishes nothing for so long stands still. The others go on without it, but not who waits at this node.
const STANDS_STILL: Duration = Duration::from_secs(2);

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
    let mut disk = Disk { syncs: 0, since: Instant::now() };
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        odd = !odd;
        let replicas = inner.replicas.read();
        replicas.values().for_each(|replica| replica.beat(odd));
        let now = Instant::now();
        let troubled = if inner.shared.space.full(inner.shared.clock.now()) {
            Some("the disk is full")
        } else if disk.stands_still(&inner.shared.writer, now) {
            Some("the disk stands still")
        } else {
            None
        };
        if let Some(why) = troubled
            && handed_over.is_none_or(|at| now.duration_since(at) > HAND_OVER_AGAIN)
        {
            handed_over = Some(now);
            replicas.values().for_each(|replica| step_back(replica, why));
        }
        if odd {
            replicas.values().for_each(|replica| inner.ask_if_forsaken(replica));
        }
    }
}

/// How far the log writer was, and since when.
struct Disk {
    syncs: u64,
    since: Instant,
}

impl Disk {
    fn stands_still(&mut self, writer: &LogWriter, now: Instant) -> bool {
        let totals = writer.totals();
        let syncs = totals.syncs.load(Ordering::Relaxed);
        if syncs != self.syncs || totals.waiting.load(Ordering::Relaxed) == 0 {
            (self.syncs, self.since) = (syncs, now);
        }
        now.duration_since(self.since) > STANDS_STILL
    }
}

/// A leader that can't write lets another one lead.
fn step_back(replica: &Arc<Replica>, why: &'static str) {
    if let Some(to) = replica.successor() {
        tracing::warn!(store = replica.store, range = %replica.range, %to, why, "another one shall lead");
        let replica = Arc::clone(replica);
        tokio::spawn(async move {
            if let Err(error) = replica.raft.trigger().transfer_leader(to).await {
                tracing::warn!(range = %replica.range, %error, "can't hand over");
            }
        });
    }
}
