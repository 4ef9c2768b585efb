use std::fmt;

/// A range of a store's keys, replicated by one Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeId {
    /// Which range of its store.
    pub id: u64,
    /// Which history: drawn at random by the node that made the first replica. Two halves of a cluster that each made the range have two
    /// histories, and messages never cross from one to the other.
    pub lineage: u64,
    /// Which life of that history. It rises when the range had to go on without a majority (recovery); what still lives in an older
    /// epoch is fenced out.
    pub epoch: u64,
}

/// A replica of a range: the name under which it votes. Never used again, so that a wiped disk can't vote under its old one.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId {
    /// The life of the store's disk: random, drawn when the data directory is made.
    pub store: u64,
    /// Which replica of that disk.
    pub counter: u64,
}

impl fmt::Display for RangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:08x}.{}", self.id, self.lineage >> 32, self.epoch)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.store, self.counter)
    }
}

/// For tests of code that is generic over names: a replica of the disk 0.
impl From<u64> for ReplicaId {
    fn from(counter: u64) -> Self {
        Self { store: 0, counter }
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
