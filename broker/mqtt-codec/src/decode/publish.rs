use super::message::{Forwarded, MessageProperties};
use crate::property::sets;
use crate::reader::{Reader, topic_name};
use crate::{DecodeError, Flaw, Packet, PacketType, Publish, Role, Version};
use base_types::{PacketId, QoS};
use bytes::{Buf, Bytes, BytesMut};

const PACKET: PacketType = PacketType::Publish;

/// What stands in front of the properties.
struct Head {
    dup: bool,
    qos: QoS,
    retain: bool,
    topic_length: usize,
    packet_id: Option<PacketId>,
}

impl Head {
    #[inline(always)] // Its parts stay in registers then.
    fn read(first: u8, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let dup = first & 0b1000 != 0;
        let qos = match first >> 1 & 0b11 {
            0 if dup => return Err(r.error("the fixed header", Flaw::DupWithQosZero)),
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            2 => QoS::ExactlyOnce,
            _ => return Err(r.error("the fixed header", Flaw::QosThree)),
        };
        let topic_length = r.binary("topic name")?.len();
        let packet_id = if qos == QoS::AtMostOnce { None } else { Some(r.packet_id()?) };
        Ok(Self { dup, qos, retain: first & 1 != 0, topic_length, packet_id })
    }
}

/// PUBLISH, of which `buf` holds all `size` bytes. Everything but the text of the topic is judged in place; then topic and payload
/// are cut out of `buf`: two references to it, made and dropped, which are more than half of what all this costs.
#[inline(never)] // Inlined, its result would be copied.
pub(crate) fn publish(
    first: u8,
    header: usize,
    size: usize,
    buf: &mut BytesMut,
    version: Version,
    role: Role,
) -> Result<Option<Packet>, DecodeError> {
    let mut r = Reader::new(PACKET, &buf[header..size]);
    let Head { dup, qos, retain, topic_length, packet_id } = Head::read(first, &mut r)?;
    if version == Version::V5 {
        match r.rest {
            [0, payload @ ..] => r.rest = payload,
            _ => return with_properties(first, header, size, buf, role),
        }
    }
    let payload_length = r.rest.len();
    if topic_length == 0 {
        // [MQTT-4.7.3-1]; a Protocol Error in 5.0 (§3.3.2.1).
        return Err(r.error("topic name", Flaw::Empty));
    }
    // Both are cut with what stands in front of them, which a `Bytes` skips cheaper than a `BytesMut`.
    let topic_at = header + 2;
    let topic_end = topic_at + topic_length;
    let mut topic = buf.split_to(topic_end).freeze();
    topic.advance(topic_at);
    let topic = topic_name(PACKET, "topic name", topic)?;
    let between = size - topic_end - payload_length;
    let payload = if payload_length == 0 {
        buf.advance(between);
        Bytes::new()
    } else {
        let mut payload = buf.split_to(between + payload_length).freeze();
        payload.advance(between);
        payload
    };
    Ok(Some(Packet::Publish(Publish {
        dup,
        qos,
        retain,
        topic: Some(topic),
        packet_id,
        payload,
        message_expiry_interval: None,
        topic_alias: None,
        subscription_identifiers: Vec::new(),
        payload_is_utf8: false,
        forwarded: Bytes::new(),
    })))
}

/// A PUBLISH of 5.0 that has properties.
#[inline(never)] // The usual way is without.
fn with_properties(
    first: u8,
    header: usize,
    size: usize,
    buf: &mut BytesMut,
    role: Role,
) -> Result<Option<Packet>, DecodeError> {
    let mut r = Reader::new(PACKET, &buf[header..size]);
    let head = Head::read(first, &mut r)?;
    let properties = MessageProperties::read(&mut r, sets::PUBLISH)?;
    if role == Role::Server && !properties.subscription_identifiers.is_empty() {
        // [MQTT-3.3.4-6]
        return Err(r.error("subscription identifier", Flaw::Unexpected));
    }
    if head.topic_length == 0 && properties.topic_alias.is_none() {
        return Err(r.error("topic name", Flaw::Empty));
    }
    let payload_length = r.rest.len();
    let payload_at = size - payload_length;

    let topic_at = header + 2;
    buf.advance(topic_at);
    let topic = match head.topic_length {
        0 => None,
        length => Some(topic_name(PACKET, "topic name", buf.split_to(length).freeze())?),
    };
    let mut at = topic_at + head.topic_length;
    let forwarded = match properties.forwarded {
        Forwarded::Slice { back, length } => {
            buf.advance(payload_at - back - at);
            at = payload_at - back + length;
            cut(length, buf)
        }
        Forwarded::Gathered(bytes) => bytes.into(),
    };
    buf.advance(payload_at - at);
    Ok(Some(Packet::Publish(Publish {
        dup: head.dup,
        qos: head.qos,
        retain: head.retain,
        topic,
        packet_id: head.packet_id,
        payload: cut(payload_length, buf),
        message_expiry_interval: properties.message_expiry_interval,
        topic_alias: properties.topic_alias,
        subscription_identifiers: properties.subscription_identifiers,
        payload_is_utf8: properties.payload_is_utf8,
        forwarded,
    })))
}

/// The next `length` bytes; nothing costs no reference.
#[inline(always)] // As `topic_name`.
fn cut(length: usize, buf: &mut BytesMut) -> Bytes {
    if length == 0 { Bytes::new() } else { buf.split_to(length).freeze() }
}
