use mqtt_session::DropReason;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a message did not reach a receiver. The names are those of the metric and the log (design P10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum DropCause {
    NotAuthorized,
    SlowReceiver,
    PacketTooLarge,
    Expired,
    QueueFull,
}

impl DropCause {
    pub(crate) const ALL: [(Self, &'static str); 5] = [
        (Self::NotAuthorized, "not_authorized"),
        (Self::SlowReceiver, "slow_receiver"),
        (Self::PacketTooLarge, "packet_too_large"),
        (Self::Expired, "expired"),
        (Self::QueueFull, "queue_full"),
    ];
}

impl From<DropReason> for DropCause {
    fn from(reason: DropReason) -> Self {
        match reason {
            DropReason::PacketTooLarge => Self::PacketTooLarge,
            DropReason::Expired => Self::Expired,
            DropReason::QueueFull => Self::QueueFull,
        }
    }
}

/// What is counted too rarely to need a place of its own for each shard.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    dropped: [AtomicU64; DropCause::ALL.len()],
    refused: Mutex<BTreeMap<&'static str, u64>>,
    handshakes_failed: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    pub(crate) fn dropped(&self, cause: DropCause, count: u64) {
        self.dropped[cause as usize].fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, cause: &'static str) {
        *self.refused.lock().entry(cause).or_default() += 1;
    }

    pub(crate) fn handshake_failed(&self, cause: &'static str) {
        *self.handshakes_failed.lock().entry(cause).or_default() += 1;
    }
}
