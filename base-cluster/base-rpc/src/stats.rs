use crate::mesh::Lane;
use crate::refusal::{Refusal, RefusedBecause};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What has been counted, of all connections together.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    lanes: [LaneStats; 3],
    refused: [AtomicU64; RefusedBecause::ALL.len()],
    pub(crate) called: AtomicU64,
    pub(crate) answering: AtomicU64,
}

/// One more, for as long as this lives.
pub(crate) struct OneMore<'a>(&'a AtomicU64);

impl<'a> OneMore<'a> {
    pub(crate) fn of(gauge: &'a AtomicU64) -> Self {
        gauge.fetch_add(1, Relaxed);
        Self(gauge)
    }
}

impl Drop for OneMore<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug, Default)]
pub(crate) struct LaneStats {
    frames_in: AtomicU64,
    frames_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    pub(crate) busy: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) unsent: AtomicU64,
}

impl LaneStats {
    pub(crate) fn read(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn came(&self, frames: usize) {
        self.frames_in.fetch_add(frames as u64, Relaxed);
    }

    pub(crate) fn went(&self, frames: usize) {
        self.frames_out.fetch_add(frames as u64, Relaxed);
    }
}

impl Stats {
    pub(crate) fn lane(&self, lane: Lane) -> &LaneStats {
        &self.lanes[lane.index()]
    }

    pub(crate) fn refused(&self, refusal: &Refusal) {
        if let Some(because) = refusal.because() {
            self.refused[because as usize].fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn connections_in(&self) -> u64 {
        self.answering.load(Relaxed)
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters {
            lanes: self.lanes.each_ref().map(|lane| LaneCounters {
                frames_in: lane.frames_in.load(Relaxed),
                frames_out: lane.frames_out.load(Relaxed),
                bytes_in: lane.bytes_in.load(Relaxed),
                bytes_out: lane.bytes_out.load(Relaxed),
                busy: lane.busy.load(Relaxed),
                lost: lane.lost.load(Relaxed),
                unsent: lane.unsent.load(Relaxed),
            }),
            refused: RefusedBecause::ALL.map(|because| (because, self.refused[because as usize].load(Relaxed))),
            connections_out: self.called.load(Relaxed),
            connections_in: self.answering.load(Relaxed),
        }
    }
}

/// What an [`crate::Rpc`] has counted since its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Per lane, in the order of [`Lane::ALL`].
    pub lanes: [LaneCounters; 3],
    /// Connections refused, by either side, by cause.
    pub refused: [(RefusedBecause, u64); RefusedBecause::ALL.len()],
    /// Connections to peers now.
    pub connections_out: u64,
    /// Connections from peers now.
    pub connections_in: u64,
}

/// The part of [`Counters`] that each lane has; of calls to other nodes, not to the own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneCounters {
    /// Frames that came, pings included.
    pub frames_in: u64,
    /// Frames that went to a socket.
    pub frames_out: u64,
    /// Bytes that came, as they were on the wire (below TLS: above it).
    pub bytes_in: u64,
    /// Bytes that went.
    pub bytes_out: u64,
    /// Messages refused because too much waits, and replies dropped for it.
    pub busy: u64,
    /// Calls that had been sent, maybe, when their connection ended.
    pub lost: u64,
    /// Messages that still waited when their connection ended or did not come about.
    pub unsent: u64,
}

impl Counters {
    /// How often connections were refused for this cause.
    #[must_use]
    pub fn refused(&self, because: RefusedBecause) -> u64 {
        self.refused[because as usize].1
    }
}
