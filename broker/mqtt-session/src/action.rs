use base_types::{Message, PacketId, SubscriptionFilter, SubscriptionOptions, TopicName};
use bytes::Bytes;
use bytestring::ByteString;
use inbox_api::{Commit, PendingWill, WillFate};
use mqtt_codec::{Connect, Packet, ReasonCode};
use std::num::NonZeroU16;

use crate::Delivery;

/// An operation that a driver answers later, with an event that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// Something that a driver does for a session.
#[derive(Debug)]
pub enum Action {
    /// Send a packet. PUBLISH goes by [`Action::Deliver`].
    Send(Packet),
    /// Send a PUBLISH. The driver encodes it, once for all receivers when nothing in it is this receiver's own.
    Deliver {
        /// What.
        delivery: Delivery,
        /// `None` for QoS 0.
        packet_id: Option<PacketId>,
        /// Might be a re-delivery.
        dup: bool,
        /// The alias to send, and whether it stands instead of the topic.
        alias: Option<Alias>,
    },
    /// Ask the authentication provider.
    Authenticate(Box<AuthRequest>),
    /// Take over or make the inbox; kick an older connection of the same client.
    Attach(Box<AttachRequest>),
    /// Authorize and distribute a message. Answered by `PublishDone` when there is an `op` (QoS 1 and 2).
    Publish {
        /// `None` for QoS 0.
        op: Option<OpId>,
        /// The message. Its publisher is this client.
        message: Message,
        /// The packet id of a QoS 2 PUBLISH whose receipt the inbox must remember; only for sessions with an inbox.
        inbound: Option<PacketId>,
    },
    /// Authorize and subscribe; then send the retained messages that are asked for.
    Subscribe {
        /// Named in the answer.
        op: OpId,
        /// Filters that are well formed and within the limits; the session itself refuses the others.
        entries: Vec<SubscribeEntry>,
    },
    /// Unsubscribe.
    Unsubscribe {
        /// Named in the answer.
        op: OpId,
        /// What.
        filters: Vec<SubscriptionFilter>,
    },
    /// Read the inbox.
    Fetch {
        /// Not below.
        from_seq: u64,
        /// At most so many entries.
        max: usize,
    },
    /// Make durable what happened. Answered by `Committed` when there is an `op`.
    Commit {
        /// Whether the session waits for it.
        op: Option<OpId>,
        /// What.
        commit: Commit,
    },
    /// The session with the broker ends: detach the inbox, remove live subscriptions. Comes once, before `Close`, and only after `Attached`.
    Detach {
        /// Changed by DISCONNECT.
        expiry_secs: Option<u32>,
        /// What becomes of the will.
        will: WillFate,
    },
    /// A message was given up: counted by cause.
    Dropped {
        /// Why.
        cause: DropReason,
        /// How many.
        count: u64,
    },
    /// Write what is buffered, then close the transport. Nothing comes after it.
    Close(CloseReason),
}

/// How a topic alias is used in one PUBLISH (5.0 §3.3.2.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The alias.
    pub alias: NonZeroU16,
    /// The receiver knows it already: the topic is left out.
    pub known: bool,
}

/// Why a live message was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Larger than the Maximum Packet Size of the receiver [MQTT-3.1.2-24].
    PacketTooLarge,
    /// Expired before it could be sent.
    Expired,
    /// The queue of a session without an inbox is full.
    QueueFull,
}

/// What the authentication provider gets to see.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it travels in a box")]
pub enum AuthRequest {
    /// The CONNECT.
    Connect(Connect),
    /// An AUTH that continues, or starts a re-authentication.
    Continue {
        /// The method of the connection.
        method: ByteString,
        /// The client's data.
        data: Option<Bytes>,
        /// The client asked for it after it was connected.
        reauthenticate: bool,
    },
}

/// What a session wants of its inbox.
#[derive(Debug)]
pub struct AttachRequest {
    /// The client id, assigned when the client sent none.
    pub client_id: base_types::ClientId,
    /// Clean Start.
    pub clean_start: bool,
    /// Seconds, within the limits of the settings.
    pub expiry_secs: u32,
    /// The will.
    pub will: Option<PendingWill>,
    /// Where the will goes, for the permission check; same as in `will`.
    pub will_topic: Option<TopicName>,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Debug)]
pub struct SubscribeEntry {
    /// The filter.
    pub filter: SubscriptionFilter,
    /// The options; the QoS is within the limits of the settings already.
    pub options: SubscriptionOptions,
}

/// Why a connection ended. The names are those of the metric, the event and the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client said DISCONNECT.
    ByClient(ReasonCode),
    /// The transport ended without DISCONNECT.
    TransportClosed,
    /// The broker ended it and told why.
    ByServer(ReasonCode),
    /// CONNECT was refused.
    Refused(ReasonCode),
    /// No CONNECT came in time.
    ConnectTimeout,
}
