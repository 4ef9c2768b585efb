//! What falls due: the leader tells wills, and proposes the end of inboxes that expired and the removal of what nobody may read again.

use crate::command;
use crate::coproc::Shared;
use crate::corrupt;
use crate::schema::{KeyKind, all_below, subscription, will};
use crate::state::{Notice, Timer, later};
use crate::store::ROUTE;
use base_kv_api::{KvError, MutateError, RangeClient, Visit};
use base_types::{Clock, NodeIncarnation, SubscriptionFilter, WallMs};
use inbox_api::{InboxId, PendingWill, SessionVersion};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How much is done before the clock is read again.
const AT_ONCE: usize = 256;
/// Entries that one command sweeps.
const SWEPT_AT_ONCE: u64 = 512;
/// Expired entries that one command removes.
const DISCARDED_AT_ONCE: usize = 512;
/// Expired entries that may wait for their removal; beyond it they are found again by the next fetch.
const EXPIRED_MAX: usize = 1 << 20;
/// The wall clock may jump: it is looked at again after this at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// After something that did not work.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Entries that fetches found to have expired.
#[derive(Debug, Default)]
pub(crate) struct ExpiredEntries {
    by_session: BTreeMap<SessionVersion, Vec<u64>>,
    count: usize,
}

impl ExpiredEntries {
    pub(crate) fn add(&mut self, version: SessionVersion, seqs: &[u64]) {
        if self.count + seqs.len() <= EXPIRED_MAX {
            self.count += seqs.len();
            self.by_session.entry(version).or_default().extend_from_slice(seqs);
        }
    }

    fn take(&mut self) -> Option<(SessionVersion, Vec<u64>)> {
        let (version, mut seqs) = self.by_session.pop_first()?;
        if seqs.len() > DISCARDED_AT_ONCE {
            self.by_session.insert(version, seqs.split_off(DISCARDED_AT_ONCE));
        }
        self.count -= seqs.len();
        Some((version, seqs))
    }
}

/// Attaches that nobody learned of: to be undone, lest the session seems connected for ever.
pub(crate) type Abandoned = Mutex<VecDeque<(InboxId, NodeIncarnation, u64)>>;

/// More than this are left to the next start of the node, which detaches what its earlier runs held.
pub(crate) const ABANDONED_MAX: usize = 1 << 16;

pub(crate) struct TimerTask {
    pub(crate) shared: Arc<Shared>,
    pub(crate) range: Arc<dyn RangeClient>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) expired: Arc<Mutex<ExpiredEntries>>,
    pub(crate) abandoned: Arc<Abandoned>,
}

impl TimerTask {
    pub(crate) async fn run(self) {
        loop {
            let pause = match self.tick().await {
                Ok(true) => continue,
                Ok(false) => self.until_next(),
                Err(error) => {
                    tracing::warn!(%error, "what is due in the inboxes has to wait");
                    Some(BACK_OFF)
                }
            };
            let woken = self.shared.wake.notified();
            match pause {
                // A pause that ends early sees that nothing is due yet, and sleeps again: never early, at most a millisecond late.
                Some(pause) => {
                    let _ = tokio::time::timeout(pause, woken).await;
                }
                None => woken.await,
            }
        }
    }

    fn until_next(&self) -> Option<Duration> {
        let state = self.shared.state.lock();
        if !state.leads() {
            return None;
        }
        let at = state.next_due()?;
        let left = Duration::from_millis(at.since(self.clock.wall()));
        // What is due and still there was not done: not at once again.
        Some(if left.is_zero() { BACK_OFF } else { left.min(LOOK_AGAIN) })
    }

    async fn undo_abandoned(&self) -> Result<(), MutateError> {
        loop {
            let next = self.abandoned.lock().front().cloned();
            let Some((inbox, run, token)) = next else { return Ok(()) };
            self.range.mutate_from_reserve(ROUTE, command::abandon(&inbox, run, token)).await?;
            self.abandoned.lock().pop_front();
        }
    }

