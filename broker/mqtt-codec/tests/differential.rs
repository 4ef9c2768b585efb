//! The same bytes through other codecs: what one of them does differently is listed here, with the reason why we don't.
//!
//! mqttbytes and rumqttc (the former, carried on) are what many clients use; rmqtt-codec and mqtt-protocol-core are the
//! strictest that we know.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;
#[path = "common/bytes.rs"]
mod notation;
#[path = "common/peers.rs"]
mod peers;

use bytes::{Bytes, BytesMut};
use common::*;
use mqtt_codec::*;
use peers::{PEERS, Peer, Verdict};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;

/// The same packet as all peers can say it: they order properties by kind, and most forget a payload format indicator of 0.
fn plain(mut packet: Packet) -> Packet {
    let sort = |block: &mut Bytes| {
        let mut all: Vec<_> = ForwardedProperties::new(block).map(Result::unwrap).collect();
        all.retain(|property| *property != ForwardedProperty::PayloadFormatIndicator(false));
        all.sort_by_key(|property| match property {
            ForwardedProperty::PayloadFormatIndicator(_) => 0,
            ForwardedProperty::ContentType(_) => 1,
            ForwardedProperty::ResponseTopic(_) => 2,
            ForwardedProperty::CorrelationData(_) => 3,
            ForwardedProperty::UserProperty(..) => 4,
        });
        let mut sorted = ForwardedBuilder::new();
        for property in all {
            sorted.push(property).unwrap();
        }
        *block = sorted.build();
    };
    match &mut packet {
        Packet::Publish(publish) => sort(&mut publish.forwarded),
        Packet::Connect(connect) => connect.will.iter_mut().for_each(|will| sort(&mut will.forwarded)),
        _ => {}
    }
    packet
}

/// What a peer does with a valid packet that it should not do.
struct Flawed {
    who: &'static [Peer],
    does: Does,
    with: fn(&Packet, Version) -> bool,
    because: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Refuse,
    /// It is another packet, or none, when the peer has written it.
    Change,
}

fn connect(packet: &Packet) -> Option<&Connect> {
    if let Packet::Connect(connect) = packet { Some(connect) } else { None }
}

fn disconnect(packet: &Packet) -> Option<&Disconnect> {
    if let Packet::Disconnect(disconnect) = packet { Some(disconnect) } else { None }
}

fn has_credentials(packet: &Packet) -> bool {
    connect(packet).is_some_and(|c| c.username.is_some() || c.password.is_some())
}

const MQTTBYTES: &[Peer] = &[Peer::Mqttbytes, Peer::Rumqttc];

