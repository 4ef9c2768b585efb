//! From a socket that was accepted to the first MQTT byte.

use crate::setup::Expect;
use crate::{
    HandshakeLimit, Kind, Peer, ProxyHeaderError, Setup, Tls, TlsPeer, Transport, UpgradeError, WsOptions, WsStream,
    proxy, tls, ws,
};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A trusted proxy sends its header at once.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a connection ended before its first MQTT byte.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The peer was too slow.
    #[error("the {stage} took longer than {limit:?}")]
    Timeout {
        /// What was under way: `PROXY header`, `TLS handshake` or `WebSocket upgrade`.
        stage: &'static str,
        /// How long it may take.
        limit: Duration,
    },
    /// The PROXY header is missing or malformed.
    #[error(transparent)]
    ProxyHeader(#[from] ProxyHeaderError),
    /// The TLS handshake failed; the peer was told by an alert.
    #[error("TLS handshake: {0}")]
    TlsHandshake(#[source] io::Error),
    /// As many TLS handshakes as may be are under way; see [`HandshakeLimit`](crate::HandshakeLimit).
    #[error("too many TLS handshakes at the same time")]
    TooManyHandshakes,
    /// The WebSocket upgrade was refused; the peer was told by an HTTP status.
    #[error("WebSocket upgrade: {0}")]
    WsUpgrade(#[from] UpgradeError),
    /// The socket failed, or the peer closed it.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

impl AcceptError {
    /// A short name that never changes, for metric labels and logs: `timeout`, `proxy_header`, `tls_handshake`,
    /// `too_many_handshakes`, `ws_upgrade`, `io`.
    pub const fn cause(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::ProxyHeader(_) => "proxy_header",
            Self::TlsHandshake(_) => "tls_handshake",
            Self::TooManyHandshakes => "too_many_handshakes",
            Self::WsUpgrade(_) => "ws_upgrade",
            Self::Io(_) => "io",
        }
    }
}

/// Takes `stream`, just accepted from `peer`, through the layers of `setup`.
///
/// Refuses within [`Setup::handshake_timeout`] (a PROXY header has 5 s of it). Whoever can be told why has been told when this returns an
/// error: by a TLS alert or an HTTP status. Plain TCP returns at once.
pub async fn accept(stream: TcpStream, peer: SocketAddr, setup: &Setup) -> Result<(Transport, Peer), AcceptError> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let mut peer = Peer { addr: peer, local, via_proxy: None, tls: None, kind: setup.kind.transport() };
    let expect = setup.proxy.expect_from(peer.addr.ip());
    if let (Kind::Tcp, Expect::Nothing) = (&setup.kind, expect) {
        return Ok((Transport::Tcp(stream), peer));
    }

    // What is under way, for the error of the timeout. Boxed: a handshake is rare and its future is large.
    let limit = setup.handshake_timeout;
    let mut stage = "PROXY header";
    let handshake = Box::pin(layers(stream, &mut peer, expect, setup, &mut stage));
    let transport = match timeout(limit, handshake).await {
        Ok(done) => done?,
        Err(_) => return Err(AcceptError::Timeout { stage, limit }),
    };
    Ok((transport, peer))
}

async fn layers(
    mut stream: TcpStream,
    peer: &mut Peer,
    expect: Expect,
    setup: &Setup,
    stage: &mut &'static str,
) -> Result<Transport, AcceptError> {
    if let Some(client) = proxy_header(&mut stream, expect).await? {
        peer.via_proxy = Some(peer.addr);
        peer.addr = client;
    }
    Ok(match &setup.kind {
        Kind::Tcp => Transport::Tcp(stream),
        Kind::Tls(tls) => {
            *stage = "TLS handshake";
            let (stream, client) = tls_handshake(stream, tls, &setup.handshakes).await?;
            peer.tls = Some(Box::new(client));
            Transport::Tls(Box::new(stream))
        }
        Kind::Ws(options) => {
            *stage = "WebSocket upgrade";
            Transport::Ws(Box::new(upgrade(stream, options).await?))
        }
        Kind::Wss(tls, options) => {
            *stage = "TLS handshake";
            let (stream, client) = tls_handshake(stream, tls, &setup.handshakes).await?;
            peer.tls = Some(Box::new(client));
            *stage = "WebSocket upgrade";
            Transport::Wss(Box::new(upgrade(stream, options).await?))
        }
    })
}

/// The client for whom the proxy speaks, if it is one and says so.
async fn proxy_header(stream: &mut TcpStream, expect: Expect) -> Result<Option<SocketAddr>, AcceptError> {
    let limit = PROXY_HEADER_TIMEOUT;
    let header = async {
        match expect {
            Expect::Nothing => Ok(None),
            Expect::MayBe if !proxy::begins(stream).await? => Ok(None),
            Expect::MayBe | Expect::Header => Ok::<_, AcceptError>(proxy::read(stream).await??),
        }
    };
    timeout(limit, header).await.map_err(|_| AcceptError::Timeout { stage: "PROXY header", limit })?
}

async fn tls_handshake(
    stream: TcpStream,
    tls: &Tls,
    limit: &HandshakeLimit,
) -> Result<(TlsStream<TcpStream>, TlsPeer), AcceptError> {
    // Who says nothing takes no place.
    stream.peek(&mut [0]).await?;
    let _place = limit.admit().ok_or(AcceptError::TooManyHandshakes)?;
    let stream = TlsAcceptor::from(tls.config()).accept(stream).await.map_err(AcceptError::TlsHandshake)?;
    let peer = tls::peer_of(stream.get_ref().1);
    Ok((stream, peer))
}

async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    options: &WsOptions,
) -> Result<WsStream<S>, AcceptError> {
    ws::upgrade(stream, options).await?.map_err(AcceptError::WsUpgrade)
}
