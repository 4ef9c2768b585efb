use crate::property::id;
use crate::{
    Ack, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect, EncodeError, Packet, PacketType,
    PublishParts, ReasonCode, ReasonProperties, SubAck, Subscribe, UnsubAck, Unsubscribe, UserProperty, Version, Will,
    varint,
};
use base_types::QoS;
use bytes::{BufMut, BytesMut};

/// Appends a packet to `out`, in the form of `version`; a CONNECT in the form of its own version.
///
/// Before 5.0 there are no properties and reason codes: CONNACK has the nearest return code, SUBACK 0x80 for every error, the others
/// none. Whether a packet makes sense is the caller's business: what the types allow is written.
///
/// # Errors
/// When the packet cannot be expressed; `out` is as it was then.
pub fn encode(packet: &Packet, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    if let Packet::Publish(publish) = packet {
        let parts = PublishParts::from(publish);
        parts.check(version)?;
        parts.encode(version, out);
        return Ok(());
    }
    let kind = packet.packet_type();
    // [MQTT-2.1.3-1]
    let flags =
        if matches!(kind, PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe) { 0b0010 } else { 0 };
    let remaining = remaining_length(packet, kind, version)?;
    let (length, n) = varint::bytes(remaining);
    out.reserve(1 + n + remaining);
    out.put_u8((kind as u8) << 4 | flags);
    out.put_slice(&length[..n]);
    body(packet, version, out);
    Ok(())
}

/// How many bytes [`encode`] would append.
///
/// # Errors
/// When the packet cannot be expressed.
pub fn encoded_len(packet: &Packet, version: Version) -> Result<usize, EncodeError> {
    if let Packet::Publish(publish) = packet {
        let parts = PublishParts::from(publish);
        return parts.check(version).map(|()| parts.encoded_len(version));
    }
    let remaining = remaining_length(packet, packet.packet_type(), version)?;
    Ok(1 + varint::len(remaining) + remaining)
}

fn remaining_length(packet: &Packet, kind: PacketType, version: Version) -> Result<usize, EncodeError> {
    if kind == PacketType::Auth && version < Version::V5 {
        return Err(EncodeError::NotInVersion { packet: kind, version });
    }
    let mut length = Length::default();
    body(packet, version, &mut length);
    length.of(kind)
}

fn body(packet: &Packet, version: Version, out: &mut impl Sink) {
    let v5 = version == Version::V5;
    match packet {
        Packet::Connect(p) => connect(p, out),
        Packet::ConnAck(p) => connack(p, version, out),
        Packet::PubAck(p) | Packet::PubRec(p) | Packet::PubRel(p) | Packet::PubComp(p) => ack(p, v5, out),
        Packet::Subscribe(p) => subscribe(p, v5, out),
        Packet::SubAck(p) => suback(p, v5, out),
        Packet::Unsubscribe(p) => unsubscribe(p, v5, out),
        Packet::UnsubAck(p) => unsuback(p, v5, out),
        Packet::Disconnect(p) if v5 => disconnect(p, out),
        Packet::Auth(p) => auth(p, out),
        Packet::Publish(_) | Packet::PingReq | Packet::PingResp | Packet::Disconnect(_) => {}
    }
}

fn connect(p: &Connect, out: &mut impl Sink) {
    let will = p.will.as_ref();
    let flags = u8::from(p.clean_start) << 1
        | will.map_or(0, |w| 0x04 | (w.qos as u8) << 3 | u8::from(w.retain) << 5)
        | u8::from(p.password.is_some()) << 6
        | u8::from(p.username.is_some()) << 7;
    out.binary(if p.version == Version::V3 { "MQIsdp" } else { "MQTT" });
    out.u8(p.version as u8);
    out.u8(flags);
    out.u16(p.keep_alive);
    if p.version == Version::V5 {
        out.properties(&p.properties);
    }
    out.binary(&p.client_id);
    if let Some(will) = will {
        if p.version == Version::V5 {
            out.properties(will);
        }
        out.binary(will.topic.as_str());
        out.binary(&will.payload);
    }
    if let Some(username) = &p.username {
        out.binary(username);
    }
    if let Some(password) = &p.password {
        out.binary(password);
    }
}

fn connack(p: &ConnAck, version: Version, out: &mut impl Sink) {
    // The byte is unused in 3.1 (3.1 §3.2).
    out.u8(u8::from(p.session_present && version > Version::V3));
    if version == Version::V5 {
        out.u8(p.reason_code.into());
        out.properties(&p.properties);
    } else {
        out.u8(p.reason_code.connect_return_code());
    }
}

/// In the shortest of three forms (5.0 §3.4.2.1).
fn ack(p: &Ack, v5: bool, out: &mut impl Sink) {
    out.u16(p.packet_id.get());
    if v5 {
        match p.properties.as_deref().filter(|p| **p != ReasonProperties::default()) {
            None if p.reason_code == ReasonCode::Success => {}
            None => out.u8(p.reason_code.into()),
            Some(properties) => {
                out.u8(p.reason_code.into());
                out.properties(properties);
            }
        }
    }
}

