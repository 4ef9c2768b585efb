use crate::Settings;
use crate::reason::Fault;
use base_types::{ClientId, Message};
use bytes::Bytes;
use bytestring::ByteString;
use inbox_api::PendingWill;
use mqtt_codec::{ReasonCode, Will};
use std::sync::Arc;

/// Takes the will of a CONNECT, if it is within the limits. It is kept long: it must not keep a read buffer.
pub(crate) fn accept(will: &Will, client: &ClientId, settings: &Settings) -> Result<PendingWill, Fault> {
    if will.qos > settings.maximum_qos {
        return Err(Fault::new(ReasonCode::QoSNotSupported, "the QoS of the will is above Maximum QoS"));
    }
    if will.retain && !settings.retain_enabled {
        return Err(Fault::new(ReasonCode::RetainNotSupported, "the will is retained, but retaining is off"));
    }
    if will.payload.len() as u64 > u64::from(settings.max_last_will_bytes) {
        return Err(Fault::new(ReasonCode::PacketTooLarge, "the will is too large"));
    }
    if !settings.allows_topic(will.topic.as_str()) {
        return Err(Fault::new(
            ReasonCode::TopicNameInvalid,
            "the topic of the will is too long or has too many levels",
        ));
    }
    let invalid = will.payload_is_utf8 && std::str::from_utf8(&will.payload).is_err();
    if invalid && settings.payload_format_validation_enabled {
        return Err(Fault::new(ReasonCode::PayloadFormatInvalid, "the will is said to be UTF-8 and is not"));
    }
    Ok(PendingWill {
        message: Arc::new(Message {
            topic: will.topic.detached(),
            payload: Bytes::copy_from_slice(&will.payload),
            qos: will.qos,
            retain: will.retain,
            properties: Bytes::copy_from_slice(&will.forwarded),
            expires_at: None,
            publisher: Some(client.clone()),
        }),
        delay_secs: will.delay_interval,
        expiry_secs: will.message_expiry_interval,
        owner: ByteString::new(),
    })
}
