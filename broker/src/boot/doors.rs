//! The sockets of a node: all bound before anything is touched, or none.

use super::StartError;
use crate::cluster::Sockets;
use mqtt_transport::{HandshakeLimit, Kind, ListenOptions, ProxyPolicy, Setup, Tls, TlsFiles, WsOptions, listen};
use node_config::{Listener, ListenerKind, Loaded, ProxyProtocolMode, SslConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// What a node listens on.
pub(super) struct Doors {
    pub(super) mqtt: Vec<Door>,
    pub(super) api: Vec<(SocketAddr, TcpListener)>,
    /// For other nodes.
    pub(super) cluster: Option<Sockets>,
    /// To be read again when the files change.
    pub(super) certificates: Vec<(ListenerKind, Arc<Tls>)>,
}

/// Where clients come in.
pub(super) struct Door {
    pub(super) socket: TcpListener,
    pub(super) setup: Arc<Setup>,
    /// For people.
    pub(super) url: String,
}

impl Doors {
    pub(super) async fn bind(loaded: &Loaded) -> Result<Self, StartError> {
        let config = &loaded.config;
        let server = &config.mqtt_service.server;
        let handshakes = HandshakeLimit::new(server.max_tls_handshakes as usize);
        let mut doors = Self { mqtt: Vec::new(), api: Vec::new(), cluster: None, certificates: Vec::new() };
        let mut refused = Vec::new();
        for listener in server.listeners().into_iter().filter(|l| l.enable) {
            let setup = Arc::new(setup(listener, server.conn_timeout_sec, &handshakes, &mut doors.certificates)?);
            let path = if listener.kind.is_websocket() { listener.ws_path.as_str() } else { "" };
            for address in listener.hosts.with_port(listener.port) {
                let url = format!("{}{address}{path}", scheme(listener.kind));
                match bind(address) {
                    Ok(socket) => doors.mqtt.push(Door { socket, setup: Arc::clone(&setup), url }),
                    // A machine without IPv6 still has the other loopback address.
                    Err(error) if is_missing_ipv6(&error, address) => {}
                    Err(error) => {
                        let key = format!("mqttServiceConfig.server.{}", listener.kind.key());
                        refused.push(cannot_bind(&key, address, &error));
                    }
                }
            }
        }
        if config.api_server.enable {
            for address in config.api_server.hosts.with_port(config.api_server.http_port) {
                match bind(address) {
                    Ok(socket) => doors.api.push((address, socket)),
                    Err(error) if is_missing_ipv6(&error, address) => {}
                    Err(error) => refused.push(cannot_bind("apiServerConfig", address, &error)),
                }
            }
        }
        if let Some(cluster) = &loaded.cluster {
            match Sockets::bind(cluster.bind).await {
                Ok(sockets) => doors.cluster = Some(sockets),
                Err(error) => refused.push(cannot_bind("clusterConfig", cluster.bind, &error)),
            }
        }
        if refused.is_empty() { Ok(doors) } else { Err(StartError::Bind(refused)) }
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
