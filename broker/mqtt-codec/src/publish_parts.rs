use crate::property::id;
use crate::{EncodeError, PacketType, Publish, Version, varint};
use base_types::{PacketId, QoS};
use bytes::{BufMut, Bytes, BytesMut};
use std::num::NonZeroU16;

/// The longest packet that there can be, in bytes: a fixed header of five and a Remaining Length of 268,435,455 (5.0 §2.1.4).
pub const MAX_PACKET_SIZE: usize = 5 + varint::MAX as usize;

/// A PUBLISH to write, in borrowed parts: for the way out, where no [`Publish`] needs to be made.
///
/// What 3.1 and 3.1.1 lack is left out there: expiry, alias, identifiers, forwarded properties.
///
/// The caller keeps to the limits of the protocol, which every [`base_types::Message`] that was decoded does: a topic of
/// at most 65,535 bytes, identifiers up to 268,435,455, and no packet longer than [`MAX_PACKET_SIZE`]. Beyond them what is
/// written is no packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublishParts<'a> {
    /// Empty when the alias stands for it.
    pub topic: &'a str,
    /// The application payload.
    pub payload: &'a [u8],
    /// The QoS.
    pub qos: QoS,
    /// The RETAIN flag.
    pub retain: bool,
    /// Might be a re-delivery. Ignored for QoS 0.
    pub dup: bool,
    /// Needed for QoS 1 and 2, written as 0 when it is missing; ignored for QoS 0.
    pub packet_id: Option<PacketId>,
    /// Seconds.
    pub message_expiry_interval: Option<u32>,
    /// The topic alias.
    pub topic_alias: Option<NonZeroU16>,
    /// From 1 to 268,435,455 each.
    pub subscription_identifiers: &'a [u32],
    /// As in [`Publish::forwarded`].
    pub forwarded: &'a [u8],
}

impl<'a> From<&'a Publish> for PublishParts<'a> {
    fn from(publish: &'a Publish) -> Self {
        Self {
            topic: publish.topic.as_ref().map_or("", |topic| topic.as_str()),
            payload: &publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            packet_id: publish.packet_id,
            message_expiry_interval: publish.message_expiry_interval,
            topic_alias: publish.topic_alias,
            subscription_identifiers: &publish.subscription_identifiers,
            forwarded: &publish.forwarded,
        }
    }
}

impl PublishParts<'_> {
    /// How many bytes [`PublishParts::encode`] appends: what a Maximum Packet Size is compared with.
    #[must_use]
    pub fn encoded_len(&self, version: Version) -> usize {
        let lengths = self.lengths(version);
        lengths.fixed_header() + lengths.remaining
    }

    /// Appends the packet to `out`.
    #[inline(always)] // A call costs a quarter of what it does.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        // Once for each form: what follows need not ask again which one it is.
        if version < Version::V5 { self.put(Version::V4, out) } else { self.put(Version::V5, out) }
    }

    #[inline(always)] // As `encode`.
    fn put(&self, version: Version, out: &mut BytesMut) {
        let lengths = self.lengths(version);
        out.reserve(lengths.fixed_header() + lengths.remaining);
        self.put_head(lengths, out);
        out.put_slice(self.payload);
    }

    /// Appends all but the payload to `out`, for a payload that is written from where it is.
    #[inline]
    pub fn encode_head(&self, version: Version, out: &mut BytesMut) {
        let lengths = self.lengths(version);
        out.reserve(lengths.fixed_header() + lengths.remaining - self.payload.len());
        self.put_head(lengths, out);
    }

    /// Where the two bytes of the packet identifier are, from the first byte of the packet. `None` for QoS 0.
    #[must_use]
    pub fn packet_id_offset(&self, version: Version) -> Option<usize> {
        (self.qos > QoS::AtMostOnce).then(|| self.lengths(version).fixed_header() + 2 + self.topic.len())
    }

    /// Whether it is within the limits.
    pub(crate) fn check(&self, version: Version) -> Result<(), EncodeError> {
        let packet = PacketType::Publish;
        if self.topic.len() > usize::from(u16::MAX) {
            return Err(EncodeError::FieldTooLong { packet, length: self.topic.len() });
        }
        let largest = self.subscription_identifiers.iter().copied().max().unwrap_or(0) as usize;
        match self.lengths(version).remaining.max(largest) {
            value if value > varint::MAX as usize => Err(EncodeError::TooLarge { packet, value }),
            _ => Ok(()),
        }
    }

    #[inline(always)] // As `encode`.
    fn lengths(&self, version: Version) -> Lengths {
        let packet_id = if self.qos > QoS::AtMostOnce { 2 } else { 0 };
        let remaining = 2 + self.topic.len() + packet_id + self.payload.len();
        if version < Version::V5 {
            return Lengths { remaining, properties: None };
        }
        let bare = self.message_expiry_interval.is_none() && self.topic_alias.is_none();
        let properties = if bare && self.subscription_identifiers.is_empty() { 0 } else { self.own_properties_len() }
            + self.forwarded.len();
        Lengths { remaining: remaining + varint::len(properties) + properties, properties: Some(properties) }
    }

    /// Of the properties that are this PUBLISH's own, in bytes.
    #[inline(never)]
    fn own_properties_len(&self) -> usize {
        let expiry = if self.message_expiry_interval.is_some() { 5 } else { 0 };
        let alias = if self.topic_alias.is_some() { 3 } else { 0 };
        let identifiers: usize = self.subscription_identifiers.iter().map(|id| 1 + varint::len(*id as usize)).sum();
        expiry + alias + identifiers
    }

    #[inline(always)] // As `encode`.
    #[allow(clippy::cast_possible_truncation, reason = "a topic has at most 65,535 bytes")]
    fn put_head(&self, lengths: Lengths, out: &mut BytesMut) {
        let with_id = self.qos > QoS::AtMostOnce;
        let first = 0x30 | u8::from(self.dup && with_id) << 3 | (self.qos as u8) << 1 | u8::from(self.retain);
        let [high, low] = (self.topic.len() as u16).to_be_bytes();
        // Copies of a fixed length need no call: the two usual lengths of the front have them.
        match lengths.remaining {
            remaining @ ..0x80 => out.extend_from_slice(&[first, remaining as u8, high, low]),
            remaining @ ..0x4000 => {
                out.extend_from_slice(&[first, remaining as u8 | 0x80, (remaining >> 7) as u8, high, low]);
            }
            remaining => {
                let (length, n) = varint::bytes(remaining);
                out.put_u8(first);
                out.put_slice(&length[..n]);
                out.put_slice(&[high, low]);
            }
        }
        out.extend_from_slice(self.topic.as_bytes());
        let id = self.packet_id.map_or(0, PacketId::get).to_be_bytes();
        match lengths.properties {
            Some(0) if with_id => out.extend_from_slice(&[id[0], id[1], 0]),
            Some(0) => out.put_u8(0),
            properties => {
                if with_id {
                    out.extend_from_slice(&id);
                }
                if let Some(length) = properties {
                    self.put_properties(length, out);
                }
            }
        }
    }

    #[inline(never)]
    fn put_properties(&self, length: usize, out: &mut BytesMut) {
        let put_varint = |out: &mut BytesMut, value| match value {
            0..0x80 => out.put_u8(value as u8),
            _ => {
                let (bytes, n) = varint::bytes(value);
                out.put_slice(&bytes[..n]);
            }
        };
        put_varint(out, length);
        if let Some(secs) = self.message_expiry_interval {
            out.put_u8(id::MESSAGE_EXPIRY_INTERVAL);
            out.put_u32(secs);
        }
        if let Some(alias) = self.topic_alias {
            out.put_u8(id::TOPIC_ALIAS);
            out.put_u16(alias.get());
        }
        for &identifier in self.subscription_identifiers {
            out.put_u8(id::SUBSCRIPTION_IDENTIFIER);
            put_varint(out, identifier as usize);
        }
        out.put_slice(self.forwarded);
    }
}

