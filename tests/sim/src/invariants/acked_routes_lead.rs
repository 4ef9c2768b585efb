//! A SUBACK leaves only after the route is committed (design P1): in the end every topic that is subscribed to leads to its subscriber, on every
//! node. F05 of faults.md §2.

use crate::history::History;

pub(crate) fn check(history: &History) -> Vec<String> {
    let missing = history.routes.iter().filter(|(client, topic, _, leads)| {
        let subscriptions = history.subscriptions.get(client).into_iter().flatten();
        // The last word counts.
        let last = subscriptions.filter(|subscription| subscription.topic == *topic).next_back();
        !leads && last.is_some_and(|last| last.ended_at.is_none())
    });
    missing.map(|(client, topic, node, _)| format!("{topic} does not lead to {client} on n{}", node + 1)).collect()
}
