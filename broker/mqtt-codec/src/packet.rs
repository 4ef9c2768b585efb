use crate::{PacketType, ReasonCode, UserProperty, Version};
use base_types::{PacketId, QoS, RetainHandling, TopicName};
use bytes::Bytes;
use bytestring::ByteString;
use std::num::{NonZeroU16, NonZeroU32};

/// One control packet (MQTT 5.0 §2.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub enum Packet {
    Connect(Box<Connect>),
    ConnAck(Box<ConnAck>),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe(Subscribe),
    SubAck(SubAck),
    Unsubscribe(Unsubscribe),
    UnsubAck(UnsubAck),
    PingReq,
    PingResp,
    Disconnect(Disconnect),
    Auth(Auth),
}

impl Packet {
    /// Its type.
    #[must_use]
    pub fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }
}

/// CONNECT (5.0 §3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The protocol level, with its protocol name.
    pub version: Version,
    /// Clean Start; Clean Session in 3.1 and 3.1.1.
    pub clean_start: bool,
    /// Seconds; 0 turns it off.
    pub keep_alive: u16,
    /// May be empty: the server then assigns one, where the version lets it.
    pub client_id: ByteString,
    /// The will, if any.
    pub will: Option<Will>,
    /// The user name.
    pub username: Option<ByteString>,
    /// The password, any bytes.
    pub password: Option<Bytes>,
    /// The properties; all absent before 5.0.
    pub properties: ConnectProperties,
}

/// The properties of CONNECT (5.0 §3.1.2.11). `None`: absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct ConnectProperties {
    /// Seconds. Absent means 0; 0xFFFF_FFFF never expires.
    pub session_expiry_interval: Option<u32>,
    pub receive_maximum: Option<NonZeroU16>,
    pub maximum_packet_size: Option<NonZeroU32>,
    pub topic_alias_maximum: Option<u16>,
    pub request_response_information: Option<bool>,
    pub request_problem_information: Option<bool>,
    pub user_properties: Vec<UserProperty>,
    pub authentication_method: Option<ByteString>,
    pub authentication_data: Option<Bytes>,
}

/// The will in a CONNECT (5.0 §3.1.2.5, §3.1.3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Where it is published to.
    pub topic: TopicName,
    /// Its payload.
    pub payload: Bytes,
    /// Its QoS.
    pub qos: QoS,
    /// Its RETAIN flag.
    pub retain: bool,
    /// Seconds between the end of the connection and the will; 0 when absent.
    pub delay_interval: u32,
    /// Seconds that the message lives once published.
    pub message_expiry_interval: Option<u32>,
    /// The properties that are forwarded, in wire form without the length in front, as in [`Publish::forwarded`].
    pub forwarded: Bytes,
    /// Payload format indicator 1: the payload says it is UTF-8.
    pub payload_is_utf8: bool,
}

/// CONNACK (5.0 §3.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnAck {
    /// The server has a session for this client.
    pub session_present: bool,
    /// Narrowed to the return codes 0 to 5 for 3.1 and 3.1.1.
    pub reason_code: ReasonCode,
    /// Left out before 5.0.
    pub properties: ConnAckProperties,
}

/// The properties of CONNACK (5.0 §3.2.2.3). `None`: absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct ConnAckProperties {
    pub session_expiry_interval: Option<u32>,
    pub receive_maximum: Option<NonZeroU16>,
    /// Absent means 2; only 0 and 1 are sent.
    pub maximum_qos: Option<QoS>,
    pub retain_available: Option<bool>,
    pub maximum_packet_size: Option<NonZeroU32>,
    pub assigned_client_identifier: Option<ByteString>,
    pub topic_alias_maximum: Option<u16>,
    pub reason_string: Option<ByteString>,
    pub user_properties: Vec<UserProperty>,
    pub wildcard_subscription_available: Option<bool>,
    pub subscription_identifiers_available: Option<bool>,
    pub shared_subscription_available: Option<bool>,
    pub server_keep_alive: Option<u16>,
    pub response_information: Option<ByteString>,
    pub server_reference: Option<ByteString>,
    pub authentication_method: Option<ByteString>,
    pub authentication_data: Option<Bytes>,
}

