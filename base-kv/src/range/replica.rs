use crate::config::{Durability, KvConfig};
use crate::engine::Engine;
use crate::home::Home;
use crate::raft::wire::{self, Refusal};
use crate::raft::{
    Callback, Host, Incoming, LogId, LogStore, LogWriter, Machine, Meshed, Peers, Progress, Proposal, Raft, Settle,
    SharedCoproc, Slot, StateMachine, StoredMembership, Types,
};
use crate::space::Space;
use crate::stats::{KvObserver, RangeStats, Role};
use base_kv_api::balance::ReplicaView;
use base_kv_api::{KvError, MutateError, RangeId, ReplicaId};
use base_rpc::Reply;
use base_types::{Clock, NodeId};
use bytes::Bytes;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, ClientWriteResult};
use openraft::{Instant as _, ReadPolicy, ServerState};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

/// A replica that runs.
pub(crate) struct Replica {
    pub(crate) store: &'static str,
    pub(crate) range: RangeId,
    pub(crate) id: ReplicaId,
    pub(crate) machine: Arc<Machine>,
    pub(crate) raft: Raft,
    pub(crate) phase: watch::Sender<Phase>,
    /// Of a snapshot that is being received.
    pub(crate) incoming: tokio::sync::Mutex<Option<Incoming>>,
    appends: mpsc::Sender<(AppendEntriesRequest<Types>, Back)>,
    proposals: mpsc::Sender<(Proposal, Reply)>,
    pulse: Mutex<Pulse>,
    /// A majority answers, as long as this one leads.
    majority: AtomicBool,
    /// The term that was in force when this process began. It may have led in it before, and sent entries that its log does not have: it
    /// never leads in that one again, or two entries could share a name.
    born: u64,
    majority_changed: Notify,
    /// Another history of the range that wins over this one, and until when that counts.
    outlived: Mutex<Option<(RangeId, Instant)>>,
    shared: Shared,
    /// Raft is being ended in order: its end is no news.
    stopping: AtomicBool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Does not lead, or does not yet know all that was committed; who leads, as far as it is known.
    Following(Option<(ReplicaId, NodeId)>),
    /// Leads, and has applied all that earlier leaders committed.
    Leading,
    /// For good, because of this.
    Stopped(String),
}

/// Where the reply to an append goes.
pub(crate) enum Back {
    Alone(Reply),
    Gathered(oneshot::Sender<Bytes>),
}

impl Back {
    pub(crate) fn send(self, bytes: Bytes) {
        match self {
            Self::Alone(reply) => reply.send(bytes),
            // Nobody gathers any more.
            Self::Gathered(sender) => _ = sender.send(bytes),
        }
    }
}

/// When this replica heard of a leader last, and how long it will be patient.
struct Pulse {
    heard: Instant,
    /// When it campaigned last, or heard; and when it asked whether it is still a member, and how often.
    campaigned: Instant,
    asked: (Instant, usize),
    patience: Duration,
    random: u64,
}

/// What a replica shares with the others of its node.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<KvConfig>,
    pub(crate) node: NodeId,
    /// The life of the disk.
    pub(crate) store: u64,
    /// Where the lives of this run's proposers begin.
    pub(crate) life: u64,
    pub(crate) log: Arc<dyn Engine>,
    pub(crate) data: Arc<dyn Engine>,
    pub(crate) writer: Arc<LogWriter>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Arc<dyn KvObserver>,
    pub(crate) space: Arc<Space>,
    pub(crate) meshed: Option<Arc<Meshed>>,
    /// Counts what is of interest to whoever balances.
    pub(crate) changes: watch::Sender<u64>,
    /// Held for the lock of the directory, by whoever may still write there.
    pub(crate) _home: Option<Arc<Home>>,
}

