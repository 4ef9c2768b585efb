//! A session with time by hand, and short names for packets.

use base_types::{Message, PacketId, QoS, RetainHandling, TenantId, TopicName, WallMs};
use bytes::Bytes;
use inbox_api::{Attached, Entry, SessionVersion};
use mqtt_codec::{
    Ack, ConnAck, Connect, ConnectProperties, Disconnect, Packet, Publish, ReasonCode, Subscribe, SubscribeFilter,
    Version, Will,
};
use mqtt_session::{Action, AuthOutcome, CloseReason, Delivery, Event, Session, Settings};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub struct Rig {
    pub session: Session,
    pub now: Instant,
    pub wall: WallMs,
    start: Instant,
}

impl Rig {
    pub fn new(settings: Settings) -> Self {
        let now = Instant::now();
        let session = Session::new(Arc::new(settings), now, 0x1234_5678_9abc_def0);
        Self { session, now, wall: WallMs(1_000_000), start: now }
    }

    /// One event, and the end of its batch.
    pub fn event(&mut self, event: Event) -> Vec<Action> {
        let mut out = self.event_only(event);
        self.session.flush(&mut out);
        out
    }

    pub fn event_only(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.session.handle(self.now, self.wall, event, &mut out);
        out
    }

    pub fn flush(&mut self) -> Vec<Action> {
        let mut out = Vec::new();
        self.session.flush(&mut out);
        out
    }

    pub fn packet(&mut self, packet: Packet) -> Vec<Action> {
        self.event(Event::Packet(packet))
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.wall.0 += u64::try_from(time.as_millis()).unwrap();
    }

    /// Seconds from the beginning to the deadline.
    pub fn deadline_secs(&self) -> Option<f64> {
        self.session.poll_timeout().map(|at| (at - self.start).as_secs_f64())
    }

    /// Connects, and gives what came with CONNACK.
    pub fn connect_with(&mut self, connect: Connect, attached: Attached) -> Vec<Action> {
        let out = self.packet(Packet::Connect(Box::new(connect)));
        assert!(matches!(out[..], [Action::Authenticate(_)]), "{out:?}");
        let out = self.event(accept());
        assert!(matches!(out[..], [Action::Attach(_)]), "{out:?}");
        self.event(Event::Attached(Ok(attached)))
    }

    /// A session without an inbox.
    pub fn transient(version: Version) -> Self {
        Self::transient_with(version, Settings::default(), |_| {})
    }

    pub fn transient_with(version: Version, settings: Settings, change: impl FnOnce(&mut Connect)) -> Self {
        let mut rig = Self::new(settings);
        let mut connect = connect(version);
        change(&mut connect);
        let out = rig.connect_with(connect, nothing_attached());
        assert_eq!(connack(&out).reason_code, ReasonCode::Success);
        rig
    }

    /// A session with an inbox, after the first look into it.
    pub fn persistent(version: Version, attached: Attached) -> Self {
        let mut rig = Self::new(Settings::default());
        let mut connect = connect(version);
        connect.clean_start = false;
        connect.properties.session_expiry_interval = (version == Version::V5).then_some(3600);
        let out = rig.connect_with(connect, attached);
        assert!(matches!(out.last(), Some(Action::Fetch { .. })), "{out:?}");
        rig
    }
}

pub fn accept() -> Event {
    Event::Authenticated(AuthOutcome::Accept {
        tenant: TenantId::default(),
        user: "".into(),
        data: None,
        response_information: None,
    })
}

