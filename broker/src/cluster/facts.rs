//! What a node tells all others of itself, as bytes: where it is, and what replicas it has.
//!
//! Cold and small: told on change. Each fact begins with its format; one that can't be read counts as not told.

use base_kv_api::balance::{ReplicaView, Role};
use base_kv_api::{RangeId, ReplicaId};
use base_types::wire::{Reader, WireError, put_prefixed, put_varint};
use base_types::{Incarnation, NodeId, NodeIncarnation};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// The key of [`About`].
pub(crate) const ABOUT: &str = "about";

/// The key of what an operator said will not come back, see [`encode_runs`].
pub(crate) const EVICTED: &str = "evicted";

/// The key of the replicas of a store.
pub(crate) fn replicas_key(store: &str) -> String {
    format!("replicas/{store}")
}

const FORMAT: u8 = 1;

/// Where a node serves, and what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    /// The version of the program.
    pub(crate) version: String,
    /// Where clients connect, as they would write it.
    pub(crate) mqtt: Vec<String>,
    /// Where HTTP is served; empty for nowhere.
    pub(crate) api: String,
    /// On its way out.
    pub(crate) draining: bool,
}

impl About {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(FORMAT);
        out.put_u8(u8::from(self.draining));
        put_prefixed(&mut out, self.version.as_bytes());
        put_prefixed(&mut out, self.api.as_bytes());
        put_varint(&mut out, self.mqtt.len() as u64);
        for at in &self.mqtt {
            put_prefixed(&mut out, at.as_bytes());
        }
        out.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut r = open(bytes)?;
        let draining = r.u8()? != 0;
        let version = r.text("version")?.to_string();
        let api = r.text("address")?.to_string();
        let mqtt = (0..r.varint()?).map(|_| Ok(r.text("address")?.to_string())).collect::<Result<_, WireError>>()?;
        Ok(Self { version, mqtt, api, draining })
    }
}

fn open(bytes: Bytes) -> Result<Reader, WireError> {
    let mut r = Reader::new(bytes);
    match r.u8()? {
        FORMAT => Ok(r),
        other => Err(WireError::UnknownFormat(other)),
    }
}

pub(crate) fn encode_runs(runs: &[NodeIncarnation]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(FORMAT);
    for run in runs {
        out.put_u64(run.node.0);
        put_varint(&mut out, run.incarnation.0);
    }
    out.freeze()
}

pub(crate) fn decode_runs(bytes: Bytes) -> Result<Vec<NodeIncarnation>, WireError> {
    let mut r = open(bytes)?;
    let mut runs = Vec::new();
    while !r.is_empty() {
        runs.push(NodeIncarnation { node: NodeId(fixed(&mut r)?), incarnation: Incarnation(r.varint()?) });
    }
    Ok(runs)
}

pub(crate) fn encode_replicas(replicas: &[ReplicaView]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(FORMAT);
    for view in replicas {
        for value in [view.range.id, view.range.lineage, view.range.epoch, view.term, view.config] {
            put_varint(&mut out, value);
        }
        put_replica(&mut out, view.replica);
        out.put_u8(match view.role {
            Role::Learner => 0,
            Role::Follower => 1,
            Role::Candidate => 2,
            Role::Leader => 3,
            Role::Stopped => 4,
        });
        out.put_u8(u8::from(view.changing));
        out.put_u8(u8::from(view.leader.is_some()));
        put_replica(&mut out, view.leader.unwrap_or_default());
        for members in [&view.voters, &view.learners] {
            put_varint(&mut out, members.len() as u64);
            for (replica, node) in members {
                put_replica(&mut out, *replica);
                out.put_u64(node.0);
            }
        }
        for value in [view.last.0, view.last.1, view.committed, view.applied, view.matched.len() as u64] {
            put_varint(&mut out, value);
        }
        for (replica, matched) in &view.matched {
            put_replica(&mut out, *replica);
            put_varint(&mut out, *matched);
        }
        put_prefixed(&mut out, view.fault.as_deref().unwrap_or("").as_bytes());
    }
    out.freeze()
}

