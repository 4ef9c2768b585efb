use super::outbox::{Outbox, SHARE_FROM};
use super::retained::Cursor;
use super::throttle::Throttle;
use super::{Committing, Published, READ_BYTES, Shard};
use crate::counters;
use crate::listener::ConnectionPermit;
use crate::live::SessionRef;
use base_types::{Message, PacketId, QoS, TenantId, WallMs};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use inbox_api::{InboxId, SessionVersion};
use mqtt_auth::{Authorizer, ConnectInfo, Permissions, Principal};
use mqtt_codec::{Decoder, Packet, PublishParts, ReasonCode, Role, Version, encode};
use mqtt_session::{Action, Alias, Delivery, Event, Session};
use mqtt_transport::{Peer, Transport};
use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use telemetry::{PacketKind, ShardMetrics};
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;
use tokio_util::io::poll_read_buf;
use tracing::debug;

/// One connection: a transport, a codec and a session, and what is between them.
pub(crate) struct Conn {
    pub(super) me: SessionRef,
    pub(super) session: Session,
    pub(super) tenant: TenantId,
    /// The verified user; empty for anonymous.
    pub(super) user: ByteString,
    /// Who it is, once the client id is known.
    pub(super) principal: Option<Principal>,
    permissions: Permissions,
    /// What the client showed, kept for enhanced authentication.
    pub(super) shown: Option<Box<ConnectInfo>>,
    /// The inbox that this connection owns, if any; it may hold only a will.
    pub(super) inbox: Option<(InboxId, SessionVersion)>,
    /// The claim of the client id.
    pub(super) claimed: Option<InboxId>,
    /// Filters of the session's subscriptions, live or of its inbox, as subscribed.
    pub(super) subscriptions: HashSet<Box<str>>,
    pub(super) retained: VecDeque<Cursor>,
    pub(super) kicked: Vec<oneshot::Sender<()>>,
    /// Published with QoS 1 or 2 while the routes were not known to be complete; at most what the client may have unacknowledged.
    pub(super) unrouted: Vec<Published>,
    /// Published and on its way to be committed, in order; somebody answers it as it is.
    pub(super) committing: VecDeque<Committing>,
    pub(super) is_committing: bool,
    /// The pause of this node after which the session was found to be this connection's own.
    pub(super) verified: u64,
    pub(super) dirty: bool,
    pub(super) scheduled: Option<Instant>,
    /// By when the packet that `inbound` begins with must be there whole.
    packet_due: Option<Instant>,
    /// When the timers call for it: one call at a time, however many packets come in pieces.
    packet_call: Option<Instant>,
    pub(super) peer: Arc<Peer>,
    transport: Transport,
    decoder: Decoder,
    /// Bytes of a packet that has not arrived whole, or of packets that must wait.
    inbound: BytesMut,
    outbox: Outbox,
    waker: Option<Waker>,
    /// The connection waits for something else than its socket before it reads on.
    paused: bool,
    /// CONNACK said yes, to a client of this version.
    admitted: Option<Version>,
    blocked_since: Option<Instant>,
    reading: Throttle,
    writing: Throttle,
    phase: Phase,
    /// The cause that its end is counted under, once it is known.
    ended: Option<&'static str>,
    _permit: ConnectionPermit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Write what is left, then close.
    Closing,
    /// Everything is written and our side is shut; the peer's last bytes are read away so that it can read ours.
    Lingering(Instant),
    Gone,
}

/// QoS 0 deliveries are dropped, and counted, beyond this.
const OUTBOX_BYTES_MAX: usize = 1024 * 1024;
/// A connection that takes nothing for so long is closed.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// How long a closed connection's last bytes are waited for.
const LINGER: Duration = Duration::from_secs(2);
/// Reads in a row before others get their turn.
const READS_IN_A_ROW: usize = 4;

/// A PUBLISH that is the same for many receivers, encoded once for each version.
pub(super) struct Frames {
    wanted: bool,
    old: Option<Bytes>,
    v5: Option<Bytes>,
    detached: Option<Arc<Message>>,
}

/// One PUBLISH on its way out, as [`Action::Deliver`] names it.
struct Sending {
    delivery: Delivery,
    packet_id: Option<PacketId>,
    dup: bool,
    alias: Option<Alias>,
}

