use super::Report;
use super::publisher::{Publisher, payload};
use crate::wire::{self, AckKind, Level};
use std::collections::HashSet;

/// A persistent session that is subscribed to what one publisher publishes, with the publisher's QoS.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) publisher: usize,
    pub(super) level: Level,
    /// Connected all the time; otherwise only to drain.
    pub(super) live: bool,
    pub(super) connected: bool,
    known: bool,
    /// Which connection this is.
    connection: u32,
    /// Of each number, its last delivery.
    seen: Vec<Option<Seen>>,
    highest: Option<u64>,
    /// QoS 2: surfaced, and not yet released by PUBREL.
    unreleased: HashSet<u16>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    connection: u32,
    packet_id: u16,
}

impl Receiver {
    pub(super) fn new(publisher: usize, level: Level, live: bool) -> Self {
        Self {
            publisher,
            level,
            live,
            connected: false,
            known: false,
            connection: 0,
            seen: Vec::new(),
            highest: None,
            unreleased: HashSet::new(),
        }
    }

    pub(super) fn client_id(&self) -> String {
        format!("{}-{}", if self.live { "live" } else { "offline" }, self.publisher)
    }

    pub(super) fn connected(&mut self, session_present: bool, report: &mut Report) {
        self.connected = true;
        self.connection += 1;
        if self.known && !session_present {
            report.sessions_lost += 1;
            report.example(|| format!("the session of {} is gone", self.client_id()));
        }
        self.known = true;
    }

    pub(super) fn publish(
        &mut self,
        publish: &wire::Publish<'_>,
        publishers: &[Publisher],
        out: &mut Vec<u8>,
        report: &mut Report,
    ) {
        let number = publish.payload.get(4..12).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let publisher = &publishers[self.publisher];
        let genuine = number.filter(|number| {
            *number < publisher.fates.len() as u64
                && publish.payload == payload(self.publisher, *number)
                && publish.topic == publisher.topic().as_bytes()
                && publish.qos == publisher.qos
        });
        let answer = if publish.qos == 2 { AckKind::PubRec } else { AckKind::PubAck };
        wire::ack(out, answer, publish.packet_id);
        let Some(number) = genuine else {
            report.phantom += 1;
            report.example(|| format!("{} got what nobody published: {publish:?}", self.client_id()));
            return;
        };
        if publish.qos == 2 && !self.unreleased.insert(publish.packet_id) {
            // A repetition that the exchange of QoS 2 swallows.
            self.check_dup(publish, number, report);
            return;
        }
        if self.seen.len() <= number as usize {
            self.seen.resize(number as usize + 1, None);
        }
        let again = self.seen[number as usize].is_some_and(|seen| {
            if publish.qos == 2 {
                report.qos2_duplicates += 1;
                report.example(|| format!("{} surfaces {number} twice: {seen:?}, now {publish:?}", self.client_id()));
            } else if seen.connection == self.connection && !publisher.fates[number as usize].repeated {
                report.unexplained_duplicates += 1;
                report.example(|| format!("{} gets {number} twice: {seen:?}, now {publish:?}", self.client_id()));
            } else {
                report.explained_duplicates += 1;
            }
            true
        });
        if again {
            self.check_dup(publish, number, report);
        } else {
            report.delivered += 1;
            if let Some(highest) = self.highest.filter(|highest| number < *highest) {
                report.reordered += 1;
                report.example(|| format!("{} gets {number} after {highest}", self.client_id()));
            }
            self.highest = self.highest.max(Some(number));
        }
        self.seen[number as usize] = Some(Seen { connection: self.connection, packet_id: publish.packet_id });
    }

    pub(super) fn released(&mut self, packet_id: u16, out: &mut Vec<u8>) {
        self.unreleased.remove(&packet_id);
        wire::ack(out, AckKind::PubComp, packet_id);
    }

    /// What is acknowledged and did not come.
    pub(super) fn missing<'a>(&'a self, publisher: &'a Publisher) -> impl Iterator<Item = u64> + 'a {
        let expected = publisher.fates.iter().enumerate().filter(|(_, fate)| fate.acknowledged);
        let numbers = expected.map(|(number, _)| number);
        numbers.filter(|number| self.seen.get(*number).is_none_or(Option::is_none)).map(|number| number as u64)
    }

    /// The exchanges of QoS 2 are over.
    pub(super) fn is_settled(&self) -> bool {
        self.unreleased.is_empty()
    }

    fn check_dup(&self, publish: &wire::Publish<'_>, number: u64, report: &mut Report) {
        let before = self.seen.get(number as usize).copied().flatten();
        if !publish.dup && before.is_some_and(|seen| seen.packet_id == publish.packet_id) {
            report.missing_dup += 1;
            report.example(|| format!("{} gets {number} again without DUP: {before:?}", self.client_id()));
        }
    }
}
