use crate::{PacketType, ReasonCode, Version};

/// Why bytes are no packet that may arrive here. The connection cannot go on after it.
///
/// The text says which packet, which part of it, and what is wrong; it contains nothing that the peer chose, so it
/// can be logged and sent as a reason string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than the limit of the decoder. Known from the fixed header alone.
    #[error("{packet} of {size} bytes exceeds the maximum packet size of {max}")]
    PacketTooLarge {
        /// What the first byte said.
        packet: PacketType,
        /// The whole packet, in bytes, as claimed.
        size: u32,
        /// The limit, in bytes.
        max: u32,
    },
    /// A CONNECT that speaks another protocol or another level of it (5.0 §3.1.2.2, 3.1.1 §3.1.2.2).
    #[error("CONNECT: protocol level {level} is not supported")]
    UnsupportedProtocolVersion {
        /// The protocol level that was asked for.
        level: u8,
    },
    /// Anything else.
    #[error("{packet}: {field} {flaw}")]
    Invalid {
        /// Which packet.
        packet: PacketType,
        /// Which part of it.
        field: &'static str,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// Packet type 0 (5.0 §2.1.2).
    #[error("packet type 0 is forbidden")]
    ForbiddenPacketType,
}

impl DecodeError {
    /// What a 5.0 peer is told in CONNACK or DISCONNECT (5.0 §4.13).
    #[must_use]
    pub fn reason_code(&self) -> ReasonCode {
        match self {
            Self::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::UnsupportedProtocolVersion { .. } => ReasonCode::UnsupportedProtocolVersion,
            Self::Invalid { flaw, .. } => flaw.reason_code(),
            Self::ForbiddenPacketType => ReasonCode::MalformedPacket,
        }
    }
}

/// What is wrong with one part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The packet ends before this part is complete.
    #[error("is cut short")]
    Truncated,
    /// The packet has more bytes than its parts [5.0 §1.2 "Malformed Packet"].
    #[error("is followed by {0} bytes that belong to nothing")]
    TrailingBytes(usize),
    /// Not a variable byte integer of four bytes at most, in its shortest form [MQTT-1.5.5-1].
    #[error("is no variable byte integer in its shortest form")]
    VariableByteInteger,
    /// Not well-formed UTF-8 [MQTT-1.5.4-1].
    #[error("is not well-formed UTF-8")]
    IllFormedUtf8,
    /// Contains U+0000 [MQTT-1.5.4-2].
    #[error("contains U+0000")]
    Nul,
    /// Reserved bits are not as they must be [MQTT-2.1.3-1], [MQTT-3.1.2-3], [MQTT-3.8.3-5].
    #[error("has reserved bits that are not as they must be: {0:#010b}")]
    ReservedBits(u8),
    /// QoS 3 [MQTT-3.3.1-4], [MQTT-3.1.2-12].
    #[error("has QoS 3")]
    QosThree,
    /// DUP in a PUBLISH of QoS 0 [MQTT-3.3.1-2].
    #[error("has DUP with QoS 0")]
    DupWithQosZero,
    /// Will QoS or Will Retain without Will Flag [MQTT-3.1.2-11], [MQTT-3.1.2-13], [MQTT-3.1.2-15 of 3.1.1].
    #[error("has will QoS or will retain without a will")]
    WillFlagsWithoutWill,
    /// A password without a user name, before 5.0 [MQTT-3.1.2-22 of 3.1.1].
    #[error("has a password without a user name")]
    PasswordWithoutUserName,
    /// A property that is unknown, or not one of this packet (5.0 §2.2.2.2).
    #[error("has property {0:#04x}, which this packet cannot have")]
    ForeignProperty(u8),
    /// A packet that this peer may not send, in this version or now.
    #[error("may not be sent by this peer at this point")]
    Unexpected,
    /// A property that may stand once stands twice.
    #[error("appears more than once")]
    Duplicate,
    /// 0 where it is forbidden.
    #[error("must not be 0")]
    Zero,
    /// A topic alias of 0 [MQTT-3.3.2-8].
    #[error("must not be 0")]
    AliasZero,
    /// Neither 0 nor 1.
    #[error("must be 0 or 1, not {0}")]
    NotBoolean(u8),
    /// A value out of its range.
    #[error("has no value {0}")]
    OutOfRange(u8),
    /// Not even one entry [MQTT-3.8.3-2], [MQTT-3.10.3-2].
    #[error("is empty")]
    Empty,
    /// Something that must be there is not.
    #[error("is missing")]
    Missing,
    /// A reason code that is unknown, or that this packet or this peer cannot use.
    #[error("{0:#04x} is not allowed here")]
    ReasonCode(u8),
    /// Session Present with an error [MQTT-3.2.2-6].
    #[error("says that a session is present and that the connection is refused")]
    SessionPresentWithError,
    /// '+' or '#' in a topic name [MQTT-3.3.2-2].
    #[error("contains a wildcard")]
    Wildcard,
    /// No character [MQTT-4.7.3-1].
    #[error("has no character")]
    EmptyTopic,
    /// A wildcard in a response topic [MQTT-3.3.2-14].
    #[error("contains a wildcard")]
    ResponseTopicWildcard,
    /// More than [`crate::MAX_PROPERTIES`].
    #[error("has more than {max} properties", max = crate::MAX_PROPERTIES)]
    TooManyProperties,
    /// More than [`crate::MAX_PROPERTY_BYTES`].
    #[error("has more than {max} bytes of properties", max = crate::MAX_PROPERTY_BYTES)]
    TooManyPropertyBytes,
    /// More than [`crate::MAX_FILTERS`].
    #[error("has more than {max} entries", max = crate::MAX_FILTERS)]
    TooManyFilters,
}

