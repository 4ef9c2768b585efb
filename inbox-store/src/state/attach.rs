use super::{EndedInbox, Notice, State, Timer, WaitingWill};
use crate::corrupt;
use crate::inbox::Inbox;
use crate::reply;
use crate::schema::inbox::{Holder, InboxRecord};
use crate::schema::{
    KeyKind, all_below, counter, cursor, doomed, ended, entry, inbound, inbox as inbox_key, released, subscription,
    will,
};
use crate::tail::Tail;
use base_kv_api::{ApplyCx, KvError, KvSpace, Visit};
use base_types::{Incarnation, NodeIncarnation, SubscriptionFilter, SubscriptionOptions, WallMs};
use bytes::Bytes;
use inbox_api::{Attach, Attached, InboxId, SessionVersion, WillFate};
use std::sync::Arc;

/// 2024-01-01: what the time in an incarnation counts from.
const EPOCH: WallMs = WallMs(1_704_067_200_000);
/// As a power of two: more sessions are not made in a millisecond for long.
const ALLOTTED_PER_MS: u32 = 16;

/// What is longer is removed bit by bit, or as a range.
pub(super) const REMOVED_AT_ONCE: u64 = if cfg!(test) { 2 } else { 256 };

impl State {
    pub(super) fn attach(
        &mut self,
        cx: &ApplyCx,
        attach: &Attach,
        token: u64,
        timed: bool,
        space: &mut dyn KvSpace,
    ) -> Result<Bytes, KvError> {
        let kept = self.settle_earlier_life(cx, attach, space)?;
        let Some(kept) = kept else { return Ok(reply::not_owner()) };
        if kept.is_none() && attach.expiry_secs == 0 && attach.will.is_none() {
            return Ok(reply::attached(&Attached {
                version: None,
                session_present: false,
                subscriptions: Vec::new(),
                inbound: Vec::new(),
                released: Vec::new(),
                first_seq: 1,
                sent_upto: 0,
            }));
        }
        let version = match kept {
            Some(old) => SessionVersion { attach: old.attach + 1, ..old },
            None if timed => self.allot(cx, space),
            None => self.allot_from(0, space),
        };
        let record = InboxRecord {
            version,
            token,
            owner: attach.owner.to_string().into(),
            expiry_secs: attach.expiry_secs,
            limits: attach.limits,
            holder: Holder::Attached(attach.node),
            will_delay: attach.will.as_ref().map(|will| will.delay_secs),
        };
        let holder = self.inboxes.get(&version.incarnation).map(|inbox| inbox.record.holder);
        holder.into_iter().for_each(|holder| self.let_go(holder));
        self.hold(attach.node);
        if let Some(pending) = &attach.will {
            space.put(&will::key(version), &will::encode(&attach.inbox, &attach.owner, None, pending));
        }
        let inbox = match self.inboxes.get_mut(&version.incarnation) {
            Some(inbox) => {
                if let Some(at) = inbox.record.expires_at() {
                    self.timers.remove(&(at, Timer::Expire(version.incarnation)));
                }
                inbox.record = record;
                inbox.cut_sent(space);
                inbox.drop_tail(&mut self.ledger);
                inbox
            }
            None => {
                // The command is a slice of a log entry, which must not stay in memory for it.
                let id = InboxId { tenant: attach.inbox.tenant.detached(), client: attach.inbox.client.detached() };
                let id = Arc::new(id);
                self.name(id.clone(), version.incarnation);
                self.ledger.stats.inboxes += 1;
                self.inboxes.entry(version.incarnation).or_insert_with(|| Box::new(Inbox::new(id, record)))
            }
        };
        if attach.node.node == self.config.node {
            inbox.tail = Some(Box::new(Tail::new(inbox.seqs.next())));
        }
        inbox.save_record(space);
        let attached = Attached {
            version: Some(version),
            session_present: kept.is_some(),
            subscriptions: if inbox.subscriptions == 0 {
                Vec::new()
            } else {
                subscriptions(version.incarnation, space)?
            },
            inbound: inbox.inbound.iter().copied().collect(),
            released: inbox.released.iter().map(|released| released.seq).collect(),
            first_seq: inbox
                .released
                .iter()
                .map(|released| released.seq)
                .chain([inbox.seqs.first()])
                .min()
                .unwrap_or(1),
            sent_upto: inbox.queue.sent_upto,
        };
        Ok(reply::attached(&attached))
    }

