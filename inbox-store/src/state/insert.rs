use super::State;
use crate::command::{InsertCommand, Receiver, Settled};
use crate::inbox::{Inbox, NewEntry};
use crate::ledger::Ledger;
use crate::reply;
use crate::schema::body::{self, BodyId};
use crate::schema::entry::{self, EntryBody, EntryHead};
use crate::schema::inbound;
use crate::schema::inbox::Holder;
use crate::tail::Recent;
use base_kv_api::{ApplyCx, KvError, KvSpace};
use base_types::{Message, WallMs};
use bytes::Bytes;
use inbox_api::{DropCause, Entry, FullPolicy, InsertOutcome};
use std::sync::Arc;

/// Entries that make room for one message because they expired, at most.
const EXPIRED_AT_ONCE: usize = 16;

impl State {
    pub(super) fn insert(
        &mut self,
        cx: &ApplyCx,
        insert: &InsertCommand,
        space: &mut dyn KvSpace,
    ) -> Result<Bytes, KvError> {
        match insert.origin {
            Settled::Nothing => {}
            Settled::Inbound(version, id) => match self.owned(version) {
                None => return Ok(reply::fenced()),
                Some(inbox) if inbox.inbound.contains(&id) => return Ok(reply::all_repeated()),
                Some(_) => {}
            },
            // One whose connection lives is not there to be settled.
            Settled::Will(version) if !self.wills.contains_key(&version) => return Ok(reply::all_repeated()),
            Settled::Will(version) => self.cancel_will(version, space),
        }
        let outcomes = self.queue(cx, insert, space)?;
        let rejected = InsertOutcome::Dropped(DropCause::QueueFullRejected);
        // A PUBREC that says so ends the exchange, and the packet id may come again with another message.
        let refused = !outcomes.is_empty() && outcomes.iter().all(|outcome| *outcome == rejected);
        if let Settled::Inbound(version, id) = insert.origin
            && !refused
            && let Some(inbox) = self.owned(version)
        {
            inbox.inbound.insert(id);
            space.put(&inbound::key(version.incarnation, id), &[]);
        }
        Ok(reply::outcomes(&outcomes))
    }

    fn queue(
        &mut self,
        cx: &ApplyCx,
        insert: &InsertCommand,
        space: &mut dyn KvSpace,
    ) -> Result<Vec<InsertOutcome>, KvError> {
        let single = insert.receivers.len() == 1;
        let mut body: Option<SharedBody> = None;
        let mut message = None;
        let mut outcomes = Vec::with_capacity(insert.receivers.len());
        for (at, receiver) in insert.receivers.iter().enumerate() {
            let found = self.inboxes.get_mut(&receiver.incarnation);
            let Some(inbox) = found.filter(|i| i.tag == receiver.tag && i.id.tenant == insert.tenant) else {
                outcomes.push(InsertOutcome::NoInbox);
                continue;
            };
            let outcome = make_room(inbox, insert.cost, cx.stamped, &mut self.ledger, space)?;
            outcomes.push(outcome);
            if !matches!(outcome, InsertOutcome::Stored | InsertOutcome::Dropped(DropCause::QueueFullOldest)) {
                continue;
            }
            let shared = if single {
                None
            } else {
                // References for all that may still come, so that a queue that is listed twice can drop one of them right here.
                let left = (insert.receivers.len() - at) as u64;
                let id = BodyId { incarnation: receiver.incarnation, seq: inbox.seqs.next() };
                let body = body.get_or_insert_with(|| {
                    space.put(&body::key(id), &insert.body);
                    self.ledger.set_refs(id, left, space);
                    SharedBody { id, unused: left }
                });
                body.unused -= 1;
                Some(body.id)
            };
            let new = NewEntry {
                head: EntryHead {
                    qos: receiver.qos,
                    retain: receiver.retain,
                    subscription_identifiers: receiver.subscription_identifiers.clone(),
                    cost: insert.cost,
                    expires_at: insert.expires_at,
                },
                body: shared.map_or_else(|| EntryBody::Inline(insert.body.clone()), EntryBody::Shared),
            };
            let seq = inbox.push(&new, &mut self.ledger, &mut self.scratch, space);
            // Elsewhere nobody fetches it.
            if let Holder::Attached(run) = inbox.record.holder
                && run.node == self.config.node
            {
                if !inbox.notified {
                    self.dirty.push(receiver.incarnation);
                }
                // Copied once: a slice would keep the whole log entry in memory.
                let message = message
                    .get_or_insert_with(|| Message::decode(Bytes::copy_from_slice(&insert.body)).ok().map(Arc::new));
                let recent =
                    message.as_ref().map(|message| recent(seq, receiver, message.clone(), insert.cost, shared));
                self.remember(receiver.incarnation, seq, recent);
            }
        }
        if let Some(body) = body.filter(|body| body.unused > 0) {
            self.ledger.release(body.id, body.unused, space)?;
        }
        Ok(outcomes)
    }

