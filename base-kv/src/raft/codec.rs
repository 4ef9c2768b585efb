//! How votes, log ids and memberships stand on disk: by hand, with a format in front.

use super::{Host, LeaderId, LogId, Membership, Proposers, StoredMembership, Vote};
use base_kv_api::ReplicaId;
use base_types::wire::{Reader, WireError, put_varint};
use base_types::{NodeId, WallMs};
use bytes::{BufMut, Bytes};
use std::collections::{BTreeMap, BTreeSet};

const FORMAT: u8 = 1;

pub(crate) fn put_replica(out: &mut impl BufMut, id: ReplicaId) {
    out.put_u64(id.store);
    out.put_u64(id.counter);
}

pub(crate) fn replica(r: &mut Reader) -> Result<ReplicaId, WireError> {
    Ok(ReplicaId { store: r.u64()?, counter: r.u64()? })
}

fn checked(bytes: Bytes) -> Result<Reader, WireError> {
    let mut r = Reader::new(bytes);
    match r.u8()? {
        FORMAT => Ok(r),
        other => Err(WireError::UnknownFormat(other)),
    }
}

pub(super) fn put_leader(out: &mut impl BufMut, leader: &LeaderId) {
    out.put_u64(leader.term);
    put_replica(out, leader.node_id);
}

pub(super) fn leader(r: &mut Reader) -> Result<LeaderId, WireError> {
    Ok(LeaderId { term: r.u64()?, node_id: replica(r)? })
}

pub(crate) fn put_vote(out: &mut impl BufMut, vote: &Vote) {
    out.put_u8(u8::from(vote.committed));
    put_leader(out, &vote.leader_id);
}

pub(crate) fn read_vote(r: &mut Reader) -> Result<Vote, WireError> {
    let committed = r.u8()? != 0;
    Ok(Vote { leader_id: leader(r)?, committed })
}

pub(crate) fn vote_bytes(vote: &Vote) -> Vec<u8> {
    let mut out = vec![FORMAT];
    put_vote(&mut out, vote);
    out
}

pub(crate) fn vote(bytes: Bytes) -> Result<Vote, WireError> {
    let mut r = checked(bytes)?;
    let vote = read_vote(&mut r)?;
    r.finish().map(|()| vote)
}

pub(crate) fn put_log_id(out: &mut impl BufMut, id: Option<&LogId>) {
    out.put_u8(u8::from(id.is_some()));
    if let Some(id) = id {
        put_leader(out, id.committed_leader_id());
        out.put_u64(id.index);
    }
}

pub(crate) fn read_log_id(r: &mut Reader) -> Result<Option<LogId>, WireError> {
    Ok(if r.u8()? == 0 {
        None
    } else {
        let leader = leader(r)?;
        Some(LogId::new(leader, r.u64()?))
    })
}

pub(crate) fn log_id_bytes(id: Option<&LogId>) -> Vec<u8> {
    let mut out = vec![FORMAT];
    put_log_id(&mut out, id);
    out
}

pub(crate) fn log_id(bytes: Bytes) -> Result<Option<LogId>, WireError> {
    let mut r = checked(bytes)?;
    let id = read_log_id(&mut r)?;
    r.finish().map(|()| id)
}

pub(crate) fn put_membership(out: &mut impl BufMut, membership: &Membership) {
    let configs = membership.get_joint_config();
    put_varint(out, configs.len() as u64);
    for config in configs {
        put_varint(out, config.len() as u64);
        config.iter().for_each(|id| put_replica(out, *id));
    }
    put_varint(out, membership.nodes().count() as u64);
    for (id, host) in membership.nodes() {
        put_replica(out, *id);
        out.put_u64(host.0.0);
    }
}

pub(crate) fn read_membership(r: &mut Reader) -> Result<Membership, WireError> {
    let mut configs = Vec::new();
    for _ in 0..r.varint()? {
        let mut config = BTreeSet::new();
        for _ in 0..r.varint()? {
            config.insert(replica(r)?);
        }
        configs.push(config);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..r.varint()? {
        nodes.insert(replica(r)?, Host(NodeId(r.u64()?)));
    }
    if configs.is_empty() && nodes.is_empty() {
        // A replica that was never told: openraft's own "nobody".
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| WireError::Invalid { what: "a membership", value: 0 })
}

pub(crate) fn membership_bytes(membership: &Membership) -> Vec<u8> {
    let mut out = vec![FORMAT];
    put_membership(&mut out, membership);
    out
}

pub(crate) fn membership(bytes: Bytes) -> Result<Membership, WireError> {
    let mut r = checked(bytes)?;
    let membership = read_membership(&mut r)?;
    r.finish().map(|()| membership)
}

/// How far a replica applied; in one batch with what it applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) log_id: Option<LogId>,
    pub(crate) membership: StoredMembership,
    /// The latest stamp that an entry was applied with.
    pub(crate) stamped: WallMs,
    /// What each node proposed last.
    pub(crate) proposers: Proposers,
}

/// With what each node proposed last.
const FORMAT_WITH_PROPOSERS: u8 = 2;

impl Applied {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT_WITH_PROPOSERS];
        put_log_id(&mut out, self.log_id.as_ref());
        put_log_id(&mut out, self.membership.log_id().as_ref());
        put_membership(&mut out, self.membership.membership());
        out.put_u64(self.stamped.0);
        self.proposers.encode_to(&mut out);
        out
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let format = r.u8()?;
        if format != FORMAT && format != FORMAT_WITH_PROPOSERS {
            return Err(WireError::UnknownFormat(format));
        }
        let log_id = read_log_id(&mut r)?;
        let at = read_log_id(&mut r)?;
        let membership = StoredMembership::new(at, read_membership(&mut r)?);
        let stamped = WallMs(r.u64()?);
        let proposers = if format == FORMAT { Proposers::default() } else { Proposers::decode(&mut r)? };
        r.finish().map(|()| Self { log_id, membership, stamped, proposers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_cuts_are_refused() {
        let id = |counter| ReplicaId { store: 77, counter };
        let log_id_ = LogId::new(LeaderId { term: 3, node_id: id(1) }, 9);
        let members = Membership::new(
            vec![BTreeSet::from([id(1), id(2)]), BTreeSet::from([id(2), id(3)])],
            (1..5).map(|n| (id(n), Host(NodeId(n)))).collect::<BTreeMap<_, _>>(),
        )
        .unwrap();
        let applied = Applied {
            log_id: Some(log_id_),
            membership: StoredMembership::new(Some(log_id_), members.clone()),
            stamped: WallMs(5),
            proposers: Proposers::default(),
        };
        assert_eq!(Applied::decode(applied.encode().into()), Ok(applied.clone()));
        assert_eq!(Applied::decode(Applied::default().encode().into()), Ok(Applied::default()));
        assert_eq!(membership(membership_bytes(&members).into()), Ok(members));
        let v = Vote { leader_id: LeaderId { term: 4, node_id: id(4) }, committed: true };
        assert_eq!(vote(vote_bytes(&v).into()), Ok(v));
        assert_eq!(log_id(log_id_bytes(Some(&log_id_)).into()), Ok(Some(log_id_)));
        let bytes = Bytes::from(applied.encode());
        for cut in 0..bytes.len() {
            assert!(Applied::decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
    }
}
