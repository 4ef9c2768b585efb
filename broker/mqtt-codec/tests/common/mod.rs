//! Packets to try things on.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, missing_docs)]

use base_types::{PacketId, QoS, RetainHandling, TopicName};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use mqtt_codec::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::num::{NonZeroU16, NonZeroU32};

pub const VERSIONS: [Version; 3] = [Version::V3, Version::V4, Version::V5];

/// A decoder that has `packet` accepted: of the receiver's role, and before or after CONNECT.
pub fn decoder_for(packet: &Packet, role: Role, version: Version) -> Decoder {
    let mut decoder = Decoder::new(role, u32::MAX);
    if !matches!(packet, Packet::Connect(_)) {
        decoder.set_version(version);
    }
    decoder
}

pub fn encoded(packet: &Packet, version: Version) -> BytesMut {
    let mut out = BytesMut::new();
    encode(packet, version, &mut out).unwrap();
    assert_eq!(out.len(), encoded_len(packet, version).unwrap());
    out
}

pub fn version() -> impl Strategy<Value = Version> {
    select(VERSIONS.to_vec())
}

/// A packet that can be sent in a version, and to whom.
pub fn sent() -> impl Strategy<Value = (Packet, Version, Role)> {
    version().prop_flat_map(|v| {
        prop_oneof![
            (packet_for(Role::Server, v), Just(v), Just(Role::Server)),
            (packet_for(Role::Client, v), Just(v), Just(Role::Client)),
        ]
    })
}

/// A packet that can be sent to `role` in `version`, and that says nothing which the version cannot say.
pub fn packet_for(role: Role, version: Version) -> BoxedStrategy<Packet> {
    let v5 = version == Version::V5;
    let mut all = vec![
        publish(role, version).prop_map(Packet::Publish).boxed(),
        ack(version, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]).prop_map(Packet::PubAck).boxed(),
        ack(version, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]).prop_map(Packet::PubRec).boxed(),
        ack(version, &[0x00, 0x92]).prop_map(Packet::PubRel).boxed(),
        ack(version, &[0x00, 0x92]).prop_map(Packet::PubComp).boxed(),
    ];
    match role {
        Role::Server => all.extend([
            connect(version).prop_map(|c| Packet::Connect(Box::new(c))).boxed(),
            subscribe(version).prop_map(Packet::Subscribe).boxed(),
            unsubscribe(version).prop_map(Packet::Unsubscribe).boxed(),
            Just(Packet::PingReq).boxed(),
        ]),
        Role::Client => all.extend([
            connack(version).prop_map(|c| Packet::ConnAck(Box::new(c))).boxed(),
            suback(version).prop_map(Packet::SubAck).boxed(),
            unsuback(version).prop_map(Packet::UnsubAck).boxed(),
            Just(Packet::PingResp).boxed(),
        ]),
    }
    if v5 || role == Role::Server {
        all.push(disconnect(role, version).prop_map(Packet::Disconnect).boxed());
    }
    if v5 {
        all.push(auth(role).prop_map(Packet::Auth).boxed());
    }
    proptest::strategy::Union::new(all).boxed()
}

/// Where, what, and how a byte of a packet is changed.
pub type Edit = (prop::sample::Index, u8, u8);

pub fn edits() -> impl Strategy<Value = Vec<Edit>> {
    vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..6)
}

/// The same bytes with some changed, removed or repeated.
pub fn mutate(bytes: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, byte, how) in edits {
        let at = at.index(bytes.len().max(1));
        match how {
            _ if bytes.is_empty() => {}
            0 => bytes[at] = *byte,
            1 => bytes[at] ^= 1 << (byte & 7),
            2 => drop(bytes.remove(at)),
            _ => bytes.insert(at, bytes[at]),
        }
    }
    bytes
}

fn only<T: Clone + std::fmt::Debug + Default + 'static>(
    when: bool,
    strategy: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    if when { strategy.boxed() } else { Just(T::default()).boxed() }
}

pub fn text() -> impl Strategy<Value = ByteString> {
    let char = prop_oneof![4 => proptest::char::range('!', '~'), 1 => any::<char>()];
    vec(char.prop_filter("no NUL", |c| *c != '\0'), 0..12)
        .prop_map(|cs| ByteString::from(cs.into_iter().collect::<String>()))
}

pub fn topic() -> impl Strategy<Value = TopicName> {
    text().prop_filter_map("no topic", |text| TopicName::new(text).ok())
}

