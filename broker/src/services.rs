//! What the node does beside serving connections: wills, ended sessions, expiry, `$SYS`.

use crate::counters;
use crate::live::Target;
use crate::node::{Node, Receivers};
use crate::shard::Letter;
use base_types::{ClientId, Incarnation, Message, QoS, SubscriptionFilter, SubscriptionOptions, TenantId, TopicName};
use bytes::Bytes;
use dist_api::{DistListener, Receiver, Route};
use inbox_api::{InboxError, InboxId, InboxListener, Insert, InsertOutcome, Origin, PendingWill, SessionVersion};
use mqtt_auth::Principal;
use retain_api::RetainError;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use telemetry::SysTopics;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How many wills and ended sessions may wait to be looked at. What finds no place is told again.
const WAITING: usize = 16 * 1024;
/// For so long a will that was published is remembered, so that being told of it again does nothing.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Hears what the inboxes of this node tell. Called from the apply path: passes on and returns.
pub(crate) struct Ears {
    node: OnceLock<Arc<Node>>,
    wills: mpsc::Sender<(InboxId, SessionVersion, PendingWill)>,
    ended: mpsc::Sender<Ended>,
    adopted: Arc<Notify>,
}

/// What [`Ears`] heard, for [`run_wills`] and [`run_ended`].
pub(crate) struct Heard {
    pub(crate) wills: mpsc::Receiver<(InboxId, SessionVersion, PendingWill)>,
    pub(crate) ended: mpsc::Receiver<Ended>,
    pub(crate) adopted: Arc<Notify>,
}

/// An inbox that is gone, with the routes that led to it.
#[derive(Debug)]
pub(crate) struct Ended {
    inbox: InboxId,
    incarnation: u64,
    subscriptions: Vec<SubscriptionFilter>,
}

impl Ended {
    fn into_routes(self) -> impl Iterator<Item = Route> {
        let Self { inbox, incarnation, subscriptions } = self;
        subscriptions.into_iter().map(move |filter| Route {
            tenant: inbox.tenant.clone(),
            filter,
            receiver: Receiver::Inbox {
                client: inbox.client.clone(),
                incarnation,
                attach: Receiver::ANY_OWNER,
                options: SubscriptionOptions::default(),
            },
        })
    }
}

impl Ears {
    pub(crate) fn new() -> (Arc<Self>, Heard) {
        let (wills, heard_wills) = mpsc::channel(WAITING);
        let (ended, heard_ended) = mpsc::channel(WAITING);
        let adopted = Arc::new(Notify::new());
        let heard = Heard { wills: heard_wills, ended: heard_ended, adopted: Arc::clone(&adopted) };
        (Arc::new(Self { node: OnceLock::new(), wills, ended, adopted }), heard)
    }

    /// From now on sessions are told too.
    pub(crate) fn connect(&self, node: &Arc<Node>) {
        // Set once, at start.
        drop(self.node.set(Arc::clone(node)));
    }

    fn tell(&self, inbox: &InboxId, letter: impl FnOnce(crate::live::SessionRef) -> Letter) {
        if let Some(node) = self.node.get()
            && let Some(session) = node.registry.find(inbox)
            && let Some(shard) = node.shards.get(usize::from(session.shard))
        {
            shard.send(letter(session));
        }
    }
}

impl InboxListener for Ears {
    fn queued(&self, inbox: &InboxId, _: SessionVersion) {
        self.tell(inbox, Letter::Queued);
    }

    fn will_due(&self, inbox: &InboxId, version: SessionVersion, will: PendingWill) {
        if self.wills.try_send((inbox.clone(), version, will)).is_err() {
            debug!(%inbox.client, "a will has to wait: too many are due at once");
        }
    }

    fn ended(&self, inbox: &InboxId, incarnation: u64, subscriptions: Vec<SubscriptionFilter>) {
        if subscriptions.is_empty() {
            return;
        }
        if self.ended.try_send(Ended { inbox: inbox.clone(), incarnation, subscriptions }).is_err() {
            debug!(%inbox.client, "the routes of an ended session have to wait: too many end at once");
        }
    }

