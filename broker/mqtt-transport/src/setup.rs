//! What a listener speaks.

use crate::{Cidr, Tls, TransportKind, WsOptions};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What comes before the first MQTT byte on the sockets of one listener.
#[derive(Clone, Debug)]
pub struct Setup {
    /// TCP, TLS, WebSocket or both.
    pub kind: Kind,
    /// Who may put a PROXY header in front.
    pub proxy: ProxyPolicy,
    /// For everything before the first MQTT byte together; 10 s by default.
    pub handshake_timeout: Duration,
    /// TLS handshakes at the same time, of all setups that share it.
    pub handshakes: HandshakeLimit,
}

/// How many TLS handshakes may be under way: what the memory and the signatures of a flood of them are bounded by.
#[derive(Clone, Debug)]
pub struct HandshakeLimit(Arc<Semaphore>);

impl HandshakeLimit {
    /// So many at the same time.
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))))
    }

    pub(crate) fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// The layers between the socket and MQTT.
#[derive(Clone, Debug)]
pub enum Kind {
    /// None.
    Tcp,
    /// TLS.
    Tls(Arc<Tls>),
    /// WebSocket.
    Ws(WsOptions),
    /// WebSocket over TLS.
    Wss(Arc<Tls>, WsOptions),
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
    /// `kind` without a proxy in front, 10 s for the handshake, and 1000 of those at the same time.
    pub fn new(kind: Kind) -> Self {
        let handshakes = HandshakeLimit::new(1000);
        Self { kind, proxy: ProxyPolicy::Off, handshake_timeout: Duration::from_secs(10), handshakes }
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
