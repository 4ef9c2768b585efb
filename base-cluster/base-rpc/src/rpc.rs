use crate::config::{Bounds, Listen, RpcConfig, Security, Timing};
use crate::handshake::Passport;
use crate::hello::Hello;
use crate::inlet::{self, Inlets, Services, Unproven};
use crate::line::{self, Connections, Forget, Line, LineStatus, Start};
use crate::mesh::{CallError, CallFuture, Handler, Lane, Mesh, Reply, Service};
use crate::net::TcpListener;
use crate::queue::Limit;
use crate::refusal::{Refusal, Reports};
use crate::stats::{Counters, Stats};
use arc_swap::ArcSwap;
use base_types::{Incarnation, NodeId, NodeIncarnation};
use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The other nodes over TCP: one connection per peer, lane and direction of calling.
///
/// The raft lane of every peer is kept connected and pinged; the other lanes are connected by the first call. A peer that can't be reached
/// is tried again with growing pauses, and meanwhile calls fail at once. Tasks run on the runtime of [`Rpc::start`]; calls may come from
/// any runtime of tokio with time. Dropped, it closes everything; where a handler holds the [`Rpc`] itself, [`Rpc::shutdown`] does.
pub struct Rpc {
    shared: Arc<Shared>,
    addr: SocketAddr,
    own: [mpsc::Sender<Letter>; 3],
    tasks: TaskTracker,
}

/// Why an [`Rpc`] can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address can't be bound.
    #[error("can't listen for peers on {addr}: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The socket that was given can't be used.
    #[error("the socket for peers can't be used: {0}")]
    Socket(std::io::Error),
    /// The name of the environment is longer than 255 bytes.
    #[error("the name of the environment is longer than 255 bytes")]
    Env,
}

/// Why a call to an address has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddrCallError {
    /// Nothing was sent.
    #[error("{addr} can't be reached: {cause}")]
    Unreachable {
        /// Where.
        addr: SocketAddr,
        /// Why.
        cause: String,
    },
    /// The address leads to this node itself. Nothing was sent.
    #[error("{addr} is this node itself")]
    Itself {
        /// Where.
        addr: SocketAddr,
    },
    /// A node was reached. Maybe sent, maybe done, unless it is [`CallError::Refused`].
    #[error(transparent)]
    Call(#[from] CallError),
}

/// What is known about a peer.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Its newest run.
    pub run: NodeIncarnation,
    /// Where it is.
    pub addr: SocketAddr,
    /// Whether its raft lane stands and is answered.
    pub reach: Reach,
    /// Since when that is so; for a simulated clock too.
    pub since: Instant,
    /// The newest round trip of a ping on the raft lane. The ping is answered by the peer's runtime, no handler takes part.
    pub round_trip: Option<Duration>,
}

/// Whether a peer can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The first attempt is under way.
    Unknown,
    /// Yes.
    Reachable,
    /// No, and why.
    Unreachable(Arc<str>),
}

/// What all tasks need.
pub(crate) struct Shared {
    pub(crate) passport: Passport,
    pub(crate) bounds: Bounds,
    pub(crate) timing: Timing,
    pub(crate) stats: Arc<Stats>,
    pub(crate) services: Services,
    pub(crate) inlets: Inlets,
    pub(crate) unproven: Unproven,
    pub(crate) stop: CancellationToken,
    peers: ArcSwap<HashMap<NodeId, Arc<Peer>, foldhash::fast::RandomState>>,
    connections: Connections,
    reports: Reports,
    jitter: AtomicU64,
    runtime: Handle,
    tasks: TaskTracker,
}

/// A message to the own node.
struct Letter {
    service: Service,
    body: Bytes,
    reply: Reply,
}

/// One other node.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    told: Mutex<(Incarnation, SocketAddr)>,
    lines: [Line; 3],
    /// Microseconds + 1; 0 is none.
    round_trip: AtomicU64,
}

