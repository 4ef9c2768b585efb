use base_types::{Message, QoS, TenantId, TopicName, WallMs};
use bytes::Bytes;

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub(crate) fn message(topic: &str, payload: &str, expires_at: Option<u64>) -> Message {
    Message {
        topic: TopicName::new(topic).unwrap(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: Bytes::new(),
        expires_at: expires_at.map(WallMs),
        publisher: None,
    }
}
