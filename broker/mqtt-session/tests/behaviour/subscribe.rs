//! SUBSCRIBE and UNSUBSCRIBE.

use crate::rig::*;
use base_types::{QoS, RetainHandling};
use mqtt_codec::{Packet, ReasonCode, SubAck, UnsubAck, Unsubscribe, Version};
use mqtt_session::{Action, Event, OpId, Settings, SubscribeOutcome, UnsubscribeOutcome};
use std::num::NonZeroU32;

fn suback(packet_id: u16, reason_codes: &[ReasonCode]) -> Packet {
    Packet::SubAck(SubAck { packet_id: id(packet_id), reason_codes: reason_codes.to_vec(), properties: None })
}

fn unsuback(packet_id: u16, reason_codes: &[ReasonCode]) -> Packet {
    Packet::UnsubAck(UnsubAck { packet_id: id(packet_id), reason_codes: reason_codes.to_vec(), properties: None })
}

fn op_of(out: &[Action]) -> OpId {
    match out {
        [Action::Subscribe { op, .. } | Action::Unsubscribe { op, .. }] => *op,
        other => panic!("{other:?}"),
    }
}

fn with(name: &str, value: &str) -> Settings {
    let mut settings = Settings::default();
    settings.set(name, value).unwrap();
    settings
}

/// [MQTT-3.8.4-6], [MQTT-3.9.3-1]
#[test]
fn suback_has_a_code_for_each_filter_in_their_order_and_waits_for_the_answer() {
    let mut rig = Rig::transient(Version::V5);
    let out =
        rig.packet(Packet::Subscribe(subscribe(9, &["a", "b/#/c", "$share/g/x", "$share//x", "test/nosubscribe"])));
    let [Action::Subscribe { op, entries }] = &out[..] else { panic!("{out:?}") };
    assert_eq!(entries.len(), 3);
    let outcomes = vec![
        SubscribeOutcome::Granted(QoS::ExactlyOnce),
        SubscribeOutcome::Granted(QoS::AtLeastOnce),
        SubscribeOutcome::Refused(ReasonCode::UnspecifiedError),
    ];
    assert_eq!(
        sent(&rig.event(Event::SubscribeDone(*op, outcomes))),
        [suback(
            9,
            &[
                ReasonCode::GrantedQoS2,
                ReasonCode::TopicFilterInvalid,
                ReasonCode::GrantedQoS1,
                ReasonCode::TopicFilterInvalid,
                ReasonCode::UnspecifiedError,
            ]
        )]
    );
}

#[test]
fn a_subscribe_whose_filters_are_all_bad_is_answered_at_once() {
    let mut rig = Rig::transient(Version::V4);
    let out = rig.packet(Packet::Subscribe(subscribe(1, &["a#"])));
    assert_eq!(sent(&out), [suback(1, &[ReasonCode::TopicFilterInvalid])]);
}

#[test]
fn an_answer_that_is_too_short_grants_nothing() {
    let mut rig = Rig::transient(Version::V5);
    let op = op_of(&rig.packet(Packet::Subscribe(subscribe(1, &["a", "b"]))));
    let out = rig.event(Event::SubscribeDone(op, vec![SubscribeOutcome::Granted(QoS::AtMostOnce)]));
    assert_eq!(sent(&out), [suback(1, &[ReasonCode::Success, ReasonCode::UnspecifiedError])]);
}

#[test]
fn options_are_passed_on_with_the_qos_within_the_limit() {
    let mut rig = Rig::transient_with(Version::V5, with("MaximumQoS", "1"), |_| {});
    let mut packet = subscribe(1, &["a"]);
    packet.subscription_identifier = NonZeroU32::new(456_789);
    packet.filters[0].no_local = true;
    packet.filters[0].retain_as_published = true;
    packet.filters[0].retain_handling = RetainHandling::SendIfNew;
    let out = rig.packet(Packet::Subscribe(packet));
    let [Action::Subscribe { entries, .. }] = &out[..] else { panic!("{out:?}") };
    let options = entries[0].options;
    assert_eq!(options.qos, QoS::AtLeastOnce);
    assert!(options.no_local && options.retain_as_published);
    assert_eq!(options.retain_handling, RetainHandling::SendIfNew);
    assert_eq!(options.identifier, Some(456_789));
}