pub fn binary(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn user_properties() -> impl Strategy<Value = Vec<UserProperty>> {
    vec((text(), text()), 0..3)
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    any::<PacketId>()
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn code(of: &[u8]) -> impl Strategy<Value = ReasonCode> + use<> {
    select(of.iter().map(|code| ReasonCode::try_from(*code).unwrap()).collect::<Vec<_>>())
}

/// A block of forwarded properties, and whether it says that the payload is UTF-8.
fn forwarded() -> impl Strategy<Value = (Bytes, bool)> {
    let parts =
        (option::of(any::<bool>()), option::of(text()), option::of(topic()), option::of(binary(9)), user_properties());
    (parts, any::<bool>()).prop_map(|((utf8, content_type, response_topic, correlation, user), first)| {
        let mut block = ForwardedBuilder::new();
        let user_properties = |block: &mut ForwardedBuilder| {
            for (name, value) in &user {
                block.push(ForwardedProperty::UserProperty(name, value)).unwrap();
            }
        };
        if first {
            user_properties(&mut block);
        }
        if let Some(utf8) = utf8 {
            block.push(ForwardedProperty::PayloadFormatIndicator(utf8)).unwrap();
        }
        if let Some(text) = &content_type {
            block.push(ForwardedProperty::ContentType(text)).unwrap();
        }
        if let Some(topic) = &response_topic {
            block.push(ForwardedProperty::ResponseTopic(topic.as_str())).unwrap();
        }
        if let Some(data) = &correlation {
            block.push(ForwardedProperty::CorrelationData(data)).unwrap();
        }
        if !first {
            user_properties(&mut block);
        }
        (block.build(), utf8 == Some(true))
    })
}

fn reason_properties(v5: bool) -> BoxedStrategy<Option<Box<ReasonProperties>>> {
    let some = (option::of(text()), user_properties()).prop_map(|(reason_string, user_properties)| {
        let p = ReasonProperties { reason_string, user_properties };
        (p != ReasonProperties::default()).then(|| Box::new(p))
    });
    only(v5, some)
}

pub fn connect(version: Version) -> impl Strategy<Value = Connect> {
    let v5 = version == Version::V5;
    (
        any::<bool>(),
        any::<u16>(),
        text(),
        option::of(will(v5)),
        option::of(text()),
        option::of(binary(9)),
        only(v5, connect_properties()),
    )
        .prop_map(move |(clean_start, keep_alive, client_id, will, username, password, properties)| Connect {
            version,
            clean_start,
            keep_alive,
            client_id,
            will,
            password: if v5 || username.is_some() { password } else { None },
            username,
            properties,
        })
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties> {
    (
        (
            option::of(any::<u32>()),
            option::of(any::<NonZeroU16>()),
            option::of(any::<NonZeroU32>()),
            option::of(any::<u16>()),
        ),
        (
            option::of(any::<bool>()),
            option::of(any::<bool>()),
            user_properties(),
            option::of((text(), option::of(binary(9)))),
        ),
    )
        .prop_map(|((expiry, receive, size, alias), (response, problem, user_properties, auth))| {
            ConnectProperties {
                session_expiry_interval: expiry,
                receive_maximum: receive,
                maximum_packet_size: size,
                topic_alias_maximum: alias,
                request_response_information: response,
                request_problem_information: problem,
                user_properties,
                authentication_data: auth.as_ref().and_then(|(_, data)| data.clone()),
                authentication_method: auth.map(|(method, _)| method),
            }
        })
}

fn will(v5: bool) -> impl Strategy<Value = Will> {
    (
        topic(),
        binary(20),
        qos(),
        any::<bool>(),
        only(v5, any::<u32>()),
        only(v5, option::of(any::<u32>())),
        only(v5, forwarded()),
    )
        .prop_map(
            |(topic, payload, qos, retain, delay_interval, message_expiry_interval, (forwarded, payload_is_utf8))| {
                Will {
                    topic,
                    payload,
                    qos,
                    retain,
                    delay_interval,
                    message_expiry_interval,
                    forwarded,
                    payload_is_utf8,
                }
            },
        )
}

fn connack(version: Version) -> impl Strategy<Value = ConnAck> {
    let v5 = version == Version::V5;
    let old = [0x00, 0x84, 0x85, 0x88, 0x86, 0x87];
    let new = [
        0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99, 0x9a,
        0x9b, 0x9c, 0x9d, 0x9f,
    ];
    (any::<bool>(), code(if v5 { &new } else { &old }), only(v5, connack_properties())).prop_map(
        move |(present, reason_code, properties)| ConnAck {
            session_present: present && version > Version::V3 && !reason_code.is_error(),
            reason_code,
            properties,
        },
    )
}

fn connack_properties() -> impl Strategy<Value = ConnAckProperties> {
    (
        (
            option::of(any::<u32>()),
            option::of(any::<NonZeroU16>()),
            option::of(any::<bool>()),
            option::of(any::<bool>()),
        ),
        (
            option::of(any::<NonZeroU32>()),
            option::of(text()),
            option::of(any::<u16>()),
            option::of(text()),
            user_properties(),
        ),
        (option::of(any::<bool>()), option::of(any::<bool>()), option::of(any::<bool>()), option::of(any::<u16>())),
        (option::of(text()), option::of(text()), option::of(text()), option::of(binary(9))),
    )
        .prop_map(|(a, b, c, d)| ConnAckProperties {
            session_expiry_interval: a.0,
            receive_maximum: a.1,
            maximum_qos: a.2.map(|one| if one { QoS::AtLeastOnce } else { QoS::AtMostOnce }),
            retain_available: a.3,
            maximum_packet_size: b.0,
            assigned_client_identifier: b.1,
            topic_alias_maximum: b.2,
            reason_string: b.3,
            user_properties: b.4,
            wildcard_subscription_available: c.0,
            subscription_identifiers_available: c.1,
            shared_subscription_available: c.2,
            server_keep_alive: c.3,
            response_information: d.0,
            server_reference: d.1,
            authentication_method: d.2,
            authentication_data: d.3,
        })
}

pub fn publish(role: Role, version: Version) -> impl Strategy<Value = Publish> {
    let v5 = version == Version::V5;
    let ids = vec(1..268_435_456_u32, 0..3);
    (
        (any::<bool>(), qos(), any::<bool>(), topic(), packet_id(), binary(300)),
        (only(v5, option::of(any::<u32>())), only(v5, option::of(any::<NonZeroU16>())), any::<bool>()),
        (only(v5 && role == Role::Client, ids), only(v5, forwarded())),
    )
        .prop_map(|((dup, qos, retain, topic, id, payload), (expiry, alias, with_topic), (ids, forwarded))| {
            Publish {
                dup: dup && qos != QoS::AtMostOnce,
                qos,
                retain,
                topic: (with_topic || alias.is_none()).then_some(topic),
                packet_id: (qos != QoS::AtMostOnce).then_some(id),
                payload,
                message_expiry_interval: expiry,
                topic_alias: alias,
                subscription_identifiers: ids,
                payload_is_utf8: forwarded.1,
                forwarded: forwarded.0,
            }
        })
}

fn ack(version: Version, codes: &[u8]) -> impl Strategy<Value = Ack> + use<> {
    let v5 = version == Version::V5;
    (packet_id(), only(v5, code(codes)), reason_properties(v5)).prop_map(|(packet_id, reason_code, properties)| Ack {
        packet_id,
        reason_code,
        properties,
    })
}

fn subscribe(version: Version) -> impl Strategy<Value = Subscribe> {
    let v5 = version == Version::V5;
    let handling = select(vec![RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DontSend]);
    let filter = (text(), qos(), only(v5, any::<bool>()), only(v5, any::<bool>()), only(v5, handling)).prop_map(
        |(filter, qos, no_local, retain_as_published, retain_handling)| SubscribeFilter {
            filter,
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        },
    );
    let identifier = option::of((1..268_435_456_u32).prop_map(|id| NonZeroU32::new(id).unwrap()));
    (packet_id(), only(v5, identifier), only(v5, user_properties()), vec(filter, 1..4)).prop_map(
        |(packet_id, subscription_identifier, user_properties, filters)| Subscribe {
            packet_id,
            subscription_identifier,
            user_properties,
            filters,
        },
    )
}

fn suback(version: Version) -> impl Strategy<Value = SubAck> {
    let v5 = version == Version::V5;
    let old = [0x00, 0x01, 0x02, 0x80];
    let new = [0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2];
    (packet_id(), vec(code(if v5 { &new } else { &old }), 1..4), reason_properties(v5))
        .prop_map(|(packet_id, reason_codes, properties)| SubAck { packet_id, reason_codes, properties })
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Unsubscribe> {
    (packet_id(), only(version == Version::V5, user_properties()), vec(text(), 1..4))
        .prop_map(|(packet_id, user_properties, filters)| Unsubscribe { packet_id, user_properties, filters })
}

fn unsuback(version: Version) -> impl Strategy<Value = UnsubAck> {
    let v5 = version == Version::V5;
    let codes = vec(code(&[0x00, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91]), 1..4);
    (packet_id(), only(v5, codes), reason_properties(v5)).prop_map(|(packet_id, reason_codes, properties)| UnsubAck {
        packet_id,
        reason_codes,
        properties,
    })
}

fn disconnect(role: Role, version: Version) -> BoxedStrategy<Disconnect> {
    let to_server = role == Role::Server;
    let both = [0x00, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
    let server = [0x87, 0x89, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2];
    let codes = if to_server { [&both[..], &[0x04]].concat() } else { [&both[..], &server].concat() };
    let some = (
        code(&codes),
        only(to_server, option::of(any::<u32>())),
        option::of(text()),
        user_properties(),
        option::of(text()),
    )
        .prop_map(|(reason_code, session_expiry_interval, reason_string, user_properties, server_reference)| {
            Disconnect { reason_code, session_expiry_interval, reason_string, user_properties, server_reference }
        });
    only(version == Version::V5, some)
}

fn auth(role: Role) -> impl Strategy<Value = Auth> {
    let codes = if role == Role::Server { [0x18, 0x19] } else { [0x00, 0x18] };
    let some = (code(&codes), text(), option::of(binary(9)), option::of(text()), user_properties()).prop_map(
        |(reason_code, method, authentication_data, reason_string, user_properties)| Auth {
            reason_code,
            authentication_method: Some(method),
            authentication_data,
            reason_string,
            user_properties,
        },
    );
    prop_oneof![1 => Just(Auth::default()), 5 => some]
}
