//! Conversations in `testdata/*.txt`: commands, and below each what the session did. `UPDATE=1 cargo test -p mqtt-session transcripts` writes
//! what it does now; a human reads the difference.

use crate::rig::*;
use base_types::QoS;
use inbox_api::{Attached, SessionVersion};
use mqtt_codec::{Ack, Disconnect, Packet, ReasonCode, Version};
use mqtt_session::{Action, Event, OpId, PublishOutcome, Settings, SubscribeOutcome};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::Path;
use std::time::Duration;

/// The words of a command, and its `name=value`s.
struct Command<'a> {
    words: Vec<&'a str>,
    values: BTreeMap<&'a str, &'a str>,
}

impl<'a> Command<'a> {
    fn parse(line: &'a str) -> Self {
        let (values, words) = line.split_whitespace().partition::<Vec<_>, _>(|part| part.contains('='));
        Self { words, values: values.into_iter().filter_map(|part| part.split_once('=')).collect() }
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.values.get(name).copied()
    }

    fn number<T: TryFrom<u64>>(&self, name: &str) -> Option<T> {
        self.text(name).map(|text| T::try_from(text.parse().unwrap()).ok().unwrap())
    }

    fn numbers(&self, name: &str) -> Vec<u64> {
        self.text(name).map(|list| list.split(',').map(|n| n.parse().unwrap()).collect()).unwrap_or_default()
    }

    fn qos(&self) -> QoS {
        QoS::try_from(self.number::<u8>("qos").unwrap_or(0)).unwrap()
    }

    fn reason(&self) -> ReasonCode {
        let code = self.text("reason").map_or(0, |hex| u8::from_str_radix(hex.trim_start_matches("0x"), 16).unwrap());
        ReasonCode::try_from(code).unwrap()
    }

    fn ack(&self) -> Ack {
        Ack::new(id(self.number("id").unwrap()), self.reason())
    }

    fn op(&self) -> OpId {
        OpId(self.number("op").unwrap())
    }

    fn event(&self) -> Event {
        match self.words[..] {
            ["client", "connect", version] => Event::Packet(self.connect(version)),
            ["client", "vanishes"] => Event::TransportClosed,
            ["client", name] => Event::Packet(self.packet(name)),
            ["broker", "accepts"] => accept(),
            ["broker", "attached"] => Event::Attached(Ok(self.attached())),
            ["broker", "published"] => Event::PublishDone(self.op(), self.outcome()),
            ["broker", "subscribed"] => Event::SubscribeDone(
                self.op(),
                self.numbers("qos")
                    .iter()
                    .map(|n| SubscribeOutcome::Granted(QoS::try_from(*n as u8).unwrap()))
                    .collect(),
            ),
            ["broker", "committed"] => Event::Committed(self.op(), Ok(())),
            ["broker", "queued"] => Event::Queued,
            ["broker", "fetched"] => {
                Event::Fetched(self.numbers("seq").into_iter().map(|seq| entry(seq, self.qos())).collect())
            }
            ["broker", "delivers"] => Event::Deliver(delivery(self.qos(), self.text("payload").unwrap())),
            ["broker", "disconnects"] => Event::Disconnect { reason: self.reason(), publish_will: true },
            ["timeout"] => Event::Timeout,
            _ => panic!("no such command: {:?}", self.words),
        }
    }

    fn packet(&self, name: &str) -> Packet {
        match name {
            "publish" => {
                let mut packet = publish(self.qos(), self.number("id").unwrap_or(0));
                packet.topic = self.text("topic").map(topic);
                packet.topic_alias = self.number("alias").and_then(NonZeroU16::new);
                packet.dup = self.text("dup").is_some();
                Packet::Publish(packet)
            }
            "puback" => Packet::PubAck(self.ack()),
            "pubrec" => Packet::PubRec(self.ack()),
            "pubrel" => Packet::PubRel(self.ack()),
            "pubcomp" => Packet::PubComp(self.ack()),
            "subscribe" => {
                let filters: Vec<_> = self.text("filters").unwrap().split(',').collect();
                Packet::Subscribe(subscribe(self.number("id").unwrap(), &filters))
            }
            "pingreq" => Packet::PingReq,
            "disconnect" => Packet::Disconnect(Disconnect {
                reason_code: self.reason(),
                session_expiry_interval: self.number("expiry"),
                ..Disconnect::default()
            }),
            other => panic!("no such packet: {other}"),
        }
    }

    fn connect(&self, version: &str) -> Packet {
        let version = match version {
            "3.1" => Version::V3,
            "3.1.1" => Version::V4,
            "5.0" => Version::V5,
            other => panic!("no such version: {other}"),
        };
        let mut connect = connect(version);
        connect.clean_start = self.text("clean") != Some("no");
        connect.client_id = self.text("client").unwrap_or("").into();
        connect.keep_alive = self.number("keep_alive").unwrap_or(30);
        connect.will = self.text("will").map(|name| mqtt_codec::Will { topic: topic(name), ..will() });
        connect.properties.session_expiry_interval = self.number("expiry");
        connect.properties.receive_maximum = self.number("receive_maximum").and_then(NonZeroU16::new);
        connect.properties.topic_alias_maximum = self.number("aliases");
        connect.properties.maximum_packet_size = self.number("max_packet").and_then(NonZeroU32::new);
        Packet::Connect(Box::new(connect))
    }

