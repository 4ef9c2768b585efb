use super::retire::put_proof;
use super::{Host, Inner};
use crate::raft::wire::{Address, Refusal, kind, put_range};
use crate::raft::{self, Failed, Types, replica as read_replica};
use crate::range::{Phase, RangeSpec, Replica};
use base_kv_api::balance::Command;
use base_kv_api::{KvError, RangeId, ReplicaId};
use base_rpc::{Lane, Service};
use base_types::NodeId;
use base_types::wire::put_prefixed;
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::Precondition;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Why a command was not carried out. Unless it says otherwise, nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError {
    /// This node has no replica of the range, or of another lineage or epoch of it.
    #[error("this node has no replica of range {0}")]
    NoReplica(RangeId),
    /// Somebody else leads, or nobody does.
    #[error("this node does not lead the range; node {leader:?} does")]
    NotLeader {
        /// Who does, as far as it is known.
        leader: Option<NodeId>,
    },
    /// The membership changed since the command was computed.
    #[error("computed for the membership of entry {wanted}, but that of entry {found} is in force")]
    Changed {
        /// Computed for this one.
        wanted: u64,
        /// In force.
        found: u64,
    },
    /// A change of membership is under way.
    #[error("a change of membership is under way")]
    Changing,
    /// A replica is not what the command takes it for.
    #[error("replica {replica} {why}")]
    Unfit {
        /// Which.
        replica: ReplicaId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A node could not be asked, or refused.
    #[error("node {node} did not do its part: {cause}")]
    Node {
        /// Which.
        node: NodeId,
        /// Why.
        cause: String,
    },
    /// Begun, and how it ended is not known: look at the membership.
    #[error("begun, but the outcome is not known: {0}")]
    Unknown(String),
    /// This build can't.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// The engine failed.
    #[error(transparent)]
    Storage(#[from] KvError),
}

/// How long a node has to make a replica.
const MAKE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a change of membership may take to be committed.
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);
const TRANSFER_DEADLINE: Duration = Duration::from_secs(2);
/// How long whoever shall lead has to say that it is there, and how often it is asked meanwhile.
const THERE_DEADLINE: Duration = Duration::from_secs(1);
const THERE_AGAIN: Duration = Duration::from_millis(50);
/// A learner this many entries behind has caught up: it will have the rest within a moment.
const CAUGHT_UP: u64 = 1_000;

impl Host {
    /// Carries out what a balancer decided for a store.
    ///
    /// [`Command::Merge`] is not carried out yet. But the history that loses takes no more commands, on any of its nodes, for a minute from
    /// the last such command on, and says so in [`ReplicaView`](base_kv_api::balance::ReplicaView) and stats: what is acknowledged in both can't be kept.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn execute(&self, store: &str, command: Command) -> Result<(), ExecuteError> {
        let inner = &self.inner;
        match command {
            Command::Bootstrap { id } => inner.found(store, id).await,
            Command::AddLearner { range, config, node } => inner.add_learner(store, range, config, node).await,
            Command::ChangeVoters { range, config, voters } => {
                inner.change_voters(&inner.led(store, range)?, config, voters).await
            }
            Command::RemoveLearners { range, config, learners } => {
                inner.remove_learners(&inner.led(store, range)?, config, learners).await
            }
            Command::TransferLeader { range, to } => transfer(&*inner.led(store, range)?, to).await,
            Command::Merge { loser, winner } => {
                inner.outlive(&*inner.led(store, loser)?, winner);
                Err(ExecuteError::Unsupported("to bring one history into another"))
            }
        }
    }

    /// Hands leadership of all ranges that this node leads to the best of the others; for as long as that takes, two seconds at most.
    /// Answers how many are still led here.
    pub async fn hand_over(&self) -> usize {
        let led: Vec<_> = self.inner.replicas.read().values().filter(|r| r.is_leader()).cloned().collect();
        let transfers = led.iter().map(|replica| self.inner.hand_over(replica));
        let results = futures_util::future::join_all(transfers).await;
        results.into_iter().flatten().for_each(|error| tracing::warn!(%error, "leadership stays here"));
        self.inner.replicas.read().values().filter(|replica| replica.is_leader()).count()
    }
}

