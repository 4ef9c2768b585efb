//! A shard: one thread, one single-threaded runtime, and the connections that live on it for their whole life.
//!
//! `shard.rs` moves messages between connections; `conn.rs` is one connection; `ops.rs` are the operations that wait for something
//! (authentication, inboxes, routes). One read brings many packets; everything that became writable is written after all of
//! them, and after all connections that the same wake-up made ready, by the flusher.

mod conn;
mod mailbox;
mod ops;
mod outbox;
mod retained;
mod throttle;
mod timers;

use crate::cluster::{Aim, PARCEL_BYTES, Parcel};
use crate::counters;
use crate::live::{SessionRef, Target};
use crate::node::{Node, Receivers};
use base_types::{Message, NodeId, PacketId, QoS, TenantId, WallMs};
use bytes::BytesMut;
use conn::{Conn, Frames};
use inbox_api::{InboxReceiver, Insert, InsertOutcome, Origin};
pub(crate) use mailbox::{Letter, Mailbox};
use mqtt_codec::ReasonCode;
use mqtt_session::{Action, Delivery, Event, OpId, PublishOutcome};
use slab::Slab;
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use telemetry::ShardMetrics;
use timers::Timers;
use tokio::task::LocalSet;
use tracing::debug;

/// How much one read may bring.
const READ_BYTES: usize = 64 * 1024;

/// How a shard is reached from other threads.
#[derive(Clone, Debug)]
pub(crate) struct ShardHandle {
    mailbox: Arc<Mailbox>,
}

impl ShardHandle {
    pub(crate) fn new() -> Self {
        Self { mailbox: Arc::default() }
    }

    pub(crate) fn send(&self, letter: Letter) {
        self.mailbox.push(letter);
    }

    /// Sends all of `letters` at once and leaves it empty.
    pub(crate) fn send_all(&self, letters: &mut Vec<Letter>) {
        if !letters.is_empty() {
            self.mailbox.push_all(letters);
        }
    }

    pub(crate) fn is_congested(&self) -> bool {
        self.mailbox.is_congested()
    }
}

/// Starts the thread of a shard. It ends once it was told to shut down and its last connection is gone.
pub(crate) fn spawn(index: u16, node: Arc<Node>) -> std::io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
        let local = LocalSet::new();
        local.block_on(&runtime, Shard::new(index, node).run());
    })
}

pub(crate) struct Shard {
    node: Arc<Node>,
    index: u16,
    metrics: ShardMetrics,
    mailbox: Arc<Mailbox>,
    conns: RefCell<Slab<(u32, Rc<RefCell<Conn>>)>>,
    generation: Cell<u32>,
    /// Connections that handled events since they were last flushed.
    dirty: RefCell<Vec<Rc<RefCell<Conn>>>>,
    flusher: RefCell<Option<Waker>>,
    /// Letters for other shards, by shard, sent by the flusher.
    outgoing: RefCell<Vec<Vec<Letter>>>,
    /// Messages for other nodes, sent by the flusher.
    parcels: RefCell<Vec<(NodeId, Parcel)>>,
    /// Not before this are the next ones sent, and somebody waits for that.
    parcels_due: Cell<Option<tokio::time::Instant>>,
    parcels_wait: Cell<bool>,
    /// Connections that wait until the node is no longer congested.
    stalled: RefCell<Vec<Waker>>,
    timers: Timers,
    read_buffer: RefCell<BytesMut>,
    spare_buffers: RefCell<Vec<BytesMut>>,
    receivers: RefCell<Receivers>,
    actions: RefCell<Vec<Vec<Action>>>,
    shutting_down: Cell<bool>,
}

/// A PUBLISH that a session let through, on its way to its receivers.
#[derive(Debug)]
struct Published {
    op: Option<OpId>,
    message: Message,
    inbound: Option<PacketId>,
    allowed: bool,
}

/// A PUBLISH whose commands are on their way.
struct Committing {
    op: Option<OpId>,
    bytes: usize,
    /// How many get it.
    count: u64,
    retain: Option<retain_api::RetainFuture>,
    inserts: Inserts,
    held: Option<Box<Held>>,
}

/// What is done only once it is known that it was not done before.
struct Held {
    tenant: TenantId,
    message: Arc<Message>,
    live: Vec<Target>,
    nodes: Vec<(NodeId, Aim)>,
    retained: bool,
}

