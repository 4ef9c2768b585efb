//! What is counted where: the names of causes, and which packet and layer is which label.

use mqtt_codec::{Packet, Version};
use mqtt_session::{CloseReason, DropReason};
use mqtt_transport::TransportKind;
use telemetry::{Layer, PacketKind, ProtocolVersion};

/// The client has no right to it.
pub(crate) const NOT_AUTHORIZED: &str = "not_authorized";
/// The will's client has no right to publish it any more; counted once, whoever subscribed.
pub(crate) const WILL_NOT_AUTHORIZED: &str = "will_not_authorized";
/// The receiver takes QoS 0 messages too slowly.
pub(crate) const SLOW_RECEIVER: &str = "slow_receiver";

/// QoS 0 for a persistent session that is not connected.
pub(crate) const OFFLINE: &str = "offline_qos0";
/// A store could not take it, and nobody waits for an acknowledgement.
pub(crate) const UNAVAILABLE: &str = "unavailable";
/// The node of the live sessions that it was for did not answer in time.
pub(crate) const NODE_AWAY: &str = "node_away";
/// The message matched more shared groups than `MaxGroupFanout`.
pub(crate) const GROUP_FANOUT: &str = "group_fanout";
/// The message matched more inboxes than `MaxPersistentFanout`, or more bytes than `MaxPersistentFanoutBytes`.
pub(crate) const PERSISTENT_FANOUT: &str = "persistent_fanout";

/// The disk is fuller than `diskRefusePercent`: a QoS 0 message was delivered but not retained.
pub(crate) const DISK_ALARM: &str = "disk_alarm";

/// The rest of a packet did not come in time: why a connection ended.
pub(crate) const PACKET_TIMEOUT: &str = "packet_timeout";

pub(crate) fn drop_cause(reason: DropReason) -> &'static str {
    match reason {
        DropReason::PacketTooLarge => "packet_too_large",
        DropReason::Expired => "expired",
        DropReason::QueueFull => "queue_full",
    }
}

pub(crate) fn close_cause(reason: &CloseReason) -> &'static str {
    match reason {
        CloseReason::ByClient(_) => "by_client",
        CloseReason::TransportClosed => "transport_closed",
        CloseReason::ConnectTimeout => "connect_timeout",
        CloseReason::ByServer(code) | CloseReason::Refused(code) => code.name(),
    }
}

pub(crate) fn layer(kind: TransportKind) -> Layer {
    match kind {
        TransportKind::Tcp => Layer::Tcp,
        TransportKind::Tls => Layer::Tls,
        TransportKind::Ws => Layer::Ws,
        TransportKind::Wss => Layer::Wss,
    }
}

pub(crate) fn protocol(version: Version) -> ProtocolVersion {
    match version {
        Version::V3 => ProtocolVersion::V31,
        Version::V4 => ProtocolVersion::V311,
        Version::V5 => ProtocolVersion::V5,
    }
}

pub(crate) fn kind(packet: &Packet) -> PacketKind {
    match packet {
        Packet::Connect(_) => PacketKind::Connect,
        Packet::ConnAck(_) => PacketKind::ConnAck,
        Packet::Publish(_) => PacketKind::Publish,
        Packet::PubAck(_) => PacketKind::PubAck,
        Packet::PubRec(_) => PacketKind::PubRec,
        Packet::PubRel(_) => PacketKind::PubRel,
        Packet::PubComp(_) => PacketKind::PubComp,
        Packet::Subscribe(_) => PacketKind::Subscribe,
        Packet::SubAck(_) => PacketKind::SubAck,
        Packet::Unsubscribe(_) => PacketKind::Unsubscribe,
        Packet::UnsubAck(_) => PacketKind::UnsubAck,
        Packet::PingReq => PacketKind::PingReq,
        Packet::PingResp => PacketKind::PingResp,
        Packet::Disconnect(_) => PacketKind::Disconnect,
        Packet::Auth(_) => PacketKind::Auth,
    }
}
