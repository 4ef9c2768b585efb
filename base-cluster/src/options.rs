use base_types::NodeIncarnation;
use std::fmt;
use std::net::SocketAddr;

/// What a node needs to find the others, and to be found.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// This run of this node, from [`crate::Identity`].
    pub me: NodeIncarnation,
    /// Name of the cluster. Nodes of different names never mix.
    pub env: String,
    /// Where the others reach this node (UDP and TCP), when that is not the address of the socket. A port of 0 stands for the socket's.
    /// Needed when the socket is bound to all addresses and no seed tells which one is meant.
    pub advertise: Option<Advertise>,
    /// Whom to ask at the start and after a separation, `host:port`. A name may stand for many addresses; it is resolved anew each time.
    pub seeds: Vec<String>,
    /// What the nodes share; packets are sealed with the first and opened with any (for rotation). None: packets are not sealed.
    pub secrets: Vec<Secret>,
    /// Seed of everything random, for simulations; None: from the system.
    pub seed: Option<u64>,
}

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// Name or address.
    pub host: String,
    /// Port; 0 for that of the socket.
    pub port: u16,
}

/// A secret; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Whatever the operator wrote; keys are derived from it.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Why a node can't take part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The socket is bound to all addresses and nothing tells under which one the others reach this node.
    #[error(
        "bound to {bound}, and no seed can be resolved to tell which address the others should use: \
         set clusterConfig.host to the address or name of this machine"
    )]
    NoAddress {
        /// What the socket is bound to.
        bound: SocketAddr,
    },
    /// The host to advertise has no address.
    #[error("can't resolve the advertised host {host}: {cause}")]
    Advertise {
        /// As given.
        host: String,
        /// Why.
        cause: String,
    },
    /// The socket does not tell its address.
    #[error("the cluster's socket is unusable: {0}")]
    Socket(#[from] std::io::Error),
    /// The system gave no random bytes.
    #[error("can't draw random bytes: {0}")]
    Random(String),
}
