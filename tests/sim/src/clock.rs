use base_types::{Clock, WallMs};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// The clocks of a simulated node: the monotonic one is its runtime's, the wall clock that of the simulation, as wrong as it is told to be.
pub(crate) struct SimClock {
    /// Milliseconds.
    pub(crate) wrong_by: Arc<AtomicI64>,
}

thread_local! {
    static ELAPSED_MS: Cell<u64> = const { Cell::new(0) };
}

/// So much time has passed in the simulation of this thread.
pub(crate) fn set_elapsed(elapsed: Duration) {
    ELAPSED_MS.set(elapsed.as_millis() as u64);
}

const EPOCH_MS: u64 = 1_700_000_000_000;

impl Clock for SimClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn wall(&self) -> WallMs {
        WallMs((EPOCH_MS + ELAPSED_MS.get()).saturating_add_signed(self.wrong_by.load(Ordering::Relaxed)))
    }
}
