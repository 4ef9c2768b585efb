use crate::{
    Attach, Attached, Commit, Detach, Entry, InboxId, InboxStats, InboxSummary, Insert, InsertOutcome, PendingWill,
    SessionVersion,
};
use async_trait::async_trait;
use base_types::{ClientId, NodeIncarnation, SubscriptionFilter, SubscriptionOptions, TenantId};
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

/// The future of a change. The change is in the queue of its range as soon as the call returned, in the order of the calls.
pub type InboxFuture<T> = Pin<Box<dyn Future<Output = Result<T, InboxError>> + Send>>;

/// What the broker learns from the inboxes of this node. Called from the apply path: must return at once.
pub trait InboxListener: Send + Sync + 'static {
    /// Entries were queued for an attached inbox of this node.
    fn queued(&self, inbox: &InboxId, version: SessionVersion);
    /// A will is due. The broker publishes it with [`crate::Origin::Will`]; told again, by a later leader too, until it is settled.
    fn will_due(&self, inbox: &InboxId, version: SessionVersion, will: PendingWill);
    /// An inbox is gone: expired, or discarded by a clean start. Its routes lead nowhere now.
    fn ended(&self, inbox: &InboxId, incarnation: u64, subscriptions: Vec<SubscriptionFilter>);
    /// An attached inbox was taken over: the connection that holds `version` must end with Session taken over.
    fn fenced(&self, inbox: &InboxId, version: SessionVersion);
}

/// Persistent sessions, as a node sees them.
#[async_trait]
pub trait InboxService: Send + Sync + 'static {
    /// Takes over or makes an inbox. Without an inbox, an expiry or a will it answers at once and commits nothing.
    ///
    /// # Errors
    /// When another user owns it, or the range refuses or does not answer.
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
    fn insert(&self, insert: Insert) -> InboxFuture<Vec<InsertOutcome>>;

    /// The entries from `from_seq` on that are queued on this node: at most `max` entries and about `max_bytes` bytes, at least one if
    /// there is any. Entries that are done, or in the PUBREL phase, are left out, and those that expired before they may have been
    /// sent: they are removed and counted. Local and cheap. After a fetch, [`InboxListener::queued`] tells once about what comes next.
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

    /// The life of the inbox of a client, if it has one: whether a route still leads somewhere.
    fn incarnation(&self, inbox: &InboxId) -> Option<u64>;

    /// Detaches all inboxes whose owner is another run of `current.node`: what a crash of this node left behind.
    ///
    /// # Errors
    /// When the range refuses or does not answer.
    async fn detach_runs_before(&self, current: NodeIncarnation) -> Result<u64, InboxError>;

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
