use base_types::NodeIncarnation;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::Instant;

/// Why no connection came about, or why one ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it does not speak the protocol of this cluster ({0})")]
    Protocol(String),
    #[error("version {0}")]
    Version(u16),
    #[error("another way to prove itself: {0}")]
    Mode(&'static str),
    #[error("another env '{0}'")]
    Env(String),
    #[error("another secret")]
    Secret,
    #[error("its certificate is not of this cluster, or ours not of its: {0}")]
    Certificate(String),
    #[error("another node was meant than {}", .0.node)]
    AnotherNode(NodeIncarnation),
    #[error("it has the id of this node itself")]
    Itself,
    #[error("an older run of the node")]
    OlderRun,
    #[error("a newer connection exists")]
    Superseded,
    #[error("too many connections")]
    TooMany,
    #[error("it did not prove itself in time")]
    Slow,
    /// No misfit, merely no connection; not counted as refused.
    #[error("{0}")]
    Io(String),
}

/// Why connections are refused; for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RefusedBecause {
    /// What came is not this protocol.
    Protocol,
    /// Another protocol version.
    Version,
    /// One uses a secret, the other TLS, or nothing.
    Mode,
    /// Another environment.
    Env,
    /// Another secret.
    Secret,
    /// The certificate.
    Certificate,
    /// An address leads to another node than was meant.
    AnotherNode,
    /// A node with the id of this one.
    Itself,
    /// A run of a node that has been started again since.
    OlderRun,
    /// The peer has connected again since.
    Superseded,
    /// There are too many connections.
    TooMany,
    /// It took too long.
    Slow,
}

impl RefusedBecause {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Protocol,
        Self::Version,
        Self::Mode,
        Self::Env,
        Self::Secret,
        Self::Certificate,
        Self::AnotherNode,
        Self::Itself,
        Self::OlderRun,
        Self::Superseded,
        Self::TooMany,
        Self::Slow,
    ];

    /// A word for a metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Version => "version",
            Self::Mode => "mode",
            Self::Env => "env",
            Self::Secret => "secret",
            Self::Certificate => "certificate",
            Self::AnotherNode => "another_node",
            Self::Itself => "itself",
            Self::OlderRun => "older_run",
            Self::Superseded => "superseded",
            Self::TooMany => "too_many",
            Self::Slow => "slow",
        }
    }
}

impl Refusal {
    /// As what it is counted.
    pub(crate) fn because(&self) -> Option<RefusedBecause> {
        Some(match self {
            Self::Protocol(_) => RefusedBecause::Protocol,
            Self::Version(_) => RefusedBecause::Version,
            Self::Mode(_) => RefusedBecause::Mode,
            Self::Env(_) => RefusedBecause::Env,
            Self::Secret => RefusedBecause::Secret,
            Self::Certificate(_) => RefusedBecause::Certificate,
            Self::AnotherNode(_) => RefusedBecause::AnotherNode,
            Self::Itself => RefusedBecause::Itself,
            Self::OlderRun => RefusedBecause::OlderRun,
            Self::Superseded => RefusedBecause::Superseded,
            Self::TooMany => RefusedBecause::TooMany,
            Self::Slow => RefusedBecause::Slow,
            Self::Io(_) => return None,
        })
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

/// Says each peer address at most once a minute, however often it is refused.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<HashMap<IpAddr, Instant, foldhash::fast::RandomState>>);

/// Addresses that are remembered.
const ADDRESSES: usize = 1024;
const EVERY: Duration = Duration::from_secs(60);

impl Reports {
    /// Whether a refusal of this address is to be reported now.
    pub(crate) fn due(&self, addr: SocketAddr, now: Instant) -> bool {
        let mut said = self.0.lock();
        if said.len() >= ADDRESSES {
            said.retain(|_, at| now.duration_since(*at) < EVERY);
        }
        let known = said.get(&addr.ip());
        if known.is_some_and(|at| now.duration_since(*at) < EVERY) || (known.is_none() && said.len() >= ADDRESSES) {
            return false;
        }
        said.insert(addr.ip(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_reported_once_a_minute() {
        let (reports, now) = (Reports::default(), Instant::now());
        let [a, b] = ["10.0.0.1:1", "10.0.0.2:1"].map(|addr| addr.parse().unwrap());
        assert!(reports.due(a, now) && !reports.due(a, now) && reports.due(b, now));
        assert!(reports.due(a, now + EVERY));
    }
}
