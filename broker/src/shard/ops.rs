//! What a session asks for that has to wait: a handshake, authentication, inboxes, routes.
//!
//! Each operation takes what it needs from the connection, waits in a task of its own, and comes back as an event. A connection
//! that is gone by then is not found, and nothing happens.

use super::conn::Conn;
use super::retained::Cursor;
use super::{Later, Shard};
use crate::cluster::Claim;
use crate::counters;
use crate::listener::Arrival;
use crate::live::SessionRef;
use base_types::{RetainHandling, SubscriptionFilter, SubscriptionOptions};
use bytes::Bytes;
use bytestring::ByteString;
use dist_api::{Receiver, Route};
use inbox_api::{Attach, AttachError, Attached, Commit, Detach, InboxError, InboxId, SessionVersion, WillFate};
use mqtt_auth::{ConnectInfo, Decision, Exchange, Principal, Subscribing};
use mqtt_codec::ReasonCode;
use mqtt_session::{
    AttachRequest, AuthOutcome, AuthRequest, Event, OpId, Session, SubscribeEntry, SubscribeOutcome, UnsubscribeOutcome,
};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tracing::{debug, warn};

/// How long an older connection of a client may take to let go of its session.
const TAKEOVER_WAIT: Duration = Duration::from_secs(2);
/// When leaving an inbox is tried again that was unavailable.
const DETACH_AGAIN: Duration = Duration::from_secs(1);