pub(crate) fn decode_replicas(bytes: Bytes) -> Result<Vec<ReplicaView>, WireError> {
    let mut r = open(bytes)?;
    let mut replicas = Vec::new();
    while !r.is_empty() {
        replicas.push(replica_view(&mut r)?);
    }
    Ok(replicas)
}

fn replica_view(r: &mut Reader) -> Result<ReplicaView, WireError> {
    let range = RangeId { id: r.varint()?, lineage: r.varint()?, epoch: r.varint()? };
    let (term, config) = (r.varint()?, r.varint()?);
    let replica = replica_id(r)?;
    let role = match r.u8()? {
        0 => Role::Learner,
        1 => Role::Follower,
        2 => Role::Candidate,
        3 => Role::Leader,
        4 => Role::Stopped,
        other => return Err(WireError::Invalid { what: "the role of a replica", value: u64::from(other) }),
    };
    let changing = r.u8()? != 0;
    let has_leader = r.u8()? != 0;
    let leader = Some(replica_id(r)?).filter(|_| has_leader);
    let mut members = || -> Result<BTreeMap<ReplicaId, NodeId>, WireError> {
        (0..r.varint()?).map(|_| Ok((replica_id(r)?, NodeId(fixed(r)?)))).collect()
    };
    let (voters, learners) = (members()?, members()?);
    let last = (r.varint()?, r.varint()?);
    let (committed, applied) = (r.varint()?, r.varint()?);
    let matched = (0..r.varint()?).map(|_| Ok((replica_id(r)?, r.varint()?))).collect::<Result<_, WireError>>()?;
    let fault = Some(r.text("fault")?.to_string()).filter(|fault| !fault.is_empty());
    Ok(ReplicaView {
        range,
        replica,
        role,
        term,
        leader,
        config,
        changing,
        voters,
        learners,
        last,
        committed,
        applied,
        matched,
        fault,
    })
}

fn put_replica(out: &mut BytesMut, replica: ReplicaId) {
    out.put_u64(replica.store);
    out.put_u64(replica.counter);
}

fn replica_id(r: &mut Reader) -> Result<ReplicaId, WireError> {
    Ok(ReplicaId { store: fixed(r)?, counter: fixed(r)? })
}

fn fixed(r: &mut Reader) -> Result<u64, WireError> {
    Ok(r.bytes(8)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> ReplicaView {
        let replica = |counter| ReplicaId { store: u64::MAX - counter, counter };
        ReplicaView {
            range: RangeId { id: 0, lineage: u64::MAX, epoch: 3 },
            replica: replica(1),
            role: Role::Leader,
            term: 9,
            leader: Some(replica(1)),
            config: 77,
            changing: true,
            voters: (1..4).map(|n| (replica(n), NodeId(n))).collect(),
            learners: (4..6).map(|n| (replica(n), NodeId(n))).collect(),
            last: (9, 1000),
            committed: 999,
            applied: 998,
            matched: (1..6).map(|n| (replica(n), n)).collect(),
            fault: None,
        }
    }

    #[test]
    fn facts_survive_the_wire() {
        let views =
            vec![view(), ReplicaView { role: Role::Stopped, leader: None, fault: Some("broken".into()), ..view() }];
        let bytes = encode_replicas(&views);
        assert_eq!(decode_replicas(bytes.clone()), Ok(views));
        for cut in 1..bytes.len() {
            // Whole replicas may remain; a part of one is an error. Nothing panics.
            let _ = decode_replicas(bytes.slice(..cut));
        }
        let about =
            About { version: "0.1".into(), mqtt: vec!["mqtt://a:1".into()], api: "http://a:2".into(), draining: true };
        assert_eq!(About::decode(about.encode()), Ok(about));
        assert!(About::decode(Bytes::from_static(&[2])).is_err());
        let runs = [NodeIncarnation { node: NodeId(u64::MAX), incarnation: Incarnation(300) }];
        assert_eq!(decode_runs(encode_runs(&runs)).as_deref(), Ok(&runs[..]));
    }
}
