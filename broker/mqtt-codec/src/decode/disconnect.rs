use crate::property::{Property, sets};
use crate::reader::{Frame, Reader};
use crate::{DecodeError, Disconnect, Flaw, Role};

/// DISCONNECT of 5.0; code and properties may be missing (5.0 §3.14.2.1, §3.14.2.2.1).
pub(super) fn disconnect(r: &mut Reader<'_>, frame: &Frame, role: Role) -> Result<Disconnect, DecodeError> {
    let mut disconnect = Disconnect::default();
    if r.is_empty() {
        return Ok(disconnect);
    }
    disconnect.reason_code = r.reason_code(role)?;
    if r.is_empty() {
        return Ok(disconnect);
    }
    let mut properties = r.properties(sets::DISCONNECT)?;
    while let Some(property) = properties.next()? {
        match property {
            // A server must not send it [MQTT-3.14.2-2].
            Property::SessionExpiryInterval(_) if role == Role::Client => {
                return Err(r.error("session expiry interval", Flaw::Unexpected));
            }
            Property::SessionExpiryInterval(secs) => disconnect.session_expiry_interval = Some(secs),
            Property::ReasonString(text) => disconnect.reason_string = Some(frame.text(text)),
            Property::ServerReference(text) => disconnect.server_reference = Some(frame.text(text)),
            Property::User(name, value) => {
                disconnect.user_properties.push((frame.text(name), frame.text(value)));
            }
            _ => {}
        }
    }
    Ok(disconnect)
}