impl Shared {
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

/// For so long a history that was told of a better one takes no commands, unless it is told again: the other one may be gone. Its leader
/// is told at least every 30 s as long as it is there.
const OUTLIVED: Duration = Duration::from_secs(60);
const PURGE_AGAIN: Duration = Duration::from_millis(20);
const FLUSH_WAIT: Duration = Duration::from_secs(1);
/// A leader that no majority answered for so long says that it does not lead.
const MAJORITY_LOST: Duration = Duration::from_secs(1);
/// Appends that wait for Raft, proposals of other nodes that do.
const APPENDS_WAITING: usize = 256;
const PROPOSALS_WAITING: usize = 256;

/// openraft's clock is driven from outside, one for all ranges of the node ([`Replica::beat`]): what remains of its own are time limits.
/// It respects a leader for `election_timeout_max` after its last word.
fn raft_config(config: &KvConfig) -> openraft::Config {
    let lease = config.election.0.saturating_sub(config.heartbeat).as_millis() as u64;
    openraft::Config {
        heartbeat_interval: lease * 3 / 4,
        election_timeout_min: lease * 7 / 8,
        election_timeout_max: lease,
        enable_tick: false,
        enable_pre_vote: Some(true),
        // A leader that starts anew has not applied all that it acknowledged, and does not know how much that was: only an election
        // tells. openraft's default would let it go on.
        enable_leader_restore: Some(false),
        // When to flush and purge is decided by bytes too, which openraft does not count: `Machine::purge_due`.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1,
        max_payload_entries: 64,
        // A disk that may forget what it acknowledged is what `NoSync` means.
        allow_log_reversion: Some(config.durability == Durability::NoSync),
        backoff: "50ms 100ms 200ms ..500ms".into(),
        api_channel_size: Some(256),
        notification_channel_size: Some(1024),
        state_machine_channel_size: Some(256),
        ..openraft::Config::default()
    }
}

impl Replica {
    /// Starts the replica of a slot; with `fresh` it becomes the only voter of its range.
    pub(crate) async fn start(
        shared: &Shared,
        store: &'static str,
        range: RangeId,
        id: ReplicaId,
        coproc: SharedCoproc,
        settle: Arc<dyn Settle>,
        fresh: bool,
    ) -> Result<Arc<Self>, KvError> {
        let Shared { config, node, log, data, writer, meshed, .. } = shared.clone();
        let slot = Slot(id.counter);
        let failed = |doing| move |error: String| KvError { doing, cause: error };
        let progress = Arc::new(Progress::default());
        let staging = config.data_dir.join("staging");
        let limits = [config.log_entries, config.log_bytes];
        let machine = {
            let (log, data, progress) = (Arc::clone(&log), Arc::clone(&data), Arc::clone(&progress));
            let staging = staging.clone();
            crate::off_thread::off_thread(move || {
                Machine::open(slot, log, data, coproc, settle, progress, staging, limits)
            })
        };
        let machine = Arc::new(machine.await.map_err(|e| failed("open a range")(e.to_string()))??);
        let log_store = LogStore::open(slot, log, data, Arc::clone(&writer), progress)?;
        let state_machine = StateMachine::new(Arc::clone(&machine), writer);
        let raft_config = raft_config(&config).validate().map_err(|e| failed("configure Raft")(e.to_string()))?;
        let network = Peers { range, from: id, mesh: meshed, staging };
        let raft = Raft::new(id, Arc::new(raft_config), network, log_store, state_machine);
        #[cfg(feature = "sim")]
        let raft = crate::sim::seeded(raft);
        let raft = raft.await;
        let raft = raft.map_err(|e| failed("start Raft")(e.to_string()))?;
        let born = raft.with_raft_state(|state| state.vote_ref().leader_id.term).await;
        let born = born.map_err(|e| failed("start Raft")(e.to_string()))?;
        let initialized = raft.is_initialized().await.map_err(|e| failed("start Raft")(e.to_string()))?;
        if fresh && !initialized {
            let members = BTreeMap::from([(id, Host(node))]);
            raft.initialize(members).await.map_err(|e| failed("make a range")(e.to_string()))?;
        }
        // Nobody else votes: no reason to wait for silence.
        if raft.voter_ids().eq([id]) {
            raft.trigger().elect(false).await.map_err(|e| failed("start Raft")(e.to_string()))?;
        }
        let (appends, append_receiver) = mpsc::channel(APPENDS_WAITING);
        let (proposals, proposal_receiver) = mpsc::channel(PROPOSALS_WAITING);
        let pulse = Pulse {
            heard: Instant::now(),
            campaigned: Instant::now(),
            asked: (Instant::now(), 0),
            patience: config.election.1,
            random: id.store ^ id.counter.rotate_left(32) ^ shared.life | 1,
        };
        let replica = Arc::new(Self {
            store,
            range,
            id,
            machine,
            raft,
            phase: watch::Sender::new(Phase::Following(None)),
            incoming: tokio::sync::Mutex::default(),
            appends,
            proposals,
            pulse: Mutex::new(pulse),
            majority: AtomicBool::new(true),
            born,
            majority_changed: Notify::new(),
            outlived: Mutex::default(),
            shared: shared.clone(),
            stopping: AtomicBool::new(false),
        });
        replica.heard();
        tokio::spawn(follow(Arc::clone(&replica)));
        tokio::spawn(purge(Arc::clone(&replica)));
        tokio::spawn(take_appends(Arc::clone(&replica), append_receiver));
        tokio::spawn(take_proposals(Arc::clone(&replica), proposal_receiver));
        Ok(replica)
    }

