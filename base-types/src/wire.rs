//! How the stores write messages and subscriptions into keys, values and commands: by hand, compact, and numbered.
//!
//! Lengths and numbers are unsigned LEB128 varints. What is read from a [`Reader`] is a slice of its buffer.

use crate::{
    ClientId, InvalidQoS, Message, QoS, RetainHandling, SharedFilter, SharedMode, SubscriptionFilter,
    SubscriptionOptions, TopicFilter, TopicName, WallMs,
};
use bytes::{Buf, BufMut, Bytes};
use bytestring::ByteString;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// They end too early.
    #[error("the bytes end too early")]
    Truncated,
    /// A number has more than 64 bits.
    #[error("a number has more than 64 bits")]
    Overlong,
    /// Written in a format that this build does not know.
    #[error("format {0} is not known")]
    UnknownFormat(u8),
    /// A tag, flag or number that has no meaning here.
    #[error("{value} makes no sense as {what}")]
    Invalid {
        /// What was read.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// A text that is not UTF-8, or not a topic, filter or id.
    #[error("a text is not a {0}")]
    Text(&'static str),
    /// Bytes are left over.
    #[error("{0} bytes are left over")]
    Trailing(usize),
}

impl From<InvalidQoS> for WireError {
    fn from(qos: InvalidQoS) -> Self {
        Self::Invalid { what: "a QoS", value: u64::from(qos.0) }
    }
}

/// Appends a number: one byte up to 127, ten at most.
pub fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends bytes with their length in front.
pub fn put_prefixed(out: &mut impl BufMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Reads from the front of a buffer, without copying.
#[derive(Clone, Debug)]
pub struct Reader(Bytes);

impl Reader {
    /// Reads `bytes` from the start.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Whether all has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    ///
    /// # Errors
    /// At the end.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        let byte = *self.0.first().ok_or(WireError::Truncated)?;
        self.0.advance(1);
        Ok(byte)
    }

    /// Eight bytes, big-endian.
    ///
    /// # Errors
    /// At the end.
    pub fn u64(&mut self) -> Result<u64, WireError> {
        self.0.try_get_u64().map_err(|_| WireError::Truncated)
    }

    /// A number.
    ///
    /// # Errors
    /// At the end, or with more than 64 bits.
    pub fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for (i, &byte) in self.0.iter().take(10).enumerate() {
            if i == 9 && byte > 1 {
                return Err(WireError::Overlong);
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.0.advance(i + 1);
                return Ok(value);
            }
        }
        Err(if self.0.len() >= 10 { WireError::Overlong } else { WireError::Truncated })
    }

    /// So many bytes.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn bytes(&mut self, len: usize) -> Result<Bytes, WireError> {
        if len > self.0.len() {
            return Err(WireError::Truncated);
        }
        Ok(self.0.split_to(len))
    }

    /// Bytes with their length in front.
    ///
    /// # Errors
    /// At the end.
    pub fn prefixed(&mut self) -> Result<Bytes, WireError> {
        let len = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
        self.bytes(len)
    }

    /// Text with its length in front; `what` is named when it is not UTF-8.
    ///
    /// # Errors
    /// At the end, or when it is no UTF-8.
    pub fn text(&mut self, what: &'static str) -> Result<ByteString, WireError> {
        ByteString::try_from(self.prefixed()?).map_err(|_| WireError::Text(what))
    }

    /// All that is left.
    #[must_use]
    pub fn rest(self) -> Bytes {
        self.0
    }

    /// The end.
    ///
    /// # Errors
    /// When something is left.
    pub fn finish(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.0.len())) }
    }
}

const MESSAGE_FORMAT: u8 = 1;
const QOS_BITS: u8 = 0b0011;
const RETAIN: u8 = 0b0100;
const EXPIRES: u8 = 0b1000;
const PUBLISHER: u8 = 0b1_0000;

impl Message {
    /// Appends the message, its publisher included. The payload comes last and has no length: whoever embeds a message
    /// puts a length in front.
    ///
    /// Layout: `format(1) flags(1) topic properties [expires_at] [publisher] payload…`, texts length-prefixed.
    pub fn encode_to(&self, out: &mut impl BufMut) {
        let mut flags = u8::from(self.qos);
        for (flag, set) in
            [(RETAIN, self.retain), (EXPIRES, self.expires_at.is_some()), (PUBLISHER, self.publisher.is_some())]
        {
            flags |= if set { flag } else { 0 };
        }
        out.put_u8(MESSAGE_FORMAT);
        out.put_u8(flags);
        put_prefixed(out, self.topic.as_str().as_bytes());
        put_prefixed(out, &self.properties);
        if let Some(at) = self.expires_at {
            put_varint(out, at.0);
        }
        if let Some(publisher) = &self.publisher {
            put_prefixed(out, publisher.as_str().as_bytes());
        }
        out.put_slice(&self.payload);
    }