    /// Keeps an entry in memory for the connection that will fetch it, and gives up older ones for it.
    pub(super) fn remember(&mut self, incarnation: u64, seq: u64, recent: Option<Recent>) {
        let Some(tail) = self.inboxes.get_mut(&incarnation).and_then(|inbox| inbox.tail.as_mut()) else { return };
        let Some(recent) = recent else {
            self.ledger.cached_bytes -= tail.clear(seq + 1);
            return;
        };
        if tail.is_empty() {
            self.cached.insert(incarnation);
        }
        self.ledger.cached_bytes += recent.weight();
        tail.push(recent);
        let mut weight = tail.weight();
        while weight > self.config.cache_bytes_per_inbox {
            let Some(oldest) = tail.pop_oldest() else { break };
            weight = tail.weight();
            self.ledger.cached_bytes -= oldest.weight();
        }
        // One inbox after the other gives up half: those that keep up have little to give.
        while self.ledger.cached_bytes > self.config.cache_bytes {
            let next = self.cached.range(self.evicted + 1..).next().or_else(|| self.cached.first()).copied();
            let Some(victim) = next else { break };
            self.evicted = victim;
            let freed = match self.inboxes.get_mut(&victim).and_then(|inbox| inbox.tail.as_mut()) {
                Some(tail) => tail.evict_half(),
                None => 0,
            };
            self.ledger.cached_bytes -= freed;
            if freed == 0 {
                self.cached.remove(&victim);
            }
        }
    }
}

struct SharedBody {
    id: BodyId,
    /// References that are counted and not used yet.
    unused: u64,
}

fn recent(seq: u64, receiver: &Receiver, message: Arc<Message>, cost: u64, body: Option<BodyId>) -> Recent {
    let entry = Entry {
        seq,
        message,
        qos: receiver.qos,
        retain: receiver.retain,
        subscription_identifiers: receiver.subscription_identifiers.clone(),
    };
    Recent { entry, cost, body }
}

/// Applies the limits of a queue to a message that wants in.
fn make_room(
    inbox: &mut Inbox,
    cost: u64,
    now: WallMs,
    ledger: &mut Ledger,
    space: &mut dyn KvSpace,
) -> Result<InsertOutcome, KvError> {
    let limits = inbox.record.limits;
    let full = |inbox: &Inbox| {
        let messages = inbox.queue.messages;
        // A message that is larger than all of it fits alone.
        messages >= limits.messages || (messages > 0 && inbox.queue.bytes.saturating_add(cost) > limits.bytes)
    };
    if !full(inbox) {
        return Ok(InsertOutcome::Stored);
    }
    let removed = expired_make_room(inbox, full, now, ledger, space)?;
    let mut dropped = 0;
    if limits.messages > 0 && limits.when_full == FullPolicy::DropOldest {
        while full(inbox) {
            // What may be in flight stays: its packet id is in use.
            let Some(oldest) = inbox.seqs.lowest_from(inbox.queue.sent_upto) else { break };
            inbox.remove(oldest, ledger, space)?;
            dropped += 1;
        }
        ledger.count(|stats| stats.dropped_oldest += dropped);
    }
    if removed || dropped > 0 {
        inbox.save_cursor(space);
    }
    Ok(match limits.when_full {
        _ if !full(inbox) && dropped > 0 => InsertOutcome::Dropped(DropCause::QueueFullOldest),
        _ if !full(inbox) => InsertOutcome::Stored,
        FullPolicy::Reject => {
            ledger.count(|stats| stats.rejected += 1);
            InsertOutcome::Dropped(DropCause::QueueFullRejected)
        }
        FullPolicy::DropOldest | FullPolicy::DropNewest => {
            ledger.count(|stats| stats.dropped_newest += 1);
            InsertOutcome::Dropped(DropCause::QueueFullNewest)
        }
    })
}

/// What has expired gives way first, whatever the policy; tells whether anything did.
fn expired_make_room(
    inbox: &mut Inbox,
    full: impl Fn(&Inbox) -> bool,
    now: WallMs,
    ledger: &mut Ledger,
    space: &mut dyn KvSpace,
) -> Result<bool, KvError> {
    let mut removed = false;
    for _ in 0..EXPIRED_AT_ONCE {
        if !full(inbox) {
            break;
        }
        let Some(oldest) = inbox.seqs.lowest_from(inbox.queue.sent_upto) else { break };
        let expires_at = match space.get(&entry::key(inbox.incarnation(), oldest))? {
            Some(value) => entry::decode(value).map_err(crate::corrupt("read a queued entry"))?.0.expires_at,
            None => None,
        };
        if expires_at.is_none_or(|at| at > now) {
            break;
        }
        inbox.remove(oldest, ledger, space)?;
        ledger.count(|stats| stats.expired += 1);
        removed = true;
    }
    Ok(removed)
}
