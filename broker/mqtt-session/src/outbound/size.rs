use crate::{Alias, Delivery};
use base_types::QoS;

/// The size on the wire of a 5.0 PUBLISH, in bytes.
pub(super) fn publish_size(delivery: &Delivery, alias: Option<Alias>) -> u64 {
    let message = &delivery.message;
    let topic = if alias.is_some_and(|alias| alias.known) { 0 } else { message.topic.as_str().len() };
    let packet_id = if delivery.qos == QoS::AtMostOnce { 0 } else { 2 };
    let mut properties = message.properties.len();
    if message.expires_at.is_some() {
        properties += 5;
    }
    if alias.is_some() {
        properties += 3;
    }
    for identifier in &delivery.subscription_identifiers {
        properties += 1 + varint_size(u64::from(*identifier));
    }
    let properties = properties as u64;
    let rest =
        2 + topic as u64 + packet_id + varint_size(properties) as u64 + properties + message.payload.len() as u64;
    1 + varint_size(rest) as u64 + rest
}

/// The size of a Variable Byte Integer (5.0 §1.5.5).
fn varint_size(value: u64) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}
