//! A will fires once when its connection ended without DISCONNECT, and never when DISCONNECT was acknowledged (MQTT 5.0 §3.1.2.5; F04 of
//! faults.md §2).

use crate::devices::FIRST_WITH_WILL;
use crate::history::History;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn check(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut fired: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for delivery in history.deliveries.iter().filter(|delivery| delivery.message.0 >= FIRST_WITH_WILL) {
        fired.entry(delivery.message).or_default().insert(delivery.entry);
    }
    for (id, entries) in &fired {
        if entries.len() > 1 {
            wrong.push(format!("will {id:?} fired {} times: {entries:?}", entries.len()));
        }
    }
    for will in &history.wills {
        let number = will.client.trim_start_matches('m').parse().unwrap_or(0);
        let has_fired = fired.contains_key(&(FIRST_WITH_WILL + number, will.number));
        if will.discarded && has_fired {
            wrong.push(format!("will {} of {} fired after DISCONNECT", will.number, will.client));
        }
        if will.due && !has_fired {
            wrong.push(format!("will {} of {} never fired", will.number, will.client));
        }
    }
    wrong
}
