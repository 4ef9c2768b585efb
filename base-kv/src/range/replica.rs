use super::queue::{Limits, Queue};
use super::{Range, RangeSpec, proposer};
use crate::config::KvConfig;
use crate::engine::Engine;
use crate::home::Home;
use crate::id::{RangeId, ReplicaId};
use crate::raft::{Host, LogStore, LogWriter, Machine, NoPeers, Progress, Raft, Slot, StateMachine};
use crate::space::Space;
use crate::stats::{KvObserver, RangeStats, Role};
use base_kv_api::{Coproc, KvError, MutateError, MutateFuture};
use base_types::{Clock, NodeId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{ReadPolicy, ServerState};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// A replica that runs.
pub(crate) struct Replica {
    pub(crate) store: &'static str,
    pub(crate) range: RangeId,
    pub(crate) id: ReplicaId,
    pub(crate) machine: Arc<Machine>,
    pub(super) queue: Queue,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) observer: Arc<dyn KvObserver>,
    space: Arc<Space>,
    _home: Option<Arc<Home>>,
    raft: Raft,
    /// Raft is being ended in order: its end is no news.
    stopping: AtomicBool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Does not lead, or does not yet know all that was committed.
    Following,
    /// Leads, and has applied all that earlier leaders committed.
    Leading,
    /// For good, because of this.
    Stopped(String),
}

/// What a replica shares with the others of its node.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<KvConfig>,
    pub(crate) node: NodeId,
    pub(crate) log: Arc<dyn Engine>,
    pub(crate) data: Arc<dyn Engine>,
    pub(crate) writer: Arc<LogWriter>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Arc<dyn KvObserver>,
    pub(crate) space: Arc<Space>,
    /// Held for the lock of the directory, by whoever may still write there.
    pub(crate) _home: Option<Arc<Home>>,
}

/// How long `linearize` waits.
const LINEARIZE_WAIT: Duration = Duration::from_secs(5);

const PURGE_AGAIN: Duration = Duration::from_millis(20);

fn raft_config() -> openraft::Config {
    openraft::Config {
        heartbeat_interval: 250,
        election_timeout_min: 800,
        election_timeout_max: 1600,
        enable_pre_vote: Some(true),
        // When to flush and purge is decided by bytes too, which openraft does not count: `Machine::purge_due`.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        // With one voter nobody else needs what is applied and flushed.
        max_in_snapshot_log_to_keep: 0,
        purge_batch_size: 1,
        // The proposer has a few entries on their way, not thousands.
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
        spec: RangeSpec,
        range: RangeId,
        id: ReplicaId,
        coproc: Box<dyn Coproc>,
    ) -> Result<Range, KvError> {
        let Shared { config, node, log, data, writer, clock, observer, space, _home } = shared.clone();
        let slot = Slot(id.counter);
        let failed = |doing| move |error: String| KvError { doing, cause: error };
        let progress = Arc::new(Progress::default());
        let staging = config.data_dir.join("staging");
        let limits = [config.log_entries, config.log_bytes];
        let machine = {
            let (log, data, progress) = (Arc::clone(&log), Arc::clone(&data), Arc::clone(&progress));
            tokio::task::spawn_blocking(move || Machine::open(slot, log, data, coproc, progress, staging, limits))
        };
        let machine = Arc::new(machine.await.map_err(|e| failed("open a range")(e.to_string()))??);
        let store = LogStore::open(slot, log, data, Arc::clone(&writer), progress)?;
        let state_machine = StateMachine::new(Arc::clone(&machine), writer);
        let raft_config = raft_config().validate().map_err(|e| failed("configure Raft")(e.to_string()))?;
        let network = NoPeers { range, from: id };
        let raft = Raft::new(id, Arc::new(raft_config), network, store, state_machine).await;
        let raft = raft.map_err(|e| failed("start Raft")(e.to_string()))?;
        let initialized = raft.is_initialized().await.map_err(|e| failed("start Raft")(e.to_string()))?;
        if initialized {
            // Nobody else votes: no reason to wait for silence.
            if raft.voter_ids().eq([id]) {
                raft.trigger().elect(false).await.map_err(|e| failed("start Raft")(e.to_string()))?;
            }
        } else {
            let members = BTreeMap::from([(id, Host(node))]);
            raft.initialize(members).await.map_err(|e| failed("make a range")(e.to_string()))?;
        }
        let queue = Queue::new(Limits {
            queue_commands: config.queue_commands,
            queue_bytes: config.queue_bytes,
            command_bytes: config.command_bytes,
            entry_commands: config.entry_commands,
            entry_bytes: config.entry_bytes,
        });
        let phase = watch::Sender::new(Phase::Following);
        let store = spec.store;
        let replica = Self {
            store,
            range,
            id,
            machine,
            queue,
            phase,
            clock,
            observer,
            space,
            _home,
            raft: raft.clone(),
            stopping: AtomicBool::new(false),
        };
        let replica = Arc::new(replica);
        tokio::spawn(follow(Arc::clone(&replica)));
        tokio::spawn(purge(Arc::clone(&replica)));
        tokio::spawn(proposer::run(Arc::clone(&replica), raft, config.entries_in_flight));
        Ok(Range { replica })
    }

    /// Bytes that are kept free.
    pub(super) fn needed(&self) -> u64 {
        self.space.needed()
    }

    /// Proposes a command for which so much of the disk must be free.
    pub(super) fn mutate(&self, command: &[u8], needed: u64) -> MutateFuture {
        let pushed = if self.space.full(self.clock.now()) && self.space.free() < needed {
            Err(MutateError::NoSpace { free: self.space.free(), needed })
        } else {
            self.queue.push(command)
        };
        match pushed {
            Ok(answer) => Box::pin(answer),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    pub(super) async fn linearize(&self) -> Result<(), MutateError> {
        let confirmed =
            tokio::time::timeout(LINEARIZE_WAIT, self.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await;
        match confirmed {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.stopped().map_or(MutateError::NoLeader, |cause| MutateError::Stopped { cause })),
        }
    }

    pub(super) async fn ready(&self) {
        // The sender lives as long as `self`: this ends only with the wanted phase.
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Leading).await;
    }

    fn stopped(&self) -> Option<String> {
        match &*self.phase.borrow() {
            Phase::Stopped(cause) => Some(cause.clone()),
            _ => None,
        }
    }

    /// Ends the replica; what waits is answered.
    pub(crate) async fn stop(&self, why: &str) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(range = %self.range, %error, "Raft did not stop cleanly");
        }
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
        let cause = self.stopped().unwrap_or_default();
        self.queue.refuse(&MutateError::Stopped { cause }, true);
    }

    pub(crate) fn stats(&self) -> RangeStats {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let (waiting_commands, waiting_bytes) = self.queue.depth();
        let phase = match (&metrics.running_state, self.phase.borrow().clone()) {
            (Err(fatal), Phase::Following | Phase::Leading) => Phase::Stopped(fatal.to_string()),
            (_, phase) => phase,
        };
        let index = |id: Option<crate::raft::LogId>| id.map_or(0, |id| id.index);
        RangeStats {
            store: self.store,
            range: self.range,
            replica: self.id,
            role: match (&phase, metrics.state) {
                (Phase::Stopped(_), _) | (_, ServerState::Shutdown) => Role::Stopped,
                (_, ServerState::Learner) => Role::Learner,
                (_, ServerState::Follower) => Role::Follower,
                (_, ServerState::Candidate) => Role::Candidate,
                (_, ServerState::Leader) => Role::Leader,
            },
            term: metrics.current_term,
            leader: metrics.current_leader,
            voters: metrics.membership_config.voter_ids().count(),
            last_index: metrics.last_log_index.unwrap_or(0),
            committed_index: index(metrics.local_committed),
            applied_index: index(metrics.last_applied),
            purged_index: index(metrics.purged),
            waiting_commands,
            waiting_bytes,
            unready: match phase {
                Phase::Stopped(cause) => Some(cause),
                Phase::Following => Some("no leader yet, or not all is applied that was committed".into()),
                Phase::Leading if self.space.full(self.clock.now()) => {
                    let full = MutateError::NoSpace { free: self.space.free(), needed: self.space.needed() };
                    Some(full.to_string())
                }
                Phase::Leading => None,
            },
        }
    }
}

