//! What holds whatever a client sends and in whatever order the broker answers (models.md §6.3).

use crate::rig::*;
use base_types::{PacketId, QoS, WallMs};
use inbox_api::{Attached, Entry};
use mqtt_codec::{Ack, Auth, Disconnect, Packet, ReasonCode, Version};
use mqtt_session::{
    Action, AuthOutcome, Event, OpId, PublishOutcome, Session, Settings, SubscribeOutcome, UnsubscribeOutcome,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
enum Input {
    Packet(Packet),
    Malformed(ReasonCode),
    Pass(u16),
    Deliver(QoS),
    /// So many entries are queued.
    Queue(u8, QoS),
    /// The broker answers the nth of its open operations.
    Answer(u8, bool),
    Disconnect(bool),
    TransportClosed,
}

fn reason() -> impl Strategy<Value = ReasonCode> {
    prop::sample::select(vec![
        ReasonCode::Success,
        ReasonCode::NoMatchingSubscribers,
        ReasonCode::UnspecifiedError,
        ReasonCode::NotAuthorized,
        ReasonCode::QuotaExceeded,
        ReasonCode::ServerUnavailable,
        ReasonCode::DisconnectWithWill,
        ReasonCode::SessionTakenOver,
    ])
}

fn qos() -> impl Strategy<Value = QoS> {
    prop::sample::select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn packet() -> impl Strategy<Value = Packet> {
    let ack = || (1..8u16, reason()).prop_map(|(n, code)| Ack::new(id(n), code));
    prop_oneof![
        6 => (qos(), 1..8u16, 0..4u16, any::<bool>()).prop_map(|(qos, n, alias, named)| {
            let mut packet = publish(qos, if qos == QoS::AtMostOnce { 0 } else { n });
            packet.topic_alias = NonZeroU16::new(alias);
            if !named && alias > 0 {
                packet.topic = None;
            }
            Packet::Publish(packet)
        }),
        5 => ack().prop_map(Packet::PubAck),
        5 => ack().prop_map(Packet::PubRec),
        5 => ack().prop_map(Packet::PubRel),
        5 => ack().prop_map(Packet::PubComp),
        2 => (1..8u16).prop_map(|n| Packet::Subscribe(subscribe(n, &["a", "b#", "$share/g/+"]))),
        1 => (1..8u16).prop_map(|n| Packet::Unsubscribe(mqtt_codec::Unsubscribe {
            packet_id: id(n),
            user_properties: Vec::new(),
            filters: vec!["a".into()],
        })),
        2 => Just(Packet::PingReq),
        1 => Just(Packet::PingResp),
        1 => Just(Packet::Connect(Box::new(connect(Version::V5)))),
        1 => reason().prop_map(|reason_code| Packet::Auth(Auth { reason_code, ..Auth::default() })),
        1 => (reason(), prop::option::of(0..9u32)).prop_map(|(reason_code, session_expiry_interval)| {
            Packet::Disconnect(Disconnect { reason_code, session_expiry_interval, ..Disconnect::default() })
        }),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        30 => packet().prop_map(Input::Packet),
        6 => qos().prop_map(Input::Deliver),
        6 => (0..4u8, qos()).prop_map(|(n, qos)| Input::Queue(n, qos)),
        20 => (any::<u8>(), prop::bool::weighted(0.95)).prop_map(|(n, well)| Input::Answer(n, well)),
        3 => (0..9000u16).prop_map(Input::Pass),
        1 => any::<bool>().prop_map(Input::Disconnect),
        1 => reason().prop_map(Input::Malformed),
        1 => Just(Input::TransportClosed),
    ]
}

/// A broker that remembers what it owes, and checks what it is asked for.
struct Broker {
    session: Session,
    now: Instant,
    wall: WallMs,
    persistent: bool,
    owed: Vec<Owed>,
    queue: Vec<Entry>,
    marked: u64,
    closed: bool,
    attached: bool,
    detached: bool,
    told: bool,
    /// To the client: ids in flight.
    in_flight: BTreeMap<PacketId, QoS>,
    /// From the client, in their order: what is to be acknowledged.
    to_answer: VecDeque<(OpId, QoS, Option<bool>)>,
    answered: BTreeSet<OpId>,
}

enum Owed {
    Authenticate,
    Attach,
    Publish(OpId),
    Subscribe(OpId, usize),
    Unsubscribe(OpId, usize),
    Fetch(u64, usize),
    Commit(OpId, Option<u64>),
}

const WINDOW: usize = 3;

impl Broker {
    fn new(persistent: bool) -> Self {
        let mut settings = Settings::default();
        for (name, value) in [("SendingMaximum", "3"), ("ReceivingMaximum", "4"), ("SessionInboxSize", "5")] {
            settings.set(name, value).unwrap();
        }
        let now = Instant::now();
        Self {
            session: Session::new(Arc::new(settings), now, 7),
            now,
            wall: WallMs(1_000_000),
            persistent,
            owed: Vec::new(),
            queue: Vec::new(),
            marked: 1,
            closed: false,
            attached: false,
            detached: false,
            told: false,
            in_flight: BTreeMap::new(),
            to_answer: VecDeque::new(),
            answered: BTreeSet::new(),
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Packet(packet) => self.packet(packet),
            Input::Malformed(reason) => self.event(Event::Malformed { reason, detail: String::new() }),
            Input::Pass(ms) => {
                self.now += Duration::from_millis(u64::from(ms));
                self.wall.0 += u64::from(ms);
                if self.session.poll_timeout().is_some_and(|at| at <= self.now) {
                    self.event(Event::Timeout);
                    assert!(self.session.poll_timeout().is_none_or(|at| at > self.now), "a deadline is met");
                }
            }
            Input::Deliver(qos) if self.persistent && qos != QoS::AtMostOnce => {}
            Input::Deliver(qos) => self.event(Event::Deliver(delivery(qos, "live"))),
            Input::Queue(_, QoS::AtMostOnce) => {}
            Input::Queue(n, qos) => {
                for _ in 0..n {
                    self.queue.push(entry(self.queue.len() as u64 + 1, qos));
                }
                self.event(Event::Queued);
            }
            Input::Answer(n, well) => self.answer(usize::from(n), well),
            Input::Disconnect(publish_will) => {
                self.event(Event::Disconnect { reason: ReasonCode::AdministrativeAction, publish_will });
            }
            Input::TransportClosed => self.event(Event::TransportClosed),
        }
    }

    fn packet(&mut self, packet: Packet) {
        if let (true, Packet::PubAck(ack) | Packet::PubComp(ack)) = (self.session.is_connected(), &packet) {
            // Only an answer that fits ends an exchange; one that does not ends the connection.
            self.in_flight.remove(&ack.packet_id);
        }
        if let (true, Packet::PubRec(ack)) = (self.session.is_connected(), &packet)
            && ack.reason_code.is_error()
            && self.in_flight.get(&ack.packet_id) == Some(&QoS::ExactlyOnce)
        {
            // It may have been answered without an error before; then it goes on.
            self.in_flight.remove(&ack.packet_id);
        }
        self.event(Event::Packet(packet));
    }

    fn answer(&mut self, n: usize, well: bool) {
        if self.owed.is_empty() {
            return;
        }
        let unavailable = Err(ReasonCode::ServerUnavailable);
        let event = match self.owed.remove(n % self.owed.len()) {
            Owed::Authenticate if well => accept(),
            Owed::Authenticate => Event::Authenticated(AuthOutcome::Refuse { reason: ReasonCode::NotAuthorized }),
            Owed::Attach if well => {
                self.attached = true;
                Event::Attached(Ok(if self.persistent { fresh_inbox() } else { nothing_attached() }))
            }
            Owed::Attach => Event::Attached(Err(ReasonCode::ServerUnavailable)),
            Owed::Publish(op) => {
                let outcome = if well {
                    PublishOutcome::Accepted { receivers: 1 }
                } else {
                    PublishOutcome::Refused(ReasonCode::NotAuthorized)
                };
                assert!(self.answered.insert(op));
                for (other, _, done) in &mut self.to_answer {
                    if *other == op {
                        *done = Some(true);
                    }
                }
                Event::PublishDone(op, outcome)
            }
            Owed::Subscribe(op, n) => Event::SubscribeDone(op, vec![SubscribeOutcome::Granted(QoS::AtLeastOnce); n]),
            Owed::Unsubscribe(op, n) => Event::UnsubscribeDone(op, vec![UnsubscribeOutcome::Removed; n]),
            Owed::Fetch(from, max) => {
                let entries = self.queue.iter().filter(|entry| entry.seq >= from).take(max).cloned().collect();
                Event::Fetched(entries)
            }
            Owed::Commit(op, mark) if well => {
                self.marked = self.marked.max(mark.unwrap_or(0));
                Event::Committed(op, Ok(()))
            }
            Owed::Commit(op, _) => Event::Committed(op, unavailable),
        };
        self.event(event);
    }

    fn event(&mut self, event: Event) {
        let mut out = Vec::new();
        self.session.handle(self.now, self.wall, event, &mut out);
        self.session.flush(&mut out);
        for action in out {
            assert!(!self.closed, "{action:?} after the close");
            assert!(!self.detached || matches!(action, Action::Close(_)), "{action:?} after the detach");
            self.action(action);
        }
        assert!(self.in_flight.len() <= WINDOW, "[MQTT-3.3.4-9] {:?}", self.in_flight);
    }

    fn action(&mut self, action: Action) {
        match action {
            Action::Send(packet) => self.sent(&packet),
            Action::Deliver { delivery, packet_id, dup, .. } => {
                assert!(self.told, "a message before CONNACK");
                assert_eq!(packet_id.is_some(), delivery.qos != QoS::AtMostOnce);
                assert!(!dup, "nothing was sent before");
                if let Some(id) = packet_id {
                    assert_eq!(self.in_flight.insert(id, delivery.qos), None, "[MQTT-2.2.1-4] {id} is in use");
                    if self.persistent {
                        let seq = String::from_utf8(delivery.message.payload.to_vec()).unwrap();
                        assert!(seq[1..].parse::<u64>().unwrap() < self.marked, "{seq} was not marked as sent");
                    }
                }
            }
            Action::Authenticate(_) => self.owed.push(Owed::Authenticate),
            Action::Attach(_) => self.owed.push(Owed::Attach),
            Action::Publish { op, message, inbound } => {
                assert!(self.told);
                assert_eq!(op.is_some(), message.qos != QoS::AtMostOnce);
                assert_eq!(inbound.is_some(), self.persistent && message.qos == QoS::ExactlyOnce);
                if let Some(op) = op {
                    self.owed.push(Owed::Publish(op));
                    self.to_answer.push_back((op, message.qos, None));
                }
            }
            Action::Subscribe { op, entries } => self.owed.push(Owed::Subscribe(op, entries.len())),
            Action::Unsubscribe { op, filters } => self.owed.push(Owed::Unsubscribe(op, filters.len())),
            Action::Fetch { from_seq, max } => {
                assert!(!self.owed.iter().any(|owed| matches!(owed, Owed::Fetch(..))), "one fetch at a time");
                self.owed.push(Owed::Fetch(from_seq, max));
            }
            Action::Commit { op, commit } => {
                assert!(self.persistent && !commit.is_empty());
                self.owed.extend(op.map(|op| Owed::Commit(op, commit.sent_upto)));
            }
            Action::Detach { .. } => {
                assert!(self.attached && !self.detached);
                self.detached = true;
            }
            Action::Dropped { count, .. } => assert!(count > 0),
            Action::Close(_) => {
                assert_eq!(self.attached, self.detached, "what was attached is detached");
                self.closed = true;
            }
        }
    }

    fn sent(&mut self, packet: &Packet) {
        match packet {
            Packet::ConnAck(connack) => {
                assert!(!self.told, "CONNACK comes once");
                self.told = !connack.reason_code.is_error();
            }
            Packet::PubAck(_) | Packet::PubRec(_) => self.acknowledged(packet),
            Packet::Disconnect(_) => {
                assert_eq!(self.session.version(), Some(Version::V5), "[3.1.1] only clients disconnect")
            }
            _ => {}
        }
    }

    /// Each PUBLISH is acknowledged once, in order, and not before it is done. (A repeated QoS 2 PUBLISH is acknowledged at once.)
    fn acknowledged(&mut self, packet: &Packet) {
        let qos = if matches!(packet, Packet::PubAck(_)) { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        match self.to_answer.front() {
            Some((_, expected, Some(_))) if *expected == qos => {
                self.to_answer.pop_front();
            }
            _ => assert_eq!(qos, QoS::ExactlyOnce, "an acknowledgement out of turn"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_session_keeps_its_laws_whatever_happens(
        version in prop::sample::select(vec![Version::V3, Version::V4, Version::V5]),
        persistent: bool,
        introduced in prop::bool::weighted(0.9),
        inputs in prop::collection::vec(input(), 0..150),
    ) {
        let mut broker = Broker::new(persistent);
        if introduced {
            let mut connect = connect(version);
            connect.clean_start = !persistent;
            connect.will = Some(will());
            broker.packet(Packet::Connect(Box::new(connect)));
            broker.answer(0, true);
            broker.answer(0, true);
        }
        for input in inputs {
            broker.input(input);
        }
        // However it went on, it ends.
        broker.event(Event::TransportClosed);
        while !broker.owed.is_empty() {
            broker.answer(0, true);
        }
        prop_assert!(broker.closed);
    }
}

#[test]
fn an_attached_inbox_of_any_content_is_taken() {
    for first_seq in [0, 1, 65_535, u64::from(u32::MAX), u64::MAX - 1] {
        let attached = Attached { first_seq, sent_upto: u64::MAX, ..fresh_inbox() };
        let mut rig = Rig::new(Settings::default());
        rig.connect_with(connect(Version::V5), attached);
        rig.event(Event::Fetched(vec![entry(first_seq, QoS::AtLeastOnce)]));
        rig.packet(Packet::PubAck(Ack::new(inbox_api::packet_id_of(first_seq), ReasonCode::Success)));
        rig.event(Event::TransportClosed);
    }
}
