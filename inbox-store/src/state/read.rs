use super::{State, Timer};
use crate::ledger::Ledger;
use crate::schema::inbox::Holder;
use crate::tail::Page;
use base_types::{ClientId, NodeIncarnation, TenantId, WallMs};
use inbox_api::{InboxId, InboxStats, InboxSummary, SessionVersion};
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::time::Duration;

/// How a fetch is answered.
pub(crate) struct FetchPlan {
    /// Entries that are on disk alone, to be read before those in `cached`; may be empty.
    pub(crate) disk: Range<u64>,
    /// Entries from here on were never sent: they are left out when they have expired.
    pub(crate) sent_upto: u64,
    /// What is in memory.
    pub(crate) cached: Page,
    /// What is in memory and expired.
    pub(crate) expired: Vec<u64>,
}

pub(crate) fn later(at: WallMs, by: Duration) -> WallMs {
    WallMs(at.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
}

impl State {
    /// `None`: fenced.
    pub(crate) fn plan_fetch(
        &mut self,
        version: SessionVersion,
        from_seq: u64,
        page: Page,
        now: WallMs,
    ) -> Option<FetchPlan> {
        let inbox = self.owned(version)?;
        // Before anything is read: what comes from now on is told anew.
        inbox.notified = false;
        let start = inbox.seqs.lowest_from(from_seq).unwrap_or(inbox.seqs.next());
        let tail = inbox.tail.as_deref();
        let disk_end = tail.map_or(inbox.seqs.next(), |tail| tail.from()).max(start);
        let mut plan =
            FetchPlan { disk: start..disk_end, sent_upto: inbox.queue.sent_upto, cached: page, expired: Vec::new() };
        if let Some(tail) = tail {
            tail.read(disk_end, inbox.queue.sent_upto, now, &mut plan.cached, &mut plan.expired);
        }
        Some(plan)
    }

    /// Whether the entries below `end` that are queued were all read, up to `last`: what was applied an instant ago may not be visible
    /// on disk yet. `None`: fenced.
    pub(crate) fn is_read_upto(&mut self, version: SessionVersion, last: u64, end: u64) -> Option<bool> {
        let inbox = self.owned(version)?;
        Some(inbox.seqs.lowest_from(last + 1).is_none_or(|next| next >= end))
    }

    pub(crate) fn incarnation(&self, inbox: &InboxId) -> Option<u64> {
        self.names.get(inbox).copied()
    }

    pub(crate) fn may_live(&self, inbox: &InboxId, incarnation: u64) -> bool {
        // Numbers are allotted in order, and an inbox that ended never comes back: what is not here has ended, or is still to come.
        incarnation >= self.next_incarnation || self.incarnation(inbox) == Some(incarnation)
    }

    /// Whose life this is.
    pub(crate) fn id(&self, incarnation: u64) -> Option<InboxId> {
        self.inboxes.get(&incarnation).map(|inbox| (*inbox.id).clone())
    }

    pub(crate) fn owns(&self, version: SessionVersion) -> bool {
        let inbox = self.inboxes.get(&version.incarnation);
        inbox.is_some_and(|inbox| inbox.record.version == version && inbox.record.is_attached())
    }

    pub(crate) fn holders(&self) -> Vec<(NodeIncarnation, u64)> {
        self.holders.iter().map(|(&run, &count)| (run, count)).collect()
    }

    /// The run that holds the connection.
    pub(crate) fn holder(&self, inbox: &InboxId) -> Option<NodeIncarnation> {
        let inbox = self.inboxes.get(self.names.get(inbox)?)?;
        match inbox.record.holder {
            Holder::Attached(run) => Some(run),
            Holder::DetachedAt(_) => None,
        }
    }

    pub(crate) fn stats(&self) -> InboxStats {
        let Ledger { leads, cached_bytes, stats, .. } = &self.ledger;
        InboxStats { leads: *leads, ended: self.ended.len() as u64, cached_bytes: *cached_bytes as u64, ..*stats }
    }

    pub(crate) fn count_of(&self, tenant: &TenantId) -> u64 {
        self.counts.get(tenant).copied().unwrap_or(0)
    }

    pub(crate) fn list(&self, tenant: &TenantId, after: Option<&ClientId>, max: usize) -> Vec<InboxSummary> {
        let after = after.map(|client| Arc::new(InboxId { tenant: tenant.clone(), client: client.clone() }));
        // No client id is empty: the shortest texts come first.
        let names = match after {
            Some(after) => self.names.range((Bound::Excluded(after), Bound::Unbounded)),
            None => self.names.range::<Arc<InboxId>, _>(..),
        };
        let names = names.skip_while(|(id, _)| id.tenant < *tenant).take_while(|(id, _)| id.tenant == *tenant);
        names
            .filter_map(|(_, incarnation)| self.inboxes.get(incarnation))
            .take(max)
            .map(|inbox| inbox.summary())
            .collect()
    }

    /// As [`State::told`], of an inbox that ended.
    pub(crate) fn told_ended(&mut self, incarnation: u64, at: WallMs) -> Option<Arc<InboxId>> {
        let ended = self.ended.get_mut(&incarnation)?;
        self.timers.remove(&(ended.tell_at, Timer::Ended(incarnation)));
        ended.tell_at = at;
        self.timers.insert((at, Timer::Ended(incarnation)));
        Some(ended.id.clone())
    }

    /// What is due at `now`, in order.
    pub(crate) fn due(&self, now: WallMs, max: usize) -> Vec<Timer> {
        self.timers.iter().take_while(|(at, _)| *at <= now).map(|&(_, timer)| timer).take(max).collect()
    }

    pub(crate) fn next_due(&self) -> Option<WallMs> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// A due will was told: again at `at`, unless it is settled. `None` when it is settled already.
    pub(crate) fn told(&mut self, version: SessionVersion, at: WallMs) -> Option<Arc<InboxId>> {
        let waiting = self.wills.get_mut(&version)?;
        self.timers.remove(&(waiting.tell_at, Timer::Will(version)));
        waiting.tell_at = at;
        let id = waiting.id.clone();
        self.timers.insert((at, Timer::Will(version)));
        Some(id)
    }
}

#[cfg(test)]
impl State {
    /// Everything that is derived from the keys, and nothing else.
    pub(crate) fn digest(&self) -> String {
        let inboxes: Vec<_> = self
            .inboxes
            .values()
            .map(|i| {
                let queue = (&i.seqs, i.queue, i.saved_next);
                (&i.id, i.tag, &i.record, queue, &i.released, &i.inbound, i.subscriptions)
            })
            .collect();
        let wills: Vec<_> = self.wills.iter().map(|(version, will)| (version, &will.id, will.due)).collect();
        let timers: Vec<_> =
            self.timers.iter().filter(|(_, timer)| !matches!(timer, Timer::Will(_) | Timer::Ended(_))).collect();
        let ended: Vec<_> = self.ended.iter().map(|(i, ended)| (i, &ended.id, ended.subscriptions)).collect();
        let s = self.ledger.stats;
        let stats = (s.inboxes, s.attached, s.attached_here, s.queued_messages, s.queued_bytes, s.wills);
        format!(
            "{:#?}",
            (
                self.next_incarnation,
                &self.names,
                &self.counts,
                inboxes,
                wills,
                &self.holders,
                ended,
                &self.doomed,
                timers,
                stats
            )
        )
    }
}
