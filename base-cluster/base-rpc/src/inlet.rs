//! The answering end: connections of peers, and that nothing of a peer is handled out of order.

use crate::frame::{Frame, Kind};
use crate::handshake::Proven;
use crate::hello::Hello;
use crate::mesh::{FnOnceBytes, Handler, Lane, Reply, Service};
use crate::net::{TcpListener, TcpStream};
use crate::pump::{End, Moved, Pump, Side, pong};
use crate::queue::{Limit, Queue};
use crate::refusal::Refusal;
use crate::rpc::Shared;
use crate::stats::{OneMore, Stats};
use arc_swap::ArcSwap;
use base_types::{Incarnation, NodeId, NodeIncarnation};
use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::task::Context;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// Who answers what.
#[derive(Default)]
pub(crate) struct Services(ArcSwap<BTreeMap<Service, Arc<dyn Handler>>>);

impl Services {
    pub(crate) fn serve(&self, service: Service, handler: &Arc<dyn Handler>) {
        self.0.rcu(|known| {
            let mut known = BTreeMap::clone(known);
            known.insert(service, Arc::clone(handler));
            known
        });
    }

    /// From now on nobody answers. Handlers that hold what holds them are let go.
    pub(crate) fn clear(&self) {
        self.0.store(Arc::default());
    }

    pub(crate) fn handle(&self, service: Service, from: NodeIncarnation, body: Bytes, reply: Reply) {
        // Without a handler the reply is dropped, which is a refusal.
        if let Some(handler) = self.0.load().get(&service) {
            handler.handle(from, body, reply);
        }
    }
}

/// Which connections of which peers are handled.
#[derive(Debug, Default)]
pub(crate) struct Inlets(Mutex<HashMap<NodeId, Inlet, foldhash::fast::RandomState>>);

#[derive(Debug, Default)]
struct Inlet {
    run: Incarnation,
    lanes: [Arc<Gate>; 3],
}

/// One lane of one peer: which connection may speak, and that only one does at a time.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Held while handlers run.
    speaking: Mutex<()>,
    run: AtomicU64,
    connection: AtomicU64,
    end: Mutex<CancellationToken>,
}

impl Gate {
    /// A single call has no connection that could be replaced, only a run.
    fn is_open_for(&self, run: Incarnation, connection: Option<u64>) -> bool {
        self.run.load(Acquire) == run.0
            && connection.is_none_or(|connection| self.connection.load(Acquire) == connection)
    }

    /// Opens for this connection alone. Never waits for a handler: one may be what calls us.
    fn open_for(&self, run: Incarnation, connection: u64, end: CancellationToken) {
        let mut current = self.end.lock();
        self.connection.store(0, Release);
        self.run.store(run.0, Release);
        self.connection.store(connection, Release);
        std::mem::replace(&mut *current, end).cancel();
    }
}

/// Peers that are remembered without a connection.
const REMEMBERED: usize = 1024;

impl Inlets {
    /// Whether a connection could be let in.
    pub(crate) fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        match self.0.lock().get(&hello.run.node) {
            Some(inlet) if hello.run.incarnation < inlet.run => Err(Refusal::OlderRun),
            _ => Ok(()),
        }
    }

    /// Lets a connection in, and the one before out. The token is cancelled when its time is over.
    fn enter(&self, hello: &Hello, stop: &CancellationToken) -> Result<(Arc<Gate>, CancellationToken), Refusal> {
        let NodeIncarnation { node, incarnation } = hello.run;
        let mut inlets = self.0.lock();
        if inlets.len() >= REMEMBERED && !inlets.contains_key(&node) {
            inlets.retain(|_, inlet| inlet.lanes.iter().any(|gate| Arc::strong_count(gate) > 1));
        }
        let inlet = inlets.entry(node).or_default();
        if incarnation < inlet.run {
            return Err(Refusal::OlderRun);
        }
        if incarnation > inlet.run {
            inlet.renew(incarnation);
        }
        let gate = Arc::clone(&inlet.lanes[hello.lane.index()]);
        let end = stop.child_token();
        if !hello.single {
            if hello.connection <= gate.connection.load(Acquire) {
                return Err(Refusal::Superseded);
            }
            gate.open_for(incarnation, hello.connection, end.clone());
        }
        Ok((gate, end))
    }

    /// A run of a peer is known: connections of older ones end.
    pub(crate) fn newest(&self, run: NodeIncarnation) {
        if let Some(inlet) = self.0.lock().get_mut(&run.node)
            && run.incarnation > inlet.run
        {
            inlet.renew(run.incarnation);
        }
    }
}

impl Inlet {
    fn renew(&mut self, run: Incarnation) {
        self.run = run;
        for gate in &self.lanes {
            gate.open_for(run, 0, CancellationToken::new());
        }
    }
}

