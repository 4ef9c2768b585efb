//! Puts a node together, runs it, and takes it apart again: the only place where concrete types meet.

use crate::cli::access_config;
use crate::cluster::{Claims, Freshness, Remote};
use crate::disk::{Disk, run_disk};
use crate::listener::{self, ConnectionLimit, ConnectionRate, Dealer};
use crate::live::{LiveTable, Registry};
use crate::node::{Node, OpenPublishes};
use crate::routes::RouteKeeper;
use crate::seen::{CommitTimes, Ready};
use crate::services::{self, Ears};
use crate::shard::{self, Letter, ShardHandle};
use base_cluster::{Identity, IdentityError};
use base_kv::{Durability, Host, KvConfig, OpenError, RangeSpec};
use base_kv_api::RangeClient;
use base_types::{Clock, SystemClock};
use crossbeam_utils::sync::ShardedLock;
use dist_worker::{DistCoproc, DistWorker};
use inbox_store::{InboxConfig, InboxCoproc, InboxStore};
use mqtt_auth::{Access, AccessError};
use mqtt_codec::ReasonCode;
use mqtt_transport::{
    HandshakeLimit, Kind, ListenOptions, ProxyPolicy, Setup, Tls, TlsError, TlsFiles, WsOptions, listen,
};
use node_config::{DeniedSubAck, Listener, ListenerKind, NodeConfig, ProxyProtocolMode, SslConfig};
use retain_store::{RetainConfig, RetainCoproc, RetainStore};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;
use telemetry::{ApiState, BuildInfo, LogHandle, Metrics};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

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
    /// Users or rules.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A thread could not be started, or the like.
    #[error("the node could not be started: {0}")]
    Io(#[from] std::io::Error),
}

/// A node that serves.
pub(crate) struct Running {
    node: Arc<Node>,
    host: Arc<Host>,
    threads: Vec<JoinHandle<()>>,
    stop_accepting: CancellationToken,
    stop_services: CancellationToken,
    /// Where MQTT is served, for people.
    pub(crate) serving: Vec<String>,
    /// Where HTTP is served.
    pub(crate) api_at: Option<SocketAddr>,
    /// The port of plain MQTT, to try.
    pub(crate) plain_port: Option<u16>,
    grace: Duration,
}

