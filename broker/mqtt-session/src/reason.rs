//! Which outcome is told with which reason code. The only place of this crate that decides about codes.
//!
//! A service may answer with any code; a packet may carry only some (5.0 §2.4). What a packet can't carry becomes the nearest code
//! that it can.

use crate::{PublishOutcome, SubscribeOutcome, UnsubscribeOutcome};
use base_types::QoS;
use mqtt_codec::ReasonCode;
use std::borrow::Cow;

/// Why the session ends the connection, and what the client is told.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) reason: ReasonCode,
    pub(crate) text: Cow<'static, str>,
}

impl Fault {
    pub(crate) fn new(reason: ReasonCode, text: &'static str) -> Self {
        Self { reason, text: Cow::Borrowed(text) }
    }

    pub(crate) fn protocol(text: &'static str) -> Self {
        Self::new(ReasonCode::ProtocolError, text)
    }
}

/// What follows from the outcome of a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Not known yet.
    Waiting,
    /// PUBACK or PUBREC with this code.
    Ack(ReasonCode),
    /// No acknowledgement: the client sends it again.
    Silent,
}

/// A refused PUBLISH of 3.1 or 3.1.1 is acknowledged like any other (3.1.1 §3.3.5.2); one that failed is not.
pub(crate) fn published(is_v5: bool, outcome: PublishOutcome) -> Settled {
    match (outcome, is_v5) {
        (PublishOutcome::Accepted { receivers: 0 }, true) => Settled::Ack(ReasonCode::NoMatchingSubscribers),
        (PublishOutcome::Accepted { .. }, _) => Settled::Ack(ReasonCode::Success),
        (PublishOutcome::Refused(reason) | PublishOutcome::Failed(reason), true) => Settled::Ack(in_pub_ack(reason)),
        (PublishOutcome::Refused(_), false) => Settled::Ack(ReasonCode::Success),
        (PublishOutcome::Failed(_), false) => Settled::Silent,
    }
}

pub(crate) fn subscribed(outcome: SubscribeOutcome) -> ReasonCode {
    match outcome {
        SubscribeOutcome::Granted(QoS::AtMostOnce) => ReasonCode::Success,
        SubscribeOutcome::Granted(QoS::AtLeastOnce) => ReasonCode::GrantedQoS1,
        SubscribeOutcome::Granted(QoS::ExactlyOnce) => ReasonCode::GrantedQoS2,
        SubscribeOutcome::Refused(reason) => in_sub_ack(reason),
    }
}

pub(crate) fn unsubscribed(outcome: UnsubscribeOutcome) -> ReasonCode {
    match outcome {
        UnsubscribeOutcome::Removed => ReasonCode::Success,
        UnsubscribeOutcome::NotFound => ReasonCode::NoSubscriptionExisted,
        UnsubscribeOutcome::Refused(reason) => in_unsub_ack(reason),
    }
}

/// What CONNACK says to a client that is kept out (5.0 §3.2.2.2).
pub(crate) fn in_conn_ack(reason: ReasonCode) -> ReasonCode {
    use ReasonCode as R;
    match reason {
        R::UnspecifiedError
        | R::MalformedPacket
        | R::ProtocolError
        | R::ImplementationSpecificError
        | R::UnsupportedProtocolVersion
        | R::ClientIdentifierNotValid
        | R::BadUserNameOrPassword
        | R::NotAuthorized
        | R::ServerUnavailable
        | R::ServerBusy
        | R::Banned
        | R::BadAuthenticationMethod
        | R::TopicNameInvalid
        | R::PacketTooLarge
        | R::QuotaExceeded
        | R::PayloadFormatInvalid
        | R::RetainNotSupported
        | R::QoSNotSupported
        | R::UseAnotherServer
        | R::ServerMoved
        | R::ConnectionRateExceeded => reason,
        R::ServerShuttingDown => R::ServerUnavailable,
        R::MessageRateTooHigh => R::QuotaExceeded,
        R::AdministrativeAction => R::NotAuthorized,
        R::ReceiveMaximumExceeded | R::TopicAliasInvalid => R::ProtocolError,
        R::Success
        | R::GrantedQoS1
        | R::GrantedQoS2
        | R::DisconnectWithWill
        | R::NoMatchingSubscribers
        | R::NoSubscriptionExisted
        | R::ContinueAuthentication
        | R::ReAuthenticate
        | R::KeepAliveTimeout
        | R::SessionTakenOver
        | R::TopicFilterInvalid
        | R::PacketIdentifierInUse
        | R::PacketIdentifierNotFound
        | R::SharedSubscriptionsNotSupported
        | R::MaximumConnectTime
        | R::SubscriptionIdentifiersNotSupported
        | R::WildcardSubscriptionsNotSupported => R::UnspecifiedError,
    }
}

