//! Two cores and what is between them: a small client, a [`Session`], a link with latency that can be cut, and an inbox that keeps what
//! was committed and nothing else. Time is virtual; nothing is random but the script.

use crate::rig::{accept, connect, id, message, publish};
use base_types::{PacketId, QoS, WallMs};
use inbox_api::{Attached, Commit, Entry, SessionVersion, packet_id_of};
use mqtt_codec::{Ack, Connect, Packet, Publish, ReasonCode, Version};
use mqtt_session::{Action, Delivery, Event, OpId, PublishOutcome, Session, Settings};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Milliseconds.
type Time = u64;

/// What the inbox keeps of an entry.
#[derive(Clone, Debug)]
struct Kept {
    text: String,
    qos: QoS,
    released: bool,
}

/// The durable half of a session, as `inbox-api` describes it.
#[derive(Debug)]
pub struct Inbox {
    entries: BTreeMap<u64, Kept>,
    next_seq: u64,
    sent_upto: u64,
    inbound: BTreeSet<PacketId>,
    attach: u64,
}

impl Inbox {
    pub fn is_settled(&self) -> bool {
        self.entries.is_empty() && self.inbound.is_empty()
    }

    fn attached(&mut self) -> Attached {
        self.attach += 1;
        // What was queued since the last connection ended was not sent on it.
        self.sent_upto = self.sent_upto.min(self.next_seq);
        let first_seq = self.entries.keys().next().copied().unwrap_or(self.next_seq);
        let released = self.entries.iter().filter(|(_, kept)| kept.released).map(|(seq, _)| *seq).collect();
        Attached {
            version: Some(SessionVersion { incarnation: 1, attach: self.attach }),
            session_present: self.attach > 1,
            subscriptions: Vec::new(),
            inbound: self.inbound.iter().copied().collect(),
            released,
            first_seq,
            sent_upto: self.sent_upto,
        }
    }

    fn fetch(&self, from_seq: u64, max: usize) -> Vec<Entry> {
        let open = self.entries.range(from_seq..).filter(|(_, kept)| !kept.released).take(max);
        open.map(|(seq, kept)| Entry {
            seq: *seq,
            message: message(&kept.text),
            qos: kept.qos,
            retain: false,
            subscription_identifiers: Vec::new(),
        })
        .collect()
    }

    fn commit(&mut self, commit: &Commit) {
        for seq in &commit.done {
            self.entries.remove(seq);
        }
        for seq in &commit.received {
            if let Some(kept) = self.entries.get_mut(seq) {
                kept.released = true;
            }
        }
        if let Some(upto) = commit.sent_upto {
            self.sent_upto = upto;
        }
        for id in &commit.released_inbound {
            self.inbound.remove(id);
        }
    }
}

/// How far a message of the client is.
#[derive(Clone, Debug)]
struct Outgoing {
    id: PacketId,
    text: String,
    qos: QoS,
    released: bool,
}

/// A client that keeps its session and answers everything, late.
#[derive(Debug, Default)]
pub struct Client {
    outgoing: VecDeque<Outgoing>,
    waiting: VecDeque<(String, QoS)>,
    last_id: u16,
    /// QoS 2: received and not released.
    received: BTreeSet<PacketId>,
    /// Received and not answered to the end, on this connection.
    open: BTreeMap<PacketId, String>,
    connected: bool,
    /// All PUBLISHes, in the order in which they were passed to the application.
    pub delivered: Vec<(String, QoS)>,
    seen: BTreeSet<String>,
    /// Messages that the broker took over.
    pub accepted: Vec<(String, QoS)>,
    pub refused: Vec<(String, QoS)>,
    pub largest_window: usize,
}

const CLIENT_WINDOW: usize = 8;

impl Client {
    fn connect(&mut self) -> Connect {
        self.connected = false;
        self.open.clear();
        let mut connect = connect(Version::V5);
        connect.clean_start = false;
        connect.properties.session_expiry_interval = Some(3600);
        connect.properties.receive_maximum = std::num::NonZeroU16::new(5);
        connect
    }

