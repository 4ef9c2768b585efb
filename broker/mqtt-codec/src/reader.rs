use crate::property::{self, Properties};
use crate::varint::{self, Varint};
use crate::{DecodeError, Flaw, PacketType, ReasonCode, Role};
use base_types::{PacketId, TopicError, TopicName};
use bytes::Bytes;
use bytestring::ByteString;

/// Reads the parts of one packet from its body. Its errors name the packet and the field.
pub(crate) struct Reader<'a> {
    pub(crate) packet: PacketType,
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(packet: PacketType, body: &'a [u8]) -> Self {
        Self { packet, rest: body }
    }

    #[cold]
    pub(crate) fn error(&self, field: &'static str, flaw: Flaw) -> DecodeError {
        DecodeError::Invalid { packet: self.packet, field, flaw }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(length) else {
            return Err(self.error(field, Flaw::Truncated));
        };
        self.rest = rest;
        Ok(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk() else {
            return Err(self.error(field, Flaw::Truncated));
        };
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.error(field, Flaw::NotBoolean(other))),
        }
    }

    pub(crate) fn varint(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        match varint::read(self.rest) {
            Varint::Value(value, length) => {
                self.rest = &self.rest[length..];
                Ok(value)
            }
            Varint::Incomplete => Err(self.error(field, Flaw::Truncated)),
            Varint::Invalid => Err(self.error(field, Flaw::VariableByteInteger)),
        }
    }

    /// Binary data (5.0 §1.5.6).
    #[inline]
    pub(crate) fn binary(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.u16(field)?;
        self.take(usize::from(length), field)
    }

    /// A UTF-8 encoded string (5.0 §1.5.4).
    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.binary(field)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.error(field, Flaw::IllFormedUtf8))?;
        if bytes.contains(&0) { Err(self.error(field, Flaw::Nul)) } else { Ok(text) }
    }

    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        let id = self.u16("packet identifier")?;
        PacketId::new(id).ok_or_else(|| self.error("packet identifier", Flaw::Zero))
    }

    /// A reason code that this packet can carry when it was sent to `role`.
    pub(crate) fn reason_code(&mut self, role: Role) -> Result<ReasonCode, DecodeError> {
        let byte = self.u8("reason code")?;
        ReasonCode::try_from(byte)
            .ok()
            .filter(|code| code.is_legal_in(self.packet, role))
            .ok_or_else(|| self.error("reason code", Flaw::ReasonCode(byte)))
    }

    /// A property length and the properties behind it (5.0 §2.2.2), of which those in `allowed` may appear.
    pub(crate) fn properties(&mut self, allowed: property::Set) -> Result<Properties<'a>, DecodeError> {
        let length = self.varint("property length")? as usize;
        let block = self.take(length, "the property block")?;
        if length > property::MAX_PROPERTY_BYTES {
            return Err(self.error("the property block", Flaw::TooManyPropertyBytes));
        }
        Ok(Properties::new(Reader::new(self.packet, block), allowed))
    }

    /// The packet must end here.
    #[inline]
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error("the packet", Flaw::TrailingBytes(self.rest.len()))) }
    }
}

/// A topic name from bytes that were cut out of a packet.
#[inline(always)] // Called, it would hand its result over in memory, which costs more than what it does.
pub(crate) fn topic_name(packet: PacketType, field: &'static str, bytes: Bytes) -> Result<TopicName, DecodeError> {
    let flaw = match ByteString::try_from(bytes) {
        Err(_) => Flaw::IllFormedUtf8,
        Ok(text) => match TopicName::new(text) {
            Ok(topic) => return Ok(topic),
            Err(TopicError::Nul) => Flaw::Nul,
            Err(TopicError::Empty) => Flaw::EmptyTopic,
            Err(_) => Flaw::Wildcard,
        },
    };
    Err(DecodeError::Invalid { packet, field, flaw })
}

/// A packet body that is shared by the strings that are cut from it.
pub(crate) struct Frame(pub(crate) Bytes);

impl Frame {
    /// A part of the body, shared.
    pub(crate) fn bytes(&self, part: &[u8]) -> Bytes {
        if part.is_empty() { Bytes::new() } else { self.0.slice_ref(part) }
    }

    /// A text in the body, shared.
    pub(crate) fn text(&self, part: &str) -> ByteString {
        // Well-formed already; without unsafe code it is looked at once more, which nothing hot pays for.
        ByteString::try_from(self.bytes(part.as_bytes())).unwrap_or_else(|_| ByteString::from(part))
    }
}

/// Whether a text has characters that a sender SHOULD NOT send and a receiver may refuse: control characters and
/// non-characters (MQTT 5.0 §1.5.4, 3.1.1 §1.5.3). The codec lets them pass; a server may have another policy.
#[must_use]
pub fn has_discouraged_characters(text: &str) -> bool {
    text.chars().any(|c| c.is_control() || matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_non_characters_are_discouraged_and_others_are_not() {
        for bad in ["\u{1}", "a\n", "\u{7f}", "\u{9f}", "\u{fdd0}", "\u{fffe}", "\u{ffff}", "\u{1fffe}", "\u{10ffff}"] {
            assert!(has_discouraged_characters(bad), "{bad:?}");
        }
        for good in ["", "a/b", "\u{a0}", "\u{feff}", "\u{fffd}", "😀"] {
            assert!(!has_discouraged_characters(good), "{good:?}");
        }
    }
}
