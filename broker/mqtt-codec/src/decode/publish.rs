use super::message::{Forwarded, MessageProperties};
use crate::property::sets;
use crate::reader::{Reader, topic_name};
use crate::{DecodeError, Flaw, Packet, PacketType, Publish, Role, Version};
use base_types::QoS;
use bytes::{Buf, Bytes, BytesMut};

const PACKET: PacketType = PacketType::Publish;

/// PUBLISH, of which `buf` holds all `size` bytes. Everything is judged in place; then topic, payload and forwarded
/// properties are cut out of `buf`, two references to it in the usual case.
#[inline]
pub(crate) fn publish(
    first: u8,
    header: usize,
    size: usize,
    buf: &mut BytesMut,
    version: Version,
    role: Role,
) -> Result<Option<Packet>, DecodeError> {
    let mut r = Reader::new(PACKET, &buf[header..size]);
    let dup = first & 0b1000 != 0;
    let retain = first & 0b0001 != 0;
    let qos = match first >> 1 & 0b11 {
        0 if dup => return Err(r.error("the fixed header", Flaw::DupWithQosZero)),
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        2 => QoS::ExactlyOnce,
        _ => return Err(r.error("the fixed header", Flaw::QosThree)),
    };
    let topic_length = r.binary("topic name")?.len();
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(r.packet_id()?) };

    let mut properties = MessageProperties::default();
    if version == Version::V5 {
        if r.rest.first() == Some(&0) {
            r.rest = &r.rest[1..];
        } else {
            properties = MessageProperties::read(&mut r, sets::PUBLISH)?;
            if role == Role::Server && !properties.subscription_identifiers.is_empty() {
                // [MQTT-3.3.4-6]
                return Err(r.error("subscription identifier", Flaw::Unexpected));
            }
        }
    }
    if topic_length == 0 && properties.topic_alias.is_none() {
        // A Protocol Error in 5.0 (§3.3.2.1) [MQTT-4.7.3-1].
        return Err(r.error("topic name", Flaw::Empty));
    }
    let payload_length = r.rest.len();

    let payload_at = size - payload_length;
    let mut at = header + 2;
    buf.advance(at);
    let topic = match topic_length {
        0 => None,
        length => {
            at += length;
            Some(topic_name(PACKET, "topic name", buf.split_to(length).freeze())?)
        }
    };
    let forwarded = match properties.forwarded {
        Forwarded::Slice { length: 0, .. } => Bytes::new(),
        Forwarded::Slice { back, length } => {
            let start = payload_at - back;
            buf.advance(start - at);
            at = start + length;
            buf.split_to(length).freeze()
        }
        Forwarded::Gathered(bytes) => bytes.into(),
    };
    buf.advance(payload_at - at);
    let payload = if payload_length == 0 { Bytes::new() } else { buf.split_to(payload_length).freeze() };
    Ok(Some(Packet::Publish(Publish {
        dup,
        qos,
        retain,
        topic,
        packet_id,
        payload,
        message_expiry_interval: properties.message_expiry_interval,
        topic_alias: properties.topic_alias,
        subscription_identifiers: properties.subscription_identifiers,
        payload_is_utf8: properties.payload_is_utf8,
        forwarded,
    })))
}
