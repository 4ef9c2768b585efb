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
use bytes::{Buf, Bytes, BytesMut};

/// All but CONNECT and PUBLISH, of which `buf` holds all `size` bytes.
pub(crate) fn other(
    packet: PacketType,
    header: usize,
    size: usize,
    buf: &mut BytesMut,
    version: Version,
    role: Role,
) -> Result<Option<Packet>, DecodeError> {
    let body = &buf[header..size];
    let mut r = Reader::new(packet, body);
    let decoded = match packet {
        // What a busy connection sees is parsed where it lies, without a reference to the buffer.
        PacketType::PubAck | PacketType::PubRec | PacketType::PubRel | PacketType::PubComp
            if version < Version::V5 || body.len() < 4 =>
        {
            ack::wrap(packet, ack::short(&mut r, version, role)?)
        }
        PacketType::PingReq | PacketType::PingResp => {
            r.end("the fixed header")?;
            if packet == PacketType::PingReq { Packet::PingReq } else { Packet::PingResp }
        }
        PacketType::Disconnect if version < Version::V5 => {
            r.end("the fixed header")?;
            Packet::Disconnect(Disconnect::default())
        }
        _ => large(packet, &Frame(Bytes::copy_from_slice(body)), version, role)?,
    };
    buf.advance(size);
    Ok(Some(decoded))
}

/// Packets of which the result may keep parts: those of a frame of their own.
fn large(packet: PacketType, frame: &Frame, version: Version, role: Role) -> Result<Packet, DecodeError> {
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
