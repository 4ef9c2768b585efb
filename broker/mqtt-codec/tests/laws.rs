//! What holds for all packets and all bytes.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use base_types::{PacketId, QoS};
use bytes::{Bytes, BytesMut};
use common::*;
use mqtt_codec::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// All packets up to the end of the bytes, or up to the first error.
fn decode_all(decoder: &mut Decoder, buf: &mut BytesMut) -> (Vec<Packet>, Option<DecodeError>) {
    let mut packets = Vec::new();
    loop {
        match decoder.decode(buf) {
            Ok(Some(packet)) => packets.push(packet),
            Ok(None) => return (packets, None),
            Err(error) => return (packets, Some(error)),
        }
    }
}

fn any_decoder() -> impl Strategy<Value = Decoder> {
    let role = prop_oneof![Just(Role::Server), Just(Role::Client)];
    (role, proptest::option::of(version())).prop_map(|(role, version)| {
        let mut decoder = Decoder::new(role, 1 << 20);
        if let Some(version) = version {
            decoder.set_version(version);
        }
        decoder
    })
}

/// 5.0 §1.5.5: where the Remaining Length takes one byte more.
#[test]
fn a_publish_is_read_as_written_on_both_sides_of_each_length_border() {
    for version in [Version::V3, Version::V4, Version::V5] {
        let mut decoder = Decoder::new(Role::Server, 1 << 22);
        decoder.set_version(version);
        for border in [128, 16_384, 2_097_152] {
            for remaining in border - 2..=border + 2 {
                let mut want = PublishParts {
                    topic: "a",
                    qos: QoS::AtLeastOnce,
                    packet_id: PacketId::new(0x0102),
                    ..PublishParts::default()
                };
                let payload = std::vec![b'x'; remaining + 2 - want.encoded_len(version)];
                want.payload = &payload;
                let mut bytes = BytesMut::new();
                want.encode(version, &mut bytes);
                assert_eq!(bytes.len(), want.encoded_len(version));
                let Ok(Some(Packet::Publish(got))) = decoder.decode(&mut bytes) else { panic!("{remaining}") };
                let got = PublishParts::from(&got);
                assert_eq!((got.topic, got.qos, got.packet_id), (want.topic, want.qos, want.packet_id));
                assert!(got.payload == want.payload && bytes.is_empty(), "{remaining}");
            }
        }
    }
}

