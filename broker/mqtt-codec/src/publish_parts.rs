use crate::property::id;
use crate::{EncodeError, PacketType, Publish, Version, varint};
use base_types::{PacketId, QoS};
use bytes::{BufMut, Bytes, BytesMut};
use std::num::NonZeroU16;

/// A PUBLISH to write, in borrowed parts: for the way out, where no [`Publish`] needs to be made.
///
/// What 3.1 and 3.1.1 lack is left out there: expiry, alias, identifiers, forwarded properties.
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
    /// How many bytes [`PublishParts::encode`] would append: what a Maximum Packet Size is compared with.
    ///
    /// # Errors
    /// When it cannot be expressed.
    pub fn encoded_len(&self, version: Version) -> Result<usize, EncodeError> {
        let lengths = self.lengths(version)?;
        Ok(lengths.fixed_header() + lengths.remaining)
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// When it cannot be expressed; `out` is as it was then.
    #[inline]
    pub fn encode(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        let lengths = self.lengths(version)?;
        out.reserve(lengths.fixed_header() + lengths.remaining);
        self.put_head(lengths, out);
        out.put_slice(self.payload);
        Ok(())
    }

    /// Appends all but the payload to `out`, for a payload that is written from where it is.
    ///
    /// # Errors
    /// When it cannot be expressed; `out` is as it was then.
    #[inline]
    pub fn encode_head(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        let lengths = self.lengths(version)?;
        out.reserve(lengths.fixed_header() + lengths.remaining - self.payload.len());
        self.put_head(lengths, out);
        Ok(())
    }

    /// Where the two bytes of the packet identifier are, from the first byte of the packet. `None` for QoS 0.
    ///
    /// # Errors
    /// When it cannot be expressed.
    pub fn packet_id_offset(&self, version: Version) -> Result<Option<usize>, EncodeError> {
        let lengths = self.lengths(version)?;
        Ok((self.qos > QoS::AtMostOnce).then(|| lengths.fixed_header() + 2 + self.topic.len()))
    }

    #[inline]
    fn lengths(&self, version: Version) -> Result<Lengths, EncodeError> {
        let packet = PacketType::Publish;
        if self.topic.len() > usize::from(u16::MAX) {
            return Err(EncodeError::FieldTooLong { packet, length: self.topic.len() });
        }
        let mut remaining = 2 + self.topic.len() + self.payload.len();
        if self.qos > QoS::AtMostOnce {
            remaining += 2;
        }
        let mut properties = None;
        if version == Version::V5 {
            let mut length = self.forwarded.len();
            if self.message_expiry_interval.is_some() {
                length += 5;
            }
            if self.topic_alias.is_some() {
                length += 3;
            }
            for &identifier in self.subscription_identifiers {
                if identifier > varint::MAX {
                    return Err(EncodeError::TooLarge { packet, value: identifier as usize });
                }
                length += 1 + varint::len(identifier as usize);
            }
            remaining += varint::len(length) + length;
            properties = Some(length);
        }
        if remaining > varint::MAX as usize {
            return Err(EncodeError::TooLarge { packet, value: remaining });
        }
        Ok(Lengths { remaining, properties })
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "`lengths` has refused what is longer")]
    fn put_head(&self, lengths: Lengths, out: &mut BytesMut) {
        let with_id = self.qos > QoS::AtMostOnce;
        let (remaining, n) = varint::bytes(lengths.remaining);
        out.put_u8(0x30 | u8::from(self.dup && with_id) << 3 | (self.qos as u8) << 1 | u8::from(self.retain));
        out.put_slice(&remaining[..n]);
        out.put_u16(self.topic.len() as u16);
        out.put_slice(self.topic.as_bytes());
        if with_id {
            out.put_u16(self.packet_id.map_or(0, PacketId::get));
        }
        match lengths.properties {
            None => {}
            Some(0) => out.put_u8(0),
            Some(length) => self.put_properties(length, out),
        }
    }

    fn put_properties(&self, length: usize, out: &mut BytesMut) {
        let put_varint = |out: &mut BytesMut, value| {
            let (bytes, n) = varint::bytes(value);
            out.put_slice(&bytes[..n]);
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
    ///
    /// # Errors
    /// When it cannot be expressed.
    pub fn whole(parts: &PublishParts<'_>, version: Version) -> Result<Self, EncodeError> {
        Self::new(parts, version, parts.payload)
    }

    /// All but the payload: for large payloads, which every receiver is written from the same place.
    ///
    /// # Errors
    /// When it cannot be expressed.
    pub fn head(parts: &PublishParts<'_>, version: Version) -> Result<Self, EncodeError> {
        Self::new(parts, version, &[])
    }

    fn new(parts: &PublishParts<'_>, version: Version, payload: &[u8]) -> Result<Self, EncodeError> {
        let parts = PublishParts { dup: false, packet_id: None, ..*parts };
        let packet_len = parts.encoded_len(version)?;
        let mut bytes = BytesMut::with_capacity(packet_len - parts.payload.len() + payload.len());
        parts.encode_head(version, &mut bytes)?;
        bytes.put_slice(payload);
        Ok(Self { bytes: bytes.freeze(), packet_id_offset: parts.packet_id_offset(version)?, packet_len })
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
