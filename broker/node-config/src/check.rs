//! What no single value can tell: relations between values, and the files that they name.

use crate::{
    AllowAnonymous, ClientAuth, Cluster, Durability, Listener, NodeConfig, ProxyProtocolMode, Source, Sources,
    Violation, Warning,
};
use std::net::SocketAddr;
use std::path::Path;

pub(crate) fn check(
    config: &NodeConfig,
    cluster: Option<&Cluster>,
    sources: &Sources,
    directory: &Path,
    violations: &mut Vec<Violation>,
    warnings: &mut Vec<Warning>,
) {
    let mut check = Check { config, cluster, sources, directory, violations, warnings };
    check.listeners();
    check.settings();
    check.ports();
    check.anonymous();
    check.auth_files();
    check.log_level();
    check.weak_choices();
}

struct Check<'a> {
    config: &'a NodeConfig,
    cluster: Option<&'a Cluster>,
    sources: &'a Sources,
    directory: &'a Path,
    violations: &'a mut Vec<Violation>,
    warnings: &'a mut Vec<Warning>,
}

impl Check<'_> {
    fn violate(&mut self, key: &str, value: Option<String>, message: impl Into<String>) {
        let source = self.sources.of(key);
        self.violations.push(Violation { key: key.to_owned(), value, source, message: message.into() });
    }

    fn warn(&mut self, key: &str, message: impl Into<String>) {
        self.warnings.push(Warning { key: key.to_owned(), source: self.sources.of(key), message: message.into() });
    }

    fn listeners(&mut self) {
        for listener in enabled(self.config) {
            let path = path_of(listener);
            if listener.kind.is_websocket() && !is_http_path(&listener.ws_path) {
                let value = Some(listener.ws_path.clone());
                self.violate(&format!("{path}.wsPath"), value, "must start with `/` and have none of space, `?`, `#`");
            }
            if listener.kind.is_tls() {
                self.certificates(listener, &path);
            }
            if listener.proxy_protocol.mode != ProxyProtocolMode::Off
                && listener.proxy_protocol.trusted_addresses.is_empty()
            {
                let value = Some(listener.proxy_protocol.mode.word().to_owned());
                let message = "needs trustedAddresses: without them no header would be believed";
                self.violate(&format!("{path}.proxyProtocol.mode"), value, message);
            }
        }
        let connect_max = self.config.mqtt_service.server.max_connect_bytes;
        let key = "mqttServiceConfig.server.maxConnectByteSize";
        // The default gives way to a smaller limit of packets by itself.
        if connect_max > self.config.tenant.max_user_payload_bytes && self.sources.of(key) != Source::Default {
            let message = "must not be more than tenantSettings.MaxUserPayloadBytes: a CONNECT is a packet too";
            self.violate(key, Some(connect_max.to_string()), message);
        }
    }

    fn settings(&mut self) {
        for contradiction in self.config.tenant.contradictions() {
            self.violate("tenantSettings", None, contradiction);
        }
    }

    fn certificates(&mut self, listener: &Listener, path: &str) {
        let ssl = &listener.ssl;
        let client_certificates = ssl.client_auth != ClientAuth::None;
        for (key, file, needed) in [
            ("certFile", &ssl.cert_file, true),
            ("keyFile", &ssl.key_file, true),
            ("trustCertsFile", &ssl.trust_certs_file, client_certificates),
            ("crlFile", &ssl.crl_file, false),
        ] {
            let key = format!("{path}.sslConfig.{key}");
            match file {
                Some(file) => self.readable(&key, file),
                None if needed => {
                    let why = if key.ends_with("trustCertsFile") { "with this clientAuth" } else { "with TLS" };
                    self.violate(&key, None, format!("must name a PEM file: {why} it is needed"));
                }
                None => {}
            }
        }
        if ssl.crl_file.is_some() && !client_certificates {
            let key = format!("{path}.sslConfig.crlFile");
            self.warn(&key, "has no effect: clientAuth is NONE, so clients show no certificate");
        }
    }

    fn readable(&mut self, key: &str, file: &Path) {
        let full = self.directory.join(file);
        let problem = match std::fs::File::open(&full).and_then(|file| file.metadata()) {
            Ok(metadata) if metadata.is_file() => return,
            Ok(_) => "is no file".to_owned(),
            Err(error) => format!("cannot be read: {error}"),
        };
        self.violate(key, Some(file.display().to_string()), format!("the file {} {problem}", full.display()));
    }

    fn ports(&mut self) {
        let mut taken: Vec<(String, SocketAddr)> = Vec::new();
        let mut wanted: Vec<(String, Vec<SocketAddr>)> = enabled(self.config)
            .map(|listener| (format!("{}.port", path_of(listener)), listener.hosts.with_port(listener.port).collect()))
            .collect();
        let api = &self.config.api_server;
        if api.enable {
            wanted.push(("apiServerConfig.httpPort".into(), api.hosts.with_port(api.http_port).collect()));
        }
        if let Some(cluster) = self.cluster {
            wanted.push(("clusterConfig.port".into(), vec![cluster.bind]));
        }
        for (key, addresses) in wanted {
            let clash = taken.iter().find(|(_, theirs)| addresses.iter().any(|ours| collide(*ours, *theirs)));
            if let Some((other, address)) = clash {
                let message = format!("{other} has {address} already; two listeners cannot share it");
                self.violate(&key, Some(address.port().to_string()), message);
            }
            taken.extend(addresses.into_iter().map(|address| (key.clone(), address)));
        }
    }

    fn anonymous(&mut self) {
        let users = self.config.auth.users_file.is_some();
        let reachable: Vec<&Listener> = enabled(self.config).filter(|listener| !listener.hosts.is_loopback()).collect();
        match self.config.allow_anonymous {
            AllowAnonymous::OnlyLoopback if !users => {
                for listener in reachable {
                    let message = "other machines can reach this listener, but nobody could log in there: name an \
                        auth.usersFile (made with `hermod user add`), or say `allowAnonymous: true` if everybody may connect";
                    self.violate(&format!("{}.host", path_of(listener)), Some(listener.hosts.to_string()), message);
                }
            }
            AllowAnonymous::No if !users => {
                let message = "nobody could connect: name an auth.usersFile (made with `hermod user add`)";
                self.violate("allowAnonymous", Some("false".into()), message);
            }
            AllowAnonymous::Yes if !reachable.is_empty() => {
                let names: Vec<&str> = reachable.iter().map(|listener| listener.kind.key()).collect();
                let message = format!("everybody who can reach {} may connect without a password", names.join(", "));
                self.warn("allowAnonymous", message);
            }
            _ => {}
        }
        let api = &self.config.api_server;
        if api.enable && !api.hosts.is_loopback() {
            self.warn(
                "apiServerConfig.host",
                "everybody who can reach it may read metrics and health: HTTP asks for no password",
            );
        }
    }

    fn auth_files(&mut self) {
        let auth = &self.config.auth;
        for (key, file) in [("auth.usersFile", &auth.users_file), ("auth.aclFile", &auth.acl_file)] {
            if let Some(file) = file {
                self.readable(key, file);
            }
        }
    }

    fn log_level(&mut self) {
        let level = &self.config.log.level;
        if !is_level_filter(level) {
            let message = "must be error, warn, info, debug, trace or off, or such a list: `info,hermod=debug`";
            self.violate("log.level", Some(level.clone()), message);
        }
    }

    fn weak_choices(&mut self) {
        if self.config.state_store.durability == Durability::Os {
            self.warn(
                "stateStoreConfig.durability",
                "what was acknowledged in the last seconds is lost when the power fails",
            );
        }
    }
}

fn enabled(config: &NodeConfig) -> impl Iterator<Item = &Listener> {
    config.mqtt_service.server.listeners().into_iter().filter(|listener| listener.enable)
}

fn path_of(listener: &Listener) -> String {
    format!("mqttServiceConfig.server.{}", listener.kind.key())
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port()
        && a.is_ipv4() == b.is_ipv4()
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

fn is_http_path(path: &str) -> bool {
    path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic() && c != '?' && c != '#')
}

fn is_level_filter(text: &str) -> bool {
    let is_level = |level: &str| {
        ["error", "warn", "info", "debug", "trace", "off"].iter().any(|known| known.eq_ignore_ascii_case(level))
    };
    !text.is_empty()
        && text.split(',').all(|directive| match directive.trim().split_once('=') {
            None => is_level(directive.trim()),
            Some((target, level)) => {
                !target.is_empty()
                    && target.chars().all(|c| c.is_ascii_alphanumeric() || "_:-".contains(c))
                    && is_level(level)
            }
        })
}