pub fn connect(version: Version) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive: 30,
        client_id: "c".into(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

pub fn will() -> Will {
    Will {
        topic: topic("will"),
        payload: Bytes::from_static(b"gone"),
        qos: QoS::AtLeastOnce,
        retain: false,
        delay_interval: 0,
        message_expiry_interval: None,
        forwarded: Bytes::new(),
        payload_is_utf8: false,
    }
}

pub fn nothing_attached() -> Attached {
    Attached {
        version: None,
        session_present: false,
        subscriptions: Vec::new(),
        inbound: Vec::new(),
        released: Vec::new(),
        first_seq: 1,
        sent_upto: 1,
    }
}

pub fn fresh_inbox() -> Attached {
    Attached { version: Some(SessionVersion { incarnation: 1, attach: 1 }), ..nothing_attached() }
}

pub fn id(n: u16) -> PacketId {
    NonZeroU16::new(n).unwrap()
}

pub fn topic(text: &str) -> TopicName {
    TopicName::new(text.to_owned()).unwrap()
}

pub fn publish(qos: QoS, packet_id: u16) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: Some(topic("a/b")),
        packet_id: NonZeroU16::new(packet_id),
        payload: Bytes::from_static(b"hello"),
        message_expiry_interval: None,
        topic_alias: None,
        subscription_identifiers: Vec::new(),
        payload_is_utf8: false,
        forwarded: Bytes::new(),
    }
}

pub fn message(text: &str) -> Arc<Message> {
    Arc::new(Message {
        topic: topic("a/b"),
        payload: Bytes::from(text.to_owned()),
        qos: QoS::ExactlyOnce,
        retain: false,
        properties: Bytes::new(),
        expires_at: None,
        publisher: None,
    })
}

pub fn delivery(qos: QoS, text: &str) -> Delivery {
    Delivery { message: message(text), qos, retain: false, subscription_identifiers: Vec::new() }
}

pub fn entry(seq: u64, qos: QoS) -> Entry {
    Entry { seq, message: message(&format!("m{seq}")), qos, retain: false, subscription_identifiers: Vec::new() }
}

pub fn filter(text: &str, qos: QoS) -> SubscribeFilter {
    SubscribeFilter {
        filter: text.into(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

pub fn subscribe(packet_id: u16, filters: &[&str]) -> Subscribe {
    Subscribe {
        packet_id: id(packet_id),
        subscription_identifier: None,
        user_properties: Vec::new(),
        filters: filters.iter().map(|text| filter(text, QoS::ExactlyOnce)).collect(),
    }
}

pub fn ack(n: u16) -> Ack {
    Ack::new(id(n), ReasonCode::Success)
}

pub fn disconnect(reason_code: ReasonCode) -> Packet {
    Packet::Disconnect(Disconnect { reason_code, ..Disconnect::default() })
}

/// The packets among the actions.
pub fn sent(out: &[Action]) -> Vec<Packet> {
    out.iter()
        .filter_map(|action| match action {
            Action::Send(packet) => Some(packet.clone()),
            _ => None,
        })
        .collect()
}

pub fn connack(out: &[Action]) -> ConnAck {
    match out.first() {
        Some(Action::Send(Packet::ConnAck(connack))) => (**connack).clone(),
        other => panic!("no CONNACK but {other:?}"),
    }
}

/// What was delivered: payload, packet id, DUP.
pub fn delivered(out: &[Action]) -> Vec<(String, Option<u16>, bool)> {
    out.iter()
        .filter_map(|action| match action {
            Action::Deliver { delivery, packet_id, dup, .. } => {
                let text = String::from_utf8(delivery.message.payload.to_vec()).unwrap();
                Some((text, packet_id.map(NonZeroU16::get), *dup))
            }
            _ => None,
        })
        .collect()
}

/// The reason of the DISCONNECT that the client gets, and why the connection closes.
pub fn closed(out: &[Action]) -> (Option<ReasonCode>, CloseReason) {
    let reason = sent(out).into_iter().find_map(|packet| match packet {
        Packet::Disconnect(disconnect) => Some(disconnect.reason_code),
        _ => None,
    });
    match out.last() {
        Some(Action::Close(close)) => (reason, close.clone()),
        other => panic!("not closed but {other:?} in {out:?}"),
    }
}
