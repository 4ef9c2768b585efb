//! What was acknowledged as gone stays gone: an UNSUBACK, and the clearing of a retained message. `resurrected` and `stale retained` in faults.md §1,
//! F05 and F06. (A retained message whose writer gave the connection up may come in late, and replace a later one: nothing orders the writes of two
//! connections. That is allowed here, and counted as a gap of the design.)

use crate::history::{History, Retained};

pub(crate) fn check(history: &History) -> Vec<String> {
    let mut wrong: Vec<String> = history
        .routes
        .iter()
        .filter(|(client, topic, _, leads)| {
            let subscriptions = history.subscriptions.get(client).into_iter().flatten();
            let last = subscriptions.filter(|subscription| subscription.topic == *topic).next_back();
            let tried = history.tried.get(&(client.clone(), topic.clone())).copied();
            *leads && last.is_some_and(|last| last.end_acked_at.is_some() && last.end_acked_at >= tried)
        })
        .map(|(client, topic, node, _)| format!("{topic} leads to {client} again on n{}", node + 1))
        .collect();
    for shown in &history.shown {
        let Some(changes) = history.retained.get(&shown.topic) else { continue };
        let settled = |change: &&Retained| change.acked_at.is_some_and(|at| at < shown.started);
        let oldest = changes.iter().filter(settled).map(|change| change.number).max().unwrap_or(0);
        let fits = |change: &Retained| {
            let number = change.set.then_some(change.number);
            let current = change.number >= oldest || change.abandoned;
            current && change.sent_at <= shown.ended && number == shown.number
        };
        if !(changes.iter().any(fits) || oldest == 0 && shown.number.is_none()) {
            wrong.push(format!(
                "at {:.3} {} showed {:?}, though number {oldest} was acknowledged",
                shown.started.as_secs_f64(),
                shown.topic,
                shown.number
            ));
        }
    }
    wrong
}
