use super::{Actor, Cast, Identity, Io, Phase, Wish, millis, payload, topic_of};
use crate::lab::checker::{Event, Message};
use crate::wire::{self, AckKind, Incoming};
use std::collections::VecDeque;

/// Publishes at its rate, and repeats what was not acknowledged on its next connection, in order.
pub(super) struct Publisher {
    run: u32,
    id: usize,
    qos: u8,
    persistent: bool,
    cast: Cast,
    next: u64,
    /// When the next one is due.
    due: u64,
    window: usize,
    in_flight: VecDeque<InFlight>,
    last_packet_id: u16,
    /// When it last sent or heard an acknowledgement: from then its patience counts.
    progress: u64,
}

#[derive(Clone, Copy)]
struct InFlight {
    packet_id: u16,
    number: u64,
    sent: u64,
    received: bool,
}

const WINDOW: usize = 20;

impl Publisher {
    pub(super) fn new(run: u32, id: usize, qos: u8, persistent: bool, cast: Cast, phase: u64) -> Self {
        let due = phase * 1_000_000;
        Self {
            run,
            id,
            qos,
            persistent,
            cast,
            next: 0,
            due,
            window: WINDOW,
            in_flight: VecDeque::new(),
            last_packet_id: 0,
            progress: 0,
        }
    }

    fn message(&self, number: u64) -> Message {
        Message { publisher: self.id, number }
    }

    fn send(&self, packet_id: u16, number: u64, dup: bool, io: &mut Io<'_>) {
        let message = self.message(number);
        let (topic, payload) =
            (topic_of(self.run, self.cast.topics, message), payload(self.run, message, self.cast.payload));
        let publish =
            wire::Publish { dup, qos: self.qos, retain: false, packet_id, topic: topic.as_bytes(), payload: &payload };
        wire::publish(io.out, io.level, &publish);
    }

    fn packet_id(&mut self) -> u16 {
        self.last_packet_id = if self.last_packet_id == u16::MAX { 1 } else { self.last_packet_id + 1 };
        self.last_packet_id
    }
}

impl Actor for Publisher {
    fn identity(&mut self) -> Identity {
        let client_id = format!("lab-{}-publisher-{}", self.run, self.id);
        Identity { client_id, persistent: self.persistent, will: None }
    }

    fn connected(&mut self, session_present: bool, receive_maximum: u16, io: &mut Io<'_>) {
        self.window = WINDOW.min(receive_maximum.into());
        self.progress = io.at;
        for index in 0..self.in_flight.len() {
            let InFlight { number, received, .. } = self.in_flight[index];
            if !session_present {
                // New to the server, under a new packet id. At QoS 2 a lost session would make it come twice: it is not sent again.
                if received || (self.qos == 2 && self.persistent) {
                    continue;
                }
                self.in_flight[index].packet_id = self.packet_id();
            }
            let packet_id = self.in_flight[index].packet_id;
            if received {
                wire::ack(io.out, AckKind::PubRel, packet_id);
            } else {
                io.see(Event::Repeated(self.message(number)));
                self.send(packet_id, number, session_present, io);
            }
        }
        if !session_present && self.qos == 2 {
            if self.next > 0 {
                io.checker.stuck(format!("the session of publisher {} is gone", self.id));
            }
            self.in_flight.clear();
        }
    }

    fn packet(&mut self, incoming: &Incoming<'_>, io: &mut Io<'_>) {
        let Incoming::Ack(kind, packet_id, code) = *incoming else { return };
        let Some(index) = self.in_flight.iter().position(|one| one.packet_id == packet_id) else { return };
        let InFlight { number, sent, received, .. } = self.in_flight[index];
        self.progress = io.at;
        match kind {
            // A PUBCOMP says 0x92 when the exchange was over before (5.0 §3.7.2.1).
            AckKind::PubComp => drop(self.in_flight.remove(index)),
            _ if code >= 0x80 => {
                io.see(Event::Refused(self.message(number)));
                self.in_flight.remove(index);
            }
            AckKind::PubAck | AckKind::PubRec => {
                if !received {
                    io.latency.record(io.at - sent);
                    io.see(Event::Acked(self.message(number), io.node));
                }
                if kind == AckKind::PubAck {
                    self.in_flight.remove(index);
                } else {
                    self.in_flight[index].received = true;
                    wire::ack(io.out, AckKind::PubRel, packet_id);
                }
            }
            AckKind::PubRel => {}
        }
    }

    fn disconnected(&mut self, _io: &mut Io<'_>) {}

    fn tick(&mut self, io: &mut Io<'_>) {
        if !io.online {
            return;
        }
        if !self.in_flight.is_empty() && io.at > self.progress + millis(self.cast.patience) {
            io.wish = Wish::Hop;
            return;
        }
        let pause = (1e9 / self.cast.rate) as u64;
        while io.phase == Phase::Play && io.at >= self.due && self.in_flight.len() < self.window {
            // What it could not send for a second it never wanted to.
            self.due = (self.due + pause).max(io.at.saturating_sub(1_000_000_000));
            let number = self.next;
            self.next += 1;
            io.see(Event::Sent(self.message(number)));
            let packet_id = if self.qos == 0 { 0 } else { self.packet_id() };
            self.send(packet_id, number, false, io);
            if self.qos > 0 {
                if self.in_flight.is_empty() {
                    self.progress = io.at;
                }
                self.in_flight.push_back(InFlight { packet_id, number, sent: io.at, received: false });
            }
        }
    }

    fn is_done(&self, phase: Phase) -> bool {
        phase == Phase::SetUp || self.in_flight.is_empty()
    }
}