/// PUBLISH (5.0 §3.3). Topic, payload and properties are slices of the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Might be a re-delivery.
    pub dup: bool,
    /// The QoS.
    pub qos: QoS,
    /// The RETAIN flag.
    pub retain: bool,
    /// `None` only in 5.0, where a topic alias stands for it.
    pub topic: Option<TopicName>,
    /// Present exactly when the QoS is 1 or 2.
    pub packet_id: Option<PacketId>,
    /// The application payload.
    pub payload: Bytes,
    /// Seconds (5.0 §3.3.2.3.3).
    pub message_expiry_interval: Option<u32>,
    /// 5.0 §3.3.2.3.4; never 0 on the wire.
    pub topic_alias: Option<NonZeroU16>,
    /// Only from server to client; in ascending order of arrival. Empty costs nothing.
    pub subscription_identifiers: Vec<u32>,
    /// Payload format indicator 1: the payload says it is UTF-8. Stands in `forwarded` too.
    pub payload_is_utf8: bool,
    /// The properties that a server forwards unaltered (payload format indicator, content type, response topic, correlation
    /// data, user properties), validated, in wire form, in their order, without the length in front.
    pub forwarded: Bytes,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP (5.0 §3.4 to §3.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Which PUBLISH.
    pub packet_id: PacketId,
    /// Not sent before 5.0.
    pub reason_code: ReasonCode,
    /// `None` when there are none: the usual case allocates nothing.
    pub properties: Option<Box<ReasonProperties>>,
}

impl Ack {
    /// An acknowledgement without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, reason_code: ReasonCode) -> Self {
        Self { packet_id, reason_code, properties: None }
    }
}

/// What an acknowledgement may carry beside its code: reason string and user properties.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct ReasonProperties {
    pub reason_string: Option<ByteString>,
    pub user_properties: Vec<UserProperty>,
}

/// SUBSCRIBE (5.0 §3.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Which SUBACK.
    pub packet_id: PacketId,
    /// 1 to 268,435,455.
    pub subscription_identifier: Option<NonZeroU32>,
    /// 5.0 only.
    pub user_properties: Vec<UserProperty>,
    /// At least one.
    pub filters: Vec<SubscribeFilter>,
}

/// One filter of a SUBSCRIBE. The filter is UTF-8 but not judged: a bad one fails alone (5.0 §3.9.3).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct SubscribeFilter {
    pub filter: ByteString,
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

/// SUBACK (5.0 §3.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubAck {
    /// Which SUBSCRIBE.
    pub packet_id: PacketId,
    /// One for each filter; errors are narrowed to 0x80 for 3.1 and 3.1.1.
    pub reason_codes: Vec<ReasonCode>,
    /// 5.0 only.
    pub properties: Option<Box<ReasonProperties>>,
}

/// UNSUBSCRIBE (5.0 §3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Which UNSUBACK.
    pub packet_id: PacketId,
    /// 5.0 only.
    pub user_properties: Vec<UserProperty>,
    /// At least one; not judged.
    pub filters: Vec<ByteString>,
}

/// UNSUBACK (5.0 §3.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsubAck {
    /// Which UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// One for each filter; not sent before 5.0.
    pub reason_codes: Vec<ReasonCode>,
    /// 5.0 only.
    pub properties: Option<Box<ReasonProperties>>,
}

/// DISCONNECT (5.0 §3.14). Bare before 5.0, and only from the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct Disconnect {
    pub reason_code: ReasonCode,
    pub session_expiry_interval: Option<u32>,
    pub reason_string: Option<ByteString>,
    pub user_properties: Vec<UserProperty>,
    pub server_reference: Option<ByteString>,
}

/// AUTH (5.0 §3.15).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct Auth {
    pub reason_code: ReasonCode,
    pub authentication_method: Option<ByteString>,
    pub authentication_data: Option<Bytes>,
    pub reason_string: Option<ByteString>,
    pub user_properties: Vec<UserProperty>,
}