#[test]
fn what_is_switched_off_ends_a_connection_that_was_told_and_is_refused_to_the_others() {
    for (setting, filter, reason) in [
        ("WildcardSubscriptionEnabled", "a/+", ReasonCode::WildcardSubscriptionsNotSupported),
        ("SharedSubscriptionEnabled", "$share/g/a", ReasonCode::SharedSubscriptionsNotSupported),
        ("SharedSubscriptionEnabled", "$oshare/g/a", ReasonCode::SharedSubscriptionsNotSupported),
    ] {
        let mut rig = Rig::transient_with(Version::V5, with(setting, "false"), |_| {});
        assert_eq!(closed(&rig.packet(Packet::Subscribe(subscribe(1, &[filter])))).0, Some(reason));
        let mut rig = Rig::transient_with(Version::V4, with(setting, "false"), |_| {});
        assert_eq!(sent(&rig.packet(Packet::Subscribe(subscribe(1, &[filter])))), [suback(1, &[reason])]);
    }
    let mut rig = Rig::transient_with(Version::V5, with("SubscriptionIdentifierEnabled", "false"), |_| {});
    let mut packet = subscribe(1, &["a"]);
    packet.subscription_identifier = NonZeroU32::new(1);
    assert_eq!(closed(&rig.packet(Packet::Subscribe(packet))).0, Some(ReasonCode::SubscriptionIdentifiersNotSupported));
}

/// [MQTT-3.8.3-4]
#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let mut rig = Rig::transient(Version::V5);
    let mut packet = subscribe(1, &["$share/g/a"]);
    packet.filters[0].no_local = true;
    assert_eq!(closed(&rig.packet(Packet::Subscribe(packet))).0, Some(ReasonCode::ProtocolError));
}

#[test]
fn limits_on_filters_refuse_them() {
    let mut rig = Rig::transient_with(Version::V5, with("MaxTopicFiltersPerSub", "2"), |_| {});
    let out = rig.packet(Packet::Subscribe(subscribe(1, &["a", "b", "c"])));
    assert_eq!(sent(&out), [suback(1, &[ReasonCode::QuotaExceeded; 3])]);
    let mut rig = Rig::transient_with(Version::V5, with("MaxTopicLevels", "2"), |_| {});
    let out = rig.packet(Packet::Subscribe(subscribe(1, &["$share/group/a/b/c"])));
    assert_eq!(sent(&out), [suback(1, &[ReasonCode::TopicFilterInvalid])]);
    let out = rig.packet(Packet::Subscribe(subscribe(2, &["$share/group/a/b"])));
    op_of(&out);
}

/// [MQTT-3.10.4-4], [MQTT-3.11.3-1]
#[test]
fn unsuback_has_a_code_for_each_filter() {
    let mut rig = Rig::transient(Version::V5);
    let packet = Unsubscribe {
        packet_id: id(3),
        user_properties: Vec::new(),
        filters: vec!["a".into(), "a#".into(), "b".into()],
    };
    let op = op_of(&rig.packet(Packet::Unsubscribe(packet)));
    let out = rig.event(Event::UnsubscribeDone(op, vec![UnsubscribeOutcome::Removed, UnsubscribeOutcome::NotFound]));
    assert_eq!(
        sent(&out),
        [unsuback(3, &[ReasonCode::Success, ReasonCode::TopicFilterInvalid, ReasonCode::NoSubscriptionExisted])]
    );
}

#[test]
fn too_many_open_subscribes_pause_the_client() {
    let mut rig = Rig::transient(Version::V5);
    let mut ops = Vec::new();
    for n in 1..=32 {
        assert!(!rig.session.inbound_paused());
        ops.push(op_of(&rig.packet(Packet::Subscribe(subscribe(n, &["a"])))));
    }
    assert!(rig.session.inbound_paused());
    rig.event(Event::SubscribeDone(ops[5], vec![SubscribeOutcome::Granted(QoS::AtMostOnce)]));
    assert!(!rig.session.inbound_paused());
}

/// [MQTT-3.1.2-24]: no packet is larger than the client takes.
#[test]
fn a_suback_that_the_client_can_not_take_ends_the_connection() {
    let mut rig = Rig::transient_with(Version::V5, Settings::default(), |connect| {
        connect.properties.maximum_packet_size = NonZeroU32::new(60);
    });
    let filters: Vec<String> = (0..100).map(|n| format!("{n}#")).collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    let out = rig.packet(Packet::Subscribe(subscribe(1, &filters)));
    assert_eq!(closed(&out).0, Some(ReasonCode::PacketTooLarge));
}
