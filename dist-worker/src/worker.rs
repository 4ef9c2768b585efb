use crate::command::{Command, Op, Reply};
use crate::index::RouteIndex;
use crate::schema::{self, KeyKind};
use async_trait::async_trait;
use base_kv_api::{KvError, MutateError, RangeClient, Visit};
use base_types::{Incarnation, NodeId, NodeIncarnation, TenantId, TopicName};
use bytes::Bytes;
use dist_api::{DistError, DistListener, DistService, InboxLives, Matches, Receiver, Route};
use futures_util::{StreamExt, stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The routes as the broker of a node uses them: changes go through the range, matches come from this node's index.
#[derive(Clone)]
pub struct DistWorker {
    range: Arc<dyn RangeClient>,
    index: Arc<RouteIndex>,
}

/// A change is tried again for so long when nothing of it was proposed.
const DEADLINE: Duration = Duration::from_secs(5);
const BACKOFF_MIN: Duration = Duration::from_millis(2);
const BACKOFF_MAX: Duration = Duration::from_millis(200);
/// Commands of one change that are on their way together.
const COMMANDS_AT_ONCE: usize = 16;
/// Keys that a sweep looks at in one read.
const PAGE: usize = 1024;

impl DistWorker {
    /// The client of `range`, whose coprocessor keeps `index` on this node.
    #[must_use]
    pub fn new(range: Arc<dyn RangeClient>, index: Arc<RouteIndex>) -> Self {
        Self { range, index }
    }

    /// Says who is told of routes that were lost. The first one stays.
    pub fn listen(&self, listener: Arc<dyn DistListener>) {
        self.index.listen(listener);
    }

    /// Removes the routes to the runs of a node for which `dead` says so.
    async fn forget(
        &self,
        node: NodeId,
        dead: impl Fn(Incarnation) -> bool + Copy + Send + Sync,
    ) -> Result<u64, DistError> {
        // What those runs wrote must be in the view before it is looked at.
        let first = KeyKind::Route.keys().start;
        patiently(|| self.range.linearize(&first)).await?;
        let is_dead = |run: &NodeIncarnation| run.node == node && dead(run.incarnation);
        if !self.index.runs().iter().any(|(run, _)| is_dead(run)) {
            return Ok(0);
        }
        self.remove_where(Op::Forget, |route| matches!(&route.receiver, Receiver::Node(run) if is_dead(run))).await
    }

    async fn remove_where(&self, op: Op, mut unwanted: impl FnMut(&Route) -> bool + Send) -> Result<u64, DistError> {
        let mut removed = 0;
        let mut from = Some(KeyKind::Route.keys().start.to_vec());
        while let Some(start) = from {
            let (page, next) = self.page(&start, &mut unwanted)?;
            removed += page.len() as u64;
            self.change(op, &page).await?;
            tokio::task::yield_now().await;
            from = next;
        }
        Ok(removed)
    }

    /// Those of the routes that are neither there as they are nor outranked by what is.
    fn missing(&self, mut routes: Vec<Route>) -> Result<Vec<Route>, DistError> {
        let mut failed = None;
        let read = self.range.read(&KeyKind::Route.keys().start, &mut |keys| {
            routes.retain(|route| {
                let mut key = Vec::new();
                schema::encode_key(route, &mut key);
                match keys.get(&key) {
                    Ok(stored) => !stored.is_some_and(|value| {
                        schema::decode(key.into(), value).is_ok_and(|stored| stored == *route || stored.outranks(route))
                    }),
                    Err(error) => {
                        failed = Some(error);
                        false
                    }
                }
            });
            failed.take().map_or(Ok(()), Err)
        });
        read.map_err(unreadable)?;
        Ok(routes)
    }

    /// The unwanted among the next routes, to be removed whoever set them, and where to go on.
    fn page(
        &self,
        start: &[u8],
        unwanted: &mut (dyn FnMut(&Route) -> bool + Send),
    ) -> Result<(Vec<Route>, Option<Vec<u8>>), DistError> {
        let (mut seen, mut next) = (0, None);
        let mut found = Vec::new();
        let end = KeyKind::Route.keys().end;
        let read = self.range.read(start, &mut |keys| {
            keys.scan(start..&end, &mut |key, value| {
                if seen == PAGE {
                    next = Some(key.to_vec());
                    return Visit::Enough;
                }
                seen += 1;
                match schema::decode(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)) {
                    Ok(route) if unwanted(&route) => found.push(route.of_any_owner()),
                    Ok(_) => {}
                    Err(error) => tracing::error!(%error, "a stored route can't be read"),
                }
                Visit::More
            })
        });
        read.map_err(unreadable)?;
        Ok((found, next))
    }

    async fn change(&self, op: Op, routes: &[Route]) -> Result<(), DistError> {
        let mut replies = stream::iter(Command::encode(op, routes))
            .map(|(key, command)| self.propose(key, command))
            .buffered(COMMANDS_AT_ONCE);
        while let Some(reply) = replies.next().await {
            if *reply? != [Reply::Done as u8] {
                return Err(DistError::Unavailable { cause: "the replicas don't understand the command".to_owned() });
            }
        }
        Ok(())
    }

    async fn propose(&self, key: Vec<u8>, command: Bytes) -> Result<Bytes, DistError> {
        patiently(|| self.range.mutate(&key, command.clone())).await
    }
}

