use crate::cluster::{Aim, Claims, Freshness, Remote};
use crate::counters;
use crate::disk::Disk;
use crate::live::{LiveTable, Registry, SessionRef, Target};
use crate::routes::RouteKeeper;
use crate::shard::{Letter, ShardHandle};
use base_types::{ClientId, Clock, Message, NodeId, NodeIncarnation, QoS, SharedFilter, SharedMode, TenantId};
use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
use dist_api::{DistService, GroupMatch, InboxMatch, Matches};
use inbox_api::{InboxId, InboxReceiver, InboxService, Insert, Origin};
use mqtt_auth::{Authenticator, Authorizer};
use mqtt_codec::ReasonCode;
use mqtt_session::Settings;
use retain_api::RetainService;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use telemetry::Metrics;

/// What all shards and services of a node share.
pub(crate) struct Node {
    pub(crate) run: NodeIncarnation,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Arc<Settings>,
    /// The largest CONNECT, in bytes: what a stranger can make us hold.
    pub(crate) connect_bytes_max: u32,
    /// How long a packet may take from its first bytes to its last.
    pub(crate) packet_timeout: Duration,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    /// What a client is told about a filter that it may not subscribe to.
    pub(crate) subscribe_denied: ReasonCode,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) live: ShardedLock<LiveTable>,
    pub(crate) registry: Registry,
    pub(crate) routes: RouteKeeper,
    pub(crate) dist: Arc<dyn DistService>,
    pub(crate) inbox: Arc<dyn InboxService>,
    pub(crate) retain: Arc<dyn RetainService>,
    pub(crate) shards: Arc<[ShardHandle]>,
    /// The live sessions of other nodes.
    pub(crate) remote: Arc<Remote>,
    /// Who is connected here, told to the others.
    pub(crate) claims: Arc<Claims>,
    /// Whether the routes are known to be complete.
    pub(crate) fresh: Arc<Freshness>,
    /// `$SYS` values: kept in memory and answered like retained messages.
    pub(crate) sys: parking_lot::RwLock<BTreeMap<String, Arc<Message>>>,
    pub(crate) turn: AtomicUsize,
    pub(crate) open: OpenPublishes,
    pub(crate) disk: Arc<Disk>,
    /// New sessions on their way into the store.
    pub(crate) admitted: Arc<AtomicU64>,
}

/// Who gets a message. Kept and reused by whoever routes.
#[derive(Default)]
pub(crate) struct Receivers {
    /// Live sessions of this node.
    pub(crate) live: Vec<Target>,
    /// Persistent sessions, QoS 1 and 2.
    pub(crate) inboxes: Vec<InboxReceiver>,
    /// Live sessions of other nodes.
    pub(crate) nodes: Vec<(NodeId, Aim)>,
    matches: Matches,
    found: Vec<InboxMatch>,
}

impl Node {
    /// The live subscriptions, to look up.
    pub(crate) fn live_read(&self) -> ShardedLockReadGuard<'_, LiveTable> {
        // A panic while it was written leaves a table that is consistent in itself: each change is one step.
        self.live.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The live subscriptions, to change.
    pub(crate) fn live_write(&self) -> ShardedLockWriteGuard<'_, LiveTable> {
        self.live.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Finds who gets `message`.
    pub(crate) fn receivers(
        &self,
        tenant: &TenantId,
        message: &Message,
        from: Option<SessionRef>,
        live: &LiveTable,
        into: &mut Receivers,
    ) {
        into.live.clear();
        into.inboxes.clear();
        into.nodes.clear();
        into.matches.clear();
        live.matches(tenant, &message.topic, message.qos, message.retain, from, &mut into.live);
        self.dist.matches(tenant, &message.topic, &mut into.matches);
        if into.matches.is_empty() {
            return;
        }
        let alive = into.matches.nodes.iter().filter(|run| self.remote.is_alive(**run));
        into.nodes.extend(alive.map(|run| (run.node, Aim::Subscribers)));
        let mut found = std::mem::take(&mut into.found);
        found.append(&mut into.matches.inboxes);
        found.retain(|m| !(m.options.no_local && message.publisher.as_ref() == Some(&m.client)));
        let groups_max = usize::try_from(self.settings.max_group_fanout).unwrap_or(usize::MAX);
        if let Some(over @ 1..) = into.matches.groups.len().checked_sub(groups_max) {
            self.metrics.node().dropped.add(counters::GROUP_FANOUT, over as u64);
            into.matches.groups.truncate(groups_max);
        }
        for group in &into.matches.groups {
            match self.pick(tenant, group, message, live, &[]) {
                Some(Picked::Live(target)) => into.live.push(target),
                Some(Picked::Node(node)) => into.nodes.push((node, Aim::Group((*group.filter).clone()))),
                Some(Picked::Inbox(inbox)) => found.push(inbox),
                None => {}
            }
        }
        // One inbox that several of its filters brought here gets one copy (MQTT 5.0 §3.3.4).
        if found.len() > 1 {
            found.sort_by(|a, b| a.client.cmp(&b.client));
        }
        let mut found = found;
        let mut rest = found.drain(..).peekable();
        while let Some(first) = rest.next() {
            let mut receiver = InboxReceiver {
                qos: first.options.qos.min(message.qos),
                retain: message.retain && first.options.retain_as_published,
                subscription_identifiers: first.options.identifier.into_iter().collect(),
                client: first.client,
                incarnation: first.incarnation,
            };
            while let Some(same) =
                rest.next_if(|m| m.client == receiver.client && m.incarnation == receiver.incarnation)
            {
                receiver.qos = receiver.qos.max(same.options.qos.min(message.qos));
                receiver.retain |= message.retain && same.options.retain_as_published;
                receiver.subscription_identifiers.extend(same.options.identifier);
            }
            if receiver.qos == QoS::AtMostOnce {
                // QoS 0 is not queued: it reaches a persistent session only while it is connected.
                let id = InboxId { tenant: tenant.clone(), client: receiver.client };
                let (retain, identifiers) = (receiver.retain, SmallVec::from_vec(receiver.subscription_identifiers));
                if let Some(session) = self.registry.find(&id) {
                    into.live.push(Target { session, qos: QoS::AtMostOnce, retain, identifiers });
                } else if let Some(run) = self.inbox.holder(&id).filter(|run| self.remote.is_alive(*run)) {
                    into.nodes.push((run.node, Aim::Client { client: id.client, retain, identifiers }));
                } else {
                    self.metrics.node().dropped.inc(counters::OFFLINE);
                }
            } else {
                into.inboxes.push(receiver);
            }
        }
        drop(rest);
        into.found = found;
        let inboxes_max = self
            .settings
            .max_persistent_fanout
            .min(self.settings.max_persistent_fanout_bytes / (message.cost() as u64).max(1));
        let inboxes_max = usize::try_from(inboxes_max).unwrap_or(usize::MAX);
        if let Some(over @ 1..) = into.inboxes.len().checked_sub(inboxes_max) {
            self.metrics.node().dropped.add(counters::PERSISTENT_FANOUT, over as u64);
            into.inboxes.truncate(inboxes_max);
        }
    }

