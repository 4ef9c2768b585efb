//! QoS 2 is exactly once (design P3, MQTT 5.0 §4.3.3): a message that was published with QoS 2 enters the queue of a subscriber once, however often
//! its PUBLISH was repeated, and is given to its application once. `QoS 2 duplicate` and `phantom` in faults.md §1.

use crate::devices::FIRST_WITH_WILL;
use crate::history::History;
use base_types::QoS;
use std::collections::BTreeMap;

pub(crate) fn check(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut entries = BTreeMap::new();
    for delivery in history.deliveries.iter().filter(|delivery| delivery.message.0 < FIRST_WITH_WILL) {
        let Some(published) = history.published.get(&delivery.message) else {
            wrong.push(format!("{} got {:?}, which nobody sent", delivery.subscriber, delivery.message));
            continue;
        };
        if published.topic != delivery.topic {
            wrong
                .push(format!("{:?} came on {} and was sent on {}", delivery.message, delivery.topic, published.topic));
        }
        if published.qos != QoS::ExactlyOnce {
            continue;
        }
        let key = (&delivery.subscriber, delivery.message);
        let first = entries.entry(key).or_insert((delivery.entry, 0));
        if first.0 != delivery.entry {
            wrong.push(format!("{} got {:?} as {:?} and as {:?}", key.0, key.1, first.0, delivery.entry));
        }
        if delivery.qos == QoS::ExactlyOnce && delivery.surfaced {
            first.1 += 1;
            if first.1 == 2 {
                wrong.push(format!("{} was given {:?} twice", key.0, key.1));
            }
        }
    }
    wrong
}