    /// The most bytes that [`Message::encode_to`] appends; exact within a few bytes. For reserving.
    #[must_use]
    pub fn encoded_len_max(&self) -> usize {
        self.cost() + self.publisher.as_ref().map_or(0, |p| p.as_str().len()) + 2 + 3 * 5 + 10
    }

    /// Reads a message back. Topic, payload, properties and publisher are slices of `bytes`.
    ///
    /// # Errors
    /// When the bytes are not a message.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            MESSAGE_FORMAT => {}
            other => return Err(WireError::UnknownFormat(other)),
        }
        let flags = r.u8()?;
        if flags & !(QOS_BITS | RETAIN | EXPIRES | PUBLISHER) != 0 {
            return Err(WireError::Invalid { what: "the flags of a message", value: u64::from(flags) });
        }
        let topic = TopicName::new(r.text("topic name")?).map_err(|_| WireError::Text("topic name"))?;
        let properties = r.prefixed()?;
        let expires_at = if flags & EXPIRES == 0 { None } else { Some(WallMs(r.varint()?)) };
        let publisher = if flags & PUBLISHER == 0 {
            None
        } else {
            Some(ClientId::new(r.text("client id")?).map_err(|_| WireError::Text("client id"))?)
        };
        Ok(Self {
            topic,
            payload: r.rest(),
            qos: QoS::try_from(flags & QOS_BITS)?,
            retain: flags & RETAIN != 0,
            properties,
            expires_at,
            publisher,
        })
    }
}

const NO_LOCAL: u8 = 0b0_0100;
const AS_PUBLISHED: u8 = 0b0_1000;
const HANDLING_SHIFT: u8 = 4;
const IDENTIFIER: u8 = 0b100_0000;

impl SubscriptionOptions {
    /// Appends the options: one byte, and the subscription identifier if there is one.
    pub fn encode_to(&self, out: &mut impl BufMut) {
        let mut flags = u8::from(self.qos) | (self.retain_handling as u8) << HANDLING_SHIFT;
        for (flag, set) in [
            (NO_LOCAL, self.no_local),
            (AS_PUBLISHED, self.retain_as_published),
            (IDENTIFIER, self.identifier.is_some()),
        ] {
            flags |= if set { flag } else { 0 };
        }
        out.put_u8(flags);
        if let Some(identifier) = self.identifier {
            put_varint(out, u64::from(identifier));
        }
    }

    /// Reads options back.
    ///
    /// # Errors
    /// When the bytes are no options.
    pub fn decode(r: &mut Reader) -> Result<Self, WireError> {
        let flags = r.u8()?;
        let invalid = WireError::Invalid { what: "subscription options", value: u64::from(flags) };
        if flags & 0x80 != 0 {
            return Err(invalid);
        }
        Ok(Self {
            qos: QoS::try_from(flags & QOS_BITS)?,
            no_local: flags & NO_LOCAL != 0,
            retain_as_published: flags & AS_PUBLISHED != 0,
            retain_handling: match flags >> HANDLING_SHIFT & 0b11 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DontSend,
                _ => return Err(invalid),
            },
            identifier: if flags & IDENTIFIER == 0 {
                None
            } else {
                let value = r.varint()?;
                Some(
                    u32::try_from(value)
                        .map_err(|_| WireError::Invalid { what: "a subscription identifier", value })?,
                )
            },
        })
    }
}

impl SubscriptionFilter {
    /// Appends the filter: `0 filter`, or `1` (`$share`) or `2` (`$oshare`) `group filter`, texts length-prefixed. No encoding of a
    /// filter is the beginning of another's, so that it can stand inside a key.
    pub fn encode_to(&self, out: &mut impl BufMut) {
        match self {
            Self::Normal(_) => out.put_u8(0),
            Self::Shared(shared) => {
                out.put_u8(match shared.mode {
                    SharedMode::Any => 1,
                    SharedMode::Ordered => 2,
                });
                put_prefixed(out, shared.group.as_bytes());
            }
        }
        put_prefixed(out, self.topic_filter().as_str().as_bytes());
    }

