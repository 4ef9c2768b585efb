use crate::Hosts;
use crate::cluster::{ClusterConfig, SecretText};
use crate::leaf::words;
use crate::listener::{Listener, ListenerKind};
use crate::section::section;
use crate::store::StoreConfig;
use mqtt_session::Settings;
use std::path::PathBuf;

section! {
    /// What one node is told. Every key with unit, default and effect: `conf/node.yml`.
    NodeConfig {
        /// Where everything durable lives; made when missing. One process at a time.
        data_dir: PathBuf = PathBuf::from("./data"), "dataDir";
        /// MQTT.
        mqtt_service: MqttServiceConfig = MqttServiceConfig::default(), "mqttServiceConfig";
        /// HTTP: `/health`, `/ready`, `/metrics`.
        api_server: ApiServerConfig = ApiServerConfig::default(), "apiServerConfig";
        /// Whether clients without a user name are let in.
        allow_anonymous: AllowAnonymous = AllowAnonymous::OnlyLoopback, "allowAnonymous";
        /// Users and their rights.
        auth: AuthConfig = AuthConfig::default(), "auth";
        /// What clients may do, and how much, by BifroMQ's names.
        tenant: Settings = Settings::default(), "tenantSettings";
        /// The replicated stores.
        state_store: StateStoreConfig = StateStoreConfig::default(), "stateStoreConfig";
        /// Other nodes.
        cluster: ClusterConfig = ClusterConfig::default(), "clusterConfig";
        /// What is told to the operator.
        log: LogConfig = LogConfig::default(), "log";
    }
}

section! {
    /// MQTT.
    MqttServiceConfig {
        /// The server side of it; the level is BifroMQ's.
        server: MqttServerConfig = MqttServerConfig::default(), "server";
    }
}

section! {
    /// Listeners, and the limits that hold before a tenant is known.
    MqttServerConfig {
        /// MQTT over TCP.
        tcp: Listener = Listener::new(ListenerKind::Tcp, true, 1883), "tcpListener";
        /// MQTT over TLS.
        tls: Listener = Listener::new(ListenerKind::Tls, false, 8883), "tlsListener";
        /// MQTT over WebSocket.
        ws: Listener = Listener::new(ListenerKind::Ws, true, 8080), "wsListener";
        /// MQTT over WebSocket over TLS.
        wss: Listener = Listener::new(ListenerKind::Wss, false, 8443), "wssListener";
        /// Seconds from accept to a complete CONNECT; TLS, PROXY header and HTTP upgrade included.
        conn_timeout_sec: u16 = 10, "connTimeoutSec" in 1..=300;
        /// Seconds from the first bytes of a packet to its last; then its connection is closed.
        packet_timeout_sec: u16 = 20, "packetTimeoutSec" in 1..=3600;
        /// New connections accepted per second, all listeners together; others wait in the kernel's queue.
        max_conn_per_sec: u32 = 2000, "maxConnPerSec" in 1..=1_000_000;
        /// TLS handshakes at the same time, all listeners together; others are closed at once.
        max_tls_handshakes: u32 = 1000, "maxTlsHandshakes" in 1..=1_000_000;
        /// Connections at the same time; others are closed at once. 0: as many as the file descriptor limit leaves.
        max_connections: u32 = 0, "maxConnections" in 0..=10_000_000;
        /// The largest CONNECT in bytes: what a stranger can make us hold. The default has room for the largest will, and 32 KiB for
        /// what stands around it.
        max_connect_bytes: u32 = 98_304, "maxConnectByteSize" in 1024..=1_048_576;
        /// Shards: threads that connections are spread over. 0: half as many as there are cores, since the stores work too.
        worker_threads: u32 = 0, "workerThreads" in 0..=1024;
        /// Seconds that a stop may take until what is still open is cut.
        shutdown_grace_sec: u32 = 5, "shutdownGraceSec" in 1..=300;
    }
}

impl MqttServerConfig {
    /// The listeners, enabled or not.
    #[must_use]
    pub fn listeners(&self) -> [&Listener; 4] {
        [&self.tcp, &self.tls, &self.ws, &self.wss]
    }
}

section! {
    /// HTTP.
    ApiServerConfig {
        /// Whether it is there.
        enable: bool = true, "enable";
        /// Where it binds. Who only looks is asked for nothing.
        hosts: Hosts = Hosts::parse(&["127.0.0.1"]).unwrap_or_else(|_| Hosts::loopback()), "host";
        /// The TCP port.
        http_port: u16 = 8091, "httpPort" in 1..=65_535;
        /// What a request that changes something has to carry; without one it has to come from this machine.
        token: Option<SecretText> = None, "token";
    }
}

words! {
    /// Whether clients without a user name are let in.
    AllowAnonymous {
        /// From this machine.
        #[default]
        OnlyLoopback = "only-loopback",
        /// From everywhere.
        Yes = "true",
        /// No.
        No = "false",
    }
}

section! {
    /// Users and their rights. Without files, whoever is let in may do everything except publish to `$…`.
    AuthConfig {
        /// User names and password hashes; kept by `hermod user`.
        users_file: Option<PathBuf> = None, "usersFile";
        /// An ordered list of rules: who may connect, publish, subscribe and retain.
        acl_file: Option<PathBuf> = None, "aclFile";
        /// Seconds between looks at the files: when one has changed, both are read again. 0: only on SIGHUP.
        reload_interval_sec: u32 = 5, "reloadIntervalSec" in 0..=86_400;
        /// What a 5.0 client is told about a filter that it may not subscribe to.
        sub_ack_denied_code: DeniedSubAck = DeniedSubAck::NotAuthorized, "subAckDeniedCode";
    }
}

words! {
    /// The reason code of a denied filter in a 5.0 SUBACK. 3.1.1 knows 0x80 only.
    DeniedSubAck {
        /// 0x87, Not authorized.
        #[default]
        NotAuthorized = "not-authorized",
        /// 0x80, Unspecified error.
        Generic = "generic",
    }
}

section! {
    /// The replicated stores.
    StateStoreConfig {
        /// What an acknowledgement means.
        durability: Durability = Durability::Fsync, "durability";
        /// Percent of the disk that are used when the alarm begins; 100: never.
        disk_alarm_percent: u16 = 90, "diskAlarmPercent" in 1..=100;
        /// Percent of the disk that are used when messages that must be stored are refused; 100: not before it is full.
        disk_refuse_percent: u16 = 95, "diskRefusePercent" in 1..=100;
        /// Subscription routes.
        dist_worker: StoreConfig = StoreConfig::default(), "distWorkerConfig";
        /// Persistent sessions.
        inbox_store: StoreConfig = StoreConfig::default(), "inboxStoreConfig";
        /// Retained messages.
        retain_store: StoreConfig = StoreConfig::default(), "retainStoreConfig";
    }
}

words! {
    /// What an acknowledgement means.
    Durability {
        /// On disk: nothing acknowledged is lost when the power fails.
        #[default]
        Fsync = "fsync",
        /// With the operating system: survives the process, not a power failure.
        Os = "os",
    }
}

section! {
    /// What is told to the operator, on standard error.
    LogConfig {
        /// `error`, `warn`, `info`, `debug`, `trace`, `off`; also per module: `info,hermod=debug`.
        level: String = "info".into(), "level";
        /// How a line looks.
        format: LogFormat = LogFormat::Text, "format";
    }
}

words! {
    /// How a line of the log looks.
    LogFormat {
        /// For people.
        #[default]
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}
