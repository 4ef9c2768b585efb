use super::{EndedInbox, Notice, State, Timer, WaitingWill};
use crate::corrupt;
use crate::inbox::{Inbox, Released};
use crate::schema::inbox::Holder;
use crate::schema::{KeyKind, counter, cursor, doomed, ended, entry, inbound, inbox, released, will};
use crate::seqs::Seqs;
use crate::tail::Tail;
use base_kv_api::{KvError, KvRead, Visit};
use base_types::WallMs;
use base_types::wire::WireError;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

impl State {
    /// Rebuilds everything from the keys. Reads the records and cursors of all inboxes, but of their queues only what came after the
    /// cursors: the cost does not depend on how much is queued.
    pub(crate) fn reset(&mut self, keys: &dyn KvRead) -> Result<(), KvError> {
        let fresh = Self::new(self.config.clone());
        let before = std::mem::replace(self, fresh);
        self.ledger.leads = before.ledger.leads;
        self.ledger.stats = before.ledger.stats.counts();
        self.woken = true;
        if let Some(value) = keys.get(&counter::KEY)? {
            self.next_incarnation = counter::decode(value).map_err(corrupt("read the counter of inboxes"))?;
        }
        self.load_inboxes(keys)?;
        self.load_queues(keys)?;
        self.load_phases(keys)?;
        self.load_wills(keys)?;
        each(keys, KeyKind::Doomed, |key, value| {
            let incarnation = crate::schema::incarnation_of(key).ok_or(WireError::Truncated)?;
            self.doomed.insert(incarnation, doomed::decode(Bytes::copy_from_slice(value))?);
            self.timers.insert((WallMs(0), Timer::Sweep(incarnation)));
            Ok(())
        })?;
        each(keys, KeyKind::Ended, |key, value| {
            let incarnation = crate::schema::incarnation_of(key).ok_or(WireError::Truncated)?;
            let (id, subscriptions) = ended::decode(Bytes::copy_from_slice(value))?;
            self.ended.insert(incarnation, EndedInbox { id: Arc::new(id), subscriptions, tell_at: WallMs(0) });
            self.timers.insert((WallMs(0), Timer::Ended(incarnation)));
            Ok(())
        })?;
        let mut held = Vec::new();
        for inbox in self.inboxes.values_mut() {
            let stats = &mut self.ledger.stats;
            stats.inboxes += 1;
            stats.queued_messages += inbox.queue.messages;
            stats.queued_bytes += inbox.queue.bytes;
            if let Holder::Attached(run) = inbox.record.holder {
                held.push(run);
                if run.node == self.config.node {
                    inbox.tail = Some(Box::new(Tail::new(inbox.seqs.next())));
                }
            }
        }
        held.into_iter().for_each(|run| self.hold(run));
        self.tell_difference(&before);
        Ok(())
    }

    /// A snapshot came in place of entries: what they would have told the connections of this node is told now.
    fn tell_difference(&mut self, before: &Self) {
        let node = self.config.node;
        let is_here = |inbox: &Inbox| matches!(inbox.record.holder, Holder::Attached(run) if run.node == node);
        for inbox in before.inboxes.values().filter(|inbox| is_here(inbox)) {
            // Another lineage may have allotted the same version, to another connection.
            let same = |now: &Inbox| (&now.id, &now.record) == (&inbox.id, &inbox.record);
            if !self.inboxes.get(&inbox.incarnation()).is_some_and(|now| same(now)) {
                self.notices.push(Notice::Fenced(inbox.id.clone(), inbox.version()));
            }
        }
        let queued = self.inboxes.values().filter(|inbox| is_here(inbox) && inbox.queue.messages > 0);
        self.dirty.extend(queued.map(|inbox| inbox.incarnation()));
    }

    fn load_inboxes(&mut self, keys: &dyn KvRead) -> Result<(), KvError> {
        each(keys, KeyKind::Inbox, |key, value| {
            let id = Arc::new(inbox::decode_key(key)?);
            let record = inbox::decode(Bytes::copy_from_slice(value))?;
            let incarnation = record.version.incarnation;
            if let Some(at) = record.expires_at() {
                self.timers.insert((at, Timer::Expire(incarnation)));
            }
            self.name(id.clone(), incarnation);
            self.inboxes.insert(incarnation, Box::new(Inbox::new(id, record)));
            Ok(())
        })?;
        each(keys, KeyKind::Subscription, |key, _| {
            if let Some(inbox) = self.below(key) {
                inbox.subscriptions += 1;
            }
            Ok(())
        })
    }

