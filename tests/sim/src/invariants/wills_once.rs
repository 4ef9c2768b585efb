//! A will fires once when its connection ended without DISCONNECT, and never when DISCONNECT was acknowledged (MQTT 5.0 §3.1.2.5; F04 of
//! faults.md §2). When clocks are wrong it may be late by that (F16), which is longer than a run.

use crate::devices::{FIRST_WITH_WILL, WILLS};
use crate::history::{Attached, History};
use crate::node::BOUND;
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
        let number: usize = will.client.trim_start_matches('m').parse().unwrap_or(0);
        let has_fired = fired.contains_key(&(FIRST_WITH_WILL + number, will.number));
        if will.discarded && has_fired {
            wrong.push(format!("will {} of {} fired after DISCONNECT", will.number, will.client));
        }
    }
    wrong.extend(missing(history));
    wrong
}

/// Wills whose connection ended for certain, since somebody else has the session now, and that did not fire.
pub(crate) fn missing(history: &History) -> Vec<String> {
    let fired: BTreeSet<_> = history.deliveries.iter().map(|delivery| delivery.message).collect();
    let subscriptions = history.subscriptions.values().flatten();
    let heard = subscriptions.filter(|subscription| subscription.topic == WILLS).map(|s| s.acked_at).min();
    let missing = history.wills.iter().filter(|will| {
        let number: usize = will.client.trim_start_matches('m').parse().unwrap_or(0);
        let later = |attached: &&Attached| attached.client == will.client && attached.version > will.version;
        will.due
            && !history.wrong_clocks
            && heard.is_some_and(|at| at + BOUND < will.set_at)
            && !fired.contains(&(FIRST_WITH_WILL + number, will.number))
            && history.attaches.iter().any(|attached| later(&attached))
    });
    missing.map(|will| format!("will {} of {} never fired", will.number, will.client)).collect()
}