fn subscribe(p: &Subscribe, v5: bool, out: &mut impl Sink) {
    out.u16(p.packet_id.get());
    if v5 {
        out.properties(p);
    }
    for f in &p.filters {
        out.binary(&f.filter);
        let options = u8::from(f.no_local) << 2 | u8::from(f.retain_as_published) << 3 | (f.retain_handling as u8) << 4;
        out.u8(f.qos as u8 | if v5 { options } else { 0 });
    }
}

fn suback(p: &SubAck, v5: bool, out: &mut impl Sink) {
    out.u16(p.packet_id.get());
    if v5 {
        out.properties(&p.properties);
    }
    for code in &p.reason_codes {
        out.u8(if v5 || !code.is_error() { *code } else { ReasonCode::UnspecifiedError }.into());
    }
}

fn unsubscribe(p: &Unsubscribe, v5: bool, out: &mut impl Sink) {
    out.u16(p.packet_id.get());
    if v5 {
        out.properties(&p.user_properties);
    }
    for filter in &p.filters {
        out.binary(filter);
    }
}

fn unsuback(p: &UnsubAck, v5: bool, out: &mut impl Sink) {
    out.u16(p.packet_id.get());
    if v5 {
        out.properties(&p.properties);
        for code in &p.reason_codes {
            out.u8((*code).into());
        }
    }
}

/// In the shortest of three forms (5.0 §3.14.2.1, §3.14.2.2.1).
fn disconnect(p: &Disconnect, out: &mut impl Sink) {
    let Disconnect { reason_code, session_expiry_interval, reason_string, user_properties, server_reference } = p;
    let bare = session_expiry_interval.is_none()
        && reason_string.is_none()
        && user_properties.is_empty()
        && server_reference.is_none();
    if bare && *reason_code == ReasonCode::Success {
        return;
    }
    out.u8((*reason_code).into());
    if !bare {
        out.properties(p);
    }
}

/// Without a body when it says nothing (5.0 §3.15.2.1).
fn auth(p: &Auth, out: &mut impl Sink) {
    if *p != Auth::default() {
        out.u8(p.reason_code.into());
        out.properties(p);
    }
}

/// Something with properties of its own, which `write` puts down without the length in front.
pub(crate) trait Properties {
    fn write(&self, out: &mut impl Sink);
}

impl Properties for ConnectProperties {
    fn write(&self, out: &mut impl Sink) {
        out.u32_property(id::SESSION_EXPIRY_INTERVAL, self.session_expiry_interval);
        out.u16_property(id::RECEIVE_MAXIMUM, self.receive_maximum.map(Into::into));
        out.u32_property(id::MAXIMUM_PACKET_SIZE, self.maximum_packet_size.map(Into::into));
        out.u16_property(id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        out.bool_property(id::REQUEST_RESPONSE_INFORMATION, self.request_response_information);
        out.bool_property(id::REQUEST_PROBLEM_INFORMATION, self.request_problem_information);
        self.user_properties.write(out);
        out.binary_property(id::AUTHENTICATION_METHOD, self.authentication_method.as_ref());
        out.binary_property(id::AUTHENTICATION_DATA, self.authentication_data.as_ref());
    }
}

impl Properties for Will {
    fn write(&self, out: &mut impl Sink) {
        out.u32_property(id::WILL_DELAY_INTERVAL, Some(self.delay_interval).filter(|secs| *secs > 0));
        out.u32_property(id::MESSAGE_EXPIRY_INTERVAL, self.message_expiry_interval);
        out.slice(&self.forwarded);
    }
}

impl Properties for ConnAckProperties {
    fn write(&self, out: &mut impl Sink) {
        out.u32_property(id::SESSION_EXPIRY_INTERVAL, self.session_expiry_interval);
        out.u16_property(id::RECEIVE_MAXIMUM, self.receive_maximum.map(Into::into));
        // 2 is said by leaving it out (5.0 §3.2.2.3.4).
        let maximum_qos = self.maximum_qos.filter(|qos| *qos < QoS::ExactlyOnce);
        out.bool_property(id::MAXIMUM_QOS, maximum_qos.map(|qos| qos == QoS::AtLeastOnce));
        out.bool_property(id::RETAIN_AVAILABLE, self.retain_available);
        out.u32_property(id::MAXIMUM_PACKET_SIZE, self.maximum_packet_size.map(Into::into));
        out.binary_property(id::ASSIGNED_CLIENT_IDENTIFIER, self.assigned_client_identifier.as_ref());
        out.u16_property(id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        out.binary_property(id::REASON_STRING, self.reason_string.as_ref());
        self.user_properties.write(out);
        out.bool_property(id::WILDCARD_SUBSCRIPTION_AVAILABLE, self.wildcard_subscription_available);
        out.bool_property(id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE, self.subscription_identifiers_available);
        out.bool_property(id::SHARED_SUBSCRIPTION_AVAILABLE, self.shared_subscription_available);
        out.u16_property(id::SERVER_KEEP_ALIVE, self.server_keep_alive);
        out.binary_property(id::RESPONSE_INFORMATION, self.response_information.as_ref());
        out.binary_property(id::SERVER_REFERENCE, self.server_reference.as_ref());
        out.binary_property(id::AUTHENTICATION_METHOD, self.authentication_method.as_ref());
        out.binary_property(id::AUTHENTICATION_DATA, self.authentication_data.as_ref());
    }
}

impl Properties for ReasonProperties {
    fn write(&self, out: &mut impl Sink) {
        out.binary_property(id::REASON_STRING, self.reason_string.as_ref());
        self.user_properties.write(out);
    }
}

impl Properties for Option<Box<ReasonProperties>> {
    fn write(&self, out: &mut impl Sink) {
        if let Some(properties) = self {
            properties.write(out);
        }
    }
}

impl Properties for Subscribe {
    fn write(&self, out: &mut impl Sink) {
        if let Some(identifier) = self.subscription_identifier {
            out.u8(id::SUBSCRIPTION_IDENTIFIER);
            out.varint(identifier.get() as usize);
        }
        self.user_properties.write(out);
    }
}

impl Properties for Disconnect {
    fn write(&self, out: &mut impl Sink) {
        out.u32_property(id::SESSION_EXPIRY_INTERVAL, self.session_expiry_interval);
        out.binary_property(id::REASON_STRING, self.reason_string.as_ref());
        self.user_properties.write(out);
        out.binary_property(id::SERVER_REFERENCE, self.server_reference.as_ref());
    }
}

impl Properties for Auth {
    fn write(&self, out: &mut impl Sink) {
        out.binary_property(id::AUTHENTICATION_METHOD, self.authentication_method.as_ref());
        out.binary_property(id::AUTHENTICATION_DATA, self.authentication_data.as_ref());
        out.binary_property(id::REASON_STRING, self.reason_string.as_ref());
        self.user_properties.write(out);
    }
}

impl Properties for Vec<UserProperty> {
    fn write(&self, out: &mut impl Sink) {
        for (name, value) in self {
            out.u8(id::USER_PROPERTY);
            out.binary(name);
            out.binary(value);
        }
    }
}

/// Where the parts of a packet go: into a buffer, or only into a count. Each packet is described once, so what is counted is what is
/// written.
pub(crate) trait Sink: Sized {
    fn slice(&mut self, bytes: &[u8]);

