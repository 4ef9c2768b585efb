//! `clusterConfig`: how a node finds the others, and what keeps strangers out.

use crate::leaf::{scalar_text, texts};
use crate::section::{AsSlot, Leaf, Slot, section};
use crate::{Secret, Source, Sources, Violation, Warning};
use serde_yaml::Value;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A shorter secret can be guessed.
const SECRET_MIN: usize = 16;

section! {
    /// Other nodes, as the file says it. What comes out of it, checked: [`Cluster`].
    ClusterConfig {
        /// Nodes of different environments never mix.
        env: Option<String> = None, "env";
        /// The address that is bound, UDP and TCP; `*`: all of IPv4.
        host: Option<String> = None, "host";
        /// UDP and TCP. 0: the node runs alone and opens no port for others.
        port: u16 = 0, "port" in 0..=65_535;
        /// How the others reach this node, when not by `host`: an address or a name.
        advertise_host: Option<String> = None, "advertiseHost";
        /// Some nodes, this one among them or not.
        seed_endpoints: Vec<Endpoint> = Vec::new(), "seedEndpoints";
        /// A DNS name whose addresses are the nodes; their port is `port`.
        cluster_domain_name: Option<String> = None, "clusterDomainName";
        /// What all nodes know and no stranger does.
        secret: Option<SecretText> = None, "secret";
        /// Another one that is let in too, while the secret is changed on one node after the other.
        other_secret: Option<SecretText> = None, "otherSecret";
        /// Certificates instead of a secret.
        tls: ClusterTlsConfig = ClusterTlsConfig::default(), "tls";
        /// Neither secret nor certificates are needed off loopback.
        insecure: bool = false, "insecure";
    }
}

section! {
    /// Certificates of a node, for both directions; PEM files.
    ClusterTlsConfig {
        /// The certificate chain that the others see, own certificate first.
        cert_file: Option<PathBuf> = None, "certFile";
        /// Its private key, unencrypted.
        key_file: Option<PathBuf> = None, "keyFile";
        /// The authorities whose nodes are let in.
        trust_certs_file: Option<PathBuf> = None, "trustCertsFile";
    }
}

/// How a node is part of a cluster. Everything is checked; names are not resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Nodes of different environments never mix.
    pub env: String,
    /// What to bind, UDP and TCP.
    pub bind: SocketAddr,
    /// How the others reach this node.
    pub advertise: Endpoint,
    /// Whom to look for, without an end. Empty, and without `domain`: this node waits to be found.
    pub seeds: Vec<Endpoint>,
    /// A name to resolve again and again; every address is a node.
    pub domain: Option<Endpoint>,
    /// What keeps strangers out.
    pub protection: Protection,
}

/// What keeps strangers out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// What all nodes know. Seals what goes over UDP, and over TCP when there is no `tls`.
    pub secret: Option<Secret>,
    /// Opens as well, while the secret is being changed; only with `secret`.
    pub other_secret: Option<Secret>,
    /// For what goes over TCP.
    pub tls: Option<ClusterTls>,
}

/// Certificates of a node, for both directions: each checks the other. The paths are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterTls {
    /// The certificate chain, own certificate first.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// The authorities whose nodes are let in.
    pub trust_certs_file: PathBuf,
}

/// `host:port`; the host is an address or a DNS name, IPv6 in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// An address or a name.
    pub host: String,
    /// From 1.
    pub port: u16,
}

