//! How a replica that is no longer a member learns of it, and goes.

use super::record::State;
use super::{Inner, Slots};
use crate::engine::Sync;
use crate::raft::wire::{self, Address, Refusal, kind};
use crate::raft::{Change, LogId, Membership, RECORD, Slot, StoredMembership, data_slot_span, put_log_id, read_log_id};
use crate::raft::{put_membership, read_membership, slot_key};
use crate::range::{Phase, Replica};
use base_kv_api::{KvError, ReplicaId};
use base_rpc::{Lane, Service};
use base_types::NodeId;
use base_types::wire::{Reader, WireError};
use bytes::BytesMut;
use std::sync::Arc;
use std::time::Duration;

/// A replica that heard of no leader for so long asks whether it is still wanted, so often.
const FORSAKEN: Duration = Duration::from_secs(5);
const ASK_DEADLINE: Duration = Duration::from_secs(2);
const TELL_AGAIN: Duration = Duration::from_secs(1);
const TELL_TIMES: usize = 5;

/// Who is a member, as of an entry of the log that is committed. Who is not in it has been removed, for good: names are not used again.
pub(super) fn put_proof(out: &mut BytesMut, membership: &StoredMembership) {
    put_log_id(out, membership.log_id().as_ref());
    put_membership(out, membership.membership());
}

pub(super) fn read_proof(r: &mut Reader) -> Result<(Option<LogId>, Membership), WireError> {
    Ok((read_log_id(r)?, read_membership(r)?))
}

/// Whether it follows from a proof that a replica was removed.
pub(super) fn removed(replica: &Replica, at: Option<LogId>, members: &Membership) -> bool {
    let known = *replica.membership().log_id();
    at.is_some() && at >= known && members.get_node(&replica.id).is_none()
}

impl Inner {
    /// Tells replicas that left a group, in the background.
    pub(super) fn tell_removed(&self, leader: &Arc<Replica>, gone: Vec<(ReplicaId, NodeId)>) {
        let Some(meshed) = self.shared.meshed.clone() else { return };
        let proof = leader.machine.membership();
        for (to, node) in gone {
            let (meshed, proof) = (Arc::clone(&meshed), proof.clone());
            let address = Address { range: leader.range, from: leader.id, to };
            tokio::spawn(async move {
                let mut body = address.head(kind::RETIRE, 256);
                put_proof(&mut body, &proof);
                let body = body.freeze();
                for _ in 0..TELL_TIMES {
                    let asked = meshed.ask(node, Lane::Bulk, Service::REPLICA, body.clone(), ASK_DEADLINE).await;
                    match asked {
                        // Or it is gone already.
                        Ok(_) | Err(crate::raft::Failed::Refused(_)) => return,
                        // Should it never hear this, it will ask.
                        Err(_) => tokio::time::sleep(TELL_AGAIN).await,
                    }
                }
            });
        }
    }

    /// A replica that no leader talks to asks a member whether it is one itself.
    pub(super) fn ask_if_forsaken(self: &Arc<Self>, replica: &Arc<Replica>) {
        let (Some(meshed), Some(nth)) = (&self.shared.meshed, replica.forsaken(FORSAKEN)) else { return };
        let membership = replica.membership();
        let others: Vec<_> = membership.membership().nodes().filter(|(id, _)| **id != replica.id).collect();
        let Some((to, host)) = (!others.is_empty()).then(|| others[nth % others.len()]) else { return };
        let address = Address { range: replica.range, from: replica.id, to: *to };
        let (inner, meshed, replica, node) = (Arc::clone(self), Arc::clone(meshed), Arc::clone(replica), host.0);
        tokio::spawn(async move {
            let body = address.head(kind::ASK, 0).freeze();
            let Ok(mut r) = meshed.ask(node, Lane::Bulk, Service::REPLICA, body, ASK_DEADLINE).await else { return };
            if let Ok((at, members)) = read_proof(&mut r)
                && removed(&replica, at, &members)
                && let Err(error) = inner.retire(replica.id.counter).await
            {
                tracing::error!(range = %replica.range, %error, "a removed replica can't be cleaned up");
            }
        });
    }

    /// What a leader knows of the members, when it surely leads and no change is under way.
    pub(super) async fn proof(&self, replica: &Replica) -> Result<BytesMut, Refusal> {
        let leads = *replica.phase.borrow() == Phase::Leading && replica.read_index().await.is_some();
        let committed = replica.machine.membership();
        if !leads || committed.log_id() != replica.membership().log_id() {
            return Err(Refusal::NotLeader(replica.leader()));
        }
        let mut out = wire::done(256);
        put_proof(&mut out, &committed);
        Ok(out)
    }

    /// Ends a replica that is no longer a member, and removes its data.
    pub(super) async fn retire(&self, counter: u64) -> Result<(), KvError> {
        let mut slots = self.slots.lock().await;
        self.end(&mut slots, counter, State::Retired).await?;
        self.forget(&mut slots, counter).await
    }

    /// Ends a replica. What becomes of it is written down first.
    pub(super) async fn end(&self, slots: &mut Slots, counter: u64, state: State) -> Result<(), KvError> {
        let Some(record) = slots.records.iter_mut().find(|record| record.counter == counter) else { return Ok(()) };
        record.state = state;
        self.shared.writer.write(vec![Change::Put(slot_key(Slot(counter), RECORD), record.encode())]).await?;
        let Some(replica) = self.replicas.write().remove(&counter) else { return Ok(()) };
        tracing::info!(store = replica.store, range = %replica.range, replica = %replica.id, ?state, "the replica ends");
        if let Some(client) = self.registered(replica.store, replica.range.id) {
            client.put(None);
        }
        replica.stop("it was removed from the group").await;
        Ok(())
    }

    /// Removes what a retired replica left.
    pub(super) async fn forget(&self, slots: &mut Slots, counter: u64) -> Result<(), KvError> {
        let data = Arc::clone(&self.shared.data);
        let removed = crate::off_thread::off_thread(move || {
            let span = data_slot_span(Slot(counter));
            data.write(Sync::Never, &mut |batch| batch.delete_range(&span.start..&span.end))?;
            // Nothing of it may come back once the record is gone.
            data.flush()
        });
        removed.await.map_err(|e| KvError { doing: "remove a replica", cause: e.to_string() })??;
        self.shared.writer.write(vec![Change::Forget(Slot(counter))]).await?;
        slots.records.retain(|record| record.counter != counter);
        Ok(())
    }
}