fn unreadable(KvError { doing, cause }: KvError) -> DistError {
    DistError::Unavailable { cause: format!("{doing}: {cause}") }
}

/// Tries until the deadline. Our commands may be applied twice without harm, so one with an unknown outcome is tried again too.
async fn patiently<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, DistError>
where
    F: Future<Output = Result<T, MutateError>>,
{
    let deadline = Instant::now() + DEADLINE;
    let mut backoff = BACKOFF_MIN;
    let mut unknown = false;
    loop {
        let error = match attempt().await {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        unknown |= error == MutateError::Unknown;
        let again = Instant::now() + backoff;
        if !(error.is_retryable() || error == MutateError::Unknown) || again > deadline {
            let cause = error.to_string();
            return Err(if unknown { DistError::Unknown } else { DistError::Unavailable { cause } });
        }
        sleep_until(again).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

#[async_trait]
impl DistService for DistWorker {
    async fn add(&self, routes: Vec<Route>) -> Result<(), DistError> {
        self.change(Op::Add, &routes).await
    }

    async fn ensure(&self, routes: Vec<Route>) -> Result<u64, DistError> {
        let missing = self.missing(routes)?;
        self.change(Op::Add, &missing).await?;
        Ok(missing.len() as u64)
    }

    async fn remove(&self, routes: Vec<Route>) -> Result<(), DistError> {
        self.change(Op::Remove, &routes).await
    }

    async fn forget_runs_before(&self, current: NodeIncarnation) -> Result<(), DistError> {
        // A later run than `current` may be known elsewhere already.
        self.forget(current.node, |incarnation| incarnation < current.incarnation).await.map(drop)
    }

    async fn forget_run(&self, run: NodeIncarnation) -> Result<u64, DistError> {
        self.forget(run.node, |incarnation| incarnation <= run.incarnation).await
    }

    fn runs(&self) -> Vec<(NodeIncarnation, usize)> {
        self.index.runs()
    }

    fn leads(&self) -> bool {
        self.index.leads()
    }

    async fn sweep(&self, lives: &InboxLives) -> Result<u64, DistError> {
        self.remove_where(Op::Remove, |route| match &route.receiver {
            Receiver::Node(_) => false,
            Receiver::Inbox { client, incarnation, .. } => !lives(&route.tenant, client, *incarnation),
        })
        .await
    }

    fn matches(&self, tenant: &TenantId, topic: &TopicName, into: &mut Matches) {
        self.index.matches(tenant, topic, into);
    }

    fn route_count(&self) -> usize {
        self.index.route_count()
    }
}

#[cfg(test)]
#[path = "worker_test.rs"]
mod worker_test;
