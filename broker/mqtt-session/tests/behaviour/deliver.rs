//! Messages to a session without an inbox.

use crate::rig::*;
use base_types::{Message, QoS, WallMs};
use mqtt_codec::{Ack, Packet, ReasonCode, Version};
use mqtt_session::{Action, Delivery, DropReason, Event, Settings};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

fn deliver(rig: &mut Rig, qos: QoS, text: &str) -> Vec<Action> {
    rig.event(Event::Deliver(delivery(qos, text)))
}

fn receive_maximum(max: u16) -> Rig {
    Rig::transient_with(Version::V5, Settings::default(), |connect| {
        connect.properties.receive_maximum = NonZeroU16::new(max);
    })
}

fn text(text: &str, packet_id: u16) -> (String, Option<u16>, bool) {
    (text.to_owned(), NonZeroU16::new(packet_id).map(NonZeroU16::get), false)
}

#[test]
fn qos_0_goes_out_at_once_whatever_waits() {
    let mut rig = receive_maximum(1);
    deliver(&mut rig, QoS::AtLeastOnce, "1");
    assert!(deliver(&mut rig, QoS::AtLeastOnce, "2").is_empty());
    assert_eq!(delivered(&deliver(&mut rig, QoS::AtMostOnce, "0")), [text("0", 0)]);
}

/// [MQTT-3.3.4-9]; Paho `client_test5.test_flow_control1`.
#[test]
fn no_more_is_in_flight_than_the_client_takes() {
    let mut rig = receive_maximum(2);
    assert_eq!(delivered(&deliver(&mut rig, QoS::AtLeastOnce, "1")), [text("1", 1)]);
    assert_eq!(delivered(&deliver(&mut rig, QoS::ExactlyOnce, "2")), [text("2", 2)]);
    assert!(deliver(&mut rig, QoS::AtLeastOnce, "3").is_empty());
    assert!(deliver(&mut rig, QoS::AtLeastOnce, "4").is_empty());
    assert_eq!(delivered(&rig.packet(Packet::PubAck(ack(1)))), [text("3", 3)]);
    let out = rig.packet(Packet::PubRec(ack(2)));
    assert_eq!(sent(&out), [Packet::PubRel(ack(2))]);
    assert!(delivered(&out).is_empty(), "an exchange ends with PUBCOMP");
    assert_eq!(delivered(&rig.packet(Packet::PubComp(ack(2)))), [text("4", 4)]);
}

#[test]
fn an_error_in_pubrec_ends_the_exchange() {
    let mut rig = receive_maximum(1);
    deliver(&mut rig, QoS::ExactlyOnce, "1");
    assert!(deliver(&mut rig, QoS::ExactlyOnce, "2").is_empty());
    let out = rig.packet(Packet::PubRec(Ack::new(id(1), ReasonCode::QuotaExceeded)));
    assert_eq!((sent(&out), delivered(&out)), (vec![], vec![text("2", 2)]));
}

