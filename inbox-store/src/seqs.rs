use std::collections::BTreeMap;

/// Which entries of a queue are there: a span of numbers, less what went out of order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seqs {
    /// The lowest that is there; `next` when none is.
    first: u64,
    next: u64,
    /// Start and end (exclusive) of what is missing above `first`; never adjacent.
    gaps: BTreeMap<u64, u64>,
}

impl Default for Seqs {
    fn default() -> Self {
        Self::between(1, 1)
    }
}

impl Seqs {
    /// All of `[first, next)`.
    pub(crate) fn between(first: u64, next: u64) -> Self {
        Self { first, next, gaps: BTreeMap::new() }
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn gaps(&self) -> &BTreeMap<u64, u64> {
        &self.gaps
    }

    /// Allots the next number.
    pub(crate) fn push(&mut self) -> u64 {
        let seq = self.next;
        self.next += 1;
        seq
    }

    /// Takes in a number that was read from disk; what lies between is missing.
    pub(crate) fn push_at(&mut self, seq: u64) {
        self.skip_to(seq);
        if self.next == seq {
            self.next = seq + 1;
        }
    }

    /// Numbers below `seq` that were not pushed are missing.
    pub(crate) fn skip_to(&mut self, seq: u64) {
        if seq > self.next {
            let from = self.next;
            self.next = seq;
            self.add_gap(from, seq);
        }
    }

    /// Everything of `[start, end)` is missing.
    pub(crate) fn add_gap(&mut self, start: u64, end: u64) {
        let (mut start, mut end) = (start.max(self.first), end.min(self.next));
        if start >= end {
            return;
        }
        if let Some((&before, &upto)) = self.gaps.range(..=start).next_back()
            && upto >= start
        {
            start = before;
            end = end.max(upto);
        }
        while let Some((&inner, &upto)) = self.gaps.range(start..=end).next() {
            end = end.max(upto);
            self.gaps.remove(&inner);
        }
        if start == self.first {
            self.first = end;
        } else {
            self.gaps.insert(start, end);
        }
    }

    /// Puts a number back that is missing; not one that was never allotted. Whether it was missing.
    pub(crate) fn restore(&mut self, seq: u64) -> bool {
        if seq == 0 || seq >= self.next {
            return false;
        }
        if seq < self.first {
            let first = std::mem::replace(&mut self.first, seq);
            if seq + 1 < first {
                self.gaps.insert(seq + 1, first);
            }
            return true;
        }
        match self.gaps.range(..=seq).next_back() {
            Some((&start, &end)) if end > seq => {
                self.gaps.remove(&start);
                for (start, end) in [(start, seq), (seq + 1, end)] {
                    if start < end {
                        self.gaps.insert(start, end);
                    }
                }
                true
            }
            _ => false,
        }
    }

    pub(crate) fn contains(&self, seq: u64) -> bool {
        self.first <= seq && seq < self.next && self.gaps.range(..=seq).next_back().is_none_or(|(_, &end)| end <= seq)
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, seq: u64) -> bool {
        if !self.contains(seq) {
            return false;
        }
        if seq == self.first && self.gaps.is_empty() {
            self.first += 1;
        } else {
            self.add_gap(seq, seq + 1);
        }
        true
    }

    /// The lowest that is not below `seq`.
    pub(crate) fn lowest_from(&self, seq: u64) -> Option<u64> {
        let seq = seq.max(self.first);
        let seq = match self.gaps.range(..=seq).next_back() {
            Some((_, &end)) if end > seq => end,
            _ => seq,
        };
        (seq < self.next).then_some(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Clone, Debug)]
    enum Op {
        Push,
        Remove(u64),
        PushAt(u64),
        Restore(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            2 => Just(Op::Push),
            3 => (1u64..40).prop_map(Op::Remove),
            1 => (0u64..4).prop_map(Op::PushAt),
            1 => (0u64..40).prop_map(Op::Restore),
        ]
    }

    proptest! {
        #[test]
        fn it_holds_what_a_set_would_hold(ops in prop::collection::vec(op(), 0..80)) {
            let (mut seqs, mut set, mut next) = (Seqs::default(), BTreeSet::new(), 1);
            for op in ops {
                match op {
                    Op::Push => {
                        prop_assert_eq!(seqs.push(), next);
                        set.insert(next);
                        next += 1;
                    }
                    Op::Remove(seq) => prop_assert_eq!(seqs.remove(seq), set.remove(&seq)),
                    Op::Restore(seq) => {
                        prop_assert_eq!(seqs.restore(seq), seq > 0 && seq < next && set.insert(seq));
                    }
                    Op::PushAt(skip) => {
                        seqs.push_at(next + skip);
                        set.insert(next + skip);
                        next += skip + 1;
                    }
                }
                prop_assert_eq!(seqs.next(), next);
                prop_assert_eq!(seqs.first(), set.first().copied().unwrap_or(next));
                for seq in 0..=next {
                    prop_assert_eq!(seqs.contains(seq), set.contains(&seq));
                    prop_assert_eq!(seqs.lowest_from(seq), set.range(seq..).next().copied());
                }
            }
        }
    }
}
