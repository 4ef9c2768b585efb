//! A node as the broker puts it together, down to the sockets and the disk, which are simulated.

use crate::clock::SimClock;
use crate::ears::Ears;
use crate::plant::Plant;
use crate::policy::Policy;
use crate::world::{Desk, World};
use base_cluster::{Advertise, Cluster, ClusterOptions, Secret};
use base_kv::{Host, KvConfig, Range, RangeSpec};
use base_kv_api::{KvError, MutateError, RangeClient, Visit};
use base_rpc::net::UdpSocket;
use base_rpc::{Listen, Mesh, Rpc, RpcConfig, Security};
use base_types::{Clock, Message, NodeIncarnation, QoS, SubscriptionOptions, TenantId, TopicName};
use dist_api::{DistService, Matches, Receiver, Route};
use dist_worker::{DistCoproc, DistWorker};
use inbox_api::{InboxError, InboxReceiver, InboxService, Insert, InsertOutcome, Origin};
use inbox_store::{InboxConfig, InboxCoproc, InboxStore};
use retain_store::{RetainConfig, RetainCoproc, RetainStore};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

pub(crate) const STORES: [&str; 3] = ["dist", "inbox", "retain"];
const PORT: u16 = 7000;
/// The bound of the broker: a subscription that was acknowledged so long ago is seen by every publish that is acknowledged.
pub(crate) const BOUND: Duration = Duration::from_millis(50);
/// So long after its death a run's leavings are looked for again.
const REAP_EVERY: Duration = Duration::from_millis(500);
const OBSERVE_EVERY: Duration = Duration::from_millis(20);

/// A node that runs.
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) run: NodeIncarnation,
    pub(crate) world: Rc<World>,
    pub(crate) host: Arc<Host>,
    pub(crate) cluster: Cluster,
    pub(crate) ranges: Vec<Range>,
    pub(crate) dist: DistWorker,
    pub(crate) inbox: Arc<InboxStore>,
    pub(crate) retain: RetainStore,
    pub(crate) ears: Arc<Ears>,
    /// When the routes were last known to be complete.
    fresh: Cell<Option<Instant>>,
}

/// The host name of a place.
pub(crate) fn name(index: usize) -> String {
    format!("n{}", index + 1)
}

/// Why a message was not taken, for the trace.
#[derive(Debug)]
#[allow(dead_code, reason = "it is told with Debug")]
pub(crate) enum Refused {
    /// The routes may be old.
    Stale(MutateError),
    /// The inboxes.
    Inbox(InboxError),
}

/// Runs the node of a place until it is crashed.
pub(crate) async fn run(world: Rc<World>, index: usize) -> turmoil::Result {
    let disk = &world.disks[index];
    let run = disk.start();
    let at = (Ipv4Addr::UNSPECIFIED, PORT);
    let rpc = Rpc::start(RpcConfig::new(run, "sim", Listen::Bind(at.into()), Security::Plain)).await?;
    let udp = UdpSocket::bind(at).await?;
    let clock: Arc<dyn Clock> = Arc::new(SimClock { wrong_by: Arc::clone(&world.wrong_clocks[index]) });
    let config = KvConfig { data_dir: disk.files(), log_entries: 150, ..KvConfig::default() };
    let mesh = Arc::clone(&rpc) as Arc<dyn Mesh>;
    let host = Arc::new(Host::open_simulated(config, mesh, Arc::clone(&clock), &disk.kv())?);
    let ranges: Vec<Range> = STORES.iter().map(|store| host.client(RangeSpec::whole(store))).collect();
    let client = |store: usize| Arc::new(ranges[store].clone()) as Arc<dyn RangeClient>;

    let (coproc, routes) = DistCoproc::new(run);
    host.register(RangeSpec::whole(STORES[0]), Box::new(coproc))?;
    let dist = DistWorker::new(client(0), routes);
    let (coproc, handle) = InboxCoproc::new(InboxConfig::new(run.node));
    let (ears, wills, ended) = Ears::new();
    handle.listen(ears.clone());
    host.register(RangeSpec::whole(STORES[1]), Box::new(coproc))?;
    let inbox = InboxStore::start(client(1), handle, Arc::clone(&clock));
    let (coproc, figures) = RetainCoproc::new();
    host.register(RangeSpec::whole(STORES[2]), Box::new(coproc))?;
    let retain = RetainStore::new(client(2), figures, Arc::clone(&clock), RetainConfig::default());
    host.start().await?;

    let options = ClusterOptions {
        me: run,
        env: "sim".into(),
        advertise: Some(Advertise { host: name(index), port: PORT }),
        seeds: (0..world.size).map(|seed| format!("{}:{PORT}", name(seed))).collect(),
        secrets: vec![Secret::new("simulated")],
        seed: Some(world.seed),
    };
    let cluster = Cluster::start(options, Arc::clone(&rpc), udp).await?;
    for store in STORES {
        let policy = Policy { store, host: Arc::clone(&host), cluster: cluster.clone(), world: Rc::clone(&world) };
        tokio::task::spawn_local(policy.run());
    }
    // As long as the run is short, as are those of the ears.
    let (desk, mut jobs): (Desk, _) = mpsc::unbounded_channel();
    let fresh = Cell::new(None);
    let node =
        Rc::new(Node { index, run, world: Rc::clone(&world), host, cluster, ranges, dist, inbox, retain, ears, fresh });
    tokio::task::spawn_local(Rc::clone(&node).observe());
    tokio::task::spawn_local(Rc::clone(&node).reap());
    tokio::task::spawn_local(Rc::clone(&node).fire_wills(wills));
    tokio::task::spawn_local(Rc::clone(&node).clear_ended(ended));
    world.trace(format_args!("{} runs as {run:?}", name(index)));
    world.sit(index, desk);
    while let Some(job) = jobs.recv().await {
        tokio::task::spawn_local(job(Rc::clone(&node)));
    }
    Ok(())
}

