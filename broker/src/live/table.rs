use super::SessionRef;
use base_types::{
    ClientId, QoS, SharedFilter, SharedMode, SubscriptionFilter, SubscriptionOptions, TenantId, TopicName,
};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use topic_trie::TopicTrie;

/// What live sessions of this node subscribed to, per tenant.
#[derive(Debug, Default)]
pub(crate) struct LiveTable {
    tenants: HashMap<TenantId, Tenant>,
    ordered: RandomState,
    subscriptions: usize,
}

#[derive(Debug, Default)]
struct Tenant {
    filters: TopicTrie<SmallVec<[Subscriber; 1]>>,
    groups: HashMap<SharedFilter, Group>,
}

#[derive(Clone, Copy, Debug)]
struct Subscriber {
    session: SessionRef,
    options: SubscriptionOptions,
}

#[derive(Debug, Default)]
struct Group {
    members: Vec<Subscriber>,
    next: AtomicUsize,
}

/// One live session that a message goes to, once, whatever many of its filters match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) session: SessionRef,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) identifiers: SmallVec<[u32; 1]>,
}

/// What an insertion changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Added {
    /// The session had this subscription already; its options were replaced.
    pub(crate) existed: bool,
}

/// What a removal changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    /// The subscription was there.
    pub(crate) existed: bool,
    /// It was the node's last one for this filter: the route goes too.
    pub(crate) last: bool,
}

impl LiveTable {
    pub(crate) fn subscription_count(&self) -> usize {
        self.subscriptions
    }

    /// All filters that somebody subscribed to, each once.
    pub(crate) fn filters(&self) -> Vec<(TenantId, SubscriptionFilter)> {
        let of_tenant = |(tenant, table): (&TenantId, &Tenant)| {
            let normal = table.filters.iter().map(|(filter, _)| SubscriptionFilter::Normal(filter));
            let shared = table.groups.keys().map(|shared| SubscriptionFilter::Shared(shared.clone()));
            normal.chain(shared).map(|filter| (tenant.clone(), filter)).collect::<Vec<_>>()
        };
        self.tenants.iter().flat_map(of_tenant).collect()
    }

    pub(crate) fn add(
        &mut self,
        tenant: &TenantId,
        filter: &SubscriptionFilter,
        session: SessionRef,
        options: SubscriptionOptions,
    ) -> Added {
        if !self.tenants.contains_key(tenant) {
            self.tenants.insert(tenant.detached(), Tenant::default());
        }
        let Some(of_tenant) = self.tenants.get_mut(tenant) else { return Added { existed: false } };
        let subscriber = Subscriber { session, options };
        let existed = match filter {
            SubscriptionFilter::Normal(filter) => {
                let list = of_tenant.filters.get_or_insert_with(filter, SmallVec::new);
                match list.iter_mut().find(|s| s.session == session) {
                    Some(there) => {
                        *there = subscriber;
                        true
                    }
                    None => {
                        list.push(subscriber);
                        false
                    }
                }
            }
            SubscriptionFilter::Shared(shared) => {
                let group = of_tenant.groups.entry(shared.clone()).or_default();
                match group.members.iter_mut().find(|s| s.session == session) {
                    Some(there) => {
                        *there = subscriber;
                        true
                    }
                    None => {
                        group.members.push(subscriber);
                        false
                    }
                }
            }
        };
        self.subscriptions += usize::from(!existed);
        Added { existed }
    }