impl Frames {
    /// For so many receivers.
    pub(super) fn new(receivers: usize) -> Self {
        Self { wanted: receivers > 2, old: None, v5: None, detached: None }
    }

    /// The message in memory of its own, for whoever keeps it: a small message would keep a whole read buffer alive.
    pub(super) fn detached(&mut self, message: &Arc<Message>) -> Arc<Message> {
        Arc::clone(self.detached.get_or_insert_with(|| Arc::new(message.detached())))
    }
}

impl Conn {
    pub(super) fn new(
        me: SessionRef,
        session: Session,
        transport: Transport,
        peer: Peer,
        permit: ConnectionPermit,
        packet_bytes_max: u32,
    ) -> Self {
        Self {
            me,
            session,
            tenant: TenantId::default(),
            user: ByteString::new(),
            principal: None,
            permissions: Permissions::nothing(0),
            shown: None,
            inbox: None,
            claimed: None,
            subscriptions: HashSet::new(),
            retained: VecDeque::new(),
            kicked: Vec::new(),
            unrouted: Vec::new(),
            committing: VecDeque::new(),
            is_committing: false,
            verified: 0,
            dirty: false,
            scheduled: None,
            packet_due: None,
            packet_call: None,
            peer: Arc::new(peer),
            transport,
            decoder: Decoder::new(Role::Server, packet_bytes_max),
            inbound: BytesMut::new(),
            outbox: Outbox::default(),
            waker: None,
            paused: false,
            admitted: None,
            blocked_since: None,
            reading: Throttle::default(),
            writing: Throttle::default(),
            phase: Phase::Open,
            ended: None,
            _permit: permit,
        }
    }

    /// What the client may do now: asked for again when a rule may have changed.
    pub(super) fn rights(&mut self, authorizer: &dyn Authorizer) -> &Permissions {
        if self.permissions.generation() != authorizer.generation()
            && let Some(principal) = &self.principal
        {
            self.permissions = authorizer.permissions(principal);
        }
        &self.permissions
    }

    pub(super) fn outbox_is_full(&self) -> bool {
        self.outbox.len() > OUTBOX_BYTES_MAX
    }

