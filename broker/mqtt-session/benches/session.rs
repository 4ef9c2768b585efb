//! What the session costs for one message, beside decoding, routing and encoding: it must not be what a broker spends its time on.
//! Figures are nanoseconds per message; `cargo bench -p mqtt-session`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench is a test")]

use base_types::{Message, QoS, TenantId, TopicName, WallMs};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use inbox_api::Attached;
use mqtt_codec::{Ack, Connect, ConnectProperties, Packet, Publish, ReasonCode, Version};
use mqtt_session::{Action, AuthOutcome, Delivery, Event, OpId, PublishOutcome, Session, Settings};
use std::hint::black_box;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

const WALL: WallMs = WallMs(1_000_000);

fn session(now: Instant) -> Session {
    let mut session = Session::new(Arc::new(Settings::default()), now, 1);
    let mut out = Vec::new();
    let connect = Connect {
        version: Version::V4,
        clean_start: true,
        keep_alive: 60,
        client_id: "bench".into(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    };
    let accept =
        AuthOutcome::Accept { tenant: TenantId::default(), user: "".into(), data: None, response_information: None };
    let attached = Attached {
        version: None,
        session_present: false,
        subscriptions: Vec::new(),
        inbound: Vec::new(),
        released: Vec::new(),
        first_seq: 1,
        sent_upto: 1,
    };
    session.handle(now, WALL, Event::Packet(Packet::Connect(Box::new(connect))), &mut out);
    session.handle(now, WALL, Event::Authenticated(accept), &mut out);
    session.handle(now, WALL, Event::Attached(Ok(attached)), &mut out);
    assert!(session.is_connected());
    session
}

fn publish(qos: QoS) -> Publish {
    let frame = Bytes::from(vec![b'x'; 300]);
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: Some(TopicName::new("bench/topic/of/usual/length").unwrap()),
        packet_id: (qos != QoS::AtMostOnce).then_some(NonZeroU16::MIN),
        payload: frame.slice(40..296),
        message_expiry_interval: None,
        topic_alias: None,
        subscription_identifiers: Vec::new(),
        payload_is_utf8: false,
        forwarded: Bytes::new(),
    }
}

fn inbound(c: &mut Criterion) {
    let now = Instant::now();
    let mut group = c.benchmark_group("publish");
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let packet = publish(qos);
        let (mut session, mut out, mut op) = (session(now), Vec::with_capacity(64), 0);
        group.bench_function(format!("{qos:?}"), |b| {
            b.iter_batched(
                || packet.clone(),
                |packet| {
                    session.handle(now, WALL, Event::Packet(Packet::Publish(packet)), &mut out);
                    if qos != QoS::AtMostOnce {
                        let outcome = PublishOutcome::Accepted { receivers: 1 };
                        session.handle(now, WALL, Event::PublishDone(OpId(op), outcome), &mut out);
                        op += 1;
                    }
                    if qos == QoS::ExactlyOnce {
                        let pubrel = Ack::new(NonZeroU16::MIN, ReasonCode::Success);
                        session.handle(now, WALL, Event::Packet(Packet::PubRel(pubrel)), &mut out);
                    }
                    black_box(&out);
                    out.clear();
                },
                BatchSize::SmallInput,
            );
        });
    }
}

fn outbound(c: &mut Criterion) {
    let now = Instant::now();
    let mut group = c.benchmark_group("deliver");
    let published = publish(QoS::ExactlyOnce);
    let message = Arc::new(Message {
        topic: published.topic.unwrap(),
        payload: published.payload,
        qos: QoS::ExactlyOnce,
        retain: false,
        properties: Bytes::new(),
        expires_at: None,
        publisher: None,
    });
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let (mut session, mut out) = (session(now), Vec::with_capacity(64));
        group.bench_function(format!("{qos:?}"), |b| {
            b.iter(|| {
                let delivery =
                    Delivery { message: message.clone(), qos, retain: false, subscription_identifiers: Vec::new() };
                session.handle(now, WALL, Event::Deliver(delivery), &mut out);
                if let Some(Action::Deliver { packet_id: Some(id), .. }) = out.last() {
                    let ack = Ack::new(*id, ReasonCode::Success);
                    if qos == QoS::AtLeastOnce {
                        session.handle(now, WALL, Event::Packet(Packet::PubAck(ack)), &mut out);
                    } else {
                        session.handle(now, WALL, Event::Packet(Packet::PubRec(ack.clone())), &mut out);
                        session.handle(now, WALL, Event::Packet(Packet::PubComp(ack)), &mut out);
                    }
                }
                black_box(&out);
                out.clear();
            });
        });
    }
}

criterion_group!(benches, inbound, outbound);
criterion_main!(benches);