impl Node {
    /// Matches and queues a message, as the broker does for QoS 1 and 2. In its inboxes once it is answered.
    pub(crate) async fn publish(&self, message: Message, origin: Origin) -> Result<Vec<InsertOutcome>, Refused> {
        self.routes_are_fresh().await.map_err(Refused::Stale)?;
        let tenant = TenantId::default();
        let mut matches = Matches::default();
        self.dist.matches(&tenant, &message.topic, &mut matches);
        let mut receivers: BTreeMap<_, (QoS, u64)> = BTreeMap::new();
        for found in matches.inboxes {
            let qos = found.options.qos.min(message.qos);
            let entry = receivers.entry((found.client, found.incarnation)).or_insert((qos, found.incarnation));
            entry.0 = entry.0.max(qos);
        }
        let receivers: Vec<_> = receivers
            .into_iter()
            .map(|((client, incarnation), (qos, _))| InboxReceiver {
                client,
                incarnation,
                qos,
                retain: false,
                subscription_identifiers: Vec::new(),
            })
            .collect();
        if receivers.is_empty() && origin == Origin::None {
            return Ok(Vec::new());
        }
        let inserted = self.inbox.insert(Insert { tenant, message: Arc::new(message), receivers, origin });
        if self.world.plant == Some(Plant::AcknowledgeBeforeCommit) {
            return Ok(Vec::new());
        }
        inserted.await.map_err(Refused::Inbox)
    }

    /// Waits until the routes here were complete a moment ago.
    async fn routes_are_fresh(&self) -> Result<(), MutateError> {
        if self.world.plant == Some(Plant::StaleRoutes) {
            return Ok(());
        }
        let began = Instant::now();
        if self.fresh.get().is_some_and(|at| began - at <= BOUND) {
            return Ok(());
        }
        self.ranges[0].linearize(b"").await?;
        self.fresh.set(self.fresh.get().max(Some(began)));
        Ok(())
    }

    /// What the range of a store holds here, once it holds all that was committed.
    pub(crate) async fn checksum(&self, store: usize) -> Result<(u64, usize), String> {
        self.ranges[store].linearize(b"").await.map_err(|error| error.to_string())?;
        let (mut hash, mut count) = (DefaultHasher::new(), 0);
        let read = self.ranges[store].read(b"", &mut |keys| {
            keys.scan(b""..&[0xff; 32], &mut |key, value| {
                hash.write_usize(key.len());
                hash.write(key);
                hash.write(value);
                count += 1;
                Visit::More
            })
        });
        read.map_err(|KvError { doing, cause }| format!("{doing}: {cause}"))?;
        Ok((hash.finish(), count))
    }

