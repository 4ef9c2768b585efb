use super::client::Client;
use super::replica::{Phase, Replica};
use crate::raft::wire::{self, Address, Refusal, kind};
use crate::raft::{Callback, Failed, Proposal};
use base_kv_api::{MutateError, ReplicaId};
use base_rpc::{CallFuture, Lane, Service};
use base_types::NodeId;
use bytes::BufMut;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::raft::ClientWriteResult;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// How often it is looked for what waits too long.
const LOOK: Duration = Duration::from_millis(50);
const BACKOFF: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));
/// What was forwarded, and neither refused nor applied here for so long, is forwarded again; then after twice as long, up to the second.
const QUIET: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

type Places = watch::Receiver<Option<Arc<Replica>>>;

/// Proposes what waits, entry by entry and in order, to whoever leads, with a few on their way at the same time.
pub(super) async fn run(client: Arc<Client>) {
    let mut places = client.places();
    loop {
        let replica = places.borrow_and_update().clone();
        match replica {
            Some(replica) => Proposer::new(&client, replica).run(&mut places).await,
            None => {
                let old = Instant::now().checked_sub(client.shared.config.deadline);
                if old.is_some() {
                    client.queue.refuse_older(old, &MutateError::NoLeader);
                    client.session.give_up(old);
                }
                let idle = client.queue.depth().0 == 0 && client.session.progress().unsettled == 0;
                tokio::select! {
                    _ = places.changed() => {}
                    () = client.queue.filled(), if idle => {}
                    () = tokio::time::sleep(LOOK), if !idle => {}
                }
            }
        }
    }
}

/// Through one replica.
struct Proposer<'a> {
    client: &'a Arc<Client>,
    replica: Arc<Replica>,
    /// Whom it is sent to.
    target: Option<Target>,
    /// A leader that somebody named who was not.
    hint: Option<(ReplicaId, NodeId)>,
    calls: FuturesUnordered<CallFuture>,
    refused: Arc<Refused>,
    life: u64,
    settled: u64,
    /// The number of the last entry that was sent to `target`.
    cursor: u64,
    /// All is sent again, not before this moment.
    again: Option<Instant>,
    backoff: Duration,
    /// When something was settled last, or all was sent; and how long it may be quiet then.
    moved: Instant,
    quiet: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Here,
    There(ReplicaId, NodeId),
}

/// A proposal to the own replica did not make it into the log, or was lost there.
#[derive(Default)]
struct Refused {
    any: AtomicBool,
    told: Notify,
}

/// Tells so unless it was defused.
struct Unless(Option<Arc<Refused>>);

impl Unless {
    fn not(mut self) {
        self.0 = None;
    }
}

impl Drop for Unless {
    fn drop(&mut self) {
        if let Some(refused) = self.0.take() {
            refused.any.store(true, Ordering::Release);
            refused.told.notify_one();
        }
    }
}

impl<'a> Proposer<'a> {
    fn new(client: &'a Arc<Client>, replica: Arc<Replica>) -> Self {
        Self {
            client,
            replica,
            target: None,
            hint: None,
            calls: FuturesUnordered::new(),
            refused: Arc::default(),
            life: 0,
            settled: 0,
            cursor: 0,
            again: None,
            backoff: BACKOFF.0,
            moved: Instant::now(),
            quiet: QUIET.0,
        }
    }

