use crate::reader::Reader;
use crate::{DecodeError, Flaw};
use base_types::QoS;
use bytestring::ByteString;
use std::num::{NonZeroU16, NonZeroU32};

/// A name and a value that belong to the application (MQTT 5.0 §2.2.2.2, property 38). Order and repeats are kept.
pub type UserProperty = (ByteString, ByteString);

/// The most bytes that the properties of one packet (or of one will) may have; more is answered with Quota exceeded.
pub const MAX_PROPERTY_BYTES: usize = 65_536;

/// The most properties that one packet (or one will) may have; more is answered with Quota exceeded.
pub const MAX_PROPERTIES: usize = 256;

/// Property identifiers (5.0 §2.2.2.2).
pub(crate) mod id {
    pub(crate) const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
    pub(crate) const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(crate) const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(crate) const RESPONSE_INFORMATION: u8 = 0x1a;
    pub(crate) const SERVER_REFERENCE: u8 = 0x1c;
    pub(crate) const REASON_STRING: u8 = 0x1f;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const MAXIMUM_QOS: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER_PROPERTY: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(crate) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub(crate) const SUBSCRIPTION_IDENTIFIERS_AVAILABLE: u8 = 0x29;
    pub(crate) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2a;
}

/// One property, borrowed from the packet; its value is legal by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Property<'a> {
    PayloadFormatIndicator(bool),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(NonZeroU32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(NonZeroU16),
    TopicAliasMaximum(u16),
    TopicAlias(NonZeroU16),
    MaximumQos(QoS),
    RetainAvailable(bool),
    User(&'a str, &'a str),
    MaximumPacketSize(NonZeroU32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifiersAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

/// A set of property identifiers, one bit each; all are below 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Set(u64);

impl Set {
    pub(crate) const EMPTY: Self = Self(0);

    pub(crate) const fn of(ids: &[u8]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < ids.len() {
            bits |= 1 << ids[i];
            i += 1;
        }
        Self(bits)
    }

    pub(crate) const fn contains(self, id: u8) -> bool {
        id < 64 && self.0 >> id & 1 == 1
    }

    pub(crate) fn insert(&mut self, id: u8) {
        self.0 |= 1 << (id & 63);
    }
}

/// Which properties a packet may have (5.0 table 2-4).
pub(crate) mod sets {
    use super::{Set, id};

    /// What a server forwards unaltered.
    pub(crate) const FORWARDED: Set = Set::of(&[
        id::PAYLOAD_FORMAT_INDICATOR,
        id::CONTENT_TYPE,
        id::RESPONSE_TOPIC,
        id::CORRELATION_DATA,
        id::USER_PROPERTY,
    ]);
    pub(crate) const CONNECT: Set = Set::of(&[
        id::SESSION_EXPIRY_INTERVAL,
        id::AUTHENTICATION_METHOD,
        id::AUTHENTICATION_DATA,
        id::REQUEST_PROBLEM_INFORMATION,
        id::REQUEST_RESPONSE_INFORMATION,
        id::RECEIVE_MAXIMUM,
        id::TOPIC_ALIAS_MAXIMUM,
        id::USER_PROPERTY,
        id::MAXIMUM_PACKET_SIZE,
    ]);
    pub(crate) const WILL: Set = Set::of(&[
        id::PAYLOAD_FORMAT_INDICATOR,
        id::MESSAGE_EXPIRY_INTERVAL,
        id::CONTENT_TYPE,
        id::RESPONSE_TOPIC,
        id::CORRELATION_DATA,
        id::WILL_DELAY_INTERVAL,
        id::USER_PROPERTY,
    ]);
    pub(crate) const CONNACK: Set = Set::of(&[
        id::SESSION_EXPIRY_INTERVAL,
        id::ASSIGNED_CLIENT_IDENTIFIER,
        id::SERVER_KEEP_ALIVE,
        id::AUTHENTICATION_METHOD,
        id::AUTHENTICATION_DATA,
        id::RESPONSE_INFORMATION,
        id::SERVER_REFERENCE,
        id::REASON_STRING,
        id::RECEIVE_MAXIMUM,
        id::TOPIC_ALIAS_MAXIMUM,
        id::MAXIMUM_QOS,
        id::RETAIN_AVAILABLE,
        id::USER_PROPERTY,
        id::MAXIMUM_PACKET_SIZE,
        id::WILDCARD_SUBSCRIPTION_AVAILABLE,
        id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
        id::SHARED_SUBSCRIPTION_AVAILABLE,
    ]);
    pub(crate) const PUBLISH: Set = Set::of(&[
        id::PAYLOAD_FORMAT_INDICATOR,
        id::MESSAGE_EXPIRY_INTERVAL,
        id::CONTENT_TYPE,
        id::RESPONSE_TOPIC,
        id::CORRELATION_DATA,
        id::SUBSCRIPTION_IDENTIFIER,
        id::TOPIC_ALIAS,
        id::USER_PROPERTY,
    ]);
    /// Acknowledgements of all kinds.
    pub(crate) const REASON: Set = Set::of(&[id::REASON_STRING, id::USER_PROPERTY]);
    pub(crate) const SUBSCRIBE: Set = Set::of(&[id::SUBSCRIPTION_IDENTIFIER, id::USER_PROPERTY]);
    pub(crate) const UNSUBSCRIBE: Set = Set::of(&[id::USER_PROPERTY]);
    pub(crate) const DISCONNECT: Set =
        Set::of(&[id::SESSION_EXPIRY_INTERVAL, id::SERVER_REFERENCE, id::REASON_STRING, id::USER_PROPERTY]);
    pub(crate) const AUTH: Set =
        Set::of(&[id::AUTHENTICATION_METHOD, id::AUTHENTICATION_DATA, id::REASON_STRING, id::USER_PROPERTY]);
}

/// The properties of one block, in their order.
pub(crate) struct Properties<'a> {
    pub(crate) reader: Reader<'a>,
    allowed: Set,
    seen: Set,
    count: usize,
}

impl<'a> Properties<'a> {
    pub(crate) fn new(reader: Reader<'a>, allowed: Set) -> Self {
        Self { reader, allowed, seen: Set::EMPTY, count: 0 }
    }

    /// The next property; `None` at the end of the block.
    pub(crate) fn next(&mut self) -> Result<Option<Property<'a>>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        self.count += 1;
        if self.count > MAX_PROPERTIES {
            return Err(self.reader.error("the property block", Flaw::TooManyProperties));
        }
        // A variable byte integer, but all that are known take one byte; a longer one is as unknown as a padded one.
        let id = self.reader.u8("property identifier")?;
        if !self.allowed.contains(id) {
            return Err(self.reader.error("the property block", Flaw::ForeignProperty(id)));
        }
        let again = self.seen.contains(id);
        self.seen.insert(id);
        let (name, property) = read_value(&mut self.reader, id)?;
        // One Subscription Identifier for each subscription that matched may stand in a PUBLISH, by 5.0 §3.3.2.3.8.
        let repeatable = id == id::USER_PROPERTY
            || (id == id::SUBSCRIPTION_IDENTIFIER && self.reader.packet == crate::PacketType::Publish);
        if again && !repeatable {
            return Err(self.reader.error(name, Flaw::Duplicate));
        }
        Ok(Some(property))
    }
}

