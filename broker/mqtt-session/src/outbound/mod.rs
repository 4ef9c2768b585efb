//! From the broker to the client: QoS 0 at once; QoS 1 and 2 through a [`Window`], from a queue in memory ([`LiveQueue`]) or from an
//! inbox ([`Puller`]).

mod alias;
mod deliver;
mod live_queue;
mod puller;
mod window;

pub(crate) use alias::AliasesOut;
pub(crate) use live_queue::LiveQueue;
pub(crate) use puller::Puller;
pub(crate) use window::{Flight, Window};

use crate::{Action, Alias, Delivery, DropReason};
use base_types::{PacketId, QoS, WallMs};
use mqtt_codec::{Packet, PublishParts, Version};
use std::num::NonZeroU32;

/// How messages are put to this client.
#[derive(Debug)]
pub(crate) struct Sender {
    /// `None` before CONNECT.
    pub(crate) version: Option<Version>,
    /// The client's Maximum Packet Size.
    pub(crate) max_packet_size: Option<NonZeroU32>,
    /// Only when the client takes topic aliases.
    pub(crate) aliases: Option<Box<AliasesOut>>,
}

impl Sender {
    /// Whether the message may be sent at all.
    pub(crate) fn judge(&self, delivery: &Delivery, wall: WallMs) -> Result<(), DropReason> {
        if delivery.message.is_expired(wall) {
            return Err(DropReason::Expired);
        }
        let Some(max) = self.max_packet_size else { return Ok(()) };
        // Without an alias, or with the best one: a message that fits in either way is sent in that way.
        let alias = self.aliases.as_ref().and_then(|aliases| aliases.known(&delivery.message.topic));
        if publish_size(delivery, alias) <= max.get() as usize { Ok(()) } else { Err(DropReason::PacketTooLarge) }
    }

    /// Whether the client takes a packet of this size [MQTT-3.1.2-24].
    pub(crate) fn fits(&self, packet: &Packet) -> bool {
        self.max_packet_size
            .is_none_or(|max| mqtt_codec::encoded_len(packet, Version::V5).is_ok_and(|len| len <= max.get() as usize))
    }

    /// A PUBLISH that [`Sender::judge`] let through.
    pub(crate) fn send(&mut self, delivery: Delivery, packet_id: Option<PacketId>, dup: bool, out: &mut Vec<Action>) {
        let alias = self.alias(&delivery);
        out.push(Action::Deliver { delivery, packet_id, dup, alias });
    }

    fn alias(&mut self, delivery: &Delivery) -> Option<Alias> {
        let aliases = self.aliases.as_mut()?;
        let topic = &delivery.message.topic;
        if let Some(known) = aliases.known(topic) {
            return Some(known);
        }
        let fresh = aliases.next()?;
        if let Some(max) = self.max_packet_size
            && publish_size(delivery, Some(fresh)) > max.get() as usize
        {
            return None;
        }
        aliases.assign(topic, fresh);
        Some(fresh)
    }
}

/// The size on the wire, in bytes. Only 5.0 clients have a maximum. An expiry is of the same size whatever is left of it.
fn publish_size(delivery: &Delivery, alias: Option<Alias>) -> usize {
    let message = &delivery.message;
    let parts = PublishParts {
        topic: if alias.is_some_and(|alias| alias.known) { "" } else { message.topic.as_str() },
        payload: &message.payload,
        qos: delivery.qos,
        message_expiry_interval: message.expires_at.map(|_| 0),
        topic_alias: alias.map(|alias| alias.alias),
        subscription_identifiers: &delivery.subscription_identifiers,
        forwarded: &message.properties,
        ..PublishParts::default()
    };
    parts.encoded_len(Version::V5)
}

/// What a PUBLISH of this QoS waits for first.
pub(crate) fn first_flight(qos: QoS) -> Flight {
    match qos {
        QoS::AtMostOnce => Flight::Done,
        QoS::AtLeastOnce => Flight::AwaitsPubAck,
        QoS::ExactlyOnce => Flight::AwaitsPubRec,
    }
}