impl Shard {
    fn new(index: u16, node: Arc<Node>) -> Rc<Self> {
        let mailbox = Arc::clone(&node.shards[usize::from(index)].mailbox);
        let outgoing = node.shards.iter().map(|_| Vec::new()).collect();
        Rc::new(Self {
            metrics: node.metrics.shard(),
            node,
            index,
            mailbox,
            conns: RefCell::default(),
            generation: Cell::new(0),
            dirty: RefCell::default(),
            flusher: RefCell::default(),
            outgoing: RefCell::new(outgoing),
            parcels: RefCell::default(),
            parcels_due: Cell::new(None),
            parcels_wait: Cell::new(false),
            stalled: RefCell::default(),
            timers: Timers::default(),
            read_buffer: RefCell::new(BytesMut::new()),
            spare_buffers: RefCell::default(),
            receivers: RefCell::default(),
            actions: RefCell::default(),
            shutting_down: Cell::new(false),
        })
    }

    async fn run(self: Rc<Self>) {
        let flusher = tokio::task::spawn_local(Rc::clone(&self).flush_loop());
        let timers = tokio::task::spawn_local(Rc::clone(&self).timer_loop());
        let mut letters = Vec::new();
        while !(self.shutting_down.get() && self.conns.borrow().is_empty()) {
            self.mailbox.arrived().await;
            self.mailbox.take(&mut letters);
            for letter in letters.drain(..) {
                self.open(letter);
            }
        }
        self.send_parcels_now();
        flusher.abort();
        timers.abort();
    }

    fn now(&self) -> (Instant, WallMs) {
        (self.node.clock.now(), self.node.clock.wall())
    }

    fn open(self: &Rc<Self>, letter: Letter) {
        match letter {
            Letter::Arrival(arrival) => {
                tokio::task::spawn_local(Rc::clone(self).welcome(arrival));
            }
            Letter::Deliver { message, targets } => {
                let (now, wall) = self.now();
                let mut frames = Frames::new(targets.len());
                for target in targets {
                    self.deliver(now, wall, &message, target, &mut frames);
                }
            }
            Letter::Queued(session) => self.event(session, Event::Queued),
            Letter::Fenced(session, version) => {
                if let Some(conn) = self.find(session)
                    && conn.borrow().inbox.as_ref().is_some_and(|(_, own)| *own == version)
                {
                    let reason = ReasonCode::SessionTakenOver;
                    self.event_on(&conn, Event::Disconnect { reason, publish_will: false });
                }
            }
            Letter::Kick { session, reason, done } => {
                // A session that is gone drops `done`, and that tells too.
                if let Some(conn) = self.find(session) {
                    conn.borrow_mut().kicked.extend(done);
                    self.event_on(&conn, Event::Disconnect { reason, publish_will: true });
                }
            }
            Letter::AccessChanged => {
                for conn in self.all() {
                    let leaves = {
                        let mut conn = conn.borrow_mut();
                        conn.session.is_connected() && !conn.rights(&*self.node.authorizer).may_connect()
                    };
                    if leaves {
                        let reason = ReasonCode::NotAuthorized;
                        self.event_on(&conn, Event::Disconnect { reason, publish_will: false });
                    }
                }
            }
            Letter::Shutdown { publish_wills, reason } => {
                self.shutting_down.set(true);
                for conn in self.all() {
                    self.event_on(&conn, Event::Disconnect { reason, publish_will: publish_wills });
                }
                // An empty shard ends at once.
                self.mailbox.wake();
            }
        }
    }

    /// Counts messages that did not reach a receiver.
    fn dropped(&self, cause: &'static str, count: u64) {
        self.node.metrics.node().dropped.add(cause, count);
    }

    fn all(&self) -> Vec<Rc<RefCell<Conn>>> {
        self.conns.borrow().iter().map(|(_, (_, conn))| Rc::clone(conn)).collect()
    }

    fn find(&self, session: SessionRef) -> Option<Rc<RefCell<Conn>>> {
        let conns = self.conns.borrow();
        let (generation, conn) = conns.get(session.slot as usize)?;
        (session.shard == self.index && *generation == session.generation).then(|| Rc::clone(conn))
    }

    /// Gives an event to a session of this shard; to one that is gone, nothing happens.
    fn event(self: &Rc<Self>, session: SessionRef, event: Event) {
        if let Some(conn) = self.find(session) {
            self.event_on(&conn, event);
        }
    }

