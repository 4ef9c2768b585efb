use crate::reader::Frame;
use crate::varint::{self, Varint};
use crate::{DecodeError, Flaw, Packet, PacketType, Version, decode};
use bytes::{Buf, Bytes, BytesMut};

/// Which end of the connection reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Reads what clients send.
    Server,
    /// Reads what servers send.
    Client,
}

/// Cuts the packets of one connection out of its read buffer.
///
/// A PUBLISH shares the buffer; every other packet is a copy of its own, so that what a session keeps of it does not
/// keep 64 KiB alive. Nothing is reserved by what a length claims: the caller grows the buffer as bytes arrive, and a packet
/// that claims more than the maximum is refused by its fixed header.
#[derive(Clone, Debug)]
pub struct Decoder {
    role: Role,
    max_packet_size: u32,
    version: Option<Version>,
}

impl Decoder {
    /// `max_packet_size` in bytes, for whole packets, as 5.0 §3.1.2.11.4 counts.
    #[must_use]
    pub fn new(role: Role, max_packet_size: u32) -> Self {
        Self { role, max_packet_size, version: None }
    }

    /// The version of the connection. A server learns it from CONNECT, even from one that is refused for what stands behind the
    /// level: then it still tells in which version to answer.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Says which version is spoken. For clients; a server that calls it accepts no CONNECT any more.
    pub fn set_version(&mut self, version: Version) {
        self.version = Some(version);
    }

    /// In bytes; for packets whose fixed header was not read yet.
    pub fn set_max_packet_size(&mut self, bytes: u32) {
        self.max_packet_size = bytes;
    }

    /// Takes the next packet from the front of `buf`; `None` when it is not complete yet. After an error the connection has
    /// to be closed: `buf` may be anywhere.
    ///
    /// # Errors
    /// When the bytes are no packet that this peer may send at this point.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        let Some(&first) = buf.first() else { return Ok(None) };
        if let (0x30..0x40, Some(version)) = (first, self.version) {
            // Before all others: both ends may send it at any time, and with any flags that fit together.
            return match self.frame(PacketType::Publish, buf)? {
                Some((header, size)) => decode::publish(first, header, size, buf, version, self.role),
                None => Ok(None),
            };
        }
        let packet = PacketType::of(first).ok_or(DecodeError::ForbiddenPacketType)?;
        self.check_first_byte(packet, first & 0x0f)?;
        let Some((header, size)) = self.frame(packet, buf)? else { return Ok(None) };
        use PacketType::{PubAck, PubComp, PubRec, PubRel};
        // Each of these builds the result in its place: a packet is too large to be moved for nothing.
        match (packet, self.version) {
            (PubAck | PubRec | PubRel | PubComp, Some(version)) if version < Version::V5 || size - header < 4 => {
                decode::short_ack(packet, header, size, buf, version, self.role)
            }
            (_, version) => {
                let frame = Frame(Bytes::copy_from_slice(&buf[header..size]));
                buf.advance(size);
                match version {
                    Some(version) => decode::framed(packet, &frame, version, self.role),
                    None => decode::connect(&frame, &mut self.version),
                }
            }
        }
    }

    /// How long the fixed header and the whole packet at the front of `buf` are, in bytes; `None` when it is not complete yet.
    #[inline(always)] // Called, it would hand its result over in memory.
    fn frame(&self, packet: PacketType, buf: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
        let (remaining, header) = match varint::read(&buf[1..]) {
            Varint::Value(value, length) => (value, 1 + length),
            Varint::Incomplete => return Ok(None),
            Varint::Invalid => {
                return Err(DecodeError::Invalid {
                    packet,
                    field: "remaining length",
                    flaw: Flaw::VariableByteInteger,
                });
            }
        };
        let size = remaining + header as u32;
        if size > self.max_packet_size {
            return Err(DecodeError::PacketTooLarge { packet, size, max: self.max_packet_size });
        }
        let size = size as usize;
        Ok((buf.len() >= size).then_some((header, size)))
    }

    /// What the first byte alone can tell: whether this peer may send such a packet now, and whether its flags are as they
    /// must be [MQTT-2.1.3-1].
    #[inline]
    fn check_first_byte(&self, packet: PacketType, flags: u8) -> Result<(), DecodeError> {
        use PacketType::*;
        let expected = match (self.role, self.version) {
            (Role::Server, None) => packet == Connect,
            (Role::Client, None) => false,
            (role, Some(version)) => match packet {
                Publish | PubAck | PubRec | PubRel | PubComp => true,
                Auth => version == Version::V5,
                Disconnect => role == Role::Server || version == Version::V5,
                Subscribe | Unsubscribe | PingReq => role == Role::Server,
                ConnAck | SubAck | UnsubAck | PingResp => role == Role::Client,
                Connect => false,
            },
        };
        if !expected {
            return Err(DecodeError::Invalid { packet, field: "the packet", flaw: Flaw::Unexpected });
        }
        let good = match packet {
            Publish => true,
            // 3.1 has the flags of PUBLISH here: QoS 1, and DUP when it is sent again (3.1 §3.6, §3.8, §3.10).
            PubRel | Subscribe | Unsubscribe if self.version == Some(Version::V3) => flags & !0b1000 == 0b0010,
            PubRel | Subscribe | Unsubscribe => flags == 0b0010,
            _ => flags == 0,
        };
        if good {
            Ok(())
        } else {
            Err(DecodeError::Invalid { packet, field: "the fixed header", flaw: Flaw::ReservedBits(flags) })
        }
    }
}
