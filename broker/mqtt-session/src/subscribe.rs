//! SUBSCRIBE and UNSUBSCRIBE (5.0 §3.8 to §3.11).

use crate::reason::{self, Fault};
use crate::session::Session;
use crate::{Action, OpId, SubscribeEntry, SubscribeOutcome, UnsubscribeOutcome};
use base_types::{MatchKind, PacketId, SubscriptionFilter, SubscriptionOptions};
use bytestring::ByteString;
use mqtt_codec::{Packet, ReasonCode, SubAck, Subscribe, SubscribeFilter, UnsubAck, Unsubscribe};
use std::num::NonZeroU32;

impl Session {
    pub(crate) fn subscribe(&mut self, subscribe: Subscribe, out: &mut Vec<Action>) -> Result<(), Fault> {
        let Subscribe { packet_id, subscription_identifier, filters, .. } = subscribe;
        if subscription_identifier.is_some() && !self.settings.subscription_identifier_enabled {
            return Err(Fault::new(
                ReasonCode::SubscriptionIdentifiersNotSupported,
                "subscription identifiers are off",
            ));
        }
        if filters.len() > usize::from(self.settings.max_topic_filters_per_sub) {
            return self.send_suback(packet_id, vec![ReasonCode::QuotaExceeded; filters.len()], out);
        }
        let mut codes = Vec::with_capacity(filters.len());
        let mut entries = Vec::with_capacity(filters.len());
        for asked in filters {
            match self.judge_filter(&asked.filter)? {
                Ok(filter) => {
                    let shared = filter.kind() == MatchKind::Shared;
                    if shared && asked.no_local {
                        // [MQTT-3.8.3-4]
                        return Err(Fault::protocol("No Local on a shared subscription"));
                    }
                    let options = self.options(&asked, subscription_identifier);
                    entries.push(SubscribeEntry { filter, options });
                    codes.push(None);
                }
                Err(code) => codes.push(Some(code)),
            }
        }
        if entries.is_empty() {
            return self.send_suback(packet_id, codes.into_iter().flatten().collect(), out);
        }
        let op = self.subscribes.push(packet_id, codes);
        out.push(Action::Subscribe { op, entries });
        Ok(())
    }

    fn options(&self, asked: &SubscribeFilter, identifier: Option<NonZeroU32>) -> SubscriptionOptions {
        SubscriptionOptions {
            qos: asked.qos.min(self.settings.maximum_qos),
            no_local: asked.no_local,
            retain_as_published: asked.retain_as_published,
            retain_handling: asked.retain_handling,
            identifier: identifier.map(NonZeroU32::get),
        }
    }

    /// Takes a filter that may be subscribed to, or the code that refuses it alone. The outer error ends the connection.
    fn judge_filter(&self, text: &ByteString) -> Result<Result<SubscriptionFilter, ReasonCode>, Fault> {
        let Ok(filter) = SubscriptionFilter::parse(text) else { return Ok(Err(ReasonCode::TopicFilterInvalid)) };
        let settings = &self.settings;
        if !settings.allows_topic(filter.topic_filter().as_str()) {
            return Ok(Err(ReasonCode::TopicFilterInvalid));
        }
        let unsupported = if filter.kind() == MatchKind::Shared && !settings.shared_subscription_enabled {
            Fault::new(ReasonCode::SharedSubscriptionsNotSupported, "shared subscriptions are off")
        } else if filter.topic_filter().has_wildcard() && !settings.wildcard_subscription_enabled {
            Fault::new(ReasonCode::WildcardSubscriptionsNotSupported, "wildcards are off")
        } else {
            return Ok(Ok(filter));
        };
        // A 5.0 client was told in CONNACK: using it is a protocol error (5.0 §3.2.2.3.11, §3.2.2.3.13).
        if self.is_v5() { Err(unsupported) } else { Ok(Err(unsupported.reason)) }
    }

    pub(crate) fn subscribe_done(
        &mut self,
        op: OpId,
        outcomes: &[SubscribeOutcome],
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        match self.complete(op, outcomes.iter().map(|outcome| reason::subscribed(*outcome))) {
            Some((packet_id, codes)) => self.send_suback(packet_id, codes, out),
            None => Ok(()),
        }
    }

    pub(crate) fn unsubscribe(&mut self, unsubscribe: Unsubscribe, out: &mut Vec<Action>) -> Result<(), Fault> {
        let Unsubscribe { packet_id, filters: asked, .. } = unsubscribe;
        if asked.len() > usize::from(self.settings.max_topic_filters_per_sub) {
            return self.send_unsuback(packet_id, vec![ReasonCode::UnspecifiedError; asked.len()], out);
        }
        let mut codes = Vec::with_capacity(asked.len());
        let mut filters = Vec::with_capacity(asked.len());
        for text in &asked {
            match SubscriptionFilter::parse(text) {
                Ok(filter) => {
                    filters.push(filter);
                    codes.push(None);
                }
                Err(_) => codes.push(Some(ReasonCode::TopicFilterInvalid)),
            }
        }
        if filters.is_empty() {
            return self.send_unsuback(packet_id, codes.into_iter().flatten().collect(), out);
        }
        let op = self.subscribes.push(packet_id, codes);
        out.push(Action::Unsubscribe { op, filters });
        Ok(())
    }

    pub(crate) fn unsubscribe_done(
        &mut self,
        op: OpId,
        outcomes: &[UnsubscribeOutcome],
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        match self.complete(op, outcomes.iter().map(|outcome| reason::unsubscribed(*outcome))) {
            Some((packet_id, codes)) => self.send_unsuback(packet_id, codes, out),
            None => Ok(()),
        }
    }

    /// Puts the outcomes where they are due. One that is missing is an error: nobody is told that he subscribed when he has not.
    fn complete(
        &mut self,
        op: OpId,
        mut outcomes: impl Iterator<Item = ReasonCode>,
    ) -> Option<(PacketId, Vec<ReasonCode>)> {
        if !self.is_connected() {
            return None;
        }
        let pending = self.subscribes.take(op)?;
        let code =
            |known: Option<ReasonCode>| known.or_else(|| outcomes.next()).unwrap_or(ReasonCode::UnspecifiedError);
        Some((pending.packet_id, pending.codes.into_iter().map(code).collect()))
    }

    fn send_suback(
        &self,
        packet_id: PacketId,
        reason_codes: Vec<ReasonCode>,
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        self.send_codes(Packet::SubAck(SubAck { packet_id, reason_codes, properties: None }), out)
    }

    fn send_unsuback(
        &self,
        packet_id: PacketId,
        reason_codes: Vec<ReasonCode>,
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        self.send_codes(Packet::UnsubAck(UnsubAck { packet_id, reason_codes, properties: None }), out)
    }

    /// These are the packets whose size the client decides.
    fn send_codes(&self, packet: Packet, out: &mut Vec<Action>) -> Result<(), Fault> {
        if !self.sender.fits(&packet) {
            return Err(Fault::new(ReasonCode::PacketTooLarge, "the answer is above Maximum Packet Size"));
        }
        out.push(Action::Send(packet));
        Ok(())
    }
}