fn refused(error: RaftError<Types, ClientWriteError<Types>>, config: u64) -> ExecuteError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
            ExecuteError::NotLeader { leader: to.leader_node.map(|host| host.0) }
        }
        RaftError::APIError(ClientWriteError::PreconditionFailed(_)) => {
            ExecuteError::Changed { wanted: config, found: 0 }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(_)) => ExecuteError::Changing,
        other => ExecuteError::Unknown(other.to_string()),
    }
}

async fn change(
    replica: &Replica,
    config: u64,
    members: ChangeMembers<ReplicaId, raft::Host>,
    retain: bool,
) -> Result<(), ExecuteError> {
    let membership = replica.membership();
    let at = *membership.log_id();
    let found = at.map_or(0, |id| id.index);
    if found != config {
        return Err(ExecuteError::Changed { wanted: config, found });
    }
    let unchanged = Precondition::LastMembershipLogId { last_membership_log_id: at };
    match timeout(CHANGE_DEADLINE, replica.raft.change_membership_if(members, retain, [unchanged])).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(refused(error, config)),
        Err(_) => Err(ExecuteError::Unknown("it takes too long".into())),
    }
}

async fn transfer(replica: &Replica, to: ReplicaId) -> Result<(), ExecuteError> {
    if to == replica.id {
        return Ok(());
    }
    if !replica.membership().voter_ids().any(|id| id == to) {
        return Err(ExecuteError::Unfit { replica: to, why: "does not vote" });
    }
    let until = Instant::now() + TRANSFER_DEADLINE;
    let mut metrics = replica.raft.server_metrics();
    if let Err(fatal) = replica.raft.trigger().transfer_leader(to).await {
        return Err(ExecuteError::Storage(KvError { doing: "hand over", cause: fatal.to_string() }));
    }
    let moved = timeout_at(until, metrics.wait_until(|now| now.current_leader == Some(to))).await;
    match moved {
        Ok(Ok(_)) => Ok(()),
        _ => Err(ExecuteError::Unknown("nobody else leads yet".into())),
    }
}

impl Inner {
    /// The replica of a range here, if it leads.
    fn led(&self, store: &str, range: RangeId) -> Result<Arc<Replica>, ExecuteError> {
        let replicas = self.replicas.read();
        let replica = replicas.values().find(|replica| replica.store == store && replica.range == range);
        let replica = replica.ok_or(ExecuteError::NoReplica(range))?;
        if *replica.phase.borrow() != Phase::Leading {
            return Err(ExecuteError::NotLeader { leader: replica.leader().map(|(_, node)| node) });
        }
        Ok(Arc::clone(replica))
    }

    /// Hands leadership to the best of those that are there; done when nobody is.
    async fn hand_over(&self, replica: &Replica) -> Option<ExecuteError> {
        for to in replica.successors() {
            tokio::select! {
                biased;
                () = self.gone(replica, to) => {}
                transferred = transfer(replica, to) => return transferred.err(),
            }
        }
        None
    }

    /// Returns when a voter turns out to be gone: its node can't be reached, or has stopped it.
    async fn gone(&self, replica: &Replica, to: ReplicaId) {
        let node = replica.membership().membership().get_node(&to).map(|host| host.0);
        let Some((meshed, node)) = self.shared.meshed.as_ref().zip(node) else { return };
        let body = Address { range: replica.range, from: replica.id, to }.head(kind::READ, 0).freeze();
        loop {
            match meshed.ask(node, Lane::Raft, Service::RANGE, body.clone(), THERE_DEADLINE).await {
                Ok(_) | Err(Failed::Refused(Refusal::NotLeader(_))) => tokio::time::sleep(THERE_AGAIN).await,
                Err(_) => return,
            }
        }
    }

    async fn found(&self, store: &str, id: u64) -> Result<(), ExecuteError> {
        let client = self.registered(store, id);
        let spec =
            client.map(|client| client.spec).ok_or(ExecuteError::Unsupported("a range that nothing lives in"))?;
        self.bootstrap(RangeSpec { store: spec.store, id }).await.map_err(|error| {
            ExecuteError::Storage(match error {
                crate::OpenError::Engine(error) => error,
                other => KvError { doing: "make a range", cause: other.to_string() },
            })
        })
    }

