//! Puts a node together, runs it, and takes it apart again: the only place where concrete types meet.

mod doors;
mod stores;

use crate::cli::access_config;
use crate::cluster::{self, About, Claims, Freshness, JoinError, Part, Remote};
use crate::disk::{Disk, run_disk};
use crate::listener::{self, ConnectionLimit, ConnectionRate, Dealer};
use crate::live::{LiveTable, Registry};
use crate::node::{Node, OpenPublishes};
use crate::routes::RouteKeeper;
use crate::seen::Ready;
use crate::services;
use crate::shard::{self, Letter, ShardHandle};
use base_cluster::{Identity, IdentityError};
use base_kv::{ExecuteError, Host, OpenError, Range};
use base_kv_api::RangeClient;
use base_rpc::{MemHub, Mesh};
use base_types::{Clock, SystemClock};
use crossbeam_utils::sync::ShardedLock;
use doors::{Door, Doors};
use mqtt_auth::{Access, AccessError};
use mqtt_codec::ReasonCode;
use mqtt_transport::{Tls, TlsError};
use node_config::{DeniedSubAck, ListenerKind, Loaded};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;
pub(crate) use stores::STORES;
use stores::Stores;
use telemetry::{ApiState, BuildInfo, LogHandle, Metrics, Token};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Why a node did not start. Nothing was changed where it says so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// One or more listeners could not be bound; nothing was touched.
    #[error("{}", .0.join("\n"))]
    Bind(Vec<String>),
    /// Certificates.
    #[error("{listener}: {error}")]
    Tls {
        /// Which listener.
        listener: &'static str,
        /// What is wrong.
        error: Box<TlsError>,
    },
    /// Who this node is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The data directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A store could not be made.
    #[error("a store could not be made: {0}")]
    Make(#[from] ExecuteError),
    /// The other nodes.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Users or rules.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A thread could not be started, or the like.
    #[error("the node could not be started: {0}")]
    Io(#[from] std::io::Error),
}

/// A node that runs.
pub(crate) struct Running {
    node: Arc<Node>,
    host: Arc<Host>,
    /// In a cluster.
    part: Option<Arc<Part>>,
    ranges: Vec<(&'static str, Range)>,
    threads: Vec<JoinHandle<()>>,
    doors: Vec<Door>,
    limit: ConnectionLimit,
    connections_per_sec: u32,
    stop_accepting: CancellationToken,
    stop_services: CancellationToken,
    /// Where HTTP is served.
    pub(crate) api_at: Option<SocketAddr>,
    /// The port of plain MQTT, to try.
    pub(crate) plain_port: Option<u16>,
    grace: Duration,
}

/// Starts a node. Binds everything before it touches the data directory. Clients are let in by [`Running::serve`].
pub(crate) async fn start(loaded: &Loaded, logs: LogHandle) -> Result<Running, StartError> {
    let config = &loaded.config;
    let server = &config.mqtt_service.server;
    let doors = Doors::bind(loaded).await?;
    let access = Arc::new(Access::open(access_config(config))?);

    let metrics = Metrics::new(BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("HERMOD_COMMIT").unwrap_or(""),
    });
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let run = Identity::load_or_create(&config.data_dir)?;
    let stop_services = CancellationToken::new();

    let cluster = loaded.cluster.as_ref().zip(doors.cluster);
    let others = match cluster {
        None => None,
        Some((cluster, sockets)) => Some((cluster, cluster::listen(run, cluster, sockets.tcp).await?, sockets.udp)),
    };
    let mesh: Arc<dyn Mesh> = match &others {
        Some((_, rpc, _)) => Arc::clone(rpc) as Arc<dyn Mesh>,
        None => Arc::new(MemHub::default().enter(run)),
    };
    let stores = Stores::open(config, Arc::clone(&mesh), &clock, &metrics).await?;
    let part = match others {
        None => {
            stores.make().await?;
            None
        }
        Some((cluster, rpc, udp)) => {
            Some(Part::join(run, config, cluster, rpc, udp, &stores.host, &stop_services).await?)
        }
    };
    let in_cluster = part.is_some();

    let shard_count = shard_count(server.worker_threads);
    let mut settings = config.tenant.clone();
    settings.connect_timeout_seconds = server.conn_timeout_sec;
    let (alarm, refuse) = (config.state_store.disk_alarm_percent, config.state_store.disk_refuse_percent);
    let percent = |value| u8::try_from(value).unwrap_or(100);
    let disk = Arc::new(Disk::new(config.data_dir.clone(), percent(alarm), percent(refuse)));
    let shards: Arc<[ShardHandle]> = (0..shard_count).map(|_| ShardHandle::new()).collect();
    let now = clock.now();
    let ranges = stores.ranges();
    let Stores { host, dist, looked_at, inbox, retain, ears, heard, routes_lost, .. } = stores;
    let mesh = Some(mesh).filter(|_| in_cluster);
    let node = Arc::new(Node {
        run,
        clock: Arc::clone(&clock),
        settings: Arc::new(settings),
        connect_bytes_max: server.max_connect_bytes,
        packet_timeout: Duration::from_secs(u64::from(server.packet_timeout_sec)),
        authenticator: access.clone(),
        authorizer: access.clone(),
        subscribe_denied: match config.auth.sub_ack_denied_code {
            DeniedSubAck::NotAuthorized => ReasonCode::NotAuthorized,
            DeniedSubAck::Generic => ReasonCode::UnspecifiedError,
        },
        metrics: Arc::clone(&metrics),
        live: ShardedLock::new(LiveTable::default()),
        registry: Registry::default(),
        routes: RouteKeeper::default(),
        dist: Arc::new(dist),
        inbox,
        retain: Arc::new(retain),
        shards: Arc::clone(&shards),
        remote: Remote::new(mesh.clone()),
        claims: Claims::new(mesh),
        fresh: Freshness::new(now, in_cluster),
        sys: parking_lot::RwLock::default(),
        turn: AtomicUsize::new(0),
        open: OpenPublishes::default(),
        disk: Arc::clone(&disk),
        admitted: Arc::default(),
    });
    ears.connect(&node);
    node.remote.connect(&node);
    node.claims.connect(&node);
    crate::seen::on_scrape(&node, &host, part.as_ref().map(|part| Arc::clone(&part.status)));

    let spawn = |service: Pin<Box<dyn Future<Output = ()> + Send>>| drop(tokio::spawn(service));
    let stop = || stop_services.clone();
    spawn(Box::pin(node.routes.clone().run(Arc::clone(&node.dist), run, stop())));
    spawn(Box::pin(services::run_wills(Arc::clone(&node), heard.wills, stop())));
    spawn(Box::pin(services::run_ended(Arc::clone(&node), heard.ended, stop())));
    spawn(Box::pin(services::run_adopted(Arc::clone(&node), heard.adopted, stop())));
    spawn(Box::pin(services::run_own_routes(Arc::clone(&node), routes_lost, stop())));
    spawn(Box::pin(run_disk(disk, stop())));
    spawn(Box::pin(services::run_sys(Arc::clone(&node), stop())));
    spawn(Box::pin(Arc::clone(&node.fresh).run(looked_at, clock, stop())));
    spawn(Box::pin(Arc::clone(&node.claims).run(Arc::clone(&node), stop())));
    if let Some(part) = &part {
        spawn(Box::pin(Arc::clone(part).watch(Arc::clone(&node), stop())));
        spawn(Box::pin(cluster::clear_away(Arc::clone(&node), part.cluster.clone(), stop())));
    }
    let every = match config.auth.reload_interval_sec {
        0 => Duration::MAX,
        secs => Duration::from_secs(u64::from(secs)),
    };
    spawn(Box::pin(reload_files(access, doors.certificates, Arc::clone(&node), every, stop())));

    let threads = (0..shard_count)
        .map(|index| shard::spawn(u16::try_from(index).unwrap_or(u16::MAX), Arc::clone(&node)))
        .collect::<Result<Vec<_>, _>>()?;
    let token = || loaded.api_token.as_ref().and_then(|token| Token::new(token.expose()));
    let api_at = doors.api.first().map(|(address, _)| *address);
    if !doors.api.is_empty() {
        let sockets = doors.api.into_iter().map(|(_, socket)| socket).collect();
        let status = part.as_ref().map(|part| Arc::clone(&part.status));
        let state = ApiState {
            metrics,
            readiness: Arc::new(Ready { node: Arc::clone(&node), host: Arc::clone(&host), status: status.clone() }),
            logs: Some(logs),
            token: token(),
        };
        let mut router = telemetry::router(Arc::new(state));
        if let Some(status) = status {
            router = router.merge(cluster::router(status, token()));
        }
        tokio::spawn(telemetry::serve(sockets, router, stop_services.clone()));
    }
    if let Some(part) = &part {
        part.tell(About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mqtt: doors.mqtt.iter().map(|door| door.url.clone()).collect(),
            api: api_at.map_or(String::new(), |at| format!("http://{at}")),
            draining: false,
        });
    }
    Ok(Running {
        node,
        host,
        part,
        ranges,
        threads,
        doors: doors.mqtt,
        limit: ConnectionLimit::new(match server.max_connections {
            0 => descriptors_for_clients(),
            n => n as usize,
        }),
        connections_per_sec: server.max_conn_per_sec,
        stop_accepting: CancellationToken::new(),
        stop_services,
        api_at,
        plain_port: server.tcp.enable.then_some(server.tcp.port),
        grace: Duration::from_secs(u64::from(server.shutdown_grace_sec)),
    })
}