    pub(crate) fn remove(&mut self, tenant: &TenantId, filter: &SubscriptionFilter, session: SessionRef) -> Removed {
        let nothing = Removed { existed: false, last: false };
        let Some(of_tenant) = self.tenants.get_mut(tenant) else { return nothing };
        let removed = match filter {
            SubscriptionFilter::Normal(filter) => {
                let Some(list) = of_tenant.filters.get_mut(filter) else { return nothing };
                let Some(at) = list.iter().position(|s| s.session == session) else { return nothing };
                list.swap_remove(at);
                let last = list.is_empty();
                if last {
                    of_tenant.filters.remove(filter);
                } else if list.spilled() && list.capacity() > 4 * list.len() {
                    list.shrink_to_fit();
                }
                Removed { existed: true, last }
            }
            SubscriptionFilter::Shared(shared) => {
                let Some(group) = of_tenant.groups.get_mut(shared) else { return nothing };
                let Some(at) = group.members.iter().position(|s| s.session == session) else { return nothing };
                group.members.remove(at);
                let last = group.members.is_empty();
                if last {
                    of_tenant.groups.remove(shared);
                }
                Removed { existed: true, last }
            }
        };
        self.subscriptions -= 1;
        removed
    }

    /// Appends the sessions that `topic` goes to under normal filters: each once, with its highest QoS and all its identifiers
    /// (MQTT 5.0 §3.3.4). `from` is left out where it asked for No Local.
    pub(crate) fn matches(
        &self,
        tenant: &TenantId,
        topic: &TopicName,
        published: QoS,
        retain: bool,
        from: Option<SessionRef>,
        into: &mut Vec<Target>,
    ) {
        let Some(of_tenant) = self.tenants.get(tenant) else { return };
        let start = into.len();
        let mut lists = 0;
        of_tenant.filters.for_each_match(topic.as_str(), |list| {
            lists += 1;
            for s in list {
                if s.options.no_local && from == Some(s.session) {
                    continue;
                }
                into.push(s.target(published, retain));
            }
        });
        // Within one filter a session stands once: only several filters can name it twice.
        if lists > 1 {
            merge(into, start);
        }
    }

    /// A live member of a shared group on this node: the next in turn, or for an ordered group always the same one for a publisher.
    pub(crate) fn pick(
        &self,
        tenant: &TenantId,
        shared: &SharedFilter,
        published: QoS,
        retain: bool,
        publisher: Option<&ClientId>,
    ) -> Option<Target> {
        let group = self.tenants.get(tenant)?.groups.get(shared)?;
        let count = group.members.len();
        let at = match shared.mode {
            SharedMode::Any => group.next.fetch_add(1, Ordering::Relaxed) % count.max(1),
            SharedMode::Ordered => {
                // Rendezvous: a member that leaves moves only the publishers that it had.
                let score = |s: &Subscriber| self.ordered.hash_one((publisher, s.session));
                let best = group.members.iter().enumerate().max_by_key(|(_, s)| score(s))?;
                best.0
            }
        };
        group.members.get(at).map(|s| s.target(published, retain))
    }

    /// How many live members of a group this node has.
    pub(crate) fn member_count(&self, tenant: &TenantId, shared: &SharedFilter) -> usize {
        self.tenants.get(tenant).and_then(|t| t.groups.get(shared)).map_or(0, |g| g.members.len())
    }
}

impl Subscriber {
    fn target(&self, published: QoS, retain: bool) -> Target {
        Target {
            session: self.session,
            qos: self.options.qos.min(published),
            retain: retain && self.options.retain_as_published,
            identifiers: self.options.identifier.into_iter().collect(),
        }
    }
}