    /// Ends or fences what is there. `None`: it is somebody else's. `Some(Some(version))`: it goes on.
    fn settle_earlier_life(
        &mut self,
        cx: &ApplyCx,
        attach: &Attach,
        space: &mut dyn KvSpace,
    ) -> Result<Option<Option<SessionVersion>>, KvError> {
        let Some(&incarnation) = self.names.get(&attach.inbox) else { return Ok(Some(None)) };
        let Some(inbox) = self.inboxes.get(&incarnation) else { return Ok(Some(None)) };
        let (version, attached) = (inbox.version(), inbox.record.is_attached());
        if inbox.record.expires_at().is_some_and(|at| at <= cx.stamped) {
            self.end(cx, incarnation, WillFate::Publish, space)?;
            return Ok(Some(None));
        }
        if inbox.record.owner != attach.owner {
            return Ok(None);
        }
        // MQTT 5.0 §3.1.2.11.2: with an expiry of 0, the session ended with the connection that is being taken over.
        let ends = attach.clean_start || (attached && inbox.record.expiry_secs == 0);
        self.fence(incarnation);
        if ends {
            self.end(cx, incarnation, WillFate::Publish, space)?;
            return Ok(Some(None));
        }
        self.settle_will_at_resume(cx, version, attached, space)?;
        Ok(Some(Some(version)))
    }

    /// The connection of this node that owns it, if any, is told that it lost it.
    fn fence(&mut self, incarnation: u64) {
        if let Some(inbox) = self.inboxes.get(&incarnation)
            && let Holder::Attached(run) = inbox.record.holder
            && run.node == self.config.node
        {
            self.notices.push(Notice::Fenced(inbox.id.clone(), inbox.version()));
        }
    }

    /// MQTT 5.0 §3.1.3.2.2: a connection to the same session before the delay is over cancels the will. Without a delay the will of
    /// a connection that is taken over is sent when it is closed (§3.1.4), which is now.
    fn settle_will_at_resume(
        &mut self,
        cx: &ApplyCx,
        version: SessionVersion,
        attached: bool,
        space: &mut dyn KvSpace,
    ) -> Result<(), KvError> {
        let delay = self.inboxes.get(&version.incarnation).and_then(|inbox| inbox.record.will_delay);
        let due = match self.wills.get(&version) {
            Some(waiting) => waiting.due <= cx.stamped,
            None if attached && delay == Some(0) => {
                return self.schedule_will(cx, version, 0, space);
            }
            None => false,
        };
        if !due && delay.is_some() {
            self.cancel_will(version, space);
        }
        Ok(())
    }

    /// A number that no inbox of this range ever had, and in all likelihood none of another lineage, nor of a history that a forced recovery
    /// gave up: it begins with the time, so what was allotted elsewhere, or is forgotten, is not allotted again.
    pub(super) fn allot(&mut self, cx: &ApplyCx, space: &mut dyn KvSpace) -> SessionVersion {
        self.allot_from(cx.stamped.0.saturating_sub(EPOCH.0) << ALLOTTED_PER_MS, space)
    }

    fn allot_from(&mut self, least: u64, space: &mut dyn KvSpace) -> SessionVersion {
        let incarnation = self.next_incarnation.max(least);
        self.next_incarnation = incarnation + 1;
        space.put(&counter::KEY, &counter::encode(self.next_incarnation));
        SessionVersion { incarnation, attach: 1 }
    }

    pub(super) fn detach(
        &mut self,
        cx: &ApplyCx,
        version: SessionVersion,
        expiry_secs: Option<u32>,
        fate: WillFate,
        space: &mut dyn KvSpace,
    ) -> Result<Bytes, KvError> {
        let Some(inbox) = self.inboxes.get_mut(&version.incarnation).filter(|i| i.record.version == version) else {
            return Ok(reply::fenced());
        };
        // Once more: the first reply was lost.
        if inbox.record.is_attached() {
            inbox.record.expiry_secs = expiry_secs.unwrap_or(inbox.record.expiry_secs);
            self.leave(cx, version.incarnation, fate, space)?;
        }
        Ok(reply::done())
    }

    /// Undoes an attach whose caller never learned of it: what it should have refused never fires a will (faults.md T14), and a session
    /// that nobody was told of is not present later.
    pub(super) fn abandon(
        &mut self,
        cx: &ApplyCx,
        inbox: &InboxId,
        run: NodeIncarnation,
        token: u64,
        ends: bool,
        space: &mut dyn KvSpace,
    ) -> Result<Bytes, KvError> {
        if let Some(&incarnation) = self.names.get(inbox)
            && let Some(inbox) = self.inboxes.get(&incarnation)
            && inbox.record.holder == Holder::Attached(run)
            && inbox.record.token == token
        {
            if ends && inbox.record.version.attach == 1 {
                self.end(cx, incarnation, WillFate::Discard, space)?;
            } else {
                self.leave(cx, incarnation, WillFate::Discard, space)?;
            }
        }
        Ok(reply::done())
    }