impl Rpc {
    /// Listens and answers, on the current tokio runtime. Peers are told by [`Rpc::set_peer`], services by [`Mesh::serve`].
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(mut config: RpcConfig) -> Result<Arc<Self>, StartError> {
        // A length has 32 bits, and an interval is not empty.
        config.bounds.body = config.bounds.body.min(1 << 30);
        config.timing.ping = config.timing.ping.max(Duration::from_millis(1));
        if config.env.len() > 255 {
            return Err(StartError::Env);
        }
        let passport = Passport::new(&config);
        let listener = match config.listen {
            Listen::Bound(listener) => listener,
            Listen::Bind(addr) => TcpListener::bind(addr).await.map_err(|source| StartError::Bind { addr, source })?,
        };
        let addr = listener.local_addr().map_err(StartError::Socket)?;
        let tasks = TaskTracker::new();
        let shared = Arc::new(Shared {
            passport,
            bounds: config.bounds,
            timing: config.timing,
            stats: Arc::default(),
            services: Services::default(),
            inlets: Inlets::default(),
            unproven: Unproven::default(),
            stop: CancellationToken::new(),
            peers: ArcSwap::default(),
            connections: Connections::default(),
            reports: Reports::default(),
            jitter: AtomicU64::new(config.seed),
            runtime: Handle::current(),
            tasks: tasks.clone(),
        });
        shared.spawn(inlet::accept(Arc::clone(&shared), listener));
        let own = Lane::ALL.map(|_| {
            let (sender, receiver) = mpsc::channel(shared.bounds.queue_messages.max(1));
            shared.spawn(handle_own(Arc::clone(&shared), receiver));
            sender
        });
        Ok(Arc::new(Self { shared, addr, own, tasks }))
    }

    /// Where peers connect to.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Tells where a run of a node is. An older run than one already known is ignored; a newer one ends the connections of the older, and
    /// the calls on them.
    pub fn set_peer(&self, run: NodeIncarnation, addr: SocketAddr) {
        if run.node == self.shared.passport.me.node || self.shared.stop.is_cancelled() {
            return;
        }
        let (peer, known) = self.shared.enter(run, addr);
        if known {
            peer.moved(&self.shared, run.incarnation, addr);
        } else {
            peer.reset_lines(&self.shared, "", false, None);
        }
        self.shared.inlets.newest(run);
    }

    /// The node is not called any more: its connections end, and the calls on them.
    pub fn forget_peer(&self, node: NodeId) {
        let known = self.shared.peer(node);
        self.shared.peers.rcu(|peers| {
            let mut peers = HashMap::clone(peers);
            peers.remove(&node);
            peers
        });
        if let Some(peer) = known {
            peer.reset_lines(&self.shared, "the node is not known any more", true, None);
        }
    }

    /// Connections from now on are proven that way; those that stand stay. For certificates and secrets that are renewed: a secret in two
    /// steps, first let in ([`crate::Secret::also`]) on all nodes, then used.
    pub fn set_security(&self, security: Security) {
        self.shared.passport.set_security(security);
    }

    /// Calls whoever answers at `addr`, over a connection of its own, and tells who that was: for nodes of which only the address is known.
    /// Order with other calls is not promised.
    ///
    /// # Errors
    /// [`AddrCallError`], within `deadline`.
    pub async fn call_addr(
        &self,
        addr: SocketAddr,
        lane: Lane,
        service: Service,
        body: Bytes,
        deadline: Duration,
    ) -> Result<(NodeIncarnation, Bytes), AddrCallError> {
        crate::single::call(&self.shared, addr, lane, service, body, deadline).await
    }

    /// All peers, as far as they can be reached.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        let mut peers: Vec<_> = self.shared.peers.load().values().map(|peer| peer.status()).collect();
        peers.sort_by_key(|peer| peer.run);
        peers
    }

    /// One peer, if it was told.
    #[must_use]
    pub fn peer(&self, node: NodeId) -> Option<PeerStatus> {
        self.shared.peer(node).map(|peer| peer.status())
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.stats.counters()
    }

    /// Closes all connections and waits until that is done. Calls end with [`CallError::Lost`], later ones with
    /// [`CallError::Unreachable`].
    pub async fn shutdown(&self) {
        self.close();
        self.tasks.wait().await;
    }

    fn close(&self) {
        self.shared.stop.cancel();
        let mut peers: Vec<_> = self.shared.peers.load().iter().map(|(node, peer)| (*node, Arc::clone(peer))).collect();
        peers.sort_unstable_by_key(|(node, _)| *node);
        for (_, peer) in peers {
            peer.reset_lines(&self.shared, "this node stops", true, None);
        }
        self.shared.services.clear();
        self.tasks.close();
    }

    fn post(
        &self,
        to: NodeId,
        lane: Lane,
        service: Service,
        body: Bytes,
        waiter: Option<oneshot::Sender<line::Outcome>>,
    ) -> Result<(Arc<Peer>, u32), CallError> {
        let Some(peer) = self.shared.peer(to) else {
            return Err(CallError::Unreachable { to, cause: "its address is not known".into() });
        };
        let posted = peer.line(lane).post(service, body, waiter, peer.line(Lane::Raft));
        let (id, start) = posted.inspect_err(|error| {
            if matches!(error, CallError::Busy { .. }) {
                self.shared.stats.lane(lane).busy.fetch_add(1, Relaxed);
            }
        })?;
        self.shared.connect(&peer, lane, start);
        Ok((peer, id))
    }

    fn post_own(&self, lane: Lane, service: Service, body: Bytes, reply: Reply) -> Result<(), CallError> {
        let to = self.shared.passport.me.node;
        self.own[lane.index()].try_send(Letter { service, body, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(mut letter) => {
                letter.reply.0 = None;
                CallError::Busy { to }
            }
            mpsc::error::TrySendError::Closed(_) => CallError::Unreachable { to, cause: "this node stops".into() },
        })
    }
}

