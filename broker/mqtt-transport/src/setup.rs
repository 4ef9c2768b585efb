//! What a listener speaks.

use crate::{Cidr, TransportKind, WsOptions};
use rustls::ServerConfig;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What comes before the first MQTT byte on the sockets of one listener.
#[derive(Clone, Debug)]
pub struct Setup {
    /// TCP, TLS, WebSocket or both.
    pub kind: Kind,
    /// Who may put a PROXY header in front.
    pub proxy: ProxyPolicy,
    /// For everything before the first MQTT byte together; 10 s by default.
    pub handshake_timeout: Duration,
}

/// The layers between the socket and MQTT.
#[derive(Clone, Debug)]
pub enum Kind {
    /// None.
    Tcp,
    /// TLS; see [`load_tls`](crate::load_tls).
    Tls(Arc<ServerConfig>),
    /// WebSocket.
    Ws(WsOptions),
    /// WebSocket over TLS.
    Wss(Arc<ServerConfig>, WsOptions),
}

/// Whether a connection begins with a PROXY protocol header, which says whose connection a load balancer passes on.
///
/// Believing such a header means believing any client address, so it is read from the listed addresses only. From any other
/// address nothing is parsed: those bytes reach MQTT (or TLS) and fail there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyPolicy {
    /// No header is read from anybody.
    #[default]
    Off,
    /// The listed addresses may send a header.
    Optional(Vec<Cidr>),
    /// The listed addresses must send a header; others connect as if this were [`ProxyPolicy::Off`].
    Required(Vec<Cidr>),
}

/// What [`ProxyPolicy`] says about one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Nothing,
    MayBe,
    Header,
}

impl Setup {
    /// `kind` without a proxy in front, and 10 s for the handshake.
    pub fn new(kind: Kind) -> Self {
        Self { kind, proxy: ProxyPolicy::Off, handshake_timeout: Duration::from_secs(10) }
    }
}

impl Kind {
    /// The name of these layers.
    pub fn transport(&self) -> TransportKind {
        match self {
            Self::Tcp => TransportKind::Tcp,
            Self::Tls(_) => TransportKind::Tls,
            Self::Ws(_) => TransportKind::Ws,
            Self::Wss(..) => TransportKind::Wss,
        }
    }
}

impl ProxyPolicy {
    pub(crate) fn expect_from(&self, address: IpAddr) -> Expect {
        let listed = |nets: &[Cidr]| nets.iter().any(|net| net.contains(address));
        match self {
            Self::Optional(nets) if listed(nets) => Expect::MayBe,
            Self::Required(nets) if listed(nets) => Expect::Header,
            _ => Expect::Nothing,
        }
    }
}