    /// Appends of a leader, in the order of the calls.
    pub(crate) fn append(&self, request: AppendEntriesRequest<Types>, back: Back) {
        // Too many wait: dropped, which is told as a refusal.
        let _ = self.appends.try_send((request, back));
    }

    /// An entry of another node, in the order of the calls.
    pub(crate) fn propose(&self, proposal: Proposal, reply: Reply) {
        let _ = self.proposals.try_send((proposal, reply));
    }

    /// How far others must have applied to have all that is committed now; when this one surely leads.
    pub(crate) async fn read_index(&self) -> Option<u64> {
        let linearizer = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await.ok()?;
        Some(linearizer.read_log_id().index())
    }

    /// The leader, as far as it is known here.
    pub(crate) fn leader(&self) -> Option<(ReplicaId, NodeId)> {
        match *self.phase.borrow() {
            Phase::Leading => Some((self.id, self.shared.node)),
            Phase::Following(leader) => leader,
            Phase::Stopped(_) => None,
        }
    }

    /// Why it stopped, if so.
    pub(crate) fn fault(&self) -> Option<String> {
        match &*self.phase.borrow() {
            Phase::Stopped(cause) => Some(cause.clone()),
            _ => None,
        }
    }

    /// Another history of the range was found, which wins: this one takes no commands of this node for a while.
    pub(crate) fn outlive(&self, winner: RangeId) {
        let until = Instant::now() + OUTLIVED;
        let before = self.outlived.lock().replace((winner, until));
        if before.is_none_or(|(_, until)| until <= Instant::now()) {
            tracing::warn!(
                store = self.store, range = %self.range, %winner,
                "another history of this range exists, which wins; no commands are taken here"
            );
            self.shared.changed();
        }
    }

    /// The history that wins over this one.
    pub(crate) fn outlived(&self) -> Option<RangeId> {
        self.outlived.lock().filter(|(_, until)| *until > Instant::now()).map(|(winner, _)| winner)
    }

    fn why_outlived(&self) -> Option<String> {
        let winner = self.outlived()?;
        Some(format!(
            "another history of this range exists: {winner}, which wins over {}; no commands are taken",
            self.range
        ))
    }