    fn adopted(&self) {
        self.adopted.notify_one();
    }

    fn fenced(&self, inbox: &InboxId, version: SessionVersion) {
        self.tell(inbox, |session| Letter::Fenced(session, version));
    }
}

/// Adds the routes of this node's live sessions again when somebody took the node for dead.
pub(crate) struct OwnRoutes(Arc<Notify>);

impl DistListener for OwnRoutes {
    fn own_routes_lost(&self) {
        self.0.notify_one();
    }
}

impl OwnRoutes {
    /// Hears it from now on; [`run_own_routes`] does it.
    pub(crate) fn new() -> (Arc<Self>, Arc<Notify>) {
        let lost = Arc::new(Notify::new());
        (Arc::new(Self(Arc::clone(&lost))), lost)
    }
}

/// Does what [`OwnRoutes`] hears of.
pub(crate) async fn run_own_routes(node: Arc<Node>, lost: Arc<Notify>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = lost.notified() => {}
        }
        let filters = node.live_read().filters();
        info!(
            routes = filters.len(),
            "the routes of this node were removed, since others took it for dead; it adds them again"
        );
        let mut of_tenants: HashMap<TenantId, Vec<SubscriptionFilter>> = HashMap::new();
        for (tenant, filter) in filters {
            of_tenants.entry(tenant).or_default().push(filter);
        }
        for (tenant, filters) in of_tenants {
            if !matches!(node.routes.add(&tenant, filters).await, Ok(Ok(()))) {
                // Told once more, by ourselves.
                lost.notify_one();
                tokio::time::sleep(ADD_AGAIN).await;
            }
        }
    }
}

/// Between two attempts to add the routes of this node again.
const ADD_AGAIN: Duration = Duration::from_secs(1);

/// Between being told of adopted sessions and looking at their routes: more may be on their way.
const ADOPTED_QUIET: Duration = Duration::from_secs(1);
/// Subscriptions that are looked at in one go.
const ROUTES_AT_ONCE: usize = 1024;

/// Sees that the sessions of another lineage, once they are adopted, have their routes.
pub(crate) async fn run_adopted(node: Arc<Node>, adopted: Arc<Notify>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = adopted.notified() => {}
        }
        tokio::time::sleep(ADOPTED_QUIET).await;
        match ensure_routes(&node).await {
            Ok(0) => {}
            Ok(count) => info!(count, "routes of adopted sessions were added"),
            Err(error) => {
                warn!(error, "routes of adopted sessions could not be added; it is tried again");
                adopted.notify_one();
            }
        }
    }
}

async fn ensure_routes(node: &Node) -> Result<u64, String> {
    let (mut after, mut added) = (None, 0);
    loop {
        let page = node.inbox.subscriptions(after, ROUTES_AT_ONCE).map_err(|error| error.to_string())?;
        let routes = page.subscriptions.into_iter().map(|(inbox, incarnation, filter, options)| Route {
            tenant: inbox.tenant,
            filter,
            // Under no attach: what an owner set stays as it is.
            receiver: Receiver::Inbox { client: inbox.client, incarnation, attach: 0, options },
        });
        added += node.dist.ensure(routes.collect()).await.map_err(|error| error.to_string())?;
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(added),
        }
    }
}