/// A text that is no endpoint, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// There is no port.
    #[error("{0:?} has no port")]
    NoPort(String),
    /// The port is none.
    #[error("{0:?} has no port from 1 to 65535")]
    Port(String),
    /// The host is neither an address nor a name.
    #[error("{0:?} has a host that is neither an IP address nor a DNS name")]
    Host(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => {
                let port = rest.strip_prefix(':').ok_or_else(|| EndpointError::NoPort(text.into()))?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| EndpointError::Host(text.into()))?;
                (host, port)
            }
            None => {
                let (host, port) = text.rsplit_once(':').ok_or_else(|| EndpointError::NoPort(text.into()))?;
                if !is_host(host) || host.contains(':') {
                    return Err(EndpointError::Host(text.into()));
                }
                (host, port)
            }
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| EndpointError::Port(text.into()))?;
        Ok(Self { host: host.into(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Endpoint {
    /// Whether it is on this machine, as far as the text says.
    fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

/// An IP address, or letters, digits, `-` and `_` between dots (RFC 1123 §2.1, and what container platforms make of it).
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    // What consists of digits and dots means to be an address.
    let numeric = name.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.parse::<IpAddr>().is_ok() || (!numeric && name.len() <= 253 && name.split('.').all(label))
}

impl Leaf for Vec<Endpoint> {
    fn set(&mut self, value: &Value) -> Result<(), String> {
        let texts = texts(value).ok_or("host:port, or a list of them")?;
        *self = texts
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, EndpointError>>()
            .map_err(|error| format!("host:port, or a list of them, and {error}"))?;
        Ok(())
    }

    fn get(&self) -> Value {
        match self.as_slice() {
            [] => Value::Null,
            [one] => Value::String(one.to_string()),
            all => Value::Sequence(all.iter().map(|one| Value::String(one.to_string())).collect()),
        }
    }
}

impl AsSlot for Vec<Endpoint> {
    fn as_slot(&mut self, range: Option<RangeInclusive<u64>>) -> Slot<'_> {
        Slot::Leaf(Box::new(self), range)
    }
}

/// A secret as a file says it: itself, or `file:PATH` or `env:NAME`, where it is.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    fn is_reference(&self) -> bool {
        self.0.starts_with("file:") || self.0.starts_with("env:")
    }

    pub(crate) fn resolve(&self, directory: &Path, environment: &[(String, String)]) -> Result<Secret, String> {
        let secret = if let Some(path) = self.0.strip_prefix("file:") {
            Secret::resolve(&format!("file:{}", directory.join(path).display())).map_err(|error| error.to_string())?
        } else if let Some(name) = self.0.strip_prefix("env:") {
            let (_, value) = environment
                .iter()
                .find(|(known, _)| known == name)
                .ok_or_else(|| format!("there is no environment variable {name}"))?;
            Secret::new(value.clone())
        } else {
            Secret::new(self.0.clone())
        };
        match secret.expose().len() {
            0..SECRET_MIN => {
                Err(format!("a secret must have at least {SECRET_MIN} bytes: a shorter one can be guessed"))
            }
            _ => Ok(secret),
        }
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_reference() { &self.0 } else { "***" })
    }
}

impl Leaf for Option<SecretText> {
    fn set(&mut self, value: &Value) -> Result<(), String> {
        let text =
            if value.is_null() { String::new() } else { scalar_text(value).ok_or("a text, file:PATH or env:NAME")? };
        *self = (!text.is_empty()).then_some(SecretText(text));
        Ok(())
    }

    fn get(&self) -> Value {
        self.as_ref().map_or(Value::Null, |secret| Value::String(format!("{secret:?}")))
    }

    fn is_secret(&self) -> bool {
        true
    }
}

impl AsSlot for Option<SecretText> {
    fn as_slot(&mut self, range: Option<RangeInclusive<u64>>) -> Slot<'_> {
        Slot::Leaf(Box::new(self), range)
    }
}

/// Makes a [`Cluster`] of it, if it asks for one, or says why that can't be.
pub(crate) fn resolve(
    config: &ClusterConfig,
    sources: &Sources,
    directory: &Path,
    environment: &[(String, String)],
    violations: &mut Vec<Violation>,
    warnings: &mut Vec<Warning>,
) -> Option<Cluster> {
    let wanted = config.port != 0
        || config.host.is_some()
        || config.advertise_host.is_some()
        || !config.seed_endpoints.is_empty()
        || config.cluster_domain_name.is_some();
    if !wanted {
        for (key, set) in [("secret", config.secret.is_some()), ("insecure", config.insecure)] {
            if set {
                let (key, message) =
                    (path(key), "has no effect: without clusterConfig.port this node runs alone".into());
                warnings.push(Warning { source: sources.of(&key), key, message });
            }
        }
        return None;
    }
    let before = violations.len();
    let mut check = Check { config, sources, directory, environment, violations, warnings };
    let cluster = check.cluster();
    if check.violations.len() == before { cluster } else { None }
}

