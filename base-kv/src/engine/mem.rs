use super::{Batch, Engine, Feed, Sync};
use base_kv_api::testing::MemSpace;
use base_kv_api::{KvError, KvRead, KvSpace, Visit};
use bytes::Bytes;
use parking_lot::Mutex;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// An engine in memory that can lose what was not synced, and break, on command.
#[derive(Default)]
pub(crate) struct MemEngine {
    state: Mutex<State>,
    frozen: std::sync::atomic::AtomicBool,
}

#[derive(Default)]
struct State {
    now: Arc<MemSpace>,
    /// What takes back the batches that are not durable, the oldest first.
    undo: Vec<Undo>,
    /// Writes until the engine breaks.
    writes_left: Option<u64>,
    writes: u64,
    full: bool,
    lies: bool,
}

/// What was there before a batch, in the order in which it was overwritten.
type Undo = Vec<(Bytes, Option<Bytes>)>;

impl MemEngine {
    /// The disk has no space, or has some again.
    pub(crate) fn fill_up(&self, full: bool) {
        self.state.lock().full = full;
    }

    /// The power is cut: what was not synced is gone, and what broke works again.
    pub(crate) fn crash(&self) {
        self.crash_keeping(|_| 0);
    }

    /// As [`MemEngine::crash`], but of the batches that were not synced the first few may be there all the same: `keep` is told how many
    /// there are.
    pub(crate) fn crash_keeping(&self, keep: impl FnOnce(usize) -> usize) {
        let mut state = self.state.lock();
        let kept = keep(state.undo.len()).min(state.undo.len());
        let lost = state.undo.split_off(kept);
        state.undo.clear();
        state.writes_left = None;
        let now = Arc::make_mut(&mut state.now);
        for (key, value) in lost.into_iter().rev().flat_map(|batch| batch.into_iter().rev()) {
            match value {
                Some(value) => now.put(&key, &value),
                None => now.delete(&key),
            }
        }
    }

    /// From now on, what is synced may be lost in a crash like anything else: a disk that lies.
    #[cfg(feature = "sim")]
    pub(crate) fn lie(&self) {
        self.state.lock().lies = true;
    }

    /// Writes stand still, or go on.
    #[cfg(not(feature = "sim"))]
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, std::sync::atomic::Ordering::Release);
    }

    /// What broke works again, and nothing is lost.
    pub(crate) fn mend(&self) {
        self.state.lock().writes_left = None;
    }

    /// After `writes` more batches and flushes all fail, without an effect.
    pub(crate) fn break_after(&self, writes: u64) {
        self.state.lock().writes_left = Some(writes);
    }

    /// How many batches and flushes there were.
    pub(crate) fn writes(&self) -> u64 {
        self.state.lock().writes
    }
}

impl State {
    fn count(&mut self, doing: &'static str) -> Result<(), KvError> {
        if self.full {
            return Err(KvError { doing, cause: "IO error: No space left on device".into() });
        }
        if let Some(left) = &mut self.writes_left {
            *left = left.checked_sub(1).ok_or_else(|| KvError { doing, cause: "input/output error".into() })?;
        }
        self.writes += 1;
        Ok(())
    }
}

struct Filling<'a> {
    space: &'a mut MemSpace,
    /// None when nothing will have to be taken back.
    undo: Option<Undo>,
}

impl Filling<'_> {
    fn remember(&mut self, key: &[u8]) {
        if let Some(undo) = &mut self.undo {
            let before = self.space.get(key).ok().flatten();
            undo.push((Bytes::copy_from_slice(key), before));
        }
    }
}

impl Batch for Filling<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.remember(key);
        self.space.put(key, value);
    }

    fn delete(&mut self, key: &[u8]) {
        self.remember(key);
        self.space.delete(key);
    }

    fn delete_range(&mut self, keys: Range<&[u8]>) {
        if let Some(undo) = &mut self.undo {
            // The space in memory does not fail.
            let _ = self.space.scan(keys.clone(), &mut |key, value| {
                undo.push((Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value))));
                Visit::More
            });
        }
        self.space.delete_range(keys);
    }
}

impl Engine for MemEngine {
    fn write(&self, sync: Sync, fill: &mut dyn FnMut(&mut dyn Batch)) -> Result<(), KvError> {
        while self.frozen.load(std::sync::atomic::Ordering::Acquire) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let mut state = self.state.lock();
        state.count("write")?;
        let durable = sync == Sync::Now && !state.lies;
        let undo = (!durable).then(Undo::new);
        let mut filling = Filling { space: Arc::make_mut(&mut state.now), undo };
        fill(&mut filling);
        match filling.undo {
            Some(undo) => state.undo.push(undo),
            None => state.undo.clear(),
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.state.lock().now.get(key)
    }

    fn scan(&self, keys: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), KvError> {
        let now = Arc::clone(&self.state.lock().now);
        now.scan(keys, visit)
    }

    fn view(&self, with: &mut dyn FnMut(&dyn KvRead) -> Result<(), KvError>) -> Result<(), KvError> {
        let now = Arc::clone(&self.state.lock().now);
        with(&*now)
    }

    fn flush(&self) -> Result<(), KvError> {
        let mut state = self.state.lock();
        state.count("flush")?;
        if !state.lies {
            state.undo.clear();
        }
        Ok(())
    }

    fn replace(&self, keys: Range<&[u8]>, _staging: &Path, feed: Feed<'_>) -> Result<(), KvError> {
        let mut pairs = Vec::new();
        feed(&mut |key, value| {
            pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            Ok(())
        })?;
        // In steps, so that a break in between leaves a half.
        for step in 0..=pairs.len() {
            self.write(Sync::Now, &mut |batch| match step.checked_sub(1).and_then(|n| pairs.get(n)) {
                Some((key, value)) => batch.put(key, value),
                None => batch.delete_range(keys.clone()),
            })?;
        }
        Ok(())
    }

    fn memory(&self) -> u64 {
        0
    }
}
