use crate::clients::Clients;
use base_types::{ClientId, NodeIncarnation, SharedFilter, SharedMode, SubscriptionFilter, SubscriptionOptions};
use bytestring::ByteString;
use dist_api::{GroupMatch, InboxMatch, Matches, Receiver, Route};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

/// Where one filter leads. Most filters lead to one inbox, so this takes 32 bytes.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    inboxes: Inboxes,
    more: Option<Box<More>>,
}

/// What few filters have.
#[derive(Debug, Default)]
struct More {
    nodes: BTreeSet<NodeIncarnation>,
    groups: BTreeMap<(SharedMode, ByteString), Group>,
}

impl Routes {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.inboxes, Inboxes::None) && self.more.is_none()
    }

    pub(crate) fn append_to(&self, clients: &Clients, into: &mut Matches) {
        self.inboxes.for_each(|inbox| into.inboxes.extend(inbox.found(clients)));
        let Some(more) = &self.more else { return };
        for node in &more.nodes {
            if !into.nodes.contains(node) {
                into.nodes.push(*node);
            }
        }
        into.groups.extend(more.groups.values().map(|group| group.found(clients)));
    }

    pub(crate) fn add(&mut self, route: &Route, clients: &mut Clients) {
        match (&route.filter, &route.receiver) {
            (SubscriptionFilter::Normal(_), Receiver::Inbox { client, incarnation, options, .. }) => {
                self.inboxes.add(client, *incarnation, *options, clients);
            }
            (SubscriptionFilter::Normal(_), Receiver::Node(run)) => {
                self.more.get_or_insert_default().nodes.insert(*run);
            }
            (SubscriptionFilter::Shared(shared), receiver) => {
                let groups = &mut self.more.get_or_insert_default().groups;
                let key = (shared.mode, shared.group.clone());
                let group = match groups.get_mut(&key) {
                    Some(group) => group,
                    None => {
                        // What came with a command would keep the command alive.
                        let filter = SubscriptionFilter::Shared(shared.clone()).detached();
                        let SubscriptionFilter::Shared(filter) = filter else { return };
                        groups.entry((filter.mode, filter.group.clone())).or_insert_with(|| Group::new(filter))
                    }
                };
                group.add(receiver, clients);
            }
        }
    }

    pub(crate) fn remove(&mut self, route: &Route, clients: &mut Clients) {
        match (&route.filter, &route.receiver) {
            (SubscriptionFilter::Normal(_), Receiver::Inbox { client, .. }) => self.inboxes.remove(client, clients),
            (SubscriptionFilter::Normal(_), Receiver::Node(run)) => {
                if let Some(more) = &mut self.more {
                    more.nodes.remove(run);
                }
            }
            (SubscriptionFilter::Shared(shared), receiver) => {
                let key = (shared.mode, shared.group.clone());
                if let Some(more) = &mut self.more
                    && let Some(group) = more.groups.get_mut(&key)
                {
                    group.remove(receiver, clients);
                    if group.is_empty() {
                        more.groups.remove(&key);
                    }
                }
            }
        }
        if self.more.as_ref().is_some_and(|more| more.nodes.is_empty() && more.groups.is_empty()) {
            self.more = None;
        }
    }
}

/// The members of a shared group, and the slices of them that matches share.
#[derive(Debug)]
struct Group {
    filter: Arc<SharedFilter>,
    nodes: BTreeSet<NodeIncarnation>,
    inboxes: Inboxes,
    /// Made by the first match after a change, so that a thousand members that join one after another don't build a thousand slices.
    found: OnceLock<GroupMatch>,
}

impl Group {
    fn new(filter: SharedFilter) -> Self {
        Self { filter: Arc::new(filter), nodes: BTreeSet::new(), inboxes: Inboxes::None, found: OnceLock::new() }
    }

    fn is_empty(&self) -> bool {
        self.nodes.is_empty() && matches!(self.inboxes, Inboxes::None)
    }

    fn found(&self, clients: &Clients) -> GroupMatch {
        let make = || {
            let mut inboxes = Vec::new();
            self.inboxes.for_each(|inbox| inboxes.extend(inbox.found(clients)));
            let nodes = self.nodes.iter().copied().collect();
            GroupMatch { filter: Arc::clone(&self.filter), nodes, inboxes: inboxes.into() }
        };
        self.found.get_or_init(make).clone()
    }

    fn add(&mut self, receiver: &Receiver, clients: &mut Clients) {
        self.found.take();
        match receiver {
            Receiver::Node(run) => {
                self.nodes.insert(*run);
            }
            Receiver::Inbox { client, incarnation, options, .. } => {
                self.inboxes.add(client, *incarnation, *options, clients);
            }
        }
    }

    fn remove(&mut self, receiver: &Receiver, clients: &mut Clients) {
        self.found.take();
        match receiver {
            Receiver::Node(run) => {
                self.nodes.remove(run);
            }
            Receiver::Inbox { client, .. } => self.inboxes.remove(client, clients),
        }
    }
}

/// Inboxes, each client once.
#[derive(Debug, Default)]
enum Inboxes {
    #[default]
    None,
    One(Inbox),
    /// By the client's number. Two at least.
    #[expect(clippy::box_collection, reason = "rare, and it would make the common case larger")]
    Many(Box<BTreeMap<u32, Inbox>>),
}

#[derive(Clone, Copy, Debug)]
struct Inbox {
    incarnation: u64,
    client: u32,
    options: SubscriptionOptions,
}

impl Inbox {
    fn found(&self, clients: &Clients) -> Option<InboxMatch> {
        let client = clients.get(self.client)?.clone();
        Some(InboxMatch { client, incarnation: self.incarnation, options: self.options })
    }
}

impl Inboxes {
    fn for_each(&self, mut visit: impl FnMut(&Inbox)) {
        match self {
            Self::None => {}
            Self::One(inbox) => visit(inbox),
            Self::Many(inboxes) => inboxes.values().for_each(visit),
        }
    }

    fn add(&mut self, client: &ClientId, incarnation: u64, options: SubscriptionOptions, clients: &mut Clients) {
        let inbox = Inbox { incarnation, client: clients.take(client), options };
        let replaced = match self {
            Self::None => {
                *self = Self::One(inbox);
                false
            }
            Self::One(one) if one.client == inbox.client => {
                *one = inbox;
                true
            }
            Self::One(one) => {
                *self = Self::Many(Box::new([*one, inbox].map(|inbox| (inbox.client, inbox)).into()));
                false
            }
            Self::Many(inboxes) => inboxes.insert(inbox.client, inbox).is_some(),
        };
        if replaced {
            clients.give_back(inbox.client);
        }
    }

    fn remove(&mut self, client: &ClientId, clients: &mut Clients) {
        let Some(number) = clients.find(client) else { return };
        let removed = match self {
            Self::One(one) if one.client == number => {
                *self = Self::None;
                true
            }
            Self::None | Self::One(_) => false,
            Self::Many(inboxes) => {
                let removed = inboxes.remove(&number).is_some();
                if inboxes.len() == 1
                    && let Some((_, last)) = inboxes.pop_first()
                {
                    *self = Self::One(last);
                }
                removed
            }
        };
        if removed {
            clients.give_back(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routes_of_a_filter_are_small() {
        assert_eq!(size_of::<Option<Routes>>(), 32);
    }
}
