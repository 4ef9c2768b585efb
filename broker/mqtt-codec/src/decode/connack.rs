use crate::property::{Property, sets};
use crate::reader::{Frame, Reader};
use crate::{ConnAck, ConnAckProperties, DecodeError, Flaw, ReasonCode, Role, Version};

pub(super) fn connack(r: &mut Reader<'_>, frame: &Frame, version: Version) -> Result<ConnAck, DecodeError> {
    let flags = r.u8("the acknowledge flags byte")?;
    // The byte is unused in 3.1 (3.1 §3.2).
    let session_present = match (version, flags) {
        (Version::V3, _) | (_, 0) => false,
        (_, 1) => true,
        (_, other) => return Err(r.error("the acknowledge flags byte", Flaw::ReservedBits(other))),
    };
    let reason_code = match version {
        Version::V5 => r.reason_code(Role::Client)?,
        _ => {
            let code = r.u8("return code")?;
            ReasonCode::of_connect_return_code(code).ok_or_else(|| r.error("return code", Flaw::ReasonCode(code)))?
        }
    };
    if session_present && reason_code.is_error() {
        return Err(r.error("the acknowledge flags byte", Flaw::SessionPresentWithError));
    }
    let properties = match version {
        Version::V5 => properties(r, frame)?,
        _ => ConnAckProperties::default(),
    };
    Ok(ConnAck { session_present, reason_code, properties })
}

fn properties(r: &mut Reader<'_>, frame: &Frame) -> Result<ConnAckProperties, DecodeError> {
    let mut out = ConnAckProperties::default();
    let mut properties = r.properties(sets::CONNACK)?;
    while let Some(property) = properties.next()? {
        match property {
            Property::SessionExpiryInterval(secs) => out.session_expiry_interval = Some(secs),
            Property::ReceiveMaximum(n) => out.receive_maximum = Some(n),
            Property::MaximumQos(qos) => out.maximum_qos = Some(qos),
            Property::RetainAvailable(yes) => out.retain_available = Some(yes),
            Property::MaximumPacketSize(bytes) => out.maximum_packet_size = Some(bytes),
            Property::AssignedClientIdentifier(text) => out.assigned_client_identifier = Some(frame.text(text)),
            Property::TopicAliasMaximum(n) => out.topic_alias_maximum = Some(n),
            Property::ReasonString(text) => out.reason_string = Some(frame.text(text)),
            Property::User(name, value) => out.user_properties.push((frame.text(name), frame.text(value))),
            Property::WildcardSubscriptionAvailable(yes) => out.wildcard_subscription_available = Some(yes),
            Property::SubscriptionIdentifiersAvailable(yes) => out.subscription_identifiers_available = Some(yes),
            Property::SharedSubscriptionAvailable(yes) => out.shared_subscription_available = Some(yes),
            Property::ServerKeepAlive(secs) => out.server_keep_alive = Some(secs),
            Property::ResponseInformation(text) => out.response_information = Some(frame.text(text)),
            Property::ServerReference(text) => out.server_reference = Some(frame.text(text)),
            Property::AuthenticationMethod(text) => out.authentication_method = Some(frame.text(text)),
            Property::AuthenticationData(data) => out.authentication_data = Some(frame.bytes(data)),
            _ => {}
        }
    }
    Ok(out)
}