    /// Returns when it has stopped, and why.
    pub(crate) async fn stopped(&self) -> String {
        // The sender lives as long as `self`.
        let _ = self.phase.subscribe().wait_for(|phase| matches!(phase, Phase::Stopped(_))).await;
        self.fault().unwrap_or_default()
    }

    /// Ends the replica.
    pub(crate) async fn stop(&self, why: &str) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(range = %self.range, %error, "Raft did not stop cleanly");
        }
        self.machine.close().await;
        self.halt(why);
    }

    fn halt(&self, why: &str) {
        self.phase.send_if_modified(|phase| {
            let first = !matches!(phase, Phase::Stopped(_));
            if first {
                *phase = Phase::Stopped(why.to_owned());
            }
            first
        });
        self.shared.changed();
    }

    /// A leader, or a candidate that got this one's vote, was heard.
    pub(crate) fn heard(&self) {
        let mut pulse = self.pulse.lock();
        pulse.heard = Instant::now();
        pulse.campaigned = pulse.heard;
        pulse.be_patient(&self.shared.config);
    }

    /// Tells, once per `after`, that it heard of no leader for so long; and how often it did.
    pub(crate) fn forsaken(&self, after: Duration) -> Option<usize> {
        let mut pulse = self.pulse.lock();
        let forsaken = pulse.heard.elapsed() > after && pulse.asked.0.elapsed() > after;
        forsaken.then(|| {
            pulse.asked = (Instant::now(), pulse.asked.1 + 1);
            pulse.asked.1
        })
    }

    /// Whether Raft says that it leads.
    pub(crate) fn is_leader(&self) -> bool {
        self.raft.server_metrics().borrow_watched().state == ServerState::Leader
    }

    /// Called twice per heartbeat, for all replicas of the node at the same time, so that their heartbeats meet: a leader tells that it
    /// is there, and looks whether a majority answers; a voter whose patience has ended campaigns.
    pub(crate) fn beat(&self, with_heartbeat: bool) {
        let metrics = self.raft.server_metrics();
        let (state, voter, alone) = {
            let now = metrics.borrow_watched();
            let members = now.membership_config.membership();
            let voter = now.membership_config.voter_ids().any(|id| id == self.id);
            (now.state, voter, members.nodes().nth(1).is_none())
        };
        match state {
            ServerState::Leader => {
                if with_heartbeat && !alone {
                    // A core that is too busy to take this has no need of it.
                    let _ = self.raft.trigger().heartbeat().now_or_never();
                }
                self.count_majority(alone);
                self.heard();
            }
            ServerState::Follower | ServerState::Candidate if voter => {
                let impatient = {
                    let mut pulse = self.pulse.lock();
                    let impatient = pulse.campaigned.elapsed() > pulse.patience;
                    if impatient {
                        pulse.campaigned = Instant::now();
                        pulse.be_patient(&self.shared.config);
                        // The lease of the old leader is over; only other candidates are to be kept clear of.
                        pulse.patience -= self.shared.config.election.0 / 2;
                    }
                    impatient
                };
                if impatient {
                    let _ = self.raft.trigger().elect(true).now_or_never();
                }
            }
            _ => {}
        }
    }

    fn count_majority(&self, alone: bool) {
        let metrics = self.raft.metrics();
        let answered =
            alone || metrics.borrow_watched().last_quorum_acked.is_none_or(|acked| acked.elapsed() < MAJORITY_LOST);
        if self.majority.swap(answered, Ordering::AcqRel) != answered {
            if !answered {
                tracing::warn!(store = self.store, range = %self.range, "leads, but no majority answers");
            }
            self.majority_changed.notify_one();
        }
    }

    /// The voter that should lead next: of those that answer, the one whose log is furthest.
    pub(crate) fn successor(&self) -> Option<ReplicaId> {
        self.successors().into_iter().next()
    }

    /// The voters that could lead next, the best first.
    pub(crate) fn successors(&self) -> Vec<ReplicaId> {
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        let Some((replication, heartbeat)) = now.replication.as_ref().zip(now.heartbeat.as_ref()) else {
            return Vec::new();
        };
        let fresh = |id: &ReplicaId| {
            heartbeat.get(id).is_some_and(|at| at.is_some_and(|at| at.elapsed() < self.shared.config.election.0 * 2))
        };
        let mut voters: Vec<_> = now.membership_config.voter_ids().filter(|id| *id != self.id && fresh(id)).collect();
        let matched = |id: &ReplicaId| replication.get(id).copied().flatten().map(|id| id.index);
        voters.sort_by_key(|id| std::cmp::Reverse(matched(id)));
        voters
    }

    /// The membership that is in force, whether committed or not.
    pub(crate) fn membership(&self) -> Arc<StoredMembership> {
        Arc::clone(&self.raft.server_metrics().borrow_watched().membership_config)
    }

    fn role(&self, state: ServerState) -> Role {
        match (&*self.phase.borrow(), state) {
            (Phase::Stopped(_), _) | (_, ServerState::Shutdown) => Role::Stopped,
            (_, ServerState::Learner) => Role::Learner,
            (_, ServerState::Follower) => Role::Follower,
            (_, ServerState::Candidate) => Role::Candidate,
            (_, ServerState::Leader) => Role::Leader,
        }
    }

    /// What a balancer sees of it.
    pub(crate) fn view(&self) -> ReplicaView {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let last = self.raft.data_metrics().borrow_watched().last_log;
        let membership = metrics.membership_config.membership();
        let nodes: BTreeMap<ReplicaId, NodeId> = membership.nodes().map(|(id, host)| (*id, host.0)).collect();
        let voters: BTreeMap<_, _> = membership.voter_ids().filter_map(|id| Some((id, *nodes.get(&id)?))).collect();
        let learners = nodes.into_iter().filter(|(id, _)| !voters.contains_key(id)).collect();
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
        let matched = metrics.replication.iter().flatten().map(|(id, upto)| (*id, index(*upto))).collect();
        ReplicaView {
            range: self.range,
            replica: self.id,
            role: self.role(metrics.state),
            term: metrics.current_term,
            leader: metrics.current_leader,
            config: index(*metrics.membership_config.log_id()),
            changing: membership.get_joint_config().len() > 1
                || metrics.membership_config != metrics.committed_membership_config,
            voters,
            learners,
            last: last.map_or((0, 0), |id| (id.committed_leader_id().term, id.index)),
            committed: index(metrics.local_committed),
            applied: index(metrics.last_applied),
            matched,
            fault: self
                .fault()
                .or(metrics.running_state.err().map(|fatal| fatal.to_string()))
                .or_else(|| self.why_outlived()),
        }
    }

    pub(crate) fn stats(&self) -> RangeStats {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let phase = match (&metrics.running_state, self.phase.borrow().clone()) {
            (Err(fatal), Phase::Following(_) | Phase::Leading) => Phase::Stopped(fatal.to_string()),
            (_, phase) => phase,
        };
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
        let space = &self.shared.space;
        RangeStats {
            store: self.store,
            range: self.range,
            replica: self.id,
            role: if matches!(phase, Phase::Stopped(_)) { Role::Stopped } else { self.role(metrics.state) },
            term: metrics.current_term,
            leader: metrics.current_leader,
            voters: metrics.membership_config.voter_ids().count(),
            last_index: metrics.last_log_index.unwrap_or(0),
            committed_index: index(metrics.local_committed),
            applied_index: index(metrics.last_applied),
            purged_index: index(metrics.purged),
            waiting_commands: 0,
            waiting_bytes: 0,
            unready: match phase {
                Phase::Stopped(cause) => Some(cause),
                _ if self.outlived().is_some() => self.why_outlived(),
                Phase::Following(None) => Some("no leader yet, or not all is applied that was committed".into()),
                _ if space.full(self.shared.clock.now()) => {
                    Some(MutateError::NoSpace { free: space.free(), needed: space.needed() }.to_string())
                }
                _ => None,
            },
        }
    }
}

