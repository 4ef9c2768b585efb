use crate::engine::Engine;
use crate::raft::wire::{put_range, read_range};
use crate::raft::{RECORD, Slot, slot_key};
use base_kv_api::balance::{ReplicaView, Role};
use base_kv_api::{KvError, RangeId, ReplicaId, Visit};
use base_types::wire::{Reader, WireError, put_prefixed};
use bytes::{BufMut, Bytes};
use std::collections::BTreeMap;

/// What a replica is, as written down when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) counter: u64,
    pub(super) store: String,
    pub(super) range: RangeId,
    pub(super) state: State,
}

/// Where a replica is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Made here, as the first and only voter of its range.
    Founded,
    /// Made for a leader that lives elsewhere: it waits to be told what it is.
    Joined,
    /// No longer a member: its data goes.
    Retired,
    /// Its history lost against another one, or it is damaged and was replaced: kept, and never opened.
    Archived,
}

/// Of nodes that were alone: no lineage.
const FORMAT_ALONE: u8 = 1;
const FORMAT: u8 = 2;

impl Record {
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Founded | State::Joined)
    }

    /// What a balancer sees of a replica that can't be started.
    pub(super) fn broken(&self, disk: u64, fault: &str) -> ReplicaView {
        ReplicaView {
            range: self.range,
            replica: ReplicaId { store: disk, counter: self.counter },
            role: Role::Stopped,
            term: 0,
            leader: None,
            config: 0,
            changing: false,
            voters: BTreeMap::new(),
            learners: BTreeMap::new(),
            last: (0, 0),
            committed: 0,
            applied: 0,
            matched: BTreeMap::new(),
            fault: Some(fault.to_owned()),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.put_u8(match self.state {
            State::Founded => 0,
            State::Joined => 1,
            State::Retired => 2,
            State::Archived => 3,
        });
        put_range(&mut out, &self.range);
        put_prefixed(&mut out, self.store.as_bytes());
        out
    }

    /// A record of a node that was alone has the life of the disk as its lineage: no two nodes share one.
    fn decode(counter: u64, bytes: Bytes, disk: u64) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let (state, range) = match r.u8()? {
            FORMAT_ALONE => {
                let epoch = r.u64()?;
                (State::Founded, RangeId { id: r.u64()?, lineage: disk, epoch })
            }
            FORMAT => {
                let state = match r.u8()? {
                    0 => State::Founded,
                    1 => State::Joined,
                    2 => State::Retired,
                    3 => State::Archived,
                    other => {
                        return Err(WireError::Invalid { what: "the state of a replica", value: u64::from(other) });
                    }
                };
                (state, read_range(&mut r)?)
            }
            other => return Err(WireError::UnknownFormat(other)),
        };
        let store = r.text("name of a store")?.to_string();
        r.finish().map(|()| Self { counter, store, range, state })
    }
}

pub(super) fn damaged(error: WireError) -> KvError {
    KvError { doing: "read what the replicas are", cause: error.to_string() }
}

/// All records of a disk.
pub(super) fn read_records(log: &dyn Engine, disk: u64) -> Result<Vec<Record>, KvError> {
    let mut records = Vec::new();
    let mut broken = None;
    let mut slot = 1;
    // One seek per slot: between the records lie the logs.
    loop {
        let mut found = None;
        log.scan(&slot_key(Slot(slot), 0)..&[0xff; 9], &mut |key, _| {
            found = key.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
            Visit::Enough
        })?;
        let Some(counter) = found else { break };
        if let Some(bytes) = log.get(&slot_key(Slot(counter), RECORD))? {
            match Record::decode(counter, bytes, disk) {
                Ok(record) => records.push(record),
                Err(error) => broken = Some(error),
            }
        }
        slot = counter + 1;
    }
    match broken {
        Some(error) => Err(damaged(error)),
        None => Ok(records),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_and_one_of_a_node_that_was_alone_gets_its_own_lineage() {
        for state in [State::Founded, State::Joined, State::Retired, State::Archived] {
            let range = RangeId { id: 1, lineage: 2, epoch: 3 };
            let record = Record { counter: 4, store: "inbox".into(), range, state };
            assert_eq!(Record::decode(4, record.encode().into(), 9), Ok(record));
        }
        let mut old = vec![FORMAT_ALONE];
        old.put_u64(1);
        old.put_u64(7);
        put_prefixed(&mut old, b"dist");
        let range = RangeId { id: 7, lineage: 9, epoch: 1 };
        let expected = Record { counter: 4, store: "dist".into(), range, state: State::Founded };
        assert_eq!(Record::decode(4, old.into(), 9), Ok(expected));
    }
}
