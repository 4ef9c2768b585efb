use crate::corrupt;
use crate::ledger::Ledger;
use crate::schema::body::BodyId;
use crate::schema::cursor::Queue;
use crate::schema::entry::{self, EntryBody, EntryHead};
use crate::schema::inbox::{Holder, InboxRecord};
use crate::schema::{cursor, inbox as inbox_key};
use crate::seqs::Seqs;
use crate::tail::{Recent, Tail};
use base_kv_api::{KvError, KvSpace};
use base_types::PacketId;
use inbox_api::{InboxId, InboxSummary, SessionVersion};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// What is known of an inbox without reading the disk. Nothing in it grows with the queue.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) id: Arc<InboxId>,
    /// See [`crate::command::client_tag`].
    pub(crate) tag: u32,
    pub(crate) record: InboxRecord,
    pub(crate) seqs: Seqs,
    pub(crate) queue: Queue,
    /// `seqs.next()` when the cursor was written last.
    pub(crate) saved_next: u64,
    /// Entries in the PUBREL phase, in the order of their PUBRECs.
    pub(crate) released: VecDeque<Released>,
    pub(crate) inbound: BTreeSet<PacketId>,
    pub(crate) subscriptions: u64,
    /// Only while attached.
    pub(crate) tail: Option<Box<Tail>>,
    /// The listener knows that there is something to fetch.
    pub(crate) notified: bool,
}

/// An entry in the PUBREL phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Released {
    /// Larger than that of all before it.
    pub(crate) order: u64,
    pub(crate) seq: u64,
}

/// A message for an entry: where it is on disk, and in memory if it is there too.
pub(crate) struct NewEntry {
    pub(crate) head: EntryHead,
    pub(crate) body: EntryBody,
}

impl Inbox {
    pub(crate) fn new(id: Arc<InboxId>, record: InboxRecord) -> Self {
        let tag = crate::command::client_tag(id.client.as_str());
        Self {
            id,
            tag,
            record,
            seqs: Seqs::default(),
            queue: Queue::default(),
            saved_next: Seqs::default().next(),
            released: VecDeque::new(),
            inbound: BTreeSet::new(),
            subscriptions: 0,
            tail: None,
            notified: false,
        }
    }

    pub(crate) fn version(&self) -> SessionVersion {
        self.record.version
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.record.version.incarnation
    }

    pub(crate) fn save_record(&self, space: &mut dyn KvSpace) {
        space.put(&inbox_key::key(&self.id), &inbox_key::encode(&self.record));
    }

    pub(crate) fn save_cursor(&mut self, space: &mut dyn KvSpace) {
        let mut value = Vec::with_capacity(40);
        cursor::encode(&self.seqs, &self.queue, &mut value);
        space.put(&cursor::key(self.incarnation()), &value);
        self.saved_next = self.seqs.next();
    }

    /// A connection ended: what was not queued by then was not sent, and the next one counts its commits anew.
    pub(crate) fn cut_sent(&mut self, space: &mut dyn KvSpace) {
        let sent_upto = self.queue.sent_upto.min(self.seqs.next());
        if sent_upto != self.queue.sent_upto || self.queue.mark != 0 {
            (self.queue.sent_upto, self.queue.mark) = (sent_upto, 0);
            self.save_cursor(space);
        }
    }

    /// Counts an entry in.
    pub(crate) fn account(&mut self, cost: u64, shared: bool) {
        self.queue.messages += 1;
        self.queue.bytes += cost;
        self.queue.shared += u64::from(shared);
    }

    /// Queues an entry and tells its number.
    pub(crate) fn push(
        &mut self,
        new: &NewEntry,
        ledger: &mut Ledger,
        scratch: &mut Vec<u8>,
        space: &mut dyn KvSpace,
    ) -> u64 {
        let seq = self.seqs.push();
        self.put_entry(seq, new, ledger, scratch, space);
        if self.seqs.next() - self.saved_next >= cursor::EVERY {
            self.save_cursor(space);
        }
        seq
    }

    /// Writes an entry whose number is taken, and counts it in.
    pub(crate) fn put_entry(
        &mut self,
        seq: u64,
        new: &NewEntry,
        ledger: &mut Ledger,
        scratch: &mut Vec<u8>,
        space: &mut dyn KvSpace,
    ) {
        scratch.clear();
        entry::encode(&new.head, &new.body, scratch);
        space.put(&entry::key(self.incarnation(), seq), scratch);
        self.account(new.head.cost, matches!(new.body, EntryBody::Shared(_)));
        ledger.stats.queued_messages += 1;
        ledger.stats.queued_bytes += new.head.cost;
        ledger.count(|stats| stats.stored += 1);
    }

    /// Removes an entry from the queue, and its message with the last reference; tells whether it was there. The caller saves the
    /// cursor afterwards.
    pub(crate) fn remove(&mut self, seq: u64, ledger: &mut Ledger, space: &mut dyn KvSpace) -> Result<bool, KvError> {
        if !self.seqs.contains(seq) {
            return Ok(false);
        }
        let key = entry::key(self.incarnation(), seq);
        let (cost, body) = match self.take_recent(seq, ledger) {
            Some(recent) => (recent.cost, recent.body),
            None => Self::read_account(&key, space)?,
        };
        self.seqs.remove(seq);
        self.queue.messages = self.queue.messages.saturating_sub(1);
        self.queue.bytes = self.queue.bytes.saturating_sub(cost);
        self.queue.shared = self.queue.shared.saturating_sub(u64::from(body.is_some()));
        ledger.stats.queued_messages = ledger.stats.queued_messages.saturating_sub(1);
        ledger.stats.queued_bytes = ledger.stats.queued_bytes.saturating_sub(cost);
        space.delete(&key);
        if let Some(body) = body {
            ledger.release(body, 1, space)?;
        }
        Ok(true)
    }

    fn take_recent(&mut self, seq: u64, ledger: &mut Ledger) -> Option<Recent> {
        let recent = self.tail.as_mut()?.remove(seq)?;
        ledger.cached_bytes = ledger.cached_bytes.saturating_sub(recent.weight());
        Some(recent)
    }

    fn read_account(key: &[u8], space: &dyn KvSpace) -> Result<(u64, Option<BodyId>), KvError> {
        match space.get(key)? {
            Some(value) => entry::decode_account(&value).map_err(corrupt("read a queued entry")),
            None => Err(KvError { doing: "read a queued entry", cause: "it is not there".into() }),
        }
    }

    /// What an operator sees.
    pub(crate) fn summary(&self) -> InboxSummary {
        InboxSummary {
            inbox: (*self.id).clone(),
            version: self.version(),
            owner: self.record.owner.clone(),
            attached: match self.record.holder {
                Holder::Attached(run) => Some(run),
                Holder::DetachedAt(_) => None,
            },
            expires_at: self.record.expires_at(),
            subscriptions: self.subscriptions,
            messages: self.queue.messages,
            bytes: self.queue.bytes,
        }
    }

    /// Frees what is kept in memory for a connection.
    pub(crate) fn drop_tail(&mut self, ledger: &mut Ledger) {
        if let Some(mut tail) = self.tail.take() {
            ledger.cached_bytes = ledger.cached_bytes.saturating_sub(tail.clear(self.seqs.next()));
        }
        self.notified = false;
    }
}
