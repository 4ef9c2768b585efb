//! Shorthands for tests.

use base_types::{ClientId, Incarnation, Message, NodeId, NodeIncarnation, QoS, TenantId, TopicName, WallMs};
use bytes::Bytes;
use bytestring::ByteString;
use inbox_api::{Attach, FullPolicy, InboxId, InboxReceiver, Insert, Origin, PendingWill, QueueLimits};
use std::sync::Arc;

pub(crate) const NODE: NodeId = NodeId(7);
pub(crate) const RUN: NodeIncarnation = NodeIncarnation { node: NODE, incarnation: Incarnation(3) };
pub(crate) const START: WallMs = WallMs(1_000_000);

pub(crate) fn client(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

pub(crate) fn inbox(name: &str) -> InboxId {
    InboxId { tenant: TenantId::default(), client: client(name) }
}

pub(crate) const LIMITS: QueueLimits =
    QueueLimits { messages: 1000, bytes: 1 << 20, when_full: FullPolicy::DropOldest };

pub(crate) fn attach(name: &str, expiry_secs: u32) -> Attach {
    Attach {
        inbox: inbox(name),
        clean_start: false,
        expiry_secs,
        owner: "ann".into(),
        node: RUN,
        will: None,
        limits: LIMITS,
    }
}

pub(crate) fn message(payload: &[u8]) -> Message {
    Message {
        topic: TopicName::new("t").unwrap(),
        payload: Bytes::copy_from_slice(payload),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Bytes::new(),
        expires_at: None,
        publisher: None,
    }
}

pub(crate) fn will(delay_secs: u32) -> PendingWill {
    PendingWill { message: Arc::new(message(b"will")), delay_secs, expiry_secs: None, owner: ByteString::new() }
}

pub(crate) fn to(name: &str, incarnation: u64) -> InboxReceiver {
    InboxReceiver {
        client: client(name),
        incarnation,
        qos: QoS::AtLeastOnce,
        retain: false,
        subscription_identifiers: Vec::new(),
    }
}

pub(crate) fn insert(payload: &[u8], receivers: Vec<InboxReceiver>) -> Insert {
    Insert { tenant: TenantId::default(), message: Arc::new(message(payload)), receivers, origin: Origin::None }
}
