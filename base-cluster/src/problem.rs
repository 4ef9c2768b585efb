use base_types::{Incarnation, NodeId};
use std::fmt;
use std::net::SocketAddr;

/// What keeps this node from its place in the cluster, in words for an operator. For `/ready` and the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// For almost five seconds no other node has been alive as far as this one knows, though there are seeds.
    NoSeed {
        /// Each seed, and why not.
        tried: Vec<(String, String)>,
    },
    /// Other nodes answer, but what they send to the advertised address does not arrive.
    AdvertisedAddress {
        /// What this node tells the others.
        advertised: SocketAddr,
        /// Where its packets seem to come from, as another node sees it.
        seen_as: SocketAddr,
    },
    /// Other nodes can't connect to the advertised address by TCP, though packets arrive.
    NoCalls {
        /// What this node tells the others.
        advertised: SocketAddr,
        /// Who says so.
        by: NodeId,
    },
    /// An operator evicted this run of the node.
    Evicted,
    /// The cluster has seen a later start of this node.
    Superseded {
        /// This start.
        mine: Incarnation,
        /// The one that others know.
        known: Incarnation,
    },
    /// Another process uses the id of this node.
    Twin {
        /// Where its packets come from.
        from: SocketAddr,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSeed { tried } => {
                f.write_str("no seed answers (")?;
                for (index, (seed, cause)) in tried.iter().enumerate() {
                    write!(f, "{}{seed}: {cause}", if index == 0 { "" } else { "; " })?;
                }
                f.write_str("); check that they run, their host and port, the firewall for UDP and TCP, env and secret")
            }
            Self::AdvertisedAddress { advertised, seen_as } => write!(
                f,
                "other nodes can't reach this one at {advertised}, which it advertises; its packets come from {seen_as}: \
                 check clusterConfig.host and port, and the firewall for UDP"
            ),
            Self::NoCalls { advertised, by } => write!(
                f,
                "node {by} can't connect to {advertised}, which this node advertises: \
                 check clusterConfig.host and port, and the firewall for TCP"
            ),
            Self::Evicted => f.write_str("this node was evicted by an operator; it takes part again after a restart"),
            Self::Superseded { mine, known } => write!(
                f,
                "the cluster knows start {known} of this node, and this is start {mine}: another process runs with a copy of its data \
                 directory, or the directory is an old backup",
                known = known.0,
                mine = mine.0
            ),
            Self::Twin { from } => {
                write!(f, "another process, at {from}, uses the id of this node: is the data directory a copy?")
            }
        }
    }
}
