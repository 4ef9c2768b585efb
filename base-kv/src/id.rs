use base_types::wire::{Reader, WireError};
use bytes::BufMut;
use std::fmt;

/// A range of a store's keys, replicated by one Raft group.
///
/// The epoch rises when a range had to go on without a majority (recovery); what still lives in an older epoch is fenced out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeId {
    /// Which life of the range.
    pub epoch: u64,
    /// The range.
    pub id: u64,
}

/// A replica of a range: the name under which it votes. Never used again, so that a wiped disk can't vote under its old one.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId {
    /// The life of the store's disk: random, drawn when the data directory is made.
    pub store: u64,
    /// Which replica of that disk.
    pub counter: u64,
}

impl ReplicaId {
    pub(crate) fn encode_to(self, out: &mut impl BufMut) {
        out.put_u64(self.store);
        out.put_u64(self.counter);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, WireError> {
        Ok(Self { store: crate::raft::fixed_u64(r)?, counter: crate::raft::fixed_u64(r)? })
    }
}

impl fmt::Display for RangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.epoch)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.store, self.counter)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
impl From<u64> for ReplicaId {
    fn from(counter: u64) -> Self {
        Self { store: 0, counter }
    }
}
