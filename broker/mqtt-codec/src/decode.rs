//! One packet from its bytes, by type.

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod message;
mod publish;
mod subscribe;

pub(crate) use connect::connect;
pub(crate) use publish::publish;

use crate::reader::{Frame, Reader};
use crate::{DecodeError, Disconnect, Packet, PacketType, Role, Version};

/// Packets that need no part of the frame: `None` when this one is not of that kind.
#[inline]
pub(crate) fn small(
    packet: PacketType,
    body: &[u8],
    version: Version,
    role: Role,
) -> Result<Option<Packet>, DecodeError> {
    let mut reader = Reader::new(packet, body);
    match packet {
        PacketType::PubAck | PacketType::PubRec | PacketType::PubRel | PacketType::PubComp
            if version < Version::V5 || body.len() < 4 =>
        {
            ack::short(&mut reader, version, role).map(|ack| Some(ack::wrap(packet, ack)))
        }
        PacketType::PingReq => reader.end("the fixed header").map(|()| Some(Packet::PingReq)),
        PacketType::PingResp => reader.end("the fixed header").map(|()| Some(Packet::PingResp)),
        PacketType::Disconnect if version < Version::V5 => {
            reader.end("the fixed header").map(|()| Some(Packet::Disconnect(Disconnect::default())))
        }
        _ => Ok(None),
    }
}

/// All others but CONNECT and PUBLISH.
pub(crate) fn large(packet: PacketType, frame: &Frame, version: Version, role: Role) -> Result<Packet, DecodeError> {
    let mut reader = Reader::new(packet, &frame.0);
    let r = &mut reader;
    let (decoded, last) = match packet {
        PacketType::ConnAck => (Packet::ConnAck(Box::new(connack::connack(r, frame, version)?)), "the property block"),
        PacketType::Subscribe => (Packet::Subscribe(subscribe::subscribe(r, frame, version)?), "the filters"),
        PacketType::SubAck => (Packet::SubAck(subscribe::suback(r, frame, version)?), "the reason codes"),
        PacketType::Unsubscribe => (Packet::Unsubscribe(subscribe::unsubscribe(r, frame, version)?), "the filters"),
        PacketType::UnsubAck => (Packet::UnsubAck(subscribe::unsuback(r, frame, version)?), "the packet identifier"),
        PacketType::Disconnect => (Packet::Disconnect(disconnect::disconnect(r, frame, role)?), "the property block"),
        PacketType::Auth => (Packet::Auth(auth::auth(r, frame, role)?), "the property block"),
        _ => (ack::wrap(packet, ack::long(r, frame, role)?), "the property block"),
    };
    reader.end(last)?;
    Ok(decoded)
}