    /// Does what is due; tells whether there may be more.
    async fn tick(&self) -> Result<bool, MutateError> {
        self.undo_abandoned().await?;
        let discarded = self.expired.lock().take();
        if let Some((version, seqs)) = &discarded {
            self.range.mutate_from_reserve(ROUTE, command::discard(*version, seqs)).await?;
        }
        let now = self.clock.wall();
        let due = self.due(now);
        let (mut ended, mut swept) = (Vec::new(), Vec::new());
        for timer in &due {
            match *timer {
                Timer::Will(version) => self.tell_will(version, now),
                Timer::Ended(incarnation) => self.tell_ended(incarnation, now),
                Timer::Expire(incarnation) => ended.push(incarnation),
                Timer::Sweep(incarnation) => swept.push(incarnation),
            }
        }
        if !ended.is_empty() {
            self.range.mutate_from_reserve(ROUTE, command::expire(&ended)).await?;
        }
        for incarnation in swept {
            self.range.mutate_from_reserve(ROUTE, command::sweep(incarnation, SWEPT_AT_ONCE)).await?;
        }
        Ok(discarded.is_some() || self.due(now) != due)
    }

    /// What this node has to do: whatever is due while it leads.
    fn due(&self, now: WallMs) -> Vec<Timer> {
        let state = self.shared.state.lock();
        if state.leads() { state.due(now, AT_ONCE) } else { Vec::new() }
    }

    fn tell_ended(&self, incarnation: u64, now: WallMs) {
        if !self.is_heard() {
            return;
        }
        let filters = match self.read_filters(incarnation) {
            Ok(filters) => filters,
            Err(error) => {
                tracing::error!(%error, incarnation, "the subscriptions of a session that ended can't be read");
                Vec::new()
            }
        };
        let inbox = {
            let mut state = self.shared.state.lock();
            // What was applied an instant ago may not be visible yet.
            let pause = if filters.is_empty() { BACK_OFF } else { state.config().will_retell };
            state.told_ended(incarnation, later(now, pause))
        };
        if let (Some(inbox), false) = (inbox, filters.is_empty()) {
            self.shared.tell(vec![Notice::Ended(inbox, incarnation, filters)]);
        }
    }

    fn read_filters(&self, incarnation: u64) -> Result<Vec<SubscriptionFilter>, KvError> {
        let mut filters = Vec::new();
        let keys = all_below(KeyKind::Subscription, incarnation);
        let mut failed = None;
        self.range.read(ROUTE, &mut |space| {
            space.scan(&keys.start..&keys.end, &mut |key, _| match subscription::decode_key(key) {
                Ok(filter) => {
                    filters.push(filter);
                    Visit::More
                }
                Err(error) => {
                    failed = Some(error);
                    Visit::Enough
                }
            })
        })?;
        failed.map_or(Ok(filters), |error| Err(corrupt("read a subscription")(error)))
    }

    /// What nobody hears is not told: it stays due.
    fn is_heard(&self) -> bool {
        self.shared.listener.get().is_some()
    }

    fn tell_will(&self, version: SessionVersion, now: WallMs) {
        if !self.is_heard() {
            return;
        }
        let will = match self.read_will(version) {
            Ok(will) => will,
            Err(error) => {
                tracing::error!(%error, ?version, "a will can't be read");
                None
            }
        };
        let inbox = {
            let mut state = self.shared.state.lock();
            let again = later(now, state.config().will_retell);
            state.told(version, again)
        };
        if let (Some(inbox), Some(will)) = (inbox, will) {
            self.shared.tell(vec![Notice::WillDue(inbox, version, will)]);
        }
    }

    fn read_will(&self, version: SessionVersion) -> Result<Option<PendingWill>, KvError> {
        let mut value = None;
        let key = will::key(version);
        self.range.read(ROUTE, &mut |keys| {
            value = keys.get(&key)?;
            Ok(())
        })?;
        value.map(|value| Ok(will::decode(value).map_err(corrupt("read a will"))?.will)).transpose()
    }
}
