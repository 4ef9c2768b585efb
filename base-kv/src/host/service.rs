//! What peers may ask of this node's replicas.

use super::record::State;
use super::retire::{read_proof, removed};
use super::{Inner, Slots};
use crate::raft::wire::{self, Address, Refusal, addressed, kind, opened};
use crate::raft::{Incoming, Proposal, done_with_replica, heartbeats, joined, put_vote, read_vote};
use crate::range::{Back, Replica};
use base_kv_api::{KvError, ReplicaId};
use base_rpc::{Reply, Service};
use base_types::NodeIncarnation;
use base_types::wire::{Reader, WireError};
use bytes::{Bytes, BytesMut};
use openraft::raft::VoteResponse;
use std::sync::{Arc, Weak};
use tokio::sync::oneshot;

/// Begins to answer.
pub(super) fn serve(inner: &Arc<Inner>) {
    let Some(meshed) = &inner.shared.meshed else { return };
    let handler = |handle: fn(&Arc<Inner>, Bytes, Reply) -> Result<(), WireError>| {
        let inner: Weak<Inner> = Arc::downgrade(inner);
        Arc::new(move |from: NodeIncarnation, body: Bytes, reply: Reply| {
            let Some(inner) = inner.upgrade() else { return };
            if let Err(error) = handle(&inner, body, reply) {
                tracing::warn!(%error, from = %from.node, "a message that can't be read");
            }
        })
    };
    meshed.mesh.serve(Service::RAFT, handler(raft));
    meshed.mesh.serve(Service::RANGE, handler(range));
    meshed.mesh.serve(Service::REPLICA, handler(replica));
}

