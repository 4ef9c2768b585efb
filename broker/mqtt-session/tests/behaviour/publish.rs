//! PUBLISH from the client: order of acknowledgements, exactly once, limits, aliases.

use crate::rig::*;
use base_types::{QoS, WallMs};
use bytes::Bytes;
use mqtt_codec::{Ack, Packet, ReasonCode, Version};
use mqtt_session::{Action, CloseReason, Event, OpId, PublishOutcome, Settings};
use std::num::NonZeroU16;
use std::time::Duration;

fn op_of(out: &[Action]) -> OpId {
    match out {
        [Action::Publish { op: Some(op), .. }] => *op,
        other => panic!("no PUBLISH but {other:?}"),
    }
}

fn done(rig: &mut Rig, op: OpId, outcome: PublishOutcome) -> Vec<Packet> {
    sent(&rig.event(Event::PublishDone(op, outcome)))
}

const ACCEPTED: PublishOutcome = PublishOutcome::Accepted { receivers: 1 };

fn with(name: &str, value: &str) -> Settings {
    let mut settings = Settings::default();
    settings.set(name, value).unwrap();
    settings
}

#[test]
fn a_message_is_passed_on_with_everything_that_belongs_to_it() {
    let mut rig = Rig::transient(Version::V5);
    let mut packet = publish(QoS::AtMostOnce, 0);
    packet.retain = true;
    packet.message_expiry_interval = Some(5);
    packet.forwarded = Bytes::from_static(&[1, 1]);
    let out = rig.packet(Packet::Publish(packet));
    let [Action::Publish { op: None, message, inbound: None }] = &out[..] else { panic!("{out:?}") };
    assert_eq!(message.topic, topic("a/b"));
    assert_eq!((message.qos, message.retain), (QoS::AtMostOnce, true));
    assert_eq!(message.expires_at, Some(WallMs(1_005_000)));
    assert_eq!(&message.properties[..], [1, 1]);
    assert_eq!(message.publisher.as_ref(), rig.session.client_id());
}

/// [MQTT-4.6.0-2], [MQTT-4.6.0-3]
#[test]
fn acknowledgements_leave_in_the_order_of_the_publishes() {
    let mut rig = Rig::transient(Version::V4);
    let ops: Vec<_> = [(QoS::AtLeastOnce, 7), (QoS::ExactlyOnce, 8), (QoS::AtLeastOnce, 9)]
        .map(|(qos, n)| op_of(&rig.packet(Packet::Publish(publish(qos, n)))))
        .to_vec();
    assert_eq!(done(&mut rig, ops[2], ACCEPTED), []);
    assert_eq!(done(&mut rig, ops[1], ACCEPTED), []);
    assert_eq!(
        done(&mut rig, ops[0], ACCEPTED),
        [Packet::PubAck(ack(7)), Packet::PubRec(ack(8)), Packet::PubAck(ack(9))]
    );
    assert_eq!(done(&mut rig, ops[0], ACCEPTED), [], "an answer counts once");
}

#[test]
fn a_refused_or_failed_publish_is_told_as_the_version_lets_it() {
    let refused = PublishOutcome::Refused(ReasonCode::NotAuthorized);
    let failed = PublishOutcome::Failed(ReasonCode::ImplementationSpecificError);
    let nobody = PublishOutcome::Accepted { receivers: 0 };
    let error = |code| Some(Packet::PubAck(Ack::new(id(1), code)));
    for (version, outcome, want) in [
        (Version::V5, refused, error(ReasonCode::NotAuthorized)),
        (Version::V5, failed, error(ReasonCode::ImplementationSpecificError)),
        (Version::V5, nobody, error(ReasonCode::NoMatchingSubscribers)),
        // 3.1.1 §3.3.5.2: acknowledged like any other.
        (Version::V4, refused, error(ReasonCode::Success)),
        (Version::V4, nobody, error(ReasonCode::Success)),
        // No acknowledgement is a promise: the client sends it again.
        (Version::V4, failed, None),
        (Version::V3, failed, None),
    ] {
        let mut rig = Rig::transient(version);
        let op = op_of(&rig.packet(Packet::Publish(publish(QoS::AtLeastOnce, 1))));
        assert_eq!(done(&mut rig, op, outcome), Vec::from_iter(want), "{version:?} {outcome:?}");
    }
}

