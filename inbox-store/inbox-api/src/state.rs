use crate::{PendingWill, WillFate};
use base_types::{
    ClientId, Message, NodeIncarnation, PacketId, QoS, SubscriptionFilter, SubscriptionOptions, TenantId, WallMs,
};
use bytestring::ByteString;
use std::num::NonZeroU16;
use std::sync::Arc;

/// Whose inbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InboxId {
    /// The tenant.
    pub tenant: TenantId,
    /// The client.
    pub client: ClientId,
}

/// Under which ownership an operation is made. The fence of takeovers (design P4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionVersion {
    /// Which life of the inbox: a new one after clean start or expiry. Never reused for a client.
    pub incarnation: u64,
    /// Which attach in this life.
    pub attach: u64,
}

/// How much an inbox may queue, and what gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Messages.
    pub messages: u64,
    /// Bytes, as [`Message::cost`] counts them.
    pub bytes: u64,
    /// What gives way when a limit is reached.
    pub when_full: FullPolicy,
}

/// What gives way when a queue is full. Each drop is counted and told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FullPolicy {
    /// The oldest entry that is not in flight goes; the new one enters.
    #[default]
    DropOldest,
    /// The new one does not enter; its publisher is acknowledged.
    DropNewest,
    /// The new one does not enter; when every receiver refuses, the publisher is told Quota exceeded.
    Reject,
}

/// Takes over an inbox, or makes one.
#[derive(Clone, Debug)]
pub struct Attach {
    /// Whose.
    pub inbox: InboxId,
    /// Discard what there is [MQTT-3.1.2-4].
    pub clean_start: bool,
    /// Seconds that the session outlives the connection; `u32::MAX` never ends (5.0 §3.1.2.11.2).
    pub expiry_secs: u32,
    /// Who is authenticated as the owner; empty for anonymous. Another owner is refused (faults.md T16).
    pub owner: ByteString,
    /// The run of the node that holds the connection: when it dies, the inbox counts as detached.
    pub node: NodeIncarnation,
    /// The will of this connection.
    pub will: Option<PendingWill>,
    /// What the queue may hold.
    pub limits: QueueLimits,
}

/// What a session finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// `None`: nothing is kept for this session (it ends with the connection and has no will), and nothing was there.
    pub version: Option<SessionVersion>,
    /// An inbox of an earlier connection goes on.
    pub session_present: bool,
    /// What is subscribed, in a stable order.
    pub subscriptions: Vec<(SubscriptionFilter, SubscriptionOptions)>,
    /// QoS 2 from the client: packet ids that have been received and not yet released by PUBREL.
    pub inbound: Vec<PacketId>,
    /// QoS 2 to the client: entries for which PUBREC came: PUBREL is due, again, in this order.
    pub released: Vec<u64>,
    /// The lowest entry that is not acknowledged, or the next one when the queue is empty.
    pub first_seq: u64,
    /// Entries below may have been sent on an earlier connection: sent again with DUP.
    pub sent_upto: u64,
}

/// Leaves an inbox.
#[derive(Clone, Debug)]
pub struct Detach {
    /// Whose.
    pub inbox: InboxId,
    /// The ownership that ends.
    pub version: SessionVersion,
    /// Changed by DISCONNECT, when there.
    pub expiry_secs: Option<u32>,
    /// What becomes of the will.
    pub will: WillFate,
}

/// One receiver of an [`Insert`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxReceiver {
    /// Whose inbox.
    pub client: ClientId,
    /// Which life of it; another one answers [`InsertOutcome::NoInbox`].
    pub incarnation: u64,
    /// The QoS of the delivery: 1 or 2.
    pub qos: QoS,
    /// The RETAIN flag of the delivery.
    pub retain: bool,
    /// The identifiers of all subscriptions that matched.
    pub subscription_identifiers: Vec<u32>,
}

/// What is settled together with an insert, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing.
    None,
    /// A QoS 2 PUBLISH of a session with an inbox: its packet id is remembered until PUBREL. When it is remembered already,
    /// the insert does nothing: it is a repetition. When all receivers refuse ([`DropCause::QueueFullRejected`]), it is not
    /// remembered: the PUBREC that says so ends the exchange.
    Inbound {
        /// The publisher's inbox.
        inbox: InboxId,
        /// Its ownership.
        version: SessionVersion,
        /// The id of the PUBLISH.
        packet_id: PacketId,
    },
    /// A will that is due: it is gone once this is done, so it fires once. When it is gone already, the insert does nothing.
    Will {
        /// Whose will.
        inbox: InboxId,
        /// As told by [`crate::InboxListener::will_due`].
        version: SessionVersion,
    },
}

/// Queues one message for any number of inboxes of a tenant. The message is stored once.
#[derive(Clone, Debug)]
pub struct Insert {
    /// The tenant of the receivers.
    pub tenant: TenantId,
    /// The message.
    pub message: Arc<Message>,
    /// Who gets it; may be empty when the origin is to be settled.
    pub receivers: Vec<InboxReceiver>,
    /// What is settled with it.
    pub origin: Origin,
}