const FLAWED: &[Flawed] = &[
    Flawed {
        who: MQTTBYTES,
        does: Does::Refuse,
        with: |p, _| {
            has_credentials(p)
                && std::str::from_utf8(connect(p).and_then(|c| c.password.as_deref()).unwrap_or(b"")).is_err()
        },
        because: "takes the password for a string; it is binary data (5.0 §3.1.3.6, 3.1.1 §3.1.3.5)",
    },
    Flawed {
        who: MQTTBYTES,
        does: Does::Change,
        with: |p, _| {
            has_credentials(p)
                && connect(p).is_some_and(|c| {
                    c.username.as_deref().unwrap_or("").is_empty() || c.password.as_deref().unwrap_or(b"").is_empty()
                })
        },
        because: "takes an empty user name or password for an absent one (5.0 §3.1.2.8, §3.1.2.9)",
    },
    Flawed {
        who: MQTTBYTES,
        does: Does::Refuse,
        with: |p, _| matches!(p, Packet::Auth(_)),
        because: "does not know AUTH (5.0 §3.15)",
    },
    Flawed {
        who: MQTTBYTES,
        does: Does::Refuse,
        with: |p, v| v == Version::V5 && matches!(p, Packet::Disconnect(_)),
        because: "refuses the short forms of DISCONNECT, when they are what was sent (5.0 §3.14.2.1, §3.14.2.2.1)",
    },
    Flawed {
        who: &[Peer::Mqttbytes, Peer::Rumqttc, Peer::ProtocolCore],
        does: Does::Refuse,
        with: |p, _| disconnect(p).is_some_and(|d| d.reason_code == ReasonCode::BadAuthenticationMethod),
        because: "goes by table 3-10, where 0x8C is missing; §2.4 has it for DISCONNECT",
    },
    Flawed {
        who: &[Peer::ProtocolCore],
        does: Does::Refuse,
        with: |p, v| v == Version::V5 && connect(p).is_some_and(|c| c.username.is_none() && c.password.is_some()),
        because: "wants a user name with a password, as before 5.0 (5.0 §3.1.2.9, last sentence)",
    },
    Flawed {
        who: &[Peer::Rmqtt],
        does: Does::Refuse,
        with: |p, _| connect(p).is_some_and(|c| c.client_id.is_empty() && !c.clean_start),
        because: "wants a client identifier without Clean Start; in 5.0 the server assigns one (§3.1.3.1), and before it answers with                   a return code (3.1.1 [MQTT-3.1.3-8]), which is the session's business",
    },
    Flawed {
        who: &[Peer::Rmqtt],
        does: Does::Refuse,
        with: |p, v| v == Version::V3 && matches!(p, Packet::PubRel(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_)),
        because: "wants the flags of 3.1.1 in 3.1, which has a DUP flag there (3.1 §3.6, §3.8, §3.10)",
    },
    Flawed {
        who: &[Peer::Rmqtt],
        does: Does::Refuse,
        with: |p, v| v == Version::V3 && matches!(p, Packet::Connect(_) | Packet::ConnAck(_)),
        because: "wants bits to be 0 that 3.1 leaves unused (3.1 §3.1, §3.2)",
    },
    Flawed {
        who: &[Peer::Rmqtt],
        does: Does::Change,
        with: |p, v| v == Version::V3 && matches!(p, Packet::Connect(_)),
        because: "writes every CONNECT as 3.1.1",
    },
    Flawed {
        who: &[Peer::Rmqtt],
        does: Does::Change,
        with: |p, _| *p == Packet::Auth(Auth::default()),
        because: "writes an AUTH without properties with a length, and that is no AUTH without a method any more (5.0 §3.15.2.2.2)",
    },
    Flawed {
        who: &[Peer::Rmqtt],
        does: Does::Change,
        with: |p, v| v == Version::V5 && matches!(p, Packet::Connect(_) | Packet::ConnAck(_)),
        because: "leaves out properties that have their default value, and there is no difference to it",
    },
];

#[test]
fn peers_take_what_we_write_and_we_take_what_they_write_but_for_explained_differences() {
    let mut runner = TestRunner::deterministic();
    let mut used = vec![false; FLAWED.len()];
    for _ in 0..3000 {
        let (packet, version, role) = sent().new_tree(&mut runner).unwrap().current();
        let bytes = encoded(&packet, version);
        for peer in PEERS.into_iter().filter(|peer| peer.speaks(version)) {
            let (does, what) = match peer.judge(version, &bytes) {
                Verdict::Refused(why) => (Does::Refuse, why),
                Verdict::Accepted(None) => (Does::Change, "cannot write it".into()),
                Verdict::Accepted(Some(theirs)) => {
                    match decoder_for(&packet, role, version).decode(&mut BytesMut::from(&theirs[..])) {
                        Ok(Some(back)) if plain(back.clone()) == plain(packet.clone()) => continue,
                        other => (Does::Change, format!("{other:?}")),
                    }
                }
            };
            let explained =
                FLAWED.iter().position(|f| f.who.contains(&peer) && f.does == does && (f.with)(&packet, version));
            match explained {
                Some(at) => used[at] = true,
                None => panic!("{peer:?} {version:?}: {does:?} {packet:?}: {what}"),
            }
        }
    }
    // Those of 3.1's flags need packets that we don't write.
    let unused: Vec<_> = FLAWED.iter().zip(&used).filter(|(_, used)| !**used).map(|(f, _)| f.because).collect();
    assert!(unused.iter().all(|because| because.contains("3.1 §3")), "{unused:?}");
}

