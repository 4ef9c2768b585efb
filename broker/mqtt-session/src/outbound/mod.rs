//! From the broker to the client: QoS 0 at once; QoS 1 and 2 through a [`Window`], from a queue in memory ([`LiveQueue`]) or from an
//! inbox ([`Puller`]).

mod alias;
mod deliver;
mod live_queue;
mod puller;
mod size;
mod window;

pub(crate) use alias::AliasesOut;
pub(crate) use live_queue::LiveQueue;
pub(crate) use puller::Puller;
pub(crate) use window::{Flight, Window};

use crate::{Action, Alias, Delivery, DropReason};
use base_types::{PacketId, QoS, WallMs};
use mqtt_codec::Version;
use std::num::NonZeroU32;

/// How messages are put to this client.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) version: Version,
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
        if size::publish_size(delivery, alias) <= u64::from(max.get()) {
            Ok(())
        } else {
            Err(DropReason::PacketTooLarge)
        }
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
            && size::publish_size(delivery, Some(fresh)) > u64::from(max.get())
        {
            return None;
        }
        aliases.assign(topic, fresh);
        Some(fresh)
    }
}

/// What a PUBLISH of this QoS waits for first.
pub(crate) fn first_flight(qos: QoS) -> Flight {
    match qos {
        QoS::AtMostOnce => Flight::Done,
        QoS::AtLeastOnce => Flight::AwaitsPubAck,
        QoS::ExactlyOnce => Flight::AwaitsPubRec,
    }
}
