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
pub use subscribe::MAX_FILTERS;

use crate::reader::{Frame, Reader};
use crate::{DecodeError, Disconnect, Packet, PacketType, Role, Version};
use bytes::{Buf, BytesMut};

/// PUBACK, PUBREC, PUBREL and PUBCOMP without properties, where they lie in `buf`: no copy and no reference.
pub(crate) fn short_ack(
    packet: PacketType,
    header: usize,
    size: usize,
    buf: &mut BytesMut,
    version: Version,
    role: Role,
) -> Result<Option<Packet>, DecodeError> {
    let ack = ack::short(&mut Reader::new(packet, &buf[header..size]), version, role)?;
    buf.advance(size);
    Ok(Some(ack::wrap(packet, ack)))
}

/// All but CONNECT and PUBLISH. The parts that the result keeps are those of `frame`.
pub(crate) fn framed(
    packet: PacketType,
    frame: &Frame,
    version: Version,
    role: Role,
) -> Result<Option<Packet>, DecodeError> {
    let mut reader = Reader::new(packet, &frame.0);
    let r = &mut reader;
    let decoded = match packet {
        PacketType::ConnAck => Packet::ConnAck(Box::new(connack::connack(r, frame, version)?)),
        PacketType::Subscribe => Packet::Subscribe(subscribe::subscribe(r, frame, version)?),
        PacketType::SubAck => Packet::SubAck(subscribe::suback(r, frame, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(subscribe::unsubscribe(r, frame, version)?),
        PacketType::UnsubAck => Packet::UnsubAck(subscribe::unsuback(r, frame, version)?),
        PacketType::PingReq => Packet::PingReq,
        PacketType::PingResp => Packet::PingResp,
        PacketType::Disconnect if version < Version::V5 => Packet::Disconnect(Disconnect::default()),
        PacketType::Disconnect => Packet::Disconnect(disconnect::disconnect(r, frame, role)?),
        PacketType::Auth => Packet::Auth(auth::auth(r, frame, role)?),
        // CONNECT and PUBLISH don't come here.
        _ => ack::wrap(packet, ack::long(r, frame, role)?),
    };
    reader.end()?;
    Ok(Some(decoded))
}