/// What is refused here, and by whom it is accepted.
const ACCEPTED: &[(&str, &[Peer], &str)] = &[
    ("DupWithQosZero", &PEERS, "nobody compares the two [MQTT-3.3.1-2]"),
    ("Nul", &PEERS, "nobody looks for U+0000 [MQTT-1.5.4-2]"),
    ("Wildcard", &PEERS, "left to the layer above [MQTT-3.3.2-2]"),
    ("ResponseTopicWildcard", &PEERS, "left to the layer above [MQTT-3.3.2-14]"),
    ("EmptyTopic", &PEERS, "left to the layer above [MQTT-4.7.3-1]"),
    ("Unexpected", &PEERS, "they don't know which end they are, nor what came before [MQTT-3.1.0-1], [MQTT-3.1.0-2]"),
    ("ReasonCode", &PEERS, "one list of codes for both directions, or for several packets"),
    ("ReservedBits", &PEERS, "flags, or some of them, are not looked at [MQTT-2.1.3-1]"),
    ("SessionPresentWithError", &PEERS, "nobody compares the two [MQTT-3.2.2-6]"),
    ("VariableByteInteger", &PEERS, "padded lengths are taken [MQTT-1.5.5-1]"),
    ("Empty", &PEERS, "an empty topic without an alias, empty lists of filters or codes"),
    (
        "WillFlagsWithoutWill",
        &[Peer::Rmqtt, Peer::ProtocolCore],
        "not looked at without a will [MQTT-3.1.2-11], [MQTT-3.1.2-13]",
    ),
    (
        "PasswordWithoutUserName",
        &[Peer::Mqttbytes, Peer::Rumqttc, Peer::Rmqtt],
        "not compared before 5.0 [MQTT-3.1.2-22 of 3.1.1]",
    ),
    ("TrailingBytes", &[Peer::Mqttbytes, Peer::Rumqttc, Peer::Rmqtt], "bytes behind the last part are ignored"),
    ("Truncated", &[Peer::Mqttbytes, Peer::Rumqttc], "the property length is no border for the properties"),
    ("Truncated", &[Peer::Rmqtt], "AUTH without a property length (5.0 §3.15.2.2.1)"),
    ("Missing", &PEERS, "AUTH without a method, data without a method (5.0 §3.15.2.2.2, §3.1.2.11.10)"),
    ("Zero", &PEERS, "identifiers and limits of 0 [MQTT-2.2.1-3], 5.0 §3.1.2.11.3"),
    ("AliasZero", &[Peer::Mqttbytes, Peer::Rumqttc], "left to the layer above [MQTT-3.3.2-8]"),
    (
        "Duplicate",
        &[Peer::Mqttbytes, Peer::Rumqttc, Peer::ProtocolCore],
        "the last one of several single-use properties counts (5.0 §3.1.2.11 and so on)",
    ),
    ("NotBoolean", &[Peer::Mqttbytes, Peer::Rumqttc], "any byte is taken (5.0 §3.3.2.3.2 and so on)"),
    ("IllFormedUtf8", &[Peer::Rumqttc], "topic names of 5.0 are not looked at"),
];