/// Tells phase and coprocessor what the replica is, until it is stopped.
async fn follow(replica: Arc<Replica>) {
    let mut metrics = replica.raft.server_metrics();
    let mut led_in = None;
    loop {
        let leads = {
            let now = metrics.borrow_watched();
            (now.state == ServerState::Leader).then_some(now.vote.leader_id)
        };
        if leads != led_in {
            if led_in.take().is_some() {
                replica.phase.send_if_modified(|phase| std::mem::replace(phase, Phase::Following) != Phase::Following);
                replica.machine.on_leader(false);
            }
            if leads.is_some() && replica.raft.ensure_linearizable(ReadPolicy::ReadIndex).await.is_ok() {
                led_in = leads;
                replica.machine.on_leader(true);
                replica.phase.send_replace(Phase::Leading);
                tracing::info!(store = replica.store, range = %replica.range, replica = %replica.id, "leads");
                continue;
            }
        }
        if metrics.changed().await.is_err() {
            break;
        }
    }
    let state = replica.raft.metrics().borrow_watched().running_state.clone();
    let cause = match state {
        Err(fatal) => fatal.to_string(),
        Ok(()) => "Raft ended".to_owned(),
    };
    if replica.stopped().is_none() && !replica.stopping.load(Ordering::Relaxed) {
        tracing::error!(store = replica.store, range = %replica.range, cause, "the replica stopped");
    }
    replica.machine.on_leader(false);
    replica.halt(&cause);
}

/// Flushes the data and purges the log whenever enough was applied.
async fn purge(replica: Arc<Replica>) {
    let mut phase = replica.phase.subscribe();
    loop {
        tokio::select! {
            () = replica.machine.purge_due() => {}
            _ = phase.wait_for(|phase| matches!(phase, Phase::Stopped(_))) => return,
        }
        if replica.raft.trigger().snapshot().await.is_err() {
            return;
        }
        // openraft ignores the wish while an earlier one is being granted: look again.
        tokio::time::sleep(PURGE_AGAIN).await;
    }
}
