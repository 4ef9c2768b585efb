use crate::command::{Command, Reply};
use crate::coproc::RetainFigures;
use crate::schema::{self, KeyKind};
use crate::walk::Walk;
use async_trait::async_trait;
use base_kv_api::{KvError, MutateError, RangeClient, Visit};
use base_types::{Clock, Message, TenantId, TopicFilter, TopicName};
use bytes::{Bytes, BytesMut};
use retain_api::{Page, RetainError, RetainFuture, RetainService};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// The settings of the retained messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetainConfig {
    /// How many topics of one tenant may have a retained message. More are refused. Default: no limit.
    pub topics_max: Option<u64>,
}

/// The retained messages as the broker of a node uses them: changes go through the range, reads come from this node's replica.
#[derive(Clone)]
pub struct RetainStore {
    range: Arc<dyn RangeClient>,
    figures: Arc<RetainFigures>,
    clock: Arc<dyn Clock>,
    config: RetainConfig,
}

/// So many keys are looked at for one page: a few milliseconds.
const LOOKS_MAX: usize = 5_000;
/// So many messages go in one purge.
const PURGE_MAX: u64 = 1000;
/// A view that is to be up to date is waited for so long, also while there is no leader.
const FRESH_WAIT: Duration = Duration::from_secs(5);
const FRESH_AGAIN: Duration = Duration::from_millis(50);

impl RetainStore {
    /// The client of `range`, whose coprocessor keeps `figures` on this node.
    #[must_use]
    pub fn new(
        range: Arc<dyn RangeClient>,
        figures: Arc<RetainFigures>,
        clock: Arc<dyn Clock>,
        config: RetainConfig,
    ) -> Self {
        Self { range, figures, clock, config }
    }
}

#[async_trait]
impl RetainService for RetainStore {
    // What is refused is not tried again here: it would overtake a later change of the same topic.
    fn retain(&self, tenant: &TenantId, message: Arc<Message>) -> RetainFuture {
        let topics_max = self.config.topics_max;
        let key = schema::retained_key(tenant, message.topic.as_str());
        let change = self.range.mutate(&key, Command::encode_retain(tenant, &message, topics_max));
        Box::pin(async move {
            match reply(change.await)? {
                Reply::Done => Ok(()),
                Reply::TooMany => Err(RetainError::TooMany { limit: topics_max.unwrap_or(u64::MAX) }),
                Reply::NotUnderstood | Reply::Purged(_) => Err(not_understood()),
            }
        })
    }

    async fn fresh(&self) -> Result<(), RetainError> {
        let first = schema::keys(KeyKind::Retained).start;
        let deadline = Instant::now() + FRESH_WAIT;
        loop {
            let result = timeout_at(deadline, self.range.linearize(&first)).await;
            let cause = match result {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if error.is_retryable() && Instant::now() + FRESH_AGAIN < deadline => {
                    sleep(FRESH_AGAIN).await;
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no leader confirms that this node is up to date".to_owned(),
            };
            return Err(RetainError::Unavailable { cause });
        }
    }

    fn matches(
        &self,
        tenant: &TenantId,
        filter: &TopicFilter,
        after: Option<&TopicName>,
        max: usize,
    ) -> Result<Vec<Arc<Message>>, RetainError> {
        let Page { mut messages, mut next } = self.page(tenant, filter, after, max)?;
        while messages.len() < max
            && let Some(after) = next
        {
            let page = self.page(tenant, filter, Some(&after), max - messages.len())?;
            messages.extend(page.messages);
            next = page.next;
        }
        Ok(messages)
    }

    fn page(
        &self,
        tenant: &TenantId,
        filter: &TopicFilter,
        after: Option<&TopicName>,
        max: usize,
    ) -> Result<Page, RetainError> {
        let mut messages = Vec::new();
        if max == 0 || self.figures.topics() == 0 {
            return Ok(Page::default());
        }
        let now = self.clock.wall();
        let mut tired = None;
        let mut copies = BytesMut::new();
        let read = self.range.read(&schema::tenant_prefix(tenant), &mut |keys| {
            tired = Walk::new(tenant, filter, after).run(keys, LOOKS_MAX, &mut |_, value| {
                // Messages of a page share buffers: one allocation for up to 64 of them.
                if copies.capacity() < value.len() {
                    copies.reserve(value.len() * (1 + messages.len().min(63)));
                }
                copies.extend_from_slice(value);
                match Message::decode(copies.split().freeze()) {
                    Ok(message) if message.is_expired(now) => {}
                    Ok(message) => messages.push(Arc::new(message)),
                    Err(error) => tracing::error!(%error, "a retained message can't be read"),
                }
                if messages.len() < max { Visit::More } else { Visit::Enough }
            })?;
            Ok(())
        });
        if let Err(KvError { doing, cause }) = read {
            return Err(RetainError::Unavailable { cause: format!("{doing}: {cause}") });
        }
        let next = match (messages.last(), tired) {
            (Some(last), _) if messages.len() == max => Some(last.topic.clone()),
            (_, Some(key)) => Some(schema::topic(&key).ok_or_else(|| RetainError::Unavailable {
                cause: "the key of a retained message can't be read".to_owned(),
            })?),
            (_, None) => None,
        };
        Ok(Page { messages, next })
    }

    fn topic_count(&self) -> usize {
        self.figures.topics()
    }

    fn leads(&self) -> bool {
        self.figures.leads()
    }

    async fn collect_expired(&self) -> Result<u64, RetainError> {
        let mut purged = 0;
        loop {
            let key = schema::keys(KeyKind::Expiry).start;
            match reply(self.range.mutate(&key, Command::encode_purge(PURGE_MAX)).await)? {
                Reply::Purged(count) => {
                    purged += count;
                    if count < PURGE_MAX {
                        return Ok(purged);
                    }
                }
                Reply::Done | Reply::TooMany | Reply::NotUnderstood => return Err(not_understood()),
            }
        }
    }
}

fn reply(outcome: Result<Bytes, MutateError>) -> Result<Reply, RetainError> {
    match outcome {
        Ok(bytes) => Reply::decode(bytes).map_err(|_| not_understood()),
        Err(MutateError::Unknown) => Err(RetainError::Unknown),
        Err(error) => Err(RetainError::Unavailable { cause: error.to_string() }),
    }
}

fn not_understood() -> RetainError {
    RetainError::Unavailable { cause: "the replicas don't understand the command".to_owned() }
}

#[cfg(test)]
#[path = "store_test.rs"]
mod store_test;