impl Drop for Rpc {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Rpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rpc").field("me", &self.shared.passport.me).field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Mesh for Rpc {
    fn me(&self) -> NodeIncarnation {
        self.shared.passport.me
    }

    fn call(&self, to: NodeId, lane: Lane, service: Service, body: Bytes, deadline: Duration) -> CallFuture {
        if to == self.shared.passport.me.node {
            let (sender, receiver) = oneshot::channel();
            if let Err(error) = self.post_own(lane, service, body, Reply(Some(Box::new(sender)))) {
                return Box::pin(std::future::ready(Err(error)));
            }
            return Box::pin(async move {
                match tokio::time::timeout(deadline, receiver).await {
                    Ok(Ok(Some(body))) => Ok(body),
                    Ok(Ok(None)) => Err(CallError::Refused { to }),
                    Ok(Err(_)) => Err(CallError::Lost { to }),
                    Err(_) => Err(CallError::TimedOut { to }),
                }
            });
        }
        let (sender, receiver) = oneshot::channel();
        let (peer, id) = match self.post(to, lane, service, body, Some(sender)) {
            Ok(posted) => posted,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let mut forget = Forget::new(peer, lane, id);
        Box::pin(async move {
            let answered = tokio::time::timeout(deadline, receiver).await.map_err(|_| CallError::TimedOut { to })?;
            forget.answered();
            answered.unwrap_or(Err(CallError::Lost { to }))
        })
    }

    fn send(&self, to: NodeId, lane: Lane, service: Service, body: Bytes) -> Result<(), CallError> {
        if to == self.shared.passport.me.node {
            return self.post_own(lane, service, body, Reply::nobody());
        }
        self.post(to, lane, service, body, None).map(drop)
    }

    fn serve(&self, service: Service, handler: Arc<dyn Handler>) {
        self.shared.services.serve(service, &handler);
    }
}

/// Hands messages to the own node to their handlers, in a task, so that no caller finds himself within a handler.
async fn handle_own(shared: Arc<Shared>, mut letters: mpsc::Receiver<Letter>) {
    let me = shared.passport.me;
    while let Some(Letter { service, body, reply }) = letters.recv().await {
        // A handler that panics ends a connection, when it is called over one; here it must not end all calls to come.
        let _ = catch_unwind(AssertUnwindSafe(|| shared.services.handle(service, me, body, reply)));
    }
}

impl Shared {
    /// Runs until it ends or the [`Rpc`] does.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let stop = self.stop.clone();
        let task = async move {
            stop.run_until_cancelled(task).await;
        };
        self.tasks.spawn_on(task, &self.runtime).abort_handle()
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.next()
    }

