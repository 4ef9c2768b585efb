use crate::{Matches, Route};
use async_trait::async_trait;
use base_types::{ClientId, NodeIncarnation, TenantId, TopicName};

/// Why routes could not be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DistError {
    /// Nothing was changed; trying again may help.
    #[error("the routes are unavailable: {cause}")]
    Unavailable {
        /// What stands in the way.
        cause: String,
    },
    /// Whether it was changed is not known.
    #[error("the outcome of the change is unknown")]
    Unknown,
}

/// Whether an inbox may live: (tenant, client, incarnation). It must not say no of one that this node has not heard of yet.
pub type InboxLives = dyn Fn(&TenantId, &ClientId, u64) -> bool + Send + Sync;

/// What the broker learns from the routes. Called from the apply path: must return at once.
pub trait DistListener: Send + Sync + 'static {
    /// Routes to this run of this node were removed by somebody who took it for dead, or may have been: whatever its live subscriptions need
    /// is to be added again. Told after each such removal, so what is added meanwhile may have to be added once more.
    fn own_routes_lost(&self);
}

/// The subscription routes, as a node sees them.
#[async_trait]
pub trait DistService: Send + Sync + 'static {
    /// Adds routes. Returns when they are committed and this node's index has them. A stored route that goes before one of them
    /// ([`Route::outranks`]) stays as it is: a session that was taken over can't change what its new owner subscribed.
    ///
    /// # Errors
    /// When the range refuses or does not answer.
    async fn add(&self, routes: Vec<Route>) -> Result<(), DistError>;

    /// As [`DistService::add`], but proposes only those that are not there, as this node knows it; answers how many that were. For seeing to it
    /// that what is subscribed is routed.
    ///
    /// # Errors
    /// When the range fails, refuses or does not answer.
    async fn ensure(&self, routes: Vec<Route>) -> Result<u64, DistError>;

    /// Removes routes (the options of a receiver don't matter). What is not there is fine, and what goes before stays, as for
    /// [`DistService::add`]; [`crate::Receiver::ANY_OWNER`] removes whatever is there of that life of the inbox.
    ///
    /// # Errors
    /// When the range refuses or does not answer.
    async fn remove(&self, routes: Vec<Route>) -> Result<(), DistError>;

    /// Removes all routes that lead to runs of a node, this one or another, before `current`: what a crash of the node left behind.
    ///
    /// # Errors
    /// When the range refuses or does not answer.
    async fn forget_runs_before(&self, current: NodeIncarnation) -> Result<(), DistError>;

    /// Removes all routes that lead to `run`, which is dead, or to runs of its node before it; answers how many. Any node may call it, also
    /// again: a change that was on its way when the run died may come in later, see [`DistService::runs`]. A run that lives after all is told
    /// by [`DistListener::own_routes_lost`].
    ///
    /// # Errors
    /// When the range refuses or does not answer. What was removed by then stays removed.
    async fn forget_run(&self, run: NodeIncarnation) -> Result<u64, DistError>;

    /// The runs that routes lead to, and how many for each, in order. Local and cheap.
    fn runs(&self) -> Vec<(NodeIncarnation, usize)>;

    /// Whether the replica on this node leads its range: one node of the cluster does the housekeeping.
    fn leads(&self) -> bool;

    /// Removes the routes to inboxes of which `lives(tenant, client, incarnation)` says that they are gone; answers how many. Goes over all
    /// routes in pages, and yields between them: for housekeeping.
    ///
    /// # Errors
    /// When the range fails, refuses or does not answer. What was removed by then stays removed.
    async fn sweep(&self, lives: &InboxLives) -> Result<u64, DistError>;

    /// Appends what `topic` is routed to. No I/O; takes well under a microsecond when little matches.
    fn matches(&self, tenant: &TenantId, topic: &TopicName, into: &mut Matches);

    /// How many routes the index of this node holds.
    fn route_count(&self) -> usize;
}
