use super::ack::reason_properties;
use crate::property::{Property, sets};
use crate::reader::{Frame, Reader};
use crate::{
    DecodeError, Flaw, ReasonCode, ReasonProperties, Role, SubAck, Subscribe, SubscribeFilter, UnsubAck, Unsubscribe,
    UserProperty, Version,
};
use base_types::{QoS, RetainHandling};

/// The most filters that one SUBSCRIBE or UNSUBSCRIBE may have; more is answered with Quota exceeded. Each costs many times the four
/// bytes that it may have in the packet.
pub const MAX_FILTERS: usize = 8192;

pub(super) fn subscribe(r: &mut Reader<'_>, frame: &Frame, version: Version) -> Result<Subscribe, DecodeError> {
    let packet_id = r.packet_id()?;
    let mut subscription_identifier = None;
    let mut user_properties = Vec::new();
    if version == Version::V5 {
        let mut properties = r.properties(sets::SUBSCRIBE)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::SubscriptionIdentifier(id) => subscription_identifier = Some(id),
                Property::User(name, value) => user_properties.push((frame.text(name), frame.text(value))),
                _ => {}
            }
        }
    }
    let filters = list(r, |r| filter(r, frame, version))?;
    Ok(Subscribe { packet_id, subscription_identifier, user_properties, filters })
}

/// Filters up to the end of the packet: at least one [MQTT-3.8.3-2], [MQTT-3.10.3-2].
fn list<'a, T>(
    r: &mut Reader<'a>,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    const FIELD: &str = "the list of filters";
    if r.is_empty() {
        return Err(r.error(FIELD, Flaw::Empty));
    }
    let mut filters = Vec::new();
    while !r.is_empty() {
        if filters.len() == MAX_FILTERS {
            return Err(r.error(FIELD, Flaw::TooManyFilters));
        }
        filters.push(read(r)?);
    }
    Ok(filters)
}

/// A filter and its options (5.0 §3.8.3.1); before 5.0 all but the QoS is reserved [MQTT-3-8.3-4 of 3.1.1].
fn filter(r: &mut Reader<'_>, frame: &Frame, version: Version) -> Result<SubscribeFilter, DecodeError> {
    const FIELD: &str = "the subscription options byte";
    let filter = frame.text(r.text("topic filter")?);
    let options = r.u8(FIELD)?;
    let reserved = if version == Version::V5 { 0b1100_0000 } else { 0b1111_1100 };
    if options & reserved != 0 {
        return Err(r.error(FIELD, Flaw::ReservedBits(options)));
    }
    let qos = QoS::try_from(options & 0b11).map_err(|bad| r.error(FIELD, Flaw::OutOfRange(bad.0)))?;
    let retain_handling = match options >> 4 & 0b11 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DontSend,
        other => return Err(r.error("retain handling", Flaw::OutOfRange(other))),
    };
    Ok(SubscribeFilter {
        filter,
        qos,
        no_local: options & 0b0100 != 0,
        retain_as_published: options & 0b1000 != 0,
        retain_handling,
    })
}

pub(super) fn suback(r: &mut Reader<'_>, frame: &Frame, version: Version) -> Result<SubAck, DecodeError> {
    let packet_id = r.packet_id()?;
    let properties = properties(r, frame, version)?;
    let reason_codes = reason_codes(r, version)?;
    Ok(SubAck { packet_id, reason_codes, properties })
}

pub(super) fn unsubscribe(r: &mut Reader<'_>, frame: &Frame, version: Version) -> Result<Unsubscribe, DecodeError> {
    let packet_id = r.packet_id()?;
    let mut user_properties: Vec<UserProperty> = Vec::new();
    if version == Version::V5 {
        let mut properties = r.properties(sets::UNSUBSCRIBE)?;
        while let Some(property) = properties.next()? {
            if let Property::User(name, value) = property {
                user_properties.push((frame.text(name), frame.text(value)));
            }
        }
    }
    let filters = list(r, |r| Ok(frame.text(r.text("topic filter")?)))?;
    Ok(Unsubscribe { packet_id, user_properties, filters })
}

/// Before 5.0 it has nothing but the packet identifier (3.1.1 §3.11).
pub(super) fn unsuback(r: &mut Reader<'_>, frame: &Frame, version: Version) -> Result<UnsubAck, DecodeError> {
    let packet_id = r.packet_id()?;
    let properties = properties(r, frame, version)?;
    let reason_codes = if version == Version::V5 { reason_codes(r, version)? } else { Vec::new() };
    Ok(UnsubAck { packet_id, reason_codes, properties })
}

fn properties(
    r: &mut Reader<'_>,
    frame: &Frame,
    version: Version,
) -> Result<Option<Box<ReasonProperties>>, DecodeError> {
    if version == Version::V5 { reason_properties(r, frame, sets::REASON) } else { Ok(None) }
}

/// All bytes up to the end.
fn reason_codes(r: &mut Reader<'_>, version: Version) -> Result<Vec<ReasonCode>, DecodeError> {
    if r.is_empty() {
        return Err(r.error("the list of reason codes", Flaw::Empty));
    }
    let mut codes = Vec::with_capacity(r.rest.len());
    while !r.is_empty() {
        let code = r.reason_code(Role::Client)?;
        // Failure is all that 3.1.1 tells [MQTT-3.9.3-2 of 3.1.1].
        if version < Version::V5 && code.is_error() && code != ReasonCode::UnspecifiedError {
            return Err(r.error("return code", Flaw::ReasonCode(code.into())));
        }
        codes.push(code);
    }
    Ok(codes)
}
