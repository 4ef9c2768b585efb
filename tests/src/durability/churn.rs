use super::Report;
use crate::random::Random;
use crate::wire::{self, Level};
use std::collections::HashMap;
use std::fmt;

/// Things that are set and cleared all the time: of each, what the last acknowledged operation left, and what later ones, whose
/// outcome is unknown, may have left instead.
#[derive(Debug)]
pub(super) struct Churn {
    pub(super) connected: bool,
    slots: Vec<Slot>,
    pending: HashMap<u16, (usize, Option<u64>)>,
    last_packet_id: u16,
    value: u64,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    /// `None`: cleared, or never set.
    settled: Option<u64>,
    unknown: Vec<Option<u64>>,
    busy: bool,
}

const IN_FLIGHT: usize = 5;

impl Churn {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            connected: false,
            slots: vec![Slot::default(); slots],
            pending: HashMap::new(),
            last_packet_id: 0,
            value: 0,
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.connected && self.pending.is_empty()
    }

    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        for (slot, value) in self.pending.drain().map(|(_, pending)| pending) {
            self.slots[slot].busy = false;
            self.slots[slot].unknown.push(value);
        }
    }

    /// Starts operations on random slots: `send(slot, value, packet id)`; no value clears.
    pub(super) fn step(&mut self, random: &mut Random, mut send: impl FnMut(usize, Option<u64>, u16)) {
        while self.connected && self.pending.len() < IN_FLIGHT {
            let slot = random.below(self.slots.len() as u64) as usize;
            if self.slots[slot].busy {
                return;
            }
            self.value += 1;
            let value = (random.below(3) > 0).then_some(self.value);
            self.last_packet_id = if self.last_packet_id == u16::MAX { 1 } else { self.last_packet_id + 1 };
            self.slots[slot].busy = true;
            self.pending.insert(self.last_packet_id, (slot, value));
            send(slot, value, self.last_packet_id);
        }
    }

    pub(super) fn acknowledged(&mut self, packet_id: u16) {
        if let Some((slot, value)) = self.pending.remove(&packet_id) {
            // What came before it on a connection that is over cannot happen any more.
            self.slots[slot] = Slot { settled: value, unknown: Vec::new(), busy: false };
        }
    }

    /// Which slots must be set, whatever became of unknown operations.
    pub(super) fn expected(&self) -> impl Iterator<Item = usize> + '_ {
        let sure = |slot: &Slot| slot.settled.is_some() && slot.unknown.iter().all(Option::is_some);
        self.slots.iter().enumerate().filter(move |(_, slot)| sure(slot)).map(|(index, _)| index)
    }

    /// Compares with what was seen: `seen(slot)` is its value. Where there are no values, as with subscriptions, only being set
    /// counts.
    pub(super) fn check(&self, what: &str, values: bool, seen: &HashMap<usize, u64>, report: &mut Report) {
        for (index, slot) in self.slots.iter().enumerate() {
            report.looked_up += 1;
            let found = seen.get(&index).copied();
            let allows = |value: Option<u64>| {
                if values { value == found } else { value.is_some() == found.is_some() }
            };
            if allows(slot.settled) || slot.unknown.iter().any(|value| allows(*value)) {
                continue;
            }
            *match (values, slot.settled, found) {
                (_, None, _) => &mut report.resurrected,
                (true, ..) => &mut report.retained_stale,
                (false, ..) => &mut report.subscriptions_lost,
            } += 1;
            report.example(|| format!("{what} {index}: {slot:?}, but found {found:?}"));
        }
    }
}

/// What waits for an answer: packet ids, of how many.
impl fmt::Display for Churn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pending: Vec<_> = self.pending.iter().collect();
        pending.sort();
        write!(f, "connected {}, packet ids up to {}, no answer to ", self.connected, self.last_packet_id)?;
        f.debug_list().entries(pending).finish()
    }
}

/// Appends the operation on a retained message.
pub(super) fn retain(out: &mut Vec<u8>, level: Level, slot: usize, value: Option<u64>, packet_id: u16) {
    let (topic, payload) = (format!("retained/{slot}"), value.map(|value| value.to_string()).unwrap_or_default());
    let (topic, payload) = (topic.as_bytes(), payload.as_bytes());
    wire::publish(out, level, &wire::Publish { dup: false, qos: 1, retain: true, packet_id, topic, payload });
}

/// Appends the operation on a subscription.
pub(super) fn subscription(out: &mut Vec<u8>, level: Level, slot: usize, value: Option<u64>, packet_id: u16) {
    let filter = format!("churn/{slot}");
    match value {
        Some(_) => wire::subscribe(out, level, packet_id, &[(filter, 1)]),
        None => wire::unsubscribe(out, level, packet_id, &filter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn churned(operations: &[(Option<u64>, bool)]) -> Churn {
        let mut churn = Churn::new(1);
        for (value, acknowledged) in operations {
            churn.connected = true;
            churn.last_packet_id += 1;
            churn.slots[0].busy = true;
            churn.pending.insert(churn.last_packet_id, (0, *value));
            if *acknowledged {
                churn.acknowledged(churn.last_packet_id);
            } else {
                churn.disconnected();
            }
        }
        churn
    }

    #[test]
    fn unknown_operations_may_have_happened_or_not() {
        let churn = churned(&[(Some(1), true), (None, false), (Some(3), false)]);
        for (found, wrong) in [(Some(1), 0), (None, 0), (Some(3), 0), (Some(2), 1)] {
            let mut report = Report::default();
            churn.check("x", true, &found.map(|value| (0, value)).into_iter().collect(), &mut report);
            assert_eq!(report.violations(), wrong, "{found:?}");
        }
    }

    #[test]
    fn a_cleared_value_that_is_there_again_is_told() {
        let mut report = Report::default();
        churned(&[(Some(1), false), (None, true)]).check("x", true, &HashMap::from([(0, 1)]), &mut report);
        assert_eq!(report.resurrected, 1);
    }
}