    fn event_on(self: &Rc<Self>, conn: &Rc<RefCell<Conn>>, event: Event) {
        let (now, wall) = self.now();
        let mut published = Vec::new();
        {
            let mut conn_ref = conn.borrow_mut();
            self.handle(&mut conn_ref, now, wall, event, &mut published);
            self.mark_dirty(conn, &mut conn_ref);
        }
        if !published.is_empty() {
            self.route(conn, now, wall, published);
        }
    }

    fn mark_dirty(&self, conn: &Rc<RefCell<Conn>>, conn_ref: &mut Conn) {
        if !conn_ref.dirty {
            conn_ref.dirty = true;
            self.dirty.borrow_mut().push(Rc::clone(conn));
            self.wake_flusher();
        }
    }

    fn wake_flusher(&self) {
        if let Some(waker) = self.flusher.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Delivers to one live session of this shard.
    fn deliver(
        self: &Rc<Self>,
        now: Instant,
        wall: WallMs,
        message: &Arc<Message>,
        target: Target,
        frames: &mut Frames,
    ) {
        let Some(conn) = self.find(target.session) else { return };
        let mut conn_ref = conn.borrow_mut();
        if !conn_ref.rights(&*self.node.authorizer).may_receive(&message.topic) {
            self.dropped(counters::NOT_AUTHORIZED, 1);
            return;
        }
        if target.qos == QoS::AtMostOnce && conn_ref.outbox_is_full() {
            self.dropped(counters::SLOW_RECEIVER, 1);
            return;
        }
        let message = if target.qos > QoS::AtMostOnce && conn_ref.session.would_queue() {
            frames.detached(message)
        } else {
            Arc::clone(message)
        };
        let delivery = Delivery {
            message,
            qos: target.qos,
            retain: target.retain,
            subscription_identifiers: target.identifiers.into_vec(),
        };
        self.handle_delivery(&mut conn_ref, now, wall, delivery, frames);
        self.mark_dirty(&conn, &mut conn_ref);
    }

    /// Brings what one connection published to its receivers, in order, and answers what needs no commit. What a store has to know waits
    /// while the routes of this node are not known to be complete ([`Freshness`](crate::cluster::Freshness)).
    fn route(self: &Rc<Self>, conn: &Rc<RefCell<Conn>>, now: Instant, wall: WallMs, mut published: Vec<Published>) {
        if !self.node.fresh.is_fresh(now) || !conn.borrow().unrouted.is_empty() {
            let waits = |p: &mut Published| p.allowed && (p.message.qos > QoS::AtMostOnce || p.message.retain);
            let mut later = published.extract_if(.., waits).peekable();
            if later.peek().is_some() {
                let mut conn_ref = conn.borrow_mut();
                let first = conn_ref.unrouted.is_empty();
                for waiting in later {
                    // What needs an acknowledgement is bounded by those that are due; QoS 0 is not.
                    if waiting.op.is_some() || conn_ref.unrouted.len() < UNROUTED_MAX {
                        conn_ref.unrouted.push(waiting);
                    } else {
                        self.dropped(counters::UNAVAILABLE, 1);
                    }
                }
                if first {
                    tokio::task::spawn_local(Rc::clone(self).route_when_fresh(Rc::clone(conn)));
                }
            }
        }
        if published.is_empty() {
            return;
        }
        if self.is_owner(conn) {
            self.route_now(conn, now, wall, published);
        } else {
            self.count_lost(&published);
        }
    }

    /// Counts what nobody will send again: without an acknowledgement due, a message is gone when it is dropped.
    fn count_lost(&self, published: &[Published]) {
        let lost = published.iter().filter(|p| p.op.is_none()).count();
        self.dropped(counters::UNAVAILABLE, lost as u64);
    }

    /// After a pause of this node: whether the session still is the connection's own. One that is not ends, and what it published is the
    /// matter of the connection that has it now.
    fn is_owner(self: &Rc<Self>, conn: &Rc<RefCell<Conn>>) -> bool {
        let resumed = self.node.fresh.resumed();
        let owns = {
            let mut conn = conn.borrow_mut();
            if conn.verified == resumed {
                return true;
            }
            conn.verified = resumed;
            conn.inbox.as_ref().is_none_or(|(_, version)| self.node.inbox.owns(*version))
        };
        if !owns {
            let reason = ReasonCode::SessionTakenOver;
            self.event_on(conn, Event::Disconnect { reason, publish_will: false });
        }
        owns
    }

    /// Routes what had to wait, or refuses it when the routes can't be confirmed.
    async fn route_when_fresh(self: Rc<Self>, conn: Rc<RefCell<Conn>>) {
        let fresh = tokio::time::timeout(FRESH_WAIT, self.node.fresh.wait(&*self.node.clock)).await.is_ok();
        let waited = std::mem::take(&mut conn.borrow_mut().unrouted);
        // Not acknowledged, and without its session a message of QoS 2 could not be told from its repetition.
        if !conn.borrow().is_open() || !conn.borrow().session.is_connected() {
            return self.count_lost(&waited);
        }
        let (now, wall) = self.now();
        if fresh {
            if self.is_owner(&conn) {
                self.route_now(&conn, now, wall, waited);
            } else {
                self.count_lost(&waited);
            }
            return;
        }
        debug!(count = waited.len(), "messages are refused: the routes could not be confirmed");
        let mut conn_ref = conn.borrow_mut();
        let mut none = Vec::new();
        for Published { op, .. } in waited {
            let Some(op) = op else {
                self.dropped(counters::UNAVAILABLE, 1);
                continue;
            };
            let outcome = PublishOutcome::Failed(ReasonCode::ServerBusy);
            self.handle(&mut conn_ref, now, wall, Event::PublishDone(op, outcome), &mut none);
        }
        self.mark_dirty(&conn, &mut conn_ref);
    }

    fn route_now(self: &Rc<Self>, conn: &Rc<RefCell<Conn>>, now: Instant, wall: WallMs, published: Vec<Published>) {
        let (me, tenant, owner) = {
            let conn = conn.borrow();
            (conn.me, conn.tenant.clone(), conn.inbox.clone())
        };
        let mut receivers = self.receivers.borrow_mut();
        let mut done: Vec<(OpId, PublishOutcome)> = Vec::new();
        let mut waiting = Vec::new();
        for Published { op, message, inbound, allowed } in published {
            if !allowed {
                self.node.metrics.node().denied.inc(if message.retain { "retain" } else { "publish" });
                if let Some(op) = op {
                    done.push((op, PublishOutcome::Refused(ReasonCode::NotAuthorized)));
                }
                continue;
            }
            {
                let live = self.node.live_read();
                self.node.receivers(&tenant, &message, Some(me), &live, &mut receivers);
            }
            let count = receivers.live.len() + receivers.inboxes.len() + receivers.nodes.len();
            let mut retained = message.retain;
            // An empty retained message makes room.
            let stores = !receivers.inboxes.is_empty() || (retained && !message.payload.is_empty());
            if stores && self.node.disk.refuses() {
                if let Some(op) = op {
                    done.push((op, PublishOutcome::Failed(ReasonCode::QuotaExceeded)));
                    continue;
                }
                self.dropped(counters::DISK_ALARM, 1);
                retained = false;
            }
            if count == 0 {
                self.metrics.unrouted.inc();
            }
            if count == 0 && !retained && inbound.is_none() {
                if let Some(op) = op {
                    done.push((op, PublishOutcome::Accepted { receivers: 0 }));
                }
                continue;
            }
            let bytes = message.cost();
            let message = Arc::new(message);
            // Whether it is the repetition of one that came over another node, the store of its session knows: nobody gets it before.
            let held = (owner.is_some() && inbound.is_some()).then(|| {
                let (live, nodes) = (std::mem::take(&mut receivers.live), std::mem::take(&mut receivers.nodes));
                Box::new(Held { tenant: tenant.clone(), message: Arc::clone(&message), live, nodes, retained })
            });
            let mut retain = None;
            if held.is_none() {
                self.deliver_all(now, wall, &message, &mut receivers.live);
                self.pack(&tenant, &message, &mut receivers.nodes);
                retain = retained.then(|| self.node.retain.retain(&tenant, Arc::clone(&message)));
            }
            let origin = match (&owner, inbound) {
                (Some((inbox, version)), Some(packet_id)) => {
                    Origin::Inbound { inbox: inbox.clone(), version: *version, packet_id }
                }
                _ => Origin::None,
            };
            let inserts = self.insert(&tenant, &message, &receivers.inboxes, origin);
            if retain.is_none() && inserts.is_empty() {
                done.extend(op.map(|op| (op, PublishOutcome::Accepted { receivers: count as u64 })));
            } else {
                self.node.open.enter(bytes);
                waiting.push(Committing { op, bytes, count: count as u64, retain, inserts, held });
            }
        }
        drop(receivers);
        if !waiting.is_empty() {
            let first = {
                let mut conn = conn.borrow_mut();
                conn.committing.extend(waiting);
                !std::mem::replace(&mut conn.is_committing, true)
            };
            if first {
                tokio::task::spawn_local(Rc::clone(self).settle_in_turn(Rc::clone(conn)));
            }
        }
        if !done.is_empty() {
            let mut conn_ref = conn.borrow_mut();
            let mut none = Vec::new();
            for (op, outcome) in done {
                self.handle(&mut conn_ref, now, wall, Event::PublishDone(op, outcome), &mut none);
            }
            self.mark_dirty(conn, &mut conn_ref);
        }
    }

    /// Answers what one connection published as it is committed, in the order in which it came.
    async fn settle_in_turn(self: Rc<Self>, conn: Rc<RefCell<Conn>>) {
        loop {
            let next = conn.borrow_mut().committing.pop_front();
            let Some(Committing { op, bytes, count, retain, inserts, held }) = next else {
                let mut conn = conn.borrow_mut();
                // Empty, it owns no memory.
                conn.committing = VecDeque::new();
                conn.is_committing = false;
                return;
            };
            let (mut outcome, repeated) = inserted(count, inserts).await;
            let mut retain = retain;
            if let Some(held) = held.filter(|_| !repeated && matches!(outcome, PublishOutcome::Accepted { .. })) {
                let Held { tenant, message, mut live, mut nodes, retained } = *held;
                let (now, wall) = self.now();
                self.deliver_all(now, wall, &message, &mut live);
                self.pack(&tenant, &message, &mut nodes);
                retain = retained.then(|| self.node.retain.retain(&tenant, message));
            }
            if let (Some(retain), PublishOutcome::Accepted { .. }) = (retain, outcome) {
                outcome = retained(count, retain).await;
            }
            self.node.open.leave(bytes);
            match op {
                Some(op) => {
                    let me = conn.borrow().me;
                    self.event(me, Event::PublishDone(op, outcome));
                }
                None if !matches!(outcome, PublishOutcome::Accepted { .. }) => self.dropped(counters::UNAVAILABLE, 1),
                None => {}
            }
        }
    }

    /// Queues a message for inboxes: in one command, unless there are very many of them.
    fn insert(
        &self,
        tenant: &TenantId,
        message: &Arc<Message>,
        receivers: &[InboxReceiver],
        mut origin: Origin,
    ) -> Inserts {
        let settles_nothing = origin == Origin::None;
        let mut insert = |receivers: &[InboxReceiver]| {
            let origin = std::mem::replace(&mut origin, Origin::None);
            let (tenant, message) = (tenant.clone(), Arc::clone(message));
            self.node.inbox.insert(Insert { tenant, message, receivers: receivers.to_vec(), origin })
        };
        match receivers {
            [] if settles_nothing => Inserts::new(),
            few if few.len() <= RECEIVERS_AT_ONCE => std::iter::once(insert(few)).collect(),
            many => many.chunks(RECEIVERS_AT_ONCE).map(insert).collect(),
        }
    }

    /// Delivers to live sessions wherever on this node they are: here at once, on other shards with the next flush.
    fn deliver_all(self: &Rc<Self>, now: Instant, wall: WallMs, message: &Arc<Message>, targets: &mut Vec<Target>) {
        let mut frames = Frames::new(targets.len());
        let mut elsewhere = false;
        for target in targets.drain(..) {
            if target.session.shard == self.index {
                self.deliver(now, wall, message, target, &mut frames);
                continue;
            }
            elsewhere = true;
            self.metrics.handed_over.inc();
            let mut outgoing = self.outgoing.borrow_mut();
            let Some(letters) = outgoing.get_mut(usize::from(target.session.shard)) else { continue };
            match letters.last_mut() {
                Some(Letter::Deliver { message: last, targets }) if Arc::ptr_eq(last, message) => targets.push(target),
                _ => letters
                    .push(Letter::Deliver { message: Arc::clone(message), targets: std::iter::once(target).collect() }),
            }
        }
        if elsewhere {
            self.wake_flusher();
        }
    }

    /// Puts a message into what goes to other nodes with the next flush.
    fn pack(&self, tenant: &TenantId, message: &Message, nodes: &mut Vec<(NodeId, Aim)>) {
        if nodes.is_empty() {
            return;
        }
        let mut parcels = self.parcels.borrow_mut();
        for (node, aim) in nodes.drain(..) {
            let at = parcels.iter().position(|(to, _)| *to == node).unwrap_or_else(|| {
                parcels.push((node, Parcel::default()));
                parcels.len() - 1
            });
            let parcel = &mut parcels[at].1;
            parcel.push(tenant, &aim, message);
            if parcel.len() >= PARCEL_BYTES {
                self.node.remote.send(&self.node, node, parcel);
            }
        }
        self.wake_flusher();
    }

    /// Sends what is for other nodes: at once after a pause, and under load once in [`PARCELS_EVERY`]. Each parcel wakes a thread here and
    /// two there, which costs more than the messages in it.
    fn send_parcels(self: &Rc<Self>) {
        if !self.has_parcels() || self.parcels_wait.get() {
            return;
        }
        let (now, due) = (tokio::time::Instant::now(), self.parcels_due.get());
        if due.is_some_and(|due| now < due) {
            self.parcels_wait.set(true);
            let shard = Rc::clone(self);
            self.later(async move {
                if let Some(due) = due {
                    tokio::time::sleep_until(due).await;
                }
                shard.parcels_wait.set(false);
                shard.send_parcels_now();
            });
        } else {
            self.send_parcels_now();
        }
    }

    fn send_parcels_now(&self) {
        self.parcels_due.set(Some(tokio::time::Instant::now() + PARCELS_EVERY));
        let mut parcels = self.parcels.borrow_mut();
        for (node, parcel) in parcels.iter_mut().filter(|(_, parcel)| !parcel.is_empty()) {
            self.node.remote.send(&self.node, *node, parcel);
        }
    }

    fn has_parcels(&self) -> bool {
        self.parcels.borrow().iter().any(|(_, parcel)| !parcel.is_empty())
    }

    /// Writes what became writable, once for each connection and wake-up.
    async fn flush_loop(self: Rc<Self>) {
        loop {
            poll_fn(|cx| {
                if self.dirty.borrow().is_empty()
                    && self.outgoing.borrow().iter().all(Vec::is_empty)
                    && (!self.has_parcels() || self.parcels_wait.get())
                {
                    *self.flusher.borrow_mut() = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
            .await;
            for (shard, letters) in self.outgoing.borrow_mut().iter_mut().enumerate() {
                if !letters.is_empty()
                    && let Some(handle) = self.node.shards.get(shard)
                {
                    handle.send_all(letters);
                }
            }
            self.send_parcels();
            let dirty = std::mem::take(&mut *self.dirty.borrow_mut());
            for conn in &dirty {
                self.flush(conn);
            }
            self.keep(dirty);
            // Whatever became ready meanwhile goes first.
            tokio::task::yield_now().await;
        }
    }

    /// Uses the memory of a list of flushed connections again, unless somebody was marked meanwhile.
    fn keep(&self, mut flushed: Vec<Rc<RefCell<Conn>>>) {
        let mut list = self.dirty.borrow_mut();
        if list.is_empty() {
            flushed.clear();
            *list = flushed;
        }
    }

    fn flush(self: &Rc<Self>, conn: &Rc<RefCell<Conn>>) {
        let (now, wall) = self.now();
        let mut conn_ref = conn.borrow_mut();
        conn_ref.dirty = false;
        let mut none = Vec::new();
        self.flush_session(&mut conn_ref, now, wall, &mut none);
        self.send_retained(&mut conn_ref, now, wall);
        self.write(&mut conn_ref, now);
        if conn_ref.wants_retained() {
            self.come_back(conn_ref.me);
        }
        self.schedule(&mut conn_ref);
        conn_ref.wake_if_needed();
    }

    async fn timer_loop(self: Rc<Self>) {
        loop {
            self.timers.wait(&*self.node.clock).await;
            let now = self.node.clock.now();
            if !self.stalled.borrow().is_empty() && !self.node.is_congested() {
                for waker in self.stalled.borrow_mut().drain(..) {
                    waker.wake();
                }
            } else if !self.stalled.borrow().is_empty() {
                self.timers.set(now + STALL_CHECK, None);
            }
            while let Some(session) = self.timers.due(now) {
                let Some(conn) = self.find(session) else { continue };
                let mut conn_ref = conn.borrow_mut();
                conn_ref.called(now);
                let stuck = conn_ref.is_stuck(now);
                let late = conn_ref.is_packet_late(now);
                drop(conn_ref);
                if stuck {
                    debug!(session = ?session, "closing a connection that took nothing for too long");
                    conn.borrow_mut().abort();
                } else if late {
                    let event = conn.borrow_mut().packet_is_late();
                    self.event_on(&conn, event);
                } else if conn.borrow().session_deadline().is_some_and(|at| at <= now) {
                    self.event_on(&conn, Event::Timeout);
                }
                let mut conn_ref = conn.borrow_mut();
                conn_ref.wake_if_throttled();
                self.schedule(&mut conn_ref);
            }
        }
    }

    fn write(&self, conn: &mut Conn, now: Instant) {
        let bytes_per_sec = self.node.settings.out_bound_band_width;
        conn.write(&mut self.spare_buffers.borrow_mut(), &self.metrics, bytes_per_sec, now);
    }

    /// Sees that the timers know the next deadline of a connection.
    fn schedule(&self, conn: &mut Conn) {
        if let Some(at) = conn.deadline(self.node.clock.now())
            && conn.scheduled.is_none_or(|scheduled| at < scheduled)
        {
            conn.scheduled = Some(at);
            self.timers.set(at, Some(conn.me));
        }
        if let Some(at) = conn.packet_call() {
            self.timers.set(at, Some(conn.me));
        }
    }

    /// Lets a connection wait until the node is no longer congested.
    fn stall(&self, waker: &Waker) {
        let mut stalled = self.stalled.borrow_mut();
        if stalled.is_empty() {
            self.timers.set(self.node.clock.now() + STALL_CHECK, None);
        }
        stalled.push(waker.clone());
    }
}

/// The least time between two parcels of a shard for other nodes; what the timers of a runtime can tell apart.
const PARCELS_EVERY: Duration = Duration::from_millis(1);

/// Retained messages of QoS 0 of one connection that wait for the routes; more are dropped.
const UNROUTED_MAX: usize = 256;

/// How long QoS 1 and 2 wait until the routes are confirmed.
const FRESH_WAIT: Duration = Duration::from_secs(8);

/// How often a shard looks whether the node is still congested.
const STALL_CHECK: Duration = Duration::from_millis(1);

/// Inboxes that one command names.
const RECEIVERS_AT_ONCE: usize = 16 * 1024;

type Inserts = SmallVec<[inbox_api::InboxFuture<Vec<InsertOutcome>>; 1]>;

/// What became of a message at the inboxes, and whether it was there already.
async fn inserted(count: u64, inserts: Inserts) -> (PublishOutcome, bool) {
    let (mut refused, mut repeated) = (0, false);
    for insert in inserts {
        match insert.await {
            Ok(outcomes) => {
                let full = InsertOutcome::Dropped(inbox_api::DropCause::QueueFullRejected);
                refused += outcomes.iter().filter(|outcome| **outcome == full).count() as u64;
                repeated |= outcomes.contains(&InsertOutcome::Repeated);
            }
            Err(error) => {
                debug!(%error, "a message could not be queued");
                return (PublishOutcome::Failed(ReasonCode::ServerBusy), repeated);
            }
        }
    }
    // Reject is told only when nobody got it.
    if refused > 0 && refused == count {
        return (PublishOutcome::Refused(ReasonCode::QuotaExceeded), repeated);
    }
    (PublishOutcome::Accepted { receivers: count }, repeated)
}

async fn retained(count: u64, retain: retain_api::RetainFuture) -> PublishOutcome {
    match retain.await {
        Ok(()) => PublishOutcome::Accepted { receivers: count },
        Err(retain_api::RetainError::TooMany { .. }) => PublishOutcome::Refused(ReasonCode::QuotaExceeded),
        Err(error) => {
            debug!(%error, "a retained message could not be set");
            PublishOutcome::Failed(ReasonCode::ServerBusy)
        }
    }
}

/// A future on the heap: what waits rarely should not enlarge what waits always.
type Later = Pin<Box<dyn Future<Output = ()>>>;
