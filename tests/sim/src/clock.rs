use base_types::{Clock, WallMs};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

/// The clocks of a simulated node: the monotonic one is its runtime's, the wall clock that of the simulation, as wrong as it is told to be.
pub(crate) struct SimClock {
    /// Milliseconds.
    pub(crate) wrong_by: Arc<AtomicI64>,
}

const EPOCH_MS: u64 = 1_700_000_000_000;

impl Clock for SimClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn wall(&self) -> WallMs {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default().as_millis() as u64;
        WallMs((EPOCH_MS + elapsed).saturating_add_signed(self.wrong_by.load(Ordering::Relaxed)))
    }
}
