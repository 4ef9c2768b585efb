//! Who is at the other end.

use std::fmt;
use std::net::SocketAddr;

/// The other end of a connection, as far as it is known before the first MQTT byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client: what the PROXY header says if there was one, else who opened the socket.
    pub addr: SocketAddr,
    /// Our end of the socket.
    pub local: SocketAddr,
    /// The proxy that opened the socket on behalf of `addr`.
    pub via_proxy: Option<SocketAddr>,
    /// What TLS knows; `None` without TLS.
    pub tls: Option<Box<TlsPeer>>,
    /// The layers between the socket and MQTT.
    pub kind: TransportKind,
}

/// What TLS knows of the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPeer {
    /// `TLSv1_2` or `TLSv1_3`.
    pub version: &'static str,
    /// The cipher suite by its IANA name, e.g. `TLS13_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
    /// The verified certificate of the client, DER.
    pub client_cert_der: Option<Vec<u8>>,
    /// The first common name in the subject of that certificate, when it is text without control characters.
    pub common_name: Option<String>,
}

/// The layers between the socket and MQTT, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// Plain TCP.
    Tcp,
    /// TLS.
    Tls,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl TransportKind {
    /// `tcp`, `tls`, `ws` or `wss`: for logs and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