    pub(super) fn outbox_len(&self) -> usize {
        self.outbox.len()
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn session_deadline(&self) -> Option<Instant> {
        if self.is_open() { self.session.poll_timeout() } else { None }
    }

    /// The next moment at which this connection must be looked at.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let stuck = self.blocked_since.map(|since| since + STUCK_AFTER);
        let lingering = if let Phase::Lingering(until) = self.phase { Some(until) } else { None };
        let writing = if self.outbox.is_empty() { None } else { self.writing.wait(now) };
        [self.session_deadline(), stuck, lingering, self.reading.wait(now), writing].into_iter().flatten().min()
    }

    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Lingering(until) => until <= now,
            _ => self.blocked_since.is_some_and(|since| since + STUCK_AFTER <= now),
        }
    }

    /// Notes what is left of a read: the beginning of a packet must be followed by its end. Each packet has its own time.
    fn await_rest(&mut self, bytes: usize, packets: bool, now: Instant, limit: Duration) {
        let reads_on = self.is_open() && !self.session.inbound_paused();
        self.packet_due = match self.packet_due {
            _ if bytes == 0 || !reads_on => None,
            Some(due) if !packets => Some(due),
            _ => now.checked_add(limit),
        };
    }

    pub(super) fn is_packet_late(&self, now: Instant) -> bool {
        self.is_open() && self.packet_due.is_some_and(|due| due <= now)
    }

    /// Takes note of a call by the timers, and tells for when the next one is to be ordered for the packet that is under way.
    pub(super) fn called(&mut self, now: Instant) {
        self.scheduled = self.scheduled.filter(|at| *at > now);
        self.packet_call = self.packet_call.filter(|at| *at > now);
    }

    /// When to be called for the packet that is under way, if that was not ordered yet.
    pub(super) fn packet_call(&mut self) -> Option<Instant> {
        if self.packet_call.is_some() || self.packet_due.is_none() {
            return None;
        }
        self.packet_call = self.packet_due;
        self.packet_due
    }

    /// The packet that is under way did not come in time.
    pub(super) fn packet_is_late(&mut self) -> Event {
        self.packet_due = None;
        self.ended = Some(counters::PACKET_TIMEOUT);
        let detail = "the rest of a packet did not come in time".to_owned();
        Event::Malformed { reason: ReasonCode::ImplementationSpecificError, detail }
    }

    /// Gives the transport up without another word.
    pub(super) fn abort(&mut self) {
        self.phase = Phase::Gone;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Wakes the connection's task when a bandwidth held it.
    pub(super) fn wake_if_throttled(&mut self) {
        if self.reading.is_used() || self.writing.is_used() {
            self.wake();
        }
    }

    /// Wakes the connection's task when it has more to do than its socket tells it.
    pub(super) fn wake_if_needed(&mut self) {
        let resumes = self.paused && !self.session.inbound_paused();
        if resumes || self.phase != Phase::Open {
            self.wake();
        }
    }

    /// Writes what waits. What the transport does not take now, the connection's task goes on with.
    pub(super) fn write(
        &mut self,
        spare: &mut Vec<BytesMut>,
        metrics: &ShardMetrics,
        bytes_per_sec: u64,
        now: Instant,
    ) {
        if self.outbox.is_empty() || matches!(self.phase, Phase::Gone) {
            return;
        }
        if self.is_open() && self.writing.wait(now).is_some() {
            return;
        }
        let waker = self.waker.clone().unwrap_or_else(|| Waker::noop().clone());
        let before = self.outbox.len();
        let result = self.outbox.poll_write(&mut self.transport, &mut Context::from_waker(&waker));
        metrics.writes.inc();
        let written = before - self.outbox.len();
        metrics.bytes_sent.add(written as u64);
        self.writing.moved(now, written, bytes_per_sec);
        match result {
            Poll::Ready(Ok(())) => {
                self.blocked_since = None;
                self.outbox.give_back(spare);
            }
            Poll::Ready(Err(_)) => self.abort(),
            Poll::Pending => {
                if self.outbox.len() < before || self.blocked_since.is_none() {
                    self.blocked_since = Some(now);
                }
            }
        }
        // TLS and WebSocket buffer what they framed; for TCP this does nothing.
        if !matches!(self.transport, Transport::Tcp(_)) {
            let flushed = Pin::new(&mut self.transport).poll_flush(&mut Context::from_waker(&waker));
            if let Poll::Ready(Err(_)) = flushed {
                self.abort();
            }
        }
    }

    fn send(&mut self, packet: &Packet, spare: &mut Vec<BytesMut>) {
        let version = self.session.version().unwrap_or(Version::V4);
        self.outbox.borrow(spare);
        if let Err(error) = self.outbox.append(|out| encode(packet, version, out)) {
            debug!(%error, "a packet could not be encoded");
        }
    }

    fn send_publish(
        &mut self,
        Sending { delivery, packet_id, dup, alias }: Sending,
        wall: WallMs,
        frames: &mut Frames,
        spare: &mut Vec<BytesMut>,
    ) {
        let version = self.session.version().unwrap_or(Version::V4);
        let message = &*delivery.message;
        let parts = PublishParts {
            topic: if alias.is_some_and(|a| a.known) { "" } else { message.topic.as_str() },
            payload: &message.payload,
            qos: delivery.qos,
            retain: delivery.retain,
            dup,
            packet_id,
            message_expiry_interval: message.expiry_left_secs(wall),
            topic_alias: alias.map(|a| a.alias),
            subscription_identifiers: &delivery.subscription_identifiers,
            forwarded: &message.properties,
        };
        let plain = frames.wanted
            && delivery.qos == QoS::AtMostOnce
            && !delivery.retain
            && alias.is_none()
            && delivery.subscription_identifiers.is_empty();
        if plain {
            let frame = if version == Version::V5 { &mut frames.v5 } else { &mut frames.old };
            let frame = frame.get_or_insert_with(|| {
                let mut out = BytesMut::with_capacity(parts.encoded_len(version));
                parts.encode(version, &mut out);
                out.freeze()
            });
            self.outbox.push_shared(frame.clone());
            return;
        }
        self.outbox.borrow(spare);
        if message.payload.len() >= SHARE_FROM {
            self.outbox.append(|out| parts.encode_head(version, out));
            self.outbox.push_shared(message.payload.clone());
        } else {
            self.outbox.append(|out| parts.encode(version, out));
        }
    }
}