#[derive(Clone, Copy)]
struct Lengths {
    remaining: usize,
    /// `None` before 5.0.
    properties: Option<usize>,
}

impl Lengths {
    fn fixed_header(self) -> usize {
        1 + varint::len(self.remaining)
    }
}

/// A PUBLISH encoded once for many receivers, who differ in nothing but the packet identifier and DUP.
#[derive(Clone, Debug)]
pub struct PublishTemplate {
    bytes: Bytes,
    packet_id_offset: Option<usize>,
    packet_len: usize,
}

impl PublishTemplate {
    /// The whole packet: for small payloads. Its packet identifier and DUP are ignored.
    #[must_use]
    pub fn whole(parts: &PublishParts<'_>, version: Version) -> Self {
        Self::new(parts, version, parts.payload)
    }

    /// All but the payload: for large payloads, which every receiver is written from the same place.
    #[must_use]
    pub fn head(parts: &PublishParts<'_>, version: Version) -> Self {
        Self::new(parts, version, &[])
    }

    fn new(parts: &PublishParts<'_>, version: Version, payload: &[u8]) -> Self {
        let parts = PublishParts { dup: false, packet_id: None, ..*parts };
        let packet_len = parts.encoded_len(version);
        let mut bytes = BytesMut::with_capacity(packet_len - parts.payload.len() + payload.len());
        parts.encode_head(version, &mut bytes);
        bytes.put_slice(payload);
        Self { bytes: bytes.freeze(), packet_id_offset: parts.packet_id_offset(version), packet_len }
    }

    /// The length of the whole packet, payload included, in bytes: what a Maximum Packet Size is compared with.
    #[must_use]
    pub fn packet_len(&self) -> usize {
        self.packet_len
    }

    /// The bytes, with packet identifier 0: for QoS 0 they can be sent as they are.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where the two bytes of the packet identifier are in [`PublishTemplate::bytes`]. `None` for QoS 0.
    #[must_use]
    pub fn packet_id_offset(&self) -> Option<usize> {
        self.packet_id_offset
    }

    /// Appends it for one receiver. Both arguments are ignored for QoS 0.
    #[inline]
    pub fn write(&self, packet_id: Option<PacketId>, dup: bool, out: &mut BytesMut) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        if let Some(at) = self.packet_id_offset {
            let id = packet_id.map_or(0, PacketId::get).to_be_bytes();
            out[start] |= u8::from(dup) << 3;
            out[start + at..start + at + 2].copy_from_slice(&id);
        }
    }
}
