//! The configuration of one node: a YAML file, environment variables and `-D name=value`, typed, and refused when wrong.
//!
//! [`load`] reads everything and reports every violation at once; what it returns needs no further check. The keys are
//! BifroMQ's where BifroMQ has one, and its files are accepted: a key without meaning here gives a [`Warning`]. Each key is
//! declared once, in `config.rs`, with its type, default and range; reading, printing and the list of known names follow from it.
//!
//! Start with [`NodeConfig`] and [`load`]. Nothing here opens a port or writes a file.

mod address;
mod bifromq;
mod check;
mod cluster;
mod config;
mod error;
mod leaf;
mod listener;
mod load;
mod nearest;
mod print;
mod secret;
mod section;
mod store;
mod tenant;

pub use address::{AddressError, Cidr, Hosts};
pub use cluster::{
    Cluster, ClusterConfig, ClusterTls, ClusterTlsConfig, Endpoint, EndpointError, Protection, SecretText,
};
pub use config::{
    AllowAnonymous, ApiServerConfig, AuthConfig, DeniedSubAck, Durability, LogConfig, LogFormat, MqttServerConfig,
    MqttServiceConfig, NodeConfig, StateStoreConfig,
};
pub use error::{Refused, Violation, Warning};
pub use listener::{ClientAuth, Listener, ListenerKind, ProxyProtocol, ProxyProtocolMode, SslConfig};
pub use load::{Inputs, Loaded, Source, Sources, load};
pub use secret::{Secret, SecretError};
pub use store::{BalanceConfig, Balancers, StoreConfig, VoterCount};
