use crate::leaf::words;
use crate::section::{AsSlot, Section, Slot, section};
use crate::{Cidr, Hosts};
use std::path::PathBuf;

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// MQTT over TCP.
    Tcp,
    /// MQTT over TLS.
    Tls,
    /// MQTT over WebSocket.
    Ws,
    /// MQTT over WebSocket over TLS.
    Wss,
}

impl ListenerKind {
    /// Whether it needs a certificate.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// Whether HTTP comes first.
    #[must_use]
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    /// The key of its section.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Tcp => "tcpListener",
            Self::Tls => "tlsListener",
            Self::Ws => "wsListener",
            Self::Wss => "wssListener",
        }
    }
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What it speaks; fixed by the key of the section.
    pub kind: ListenerKind,
    /// Whether it is there.
    pub enable: bool,
    /// Where it binds.
    pub hosts: Hosts,
    /// The TCP port.
    pub port: u16,
    /// The path of the WebSocket, with the leading `/`. Only with WebSocket.
    pub ws_path: String,
    /// Certificates. Only with TLS.
    pub ssl: SslConfig,
    /// Whether a proxy in front says who the client is.
    pub proxy_protocol: ProxyProtocol,
}

impl Listener {
    pub(crate) fn new(kind: ListenerKind, enable: bool, port: u16) -> Self {
        Self {
            kind,
            enable,
            hosts: Hosts::loopback(),
            port,
            ws_path: "/mqtt".into(),
            ssl: SslConfig::default(),
            proxy_protocol: ProxyProtocol::default(),
        }
    }
}

impl Section for Listener {
    fn keys(&self) -> Vec<&'static str> {
        let mut keys = vec!["enable", "host", "port"];
        if self.kind.is_websocket() {
            keys.push("wsPath");
        }
        if self.kind.is_tls() {
            keys.push("sslConfig");
        }
        keys.push("proxyProtocol");
        keys
    }

    fn slot(&mut self, key: &str) -> Option<Slot<'_>> {
        match key {
            "enable" => Some(self.enable.as_slot(None)),
            "host" => Some(self.hosts.as_slot(None)),
            "port" => Some(self.port.as_slot(Some(1..=65_535))),
            "wsPath" if self.kind.is_websocket() => Some(self.ws_path.as_slot(None)),
            "sslConfig" if self.kind.is_tls() => Some(self.ssl.as_slot(None)),
            "proxyProtocol" => Some(self.proxy_protocol.as_slot(None)),
            _ => None,
        }
    }
}

section!(@as_slot Listener);

section! {
    /// Certificates of a listener; PEM files, read at start and again when they change.
    SslConfig {
        /// The certificate chain that clients see, own certificate first.
        cert_file: Option<PathBuf> = None, "certFile";
        /// Its private key, unencrypted.
        key_file: Option<PathBuf> = None, "keyFile";
        /// The authorities whose client certificates are accepted.
        trust_certs_file: Option<PathBuf> = None, "trustCertsFile";
        /// Which of their certificates were revoked.
        crl_file: Option<PathBuf> = None, "crlFile";
        /// Whether clients show a certificate.
        client_auth: ClientAuth = ClientAuth::None, "clientAuth";
    }
}

words! {
    /// Whether clients show a certificate.
    ClientAuth {
        /// Not asked for.
        #[default]
        None = "NONE",
        /// Asked for; checked when there is one.
        Optional = "OPTIONAL",
        /// A handshake without one fails.
        Required = "REQUIRED",
    }
}

section! {
    /// The PROXY protocol of HAProxy, versions 1 and 2: the first bytes of a connection say who the client is.
    ProxyProtocol {
        /// Whether the header is there.
        mode: ProxyProtocolMode = ProxyProtocolMode::Off, "mode";
        /// From whom a header is believed. Who else sends one is closed.
        trusted_addresses: Vec<Cidr> = Vec::new(), "trustedAddresses";
    }
}

words! {
    /// Whether a PROXY header is expected.
    ProxyProtocolMode {
        /// Never: its bytes are no CONNECT, and close the connection.
        #[default]
        Off = "off",
        /// Connections from the trusted addresses may start with one.
        Optional = "optional",
        /// Only connections from the trusted addresses, and only with one.
        Required = "required",
    }
}
