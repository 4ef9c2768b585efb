//! Byte streams that carry MQTT: TCP, TLS, WebSocket and WebSocket over TLS, behind a proxy or not.
//!
//! [`accept`] takes a socket through everything that comes before the first MQTT byte and gives a [`Transport`] and the
//! [`Peer`] at its other end. What it speaks is said by a [`Setup`], one per listener; [`listen`] binds the listener.
//! This crate knows nothing of MQTT packets.

mod accept;
mod cidr;
mod listen;
mod peer;
mod proxy;
mod setup;
mod tls;
mod transport;
mod ws;

pub use accept::{AcceptError, accept};
pub use cidr::{Cidr, CidrError};
pub use listen::{ListenOptions, listen};
pub use peer::{Peer, TlsPeer, TransportKind};
pub use proxy::ProxyHeaderError;
pub use setup::{HandshakeLimit, Kind, ProxyPolicy, Setup};
pub use tls::{ClientAuth, Tls, TlsError, TlsFiles};
pub use transport::Transport;
pub use ws::{FrameError, UpgradeError, WsOptions, WsStream};
