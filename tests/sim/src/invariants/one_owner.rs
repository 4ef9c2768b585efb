//! One owner (design P4): whoever attached last owns the session. Versions rise with each attach, and what an earlier owner begins after that
//! changes nothing. `two owners` in faults.md §1.

use crate::history::{Attached, History};
use std::collections::BTreeMap;

pub(crate) fn check(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut by_client: BTreeMap<&str, Vec<&Attached>> = BTreeMap::new();
    for attached in &history.attaches {
        by_client.entry(&attached.client).or_default().push(attached);
    }
    for (client, attaches) in &by_client {
        for later in attaches {
            let order = |earlier: &&&Attached| earlier.ended < later.started && earlier.version >= later.version;
            if let Some(earlier) = attaches.iter().find(order) {
                wrong.push(format!("{client} was attached as {:?}, and later as {:?}", earlier.version, later.version));
            }
        }
    }
    for commit in &history.commits {
        let Some(attaches) = by_client.get(&*commit.client) else { continue };
        let newer = |attached: &&&Attached| attached.version > commit.version && attached.ended < commit.started;
        if let Some(newer) = attaches.iter().find(newer) {
            wrong.push(format!(
                "{} changed something as {:?} at {:.3}, while {:?} had owned it since {:.3}",
                commit.client,
                commit.version,
                commit.started.as_secs_f64(),
                newer.version,
                newer.ended.as_secs_f64()
            ));
        }
    }
    wrong
}