impl Shard {
    /// Makes a connection of a socket.
    pub(super) async fn welcome(self: Rc<Self>, arrival: Arrival) {
        let Arrival { stream, peer, setup, permit } = arrival;
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                warn!(%peer, %error, "a socket could not be registered");
                return;
            }
        };
        let accepted: Result<_, _> = Box::pin(mqtt_transport::accept(stream, peer, &setup)).await;
        let (transport, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%peer, cause = error.cause(), %error, "a connection ended before MQTT began");
                self.node.metrics.node().handshakes_failed.inc(error.cause());
                return;
            }
        };
        if self.shutting_down.get() {
            return;
        }
        let layer = counters::layer(peer.kind);
        self.metrics.connections[layer].inc();
        self.metrics.connections_total[layer].inc();
        let now = self.node.clock.now();
        let session = Session::new(Arc::clone(&self.node.settings), now, rand_seed());
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let conn = {
            let mut conns = self.conns.borrow_mut();
            let entry = conns.vacant_entry();
            let slot = u32::try_from(entry.key()).unwrap_or(u32::MAX);
            let me = SessionRef { shard: self.index, slot, generation };
            let packet_max = self.node.connect_bytes_max.min(self.node.settings.max_packet_size());
            let conn = Rc::new(RefCell::new(Conn::new(me, session, transport, peer, permit, packet_max)));
            entry.insert((generation, Rc::clone(&conn)));
            conn
        };
        self.schedule(&mut conn.borrow_mut());
        tokio::task::spawn_local(self.serve(conn));
    }

    pub(super) fn later(&self, what: impl Future<Output = ()> + 'static) {
        let what: Later = Box::pin(what);
        tokio::task::spawn_local(what);
    }

    pub(super) fn authenticate(self: &Rc<Self>, conn: &mut Conn, request: AuthRequest) {
        let first = matches!(request, AuthRequest::Connect(_));
        let info = match request {
            AuthRequest::Connect(connect) => {
                let certificate = conn.peer.tls.as_ref().and_then(|tls| tls.client_cert_der.clone());
                let properties = connect.properties;
                let info = ConnectInfo {
                    client_id: connect.client_id,
                    username: connect.username,
                    password: connect.password,
                    peer: conn.peer.addr.ip(),
                    certificate: certificate.map(Bytes::from),
                    exchange: properties.authentication_method.map(|method| Exchange {
                        method,
                        data: properties.authentication_data,
                        reauthenticate: false,
                    }),
                };
                // Only an exchange looks at it again.
                conn.shown = info.exchange.is_some().then(|| Box::new(info.clone()));
                info
            }
            AuthRequest::Continue { method, data, reauthenticate } => {
                let Some(shown) = &mut conn.shown else { return };
                shown.exchange = Some(Exchange { method, data, reauthenticate });
                (**shown).clone()
            }
        };
        let (me, shard) = (conn.me, Rc::clone(self));
        self.later(async move {
            let authenticator = &shard.node.authenticator;
            let decision =
                if first { authenticator.authenticate(&info).await } else { authenticator.exchange(&info).await };
            let outcome = match decision {
                Decision::Accept { tenant, user, data, response_information } => {
                    let Some(conn) = shard.find(me) else { return };
                    let mut conn = conn.borrow_mut();
                    conn.tenant = tenant.clone();
                    conn.user = user.unwrap_or_default();
                    AuthOutcome::Accept { tenant, user: conn.user.clone(), data, response_information }
                }
                Decision::Continue { data } => AuthOutcome::Continue { data },
                Decision::Refuse(refusal) => {
                    debug!(peer = %info.peer, cause = refusal.name(), "a client was refused");
                    AuthOutcome::Refuse { reason: refusal.reason_code() }
                }
            };
            shard.event(me, Event::Authenticated(outcome));
        });
    }

    pub(super) fn attach(self: &Rc<Self>, conn: &mut Conn, request: AttachRequest) {
        let (me, shard) = (conn.me, Rc::clone(self));
        let id = InboxId { tenant: conn.tenant.clone(), client: request.client_id.detached() };
        let user = (!conn.user.is_empty()).then(|| conn.user.clone());
        conn.principal = Some(Principal { tenant: id.tenant.clone(), user, client: id.client.clone() });
        let rights = conn.rights(&*self.node.authorizer);
        let will = request.will.as_ref().map(|will| &will.message);
        if !rights.may_connect() || will.is_some_and(|will| !rights.may_publish(&will.topic, will.retain)) {
            self.later(async move { shard.event(me, Event::Attached(Err(ReasonCode::NotAuthorized))) });
            return;
        }
        let kept = request.expiry_secs > 0 || request.will.is_some();
        let Ok(admission) = self.node.admit_session(&id, kept) else {
            debug!(client = %id.client, "a client was refused: its tenant has MaxSessionsPerTenant sessions");
            self.later(async move { shard.event(me, Event::Attached(Err(ReasonCode::QuotaExceeded))) });
            return;
        };
        let owner = conn.user.clone();
        let stamp = self.node.claims.stamp(self.node.clock.wall());
        let Ok(before) = self.node.registry.claim(id.clone(), me, &owner, stamp) else {
            let reason = ReasonCode::ClientIdentifierNotValid;
            self.later(async move { shard.event(me, Event::Attached(Err(reason))) });
            return;
        };
        self.node.claims.tell(Claim { id: id.clone(), user: owner.clone(), stamp });
        conn.claimed = Some(id.clone());
        self.later(async move {
            if let Some(before) = before {
                shard.kick(before, ReasonCode::SessionTakenOver).await;
            }
            let ends_with_connection = request.expiry_secs == 0;
            let attach = Attach {
                inbox: id.clone(),
                clean_start: request.clean_start,
                expiry_secs: request.expiry_secs,
                owner,
                node: shard.node.run,
                will: request.will,
                limits: shard.node.settings.queue_limits(),
            };
            let result = shard.node.inbox.attach(attach).await;
            drop(admission);
            shard.attached(me, id, ends_with_connection, result);
        });
    }

    fn attached(
        self: &Rc<Self>,
        me: SessionRef,
        id: InboxId,
        ends_with_connection: bool,
        result: Result<Attached, AttachError>,
    ) {
        let Some(conn) = self.find(me).filter(|conn| conn.borrow().is_open()) else {
            // The client left, or was refused, before its session was there: nobody else will detach it, and without a CONNACK
            // there is no will to fire.
            if let Ok(Attached { version: Some(version), .. }) = result {
                let detach = Detach { inbox: id, version, expiry_secs: None, will: WillFate::Discard };
                let node = Arc::clone(&self.node);
                self.later(async move {
                    if let Err(error) = node.inbox.detach(detach).await {
                        debug!(%error, "a session could not be detached");
                    }
                });
            }
            return;
        };
        let mut fenced = false;
        let event = match result {
            Ok(mut attached) => {
                if let Some(version) = attached.version {
                    let mut conn = conn.borrow_mut();
                    conn.inbox = Some((id, version));
                    // Taken over before anybody here could be told.
                    fenced = !self.node.inbox.owns(version);
                    let kept = attached.subscriptions.iter().map(|(filter, _)| filter.to_text().into_boxed_str());
                    conn.subscriptions = kept.collect();
                }
                // An inbox that exists only for the will queues nothing: the session is a live one.
                if ends_with_connection && !attached.session_present {
                    attached.version = None;
                }
                Ok(attached)
            }
            Err(AttachError::NotOwner) => Err(ReasonCode::ClientIdentifierNotValid),
            Err(AttachError::Inbox(error)) => {
                debug!(%error, "a session could not be attached");
                Err(ReasonCode::ServerUnavailable)
            }
        };
        self.event_on(&conn, Event::Attached(event));
        if fenced {
            self.event_on(&conn, taken_over());
        }
    }

    /// Ends another session and waits until it has let go, but not for ever: the inbox's version fences it anyway.
    async fn kick(&self, session: SessionRef, reason: ReasonCode) {
        let (done, over) = oneshot::channel();
        if let Some(shard) = self.node.shards.get(usize::from(session.shard)) {
            shard.send(super::Letter::Kick { session, reason, done: Some(done) });
            drop(tokio::time::timeout(TAKEOVER_WAIT, over).await);
        }
    }

    pub(super) fn subscribe(self: &Rc<Self>, conn: &mut Conn, op: OpId, entries: Vec<SubscribeEntry>) {
        let rights = conn.rights(&*self.node.authorizer);
        let mut outcomes = Vec::with_capacity(entries.len());
        let mut granted = Vec::with_capacity(entries.len());
        for (at, entry) in entries.into_iter().enumerate() {
            match rights.may_subscribe(&entry.filter) {
                Subscribing::Allowed { .. } => {
                    outcomes.push(SubscribeOutcome::Granted(entry.options.qos));
                    granted.push((at, entry));
                }
                Subscribing::Denied => {
                    self.node.metrics.node().denied.inc("subscribe");
                    outcomes.push(SubscribeOutcome::Refused(self.node.subscribe_denied));
                }
            }
        }
        if conn.session.has_inbox()
            && let Some(owned) = conn.inbox.clone()
        {
            let limit = self.node.settings.max_topic_filters_per_inbox as usize;
            let mut added = Vec::new();
            granted.retain(|(at, entry)| {
                let text = entry.filter.to_text().into_boxed_str();
                if conn.subscriptions.contains(&text) {
                    return true;
                }
                let fits = conn.subscriptions.len() < limit;
                if fits {
                    conn.subscriptions.insert(text.clone());
                    added.push(text);
                } else {
                    outcomes[*at] = SubscribeOutcome::Refused(ReasonCode::QuotaExceeded);
                }
                fits
            });
            self.subscribe_inbox(conn.me, owned, op, granted, added, outcomes);
        } else {
            self.subscribe_live(conn, op, granted, outcomes);
        }
    }

    fn subscribe_live(
        self: &Rc<Self>,
        conn: &mut Conn,
        op: OpId,
        granted: Vec<(usize, SubscribeEntry)>,
        mut outcomes: Vec<SubscribeOutcome>,
    ) {
        let limit = self.node.settings.max_topic_filters_per_inbox as usize;
        let members_max = self.node.settings.max_shared_group_members as usize;
        let mut added = Vec::with_capacity(granted.len());
        let committed = {
            let mut live = self.node.live_write();
            let mut routes = Vec::with_capacity(granted.len());
            for (at, entry) in granted {
                let text = entry.filter.to_text();
                let is_new = !conn.subscriptions.contains(&*text);
                let full_group = match &entry.filter {
                    SubscriptionFilter::Shared(shared) => live.member_count(&conn.tenant, shared) >= members_max,
                    SubscriptionFilter::Normal(_) => false,
                };
                if is_new && (conn.subscriptions.len() >= limit || full_group) {
                    outcomes[at] = SubscribeOutcome::Refused(ReasonCode::QuotaExceeded);
                    continue;
                }
                let filter = entry.filter.detached();
                let change = live.add(&conn.tenant, &filter, conn.me, entry.options);
                conn.subscriptions.insert(text.into_boxed_str());
                if !change.existed {
                    routes.push(filter.clone());
                }
                added.push((at, filter, entry.options, change.existed));
            }
            self.node.routes.add(&conn.tenant, routes)
        };
        let (me, shard) = (conn.me, Rc::clone(self));
        self.later(async move {
            let mut cursors = Vec::new();
            let committed = matches!(committed.await, Ok(Ok(())));
            for (at, filter, options, existed) in added {
                if committed {
                    cursors.extend(cursor(filter, options, existed));
                } else {
                    outcomes[at] = SubscribeOutcome::Refused(ReasonCode::UnspecifiedError);
                    shard.forget(me, &filter);
                }
            }
            shard.subscribed(me, op, outcomes, cursors);
        });
    }

    fn subscribe_inbox(
        self: &Rc<Self>,
        me: SessionRef,
        (id, version): (InboxId, SessionVersion),
        op: OpId,
        granted: Vec<(usize, SubscribeEntry)>,
        added: Vec<Box<str>>,
        mut outcomes: Vec<SubscribeOutcome>,
    ) {
        let shard = Rc::clone(self);
        self.later(async move {
            let list: Vec<_> = granted.iter().map(|(_, e)| (e.filter.detached(), e.options)).collect();
            let routes = list
                .iter()
                .map(|(filter, options)| inbox_route(&id, version, filter.clone(), *options))
                .collect::<Vec<_>>();
            let mut cursors = Vec::new();
            let result = match shard.node.inbox.subscribe(&id, version, list).await {
                Ok(existed) => match shard.node.dist.add(routes).await {
                    Ok(()) => Ok(existed),
                    Err(error) => Err(error.to_string()),
                },
                Err(InboxError::Fenced) => {
                    shard.event(me, taken_over());
                    return;
                }
                Err(error) => {
                    if let Some(conn) = shard.find(me) {
                        conn.borrow_mut().subscriptions.retain(|text| !added.contains(text));
                    }
                    Err(error.to_string())
                }
            };
            match result {
                Ok(existed) => {
                    for ((_, entry), existed) in granted.into_iter().zip(existed) {
                        cursors.extend(cursor(entry.filter, entry.options, existed));
                    }
                }
                Err(error) => {
                    debug!(error, "a subscription could not be made");
                    for (at, _) in granted {
                        outcomes[at] = SubscribeOutcome::Refused(ReasonCode::UnspecifiedError);
                    }
                }
            }
            shard.subscribed(me, op, outcomes, cursors);
        });
    }

    fn subscribed(self: &Rc<Self>, me: SessionRef, op: OpId, outcomes: Vec<SubscribeOutcome>, cursors: Vec<Cursor>) {
        self.event(me, Event::SubscribeDone(op, outcomes));
        if cursors.is_empty() {
            return;
        }
        let shard = Rc::clone(self);
        self.later(async move {
            // Whatever was retained before the subscription is to be seen. Without a leader: what this node has.
            if let Err(error) = shard.node.retain.fresh().await {
                debug!(%error, "retained messages may be old: they could not be confirmed");
            }
            if let Some(conn) = shard.find(me) {
                let mut conn_ref = conn.borrow_mut();
                conn_ref.retained.extend(cursors);
                shard.mark_dirty(&conn, &mut conn_ref);
            }
        });
    }

    /// Takes a live subscription back whose route could not be committed.
    fn forget(&self, me: SessionRef, filter: &SubscriptionFilter) {
        if let Some(conn) = self.find(me) {
            let mut conn = conn.borrow_mut();
            conn.subscriptions.remove(&*filter.to_text());
            let removed = self.node.live_write().remove(&conn.tenant, filter, me);
            debug!(%filter, removed.existed, "a subscription was taken back: its route could not be committed");
        }
    }

    pub(super) fn unsubscribe(self: &Rc<Self>, conn: &mut Conn, op: OpId, filters: Vec<SubscriptionFilter>) {
        let (me, shard) = (conn.me, Rc::clone(self));
        if conn.session.has_inbox()
            && let Some((id, version)) = conn.inbox.clone()
        {
            for filter in &filters {
                conn.subscriptions.remove(&*filter.to_text());
            }
            self.later(async move {
                let filters: Vec<_> = filters.iter().map(SubscriptionFilter::detached).collect();
                let routes = filters
                    .iter()
                    .map(|filter| inbox_route(&id, version, filter.clone(), SubscriptionOptions::default()))
                    .collect();
                // The inbox first: it knows whether the session is still this connection's. A route that is left over brings messages that
                // nobody wants, one that is missing loses those that somebody does.
                let removed = match shard.node.inbox.unsubscribe(&id, version, filters.clone()).await {
                    Err(InboxError::Fenced) => {
                        shard.event(me, taken_over());
                        return;
                    }
                    Ok(existed) => shard.node.dist.remove(routes).await.map(|()| existed).map_err(|e| e.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                let outcomes = match removed {
                    Ok(existed) => existed
                        .into_iter()
                        .map(|e| if e { UnsubscribeOutcome::Removed } else { UnsubscribeOutcome::NotFound })
                        .collect(),
                    Err(error) => {
                        debug!(error, "a subscription could not be removed");
                        vec![UnsubscribeOutcome::Refused(ReasonCode::UnspecifiedError); filters.len()]
                    }
                };
                shard.event(me, Event::UnsubscribeDone(op, outcomes));
            });
            return;
        }
        let mut outcomes = Vec::with_capacity(filters.len());
        let committed = {
            let mut live = self.node.live_write();
            let mut routes = Vec::new();
            for filter in filters {
                conn.subscriptions.remove(&*filter.to_text());
                let removed = live.remove(&conn.tenant, &filter, me);
                outcomes.push(if removed.existed { UnsubscribeOutcome::Removed } else { UnsubscribeOutcome::NotFound });
                if removed.last {
                    routes.push(filter.detached());
                }
            }
            self.node.routes.remove(&conn.tenant, routes)
        };
        self.later(async move {
            // The subscription is gone here, whatever becomes of the route: a route to this node without a subscriber is harmless.
            drop(committed.await);
            shard.event(me, Event::UnsubscribeDone(op, outcomes));
        });
    }

    pub(super) fn fetch(&self, conn: &mut Conn, mut from_seq: u64, max: usize) -> Option<Event> {
        let (id, version) = conn.inbox.clone()?;
        loop {
            match self.node.inbox.fetch(&id, version, from_seq, max, FETCH_BYTES) {
                Ok(mut entries) => {
                    let Some(last) = entries.last().map(|e| e.seq) else { return Some(Event::Fetched(entries)) };
                    // What may not be received is done without having been sent.
                    let rights = conn.rights(&*self.node.authorizer);
                    let mut done = Vec::new();
                    entries.retain(|entry| {
                        let allowed = rights.may_receive(&entry.message.topic);
                        if !allowed {
                            self.dropped(counters::NOT_AUTHORIZED, 1);
                            done.push(entry.seq);
                        }
                        allowed
                    });
                    if !done.is_empty() {
                        self.later_commit(&id, version, Commit { done, ..Commit::default() });
                        if entries.is_empty() {
                            from_seq = last + 1;
                            continue;
                        }
                    }
                    return Some(Event::Fetched(entries));
                }
                Err(InboxError::Fenced) => return Some(taken_over()),
                Err(error) => {
                    warn!(%error, "an inbox could not be read");
                    let reason = ReasonCode::ServerUnavailable;
                    return Some(Event::Disconnect { reason, publish_will: true });
                }
            }
        }
    }

    fn later_commit(&self, id: &InboxId, version: SessionVersion, commit: Commit) {
        let committed = self.node.inbox.commit(id, version, commit);
        self.later(async move {
            if let Err(error) = committed.await {
                debug!(%error, "a commit failed; the entries will be looked at again");
            }
        });
    }

    pub(super) fn commit(self: &Rc<Self>, conn: &Conn, op: Option<OpId>, commit: Commit) {
        let Some((id, version)) = &conn.inbox else { return };
        let committed = self.node.inbox.commit(id, *version, commit);
        let (me, shard) = (conn.me, Rc::clone(self));
        self.later(async move {
            let result = match committed.await {
                Ok(()) => Ok(()),
                Err(InboxError::Fenced) => {
                    shard.event(me, taken_over());
                    return;
                }
                Err(error) => {
                    debug!(%error, "a session's state could not be committed");
                    Err(ReasonCode::ServerUnavailable)
                }
            };
            match (op, result) {
                (Some(op), result) => shard.event(me, Event::Committed(op, result)),
                // Without an answer to wait for, the state of the connection and of the inbox would drift apart.
                (None, Err(reason)) => shard.event(me, Event::Disconnect { reason, publish_will: true }),
                (None, Ok(())) => {}
            }
        });
    }

    /// The session ends: live subscriptions go, the inbox is left, and whoever waits for it is told.
    pub(super) fn detach(self: &Rc<Self>, conn: &mut Conn, expiry_secs: Option<u32>, will: WillFate) {
        self.drop_subscriptions(conn);
        let (me, node) = (conn.me, Arc::clone(&self.node));
        let kicked = std::mem::take(&mut conn.kicked);
        let claimed = conn.claimed.take();
        let inbox = conn.inbox.take();
        self.later(async move {
            let mut left = None;
            if let Some((inbox, version)) = inbox {
                let detach = Detach { inbox, version, expiry_secs, will };
                match node.inbox.detach(detach.clone()).await {
                    Ok(()) | Err(InboxError::Fenced) => {}
                    Err(error) => {
                        warn!(%error, "a session could not be detached; it counts as connected until it can");
                        left = Some(detach);
                    }
                }
            }
            if let Some(id) = claimed {
                node.registry.release(&id, me);
            }
            drop(kicked);
            // A client that comes back meanwhile fences this. What a stop cuts off, the next start detaches.
            while let Some(detach) = &left {
                tokio::time::sleep(DETACH_AGAIN).await;
                if matches!(node.inbox.detach(detach.clone()).await, Ok(()) | Err(InboxError::Fenced)) {
                    left = None;
                }
            }
        });
    }

    /// What is left when a connection is over.
    pub(super) fn release(&self, conn: &mut Conn) {
        self.drop_subscriptions(conn);
        if let Some(id) = conn.claimed.take() {
            self.node.registry.release(&id, conn.me);
        }
    }

    fn drop_subscriptions(&self, conn: &mut Conn) {
        let subscriptions = std::mem::take(&mut conn.subscriptions);
        // Those of an inbox stay.
        if subscriptions.is_empty() || conn.session.has_inbox() {
            return;
        }
        let mut routes = Vec::new();
        let mut live = self.node.live_write();
        for text in subscriptions {
            if let Ok(filter) = SubscriptionFilter::parse(&ByteString::from(text.into_string()))
                && live.remove(&conn.tenant, &filter, conn.me).last
            {
                routes.push(filter);
            }
        }
        if !routes.is_empty() {
            drop(self.node.routes.remove(&conn.tenant, routes));
        }
    }
}

/// How much one look into an inbox brings.
const FETCH_BYTES: usize = 256 * 1024;

fn taken_over() -> Event {
    Event::Disconnect { reason: ReasonCode::SessionTakenOver, publish_will: false }
}

fn inbox_route(
    id: &InboxId,
    version: SessionVersion,
    filter: SubscriptionFilter,
    options: SubscriptionOptions,
) -> Route {
    Route {
        tenant: id.tenant.clone(),
        filter,
        receiver: Receiver::Inbox {
            client: id.client.clone(),
            incarnation: version.incarnation,
            attach: version.attach,
            options,
        },
    }
}

/// The retained messages that a new subscription gets (5.0 §3.8.3.1). Shared ones get none.
fn cursor(filter: SubscriptionFilter, options: SubscriptionOptions, existed: bool) -> Option<Cursor> {
    let wanted = match options.retain_handling {
        RetainHandling::Send => true,
        RetainHandling::SendIfNew => !existed,
        RetainHandling::DontSend => false,
    };
    match filter {
        SubscriptionFilter::Normal(filter) if wanted => Some(Cursor::new(filter, options)),
        _ => None,
    }
}

/// A seed for the client ids that a session assigns.
fn rand_seed() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let half = || u128::from(RandomState::new().hash_one(0));
    half() << 64 | half()
}
