use super::message::{Forwarded, MessageProperties};
use crate::property::{Property, sets};
use crate::reader::{Frame, Reader, topic_name};
use crate::{Connect, ConnectProperties, DecodeError, Flaw, Packet, PacketType, Version, Will};
use base_types::QoS;

const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS: u8 = 0x18;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;

/// CONNECT of any version. `learned` is set as soon as the version is known, whatever comes behind it.
pub(crate) fn connect(frame: &Frame, learned: &mut Option<Version>) -> Result<Option<Packet>, DecodeError> {
    let mut reader = Reader::new(PacketType::Connect, &frame.0);
    let r = &mut reader;
    let version = version(r)?;
    *learned = Some(version);

    let flags = flags(r, version)?;
    let keep_alive = r.u16("keep alive")?;
    let properties = if version == Version::V5 { properties(r, frame)? } else { ConnectProperties::default() };
    let client_id = frame.text(r.text("client identifier")?);
    let will = if flags & WILL == 0 { None } else { Some(will(r, frame, flags, version)?) };
    // In 3.1 the remaining length takes precedence over the two flags (3.1 §3.1, "User name and password flags").
    let present = |r: &Reader<'_>, flag| flags & flag != 0 && !(version == Version::V3 && r.is_empty());
    let username = if present(r, USER_NAME) { Some(frame.text(r.text("user name")?)) } else { None };
    let password = if present(r, PASSWORD) { Some(frame.bytes(r.binary("password")?)) } else { None };
    reader.end()?;
    Ok(Some(Packet::Connect(Box::new(Connect {
        version,
        clean_start: flags & CLEAN_START != 0,
        keep_alive,
        client_id,
        will,
        username,
        password,
        properties,
    }))))
}

/// Protocol name and level [MQTT-3.1.2-1], [MQTT-3.1.2-2].
fn version(r: &mut Reader<'_>) -> Result<Version, DecodeError> {
    let name = r.binary("protocol name")?;
    let level = r.u8("protocol level")?;
    match (name, level) {
        (b"MQIsdp", 3) => Ok(Version::V3),
        (b"MQTT", 4) => Ok(Version::V4),
        (b"MQTT", 5) => Ok(Version::V5),
        _ => Err(DecodeError::UnsupportedProtocolVersion { level }),
    }
}

fn flags(r: &mut Reader<'_>, version: Version) -> Result<u8, DecodeError> {
    let flags = r.u8("the connect flags byte")?;
    let error = |flaw| Err(r.error("the connect flags byte", flaw));
    if version < Version::V5 && flags & PASSWORD != 0 && flags & USER_NAME == 0 {
        return error(Flaw::PasswordWithoutUserName);
    }
    if flags & WILL_QOS == WILL_QOS {
        return error(Flaw::QosThree);
    }
    // 3.1 leaves bit 0 unused and ignores the other two when there is no will.
    if version > Version::V3 {
        if flags & 1 != 0 {
            return error(Flaw::ReservedBits(flags));
        }
        if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
            return error(Flaw::WillFlagsWithoutWill);
        }
    }
    Ok(flags)
}

fn properties(r: &mut Reader<'_>, frame: &Frame) -> Result<ConnectProperties, DecodeError> {
    let mut out = ConnectProperties::default();
    let mut properties = r.properties(sets::CONNECT)?;
    while let Some(property) = properties.next()? {
        match property {
            Property::SessionExpiryInterval(secs) => out.session_expiry_interval = Some(secs),
            Property::ReceiveMaximum(n) => out.receive_maximum = Some(n),
            Property::MaximumPacketSize(bytes) => out.maximum_packet_size = Some(bytes),
            Property::TopicAliasMaximum(n) => out.topic_alias_maximum = Some(n),
            Property::RequestResponseInformation(yes) => out.request_response_information = Some(yes),
            Property::RequestProblemInformation(yes) => out.request_problem_information = Some(yes),
            Property::User(name, value) => out.user_properties.push((frame.text(name), frame.text(value))),
            Property::AuthenticationMethod(text) => out.authentication_method = Some(frame.text(text)),
            Property::AuthenticationData(data) => out.authentication_data = Some(frame.bytes(data)),
            _ => {}
        }
    }
    // 5.0 §3.1.2.11.10.
    if out.authentication_data.is_some() && out.authentication_method.is_none() {
        return Err(r.error("authentication method", Flaw::Missing));
    }
    Ok(out)
}

fn will(r: &mut Reader<'_>, frame: &Frame, flags: u8, version: Version) -> Result<Will, DecodeError> {
    let properties = match version {
        Version::V5 => MessageProperties::read(r, sets::WILL)?,
        _ => MessageProperties::default(),
    };
    let forwarded = match properties.forwarded {
        Forwarded::Slice { back, length } => {
            let start = frame.0.len() - r.rest.len() - back;
            frame.bytes(&frame.0[start..start + length])
        }
        Forwarded::Gathered(bytes) => bytes.into(),
    };
    Ok(Will {
        topic: topic_name(PacketType::Connect, "will topic", frame.bytes(r.binary("will topic")?))?,
        payload: frame.bytes(r.binary("will payload")?),
        qos: QoS::try_from((flags & WILL_QOS) >> 3).map_err(|_| r.error("the connect flags byte", Flaw::QosThree))?,
        retain: flags & WILL_RETAIN != 0,
        delay_interval: properties.will_delay_interval,
        message_expiry_interval: properties.message_expiry_interval,
        forwarded,
        payload_is_utf8: properties.payload_is_utf8,
    })
}