impl Inner {
    /// The replica that a message is meant for. A replica of another range, lineage or epoch is not.
    fn find(&self, address: &Address) -> Result<Arc<Replica>, Refusal> {
        let mine = address.to.store == self.shared.store;
        let found = mine.then(|| self.replicas.read().get(&address.to.counter).cloned()).flatten();
        match found {
            None => Err(Refusal::Unknown),
            Some(found) if found.range != address.range => Err(Refusal::OtherRange(found.range)),
            Some(found) => Ok(found),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::Failed(error.to_string())
}

/// Answers when it is known what.
fn answer(reply: Reply, outcome: impl Future<Output = Result<BytesMut, Refusal>> + Send + 'static) {
    tokio::spawn(async move { reply.send(wire::reply(outcome.await)) });
}

fn raft(inner: &Arc<Inner>, body: Bytes, reply: Reply) -> Result<(), WireError> {
    let (what, r) = opened(body)?;
    if what == kind::HEARTBEATS {
        let mut replies = Vec::new();
        for heartbeat in heartbeats(r)? {
            let (sender, receiver) = oneshot::channel();
            replies.push(receiver);
            append(inner, opened(heartbeat)?.1, Back::Gathered(sender))?;
        }
        tokio::spawn(async move {
            let mut gathered = Vec::with_capacity(replies.len());
            for receiver in replies {
                gathered.push(receiver.await.ok());
            }
            reply.send(joined(gathered));
        });
        return Ok(());
    }
    if what == kind::APPEND {
        return append(inner, r, Back::Alone(reply));
    }
    let (address, r) = addressed(r)?;
    let replica = match inner.find(&address) {
        Ok(replica) => replica,
        Err(refusal) => {
            reply.send(wire::reply(Err(refusal)));
            return Ok(());
        }
    };
    match what {
        kind::VOTE => {
            let request = wire::read_vote_request(r)?;
            answer(reply, async move {
                let response = replica.raft.vote(request).await.map_err(failed)?;
                if response.vote_granted {
                    replica.heard();
                }
                Ok(wire::vote_reply(&response))
            });
        }
        kind::PRE_VOTE => {
            let request = wire::read_vote_request(r)?;
            answer(reply, async move {
                let response: VoteResponse<_> = replica.raft.pre_vote(request).await.map_err(failed)?;
                Ok(wire::vote_reply(&response))
            });
        }
        kind::TRANSFER => {
            let request = wire::read_transfer_request(r)?;
            answer(reply, async move {
                let response = replica.raft.handle_transfer_leader(request).await.map_err(failed)?;
                Ok(wire::transfer_reply(&response))
            });
        }
        other => return Err(WireError::UnknownFormat(other)),
    }
    Ok(())
}

fn append(inner: &Inner, r: Reader, back: Back) -> Result<(), WireError> {
    let (address, r) = addressed(r)?;
    match inner.find(&address) {
        Ok(replica) => replica.append(wire::read_append_request(r)?, back),
        Err(refusal) => back.send(wire::reply(Err(refusal))),
    }
    Ok(())
}

fn range(inner: &Arc<Inner>, body: Bytes, reply: Reply) -> Result<(), WireError> {
    let (what, r) = opened(body)?;
    let (address, r) = addressed(r)?;
    let replica = match inner.find(&address) {
        Ok(replica) => replica,
        Err(refusal) => {
            reply.send(wire::reply(Err(refusal)));
            return Ok(());
        }
    };
    match what {
        kind::PROPOSE => {
            let proposal = Proposal(r.rest());
            // Once it is in the log, everybody has to be able to read it.
            for command in proposal.commands()? {
                command?;
            }
            proposal.origin()?;
            replica.propose(proposal, reply);
        }
        kind::READ => answer(reply, async move {
            let index = replica.read_index().await.ok_or_else(|| Refusal::NotLeader(replica.leader()))?;
            let mut out = wire::done(8);
            bytes::BufMut::put_u64(&mut out, index);
            Ok(out)
        }),
        other => return Err(WireError::UnknownFormat(other)),
    }
    Ok(())
}

fn replica(inner: &Arc<Inner>, body: Bytes, reply: Reply) -> Result<(), WireError> {
    let (what, r) = opened(body)?;
    let (address, mut r) = addressed(r)?;
    let inner = Arc::clone(inner);
    match what {
        kind::SNAPSHOT => {
            let chunk = Chunk {
                vote: read_vote(&mut r)?,
                transfer: r.u64()?,
                offset: r.u64()?,
                last: r.u8()? != 0,
                bytes: r.rest(),
            };
            answer(reply, async move { inner.take_chunk(&address, chunk).await });
        }
        kind::MAKE => {
            let store = r.text("name of a store")?.to_string();
            let proof = read_proof(&mut r)?;
            r.finish()?;
            answer(reply, async move { inner.make(&address, &store, proof).await });
        }
        kind::RETIRE => {
            let (at, members) = read_proof(&mut r)?;
            r.finish()?;
            answer(reply, async move {
                let replica = inner.find(&address)?;
                if !removed(&replica, at, &members) {
                    return Err(Refusal::Failed("that does not prove it".into()));
                }
                inner.retire(replica.id.counter).await.map_err(failed)?;
                Ok(wire::done(0))
            });
        }
        kind::OUTLIVED => {
            let winner = wire::read_range(&mut r)?;
            r.finish()?;
            answer(reply, async move {
                let replica = inner.find(&address)?;
                replica.outlive(winner);
                Ok(wire::done(0))
            });
        }
        kind::ASK => answer(reply, async move {
            let replica = inner.find(&address)?;
            inner.proof(&replica).await
        }),
        other => return Err(WireError::UnknownFormat(other)),
    }
    Ok(())
}

/// A piece of a snapshot.
struct Chunk {
    vote: crate::raft::Vote,
    transfer: u64,
    offset: u64,
    last: bool,
    bytes: Bytes,
}

impl Inner {
    /// Takes a piece of a snapshot; with the last one all is checked and installed, whole or not at all.
    async fn take_chunk(&self, address: &Address, chunk: Chunk) -> Result<BytesMut, Refusal> {
        let replica = self.find(address)?;
        let mut place = replica.incoming.lock().await;
        let before = place.take();
        let (slot, staging) = (replica.id.counter, self.shared.config.data_dir.join("staging"));
        let Chunk { vote, transfer, offset, last, bytes } = chunk;
        let taken = crate::off_thread::off_thread(move || {
            let path = || staging.join(format!("{slot}-{transfer:016x}.incoming"));
            let incoming = Incoming::chunk(before, path, transfer, offset, &bytes)?;
            if last { incoming.finish().map(|whole| (None, Some(whole))) } else { Ok((Some(incoming), None)) }
        });
        let taken: Result<_, KvError> = taken.await.map_err(failed)?;
        let (incoming, whole) = taken.map_err(failed)?;
        *place = incoming;
        replica.heard();
        let mut out = wire::done(32);
        match whole {
            None => put_vote(&mut out, &vote),
            Some((snapshot, _file)) => {
                let response = replica.raft.install_full_snapshot(vote, snapshot).await.map_err(failed)?;
                put_vote(&mut out, &response.vote);
            }
        }
        Ok(out)
    }

    /// Makes a replica for a leader, and tells its name. One that is there and was never told what it is will do.
    async fn make(
        &self,
        address: &Address,
        store: &str,
        (at, members): (Option<crate::raft::LogId>, crate::raft::Membership),
    ) -> Result<BytesMut, Refusal> {
        let mut slots = self.slots.lock().await;
        if slots.closed {
            return Err(failed("the node stops"));
        }
        let client = self.registered(store, address.range.id);
        let client =
            client.ok_or_else(|| failed(format!("nothing lives in range {} of {store} here", address.range.id)))?;
        if let Some(replica) = client.replica() {
            let blank = replica.membership().log_id().is_none();
            let same = replica.range == address.range;
            if same && (blank || members.get_node(&replica.id).is_some()) {
                return Ok(done_with_replica(replica.id));
            }
            // One that was made for somebody who never came back to it stands in nobody's way.
            if !(blank || same && removed(&replica, at, &members)) {
                return Err(Refusal::OtherRange(replica.range));
            }
            self.replace(&mut slots, replica.id).await.map_err(failed)?;
        }
        let broken = self
            .broken
            .lock()
            .values()
            .map(|(record, _)| record.clone())
            .find(|record| record.store == store && record.range.id == address.range.id);
        if let Some(record) = broken {
            let id = ReplicaId { store: self.shared.store, counter: record.counter };
            if record.range == address.range && members.get_node(&id).is_some() {
                return Err(failed(format!("replica {id} is a member, and broken: take it out first")));
            }
            self.end(&mut slots, record.counter, State::Archived).await.map_err(failed)?;
            self.broken.lock().remove(&record.counter);
        }
        let made = self.write_down(&mut slots, store, address.range, State::Joined).await.map_err(failed)?;
        let replica = self.open(&client, &made).await.map_err(failed)?;
        Ok(done_with_replica(replica.id))
    }

    async fn replace(&self, slots: &mut Slots, old: ReplicaId) -> Result<(), KvError> {
        self.end(slots, old.counter, State::Retired).await?;
        self.forget(slots, old.counter).await
    }
}
