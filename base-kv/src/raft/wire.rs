//! What replicas send each other: an address in front of everything, then the message, all by hand. Payloads of entries that are read
//! are slices of the frame.

use super::codec::{leader, membership, membership_bytes, put_replica};
use super::codec::{put_leader, put_log_id, put_vote, read_log_id, read_vote, replica};
use super::log_writer::{BLANK, MEMBERSHIP, NORMAL};
use super::{Entry, LogId, Proposal, Types};
use base_kv_api::{RangeId, ReplicaId};
use base_types::NodeId;
use base_types::wire::{Reader, WireError, put_prefixed, put_varint};
use bytes::{BufMut, Bytes, BytesMut};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{EntryPayload, raft::StreamAppendResult};

/// From which replica to which, of which range: in front of every message. Whoever is not the one that is meant refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) range: RangeId,
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
}

const VERSION: u8 = 1;
const ADDRESS: usize = 2 + 3 * 8 + 2 * 16;

pub(crate) mod kind {
    //! What a message is, within its service. The numbers go over the wire.

    // RAFT
    pub(crate) const APPEND: u8 = 1;
    pub(crate) const VOTE: u8 = 2;
    pub(crate) const PRE_VOTE: u8 = 3;
    pub(crate) const TRANSFER: u8 = 4;
    /// Heartbeats of many ranges.
    pub(crate) const HEARTBEATS: u8 = 5;
    // RANGE
    pub(crate) const PROPOSE: u8 = 1;
    pub(crate) const READ: u8 = 2;
    // REPLICA
    pub(crate) const SNAPSHOT: u8 = 1;
    pub(crate) const MAKE: u8 = 2;
    pub(crate) const RETIRE: u8 = 3;
    pub(crate) const ASK: u8 = 4;
    /// Another history of the range wins.
    pub(crate) const OUTLIVED: u8 = 5;
}

impl Address {
    /// A message that begins with this, with room for so many bytes more.
    pub(crate) fn head(&self, kind: u8, room: usize) -> BytesMut {
        let mut out = BytesMut::with_capacity(ADDRESS + room);
        out.put_u8(VERSION);
        out.put_u8(kind);
        put_range(&mut out, &self.range);
        put_replica(&mut out, self.from);
        put_replica(&mut out, self.to);
        out
    }

    fn decode(r: &mut Reader) -> Result<Self, WireError> {
        Ok(Self { range: read_range(r)?, from: replica(r)?, to: replica(r)? })
    }
}

/// A message of many, which has no address of its own.
pub(crate) fn head_of_many(kind: u8, room: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(2 + room);
    out.put_slice(&[VERSION, kind]);
    out
}

/// The kind of a message, and what follows it.
pub(crate) fn opened(message: Bytes) -> Result<(u8, Reader), WireError> {
    let mut r = Reader::new(message);
    match r.u8()? {
        VERSION => Ok((r.u8()?, r)),
        other => Err(WireError::UnknownFormat(other)),
    }
}

/// The address behind the kind.
pub(crate) fn addressed(mut r: Reader) -> Result<(Address, Reader), WireError> {
    let address = Address::decode(&mut r)?;
    Ok((address, r))
}

pub(crate) fn put_range(out: &mut impl BufMut, range: &RangeId) {
    out.put_u64(range.id);
    out.put_u64(range.lineage);
    out.put_u64(range.epoch);
}

pub(crate) fn read_range(r: &mut Reader) -> Result<RangeId, WireError> {
    Ok(RangeId { id: r.u64()?, lineage: r.u64()?, epoch: r.u64()? })
}

/// Why a peer did not do what it was asked. Nothing changed there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It has no such replica.
    #[error("there is no such replica")]
    Unknown,
    /// Its replica belongs to another history or life of the range.
    #[error("the replica there is one of {0}")]
    OtherRange(RangeId),
    /// It does not lead; the leader that it knows, and where that lives.
    #[error("it does not lead")]
    NotLeader(Option<(ReplicaId, NodeId)>),
    /// Something else.
    #[error("{0}")]
    Failed(String),
}

