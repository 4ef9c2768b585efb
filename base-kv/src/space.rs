use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How much the disk has free, looked at now and then; and whether that is enough to accept something.
pub(crate) struct Space {
    probe: Probe,
    needed: u64,
    free: AtomicU64,
    full: AtomicBool,
    looked: Mutex<Option<Instant>>,
}

pub(crate) enum Probe {
    /// The file system of this directory.
    Disk(PathBuf),
    /// What a test says.
    #[cfg(any(test, feature = "sim"))]
    Said(std::sync::Arc<AtomicU64>),
}

const EVERY: Duration = Duration::from_millis(100);

impl Space {
    pub(crate) fn new(probe: Probe, needed: u64) -> Self {
        let space = Self {
            probe,
            needed,
            free: AtomicU64::new(u64::MAX),
            full: AtomicBool::new(false),
            looked: Mutex::new(None),
        };
        space.look();
        space
    }

    /// Bytes that are free, as last seen.
    pub(crate) fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Bytes below which nothing is accepted.
    pub(crate) fn needed(&self) -> u64 {
        self.needed
    }

    /// Whether nothing is accepted; looks again when the last look is a while ago.
    pub(crate) fn full(&self, now: Instant) -> bool {
        let due = self.looked.try_lock().is_some_and(|looked| looked.is_none_or(|at| now.duration_since(at) >= EVERY));
        if due {
            self.look();
        }
        self.full.load(Ordering::Relaxed)
    }

    fn look(&self) {
        *self.looked.lock() = Some(Instant::now());
        let free = match &self.probe {
            Probe::Disk(path) => match rustix::fs::statvfs(path) {
                Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
                // A file system that can't tell is not called full for it.
                Err(_) => u64::MAX,
            },
            #[cfg(any(test, feature = "sim"))]
            Probe::Said(free) => free.load(Ordering::Relaxed),
        };
        self.free.store(free, Ordering::Relaxed);
        let full = free < self.needed;
        if self.full.swap(full, Ordering::Relaxed) != full {
            if full {
                tracing::error!(
                    free,
                    needed = self.needed,
                    "the disk is full: commands are refused until there is space"
                );
            } else {
                tracing::info!(free, "the disk has space again: commands are accepted");
            }
        }
    }
}