    /// UTF-8 encoded strings and binary data, at most 65,535 bytes (5.0 §1.5.4, §1.5.6).
    fn binary(&mut self, bytes: impl AsRef<[u8]>);

    /// A value up to [`varint::MAX`] (5.0 §1.5.5).
    fn varint(&mut self, value: usize);

    fn u8(&mut self, value: u8) {
        self.slice(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.slice(&value.to_be_bytes());
    }

    fn properties(&mut self, properties: &impl Properties) {
        let mut length = Length::default();
        properties.write(&mut length);
        self.varint(length.total);
        properties.write(self);
    }

    fn bool_property(&mut self, id: u8, value: Option<bool>) {
        if let Some(value) = value {
            self.slice(&[id, value.into()]);
        }
    }

    fn u16_property(&mut self, id: u8, value: Option<u16>) {
        if let Some(value) = value {
            self.u8(id);
            self.u16(value);
        }
    }

    fn u32_property(&mut self, id: u8, value: Option<u32>) {
        if let Some(value) = value {
            self.u8(id);
            self.slice(&value.to_be_bytes());
        }
    }

    fn binary_property(&mut self, id: u8, value: Option<impl AsRef<[u8]>>) {
        if let Some(value) = value {
            self.u8(id);
            self.binary(value);
        }
    }
}

/// Counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Length {
    total: usize,
    /// The longest string or binary.
    longest: usize,
    /// The largest variable byte integer.
    largest: usize,
}

impl Length {
    /// The count, when all of it can be expressed.
    pub(crate) fn of(self, packet: PacketType) -> Result<usize, EncodeError> {
        if self.longest > usize::from(u16::MAX) {
            return Err(EncodeError::FieldTooLong { packet, length: self.longest });
        }
        match self.largest.max(self.total) {
            value if value > varint::MAX as usize => Err(EncodeError::TooLarge { packet, value }),
            _ => Ok(self.total),
        }
    }
}

impl Sink for Length {
    fn slice(&mut self, bytes: &[u8]) {
        self.total += bytes.len();
    }

    fn binary(&mut self, bytes: impl AsRef<[u8]>) {
        let length = bytes.as_ref().len();
        self.longest = self.longest.max(length);
        self.total += 2 + length;
    }

    fn varint(&mut self, value: usize) {
        self.largest = self.largest.max(value);
        self.total += varint::len(value);
    }
}

impl Sink for BytesMut {
    fn slice(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }

    #[allow(clippy::cast_possible_truncation, reason = "Length::of has refused what is longer")]
    fn binary(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.put_u16(bytes.len() as u16);
        self.put_slice(bytes);
    }

    fn varint(&mut self, value: usize) {
        let (bytes, n) = varint::bytes(value);
        self.put_slice(&bytes[..n]);
    }
}