impl Pulse {
    /// Draws anew how long it will be patient: xorshift, seeded by who it is.
    fn be_patient(&mut self, config: &KvConfig) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let (least, most) = config.election;
        let spread = most.saturating_sub(least).as_millis().max(1) as u64;
        self.patience = least + Duration::from_millis(self.random % spread);
    }
}

/// Gives the appends of leaders to Raft, in their order, many at the same time.
async fn take_appends(replica: Arc<Replica>, mut appends: mpsc::Receiver<(AppendEntriesRequest<Types>, Back)>) {
    let mut pending = FuturesOrdered::new();
    let mut phase = replica.phase.subscribe();
    loop {
        tokio::select! {
            biased;
            append = appends.recv(), if pending.len() < APPENDS_WAITING => {
                let Some((request, back)) = append else { return };
                let replica = Arc::clone(&replica);
                pending.push_back(async move {
                    let outcome = replica.raft.append_entries(request).await;
                    let done = match &outcome {
                        Ok(response) => {
                            if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                                replica.heard();
                            }
                            Ok(wire::append_reply(response))
                        }
                        Err(error) => Err(Refusal::Failed(error.to_string())),
                    };
                    back.send(wire::reply(done));
                });
            }
            Some(()) = pending.next(), if !pending.is_empty() => {}
            _ = phase.wait_for(|phase| matches!(phase, Phase::Stopped(_))) => return,
        }
    }
}

