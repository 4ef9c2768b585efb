//! The calling end: one [`Line`] per peer and lane, and the task that keeps its connection.

use crate::frame::{Frame, Kind};
use crate::hello::Hello;
use crate::mesh::{CallError, Lane, Service};
use crate::pump::{End, Moved, Pump, Side};
use crate::queue::{Limit, Queue};
use crate::refusal::Refusal;
use crate::rpc::{Peer, Shared};
use crate::stats::OneMore;
use base_types::NodeId;
use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Context;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

pub(crate) type Outcome = Result<Bytes, CallError>;

/// One lane to one peer, as callers see it.
#[derive(Debug)]
pub(crate) struct Line {
    to: NodeId,
    pub(crate) lane: Lane,
    limit: Limit,
    max_pending: usize,
    max_body: usize,
    state: Mutex<State>,
    /// Something that a task waits for while it is not pumping has changed.
    kick: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Since when.
    since: Instant,
    /// Which task may act on this state. A line that is reset leaves the task of before alone with itself.
    task: u64,
    queue: Queue,
    pending: HashMap<u32, oneshot::Sender<Outcome>, foldhash::fast::RandomState>,
    next: u32,
    /// Attempts in a row that led nowhere.
    failures: u32,
    /// Why there is no connection; none while there is one, or nothing has been tried.
    cause: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
enum Phase {
    /// No connection, and none is wanted.
    Idle,
    /// Calls wait for the attempt that is being made.
    Connecting,
    Up,
    /// Calls fail, until the next attempt.
    Down {
        until: Instant,
    },
    /// For ever.
    Gone,
}

/// What a line knows about its connection.
#[derive(Clone, Debug)]
pub(crate) enum LineStatus {
    Unknown,
    Up,
    Down(Arc<str>),
}

/// The number of the task to start, when one has to be.
pub(crate) type Start = Option<u64>;

impl Line {
    pub(crate) fn new(to: NodeId, lane: Lane, limit: Limit, max_pending: usize, max_body: usize) -> Self {
        let state = State {
            phase: Phase::Idle,
            since: Instant::now(),
            task: 0,
            queue: Queue::default(),
            pending: HashMap::default(),
            next: 0,
            failures: 0,
            cause: None,
        };
        Self { to, lane, limit, max_pending, max_body, state: Mutex::new(state), kick: Notify::new() }
    }

    /// The raft lane is kept up; the others are connected when somebody calls.
    fn is_kept(&self) -> bool {
        self.lane == Lane::Raft
    }

    /// Queues a frame. Returns its id, and the task to start.
    pub(crate) fn post(
        &self,
        service: Service,
        body: Bytes,
        waiter: Option<oneshot::Sender<Outcome>>,
        raft: &Self,
    ) -> Result<(u32, Start), CallError> {
        if body.len() > self.max_body {
            return Err(self.unreachable(&format!("a body of {} bytes is too large", body.len())));
        }
        let mut state = self.state.lock();
        let starts = !matches!(state.phase, Phase::Up | Phase::Connecting);
        if starts {
            // The raft lane knows whether the peer is there at all. It never waits for us.
            let down = if self.is_kept() { None } else { raft.down() };
            match (&state.phase, down) {
                (Phase::Gone, _) => return Err(self.unreachable("the node is not known any more")),
                (_, Some(cause)) => return Err(self.unreachable(&cause)),
                (Phase::Down { until }, _) if self.is_kept() || Instant::now() < *until => {
                    return Err(self.unreachable(state.why()));
                }
                _ => {}
            }
        } else if self.is_kept() && state.failures > 0 && matches!(state.phase, Phase::Connecting) {
            return Err(self.unreachable(state.why()));
        }
        if waiter.is_some() && state.pending.len() >= self.max_pending {
            return Err(CallError::Busy { to: self.to });
        }
        let (kind, id) = if waiter.is_some() { (Kind::Request, state.fresh()) } else { (Kind::OneWay, 0) };
        let Ok(waker) = state.queue.push(Frame { kind, service, id, body }, self.limit) else {
            return Err(CallError::Busy { to: self.to });
        };
        if let Some(waiter) = waiter {
            state.pending.insert(id, waiter);
        }
        let start = starts.then(|| state.connect());
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok((id, start))
    }