/// Of the kinds that changing valid packets hits too seldom.
const FRAMES: &[(Role, Version, &str)] = &[
    (Role::Client, Version::V5, "30 | 'a' < 01 01 01 01 >"),
    (Role::Client, Version::V5, "30 | 'a' < 23 0001 23 0001 >"),
    (Role::Client, Version::V5, "30 | 'a' < 23 0000 >"),
    (Role::Client, Version::V5, "30 | 'a' < 0b 00 >"),
    (Role::Client, Version::V5, "30 | 'a' < 08 'a/+' >"),
    (Role::Client, Version::V5, "30 | '' 00"),
    (Role::Client, Version::V4, "30 | 'a/#' 00"),
    (Role::Client, Version::V4, "36 | 'a' 0001"),
    (Role::Client, Version::V4, "32 | 'a' 0000"),
    (Role::Server, Version::V4, "82 | 0001"),
    (Role::Server, Version::V4, "82 | 0000 'a' 00"),
    (Role::Server, Version::V4, "82 | 0001 'a' 03"),
    (Role::Server, Version::V5, "82 | 0001 00 'a' 30"),
    (Role::Server, Version::V5, "82 | 0001 < 0b 01 0b 01 > 'a' 00"),
    (Role::Server, Version::V5, "f0 | 18 00"),
    (Role::Server, Version::V4, "10 | 'MQTT' 04 06 003c 'c' '' 'm'"),
    (Role::Server, Version::V4, "10 | 'MQTT' 04 22 003c 'c'"),
    (Role::Server, Version::V4, "10 | 'MQTT' 04 42 003c 'c' 'p'"),
    (Role::Server, Version::V5, "10 | 'MQTT' 05 02 003c < 16 'd' > 'c'"),
    (Role::Server, Version::V5, "10 | 'MQTT' 05 02 003c < 19 01 19 01 > 'c'"),
    (Role::Server, Version::V5, "e0 | a2 00"),
    (Role::Client, Version::V4, "20 | 0105"),
    (Role::Client, Version::V5, "20 | 0000 < 12 'c' 17 01 >"),
    (Role::Client, Version::V5, "20 | 0000 < 21 0000 >"),
    (Role::Client, Version::V5, "20 | 0000 < 21 0001 21 0001 >"),
    (Role::Client, Version::V5, "20 | 0000 < 27 00000000 >"),
];

#[test]
fn peers_agree_on_what_is_no_packet_but_for_explained_differences() {
    let mut used = BTreeSet::new();
    let mut compare = |decoder: &mut Decoder, version: Version, bytes: &[u8]| {
        let ours = decoder.decode(&mut BytesMut::from(bytes));
        for peer in PEERS.into_iter().filter(|peer| peer.speaks(version)) {
            match (&ours, peer.judge(version, bytes)) {
                (Ok(Some(packet)), Verdict::Refused(why)) => {
                    let explained = FLAWED
                        .iter()
                        .any(|f| f.who.contains(&peer) && f.does == Does::Refuse && (f.with)(packet, version));
                    assert!(explained, "{peer:?} {version:?} refuses {bytes:02x?}, {packet:?}: {why}");
                }
                (Err(DecodeError::Invalid { flaw, .. }), Verdict::Accepted(_)) => {
                    let kind = format!("{flaw:?}");
                    let kind = kind.split('(').next().unwrap();
                    let explained = ACCEPTED.iter().position(|(of, peers, _)| *of == kind && peers.contains(&peer));
                    used.extend(explained.map(|at| (at, peer)));
                    assert!(explained.is_some(), "{peer:?} {version:?} accepts {bytes:02x?}: {ours:?}");
                }
                // Lengths that are not complete, and other versions, are compared elsewhere.
                _ => {}
            }
        }
    };
    for (role, version, frame) in FRAMES {
        let mut decoder = Decoder::new(*role, 1 << 20);
        if !frame.starts_with("10") {
            decoder.set_version(*version);
        }
        compare(&mut decoder, *version, &notation::bytes(frame));
    }
    let mut runner = TestRunner::deterministic();
    for _ in 0..10_000 {
        let (packet, version, role) = sent().new_tree(&mut runner).unwrap().current();
        let edits = edits().new_tree(&mut runner).unwrap().current();
        let bytes = mutate(&encoded(&packet, version), &edits);
        compare(&mut decoder_for(&packet, role, version), version, &bytes);
    }
    for (at, (kind, peers, because)) in ACCEPTED.iter().enumerate() {
        for peer in *peers {
            assert!(used.contains(&(at, *peer)), "{peer:?} does not accept {kind}: {because}");
        }
    }
}