/// Gives the entries of other nodes to Raft, in their order.
async fn take_proposals(replica: Arc<Replica>, mut proposals: mpsc::Receiver<(Proposal, Reply)>) {
    let mut phase = replica.phase.subscribe();
    loop {
        let (proposal, reply) = tokio::select! {
            proposal = proposals.recv() => match proposal {
                Some(proposal) => proposal,
                None => return,
            },
            _ = phase.wait_for(|phase| matches!(phase, Phase::Stopped(_))) => return,
        };
        if *replica.phase.borrow() != Phase::Leading {
            reply.send(wire::reply(Err(Refusal::NotLeader(replica.leader()))));
            continue;
        }
        let callback = Callback(Box::new(move |result: ClientWriteResult<Types>| {
            let outcome = match result {
                Ok(_) => Ok(wire::done(0)),
                Err(ClientWriteError::ForwardToLeader(to)) => {
                    Err(Refusal::NotLeader(to.leader_id.zip(to.leader_node.map(|host| host.0))))
                }
                Err(error) => Err(Refusal::Failed(error.to_string())),
            };
            reply.send(wire::reply(outcome));
        }));
        let proposal = proposal.restamped(replica.shared.clock.wall());
        // When Raft has ended the reply is dropped, and who sent it looks for another leader.
        let _ = replica.raft.client_write_ff(proposal, Some(callback)).await;
    }
}

