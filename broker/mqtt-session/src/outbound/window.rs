use base_types::PacketId;
use inbox_api::packet_id_of;
use std::collections::VecDeque;

/// Packet ids repeat after so many entries: what is open must not span more.
const SPAN_MAX: usize = 65_534;

/// How far the delivery of one entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flight {
    /// Not in flight: done on an earlier connection, or not sent yet.
    Absent,
    /// PUBLISH of QoS 1 was sent; PUBACK is due.
    AwaitsPubAck,
    /// PUBLISH of QoS 2 was sent; PUBREC is due.
    AwaitsPubRec,
    /// PUBREC came; PUBREL waits for the commit.
    Releasing,
    /// PUBREL was sent; PUBCOMP is due.
    AwaitsPubComp,
    /// All is done.
    Done,
}

/// What is in flight to the client: entries in the order of their numbers, whose packet ids follow from the numbers.
///
/// A window never holds more than its limit [MQTT-3.3.4-9], and no packet id twice [MQTT-2.2.1-4].
#[derive(Debug)]
pub(crate) struct Window {
    /// The number of the first entry of `flights`.
    first: u64,
    /// The number of the next entry to send.
    next: u64,
    flights: VecDeque<Flight>,
    in_flight: u16,
    limit: u16,
}

impl Window {
    pub(crate) fn new(first: u64, limit: u16) -> Self {
        Self { first, next: first, flights: VecDeque::new(), in_flight: 0, limit }
    }

    pub(crate) fn limit(&self) -> u16 {
        self.limit
    }

    /// The number of the next entry to send: what is below has been sent, or done, on this connection.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Whether the entry can be sent now.
    pub(crate) fn admits(&self, seq: u64) -> bool {
        self.in_flight < self.limit && self.fits(seq)
    }

    fn fits(&self, seq: u64) -> bool {
        self.flights.is_empty()
            || usize::try_from(seq.saturating_sub(self.first)).is_ok_and(|distance| distance < SPAN_MAX)
    }

    /// The entry was sent. Entries come in the order of their numbers; those left out are done.
    pub(crate) fn sent(&mut self, seq: u64, flight: Flight) -> PacketId {
        self.pass(seq);
        if self.flights.is_empty() {
            self.first = seq;
        }
        self.put(seq, flight);
        self.next = seq + 1;
        packet_id_of(seq)
    }

    /// Entries below `next` that were not sent need no sending.
    pub(crate) fn pass(&mut self, next: u64) {
        self.next = self.next.max(next);
        self.shrink();
    }

    /// The entry was sent, and received, on an earlier connection: PUBREL is due again. False when it can't be.
    pub(crate) fn restore_released(&mut self, seq: u64) -> bool {
        let fits = seq >= self.first && seq - self.first < SPAN_MAX as u64;
        if fits {
            self.put(seq, Flight::AwaitsPubComp);
        }
        fits
    }

    fn put(&mut self, seq: u64, flight: Flight) {
        let Ok(index) = usize::try_from(seq.saturating_sub(self.first)) else { return };
        if self.flights.len() <= index {
            self.flights.resize(index + 1, Flight::Absent);
        }
        self.flights[index] = flight;
        self.in_flight = self.in_flight.saturating_add(1);
    }

    /// The entry that a packet id of the client names, and how far it is.
    pub(crate) fn find(&self, id: PacketId) -> Option<(u64, Flight)> {
        let first = u32::from(packet_id_of(self.first).get());
        let distance = (u32::from(id.get()) + 65_535 - first) % 65_535;
        let flight = *self.flights.get(usize::try_from(distance).ok()?)?;
        match flight {
            Flight::Absent | Flight::Done => None,
            _ => Some((self.first + u64::from(distance), flight)),
        }
    }

    /// The entry came further.
    pub(crate) fn advance(&mut self, seq: u64, flight: Flight) {
        let index = usize::try_from(seq.wrapping_sub(self.first)).unwrap_or(usize::MAX);
        if let Some(slot) = self.flights.get_mut(index) {
            *slot = flight;
            if flight == Flight::Done {
                self.in_flight = self.in_flight.saturating_sub(1);
                self.shrink();
            }
        }
    }

    fn shrink(&mut self) {
        while let Some(flight) = self.flights.front() {
            match flight {
                Flight::Done => {}
                Flight::Absent if self.first < self.next => {}
                _ => break,
            }
            self.flights.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU16;

    fn id(n: u16) -> PacketId {
        NonZeroU16::new(n).unwrap()
    }

    #[test]
    fn packet_ids_follow_the_numbers_around_the_end() {
        let mut window = Window::new(65_534, 10);
        assert_eq!(window.sent(65_534, Flight::AwaitsPubAck), id(65_534));
        assert_eq!(window.sent(65_535, Flight::AwaitsPubAck), id(65_535));
        assert_eq!(window.sent(65_536, Flight::AwaitsPubRec), id(1));
        assert_eq!(window.find(id(65_535)), Some((65_535, Flight::AwaitsPubAck)));
        assert_eq!(window.find(id(1)), Some((65_536, Flight::AwaitsPubRec)));
        assert_eq!(window.find(id(2)), None);
        window.advance(65_535, Flight::Done);
        assert_eq!(window.find(id(65_535)), None);
        assert_eq!(window.find(id(65_534)), Some((65_534, Flight::AwaitsPubAck)));
        window.advance(65_534, Flight::Done);
        assert_eq!(window.first, 65_536);
        assert_eq!(window.in_flight, 1);
    }

    #[test]
    fn an_entry_that_is_never_acknowledged_stops_the_window_before_its_id_repeats() {
        let mut window = Window::new(1, 10);
        window.sent(1, Flight::AwaitsPubAck);
        let mut seq = 2;
        while window.admits(seq) {
            window.sent(seq, Flight::AwaitsPubAck);
            window.advance(seq, Flight::Done);
            seq += 1;
        }
        assert_eq!(seq, 65_535);
        window.advance(1, Flight::Done);
        assert!(window.admits(seq));
    }

    #[test]
    fn released_entries_stay_while_those_between_them_are_sent_again() {
        let mut window = Window::new(10, 10);
        assert!(window.restore_released(12));
        assert!(window.restore_released(11));
        assert!(!window.restore_released(9));
        assert_eq!(window.in_flight, 2);
        window.sent(10, Flight::AwaitsPubAck);
        assert_eq!(window.find(packet_id_of(10)), Some((10, Flight::AwaitsPubAck)));
        assert_eq!(window.find(packet_id_of(11)), Some((11, Flight::AwaitsPubComp)));
        window.sent(13, Flight::AwaitsPubRec);
        window.advance(11, Flight::Done);
        window.advance(10, Flight::Done);
        assert_eq!(window.first, 12);
        assert_eq!(window.find(packet_id_of(12)), Some((12, Flight::AwaitsPubComp)));
    }
}
