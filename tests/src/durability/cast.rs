use super::Report;
use super::churn::Churn;
use super::publisher::Publisher;
use super::receiver::Receiver;
use crate::Event;
use crate::wire::{AckKind, Incoming};
use std::collections::HashMap;

/// Who plays: everything that hears from the broker, apart from the sockets.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) publishers: Vec<Publisher>,
    pub(super) receivers: Vec<Receiver>,
    pub(super) retained: Churn,
    pub(super) subscriptions: Churn,
    /// The fault lasts: refusals are right.
    pub(super) failing: bool,
    /// The round whose probes count.
    pub(super) round: u64,
    /// Probes of this round that came to the session whose subscriptions come and go.
    pub(super) probed: HashMap<usize, u64>,
    pub(super) report: Report,
}

/// Whose client it is; clients are numbered in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Publisher(usize),
    Receiver(usize),
    Retained,
    Subscriptions,
    /// A client of the checks at the end of a round.
    Other,
}

impl Cast {
    pub(super) fn role(&self, client: usize) -> Role {
        let (publishers, receivers) = (self.publishers.len(), self.receivers.len());
        match client {
            client if client < publishers => Role::Publisher(client),
            client if client < publishers + receivers => Role::Receiver(client - publishers),
            client if client == publishers + receivers => Role::Retained,
            client if client == publishers + receivers + 1 => Role::Subscriptions,
            _ => Role::Other,
        }
    }

    pub(super) fn event(&mut self, client: usize, event: &Event<'_>, out: &mut Vec<u8>) {
        if let Event::Packet(Incoming::ConnAck { code, .. } | Incoming::Disconnect(code)) = event
            && *code >= 0x80
            && !self.failing
        {
            // A shutdown is not played here, and nobody does anything that deserves a refusal.
            self.report.stuck += 1;
            self.report.example(|| format!("client {client} is told {code:#04x}"));
        }
        match self.role(client) {
            Role::Publisher(index) => self.publisher(index, event, out),
            Role::Receiver(index) => self.receiver(index, event, out),
            Role::Retained => match event {
                Event::Packet(Incoming::ConnAck { code: 0, .. }) => self.retained.connected = true,
                Event::Packet(Incoming::Ack(AckKind::PubAck, id, ..0x80)) => self.retained.acknowledged(*id),
                Event::Closed => self.retained.disconnected(),
                Event::Packet(_) => {}
            },
            Role::Subscriptions => self.churner(event, out),
            Role::Other => {}
        }
    }

    fn publisher(&mut self, index: usize, event: &Event<'_>, out: &mut Vec<u8>) {
        let publisher = &mut self.publishers[index];
        match event {
            Event::Packet(Incoming::ConnAck { session_present, code: 0, receive_maximum }) => {
                publisher.connected(*session_present, *receive_maximum, out, &mut self.report);
            }
            Event::Packet(Incoming::Ack(kind, id, code)) => {
                if self.failing && *code >= 0x80 {
                    publisher.refused(*id);
                } else {
                    publisher.acknowledged(*kind, *id, *code, out, &mut self.report);
                }
            }
            Event::Closed => publisher.disconnected(),
            Event::Packet(_) => {}
        }
    }

    fn receiver(&mut self, index: usize, event: &Event<'_>, out: &mut Vec<u8>) {
        let receiver = &mut self.receivers[index];
        match event {
            Event::Packet(Incoming::ConnAck { session_present, code: 0, .. }) => {
                receiver.connected(*session_present, &mut self.report);
            }
            Event::Packet(Incoming::Publish(publish)) => {
                receiver.publish(publish, &self.publishers, out, &mut self.report);
            }
            Event::Packet(Incoming::Ack(AckKind::PubRel, id, _)) => receiver.released(*id, out),
            Event::Closed => receiver.connected = false,
            Event::Packet(_) => {}
        }
    }

    fn churner(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Packet(Incoming::ConnAck { code: 0, .. }) => self.subscriptions.connected = true,
            Event::Packet(Incoming::SubAck(id, [..0x80]) | Incoming::UnsubAck(id)) => {
                self.subscriptions.acknowledged(*id);
            }
            Event::Packet(incoming @ Incoming::Publish(publish)) => {
                crate::answer(incoming, out);
                let text = std::str::from_utf8(publish.payload).unwrap_or_default();
                if let Some((round, slot)) = text.split_once('/')
                    && round.parse() == Ok(self.round)
                    && let Ok(slot) = slot.parse()
                {
                    self.probed.insert(slot, self.round);
                }
            }
            Event::Closed => self.subscriptions.disconnected(),
            Event::Packet(_) => {}
        }
    }
}
