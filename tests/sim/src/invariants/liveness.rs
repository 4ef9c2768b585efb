//! After all faults every range has a leader and its voters within 10 s, for every node, and a fresh publish is acknowledged (faults.md §1,
//! `liveness`).

use crate::history::History;

pub(crate) fn check(history: &History) -> Vec<String> {
    let never = history.healed.as_ref().err().map(|why| format!("not well 10 s after the last fault: {why}"));
    let slow = history
        .slow
        .iter()
        .map(|(at, took, ended)| format!("all was well, and until {:.3} it took {took:?}: {ended}", at.as_secs_f64()));
    never.into_iter().chain(slow).collect()
}