    /// Whether every range has a leader that answers this node, and all its voters.
    pub(crate) async fn is_well(&self, voters: usize) -> Result<(), String> {
        for (range, store) in self.ranges.iter().zip(STORES) {
            let views = self.host.replicas(store);
            let [view] = &views[..] else { return Err(format!("{store}: {} replicas here", views.len())) };
            if let Some(fault) = &view.fault {
                return Err(format!("{store}: {fault}"));
            }
            if view.voters.len() < voters {
                return Err(format!("{store}: {} voters", view.voters.len()));
            }
            match timeout(Duration::from_millis(500), range.linearize(b"")).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(format!("{store}: {error}")),
                Err(_) => return Err(format!("{store}: no leader answers")),
            }
        }
        Ok(())
    }

    /// Writes down who leads, for the invariants and the trace.
    async fn observe(self: Rc<Self>) {
        let mut changes = self.host.changes();
        let mut before = BTreeMap::new();
        loop {
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep(OBSERVE_EVERY) => {}
            }
            for store in STORES {
                for view in self.host.replicas(store) {
                    let now = (view.role, view.term, view.leader, view.config, view.fault.clone());
                    if before.get(&(store, view.replica)) != Some(&now) {
                        let (role, term, config) = (view.role, view.term, view.config);
                        let fault = view.fault.as_deref().unwrap_or_default();
                        let node = self.run.node;
                        self.world.trace(format_args!("{store} {node} {role:?} term {term} config {config} {fault}"));
                        before.insert((store, view.replica), now);
                    }
                    self.world.history.borrow_mut().saw(store, &view);
                }
            }
        }
    }

    /// Clears away what dead runs left: the leader of each store does.
    async fn reap(self: Rc<Self>) {
        let mut members = self.cluster.members();
        loop {
            tokio::select! {
                changed = members.changed() => if changed.is_err() { return },
                () = sleep(REAP_EVERY) => {}
            }
            let now = members.borrow_and_update().clone();
            let gone = |run: &NodeIncarnation| *run != self.run && now.is_gone(*run);
            if self.dist.leads() {
                for (run, _) in self.dist.runs().into_iter().filter(|(run, _)| gone(run)) {
                    let outcome = self.dist.forget_run(run).await;
                    self.world.trace(format_args!("routes of {run:?} are forgotten: {outcome:?}"));
                }
            }
            if self.inbox.leads() {
                for (run, _) in self.inbox.holders().into_iter().filter(|(run, _)| gone(run)) {
                    let outcome = self.inbox.detach_node(run).await;
                    self.world.trace(format_args!("sessions of {run:?} are detached: {outcome:?}"));
                }
            }
        }
    }

    /// Publishes wills that are due.
    async fn fire_wills(self: Rc<Self>, mut due: crate::ears::Wills) {
        while let Some((inbox, version, will)) = due.recv().await {
            let message = Message::clone(&will.message);
            let outcome = self.publish(message, Origin::Will { inbox: inbox.clone(), version }).await;
            self.world.trace(format_args!("will of {} {version:?}: {outcome:?}", inbox.client));
        }
    }

    /// Removes the routes of sessions that ended.
    async fn clear_ended(self: Rc<Self>, mut ended: crate::ears::EndedOnes) {
        while let Some((inbox, incarnation, filters)) = ended.recv().await {
            let routes = filters.into_iter().map(|filter| Route {
                tenant: inbox.tenant.clone(),
                filter,
                receiver: Receiver::Inbox {
                    client: inbox.client.clone(),
                    incarnation,
                    attach: Receiver::ANY_OWNER,
                    options: SubscriptionOptions::default(),
                },
            });
            if self.dist.remove(routes.collect()).await.is_ok() {
                let _ = self.inbox.settle_ended(vec![incarnation]).await;
            }
        }
    }

    /// Whether a topic leads to an inbox, as this node sees it.
    pub(crate) fn leads_to(&self, topic: &TopicName, client: &str) -> bool {
        let mut matches = Matches::default();
        self.dist.matches(&TenantId::default(), topic, &mut matches);
        matches.inboxes.iter().any(|found| found.client.as_str() == client)
    }
}