/// How many shards there are, by what the configuration says. The other half of the cores is for the ranges: log, apply, compaction. What
/// stays on one shard costs least.
fn shard_count(wanted: u32) -> usize {
    if wanted == 0 { cores().div_ceil(2) } else { wanted as usize }
}

/// Threads for the ranges and the other nodes: the cores that the shards leave. A thread more than there are cores costs more in switches than it
/// does work.
pub(crate) fn range_threads(wanted_shards: u32) -> usize {
    cores().saturating_sub(shard_count(wanted_shards)).max(1)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// How often it is told what a start waits for.
const TELL_EVERY: Duration = Duration::from_secs(5);

impl Running {
    /// Waits until the node can keep what it acknowledges, and lets clients in. Tells where they are served.
    pub(crate) async fn serve(&mut self) -> Vec<String> {
        for (store, range) in &self.ranges {
            while tokio::time::timeout(TELL_EVERY, range.ready()).await.is_err() {
                let mut why = self.part.as_ref().map(|part| part.status.problems()).unwrap_or_default();
                why.retain(|reason| reason.what == "cluster" || reason.what == format!("store {store}"));
                let why = why.iter().map(|reason| format!("{}: {}", reason.what, reason.why)).collect::<Vec<_>>();
                info!(store, why = why.join("; "), "waits for its store before clients are let in");
            }
        }
        tokio::spawn(services::run_left_behind(Arc::clone(&self.node), self.stop_services.clone()));
        if let Some(part) = &self.part {
            let (part, node, host) = (Arc::clone(part), Arc::clone(&self.node), Arc::clone(&self.host));
            let (accepting, stop) = (self.stop_accepting.clone(), self.stop_services.clone());
            tokio::spawn(async move {
                let why = tokio::select! {
                    () = stop.cancelled() => return,
                    why = part.cast_out() => why,
                };
                error!(
                    why,
                    "this node may no longer take part; its clients are sent to other nodes, and it serves nobody until it is started again"
                );
                accepting.cancel();
                send_away(&node, ReasonCode::UseAnotherServer);
                host.hand_over().await;
            });
        }
        tokio::spawn(services::run_housekeeping(Arc::clone(&self.node), self.stop_services.clone()));
        let rate = Arc::new(ConnectionRate::new(self.connections_per_sec, self.node.clock.now()));
        let mut serving = Vec::new();
        for Door { socket, setup, url } in self.doors.drain(..) {
            serving.push(url);
            let shards = Arc::clone(&self.node.shards);
            let dealer = Dealer { setup, shards, limit: self.limit.clone(), rate: Arc::clone(&rate) };
            tokio::spawn(listener::accept_loop(socket, dealer, self.stop_accepting.clone()));
        }
        serving
    }

    /// Ends it in order: leadership goes to others, no new connections, DISCONNECT to each client, then the services, then
    /// what is on disk. `at_once` ends the waiting for other nodes.
    pub(crate) async fn stop(self, at_once: impl Future<Output = ()>) {
        let mut reason = ReasonCode::ServerShuttingDown;
        if let Some(part) = &self.part {
            if part.leave_room(at_once).await {
                reason = ReasonCode::UseAnotherServer;
            }
            self.host.hand_over().await;
        }
        self.stop_accepting.cancel();
        send_away(&self.node, reason);
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().all(|thread| thread.join().is_ok()));
        match tokio::time::timeout(self.grace.mul_f32(0.8), joined).await {
            Ok(Ok(true)) => {}
            Ok(_) => warn!("a shard ended by a panic"),
            Err(_) => warn!("some clients did not leave in time; they are cut off"),
        }
        self.stop_services.cancel();
        if let Err(error) = self.host.shutdown().await {
            warn!(%error, "the last flush failed; what was acknowledged is in the log and will be replayed");
        }
        if let Some(part) = &self.part {
            part.cluster.leave().await;
            part.rpc.shutdown().await;
        }
    }
}

