//! The port of retained messages: the last one of each topic (MQTT 5.0 §3.3.1.3).

use async_trait::async_trait;
use base_types::{Message, TenantId, TopicFilter, TopicName};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Why a retained message could not be set, cleared or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetainError {
    /// Nothing was changed; trying again may help.
    #[error("the retained messages are unavailable: {cause}")]
    Unavailable {
        /// What stands in the way.
        cause: String,
    },
    /// Whether it was changed is not known.
    #[error("the outcome of the change is unknown")]
    Unknown,
    /// The tenant has as many retained topics as it may.
    #[error("the limit of {limit} retained topics is reached")]
    TooMany {
        /// How many are allowed.
        limit: u64,
    },
}

/// Some of the retained messages that match a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The messages, in the order of topics.
    pub messages: Vec<Arc<Message>>,
    /// What to ask for `after` to get the next page; `None` when there is none.
    pub next: Option<TopicName>,
}

/// The future of a change. The change is in the queue of its range as soon as the call returned, in the order of the calls.
pub type RetainFuture = Pin<Box<dyn Future<Output = Result<(), RetainError>> + Send>>;

/// The retained messages, as a node sees them.
#[async_trait]
pub trait RetainService: Send + Sync + 'static {
    /// Sets the retained message of its topic, or clears it when the payload is empty [MQTT-3.3.1-6]. Ready when committed.
    fn retain(&self, tenant: &TenantId, message: Arc<Message>) -> RetainFuture;

    /// Waits until the view of this node holds every change that was acknowledged anywhere before the call: ask it before the first page
    /// for a new subscription, or what was just replaced elsewhere may be sent. Cheap: calls that come together share one round.
    ///
    /// # Errors
    /// When no leader confirms in time: a few seconds at most.
    async fn fresh(&self) -> Result<(), RetainError>;

    /// The retained messages that match, in a stable order of topics, unexpired at the time of the call: at most `max` that come
    /// after `after`. Fewer than `max` means that there are no more.
    ///
    /// # Errors
    /// When the engine fails.
    fn matches(
        &self,
        tenant: &TenantId,
        filter: &TopicFilter,
        after: Option<&TopicName>,
        max: usize,
    ) -> Result<Vec<Arc<Message>>, RetainError>;

    /// As [`RetainService::matches`], but bounded in what one call looks at and not only in what it finds: for a thread that others
    /// wait for. A page may be empty and have a next one.
    ///
    /// # Errors
    /// When the engine fails.
    fn page(
        &self,
        tenant: &TenantId,
        filter: &TopicFilter,
        after: Option<&TopicName>,
        max: usize,
    ) -> Result<Page, RetainError> {
        let messages = self.matches(tenant, filter, after, max)?;
        let full = messages.len() == max;
        let next = messages.last().filter(|_| full).map(|last| last.topic.clone());
        Ok(Page { messages, next })
    }

    /// How many topics have a retained message, on all nodes together: each holds them all.
    fn topic_count(&self) -> usize;

    /// Whether the replica on this node leads its range: one node of the cluster does the housekeeping.
    fn leads(&self) -> bool;

    /// Removes what has expired. The leader's housekeeping calls it now and then; readers never see expired ones anyway.
    ///
    /// # Errors
    /// When the range refuses or does not answer.
    async fn collect_expired(&self) -> Result<u64, RetainError>;
}
