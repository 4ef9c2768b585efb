use crate::reason::Settled;
use base_types::PacketId;
use std::collections::VecDeque;

/// An acknowledgement that is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) id: PacketId,
    /// PUBREC instead of PUBACK.
    pub(crate) exactly_once: bool,
    pub(crate) settled: Settled,
}

/// PUBLISHes of QoS 1 and 2 that are not answered yet. They are answered in their order, whatever the order in which their
/// outcomes come [MQTT-4.6.0-2, MQTT-4.6.0-3].
#[derive(Debug, Default)]
pub(crate) struct AckQueue {
    /// The operation of the first one; the others follow without gaps.
    first: u64,
    open: VecDeque<Answer>,
}

impl AckQueue {
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Opens one; gives its operation.
    pub(crate) fn push(&mut self, answer: Answer) -> u64 {
        let op = self.first + self.open.len() as u64;
        self.open.push_back(answer);
        op
    }

    pub(crate) fn get_mut(&mut self, op: u64) -> Option<&mut Answer> {
        let index = usize::try_from(op.checked_sub(self.first)?).ok()?;
        self.open.get_mut(index)
    }

    /// The next answer that can leave.
    pub(crate) fn pop(&mut self) -> Option<Answer> {
        if self.open.front()?.settled == Settled::Waiting {
            return None;
        }
        self.first += 1;
        self.open.pop_front()
    }

    /// How far the answer to a QoS 2 PUBLISH with this id is, if it is still due.
    pub(crate) fn settled(&self, id: PacketId) -> Option<Settled> {
        self.open.iter().find(|answer| answer.exactly_once && answer.id == id).map(|answer| answer.settled)
    }
}