/// [MQTT-4.3.3-8] to [MQTT-4.3.3-12]
#[test]
fn a_qos_2_message_is_published_once_until_it_is_released() {
    let mut rig = Rig::transient(Version::V5);
    let op = op_of(&rig.packet(Packet::Publish(publish(QoS::ExactlyOnce, 5))));
    let mut again = publish(QoS::ExactlyOnce, 5);
    again.dup = true;
    assert!(rig.packet(Packet::Publish(again.clone())).is_empty(), "PUBREC will come");
    assert_eq!(done(&mut rig, op, ACCEPTED), [Packet::PubRec(ack(5))]);
    assert_eq!(sent(&rig.packet(Packet::Publish(again))), [Packet::PubRec(ack(5))]);
    assert_eq!(sent(&rig.packet(Packet::PubRel(ack(5)))), [Packet::PubComp(ack(5))]);
    assert_eq!(
        sent(&rig.packet(Packet::PubRel(ack(5)))),
        [Packet::PubComp(Ack::new(id(5), ReasonCode::PacketIdentifierNotFound))]
    );
    op_of(&rig.packet(Packet::Publish(publish(QoS::ExactlyOnce, 5))));
}

/// [MQTT-4.3.3-9]: an error in PUBREC ends the exchange.
#[test]
fn a_refused_qos_2_message_frees_its_id() {
    let mut rig = Rig::transient(Version::V5);
    let op = op_of(&rig.packet(Packet::Publish(publish(QoS::ExactlyOnce, 5))));
    let refused = PublishOutcome::Refused(ReasonCode::QuotaExceeded);
    let pubrec = Ack::new(id(5), ReasonCode::QuotaExceeded);
    assert_eq!(done(&mut rig, op, refused), [Packet::PubRec(pubrec)]);
    op_of(&rig.packet(Packet::Publish(publish(QoS::ExactlyOnce, 5))));
}

#[test]
fn pubrel_before_pubrec_is_a_protocol_error() {
    let mut rig = Rig::transient(Version::V5);
    op_of(&rig.packet(Packet::Publish(publish(QoS::ExactlyOnce, 5))));
    assert_eq!(closed(&rig.packet(Packet::PubRel(ack(5)))).0, Some(ReasonCode::ProtocolError));
}

/// [MQTT-3.3.4-7]; Paho `client_test5.test_flow_control2`.
#[test]
fn a_client_that_exceeds_receive_maximum_is_disconnected() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut rig = Rig::transient(Version::V5);
        for n in 1..=100 {
            let op = op_of(&rig.packet(Packet::Publish(publish(qos, n))));
            if qos == QoS::ExactlyOnce {
                done(&mut rig, op, ACCEPTED);
            }
        }
        let out = rig.packet(Packet::Publish(publish(qos, 101)));
        assert_eq!(closed(&out).0, Some(ReasonCode::ReceiveMaximumExceeded), "{qos:?}");
    }
}

#[test]
fn what_is_completed_counts_no_longer_towards_receive_maximum() {
    let mut rig = Rig::transient_with(Version::V5, with("ReceivingMaximum", "2"), |_| {});
    for round in 0..10 {
        let op = op_of(&rig.packet(Packet::Publish(publish(QoS::AtLeastOnce, 1))));
        assert_eq!(done(&mut rig, op, ACCEPTED).len(), 1, "{round}");
        let op = op_of(&rig.packet(Packet::Publish(publish(QoS::ExactlyOnce, 2))));
        done(&mut rig, op, PublishOutcome::Refused(ReasonCode::NotAuthorized));
        let op = op_of(&rig.packet(Packet::Publish(publish(QoS::ExactlyOnce, 3))));
        done(&mut rig, op, ACCEPTED);
        assert_eq!(rig.packet(Packet::PubRel(ack(3))).len(), 1);
    }
}

#[test]
fn clients_that_know_no_receive_maximum_wait() {
    let mut rig = Rig::transient_with(Version::V4, with("ReceivingMaximum", "2"), |_| {});
    let op = op_of(&rig.packet(Packet::Publish(publish(QoS::AtLeastOnce, 1))));
    assert!(!rig.session.inbound_paused());
    op_of(&rig.packet(Packet::Publish(publish(QoS::AtLeastOnce, 2))));
    assert!(rig.session.inbound_paused());
    op_of(&rig.packet(Packet::Publish(publish(QoS::AtLeastOnce, 3))));
    done(&mut rig, op, ACCEPTED);
    assert!(rig.session.inbound_paused());
    done(&mut rig, OpId(op.0 + 1), ACCEPTED);
    assert!(!rig.session.inbound_paused());
}

