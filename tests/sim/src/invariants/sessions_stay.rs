//! A session that does not expire is there when its client comes back, in the same life (design P3; MQTT 5.0 §3.2.2.1.1): session present is 100 % in F04
//! and F31 of faults.md §2.

use crate::history::History;
use std::collections::BTreeMap;

pub(crate) fn check(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut lives = BTreeMap::new();
    for attached in &history.attaches {
        let life = *lives.entry(&attached.client).or_insert(attached.version.incarnation);
        if life != attached.version.incarnation {
            wrong.push(format!("{} had life {life}, and has {:?}", attached.client, attached.version));
        } else if !attached.present && is_again(history, attached) {
            wrong.push(format!("{} came back and no session was present", attached.client));
        }
    }
    wrong
}

fn is_again(history: &History, attached: &crate::history::Attached) -> bool {
    history.attaches.iter().any(|earlier| earlier.client == attached.client && earlier.ended < attached.started)
}