    /// One member of a shared group: live or connected ones first, in turn. What this node does not hold itself it knows by node: the node
    /// picks its member. Nodes in `tried` had none.
    fn pick(
        &self,
        tenant: &TenantId,
        group: &GroupMatch,
        message: &Message,
        live: &LiveTable,
        tried: &[NodeId],
    ) -> Option<Picked> {
        let shared: &SharedFilter = &group.filter;
        let publisher = message.publisher.as_ref();
        let members = live.member_count(tenant, shared);
        let pick_live = || live.pick(tenant, shared, message.qos, message.retain, publisher).map(Picked::Live);
        let others = group.nodes.iter().filter(|run| **run != self.run && !tried.contains(&run.node));
        let nodes: SmallVec<[NodeIncarnation; 8]> = others.filter(|run| self.remote.is_alive(**run)).copied().collect();
        if group.inboxes.is_empty() && nodes.is_empty() {
            return pick_live();
        }
        if shared.mode == SharedMode::Ordered {
            return self.pick_ordered(group, publisher, members, &nodes, pick_live);
        }
        let connected = |m: &&InboxMatch| self.is_connected(tenant, &m.client);
        let online: SmallVec<[&InboxMatch; 8]> = group.inboxes.iter().filter(connected).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let ready = members + nodes.len() + online.len();
        if ready == 0 {
            return group.inboxes.get(turn % group.inboxes.len().max(1)).cloned().map(Picked::Inbox);
        }
        let at = turn % ready;
        if at < members {
            return pick_live();
        }
        match nodes.get(at - members) {
            Some(run) => Some(Picked::Node(run.node)),
            None => online.get(at - members - nodes.len()).map(|m| Picked::Inbox((*m).clone())),
        }
    }

    /// The member of an ordered group that a publisher always gets: by rendezvous over nodes and inboxes, so that all nodes agree, and one that
    /// leaves moves only the publishers that it had.
    fn pick_ordered(
        &self,
        group: &GroupMatch,
        publisher: Option<&ClientId>,
        members: usize,
        nodes: &[NodeIncarnation],
        pick_live: impl FnOnce() -> Option<Picked>,
    ) -> Option<Picked> {
        let score = |member: &dyn Fn(&mut std::hash::DefaultHasher)| {
            let mut hasher = std::hash::DefaultHasher::new();
            publisher.hash(&mut hasher);
            member(&mut hasher);
            hasher.finish()
        };
        let own = (members > 0).then(|| (score(&|h| self.run.node.hash(h)), None));
        let of_nodes = nodes.iter().map(|run| (score(&|h| run.node.hash(h)), Some(Picked::Node(run.node))));
        let of_inboxes = group.inboxes.iter().map(|m| (score(&|h| m.client.hash(h)), Some(Picked::Inbox(m.clone()))));
        let best = own.into_iter().chain(of_nodes).chain(of_inboxes).max_by_key(|(score, _)| *score)?;
        best.1.or_else(pick_live)
    }