/// Publishes wills that are due, each once.
pub(crate) async fn run_wills(
    node: Arc<Node>,
    mut due: mpsc::Receiver<(InboxId, SessionVersion, PendingWill)>,
    stop: CancellationToken,
) {
    let mut settled: HashMap<(InboxId, SessionVersion), Instant> = HashMap::new();
    let mut receivers = Receivers::default();
    loop {
        let (inbox, version, will) = tokio::select! {
            () = stop.cancelled() => return,
            told = due.recv() => match told {
                Some(told) => told,
                None => return,
            },
        };
        let now = node.clock.now();
        if settled.len() > WAITING {
            settled.retain(|_, at| now.duration_since(*at) < REMEMBERED);
        }
        let key = (inbox, version);
        if settled.contains_key(&key) {
            continue;
        }
        match publish_will(&node, &key.0, version, &will, &mut receivers).await {
            Ok(()) => {
                settled.insert(key, now);
            }
            Err(error) => {
                debug!(client = %key.0.client, %error, "a will could not be published; it will be tried again")
            }
        }
    }
}

async fn publish_will(
    node: &Arc<Node>,
    inbox: &InboxId,
    version: SessionVersion,
    will: &PendingWill,
    receivers: &mut Receivers,
) -> Result<(), InboxError> {
    if !may_publish(node, inbox, will) {
        node.metrics.node().denied.inc(if will.message.retain { "retain" } else { "publish" });
        node.metrics.node().dropped.inc(counters::WILL_NOT_AUTHORIZED);
        info!(client = %inbox.client, topic = ?will.message.topic.as_str(), "a will was dropped: its client may not publish it any more");
        let origin = Origin::Will { inbox: inbox.clone(), version };
        let (tenant, message) = (inbox.tenant.clone(), Arc::clone(&will.message));
        return node.inbox.insert(Insert { tenant, message, receivers: Vec::new(), origin }).await.map(drop);
    }
    let expires_at = will.expiry_secs.map(|secs| node.clock.wall().plus_secs(u64::from(secs)));
    let message = Arc::new(Message { expires_at, ..(*will.message).clone() });
    {
        let live = node.live_read();
        node.receivers(&inbox.tenant, &message, None, &live, receivers);
    }
    let mut live: Vec<Target> = std::mem::take(&mut receivers.live);
    let nodes = std::mem::take(&mut receivers.nodes);
    if message.retain {
        match node.retain.retain(&inbox.tenant, Arc::clone(&message)).await {
            Ok(()) => {}
            // It would be refused again and again: its subscribers get it all the same.
            Err(error @ RetainError::TooMany { .. }) => {
                node.metrics.node().dropped.inc(counters::UNAVAILABLE);
                warn!(client = %inbox.client, %error, "a will could not be retained");
            }
            // Not settled yet, so it is told again.
            Err(error) => return Err(InboxError::Unavailable { cause: error.to_string() }),
        }
    }
    let insert = Insert {
        tenant: inbox.tenant.clone(),
        message: Arc::clone(&message),
        receivers: receivers.inboxes.clone(),
        origin: Origin::Will { inbox: inbox.clone(), version },
    };
    let outcomes = node.inbox.insert(insert).await?;
    // Live sessions hear it once it can't come again.
    if !outcomes.contains(&InsertOutcome::Repeated) {
        node.deliver_everywhere(&inbox.tenant, &message, &mut live, &nodes);
    }
    Ok(())
}

/// A will was allowed at CONNECT; what counts when it fires is what its client may do then.
fn may_publish(node: &Node, inbox: &InboxId, will: &PendingWill) -> bool {
    let user = (!will.owner.is_empty()).then(|| will.owner.clone());
    let principal = Principal { tenant: inbox.tenant.clone(), user, client: inbox.client.clone() };
    let rights = node.authorizer.permissions(&principal);
    rights.may_connect() && rights.may_publish(&will.message.topic, will.message.retain)
}

/// So many ended sessions are looked at together.
const ENDED_AT_ONCE: usize = 64;

/// Removes the routes of sessions that ended.
pub(crate) async fn run_ended(node: Arc<Node>, mut ended: mpsc::Receiver<Ended>, stop: CancellationToken) {
    let mut told = Vec::with_capacity(ENDED_AT_ONCE);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            count = ended.recv_many(&mut told, ENDED_AT_ONCE) => if count == 0 {
                return;
            },
        }
        let incarnations = told.iter().map(|ended| ended.incarnation).collect();
        let removed = node.dist.remove(told.drain(..).flat_map(Ended::into_routes).collect()).await;
        let settled = match removed {
            Ok(()) => node.inbox.settle_ended(incarnations).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = settled {
            debug!(%error, "ended sessions are told again: their routes may not be removed yet");
        }
    }
}