    async fn add_learner(&self, store: &str, range: RangeId, config: u64, node: NodeId) -> Result<(), ExecuteError> {
        let leader = self.led(store, range)?;
        let membership = leader.membership();
        let found = membership.log_id().map_or(0, |id| id.index);
        if found != config {
            return Err(ExecuteError::Changed { wanted: config, found });
        }
        // What is proven by it must be committed.
        let committed = leader.machine.membership();
        if committed.log_id() != membership.log_id() {
            return Err(ExecuteError::Changing);
        }
        if let Some((id, _)) = membership.membership().nodes().find(|(_, host)| host.0 == node) {
            return Err(ExecuteError::Unfit { replica: *id, why: "is there already" });
        }
        let failed = |cause: String| ExecuteError::Node { node, cause };
        let meshed = self.shared.meshed.as_ref().ok_or_else(|| failed("this node is alone".into()))?;
        let address = Address { range, from: leader.id, to: ReplicaId::default() };
        let mut body = address.head(kind::MAKE, 256);
        put_prefixed(&mut body, store.as_bytes());
        put_proof(&mut body, &committed);
        let asked = meshed.ask(node, Lane::Bulk, Service::REPLICA, body.freeze(), MAKE_DEADLINE).await;
        let mut r = asked.map_err(|error: Failed| failed(error.to_string()))?;
        let made = read_replica(&mut r).map_err(|error| failed(error.to_string()))?;
        let add = ChangeMembers::AddNodes(BTreeMap::from([(made, raft::Host(node))]));
        change(&leader, config, add, true).await
    }

    async fn change_voters(
        &self,
        leader: &Arc<Replica>,
        config: u64,
        voters: BTreeSet<ReplicaId>,
    ) -> Result<(), ExecuteError> {
        let before = leader.membership();
        let members = before.membership();
        if voters.is_empty() {
            return Err(ExecuteError::Unsupported("a range without voters"));
        }
        let old: BTreeSet<_> = members.voter_ids().collect();
        {
            let metrics = leader.raft.metrics();
            let now = metrics.borrow_watched();
            let last = now.last_log_index.unwrap_or(0);
            for id in &voters {
                if members.get_node(id).is_none() {
                    return Err(ExecuteError::Unfit { replica: *id, why: "is no member" });
                }
                let matched = now.replication.as_ref().and_then(|all| all.get(id).copied().flatten());
                let behind = matched.map_or(u64::MAX, |matched| last.saturating_sub(matched.index));
                if *id != leader.id && !old.contains(id) && behind > CAUGHT_UP {
                    return Err(ExecuteError::Unfit { replica: *id, why: "has not caught up" });
                }
            }
        }
        change(leader, config, ChangeMembers::ReplaceAllVoters(voters.clone()), false).await?;
        let nodes = members.nodes().filter(|(id, _)| old.contains(id) && !voters.contains(id));
        let gone = nodes.filter(|(id, _)| **id != leader.id).map(|(id, host)| (*id, host.0)).collect();
        self.tell_removed(leader, gone);
        Ok(())
    }

    /// All replicas of a history are told that another one wins: what was acknowledged in both could not be kept.
    fn outlive(&self, leader: &Replica, winner: RangeId) {
        leader.outlive(winner);
        let Some(meshed) = self.shared.meshed.clone() else { return };
        let membership = leader.membership();
        for (to, host) in membership.membership().nodes().filter(|(id, _)| **id != leader.id) {
            let mut body = Address { range: leader.range, from: leader.id, to: *to }.head(kind::OUTLIVED, 24);
            put_range(&mut body, &winner);
            // Whoever does not hear it is told with the next attempt.
            let _ = meshed.mesh.send(host.0, Lane::Bulk, Service::REPLICA, body.freeze());
        }
    }

    async fn remove_learners(
        &self,
        leader: &Arc<Replica>,
        config: u64,
        learners: BTreeSet<ReplicaId>,
    ) -> Result<(), ExecuteError> {
        let before = leader.membership();
        let members = before.membership();
        if let Some(id) = members.voter_ids().find(|id| learners.contains(id)) {
            return Err(ExecuteError::Unfit { replica: id, why: "votes" });
        }
        let gone: Vec<_> = members.nodes().filter(|(id, _)| learners.contains(id)).map(|(id, h)| (*id, h.0)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        change(leader, config, ChangeMembers::RemoveNodes(gone.iter().map(|(id, _)| *id).collect()), true).await?;
        self.tell_removed(leader, gone);
        Ok(())
    }
}