impl Flaw {
    /// What a 5.0 peer is told.
    #[must_use]
    pub fn reason_code(self) -> ReasonCode {
        match self {
            Self::Truncated
            | Self::TrailingBytes(_)
            | Self::VariableByteInteger
            | Self::IllFormedUtf8
            | Self::Nul
            | Self::ReservedBits(_)
            | Self::QosThree
            | Self::DupWithQosZero
            | Self::WillFlagsWithoutWill
            | Self::PasswordWithoutUserName
            | Self::ForeignProperty(_) => ReasonCode::MalformedPacket,
            Self::Unexpected
            | Self::Duplicate
            | Self::Zero
            | Self::NotBoolean(_)
            | Self::OutOfRange(_)
            | Self::Empty
            | Self::Missing
            | Self::ReasonCode(_)
            | Self::SessionPresentWithError
            | Self::ResponseTopicWildcard => ReasonCode::ProtocolError,
            Self::Wildcard | Self::EmptyTopic => ReasonCode::TopicNameInvalid,
            Self::AliasZero => ReasonCode::TopicAliasInvalid,
            Self::TooManyProperties | Self::TooManyPropertyBytes | Self::TooManyFilters => ReasonCode::QuotaExceeded,
        }
    }
}

/// Why a packet cannot be written. Nothing was written then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The length in front of a string or of binary data has 16 bits.
    #[error("{packet}: a string or binary of {length} bytes is longer than 65535")]
    FieldTooLong {
        /// Which packet.
        packet: PacketType,
        /// Its length in bytes.
        length: usize,
    },
    /// The Remaining Length or a variable byte integer ends at 268,435,455.
    #[error("{packet}: {value} is more than a variable byte integer can hold")]
    TooLarge {
        /// Which packet.
        packet: PacketType,
        /// The length or number.
        value: usize,
    },
    /// AUTH before 5.0.
    #[error("there is no {packet} in {version:?}")]
    NotInVersion {
        /// Which packet.
        packet: PacketType,
        /// The version.
        version: Version,
    },
}
