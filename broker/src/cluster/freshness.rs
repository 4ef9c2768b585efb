//! How old this node's view of the routes may be when it acknowledges.
//!
//! Matching is local. A node that was cut off would match against old routes, find nobody, and acknowledge what a subscriber elsewhere
//! was promised. So QoS 1 and 2 are matched only while this node has confirmed within [`BOUND`] that it holds everything that was committed; otherwise they wait for
//! the next confirmation, and are refused when none comes. QoS 0 never waits.
//!
//! While messages come, one task confirms again and again, a few times within the bound: one round to the leader for all messages of that time.
//! Where a round takes longer than the bound, each message waits for the first confirmation that began after it came.
//!
//! A confirmation covers the inboxes too. After a pause (this process was stopped, or cut off) a connection has to show first that its session
//! is still its own ([`Freshness::resumed`]): its client may have moved, and gone on, while its old messages lay here in a buffer.

use base_kv_api::RangeClient;
use base_types::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A subscription that was acknowledged so long ago is seen by every publish that is acknowledged.
pub(crate) const BOUND: Duration = Duration::from_millis(50);
/// Between two confirmations, while messages come.
const EVERY: Duration = Duration::from_millis(20);
/// After the last message the confirmations go on for so long: who publishes now and then should not wait each time.
const LINGER: Duration = Duration::from_secs(2);

/// Without a confirmation for so long, there was a pause.
const PAUSE: Duration = Duration::from_millis(100);

/// When the routes of this node were last known to be complete.
pub(crate) struct Freshness {
    start: Instant,
    /// Milliseconds after `start`, plus 1; 0 for never.
    as_of: AtomicU64,
    /// The first `as_of` after the latest pause.
    resumed: AtomicU64,
    wanted: AtomicU64,
    wake: Notify,
    confirmed: Notify,
    /// One voter and this node has it: nothing can be newer elsewhere.
    needed: bool,
}

impl Freshness {
    /// Without `needed` every view counts as fresh: a node of its own.
    pub(crate) fn new(now: Instant, needed: bool) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        Arc::new(Self {
            start: now,
            as_of: zero(),
            resumed: zero(),
            wanted: zero(),
            wake: Notify::new(),
            confirmed: Notify::new(),
            needed,
        })
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX) + 1
    }

    /// Whether a message that is matched now may be acknowledged; if not, see [`Freshness::wait`].
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        if !self.needed {
            return true;
        }
        let now = self.ms(now);
        if self.wanted.load(Ordering::Relaxed) < now {
            self.wanted.store(now, Ordering::Relaxed);
        }
        let as_of = self.as_of.load(Ordering::Acquire);
        let fresh = as_of != 0 && now.saturating_sub(as_of) <= u64::try_from(BOUND.as_millis()).unwrap_or(u64::MAX);
        if !fresh {
            self.wake.notify_one();
        }
        fresh
    }

    /// Returns once the routes are known to hold all that was committed before the call, or are fresh.
    pub(crate) async fn wait(&self, clock: &dyn Clock) {
        let since = self.ms(clock.now());
        loop {
            let confirmed = self.confirmed.notified();
            if self.is_fresh(clock.now()) || self.as_of.load(Ordering::Acquire) >= since {
                return;
            }
            confirmed.await;
        }
    }

    /// Rises with each pause. Who was verified at this value needs not be verified again.
    pub(crate) fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Acquire)
    }

    /// Confirms routes and inboxes while somebody wants it, until told to stop.
    pub(crate) async fn run(
        self: Arc<Self>,
        ranges: [Arc<dyn RangeClient>; 2],
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) {
        if !self.needed {
            return;
        }
        let linger = u64::try_from(LINGER.as_millis()).unwrap_or(u64::MAX);
        loop {
            let idle = self.ms(clock.now()).saturating_sub(self.wanted.load(Ordering::Relaxed)) > linger;
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(EVERY), if !idle => {}
            }
            let began = self.ms(clock.now());
            let [routes, inboxes] = &ranges;
            let (routes, inboxes) = tokio::join!(routes.linearize(b""), inboxes.linearize(b""));
            if routes.is_ok() && inboxes.is_ok() {
                let pause = u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX);
                if began.saturating_sub(self.as_of.load(Ordering::Acquire)) > pause {
                    // First this: who sees the view fresh must see that there was a pause.
                    self.resumed.store(began, Ordering::Release);
                }
                self.as_of.fetch_max(began, Ordering::AcqRel);
                self.confirmed.notify_waiters();
            }
        }
    }
}
