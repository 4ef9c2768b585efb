//! What is sent again carries DUP (design P3, MQTT-3.3.1-1): `missing DUP` in faults.md §1. And nothing is sent twice on one connection
//! (MQTT-4.4.0-1).

use crate::history::History;
use std::collections::BTreeMap;

pub(crate) fn check(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut sent = BTreeMap::new();
    for delivery in &history.deliveries {
        let before = sent.insert((&delivery.subscriber, delivery.entry), delivery.connection);
        let Some(before) = before else { continue };
        let who = format!("{} got entry {:?}", delivery.subscriber, delivery.entry);
        if before == delivery.connection {
            wrong.push(format!("{who} twice on connection {before}"));
        } else if !delivery.dup {
            wrong.push(format!("{who} again on connection {}, without DUP", delivery.connection));
        }
    }
    wrong
}
