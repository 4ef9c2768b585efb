use super::{Notice, State, Timer};
use crate::adoption::{self, Part};
use crate::corrupt;
use crate::inbox::{Inbox, NewEntry, Released};
use crate::reply;
use crate::schema::adopted::{self, Adopted};
use crate::schema::entry::{EntryBody, EntryHead};
use crate::schema::inbox::{Holder, InboxRecord};
use crate::schema::will::{self, WillRecord};
use crate::schema::{inbound, released, subscription};
use crate::seqs::Seqs;
use base_kv_api::{ApplyCx, KvError, KvSpace};
use base_types::{SubscriptionFilter, SubscriptionOptions, WallMs};
use bytes::Bytes;
use inbox_api::InboxId;
use std::sync::Arc;

impl State {
    /// Takes a part of another lineage over, unless it was taken over before.
    ///
    /// A session that is not here comes whole. One that is here too keeps its own state, and gets the other's subscriptions and queue in
    /// addition: what was sent to the client may be sent once more. What belongs to another user stays out.
    pub(super) fn adopt(
        &mut self,
        cx: &ApplyCx,
        lineage: u64,
        incarnation: u64,
        part: &Part,
        space: &mut dyn KvSpace,
    ) -> Result<Bytes, KvError> {
        let attach = match part {
            Part::Will { attach, .. } => *attach,
            Part::Inbox(_) | Part::Subscriptions(_) | Part::Entries(_) => 0,
        };
        let key = adopted::key(lineage, incarnation, attach);
        let known = space.get(&key)?.map(adopted::decode).transpose().map_err(corrupt("read what was adopted"))?;
        let adopted = match (part, known) {
            (Part::Inbox(inbox), None) => self.adopt_inbox(cx, inbox, space)?,
            (Part::Will { will, .. }, None) => {
                self.adopt_will(cx, will, space)?;
                Adopted::default()
            }
            (Part::Subscriptions(subscriptions), Some(adopted)) => {
                self.adopt_subscriptions(adopted.target, subscriptions, space)?;
                adopted
            }
            (Part::Entries(entries), Some(adopted)) => self.adopt_entries(adopted, entries, space),
            _ => return Ok(reply::done()),
        };
        space.put(&key, &adopted::encode(&adopted));
        Ok(reply::done())
    }

    fn adopt_inbox(
        &mut self,
        cx: &ApplyCx,
        from: &adoption::Inbox,
        space: &mut dyn KvSpace,
    ) -> Result<Adopted, KvError> {
        if let Some(inbox) = self.names.get(&from.id).and_then(|incarnation| self.inboxes.get(incarnation)) {
            let target = if inbox.record.owner == from.owner { inbox.incarnation() } else { 0 };
            if target == 0 {
                tracing::warn!(client = %from.id.client, "a session of another lineage belongs to another user and stays out");
            }
            // A will that waits to be sent is sent; one whose connection is not over gave way to the session here.
            if let Some(will) = from.will.as_ref().filter(|will| will.due.is_some()) {
                self.adopt_will(cx, will, space)?;
            }
            return Ok(Adopted { target, next_seq: 0, whole: false });
        }
        let version = self.allot(cx, space);
        let record = InboxRecord {
            version,
            token: 0,
            owner: from.owner.to_string().into(),
            expiry_secs: from.expiry_secs,
            limits: from.limits,
            holder: Holder::DetachedAt(from.detached_at.unwrap_or(cx.stamped)),
            will_delay: from.will.as_ref().map(|will| will.will.delay_secs),
        };
        if let Some(at) = record.expires_at() {
            self.set_timer(at, Timer::Expire(version.incarnation));
        }
        let id = InboxId { tenant: from.id.tenant.detached(), client: from.id.client.detached() };
        let id = Arc::new(id);
        let mut inbox = Inbox::new(id.clone(), record);
        inbox.seqs = Seqs::between(from.next, from.next);
        inbox.queue.sent_upto = from.sent_upto.min(from.next);
        for (order, &seq) in (0..).zip(&from.released) {
            inbox.released.push_back(Released { order, seq });
            space.put(&released::key(version.incarnation, seq), &released::encode(order));
        }
        for &id in &from.inbound {
            inbox.inbound.insert(id);
            space.put(&inbound::key(version.incarnation, id), &[]);
        }
        inbox.save_record(space);
        inbox.save_cursor(space);
        self.name(id, version.incarnation);
        self.ledger.stats.inboxes += 1;
        self.inboxes.insert(version.incarnation, Box::new(inbox));
        if let Some(WillRecord { id, due, will }) = &from.will {
            space.put(&will::key(version), &will::encode(id, &will.owner, None, will));
            let delay = will.delay_secs.min(from.expiry_secs);
            self.will_falls_due(cx, version, due.unwrap_or_else(|| State::after_delay(cx, delay)), space)?;
        }
        Ok(Adopted { target: version.incarnation, next_seq: 0, whole: true })
    }

    fn adopt_will(&mut self, cx: &ApplyCx, from: &WillRecord, space: &mut dyn KvSpace) -> Result<(), KvError> {
        let version = self.allot(cx, space);
        space.put(&will::key(version), &will::encode(&from.id, &from.will.owner, None, &from.will));
        self.will_falls_due(cx, version, from.due.unwrap_or(cx.stamped), space)
    }

    fn adopt_subscriptions(
        &mut self,
        target: u64,
        subscriptions: &[(SubscriptionFilter, SubscriptionOptions)],
        space: &mut dyn KvSpace,
    ) -> Result<(), KvError> {
        let Some(inbox) = self.inboxes.get_mut(&target) else { return Ok(()) };
        for (filter, options) in subscriptions {
            let key = subscription::key(target, filter);
            if space.get(&key)?.is_none() {
                space.put(&key, &subscription::encode(options));
                inbox.subscriptions += 1;
            }
        }
        if self.ledger.leads {
            self.notices.push(Notice::Adopted);
        }
        Ok(())
    }

    /// Limits don't count: what is queued was acknowledged.
    fn adopt_entries(
        &mut self,
        mut adopted: Adopted,
        entries: &[(u64, EntryHead, Bytes)],
        space: &mut dyn KvSpace,
    ) -> Adopted {
        let target = adopted.target;
        for (seq, head, message) in entries.iter().filter(|(seq, ..)| *seq >= adopted.next_seq) {
            let Some(inbox) = self.inboxes.get_mut(&target) else { break };
            let new = NewEntry { head: head.clone(), body: EntryBody::Inline(message.clone()) };
            // Who has attached meanwhile would not look back for a number that was missing.
            if adopted.whole
                && inbox.record.version.attach == 1
                && !inbox.record.is_attached()
                && inbox.seqs.restore(*seq)
            {
                inbox.put_entry(*seq, &new, &mut self.ledger, &mut self.scratch, space);
            } else {
                let seq = inbox.push(&new, &mut self.ledger, &mut self.scratch, space);
                self.remember(target, seq, None);
            }
        }
        if let Some((last, ..)) = entries.last() {
            adopted.next_seq = adopted.next_seq.max(last + 1);
            if let Some(inbox) = self.inboxes.get_mut(&target) {
                inbox.save_cursor(space);
                if matches!(inbox.record.holder, Holder::Attached(run) if run.node == self.config.node) {
                    self.dirty.push(target);
                }
            }
        }
        adopted
    }

    /// Stamps are cut to the millisecond, and a delayed will is never early.
    pub(super) fn after_delay(cx: &ApplyCx, delay: u32) -> WallMs {
        WallMs(cx.stamped.plus_secs(u64::from(delay)).0.saturating_add(u64::from(delay > 0)))
    }
}
