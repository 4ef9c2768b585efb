use super::Report;
use crate::wire::{self, AckKind, Level};
use std::collections::VecDeque;

/// One publisher, on a topic of its own.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) id: usize,
    pub(super) level: Level,
    pub(super) qos: u8,
    /// It has a session and repeats what was not acknowledged. Otherwise it forgets, and what it forgot is unknown.
    pub(super) persistent: bool,
    pub(super) connected: bool,
    /// It has had a CONNACK: from then on its session must be there.
    known: bool,
    window: usize,
    /// Of each message by number, what happened to it.
    pub(super) fates: Vec<Fate>,
    in_flight: VecDeque<InFlight>,
    last_packet_id: u16,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    pub(super) acknowledged: bool,
    /// Sent again after a reconnect.
    pub(super) repeated: bool,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    packet_id: u16,
    number: u64,
    /// PUBREC has come.
    received: bool,
    /// PUBREL was sent again after a reconnect: the server may have finished the exchange before, and forgotten it.
    released_again: bool,
}

const WINDOW: usize = 20;
const NOT_FOUND: u8 = 0x92;

impl Publisher {
    pub(super) fn new(id: usize, level: Level, qos: u8, persistent: bool) -> Self {
        Self {
            id,
            level,
            qos,
            persistent,
            connected: false,
            known: false,
            window: WINDOW,
            fates: Vec::new(),
            in_flight: VecDeque::new(),
            last_packet_id: 0,
        }
    }

    pub(super) fn client_id(&self) -> String {
        format!("publisher-{}", self.id)
    }

    pub(super) fn topic(&self) -> String {
        format!("durability/{}", self.id)
    }

    /// Nothing is on its way.
    pub(super) fn is_settled(&self) -> bool {
        self.connected && self.in_flight.is_empty()
    }

    pub(super) fn connected(
        &mut self,
        session_present: bool,
        receive_maximum: u16,
        out: &mut Vec<u8>,
        report: &mut Report,
    ) {
        self.connected = true;
        self.window = WINDOW.min(receive_maximum.into());
        if self.persistent && self.known && !session_present {
            report.sessions_lost += 1;
            report.example(|| format!("the session of {} is gone", self.client_id()));
        }
        self.known = true;
        // 5.0 §4.4: in the order in which they were sent, PUBLISH with DUP.
        for index in 0..self.in_flight.len() {
            let InFlight { packet_id, number, received, .. } = self.in_flight[index];
            if received {
                self.in_flight[index].released_again = true;
                wire::ack(out, AckKind::PubRel, packet_id);
            } else {
                self.fates[number as usize].repeated = true;
                self.send(packet_id, number, true, out);
            }
        }
    }

    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        if !self.persistent {
            self.in_flight.clear();
        }
    }

    /// Publishes what the window lets, up to the number `goal`.
    pub(super) fn fill(&mut self, goal: u64, out: &mut Vec<u8>, report: &mut Report) {
        while self.connected && self.in_flight.len() < self.window && (self.fates.len() as u64) < goal {
            let number = self.fates.len() as u64;
            self.last_packet_id = if self.last_packet_id == u16::MAX { 1 } else { self.last_packet_id + 1 };
            self.fates.push(Fate::default());
            self.in_flight.push_back(InFlight {
                packet_id: self.last_packet_id,
                number,
                received: false,
                released_again: false,
            });
            self.send(self.last_packet_id, number, false, out);
            report.published += 1;
        }
    }

    pub(super) fn acknowledged(
        &mut self,
        kind: AckKind,
        packet_id: u16,
        code: u8,
        out: &mut Vec<u8>,
        report: &mut Report,
    ) {
        let found = self.in_flight.iter().position(|in_flight| in_flight.packet_id == packet_id);
        // Packet Identifier not found is no error while a session recovers (5.0 §3.7.2.1).
        let recovers =
            |index: &usize| kind == AckKind::PubComp && code == NOT_FOUND && self.in_flight[*index].released_again;
        let Some(index) = found.filter(|index| code < 0x80 || recovers(index)) else {
            report.stuck += 1;
            report.example(|| format!("{} got {kind:?} {packet_id} with {code:#04x}", self.client_id()));
            return;
        };
        let number = self.in_flight[index].number;
        match kind {
            AckKind::PubAck => {
                self.own(number, report);
                self.in_flight.remove(index);
            }
            AckKind::PubRec => {
                self.own(number, report);
                self.in_flight[index].received = true;
                wire::ack(out, AckKind::PubRel, packet_id);
            }
            AckKind::PubComp => {
                self.in_flight.remove(index);
            }
            AckKind::PubRel => {}
        }
    }

    /// The server could not take it: whether it did is unknown.
    pub(super) fn refused(&mut self, packet_id: u16) {
        self.in_flight.retain(|in_flight| in_flight.packet_id != packet_id);
    }

    fn own(&mut self, number: u64, report: &mut Report) {
        let fate = &mut self.fates[number as usize];
        report.acknowledged += u64::from(!fate.acknowledged);
        fate.acknowledged = true;
    }

    fn send(&self, packet_id: u16, number: u64, dup: bool, out: &mut Vec<u8>) {
        let (topic, payload) = (self.topic(), payload(self.id, number));
        let publish =
            wire::Publish { dup, qos: self.qos, retain: false, packet_id, topic: topic.as_bytes(), payload: &payload };
        wire::publish(out, self.level, &publish);
    }
}

/// 12 bytes that say which message it is, and 100 to 355 more that follow from them.
pub(super) fn payload(publisher: usize, number: u64) -> Vec<u8> {
    let mut payload = (publisher as u32).to_be_bytes().to_vec();
    payload.extend_from_slice(&number.to_be_bytes());
    let mut mix = (number ^ (publisher as u64) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let length = 112 + (mix >> 56) as usize;
    while payload.len() < length {
        mix = mix.rotate_left(23).wrapping_mul(0x2545_f491_4f6c_dd1d);
        payload.push((mix >> 56) as u8);
    }
    payload
}
