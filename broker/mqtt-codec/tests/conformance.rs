//! What the specifications allow and forbid, packet by packet, in bytes. Citations without a version are of 5.0.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "common/bytes.rs"]
mod notation;

use base_types::{PacketId, QoS, RetainHandling, TopicName};
use bytes::{Bytes, BytesMut};
use mqtt_codec::ReasonCode::*;
use mqtt_codec::Role::{Client, Server};
use mqtt_codec::Version::{V3, V4, V5};
use mqtt_codec::*;
use notation::bytes;
use std::num::{NonZeroU16, NonZeroU32};

fn decode(role: Role, version: Option<Version>, notation: &str) -> Result<Option<Packet>, DecodeError> {
    let mut decoder = Decoder::new(role, 1 << 20);
    if let Some(version) = version {
        decoder.set_version(version);
    }
    let mut buf = BytesMut::from(&bytes(notation)[..]);
    let decoded = decoder.decode(&mut buf);
    if let Ok(Some(_)) = decoded {
        assert!(buf.is_empty(), "{notation}: {} bytes are left", buf.len());
    }
    decoded
}

/// (citation, versions, packet, reason code, what the error says)
type Refused = (&'static str, &'static [Version], &'static str, ReasonCode, &'static str);

fn refuses(role: Role, table: &[Refused]) {
    for (citation, versions, notation, code, says) in table {
        for version in *versions {
            match decode(role, Some(*version), notation) {
                Err(error) => assert_eq!(
                    (error.reason_code(), error.to_string().as_str()),
                    (*code, *says),
                    "{citation} {version:?} {notation}"
                ),
                other => panic!("{citation} {version:?} {notation}: {other:?}"),
            }
        }
    }
}