    /// Detaches a bounded number of inboxes that earlier runs of a node left attached. This node may be theirs, and alive: taken for dead.
    pub(super) fn detach_runs(
        &mut self,
        cx: &ApplyCx,
        current: NodeIncarnation,
        from: u64,
        max: u64,
        space: &mut dyn KvSpace,
    ) -> Result<Bytes, KvError> {
        let stale = |inbox: &Inbox| match inbox.record.holder {
            Holder::Attached(run) => run.node == current.node && run.incarnation < current.incarnation,
            Holder::DetachedAt(_) => false,
        };
        let runs = NodeIncarnation { incarnation: Incarnation(0), ..current }..current;
        if self.holders.range(runs).next().is_none() {
            return Ok(reply::detached_runs(0, None));
        }
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let found: Vec<u64> =
            self.inboxes.range(from..).filter(|(_, inbox)| stale(inbox)).map(|(&i, _)| i).take(max).collect();
        for &incarnation in &found {
            self.fence(incarnation);
            self.leave(cx, incarnation, WillFate::Publish, space)?;
        }
        let next = if found.len() < max { None } else { found.last().map(|last| last + 1) };
        Ok(reply::detached_runs(found.len() as u64, next))
    }

    /// The connection of an inbox ended.
    fn leave(
        &mut self,
        cx: &ApplyCx,
        incarnation: u64,
        fate: WillFate,
        space: &mut dyn KvSpace,
    ) -> Result<(), KvError> {
        let Some(inbox) = self.inboxes.get_mut(&incarnation) else { return Ok(()) };
        if inbox.record.expiry_secs == 0 {
            return self.end(cx, incarnation, fate, space);
        }
        let (version, delay) = (inbox.version(), inbox.record.will_delay);
        let holder = std::mem::replace(&mut inbox.record.holder, Holder::DetachedAt(cx.stamped));
        if fate == WillFate::Discard {
            inbox.record.will_delay = None;
        }
        inbox.cut_sent(space);
        inbox.drop_tail(&mut self.ledger);
        inbox.save_record(space);
        let (expiry, expires_at) = (inbox.record.expiry_secs, inbox.record.expires_at());
        self.cached.remove(&incarnation);
        self.let_go(holder);
        if let Some(at) = expires_at {
            self.set_timer(at, Timer::Expire(incarnation));
        }
        match (delay, fate) {
            (Some(delay), WillFate::Publish) => self.schedule_will(cx, version, delay.min(expiry), space),
            (Some(_), WillFate::Discard) => {
                self.cancel_will(version, space);
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    /// The session of an inbox ended: everything goes but a will that is to be sent, and a queue that is too long to go at once.
    pub(super) fn end(
        &mut self,
        cx: &ApplyCx,
        incarnation: u64,
        fate: WillFate,
        space: &mut dyn KvSpace,
    ) -> Result<(), KvError> {
        let Some(mut inbox) = self.inboxes.remove(&incarnation) else { return Ok(()) };
        self.unname(&inbox.id);
        self.let_go(inbox.record.holder);
        self.cached.remove(&incarnation);
        inbox.drop_tail(&mut self.ledger);
        if let Some(at) = inbox.record.expires_at() {
            self.timers.remove(&(at, Timer::Expire(incarnation)));
        }
        let stats = &mut self.ledger.stats;
        stats.inboxes -= 1;
        stats.queued_messages = stats.queued_messages.saturating_sub(inbox.queue.messages);
        stats.queued_bytes = stats.queued_bytes.saturating_sub(inbox.queue.bytes);
        self.ledger.count(|stats| stats.discarded += inbox.queue.messages);

        match (inbox.record.will_delay, fate) {
            (Some(_), WillFate::Publish) => self.schedule_will(cx, inbox.version(), 0, space)?,
            (Some(_), WillFate::Discard) => self.cancel_will(inbox.version(), space),
            (None, _) => {}
        }

        for released in &inbox.released {
            space.delete(&released::key(incarnation, released.seq));
        }
        for &id in &inbox.inbound {
            space.delete(&inbound::key(incarnation, id));
        }
        space.delete(&cursor::key(incarnation));
        space.delete(&inbox_key::key(&inbox.id));
        if inbox.subscriptions > 0 {
            // They stay until their routes are gone.
            space.put(&ended::key(incarnation), &ended::encode(&inbox.id, inbox.subscriptions));
            let (id, subscriptions) = (inbox.id.clone(), inbox.subscriptions);
            self.ended.insert(incarnation, EndedInbox { id, subscriptions, tell_at: WallMs(0) });
            self.set_timer(WallMs(0), Timer::Ended(incarnation));
        } else if self.ledger.leads {
            self.notices.push(Notice::Ended(inbox.id.clone(), incarnation, Vec::new()));
        }

        let first = inbox.seqs.first();
        if inbox.queue.shared == 0 {
            // Deleting a range is dear to whoever reads there later: only for what is long.
            if inbox.queue.messages <= REMOVED_AT_ONCE {
                let queued =
                    std::iter::successors(inbox.seqs.lowest_from(first), |seq| inbox.seqs.lowest_from(seq + 1));
                queued.for_each(|seq| space.delete(&entry::key(incarnation, seq)));
            } else {
                let keys = all_below(KeyKind::Entry, incarnation);
                space.delete_range(&keys.start..&keys.end);
            }
            return Ok(());
        }
        space.put(&doomed::key(incarnation), &doomed::encode(first));
        self.doomed.insert(incarnation, first);
        self.set_timer(WallMs(0), Timer::Sweep(incarnation));
        if inbox.queue.messages <= REMOVED_AT_ONCE {
            self.sweep(incarnation, REMOVED_AT_ONCE + 1, space)?;
        }
        Ok(())
    }

    /// The will of a connection that ended falls due in `delay` seconds, unless it does before.
    fn schedule_will(
        &mut self,
        cx: &ApplyCx,
        version: SessionVersion,
        delay: u32,
        space: &mut dyn KvSpace,
    ) -> Result<(), KvError> {
        self.will_falls_due(cx, version, Self::after_delay(cx, delay), space)
    }

    pub(super) fn will_falls_due(
        &mut self,
        cx: &ApplyCx,
        version: SessionVersion,
        due: WallMs,
        space: &mut dyn KvSpace,
    ) -> Result<(), KvError> {
        // It is gone when it was settled already.
        let Some(value) = space.get(&will::key(version))? else { return Ok(()) };
        let record = will::decode(value).map_err(corrupt("read a will"))?;
        let waiting = self.wills.get(&version);
        if waiting.is_some_and(|waiting| waiting.due <= due) {
            return Ok(());
        }
        if let Some(waiting) = waiting {
            self.timers.remove(&(waiting.tell_at, Timer::Will(version)));
        }
        space.put(&will::key(version), &will::encode(&record.id, &record.will.owner, Some(due), &record.will));
        let id = match self.inboxes.get(&version.incarnation) {
            Some(inbox) => inbox.id.clone(),
            None => Arc::new(record.id),
        };
        let mut tell_at = due;
        if due <= cx.stamped && self.ledger.leads {
            // Told right with the change that made it due; the timer repeats it.
            self.notices.push(Notice::WillDue(id.clone(), version, record.will));
            tell_at = super::later(cx.stamped, self.config.will_retell);
        }
        self.wills.insert(version, WaitingWill { id, due, tell_at });
        self.ledger.stats.wills = self.wills.len() as u64;
        self.set_timer(tell_at, Timer::Will(version));
        Ok(())
    }

    /// A will is gone: settled, or not wanted any more.
    pub(super) fn cancel_will(&mut self, version: SessionVersion, space: &mut dyn KvSpace) {
        space.delete(&will::key(version));
        if let Some(waiting) = self.wills.remove(&version) {
            self.timers.remove(&(waiting.tell_at, Timer::Will(version)));
            self.ledger.stats.wills = self.wills.len() as u64;
        }
    }
}

/// The subscriptions of an inbox, in the order of their keys.
fn subscriptions(
    incarnation: u64,
    space: &dyn KvSpace,
) -> Result<Vec<(SubscriptionFilter, SubscriptionOptions)>, KvError> {
    let (mut found, mut failed) = (Vec::new(), None);
    let keys = all_below(KeyKind::Subscription, incarnation);
    space.scan(&keys.start..&keys.end, &mut |key, value| {
        match subscription::decode_key(key).and_then(|filter| Ok((filter, subscription::decode(value)?))) {
            Ok(subscription) => found.push(subscription),
            Err(error) => failed = Some(error),
        }
        if failed.is_some() { Visit::Enough } else { Visit::More }
    })?;
    match failed {
        Some(error) => Err(corrupt("read a subscription")(error)),
        None => Ok(found),
    }
}