    /// Reads a filter back; its texts are slices of the reader's buffer.
    ///
    /// # Errors
    /// When the bytes are no filter.
    pub fn decode(r: &mut Reader) -> Result<Self, WireError> {
        fn filter(r: &mut Reader) -> Result<TopicFilter, WireError> {
            TopicFilter::new(r.text("topic filter")?).map_err(|_| WireError::Text("topic filter"))
        }
        let mode = match r.u8()? {
            0 => return filter(r).map(Self::Normal),
            1 => SharedMode::Any,
            2 => SharedMode::Ordered,
            other => return Err(WireError::Invalid { what: "the kind of a filter", value: u64::from(other) }),
        };
        Ok(Self::Shared(SharedFilter { mode, group: r.text("share name")?, filter: filter(r)? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = Message> {
        (
            ("[a-zé/$]{1,300}", prop::collection::vec(any::<u8>(), 0..300), 0u8..3, any::<bool>()),
            (
                prop::collection::vec(any::<u8>(), 0..200),
                prop::option::of(any::<u64>()),
                prop::option::of("[a-z]{1,200}"),
            ),
        )
            .prop_map(|((topic, payload, qos, retain), (properties, expires_at, publisher))| Message {
                topic: TopicName::new(topic).unwrap(),
                payload: payload.into(),
                qos: QoS::try_from(qos).unwrap(),
                retain,
                properties: properties.into(),
                expires_at: expires_at.map(WallMs),
                publisher: publisher.map(|p| ClientId::new(p).unwrap()),
            })
    }

    fn options() -> impl Strategy<Value = SubscriptionOptions> {
        (0u8..3, any::<bool>(), any::<bool>(), 0u8..3, prop::option::of(1u32..=268_435_455)).prop_map(
            |(qos, no_local, retain_as_published, handling, identifier)| SubscriptionOptions {
                qos: QoS::try_from(qos).unwrap(),
                no_local,
                retain_as_published,
                retain_handling: [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DontSend]
                    [usize::from(handling)],
                identifier,
            },
        )
    }

    fn filter() -> impl Strategy<Value = SubscriptionFilter> {
        "(\\$(o)?share/[a-z]{1,3}/)?([a-z]{0,3}/|\\+/){0,4}([a-z]{1,3}|#|\\+)"
            .prop_map(|text| SubscriptionFilter::parse(&ByteString::from(text)).unwrap())
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        let mut out = Vec::new();
        write(&mut out);
        out.into()
    }

    proptest! {
        #[test]
        fn a_message_survives_the_wire(message in message()) {
            let bytes = written(|out| message.encode_to(out));
            prop_assert!(bytes.len() <= message.encoded_len_max());
            prop_assert_eq!(Message::decode(bytes), Ok(message));
        }

        #[test]
        fn a_cut_message_is_refused_or_has_a_shorter_payload(message in message(), cut in 0usize..100) {
            let bytes = written(|out| message.encode_to(out));
            let cut = bytes.len().saturating_sub(cut + 1);
            if let Ok(other) = Message::decode(bytes.slice(..cut)) {
                prop_assert!(other.payload.len() < message.payload.len());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = Bytes::from(bytes);
            let _ = Message::decode(bytes.clone());
            let _ = SubscriptionOptions::decode(&mut Reader::new(bytes.clone()));
            let _ = SubscriptionFilter::decode(&mut Reader::new(bytes));
        }

        #[test]
        fn numbers_survive_the_wire(value in any::<u64>(), shift in 0u32..64) {
            let value = value >> shift;
            let mut r = Reader::new(written(|out| put_varint(out, value)));
            prop_assert_eq!(r.varint(), Ok(value));
            prop_assert_eq!(r.finish(), Ok(()));
        }

        #[test]
        fn options_and_filters_survive_the_wire(options in options(), filter in filter()) {
            let mut r = Reader::new(written(|out| {
                options.encode_to(out);
                filter.encode_to(out);
            }));
            prop_assert_eq!(SubscriptionOptions::decode(&mut r), Ok(options));
            prop_assert_eq!(SubscriptionFilter::decode(&mut r), Ok(filter));
            prop_assert_eq!(r.finish(), Ok(()));
        }

        #[test]
        fn no_filter_is_the_beginning_of_another(a in filter(), b in filter()) {
            let (x, y) = (written(|out| a.encode_to(out)), written(|out| b.encode_to(out)));
            prop_assert_eq!(x.starts_with(&y), a == b);
        }
    }

    #[test]
    fn a_decoded_message_is_a_slice_of_its_bytes() {
        let message = Message {
            topic: TopicName::new("a/b").unwrap(),
            payload: Bytes::from_static(b"payload"),
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: Bytes::new(),
            expires_at: None,
            publisher: None,
        };
        let bytes = written(|out| message.encode_to(out));
        assert_eq!(bytes.len(), 2 + 4 + 1 + 7);
        let decoded = Message::decode(bytes.clone()).unwrap();
        assert!(bytes.as_ptr_range().contains(&decoded.payload.as_ptr()));
        assert!(bytes.as_ptr_range().contains(&decoded.topic.as_str().as_ptr()));
    }

    #[test]
    fn an_unknown_format_is_named() {
        assert_eq!(Message::decode(Bytes::from_static(&[9, 0])), Err(WireError::UnknownFormat(9)));
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_refused() {
        let mut bytes = vec![0xff; 9];
        bytes.push(2);
        assert_eq!(Reader::new(bytes.into()).varint(), Err(WireError::Overlong));
    }
}
