//! What a simulation needs: a disk in memory that loses what was not synced, no threads, and all chance from one seed.
//!
//! A simulation is one thread, so what it shares stands in thread locals. Its sockets come with the [`base_rpc::Mesh`].

use crate::engine::{Engine, MemEngine};
use crate::host::Ground;
use crate::space::{Probe, Space};
use crate::{Host, KvConfig, OpenError};
use base_rpc::Mesh;
use base_types::Clock;
use openraft::rt::deterministic_rng::DeterministicRng;
use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

pub(crate) type Seeded = DeterministicRng<openraft::impls::TokioRuntime>;

thread_local! {
    static CHANCE: Cell<u64> = const { Cell::new(0) };
    static FORGETS_VOTES: Cell<bool> = const { Cell::new(false) };
    static SYNC: Cell<(u64, u64)> = const { Cell::new((300, 3_000)) };
}

/// Begins a simulation on this thread: sound, with the chance of a seed.
pub fn begin(seed: u64) {
    CHANCE.set(seed);
    FORGETS_VOTES.set(false);
    SYNC.set((300, 3_000));
}

/// The next number of the simulation's chance (splitmix64).
#[must_use]
pub fn random() -> u64 {
    let state = CHANCE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    CHANCE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// How long disks take to sync from now on: at least, at most.
pub fn syncs_take(least: Duration, most: Duration) {
    SYNC.set((least.as_micros() as u64, most.as_micros() as u64));
}

/// Breaks all nodes of this simulation: what a replica votes is no longer written down. A fault that the simulation has to find.
pub fn forget_votes() {
    FORGETS_VOTES.set(true);
}

pub(crate) fn forgets_votes() -> bool {
    FORGETS_VOTES.get()
}

pub(crate) fn sync_takes() -> Duration {
    let (least, most) = SYNC.get();
    Duration::from_micros(least + random() % (most - least).max(1))
}

pub(crate) fn seeded<F: Future>(future: F) -> impl Future<Output = F::Output> {
    Seeded::scope(random(), future)
}

/// The disk of a node. A clone is the same disk.
#[derive(Clone, Default)]
pub struct Disk {
    log: Arc<MemEngine>,
    data: Arc<MemEngine>,
}

impl Disk {
    /// The power is cut. Of what was not synced chance leaves the beginning, or nothing.
    pub fn crash(&self) {
        let keep = |unsynced: usize| random() as usize % (unsynced + 1);
        self.log.crash_keeping(keep);
        self.data.crash_keeping(keep);
    }

    /// From now on it only says that it syncs. A fault that the simulation has to find.
    pub fn lie(&self) {
        self.log.lie();
        self.data.lie();
    }
}

impl Host {
    /// As [`Host::open_meshed`], on a simulated disk. Files are still made in `config.data_dir`: snapshots on their way.
    ///
    /// # Errors
    /// As [`Host::open`].
    pub fn open_simulated(
        config: KvConfig,
        mesh: Arc<dyn Mesh>,
        clock: Arc<dyn Clock>,
        disk: &Disk,
    ) -> Result<Self, OpenError> {
        let (log, data): (Arc<dyn Engine>, Arc<dyn Engine>) = (disk.log.clone(), disk.data.clone());
        let space = Space::new(Probe::Said(Arc::new(AtomicU64::new(u64::MAX))), 0);
        let node = mesh.me().node;
        let ground = Ground { log, data, clock, observer: Arc::new(()), space, home: None, mesh: Some(mesh) };
        Self::over(config, node, ground)
    }
}
