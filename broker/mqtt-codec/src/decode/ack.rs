use crate::property::{Property, Set, sets};
use crate::reader::{Frame, Reader};
use crate::{Ack, DecodeError, Packet, PacketType, ReasonCode, ReasonProperties, Role, Version};

/// Two bytes in all versions; three in 5.0, where a missing code means success (5.0 §3.4.2.1).
#[inline]
pub(super) fn short(r: &mut Reader<'_>, version: Version, role: Role) -> Result<Ack, DecodeError> {
    let packet_id = r.packet_id()?;
    let reason_code = match version {
        Version::V5 if !r.is_empty() => r.reason_code(role)?,
        _ => ReasonCode::Success,
    };
    r.end()?;
    Ok(Ack::new(packet_id, reason_code))
}

pub(super) fn long(r: &mut Reader<'_>, frame: &Frame, role: Role) -> Result<Ack, DecodeError> {
    let packet_id = r.packet_id()?;
    let reason_code = r.reason_code(role)?;
    let properties = reason_properties(r, frame, sets::REASON)?;
    Ok(Ack { packet_id, reason_code, properties })
}

pub(super) fn wrap(packet: PacketType, ack: Ack) -> Packet {
    match packet {
        PacketType::PubAck => Packet::PubAck(ack),
        PacketType::PubRec => Packet::PubRec(ack),
        PacketType::PubRel => Packet::PubRel(ack),
        _ => Packet::PubComp(ack),
    }
}

/// Reason string and user properties; nothing is allocated when there are none.
pub(super) fn reason_properties(
    r: &mut Reader<'_>,
    frame: &Frame,
    allowed: Set,
) -> Result<Option<Box<ReasonProperties>>, DecodeError> {
    let mut properties = r.properties(allowed)?;
    let mut out: Option<Box<ReasonProperties>> = None;
    while let Some(property) = properties.next()? {
        let out = out.get_or_insert_default();
        match property {
            Property::ReasonString(text) => out.reason_string = Some(frame.text(text)),
            Property::User(name, value) => out.user_properties.push((frame.text(name), frame.text(value))),
            _ => {}
        }
    }
    Ok(out)
}
