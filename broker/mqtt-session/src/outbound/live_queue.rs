use crate::{Delivery, Settings};
use inbox_api::FullPolicy;
use std::collections::VecDeque;

/// QoS 1 and 2 messages that wait for room in the window of a session without an inbox.
#[derive(Debug, Default)]
pub(crate) struct LiveQueue {
    waiting: VecDeque<Delivery>,
    bytes: u64,
}

impl LiveQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Queues a message; tells how many gave way, this one among them.
    pub(crate) fn push(&mut self, delivery: Delivery, settings: &Settings) -> u64 {
        let cost = cost(&delivery);
        let mut dropped = 0;
        while !self.has_room(cost, settings) {
            match settings.session_inbox_full {
                FullPolicy::DropNewest | FullPolicy::Reject => return 1,
                FullPolicy::DropOldest => {
                    self.pop();
                    dropped += 1;
                }
            }
        }
        self.bytes += cost;
        self.waiting.push_back(delivery);
        dropped
    }

    fn has_room(&self, cost: u64, settings: &Settings) -> bool {
        self.waiting.is_empty()
            || (self.waiting.len() < settings.session_inbox_size as usize
                && self.bytes.saturating_add(cost) <= settings.session_inbox_bytes)
    }

    /// How many messages of any size fit for sure; none while others wait.
    pub(crate) fn room(&self, settings: &Settings) -> usize {
        if !self.waiting.is_empty() {
            return 0;
        }
        let largest = u64::from(settings.max_user_payload_bytes);
        let fit = (settings.session_inbox_bytes / largest).min(u64::from(settings.session_inbox_size));
        usize::try_from(fit).unwrap_or(usize::MAX).max(1)
    }

    pub(crate) fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.waiting.pop_front()?;
        self.bytes = self.bytes.saturating_sub(cost(&delivery));
        if self.waiting.is_empty() {
            // A burst is over: a session that waits costs nothing.
            self.waiting = VecDeque::new();
        }
        Some(delivery)
    }
}

fn cost(delivery: &Delivery) -> u64 {
    delivery.message.cost() as u64
}