    fn attached(&self) -> Attached {
        let first_seq = self.number("first").unwrap_or(1);
        Attached {
            version: self.number("attach").map(|attach| SessionVersion { incarnation: 1, attach }),
            session_present: self.text("present").is_some(),
            inbound: self.numbers("inbound").into_iter().map(|n| id(n as u16)).collect(),
            released: self.numbers("released"),
            first_seq,
            sent_upto: self.number("sent_upto").unwrap_or(first_seq),
            ..nothing_attached()
        }
    }

    fn outcome(&self) -> PublishOutcome {
        match self.text("receivers") {
            Some(n) => PublishOutcome::Accepted { receivers: n.parse().unwrap() },
            None => PublishOutcome::Refused(self.reason()),
        }
    }
}

fn show(action: &Action) -> String {
    let code = |reason: ReasonCode| format!("0x{:02X} {reason:?}", reason as u8);
    let ack = |name: &str, ack: &Ack| format!("{name} {} {}", ack.packet_id, code(ack.reason_code));
    match action {
        Action::Send(packet) => match packet {
            Packet::ConnAck(connack) => {
                let mut text = format!("CONNACK {} present={}", code(connack.reason_code), connack.session_present);
                let p = &connack.properties;
                let mut add = |name: &str, value: Option<String>| {
                    if let Some(value) = value {
                        write!(text, " {name}={value}").unwrap();
                    }
                };
                add("expiry", p.session_expiry_interval.map(|n| n.to_string()));
                add("receive_maximum", p.receive_maximum.map(|n| n.to_string()));
                add("max_packet", p.maximum_packet_size.map(|n| n.to_string()));
                add("aliases", p.topic_alias_maximum.map(|n| n.to_string()));
                add("assigned", p.assigned_client_identifier.as_ref().map(ToString::to_string));
                add("keep_alive", p.server_keep_alive.map(|n| n.to_string()));
                add("reason_string", p.reason_string.as_ref().map(|text| format!("{:?}", &**text)));
                text
            }
            Packet::PubAck(a) => ack("PUBACK", a),
            Packet::PubRec(a) => ack("PUBREC", a),
            Packet::PubRel(a) => ack("PUBREL", a),
            Packet::PubComp(a) => ack("PUBCOMP", a),
            Packet::SubAck(a) => format!("SUBACK {} {:?}", a.packet_id, a.reason_codes),
            Packet::PingResp => "PINGRESP".to_owned(),
            Packet::Disconnect(d) => {
                format!("DISCONNECT {} {:?}", code(d.reason_code), d.reason_string.as_deref().unwrap_or(""))
            }
            other => format!("{other:?}"),
        },
        Action::Deliver { delivery, packet_id, dup, alias } => {
            let payload = String::from_utf8_lossy(&delivery.message.payload).into_owned();
            let mut text = format!("PUBLISH {:?} {payload:?}", delivery.qos);
            if let Some(id) = packet_id {
                write!(text, " id={id} dup={dup}").unwrap();
            }
            if let Some(alias) = alias {
                write!(text, " alias={} topic={}", alias.alias, if alias.known { "omitted" } else { "sent" }).unwrap();
            }
            text
        }
        Action::Authenticate(_) => "authenticate".to_owned(),
        Action::Attach(attach) => format!(
            "attach {:?} clean={} expiry={} will={:?}",
            attach.client_id, attach.clean_start, attach.expiry_secs, attach.will_topic
        ),
        Action::Publish { op, message, inbound } => {
            format!("publish op={op:?} {:?} to {:?} inbound={inbound:?}", message.qos, message.topic)
        }
        Action::Subscribe { op, entries } => {
            let filters: Vec<_> = entries.iter().map(|entry| entry.filter.to_string()).collect();
            format!("subscribe op={} {filters:?}", op.0)
        }
        Action::Commit { op, commit } => {
            let mut text = format!("commit op={op:?}");
            for (name, list) in [("done", &commit.done), ("received", &commit.received)] {
                if !list.is_empty() {
                    write!(text, " {name}={list:?}").unwrap();
                }
            }
            if let Some(upto) = commit.sent_upto {
                write!(text, " sent_upto={upto}").unwrap();
            }
            if !commit.released_inbound.is_empty() {
                write!(text, " released_inbound={:?}", commit.released_inbound).unwrap();
            }
            text
        }
        other => {
            let text = format!("{other:?}");
            let mut letters = text.chars();
            letters.next().map(|first| first.to_lowercase().collect::<String>() + letters.as_str()).unwrap_or_default()
        }
    }
}

fn replay(text: &str) -> String {
    let mut out = String::new();
    let mut rig = Rig::new(Settings::default());
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(out, "{line}").unwrap();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let command = Command::parse(line);
        let actions = match command.words[..] {
            ["new", "connection"] => {
                rig = Rig::new(Settings::default());
                continue;
            }
            ["pass"] => {
                rig.pass(Duration::from_millis(command.number("ms").unwrap()));
                continue;
            }
            _ => rig.event(command.event()),
        };
        for action in &actions {
            writeln!(out, "  {}", show(action)).unwrap();
        }
    }
    out
}

#[test]
fn transcripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut files = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let recorded = std::fs::read_to_string(&path).unwrap();
        let now = replay(&recorded);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &now).unwrap();
        } else {
            assert_eq!(now, recorded, "{}: see the head of this test", path.display());
        }
        files += 1;
    }
    assert!(files > 0);
}
