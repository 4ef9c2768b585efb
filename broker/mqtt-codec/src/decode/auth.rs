use crate::property::{Property, sets};
use crate::reader::{Frame, Reader};
use crate::{Auth, DecodeError, Flaw, Role};

/// Without a body it is a success without properties (5.0 §3.15.2.1); otherwise the method must be there (§3.15.2.2.2).
pub(super) fn auth(r: &mut Reader<'_>, frame: &Frame, role: Role) -> Result<Auth, DecodeError> {
    let mut auth = Auth::default();
    if r.is_empty() {
        return Ok(auth);
    }
    auth.reason_code = r.reason_code(role)?;
    let mut properties = r.properties(sets::AUTH)?;
    while let Some(property) = properties.next()? {
        match property {
            Property::AuthenticationMethod(text) => auth.authentication_method = Some(frame.text(text)),
            Property::AuthenticationData(data) => auth.authentication_data = Some(frame.bytes(data)),
            Property::ReasonString(text) => auth.reason_string = Some(frame.text(text)),
            Property::User(name, value) => auth.user_properties.push((frame.text(name), frame.text(value))),
            _ => {}
        }
    }
    if auth.authentication_method.is_none() {
        return Err(r.error("authentication method", Flaw::Missing));
    }
    Ok(auth)
}