    fn publish(&mut self, text: String, qos: QoS) -> Vec<Packet> {
        self.waiting.push_back((text, qos));
        self.pump()
    }

    fn pump(&mut self) -> Vec<Packet> {
        let mut out = Vec::new();
        while self.connected && self.outgoing.len() < CLIENT_WINDOW {
            let Some((text, qos)) = self.waiting.pop_front() else { break };
            let id = loop {
                self.last_id = self.last_id % 20 + 1;
                if self.outgoing.iter().all(|other| other.id.get() != self.last_id) {
                    break id(self.last_id);
                }
            };
            let outgoing = Outgoing { id, text, qos, released: false };
            out.push(Self::packet(&outgoing, false));
            self.outgoing.push_back(outgoing);
        }
        out
    }

    fn packet(outgoing: &Outgoing, dup: bool) -> Packet {
        if outgoing.released {
            return Packet::PubRel(Ack::new(outgoing.id, ReasonCode::Success));
        }
        let payload = outgoing.text.clone().into();
        Packet::Publish(Publish { dup, payload, ..publish(outgoing.qos, outgoing.id.get()) })
    }

    fn settle(&mut self, id: PacketId, code: ReasonCode) -> Vec<Packet> {
        let at = self.outgoing.iter().position(|other| other.id == id).expect("an answer to what was asked");
        let outgoing = self.outgoing.remove(at).unwrap();
        let list = if code.is_error() { &mut self.refused } else { &mut self.accepted };
        list.push((outgoing.text, outgoing.qos));
        self.pump()
    }

    fn handle(&mut self, packet: Packet) -> Vec<Packet> {
        match packet {
            Packet::ConnAck(connack) => {
                assert_eq!(connack.reason_code, ReasonCode::Success);
                self.connected = true;
                let mut out: Vec<_> = self.outgoing.iter().map(|o| Self::packet(o, true)).collect();
                out.extend(self.pump());
                out
            }
            Packet::PubAck(ack) => self.settle(ack.packet_id, ack.reason_code),
            Packet::PubComp(ack) => self.settle(ack.packet_id, ReasonCode::Success),
            Packet::PubRec(ack) if ack.reason_code.is_error() => self.settle(ack.packet_id, ack.reason_code),
            Packet::PubRec(ack) => {
                let outgoing = self.outgoing.iter_mut().find(|o| o.id == ack.packet_id).expect("an exchange");
                outgoing.released = true;
                vec![Self::packet(outgoing, false)]
            }
            Packet::PubRel(ack) => {
                self.received.remove(&ack.packet_id);
                vec![Packet::PubComp(ack)]
            }
            other => panic!("the client got {other:?}"),
        }
    }

    fn receive(&mut self, delivery: &Delivery, id: PacketId, dup: bool) -> Vec<Packet> {
        let text = String::from_utf8(delivery.message.payload.to_vec()).unwrap();
        // [MQTT-2.2.1-4]: an id in use names the same message; on one connection it comes once [MQTT-4.4.0-1].
        assert_eq!(self.open.insert(id, text.clone()), None, "packet id {id} is in use");
        self.largest_window = self.largest_window.max(self.open.len());
        // [MQTT-3.3.1-1]
        assert!(self.seen.insert(text.clone()) || dup, "{text} came again without DUP");
        match delivery.qos {
            QoS::AtMostOnce => panic!("QoS 0 is not part of this"),
            QoS::AtLeastOnce => {
                self.delivered.push((text, delivery.qos));
                vec![Packet::PubAck(Ack::new(id, ReasonCode::Success))]
            }
            QoS::ExactlyOnce => {
                if self.received.insert(id) {
                    self.delivered.push((text, delivery.qos));
                }
                vec![Packet::PubRec(Ack::new(id, ReasonCode::Success))]
            }
        }
    }

