use crate::{KvError, KvRead, KvSpace, Visit, Writes};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::{Bound, Range};

/// A key space in memory. Two are equal when they hold the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemSpace(BTreeMap<Bytes, Bytes>);

impl MemSpace {
    /// Writes what an overlay holds.
    pub fn write(&mut self, writes: &Writes) {
        for (start, end) in writes.deleted_ranges() {
            self.delete_range(start..end);
        }
        for (key, value) in writes.keys() {
            match value {
                Some(value) => self.0.insert(key.clone(), value.clone()),
                None => self.0.remove(key),
            };
        }
    }

    /// All pairs in key order.
    pub fn pairs(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.0.iter()
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `keys` must not be empty: `BTreeMap::range` panics.
    fn within(&self, keys: Range<&[u8]>) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.0.range::<[u8], _>((Bound::Included(keys.start), Bound::Excluded(keys.end)))
    }
}

impl KvRead for MemSpace {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, keys: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), KvError> {
        if keys.start < keys.end {
            let _ = self.within(keys).find(|(key, value)| visit(key, value) == Visit::Enough);
        }
        Ok(())
    }
}

impl KvSpace for MemSpace {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
    }

    fn delete(&mut self, key: &[u8]) {
        self.0.remove(key);
    }

    fn delete_range(&mut self, keys: Range<&[u8]>) {
        if keys.start < keys.end {
            let gone: Vec<Bytes> = self.within(keys).map(|(key, _)| key.clone()).collect();
            for key in gone {
                self.0.remove(&key);
            }
        }
    }
}