/// What became of a message at one receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertOutcome {
    /// On disk.
    Stored,
    /// Not stored, or something older gave way: counted by cause.
    Dropped(DropCause),
    /// There is no such life of this inbox: the route is stale.
    NoInbox,
    /// The origin was settled before: a repetition, nothing was done.
    Repeated,
}

/// Why a message was dropped. The names are those of the metric, the event and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropCause {
    /// The oldest entry gave way to this message, which is stored.
    QueueFullOldest,
    /// This message did not enter.
    QueueFullNewest,
    /// This message did not enter and its publisher is to be told.
    QueueFullRejected,
    /// It expired while it waited.
    Expired,
}

/// An entry of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub seq: u64,
    /// The message.
    pub message: Arc<Message>,
    /// The QoS of the delivery: 1 or 2.
    pub qos: QoS,
    /// The RETAIN flag of the delivery.
    pub retain: bool,
    /// The identifiers of all subscriptions that matched.
    pub subscription_identifiers: Vec<u32>,
}

/// What happened on a connection since the last commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Entries that are done: PUBACK, PUBCOMP, PUBREC with an error, or expired before they were sent.
    pub done: Vec<u64>,
    /// QoS 2 entries for which PUBREC came: never published again; PUBREL may leave once this is committed.
    pub received: Vec<u64>,
    /// Entries below may be sent from now on, those too that will be queued only later: a session marks ahead, so that a message
    /// that arrives needn't wait for a commit of its own. Taken as it is, also when it is less than before: the last commit of a
    /// connection gives back what was not sent. What is beyond the queue when the inbox is detached, or attached anew, is cut there.
    pub sent_upto: Option<u64>,
    /// Inbound QoS 2 ids that PUBREL released: PUBCOMP may leave once this is committed.
    pub released_inbound: Vec<PacketId>,
}

impl Commit {
    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.received.is_empty() && self.sent_upto.is_none() && self.released_inbound.is_empty()
    }
}

/// What the inboxes hold, as the replica of this node knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxStats {
    /// The replica leads. Each node has all inboxes: what follows is that of the whole cluster, on each node the same but for what it lags;
    /// that of the leader is for the sum over all nodes.
    pub leads: bool,
    /// Inboxes, attached or not.
    pub inboxes: u64,
    /// Of them with a connection.
    pub attached: u64,
    /// Of those, with a connection on this node: this one can be summed.
    pub attached_here: u64,
    /// Entries in all queues.
    pub queued_messages: u64,
    /// Bytes of all bodies, each counted once for each receiver.
    pub queued_bytes: u64,
    /// Wills of connections that have ended: they wait for their delay, or to be settled.
    pub wills: u64,
    /// Inboxes that ended, with routes that may not be removed yet.
    pub ended: u64,
    /// Bytes of messages that this node keeps in memory beside the disk.
    pub cached_bytes: u64,
    // What follows counts since the start, on the node that leads, so that the sum over all nodes is right:
    // what was queued at the start + stored = queued + done + dropped_oldest + expired + discarded.
    // What two leaders apply around a change of leadership is counted by both or by none: a few entries for each change.
    /// Entries that were queued.
    pub stored: u64,
    /// Entries that were acknowledged.
    pub done: u64,
    /// [`DropCause::QueueFullOldest`]
    pub dropped_oldest: u64,
    /// [`DropCause::QueueFullNewest`]
    pub dropped_newest: u64,
    /// [`DropCause::QueueFullRejected`]
    pub rejected: u64,
    /// [`DropCause::Expired`]
    pub expired: u64,
    /// Entries that were queued when their session ended.
    pub discarded: u64,
}

impl InboxStats {
    /// What counts since the start alone.
    #[must_use]
    pub fn counts(self) -> Self {
        let Self { stored, done, dropped_oldest, dropped_newest, rejected, expired, discarded, .. } = self;
        Self { stored, done, dropped_oldest, dropped_newest, rejected, expired, discarded, ..Self::default() }
    }
}

/// An inbox, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxSummary {
    /// Whose.
    pub inbox: InboxId,
    /// Its life, and the latest attach.
    pub version: SessionVersion,
    /// Who is authenticated as the owner; empty for anonymous.
    pub owner: ByteString,
    /// The run of the node that holds the connection; `None` when there is none.
    pub attached: Option<NodeIncarnation>,
    /// When it ends unless somebody attaches. `None` while attached, or when it never ends.
    pub expires_at: Option<WallMs>,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Entries in the queue.
    pub messages: u64,
    /// Bytes in the queue.
    pub bytes: u64,
}

/// The packet id of an entry.
#[must_use]
pub fn packet_id_of(seq: u64) -> PacketId {
    let id = u16::try_from(seq.wrapping_sub(1) % 65_535 + 1).unwrap_or(1);
    NonZeroU16::new(id).unwrap_or(NonZeroU16::MIN)
}
