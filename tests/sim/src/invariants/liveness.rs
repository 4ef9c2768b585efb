//! After all faults every range has a leader and its voters within 10 s, for every node (faults.md §1, `liveness`).

use crate::history::History;

pub(crate) fn check(history: &History) -> Vec<String> {
    history.healed.as_ref().err().map(|why| format!("not well 10 s after the last fault: {why}")).into_iter().collect()
}
