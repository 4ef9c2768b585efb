use crate::{
    Attach, Attached, Commit, Detach, Entry, InboxId, InboxStats, InboxSummary, Insert, InsertOutcome, PendingWill,
    SessionVersion,
};
use async_trait::async_trait;
use base_types::{ClientId, NodeIncarnation, SubscriptionFilter, SubscriptionOptions, TenantId};
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;

/// Why an operation on an inbox failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InboxError {
    /// Another connection owns it now, or it is gone: this one must end.
    #[error("the session is owned by another connection")]
    Fenced,
    /// Nothing was changed; trying again may help.
    #[error("the sessions are unavailable: {cause}")]
    Unavailable {
        /// What stands in the way.
        cause: String,
    },
    /// Whether it was changed is not known.
    #[error("the outcome of the change is unknown")]
    Unknown,
}

/// Why a session was not attached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The inbox belongs to somebody else who used the same client id.
    #[error("the session belongs to another user")]
    NotOwner,
    /// As any operation.
    #[error(transparent)]
    Inbox(#[from] InboxError),
}

/// Some of the subscriptions of all inboxes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionPage {
    /// Whose, of which life, and what.
    pub subscriptions: Vec<(InboxId, u64, SubscriptionFilter, SubscriptionOptions)>,
    /// What to ask for `after` to get the next page; `None` when there is none.
    pub next: Option<Bytes>,
}

/// The future of a change. The change is in the queue of its range as soon as the call returned, in the order of the calls.
pub type InboxFuture<T> = Pin<Box<dyn Future<Output = Result<T, InboxError>> + Send>>;

/// What the broker learns from the inboxes. Every node holds a replica of them all; each event is told on the one node that it concerns.
/// Called from the apply path: must return at once.
pub trait InboxListener: Send + Sync + 'static {
    /// Entries were queued for an inbox that is attached on this node.
    fn queued(&self, inbox: &InboxId, version: SessionVersion);
    /// A will is due. Told on the node that leads. The broker publishes it with [`crate::Origin::Will`]; told again, by a later leader too,
    /// until it is settled.
    fn will_due(&self, inbox: &InboxId, version: SessionVersion, will: PendingWill);
    /// An inbox is gone: expired, or discarded by a clean start. Its routes lead nowhere now: the broker removes them, and then calls
    /// [`InboxService::settle_ended`]. Told on the node that leads; one with subscriptions again, by a later leader too, until it is settled.
    fn ended(&self, inbox: &InboxId, incarnation: u64, subscriptions: Vec<SubscriptionFilter>);
    /// Inboxes of another lineage of the range came in, whose routes may be missing. Told on the node that leads, often: the broker sees to
    /// the routes of all subscriptions ([`InboxService::subscriptions`]) once it is quiet.
    fn adopted(&self) {}
    /// An inbox that was attached on this node is not any more: another connection took it over, or the node was taken for dead
    /// ([`InboxService::detach_node`]). The connection that holds `version` must end with Session taken over. It may be told before the
    /// attach of that version is answered: see [`InboxService::owns`].
    fn fenced(&self, inbox: &InboxId, version: SessionVersion);
}