/// Tells phase and coprocessor what the replica is, until it is stopped.
async fn follow(replica: Arc<Replica>) {
    let mut metrics = replica.raft.server_metrics();
    let mut led_in = None;
    let mut members = None;
    let mut told = false;
    loop {
        let (leads, again, leader, config) = {
            let now = metrics.borrow_and_update();
            let majority = replica.majority.load(Ordering::Acquire);
            let again = now.state == ServerState::Leader && now.vote.leader_id.term <= replica.born;
            let leads = (now.state == ServerState::Leader && majority && !again).then_some(now.vote.leader_id);
            let leader = now.current_leader.filter(|leader| *leader != replica.id);
            let node =
                leader.and_then(|leader| now.membership_config.membership().get_node(&leader).map(|host| host.0));
            (
                leads,
                again,
                leader.zip(node),
                (now.state, *now.membership_config.log_id(), *now.committed_membership_config.log_id()),
            )
        };
        if members != Some(config) {
            members = Some(config);
            replica.shared.changed();
        }
        if leads != led_in {
            if led_in.take().is_some() {
                replica.machine.on_leader(false);
            }
            if leads.is_some() {
                let sure = timeout(MAJORITY_LOST, replica.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await;
                if matches!(sure, Ok(Ok(_))) {
                    led_in = leads;
                    replica.machine.on_leader(true);
                    replica.phase.send_replace(Phase::Leading);
                    replica.shared.changed();
                    tracing::info!(store = replica.store, range = %replica.range, replica = %replica.id, "leads");
                    finish_change(&replica);
                    continue;
                }
            }
        }
        if led_in.is_none() {
            let changed = replica.phase.send_if_modified(|phase| {
                let following = Phase::Following(leader);
                let changed = *phase != following && !matches!(phase, Phase::Stopped(_));
                if changed {
                    *phase = following;
                }
                changed
            });
            if changed {
                replica.shared.changed();
            }
        }
        if again && let Some(to) = replica.successor() {
            if !std::mem::replace(&mut told, true) {
                tracing::error!(store = replica.store, range = %replica.range, %to, "leads as before its start; another one shall");
            }
            // What can't be sent now is tried again.
            let _ = replica.raft.trigger().transfer_leader(to).await;
        }
        // To lead and not be sure of it is looked at again soon.
        let unsure = again || leads.is_some() && led_in.is_none();
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { break },
            () = replica.majority_changed.notified() => {}
            () = sleep(PURGE_AGAIN), if unsure => {}
        }
    }
    let state = replica.raft.metrics().borrow_watched().running_state.clone();
    let cause = match state {
        Err(fatal) => fatal.to_string(),
        Ok(()) => "Raft ended".to_owned(),
    };
    if replica.fault().is_none() && !replica.stopping.load(Ordering::Relaxed) {
        tracing::error!(store = replica.store, range = %replica.range, cause, "the replica stopped");
    }
    replica.machine.on_leader(false);
    replica.halt(&cause);
}

/// A change of voters that an earlier leader did not finish is finished.
fn finish_change(replica: &Arc<Replica>) {
    let membership = replica.membership();
    let Some(target) = membership.membership().get_joint_config().get(1).cloned() else { return };
    let replica = Arc::clone(replica);
    tokio::spawn(async move {
        if let Err(error) = replica.raft.change_membership(target, false).await {
            tracing::warn!(range = %replica.range, %error, "a change of voters is not finished yet");
        }
    });
}

/// Flushes the data and purges the log whenever enough was applied.
async fn purge(replica: Arc<Replica>) {
    let mut phase = replica.phase.subscribe();
    let mut before = None;
    loop {
        tokio::select! {
            () = replica.machine.purge_due() => {}
            _ = phase.wait_for(|phase| matches!(phase, Phase::Stopped(_))) => return,
        }
        if replica.raft.trigger().snapshot().await.is_err() {
            return;
        }
        // openraft ignores the wish while an earlier one is being granted: look again then.
        let mut metrics = replica.raft.metrics();
        let built = timeout(FLUSH_WAIT, metrics.wait_until(|now| now.snapshot.map(|id| id.index) != before)).await;
        if built.is_err() {
            sleep(PURGE_AGAIN).await;
        }
        let (flushed, alone) = {
            let now = metrics.borrow_watched();
            (now.snapshot.map(|id| id.index), now.membership_config.membership().nodes().nth(1).is_none())
        };
        if flushed == before {
            continue;
        }
        // Whoever was away for a while finds what he missed in the log, and needs no snapshot.
        let upto = if alone { flushed } else { before };
        before = flushed;
        if let Some(upto) = upto
            && replica.raft.trigger().purge_log(upto).await.is_err()
        {
            return;
        }
    }
}
