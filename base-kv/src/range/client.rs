use super::proposer;
use super::queue::{Limits, Queue};
use super::reads::Reads;
use super::replica::{Phase, Replica, Shared};
use super::session::Session;
use super::{RangeSpec, RangeStats};
use crate::raft::wire::{Address, kind};
use crate::raft::{Settle, SharedCoproc};
use base_kv_api::{MutateError, MutateFuture};
use base_rpc::{Lane, Service};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// What a node has of a range: its queue and session, which outlive replicas, and the replica of the moment.
pub(crate) struct Client {
    pub(crate) spec: RangeSpec,
    pub(super) queue: Queue,
    pub(super) session: Arc<Session>,
    pub(super) shared: Shared,
    reads: Arc<Reads>,
    place: watch::Sender<Option<Arc<Replica>>>,
    coproc: Mutex<Option<SharedCoproc>>,
    driver: Mutex<Option<AbortHandle>>,
}

/// How long `linearize` waits.
const LINEARIZE_WAIT: Duration = Duration::from_secs(5);
/// How long the leader is given to answer one question.
const READ_WAIT: Duration = Duration::from_secs(1);
const READ_AGAIN: Duration = Duration::from_millis(20);

impl Client {
    /// Begins to propose what will be queued, on the tokio runtime of the caller.
    pub(crate) fn start(shared: &Shared, spec: RangeSpec) -> Arc<Self> {
        let config = &shared.config;
        let queue = Queue::new(Limits {
            queue_commands: config.queue_commands,
            queue_bytes: config.queue_bytes,
            command_bytes: config.command_bytes,
            entry_commands: config.entry_commands,
            entry_bytes: config.entry_bytes,
        });
        let session = Session::new(shared.store, shared.life, spec.store, Arc::clone(&shared.observer));
        let client = Arc::new(Self {
            spec,
            queue,
            session: Arc::new(session),
            shared: shared.clone(),
            reads: Arc::default(),
            place: watch::Sender::new(None),
            coproc: Mutex::default(),
            driver: Mutex::default(),
        });
        let driver = tokio::spawn(proposer::run(Arc::clone(&client)));
        *client.driver.lock() = Some(driver.abort_handle());
        client
    }

    /// The replica of the moment.
    pub(crate) fn replica(&self) -> Option<Arc<Replica>> {
        self.place.borrow().clone()
    }

    pub(super) fn places(&self) -> watch::Receiver<Option<Arc<Replica>>> {
        self.place.subscribe()
    }

    /// Another replica takes the place, or none.
    pub(crate) fn put(&self, replica: Option<Arc<Replica>>) {
        self.place.send_replace(replica);
        self.shared.changed();
    }

    pub(crate) fn coproc(&self) -> Option<SharedCoproc> {
        self.coproc.lock().clone()
    }

    /// Takes the coprocessor in; only the first.
    pub(crate) fn register(&self, coproc: SharedCoproc) -> bool {
        let mut mine = self.coproc.lock();
        let free = mine.is_none();
        if free {
            *mine = Some(coproc);
        }
        free
    }

    pub(crate) fn settle(&self) -> Arc<dyn Settle> {
        Arc::<Session>::clone(&self.session)
    }

    /// Answers all that waits and all that comes.
    pub(crate) fn close(&self, why: &str) {
        self.queue.close(&MutateError::Stopped { cause: why.to_owned() });
        self.session.give_up(None);
        if let Some(driver) = self.driver.lock().take() {
            driver.abort();
        }
    }

    pub(super) fn mutate(&self, command: &[u8], from_reserve: bool) -> MutateFuture {
        let space = &self.shared.space;
        let needed = if from_reserve { space.needed() / 2 } else { space.needed() };
        let pushed = if space.full(self.shared.clock.now()) && space.free() < needed {
            Err(MutateError::NoSpace { free: space.free(), needed })
        } else if self.place.borrow().as_ref().is_some_and(|replica| replica.outlived().is_some()) {
            Err(MutateError::NoLeader)
        } else {
            self.queue.push(command)
        };
        match pushed {
            Ok(answer) => Box::pin(answer),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    pub(super) fn stats(&self) -> Option<RangeStats> {
        let mut stats = self.replica()?.stats();
        (stats.waiting_commands, stats.waiting_bytes) = self.queue.depth();
        Some(stats)
    }

    pub(super) async fn linearize(self: &Arc<Self>) -> Result<(), MutateError> {
        let until = Instant::now() + LINEARIZE_WAIT;
        let client = Arc::clone(self);
        let index = self.reads.index(move || Arc::clone(&client).read_index());
        let index = timeout_at(until, index).await;
        let index = index.map_err(|_| MutateError::NoLeader)?.unwrap_or(Err(MutateError::NoLeader))?;
        let replica = self.replica().ok_or(MutateError::NoLeader)?;
        tokio::select! {
            () = replica.machine.reached(index) => Ok(()),
            cause = replica.stopped() => Err(MutateError::Stopped { cause }),
            () = tokio::time::sleep_until(until) => Err(MutateError::NoLeader),
        }
    }

    /// The index up to which the leader of the moment has committed, by his word that he leads.
    async fn read_index(self: Arc<Self>) -> Result<u64, MutateError> {
        let until = Instant::now() + LINEARIZE_WAIT;
        loop {
            if let Some(replica) = self.replica() {
                let phase = replica.phase.borrow().clone();
                let asked = match phase {
                    Phase::Stopped(cause) => return Err(MutateError::Stopped { cause }),
                    Phase::Leading => timeout(READ_WAIT, replica.read_index()).await.ok().flatten(),
                    Phase::Following(Some((leader, node))) => {
                        let address = Address { range: replica.range, from: replica.id, to: leader };
                        let body = address.head(kind::READ, 0).freeze();
                        match &self.shared.meshed {
                            Some(meshed) => {
                                let asked = meshed.ask(node, Lane::Data, Service::RANGE, body, READ_WAIT).await;
                                asked.ok().and_then(|mut r| r.u64().ok())
                            }
                            None => None,
                        }
                    }
                    Phase::Following(None) => None,
                };
                if let Some(index) = asked {
                    return Ok(index);
                }
            }
            if Instant::now() >= until {
                return Err(MutateError::NoLeader);
            }
            sleep(READ_AGAIN).await;
        }
    }

    pub(super) async fn ready(self: &Arc<Self>) {
        let mut places = self.places();
        loop {
            let replica = places.borrow_and_update().clone();
            match replica {
                Some(replica) if matches!(*replica.phase.borrow(), Phase::Leading) => return,
                Some(replica) if replica.fault().is_none() => match self.linearize().await {
                    Ok(()) => return,
                    Err(_) => sleep(READ_AGAIN).await,
                },
                // The sender lives as long as `self`.
                _ => _ = places.changed().await,
            }
        }
    }
}
