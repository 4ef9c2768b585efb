//! Two nodes on loopback, and what they are asked.
#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, reason = "each test uses its part")]

mod proxy;
pub use proxy::Proxy;

use base_rpc::{Listen, Mesh, Reply, Rpc, RpcConfig, Secret, Security, Service, Timing, Tls};
use base_types::{Incarnation, NodeId, NodeIncarnation};
use bytes::Bytes;
use parking_lot::Mutex;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

pub const A: NodeId = NodeId(1);
pub const B: NodeId = NodeId(2);
pub const SOON: Duration = Duration::from_secs(20);

pub fn run(node: NodeId, incarnation: u64) -> NodeIncarnation {
    NodeIncarnation { node, incarnation: Incarnation(incarnation) }
}

pub fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub fn secret(secret: &str) -> Security {
    Security::Secret(Secret::new(secret))
}

pub fn config(me: NodeIncarnation, security: Security) -> RpcConfig {
    let mut config = RpcConfig::new(me, "test", Listen::Bind(any_port()), security);
    config.timing =
        Timing { ping: Duration::from_millis(100), backoff_max: Duration::from_millis(100), ..Timing::default() };
    config
}

pub async fn start(me: NodeIncarnation, security: Security) -> Arc<Rpc> {
    Rpc::start(config(me, security)).await.unwrap()
}

/// Two nodes that know each other.
pub async fn pair(security: Security) -> (Arc<Rpc>, Arc<Rpc>) {
    let (a, b) = (start(run(A, 1), security.clone()).await, start(run(B, 1), security).await);
    a.set_peer(b.me(), b.local_addr());
    b.set_peer(a.me(), a.local_addr());
    (a, b)
}

/// Replies what it is sent.
pub fn echo(mesh: &dyn Mesh) {
    mesh.serve(Service::ADMIN, Arc::new(|_: NodeIncarnation, body: Bytes, reply: Reply| reply.send(body)));
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < until, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The numbers that a service was sent.
#[derive(Clone, Default)]
pub struct Collected(Arc<Mutex<Vec<u32>>>);

impl Collected {
    pub fn serve(mesh: &dyn Mesh, service: Service) -> Self {
        let this = Self::default();
        let to = this.clone();
        let handler = move |_: NodeIncarnation, body: Bytes, reply: Reply| {
            to.0.lock().push(u32::from_be_bytes(*body.first_chunk().unwrap()));
            reply.send(Bytes::new());
        };
        mesh.serve(service, Arc::new(handler));
        this
    }

    pub fn numbers(&self) -> Vec<u32> {
        self.0.lock().clone()
    }
}

/// An authority that signs certificates of nodes.
pub struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap())
    }

    /// TLS of a node of the cluster `cluster` with a certificate of this authority for `name`.
    pub fn tls(&self, name: &str, cluster: &str) -> Security {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Security::Tls(Tls::new(vec![cert.der().clone()], key, vec![self.0.der().clone()], cluster).unwrap())
    }
}

/// TLS of a node, with one authority for all.
pub fn tls(name: &str) -> Security {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(Authority::new).tls(name, name)
}
