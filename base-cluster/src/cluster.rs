use crate::driver::{Command, Driver};
use crate::exchange::{self, Exchange};
use crate::facts::{FactError, Facts};
use crate::links::Links;
use crate::member::{Joined, MemberEvent, Members};
use crate::net::{self, Datagrams};
use crate::options::{Advertise, ClusterOptions, StartError};
use crate::problem::Problem;
use crate::seal::Refusal;
use crate::swim::{Swim, SwimOptions};
use base_rpc::{Reply, Service};
use base_types::{NodeId, NodeIncarnation};
use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

/// This node's place among the others. A handle: clones are the same, and when the last one is dropped the node falls silent, as if it had
/// crashed.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    me: NodeIncarnation,
    advertised: SocketAddr,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    exchange: Arc<Exchange>,
}

/// What the driver shows.
pub(crate) struct Shared {
    pub(crate) members: watch::Sender<Arc<Members>>,
    pub(crate) joined: watch::Sender<Joined>,
    pub(crate) events: broadcast::Sender<MemberEvent>,
    pub(crate) problems: Mutex<Vec<Problem>>,
    pub(crate) packets: Mutex<Packets>,
}

/// Packets since the start, by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// Sent.
    pub sent: u64,
    /// Received and used.
    pub taken: u64,
    /// Received and thrown away, by cause.
    pub refused: BTreeMap<Refusal, u64>,
}

/// Why a node is not evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvictError {
    /// Nobody has seen such a node.
    #[error("node {0} is not known here")]
    Unknown(NodeId),
    /// It is this node: let it leave instead.
    #[error("a node can't evict itself; stop it instead")]
    Myself,
    /// This node has left.
    #[error("this node has left the cluster")]
    Left,
}

/// Events that a slow reader may have open; then he misses some, is told so, and reads [`Cluster::members`].
const EVENTS: usize = 1024;

impl Cluster {
    /// Takes part: answers on `socket`, looks for the seeds, calls and is called through `links`. Needs a tokio runtime. It returns at once; whether
    /// others were found tells [`Cluster::joined`].
    ///
    /// # Errors
    /// When it can't be told under which address the others reach this node.
    pub async fn start(
        options: ClusterOptions,
        links: Arc<impl Links + ?Sized>,
        socket: impl Datagrams,
    ) -> Result<Self, StartError> {
        let local = socket.local_addr()?;
        let advertised = advertised(&options, local).await?;
        let random = || getrandom::u64().map_err(|error| StartError::Random(error.to_string()));
        let mut rng = match options.seed {
            Some(seed) => SmallRng::seed_from_u64(seed ^ options.me.node.0.rotate_left(17) ^ options.me.incarnation.0),
            None => SmallRng::seed_from_u64(random()?),
        };
        let salt = if options.seed.is_some() { rng.random() } else { random()? };
        let now = Instant::now();
        let core = SwimOptions {
            me: options.me,
            advertised,
            env: &options.env,
            secrets: &options.secrets,
            seeds: &options.seeds,
            chance: rng.random(),
            salt,
        };
        let mut swim = Swim::new(&core, now);
        let joined = swim.joined(|_| false, now);
        let shared = Arc::new(Shared {
            members: watch::Sender::new(Arc::new(swim.members().clone())),
            joined: watch::Sender::new(joined),
            events: broadcast::Sender::new(EVENTS),
            problems: Mutex::default(),
            packets: Mutex::default(),
        });
        let exchange = Arc::new(Exchange::new(options.me));
        let served = Arc::clone(&exchange);
        let handler = move |from: NodeIncarnation, body: Bytes, reply: Reply| served.handle(from, body, reply);
        links.serve(Service::FACTS, Arc::new(handler));
        let (commands, receiver) = mpsc::channel(64);
        let task = exchange::Task::new(Arc::clone(&exchange), Arc::clone(&links), shared.members.subscribe(), rng);
        tokio::spawn(task.run());
        let driver = Driver::new(swim, socket, local, links, Arc::clone(&shared), Arc::clone(&exchange));
        tokio::spawn(driver.run(receiver, options.seeds, advertised));
        Ok(Self(Arc::new(Inner { me: options.me, advertised, commands, shared, exchange })))
    }

