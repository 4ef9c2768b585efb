//! Messages of one publisher on one topic with one QoS arrive in order (design P2, MQTT 5.0 §4.6): by their first deliveries, of those that the
//! subscriber had subscribed to before they were first sent. `reorder` in faults.md §1. (Of an earlier one an attempt that its publisher gave
//! up may come in late: if that is the first that finds the subscriber, it is out of order and owed to nobody.)

use crate::devices::FIRST_WITH_WILL;
use crate::history::{History, Subscription};
use crate::node::BOUND;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn check(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut last, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for delivery in history.deliveries.iter().filter(|delivery| delivery.message.0 < FIRST_WITH_WILL) {
        let (publisher, number) = delivery.message;
        if !seen.insert((&delivery.subscriber, delivery.message)) {
            continue;
        }
        let owed = history.published.get(&delivery.message).is_some_and(|published| {
            let subscriptions = history.subscriptions.get(&delivery.subscriber).into_iter().flatten();
            let in_time = |s: &Subscription| s.topic == delivery.topic && s.acked_at + BOUND <= published.first_sent_at;
            let mut lasting = subscriptions.filter(|s| s.ended_at.is_none_or(|ended| Some(ended) > published.acked_at));
            lasting.any(in_time)
        });
        if !owed {
            continue;
        }
        let before = last.entry((&delivery.subscriber, publisher, &delivery.topic)).or_insert(0);
        if *before > number {
            wrong.push(format!("{} got {:?} after number {before}", delivery.subscriber, delivery.message));
        }
        *before = number.max(*before);
    }
    wrong
}
