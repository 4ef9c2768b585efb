//! PUBLISH from the client, and PUBREL (5.0 §3.3, §4.3).

use super::{AliasesIn, Answer};
use crate::reason::{self, Fault, Settled};
use crate::session::{Phase, Session};
use crate::{Action, OpId, PublishOutcome};
use base_types::{Message, PacketId, QoS, TopicName, WallMs};
use mqtt_codec::{Ack, Packet, Publish, ReasonCode};
use std::num::NonZeroU16;
use std::time::Instant;

impl Session {
    pub(crate) fn publish(
        &mut self,
        now: Instant,
        wall: WallMs,
        publish: Publish,
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        if let Some(rate) = &mut self.inbound.rate
            && !rate.take(now, self.settings.msg_pub_per_sec)
        {
            return Err(Fault::new(ReasonCode::MessageRateTooHigh, "more messages per second than allowed"));
        }
        let Publish { qos, retain, packet_id, payload, payload_is_utf8, .. } = publish;
        if qos > self.settings.maximum_qos {
            return Err(Fault::new(ReasonCode::QoSNotSupported, "the QoS is above Maximum QoS"));
        }
        if retain && !self.settings.retain_enabled {
            return Err(Fault::new(ReasonCode::RetainNotSupported, "retaining is off"));
        }
        let topic = self.resolve_topic(publish.topic, publish.topic_alias)?;

        // QoS 2: a repetition is answered, not published again [MQTT-4.3.3-10].
        let exactly_once = qos == QoS::ExactlyOnce;
        if let Some(id) = packet_id
            && exactly_once
            && self.inbound.ids.contains(id)
        {
            if self.inbound.acks.settled(id).is_none() {
                // In its turn, too: PUBREC follows the order of the PUBLISHes.
                let settled = Settled::Ack(ReasonCode::Success);
                self.inbound.acks.push(Answer { id, exactly_once, settled });
                self.answer_publishes(out);
            }
            return Ok(());
        }

        let refusal = if !self.settings.allows_topic(topic.as_str()) {
            Some(Fault::new(ReasonCode::TopicNameInvalid, "the topic is too long or has too many levels"))
        } else if payload_is_utf8
            && self.settings.payload_format_validation_enabled
            && std::str::from_utf8(&payload).is_err()
        {
            Some(Fault::new(ReasonCode::PayloadFormatInvalid, "the payload is said to be UTF-8 and is not"))
        } else {
            None
        };
        let (op, inbound) = match (packet_id, refusal) {
            (None, Some(fault)) => return Err(fault),
            // Before 5.0 an acknowledgement can't refuse.
            (Some(_), Some(fault)) if !self.is_v5() => return Err(fault),
            (Some(id), Some(fault)) => {
                self.open_publish(id, exactly_once, Settled::Ack(reason::in_pub_ack(fault.reason)))?;
                self.answer_publishes(out);
                return Ok(());
            }
            (None, None) => (None, None),
            (Some(id), None) => {
                let op = self.open_publish(id, exactly_once, Settled::Waiting)?;
                (Some(op), (exactly_once && self.inbox.is_some()).then_some(id))
            }
        };
        let message = Message {
            topic,
            payload,
            qos,
            retain,
            properties: publish.forwarded,
            expires_at: publish.message_expiry_interval.map(|secs| wall.plus_secs(u64::from(secs))),
            publisher: self.client_id.clone(),
        };
        out.push(Action::Publish { op, message, inbound });
        Ok(())
    }

    fn resolve_topic(&mut self, topic: Option<TopicName>, alias: Option<NonZeroU16>) -> Result<TopicName, Fault> {
        let Some(alias) = alias else {
            return topic.ok_or_else(|| Fault::protocol("PUBLISH with neither topic nor alias"));
        };
        if alias.get() > self.settings.max_topic_alias {
            // [MQTT-3.3.2-9]
            return Err(Fault::new(ReasonCode::TopicAliasInvalid, "the topic alias is above Topic Alias Maximum"));
        }
        match topic {
            Some(topic) => {
                let aliases = self.inbound.aliases.get_or_insert_with(|| Box::new(AliasesIn::default()));
                aliases.set(alias, &topic);
                Ok(topic)
            }
            // 5.0 §3.3.4: 0x82 for an alias that was never set; 0x94 is for 0 and above the maximum.
            None => {
                let known = self.inbound.aliases.as_ref().and_then(|aliases| aliases.get(alias));
                known.cloned().ok_or_else(|| Fault::protocol("the topic alias was never set"))
            }
        }
    }

