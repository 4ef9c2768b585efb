//! Where bytes stay: one trait, RocksDB and memory behind it, one suite for both.

#[cfg(any(test, feature = "sim"))]
#[cfg_attr(not(test), allow(dead_code, reason = "tests use more of it than simulations"))]
mod mem;
mod rocks;
#[cfg(test)]
mod suite;

#[cfg(any(test, feature = "sim"))]
pub(crate) use mem::MemEngine;
pub(crate) use rocks::{LogTuning, RocksEngine, RocksOptions};

use base_kv_api::{KvError, KvRead, Visit};
use bytes::Bytes;
use std::ops::Range;
use std::path::Path;

/// When a write survives what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Survives a power cut once `write` returned.
    Now,
    /// Survives the death of the process once `write` returned.
    Os,
    /// Survives nothing before the next `flush`.
    Never,
}

/// One key space with atomic batches. A node has two: the log of all its replicas, and their data.
///
/// They are two instances of RocksDB, not two column families of one: the writes of one instance queue behind each other, and
/// an apply (no WAL, memory only) would wait for the fsync of the next entries.
pub(crate) trait Engine: Send + core::marker::Sync + 'static {
    /// Writes what `fill` puts into the batch, in its order, whole or not at all.
    fn write(&self, sync: Sync, fill: &mut dyn FnMut(&mut dyn Batch)) -> Result<(), KvError>;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError>;

    fn scan(&self, keys: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), KvError>;

    /// Reads from one moment, however long it takes and whatever is written meanwhile.
    fn view(&self, with: &mut dyn FnMut(&dyn KvRead) -> Result<(), KvError>) -> Result<(), KvError>;

    /// Makes durable all that was written before the call.
    fn flush(&self) -> Result<(), KvError>;

    /// Replaces all keys of `[start, end)` by the pairs that `feed` gives, in key order. `staging` is an empty directory that
    /// may be used. Not atomic over a crash: the caller keeps a marker and repeats. Durable when it returns.
    fn replace(&self, keys: Range<&[u8]>, staging: &Path, feed: Feed<'_>) -> Result<(), KvError>;

    /// Bytes of memory in use, roughly.
    fn memory(&self) -> u64;
}

/// Whether the disk was full. Nothing was written then, and the same may be tried again: unlike a failed fsync, it leaves no
/// doubt about what is on disk.
pub(crate) fn is_no_space(error: &KvError) -> bool {
    error.cause.contains("No space left on device")
}

/// How long to wait before the same is tried again on a full disk.
pub(crate) const NO_SPACE_WAIT: std::time::Duration = std::time::Duration::from_millis(200);

/// Gives pairs to a sink, in key order; an error of either side ends it.
pub(crate) type Feed<'a> =
    &'a mut dyn FnMut(&mut dyn FnMut(&[u8], &[u8]) -> Result<(), KvError>) -> Result<(), KvError>;

/// A batch that is being filled.
pub(crate) trait Batch {
    fn put(&mut self, key: &[u8], value: &[u8]);
    fn delete(&mut self, key: &[u8]);
    fn delete_range(&mut self, keys: Range<&[u8]>);
}
