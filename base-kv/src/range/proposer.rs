use super::answers::Guard;
use super::replica::{Phase, Replica};
use crate::raft::{Callback, Raft};
use base_kv_api::MutateError;
use openraft::errors::ClientWriteError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long commands wait for a leader before they are told that there is none.
const LEADER_WAIT: Duration = Duration::from_secs(5);

/// Proposes what waits, entry by entry, with a few on their way at the same time. Runs until the replica stops.
pub(super) async fn run(replica: Arc<Replica>, raft: Raft, in_flight: usize) {
    let permits = Arc::new(Semaphore::new(in_flight.max(1)));
    let mut phase = replica.phase.subscribe();
    loop {
        replica.queue.filled().await;
        // First the permit, then the entry: what comes while earlier entries are on their way joins it.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let leading = tokio::time::timeout(LEADER_WAIT, phase.wait_for(|phase| *phase != Phase::Following)).await;
        match leading.map(|phase| phase.map(|phase| phase.clone())) {
            Ok(Ok(Phase::Leading)) => {}
            Ok(Ok(Phase::Stopped(cause))) => return replica.queue.refuse(&MutateError::Stopped { cause }, true),
            Ok(Ok(Phase::Following)) | Err(_) => {
                replica.queue.refuse(&MutateError::NoLeader, false);
                continue;
            }
            Ok(Err(_)) => return,
        }
        let Some(entry) = replica.queue.take() else { continue };
        let commands = entry.gathering.count() as u64;
        let guard = Guard(entry.answers);
        let (observer, store, since) = (Arc::clone(&replica.observer), replica.store, entry.since);
        let callback = Callback(Box::new(move |result: openraft::raft::ClientWriteResult<crate::raft::Types>| {
            match result {
                Ok(response) => {
                    guard.0.complete(Ok(response.data.0));
                    observer.committed(store, since.elapsed(), commands);
                }
                // Refused before it was in the log.
                Err(ClientWriteError::ForwardToLeader(_)) => guard.0.complete(Err(MutateError::NoLeader)),
                // In the log, and no longer: `guard` answers "unknown".
                Err(_) => {}
            }
            drop(permit);
        }));
        let proposal = entry.gathering.finish(replica.clock.wall());
        if raft.client_write_ff(proposal, Some(callback)).await.is_err() {
            // The callback was dropped and has answered; who watches the replica finds the cause.
            let _ = phase.wait_for(|phase| matches!(phase, Phase::Stopped(_))).await;
        }
    }
}
