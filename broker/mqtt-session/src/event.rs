use crate::OpId;
use base_types::{Message, QoS, TenantId};
use bytes::Bytes;
use bytestring::ByteString;
use inbox_api::{Attached, Entry};
use mqtt_codec::{Packet, ReasonCode};
use std::sync::Arc;

/// Something that happened to a session.
#[derive(Debug)]
pub enum Event {
    /// A packet arrived.
    Packet(Packet),
    /// What arrived is no packet, or too large. The session tells the client, where the version lets it, and closes.
    Malformed {
        /// What a 5.0 client is told.
        reason: ReasonCode,
        /// For the reason string and the log.
        detail: String,
    },
    /// The deadline of [`crate::Session::poll_timeout`] has passed.
    Timeout,
    /// The answer to [`crate::Action::Authenticate`].
    Authenticated(AuthOutcome),
    /// The answer to [`crate::Action::Attach`].
    Attached(Result<Attached, ReasonCode>),
    /// A live message: QoS 0, or any QoS for a session without an inbox.
    Deliver(Delivery),
    /// The inbox has entries that were not fetched yet.
    Queued,
    /// The answer to [`crate::Action::Fetch`]; an empty one means that there is nothing more for now.
    Fetched(Vec<Entry>),
    /// The answer to [`crate::Action::Commit`].
    Committed(OpId, Result<(), ReasonCode>),
    /// The answer to [`crate::Action::Publish`], for QoS 1 and 2.
    PublishDone(OpId, PublishOutcome),
    /// The answer to [`crate::Action::Subscribe`].
    SubscribeDone(OpId, Vec<SubscribeOutcome>),
    /// The answer to [`crate::Action::Unsubscribe`].
    UnsubscribeDone(OpId, Vec<UnsubscribeOutcome>),
    /// The transport is gone.
    TransportClosed,
    /// The broker wants the connection to end: shutdown, takeover, eviction, a moved client …
    Disconnect {
        /// What a 5.0 client is told.
        reason: ReasonCode,
        /// Whether a will, if any, fires.
        publish_will: bool,
    },
}

/// What authentication said.
#[derive(Debug)]
pub enum AuthOutcome {
    /// Let in.
    Accept {
        /// Whose world the client is in.
        tenant: TenantId,
        /// Who it is; empty for anonymous.
        user: ByteString,
        /// For CONNACK or AUTH, with enhanced authentication.
        data: Option<Bytes>,
        /// Response Information, when the client asked and the provider has one.
        response_information: Option<ByteString>,
    },
    /// Enhanced authentication goes on: AUTH with this data is sent.
    Continue {
        /// Authentication data for the client.
        data: Option<Bytes>,
    },
    /// Kept out.
    Refuse {
        /// What a 5.0 client is told; narrowed for the others.
        reason: ReasonCode,
    },
}

/// A message on its way to one session.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message, shared by all receivers.
    pub message: Arc<Message>,
    /// The QoS of this delivery.
    pub qos: QoS,
    /// The RETAIN flag of this delivery.
    pub retain: bool,
    /// The identifiers of the subscriptions that matched. An empty vector does not allocate.
    pub subscription_identifiers: Vec<u32>,
}

/// How a PUBLISH of QoS 1 or 2 ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// Committed wherever it had to be; so many receivers.
    Accepted {
        /// 0: a 5.0 client is told No matching subscribers.
        receivers: u64,
    },
    /// Refused for good and not stored anywhere, nor its packet id: 5.0 is told why; before, it is acknowledged like any other (3.1.1 §3.3.5.2).
    Refused(ReasonCode),
    /// It could not be committed in time: no acknowledgement before 5.0, a reason code in 5.0. A 5.0 session with an inbox ends when
    /// it was QoS 2: only the next connection can tell whether it was stored.
    Failed(ReasonCode),
}

/// How one filter of a SUBSCRIBE ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeOutcome {
    /// With this QoS.
    Granted(QoS),
    /// Refused, with a code of 0x80 or above.
    Refused(ReasonCode),
}

/// How one filter of an UNSUBSCRIBE ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsubscribeOutcome {
    /// It is gone.
    Removed,
    /// It was not there.
    NotFound,
    /// It could not be removed, with a code of 0x80 or above.
    Refused(ReasonCode),
}