const DONE: u8 = 0;

/// A reply: what was asked for, or why not.
pub(crate) fn reply(outcome: Result<BytesMut, Refusal>) -> Bytes {
    let refusal = match outcome {
        Ok(done) => return done.freeze(),
        Err(refusal) => refusal,
    };
    let mut out = BytesMut::new();
    match refusal {
        Refusal::Unknown => out.put_u8(1),
        Refusal::OtherRange(range) => {
            out.put_u8(2);
            put_range(&mut out, &range);
        }
        Refusal::NotLeader(leader) => {
            out.put_u8(3);
            out.put_u8(u8::from(leader.is_some()));
            if let Some((leader, node)) = leader {
                put_replica(&mut out, leader);
                out.put_u64(node.0);
            }
        }
        Refusal::Failed(text) => {
            out.put_u8(4);
            put_prefixed(&mut out, text.as_bytes());
        }
    }
    out.freeze()
}

/// The beginning of a good reply.
pub(crate) fn done(room: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(1 + room);
    out.put_u8(DONE);
    out
}

/// What a reply says; malformed is a refusal too.
pub(crate) fn read_reply(bytes: Bytes) -> Result<Reader, Refusal> {
    fn refusal(status: u8, r: &mut Reader) -> Result<Refusal, WireError> {
        Ok(match status {
            1 => Refusal::Unknown,
            2 => Refusal::OtherRange(read_range(r)?),
            3 if r.u8()? == 0 => Refusal::NotLeader(None),
            3 => Refusal::NotLeader(Some((replica(r)?, NodeId(r.u64()?)))),
            4 => Refusal::Failed(r.text("reason")?.to_string()),
            other => return Err(WireError::UnknownFormat(other)),
        })
    }
    let mut r = Reader::new(bytes);
    match r.u8() {
        Ok(DONE) => Ok(r),
        Ok(status) => Err(refusal(status, &mut r).unwrap_or_else(|error| malformed(&error))),
        Err(error) => Err(malformed(&error)),
    }
}

pub(crate) fn malformed(error: &WireError) -> Refusal {
    Refusal::Failed(format!("malformed: {error}"))
}

/// Bytes of an append, roughly, without its entries.
const APPEND_HEAD: usize = 128;

pub(crate) fn append_request(address: &Address, request: &AppendEntriesRequest<Types>) -> BytesMut {
    let size: usize = request.entries.iter().map(super::log_writer::entry_cost).sum();
    let mut out = address.head(kind::APPEND, APPEND_HEAD + size);
    put_vote(&mut out, &request.vote);
    put_log_id(&mut out, request.prev_log_id.as_ref());
    put_log_id(&mut out, request.leader_commit.as_ref());
    put_varint(&mut out, request.entries.len() as u64);
    for entry in &request.entries {
        put_leader(&mut out, entry.log_id.committed_leader_id());
        put_varint(&mut out, entry.log_id.index);
        match &entry.payload {
            EntryPayload::Blank => out.put_u8(BLANK),
            EntryPayload::Normal(proposal) => {
                out.put_u8(NORMAL);
                put_prefixed(&mut out, &proposal.0);
            }
            EntryPayload::Membership(m) => {
                out.put_u8(MEMBERSHIP);
                put_prefixed(&mut out, &membership_bytes(m));
            }
        }
    }
    out
}