    /// Whether a persistent session has a connection, here or elsewhere.
    fn is_connected(&self, tenant: &TenantId, client: &ClientId) -> bool {
        let id = InboxId { tenant: tenant.clone(), client: client.clone() };
        self.registry.find(&id).is_some() || self.inbox.holder(&id).is_some_and(|run| self.remote.is_alive(run))
    }

    /// Tries a message for a shared group once more, at a member that is not on one of these nodes; tells whether there is one.
    pub(crate) fn deliver_to_group(
        self: &Arc<Self>,
        tenant: &TenantId,
        shared: &SharedFilter,
        message: &Arc<Message>,
        tried: &[NodeId],
    ) -> bool {
        let mut matches = Matches::default();
        self.dist.matches(tenant, &message.topic, &mut matches);
        let Some(group) = matches.groups.iter().find(|group| *group.filter == *shared) else { return false };
        let picked = {
            let live = self.live_read();
            self.pick(tenant, group, message, &live, tried)
        };
        match picked {
            None => false,
            Some(Picked::Live(target)) => {
                self.deliver_from_outside(message, &mut vec![target]);
                true
            }
            Some(Picked::Node(node)) => {
                self.send_to_node(node, tenant, &Aim::Group(shared.clone()), message, tried);
                true
            }
            Some(Picked::Inbox(inbox)) => {
                let qos = inbox.options.qos.min(message.qos);
                if qos == QoS::AtMostOnce {
                    return false;
                }
                let receiver = InboxReceiver {
                    qos,
                    retain: message.retain && inbox.options.retain_as_published,
                    subscription_identifiers: inbox.options.identifier.into_iter().collect(),
                    client: inbox.client,
                    incarnation: inbox.incarnation,
                };
                let insert = Insert {
                    tenant: tenant.clone(),
                    message: Arc::clone(message),
                    receivers: vec![receiver],
                    origin: Origin::None,
                };
                let (inserted, node) = (self.inbox.insert(insert), Arc::clone(self));
                tokio::spawn(async move {
                    if inserted.await.is_err() {
                        node.metrics.node().dropped.inc(counters::UNAVAILABLE);
                    }
                });
                true
            }
        }
    }

    /// Whether some shard has more waiting than it should: then nobody reads from publishers for a moment.
    pub(crate) fn is_congested(&self) -> bool {
        self.open.is_high() || self.remote.is_congested() || self.shards.iter().any(ShardHandle::is_congested)
    }

    /// Sends a message to live sessions from outside of the shards.
    pub(crate) fn deliver_from_outside(&self, message: &Arc<Message>, targets: &mut Vec<Target>) {
        let mut letters: Vec<Vec<Letter>> = self.shards.iter().map(|_| Vec::new()).collect();
        self.to_letters(message, targets, &mut letters);
        for (shard, letters) in self.shards.iter().zip(&mut letters) {
            shard.send_all(letters);
        }
    }

    /// As [`Node::deliver_from_outside`], and to other nodes.
    pub(crate) fn deliver_everywhere(
        self: &Arc<Self>,
        tenant: &TenantId,
        message: &Arc<Message>,
        targets: &mut Vec<Target>,
        nodes: &[(NodeId, Aim)],
    ) {
        self.deliver_from_outside(message, targets);
        for (node, aim) in nodes {
            self.send_to_node(*node, tenant, aim, message, &[]);
        }
    }

    /// Appends a message to the letters of the shards that have its targets.
    pub(crate) fn to_letters(&self, message: &Arc<Message>, targets: &mut Vec<Target>, letters: &mut [Vec<Letter>]) {
        targets.sort_by_key(|t| t.session.shard);
        let mut targets = targets.drain(..).peekable();
        while let Some(first) = targets.next() {
            let shard = first.session.shard;
            let mut of_shard: SmallVec<[Target; 1]> = SmallVec::new();
            of_shard.push(first);
            while let Some(next) = targets.next_if(|t| t.session.shard == shard) {
                of_shard.push(next);
            }
            if let Some(letters) = letters.get_mut(usize::from(shard)) {
                letters.push(Letter::Deliver { message: Arc::clone(message), targets: of_shard });
            }
        }
    }
}

/// Messages that wait for their commit. Above a mark the node reads no more from publishers: below what the queue of a range holds,
/// so that a publisher waits instead of being refused.
#[derive(Debug, Default)]
pub(crate) struct OpenPublishes {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl OpenPublishes {
    const MESSAGES_HIGH: usize = 8 * 1024;
    /// Half of what the queue of a range holds.
    const BYTES_HIGH: usize = 4 << 20;

    pub(crate) fn enter(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn leave(&self, bytes: usize) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn is_high(&self) -> bool {
        self.messages.load(Ordering::Relaxed) > Self::MESSAGES_HIGH
            || self.bytes.load(Ordering::Relaxed) > Self::BYTES_HIGH
    }
}

enum Picked {
    Live(Target),
    Node(NodeId),
    Inbox(InboxMatch),
}
