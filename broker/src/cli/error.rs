use super::client::ClientError;
use mqtt_auth::{AccessError, PasswordError, UsersError};
use node_config::Refused;
use std::io;
use std::path::PathBuf;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration.
    #[error("{0}")]
    Config(#[from] Refused),
    /// The node; nothing was changed where it says so.
    #[error("{0}")]
    Start(String),
    /// Users or rules that the configuration names.
    #[error("{0}\nnothing was started")]
    Access(#[from] AccessError),
    /// A file of users.
    #[error("{path}: {source}", path = path.display())]
    Users {
        /// Which.
        path: PathBuf,
        /// Why.
        source: UsersError,
    },
    /// A password.
    #[error("{0}")]
    Password(#[from] PasswordError),
    /// The two passwords that were typed differ.
    #[error("the two passwords differ; nothing was changed")]
    PasswordsDiffer,
    /// Something that should be read or written.
    #[error("{what}: {source}")]
    Io {
        /// What it was for.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Arguments that don't go together.
    #[error("{0}; see --help")]
    Usage(String),
    /// The connection to a broker.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// Messages that the broker did not take.
    #[error("{count} of {all} messages were refused by the broker, the first with: {reason}")]
    NotPublished {
        /// How many.
        count: u64,
        /// Of how many.
        all: u64,
        /// As the broker said.
        reason: String,
    },
    /// The HTTP interface of a node.
    #[error("the HTTP interface at {api} can't be asked: {why}; is a node running there?")]
    Api {
        /// Where.
        api: String,
        /// Why.
        why: String,
    },
    /// The HTTP interface of a node answered, and not what was asked for.
    #[error("the node at {api} says: {why} (HTTP status {status})")]
    Answered {
        /// Where.
        api: String,
        /// The status of HTTP.
        status: u16,
        /// As it said.
        why: String,
    },
    /// Filters that the broker does not let us subscribe to.
    #[error("the broker refused every subscription: {0}")]
    Refused(String),
    /// `-W` is over.
    #[error("no more messages within {0} seconds (-W)")]
    TimedOut(u64),
}

impl CliError {
    /// What the process exits with; 27 when `-W` is over, as with Mosquitto's clients.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::TimedOut(_)) { 27 } else { 1 }
    }

    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