    /// The pause after so many failures: the half is sure, the rest is chance.
    pub(crate) fn backoff(&self, failures: u32) -> Duration {
        let doubled = self.timing.backoff.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let pause = doubled.min(self.timing.backoff_max);
        // splitmix64
        let mut z = self.jitter.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let chance = ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 24);
        pause.mul_f64(0.5 + 0.5 * chance)
    }

    /// Counts a refusal, and reports it unless that address was reported lately.
    pub(crate) fn refused(&self, addr: SocketAddr, refusal: &Refusal, incoming: bool) {
        self.stats.refused(refusal);
        if refusal.because().is_none() || *refusal == Refusal::Superseded || !self.reports.due(addr, Instant::now()) {
            return;
        }
        if incoming {
            tracing::warn!(%addr, cause = %refusal, "a peer was refused");
        } else {
            tracing::warn!(%addr, cause = %refusal, "a peer does not fit");
        }
    }

    pub(crate) fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        if self.stats.connections_in() >= self.bounds.connections as u64 {
            return Err(Refusal::TooMany);
        }
        if let Some(peer) = self.peer(hello.run.node)
            && hello.run.incarnation < peer.told().0
        {
            return Err(Refusal::OlderRun);
        }
        self.inlets.admit(hello)
    }

    /// A peer has connected: it is there, and maybe it is a new run.
    pub(crate) fn heard_from(self: &Arc<Self>, run: NodeIncarnation) {
        if let Some(peer) = self.peer(run.node) {
            peer.heard_of(self, run.incarnation, None);
            peer.revive();
        }
    }

    fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers.load().get(&node).cloned()
    }

    /// The peer, and whether it was known before.
    fn enter(&self, run: NodeIncarnation, addr: SocketAddr) -> (Arc<Peer>, bool) {
        if let Some(peer) = self.peer(run.node) {
            return (peer, true);
        }
        let lines = Lane::ALL.map(|lane| {
            let limit = Limit { messages: self.bounds.queue_messages, bytes: self.bounds.queue_bytes(lane) };
            Line::new(run.node, lane, limit, self.bounds.pending, self.bounds.body)
        });
        let (told, round_trip) = (Mutex::new((run.incarnation, addr)), AtomicU64::new(0));
        let new = Arc::new(Peer { node: run.node, told, lines, round_trip });
        self.peers.rcu(|peers| {
            let mut peers = HashMap::clone(peers);
            peers.entry(run.node).or_insert_with(|| Arc::clone(&new));
            peers
        });
        let peer = self.peer(run.node).unwrap_or_else(|| Arc::clone(&new));
        let known = !Arc::ptr_eq(&peer, &new);
        (peer, known)
    }

    /// Starts the task of a line, if one is to be started.
    fn connect(self: &Arc<Self>, peer: &Arc<Peer>, lane: Lane, start: Start) {
        if let Some(task) = start {
            self.spawn(line::keep(Arc::clone(self), Arc::clone(peer), lane, task));
        }
    }
}

impl Peer {
    pub(crate) fn line(&self, lane: Lane) -> &Line {
        &self.lines[lane.index()]
    }

    /// Its newest run, and where it is.
    pub(crate) fn told(&self) -> (Incarnation, SocketAddr) {
        *self.told.lock()
    }

    fn moved(self: &Arc<Self>, shared: &Arc<Shared>, run: Incarnation, addr: SocketAddr) {
        {
            let mut told = self.told.lock();
            if run < told.0 || *told == (run, addr) {
                return;
            }
            *told = (run, addr);
        }
        self.reset_lines(shared, "it has moved, or was started again", false, None);
    }

    /// Such a run exists, where the run before was as far as anybody knows.
    pub(crate) fn heard_of(self: &Arc<Self>, shared: &Arc<Shared>, run: Incarnation, except: Option<Lane>) {
        {
            let mut told = self.told.lock();
            if run <= told.0 {
                return;
            }
            told.0 = run;
        }
        shared.inlets.newest(NodeIncarnation { node: self.node, incarnation: run });
        self.reset_lines(shared, "it was started again", false, except);
    }

    fn reset_lines(self: &Arc<Self>, shared: &Arc<Shared>, cause: &str, gone: bool, except: Option<Lane>) {
        for line in self.lines.iter().filter(|line| Some(line.lane) != except) {
            let start = line.reset(shared, cause, gone);
            shared.connect(self, line.lane, start);
        }
    }

    /// The raft lane found it dead.
    pub(crate) fn bury(&self, shared: &Shared, cause: &Arc<str>) {
        for line in self.lines.iter().filter(|line| line.lane != Lane::Raft) {
            line.bury(shared, cause);
        }
    }

    /// It gave a sign of life: what is put off is tried now.
    pub(crate) fn revive(&self) {
        for line in &self.lines {
            line.hurry();
        }
    }

    pub(crate) fn round_trip(&self, lane: Lane, took: Duration) {
        if lane == Lane::Raft {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX - 1);
            self.round_trip.store(micros + 1, Relaxed);
        }
    }

    fn status(&self) -> PeerStatus {
        let (incarnation, addr) = self.told();
        let (status, since) = self.line(Lane::Raft).status();
        let reach = match status {
            LineStatus::Unknown => Reach::Unknown,
            LineStatus::Up => Reach::Reachable,
            LineStatus::Down(cause) => Reach::Unreachable(cause),
        };
        let round_trip = self.round_trip.load(Relaxed).checked_sub(1).map(Duration::from_micros);
        PeerStatus { run: NodeIncarnation { node: self.node, incarnation }, addr, reach, since, round_trip }
    }
}