/// 5.0 §3.3.2.3.4, §3.3.4 [MQTT-3.3.2-9]
#[test]
fn a_topic_alias_stands_for_its_topic_until_it_is_set_again() {
    let mut rig = Rig::transient(Version::V5);
    let mut aliased = |name: Option<&str>, alias: u16| {
        let mut packet = publish(QoS::AtMostOnce, 0);
        packet.topic = name.map(topic);
        packet.topic_alias = NonZeroU16::new(alias);
        rig.packet(Packet::Publish(packet))
    };
    let topic_of = |out: Vec<Action>| match &out[..] {
        [Action::Publish { message, .. }] => message.topic.as_str().to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(topic_of(aliased(Some("x"), 10)), "x");
    assert_eq!(topic_of(aliased(None, 10)), "x");
    assert_eq!(topic_of(aliased(Some("y"), 10)), "y");
    assert_eq!(topic_of(aliased(None, 10)), "y");
    assert_eq!(closed(&aliased(Some("x"), 11)).0, Some(ReasonCode::TopicAliasInvalid));
}

/// 5.0 §3.3.4 gives two codes: 0x94 for an alias that can't be, 0x82 for one that could be and was never set.
#[test]
fn an_alias_above_the_maximum_is_invalid_and_one_never_set_a_protocol_error_at_each_qos() {
    for (qos, id) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 1), (QoS::ExactlyOnce, 1)] {
        for (alias, reason) in [(11, ReasonCode::TopicAliasInvalid), (10, ReasonCode::ProtocolError)] {
            let mut packet = publish(qos, id);
            packet.topic = None;
            packet.topic_alias = NonZeroU16::new(alias);
            let out = Rig::transient(Version::V5).packet(Packet::Publish(packet));
            assert_eq!(closed(&out).0, Some(reason), "{qos:?} {alias}");
        }
    }
}

#[test]
fn what_the_settings_forbid_ends_the_connection_with_its_reason() {
    let mut retained = publish(QoS::AtMostOnce, 0);
    retained.retain = true;
    let mut broken = publish(QoS::AtMostOnce, 0);
    broken.payload = Bytes::from_static(&[0xff]);
    broken.payload_is_utf8 = true;
    for (settings, packet, reason) in [
        (with("MaximumQoS", "1"), publish(QoS::ExactlyOnce, 1), ReasonCode::QoSNotSupported),
        (with("RetainEnabled", "false"), retained, ReasonCode::RetainNotSupported),
        (with("MaxTopicLevels", "1"), publish(QoS::AtMostOnce, 0), ReasonCode::TopicNameInvalid),
        (Settings::default(), broken, ReasonCode::PayloadFormatInvalid),
    ] {
        for version in [Version::V4, Version::V5] {
            let mut rig = Rig::transient_with(version, settings.clone(), |_| {});
            let out = rig.packet(Packet::Publish(packet.clone()));
            let told = (version == Version::V5).then_some(reason);
            assert_eq!(closed(&out), (told, CloseReason::ByServer(reason)));
        }
    }
}

#[test]
fn what_an_acknowledgement_can_refuse_does_not_end_the_connection() {
    let mut rig = Rig::transient_with(Version::V5, with("MaxTopicLevels", "1"), |_| {});
    let mut broken = publish(QoS::ExactlyOnce, 2);
    broken.topic = Some(topic("a"));
    broken.payload = Bytes::from_static(&[0xff]);
    broken.payload_is_utf8 = true;
    let refused = |n, code| Ack::new(id(n), code);
    assert_eq!(
        sent(&rig.packet(Packet::Publish(publish(QoS::AtLeastOnce, 1)))),
        [Packet::PubAck(refused(1, ReasonCode::TopicNameInvalid))]
    );
    assert_eq!(
        sent(&rig.packet(Packet::Publish(broken))),
        [Packet::PubRec(refused(2, ReasonCode::PayloadFormatInvalid))]
    );
    // 3.1.1 has no such acknowledgement.
    let mut rig = Rig::transient_with(Version::V4, with("MaxTopicLevels", "1"), |_| {});
    let out = rig.packet(Packet::Publish(publish(QoS::AtLeastOnce, 1)));
    assert_eq!(closed(&out), (None, CloseReason::ByServer(ReasonCode::TopicNameInvalid)));
}

#[test]
fn a_client_that_publishes_too_fast_is_disconnected() {
    let mut rig = Rig::transient_with(Version::V5, with("MsgPubPerSec", "10"), |_| {});
    for _ in 0..10 {
        assert_eq!(rig.packet(Packet::Publish(publish(QoS::AtMostOnce, 0))).len(), 1);
    }
    rig.pass(Duration::from_millis(100));
    assert!(matches!(rig.packet(Packet::Publish(publish(QoS::AtMostOnce, 0)))[..], [Action::Publish { .. }]));
    let out = rig.packet(Packet::Publish(publish(QoS::AtMostOnce, 0)));
    assert_eq!(closed(&out).0, Some(ReasonCode::MessageRateTooHigh));
}