    /// A packet of the client leaves it: what it answers to the end is no longer open.
    fn leaves(&mut self, packet: &Packet) {
        if let Packet::PubAck(ack) | Packet::PubComp(ack) = packet {
            self.open.remove(&ack.packet_id);
        }
    }
}

/// What becomes true in the store, in its order.
#[derive(Debug)]
enum Change {
    Attach,
    Commit(Option<OpId>, Commit),
    Publish { op: OpId, text: String, inbound: Option<PacketId>, failure: Option<Failure> },
    Insert { text: String, qos: QoS },
}

#[derive(Debug)]
enum Arrival {
    ToServer(Packet),
    ToClient(Packet),
    Publish { delivery: Delivery, id: PacketId, dup: bool },
    Answer(Event),
}

/// How a publish does not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was stored, and the publisher is told that nobody knows.
    Lost,
    /// It was stored, and the publisher is told that nobody knows.
    Stored,
    /// Nobody took it, and nothing was stored.
    Refused,
}

/// What happens to the pair from outside.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// The client publishes.
    Publish(QoS),
    /// Somebody else publishes to the client.
    Insert(QoS),
    /// The next publish of the client does not end well.
    Fail(Failure),
    /// Time goes by.
    Pass(u8),
    /// The link breaks, and the client comes back.
    Cut,
    /// The client says goodbye, and comes back.
    Leave,
    /// The server dies with all that is not committed, and the client comes back.
    Crash,
}

pub struct Pair {
    session: Session,
    pub client: Client,
    pub inbox: Inbox,
    start: Instant,
    now: Time,
    /// Counts connections: what is on its way on an older one is lost.
    connection: u64,
    arrivals: BTreeMap<(Time, u64), (u64, Arrival)>,
    changes: VecDeque<(Time, u64, Change)>,
    order: u64,
    last_to_server: Time,
    /// Messages of the client that reached the world, in their order.
    pub published: Vec<String>,
    /// Messages that were stored for the client, in their order.
    pub inserted: Vec<(String, QoS)>,
    failures: VecDeque<Failure>,
    failed: bool,
    count: u64,
}

const LINK: Time = 7;
const THINK: Time = 5;
const FSYNC: Time = 11;

impl Pair {
    pub fn new() -> Self {
        let start = Instant::now();
        let mut pair = Self {
            session: Self::session(start),
            client: Client::default(),
            inbox: Inbox {
                entries: BTreeMap::new(),
                next_seq: 65_500,
                sent_upto: 65_500,
                inbound: BTreeSet::new(),
                attach: 0,
            },
            start,
            now: 0,
            connection: 0,
            arrivals: BTreeMap::new(),
            changes: VecDeque::new(),
            order: 0,
            last_to_server: 0,
            published: Vec::new(),
            inserted: Vec::new(),
            failures: VecDeque::new(),
            failed: false,
            count: 0,
        };
        pair.reconnect();
        pair
    }

    fn session(now: Instant) -> Session {
        let mut settings = Settings::default();
        settings.set("MaxKeepAliveSeconds", "0").unwrap();
        Session::new(Arc::new(settings), now, 1)
    }

    pub fn step(&mut self, step: Step) {
        self.count += 1;
        let text = format!("{:04}", self.count);
        match step {
            Step::Publish(qos) => {
                let packets = self.client.publish(text, qos);
                self.client_sends(packets, 0);
            }
            Step::Insert(qos) => self.change(Change::Insert { text, qos }),
            Step::Fail(failure) => {
                self.failed = true;
                self.failures.push_back(failure);
            }
            Step::Pass(ms) => self.run_until(self.now + Time::from(ms)),
            Step::Cut => self.end(Event::TransportClosed),
            Step::Leave if self.client.connected => {
                self.end(Event::Packet(crate::rig::disconnect(ReasonCode::Success)));
            }
            Step::Leave => self.end(Event::TransportClosed),
            Step::Crash => {
                self.changes.clear();
                self.reconnect();
            }
        }
    }