/// Between two attempts to clear away what earlier runs of this node left.
const CLEAR_AGAIN: Duration = Duration::from_secs(1);

/// Clears away what earlier runs of this node left: sessions that count as connected, whose wills would never fire, and routes. It is tried until
/// it works: nobody else may do it.
pub(crate) async fn run_left_behind(node: Arc<Node>, stop: CancellationToken) {
    if node.run.incarnation <= Incarnation(1) {
        return;
    }
    let clear = async {
        loop {
            match node.inbox.detach_runs_before(node.run).await {
                Ok(0) => break,
                Ok(count) => {
                    info!(count, "sessions of the run before this one count as disconnected now");
                    break;
                }
                Err(error) => debug!(%error, "sessions of the run before this one can't be looked at now"),
            }
            tokio::time::sleep(CLEAR_AGAIN).await;
        }
        while let Err(error) = node.dist.forget_runs_before(node.run).await {
            debug!(%error, "routes of the run before this one can't be removed now");
            tokio::time::sleep(CLEAR_AGAIN).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = clear => {}
    }
}

/// How often expired retained messages are collected.
const COLLECT_EVERY: Duration = Duration::from_secs(60);

/// How many of these rounds lie between two sweeps of the routes.
const SWEEP_EVERY: u64 = 10;

/// Collects what has expired and what a crash left behind.
pub(crate) async fn run_housekeeping(node: Arc<Node>, stop: CancellationToken) {
    let mut rounds = 0_u64;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(COLLECT_EVERY) => {}
        }
        rounds += 1;
        // One node of the cluster does it: the one that needs no network for it.
        if rounds.is_multiple_of(SWEEP_EVERY) && node.dist.leads() {
            let inboxes = Arc::clone(&node.inbox);
            let lives = move |tenant: &TenantId, client: &ClientId, incarnation: u64| {
                inboxes.may_live(&InboxId { tenant: tenant.clone(), client: client.clone() }, incarnation)
            };
            match node.dist.sweep(&lives).await {
                Ok(0) => {}
                Ok(count) => debug!(count, "routes of sessions that are gone were removed"),
                Err(error) => debug!(%error, "routes could not be swept now"),
            }
        }
        if node.retain.leads()
            && let Err(error) = node.retain.collect_expired().await
        {
            debug!(%error, "expired retained messages could not be collected now");
        }
    }
}

/// How often `$SYS` is told.
const SYS_EVERY: Duration = Duration::from_secs(10);

/// Keeps the `$SYS/broker/…` values: told to whoever subscribed, and kept for whoever subscribes later.
pub(crate) async fn run_sys(node: Arc<Node>, stop: CancellationToken) {
    let mut topics = SysTopics::default();
    let mut receivers = Receivers::default();
    let tenant = TenantId::default();
    let mut last = node.clock.now();
    loop {
        let now = node.clock.now();
        for (suffix, value) in topics.round(&node.metrics, now.duration_since(last)) {
            let name = format!("$SYS/broker/{suffix}");
            let Ok(topic) = TopicName::new(name.clone()) else { continue };
            let message = Arc::new(Message {
                topic,
                payload: value.into(),
                qos: QoS::AtMostOnce,
                retain: false,
                properties: Bytes::new(),
                expires_at: None,
                publisher: None,
            });
            {
                let live = node.live_read();
                node.receivers(&tenant, &message, None, &live, &mut receivers);
            }
            node.deliver_from_outside(&message, &mut receivers.live);
            node.sys.write().insert(name, message);
        }
        last = now;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SYS_EVERY) => {}
        }
    }
}