    fn load_queues(&mut self, keys: &dyn KvRead) -> Result<(), KvError> {
        // Queues whose cursor does not know its gaps: read from the first entry on, and where they end.
        let mut unknown = BTreeMap::new();
        each(keys, KeyKind::Cursor, |key, value| {
            let cursor = cursor::decode(Bytes::copy_from_slice(value))?;
            let Some(inbox) = self.below(key) else { return Ok(()) };
            inbox.queue = cursor.queue;
            inbox.saved_next = cursor.seqs.next();
            if cursor.gaps_known {
                inbox.seqs = cursor.seqs;
            } else {
                (inbox.queue.messages, inbox.queue.bytes, inbox.queue.shared) = (0, 0, 0);
                unknown.insert(inbox.incarnation(), cursor.seqs.first());
                inbox.seqs = Seqs::between(cursor.seqs.first(), cursor.seqs.first());
            }
            Ok(())
        })?;

        let mut at = entry::key(0, 0);
        let end = KeyKind::Entry.all().end;
        loop {
            let (mut jump, mut failed) = (None, None);
            keys.scan(&at..&end, &mut |key, value| {
                let Some((incarnation, seq)) = entry::decode_key(key) else { return Visit::More };
                let Some(inbox) = self.inboxes.get_mut(&incarnation) else {
                    jump = incarnation.checked_add(1).map(|next| entry::key(next, 0));
                    return Visit::Enough;
                };
                let from = unknown.get(&incarnation).copied().unwrap_or(inbox.saved_next);
                if seq < from {
                    jump = Some(entry::key(incarnation, from));
                    return Visit::Enough;
                }
                match entry::decode_account(value) {
                    Ok((cost, body)) => {
                        inbox.seqs.push_at(seq);
                        inbox.account(cost, body.is_some());
                        Visit::More
                    }
                    Err(error) => {
                        failed = Some(error);
                        Visit::Enough
                    }
                }
            })?;
            match (failed, jump) {
                (Some(error), _) => return Err(corrupt("read a queued entry")(error)),
                (None, Some(next)) => at = next,
                (None, None) => break,
            }
        }
        for incarnation in unknown.into_keys() {
            if let Some(inbox) = self.inboxes.get_mut(&incarnation) {
                inbox.seqs.skip_to(inbox.saved_next);
            }
        }
        Ok(())
    }

    fn load_phases(&mut self, keys: &dyn KvRead) -> Result<(), KvError> {
        let mut order: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        each(keys, KeyKind::Released, |key, value| {
            let (incarnation, seq) = released::decode_key(key).ok_or(WireError::Truncated)?;
            order.insert((incarnation, released::decode(value)?), seq);
            Ok(())
        })?;
        for ((incarnation, order), seq) in order {
            if let Some(inbox) = self.inboxes.get_mut(&incarnation) {
                inbox.released.push_back(Released { order, seq });
            }
        }
        each(keys, KeyKind::Inbound, |key, _| {
            let (incarnation, id) = inbound::decode_key(key).ok_or(WireError::Truncated)?;
            if let Some(inbox) = self.inboxes.get_mut(&incarnation) {
                inbox.inbound.insert(id);
            }
            Ok(())
        })
    }

    fn load_wills(&mut self, keys: &dyn KvRead) -> Result<(), KvError> {
        each(keys, KeyKind::Will, |key, value| {
            let version = will::decode_key(key).ok_or(WireError::Truncated)?;
            let record = will::decode(Bytes::copy_from_slice(value))?;
            if let Some(due) = record.due {
                let known = self.inboxes.get(&version.incarnation).map(|inbox| inbox.id.clone());
                let id = known.unwrap_or_else(|| Arc::new(record.id));
                self.timers.insert((due, Timer::Will(version)));
                self.wills.insert(version, WaitingWill { id, due, tell_at: due });
            }
            Ok(())
        })?;
        self.ledger.stats.wills = self.wills.len() as u64;
        Ok(())
    }

    fn below(&mut self, key: &[u8]) -> Option<&mut Inbox> {
        let incarnation = crate::schema::incarnation_of(key)?;
        self.inboxes.get_mut(&incarnation).map(|inbox| &mut **inbox)
    }
}

/// Visits all keys of a kind.
fn each(
    keys: &dyn KvRead,
    kind: KeyKind,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), WireError>,
) -> Result<(), KvError> {
    let mut failed = None;
    let range = kind.all();
    keys.scan(&range.start..&range.end, &mut |key, value| match visit(key, value) {
        Ok(()) => Visit::More,
        Err(error) => {
            failed = Some(error);
            Visit::Enough
        }
    })?;
    failed.map_or(Ok(()), |error| Err(corrupt("read the inboxes")(error)))
}