    fn end(&mut self, event: Event) {
        let connection = self.connection;
        self.event(event);
        if self.connection == connection {
            // Its session is still being attached.
            self.reconnect();
        }
    }

    fn reconnect(&mut self) {
        self.connection += 1;
        self.session = Self::session(self.instant());
        let mut connect = self.client.connect();
        connect.keep_alive = 0;
        self.client_sends(vec![Packet::Connect(Box::new(connect))], 0);
    }

    /// Until nothing is on its way.
    pub fn drive(&mut self) {
        while let Some(at) = self.next_at() {
            self.run_until(at);
            assert!(self.now < 10_000_000, "it never ends");
        }
    }

    fn next_at(&self) -> Option<Time> {
        let change = self.changes.front().map(|(at, ..)| *at);
        let arrival = self.arrivals.keys().next().map(|(at, _)| *at);
        change.into_iter().chain(arrival).min()
    }

    fn run_until(&mut self, end: Time) {
        while let Some(at) = self.next_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            if self.changes.front().is_some_and(|(due, ..)| *due <= at) {
                let (_, connection, change) = self.changes.pop_front().unwrap();
                self.apply(connection, change);
            } else if let Some((_, (connection, arrival))) = self.arrivals.pop_first()
                && connection == self.connection
            {
                self.arrive(arrival);
            }
        }
        self.now = self.now.max(end);
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::ToServer(packet) => {
                self.client.leaves(&packet);
                self.event(Event::Packet(packet));
            }
            Arrival::ToClient(packet) => {
                let packets = self.client.handle(packet);
                self.client_sends(packets, THINK);
            }
            Arrival::Publish { delivery, id, dup } => {
                let packets = self.client.receive(&delivery, id, dup);
                self.client_sends(packets, THINK);
            }
            Arrival::Answer(event) => self.event(event),
        }
    }

    fn apply(&mut self, connection: u64, change: Change) {
        let answer = match change {
            Change::Attach => Some(Event::Attached(Ok(self.inbox.attached()))),
            Change::Commit(op, commit) => {
                self.inbox.commit(&commit);
                op.map(|op| Event::Committed(op, Ok(())))
            }
            Change::Publish { op, text, inbound, failure } => {
                let repeated = inbound.is_some_and(|id| self.inbox.inbound.contains(&id));
                if !repeated && !matches!(failure, Some(Failure::Lost | Failure::Refused)) {
                    self.inbox.inbound.extend(inbound);
                    self.published.push(text);
                }
                let outcome = match failure {
                    Some(Failure::Refused) if !repeated => PublishOutcome::Refused(ReasonCode::QuotaExceeded),
                    Some(Failure::Lost | Failure::Stored) => PublishOutcome::Failed(ReasonCode::UnspecifiedError),
                    Some(Failure::Refused) | None => PublishOutcome::Accepted { receivers: 1 },
                };
                Some(Event::PublishDone(op, outcome))
            }
            Change::Insert { text, qos } => {
                let seq = self.inbox.next_seq;
                self.inbox.next_seq += 1;
                self.inbox.entries.insert(seq, Kept { text: text.clone(), qos, released: false });
                self.inserted.push((text, qos));
                self.arrives(0, Arrival::Answer(Event::Queued));
                None
            }
        };
        if connection == self.connection
            && let Some(event) = answer
        {
            self.arrives(0, Arrival::Answer(event));
        }
    }

    fn client_sends(&mut self, packets: Vec<Packet>, think: Time) {
        for packet in packets {
            // A link keeps the order.
            self.last_to_server = self.last_to_server.max(self.now + LINK + think);
            self.arrives(self.last_to_server - self.now, Arrival::ToServer(packet));
        }
    }

    fn arrives(&mut self, after: Time, arrival: Arrival) {
        self.order += 1;
        self.arrivals.insert((self.now + after, self.order), (self.connection, arrival));
    }

    fn change(&mut self, change: Change) {
        let due = self.changes.back().map_or(0, |(at, ..)| *at).max(self.now + FSYNC);
        self.changes.push_back((due, self.connection, change));
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn event(&mut self, event: Event) {
        let (now, wall) = (self.instant(), WallMs(1_000_000 + self.now));
        let mut out = Vec::new();
        self.session.handle(now, wall, event, &mut out);
        self.session.flush(&mut out);
        let mut closed = false;
        for action in out {
            assert!(!closed, "{action:?} after the close");
            match action {
                Action::Send(packet) => self.arrives(LINK, Arrival::ToClient(packet)),
                Action::Deliver { delivery, packet_id, dup, .. } => {
                    self.arrives(LINK, Arrival::Publish { delivery, id: packet_id.unwrap(), dup });
                }
                Action::Authenticate(_) => self.arrives(0, Arrival::Answer(accept())),
                Action::Attach(_) => self.change(Change::Attach),
                Action::Publish { op, message, inbound } => {
                    let text = String::from_utf8(message.payload.to_vec()).unwrap();
                    let failure = self.failures.pop_front();
                    self.change(Change::Publish { op: op.unwrap(), text, inbound, failure });
                }
                Action::Fetch { from_seq, max } => {
                    let entries = self.inbox.fetch(from_seq, max.min(3));
                    // Whatever was sent before was marked: the mark is what a crash leaves.
                    self.arrives(0, Arrival::Answer(Event::Fetched(entries)));
                }
                Action::Commit { op, commit } => self.change(Change::Commit(op, commit)),
                Action::Close(_) => closed = true,
                Action::Detach { .. } => {}
                Action::Subscribe { .. } | Action::Unsubscribe { .. } | Action::Dropped { .. } => {
                    panic!("unexpected {action:?}")
                }
            }
        }
        if closed {
            self.reconnect();
        }
    }

    /// What must hold once everything has come to rest.
    pub fn check(&self) {
        assert!(self.inbox.is_settled(), "{:?}", self.inbox);
        assert!(self.client.outgoing.is_empty() && self.client.waiting.is_empty() && self.client.received.is_empty());
        assert!(self.client.largest_window <= 5, "[MQTT-3.3.4-9]: {}", self.client.largest_window);
        assert_eq!(packet_id_of(65_536).get(), 1);

        // To the client: QoS 2 once, QoS 1 at least once, each for the first time in the order of storing.
        let count = |text: &str| self.client.delivered.iter().filter(|(other, _)| other == text).count();
        for (text, qos) in &self.inserted {
            let times = count(text);
            assert!(
                if *qos == QoS::ExactlyOnce { times == 1 } else { times >= 1 },
                "{text} {qos:?} came {times} times"
            );
        }
        assert_eq!(first_times(self.client.delivered.iter().map(|(text, _)| text)).len(), self.inserted.len());
        let inserted: Vec<_> = self.inserted.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(first_times(self.client.delivered.iter().map(|(text, _)| text)), inserted);

        // From the client: what was acknowledged is there, QoS 2 once; what was refused is there once at most.
        let count = |text: &str| self.published.iter().filter(|other| *other == text).count();
        for (text, qos) in &self.client.accepted {
            let times = count(text);
            assert!(if *qos == QoS::ExactlyOnce { times == 1 } else { times >= 1 }, "{text} {qos:?}: {times} times");
        }
        for (text, qos) in &self.client.refused {
            assert!(
                *qos == QoS::AtLeastOnce || count(text) <= 1,
                "{text} was refused, and published {} times",
                count(text)
            );
        }
        // A message that failed and is sent again comes behind those that did not fail.
        let first = first_times(self.published.iter());
        assert!(self.failed || first.is_sorted(), "out of order: {first:?}");
    }
}

fn first_times<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    texts.map(String::as_str).filter(|text| seen.insert(*text)).collect()
}