fn read_value<'a>(r: &mut Reader<'a>, id: u8) -> Result<(&'static str, Property<'a>), DecodeError> {
    let nonzero_u16 =
        |r: &mut Reader<'a>, field, flaw| NonZeroU16::new(r.u16(field)?).ok_or_else(|| r.error(field, flaw));
    let nonzero_u32 = |r: &Reader<'a>, field, value| NonZeroU32::new(value).ok_or_else(|| r.error(field, Flaw::Zero));
    /// A value that is read as it is.
    macro_rules! plain {
        ($kind:ident, $read:ident, $name:literal) => {
            ($name, Property::$kind(r.$read($name)?))
        };
    }
    Ok(match id {
        id::PAYLOAD_FORMAT_INDICATOR => plain!(PayloadFormatIndicator, bool, "payload format indicator"),
        id::MESSAGE_EXPIRY_INTERVAL => plain!(MessageExpiryInterval, u32, "message expiry interval"),
        id::CONTENT_TYPE => plain!(ContentType, text, "content type"),
        id::RESPONSE_TOPIC => {
            let topic = r.text("response topic")?;
            if topic.bytes().any(|b| b == b'+' || b == b'#') {
                return Err(r.error("response topic", Flaw::ResponseTopicWildcard));
            }
            if topic.is_empty() {
                return Err(r.error("response topic", Flaw::Empty));
            }
            ("response topic", Property::ResponseTopic(topic))
        }
        id::CORRELATION_DATA => plain!(CorrelationData, binary, "correlation data"),
        id::SUBSCRIPTION_IDENTIFIER => {
            let value = r.varint("subscription identifier")?;
            let value = nonzero_u32(r, "subscription identifier", value)?;
            ("subscription identifier", Property::SubscriptionIdentifier(value))
        }
        id::SESSION_EXPIRY_INTERVAL => plain!(SessionExpiryInterval, u32, "session expiry interval"),
        id::ASSIGNED_CLIENT_IDENTIFIER => plain!(AssignedClientIdentifier, text, "assigned client identifier"),
        id::SERVER_KEEP_ALIVE => plain!(ServerKeepAlive, u16, "server keep alive"),
        id::AUTHENTICATION_METHOD => plain!(AuthenticationMethod, text, "authentication method"),
        id::AUTHENTICATION_DATA => plain!(AuthenticationData, binary, "authentication data"),
        id::REQUEST_PROBLEM_INFORMATION => plain!(RequestProblemInformation, bool, "request problem information"),
        id::WILL_DELAY_INTERVAL => plain!(WillDelayInterval, u32, "will delay interval"),
        id::REQUEST_RESPONSE_INFORMATION => plain!(RequestResponseInformation, bool, "request response information"),
        id::RESPONSE_INFORMATION => plain!(ResponseInformation, text, "response information"),
        id::SERVER_REFERENCE => plain!(ServerReference, text, "server reference"),
        id::REASON_STRING => plain!(ReasonString, text, "reason string"),
        id::RECEIVE_MAXIMUM => {
            ("receive maximum", Property::ReceiveMaximum(nonzero_u16(r, "receive maximum", Flaw::Zero)?))
        }
        id::TOPIC_ALIAS_MAXIMUM => plain!(TopicAliasMaximum, u16, "topic alias maximum"),
        id::TOPIC_ALIAS => ("topic alias", Property::TopicAlias(nonzero_u16(r, "topic alias", Flaw::AliasZero)?)),
        id::MAXIMUM_QOS => {
            let qos = if r.bool("maximum QoS")? { QoS::AtLeastOnce } else { QoS::AtMostOnce };
            ("maximum QoS", Property::MaximumQos(qos))
        }
        id::RETAIN_AVAILABLE => plain!(RetainAvailable, bool, "retain available"),
        id::USER_PROPERTY => {
            let name = r.text("user property name")?;
            ("user property", Property::User(name, r.text("user property value")?))
        }
        id::MAXIMUM_PACKET_SIZE => {
            let value = r.u32("maximum packet size")?;
            ("maximum packet size", Property::MaximumPacketSize(nonzero_u32(r, "maximum packet size", value)?))
        }
        id::WILDCARD_SUBSCRIPTION_AVAILABLE => {
            plain!(WildcardSubscriptionAvailable, bool, "wildcard subscription available")
        }
        id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE => {
            plain!(SubscriptionIdentifiersAvailable, bool, "subscription identifiers available")
        }
        id::SHARED_SUBSCRIPTION_AVAILABLE => plain!(SharedSubscriptionAvailable, bool, "shared subscription available"),
        other => return Err(r.error("the property block", Flaw::ForeignProperty(other))),
    })
}
