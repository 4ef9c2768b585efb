use std::collections::{BTreeSet, HashMap};

/// Finds loss, reorder and duplicates: who delivered which sequence number of which publisher to whom.
///
/// Numbers of one publisher start at 0 and have no holes. The usual case, the next number, costs one comparison.
pub struct Tracker {
    publishers: usize,
    /// For receiver × publisher: the number after the highest seen.
    next: Vec<u64>,
    /// Numbers below `next` that did not come yet.
    missing: HashMap<usize, BTreeSet<u64>>,
    found: Found,
}

/// What a tracker found wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Found {
    /// Never came.
    pub lost: u64,
    /// Came for the first time after a later one had.
    pub reordered: u64,
    /// Came again.
    pub duplicates: u64,
}

impl Tracker {
    /// For that many receivers and publishers.
    #[must_use]
    pub fn new(receivers: usize, publishers: usize) -> Self {
        let next = vec![0; receivers * publishers];
        Self { publishers, next, missing: HashMap::new(), found: Found::default() }
    }

    /// Notes a delivery; `true` when it is the first of its number.
    pub fn delivered(&mut self, receiver: usize, publisher: usize, number: u64) -> bool {
        let flow = receiver * self.publishers + publisher;
        let next = self.next[flow];
        if number == next {
            self.next[flow] = number + 1;
            return true;
        }
        if number > next {
            self.missing.entry(flow).or_default().extend(next..number);
            self.next[flow] = number + 1;
            return true;
        }
        let first = self.missing.get_mut(&flow).is_some_and(|missing| missing.remove(&number));
        *(if first { &mut self.found.reordered } else { &mut self.found.duplicates }) += 1;
        first
    }

    /// What is wrong when `sent[publisher]` messages were published and nothing more comes, for the receivers that
    /// `expects(receiver, publisher)` names.
    #[must_use]
    pub fn finish(&self, sent: &[u64], expects: impl Fn(usize, usize) -> bool) -> Found {
        let mut found = self.found;
        for (flow, next) in self.next.iter().enumerate() {
            let publisher = flow % self.publishers;
            if expects(flow / self.publishers, publisher) {
                found.lost += sent[publisher].saturating_sub(*next);
                found.lost += self.missing.get(&flow).map_or(0, |missing| missing.len() as u64);
            }
        }
        found
    }
}

/// The same for a shared group: each number comes to one member, and each member sees rising numbers.
pub struct SharedTracker {
    group: Tracker,
    last: Vec<Option<u64>>,
    publishers: usize,
    reordered: u64,
}

impl SharedTracker {
    /// For that many members and publishers.
    #[must_use]
    pub fn new(members: usize, publishers: usize) -> Self {
        Self { group: Tracker::new(1, publishers), last: vec![None; members * publishers], publishers, reordered: 0 }
    }

    /// Notes a delivery; `true` when it is the first of its number.
    pub fn delivered(&mut self, member: usize, publisher: usize, number: u64) -> bool {
        let first = self.group.delivered(0, publisher, number);
        let last = &mut self.last[member * self.publishers + publisher];
        if first && last.is_some_and(|last| number < last) {
            self.reordered += 1;
        }
        *last = (*last).max(Some(number));
        first
    }

    /// As [`Tracker::finish`].
    #[must_use]
    pub fn finish(&self, sent: &[u64]) -> Found {
        Found { reordered: self.reordered, ..self.group.finish(sent, |_, _| true) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_loss_from_reorder_from_duplicates() {
        let mut tracker = Tracker::new(2, 2);
        for number in [0, 1, 4, 3, 3] {
            tracker.delivered(1, 0, number);
        }
        let found = tracker.finish(&[6, 9], |receiver, publisher| (receiver, publisher) == (1, 0));
        assert_eq!(found, Found { lost: 2, reordered: 1, duplicates: 1 });
    }

    #[test]
    fn members_of_a_group_may_interleave_but_not_run_backwards() {
        let mut tracker = SharedTracker::new(2, 1);
        for (member, number) in [(0, 1), (1, 0), (0, 3), (0, 2), (1, 4), (1, 4)] {
            tracker.delivered(member, 0, number);
        }
        assert_eq!(tracker.finish(&[6]), Found { lost: 1, reordered: 1, duplicates: 1 });
    }
}