/// What a DISCONNECT of the server says (5.0 §3.14.2.1).
pub(crate) fn in_disconnect(reason: ReasonCode) -> ReasonCode {
    use ReasonCode as R;
    match reason {
        R::Success
        | R::UnspecifiedError
        | R::MalformedPacket
        | R::ProtocolError
        | R::ImplementationSpecificError
        | R::NotAuthorized
        | R::ServerBusy
        | R::ServerShuttingDown
        | R::BadAuthenticationMethod
        | R::KeepAliveTimeout
        | R::SessionTakenOver
        | R::TopicFilterInvalid
        | R::TopicNameInvalid
        | R::ReceiveMaximumExceeded
        | R::TopicAliasInvalid
        | R::PacketTooLarge
        | R::MessageRateTooHigh
        | R::QuotaExceeded
        | R::AdministrativeAction
        | R::PayloadFormatInvalid
        | R::RetainNotSupported
        | R::QoSNotSupported
        | R::UseAnotherServer
        | R::ServerMoved
        | R::SharedSubscriptionsNotSupported
        | R::ConnectionRateExceeded
        | R::MaximumConnectTime
        | R::SubscriptionIdentifiersNotSupported
        | R::WildcardSubscriptionsNotSupported => reason,
        R::ServerUnavailable => R::ServerBusy,
        R::BadUserNameOrPassword | R::Banned => R::NotAuthorized,
        R::UnsupportedProtocolVersion
        | R::ClientIdentifierNotValid
        | R::PacketIdentifierInUse
        | R::PacketIdentifierNotFound => R::ProtocolError,
        R::GrantedQoS1
        | R::GrantedQoS2
        | R::DisconnectWithWill
        | R::NoMatchingSubscribers
        | R::NoSubscriptionExisted
        | R::ContinueAuthentication
        | R::ReAuthenticate => R::UnspecifiedError,
    }
}

/// What PUBACK and PUBREC say about a PUBLISH that was not accepted (5.0 §3.4.2.1, §3.5.2.1).
pub(crate) fn in_pub_ack(reason: ReasonCode) -> ReasonCode {
    use ReasonCode as R;
    match reason {
        R::UnspecifiedError
        | R::ImplementationSpecificError
        | R::NotAuthorized
        | R::TopicNameInvalid
        | R::PacketIdentifierInUse
        | R::QuotaExceeded
        | R::PayloadFormatInvalid => reason,
        R::Banned | R::BadUserNameOrPassword | R::AdministrativeAction => R::NotAuthorized,
        R::PacketTooLarge | R::MessageRateTooHigh => R::QuotaExceeded,
        R::Success
        | R::GrantedQoS1
        | R::GrantedQoS2
        | R::DisconnectWithWill
        | R::NoMatchingSubscribers
        | R::NoSubscriptionExisted
        | R::ContinueAuthentication
        | R::ReAuthenticate
        | R::MalformedPacket
        | R::ProtocolError
        | R::UnsupportedProtocolVersion
        | R::ClientIdentifierNotValid
        | R::ServerUnavailable
        | R::ServerBusy
        | R::ServerShuttingDown
        | R::BadAuthenticationMethod
        | R::KeepAliveTimeout
        | R::SessionTakenOver
        | R::TopicFilterInvalid
        | R::PacketIdentifierNotFound
        | R::ReceiveMaximumExceeded
        | R::TopicAliasInvalid
        | R::RetainNotSupported
        | R::QoSNotSupported
        | R::UseAnotherServer
        | R::ServerMoved
        | R::SharedSubscriptionsNotSupported
        | R::ConnectionRateExceeded
        | R::MaximumConnectTime
        | R::SubscriptionIdentifiersNotSupported
        | R::WildcardSubscriptionsNotSupported => R::UnspecifiedError,
    }
}

/// What SUBACK says about a filter that was not accepted (5.0 §3.9.3).
fn in_sub_ack(reason: ReasonCode) -> ReasonCode {
    match reason {
        ReasonCode::SharedSubscriptionsNotSupported
        | ReasonCode::SubscriptionIdentifiersNotSupported
        | ReasonCode::WildcardSubscriptionsNotSupported
        | ReasonCode::QuotaExceeded => reason,
        other => in_unsub_ack(other),
    }
}

/// What UNSUBACK says about a filter that was not removed (5.0 §3.11.3).
fn in_unsub_ack(reason: ReasonCode) -> ReasonCode {
    match reason {
        ReasonCode::TopicFilterInvalid => reason,
        ReasonCode::TopicNameInvalid => ReasonCode::TopicFilterInvalid,
        // The rest of the codes is that of PUBACK, but for two that speak of messages.
        other => match in_pub_ack(other) {
            ReasonCode::QuotaExceeded | ReasonCode::PayloadFormatInvalid => ReasonCode::UnspecifiedError,
            code => code,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ReasonCode as R;

    #[test]
    fn a_failed_publish_is_told_only_where_the_version_can() {
        let failed = PublishOutcome::Failed(R::ServerBusy);
        assert_eq!(published(false, failed), Settled::Silent);
        assert_eq!(published(true, failed), Settled::Ack(R::UnspecifiedError));
        let refused = PublishOutcome::Refused(R::NotAuthorized);
        assert_eq!(published(false, refused), Settled::Ack(R::Success));
        assert_eq!(published(true, refused), Settled::Ack(R::NotAuthorized));
    }

    #[test]
    fn every_code_that_a_packet_carries_is_one_of_its_own() {
        for reason in
            [R::ServerUnavailable, R::ServerBusy, R::QuotaExceeded, R::Success, R::KeepAliveTimeout, R::Banned]
        {
            assert!(in_conn_ack(reason).is_error());
            assert!(in_pub_ack(reason).is_error());
            assert!(in_sub_ack(reason).is_error());
            assert!(in_unsub_ack(reason).is_error());
        }
        assert_eq!(in_sub_ack(R::QuotaExceeded), R::QuotaExceeded);
        assert_eq!(in_unsub_ack(R::QuotaExceeded), R::UnspecifiedError);
        assert_eq!(in_disconnect(R::ServerUnavailable), R::ServerBusy);
    }
}