/// Persistent sessions, as a node sees them.
#[async_trait]
pub trait InboxService: Send + Sync + 'static {
    /// Takes over or makes an inbox. Without an inbox, an expiry or a will it commits nothing, but waits until this node knows what was
    /// attached anywhere before the call.
    ///
    /// An attach whose outcome stays unknown is undone as soon as that can be done: no will fires, and an inbox that it made is gone. It may be
    /// called again at once.
    ///
    /// # Errors
    /// When another user owns it, or the range refuses or does not answer: without a leader within [`InboxError::Unavailable`]'s deadline.
    async fn attach(&self, attach: Attach) -> Result<Attached, AttachError>;

    /// Ends an ownership. Without expiry the inbox is gone after it.
    ///
    /// # Errors
    /// When fenced, or the range refuses or does not answer.
    async fn detach(&self, detach: Detach) -> Result<(), InboxError>;

    /// Adds or replaces subscriptions; tells for each whether it existed.
    ///
    /// # Errors
    /// When fenced, or the range refuses or does not answer.
    async fn subscribe(
        &self,
        inbox: &InboxId,
        version: SessionVersion,
        subscriptions: Vec<(SubscriptionFilter, SubscriptionOptions)>,
    ) -> Result<Vec<bool>, InboxError>;

    /// Removes subscriptions; tells for each whether it existed.
    ///
    /// # Errors
    /// When fenced, or the range refuses or does not answer.
    async fn unsubscribe(
        &self,
        inbox: &InboxId,
        version: SessionVersion,
        filters: Vec<SubscriptionFilter>,
    ) -> Result<Vec<bool>, InboxError>;

    /// Queues a message; an outcome for each receiver, in their order. Without receivers, a single [`InsertOutcome::Repeated`] tells
    /// that the origin was settled before.
    ///
    /// Not tried again here, because a later insert of the same publisher might overtake it. After [`InboxError::Unknown`] it may have been
    /// queued: a QoS 1 publisher gets no PUBACK, sends again, and its receivers may get the message twice, which QoS 1 allows (5.0 §4.3.2).
    /// A QoS 2 publisher with an inbox sends the same packet id again, and [`Origin::Inbound`](crate::Origin::Inbound) makes that a repetition.
    fn insert(&self, insert: Insert) -> InboxFuture<Vec<InsertOutcome>>;

    /// The entries from `from_seq` on that are queued on this node: at most `max` entries and about `max_bytes` bytes, at least one if
    /// there is any. Entries that are done, or in the PUBREL phase, are left out, and those that expired before they may have been
    /// sent: they are removed and counted. Local and cheap. After a fetch, [`InboxListener::queued`] tells once about what comes next.
    ///
    /// An owner that another node has fenced may fetch, and send, until the replica of this node applies that: as long as replication lags,
    /// and as long as it stands still on a node that is cut off. It can commit nothing any more, so all of it is sent again by the new owner.
    ///
    /// # Errors
    /// When fenced, or the engine fails.
    fn fetch(
        &self,
        inbox: &InboxId,
        version: SessionVersion,
        from_seq: u64,
        max: usize,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, InboxError>;

    /// Makes durable what happened on the connection.
    fn commit(&self, inbox: &InboxId, version: SessionVersion, commit: Commit) -> InboxFuture<()>;

    /// The life of the inbox of a client, if it has one. As this node knows it: it may lag.
    fn incarnation(&self, inbox: &InboxId) -> Option<u64>;

    /// Whether this life of an inbox may live, so that a route to it may be of use. Never no for one that lives: what this node has not
    /// heard of yet may live.
    fn may_live(&self, inbox: &InboxId, incarnation: u64) -> bool;

    /// Whether `version` owns its inbox, as this node knows it. Asked once when a connection can hear [`InboxListener::fenced`]: it may have been
    /// told before. Cheap.
    fn owns(&self, version: SessionVersion) -> bool;

    /// The run of the node that holds the connection of an inbox, as far as this node knows; `None` when it has none. Local and cheap.
    fn holder(&self, inbox: &InboxId) -> Option<NodeIncarnation>;

    /// Detaches all inboxes whose owner is a run of `current.node` before `current`: what a crash of that node, this one or another, left
    /// behind. Answers how many.
    ///
    /// # Errors
    /// When the range refuses or does not answer.
    async fn detach_runs_before(&self, current: NodeIncarnation) -> Result<u64, InboxError>;

    /// Detaches all inboxes whose owner is `run`, which is dead, or a run of its node before it; answers how many. Their wills begin their
    /// delays, their expiries count from now. Any node may call it, also again: an attach that was on its way when the run died may come in
    /// later, see [`InboxService::holders`]. A run that lives after all is told by [`InboxListener::fenced`] for each of its sessions.
    ///
    /// # Errors
    /// When the range refuses or does not answer. What was detached by then stays detached.
    async fn detach_node(&self, run: NodeIncarnation) -> Result<u64, InboxError>;

    /// The runs that own inboxes, and how many each, in order. Local and cheap.
    fn holders(&self) -> Vec<(NodeIncarnation, u64)>;

    /// Some of the subscriptions of all inboxes, behind `after`, and where to go on: for making sure that each has its route. As this node knows
    /// them; they may be gone by now.
    ///
    /// # Errors
    /// When the engine fails.
    fn subscriptions(&self, after: Option<Bytes>, max: usize) -> Result<SubscriptionPage, InboxError>;

    /// No route leads to these lives of inboxes any more, of which [`InboxListener::ended`] told: it need not be told again.
    fn settle_ended(&self, incarnations: Vec<u64>) -> InboxFuture<()>;

    /// Whether the replica on this node leads its range: one node of the cluster tells wills and does the housekeeping.
    fn leads(&self) -> bool;

    /// Figures for metrics.
    fn stats(&self) -> InboxStats;

    /// How many inboxes of a tenant this node knows: what a limit on them compares with. Cheap.
    fn count_of(&self, tenant: &TenantId) -> u64 {
        let _ = tenant;
        self.stats().inboxes
    }

    /// The inboxes of a tenant for operators, by client id, at most `max` of them, those behind `after`.
    fn list(&self, tenant: &TenantId, after: Option<&ClientId>, max: usize) -> Vec<InboxSummary> {
        let _ = (tenant, after, max);
        Vec::new()
    }
}