pub(crate) fn read_append_request(mut r: Reader) -> Result<AppendEntriesRequest<Types>, WireError> {
    let vote = read_vote(&mut r)?;
    let prev_log_id = read_log_id(&mut r)?;
    let leader_commit = read_log_id(&mut r)?;
    let count = r.varint()?;
    let mut entries: Vec<Entry> = Vec::with_capacity(count.min(1024) as usize);
    for _ in 0..count {
        let log_id = LogId::new(leader(&mut r)?, r.varint()?);
        let follows = entries.last().map(|e| e.log_id).or(prev_log_id).map_or(0, |id| id.index + 1);
        if log_id.index != follows {
            return Err(WireError::Invalid { what: "the index of an entry", value: log_id.index });
        }
        let payload = match r.u8()? {
            BLANK => EntryPayload::Blank,
            NORMAL => EntryPayload::Normal(Proposal(r.prefixed()?)),
            MEMBERSHIP => EntryPayload::Membership(membership(r.prefixed()?)?),
            other => return Err(WireError::Invalid { what: "the kind of an entry", value: u64::from(other) }),
        };
        entries.push(Entry { log_id, payload });
    }
    r.finish().map(|()| AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

pub(crate) fn append_reply(response: &AppendEntriesResponse<Types>) -> BytesMut {
    let mut out = done(64);
    match response {
        AppendEntriesResponse::Success => out.put_u8(0),
        AppendEntriesResponse::PartialSuccess(upto) => {
            out.put_u8(1);
            put_log_id(&mut out, upto.as_ref());
        }
        AppendEntriesResponse::Conflict => out.put_u8(2),
        AppendEntriesResponse::HigherVote(vote) => {
            out.put_u8(3);
            put_vote(&mut out, vote);
        }
    }
    out
}

/// The reply to an append of `(prev, last]`.
pub(crate) fn read_append_reply(
    mut r: Reader,
    prev: Option<LogId>,
    last: Option<LogId>,
) -> Result<StreamAppendResult<Types>, WireError> {
    let response = match r.u8()? {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(read_log_id(&mut r)?),
        // What begins at the beginning can't conflict.
        2 if prev.is_some() => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(read_vote(&mut r)?),
        other => return Err(WireError::Invalid { what: "the outcome of an append", value: u64::from(other) }),
    };
    r.finish().map(|()| response.into_stream_result(prev, last))
}

pub(crate) fn vote_request(address: &Address, kind: u8, request: &VoteRequest<Types>) -> BytesMut {
    let mut out = address.head(kind, 64);
    put_vote(&mut out, &request.vote);
    put_log_id(&mut out, request.last_log_id.as_ref());
    out.put_u8(u8::from(request.leadership_transfer));
    out
}

pub(crate) fn read_vote_request(mut r: Reader) -> Result<VoteRequest<Types>, WireError> {
    let mut request = VoteRequest::new(read_vote(&mut r)?, read_log_id(&mut r)?);
    request.leadership_transfer = r.u8()? != 0;
    r.finish().map(|()| request)
}

pub(crate) fn vote_reply(response: &VoteResponse<Types>) -> BytesMut {
    let mut out = done(64);
    put_vote(&mut out, &response.vote);
    put_log_id(&mut out, response.last_log_id.as_ref());
    out.put_u8(u8::from(response.vote_granted));
    out
}

pub(crate) fn read_vote_reply(mut r: Reader) -> Result<VoteResponse<Types>, WireError> {
    let (vote, last) = (read_vote(&mut r)?, read_log_id(&mut r)?);
    let granted = r.u8()? != 0;
    r.finish().map(|()| VoteResponse::new(vote, last, granted))
}

pub(crate) fn transfer_request(address: &Address, request: &TransferLeaderRequest<Types>) -> BytesMut {
    let mut out = address.head(kind::TRANSFER, 80);
    put_vote(&mut out, request.from_leader());
    put_replica(&mut out, *request.to_node_id());
    put_log_id(&mut out, request.last_log_id());
    out
}

pub(crate) fn read_transfer_request(mut r: Reader) -> Result<TransferLeaderRequest<Types>, WireError> {
    let request = TransferLeaderRequest::new(read_vote(&mut r)?, replica(&mut r)?, read_log_id(&mut r)?);
    r.finish().map(|()| request)
}

pub(crate) fn transfer_reply(response: &TransferLeaderResponse<Types>) -> BytesMut {
    let mut out = done(64);
    match response {
        Ok(()) => out.put_u8(0),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            out.put_u8(1);
            put_vote(&mut out, expected);
            put_vote(&mut out, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            out.put_u8(2);
            put_log_id(&mut out, expected.as_ref());
            put_log_id(&mut out, actual.as_ref());
        }
    }
    out
}

pub(crate) fn read_transfer_reply(mut r: Reader) -> Result<TransferLeaderResponse<Types>, WireError> {
    let response = match r.u8()? {
        0 => Ok(()),
        1 => Err(TransferLeaderError::VoteChanged { expected: read_vote(&mut r)?, actual: read_vote(&mut r)? }),
        2 => Err(TransferLeaderError::LogNotFlushed { expected: read_log_id(&mut r)?, actual: read_log_id(&mut r)? }),
        other => return Err(WireError::Invalid { what: "the outcome of a transfer", value: u64::from(other) }),
    };
    r.finish().map(|()| response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Gathering, LeaderId, Membership, Origin, Vote};
    use base_types::WallMs;
    use std::collections::{BTreeMap, BTreeSet};

    fn id(index: u64) -> LogId {
        LogId::new(LeaderId { term: 3, node_id: ReplicaId { store: 9, counter: 1 } }, index)
    }

    fn address() -> Address {
        let range = RangeId { id: 1, lineage: 2, epoch: 3 };
        Address { range, from: ReplicaId { store: 4, counter: 5 }, to: ReplicaId { store: 6, counter: 7 } }
    }

    fn body(message: BytesMut) -> Reader {
        let (_, r) = opened(message.freeze()).unwrap();
        let (found, r) = addressed(r).unwrap();
        assert_eq!(found, address());
        r
    }

    #[test]
    fn an_append_is_read_as_it_was_and_every_cut_is_refused() {
        let mut gathering = Gathering::new(0);
        gathering.push(b"command");
        let members =
            Membership::new(vec![BTreeSet::from([3.into()])], BTreeMap::from([(3.into(), Default::default())]));
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(gathering.finish(WallMs(7), &Origin { proposer: 1, life: 2, seq: 3 })),
            EntryPayload::Membership(members.unwrap()),
        ];
        let entries = payloads.into_iter().zip(6..).map(|(payload, index)| Entry { log_id: id(index), payload });
        let vote = Vote { leader_id: *id(1).committed_leader_id(), committed: true };
        let request = AppendEntriesRequest {
            vote,
            prev_log_id: Some(id(5)),
            entries: entries.collect(),
            leader_commit: Some(id(2)),
        };
        let bytes = append_request(&address(), &request).freeze();
        let read = read_append_request(body(bytes.clone().into())).unwrap();
        assert_eq!(format!("{read:?}"), format!("{request:?}"));
        for cut in ADDRESS..bytes.len() {
            let cut = read_append_request(body(bytes.slice(..cut).into()));
            assert!(cut.is_err(), "{cut:?}");
        }
    }

    #[test]
    fn votes_transfers_and_refusals_survive() {
        let vote = Vote { leader_id: *id(1).committed_leader_id(), committed: false };
        let mut request = VoteRequest::new(vote, Some(id(4)));
        request.leadership_transfer = true;
        assert_eq!(read_vote_request(body(vote_request(&address(), kind::VOTE, &request))), Ok(request));
        let response = VoteResponse::new(vote, Some(id(4)), true);
        assert_eq!(read_vote_reply(read_reply(vote_reply(&response).freeze()).unwrap()), Ok(response));
        let transfer = TransferLeaderRequest::new(vote, 8.into(), None);
        assert_eq!(read_transfer_request(body(transfer_request(&address(), &transfer))), Ok(transfer));
        for refusal in [
            Refusal::Unknown,
            Refusal::OtherRange(address().range),
            Refusal::NotLeader(None),
            Refusal::NotLeader(Some((5.into(), NodeId(6)))),
            Refusal::Failed("so".into()),
        ] {
            assert_eq!(read_reply(reply(Err(refusal.clone()))).err(), Some(refusal));
        }
        assert!(matches!(read_reply(Bytes::from_static(&[77])), Err(Refusal::Failed(_))));
    }
}
