use crate::mesh::Lane;
use crate::net::TcpListener;
use crate::tls::Tls;
use base_types::NodeIncarnation;
use ring::hkdf;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// What nodes speak to each other. Nodes of different versions refuse each other; it rises when an old node would misread a new one.
pub const PROTOCOL_VERSION: u16 = 1;

/// Everything that [`crate::Rpc::start`] has to know.
#[derive(Debug)]
pub struct RpcConfig {
    /// This run of this node.
    pub me: NodeIncarnation,
    /// Nodes of different environments never mix. At most 255 bytes.
    pub env: String,
    /// Where peers connect to.
    pub listen: Listen,
    /// How peers prove that they belong to the cluster.
    pub security: Security,
    /// How much may wait.
    pub bounds: Bounds,
    /// How long things may take.
    pub timing: Timing,
    /// Seeds the jitter of reconnects.
    pub seed: u64,
}

impl RpcConfig {
    /// With the default bounds and times.
    #[must_use]
    pub fn new(me: NodeIncarnation, env: impl Into<String>, listen: Listen, security: Security) -> Self {
        let (env, seed) = (env.into(), me.node.0 ^ me.incarnation.0.rotate_left(32));
        Self { me, env, listen, security, bounds: Bounds::default(), timing: Timing::default(), seed }
    }
}

/// The TCP socket that peers connect to.
pub enum Listen {
    /// To be bound; port 0 takes a free one.
    Bind(SocketAddr),
    /// Bound already.
    Bound(TcpListener),
}

impl fmt::Debug for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A socket of turmoil has no Debug.
        match self {
            Self::Bind(addr) => f.debug_tuple("Bind").field(addr).finish(),
            Self::Bound(listener) => f.debug_tuple("Bound").field(&listener.local_addr().ok()).finish(),
        }
    }
}

/// How peers prove that they belong to the cluster, and whether others can read what they say.
#[derive(Clone, Debug)]
pub enum Security {
    /// Not at all: for loopback, and for networks that nobody else can reach.
    Plain,
    /// Both know a secret: Noise `NNpsk0_25519_AESGCM_BLAKE2s`, with forward secrecy.
    Secret(Secret),
    /// Both have a certificate of the cluster's authority.
    Tls(Tls),
}

/// A secret of the cluster, as 32 bytes that are derived from it. Debug output does not show it.
#[derive(Clone)]
pub struct Secret {
    pub(crate) key: [u8; 32],
    pub(crate) also: Option<[u8; 32]>,
}

impl Secret {
    /// From the secret that the operator gave. It should have 16 random bytes at least: who recorded a handshake can guess at home.
    #[must_use]
    pub fn new(secret: impl AsRef<[u8]>) -> Self {
        Self { key: derive(secret.as_ref()), also: None }
    }

    /// Peers that use `other` are let in too, while the secret is being changed on one node after the other.
    #[must_use]
    pub fn also(mut self, other: impl AsRef<[u8]>) -> Self {
        self.also = Some(derive(other.as_ref()));
        self
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

fn derive(secret: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"hermod cluster rpc 1").extract(secret);
    // HKDF-SHA256 gives up to 8,160 bytes: asked for 32 it can't fail.
    if let Ok(okm) = prk.expand(&[b"noise psk"], hkdf::HKDF_SHA256) {
        let _ = okm.fill(&mut key);
    }
    key
}

/// How much may wait. What does not fit is refused at the caller, [`crate::CallError::Busy`].
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Messages that wait to be written, per connection.
    pub queue_messages: usize,
    /// Their bytes, on the lanes raft, data and bulk. A single message that is larger than this passes when nothing else waits.
    pub queue_bytes: [usize; 3],
    /// Calls without a reply, per peer and lane.
    pub pending: usize,
    /// Bytes of one message.
    pub body: usize,
    /// Connections that have not proven anything. The oldest is dropped for a new one.
    pub unproven: usize,
    /// Connections from peers.
    pub connections: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            queue_messages: 4096,
            queue_bytes: [16 << 20, 32 << 20, 32 << 20],
            pending: 16_384,
            body: 16 << 20,
            unproven: 128,
            connections: 1024,
        }
    }
}

impl Bounds {
    pub(crate) fn queue_bytes(&self, lane: Lane) -> usize {
        self.queue_bytes[lane.index()]
    }
}

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Until a connection stands, with everything proven; on the caller's side.
    pub connect: Duration,
    /// Until a connecting peer has proven itself; on the other side.
    pub prove: Duration,
    /// How often the raft lane is pinged, and other lanes when they are quiet.
    pub ping: Duration,
    /// A raft lane on which nothing came for so many pings is dead, and with it the peer. Other lanes are given four times as long.
    pub silent_pings: u32,
    /// The pause after the first failed attempt to connect. It doubles with each, up to `backoff_max`; half of it is jitter.
    pub backoff: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            prove: Duration::from_secs(3),
            ping: Duration::from_millis(500),
            silent_pings: 5,
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_and_its_key_depends_on_it() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(***)");
        assert_ne!(Secret::new("a").key, Secret::new("b").key);
        assert_ne!(Secret::new("").key, [0; 32]);
    }
}