/// Starts a node. Binds everything before it touches the data directory.
pub(crate) async fn start(config: &NodeConfig, logs: LogHandle) -> Result<Running, StartError> {
    let server = &config.mqtt_service.server;
    let handshakes = HandshakeLimit::new(server.max_tls_handshakes as usize);
    let mut certificates = Vec::new();
    let mut bound = Vec::new();
    let mut refused = Vec::new();
    for listener in server.listeners().into_iter().filter(|l| l.enable) {
        let setup = Arc::new(setup(listener, server.conn_timeout_sec, &handshakes, &mut certificates)?);
        for address in listener.hosts.with_port(listener.port) {
            match bind(address) {
                Ok(socket) => bound.push((listener, address, socket, Arc::clone(&setup))),
                // A machine without IPv6 still has the other loopback address.
                Err(error) if is_missing_ipv6(&error, address) => {}
                Err(error) => {
                    let key = format!("mqttServiceConfig.server.{}", listener.kind.key());
                    refused.push(cannot_bind(&key, address, &error));
                }
            }
        }
    }
    let mut api = Vec::new();
    if config.api_server.enable {
        for address in config.api_server.hosts.with_port(config.api_server.http_port) {
            match bind(address) {
                Ok(socket) => api.push((address, socket)),
                Err(error) if is_missing_ipv6(&error, address) => {}
                Err(error) => refused.push(cannot_bind("apiServerConfig", address, &error)),
            }
        }
    }
    if !refused.is_empty() {
        return Err(StartError::Bind(refused));
    }
    let access = Arc::new(Access::open(access_config(config))?);

    let metrics = Metrics::new(BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("HERMOD_COMMIT").unwrap_or(""),
    });
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let run = Identity::load_or_create(&config.data_dir)?;
    // The largest message must fit into one command, with room for its receivers, and several into the queue.
    let command_bytes = config.tenant.max_packet_size() as usize + (2 << 20);
    let kv = KvConfig {
        command_bytes,
        queue_bytes: (8 << 20).max(4 * command_bytes),
        data_dir: config.data_dir.clone(),
        durability: match config.state_store.durability {
            node_config::Durability::Fsync => Durability::Fsync,
            node_config::Durability::Os => Durability::NoSync,
        },
        ..KvConfig::default()
    };
    let observer = Arc::new(CommitTimes(Arc::clone(&metrics)));
    let host = Host::open_observed(kv, run, Arc::clone(&clock), observer)?;
    let (coproc, index) = DistCoproc::new(run);
    let dist_range: Arc<dyn RangeClient> = Arc::new(host.open_range(RangeSpec::whole("dist"), Box::new(coproc)).await?);
    let dist = DistWorker::new(Arc::clone(&dist_range), index);
    let (coproc, handle) = InboxCoproc::new(InboxConfig::new(run.node));
    let (ears, heard) = Ears::new();
    handle.listen(ears.clone());
    let inbox_range: Arc<dyn RangeClient> =
        Arc::new(host.open_range(RangeSpec::whole("inbox"), Box::new(coproc)).await?);
    let inbox = InboxStore::start(Arc::clone(&inbox_range), handle, Arc::clone(&clock));
    let (coproc, figures) = RetainCoproc::new();
    let retain_range: Arc<dyn RangeClient> =
        Arc::new(host.open_range(RangeSpec::whole("retain"), Box::new(coproc)).await?);
    let retain = RetainStore::new(Arc::clone(&retain_range), figures, Arc::clone(&clock), RetainConfig::default());
    for range in [&dist_range, &inbox_range, &retain_range] {
        range.ready().await;
    }

    let shard_count = match server.worker_threads {
        // The other half of the cores is for the ranges: log, apply, compaction. What stays on one shard costs least.
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
        n => n as usize,
    };
    let mut settings = config.tenant.clone();
    settings.connect_timeout_seconds = server.conn_timeout_sec;
    let (alarm, refuse) = (config.state_store.disk_alarm_percent, config.state_store.disk_refuse_percent);
    let percent = |value| u8::try_from(value).unwrap_or(100);
    let disk = Arc::new(Disk::new(config.data_dir.clone(), percent(alarm), percent(refuse)));
    let shards: Arc<[ShardHandle]> = (0..shard_count).map(|_| ShardHandle::new()).collect();
    let now = clock.now();
    let node = Arc::new(Node {
        run,
        clock,
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
        remote: Remote::new(None),
        claims: Claims::new(None),
        fresh: Freshness::new(now, false),
        sys: parking_lot::RwLock::default(),
        turn: AtomicUsize::new(0),
        open: OpenPublishes::default(),
        disk: Arc::clone(&disk),
        admitted: Arc::default(),
    });
    ears.connect(&node);

    let stop_services = CancellationToken::new();
    let detached = node.inbox.detach_runs_before(run).await;
    match detached {
        Ok(0) => {}
        Ok(count) => info!(count, "sessions of the run before this one count as disconnected now"),
        Err(error) => warn!(%error, "sessions of the run before this one could not be looked at"),
    }
    tokio::spawn(node.routes.clone().run(Arc::clone(&node.dist), run, stop_services.clone()));
    tokio::spawn(services::run_wills(Arc::clone(&node), heard.wills, stop_services.clone()));
    tokio::spawn(services::run_ended(Arc::clone(&node), heard.ended, stop_services.clone()));
    let host = Arc::new(host);
    crate::seen::on_scrape(&node, &host);
    tokio::spawn(run_disk(disk, stop_services.clone()));
    tokio::spawn(services::run_sys(Arc::clone(&node), stop_services.clone()));
    tokio::spawn(services::run_housekeeping(Arc::clone(&node), stop_services.clone()));
    let every = match config.auth.reload_interval_sec {
        0 => Duration::MAX,
        secs => Duration::from_secs(u64::from(secs)),
    };
    tokio::spawn(reload_files(access, certificates, Arc::clone(&node), every, stop_services.clone()));

    let threads = (0..shard_count)
        .map(|index| shard::spawn(u16::try_from(index).unwrap_or(u16::MAX), Arc::clone(&node)))
        .collect::<Result<Vec<_>, _>>()?;
    let stop_accepting = CancellationToken::new();
    let limit = ConnectionLimit::new(match server.max_connections {
        0 => descriptors_for_clients(),
        n => n as usize,
    });
    let rate = Arc::new(ConnectionRate::new(server.max_conn_per_sec, node.clock.now()));
    let mut serving = Vec::new();
    for (listener, address, socket, setup) in bound {
        let path = if listener.kind.is_websocket() { listener.ws_path.as_str() } else { "" };
        serving.push(format!("{}{address}{path}", scheme(listener.kind)));
        let dealer = Dealer { setup, shards: Arc::clone(&shards), limit: limit.clone(), rate: Arc::clone(&rate) };
        tokio::spawn(listener::accept_loop(socket, dealer, stop_accepting.clone()));
    }
    let plain_port = server.tcp.enable.then_some(server.tcp.port);
    let mut api_at = None;
    if !api.is_empty() {
        api_at = api.first().map(|(address, _)| *address);
        let sockets = api.into_iter().map(|(_, socket)| socket).collect();
        let state = ApiState {
            metrics,
            readiness: Arc::new(Ready { node: Arc::clone(&node), host: Arc::clone(&host) }),
            logs: Some(logs),
            token: None,
        };
        tokio::spawn(telemetry::serve(sockets, telemetry::router(Arc::new(state)), stop_services.clone()));
    }
    let grace = Duration::from_secs(u64::from(server.shutdown_grace_sec));
    Ok(Running { node, host, threads, stop_accepting, stop_services, serving, api_at, plain_port, grace })
}