    /// Nobody waits for the reply any more.
    pub(crate) fn forget(&self, id: u32) {
        self.state.lock().pending.remove(&id);
    }

    fn unreachable(&self, cause: &str) -> CallError {
        CallError::Unreachable { to: self.to, cause: cause.to_owned() }
    }

    fn down(&self) -> Option<Arc<str>> {
        self.state.lock().cause.clone()
    }

    pub(crate) fn status(&self) -> (LineStatus, Instant) {
        let state = self.state.lock();
        let status = match (&state.phase, &state.cause) {
            (Phase::Up, _) => LineStatus::Up,
            (_, Some(cause)) => LineStatus::Down(Arc::clone(cause)),
            _ => LineStatus::Unknown,
        };
        (status, state.since)
    }

    /// The peer is elsewhere, or another run, or gone: its connection ends, and what waits with it. A kept line connects anew.
    pub(crate) fn reset(&self, shared: &Shared, cause: &str, gone: bool) -> Start {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Gone) {
            return None;
        }
        state.task += 1;
        state.failures = 0;
        state.cause = None;
        let start = if gone {
            state.turn(Phase::Gone);
            None
        } else if self.is_kept() {
            Some(state.connect())
        } else {
            state.turn(Phase::Idle);
            None
        };
        self.fail(shared, state, cause);
        self.kick.notify_waiters();
        start
    }

    /// The peer has been heard otherwise: an attempt that is put off is made now.
    pub(crate) fn hurry(&self) {
        let mut state = self.state.lock();
        if let Phase::Down { until } = &mut state.phase {
            *until = Instant::now();
            state.failures = 0;
            drop(state);
            self.kick.notify_waiters();
        }
    }

    /// The raft lane has found the peer dead.
    pub(crate) fn bury(&self, shared: &Shared, cause: &Arc<str>) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Up | Phase::Connecting) {
            state.task += 1;
            state.turn(Phase::Down { until: Instant::now() });
            state.cause = Some(Arc::clone(cause));
            self.fail(shared, state, cause);
            self.kick.notify_waiters();
        }
    }

    /// Ends what waits: what has not been given to a connection was not sent, the rest is lost.
    fn fail(&self, shared: &Shared, mut state: MutexGuard<'_, State>, cause: &str) {
        let unsent = state.queue.drain();
        let mut pending = std::mem::take(&mut state.pending);
        drop(state);
        let stats = shared.stats.lane(self.lane);
        stats.unsent.fetch_add(unsent.len() as u64, Relaxed);
        for waiter in unsent.iter().filter_map(|frame| pending.remove(&frame.id)) {
            let _ = waiter.send(Err(self.unreachable(cause)));
        }
        stats.lost.fetch_add(pending.len() as u64, Relaxed);
        // The oldest first: who is told first may try again first.
        let mut lost: Vec<_> = pending.into_iter().collect();
        lost.sort_unstable_by_key(|(id, _)| *id);
        for (_, waiter) in lost {
            let _ = waiter.send(Err(CallError::Lost { to: self.to }));
        }
    }

    /// There is no connection, or no longer. False if the task has been left alone.
    fn failed(&self, shared: &Shared, peer: &Peer, task: u64, was_fine: bool, cause: &Arc<str>) -> bool {
        let Some(mut state) = self.as_task(task) else { return false };
        state.failures = if was_fine { 0 } else { state.failures.saturating_add(1) };
        let first = state.failures == 1;
        // What was fine is tried again at once.
        let pause = if was_fine { Duration::ZERO } else { shared.backoff(state.failures) };
        state.turn(Phase::Down { until: Instant::now() + pause });
        state.cause = Some(Arc::clone(cause));
        self.fail(shared, state, cause);
        if self.is_kept() && !was_fine {
            if first {
                tracing::info!(peer = %self.to, %cause, "peer can't be reached");
            }
            peer.bury(shared, cause);
        }
        true
    }

    /// For the task of that number alone: changes the phase.
    fn as_task(&self, task: u64) -> Option<MutexGuard<'_, State>> {
        Some(self.state.lock()).filter(|state| state.task == task)
    }

    /// Whether this task has been left alone; at once, and whenever that changes.
    async fn left_alone(&self, task: u64) {
        loop {
            let kicked = self.kick.notified();
            let mut kicked = std::pin::pin!(kicked);
            kicked.as_mut().enable();
            if self.state.lock().task != task {
                return;
            }
            kicked.await;
        }
    }

    /// Until the next attempt is due.
    async fn rest(&self, task: u64) {
        loop {
            let kicked = self.kick.notified();
            let mut kicked = std::pin::pin!(kicked);
            kicked.as_mut().enable();
            let until = match self.as_task(task).map(|state| state.phase.clone()) {
                Some(Phase::Down { until }) => until,
                _ => return,
            };
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = kicked => {}
            }
        }
    }
}