    /// This run of this node.
    #[must_use]
    pub fn me(&self) -> NodeIncarnation {
        self.0.me
    }

    /// Where the others reach this node.
    #[must_use]
    pub fn advertised(&self) -> SocketAddr {
        self.0.advertised
    }

    /// Every node that is known, now and from now on.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.0.shared.members.subscribe()
    }

    /// What happens to nodes from now on. First subscribe, then look at [`Cluster::members`].
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<MemberEvent> {
        self.0.shared.events.subscribe()
    }

    /// How far the search for the others has come.
    #[must_use]
    pub fn joined(&self) -> watch::Receiver<Joined> {
        self.0.shared.joined.subscribe()
    }

    /// Tells all nodes something about this one, in place of what it told under that key before. They know within 0.2 s, if they are there; who
    /// comes later is told too. Forgotten with the end of this run.
    ///
    /// # Errors
    /// When the fact is too large.
    pub fn publish(&self, key: &str, value: impl Into<Bytes>) -> Result<(), FactError> {
        self.0.exchange.write(key, Some(value.into()))
    }

    /// Takes back what was published.
    pub fn retract(&self, key: &str) {
        // Only what was never published fails, and then there is nothing to take back.
        let _ = self.0.exchange.write(key, None);
    }

    /// What all nodes told, this one included.
    #[must_use]
    pub fn facts(&self) -> watch::Receiver<Arc<Facts>> {
        self.0.exchange.facts()
    }

    /// What keeps this node from its place in the cluster. Empty when all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        self.0.shared.problems.lock().clone()
    }

    /// Packets since the start.
    #[must_use]
    pub fn packets(&self) -> Packets {
        self.0.shared.packets.lock().clone()
    }

    /// Says good-bye and falls silent; the others see this node as left at once. Takes 0.3 s.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.0.commands.send(Command::Leave(done)).await.is_ok() {
            // It ends when the driver has ended, too.
            let _ = left.await;
        }
    }

    /// Has all nodes treat a node as dead until it is started again.
    ///
    /// # Errors
    /// When the node is not known, or is this one.
    pub async fn evict(&self, node: NodeId) -> Result<(), EvictError> {
        let (done, evicted) = oneshot::channel();
        self.0.commands.send(Command::Evict(node, done)).await.map_err(|_| EvictError::Left)?;
        evicted.await.map_err(|_| EvictError::Left)?
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("me", &self.0.me)
            .field("advertised", &self.0.advertised)
            .finish_non_exhaustive()
    }
}

/// Where the others reach a socket that is bound to `local`.
async fn advertised(options: &ClusterOptions, local: SocketAddr) -> Result<SocketAddr, StartError> {
    if let Some(Advertise { host, port }) = &options.advertise {
        let port = if *port == 0 { local.port() } else { *port };
        let failed = |cause: String| StartError::Advertise { host: host.clone(), cause };
        let name = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.clone() };
        let found = net::resolve(&format!("{name}:{port}")).await.map_err(|error| failed(error.to_string()))?;
        let fitting = found.iter().find(|address| address.is_ipv4() == local.is_ipv4()).or(found.first());
        return fitting.copied().ok_or_else(|| failed("the name has no address".into()));
    }
    if !local.ip().is_unspecified() {
        return Ok(local);
    }
    for seed in &options.seeds {
        for address in net::resolve(seed).await.unwrap_or_default() {
            if let Ok(route) = net::route_to(address).await
                && !route.is_unspecified()
            {
                return Ok(SocketAddr::new(route, local.port()));
            }
        }
    }
    Err(StartError::NoAddress { bound: local })
}

#[cfg(test)]
mod cluster_test;
