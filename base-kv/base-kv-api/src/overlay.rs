use crate::{KvError, KvRead, KvSpace, Visit};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::{Bound, Range};

/// The [`KvSpace`] over a [`KvRead`]: writes stay here, in front of what is below, until they are taken as [`Writes`].
pub struct Overlay<'a> {
    below: &'a dyn KvRead,
    writes: Writes,
}

/// What a batch of mutations wrote, each key once: first the deleted ranges, then the keys.
///
/// A key in a deleted range that was put again after it stands in `keys`, so the order "ranges, then keys" is right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    deleted: BTreeMap<Bytes, Bytes>,
    keys: BTreeMap<Bytes, Option<Bytes>>,
}

impl Writes {
    /// Nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deleted.is_empty() && self.keys.is_empty()
    }

    /// The ranges `[start, end)` that were deleted; disjoint, in key order.
    pub fn deleted_ranges(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.deleted.iter()
    }

    /// The keys that were put, or deleted (`None`), in key order.
    pub fn keys(&self) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
        self.keys.iter().map(|(key, value)| (key, value.as_ref()))
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.deleted.clear();
        self.keys.clear();
    }

    fn covers(&self, key: &[u8]) -> bool {
        !self.deleted.is_empty()
            && self
                .deleted
                .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
                .next_back()
                .is_some_and(|(_, end)| key < &end[..])
    }

    fn delete_range(&mut self, keys: Range<&[u8]>) {
        if keys.start >= keys.end {
            return;
        }
        let gone: Vec<Bytes> = self.within(keys.clone()).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.keys.remove(&key);
        }
        let (mut start, mut end) = (Bytes::copy_from_slice(keys.start), Bytes::copy_from_slice(keys.end));
        while let Some((s, e)) = self.deleted.range(..=end.clone()).next_back().map(|(s, e)| (s.clone(), e.clone())) {
            if e < start {
                break;
            }
            self.deleted.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.deleted.insert(start, end);
    }

    fn within(&self, keys: Range<&[u8]>) -> impl Iterator<Item = (&Bytes, &Option<Bytes>)> {
        self.keys.range::<[u8], _>((Bound::Included(keys.start), Bound::Excluded(keys.end)))
    }
}

impl<'a> Overlay<'a> {
    /// An overlay without writes.
    #[must_use]
    pub fn new(below: &'a dyn KvRead) -> Self {
        Self { below, writes: Writes::default() }
    }

    /// Goes on with writes that an earlier overlay left.
    #[must_use]
    pub fn with(below: &'a dyn KvRead, writes: Writes) -> Self {
        Self { below, writes }
    }

    /// What was written.
    #[must_use]
    pub fn into_writes(self) -> Writes {
        self.writes
    }
}

impl KvRead for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        match self.writes.keys.get(key) {
            Some(value) => Ok(value.clone()),
            None if self.writes.covers(key) => Ok(None),
            None => self.below.get(key),
        }
    }

    fn scan(&self, keys: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), KvError> {
        if keys.start >= keys.end {
            return Ok(());
        }
        let mut above = self.writes.within(keys.clone()).peekable();
        let mut enough = false;
        self.below.scan(keys, &mut |key, value| {
            // Ours that stand before the key from below; then, of two equal keys, ours.
            while let Some((ours, written)) = above.next_if(|(ours, _)| &ours[..] <= key) {
                if let Some(written) = written
                    && visit(ours, written) == Visit::Enough
                {
                    enough = true;
                    return Visit::Enough;
                }
                if &ours[..] == key {
                    return Visit::More;
                }
            }
            if self.writes.covers(key) {
                return Visit::More;
            }
            let wanted = visit(key, value);
            enough = wanted == Visit::Enough;
            wanted
        })?;
        for (key, value) in above {
            if enough {
                break;
            }
            if let Some(value) = value {
                enough = visit(key, value) == Visit::Enough;
            }
        }
        Ok(())
    }
}

impl KvSpace for Overlay<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        let value = Some(Bytes::copy_from_slice(value));
        match self.writes.keys.get_mut(key) {
            Some(slot) => *slot = value,
            None => {
                self.writes.keys.insert(Bytes::copy_from_slice(key), value);
            }
        }
    }

    fn delete(&mut self, key: &[u8]) {
        match self.writes.keys.get_mut(key) {
            Some(slot) => *slot = None,
            None => {
                self.writes.keys.insert(Bytes::copy_from_slice(key), None);
            }
        }
    }

    fn delete_range(&mut self, keys: Range<&[u8]>) {
        self.writes.delete_range(keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemSpace;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Op {
        Put(Vec<u8>, u8),
        Delete(Vec<u8>),
        DeleteRange(Vec<u8>, Vec<u8>),
        Commit,
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0u8..4, 1..3)
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (key(), any::<u8>()).prop_map(|(k, v)| Op::Put(k, v)),
            2 => key().prop_map(Op::Delete),
            2 => (key(), key()).prop_map(|(a, b)| Op::DeleteRange(a, b)),
            1 => Just(Op::Commit),
        ]
    }

    fn all(of: &dyn KvRead) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut pairs = Vec::new();
        of.scan(b""..&[0xff; 4], &mut |k, v| {
            pairs.push((k.to_vec(), v.to_vec()));
            Visit::More
        })
        .unwrap();
        pairs
    }

    proptest! {
        #[test]
        fn an_overlay_reads_like_a_map_that_was_written_directly(
            ops in prop::collection::vec(op(), 0..40), probe in key(), few in 0usize..6,
        ) {
            let mut below = MemSpace::default();
            let mut oracle: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            let mut writes = Writes::default();
            for op in ops {
                let mut overlay = Overlay::with(&below, writes);
                match &op {
                    Op::Put(k, v) => {
                        overlay.put(k, &[*v]);
                        oracle.insert(k.clone(), vec![*v]);
                    }
                    Op::Delete(k) => {
                        overlay.delete(k);
                        oracle.remove(k);
                    }
                    Op::DeleteRange(a, b) => {
                        overlay.delete_range(&a[..]..&b[..]);
                        oracle.retain(|k, _| !(a <= k && k < b));
                    }
                    Op::Commit => {}
                }
                writes = overlay.into_writes();
                if matches!(op, Op::Commit) {
                    below.write(&writes);
                    writes.clear();
                }
            }
            let overlay = Overlay::with(&below, writes);
            let expected: Vec<_> = oracle.clone().into_iter().collect();
            prop_assert_eq!(all(&overlay), expected.clone());
            prop_assert_eq!(overlay.get(&probe).unwrap().map(|v| v.to_vec()), oracle.get(&probe).cloned());
            let mut first = Vec::new();
            overlay.scan(b""..&[0xff; 4], &mut |k, v| {
                first.push((k.to_vec(), v.to_vec()));
                if first.len() >= few { Visit::Enough } else { Visit::More }
            }).unwrap();
            prop_assert_eq!(first, expected.into_iter().take(few.max(1)).collect::<Vec<_>>());
        }
    }
}
