//! The part that a node takes in its cluster: sockets, connections, membership, and the policies of its stores.

use super::control::Control;
use super::facts::{self, About};
use super::status::Status;
use crate::node::Node;
use base_cluster::{Advertise, Cluster, ClusterOptions, Problem, Secret};
use base_kv::Host;
use base_kv_balance::Registry;
use base_rpc::{Listen, Rpc, RpcConfig, Security, Tls};
use base_types::NodeIncarnation;
use node_config::{NodeConfig, Protection};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// The name that the certificates of a cluster carry.
const CERTIFICATE_NAME: &str = "hermod-cluster";

/// How long a node that was told to stop waits for others that are needed.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Why a node can't take part in its cluster.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// Certificates.
    #[error("clusterConfig.tls: {0}")]
    Tls(#[from] base_rpc::TlsError),
    /// The TCP side.
    #[error("clusterConfig: {0}")]
    Rpc(#[from] base_rpc::StartError),
    /// The UDP side.
    #[error("clusterConfig: {0}")]
    Gossip(#[from] base_cluster::StartError),
    /// A policy of a store.
    #[error("stateStoreConfig.{store}: {error}")]
    Balancer {
        /// Of which store.
        store: &'static str,
        /// What is wrong.
        error: base_kv_balance::BalancerError,
    },
}

/// What other nodes send to: one port number, UDP and TCP.
pub(crate) struct Sockets {
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
}

impl Sockets {
    /// Binds both, or neither.
    pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { tcp: TcpListener::bind(address).await?, udp: UdpSocket::bind(address).await? })
    }
}

/// Starts to listen for peers. Whoever comes finds services as they are registered.
pub(crate) async fn listen(
    run: NodeIncarnation,
    config: &node_config::Cluster,
    tcp: TcpListener,
) -> Result<Arc<Rpc>, JoinError> {
    let security = match &config.protection {
        Protection { tls: Some(tls), .. } => {
            Security::Tls(Tls::from_pem_files(&tls.cert_file, &tls.key_file, &tls.trust_certs_file, CERTIFICATE_NAME)?)
        }
        Protection { secret: Some(secret), other_secret, .. } => {
            let secret = base_rpc::Secret::new(secret.expose());
            Security::Secret(match other_secret {
                Some(other) => secret.also(other.expose()),
                None => secret,
            })
        }
        _ => Security::Plain,
    };
    Ok(Rpc::start(RpcConfig::new(run, config.env.clone(), Listen::Bound(tcp), security)).await?)
}

/// A node that takes part.
pub(crate) struct Part {
    pub(crate) rpc: Arc<Rpc>,
    pub(crate) cluster: Cluster,
    pub(crate) status: Arc<Status>,
    about: parking_lot::Mutex<About>,
    draining: Arc<AtomicBool>,
}

impl Part {
    /// Looks for the others, and keeps the ranges of `host` as the policies say, until `stop`.
    pub(crate) async fn join(
        run: NodeIncarnation,
        config: &NodeConfig,
        cluster: &node_config::Cluster,
        rpc: Arc<Rpc>,
        udp: UdpSocket,
        host: &Arc<Host>,
        stop: &CancellationToken,
    ) -> Result<Arc<Self>, JoinError> {
        let stores = &config.state_store;
        let stores = [("dist", &stores.dist_worker), ("inbox", &stores.inbox_store), ("retain", &stores.retain_store)];
        let mut policies = Vec::new();
        for (store, config) in stores {
            let built = Registry::standard().build(&config.balancers(), &config.setup());
            policies.push((store, config, built.map_err(|error| JoinError::Balancer { store, error })?));
        }
        let mut seeds: BTreeSet<String> = cluster.seeds.iter().map(ToString::to_string).collect();
        seeds.extend(cluster.domain.as_ref().map(ToString::to_string));
        let secrets = cluster.protection.secret.iter().chain(&cluster.protection.other_secret);
        let options = ClusterOptions {
            me: run,
            env: cluster.env.clone(),
            advertise: Some(Advertise { host: cluster.advertise.host.clone(), port: cluster.advertise.port }),
            seeds: seeds.into_iter().collect(),
            secrets: secrets.map(|secret| Secret::new(secret.expose().as_bytes())).collect(),
            seed: None,
        };
        let draining = Arc::new(AtomicBool::new(false));
        let gossip = Cluster::start(options, Arc::clone(&rpc), udp).await?;
        let controls: Vec<Arc<Control>> = policies
            .into_iter()
            .map(|(store, config, controller)| {
                let (host, gossip, draining) = (Arc::clone(host), gossip.clone(), Arc::clone(&draining));
                Arc::new(Control::new(store, host, gossip, controller, config.voters_per_range, draining))
            })
            .collect();
        for control in &controls {
            tokio::spawn(Arc::clone(control).run(stop.clone()));
        }
        let status =
            Arc::new(Status { env: cluster.env.clone(), cluster: gossip.clone(), rpc: Arc::clone(&rpc), controls });
        Ok(Arc::new(Self { rpc, cluster: gossip, status, about: parking_lot::Mutex::default(), draining }))
    }