/// Takes connections, for ever.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((tcp, addr)) => shared.unproven.clone().spawn(&shared, tcp, addr),
            Err(error) => {
                // Out of file descriptors, mostly: others need the time too.
                tracing::warn!(%error, "a peer's connection can't be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Connections that have not proven anything yet. Who comes when there are too many replaces the oldest: one of the cluster needs a few
/// milliseconds, so he is not the oldest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unproven(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    tasks: BTreeMap<u64, AbortHandle>,
}

impl Unproven {
    fn spawn(self, shared: &Arc<Shared>, tcp: TcpStream, addr: SocketAddr) {
        let mut waiting = self.0.lock();
        if waiting.tasks.len() >= shared.bounds.unproven
            && let Some((_, oldest)) = waiting.tasks.pop_first()
        {
            oldest.abort();
            shared.stats.refused(&Refusal::TooMany);
        }
        waiting.next += 1;
        let number = waiting.next;
        let (shared_, this) = (Arc::clone(shared), self.clone());
        let task = shared.spawn(async move {
            let answered =
                tokio::time::timeout(shared_.timing.prove, shared_.passport.answer(tcp, |hello| shared_.admit(hello)))
                    .await;
            if this.0.lock().tasks.remove(&number).is_none() {
                return;
            }
            match answered.unwrap_or(Err(Refusal::Slow)) {
                Ok((proven, hello)) => {
                    let shared = Arc::clone(&shared_);
                    shared_.spawn(serve(shared, proven, hello, addr));
                }
                Err(refusal) => shared_.refused(addr, &refusal, true),
            }
        });
        waiting.tasks.insert(number, task);
    }
}

/// Answers the calls of one connection.
async fn serve(shared: Arc<Shared>, proven: Proven, hello: Hello, addr: SocketAddr) {
    let (gate, end) = match shared.inlets.enter(&hello, &shared.stop) {
        Ok(entered) => entered,
        Err(refusal) => return shared.refused(addr, &refusal, true),
    };
    shared.heard_from(hello.run);
    let limit = Limit { messages: shared.bounds.pending, bytes: shared.bounds.queue_bytes(hello.lane) };
    let (queue, stats) = (Mutex::default(), Arc::clone(&shared.stats));
    let answers = Arc::new(Answers { queue, limit, lane: hello.lane, max_body: shared.bounds.body, stats });
    let side = Called {
        from: hello.run,
        connection: (!hello.single).then_some(hello.connection),
        gate,
        answers,
        shared: Arc::clone(&shared),
        silent: 0,
    };
    let _one_more = OneMore::of(&shared.stats.answering);
    let stats = Arc::clone(&shared.stats);
    let pump = Pump::new(proven, side, hello.lane, stats, shared.bounds.body, shared.timing.ping);
    let ended = end.run_until_cancelled(Box::pin(pump.run())).await.unwrap_or(End::Superseded);
    tracing::debug!(peer = %hello.run.node, lane = ?hello.lane, %ended, "connection from a peer ended");
    if let End::Protocol(what) = ended {
        shared.refused(addr, &Refusal::Protocol(what), true);
    }
}

/// The answering end of a connection.
struct Called {
    from: NodeIncarnation,
    /// None for a single call.
    connection: Option<u64>,
    gate: Arc<Gate>,
    answers: Arc<Answers>,
    shared: Arc<Shared>,
    silent: u32,
}

/// Replies that wait to be written.
#[derive(Debug)]
struct Answers {
    queue: Mutex<Queue>,
    limit: Limit,
    lane: Lane,
    max_body: usize,
    stats: Arc<Stats>,
}

struct Answer {
    answers: Arc<Answers>,
    id: u32,
}

impl FnOnceBytes for Answer {
    fn answer(self: Box<Self>, body: Option<Bytes>) {
        let frame = match body {
            Some(body) => Frame { kind: Kind::Reply, service: Service(0), id: self.id, body },
            None => Frame::bare(Kind::Refused, self.id),
        };
        let pushed = if frame.body.len() > self.answers.max_body {
            tracing::error!(bytes = frame.body.len(), "a reply is too large and is dropped");
            Ok(None)
        } else {
            self.answers.queue.lock().push(frame, self.answers.limit)
        };
        match pushed {
            Ok(Some(waker)) => waker.wake(),
            Ok(None) => {}
            // He who asked does not read: to him it looks like a lost reply.
            Err(_) => {
                self.answers.stats.lane(self.answers.lane).busy.fetch_add(1, Relaxed);
            }
        }
    }
}

impl Side for Called {
    fn came(&mut self, frames: &mut Vec<Frame>, out: &mut VecDeque<Frame>) -> Result<(), End> {
        self.silent = 0;
        // A connection that is replaced is silent before its successor speaks.
        let _speaking = self.gate.speaking.lock();
        for frame in frames.drain(..) {
            if !self.gate.is_open_for(self.from.incarnation, self.connection) {
                return Err(End::Superseded);
            }
            if pong(&frame, out) {
                continue;
            }
            let reply = match frame.kind {
                Kind::OneWay => Reply::nobody(),
                Kind::Request => Reply(Some(Box::new(Answer { answers: Arc::clone(&self.answers), id: frame.id }))),
                other => return Err(End::Protocol(format!("one who calls sent {other:?}"))),
            };
            self.shared.services.handle(frame.service, self.from, frame.body, reply);
        }
        Ok(())
    }

    fn take(&mut self, cx: &mut Context<'_>, out: &mut VecDeque<Frame>) -> Result<(), End> {
        self.answers.queue.lock().take(cx, out);
        Ok(())
    }

    fn disarm(&mut self) {
        self.answers.queue.lock().disarm();
    }

    /// The caller pings every lane that is quiet: one that says nothing for long is not there any more.
    fn tick(&mut self, moved: Moved, _: &mut VecDeque<Frame>) -> Result<(), End> {
        self.silent = if moved.read || moved.written { 0 } else { self.silent + 1 };
        if self.silent >= 4 * self.shared.timing.silent_pings { Err(End::Silent) } else { Ok(()) }
    }

    fn thirsty(&self) -> bool {
        self.answers.queue.lock().bytes() < self.answers.limit.bytes / 2
    }
}
