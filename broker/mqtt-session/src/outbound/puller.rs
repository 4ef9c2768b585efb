use crate::Action;
use inbox_api::Entry;
use std::collections::VecDeque;

/// How many entries are read at once.
const FETCH_MIN: usize = 16;
const FETCH_MAX: usize = 256;

/// What a session reads from its inbox, and how far it may send.
///
/// An entry may have been sent when its number is below `sent_upto` of the inbox. That mark is committed ahead in chunks, so that
/// normally nothing waits for it.
#[derive(Debug)]
pub(crate) struct Puller {
    /// Not fetched yet, from here on.
    from_seq: u64,
    /// There may be something to fetch.
    more: bool,
    fetching: bool,
    /// Something arrived on this connection: worth a reservation.
    stirred: bool,
    pub(crate) ready: VecDeque<Entry>,
    /// Sent with DUP below.
    pub(crate) dup_below: u64,
    /// Entries below may be sent: committed.
    pub(crate) reserved: u64,
    /// As `reserved`, with what is on its way.
    requested: u64,
    /// How far ahead to reserve at least; twice as far when it is done.
    ahead: u64,
}

impl Puller {
    /// `window` entries may be in flight, of `queue` that may wait: what is reserved can't give way to newer messages, so it is only
    /// a part of the queue.
    pub(crate) fn new(first_seq: u64, sent_upto: u64, window: u16, queue: u32) -> Self {
        let sent_upto = sent_upto.max(first_seq);
        Self {
            from_seq: first_seq,
            more: true,
            fetching: false,
            stirred: false,
            ready: VecDeque::new(),
            dup_below: sent_upto,
            reserved: sent_upto,
            requested: sent_upto,
            ahead: u64::from(u32::from(window).min(queue / 8).max(1)),
        }
    }

    pub(crate) fn queued(&mut self) {
        self.more = true;
        self.stirred = true;
    }

    pub(crate) fn fetched(&mut self, entries: Vec<Entry>) {
        self.fetching = false;
        if entries.is_empty() {
            return;
        }
        self.more = true;
        self.stirred = true;
        for entry in entries {
            if entry.seq >= self.from_seq {
                self.from_seq = entry.seq + 1;
                self.ready.push_back(entry);
            }
        }
    }

    /// Reads ahead while what was read is used up. An answer that is not empty leads to the next question.
    pub(crate) fn fetch(&mut self, window: u16, out: &mut Vec<Action>) {
        if self.more && !self.fetching && self.ready.is_empty() {
            self.more = false;
            self.fetching = true;
            let max = usize::from(window).clamp(FETCH_MIN, FETCH_MAX);
            out.push(Action::Fetch { from_seq: self.from_seq, max });
        }
    }

    /// The mark to commit so that nothing will have to wait for it, if it is time. `next` is the next entry to send.
    pub(crate) fn reserve(&mut self, next: u64) -> Option<u64> {
        let next = self.ready.front().map_or(next, |entry| entry.seq).max(next);
        if !self.stirred || self.requested >= next.saturating_add(self.ahead) {
            return None;
        }
        self.requested = next.saturating_add(2 * self.ahead);
        Some(self.requested)
    }

    /// The mark as it is when the connection ends, if entries that were not sent lie below it: they will be sent for the first time
    /// later. What is not queued yet needs no word, the inbox cuts the mark there.
    pub(crate) fn give_back(&self, next: u64) -> Option<u64> {
        let exact = next.max(self.dup_below);
        let unsent = self.more || self.fetching || !self.ready.is_empty();
        (unsent && exact < self.requested).then_some(exact)
    }
}
