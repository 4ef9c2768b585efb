use super::{LeaderId, LogId};
use base_kv_api::ReplicaId;
use std::ops::Range;

/// A replica's place in the engines of its node: the counter of its [`ReplicaId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(pub(crate) u64);

// In the log: slot (8) kind (1), and for entries index (8) term (8) leader (16) payload kind (1). The log id stands in the key,
// so that the payload of an entry is written as it is. Slot 0 is the node's own.
const ENTRY: u8 = 0xf0;
const ENTRY_KEY: usize = 9 + 8 + 8 + 16 + 1;

pub(crate) const VOTE: u8 = 1;
pub(crate) const PURGED: u8 = 2;
pub(crate) const COMMITTED: u8 = 3;
/// What the replica is: its range, epoch and store.
pub(crate) const RECORD: u8 = 4;
/// A snapshot is being installed; the value names its file.
pub(crate) const INSTALLING: u8 = 5;

pub(crate) fn slot_key(slot: Slot, kind: u8) -> [u8; 9] {
    let mut key = [kind; 9];
    key[..8].copy_from_slice(&slot.0.to_be_bytes());
    key
}

/// A key of the node itself.
pub(crate) fn global_key(kind: u8) -> [u8; 9] {
    slot_key(Slot(0), kind)
}

/// All that the data of a slot consists of.
pub(crate) fn data_slot_span(slot: Slot) -> Range<[u8; 8]> {
    slot_span(slot)
}

/// All keys of a slot.
pub(crate) fn slot_span(slot: Slot) -> Range<[u8; 8]> {
    slot.0.to_be_bytes()..(slot.0 + 1).to_be_bytes()
}

pub(crate) fn entry_key(slot: Slot, log_id: &LogId, kind: u8) -> [u8; ENTRY_KEY] {
    let mut key = [kind; ENTRY_KEY];
    let leader = log_id.committed_leader_id();
    key[..17].copy_from_slice(&entry_start(slot, log_id.index));
    key[17..25].copy_from_slice(&leader.term.to_be_bytes());
    key[25..33].copy_from_slice(&leader.node_id.store.to_be_bytes());
    key[33..41].copy_from_slice(&leader.node_id.counter.to_be_bytes());
    key
}

/// Where the entries with this index begin.
pub(crate) fn entry_start(slot: Slot, index: u64) -> [u8; 17] {
    let mut key = [ENTRY; 17];
    key[..8].copy_from_slice(&slot.0.to_be_bytes());
    key[9..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Behind all entries of the slot.
pub(crate) fn entries_end(slot: Slot) -> [u8; 9] {
    slot_key(slot, ENTRY + 1)
}

pub(crate) fn parse_entry_key(key: &[u8]) -> Option<(LogId, u8)> {
    let u64_at = |at: usize| key.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
    if key.len() != ENTRY_KEY || key[8] != ENTRY {
        return None;
    }
    let node_id = ReplicaId { store: u64_at(25)?, counter: u64_at(33)? };
    Some((LogId::new(LeaderId { term: u64_at(17)?, node_id }, u64_at(9)?), key[41]))
}

// In the data: slot (8), then 0 for what the replica knows of itself, or 1 and a key of the store.

/// The key of the applied log id, the membership and the stamp.
pub(crate) fn applied_key(slot: Slot) -> [u8; 9] {
    slot_key(slot, 0)
}

pub(crate) fn data_key(slot: Slot, key: &[u8], into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(&slot_key(slot, 1));
    into.extend_from_slice(key);
}

/// The keys of the store.
pub(crate) fn data_span(slot: Slot) -> Range<[u8; 9]> {
    slot_key(slot, 1)..slot_key(slot, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_id_survives_its_key_and_indexes_sort() {
        let id = |index| LogId::new(LeaderId { term: 7, node_id: ReplicaId { store: 8, counter: 9 } }, index);
        for index in [0, 1, 255, 256, u64::MAX - 1] {
            let key = entry_key(Slot(3), &id(index), 2);
            assert_eq!(parse_entry_key(&key), Some((id(index), 2)));
            assert!(key[..] >= entry_start(Slot(3), index)[..] && key[..] < entry_start(Slot(3), index + 1)[..]);
            assert!(key[..] < entries_end(Slot(3))[..]);
        }
    }
}
