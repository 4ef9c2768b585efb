//! What must hold, one rule per file. Each looks at what clients saw, and at the replicas in the end.

mod acked_routes_lead;
mod duplicates_are_marked;
mod exactly_once;
mod exactly_one_lineage;
mod liveness;
mod no_acked_loss;
mod no_resurrection;
mod one_leader_per_term;
mod one_owner;
mod order;
mod replicas_equal;
mod sessions_stay;
mod wills_once;

use crate::history::History;
use std::fmt;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which rule was broken.
    pub invariant: &'static str,
    /// How.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

pub(crate) use wills_once::missing as missing_wills;

type Check = fn(&History) -> Vec<String>;

/// All rules, by name.
const ALL: [(&str, Check); 13] = [
    ("no acknowledged message is lost", no_acked_loss::check),
    ("exactly once", exactly_once::check),
    ("order", order::check),
    ("duplicates are marked", duplicates_are_marked::check),
    ("one owner", one_owner::check),
    ("sessions stay", sessions_stay::check),
    ("acknowledged routes lead", acked_routes_lead::check),
    ("no resurrection", no_resurrection::check),
    ("one leader per term", one_leader_per_term::check),
    ("replicas are equal", replicas_equal::check),
    ("exactly one lineage", exactly_one_lineage::check),
    ("wills fire once", wills_once::check),
    ("liveness", liveness::check),
];

/// Everything that is wrong.
pub(crate) fn check(history: &History) -> Vec<Finding> {
    let of = |(invariant, check): (&'static str, Check)| {
        check(history).into_iter().map(move |what| Finding { invariant, what })
    };
    ALL.into_iter().flat_map(of).collect()
}