#[test]
fn acknowledgements_of_what_is_not_in_flight_are_answered_as_the_specification_says() {
    let mut rig = Rig::transient(Version::V5);
    assert!(rig.packet(Packet::PubAck(ack(9))).is_empty());
    assert!(rig.packet(Packet::PubComp(ack(9))).is_empty());
    let not_found = Ack::new(id(9), ReasonCode::PacketIdentifierNotFound);
    assert_eq!(sent(&rig.packet(Packet::PubRec(ack(9)))), [Packet::PubRel(not_found)]);
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_is_a_protocol_error() {
    type Wrong = (QoS, fn(Ack) -> Packet);
    let wrong: [Wrong; 4] = [
        (QoS::AtLeastOnce, Packet::PubRec),
        (QoS::AtLeastOnce, Packet::PubComp),
        (QoS::ExactlyOnce, Packet::PubAck),
        (QoS::ExactlyOnce, Packet::PubComp),
    ];
    for (qos, packet) in wrong {
        let mut rig = Rig::transient(Version::V5);
        deliver(&mut rig, qos, "1");
        assert_eq!(closed(&rig.packet(packet(ack(1)))).0, Some(ReasonCode::ProtocolError));
    }
}

#[test]
fn a_full_queue_drops_by_its_policy_and_says_so() {
    for (policy, kept) in [("DropOldest", ["3", "4"]), ("DropNewest", ["2", "3"]), ("Reject", ["2", "3"])] {
        let mut settings = Settings::default();
        settings.set("SendingMaximum", "1").unwrap();
        settings.set("SessionInboxSize", "2").unwrap();
        settings.set("SessionInboxFull", policy).unwrap();
        let mut rig = Rig::transient_with(Version::V4, settings, |_| {});
        for n in ["1", "2", "3"] {
            deliver(&mut rig, QoS::AtLeastOnce, n);
        }
        let out = deliver(&mut rig, QoS::AtLeastOnce, "4");
        assert!(matches!(out[..], [Action::Dropped { cause: DropReason::QueueFull, count: 1 }]), "{policy} {out:?}");
        for (at, want) in (1..).zip(kept) {
            assert_eq!(delivered(&rig.packet(Packet::PubAck(ack(at)))), [text(want, at + 1)], "{policy}");
        }
    }
}

#[test]
fn a_queue_is_bounded_in_bytes_too() {
    let mut settings = Settings::default();
    settings.set("SendingMaximum", "1").unwrap();
    settings.set("SessionInboxBytes", "20").unwrap();
    let mut rig = Rig::transient_with(Version::V4, settings, |_| {});
    deliver(&mut rig, QoS::AtLeastOnce, "1");
    assert!(deliver(&mut rig, QoS::AtLeastOnce, &"x".repeat(1000)).is_empty(), "a single large one fits");
    let out = deliver(&mut rig, QoS::AtLeastOnce, "3");
    assert!(matches!(out[..], [Action::Dropped { count: 1, .. }]), "{out:?}");
    assert!(deliver(&mut rig, QoS::AtLeastOnce, "4").is_empty());
}

fn expiring(qos: QoS, at: u64) -> Delivery {
    let message = Message { expires_at: Some(WallMs(at)), ..(*message("soon")).clone() };
    Delivery { message: Arc::new(message), qos, retain: false, subscription_identifiers: Vec::new() }
}

/// [MQTT-3.3.2-5]
#[test]
fn an_expired_message_is_not_sent() {
    let mut rig = receive_maximum(1);
    let expired = |out: &[Action]| matches!(out, [Action::Dropped { cause: DropReason::Expired, count: 1 }]);
    assert!(expired(&rig.event(Event::Deliver(expiring(QoS::AtMostOnce, 1_000_000)))));
    deliver(&mut rig, QoS::AtLeastOnce, "1");
    assert!(rig.event(Event::Deliver(expiring(QoS::AtLeastOnce, 1_001_000))).is_empty());
    deliver(&mut rig, QoS::AtLeastOnce, "3");
    rig.pass(Duration::from_secs(1));
    let out = rig.packet(Packet::PubAck(ack(1)));
    assert!(expired(&out[..1]), "{out:?}");
    assert_eq!(delivered(&out), [text("3", 2)]);
}

/// [MQTT-3.1.2-24], [MQTT-3.1.2-25]; Paho `client_test5.test_maximum_packet_size`.
#[test]
fn a_message_that_is_larger_than_the_client_takes_is_dropped_and_the_rest_goes_on() {
    let mut rig = Rig::transient_with(Version::V5, Settings::default(), |connect| {
        connect.properties.maximum_packet_size = NonZeroU32::new(64);
    });
    // 1 + 1 fixed header, 2 + 3 topic, 2 packet id, 1 property length: 54 bytes are left.
    assert_eq!(delivered(&deliver(&mut rig, QoS::AtLeastOnce, &"x".repeat(54))).len(), 1);
    let out = deliver(&mut rig, QoS::AtLeastOnce, &"x".repeat(55));
    assert!(matches!(out[..], [Action::Dropped { cause: DropReason::PacketTooLarge, count: 1 }]), "{out:?}");
    assert_eq!(delivered(&deliver(&mut rig, QoS::AtMostOnce, &"x".repeat(56))).len(), 1);
}

fn on_topic(rig: &mut Rig, name: &str, payload: usize) -> Option<(u16, bool)> {
    let message = Message { topic: topic(name), ..(*message(&"x".repeat(payload))).clone() };
    let delivery = Delivery {
        message: Arc::new(message),
        qos: QoS::AtMostOnce,
        retain: false,
        subscription_identifiers: Vec::new(),
    };
    match &rig.event(Event::Deliver(delivery))[..] {
        [Action::Deliver { alias, .. }] => alias.map(|alias| (alias.alias.get(), alias.known)),
        other => panic!("{other:?}"),
    }
}

/// 5.0 §3.3.2.3.4; Paho `client_test5.test_server_topic_alias`.
#[test]
fn the_first_topics_get_the_aliases_that_the_client_takes() {
    let mut rig = Rig::transient_with(Version::V5, Settings::default(), |connect| {
        connect.properties.topic_alias_maximum = Some(2);
    });
    assert_eq!(on_topic(&mut rig, "one", 1), Some((1, false)));
    assert_eq!(on_topic(&mut rig, "one", 1), Some((1, true)));
    assert_eq!(on_topic(&mut rig, "two", 1), Some((2, false)));
    assert_eq!(on_topic(&mut rig, "three", 1), None);
    assert_eq!(on_topic(&mut rig, "two", 1), Some((2, true)));

    let mut rig = Rig::transient(Version::V5);
    assert_eq!(on_topic(&mut rig, "one", 1), None);
}

#[test]
fn an_alias_never_makes_a_message_too_large() {
    let mut rig = Rig::transient_with(Version::V5, Settings::default(), |connect| {
        connect.properties.topic_alias_maximum = Some(2);
        connect.properties.maximum_packet_size = NonZeroU32::new(64);
    });
    // 1 + 1 fixed header, 2 + 3 topic, 1 property length: 56 bytes are left, and an alias takes three.
    assert_eq!(on_topic(&mut rig, "one", 56), None);
    assert_eq!(on_topic(&mut rig, "one", 53), Some((1, false)));
    assert_eq!(on_topic(&mut rig, "one", 56), Some((1, true)));
}