impl Shard {
    /// The life of a connection, from its first byte to its last.
    pub(super) async fn serve(self: Rc<Self>, conn: Rc<RefCell<Conn>>) {
        std::future::poll_fn(|cx| self.poll_conn(&conn, cx)).await;
        self.finish(&conn);
    }

    fn poll_conn(self: &Rc<Self>, conn: &Rc<RefCell<Conn>>, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_IN_A_ROW {
            let (now, wall) = self.now();
            let mut published = Vec::new();
            let mut conn_ref = conn.borrow_mut();
            if !conn_ref.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                conn_ref.waker = Some(cx.waker().clone());
            }
            // Only what the transport did not take before: what is new leaves with the flusher, together.
            if conn_ref.blocked_since.is_some() || conn_ref.writing.is_used() || !conn_ref.is_open() {
                self.write(&mut conn_ref, now);
                self.schedule(&mut conn_ref);
                if conn_ref.wants_retained() {
                    self.mark_dirty(conn, &mut conn_ref);
                }
            }
            match conn_ref.phase {
                Phase::Open => {}
                Phase::Closing => {
                    if !conn_ref.outbox.is_empty() {
                        return Poll::Pending;
                    }
                    match Pin::new(&mut conn_ref.transport).poll_shutdown(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(_) => {
                            conn_ref.phase = Phase::Lingering(now + LINGER);
                            self.schedule(&mut conn_ref);
                        }
                    }
                    continue;
                }
                Phase::Lingering(_) => {
                    let mut last = BytesMut::with_capacity(1024);
                    match poll_read_buf(Pin::new(&mut conn_ref.transport), cx, &mut last) {
                        Poll::Ready(Ok(n)) if n > 0 => continue,
                        Poll::Ready(_) => return Poll::Ready(()),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Phase::Gone => return Poll::Ready(()),
            }
            conn_ref.paused = conn_ref.session.inbound_paused();
            if conn_ref.paused {
                conn_ref.packet_due = None;
                return Poll::Pending;
            }
            if conn_ref.reading.wait(now).is_some() {
                return Poll::Pending;
            }
            if self.node.is_congested() {
                conn_ref.packet_due = None;
                drop(conn_ref);
                self.stall(cx.waker());
                return Poll::Pending;
            }
            // What had to wait comes before what the socket has.
            let waited = !conn_ref.inbound.is_empty() && self.take_inbound(&mut conn_ref, now, wall, &mut published);
            let mut pending = false;
            if !waited {
                match self.read(&mut conn_ref, cx, now, wall, &mut published) {
                    Poll::Ready(()) => {}
                    Poll::Pending => pending = true,
                }
            }
            if !pending {
                self.mark_dirty(conn, &mut conn_ref);
            }
            drop(conn_ref);
            if !published.is_empty() {
                self.route(conn, now, wall, published);
            }
            if pending {
                return Poll::Pending;
            }
        }
        // Others get their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Decodes what had arrived before; tells whether a packet came out of it.
    fn take_inbound(
        self: &Rc<Self>,
        conn: &mut Conn,
        now: Instant,
        wall: WallMs,
        published: &mut Vec<Published>,
    ) -> bool {
        let mut bytes = std::mem::take(&mut conn.inbound);
        let before = bytes.len();
        self.decode(conn, &mut bytes, now, wall, published);
        let any = bytes.len() < before || !conn.is_open();
        conn.inbound = bytes;
        any
    }

    /// One read, and everything that it brought.
    fn read(
        self: &Rc<Self>,
        conn: &mut Conn,
        cx: &mut Context<'_>,
        now: Instant,
        wall: WallMs,
        published: &mut Vec<Published>,
    ) -> Poll<()> {
        // A connection in the middle of a packet reads into its own buffer, the others into one that the shard shares.
        let own = !conn.inbound.is_empty();
        let mut shared = self.read_buffer.borrow_mut();
        let mut buffer = if own { std::mem::take(&mut conn.inbound) } else { std::mem::take(&mut *shared) };
        buffer.reserve(if own { buffer.len().clamp(4096, 16 * READ_BYTES) } else { READ_BYTES });
        let result = poll_read_buf(Pin::new(&mut conn.transport), cx, &mut buffer);
        match result {
            Poll::Ready(Ok(n)) if n > 0 => {
                self.metrics.reads.inc();
                self.metrics.bytes_received.add(n as u64);
                let held = conn.reading.moved(now, n, self.node.settings.in_bound_band_width);
                self.decode(conn, &mut buffer, now, wall, published);
                // What we make it wait is not its fault.
                conn.packet_due = conn.packet_due.and_then(|due| due.checked_add(held));
            }
            Poll::Ready(result) => {
                if let Err(error) = result {
                    debug!(%error, peer = %conn.peer.addr, "the transport failed");
                }
                self.handle(conn, now, wall, Event::TransportClosed, published);
                conn.phase = Phase::Gone;
            }
            Poll::Pending => {
                if own {
                    conn.inbound = buffer;
                } else {
                    *shared = buffer;
                }
                return Poll::Pending;
            }
        }
        if own {
            // An idle connection keeps no buffer.
            conn.inbound = if buffer.is_empty() { BytesMut::new() } else { buffer };
        } else {
            if !buffer.is_empty() {
                conn.inbound = BytesMut::from(&buffer[..]);
                buffer.clear();
            }
            *shared = buffer;
        }
        Poll::Ready(())
    }

    fn decode(
        self: &Rc<Self>,
        conn: &mut Conn,
        bytes: &mut BytesMut,
        now: Instant,
        wall: WallMs,
        published: &mut Vec<Published>,
    ) {
        let mut packets = false;
        while conn.is_open() && !conn.session.inbound_paused() {
            match conn.decoder.decode(bytes) {
                Ok(Some(packet)) => {
                    packets = true;
                    self.metrics.packets_received[counters::kind(&packet)].inc();
                    if let Packet::Publish(publish) = &packet {
                        self.metrics.messages_received[publish.qos].inc();
                        self.metrics.payload_received[publish.qos].add(publish.payload.len() as u64);
                    }
                    if let Packet::Connect(_) = packet {
                        conn.decoder.set_max_packet_size(self.node.settings.max_packet_size());
                    }
                    self.handle(conn, now, wall, Event::Packet(packet), published);
                }
                Ok(None) => break,
                Err(error) => {
                    // A CONNECT that names its version is answered in it, whatever is wrong behind.
                    if let Some(version) = conn.decoder.version() {
                        conn.session.set_version(version);
                    }
                    let event = Event::Malformed { reason: error.reason_code(), detail: error.to_string() };
                    self.handle(conn, now, wall, event, published);
                    return;
                }
            }
        }
        if !conn.is_open() {
            bytes.clear();
        }
        conn.await_rest(bytes.len(), packets, now, self.node.packet_timeout);
    }

    /// Gives one event to a session and does what it wants, until it wants nothing more.
    pub(super) fn handle(
        self: &Rc<Self>,
        conn: &mut Conn,
        now: Instant,
        wall: WallMs,
        event: Event,
        published: &mut Vec<Published>,
    ) {
        let mut actions = self.actions.borrow_mut().pop().unwrap_or_default();
        conn.session.handle(now, wall, event, &mut actions);
        self.perform(conn, now, wall, &mut actions, published, &mut Frames::new(1));
        self.actions.borrow_mut().push(actions);
    }

    /// The same for a delivery, where several receivers share what is encoded.
    pub(super) fn handle_delivery(
        self: &Rc<Self>,
        conn: &mut Conn,
        now: Instant,
        wall: WallMs,
        delivery: Delivery,
        frames: &mut Frames,
    ) {
        let mut actions = self.actions.borrow_mut().pop().unwrap_or_default();
        conn.session.handle(now, wall, Event::Deliver(delivery), &mut actions);
        self.perform(conn, now, wall, &mut actions, &mut Vec::new(), frames);
        self.actions.borrow_mut().push(actions);
    }

    pub(super) fn flush_session(
        self: &Rc<Self>,
        conn: &mut Conn,
        now: Instant,
        wall: WallMs,
        published: &mut Vec<Published>,
    ) {
        let mut actions = self.actions.borrow_mut().pop().unwrap_or_default();
        // What was fetched may lead to a commit, and that to nothing more.
        loop {
            conn.session.flush(&mut actions);
            if actions.is_empty() {
                break;
            }
            self.perform(conn, now, wall, &mut actions, published, &mut Frames::new(1));
        }
        self.actions.borrow_mut().push(actions);
    }

    fn perform(
        self: &Rc<Self>,
        conn: &mut Conn,
        now: Instant,
        wall: WallMs,
        actions: &mut Vec<Action>,
        published: &mut Vec<Published>,
        frames: &mut Frames,
    ) {
        let mut next = VecDeque::new();
        loop {
            for action in actions.drain(..) {
                match action {
                    Action::Send(packet) => {
                        self.metrics.packets_sent[counters::kind(&packet)].inc();
                        if let (Packet::ConnAck(connack), Some(version)) = (&packet, conn.session.version())
                            && !connack.reason_code.is_error()
                        {
                            conn.admitted = Some(version);
                            self.metrics.clients[counters::protocol(version)].inc();
                            self.metrics.connects[counters::protocol(version)].inc();
                        }
                        conn.send(&packet, &mut self.spare_buffers.borrow_mut());
                    }
                    Action::Deliver { delivery, packet_id, dup, alias } => {
                        self.metrics.packets_sent[PacketKind::Publish].inc();
                        self.metrics.messages_sent[delivery.qos].inc();
                        self.metrics.payload_sent[delivery.qos].add(delivery.message.payload.len() as u64);
                        let mut spare = self.spare_buffers.borrow_mut();
                        let sending = Sending { delivery, packet_id, dup, alias };
                        conn.send_publish(sending, wall, frames, &mut spare);
                    }
                    Action::Publish { op, message, inbound } => {
                        let rights = conn.rights(&*self.node.authorizer);
                        let allowed = rights.may_publish(&message.topic, message.retain);
                        published.push(Published { op, message, inbound, allowed });
                    }
                    Action::Fetch { from_seq, max } => next.extend(self.fetch(conn, from_seq, max)),
                    Action::Commit { op, commit } => self.commit(conn, op, commit),
                    Action::Authenticate(request) => self.authenticate(conn, *request),
                    Action::Attach(request) => self.attach(conn, *request),
                    Action::Subscribe { op, entries } => self.subscribe(conn, op, entries),
                    Action::Unsubscribe { op, filters } => self.unsubscribe(conn, op, filters),
                    Action::Detach { expiry_secs, will } => self.detach(conn, expiry_secs, will),
                    Action::Dropped { cause, count } => self.dropped(counters::drop_cause(cause), count),
                    Action::Close(reason) => {
                        debug!(client = ?conn.session.client_id(), peer = %conn.peer.addr, ?reason, "connection closes");
                        conn.ended.get_or_insert(counters::close_cause(&reason));
                        conn.phase = Phase::Closing;
                    }
                }
            }
            let Some(event) = next.pop_front() else { return };
            conn.session.handle(now, wall, event, actions);
        }
    }

    /// The transport is over. What the session owed has been started by its `Detach`.
    fn finish(self: &Rc<Self>, conn: &Rc<RefCell<Conn>>) {
        let mut conn_ref = conn.borrow_mut();
        let (now, wall) = self.now();
        // A transport that was given up never told the session.
        self.handle(&mut conn_ref, now, wall, Event::TransportClosed, &mut Vec::new());
        let cause = conn_ref.ended.unwrap_or("transport_closed");
        self.metrics.connections[counters::layer(conn_ref.peer.kind)].dec();
        let node = self.node.metrics.node();
        match conn_ref.admitted {
            Some(version) => {
                self.metrics.clients[counters::protocol(version)].dec();
                node.disconnects.inc(cause);
            }
            None => node.refused.inc(cause),
        }
        conn_ref.phase = Phase::Gone;
        let slot = conn_ref.me.slot as usize;
        self.release(&mut conn_ref);
        drop(conn_ref);
        self.conns.borrow_mut().try_remove(slot);
        if self.shutting_down.get() {
            self.mailbox.wake();
        }
    }
}
