use base_kv_api::{KvError, KvRead, Visit};
use bytes::Bytes;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

/// Keys in memory that count how many of them a scan looks at.
#[derive(Default)]
pub(crate) struct Keys {
    map: BTreeMap<Vec<u8>, Bytes>,
    visited: Cell<usize>,
}

impl Keys {
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        self.map.insert(key.to_vec(), Bytes::copy_from_slice(value));
    }

    pub(crate) fn visited(&self) -> usize {
        self.visited.get()
    }
}

impl KvRead for Keys {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.map.get(key).cloned())
    }

    fn scan(&self, keys: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), KvError> {
        for (key, value) in self.map.range(keys.start.to_vec()..keys.end.to_vec()) {
            self.visited.set(self.visited.get() + 1);
            if visit(key, value) == Visit::Enough {
                break;
            }
        }
        Ok(())
    }
}
