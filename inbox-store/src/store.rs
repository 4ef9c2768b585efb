use crate::command;
use crate::coproc::InboxHandle;
use crate::corrupt;
use crate::reply;
use crate::schema::body::{self, BodyId};
use crate::schema::entry::{self, EntryBody, EntryHead};
use crate::schema::{KeyKind, incarnation_of, subscription};
use crate::tail::Page;
use crate::timer::{ABANDONED_MAX, Abandoned, ExpiredEntries, TimerTask};
use async_trait::async_trait;
use base_kv_api::{KvError, KvRead, MutateError, RangeClient, Visit};
use base_types::{
    ClientId, Clock, Incarnation, Message, NodeIncarnation, SubscriptionFilter, SubscriptionOptions, TenantId, WallMs,
};
use bytes::Bytes;
use inbox_api::{
    Attach, AttachError, Attached, Commit, Detach, Entry, InboxError, InboxFuture, InboxId, InboxListener,
    InboxService, InboxStats, InboxSummary, Insert, InsertOutcome, Origin, SessionVersion, SubscriptionPage,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

/// Where commands go. There is one range of inboxes; incarnations are its own, so it does not matter which key is named.
pub(crate) const ROUTE: &[u8] = &[1];

/// Entries that one fetch looks at beyond those that it was asked for, because the others have expired.
const EXPIRED_PER_FETCH: usize = 4096;
/// Inboxes that one command detaches.
const DETACHED_AT_ONCE: u64 = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Persistent sessions over a range. Dropping it stops its timer.
pub struct InboxStore {
    range: Arc<dyn RangeClient>,
    handle: InboxHandle,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    expired: Arc<Mutex<ExpiredEntries>>,
    attaching: Attaching,
    abandoned: Arc<Abandoned>,
    /// Numbers attaches and commits in the order of the calls.
    calls: AtomicU64,
    timer: AbortHandle,
}

/// Inboxes with an attach on its way: one that needs nothing must not overtake it.
type Attaching = Arc<Mutex<HashMap<InboxId, usize>>>;

impl InboxStore {
    /// Starts the timer on the current tokio runtime. The listener comes with [`InboxHandle::listen`] or [`InboxStore::listen`].
    #[must_use]
    pub fn start(range: Arc<dyn RangeClient>, handle: InboxHandle, clock: Arc<dyn Clock>) -> Arc<Self> {
        let expired = Arc::new(Mutex::new(ExpiredEntries::default()));
        let task = TimerTask {
            shared: handle.shared.clone(),
            range: range.clone(),
            clock: clock.clone(),
            expired: expired.clone(),
            abandoned: Arc::default(),
        };
        let abandoned = task.abandoned.clone();
        let timer = tokio::spawn(task.run()).abort_handle();
        let deadline = handle.shared.state.lock().config().deadline;
        {
            let (attaching, calls) = (Attaching::default(), AtomicU64::new(1));
            Arc::new(Self { range, handle, clock, deadline, expired, abandoned, attaching, calls, timer })
        }
    }

    /// As [`InboxHandle::listen`].
    pub fn listen(&self, listener: Arc<dyn InboxListener>) {
        self.handle.listen(listener);
    }

    /// Looks at once whether something is due: after the clock was moved.
    pub fn wake(&self) {
        self.handle.shared.wake.notify_one();
    }

    /// Nothing is here, nor on its way from here.
    fn seems_absent(&self, inbox: &InboxId) -> bool {
        !self.attaching.lock().contains_key(inbox) && self.incarnation(inbox).is_none()
    }

    /// Waits until this node knows what was acknowledged anywhere before the call.
    async fn fresh(&self) -> Result<(), InboxError> {
        let until = Instant::now() + self.deadline;
        let mut pause = FIRST_PAUSE;
        loop {
            let cause = match timeout_at(until, self.range.linearize(ROUTE)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if error.is_retryable() && Instant::now() + pause < until => {
                    sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no leader confirms that this node is up to date".to_owned(),
            };
            return Err(InboxError::Unavailable { cause });
        }
    }

    /// Tries a change again for a while when the range refuses it for a passing reason. Only for changes whose order to one another
    /// does not matter. They take from the reserve of a full disk: what is queued can be read, and room made. New messages cannot.
    async fn change(&self, command: Bytes) -> Result<Bytes, InboxError> {
        let first = self.range.mutate_from_reserve(ROUTE, command.clone()).await;
        persist(&self.range, self.deadline, command, first).await
    }

    /// Reads entries that are not in memory; tells which expired before they may have been sent.
    fn read_disk(
        &self,
        incarnation: u64,
        seqs: Range<u64>,
        sent_upto: u64,
        now: WallMs,
        page: &mut Page,
    ) -> Result<Vec<u64>, KvError> {
        let (start, end) = (entry::key(incarnation, seqs.start), entry::key(incarnation, seqs.end));
        let mut expired = Vec::new();
        self.range.read(ROUTE, &mut |keys| {
            let (mut found, mut failed, room) = (Vec::new(), None, page.room());
            let mut bytes_left = page.bytes_left();
            keys.scan(&start..&end, &mut |key, value| {
                let Some((_, seq)) = entry::decode_key(key) else { return Visit::More };
                match entry::decode(Bytes::copy_from_slice(value)) {
                    Ok((head, _)) if seq >= sent_upto && head.expires_at.is_some_and(|at| at <= now) => {
                        expired.push(seq);
                        if expired.len() >= EXPIRED_PER_FETCH { Visit::Enough } else { Visit::More }
                    }
                    Ok((head, body)) => {
                        bytes_left = bytes_left.saturating_sub(head.cost);
                        found.push((seq, head, body));
                        if found.len() >= room || bytes_left == 0 { Visit::Enough } else { Visit::More }
                    }
                    Err(error) => {
                        failed = Some(error);
                        Visit::Enough
                    }
                }
            })?;
            if let Some(error) = failed {
                return Err(corrupt("read a queued entry")(error));
            }
            for (seq, head, body) in found {
                if !push_entry(keys, seq, head, body, page)? {
                    break;
                }
            }
            Ok(())
        })?;
        Ok(expired)
    }
}

impl Drop for InboxStore {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

/// Adds an entry with its message; tells whether it fit.
fn push_entry(keys: &dyn KvRead, seq: u64, head: EntryHead, body: EntryBody, page: &mut Page) -> Result<bool, KvError> {
    let bytes = match body {
        EntryBody::Inline(bytes) => bytes,
        EntryBody::Shared(id) => read_body(keys, id)?,
    };
    let message = Arc::new(Message::decode(bytes).map_err(corrupt("read a queued message"))?);
    let EntryHead { qos, retain, subscription_identifiers, cost, .. } = head;
    Ok(page.push(Entry { seq, message, qos, retain, subscription_identifiers }, cost))
}

fn read_body(keys: &dyn KvRead, id: BodyId) -> Result<Bytes, KvError> {
    let missing = || KvError { doing: "read a queued message", cause: "its body is not there".into() };
    keys.get(&body::key(id))?.ok_or_else(missing)
}

fn refused(error: MutateError) -> InboxError {
    match error {
        MutateError::Unknown => InboxError::Unknown,
        MutateError::Stopped { cause } => {
            // It may have stopped behind the change.
            tracing::error!(%cause, "the range of the inboxes stopped");
            InboxError::Unknown
        }
        nothing_changed => InboxError::Unavailable { cause: nothing_changed.to_string() },
    }
}

async fn persist(
    range: &Arc<dyn RangeClient>,
    deadline: Duration,
    command: Bytes,
    first: Result<Bytes, MutateError>,
) -> Result<Bytes, InboxError> {
    let until = Instant::now() + deadline;
    let (mut result, mut pause) = (first, FIRST_PAUSE);
    loop {
        match result {
            Err(error) if error.is_retryable() && Instant::now() + pause < until => {
                sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
                result = range.mutate_from_reserve(ROUTE, command.clone()).await;
            }
            result => return result.map_err(refused),
        }
    }
}

/// An attach as long as it is on its way. When nobody learns how it ended, because the outcome is unknown or nobody waited for it, it is
/// undone.
struct AttachOnItsWay<'a> {
    store: &'a InboxStore,
    inbox: InboxId,
    run: NodeIncarnation,
    token: u64,
    settled: bool,
}

impl<'a> AttachOnItsWay<'a> {
    fn begin(store: &'a InboxStore, attach: &Attach) -> Self {
        let (inbox, run) = (attach.inbox.clone(), attach.node);
        *store.attaching.lock().entry(inbox.clone()).or_default() += 1;
        Self { store, inbox, run, token: store.calls.fetch_add(1, Ordering::Relaxed), settled: false }
    }
}

impl Drop for AttachOnItsWay<'_> {
    fn drop(&mut self) {
        let mut attaching = self.store.attaching.lock();
        if let Some(count) = attaching.get_mut(&self.inbox) {
            *count -= 1;
            if *count == 0 {
                attaching.remove(&self.inbox);
            }
        }
        drop(attaching);
        if !self.settled {
            let mut abandoned = self.store.abandoned.lock();
            if abandoned.len() < ABANDONED_MAX {
                abandoned.push_back((self.inbox.clone(), self.run, self.token));
            }
            drop(abandoned);
            self.store.wake();
        }
    }
}

#[async_trait]
impl InboxService for InboxStore {
    async fn attach(&self, attach: Attach) -> Result<Attached, AttachError> {
        let needs_none = attach.expiry_secs == 0 && attach.will.is_none();
        if needs_none && self.seems_absent(&attach.inbox) {
            // It may have been attached on another node an instant ago.
            self.fresh().await?;
            if self.seems_absent(&attach.inbox) {
                return Ok(Attached {
                    version: None,
                    session_present: false,
                    subscriptions: Vec::new(),
                    inbound: Vec::new(),
                    released: Vec::new(),
                    first_seq: 1,
                    sent_upto: 0,
                });
            }
        }
        let mut on_its_way = AttachOnItsWay::begin(self, &attach);
        let reply = self.change(command::attach(&attach, on_its_way.token)).await;
        let result = reply.map_err(AttachError::from).and_then(reply::read_attached);
        on_its_way.settled = result != Err(InboxError::Unknown.into());
        result
    }

    async fn detach(&self, detach: Detach) -> Result<(), InboxError> {
        reply::read_done(self.change(command::detach(&detach)).await?)
    }

    async fn subscribe(
        &self,
        _inbox: &InboxId,
        version: SessionVersion,
        subscriptions: Vec<(SubscriptionFilter, SubscriptionOptions)>,
    ) -> Result<Vec<bool>, InboxError> {
        let command = command::subscribe(version, &subscriptions);
        let first = match self.range.mutate(ROUTE, command.clone()).await {
            // Something new is not for the reserve.
            Err(full @ MutateError::NoSpace { .. }) => return Err(refused(full)),
            first => first,
        };
        reply::read_flags(persist(&self.range, self.deadline, command, first).await?)
    }

    async fn unsubscribe(
        &self,
        _inbox: &InboxId,
        version: SessionVersion,
        filters: Vec<SubscriptionFilter>,
    ) -> Result<Vec<bool>, InboxError> {
        reply::read_flags(self.change(command::unsubscribe(version, &filters)).await?)
    }

    fn insert(&self, insert: Insert) -> InboxFuture<Vec<InsertOutcome>> {
        let receivers = insert.receivers.len();
        if receivers == 0 && insert.origin == Origin::None {
            return Box::pin(std::future::ready(Ok(Vec::new())));
        }
        // Not tried again: a later insert of the same publisher might overtake it.
        let reply = self.range.mutate(ROUTE, command::insert(&insert));
        Box::pin(async move { reply::read_outcomes(reply.await.map_err(refused)?, receivers) })
    }

    fn fetch(
        &self,
        inbox: &InboxId,
        version: SessionVersion,
        from_seq: u64,
        max: usize,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, InboxError> {
        let now = self.clock.wall();
        let shared = &self.handle.shared;
        let plan = shared.state.lock().plan_fetch(version, from_seq, Page::new(max, max_bytes), now);
        let Some(mut plan) = plan else { return Err(InboxError::Fenced) };
        if !plan.disk.is_empty() {
            let mut page = Page::new(max, max_bytes);
            let read = self.read_disk(version.incarnation, plan.disk.clone(), plan.sent_upto, now, &mut page);
            let expired = read.map_err(|error| {
                tracing::error!(%error, client = %inbox.client, "a queue can't be read");
                InboxError::Unavailable { cause: error.to_string() }
            })?;
            let read_upto = page.entries.iter().map(|entry| entry.seq).chain(expired.iter().copied()).max();
            let read_upto = read_upto.unwrap_or(plan.disk.start.saturating_sub(1));
            plan.expired.extend(expired);
            // What is in memory comes behind what is on disk, and never before some of that was read.
            match shared.state.lock().is_read_upto(version, read_upto, plan.disk.end) {
                None => return Err(InboxError::Fenced),
                Some(false) => {}
                Some(true) => page.append(plan.cached),
            }
            plan.cached = page;
        }
        if !plan.expired.is_empty() {
            self.expired.lock().add(version, &plan.expired);
            shared.wake.notify_one();
        }
        Ok(plan.cached.entries)
    }

    fn commit(&self, _inbox: &InboxId, version: SessionVersion, commit: Commit) -> InboxFuture<()> {
        if commit.is_empty() {
            return Box::pin(std::future::ready(Ok(())));
        }
        let mark = self.calls.fetch_add(1, Ordering::Relaxed);
        let command = command::commit(version, mark, &commit);
        let first = self.range.mutate_from_reserve(ROUTE, command.clone());
        let (range, deadline) = (self.range.clone(), self.deadline);
        Box::pin(async move {
            let first = first.await;
            reply::read_done(persist(&range, deadline, command, first).await?)
        })
    }

    fn incarnation(&self, inbox: &InboxId) -> Option<u64> {
        self.handle.shared.state.lock().incarnation(inbox)
    }

    fn holder(&self, inbox: &InboxId) -> Option<NodeIncarnation> {
        self.handle.shared.state.lock().holder(inbox)
    }

    fn may_live(&self, inbox: &InboxId, incarnation: u64) -> bool {
        self.handle.shared.state.lock().may_live(inbox, incarnation)
    }

    fn owns(&self, version: SessionVersion) -> bool {
        self.handle.shared.state.lock().owns(version)
    }

    async fn detach_node(&self, run: NodeIncarnation) -> Result<u64, InboxError> {
        let next = Incarnation(run.incarnation.0.saturating_add(1));
        self.detach_runs_before(NodeIncarnation { incarnation: next, ..run }).await
    }

    fn holders(&self) -> Vec<(NodeIncarnation, u64)> {
        self.handle.shared.state.lock().holders()
    }

    fn subscriptions(&self, after: Option<Bytes>, max: usize) -> Result<SubscriptionPage, InboxError> {
        let all = KeyKind::Subscription.all();
        let start = after.map_or_else(|| all.start.to_vec(), |after| [&after[..], &[0]].concat());
        let (mut found, mut next, mut failed) = (Vec::new(), None, None);
        let read = self.range.read(ROUTE, &mut |keys| {
            keys.scan(&start..&all.end, &mut |key, value| {
                match subscription::decode_key(key).and_then(|filter| Ok((filter, subscription::decode(value)?))) {
                    Ok((filter, options)) => found.push((incarnation_of(key).unwrap_or(0), filter, options)),
                    Err(error) => failed = Some(error),
                }
                if found.len() >= max {
                    next = Some(Bytes::copy_from_slice(key));
                }
                if failed.is_some() || next.is_some() { Visit::Enough } else { Visit::More }
            })
        });
        let failed = failed.map(corrupt("read a subscription"));
        if let Some(error) = read.err().or(failed) {
            return Err(InboxError::Unavailable { cause: error.to_string() });
        }
        let state = self.handle.shared.state.lock();
        let named = |(incarnation, filter, options)| Some((state.id(incarnation)?, incarnation, filter, options));
        Ok(SubscriptionPage { subscriptions: found.into_iter().filter_map(named).collect(), next })
    }

    fn settle_ended(&self, incarnations: Vec<u64>) -> InboxFuture<()> {
        if incarnations.is_empty() {
            return Box::pin(std::future::ready(Ok(())));
        }
        // Lost, it is told again: not tried again here.
        let reply = self.range.mutate_from_reserve(ROUTE, command::settle_ended(&incarnations));
        Box::pin(async move { reply::read_done(reply.await.map_err(refused)?) })
    }

    fn leads(&self) -> bool {
        self.handle.shared.state.lock().leads()
    }

    async fn detach_runs_before(&self, current: NodeIncarnation) -> Result<u64, InboxError> {
        let (mut detached, mut from) = (0, Some(0));
        while let Some(start) = from {
            let reply = self.change(command::detach_runs(current, start, DETACHED_AT_ONCE)).await?;
            let (count, next) = reply::read_detached_runs(reply)?;
            detached += count;
            from = next;
        }
        Ok(detached)
    }

    fn stats(&self) -> InboxStats {
        self.handle.shared.state.lock().stats()
    }

    fn count_of(&self, tenant: &TenantId) -> u64 {
        self.handle.shared.state.lock().count_of(tenant)
    }

    fn list(&self, tenant: &TenantId, after: Option<&ClientId>, max: usize) -> Vec<InboxSummary> {
        self.handle.shared.state.lock().list(tenant, after, max)
    }
}

#[cfg(test)]
mod cluster_test;
#[cfg(test)]
mod store_test;
