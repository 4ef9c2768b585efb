use crate::schema::body::BodyId;
use base_types::WallMs;
use inbox_api::Entry;
use std::collections::VecDeque;

/// What an entry in memory costs beside its message: itself, its share of the queue, the allocation of the message.
const OVERHEAD: usize = 192;

/// The newest entries of an attached inbox, so that a session that keeps up reads nothing from disk.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Every entry of the queue from here on is in `entries`.
    from: u64,
    entries: VecDeque<Recent>,
    weight: usize,
}

#[derive(Debug)]
pub(crate) struct Recent {
    pub(crate) entry: Entry,
    /// As [`base_types::Message::cost`].
    pub(crate) cost: u64,
    pub(crate) body: Option<BodyId>,
}

impl Recent {
    /// Bytes of memory, about.
    pub(crate) fn weight(&self) -> usize {
        OVERHEAD + self.cost as usize + 4 * self.entry.subscription_identifiers.len()
    }
}

impl Tail {
    /// Empty, for a queue whose next number is `next`.
    pub(crate) fn new(next: u64) -> Self {
        Self { from: next, entries: VecDeque::new(), weight: 0 }
    }

    pub(crate) fn from(&self) -> u64 {
        self.from
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory, about.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    pub(crate) fn push(&mut self, recent: Recent) {
        self.weight += recent.weight();
        self.entries.push_back(recent);
    }

    /// Gives up everything below `next`; tells how many bytes that frees.
    pub(crate) fn clear(&mut self, next: u64) -> usize {
        self.from = next;
        self.entries.clear();
        std::mem::take(&mut self.weight)
    }

    pub(crate) fn pop_oldest(&mut self) -> Option<Recent> {
        let recent = self.entries.pop_front()?;
        self.from = recent.entry.seq + 1;
        self.weight -= recent.weight();
        Some(recent)
    }

    /// Half of it, and at least one; tells how many bytes that frees.
    pub(crate) fn evict_half(&mut self) -> usize {
        (0..self.entries.len().div_ceil(2)).filter_map(|_| self.pop_oldest()).map(|recent| recent.weight()).sum()
    }

    pub(crate) fn remove(&mut self, seq: u64) -> Option<Recent> {
        // Acknowledgements mostly come in order: the first one it is.
        let at = match self.entries.front() {
            Some(first) if first.entry.seq == seq => 0,
            _ => self.entries.binary_search_by_key(&seq, |recent| recent.entry.seq).ok()?,
        };
        let recent = self.entries.remove(at)?;
        self.weight -= recent.weight();
        Some(recent)
    }

    /// Copies entries from `from_seq` on into `page`; those that expired before they were sent go to `expired` instead.
    pub(crate) fn read(&self, from_seq: u64, sent_upto: u64, now: WallMs, page: &mut Page, expired: &mut Vec<u64>) {
        let start = self.entries.partition_point(|recent| recent.entry.seq < from_seq);
        for recent in self.entries.range(start..) {
            if recent.entry.seq >= sent_upto && recent.entry.message.is_expired(now) {
                expired.push(recent.entry.seq);
            } else if !page.push(recent.entry.clone(), recent.cost) {
                return;
            }
        }
    }
}

/// What one fetch brings.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    max: usize,
    bytes_left: u64,
}

impl Page {
    pub(crate) fn new(max: usize, max_bytes: usize) -> Self {
        Self { entries: Vec::new(), max, bytes_left: max_bytes as u64 }
    }

    /// Whether it fit; one entry always does.
    pub(crate) fn push(&mut self, entry: Entry, cost: u64) -> bool {
        if self.is_full() || (!self.entries.is_empty() && cost > self.bytes_left) {
            // Whoever comes after a message that did not fit must not overtake it.
            self.bytes_left = 0;
            self.max = self.entries.len();
            return false;
        }
        self.bytes_left = self.bytes_left.saturating_sub(cost);
        self.entries.push(entry);
        true
    }

    /// As much of another page as fits.
    pub(crate) fn append(&mut self, other: Self) {
        for entry in other.entries {
            let cost = entry.message.cost() as u64;
            if !self.push(entry, cost) {
                break;
            }
        }
    }

    /// Entries that still fit.
    pub(crate) fn room(&self) -> usize {
        self.max.saturating_sub(self.entries.len())
    }

    pub(crate) fn bytes_left(&self) -> u64 {
        self.bytes_left
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= self.max
    }
}
