//! Messages of one publisher on one topic with one QoS arrive in order (design P2, MQTT 5.0 §4.6): by their first deliveries. `reorder` in
//! faults.md §1.

use crate::devices::FIRST_WITH_WILL;
use crate::history::History;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn check(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut last, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for delivery in history.deliveries.iter().filter(|delivery| delivery.message.0 < FIRST_WITH_WILL) {
        let (publisher, number) = delivery.message;
        if !seen.insert((&delivery.subscriber, delivery.message)) {
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