/// Merges targets of the same session from `start` on; the order of first appearance is kept where nothing is merged.
fn merge(targets: &mut Vec<Target>, start: usize) {
    if targets.len() - start < 2 {
        return;
    }
    targets[start..].sort_by_key(|t| t.session);
    let mut kept = start;
    for at in start + 1..targets.len() {
        if targets[at].session == targets[kept].session {
            let identifiers = std::mem::take(&mut targets[at].identifiers);
            let (qos, retain) = (targets[at].qos, targets[at].retain);
            let into = &mut targets[kept];
            into.qos = into.qos.max(qos);
            into.retain |= retain;
            into.identifiers.extend(identifiers);
        } else {
            kept += 1;
            targets.swap(kept, at);
        }
    }
    targets.truncate(kept + 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytestring::ByteString;

    fn session(slot: u32) -> SessionRef {
        SessionRef { shard: 0, slot, generation: 0 }
    }

    fn filter(text: &'static str) -> SubscriptionFilter {
        SubscriptionFilter::parse(&ByteString::from_static(text)).unwrap()
    }

    fn options(qos: QoS, identifier: u32) -> SubscriptionOptions {
        SubscriptionOptions { qos, identifier: Some(identifier), ..SubscriptionOptions::default() }
    }

    fn matches(table: &LiveTable, topic: &'static str, from: Option<SessionRef>) -> Vec<Target> {
        let mut into = Vec::new();
        let topic = TopicName::new(topic).unwrap();
        table.matches(&TenantId::default(), &topic, QoS::ExactlyOnce, false, from, &mut into);
        into
    }

    #[test]
    fn overlapping_filters_give_one_copy_with_all_identifiers_and_the_highest_qos() {
        let mut table = LiveTable::default();
        let tenant = TenantId::default();
        table.add(&tenant, &filter("a/+"), session(1), options(QoS::AtMostOnce, 1));
        table.add(&tenant, &filter("a/#"), session(1), options(QoS::ExactlyOnce, 2));
        table.add(&tenant, &filter("a/b"), session(2), options(QoS::AtLeastOnce, 3));
        let mut got = matches(&table, "a/b", None);
        got.sort_by_key(|t| t.session);
        assert_eq!(got.len(), 2);
        assert_eq!((got[0].session, got[0].qos), (session(1), QoS::ExactlyOnce));
        let mut identifiers = got[0].identifiers.to_vec();
        identifiers.sort_unstable();
        assert_eq!(identifiers, [1, 2]);
        assert_eq!(got[1].session, session(2));
    }

    #[test]
    fn no_local_leaves_the_publisher_out() {
        let mut table = LiveTable::default();
        let own = SubscriptionOptions { no_local: true, ..SubscriptionOptions::default() };
        table.add(&TenantId::default(), &filter("x"), session(1), own);
        assert!(matches(&table, "x", Some(session(1))).is_empty());
        assert_eq!(matches(&table, "x", Some(session(2))).len(), 1);
    }

    #[test]
    fn the_last_removal_is_told() {
        let mut table = LiveTable::default();
        let tenant = TenantId::default();
        for slot in [1, 2] {
            assert!(!table.add(&tenant, &filter("x"), session(slot), options(QoS::AtMostOnce, 1)).existed);
        }
        assert!(table.add(&tenant, &filter("x"), session(2), options(QoS::AtMostOnce, 1)).existed);
        assert_eq!(table.subscription_count(), 2);
        assert_eq!(table.remove(&tenant, &filter("x"), session(1)), Removed { existed: true, last: false });
        assert_eq!(table.remove(&tenant, &filter("x"), session(1)), Removed { existed: false, last: false });
        assert_eq!(table.remove(&tenant, &filter("x"), session(2)), Removed { existed: true, last: true });
        assert_eq!(table.subscription_count(), 0);
    }

    #[test]
    fn a_group_takes_turns_and_an_ordered_one_sticks_to_the_publisher() {
        let mut table = LiveTable::default();
        let tenant = TenantId::default();
        let any = filter("$share/g/x");
        let ordered = filter("$oshare/g/x");
        for slot in 0..4 {
            table.add(&tenant, &any, session(slot), options(QoS::AtMostOnce, 1));
            table.add(&tenant, &ordered, session(slot), options(QoS::AtMostOnce, 1));
        }
        let pick = |f: &SubscriptionFilter, publisher: &'static str| {
            let SubscriptionFilter::Shared(shared) = f else { panic!("not shared") };
            let publisher = ClientId::new(publisher).unwrap();
            table.pick(&tenant, shared, QoS::AtMostOnce, false, Some(&publisher)).unwrap().session.slot
        };
        let turns: Vec<u32> = (0..8).map(|_| pick(&any, "p")).collect();
        assert_eq!(turns, [0, 1, 2, 3, 0, 1, 2, 3]);
        assert!((0..8).map(|_| pick(&ordered, "p")).all(|slot| slot == pick(&ordered, "p")));
    }
}
