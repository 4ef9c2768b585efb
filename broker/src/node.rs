use crate::counters;
use crate::live::{LiveTable, Registry, SessionRef, Target};
use crate::routes::RouteKeeper;
use crate::shard::{Letter, ShardHandle};
use base_types::{Clock, Message, NodeIncarnation, QoS, SharedFilter, SharedMode, TenantId};
use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
use dist_api::{DistService, GroupMatch, InboxMatch, Matches};
use inbox_api::{InboxId, InboxReceiver, InboxService};
use mqtt_auth::{Authenticator, Authorizer};
use mqtt_codec::ReasonCode;
use mqtt_session::Settings;
use retain_api::RetainService;
use smallvec::SmallVec;
use std::collections::BTreeMap;
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
    /// `$SYS` values: kept in memory and answered like retained messages.
    pub(crate) sys: parking_lot::RwLock<BTreeMap<String, Arc<Message>>>,
    pub(crate) turn: AtomicUsize,
    pub(crate) open: OpenPublishes,
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
        into.matches.clear();
        live.matches(tenant, &message.topic, message.qos, message.retain, from, &mut into.live);
        self.dist.matches(tenant, &message.topic, &mut into.matches);
        if into.matches.is_empty() {
            return;
        }
        let mut found = std::mem::take(&mut into.found);
        found.append(&mut into.matches.inboxes);
        found.retain(|m| !(m.options.no_local && message.publisher.as_ref() == Some(&m.client)));
        let groups_max = usize::try_from(self.settings.max_group_fanout).unwrap_or(usize::MAX);
        if let Some(over @ 1..) = into.matches.groups.len().checked_sub(groups_max) {
            self.metrics.node().dropped.add(counters::GROUP_FANOUT, over as u64);
            into.matches.groups.truncate(groups_max);
        }
        for group in &into.matches.groups {
            match self.pick(tenant, group, message, live) {
                Some(Picked::Live(target)) => into.live.push(target),
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
                match self.registry.find(&id) {
                    Some(session) => into.live.push(Target {
                        session,
                        qos: QoS::AtMostOnce,
                        retain: receiver.retain,
                        identifiers: SmallVec::from_vec(receiver.subscription_identifiers),
                    }),
                    None => self.metrics.node().dropped.inc(counters::OFFLINE),
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

    /// One member of a shared group: live or connected ones first, in turn.
    fn pick(&self, tenant: &TenantId, group: &GroupMatch, message: &Message, live: &LiveTable) -> Option<Picked> {
        let shared: &SharedFilter = &group.filter;
        let publisher = message.publisher.as_ref();
        let members = live.member_count(tenant, shared);
        if group.inboxes.is_empty() {
            return live.pick(tenant, shared, message.qos, message.retain, publisher).map(Picked::Live);
        }
        if shared.mode == SharedMode::Ordered {
            // The group's members in a fixed order; the publisher decides. Live members stand before inboxes.
            let mut hasher = std::hash::DefaultHasher::new();
            std::hash::Hash::hash(&publisher, &mut hasher);
            let at = usize::try_from(std::hash::Hasher::finish(&hasher)).unwrap_or(0) % (members + group.inboxes.len());
            return match at.checked_sub(members) {
                None => live.pick(tenant, shared, message.qos, message.retain, publisher).map(Picked::Live),
                Some(at) => group.inboxes.get(at).cloned().map(Picked::Inbox),
            };
        }
        let connected = |m: &&InboxMatch| {
            self.registry.find(&InboxId { tenant: tenant.clone(), client: m.client.clone() }).is_some()
        };
        let online: SmallVec<[&InboxMatch; 8]> = group.inboxes.iter().filter(connected).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let ready = members + online.len();
        if ready == 0 {
            return group.inboxes.get(turn % group.inboxes.len()).cloned().map(Picked::Inbox);
        }
        match (turn % ready).checked_sub(members) {
            None => live.pick(tenant, shared, message.qos, message.retain, publisher).map(Picked::Live),
            Some(at) => online.get(at).map(|m| Picked::Inbox((*m).clone())),
        }
    }

    /// Whether some shard has more waiting than it should: then nobody reads from publishers for a moment.
    pub(crate) fn is_congested(&self) -> bool {
        self.open.is_high() || self.shards.iter().any(ShardHandle::is_congested)
    }

    /// Sends a message to live sessions from outside of the shards.
    pub(crate) fn deliver_from_outside(&self, message: &Arc<Message>, targets: &mut Vec<Target>) {
        targets.sort_by_key(|t| t.session.shard);
        let mut targets = targets.drain(..).peekable();
        while let Some(first) = targets.next() {
            let shard = first.session.shard;
            let mut of_shard: SmallVec<[Target; 1]> = SmallVec::new();
            of_shard.push(first);
            while let Some(next) = targets.next_if(|t| t.session.shard == shard) {
                of_shard.push(next);
            }
            if let Some(handle) = self.shards.get(usize::from(shard)) {
                handle.send(Letter::Deliver { message: Arc::clone(message), targets: of_shard });
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
    Inbox(InboxMatch),
}
