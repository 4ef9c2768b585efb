//! The state machine, split by what a command is about.

mod adopt;
mod attach;
mod commit;
mod housekeeping;
mod insert;
mod read;
mod reset;
mod subscribe;

#[cfg(test)]
mod state_test;

pub(crate) use read::later;

use crate::InboxConfig;
use crate::command::Command;
use crate::inbox::Inbox;
use crate::ledger::Ledger;
use crate::reply;
use crate::schema::inbox::Holder;
use base_kv_api::{ApplyCx, KvError, KvSpace};
use base_types::{NodeIncarnation, SubscriptionFilter, TenantId, WallMs};
use bytes::Bytes;
use inbox_api::{InboxId, PendingWill, SessionVersion};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All inboxes of a range, as derived from its keys, and what commands do to both.
#[derive(Debug)]
pub(crate) struct State {
    config: InboxConfig,
    next_incarnation: u64,
    /// By incarnation. Ordered, so that whatever walks over them does so alike on every replica.
    inboxes: BTreeMap<u64, Box<Inbox>>,
    names: BTreeMap<Arc<InboxId>, u64>,
    /// How many of the names each tenant has.
    counts: BTreeMap<TenantId, u64>,
    /// Wills whose connection has ended.
    wills: BTreeMap<SessionVersion, WaitingWill>,
    /// Which runs own how many inboxes.
    holders: BTreeMap<NodeIncarnation, u64>,
    /// Inboxes that ended and whose routes may still be there.
    ended: BTreeMap<u64, EndedInbox>,
    /// Queues that outlived their inbox: where their removal goes on.
    doomed: BTreeMap<u64, u64>,
    /// What a leader has to do, and when.
    timers: BTreeSet<(WallMs, Timer)>,
    ledger: Ledger,
    /// Inboxes that have, or had, something in memory; the next one to give some up follows `evicted`.
    cached: BTreeSet<u64>,
    evicted: u64,
    /// Inboxes of this node to which something was added since it was published last.
    dirty: Vec<u64>,
    notices: Vec<Notice>,
    /// A timer was added: the one who sleeps should look again.
    woken: bool,
    scratch: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct WaitingWill {
    id: Arc<InboxId>,
    due: WallMs,
    /// Told again then. Known to the leader alone.
    tell_at: WallMs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct EndedInbox {
    id: Arc<InboxId>,
    subscriptions: u64,
    /// Told (again) then. Known to the leader alone.
    tell_at: WallMs,
}

/// What falls due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Will(SessionVersion),
    Expire(u64),
    Sweep(u64),
    Ended(u64),
}

/// What the listener is to be told.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    Fenced(Arc<InboxId>, SessionVersion),
    Ended(Arc<InboxId>, u64, Vec<SubscriptionFilter>),
    WillDue(Arc<InboxId>, SessionVersion, PendingWill),
    Queued(Arc<InboxId>, SessionVersion),
    Adopted,
}

impl State {
    pub(crate) fn new(config: InboxConfig) -> Self {
        Self {
            config,
            next_incarnation: 1,
            inboxes: BTreeMap::new(),
            names: BTreeMap::new(),
            counts: BTreeMap::new(),
            wills: BTreeMap::new(),
            holders: BTreeMap::new(),
            ended: BTreeMap::new(),
            doomed: BTreeMap::new(),
            timers: BTreeSet::new(),
            ledger: Ledger::default(),
            cached: BTreeSet::new(),
            evicted: 0,
            dirty: Vec::new(),
            notices: Vec::new(),
            woken: false,
            scratch: Vec::new(),
        }
    }

    pub(crate) fn config(&self) -> &InboxConfig {
        &self.config
    }