impl Running {
    /// Ends it in order: no new connections, DISCONNECT to each client, then the services, then what is on disk.
    pub(crate) async fn stop(self) {
        self.stop_accepting.cancel();
        let publish_wills = !self.node.settings.no_lwt_when_server_shutting_down;
        for shard in self.node.shards.iter() {
            shard.send(Letter::Shutdown { publish_wills });
        }
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

fn setup(
    listener: &Listener,
    timeout_secs: u16,
    handshakes: &HandshakeLimit,
    certificates: &mut Vec<(ListenerKind, Arc<Tls>)>,
) -> Result<Setup, StartError> {
    let mut tls = |ssl: &SslConfig| {
        let files = TlsFiles {
            cert_file: ssl.cert_file.clone().unwrap_or_default(),
            key_file: ssl.key_file.clone().unwrap_or_default(),
            trust_certs_file: ssl.trust_certs_file.clone(),
            crl_file: ssl.crl_file.clone(),
            client_auth: match ssl.client_auth {
                node_config::ClientAuth::None => mqtt_transport::ClientAuth::None,
                node_config::ClientAuth::Optional => mqtt_transport::ClientAuth::Optional,
                node_config::ClientAuth::Required => mqtt_transport::ClientAuth::Require,
            },
        };
        let tls = Tls::load(files)
            .map_err(|error| StartError::Tls { listener: listener.kind.key(), error: Box::new(error) })?;
        certificates.push((listener.kind, Arc::clone(&tls)));
        Ok::<_, StartError>(tls)
    };
    let ws = || WsOptions::new(listener.ws_path.as_str());
    let kind = match listener.kind {
        ListenerKind::Tcp => Kind::Tcp,
        ListenerKind::Tls => Kind::Tls(tls(&listener.ssl)?),
        ListenerKind::Ws => Kind::Ws(ws()),
        ListenerKind::Wss => Kind::Wss(tls(&listener.ssl)?, ws()),
    };
    let trusted = || {
        let nets = listener.proxy_protocol.trusted_addresses.iter();
        nets.filter_map(|net| net.to_string().parse().ok()).collect()
    };
    let proxy = match listener.proxy_protocol.mode {
        ProxyProtocolMode::Off => ProxyPolicy::Off,
        ProxyProtocolMode::Optional => ProxyPolicy::Optional(trusted()),
        ProxyProtocolMode::Required => ProxyPolicy::Required(trusted()),
    };
    let handshake_timeout = Duration::from_secs(u64::from(timeout_secs));
    Ok(Setup { kind, proxy, handshake_timeout, handshakes: handshakes.clone() })
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::from_std(listen(address, ListenOptions::default())?)
}

fn cannot_bind(key: &str, address: SocketAddr, error: &std::io::Error) -> String {
    let advice = match error.kind() {
        std::io::ErrorKind::AddrInUse => "another process listens there: stop it, or choose another port",
        std::io::ErrorKind::PermissionDenied => "choose a port from 1024 on, or give the process the right to bind it",
        _ => "is this an address of this machine?",
    };
    format!("{key}: {address} can't be bound: {error}; {advice}")
}

fn is_missing_ipv6(error: &std::io::Error, address: SocketAddr) -> bool {
    let missing = matches!(
        error.raw_os_error(),
        // EAFNOSUPPORT, EADDRNOTAVAIL
        Some(97 | 99)
    );
    missing && address.is_ipv6() && address.ip().is_loopback()
}

fn scheme(kind: ListenerKind) -> &'static str {
    match kind {
        ListenerKind::Tcp => "mqtt://",
        ListenerKind::Tls => "mqtts://",
        ListenerKind::Ws => "ws://",
        ListenerKind::Wss => "wss://",
    }
}