    /// Until another replica takes the place.
    async fn run(mut self, places: &mut Places) {
        let client = self.client;
        let config = &client.shared.config;
        let replica = Arc::clone(&self.replica);
        let mut phase = replica.phase.subscribe();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        client.queue.open();
        loop {
            let now_phase = phase.borrow_and_update().clone();
            let target = match now_phase {
                Phase::Stopped(cause) => {
                    client.queue.close(&MutateError::Stopped { cause });
                    client.session.give_up(None);
                    // The sender lives as long as the client.
                    let _ = places.changed().await;
                    return;
                }
                Phase::Leading => Some(Target::Here),
                Phase::Following(leader) => self.hint.or(leader).map(|(leader, node)| Target::There(leader, node)),
            };
            let progress = client.session.progress();
            if progress.settled != self.settled {
                self.settled = progress.settled;
                self.backoff = BACKOFF.0;
                // A long way takes its time.
                self.quiet = (self.moved.elapsed() * 2).clamp(QUIET.0, QUIET.1);
                self.moved = Instant::now();
            }
            if progress.life != self.life {
                (self.life, self.cursor) = (progress.life, 0);
            }
            if progress.gap || self.refused.any.swap(false, Ordering::AcqRel) {
                self.try_again();
            }
            if target != self.target {
                (self.target, self.cursor, self.again) = (target, 0, None);
            }
            if self.again.is_some_and(|at| at <= Instant::now()) {
                (self.cursor, self.again) = (0, None);
            }
            if progress.unsettled == 0 {
                self.moved = Instant::now();
            } else if matches!(self.target, Some(Target::There(..))) && self.moved.elapsed() >= self.quiet {
                // Neither a reply nor the lack of one says that an entry will be applied here: only that it was. Once too often does no harm.
                self.cursor = 0;
                self.moved = Instant::now();
                self.quiet = (self.quiet * 2).min(QUIET.1);
            }
            let window = match self.target {
                Some(Target::Here) => config.entries_in_flight.max(1),
                _ => config.forwards_in_flight.max(1),
            };
            let mut unsettled = progress.unsettled;
            if let (Some(target), None) = (self.target, self.again) {
                if self.cursor == 0 || unsettled > 0 {
                    for (seq, proposal) in client.session.after(self.cursor) {
                        self.send(target, seq, proposal, true).await;
                    }
                }
                while unsettled < window
                    && let Some(entry) = client.queue.take()
                {
                    let (seq, proposal) = client.session.begin(entry, client.shared.clock.wall());
                    unsettled += 1;
                    self.send(target, seq, proposal, false).await;
                }
            }
            let open = self.target.is_some() && self.again.is_none() && unsettled < window;
            let idle = client.queue.depth().0 == 0;
            let again = self.again;
            let refused = Arc::clone(&self.refused);
            tokio::select! {
                () = client.session.changed() => {}
                () = client.queue.filled(), if open || idle => {}
                Some(called) = self.calls.next(), if !self.calls.is_empty() => self.called(called),
                () = refused.told.notified() => {}
                _ = phase.changed() => self.hint = None,
                _ = places.changed() => return,
                () = async { sleep_until(again.unwrap_or_else(Instant::now)).await }, if again.is_some() => {}
                _ = look.tick(), if !idle || unsettled > 0 => self.expire(),
            }
        }
    }

    /// What waits for too long is given up.
    fn expire(&self) {
        let Some(then) = Instant::now().checked_sub(self.client.shared.config.deadline) else { return };
        self.client.queue.refuse_older(Some(then), &MutateError::NoLeader);
        self.client.session.give_up(Some(then));
    }

    fn try_again(&mut self) {
        if self.again.is_none() {
            self.again = Some(Instant::now() + self.backoff);
            self.backoff = (self.backoff * 2).min(BACKOFF.1);
        }
    }

    async fn send(&mut self, target: Target, seq: u64, proposal: Proposal, sent_before: bool) {
        self.cursor = seq;
        match target {
            Target::Here => {
                let unless = Unless(Some(Arc::clone(&self.refused)));
                let callback = Callback(Box::new(move |result: ClientWriteResult<crate::raft::Types>| {
                    if result.is_ok() {
                        unless.not();
                    }
                }));
                let proposal = if sent_before { proposal.restamped(self.client.shared.clock.wall()) } else { proposal };
                // When Raft has ended, whoever watches the replica finds the cause.
                let _ = self.replica.raft.client_write_ff(proposal, Some(callback)).await;
            }
            Target::There(leader, node) => {
                let Some(meshed) = &self.client.shared.meshed else { return };
                let address = Address { range: self.replica.range, from: self.replica.id, to: leader };
                let mut body = address.head(kind::PROPOSE, proposal.0.len());
                body.put_slice(&proposal.0);
                let deadline = self.client.shared.config.deadline;
                let call = meshed.mesh.call(node, Lane::Data, Service::RANGE, body.freeze(), deadline);
                self.calls.push(call);
            }
        }
    }

    /// An entry that was forwarded is committed, and will be applied here; or it is sent again.
    fn called(&mut self, called: Result<bytes::Bytes, base_rpc::CallError>) {
        let refusal = match called.map_err(Failed::from).and_then(|bytes| Ok(wire::read_reply(bytes)?)) {
            Ok(_) => return,
            Err(failed) => failed,
        };
        self.hint = match refusal {
            Failed::Refused(Refusal::NotLeader(hint)) => hint.filter(|(leader, _)| *leader != self.replica.id),
            _ => None,
        };
        self.try_again();
    }
}