    /// Tells the others where this node serves.
    pub(crate) fn tell(&self, about: About) {
        *self.about.lock() = about;
        self.tell_again();
    }

    fn tell_again(&self) {
        let told = self.cluster.publish(facts::ABOUT, self.about.lock().encode());
        if let Err(error) = told {
            warn!(%error, "the other nodes are not told where this one serves");
        }
    }

    /// Takes nothing new from now on, and waits while its end would take the majority from some range: others may be on their way back. Tells
    /// whether there is another node for its clients.
    pub(crate) async fn leave_room(&self, at_once: impl Future<Output = ()>) -> bool {
        if self.is_cast_out().is_some() {
            return self.others_stay();
        }
        self.draining.store(true, Ordering::Relaxed);
        self.about.lock().draining = true;
        self.tell_again();
        let mut told = false;
        let waited = async {
            // Who stops them all together waits for nobody.
            while self.others_stay() && !self.would_break().is_empty() {
                if !std::mem::replace(&mut told, true) {
                    let broken = self.would_break().join("; ");
                    warn!(
                        broken,
                        "stopping now would leave ranges without a majority; waits {} s for other nodes, a second signal stops at once",
                        WAIT_FOR_OTHERS.as_secs()
                    );
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        tokio::select! {
            _ = timeout(WAIT_FOR_OTHERS, waited) => {}
            () = at_once => {}
        }
        self.others_stay()
    }

    fn is_cast_out(&self) -> Option<Problem> {
        let last = |p: &Problem| matches!(p, Problem::Evicted | Problem::Superseded { .. } | Problem::Twin { .. });
        self.cluster.problems().into_iter().find(last)
    }

    /// Whether another node is there that is not about to leave too.
    fn others_stay(&self) -> bool {
        let members = self.cluster.members().borrow().clone();
        members.live_peers().any(|member| !self.status.about(member.run.node).draining)
    }

    /// Whether some range would lose its majority without this node, and which.
    pub(crate) fn would_break(&self) -> Vec<String> {
        let me = self.cluster.me().node;
        let members = self.cluster.members().borrow().clone();
        let mut broken = Vec::new();
        for control in &self.status.controls {
            for range in control.diagnosis().ranges {
                let live = |node: &base_types::NodeId| members.get(*node).is_some_and(|member| member.state.is_live());
                let alive = range.voters.values().filter(|node| live(node)).count();
                let needed = range.voters.len() / 2 + 1;
                let holds_vote = range.voters.values().any(|node| *node == me);
                if holds_vote && range.voters.len() > 1 && alive >= needed && alive - 1 < needed {
                    broken.push(format!(
                        "{} range {}: {alive} of {} voters are there",
                        control.store(),
                        range.range,
                        range.voters.len()
                    ));
                }
            }
        }
        broken
    }

    /// Returns when this run may no longer take part: it was evicted, or another process goes by its name. Nobody counts on it any more, so what
    /// it would tell its clients is worth nothing.
    pub(crate) async fn cast_out(&self) -> String {
        let mut members = self.cluster.members();
        loop {
            if let Some(problem) = self.is_cast_out() {
                return problem.to_string();
            }
            // Problems are told with the members, or a little later.
            drop(timeout(LOOK_AGAIN, members.changed()).await);
        }
    }

    /// Keeps what the node knows of the others true, until told to stop.
    pub(crate) async fn watch(self: Arc<Self>, node: Arc<Node>, stop: CancellationToken) {
        let mut members = self.cluster.members();
        let mut met: BTreeSet<NodeIncarnation> = BTreeSet::new();
        loop {
            let live: BTreeSet<NodeIncarnation> =
                members.borrow_and_update().live_peers().map(|member| member.run).collect();
            node.remote.set_alive(live.iter().copied());
            for run in live.difference(&met) {
                node.claims.meet(&node, run.node);
            }
            met = live;
            tokio::select! {
                () = stop.cancelled() => return,
                changed = members.changed() => if changed.is_err() { return },
            }
        }
    }
}