    pub(crate) fn mutate(&mut self, cx: &ApplyCx, command: &Bytes, space: &mut dyn KvSpace) -> Result<Bytes, KvError> {
        match Command::decode(command.clone()) {
            Ok(Command::Insert(insert)) => self.insert(cx, &insert, space),
            Ok(Command::Commit { version, mark, commit }) => self.commit(version, mark, &commit, space),
            Ok(Command::Attach { attach, token, timed }) => self.attach(cx, &attach, token, timed, space),
            Ok(Command::Detach { version, expiry_secs, will }) => self.detach(cx, version, expiry_secs, will, space),
            Ok(Command::Subscribe { version, subscriptions }) => self.subscribe(version, &subscriptions, space),
            Ok(Command::Unsubscribe { version, filters }) => self.unsubscribe(version, &filters, space),
            Ok(Command::DetachRuns { current, from, max }) => self.detach_runs(cx, current, from, max, space),
            Ok(Command::Expire { incarnations }) => self.expire(cx, &incarnations, space),
            Ok(Command::Discard { version, seqs }) => self.discard(cx, version, &seqs, space),
            Ok(Command::Abandon { inbox, run, token, ends }) => self.abandon(cx, &inbox, run, token, ends, space),
            Ok(Command::Adopt { lineage, incarnation, part }) => self.adopt(cx, lineage, incarnation, &part, space),
            Ok(Command::SettleEnded { incarnations }) => self.settle_ended(&incarnations, space),
            Ok(Command::Sweep { incarnation, max }) => self.sweep(incarnation, max, space),
            Err(error) => {
                tracing::error!(%error, index = cx.index, "a command was not understood");
                Ok(reply::not_understood())
            }
        }
    }

    /// The inbox, if this version owns it. The fence of takeovers.
    fn owned(&mut self, version: SessionVersion) -> Option<&mut Inbox> {
        let inbox = self.inboxes.get_mut(&version.incarnation)?;
        (inbox.record.version == version && inbox.record.is_attached()).then_some(&mut **inbox)
    }

    /// What the listener is to be told, now that the writes are visible.
    pub(crate) fn take_notices(&mut self) -> Vec<Notice> {
        for incarnation in std::mem::take(&mut self.dirty) {
            if let Some(inbox) = self.inboxes.get_mut(&incarnation)
                && inbox.record.is_attached()
                && !std::mem::replace(&mut inbox.notified, true)
            {
                self.notices.push(Notice::Queued(inbox.id.clone(), inbox.version()));
            }
        }
        std::mem::take(&mut self.notices)
    }

    /// Whether a timer was added since the last call.
    pub(crate) fn take_woken(&mut self) -> bool {
        std::mem::take(&mut self.woken)
    }

    pub(crate) fn set_leads(&mut self, leads: bool) {
        self.ledger.leads = leads;
        // What an earlier leader told may have been lost with it.
        for (&version, will) in &mut self.wills {
            self.timers.remove(&(will.tell_at, Timer::Will(version)));
            will.tell_at = will.due;
            self.timers.insert((will.due, Timer::Will(version)));
        }
        for (&incarnation, ended) in &mut self.ended {
            self.timers.remove(&(ended.tell_at, Timer::Ended(incarnation)));
            ended.tell_at = WallMs(0);
            self.timers.insert((WallMs(0), Timer::Ended(incarnation)));
        }
        self.woken = true;
    }

    pub(crate) fn leads(&self) -> bool {
        self.ledger.leads
    }

    /// A run attached an inbox.
    fn hold(&mut self, run: NodeIncarnation) {
        *self.holders.entry(run).or_default() += 1;
        self.ledger.stats.attached += 1;
        self.ledger.stats.attached_here += u64::from(run.node == self.config.node);
    }

    /// Who held an inbox holds it no more.
    fn let_go(&mut self, holder: Holder) {
        let Holder::Attached(run) = holder else { return };
        self.ledger.stats.attached -= 1;
        self.ledger.stats.attached_here -= u64::from(run.node == self.config.node);
        if let Some(count) = self.holders.get_mut(&run) {
            *count -= 1;
            if *count == 0 {
                self.holders.remove(&run);
            }
        }
    }

    fn name(&mut self, id: Arc<InboxId>, incarnation: u64) {
        let tenant = id.tenant.clone();
        if self.names.insert(id, incarnation).is_none() {
            *self.counts.entry(tenant).or_default() += 1;
        }
    }

    fn unname(&mut self, id: &InboxId) {
        if self.names.remove(id).is_some()
            && let Some(count) = self.counts.get_mut(&id.tenant)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&id.tenant);
            }
        }
    }

    fn set_timer(&mut self, at: WallMs, timer: Timer) {
        self.woken |= self.timers.first().is_none_or(|first| (at, timer) < *first);
        self.timers.insert((at, timer));
    }
}