impl State {
    fn turn(&mut self, phase: Phase) {
        let up = |phase: &Phase| matches!(phase, Phase::Up);
        if up(&self.phase) != up(&phase) {
            self.since = Instant::now();
        }
        if up(&phase) {
            self.cause = None;
        }
        self.phase = phase;
    }

    fn why(&self) -> &str {
        self.cause.as_deref().unwrap_or("not connected")
    }

    /// A new task connects.
    fn connect(&mut self) -> u64 {
        self.turn(Phase::Connecting);
        self.task += 1;
        self.task
    }

    fn fresh(&mut self) -> u32 {
        loop {
            self.next = self.next.wrapping_add(1).max(1);
            if !self.pending.contains_key(&self.next) {
                return self.next;
            }
        }
    }
}

/// A connection that ended within this time counts as a failed attempt.
const STABLE: Duration = Duration::from_secs(1);

/// Connects a line, and keeps it connected if it is a kept one. The line is in the phase of connecting.
pub(crate) async fn keep(shared: Arc<Shared>, peer: Arc<Peer>, lane: Lane, task: u64) {
    let line = peer.line(lane);
    loop {
        let (attempt, mut was_fine) = (Instant::now(), false);
        let cause = match connect(&shared, &peer, lane, task).await {
            None => return,
            Some(Ok(end)) => {
                tracing::debug!(peer = %peer.node, ?lane, %end, "connection ended");
                // Who went silent will not answer a new connection either, most likely.
                was_fine = end != End::Silent && attempt.elapsed() >= STABLE;
                end.to_string()
            }
            Some(Err(refusal)) => refusal.to_string(),
        };
        let cause: Arc<str> = cause.into();
        if !line.failed(&shared, &peer, task, was_fine, &cause) || !line.is_kept() {
            return;
        }
        line.rest(task).await;
        let Some(mut state) = line.as_task(task) else { return };
        state.turn(Phase::Connecting);
    }
}

/// One connection from beginning to end; none if the task has been left alone.
async fn connect(shared: &Arc<Shared>, peer: &Arc<Peer>, lane: Lane, task: u64) -> Option<Result<End, Refusal>> {
    let line = peer.line(lane);
    let (run, addr) = peer.told();
    let hello = Hello {
        env: shared.passport.env.clone(),
        run: shared.passport.me,
        to: Some(peer.node),
        lane,
        single: false,
        connection: shared.next_connection(),
    };
    let connecting = tokio::time::timeout(shared.timing.connect, shared.passport.call(addr, &hello));
    let proven = tokio::select! {
        biased;
        () = line.left_alone(task) => return None,
        connected = connecting => connected.unwrap_or_else(|_| Err(Refusal::Io("it did not answer in time".into()))),
    };
    let proven = proven.and_then(|proven| match proven.peer {
        other if other.node != peer.node => Err(Refusal::AnotherNode(other)),
        other if other.incarnation < run => Err(Refusal::OlderRun),
        _ => Ok(proven),
    });
    let proven = match proven {
        Ok(proven) => proven,
        Err(refusal) => {
            shared.refused(addr, &refusal, false);
            return Some(Err(refusal));
        }
    };
    // A newer run than we were told of answers: that is news for all lanes. The line's own task goes on.
    peer.heard_of(shared, proven.peer.incarnation, Some(lane));
    {
        let mut state = line.as_task(task)?;
        state.turn(Phase::Up);
    }
    if line.is_kept() {
        tracing::info!(peer = %peer.node, %addr, "peer reached");
        peer.revive();
    }
    let side = Caller {
        shared: Arc::clone(shared),
        peer: Arc::clone(peer),
        lane,
        task,
        pings: 0,
        pinged: Some((0, Instant::now())),
        silent: 0,
        answered: Vec::new(),
    };
    let _one_more = OneMore::of(&shared.stats.called);
    let pump = Pump::new(proven, side, lane, Arc::clone(&shared.stats), shared.bounds.body, shared.timing.ping);
    let end = tokio::select! {
        biased;
        () = line.left_alone(task) => End::Superseded,
        end = Box::pin(pump.run()) => end,
    };
    Some(Ok(end))
}