    fn open_publish(&mut self, id: PacketId, exactly_once: bool, settled: Settled) -> Result<OpId, Fault> {
        if self.is_v5() && self.inbound.quota_used >= self.settings.receiving_maximum {
            // [MQTT-3.3.4-7]; other versions know no quota and are slowed down by not reading.
            return Err(Fault::new(ReasonCode::ReceiveMaximumExceeded, "more open messages than Receive Maximum"));
        }
        self.inbound.quota_used = self.inbound.quota_used.saturating_add(1);
        if exactly_once {
            self.inbound.ids.insert(id);
        }
        Ok(OpId(self.inbound.acks.push(Answer { id, exactly_once, settled })))
    }

    pub(crate) fn publish_done(
        &mut self,
        op: OpId,
        outcome: PublishOutcome,
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        if !matches!(self.phase, Phase::Connected) {
            return Ok(());
        }
        let settled = reason::published(self.is_v5(), outcome);
        let Some(answer) = self.inbound.acks.get_mut(op.0) else { return Ok(()) };
        if let (PublishOutcome::Failed(reason), Some(_), true, true) =
            (outcome, &self.inbox, answer.exactly_once, settled != Settled::Silent)
        {
            // It may be stored or not. An error in PUBREC would let the client send it as a new message, which might double it;
            // on the next connection it sends the same one again.
            return Err(Fault::new(reason, "a QoS 2 message could not be stored: connect and send it again"));
        }
        answer.settled = settled;
        self.answer_publishes(out);
        Ok(())
    }

    /// Sends the acknowledgements that are due and in turn.
    pub(crate) fn answer_publishes(&mut self, out: &mut Vec<Action>) {
        while let Some(Answer { id, exactly_once, settled }) = self.inbound.acks.pop() {
            let ended = !exactly_once || settled == Settled::Silent;
            match settled {
                Settled::Waiting | Settled::Silent => {}
                Settled::Ack(code) if exactly_once => {
                    if code.is_error() {
                        self.forget_inbound(id);
                    }
                    out.push(Action::Send(Packet::PubRec(Ack::new(id, code))));
                }
                Settled::Ack(code) => out.push(Action::Send(Packet::PubAck(Ack::new(id, code)))),
            }
            if ended {
                if exactly_once {
                    self.inbound.ids.remove(id);
                }
                self.inbound.quota_used = self.inbound.quota_used.saturating_sub(1);
            }
        }
    }

    fn forget_inbound(&mut self, id: PacketId) {
        if self.inbound.ids.remove(id) {
            self.inbound.quota_used = self.inbound.quota_used.saturating_sub(1);
        }
    }

    pub(crate) fn pub_rel(&mut self, ack: &Ack, out: &mut Vec<Action>) -> Result<(), Fault> {
        let id = ack.packet_id;
        if let Some(inbox) = &self.inbox
            && inbox.commits.releases(id)
        {
            // A repetition: PUBCOMP is on its way.
            return Ok(());
        }
        if !self.inbound.ids.contains(id) {
            out.push(Action::Send(Packet::PubComp(Ack::new(id, ReasonCode::PacketIdentifierNotFound))));
            return Ok(());
        }
        if self.inbound.acks.settled(id) == Some(Settled::Waiting) {
            return Err(Fault::protocol("PUBREL before PUBREC"));
        }
        self.inbound.ids.remove(id);
        match &mut self.inbox {
            Some(inbox) => {
                inbox.commits.gathered.released_inbound.push(id);
            }
            None => self.complete_inbound(id, out),
        }
        Ok(())
    }

    /// The release of a QoS 2 message is durable, where it has to be.
    pub(crate) fn complete_inbound(&mut self, id: PacketId, out: &mut Vec<Action>) {
        self.inbound.quota_used = self.inbound.quota_used.saturating_sub(1);
        out.push(Action::Send(Packet::PubComp(Ack::new(id, ReasonCode::Success))));
    }
}
