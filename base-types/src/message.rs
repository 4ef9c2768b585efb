use crate::{ClientId, QoS, TopicName, WallMs};
use bytes::Bytes;

/// An application message on its way through the broker, made once per PUBLISH and shared.
///
/// Topic, payload and properties are slices of the frame that the publisher sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it was published to.
    pub topic: TopicName,
    /// The application payload.
    pub payload: Bytes,
    /// The QoS with which it was published.
    pub qos: QoS,
    /// The RETAIN flag with which it was published.
    pub retain: bool,
    /// The 5.0 properties that a server forwards unaltered (payload format indicator, content type, response topic,
    /// correlation data, user properties), in wire form without the length in front. Empty when there are none.
    pub properties: Bytes,
    /// When it expires, if it does (5.0 §3.3.2.3.3).
    pub expires_at: Option<WallMs>,
    /// Who published it: what No Local compares. `None` for messages of the broker itself.
    pub publisher: Option<ClientId>,
}

impl Message {
    /// Whether it must no longer be delivered at `now`.
    #[must_use]
    pub fn is_expired(&self, now: WallMs) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// What is left of its life, in whole seconds rounded up, as a 5.0 PUBLISH carries it.
    #[must_use]
    pub fn expiry_left_secs(&self, now: WallMs) -> Option<u32> {
        self.expires_at.map(|at| u32::try_from(at.since(now).div_ceil(1000)).unwrap_or(u32::MAX))
    }

    /// The bytes that it is accounted with in queues.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.topic.as_str().len() + self.payload.len() + self.properties.len()
    }

    /// A copy that does not keep the read buffer alive from which the message was cut. For what is kept long.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self {
            topic: self.topic.detached(),
            payload: Bytes::copy_from_slice(&self.payload),
            qos: self.qos,
            retain: self.retain,
            properties: Bytes::copy_from_slice(&self.properties),
            expires_at: self.expires_at,
            publisher: self.publisher.as_ref().map(ClientId::detached),
        }
    }
}
