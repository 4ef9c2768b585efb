//! An acknowledgement is a promise (design P1): what was acknowledged reaches every persistent session that had subscribed before it was sent,
//! and did not begin to unsubscribe. `lost` in the vocabulary of the checker (faults.md §1).

use crate::history::History;
use crate::node::BOUND;

pub(crate) fn check(history: &History) -> Vec<String> {
    let mut lost = Vec::new();
    for subscriber in history.subscriptions.keys() {
        let got = history.got(subscriber);
        for id in history.expected(subscriber, BOUND).difference(&got) {
            let message = &history.published[id];
            lost.push(format!(
                "{subscriber} never got {id:?} on {} (sent at {:.3}, acknowledged at {:.3})",
                message.topic,
                message.sent_at.as_secs_f64(),
                message.acked_at.unwrap_or_default().as_secs_f64()
            ));
        }
    }
    lost
}
