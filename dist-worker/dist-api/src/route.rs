use base_types::{ClientId, NodeIncarnation, SharedFilter, SubscriptionFilter, SubscriptionOptions, TenantId};
use std::sync::Arc;

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Receiver {
    /// A node with at least one live session for the filter. The node itself knows which ones. Gone when that run of it is gone.
    Node(NodeIncarnation),
    /// A persistent session. The options stand in the route so that a match needs no other look-up.
    Inbox {
        /// Whose inbox.
        client: ClientId,
        /// Which life of the inbox: a route of an earlier one leads nowhere.
        incarnation: u64,
        /// Which ownership of that life set it: the attach of the session's version. A change under an earlier one than the stored
        /// route's does nothing: it was on its way when the session moved, and what was subscribed since stays.
        attach: u64,
        /// What was subscribed with.
        options: SubscriptionOptions,
    },
}

impl Receiver {
    /// In place of an attach: removes the route of an inbox whoever set it. Not for adding, which nobody could undo under an ownership.
    pub const ANY_OWNER: u64 = u64::MAX;
}

/// One replicated route. (tenant, filter, receiver: the run of a node, or the client of an inbox) is its key: adding it again replaces the
/// rest, unless what is stored goes before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Whose.
    pub tenant: TenantId,
    /// What was subscribed to.
    pub filter: SubscriptionFilter,
    /// Where it leads.
    pub receiver: Receiver,
}

impl Route {
    /// Whether this route goes before a change of the same key: it is of a later life of the inbox, or of a later ownership in the same one.
    #[must_use]
    pub fn outranks(&self, change: &Self) -> bool {
        self.rank() > change.rank()
    }

    fn rank(&self) -> (u64, u64) {
        match self.receiver {
            Receiver::Node(_) => (0, 0),
            Receiver::Inbox { incarnation, attach, .. } => (incarnation, attach),
        }
    }

    /// The same route, for removing it whoever set it.
    #[must_use]
    pub fn of_any_owner(mut self) -> Self {
        if let Receiver::Inbox { attach, .. } = &mut self.receiver {
            *attach = Receiver::ANY_OWNER;
        }
        self
    }
}

/// A persistent session that a message goes to, by one subscription. The same inbox can stand in a [`Matches`] more than once when
/// its filters overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxMatch {
    /// Whose inbox.
    pub client: ClientId,
    /// Which life of it.
    pub incarnation: u64,
    /// The subscription's options.
    pub options: SubscriptionOptions,
}

/// A shared group that a message goes to: one of its members gets it.
#[derive(Clone, Debug)]
pub struct GroupMatch {
    /// The share.
    pub filter: Arc<SharedFilter>,
    /// Runs of nodes that have live members, each once; of this node none but the present run. As for [`Matches::nodes`], some may be dead.
    pub nodes: Arc<[NodeIncarnation]>,
    /// Members that are persistent sessions.
    pub inboxes: Arc<[InboxMatch]>,
}

/// What a topic is routed to, beside the live sessions of this node under normal filters, which this node knows itself.
#[derive(Clone, Debug, Default)]
pub struct Matches {
    /// Runs of other nodes with live sessions under normal filters, each once; no run of this node. A run that died stands here until its
    /// routes are removed ([`crate::DistService::forget_run`]): whoever sends knows better who lives. The receiver looks up its sessions, and
    /// the QoS of each, itself.
    pub nodes: Vec<NodeIncarnation>,
    /// Persistent sessions under normal filters.
    pub inboxes: Vec<InboxMatch>,
    /// Shared groups with at least one member that is not a live session of this node, and groups whose only members are live
    /// sessions of this node too: a group is complete here.
    pub groups: Vec<GroupMatch>,
}

impl Matches {
    /// Makes it empty and keeps its memory.
    pub fn clear(&mut self) {
        self.nodes.clear();
        self.inboxes.clear();
        self.groups.clear();
    }

    /// Whether nothing matched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.inboxes.is_empty() && self.groups.is_empty()
    }
}