/// The calling end of a connection.
struct Caller {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    lane: Lane,
    task: u64,
    pings: u32,
    /// The ping that has no answer yet.
    pinged: Option<(u32, Instant)>,
    /// Ticks without any sign of life.
    silent: u32,
    /// Empty but while replies are handed out.
    answered: Vec<(oneshot::Sender<Outcome>, Outcome)>,
}

impl Caller {
    fn line(&self) -> &Line {
        self.peer.line(self.lane)
    }
}

impl Side for Caller {
    fn came(&mut self, frames: &mut Vec<Frame>, _: &mut VecDeque<Frame>) -> Result<(), End> {
        let line = self.peer.line(self.lane);
        let mut state = line.as_task(self.task).ok_or(End::Superseded)?;
        for frame in frames.drain(..) {
            let outcome = match frame.kind {
                Kind::Reply => Ok(frame.body),
                Kind::Refused => Err(CallError::Refused { to: line.to }),
                Kind::Pong => {
                    if let Some((_, at)) = self.pinged.take_if(|(id, _)| *id == frame.id) {
                        self.peer.round_trip(self.lane, at.elapsed());
                    }
                    continue;
                }
                other => return Err(End::Protocol(format!("a caller got {other:?}"))),
            };
            self.answered.extend(state.pending.remove(&frame.id).map(|waiter| (waiter, outcome)));
        }
        // Callers are woken without the lock that they need to go on.
        drop(state);
        for (waiter, outcome) in self.answered.drain(..) {
            let _ = waiter.send(outcome);
        }
        Ok(())
    }

    fn take(&mut self, cx: &mut Context<'_>, out: &mut VecDeque<Frame>) -> Result<(), End> {
        let mut state = self.line().as_task(self.task).ok_or(End::Superseded)?;
        state.queue.take(cx, out);
        Ok(())
    }

    fn disarm(&mut self) {
        if let Some(mut state) = self.line().as_task(self.task) {
            state.queue.disarm();
        }
    }

    fn tick(&mut self, moved: Moved, out: &mut VecDeque<Frame>) -> Result<(), End> {
        let kept = self.lane == Lane::Raft;
        // What is large may be slow: elsewhere than on the raft lane, what goes out is a sign of life too.
        let alive = moved.read || (!kept && moved.written);
        self.silent = if alive { 0 } else { self.silent + 1 };
        let patience = self.shared.timing.silent_pings;
        if self.silent >= if kept { patience } else { 4 * patience } {
            return Err(End::Silent);
        }
        if self.pinged.is_none() && (kept || !moved.read) {
            self.pings = self.pings.wrapping_add(1);
            self.pinged = Some((self.pings, Instant::now()));
            out.push_back(Frame::bare(Kind::Ping, self.pings));
        }
        Ok(())
    }
}

/// Removes a call that nobody waits for any more.
pub(crate) struct Forget {
    peer: Arc<Peer>,
    lane: Lane,
    id: u32,
    answered: bool,
}

impl Forget {
    pub(crate) fn new(peer: Arc<Peer>, lane: Lane, id: u32) -> Self {
        Self { peer, lane, id, answered: false }
    }

    pub(crate) fn answered(&mut self) {
        self.answered = true;
    }
}

impl Drop for Forget {
    fn drop(&mut self) {
        if !self.answered {
            self.peer.line(self.lane).forget(self.id);
        }
    }
}

/// Unique per run of this node.
#[derive(Debug, Default)]
pub(crate) struct Connections(AtomicU64);

impl Connections {
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Relaxed) + 1
    }
}