fn path(key: &str) -> String {
    format!("clusterConfig.{key}")
}

struct Check<'a> {
    config: &'a ClusterConfig,
    sources: &'a Sources,
    directory: &'a Path,
    environment: &'a [(String, String)],
    violations: &'a mut Vec<Violation>,
    warnings: &'a mut Vec<Warning>,
}

impl Check<'_> {
    fn violate(&mut self, key: &str, value: Option<String>, message: impl Into<String>) {
        let key = path(key);
        self.violations.push(Violation { source: self.source(&key), key, value, message: message.into() });
    }

    fn warn(&mut self, key: &str, message: impl Into<String>) {
        let key = path(key);
        self.warnings.push(Warning { source: self.source(&key), key, message: message.into() });
    }

    /// Where a key was said, or else what made this a cluster.
    fn source(&self, key: &str) -> Source {
        let others = ["port", "host", "seedEndpoints", "clusterDomainName", "advertiseHost"];
        std::iter::once(self.sources.of(key))
            .chain(others.iter().map(|key| self.sources.of(&path(key))))
            .find(|source| *source != Source::Default)
            .unwrap_or(Source::Default)
    }

    fn cluster(&mut self) -> Option<Cluster> {
        let config = self.config;
        if config.port == 0 {
            self.violate("port", Some("0".into()), "must be from 1 to 65535, UDP and TCP: the others have to know it");
        }
        let bind = self.bind();
        let advertise = bind.and_then(|bind| self.advertise(bind));
        if let Some(name) = &config.cluster_domain_name
            && (!is_host(name) || name.parse::<IpAddr>().is_ok())
        {
            self.violate("clusterDomainName", Some(name.clone()), "must be a DNS name, without a port");
        }
        let protection = self.protection();
        let (bind, advertise, protection) = (bind?, advertise?, protection?);
        self.reach(bind, &advertise, &protection);
        Some(Cluster {
            env: config.env.clone().unwrap_or_default(),
            bind: SocketAddr::new(bind, config.port),
            advertise,
            seeds: config.seed_endpoints.clone(),
            domain: config.cluster_domain_name.clone().map(|host| Endpoint { host, port: config.port }),
            protection,
        })
    }

    fn bind(&mut self) -> Option<IpAddr> {
        let host = self.config.host.as_deref();
        let address = match host {
            None | Some("localhost") => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Some("*") => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            Some(text) => text.parse().ok(),
        };
        if address.is_none() {
            let message = "must be one IP address of this machine, or `*`; a name goes to clusterConfig.advertiseHost";
            self.violate("host", host.map(str::to_owned), message);
        }
        address
    }

    fn advertise(&mut self, bind: IpAddr) -> Option<Endpoint> {
        let port = self.config.port;
        let Some(host) = &self.config.advertise_host else {
            if bind.is_unspecified() {
                let message = "must say how others reach this node, since clusterConfig.host says everywhere";
                self.violate("advertiseHost", None, message);
                return None;
            }
            return Some(Endpoint { host: bind.to_string(), port });
        };
        if !is_host(host) {
            self.violate("advertiseHost", Some(host.clone()), "must be an IP address or a DNS name, without a port");
            return None;
        }
        if host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified()) {
            self.violate("advertiseHost", Some(host.clone()), "must be an address at which others reach this node");
            return None;
        }
        Some(Endpoint { host: host.clone(), port })
    }

    fn secret(&mut self, key: &str, text: Option<&SecretText>) -> Option<Secret> {
        match text?.resolve(self.directory, self.environment) {
            Ok(secret) => Some(secret),
            Err(message) => {
                self.violate(key, None, message);
                None
            }
        }
    }

    fn protection(&mut self) -> Option<Protection> {
        let before = self.violations.len();
        let secret = self.secret("secret", self.config.secret.as_ref());
        let other_secret = self.secret("otherSecret", self.config.other_secret.as_ref());
        if self.config.secret.is_none() && other_secret.is_some() {
            self.violate("otherSecret", None, "needs clusterConfig.secret, which is the one that is used");
        }
        let tls = &self.config.tls;
        let files =
            [("certFile", &tls.cert_file), ("keyFile", &tls.key_file), ("trustCertsFile", &tls.trust_certs_file)];
        let mut found = Vec::new();
        if files.iter().any(|(_, file)| file.is_some()) {
            for (key, file) in files {
                let key = format!("tls.{key}");
                let Some(file) = file else {
                    self.violate(&key, None, "must name a PEM file: each node checks the other, with all three files");
                    continue;
                };
                let full = self.directory.join(file);
                match std::fs::File::open(&full).and_then(|file| file.metadata()) {
                    Ok(metadata) if metadata.is_file() => found.push(full),
                    Ok(_) => self.violate(&key, Some(file.display().to_string()), "is no file"),
                    Err(error) => {
                        self.violate(&key, Some(file.display().to_string()), format!("cannot be read: {error}"));
                    }
                }
            }
        }
        let tls = <[PathBuf; 3]>::try_from(found).ok();
        let tls =
            tls.map(|[cert_file, key_file, trust_certs_file]| ClusterTls { cert_file, key_file, trust_certs_file });
        (self.violations.len() == before).then_some(Protection { secret, other_secret, tls })
    }

    /// Who can reach this node, and whom it can reach.
    fn reach(&mut self, bind: IpAddr, advertise: &Endpoint, protection: &Protection) {
        let config = self.config;
        let only_here = bind.to_canonical().is_loopback();
        let protected = protection.secret.is_some() || protection.tls.is_some();
        if !only_here && !protected {
            if config.insecure {
                self.warn("insecure", "everybody who can reach the port can join the cluster and read everything");
            } else {
                let message = "other machines can reach this node, so it needs a clusterConfig.secret or \
                    clusterConfig.tls; or say `insecure: true` if everybody who can reach the port may join";
                self.violate("host", Some(bind.to_string()), message);
            }
        } else if config.insecure && protected {
            self.warn("insecure", "has no effect: there is a secret, or there are certificates");
        }
        let elsewhere = config.seed_endpoints.iter().find(|seed| !seed.is_loopback());
        if let (true, Some(seed)) = (only_here, elsewhere) {
            let message = format!("this is reached from this machine only, and the seed {seed} is not on it");
            if config.host.is_none() {
                self.violate("host", None, format!("must be an address of this machine: without it {message}"));
            } else if seed.host.parse::<IpAddr>().is_ok() {
                self.violate("host", Some(bind.to_string()), message);
            }
        }
        if !only_here && protection.tls.is_some() && protection.secret.is_none() {
            let message = "covers what goes over TCP only: without a clusterConfig.secret, who reaches the port can forge over UDP who is alive";
            self.warn("tls.certFile", message);
        }
        if !only_here && advertise.is_loopback() {
            self.warn(
                "advertiseHost",
                format!("{} means each machine itself: others won't reach this node", advertise.host),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written() {
        for text in ["10.0.0.1:8899", "node-1.example.org:1", "[::1]:65535", "hermod_node1:8899"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for (bad, want) in [
            ("n1", "no port"),
            ("n1:", "from 1 to 65535"),
            ("n1:0", "from 1 to 65535"),
            ("n1:70000", "from 1 to 65535"),
            (":8899", "neither"),
            ("10.0.0.300:1", "neither"),
            ("a b:1", "neither"),
            ("::1:8899", "neither"),
            ("[::1]8899", "no port"),
            ("[n1]:8899", "neither"),
            ("http://n1:8899", "neither"),
        ] {
            assert!(bad.parse::<Endpoint>().unwrap_err().to_string().contains(want), "{bad}");
        }
    }
}