/// Ends all sessions.
fn send_away(node: &Node, reason: ReasonCode) {
    let publish_wills = !node.settings.no_lwt_when_server_shutting_down;
    for shard in node.shards.iter() {
        shard.send(Letter::Shutdown { publish_wills, reason });
    }
}

/// File descriptors that the process keeps for itself: RocksDB, HTTP, listeners.
const DESCRIPTORS_KEPT: u64 = 512;

/// Raises the limit of file descriptors as far as it may, and tells how many of them clients can have.
fn descriptors_for_clients() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        warn!(%error, "the limit of open files could not be raised");
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::from(u32::MAX));
    usize::try_from(limit.saturating_sub(DESCRIPTORS_KEPT).max(16)).unwrap_or(usize::MAX)
}

/// Reads users, rules and certificates again when the files have changed, and on SIGHUP.
async fn reload_files(
    access: Arc<Access>,
    certificates: Vec<(ListenerKind, Arc<Tls>)>,
    node: Arc<Node>,
    every: Duration,
    stop: CancellationToken,
) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        warn!("SIGHUP can't be heard; files are read again neither on it nor when they change");
        return;
    };
    loop {
        let reloaded = tokio::select! {
            () = stop.cancelled() => return,
            _ = hangup.recv() => access.reload().map(|()| true),
            () = tokio::time::sleep(every) => access.reload_if_changed(),
        };
        match reloaded {
            Ok(true) => {
                info!("users and rules were read again");
                for shard in node.shards.iter() {
                    shard.send(Letter::AccessChanged);
                }
            }
            Ok(false) => {}
            Err(error) => warn!(%error, "users and rules could not be read; those from before stay in force"),
        }
        for (kind, tls) in &certificates {
            match tls.reload_if_changed() {
                Ok(true) => {
                    info!(listener = kind.key(), "certificates were read again; they count for new connections")
                }
                Ok(false) => {}
                Err(error) => {
                    warn!(listener = kind.key(), %error, "certificates could not be read; those from before stay in force");
                }
            }
        }
    }
}