/// (citation, versions, packet)
type Accepted = (&'static str, &'static [Version], &'static str);

fn accepts(role: Role, table: &[Accepted]) {
    for (citation, versions, notation) in table {
        for version in *versions {
            let decoded = decode(role, Some(*version), notation);
            assert!(matches!(decoded, Ok(Some(_))), "{citation} {version:?} {notation}: {decoded:?}");
        }
    }
}

const ALL: &[Version] = &[V3, V4, V5];
const OLD: &[Version] = &[V3, V4];
const NEW: &[Version] = &[V4, V5];
const FIVE: &[Version] = &[V5];
const FOUR: &[Version] = &[V4];
const THREE: &[Version] = &[V3];

#[test]
fn connect_is_refused_for_what_the_specification_forbids() {
    let table: &[(&str, &str, ReasonCode, &str)] = &[
        ("[MQTT-3.1.0-1]", "c000", ProtocolError, "PINGREQ: the packet may not be sent by this peer at this point"),
        ("[MQTT-3.1.0-1]", "30 | 'a'", ProtocolError, "PUBLISH: the packet may not be sent by this peer at this point"),
        (
            "[MQTT-3.1.0-1]",
            "20 | 0000",
            ProtocolError,
            "CONNACK: the packet may not be sent by this peer at this point",
        ),
        (
            "[MQTT-2.1.3-1]",
            "11 | 'MQTT' 04 02 003c 'c'",
            MalformedPacket,
            "CONNECT: the fixed header has reserved bits that are not as they must be: 0b00000001",
        ),
        (
            "[MQTT-3.1.2-1]",
            "10 | 'MQTX' 05 02 003c 00 'c'",
            UnsupportedProtocolVersion,
            "CONNECT: protocol level 5 is not supported",
        ),
        (
            "[MQTT-3.1.2-1]",
            "10 | 'mqtt' 04 02 003c 'c'",
            UnsupportedProtocolVersion,
            "CONNECT: protocol level 4 is not supported",
        ),
        (
            "[MQTT-3.1.2-2]",
            "10 | 'MQTT' 06 02 003c 00 'c'",
            UnsupportedProtocolVersion,
            "CONNECT: protocol level 6 is not supported",
        ),
        (
            "[MQTT-3.1.2-2]",
            "10 | 'MQTT' 03 02 003c 'c'",
            UnsupportedProtocolVersion,
            "CONNECT: protocol level 3 is not supported",
        ),
        (
            "[MQTT-3.1.2-2]",
            "10 | 'MQIsdp' 04 02 003c 'c'",
            UnsupportedProtocolVersion,
            "CONNECT: protocol level 4 is not supported",
        ),
        (
            "a bridge marks its level",
            "10 | 'MQTT' 84 02 003c 'c'",
            UnsupportedProtocolVersion,
            "CONNECT: protocol level 132 is not supported",
        ),
        ("§3.1.2.1", "10 | ", MalformedPacket, "CONNECT: protocol name is cut short"),
        ("§3.1.2.1", "10 | 00044d51", MalformedPacket, "CONNECT: protocol name is cut short"),
        (
            "[MQTT-3.1.2-3]",
            "10 | 'MQTT' 05 03 003c 00 'c'",
            MalformedPacket,
            "CONNECT: the connect flags byte has reserved bits that are not as they must be: 0b00000011",
        ),
        (
            "[MQTT-3.1.2-3] of 3.1.1",
            "10 | 'MQTT' 04 03 003c 'c'",
            MalformedPacket,
            "CONNECT: the connect flags byte has reserved bits that are not as they must be: 0b00000011",
        ),
        (
            "[MQTT-3.1.2-11]",
            "10 | 'MQTT' 05 0a 003c 00 'c'",
            MalformedPacket,
            "CONNECT: the connect flags byte has will QoS or will retain without a will",
        ),
        (
            "[MQTT-3.1.2-15] of 3.1.1",
            "10 | 'MQTT' 04 22 003c 'c'",
            MalformedPacket,
            "CONNECT: the connect flags byte has will QoS or will retain without a will",
        ),
        (
            "[MQTT-3.1.2-12]",
            "10 | 'MQTT' 05 1e 003c 00 'c' 00 'w' 'm'",
            MalformedPacket,
            "CONNECT: the connect flags byte has QoS 3",
        ),
        (
            "[MQTT-3.1.2-14] of 3.1.1",
            "10 | 'MQTT' 04 1e 003c 'c' 'w' 'm'",
            MalformedPacket,
            "CONNECT: the connect flags byte has QoS 3",
        ),
        (
            "[MQTT-3.1.2-22] of 3.1.1",
            "10 | 'MQTT' 04 42 003c 'c' 'p'",
            MalformedPacket,
            "CONNECT: the connect flags byte has a password without a user name",
        ),
        (
            "3.1 §3.1",
            "10 | 'MQIsdp' 03 42 003c 'c' 'p'",
            MalformedPacket,
            "CONNECT: the connect flags byte has a password without a user name",
        ),
        (
            "§3.1.2.11.2",
            "10 | 'MQTT' 05 02 003c < 11 00000001 11 00000002 > 'c'",
            ProtocolError,
            "CONNECT: session expiry interval appears more than once",
        ),
        (
            "§3.1.2.11.3",
            "10 | 'MQTT' 05 02 003c < 21 0000 > 'c'",
            ProtocolError,
            "CONNECT: receive maximum must not be 0",
        ),
        (
            "§3.1.2.11.3",
            "10 | 'MQTT' 05 02 003c < 21 0001 21 0001 > 'c'",
            ProtocolError,
            "CONNECT: receive maximum appears more than once",
        ),
        (
            "§3.1.2.11.4",
            "10 | 'MQTT' 05 02 003c < 27 00000000 > 'c'",
            ProtocolError,
            "CONNECT: maximum packet size must not be 0",
        ),
        (
            "§3.1.2.11.5",
            "10 | 'MQTT' 05 02 003c < 22 0001 22 0001 > 'c'",
            ProtocolError,
            "CONNECT: topic alias maximum appears more than once",
        ),
        (
            "§3.1.2.11.6",
            "10 | 'MQTT' 05 02 003c < 19 02 > 'c'",
            ProtocolError,
            "CONNECT: request response information must be 0 or 1, not 2",
        ),
        (
            "§3.1.2.11.7",
            "10 | 'MQTT' 05 02 003c < 17 ff > 'c'",
            ProtocolError,
            "CONNECT: request problem information must be 0 or 1, not 255",
        ),
        (
            "§3.1.2.11.9",
            "10 | 'MQTT' 05 02 003c < 15 'm' 15 'm' > 'c'",
            ProtocolError,
            "CONNECT: authentication method appears more than once",
        ),
        (
            "§3.1.2.11.10",
            "10 | 'MQTT' 05 02 003c < 16 'd' > 'c'",
            ProtocolError,
            "CONNECT: authentication method is missing",
        ),
        (
            "§2.2.2.2",
            "10 | 'MQTT' 05 02 003c < 12 'c' > 'c'",
            MalformedPacket,
            "CONNECT: the property block has property 0x12, which this packet cannot have",
        ),
        (
            "§2.2.2.2",
            "10 | 'MQTT' 05 02 003c < 7f 01 > 'c'",
            MalformedPacket,
            "CONNECT: the property block has property 0x7f, which this packet cannot have",
        ),
        (
            "§2.2.2.2",
            "10 | 'MQTT' 05 02 003c < 9100 00000001 > 'c'",
            MalformedPacket,
            "CONNECT: the property block has property 0x91, which this packet cannot have",
        ),
        (
            "§2.2.2.1",
            "10 | 'MQTT' 05 02 003c 06 11 00000001",
            MalformedPacket,
            "CONNECT: the property block is cut short",
        ),
        (
            "§2.2.2.1",
            "10 | 'MQTT' 05 02 003c 04 11 00000001 'c'",
            MalformedPacket,
            "CONNECT: session expiry interval is cut short",
        ),
        (
            "[MQTT-1.5.5-1]",
            "10 | 'MQTT' 05 02 003c 8000 'c'",
            MalformedPacket,
            "CONNECT: property length is no variable byte integer in its shortest form",
        ),
        ("§3.1.3", "10 | 'MQTT' 05 02 003c 00", MalformedPacket, "CONNECT: client identifier is cut short"),
        (
            "[MQTT-1.5.4-1]",
            "10 | 'MQTT' 05 02 003c 00 0001ff",
            MalformedPacket,
            "CONNECT: client identifier is not well-formed UTF-8",
        ),
        (
            "[MQTT-1.5.4-2]",
            "10 | 'MQTT' 04 02 003c 000100",
            MalformedPacket,
            "CONNECT: client identifier contains U+0000",
        ),
        (
            "§3.1.3.2",
            "10 | 'MQTT' 05 06 003c 00 'c' < 18 00000001 18 00000001 > 'w' 'm'",
            ProtocolError,
            "CONNECT: will delay interval appears more than once",
        ),
        (
            "§3.1.3.2.3",
            "10 | 'MQTT' 05 06 003c 00 'c' < 01 02 > 'w' 'm'",
            ProtocolError,
            "CONNECT: payload format indicator must be 0 or 1, not 2",
        ),
        (
            "§3.1.3.2",
            "10 | 'MQTT' 05 06 003c 00 'c' < 23 0001 > 'w' 'm'",
            MalformedPacket,
            "CONNECT: the property block has property 0x23, which this packet cannot have",
        ),
        (
            "[MQTT-4.7.1-1]",
            "10 | 'MQTT' 05 06 003c 00 'c' 00 'w/#' 'm'",
            TopicNameInvalid,
            "CONNECT: will topic contains a wildcard",
        ),
        (
            "[MQTT-4.7.3-1]",
            "10 | 'MQTT' 04 06 003c 'c' '' 'm'",
            TopicNameInvalid,
            "CONNECT: will topic has no character",
        ),
        (
            "[MQTT-1.5.4-2]",
            "10 | 'MQTT' 04 06 003c 'c' 000100 'm'",
            MalformedPacket,
            "CONNECT: will topic contains U+0000",
        ),
        ("[MQTT-3.1.2-9]", "10 | 'MQTT' 04 06 003c 'c' 'w'", MalformedPacket, "CONNECT: will payload is cut short"),
        ("[MQTT-3.1.2-17]", "10 | 'MQTT' 05 82 003c 00 'c'", MalformedPacket, "CONNECT: user name is cut short"),
        ("[MQTT-3.1.2-19]", "10 | 'MQTT' 05 42 003c 00 'c'", MalformedPacket, "CONNECT: password is cut short"),
        (
            "[MQTT-3.1.2-16]",
            "10 | 'MQTT' 05 02 003c 00 'c' 'user'",
            MalformedPacket,
            "CONNECT: the packet is followed by 6 bytes that belong to nothing",
        ),
        (
            "§1.2 malformed",
            "10 | 'MQTT' 04 02 003c 'c' ff",
            MalformedPacket,
            "CONNECT: the packet is followed by 1 bytes that belong to nothing",
        ),
    ];
    for (citation, notation, code, says) in table {
        match decode(Server, None, notation) {
            Err(error) => {
                assert_eq!((error.reason_code(), error.to_string().as_str()), (*code, *says), "{citation} {notation}");
            }
            other => panic!("{citation} {notation}: {other:?}"),
        }
    }
}

#[test]
fn a_second_connect_is_a_protocol_error() {
    let says = "CONNECT: the packet may not be sent by this peer at this point";
    refuses(Server, &[("[MQTT-3.1.0-2]", ALL, "10 | 'MQTT' 04 02 003c 'c'", ProtocolError, says)]);
}

#[test]
fn the_version_is_known_even_when_the_rest_of_connect_is_wrong() {
    for (notation, version) in [
        ("10 | 'MQTT' 05 02 003c < 21 0000 > 'c'", Some(V5)),
        ("10 | 'MQTT' 04 03 003c 'c'", Some(V4)),
        ("10 | 'MQIsdp' 03 02 003c", Some(V3)),
        ("10 | 'MQTT' 06 02 003c 00 'c'", None),
    ] {
        let mut decoder = Decoder::new(Server, 1000);
        assert!(decoder.decode(&mut BytesMut::from(&bytes(notation)[..])).is_err());
        assert_eq!(decoder.version(), version, "{notation}");
    }
}

fn connect(notation: &str) -> Connect {
    match decode(Server, None, notation) {
        Ok(Some(Packet::Connect(connect))) => *connect,
        other => panic!("{notation}: {other:?}"),
    }
}

#[test]
fn connect_of_each_version_says_what_its_bytes_say() {
    let plain = Connect {
        version: V4,
        clean_start: true,
        keep_alive: 60,
        client_id: "c".into(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    };
    assert_eq!(connect("10 | 'MQTT' 04 02 003c 'c'"), plain);
    assert_eq!(connect("10 | 'MQIsdp' 03 02 003c 'c'"), Connect { version: V3, ..plain.clone() });
    assert_eq!(connect("10 | 'MQTT' 05 02 003c 00 'c'"), Connect { version: V5, ..plain.clone() });
    // An empty client identifier is the session's business [MQTT-3.1.3-6].
    assert_eq!(connect("10 | 'MQTT' 04 00 003c ''").client_id, "");

    let full = connect(
        "10 | 'MQTT' 05 ec 000a < 11 ffffffff 21 0014 27 00001000 22 000a 19 01 17 00 26 'a' 'b' 26 'a' 'c' 15 'SCRAM' 16 'data' > 'c'
         < 18 00000005 01 01 02 0000003c 03 'text' 08 'r/t' 09 'id' 26 'k' 'v' > 'w/t' 'gone' 'user' 'pass'",
    );
    let mut forwarded = ForwardedBuilder::new();
    for property in [
        ForwardedProperty::PayloadFormatIndicator(true),
        ForwardedProperty::ContentType("text"),
        ForwardedProperty::ResponseTopic("r/t"),
        ForwardedProperty::CorrelationData(b"id"),
        ForwardedProperty::UserProperty("k", "v"),
    ] {
        forwarded.push(property).unwrap();
    }
    let want = Connect {
        version: V5,
        clean_start: false,
        keep_alive: 10,
        client_id: "c".into(),
        will: Some(Will {
            topic: TopicName::new("w/t").unwrap(),
            payload: Bytes::from_static(b"gone"),
            qos: QoS::AtLeastOnce,
            retain: true,
            delay_interval: 5,
            message_expiry_interval: Some(60),
            forwarded: forwarded.build(),
            payload_is_utf8: true,
        }),
        username: Some("user".into()),
        password: Some(Bytes::from_static(b"pass")),
        properties: ConnectProperties {
            session_expiry_interval: Some(u32::MAX),
            receive_maximum: NonZeroU16::new(20),
            maximum_packet_size: NonZeroU32::new(4096),
            topic_alias_maximum: Some(10),
            request_response_information: Some(true),
            request_problem_information: Some(false),
            user_properties: vec![("a".into(), "b".into()), ("a".into(), "c".into())],
            authentication_method: Some("SCRAM".into()),
            authentication_data: Some(Bytes::from_static(b"data")),
        },
    };
    assert_eq!(full, want);
}

#[test]
fn connect_of_3_1_is_as_lenient_as_its_specification() {
    // 3.1 §3.1: the remaining length takes precedence over the user name and password flags.
    assert_eq!(connect("10 | 'MQIsdp' 03 c2 003c 'c'").username, None);
    let named = connect("10 | 'MQIsdp' 03 c2 003c 'c' 'user'");
    assert_eq!((named.username, named.password), (Some("user".into()), None));
    // Bit 0 is unused, and will QoS and will retain are ignored without a will.
    assert_eq!(connect("10 | 'MQIsdp' 03 2b 003c 'c'").will, None);
}

#[test]
fn a_password_without_a_user_name_is_new_in_5() {
    assert_eq!(connect("10 | 'MQTT' 05 42 003c 00 'c' 'p'").password, Some(Bytes::from_static(b"p")));
}

#[test]
fn fixed_headers_are_refused_for_what_the_specification_forbids() {
    let unexpected = |packet: &str| format!("{packet}: the packet may not be sent by this peer at this point");
    for (version, name, notation) in [
        (V4, "CONNACK", "20 | 0000"),
        (V5, "CONNACK", "20 | 000000"),
        (V4, "SUBACK", "90 | 0001 00"),
        (V4, "UNSUBACK", "b0 | 0001"),
        (V4, "PINGRESP", "d000"),
        (V4, "AUTH", "f000"),
        (V3, "AUTH", "f000"),
    ] {
        let error = decode(Server, Some(version), notation).unwrap_err();
        assert_eq!((error.reason_code(), error.to_string()), (ProtocolError, unexpected(name)), "{notation}");
    }
    for (version, name, notation) in [
        (V4, "CONNECT", "10 | 'MQTT' 04 02 003c 'c'"),
        (V4, "SUBSCRIBE", "82 | 0001 'a' 00"),
        (V4, "UNSUBSCRIBE", "a2 | 0001 'a'"),
        (V4, "PINGREQ", "c000"),
        // The server has no DISCONNECT before 5.0 (3.1.1 §3.14).
        (V4, "DISCONNECT", "e000"),
        (V3, "DISCONNECT", "e000"),
    ] {
        let error = decode(Client, Some(version), notation).unwrap_err();
        assert_eq!((error.reason_code(), error.to_string()), (ProtocolError, unexpected(name)), "{notation}");
    }
    let bits = |packet: &str, flags: u8| {
        format!("{packet}: the fixed header has reserved bits that are not as they must be: {flags:#010b}")
    };
    for version in [V4, V5] {
        for (first, name) in [
            (0x40, "PUBACK"),
            (0x50, "PUBREC"),
            (0x60, "PUBREL"),
            (0x70, "PUBCOMP"),
            (0x80, "SUBSCRIBE"),
            (0xa0, "UNSUBSCRIBE"),
            (0xc0, "PINGREQ"),
            (0xe0, "DISCONNECT"),
        ] {
            let right = if matches!(first, 0x60 | 0x80 | 0xa0) { 0b0010 } else { 0 };
            for flags in (0..16).filter(|flags| *flags != right) {
                // [MQTT-2.1.3-1], known before the length is.
                let error = decode(Server, Some(version), &format!("{:02x}", first | flags)).unwrap_err();
                assert_eq!((error.reason_code(), error.to_string()), (MalformedPacket, bits(name, flags)));
            }
        }
    }
    refuses(
        Server,
        &[
            ("§2.1.2", ALL, "00", MalformedPacket, "packet type 0 is forbidden"),
            ("§2.1.2", ALL, "0f", MalformedPacket, "packet type 0 is forbidden"),
            (
                "[MQTT-1.5.5-1]",
                ALL,
                "40 82 00 0001",
                MalformedPacket,
                "PUBACK: remaining length is no variable byte integer in its shortest form",
            ),
            (
                "[MQTT-1.5.5-1]",
                ALL,
                "c0 80 80 80 00",
                MalformedPacket,
                "PINGREQ: remaining length is no variable byte integer in its shortest form",
            ),
            (
                "§1.5.5",
                ALL,
                "30 ff ff ff ff",
                MalformedPacket,
                "PUBLISH: remaining length is no variable byte integer in its shortest form",
            ),
            (
                "§1.5.5",
                ALL,
                "30 80 80 80 80 01",
                MalformedPacket,
                "PUBLISH: remaining length is no variable byte integer in its shortest form",
            ),
            (
                "§3.12",
                ALL,
                "c0 | 00",
                MalformedPacket,
                "PINGREQ: the packet is followed by 1 bytes that belong to nothing",
            ),
            (
                "3.1.1 §3.14",
                OLD,
                "e0 | 00",
                MalformedPacket,
                "DISCONNECT: the packet is followed by 1 bytes that belong to nothing",
            ),
        ],
    );
}

#[test]
fn each_type_is_taken_in_the_states_where_its_sender_may_send_it_and_in_no_other() {
    const ACKS: [u8; 5] = [3, 4, 5, 6, 7];
    for (role, version, others) in [
        (Server, None, &[1][..]),
        (Server, Some(V3), &[8, 10, 12, 14]),
        (Server, Some(V4), &[8, 10, 12, 14]),
        (Server, Some(V5), &[8, 10, 12, 14, 15]),
        // A client decoder has to be told its version first.
        (Client, None, &[]),
        (Client, Some(V3), &[2, 9, 11, 13]),
        (Client, Some(V4), &[2, 9, 11, 13]),
        (Client, Some(V5), &[2, 9, 11, 13, 14, 15]),
    ] {
        for kind in 0..16 {
            let first = kind << 4 | if matches!(kind, 6 | 8 | 10) { 0b0010 } else { 0 };
            let expected = others.contains(&kind) || version.is_some() && ACKS.contains(&kind);
            // Known from the first byte alone [MQTT-3.1.0-1].
            match decode(role, version, &format!("{first:02x}")) {
                Ok(None) => assert!(expected, "{role:?} {version:?} takes type {kind}"),
                Err(DecodeError::Invalid { flaw: Flaw::Unexpected, .. } | DecodeError::ForbiddenPacketType) => {
                    assert!(!expected, "{role:?} {version:?} refuses type {kind}");
                }
                other => panic!("{role:?} {version:?} type {kind}: {other:?}"),
            }
        }
    }
}

#[test]
fn the_flags_of_3_1_let_acknowledged_packets_be_marked_as_sent_again() {
    accepts(
        Server,
        &[
            ("3.1 §3.6", THREE, "6a | 0001"),
            ("3.1 §3.8", THREE, "8a | 0001 'a' 00"),
            ("3.1 §3.10", THREE, "aa | 0001 'a'"),
        ],
    );
}

#[test]
fn a_packet_that_claims_too_much_is_refused_by_its_fixed_header() {
    let mut decoder = Decoder::new(Server, 1000);
    decoder.set_version(V5);
    // 3 + 997 bytes fit.
    assert_eq!(decoder.decode(&mut BytesMut::from(&[0x30, 0xe5, 0x07][..])), Ok(None));
    for (header, size) in [(&[0x30, 0xe6, 0x07][..], 1001), (&[0x30, 0xff, 0xff, 0xff, 0x7f], 268_435_460)] {
        let mut buf = BytesMut::from(header);
        let capacity = buf.capacity();
        let error = decoder.decode(&mut buf).unwrap_err();
        assert_eq!(error, DecodeError::PacketTooLarge { packet: PacketType::Publish, size, max: 1000 });
        assert_eq!((error.reason_code(), buf.capacity()), (PacketTooLarge, capacity));
    }
    decoder.set_max_packet_size(2000);
    assert_eq!(decoder.decode(&mut BytesMut::from(&[0x30, 0xe6, 0x07][..])), Ok(None));
}

#[test]
fn publish_is_refused_for_what_the_specification_forbids() {
    refuses(
        Server,
        &[
            ("[MQTT-3.3.1-4]", ALL, "36 | 'a' 0001 00", MalformedPacket, "PUBLISH: the fixed header has QoS 3"),
            ("[MQTT-3.3.1-4]", ALL, "3e | 'a' 0001 00", MalformedPacket, "PUBLISH: the fixed header has QoS 3"),
            ("[MQTT-3.3.1-2]", ALL, "38 | 'a' 00", MalformedPacket, "PUBLISH: the fixed header has DUP with QoS 0"),
            ("[MQTT-2.2.1-3]", ALL, "32 | 'a' 0000 00", ProtocolError, "PUBLISH: packet identifier must not be 0"),
            ("§3.3.2", ALL, "30 | 00", MalformedPacket, "PUBLISH: topic name is cut short"),
            ("§3.3.2", ALL, "30 | 000561", MalformedPacket, "PUBLISH: topic name is cut short"),
            ("§3.3.2", ALL, "34 | 'a' 00", MalformedPacket, "PUBLISH: packet identifier is cut short"),
            ("[MQTT-3.3.2-2]", ALL, "30 | 'a/+' 00", TopicNameInvalid, "PUBLISH: topic name contains a wildcard"),
            ("[MQTT-3.3.2-2]", ALL, "30 | '#' 00", TopicNameInvalid, "PUBLISH: topic name contains a wildcard"),
            (
                "[MQTT-3.3.2-1]",
                ALL,
                "30 | 0002c328 00",
                MalformedPacket,
                "PUBLISH: topic name is not well-formed UTF-8",
            ),
            ("[MQTT-1.5.4-2]", ALL, "30 | 0003610062 00", MalformedPacket, "PUBLISH: topic name contains U+0000"),
            ("[MQTT-4.7.3-1]", ALL, "30 | '' 00", ProtocolError, "PUBLISH: topic name is empty"),
            ("§3.3.2.3.1", FIVE, "30 | 'a'", MalformedPacket, "PUBLISH: property length is cut short"),
            ("§2.2.2.1", FIVE, "30 | 'a' 02 01", MalformedPacket, "PUBLISH: the property block is cut short"),
            (
                "[MQTT-1.5.5-1]",
                FIVE,
                "30 | 'a' 8000",
                MalformedPacket,
                "PUBLISH: property length is no variable byte integer in its shortest form",
            ),
            (
                "§3.3.2.3.2",
                FIVE,
                "30 | 'a' < 01 02 >",
                ProtocolError,
                "PUBLISH: payload format indicator must be 0 or 1, not 2",
            ),
            (
                "§3.3.2.3.2",
                FIVE,
                "30 | 'a' < 01 01 01 01 >",
                ProtocolError,
                "PUBLISH: payload format indicator appears more than once",
            ),
            (
                "§3.3.2.3.3",
                FIVE,
                "30 | 'a' < 02 00000001 02 00000001 >",
                ProtocolError,
                "PUBLISH: message expiry interval appears more than once",
            ),
            ("[MQTT-3.3.2-8]", FIVE, "30 | 'a' < 23 0000 >", TopicAliasInvalid, "PUBLISH: topic alias must not be 0"),
            (
                "§3.3.2.3.4",
                FIVE,
                "30 | 'a' < 23 0001 23 0001 >",
                ProtocolError,
                "PUBLISH: topic alias appears more than once",
            ),
            (
                "[MQTT-3.3.2-14]",
                FIVE,
                "30 | 'a' < 08 'r/+' >",
                ProtocolError,
                "PUBLISH: response topic contains a wildcard",
            ),
            ("[MQTT-4.7.3-1]", FIVE, "30 | 'a' < 08 '' >", ProtocolError, "PUBLISH: response topic is empty"),
            (
                "[MQTT-3.3.2-13]",
                FIVE,
                "30 | 'a' < 08 0001ff >",
                MalformedPacket,
                "PUBLISH: response topic is not well-formed UTF-8",
            ),
            (
                "§3.3.2.3.5",
                FIVE,
                "30 | 'a' < 08 'r' 08 'r' >",
                ProtocolError,
                "PUBLISH: response topic appears more than once",
            ),
            (
                "§3.3.2.3.6",
                FIVE,
                "30 | 'a' < 09 'd' 09 'd' >",
                ProtocolError,
                "PUBLISH: correlation data appears more than once",
            ),
            ("§3.3.2.3.8", FIVE, "30 | 'a' < 0b 00 >", ProtocolError, "PUBLISH: subscription identifier must not be 0"),
            (
                "[MQTT-3.3.4-6]",
                FIVE,
                "30 | 'a' < 0b 01 >",
                ProtocolError,
                "PUBLISH: subscription identifier may not be sent by this peer at this point",
            ),
            (
                "§3.3.2.3.9",
                FIVE,
                "30 | 'a' < 03 't' 03 't' >",
                ProtocolError,
                "PUBLISH: content type appears more than once",
            ),
            (
                "[MQTT-3.3.2-19]",
                FIVE,
                "30 | 'a' < 03 000100 >",
                MalformedPacket,
                "PUBLISH: content type contains U+0000",
            ),
            (
                "[MQTT-1.5.7-1]",
                FIVE,
                "30 | 'a' < 26 0001ff 'v' >",
                MalformedPacket,
                "PUBLISH: user property name is not well-formed UTF-8",
            ),
            (
                "[MQTT-1.5.7-1]",
                FIVE,
                "30 | 'a' < 26 'k' 0001ff >",
                MalformedPacket,
                "PUBLISH: user property value is not well-formed UTF-8",
            ),
            ("§1.5.7", FIVE, "30 | 'a' < 26 'k' >", MalformedPacket, "PUBLISH: user property value is cut short"),
            (
                "§2.2.2.2",
                FIVE,
                "30 | 'a' < 1f 'r' >",
                MalformedPacket,
                "PUBLISH: the property block has property 0x1f, which this packet cannot have",
            ),
            (
                "§2.2.2.2",
                FIVE,
                "30 | 'a' < 00 >",
                MalformedPacket,
                "PUBLISH: the property block has property 0x00, which this packet cannot have",
            ),
        ],
    );
}

fn publish(role: Role, version: Version, notation: &str) -> Publish {
    match decode(role, Some(version), notation) {
        Ok(Some(Packet::Publish(publish))) => publish,
        other => panic!("{notation}: {other:?}"),
    }
}

#[test]
fn publish_says_what_its_bytes_say() {
    let plain = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: Some(TopicName::new("a/b").unwrap()),
        packet_id: None,
        payload: Bytes::from_static(&[1, 2]),
        message_expiry_interval: None,
        topic_alias: None,
        subscription_identifiers: Vec::new(),
        payload_is_utf8: false,
        forwarded: Bytes::new(),
    };
    assert_eq!(publish(Server, V4, "30 | 'a/b' 0102"), plain);
    assert_eq!(publish(Server, V5, "30 | 'a/b' 00 0102"), plain);
    let marked =
        Publish { dup: true, qos: QoS::ExactlyOnce, retain: true, packet_id: PacketId::new(7), ..plain.clone() };
    assert_eq!(publish(Server, V3, "3d | 'a/b' 0007 0102"), marked);
    assert_eq!(publish(Client, V5, "3d | 'a/b' 0007 00 0102"), marked);
    assert_eq!(publish(Server, V4, "31 | 'a/b'"), Publish { retain: true, payload: Bytes::new(), ..plain.clone() });

    // An alias instead of a topic; forwarded properties with others between them, in their order.
    let mixed = publish(
        Client,
        V5,
        "30 | '' < 0b 05 26 'k' '1' 23 0003 01 01 26 'k' '2' 0b ffffff7f 02 00000009 03 't' > 0102",
    );
    let forwarded = bytes("26 'k' '1' 01 01 26 'k' '2' 03 't'");
    let want = Publish {
        topic: None,
        message_expiry_interval: Some(9),
        topic_alias: NonZeroU16::new(3),
        subscription_identifiers: vec![5, 268_435_455],
        payload_is_utf8: true,
        forwarded: Bytes::from(forwarded),
        ..plain
    };
    assert_eq!(mixed, want);
    // A payload format indicator of 0 is forwarded too [MQTT-3.3.2-4].
    assert_eq!(publish(Server, V5, "30 | 'a' < 01 00 >").forwarded, bytes("01 00"));
}

#[test]
fn a_publish_shares_the_read_buffer_and_what_follows_stays_in_it() {
    let mut buf = BytesMut::from(&bytes("32 | 'topic' 0001 < 26 'k' 'v' > 686579")[..]);
    buf.extend_from_slice(&bytes("c000"));
    let range = buf.as_ptr_range();
    let mut decoder = Decoder::new(Server, 1000);
    decoder.set_version(V5);
    let Ok(Some(Packet::Publish(publish))) = decoder.decode(&mut buf) else { panic!("not a PUBLISH") };
    for part in [publish.topic.unwrap().as_bytestring().as_bytes(), &publish.payload, &publish.forwarded] {
        assert!(range.contains(&part.as_ptr()));
    }
    assert_eq!(decoder.decode(&mut buf), Ok(Some(Packet::PingReq)));
}

#[test]
fn text_follows_the_utf_8_table() {
    // §1.5.4; ill-formed rows from table 3-7 of Unicode.
    for (hex, flaw) in [
        ("80", Some("is not well-formed UTF-8")),
        ("c080", Some("is not well-formed UTF-8")),
        ("c1bf", Some("is not well-formed UTF-8")),
        ("e08080", Some("is not well-formed UTF-8")),
        ("eda080", Some("is not well-formed UTF-8")),
        ("edbfbf", Some("is not well-formed UTF-8")),
        ("f0808080", Some("is not well-formed UTF-8")),
        ("f4908080", Some("is not well-formed UTF-8")),
        ("f8888080 80", Some("is not well-formed UTF-8")),
        ("fe", Some("is not well-formed UTF-8")),
        ("e282", Some("is not well-formed UTF-8")),
        ("00", Some("contains U+0000")),
        ("6100", Some("contains U+0000")),
        // A zero width no-break space stays, wherever it is [MQTT-1.5.4-3].
        ("efbbbf", None),
        ("efbbbf61", None),
        // May be refused, by a policy that is not the codec's.
        ("01", None),
        ("7f", None),
        ("c285", None),
        ("efbfbf", None),
        ("f09f9880", None),
        ("f48fbfbf", None),
    ] {
        let text = bytes(hex);
        let hex: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
        let notation = format!("82 | 0001 {:04x} {hex} 00", text.len());
        match (decode(Server, Some(V4), &notation), flaw) {
            (Ok(Some(Packet::Subscribe(subscribe))), None) => {
                assert_eq!(subscribe.filters[0].filter.as_bytes(), &text, "{hex}");
            }
            (Err(error), Some(flaw)) => {
                assert_eq!(error.to_string(), format!("SUBSCRIBE: topic filter {flaw}"), "{hex}")
            }
            (got, want) => panic!("{hex}: {got:?}, not {want:?}"),
        }
    }
}

#[test]
fn acknowledgements_have_three_forms_in_5_and_one_before() {
    for (first, make) in [
        ("40", Packet::PubAck as fn(Ack) -> Packet),
        ("50", Packet::PubRec),
        ("62", Packet::PubRel),
        ("70", Packet::PubComp),
    ] {
        let id = PacketId::new(10).unwrap();
        let ok = make(Ack::new(id, Success));
        for (versions, rest) in [(ALL, "000a"), (FIVE, "000a 00"), (FIVE, "000a 00 00")] {
            for version in versions {
                for role in [Server, Client] {
                    let notation = format!("{first} | {rest}");
                    assert_eq!(decode(role, Some(*version), &notation), Ok(Some(ok.clone())), "{notation}");
                }
            }
        }
    }
    let refused = Ack {
        packet_id: PacketId::new(10).unwrap(),
        reason_code: QuotaExceeded,
        properties: Some(Box::new(ReasonProperties {
            reason_string: Some("full".into()),
            user_properties: vec![("k".into(), "v".into())],
        })),
    };
    assert_eq!(decode(Client, Some(V5), "40 | 000a 97 < 26 'k' 'v' 1f 'full' >"), Ok(Some(Packet::PubAck(refused))));
    refuses(
        Server,
        &[
            ("[MQTT-2.2.1-3]", ALL, "40 | 0000", ProtocolError, "PUBACK: packet identifier must not be 0"),
            ("[MQTT-2.2.1-3]", FIVE, "62 | 0000 00 00", ProtocolError, "PUBREL: packet identifier must not be 0"),
            ("§3.4.2", ALL, "40 | 00", MalformedPacket, "PUBACK: packet identifier is cut short"),
            (
                "3.1.1 §3.4",
                OLD,
                "40 | 0001 00",
                MalformedPacket,
                "PUBACK: the packet is followed by 1 bytes that belong to nothing",
            ),
            (
                "3.1.1 §3.6",
                OLD,
                "62 | 0001 00 00",
                MalformedPacket,
                "PUBREL: the packet is followed by 2 bytes that belong to nothing",
            ),
            ("[MQTT-3.4.2-1]", FIVE, "40 | 0001 92", ProtocolError, "PUBACK: reason code 0x92 is not allowed here"),
            ("[MQTT-3.4.2-1]", FIVE, "40 | 0001 ff", ProtocolError, "PUBACK: reason code 0xff is not allowed here"),
            ("[MQTT-3.5.2-1]", FIVE, "50 | 0001 01", ProtocolError, "PUBREC: reason code 0x01 is not allowed here"),
            ("[MQTT-3.6.2-1]", FIVE, "62 | 0001 80", ProtocolError, "PUBREL: reason code 0x80 is not allowed here"),
            ("[MQTT-3.7.2-1]", FIVE, "70 | 0001 10", ProtocolError, "PUBCOMP: reason code 0x10 is not allowed here"),
            (
                "§3.4.2.2.2",
                FIVE,
                "40 | 0001 00 < 1f 'a' 1f 'b' >",
                ProtocolError,
                "PUBACK: reason string appears more than once",
            ),
            (
                "§2.2.2.2",
                FIVE,
                "40 | 0001 00 < 11 00000000 >",
                MalformedPacket,
                "PUBACK: the property block has property 0x11, which this packet cannot have",
            ),
            (
                "§1.2 malformed",
                FIVE,
                "40 | 0001 00 00 00",
                MalformedPacket,
                "PUBACK: the packet is followed by 1 bytes that belong to nothing",
            ),
        ],
    );
}

#[test]
fn subscribe_and_unsubscribe_are_refused_for_what_the_specification_forbids() {
    refuses(
        Server,
        &[
            ("[MQTT-2.2.1-3]", OLD, "82 | 0000 'a' 00", ProtocolError, "SUBSCRIBE: packet identifier must not be 0"),
            (
                "[MQTT-2.2.1-3]",
                FIVE,
                "82 | 0000 00 'a' 00",
                ProtocolError,
                "SUBSCRIBE: packet identifier must not be 0",
            ),
            ("[MQTT-3.8.3-3] of 3.1.1", OLD, "82 | 0001", ProtocolError, "SUBSCRIBE: the list of filters is empty"),
            ("[MQTT-3.8.3-2]", FIVE, "82 | 0001 00", ProtocolError, "SUBSCRIBE: the list of filters is empty"),
            ("§3.8.3", OLD, "82 | 0001 'a'", MalformedPacket, "SUBSCRIBE: the subscription options byte is cut short"),
            ("§3.8.3", OLD, "82 | 0001 'a' 00 00", MalformedPacket, "SUBSCRIBE: topic filter is cut short"),
            (
                "[MQTT-3.8.3-1]",
                OLD,
                "82 | 0001 0001ff 00",
                MalformedPacket,
                "SUBSCRIBE: topic filter is not well-formed UTF-8",
            ),
            (
                "[MQTT-3.8.3-4] of 3.1.1",
                OLD,
                "82 | 0001 'a' 03",
                ProtocolError,
                "SUBSCRIBE: the subscription options byte has no value 3",
            ),
            (
                "[MQTT-3.8.3-4] of 3.1.1",
                OLD,
                "82 | 0001 'a' 04",
                MalformedPacket,
                "SUBSCRIBE: the subscription options byte has reserved bits that are not as they must be: 0b00000100",
            ),
            (
                "§3.8.3.1",
                FIVE,
                "82 | 0001 00 'a' 03",
                ProtocolError,
                "SUBSCRIBE: the subscription options byte has no value 3",
            ),
            (
                "[MQTT-3.8.3-5]",
                FIVE,
                "82 | 0001 00 'a' 40",
                MalformedPacket,
                "SUBSCRIBE: the subscription options byte has reserved bits that are not as they must be: 0b01000000",
            ),
            (
                "[MQTT-3.8.3-5]",
                FIVE,
                "82 | 0001 00 'a' 80",
                MalformedPacket,
                "SUBSCRIBE: the subscription options byte has reserved bits that are not as they must be: 0b10000000",
            ),
            ("§3.8.3.1", FIVE, "82 | 0001 00 'a' 30", ProtocolError, "SUBSCRIBE: retain handling has no value 3"),
            (
                "§3.8.2.1.2",
                FIVE,
                "82 | 0001 < 0b 00 > 'a' 00",
                ProtocolError,
                "SUBSCRIBE: subscription identifier must not be 0",
            ),
            (
                "§3.8.2.1.2",
                FIVE,
                "82 | 0001 < 0b 01 0b 02 > 'a' 00",
                ProtocolError,
                "SUBSCRIBE: subscription identifier appears more than once",
            ),
            (
                "[MQTT-1.5.5-1]",
                FIVE,
                "82 | 0001 < 0b 8100 > 'a' 00",
                MalformedPacket,
                "SUBSCRIBE: subscription identifier is no variable byte integer in its shortest form",
            ),
            (
                "§2.2.2.2",
                FIVE,
                "82 | 0001 < 1f 'r' > 'a' 00",
                MalformedPacket,
                "SUBSCRIBE: the property block has property 0x1f, which this packet cannot have",
            ),
            ("[MQTT-3.10.3-2] of 3.1.1", OLD, "a2 | 0001", ProtocolError, "UNSUBSCRIBE: the list of filters is empty"),
            ("[MQTT-3.10.3-2]", FIVE, "a2 | 0001 00", ProtocolError, "UNSUBSCRIBE: the list of filters is empty"),
            ("[MQTT-2.2.1-3]", OLD, "a2 | 0000 'a'", ProtocolError, "UNSUBSCRIBE: packet identifier must not be 0"),
            ("[MQTT-3.10.3-1]", OLD, "a2 | 0001 000100", MalformedPacket, "UNSUBSCRIBE: topic filter contains U+0000"),
            (
                "§2.2.2.2",
                FIVE,
                "a2 | 0001 < 0b 01 > 'a'",
                MalformedPacket,
                "UNSUBSCRIBE: the property block has property 0x0b, which this packet cannot have",
            ),
            ("§3.10.3", FIVE, "a2 | 0001 00 000261", MalformedPacket, "UNSUBSCRIBE: topic filter is cut short"),
        ],
    );
}

#[test]
fn subscribe_says_what_its_bytes_say() {
    let filter = |filter: &str, qos| SubscribeFilter {
        filter: filter.into(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    let plain = Subscribe {
        packet_id: PacketId::new(1).unwrap(),
        subscription_identifier: None,
        user_properties: Vec::new(),
        filters: vec![filter("a/#", QoS::AtMostOnce), filter("b", QoS::ExactlyOnce)],
    };
    for version in [V3, V4] {
        let got = decode(Server, Some(version), "82 | 0001 'a/#' 00 'b' 02");
        assert_eq!(got, Ok(Some(Packet::Subscribe(plain.clone()))));
    }
    let full = Subscribe {
        subscription_identifier: NonZeroU32::new(268_435_455),
        user_properties: vec![("k".into(), "v".into())],
        // A bad filter is no reason to close: it fails alone (§3.9.3).
        filters: vec![
            SubscribeFilter {
                no_local: true,
                retain_as_published: true,
                retain_handling: RetainHandling::DontSend,
                ..filter("a#", QoS::AtLeastOnce)
            },
            SubscribeFilter { retain_handling: RetainHandling::SendIfNew, ..filter("", QoS::AtMostOnce) },
        ],
        ..plain
    };
    let got = decode(Server, Some(V5), "82 | 0001 < 0b ffffff7f 26 'k' 'v' > 'a#' 2d '' 10");
    assert_eq!(got, Ok(Some(Packet::Subscribe(full))));
}

#[test]
fn answers_of_servers_are_refused_for_what_the_specification_forbids() {
    refuses(
        Client,
        &[
            (
                "§3.2.2.1",
                NEW,
                "20 | 0200 00",
                MalformedPacket,
                "CONNACK: the acknowledge flags byte has reserved bits that are not as they must be: 0b00000010",
            ),
            ("3.1.1 table 3.1", OLD, "20 | 0006", ProtocolError, "CONNACK: return code 0x06 is not allowed here"),
            (
                "[MQTT-3.2.2-4] of 3.1.1",
                FOUR,
                "20 | 0105",
                ProtocolError,
                "CONNACK: the acknowledge flags byte says that a session is present and that the connection is refused",
            ),
            (
                "[MQTT-3.2.2-6]",
                FIVE,
                "20 | 0187 00",
                ProtocolError,
                "CONNACK: the acknowledge flags byte says that a session is present and that the connection is refused",
            ),
            ("[MQTT-3.2.2-8]", FIVE, "20 | 008d 00", ProtocolError, "CONNACK: reason code 0x8d is not allowed here"),
            ("§3.2.2.3.3", FIVE, "20 | 0000 < 21 0000 >", ProtocolError, "CONNACK: receive maximum must not be 0"),
            ("§3.2.2.3.4", FIVE, "20 | 0000 < 24 02 >", ProtocolError, "CONNACK: maximum QoS must be 0 or 1, not 2"),
            (
                "§3.2.2.3.6",
                FIVE,
                "20 | 0000 < 27 00000000 >",
                ProtocolError,
                "CONNACK: maximum packet size must not be 0",
            ),
            (
                "§2.2.2.2",
                FIVE,
                "20 | 0000 < 17 01 >",
                MalformedPacket,
                "CONNACK: the property block has property 0x17, which this packet cannot have",
            ),
            (
                "§3.2",
                FOUR,
                "20 | 0000 00",
                MalformedPacket,
                "CONNACK: the packet is followed by 1 bytes that belong to nothing",
            ),
            ("[MQTT-3.9.3-2]", FIVE, "90 | 0001 00 03", ProtocolError, "SUBACK: reason code 0x03 is not allowed here"),
            (
                "[MQTT-3.9.3-2] of 3.1.1",
                OLD,
                "90 | 0001 87",
                ProtocolError,
                "SUBACK: return code 0x87 is not allowed here",
            ),
            ("§3.9.3", OLD, "90 | 0001", ProtocolError, "SUBACK: the list of reason codes is empty"),
            (
                "[MQTT-3.11.3-2]",
                FIVE,
                "b0 | 0001 00 01",
                ProtocolError,
                "UNSUBACK: reason code 0x01 is not allowed here",
            ),
            (
                "3.1.1 §3.11",
                OLD,
                "b0 | 0001 00",
                MalformedPacket,
                "UNSUBACK: the packet is followed by 1 bytes that belong to nothing",
            ),
            (
                "§3.13",
                ALL,
                "d0 | 00",
                MalformedPacket,
                "PINGRESP: the packet is followed by 1 bytes that belong to nothing",
            ),
            (
                "[MQTT-3.14.2-2]",
                FIVE,
                "e0 | 00 < 11 00000001 >",
                ProtocolError,
                "DISCONNECT: session expiry interval may not be sent by this peer at this point",
            ),
            ("§3.14.2.1", FIVE, "e0 | 04", ProtocolError, "DISCONNECT: reason code 0x04 is not allowed here"),
            ("§3.15.2.1", FIVE, "f0 | 19 < 15 'm' >", ProtocolError, "AUTH: reason code 0x19 is not allowed here"),
        ],
    );
}

#[test]
fn disconnect_and_auth_are_refused_for_what_the_specification_forbids() {
    refuses(
        Server,
        &[
            ("§3.14.2.1", FIVE, "e0 | 8e", ProtocolError, "DISCONNECT: reason code 0x8e is not allowed here"),
            ("[MQTT-3.14.2-1]", FIVE, "e0 | 01", ProtocolError, "DISCONNECT: reason code 0x01 is not allowed here"),
            (
                "§3.14.2.2.2",
                FIVE,
                "e0 | 00 < 11 00000001 11 00000001 >",
                ProtocolError,
                "DISCONNECT: session expiry interval appears more than once",
            ),
            (
                "§2.2.2.2",
                FIVE,
                "e0 | 00 < 21 0001 >",
                MalformedPacket,
                "DISCONNECT: the property block has property 0x21, which this packet cannot have",
            ),
            (
                "§1.2 malformed",
                FIVE,
                "e0 | 00 00 00",
                MalformedPacket,
                "DISCONNECT: the packet is followed by 1 bytes that belong to nothing",
            ),
            (
                "[MQTT-3.15.2-1]",
                FIVE,
                "f0 | 00 < 15 'm' >",
                ProtocolError,
                "AUTH: reason code 0x00 is not allowed here",
            ),
            (
                "[MQTT-3.15.2-1]",
                FIVE,
                "f0 | 87 < 15 'm' >",
                ProtocolError,
                "AUTH: reason code 0x87 is not allowed here",
            ),
            ("§3.15.2.2.2", FIVE, "f0 | 18 00", ProtocolError, "AUTH: authentication method is missing"),
            ("§3.15.2.2.2", FIVE, "f0 | 18 < 16 'd' >", ProtocolError, "AUTH: authentication method is missing"),
            (
                "§3.15.2.2.3",
                FIVE,
                "f0 | 18 < 15 'm' 16 'd' 16 'd' >",
                ProtocolError,
                "AUTH: authentication data appears more than once",
            ),
            ("§3.15.2.2.1", FIVE, "f0 | 18", MalformedPacket, "AUTH: property length is cut short"),
        ],
    );
}

#[test]
fn short_forms_are_accepted() {
    accepts(
        Server,
        &[
            ("§3.14.2.1", ALL, "e0 |"),
            ("§3.14.2.2.1", FIVE, "e0 | 04"),
            ("§3.14.2.2", FIVE, "e0 | 00 00"),
            ("§3.15.2.1", FIVE, "f0 |"),
            ("§3.15.2", FIVE, "f0 | 19 < 15 'm' >"),
            ("§3.12", ALL, "c0 |"),
        ],
    );
    accepts(
        Client,
        &[
            ("3.1.1 §3.2", OLD, "20 | 0000"),
            ("3.1 §3.2", THREE, "20 | ff05"),
            ("§3.2", FIVE, "20 | 0000 00"),
            ("§3.9", OLD, "90 | 0001 00 01 02 80"),
            ("§3.11", OLD, "b0 | 0001"),
            ("§3.14.2.1", FIVE, "e0 |"),
            ("§3.14.2.1", FIVE, "e0 | 8e"),
            ("§4.12", FIVE, "e0 | 8c"),
            ("§3.15.2", FIVE, "f0 | 00 < 15 'm' >"),
        ],
    );
}

#[test]
fn properties_are_capped_in_number_and_in_bytes() {
    let user = "26 '' '' ";
    let publish = |block: &str| format!("30 | 'a' < {block} >");
    assert!(matches!(decode(Server, Some(V5), &publish(&user.repeat(MAX_PROPERTIES))), Ok(Some(_))));
    let error = decode(Server, Some(V5), &publish(&user.repeat(MAX_PROPERTIES + 1))).unwrap_err();
    assert_eq!(
        (error.reason_code(), error.to_string()),
        (QuotaExceeded, "PUBLISH: the property block has more than 256 properties".into())
    );

    let filler = |length: usize| format!("26 '' {length:04x} {}", "61".repeat(length));
    let full = filler(MAX_PROPERTY_BYTES - 5 - 5 - 5) + " " + &filler(5);
    assert!(matches!(decode(Server, Some(V5), &publish(&full)), Ok(Some(_))));
    let error = decode(Server, Some(V5), &publish(&(filler(65_000) + " " + &filler(527)))).unwrap_err();
    assert_eq!(
        (error.reason_code(), error.to_string()),
        (QuotaExceeded, "PUBLISH: the property block has more than 65536 bytes of properties".into())
    );
}

#[test]
fn filters_are_capped_in_number() {
    for (first, filter) in [("82", "'' 00 "), ("a2", "'a' ")] {
        let packet = |count: usize| format!("{first} | 0001 {}", filter.repeat(count));
        assert!(matches!(decode(Server, Some(V4), &packet(MAX_FILTERS)), Ok(Some(_))));
        let error = decode(Server, Some(V4), &packet(MAX_FILTERS + 1)).unwrap_err();
        assert_eq!(error.reason_code(), QuotaExceeded);
        assert!(error.to_string().ends_with("the list of filters has more than 8192 entries"));
    }
}

#[test]
fn forwarded_properties_end_after_an_error() {
    let block = bytes("01 01 03");
    let got: Vec<_> = ForwardedProperties::new(&block).collect();
    assert_eq!(got.len(), 2);
    assert!(got[1].is_err());
    // What is not forwarded has no place there.
    assert!(ForwardedProperties::new(&bytes("23 0001")).next().unwrap().is_err());
}

fn encoded(packet: &Packet, version: Version) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(packet, version, &mut out).unwrap();
    out.to_vec()
}

#[test]
fn answers_are_narrowed_for_3_1_and_3_1_1() {
    let connack = |reason_code| {
        let properties = ConnAckProperties { reason_string: Some("why".into()), ..ConnAckProperties::default() };
        Packet::ConnAck(Box::new(ConnAck { session_present: reason_code == Success, reason_code, properties }))
    };
    for (code, want) in [
        (Success, 0),
        (UnsupportedProtocolVersion, 1),
        (ClientIdentifierNotValid, 2),
        (ServerUnavailable, 3),
        (ServerBusy, 3),
        (QuotaExceeded, 3),
        (UseAnotherServer, 3),
        (ConnectionRateExceeded, 3),
        (BadUserNameOrPassword, 4),
        (NotAuthorized, 5),
        (Banned, 5),
        (BadAuthenticationMethod, 5),
    ] {
        assert_eq!(encoded(&connack(code), V4), [0x20, 2, u8::from(code == Success), want]);
        assert_eq!(encoded(&connack(code), V3), [0x20, 2, 0, want]);
    }
    let packet_id = PacketId::new(1).unwrap();
    let properties =
        Some(Box::new(ReasonProperties { reason_string: Some("why".into()), user_properties: Vec::new() }));
    let suback = Packet::SubAck(SubAck {
        packet_id,
        reason_codes: vec![Success, GrantedQoS2, NotAuthorized, QuotaExceeded],
        properties: properties.clone(),
    });
    let unsuback = Packet::UnsubAck(UnsubAck {
        packet_id,
        reason_codes: vec![Success, NoSubscriptionExisted],
        properties: properties.clone(),
    });
    let puback = Packet::PubAck(Ack { packet_id, reason_code: NotAuthorized, properties });
    let disconnect = Packet::Disconnect(Disconnect { reason_code: SessionTakenOver, ..Disconnect::default() });
    for version in [V3, V4] {
        assert_eq!(encoded(&suback, version), [0x90, 6, 0, 1, 0, 2, 0x80, 0x80]);
        assert_eq!(encoded(&unsuback, version), [0xb0, 2, 0, 1]);
        assert_eq!(encoded(&puback, version), [0x40, 2, 0, 1]);
        assert_eq!(encoded(&disconnect, version), [0xe0, 0]);
        let error = encode(&Packet::Auth(Auth::default()), version, &mut BytesMut::new());
        assert_eq!(error, Err(EncodeError::NotInVersion { packet: PacketType::Auth, version }));
    }
}

#[test]
fn the_shortest_form_is_written() {
    let packet_id = PacketId::new(1).unwrap();
    let empty = Some(Box::new(ReasonProperties::default()));
    for (packet, want) in [
        (Packet::PubAck(Ack::new(packet_id, Success)), &[0x40, 2, 0, 1][..]),
        (Packet::PubRel(Ack { packet_id, reason_code: Success, properties: empty.clone() }), &[0x62, 2, 0, 1]),
        (
            Packet::PubComp(Ack { packet_id, reason_code: PacketIdentifierNotFound, properties: empty }),
            &[0x70, 3, 0, 1, 0x92],
        ),
        (Packet::Disconnect(Disconnect::default()), &[0xe0, 0]),
        (Packet::Disconnect(Disconnect { reason_code: ServerShuttingDown, ..Disconnect::default() }), &[0xe0, 1, 0x8b]),
        (Packet::Auth(Auth::default()), &[0xf0, 0]),
        (Packet::ConnAck(Box::default()), &[0x20, 3, 0, 0, 0]),
        (Packet::PingReq, &[0xc0, 0]),
        (Packet::PingResp, &[0xd0, 0]),
    ] {
        assert_eq!(encoded(&packet, V5), want, "{packet:?}");
    }
}

#[test]
fn what_no_length_can_express_is_refused_and_nothing_is_written() {
    let long = "x".repeat(65_536);
    let mut out = BytesMut::from(&b"before"[..]);
    let packet = Packet::Disconnect(Disconnect { reason_string: Some(long.as_str().into()), ..Disconnect::default() });
    let error = EncodeError::FieldTooLong { packet: PacketType::Disconnect, length: 65_536 };
    assert_eq!(encode(&packet, V5, &mut out), Err(error));
    assert_eq!(encoded_len(&packet, V5), Err(error));
    // The identifier of a subscription is a variable byte integer.
    let publish = Publish { subscription_identifiers: vec![1 << 28], ..publish(Client, V5, "30 | 'a' 00") };
    let error = EncodeError::TooLarge { packet: PacketType::Publish, value: 1 << 28 };
    assert_eq!(encode(&Packet::Publish(publish.clone()), V5, &mut out), Err(error));
    assert_eq!(encode(&Packet::Publish(publish), V4, &mut BytesMut::new()), Err(error));
    assert_eq!(&out[..], b"before");
    assert!(ForwardedBuilder::new().push(ForwardedProperty::ContentType(&long)).is_err());
}