fn mutated() -> impl Strategy<Value = (Decoder, BytesMut)> {
    (sent(), edits()).prop_map(|((packet, version, role), edits)| {
        let bytes = mutate(&encoded(&packet, version), &edits);
        (decoder_for(&packet, role, version), BytesMut::from(&bytes[..]))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn what_was_encoded_decodes_to_the_same((packet, version, role) in sent()) {
        let mut bytes = encoded(&packet, version);
        let mut decoder = decoder_for(&packet, role, version);
        prop_assert_eq!(decoder.decode(&mut bytes), Ok(Some(packet)));
        prop_assert!(bytes.is_empty());
        prop_assert_eq!(decoder.version(), Some(version));
    }

    #[test]
    fn every_strict_prefix_of_a_packet_is_incomplete((packet, version, role) in sent()) {
        let bytes = encoded(&packet, version);
        for cut in 0..bytes.len() {
            let mut prefix = BytesMut::from(&bytes[..cut]);
            prop_assert_eq!(decoder_for(&packet, role, version).decode(&mut prefix), Ok(None));
            prop_assert_eq!(prefix.len(), cut);
        }
    }

    #[test]
    fn packets_do_not_depend_on_how_their_bytes_arrive(
        version in version(),
        seed in version().prop_flat_map(|v| vec(packet_for(Role::Server, v).prop_filter("not CONNECT", |p| !matches!(p, Packet::Connect(_))), 1..12)),
        sizes in vec(1..40_usize, 1..20),
    ) {
        let mut bytes = BytesMut::new();
        for packet in &seed {
            // Some cannot be said in this version.
            let _ = encode(packet, version, &mut bytes);
        }
        let mut decoder = Decoder::new(Role::Server, 1 << 20);
        decoder.set_version(version);
        let whole = decode_all(&mut decoder.clone(), &mut bytes.clone());

        let mut buf = BytesMut::new();
        let mut got = (Vec::new(), None);
        let mut sizes = sizes.iter().cycle();
        let mut rest = &bytes[..];
        while !rest.is_empty() && got.1.is_none() {
            let (chunk, behind) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            rest = behind;
            buf.extend_from_slice(chunk);
            let (packets, error) = decode_all(&mut decoder, &mut buf);
            got.0.extend(packets);
            got.1 = error;
        }
        prop_assert_eq!(got, whole);
    }

    #[test]
    fn random_bytes_never_panic(mut decoder in any_decoder(), bytes in vec(any::<u8>(), 0..200)) {
        decode_all(&mut decoder, &mut BytesMut::from(&bytes[..]));
    }

    /// And what is still a packet is one that can be written, and read again as the same.
    #[test]
    fn mutated_bytes_are_refused_or_are_another_packet((mut decoder, mut bytes) in mutated()) {
        let before = decoder.clone();
        let Ok(Some(packet)) = decoder.decode(&mut bytes) else { return Ok(()) };
        let version = decoder.version().unwrap();
        let mut again = encoded(&packet, version);
        prop_assert_eq!(before.clone().decode(&mut again), Ok(Some(packet)));
    }

    #[test]
    fn a_publish_from_parts_is_the_one_from_the_packet(
        (publish, version) in version().prop_flat_map(|v| (publish(Role::Client, v), Just(v))),
        id in any::<PacketId>(),
        dup in any::<bool>(),
    ) {
        let want = encoded(&Packet::Publish(publish.clone()), version);
        let parts = PublishParts::from(&publish);
        let mut head = BytesMut::new();
        parts.encode_head(version, &mut head);
        head.extend_from_slice(&publish.payload);
        prop_assert_eq!(&head, &want);

        let reliable = publish.qos > QoS::AtMostOnce;
        let other = Publish { dup: dup && reliable, packet_id: reliable.then_some(id), ..publish.clone() };
        let want = encoded(&Packet::Publish(other), version);
        let whole = PublishTemplate::whole(&parts, version);
        let head = PublishTemplate::head(&parts, version);
        prop_assert_eq!((whole.packet_len(), head.packet_len()), (want.len(), want.len()));
        prop_assert_eq!(whole.packet_id_offset(), parts.packet_id_offset(version));
        let mut out = BytesMut::from(&b"before"[..]);
        whole.write(Some(id), dup, &mut out);
        prop_assert_eq!(&out[6..], &want);
        out.truncate(6);
        head.write(Some(id), dup, &mut out);
        out.extend_from_slice(&publish.payload);
        prop_assert_eq!(&out[6..], &want);
    }

    #[test]
    fn forwarded_properties_read_as_they_were_built(publish in publish(Role::Server, Version::V5)) {
        let mut built = ForwardedBuilder::new();
        let mut utf8 = false;
        for property in ForwardedProperties::new(&publish.forwarded) {
            let property = property.unwrap();
            utf8 |= property == ForwardedProperty::PayloadFormatIndicator(true);
            built.push(property).unwrap();
        }
        prop_assert_eq!(utf8, publish.payload_is_utf8);
        prop_assert_eq!(built.build(), publish.forwarded);
    }

    /// Wherever expiry, alias and identifiers stand between them.
    #[test]
    fn forwarded_properties_keep_their_order_among_others(
        publish in publish(Role::Client, Version::V5),
        places in vec(any::<prop::sample::Index>(), 5),
    ) {
        let mut all = Vec::new();
        for property in ForwardedProperties::new(&publish.forwarded) {
            let mut one = ForwardedBuilder::new();
            one.push(property.unwrap()).unwrap();
            all.push(one.build());
        }
        let others = Publish { forwarded: Bytes::new(), ..publish.clone() };
        let mut places = places.iter();
        for alone in [
            Publish { topic_alias: None, subscription_identifiers: Vec::new(), ..others.clone() },
            Publish { message_expiry_interval: None, subscription_identifiers: Vec::new(), ..others.clone() },
            Publish { message_expiry_interval: None, topic_alias: None, ..others.clone() },
        ] {
            // The properties of a PUBLISH of QoS 0 without topic and payload are what stands behind 5 bytes.
            let bare = PublishParts { topic: "", payload: b"", qos: QoS::AtMostOnce, ..PublishParts::from(&alone) };
            let mut out = BytesMut::new();
            bare.encode(Version::V5, &mut out);
            let block = Bytes::from(out.split_off(5));
            if !block.is_empty() {
                all.insert(places.next().unwrap().index(all.len() + 1), block);
            }
        }
        let block = all.concat();
        let (mut want, mut bytes) = (publish.clone(), BytesMut::new());
        want.dup = false;
        want.qos = QoS::AtMostOnce;
        want.packet_id = None;
        let parts = PublishParts::from(&want);
        let mixed = PublishParts { forwarded: &block, message_expiry_interval: None, topic_alias: None, subscription_identifiers: &[], ..parts };
        mixed.encode(Version::V5, &mut bytes);
        let mut decoder = Decoder::new(Role::Client, 1 << 20);
        decoder.set_version(Version::V5);
        prop_assert_eq!(decoder.decode(&mut bytes), Ok(Some(Packet::Publish(want))));
    }
}
